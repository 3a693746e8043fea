//! Fragments that came before the first of their datagram, and wait for it.

use super::{
    tracker::{Datagram, Fragments},
    waiting::Waiting,
};
use crate::{limits::MAX_HELD, time::Nanos};

/// A frame, and the port that it came in by.
pub struct Early<F> {
    frame: F,
    port: u8,
    datagram: Datagram,
}

/// See the module.
pub type Held<F> = Waiting<Early<F>>;

impl<F> Held<F> {
    /// Empty, with all the memory that it will use.
    pub(crate) fn new() -> Self {
        Self::with_room(MAX_HELD)
    }

    /// Holds a frame that came in by `port`. Returns the oldest if there is no room for both: it is to be dropped.
    #[must_use]
    #[cold]
    pub fn hold(&mut self, frame: F, port: u8, datagram: Datagram, now: Nanos) -> Option<F> {
        self.push(Early { frame, port, datagram }, now).map(|oldest| oldest.frame)
    }

    /// Gives the frames whose first fragment has come since, in order and at most `most`, with their port.
    #[cold]
    pub fn give(&mut self, fragments: &Fragments, now: Nanos, most: usize, mut give: impl FnMut(F, u8)) {
        let is_known = |early: &mut Early<F>| fragments.known(&early.datagram, now).is_some();
        self.release(fragments.noted(), most, is_known, |early| give(early.frame, early.port));
    }

    /// Drops what has waited too long; returns how many that were.
    #[cold]
    pub fn forget(&mut self, now: Nanos) -> usize {
        self.expire(now, MAX_HELD).count()
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
        held.give(fragments, Nanos(0), most, |frame, port| {
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
        assert_eq!(held.forget(Nanos::from_millis(1_000)), 0);
        assert_eq!(held.forget(Nanos::from_millis(1_001)), 1);
        assert_eq!(held.forget(Nanos::from_millis(1_063)), 62);
        assert_eq!(held.forget(Nanos::from_millis(1_064)), 1);
        assert!(held.is_empty());
    }
}
