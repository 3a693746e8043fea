//! Shortest expected delay: the least active connections, with the new one, for each unit of weight.

use super::{Candidate, best, ratio_less};

#[inline]
pub(super) fn pick(list: &[Candidate]) -> Option<usize> {
    let delay = |c: &Candidate| u64::from(c.shared.active()) + 1;
    best(list, |a, b| ratio_less(delay(a), a.weight, delay(b), b.weight))
}
