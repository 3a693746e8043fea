//! What has changed in the destinations of a service.

use super::{Candidate, Scheduler};

/// The difference between two lists, as commands that make one into the other: deletions, changes of weight, and
/// additions, which always come last in the order of addition. A destination that was deleted and added again in one
/// change is both.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Of the destinations that stay, their numbers in the previous order of addition. They are the first of the new
    /// ones; all after them are additions.
    pub(super) kept: Vec<usize>,
    /// Weights of the deleted ones.
    pub(super) deleted: Vec<u32>,
    /// Of those that stay and are edited, the weights before and after.
    pub(super) edited: Vec<(u32, u32)>,
    added: usize,
}

impl Change {
    /// From `previous` to `candidates` (in the order of addition).
    pub(super) fn between(previous: &Scheduler, candidates: &[Candidate]) -> Change {
        let mut change = Change::default();
        let mut before = previous.list.iter().rev().enumerate();
        for candidate in candidates {
            let mut ahead = before.clone();
            let Some((number, old)) = ahead.find(|(_, old)| old.is(candidate)) else {
                break;
            };
            before = ahead;
            change.kept.push(number);
            if (old.weight, old.settings) != (candidate.weight, candidate.settings) {
                change.edited.push((old.weight, candidate.weight));
            }
        }
        let mut kept = change.kept.iter().peekable();
        for (number, old) in previous.list.iter().rev().enumerate() {
            if kept.next_if_eq(&&number).is_none() {
                change.deleted.push(old.weight);
            }
        }
        change.added = candidates.len() - change.kept.len();
        change
    }

    /// Whether the lists are the same.
    pub(super) fn is_none(&self) -> bool {
        self.deleted.is_empty() && self.edited.is_empty() && self.added == 0
    }
}
