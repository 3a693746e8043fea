//! lblc and lblcr: what they remember of an address, for how long, and when they give it up.

use super::{cache::LIMIT, *};

/// A service of a mark, with packets to many addresses.
fn of_mark(kind: Kind, weights: &[u32]) -> Scheduler {
    let rule = Rule { many_addresses: true, ..kind.into() };
    Scheduler::compile(rule, candidates(weights), None)
}

fn to(scheduler: &Scheduler, address: &str, seconds: u32) -> char {
    letter(pick_for(scheduler, "10.9.9.9:1024", &format!("{address}:80"), Ticks::from_secs(seconds)))
}

fn shared(scheduler: &Scheduler, slot: usize) -> &DestinationShared {
    &scheduler.candidates()[scheduler.candidates().len() - 1 - slot].shared
}

fn connect(scheduler: &Scheduler, slot: usize, count: u32) {
    (0..count).for_each(|_| shared(scheduler, slot).connected(true));
}

fn entries(scheduler: &Scheduler) -> usize {
    match &scheduler.way {
        Way::Lblc(cache, _) | Way::Lblcr(cache, _) => cache.entries(),
        way => panic!("{way:?}"),
    }
}

const DAY: u32 = 24 * 60 * 60;

#[test]
fn an_address_keeps_its_server_and_another_gets_the_least_loaded() {
    for kind in [Kind::Lblc, Kind::Lblcr] {
        let scheduler = of_mark(kind, &[4, 4, 4]);
        assert_eq!(to(&scheduler, "10.0.0.100", 0), 'C', "the head of the list");
        connect(&scheduler, 2, 3);
        assert_eq!(to(&scheduler, "10.0.0.101", 1), 'B', "{kind:?}");
        assert_eq!(to(&scheduler, "10.0.0.100", 2), 'C', "remembered, though others have less");
    }
}

#[test]
fn a_crowded_server_gives_way_when_another_has_less_than_half_its_weight() {
    for kind in [Kind::Lblc, Kind::Lblcr] {
        let scheduler = of_mark(kind, &[4, 4]);
        assert_eq!(to(&scheduler, "10.0.0.100", 0), 'B');
        connect(&scheduler, 1, 4);
        assert_eq!(to(&scheduler, "10.0.0.100", 0), 'B', "as many as its weight");
        connect(&scheduler, 0, 2);
        connect(&scheduler, 1, 1);
        assert_eq!(to(&scheduler, "10.0.0.100", 0), 'B', "A has half its weight");
        shared(&scheduler, 0).disconnected(true);
        assert_eq!(to(&scheduler, "10.0.0.100", 0), 'A', "{kind:?}");
        assert_eq!(to(&scheduler, "10.0.0.100", 0), 'A');
        // What was B's is forgotten by lblc; lblcr has both and takes the less loaded.
        connect(&scheduler, 0, 5);
        (0..4).for_each(|_| shared(&scheduler, 1).disconnected(true));
        assert_eq!(to(&scheduler, "10.0.0.100", 0), 'B', "{kind:?}");
    }
}

#[test]
fn a_quiesced_overloaded_or_removed_server_gives_way() {
    for kind in [Kind::Lblc, Kind::Lblcr] {
        let scheduler = of_mark(kind, &[1, 1, 1]);
        assert_eq!(to(&scheduler, "10.0.0.100", 0), 'C');
        let scheduler = changed(&scheduler, |c| c[2].weight = 0);
        assert_eq!(to(&scheduler, "10.0.0.100", 0), 'B', "{kind:?}");
        shared(&scheduler, 1).set_thresholds(1, 0);
        connect(&scheduler, 1, 1);
        assert_eq!(to(&scheduler, "10.0.0.100", 0), 'A', "{kind:?}");
        let scheduler = changed(&scheduler, |c| drop(c.remove(0)));
        assert_eq!(to(&scheduler, "10.0.0.100", 0), '-', "{kind:?}");
    }
}

#[test]
fn a_server_that_took_the_slot_of_a_removed_one_is_not_it() {
    for kind in [Kind::Lblc, Kind::Lblcr] {
        let scheduler = of_mark(kind, &[1, 1]);
        assert_eq!(to(&scheduler, "10.0.0.100", 0), 'B');
        let scheduler = changed(&scheduler, |c| {
            c[1] = Candidate { generation: 2, ..candidate(1, 1) };
        });
        connect(&scheduler, 1, 1);
        assert_eq!(to(&scheduler, "10.0.0.100", 0), 'A', "{kind:?}: B is loaded, and was never chosen");
    }
}

#[test]
fn a_server_that_comes_back_finds_its_addresses_again() {
    for kind in [Kind::Lblc, Kind::Lblcr] {
        let with = of_mark(kind, &[8, 8]);
        assert_eq!(to(&with, "10.0.0.100", 0), 'B');
        let b = in_order(&with).remove(1);
        let without = changed(&with, |c| drop(c.remove(1)));
        let again = changed(&without, |c| c.push(b));
        connect(&again, 1, 1);
        assert_eq!(to(&again, "10.0.0.100", 0), 'B', "{kind:?}");
    }
}

