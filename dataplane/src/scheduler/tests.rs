//! The vectors that were measured on the original, and a slow model of its rules.

mod drawing;
mod hashing;
mod locality;
mod model;

use super::*;
use crate::conn::key::{Key4, Key6};
use crate::snapshot::Method;
use proptest::prelude::*;
use std::net::IpAddr;

/// Destinations of these weights, in slots 0, 1, 2, ... called A, B, C, ...
fn candidates(weights: &[u32]) -> Vec<Candidate> {
    weights.iter().enumerate().map(|(slot, weight)| candidate(slot as u32, *weight)).collect()
}

/// In slot n: 192.168.50.(11 + n):80.
fn candidate(slot: u32, weight: u32) -> Candidate {
    let server = SocketAddr::new([192, 168, 50, (11 + slot) as u8].into(), 80);
    Candidate {
        slot,
        generation: 1,
        server,
        weight,
        settings: (0, 0, Method::Direct),
        shared: Arc::default(),
    }
}

/// A pick for a client that does not matter.
fn pick(scheduler: &Scheduler) -> Option<u32> {
    pick_for(scheduler, "10.0.0.2:8080", "10.0.0.100:80", Ticks(0))
}

fn pick_for(scheduler: &Scheduler, client: &str, service: &str, now: Ticks) -> Option<u32> {
    let (client, service): (SocketAddr, SocketAddr) =
        (client.parse().expect("a client"), service.parse().expect("a service"));
    pick_between(scheduler, client, service, now)
}

fn pick_between(scheduler: &Scheduler, client: SocketAddr, service: SocketAddr, now: Ticks) -> Option<u32> {
    let ports = [client.port().to_be_bytes(), service.port().to_be_bytes()].concat();
    let ports = ports.try_into().expect("four bytes");
    match (client.ip(), service.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat().try_into().expect("eight bytes");
            let key = Key4::from_wire(addresses, ports, 6);
            scheduler.pick(&Opening { key: &key, hash: key.hash(&[3, 5]), now })
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let key = Key6::from_wire(from.octets(), to.octets(), ports, 6);
            scheduler.pick(&Opening { key: &key, hash: key.hash(&[3, 5]), now })
        }
        _ => panic!("one family"),
    }
}

fn fresh(kind: &str, weights: &[u32]) -> Scheduler {
    Scheduler::compile(Kind::parse(kind).expect("a scheduler"), candidates(weights), None)
}

/// In the order of addition again, for the next change.
fn in_order(scheduler: &Scheduler) -> Vec<Candidate> {
    scheduler.candidates().iter().rev().cloned().collect()
}

fn changed(scheduler: &Scheduler, change: impl FnOnce(&mut Vec<Candidate>)) -> Scheduler {
    let mut candidates = in_order(scheduler);
    change(&mut candidates);
    Scheduler::compile(scheduler.rule, candidates, Some(scheduler))
}

fn letter(pick: Option<u32>) -> char {
    pick.map_or('-', |slot| char::from(b'A' + slot as u8))
}

/// Picks whose connections never begin.
fn picks(scheduler: &Scheduler, count: usize) -> String {
    (0..count).map(|_| letter(pick(scheduler))).collect()
}

/// Picks whose connections begin and stay, active or inactive.
fn connections(scheduler: &Scheduler, active: bool, count: usize) -> String {
    let pick = |_| {
        let slot = pick(scheduler);
        if let Some(c) = scheduler.candidates().iter().find(|c| Some(c.slot) == slot) {
            c.shared.connected(active);
        }
        letter(slot)
    };
    (0..count).map(pick).collect()
}

#[test]
fn rr_gives_the_measured_order() {
    assert_eq!(picks(&fresh("rr", &[1, 1, 1]), 6), "CBACBA");
    assert_eq!(picks(&fresh("rr", &[5, 0, 1]), 4), "CACA");
}

#[test]
fn wrr_gives_the_measured_order_with_its_first_lap() {
    assert_eq!(picks(&fresh("wrr", &[4, 3, 2]), 21), "CBAABACBACBAABACBACBA");
    assert_eq!(picks(&fresh("wrr", &[3, 1]), 8), "BAAABAAA");
}

#[test]
fn wrr_gives_the_recorded_order_of_twenty_connections() {
    let recorded = "r3 r2 r1 r1 r2 r1 r3 r2 r1 r3 r2 r1 r1 r2 r1 r3 r2 r1 r3 r2";
    let scheduler = fresh("wrr", &[4, 3, 2]);
    let names: Vec<String> =
        (0..20).map(|_| format!("r{}", pick(&scheduler).expect("three servers") + 1)).collect();
    assert_eq!(names.join(" "), recorded);
}

