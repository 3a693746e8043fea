//! Never queue: the first destination without an active connection, else as `sed`.

use super::{Candidate, sed};

#[inline]
pub(super) fn pick(list: &[Candidate]) -> Option<usize> {
    list.iter().position(|c| c.shared.active() == 0 && c.is_eligible()).or_else(|| sed::pick(list))
}
