use super::*;

const TIMEOUT: Ticks = Ticks::from_secs(120);

fn key(client: u32) -> TemplateKey {
    TemplateKey { protocol: 6, client: IpAddr::V4(client.into()), address: [10, 0, 0, 100].into(), port: 0 }
}

fn at(seconds: u32) -> Ticks {
    // Near the wrap of the clock.
    Ticks(u32::MAX - 5_000).plus(Ticks::from_secs(seconds))
}

/// One destination in slot 7.
struct Server(Arc<DestinationShared>);

impl Server {
    fn follow(&self, templates: &Templates, client: u32, now: Ticks) -> (bool, Held) {
        let mut scheduled = false;
        let pick = || {
            scheduled = true;
            Some(Picked { slot: 7, generation: 3, shared: self.0.clone() })
        };
        let is_usable = |slot, generation| (slot, generation) == (7, 3);
        let (slot, held) = templates.follow(&key(client), (now, TIMEOUT), is_usable, pick).unwrap();
        assert_eq!(slot, 7);
        (scheduled, held)
    }
}

#[test]
fn a_template_lives_for_its_timeout_from_the_last_new_connection() {
    let (templates, server) = (Templates::new(64 * 4), Server(Arc::default()));
    let (scheduled, first) = server.follow(&templates, 1, at(0));
    assert!(scheduled && first.is_some());
    templates.release(first, (7, 3), at(1));
    let (scheduled, second) = server.follow(&templates, 1, at(119));
    assert!(!scheduled, "it is remembered");
    templates.release(second, (7, 3), at(120));
    let (scheduled, third) = server.follow(&templates, 1, at(119 + 119));
    assert!(!scheduled, "the second connection began the time anew");
    templates.release(third, (7, 3), at(119 + 119));
    let (scheduled, _) = server.follow(&templates, 1, at(119 + 119 + 120));
    assert!(scheduled, "it has ended");
    assert_eq!(server.0.templates(), 1);
}

#[test]
fn a_template_with_connections_lives_on_in_steps_of_a_minute() {
    let (templates, server) = (Templates::new(64 * 4), Server(Arc::default()));
    let (_, held) = server.follow(&templates, 1, at(0));
    let remaining = |now| {
        let mut records = (0..templates.capacity()).filter_map(|n| templates.record(n, now));
        records.next().map(|record| record.remaining.0 / Ticks::PER_SECOND)
    };
    assert_eq!((remaining(at(0)), remaining(at(119))), (Some(120), Some(1)));
    // Beyond 120 seconds to 180, then to 240.
    assert_eq!((remaining(at(130)), remaining(at(190))), (Some(50), Some(50)));
    templates.release(held, (7, 3), at(190));
    assert_eq!((remaining(at(239)), remaining(at(240))), (Some(1), None));
}

#[test]
fn what_has_ended_is_found_and_forgotten_a_part_at_a_time() {
    let (templates, server) = (Templates::new(64 * 8), Server(Arc::default()));
    for client in 0..64 {
        let (_, held) = server.follow(&templates, client, at(0));
        templates.release(held, (7, 3), at(0));
    }
    let (_, held) = server.follow(&templates, 1000, at(0));
    assert_eq!(server.0.templates(), 65);
    (0..64 * 8).for_each(|_| templates.expire(at(119), 4));
    assert_eq!(server.0.templates(), 65);
    (0..64 * 8).for_each(|_| templates.expire(at(121), 4));
    assert_eq!(server.0.templates(), 1, "the one with a connection");
    templates.release(held, (7, 3), at(121));
    (0..64 * 8).for_each(|_| templates.expire(at(181), 4));
    assert_eq!(server.0.templates(), 0);
}

#[test]
fn a_template_that_cannot_be_used_is_made_anew() {
    let (templates, server) = (Templates::new(64 * 4), Server(Arc::default()));
    let (_, held) = server.follow(&templates, 1, at(0));
    let other = Arc::new(DestinationShared::default());
    let pick = || Some(Picked { slot: 8, generation: 1, shared: other.clone() });
    let follow = |usable: bool| templates.follow(&key(1), (at(1), TIMEOUT), |_, _| usable, pick).unwrap().0;
    assert_eq!(follow(false), 8);
    assert_eq!((server.0.templates(), other.templates()), (0, 1));
    // The connection of the old one ends: it is not the new one's.
    templates.release(held, (7, 3), at(2));
    assert_eq!(follow(true), 8);
    let none = templates.follow(&key(2), (at(1), TIMEOUT), |_, _| true, || None);
    assert!(none.is_none(), "no server, no template");
}

#[test]
fn without_room_another_gives_way_and_nothing_grows() {
    let (templates, server) = (Templates::new(64 * 4), Server(Arc::default()));
    let mut held = Vec::new();
    for client in 0..10_000 {
        held.push(server.follow(&templates, client, at(client / 1000)).1);
    }
    assert!(held.iter().all(|held| held.is_some()));
    assert!(server.0.templates() <= 64 * 4);
    // Connections of those that gave way end as well.
    held.into_iter().for_each(|held| templates.release(held, (7, 3), at(20)));
    (0..64).for_each(|_| templates.expire(at(200), 4));
    assert_eq!(server.0.templates(), 0);
    let (scheduled, held) = server.follow(&Templates::default(), 1, at(0));
    assert!(scheduled && !held.is_some(), "without any room each is scheduled");
}