#[test]
fn least_connection_schedulers_give_the_measured_order() {
    for active in [true, false] {
        assert_eq!(connections(&fresh("lc", &[1, 1, 1]), active, 6), "CBACBA");
        assert_eq!(connections(&fresh("wlc", &[4, 3, 2]), active, 12), "CBAABCABACBA");
    }
    assert_eq!(connections(&fresh("sed", &[4, 3, 2]), true, 9), "ABCABACBA");
    assert_eq!(connections(&fresh("nq", &[4, 3, 2]), true, 9), "CBAABACBA");
}

#[test]
fn failover_and_overflow_give_the_measured_order() {
    assert_eq!(connections(&fresh("fo", &[2, 3, 1]), true, 4), "BBBB");
    assert_eq!(connections(&fresh("ovf", &[2, 3, 1]), true, 11), "BBBBAAACC--");
}

#[test]
fn an_active_connection_weighs_as_256_inactive_ones() {
    let scheduler = fresh("lc", &[1, 1]);
    scheduler.candidates()[0].shared.connected(true);
    assert_eq!(connections(&scheduler, false, 256), "A".repeat(256));
    assert_eq!(letter(pick(&scheduler)), 'B', "256 of each: the head of the list wins");
}

#[test]
fn the_largest_weights_do_not_overflow() {
    const MOST: u32 = (1 << 31) - 1;
    assert_eq!(picks(&fresh("wrr", &[MOST, MOST]), 4), "BABA");
    assert_eq!(picks(&fresh("wrr", &[MOST, 1]), 4), "BAAA");
    assert_eq!(connections(&fresh("wlc", &[MOST, MOST - 1]), true, 4), "BAAB");
    for kind in ["wlc", "sed"] {
        let scheduler = fresh(kind, &[MOST, 1]);
        (0..1000).for_each(|_| scheduler.candidates()[1].shared.connected(true));
        scheduler.candidates()[0].shared.connected(true);
        assert_eq!(letter(pick(&scheduler)), 'A', "{kind}");
    }
}

#[test]
fn quiesced_and_overloaded_destinations_get_nothing() {
    use Kind::*;
    for kind in [Rr, Wrr, Lc, Wlc, Sed, Nq, Fo, Ovf, Lblc, Lblcr, Twos] {
        let scheduler = Scheduler::compile(kind, candidates(&[2, 0, 3]), None);
        scheduler.candidates()[0].shared.set_thresholds(1, 0);
        scheduler.candidates()[0].shared.connected(true);
        assert_eq!(picks(&scheduler, 3), "AAA", "{kind:?}");
        scheduler.candidates()[2].shared.set_thresholds(1, 0);
        scheduler.candidates()[2].shared.connected(true);
        assert_eq!(picks(&scheduler, 2), "--", "{kind:?}");
        assert_eq!(picks(&Scheduler::compile(kind, candidates(&[0, 0]), None), 1), "-", "{kind:?}");
        assert_eq!(picks(&Scheduler::compile(kind, candidates(&[]), None), 1), "-", "{kind:?}");
    }
}

#[test]
fn rr_goes_on_after_the_destination_before_a_deleted_one() {
    // The list is D C B A. After C was used and deleted, the place is on D, so B is next.
    let scheduler = fresh("rr", &[1, 1, 1, 1]);
    assert_eq!(picks(&scheduler, 2), "DC");
    let scheduler = changed(&scheduler, |c| drop(c.remove(2)));
    assert_eq!(picks(&scheduler, 4), "BADB");
    // B was used last and stays; E comes to the head.
    let e = candidates(&[0, 0, 0, 0, 1]).remove(4);
    let scheduler = changed(&scheduler, |c| c.push(e));
    assert_eq!(picks(&scheduler, 5), "AEDBA");
    // A is the tail and was used last; without A and B the place is on D.
    let scheduler = changed(&scheduler, |c| drop(c.drain(..2)));
    assert_eq!(picks(&scheduler, 3), "EDE");
    // Without E, the head, the place is before the list.
    let scheduler = changed(&scheduler, |c| drop(c.pop()));
    assert_eq!(picks(&scheduler, 2), "DD");
}

#[test]
fn a_destination_that_was_deleted_and_added_again_is_at_the_head() {
    let scheduler = fresh("rr", &[1, 1, 1]);
    assert_eq!(picks(&scheduler, 3), "CBA");
    let scheduler = changed(&scheduler, |c| c.rotate_left(1));
    // The list is A C B; A was deleted when it was used last: the place moved back to B, the tail.
    assert_eq!(picks(&scheduler, 4), "ACBA");
}

