//! What waits for another fragment of its datagram: a few, and not for long.

use crate::{limits::HELD_MILLIS, time::Nanos};

/// In the order in which they came; where there is no room, the oldest gives way.
pub struct Waiting<T> {
    all: Vec<(T, Nanos)>,
    room: usize,
    /// How much was known when they were last looked at; nothing since another has come, or some were left.
    known: Option<u64>,
}

impl<T> Waiting<T> {
    /// Empty, with all the memory that it will use.
    pub(super) fn with_room(room: usize) -> Self {
        Self { all: Vec::with_capacity(room), room, known: None }
    }

    /// How many wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Has one more wait. Returns the oldest if there is no room for both: it is to be dropped.
    #[must_use]
    pub(super) fn push(&mut self, what: T, now: Nanos) -> Option<T> {
        let oldest = (self.all.len() == self.room).then(|| self.all.remove(0).0);
        self.all.push((what, now));
        // What it waits for may have become known since it was asked for.
        self.known = None;
        oldest
    }

    /// Gives those that are over, in order and at most `most`. `known` is how much is known of what they wait for: while it is
    /// the same, none is asked again.
    pub(super) fn release(
        &mut self,
        known: u64,
        most: usize,
        mut is_over: impl FnMut(&mut T) -> bool,
        mut give: impl FnMut(T),
    ) {
        if self.known == Some(known) {
            return;
        }
        let mut left = most;
        let released = |(what, _): &mut (T, Nanos)| {
            let released = left > 0 && is_over(what);
            left -= usize::from(released);
            released
        };
        self.all.extract_if(.., released).for_each(|(what, _)| give(what));
        // If there may be more of them, the next call looks again.
        self.known = (left > 0).then_some(known);
    }

    /// Gives those that have waited too long, at most `most`.
    pub(super) fn expire(&mut self, now: Nanos, most: usize) -> impl Iterator<Item = T> {
        let is_late = |since: Nanos| now.0.saturating_sub(since.0) >= HELD_MILLIS * 1_000_000;
        let late = self.all.iter().take(most).take_while(|(_, since)| is_late(*since)).count();
        self.all.drain(..late).map(|(what, _)| what)
    }
}
