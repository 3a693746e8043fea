//! Fragments that came before the first of their datagram, and wait for it: a few, and not for long.

use super::tracker::{Datagram, Fragments};
use crate::{
    limits::{HELD_MILLIS, MAX_HELD},
    time::Nanos,
};

struct Waiting<F> {
    frame: F,
    port: u8,
    datagram: Datagram,
    since: Nanos,
}

/// See the module. What is held came in this order.
pub struct Held<F> {
    waiting: Vec<Waiting<F>>,
    /// [`Fragments::noted`] when this was last looked at.
    noted: u64,
}

impl<F> Held<F> {
    /// Empty, with all the memory that it will use.
    pub fn new() -> Self {
        Self { waiting: Vec::with_capacity(MAX_HELD), noted: 0 }
    }

    /// How many wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Holds a frame that came in by `port`. Returns the oldest if there is no room for both: it is to be dropped.
    #[must_use]
    #[cold]
    pub fn hold(&mut self, frame: F, port: u8, datagram: Datagram, now: Nanos) -> Option<F> {
        let oldest = (self.waiting.len() == MAX_HELD).then(|| self.waiting.remove(0).frame);
        self.waiting.push(Waiting { frame, port, datagram, since: now });
        // Its first fragment may have been noted since it was asked for.
        self.noted = 0;
        oldest
    }

    /// Gives the frames whose first fragment has come since, in order and at most `most`, with their port.
    #[cold]
    pub fn release(&mut self, fragments: &Fragments, now: Nanos, most: usize, mut give: impl FnMut(F, u8)) {
        let noted = fragments.noted();
        if noted == self.noted {
            return;
        }
        let mut left = most;
        let known = |waiting: &mut Waiting<F>| {
            let known = left > 0 && fragments.known(&waiting.datagram, now).is_some();
            left -= usize::from(known);
            known
        };
        for waiting in self.waiting.extract_if(.., known) {
            give(waiting.frame, waiting.port);
        }
        // If there may be more of them, the next call looks again.
        self.noted = if left > 0 { noted } else { 0 };
    }

    /// Drops what has waited too long; returns how many that were.
    #[cold]
    pub fn expire(&mut self, now: Nanos) -> usize {
        let is_late = |waiting: &Waiting<F>| now.0.saturating_sub(waiting.since.0) >= HELD_MILLIS * 1_000_000;
        let late = self.waiting.iter().take_while(|waiting| is_late(waiting)).count();
        self.waiting.drain(..late).count()
    }
}

impl<F> Default for Held<F> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tracker::First, *};

    fn datagram(identification: u32) -> Datagram {
        Datagram { identification, protocol: 17, ..Datagram::default() }
    }

    fn note(fragments: &Fragments, identification: u32) {
        let first = First { ports: [0; 4], protocol: 17, len: 8 };
        fragments.note(&datagram(identification), first, Nanos(0));
    }

    fn released(held: &mut Held<u32>, fragments: &Fragments, most: usize) -> Vec<u32> {
        let mut given = Vec::new();
        held.release(fragments, Nanos(0), most, |frame, port| {
            assert_eq!(port, 3);
            given.push(frame);
        });
        given
    }

    #[test]
    fn frames_are_given_back_in_order_when_their_first_fragment_has_come() {
        let (fragments, mut held) = (Fragments::new(64), Held::new());
        for n in 0..6 {
            assert_eq!(held.hold(n, 3, datagram(n % 2), Nanos(0)), None);
        }
        assert_eq!(released(&mut held, &fragments, 9), []);
        note(&fragments, 1);
        assert_eq!(released(&mut held, &fragments, 2), [1, 3]);
        assert_eq!(released(&mut held, &fragments, 2), [5]);
        note(&fragments, 0);
        assert_eq!(released(&mut held, &fragments, 9), [0, 2, 4]);
        assert!(held.is_empty());
    }

    #[test]
    fn no_more_wait_than_there_is_room_for_and_none_longer_than_a_second() {
        let mut held = Held::new();
        for n in 0..64 {
            assert_eq!(held.hold(n, 3, datagram(n), Nanos::from_millis(u64::from(n))), None);
        }
        assert_eq!(held.hold(64, 3, datagram(64), Nanos::from_millis(64)), Some(0));
        assert_eq!(held.expire(Nanos::from_millis(1_000)), 0);
        assert_eq!(held.expire(Nanos::from_millis(1_001)), 1);
        assert_eq!(held.expire(Nanos::from_millis(1_063)), 62);
        assert_eq!(held.expire(Nanos::from_millis(1_064)), 1);
        assert!(held.is_empty());
    }
}
