//! The better of two: two destinations drawn by weight, and of these the one with the lower overhead for each unit of
//! weight; the first drawn one if they are equal.
//!
//! Both draws come from one random word: the hash of the opening packet, which depends on the worker's secret seed, mixed
//! with the count of picks, so that the same packet draws anew.

use super::{Candidate, Place, overhead, ratio_less};

#[inline]
pub(super) fn pick(list: &[Candidate], place: &Place, hash: u64) -> Option<usize> {
    let total: u64 = list.iter().filter(|c| c.is_eligible()).map(|c| u64::from(c.weight)).sum();
    let draw = || below(random(hash, place.count()), total + 1);
    of_draws(list, [draw(), draw()])
}

/// The choice of two draws from 0 to the sum of the weights.
pub(super) fn of_draws(list: &[Candidate], draws: [u64; 2]) -> Option<usize> {
    let [first, second] = draws.map(|draw| drawn(list, draw));
    let (a, b) = (list.get(first?)?, list.get(second?)?);
    let second_is_better = ratio_less(overhead(b), b.weight, overhead(a), a.weight);
    if second_is_better { second } else { first }
}

/// The destination at which the weights from the head on reach `draw`. Where another worker's connection has just
/// overloaded those at the end, the last one that can take a connection.
fn drawn(list: &[Candidate], draw: u64) -> Option<usize> {
    let mut left = draw;
    let mut last = None;
    for (index, candidate) in list.iter().enumerate().filter(|(_, c)| c.is_eligible()) {
        last = Some(index);
        left = left.saturating_sub(u64::from(candidate.weight));
        if left == 0 {
            break;
        }
    }
    last
}

/// The finalizer of SplitMix64: each bit of the count moves each bit of the result.
fn random(hash: u64, count: u64) -> u64 {
    let mut z = hash ^ count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `random` scaled down to 0..`range`.
fn below(random: u64, range: u64) -> u64 {
    ((u128::from(random) * u128::from(range)) >> 64) as u64
}
