//! Weighted overflow: the highest weight whose active connections do not exceed it, so that one more than the weight fit.

use super::Candidate;

#[inline]
pub(super) fn pick(list: &[Candidate]) -> Option<usize> {
    let mut best: Option<(usize, u32)> = None;
    for (index, c) in list.iter().enumerate() {
        let fits = c.shared.active() <= c.weight && c.is_eligible();
        if fits && best.is_none_or(|(_, weight)| c.weight > weight) {
            best = Some((index, c.weight));
        }
    }
    best.map(|(index, _)| index)
}
