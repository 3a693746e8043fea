//! Round robin: the next destination after the last one used. Weights count only in that 0 is skipped.
//!
//! The place is 0 before the head of the list, else the index of the destination last used plus 1.

use super::{Candidate, Place, Scheduler, change::Change};
use std::sync::Arc;

#[inline(always)]
pub(super) fn pick(list: &[Candidate], place: &Place) -> Option<usize> {
    place.advance(|word| {
        let after = (word as usize).min(list.len());
        let index = eligible_from(list, after, list.len()).or_else(|| eligible_from(list, 0, after))?;
        Some((index as u64 + 1, index))
    })
}

#[inline]
fn eligible_from(list: &[Candidate], from: usize, to: usize) -> Option<usize> {
    let part = list.get(from..to)?;
    part.iter().position(Candidate::is_eligible).map(|found| from + found)
}

/// The place after a change: it stays on the destination last used, or moves back to the nearest one before it that is
/// still there.
pub(super) fn carry((previous, place): (&Scheduler, &Arc<Place>), candidates: &[Candidate]) -> Arc<Place> {
    let change = Change::between(previous, candidates);
    if change.is_none() {
        return Arc::clone(place);
    }
    let last_used = place.get() as usize;
    // The list is the reverse of the order of addition: before in the list is later in that order.
    let Some(added_before) = previous.list.len().checked_sub(last_used).filter(|_| last_used > 0) else {
        return Place::new(0);
    };
    let stays = change.kept.iter().position(|&kept| kept >= added_before);
    // Of the new list, in which additions come first.
    Place::new(stays.map_or(0, |index| (candidates.len() - index) as u64))
}
