//! sh, dh and mh: literals worked out from the rules by hand, and from the measured hashes of addresses.

use super::*;

fn of(kind: Kind, weights: &[u32], fallback: bool, port: bool) -> Scheduler {
    let rule = Rule { flags: Flags { fallback, port }, ..kind.into() };
    Scheduler::compile(rule, candidates(weights), None)
}

/// Picks for clients at port 1024, to 10.0.0.100.
fn for_clients(scheduler: &Scheduler, clients: &[&str]) -> String {
    let pick = |client: &&str| pick_for(scheduler, &format!("{client}:1024"), "10.0.0.100:80", Ticks(0));
    clients.iter().map(pick).map(letter).collect()
}

/// Of places 39, 137, 248 and 124.
const MEASURED: [&str; 4] = ["10.0.0.1", "10.0.0.2", "192.168.1.10", "203.0.113.7"];

#[test]
fn sh_finds_the_server_at_the_measured_place_of_a_client() {
    // The list C B A fills places 0, 1, 2 and so on: 39 is C, 137 (3 x 45 + 2) is A, 248 (3 x 82 + 2) is A, 124 is B.
    assert_eq!(for_clients(&of(Kind::Sh, &[1, 1, 1], false, false), &MEASURED), "CAAB");
    // With weights 2, 1 and 0, a cycle is C B A A: 39 = 36 + 3 is A, 137 = 136 + 1 is B, 248 and 124 are C, which has
    // weight 0.
    assert_eq!(for_clients(&of(Kind::Sh, &[2, 1, 0], false, false), &MEASURED), "AB--");
}

#[test]
fn dh_finds_the_server_at_the_measured_place_of_the_virtual_address() {
    for weights in [[1, 1, 1], [5, 9, 3]] {
        let scheduler = of(Kind::Dh, &weights, false, false);
        let to = |address: &&str| pick_for(&scheduler, "10.9.9.9:1", &format!("{address}:80"), Ticks(0));
        let picked: String = MEASURED.iter().map(to).map(letter).collect();
        assert_eq!(picked, "CAAB", "weights do not count");
    }
}

#[test]
fn dh_finds_none_where_the_server_at_the_place_can_take_no_connection() {
    let scheduler = of(Kind::Dh, &[1, 0, 1], true, true);
    let to = |address: &&str| pick_for(&scheduler, "10.9.9.9:1", &format!("{address}:80"), Ticks(0));
    assert_eq!(MEASURED.iter().map(to).map(letter).collect::<String>(), "CAA-");
    let a = scheduler.candidates().last().expect("A").shared.clone();
    a.set_thresholds(1, 0);
    a.connected(true);
    assert_eq!(MEASURED.iter().map(to).map(letter).collect::<String>(), "C---");
}

#[test]
fn sh_port_makes_the_port_count() {
    // 10.0.0.1 and port 1 are the word of 10.0.0.2; 10.0.0.0 and port 1 that of 10.0.0.1.
    let scheduler = of(Kind::Sh, &[1, 1, 1], false, true);
    assert_eq!(letter(pick_for(&scheduler, "10.0.0.1:1", "10.0.0.100:80", Ticks(0))), 'A');
    assert_eq!(letter(pick_for(&scheduler, "10.0.0.0:1", "10.0.0.100:80", Ticks(0))), 'C');
    let without = of(Kind::Sh, &[1, 1, 1], false, false);
    assert_eq!(letter(pick_for(&without, "10.0.0.1:1", "10.0.0.100:80", Ticks(0))), 'C');
}

#[test]
fn sh_fallback_looks_from_offset_to_offset() {
    // The client 10.0.0.1 has place 39 (C). Without C: offset 39 is place 78 (C), offset 40 place 79 (B).
    let scheduler = of(Kind::Sh, &[1, 1, 0], true, false);
    assert_eq!(for_clients(&scheduler, &MEASURED[..1]), "B");
    // Without C and B, offset 41 is place 80 (A).
    assert_eq!(for_clients(&of(Kind::Sh, &[1, 0, 0], true, false), &MEASURED[..1]), "A");
    assert_eq!(for_clients(&of(Kind::Sh, &[0, 0, 0], true, false), &MEASURED[..1]), "-");
    // 192.168.1.10 has place 248 (A). Without A: offset 248 is place 496 - 256 = 240 (C).
    assert_eq!(for_clients(&of(Kind::Sh, &[0, 1, 1], true, false), &MEASURED[2..3]), "C");
}

