//! Which flow the fragments of a datagram are of: only the first has the ports.
//!
//! All workers share it, as the fragments of one datagram may come to any of them: small sets, each behind a lock that is
//! held for one question. All memory is taken at once. In a full set the oldest datagram gives way, so that a flood of
//! first fragments costs others their place only if eight of it fall into their set before their own last fragment has
//! come; its sender cannot choose the set.

use crate::{
    limits::{FRAGMENTS_SECONDS, HELD_MILLIS},
    time::Nanos,
};
use crossbeam::utils::CachePadded;
use hashbrown::DefaultHashBuilder;
use std::{
    hash::BuildHasher,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// What the fragments of one datagram have in common (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Datagram {
    /// Source address in the byte order of the wire; of IPv4 in the first four bytes.
    pub source: [u8; 16],
    /// Destination address, likewise.
    pub destination: [u8; 16],
    /// 16 bits in IPv4, 32 in IPv6.
    pub identification: u32,
    /// IP protocol number; 0 in IPv6, whose later fragments need not name the one that counts.
    pub protocol: u8,
    /// Whether it is IPv6.
    pub v6: bool,
}

/// What the first fragment of a datagram tells about the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// Source port and destination port in the byte order of the wire.
    pub ports: [u8; 4],
    /// The transport protocol.
    pub protocol: u8,
    /// Bytes of the datagram that it has: no other fragment begins before.
    pub len: u16,
}

/// A destination's slot and generation.
pub type Chosen = (u32, u32);

#[derive(Clone, Copy, Debug)]
struct Entry {
    datagram: Datagram,
    first: First,
    /// Where it goes, if no connection tells that.
    chosen: Option<Chosen>,
    since: Nanos,
    /// Where its data ends, and when that was said; until somebody has asked.
    end: Option<(u16, Nanos)>,
}

#[derive(Debug, Default)]
struct Set([Option<Entry>; Fragments::WAYS]);

/// See the module.
#[derive(Debug, Default)]
pub struct Fragments {
    sets: Box<[CachePadded<Mutex<Set>>]>,
    hasher: DefaultHashBuilder,
    /// First fragments noted so far.
    noted: AtomicU64,
    /// Ends noted so far.
    ended: AtomicU64,
}

impl Fragments {
    const WAYS: usize = 8;

    /// With room for `datagrams`, rounded down to a multiple of eight.
    pub fn new(datagrams: usize) -> Self {
        let sets = (0..datagrams / Self::WAYS).map(|_| CachePadded::default()).collect();
        Self {
            sets,
            hasher: DefaultHashBuilder::default(),
            noted: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        }
    }

    /// Notes the first fragment of a datagram. A newer one of the same identification takes the place of an older one.
    pub fn note(&self, datagram: &Datagram, first: First, now: Nanos) {
        let Some(mut set) = self.lock(datagram) else { return };
        let age = |entry: &Option<Entry>| entry.map(|entry| entry.since);
        // An empty place is older than any.
        let known = set.place(datagram);
        // Where an earlier datagram had the identification, the last of this one may have come before.
        let end = known.and_then(|way| set.0[way]).and_then(|entry| entry.end);
        let place = known.or_else(|| (0..Self::WAYS).min_by_key(|way| age(&set.0[*way])));
        if let Some(place) = place.and_then(|way| set.0.get_mut(way)) {
            *place = Some(Entry { datagram: *datagram, first, chosen: None, since: now, end });
        }
        drop(set);
        self.noted.fetch_add(1, Relaxed);
    }

    /// What the first fragment said, if it has come in the last 30 s.
    pub fn known(&self, datagram: &Datagram, now: Nanos) -> Option<First> {
        self.live(datagram, now).map(|entry| entry.first)
    }

    /// Notes where a datagram goes that makes no connection.
    pub fn choose(&self, datagram: &Datagram, chosen: Chosen) {
        self.change(datagram, |entry| entry.chosen = Some(chosen));
    }

    /// Notes where the data of a datagram ends, whose first fragment has come: the last says it.
    pub fn ends(&self, datagram: &Datagram, end: u16, now: Nanos) {
        if self.change(datagram, |entry| entry.end = Some((end, now))).is_some() {
            self.ended.fetch_add(1, Relaxed);
        }
    }

    /// Ends noted so far: as long as it is the same, nobody who waits for one need ask.
    pub fn ended(&self) -> u64 {
        self.ended.load(Relaxed)
    }

    /// Where the data of the datagram ends, if that was said in the last second. Forgets it: the next datagram with the
    /// identification ends elsewhere.
    pub fn take_end(&self, datagram: &Datagram, now: Nanos) -> Option<u16> {
        let (end, since) = self.change(datagram, |entry| entry.end.take())??;
        (now.0.saturating_sub(since.0) < HELD_MILLIS * 1_000_000).then_some(end)
    }

    fn change<T>(&self, datagram: &Datagram, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut set = self.lock(datagram)?;
        let way = set.place(datagram)?;
        set.0.get_mut(way)?.as_mut().map(change)
    }

