//! Least connections by weight: the least overhead for each unit of weight.

use super::{Candidate, best, overhead, ratio_less};

#[inline]
pub(super) fn pick(list: &[Candidate]) -> Option<usize> {
    best(list, |a, b| ratio_less(overhead(a), a.weight, overhead(b), b.weight))
}
