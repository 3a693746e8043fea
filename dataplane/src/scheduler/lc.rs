//! Least connections: the least overhead (256 for each active connection, 1 for each inactive one).

use super::{Candidate, best, overhead};

#[inline]
pub(super) fn pick(list: &[Candidate]) -> Option<usize> {
    best(list, |a, b| overhead(a) < overhead(b))
}
