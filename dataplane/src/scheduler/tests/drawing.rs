//! twos: the choice of every two draws, and how often they come.

use super::*;

/// How often each destination is picked by 40,000 clients.
fn shares(scheduler: &Scheduler) -> Vec<u32> {
    let mut counts = vec![0; scheduler.candidates().len()];
    for n in 0..40_000u32 {
        let client = SocketAddr::new([10, (n >> 8) as u8, n as u8, 1].into(), 1024);
        let service = SocketAddr::new([10, 0, 0, 100].into(), 80);
        counts[pick_between(scheduler, client, service, Ticks(0)).expect("a server") as usize] += 1;
    }
    counts
}

fn near(counts: &[u32], expected: &[u32]) -> bool {
    counts.iter().zip(expected).all(|(count, expected)| count.abs_diff(*expected) < 800)
}

#[test]
fn twos_draws_by_weight_where_the_loads_are_equal() {
    // Without connections all loads are 0, so that the first draw stands. Its range has one more than the weights, the
    // 0, which is the head's.
    let counts = shares(&fresh("twos", &[4, 3, 2]));
    assert!(near(&counts, &[16_000, 12_000, 12_000]), "{counts:?}");
}

#[test]
fn twos_takes_the_less_loaded_of_two() {
    let scheduler = fresh("twos", &[1, 1]);
    scheduler.candidates()[0].shared.connected(true);
    // The head, B, has 2 of 3 draws. It is taken only when it is drawn twice.
    let counts = shares(&scheduler);
    assert!(near(&counts, &[40_000 * 5 / 9, 40_000 * 4 / 9]), "{counts:?}");
}

#[test]
fn twos_draws_anew_for_the_same_packet() {
    let picked = picks(&fresh("twos", &[1, 1]), 64);
    assert!(picked.contains('A') && picked.contains('B'), "{picked}");
}

#[test]
fn twos_goes_on_with_the_largest_weights() {
    const MOST: u32 = (1 << 31) - 1;
    let counts = shares(&fresh("twos", &[MOST, MOST, 0]));
    assert!(near(&counts, &[20_000, 20_000, 0]) && counts[2] == 0, "{counts:?}");
}

/// The rule as it is told: walk the list and take weights from the draw, until nothing is left of it.
fn walked(list: &[Candidate], draw: u64) -> usize {
    let mut left = draw as i64;
    for (at, candidate) in list.iter().enumerate() {
        if candidate.weight > 0 && !candidate.shared.overloaded() {
            left -= i64::from(candidate.weight);
            if left <= 0 {
                return at;
            }
        }
    }
    panic!("the draw is at most the sum of the weights");
}

proptest! {
    #[test]
    fn twos_chooses_of_every_two_draws_as_the_rule_says(
        servers in proptest::collection::vec((0u32..4, 0u32..3, 0u32..3, any::<bool>()), 1..6),
    ) {
        let scheduler = fresh("twos", &servers.iter().map(|server| server.0).collect::<Vec<_>>());
        for (c, (_, active, inactive, overloaded)) in in_order(&scheduler).iter().zip(&servers) {
            (0..*active).for_each(|_| c.shared.connected(true));
            (0..*inactive).for_each(|_| c.shared.connected(false));
            c.shared.set_thresholds(u32::from(*overloaded), 0);
        }
        let list = scheduler.candidates();
        let total: u32 = list.iter().filter(|c| !c.shared.overloaded()).map(|c| c.weight).sum();
        if total == 0 {
            prop_assert_eq!(pick(&scheduler), None);
            return Ok(());
        }
        let load = |at: usize| {
            let c = &list[at];
            f64::from(c.shared.active() * 256 + c.shared.inactive()) / f64::from(c.weight)
        };
        for (a, b) in (0..=total).flat_map(|a| (0..=total).map(move |b| (a.into(), b.into()))) {
            let (first, second) = (walked(list, a), walked(list, b));
            let better = if load(second) < load(first) { second } else { first };
            prop_assert_eq!(twos::of_draws(list, [a, b]), Some(better));
        }
    }
}