#[test]
fn an_address_that_was_not_used_for_a_day_is_forgotten_at_the_next_half_hour() {
    for kind in [Kind::Lblc, Kind::Lblcr] {
        let scheduler = of_mark(kind, &[8, 8]);
        assert_eq!(to(&scheduler, "10.0.0.100", 0), 'B');
        connect(&scheduler, 1, 1);
        // Half hours are counted from the first pick. At one day the entry was not older than a day.
        assert_eq!(to(&scheduler, "10.0.0.100", DAY + 1799), 'B', "{kind:?}");
        assert_eq!(
            to(&scheduler, "10.0.0.100", 2 * DAY + 1799),
            'B',
            "less than a day at the half hour before"
        );
        assert_eq!(to(&scheduler, "10.0.0.100", 3 * DAY + 1800), 'A', "{kind:?}: a day and one second");
    }
}

#[test]
fn a_set_that_has_not_changed_for_a_day_gives_up_the_most_loaded_server() {
    let scheduler = of_mark(Kind::Lblcr, &[2, 2]);
    assert_eq!(to(&scheduler, "10.0.0.100", 0), 'B');
    connect(&scheduler, 1, 3);
    assert_eq!(to(&scheduler, "10.0.0.100", 1000), 'A', "joins the set");
    // Half the weight: not little enough for B to be crowded.
    connect(&scheduler, 0, 1);
    assert_eq!(to(&scheduler, "10.0.0.100", 1000 + DAY), 'A', "a day is not more than a day");
    assert_eq!(to(&scheduler, "10.0.0.100", 1001 + DAY), 'A', "and B is given up");
    connect(&scheduler, 0, 4);
    assert_eq!(to(&scheduler, "10.0.0.100", 1001 + DAY), 'A', "though B has less now");
}

#[test]
fn memory_is_bounded_and_old_entries_go_first_when_there_are_too_many() {
    const MANY: u32 = 30_000;
    let scheduler = of_mark(Kind::Lblc, &[1, 1]);
    let visit = |n: u32, seconds: u32| {
        let address = SocketAddr::new([10, 8 | (n >> 16) as u8, (n >> 8) as u8, n as u8].into(), 80);
        let client = SocketAddr::new([10, 9, 9, 9].into(), 1024);
        pick_between(&scheduler, client, address, Ticks::from_secs(seconds))
    };
    (0..MANY).for_each(|n| assert!(visit(n, 0).is_some(), "remembered or not"));
    let full = entries(&scheduler);
    assert!(full > LIMIT && full <= LIMIT / 2 * 3, "{full}");
    // At five minutes none is old enough. A thousand are used again.
    (0..1000).for_each(|n| {
        visit(n, 300);
    });
    assert_eq!(entries(&scheduler), full);
    // At six minutes the others are. 64 picks look at all parts.
    (0..100).for_each(|n| {
        visit(n, 360);
    });
    assert!(entries(&scheduler) <= 1000, "{}", entries(&scheduler));
}

#[test]
fn a_service_at_one_address_remembers_all_its_servers() {
    let scheduler = Scheduler::compile(Kind::Lblcr, candidates(&[1; 20]), None);
    for n in (0..20).rev() {
        assert_eq!(pick(&scheduler), Some(n));
        shared(&scheduler, n as usize).set_thresholds(1, 0);
        connect(&scheduler, n as usize, 1);
    }
    let more = changed(&scheduler, |c| c.push(candidate(20, 1)));
    assert_eq!(pick(&more), Some(20));
    shared(&more, 20).set_thresholds(1, 0);
    connect(&more, 20, 1);
    shared(&more, 3).set_thresholds(0, 0);
    assert_eq!(pick(&more), Some(3));
    assert_eq!(pick(&changed(&more, |c| c.truncate(2))), None);
}

#[test]
fn servers_that_are_gone_take_no_room_from_those_that_come() {
    let mut scheduler = Scheduler::compile(Kind::Lblcr, candidates(&[1]), None);
    assert_eq!(pick(&scheduler), Some(0));
    for slot in 1..40 {
        scheduler = changed(&scheduler, |c| *c = vec![candidate(slot, 1)]);
        assert_eq!(pick(&scheduler), Some(slot));
    }
    connect(&scheduler, 0, 1);
    let scheduler = changed(&scheduler, |c| c.push(candidate(40, 1)));
    assert_eq!(pick(&scheduler), Some(39), "remembered, though another has less");
}

#[test]
fn workers_that_meet_at_one_address_agree_on_a_server() {
    let scheduler = Scheduler::compile(Kind::Lblc, candidates(&[1; 8]), None);
    let first = pick(&scheduler).expect("a server");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    // All have no connections: the choice without the memory is the same.
                    assert_eq!(pick(&scheduler), Some(first));
                }
            });
        }
    });
    assert_eq!(entries(&scheduler), 1);
}