#[test]
fn a_flood_of_new_clients_takes_no_room_from_those_that_stay() {
    let (templates, server) = (Templates::new(64 * 64), Server(Arc::default()));
    for client in 0..1_000 {
        let (_, held) = server.follow(&templates, client, at(0));
        templates.release(held, (7, 3), at(1));
    }
    let flood: Vec<Held> = (0..50_000).map(|n| server.follow(&templates, 1_000_000 + n, at(2)).1).collect();
    assert!(templates.gave_way() > 40_000);
    let forgotten = (0..1_000).filter(|client| server.follow(&templates, *client, at(3)).0).count();
    // A few stand among eight older ones, so that all that were looked at are theirs: one of such an eight gives way, and
    // is the flood's from then on. How many eights there are is up to the hash, but no more than 1000 / 8.
    assert!(forgotten <= 125, "{forgotten} of 1000 clients were forgotten");
    flood.into_iter().for_each(|held| templates.release(held, (7, 3), at(4)));
}

#[test]
fn a_network_is_the_first_bits_of_an_address() {
    let v4 = |prefix| network([10, 9, 7, 255].into(), prefix).to_string();
    assert_eq!([0, 8, 23, 24, 32].map(v4), ["0.0.0.0", "10.0.0.0", "10.9.6.0", "10.9.7.0", "10.9.7.255"]);
    let address: IpAddr = "fd00:1:2:3:4:5:6:7".parse().unwrap();
    let v6 = |prefix| network(address, prefix).to_string();
    assert_eq!([0, 48, 64, 128].map(v6), ["::", "fd00:1:2::", "fd00:1:2:3::", "fd00:1:2:3:4:5:6:7"]);
}

#[test]
fn workers_that_ask_at_once_get_one_answer() {
    let (templates, shared) = (Templates::new(64 * 4), Arc::new(DestinationShared::default()));
    let next = AtomicUsize::new(0);
    let answers: Vec<u32> = std::thread::scope(|scope| {
        let ask = || {
            let pick = || {
                let slot = next.fetch_add(1, Relaxed) as u32;
                Some(Picked { slot, generation: 1, shared: shared.clone() })
            };
            templates.follow(&key(9), (at(0), TIMEOUT), |_, _| true, pick).map(|(slot, _)| slot)
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(answers, [0; 8]);
}

#[test]
fn calls_of_one_client_have_templates_of_their_own() {
    let (templates, shared) = (Templates::new(64 * 4), Arc::new(DestinationShared::default()));
    let follow = |client: u32, call_id: &[u8], slot: u32| {
        let pick = || Some(Picked { slot, generation: 1, shared: shared.clone() });
        templates.follow_call(&key(client), call_id, (at(0), TIMEOUT), |_, _| true, pick).unwrap()
    };
    let longest = [b'c'; 255];
    let calls: [(u32, &[u8], u32); 5] = [
        (1, b"843817637684230@998sdasdh09", 1),
        (1, b"a84b4c76e66710", 2),
        (2, b"a84b4c76e66710", 3),
        (1, b"", 4),
        (1, &longest, 5),
    ];
    let held = calls.map(|(client, call_id, slot)| follow(client, call_id, slot).1);
    for (client, call_id, slot) in calls {
        assert_eq!(follow(client, call_id, 9).0, slot, "it stays where it was");
    }
    assert_eq!(follow(1, &[b'c'; 256], 9).0, 5);
    let mut listed: Vec<_> = (0..templates.capacity())
        .filter_map(|number| templates.record(number, at(1)))
        .map(|record| (record.slot, record.call_id.map(|call_id| call_id.as_bytes().to_vec())))
        .collect();
    listed.sort();
    let expected = calls.map(|(_, call_id, slot)| (slot, Some(call_id.to_vec()).filter(|id| !id.is_empty())));
    assert_eq!(listed, expected);
    // Two connections each, and of the longest three.
    held.iter()
        .zip(calls)
        .for_each(|(held, call)| (0..3).for_each(|_| templates.release(*held, (call.2, 1), at(1))));
    (0..64).for_each(|_| templates.expire(at(200), 4));
    assert_eq!(shared.templates(), 0);
}

#[test]
fn calls_take_no_more_memory_than_there_was_room_for() {
    let (templates, shared) = (Templates::new(64 * 4), Arc::new(DestinationShared::default()));
    let measured = allocation_counter::measure(|| {
        for n in 0..10_000u32 {
            let (call_id, now) = (n.to_be_bytes(), at(n / 1000));
            let pick = || Some(Picked { slot: 7, generation: 3, shared: shared.clone() });
            let call_id = if n % 3 == 0 { &[][..] } else { &call_id };
            let (_, held) =
                templates.follow_call(&key(n), call_id, (now, TIMEOUT), |_, _| true, pick).unwrap();
            templates.release(held, (7, 3), now);
        }
        (0..64).for_each(|_| templates.expire(at(500), 4));
    });
    assert_eq!((measured.count_total, shared.templates()), (0, 0));
}