#[test]
fn an_unchanged_service_shares_its_place() {
    for kind in ["rr", "wrr"] {
        let old = fresh(kind, &[1, 1, 1]);
        let new = changed(&old, |_| ());
        assert_eq!([pick(&old), pick(&new), pick(&old)].map(letter), ['C', 'B', 'A'], "{kind}");
    }
}

#[test]
fn a_changed_scheduler_begins_with_the_whole_list() {
    // Not with the level of the first destination added: the heavy one leads from the first lap on.
    let rr = fresh("rr", &[4, 3, 2]);
    let wrr = Scheduler::compile(Kind::Wrr, in_order(&rr), Some(&rr));
    assert_eq!(picks(&wrr, 9), "ABACBACBA");
}

#[test]
fn wrr_keeps_its_level_across_a_change() {
    let scheduler = fresh("wrr", &[4, 3, 2]);
    // In the second lap, at level 4 (A), then at level 3 (B).
    assert_eq!(picks(&scheduler, 5), "CBAAB");
    let edited = changed(&scheduler, |c| c[2].weight = 3);
    // Level 3 from the head: C B A, level 2: C B A, level 1: C B A, level 4: A.
    assert_eq!(picks(&edited, 10), "CBACBACBAA");
}

#[test]
fn names_are_those_of_the_original() {
    let names = "rr wrr lc wlc sed nq sh dh lblc lblcr mh fo ovf twos";
    assert_eq!(Kind::ALL.map(Kind::name).join(" "), names);
    for name in names.split(' ') {
        assert_eq!(Kind::parse(name).map(Kind::name), Some(name));
    }
    assert_eq!(Kind::parse("RR"), None);
    assert_eq!(Kind::parse(""), None);
}

#[test]
fn two_workers_share_one_round() {
    const EACH: usize = 30_000;
    for kind in ["rr", "wrr"] {
        let scheduler = fresh(kind, &[1, 1, 1, 1, 1, 1, 1]);
        let count = |_| {
            let mut counts = [0usize; 7];
            (0..EACH).for_each(|_| counts[pick(&scheduler).expect("seven") as usize] += 1);
            counts
        };
        let counts = std::thread::scope(|scope| {
            let threads = [0, 1].map(|n| scope.spawn(move || count(n)));
            threads.map(|t| t.join().expect("a worker"))
        });
        let total: Vec<usize> = (0..7).map(|slot| counts[0][slot] + counts[1][slot]).collect();
        assert_eq!(total.iter().sum::<usize>(), 2 * EACH);
        let (least, most) = (total.iter().min().expect("seven"), total.iter().max().expect("seven"));
        assert!(most - least <= 1, "{kind}: {total:?}");
    }
}

/// The rules as they are told: a list to walk, one destination and one level at a time.
struct Model {
    weighted: bool,
    /// From the last one added to the first: slot, weight, whether overloaded.
    list: Vec<(u32, u32, bool)>,
    /// Slot of the one last used; `None` before the head.
    cl: Option<u32>,
    cw: i64,
    mw: i64,
    di: i64,
}

impl Model {
    fn new(weighted: bool) -> Self {
        Self { weighted, list: Vec::new(), cl: None, cw: 0, mw: 0, di: 1 }
    }

    fn add(&mut self, slot: u32, weight: u32) {
        self.list.insert(0, (slot, weight, false));
        self.changed();
    }

    fn delete(&mut self, slot: u32) {
        let at = self.position(slot);
        if self.cl == Some(slot) {
            self.cl = at.checked_sub(1).map(|before| self.list[before].0);
        }
        self.list.remove(at);
        self.changed();
    }

    fn edit(&mut self, slot: u32, weight: u32) {
        let at = self.position(slot);
        self.list[at].1 = weight;
        self.changed();
    }

    fn position(&self, slot: u32) -> usize {
        self.list.iter().position(|d| d.0 == slot).expect("in the list")
    }

    fn changed(&mut self) {
        if !self.weighted {
            return;
        }
        self.cl = None;
        let most = self.list.iter().map(|d| i64::from(d.1)).max().unwrap_or(0);
        let divides = |d: &i64| self.list.iter().all(|x| i64::from(x.1) % d == 0);
        self.di = (1..=most).rev().find(divides).unwrap_or(1);
        self.mw = most - (self.di - 1);
        if self.cw > self.mw || self.cw == 0 {
            self.cw = self.mw;
        } else if self.di > 1 {
            self.cw = self.cw / self.di * self.di + 1;
        }
    }