    /// Where the datagram goes, if that was noted.
    pub fn chosen(&self, datagram: &Datagram, now: Nanos) -> Option<Chosen> {
        self.live(datagram, now)?.chosen
    }

    /// First fragments noted so far: as long as it is the same, nothing new is known.
    #[inline]
    pub fn noted(&self) -> u64 {
        self.noted.load(Relaxed)
    }

    fn live(&self, datagram: &Datagram, now: Nanos) -> Option<Entry> {
        let set = self.lock(datagram)?;
        let entry = set.place(datagram).and_then(|way| set.0[way])?;
        (now.0.saturating_sub(entry.since.0) < FRAGMENTS_SECONDS * 1_000_000_000).then_some(entry)
    }

    /// The set that the datagram is in; `None` if there is no room for any.
    fn lock(&self, datagram: &Datagram) -> Option<MutexGuard<'_, Set>> {
        let number = (self.hasher.hash_one(datagram) as usize).checked_rem(self.sets.len())?;
        // What a panicking holder left is whole: every change is one assignment.
        Some(self.sets.get(number)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Set {
    fn place(&self, datagram: &Datagram) -> Option<usize> {
        self.0.iter().position(|entry| entry.is_some_and(|entry| entry.datagram == *datagram))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(identification: u32) -> Datagram {
        Datagram { identification, protocol: 17, ..Datagram::default() }
    }

    const FIRST: First = First { ports: [1, 2, 3, 4], protocol: 17, len: 16 };

    #[test]
    fn a_datagram_is_known_for_thirty_seconds_by_all_that_its_fragments_share() {
        let fragments = Fragments::new(64);
        fragments.note(&datagram(7), FIRST, Nanos::from_secs(5));
        assert_eq!(fragments.known(&datagram(7), Nanos::from_secs(5)), Some(FIRST));
        assert_eq!(fragments.known(&datagram(7), Nanos::from_millis(34_999)), Some(FIRST));
        assert_eq!(fragments.known(&datagram(7), Nanos::from_secs(35)), None);
        let mut others = [datagram(7); 5];
        others[0].source[3] = 1;
        others[1].destination[3] = 1;
        others[2].identification = 8;
        others[3].protocol = 6;
        others[4].v6 = true;
        for other in others {
            assert_eq!(fragments.known(&other, Nanos::from_secs(5)), None, "{other:?}");
        }
    }

    #[test]
    fn the_newest_first_fragment_of_an_identification_counts() {
        let (fragments, newer) = (Fragments::new(64), First { ports: [9; 4], ..FIRST });
        fragments.note(&datagram(7), FIRST, Nanos::from_secs(5));
        fragments.choose(&datagram(7), (3, 1));
        assert_eq!(fragments.chosen(&datagram(7), Nanos::from_secs(6)), Some((3, 1)));
        fragments.note(&datagram(7), newer, Nanos::from_secs(20));
        assert_eq!(fragments.known(&datagram(7), Nanos::from_secs(49)), Some(newer));
        assert_eq!(fragments.chosen(&datagram(7), Nanos::from_secs(21)), None);
        assert_eq!(fragments.noted(), 2);
    }

    #[test]
    fn where_a_datagram_ends_is_told_once_and_within_a_second() {
        let (fragments, at) = (Fragments::new(64), Nanos::from_millis);
        fragments.ends(&datagram(7), 100, at(0));
        fragments.note(&datagram(7), FIRST, at(0));
        assert_eq!(fragments.take_end(&datagram(7), at(0)), None, "of a datagram that is not known");
        fragments.ends(&datagram(7), 100, at(1));
        // Its first is seen when an earlier datagram with the identification is still known.
        fragments.note(&datagram(7), FIRST, at(2));
        assert_eq!(fragments.take_end(&datagram(8), at(2)), None);
        assert_eq!(fragments.take_end(&datagram(7), at(1_000)), Some(100));
        assert_eq!(fragments.take_end(&datagram(7), at(1_000)), None);
        fragments.ends(&datagram(7), 60, at(5_000));
        assert_eq!(fragments.take_end(&datagram(7), at(6_000)), None, "too old");
    }

    #[test]
    fn a_full_set_forgets_its_oldest_datagram_and_no_other() {
        // One set.
        let fragments = Fragments::new(8);
        for n in 0..8 {
            fragments.note(&datagram(n), FIRST, Nanos::from_millis(u64::from(n)));
        }
        // Seen again: number 0 is the youngest.
        fragments.note(&datagram(0), FIRST, Nanos::from_millis(8));
        fragments.note(&datagram(100), FIRST, Nanos::from_millis(9));
        let known = |n| fragments.known(&datagram(n), Nanos::from_millis(10)).is_some();
        assert_eq!((0..8).filter(|n| !known(*n)).collect::<Vec<_>>(), [1]);
        assert!(known(100));
    }

    #[test]
    fn without_room_nothing_is_known() {
        let fragments = Fragments::default();
        fragments.note(&datagram(7), FIRST, Nanos(0));
        fragments.choose(&datagram(7), (1, 1));
        assert_eq!((fragments.known(&datagram(7), Nanos(0)), fragments.noted()), (None, 0));
    }
}