#[test]
fn ipv6_clients_are_hashed_by_the_exclusive_or_of_their_words() {
    // a00:1:: and 0:0:a00:1:: have the word 0x0a000001, that of 10.0.0.1.
    let scheduler = of(Kind::Sh, &[1, 1, 1], false, false);
    for client in ["[a00:1::]:5", "[::a00:1:0:0]:5", "[::a00:1]:5", "[a00:0:0:1::]:5"] {
        assert_eq!(letter(pick_for(&scheduler, client, "[fd00::100]:80", Ticks(0))), 'C', "{client}");
    }
}

#[test]
fn mh_keeps_its_table_while_a_server_is_quiesced() {
    let scheduler = of(Kind::Mh, &[1, 2, 3], false, false);
    let clients: Vec<String> = (0..200).map(|n| format!("10.1.{}.{}", n % 7, n)).collect();
    let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
    let before = for_clients(&scheduler, &clients);
    for letter in "ABC".chars() {
        assert!(before.contains(letter), "{before}");
    }
    let quiesced = changed(&scheduler, |c| c[1].weight = 0);
    assert_eq!(for_clients(&quiesced, &clients), before.replace('B', "-"), "nobody else moves");
    let back = changed(&quiesced, |c| c[1].weight = 2);
    assert_eq!(for_clients(&back, &clients), before);
}

#[test]
fn mh_fallback_finds_another_server_and_moves_nobody_else() {
    let scheduler = of(Kind::Mh, &[1, 1, 1], true, false);
    let clients: Vec<String> = (0..200).map(|n| format!("10.1.{}.{}", n % 7, n)).collect();
    let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
    let before = for_clients(&scheduler, &clients);
    let after = for_clients(&changed(&scheduler, |c| c[1].weight = 0), &clients);
    for (before, after) in before.chars().zip(after.chars()) {
        assert!(if before == 'B' { "AC".contains(after) } else { before == after });
    }
    let none = changed(&scheduler, |c| c.iter_mut().for_each(|c| c.weight = 0));
    assert_eq!(for_clients(&none, &clients[..3]), "---");
}

#[test]
fn mh_follows_the_order_of_addition_only_in_who_comes_first() {
    // Two directors agree if the servers were added in the same order.
    let clients: Vec<String> = (0..200).map(|n| format!("10.1.{}.{}", n % 7, n)).collect();
    let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
    let one = of(Kind::Mh, &[3, 2, 1], false, true);
    let mut grown = Scheduler::compile(Kind::Mh, Vec::new(), None);
    for candidate in candidates(&[3, 2, 1]) {
        grown = changed(&grown, |c| c.push(candidate));
    }
    let rule = Rule { flags: Flags { fallback: false, port: true }, ..Kind::Mh.into() };
    let grown = Scheduler::compile(rule, in_order(&grown), Some(&grown));
    assert_eq!(for_clients(&one, &clients), for_clients(&grown, &clients));
}

#[test]
fn tables_are_made_anew_only_when_something_in_them_changes() {
    let table = |scheduler: &Scheduler| match &scheduler.way {
        Way::Sh(places) | Way::Dh(places) => places.as_ptr().cast::<u8>(),
        Way::Mh(table) => Arc::as_ptr(table).cast::<u8>(),
        way => panic!("{way:?}"),
    };
    for kind in [Kind::Sh, Kind::Dh, Kind::Mh] {
        let scheduler = of(kind, &[2, 1], false, false);
        let rule = Rule { flags: Flags { fallback: true, port: true }, ..kind.into() };
        let other_flags = Scheduler::compile(rule, in_order(&scheduler), Some(&scheduler));
        assert_eq!(table(&scheduler), table(&other_flags), "{kind:?}");
        let heavier = changed(&scheduler, |c| c[0].weight = 3);
        assert_ne!(table(&scheduler), table(&heavier), "{kind:?}");
    }
    let scheduler = of(Kind::Mh, &[2, 1], false, false);
    let quiesced = changed(&scheduler, |c| c[0].weight = 0);
    assert_eq!(table(&scheduler), table(&quiesced), "a quiesced server keeps its places");
}
