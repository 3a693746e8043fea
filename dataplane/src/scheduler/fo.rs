//! Weighted failover: always the highest weight.

use super::{Candidate, best};

#[inline]
pub(super) fn pick(list: &[Candidate]) -> Option<usize> {
    best(list, |a, b| a.weight > b.weight)
}