    fn pick(&mut self) -> Option<u32> {
        let can = |d: &&(u32, u32, bool)| d.1 > 0 && !d.2;
        self.list.iter().find(can)?;
        let mut at = self.cl.map_or(0, |slot| self.position(slot) + 1);
        loop {
            while at < self.list.len() {
                let (slot, weight, overloaded) = self.list[at];
                if weight > 0 && !overloaded && (!self.weighted || i64::from(weight) >= self.cw) {
                    self.cl = Some(slot);
                    return Some(slot);
                }
                at += 1;
            }
            at = 0;
            if self.weighted {
                self.cw -= self.di;
                if self.cw <= 0 {
                    self.cw = self.mw;
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(u32),
    Delete(usize),
    Edit(usize, u32),
    Overload(usize, bool),
    Pick(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let weight = prop_oneof![0u32..6, (1u32..5).prop_map(|w| w * 6), 1u32..100];
    prop_oneof![
        2 => weight.clone().prop_map(Step::Add),
        1 => any::<usize>().prop_map(Step::Delete),
        2 => (any::<usize>(), weight).prop_map(|(at, weight)| Step::Edit(at, weight)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(at, over)| Step::Overload(at, over)),
        3 => (0usize..40).prop_map(Step::Pick),
    ]
}

/// What a step does to both, except picks.
fn apply(step: &Step, candidates: &mut Vec<Candidate>, model: &mut Model, next_slot: &mut u32) {
    match *step {
        Step::Add(weight) => {
            candidates.push(candidate(*next_slot, weight));
            model.add(*next_slot, weight);
            *next_slot += 1;
        }
        Step::Delete(at) if !candidates.is_empty() => {
            let gone = candidates.remove(at % candidates.len());
            model.delete(gone.slot);
        }
        Step::Edit(at, weight) if !candidates.is_empty() => {
            let at = at % candidates.len();
            // A change of nothing is no change in a snapshot: then it is one of the thresholds.
            candidates[at].settings.0 += u32::from(candidates[at].weight == weight);
            candidates[at].weight = weight;
            model.edit(candidates[at].slot, weight);
        }
        Step::Overload(at, over) if !candidates.is_empty() => {
            let candidate = &candidates[at % candidates.len()];
            if over != candidate.shared.overloaded() {
                if over {
                    candidate.shared.set_thresholds(1, 0);
                    candidate.shared.connected(false);
                } else {
                    candidate.shared.set_thresholds(0, 0);
                    candidate.shared.disconnected(false);
                }
            }
            let at = model.position(candidate.slot);
            model.list[at].2 = over;
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn rr_and_wrr_follow_the_model_through_any_changes(
        weighted: bool,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let kind = if weighted { Kind::Wrr } else { Kind::Rr };
        let mut model = Model::new(weighted);
        let mut next_slot = 0;
        let mut scheduler = Scheduler::compile(kind, Vec::new(), None);
        for step in &steps {
            if let Step::Pick(count) = step {
                for _ in 0..*count {
                    prop_assert_eq!(pick(&scheduler), model.pick());
                }
                continue;
            }
            let mut candidates = in_order(&scheduler);
            apply(step, &mut candidates, &mut model, &mut next_slot);
            scheduler = Scheduler::compile(kind, candidates, Some(&scheduler));
        }
    }

    #[test]
    fn several_changes_at_once_are_deletions_then_edits_then_additions(
        weighted: bool,
        first in proptest::collection::vec(0u32..20, 1..8),
        used in 0usize..30,
        stays in proptest::collection::vec(any::<bool>(), 8),
        edits in proptest::collection::vec(proptest::option::of(0u32..20), 8),
        added in proptest::collection::vec(0u32..20, 0..4),
    ) {
        let kind = if weighted { Kind::Wrr } else { Kind::Rr };
        let mut model = Model::new(weighted);
        let mut candidates = candidates(&first);
        candidates.iter().for_each(|c| model.add(c.slot, c.weight));
        let scheduler = Scheduler::compile(kind, candidates.clone(), None);
        for _ in 0..used {
            prop_assert_eq!(pick(&scheduler), model.pick());
        }
        for slot in (0..first.len() as u32).filter(|slot| !stays[*slot as usize]) {
            model.delete(slot);
        }
        candidates.retain(|c| stays[c.slot as usize]);
        for c in &mut candidates {
            if let Some(weight) = edits[c.slot as usize].filter(|w| *w != c.weight) {
                c.weight = weight;
                model.edit(c.slot, weight);
            }
        }
        for (n, weight) in added.iter().enumerate() {
            let slot = 100 + n as u32;
            candidates.push(candidate(slot, *weight));
            model.add(slot, *weight);
        }
        let scheduler = Scheduler::compile(kind, candidates, Some(&scheduler));
        for _ in 0..60 {
            prop_assert_eq!(pick(&scheduler), model.pick());
        }
    }
}
