//! What `lblc` and `lblcr` remember: for each virtual address the destinations that serve it.
//!
//! All workers share it, and touch it only when a connection is made. It is cut into parts by address, each behind a lock
//! that nobody waits for: a worker that finds a part taken tries again for about a microsecond, and then picks without the
//! memory, as the original does when it gets no memory for an entry. A part is held for a look-up or an insertion, never
//! while destinations are compared, but for the few of one entry.
//!
//! All memory is taken when the service is configured. A service at an address has one entry. A service of a mark has
//! room for one and a half times [`LIMIT`].
//!
//! Age is looked at once a minute: every half hour what was not used for a day goes, and while there are more than
//! [`LIMIT`] entries what was not used for six minutes. Each part does that when it is next touched, and each pick does it
//! for one other part, so that no packet pays for all.

mod slab;

use super::{Candidate, hash};
use crate::time::Ticks;
use crossbeam::utils::CachePadded;
use slab::{NONE, Slab};
use std::{
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, TryLockError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

/// Entries above which old ones go early; half as many again is the most there are.
pub(super) const LIMIT: usize = 16_384;
const MOST: usize = LIMIT + LIMIT / 2;

/// How long an entry lives without use.
pub(super) const LIFETIME: Ticks = Ticks::from_secs(24 * 60 * 60);
/// The same while there are too many.
const SHORT_LIFETIME: Ticks = Ticks::from_secs(6 * 60);
/// From one look to the next.
const LOOK: Ticks = Ticks::from_secs(60);
/// One of so many looks is for entries that are not used any more.
const FULL: u32 = 30;

const PARTS: usize = 64;
/// Lists of entries in each part: the 1024 of the original in all.
const LISTS: usize = 16;
/// Of one part: a third more than an even share of the most.
const PART_ENTRIES: usize = MOST / PARTS * 4 / 3;
/// At one address, the room for destinations that were deleted and may come back.
const GONE: usize = 16;
/// How often a worker tries for a part that another holds.
const TRIES: usize = 64;

/// Names a destination across configurations: its slot, and which of those that had the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    slot: u32,
    generation: u32,
}

impl Name {
    pub(super) fn of(candidate: &Candidate) -> Self {
        Self { slot: candidate.slot, generation: candidate.generation }
    }
}

/// Finds destinations of the list by name.
#[derive(Debug)]
pub(super) struct Index(Box<[(u32, u32)]>);

impl Index {
    pub(super) fn new(list: &[Candidate]) -> Self {
        let mut by_slot: Vec<(u32, u32)> = list.iter().zip(0..).map(|(c, index)| (c.slot, index)).collect();
        by_slot.sort_unstable();
        Self(by_slot.into())
    }

    /// The destination's index in `list`, of which this is the index. `None`: it is not there any more.
    pub(super) fn find(&self, list: &[Candidate], name: Name) -> Option<usize> {
        let at = self.0.binary_search_by_key(&name.slot, |(slot, _)| *slot).ok()?;
        let index = self.0.get(at)?.1 as usize;
        list.get(index).filter(|c| Name::of(c) == name).map(|_| index)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Cache {
    parts: Box<[CachePadded<Mutex<Part>>]>,
    entries: CachePadded<AtomicUsize>,
    /// The last look, as [`Look::pack`] writes it; 0 before the first pick.
    look: CachePadded<AtomicU64>,
    /// The next part that a pick looks at besides its own; at the number of parts all have been looked at.
    behind: AtomicUsize,
}

/// The moment at which age is looked at.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Ticks,
    number: u32,
    crowded: bool,
}

impl Look {
    /// Not 0, and the first of a half hour.
    const FIRST: u32 = FULL;
    /// They wrap here, after four thousand years.
    const NUMBERS: u32 = u32::MAX >> 1;

    fn pack(self) -> u64 {
        u64::from(self.at.0) << 32 | u64::from(self.number << 1) | u64::from(self.crowded)
    }

    fn unpack(word: u64) -> Self {
        Self { at: Ticks((word >> 32) as u32), number: word as u32 >> 1, crowded: word & 1 != 0 }
    }
}

impl Cache {
    /// For one virtual address, or for many. At one address there is room for `members` destinations, at many for at
    /// most four on average.
    pub(super) fn new(many_addresses: bool, members: usize) -> Self {
        let (parts, entries) = if many_addresses { (PARTS, PART_ENTRIES) } else { (1, 1) };
        let nodes = if many_addresses { entries * members.clamp(1, 4) } else { members.max(1) + GONE };
        let part = || CachePadded::new(Mutex::new(Part::new(entries, nodes)));
        Self {
            parts: (0..parts).map(|_| part()).collect(),
            entries: CachePadded::default(),
            look: CachePadded::default(),
            behind: AtomicUsize::new(parts),
        }
    }

    /// Makes room for sets of `members` destinations at the one address. Called by the thread that changes the
    /// configuration: while workers hold the part it lets them go first.
    pub(super) fn reserve(&self, members: usize) {
        let ([part], members) = (&*self.parts, members + GONE) else { return };
        loop {
            if let Some(mut part) = try_lock(part) {
                return part.nodes.grow(members);
            }
            std::thread::yield_now();
        }
    }

    /// The part that has an address. `None`: another worker holds it for too long.
    pub(super) fn part(&self, address: IpAddr, now: Ticks) -> Option<Held<'_>> {
        let look = self.look(now);
        self.catch_up(look);
        let spread = hash::word(address).wrapping_mul(0x9e37_79b1) >> 16;
        let part = self.parts.get(spread as usize % self.parts.len())?;
        let mut part = (0..TRIES).find_map(|_| {
            try_lock(part).or_else(|| {
                std::hint::spin_loop();
                None
            })
        })?;
        part.look(look, &self.entries);
        let list = (spread as usize / PARTS) % LISTS;
        let entry = part.find(list, address);
        Some(Held { part, entries: &self.entries, entry, list, address, now })
    }

    /// The last look that was due by `now`.
    fn look(&self, now: Ticks) -> Look {
        let word = self.look.load(Relaxed);
        let next = if word == 0 {
            Look { at: now, number: Look::FIRST, crowded: false }
        } else {
            let last = Look::unpack(word);
            let passed = now.since(last.at).0 / LOOK.0;
            if passed == 0 {
                return last;
            }
            let at = last.at.plus(Ticks(passed * LOOK.0));
            let number = (last.number + passed) & Look::NUMBERS;
            Look { at, number, crowded: self.entries.load(Relaxed) > LIMIT }
        };
        match self.look.compare_exchange(word, next.pack(), Relaxed, Relaxed) {
            Ok(_) => {
                self.behind.store(0, Relaxed);
                next
            }
            // Another worker was first; what it found is as good.
            Err(word) => Look::unpack(word),
        }
    }

    /// Looks at one part that may be touched by nobody.
    fn catch_up(&self, look: Look) {
        if self.behind.load(Relaxed) < self.parts.len() {
            let number = self.behind.fetch_add(1, Relaxed);
            if let Some(mut part) = self.parts.get(number).and_then(|part| try_lock(part)) {
                part.look(look, &self.entries);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.entries.load(Relaxed)
    }
}

fn try_lock(part: &Mutex<Part>) -> Option<MutexGuard<'_, Part>> {
    match part.try_lock() {
        Ok(part) => Some(part),
        // Nothing in here leaves a part half changed.
        Err(TryLockError::Poisoned(part)) => Some(part.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A part of the cache that this worker holds, for one address.
pub(super) struct Held<'a> {
    part: MutexGuard<'a, Part>,
    entries: &'a AtomicUsize,
    /// The entry of the address, or [`NONE`].
    entry: u32,
    list: usize,
    address: IpAddr,
    now: Ticks,
}

impl Held<'_> {
    /// Whether there is an entry; it is used with that.
    pub(super) fn touch(&mut self) -> bool {
        let now = self.now;
        self.part.entries.get_mut(self.entry).map(|entry| entry.used = now).is_some()
    }

    /// The destinations of the entry, the last one added first.
    pub(super) fn members(&self) -> impl Iterator<Item = Name> + '_ {
        let first = self.part.entries.get(self.entry).map_or(NONE, |entry| entry.first);
        self.part.nodes.list(first).map(|(_, name)| *name)
    }

    /// For how long the set has been what it is.
    pub(super) fn unchanged(&self) -> Ticks {
        self.part.entries.get(self.entry).map_or(Ticks(0), |entry| self.now.since(entry.changed))
    }

    /// Makes this the only destination of the address. Nothing is remembered where there is no room.
    pub(super) fn set(&mut self, name: Name) {
        if self.entry == NONE {
            self.begin();
        }
        let part = &mut *self.part;
        if let Some(entry) = part.entries.get_mut(self.entry) {
            entry.used = self.now;
            part.nodes.give_list(std::mem::replace(&mut entry.first, NONE));
        }
        self.add(name, |_| true);
    }

    fn begin(&mut self) {
        let Part { heads, entries, .. } = &mut *self.part;
        if self.entries.load(Relaxed) >= MOST {
            return;
        }
        let entry = Entry { address: self.address, used: self.now, changed: self.now, first: NONE };
        let Some(head) = heads.get_mut(self.list) else { return };
        if let Some(at) = entries.take(entry, *head) {
            (*head, self.entry) = (at, at);
            self.entries.fetch_add(1, Relaxed);
        }
    }

    /// Adds a destination to those of the address. Where there is no room, those of them that are not there any more, and
    /// would serve if they came back, are forgotten.
    pub(super) fn add(&mut self, name: Name, is_there: impl Fn(Name) -> bool) {
        if self.members().any(|member| member == name) {
            return;
        }
        let Part { entries, nodes, .. } = &mut *self.part;
        let Some(entry) = entries.get_mut(self.entry) else { return };
        while nodes.is_full() {
            let gone = nodes.list(entry.first).find(|(_, member)| !is_there(**member));
            let Some(at) = gone.map(|(at, _)| at) else { break };
            entry.first = nodes.give(at, entry.first);
        }
        if let Some(node) = nodes.take(name, entry.first) {
            (entry.first, entry.changed) = (node, self.now);
        }
    }

    /// Takes a destination from those of the address.
    pub(super) fn remove(&mut self, name: Name) {
        let Part { entries, nodes, .. } = &mut *self.part;
        let Some(entry) = entries.get_mut(self.entry) else { return };
        let found = nodes.list(entry.first).find(|(_, member)| **member == name).map(|(at, _)| at);
        if let Some(at) = found {
            entry.first = nodes.give(at, entry.first);
            entry.changed = self.now;
        }
    }
}

/// Entries in lists, and the members of all of them in lists.
#[derive(Debug)]
struct Part {
    heads: [u32; LISTS],
    entries: Slab<Entry>,
    nodes: Slab<Name>,
    /// The last look at its entries.
    looked: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: IpAddr,
    used: Ticks,
    /// When its set last changed.
    changed: Ticks,
    /// Its first member.
    first: u32,
}

impl Part {
    fn new(entries: usize, nodes: usize) -> Self {
        Self {
            heads: [NONE; LISTS],
            entries: Slab::new(entries),
            nodes: Slab::new(nodes),
            looked: Look::FIRST,
        }
    }

    fn find(&self, list: usize, address: IpAddr) -> u32 {
        let head = self.heads.get(list).copied().unwrap_or(NONE);
        let found = self.entries.list(head).find(|(_, entry)| entry.address == address);
        found.map_or(NONE, |(at, _)| at)
    }

    /// Ends the entries that are too old, if this look is a new one.
    fn look(&mut self, look: Look, entries: &AtomicUsize) {
        let missed = look.number.wrapping_sub(self.looked) & Look::NUMBERS;
        // Another worker may have been here with a later look.
        if missed == 0 || missed > Look::NUMBERS / 2 {
            return;
        }
        self.looked = look.number;
        let since_full = look.number % FULL;
        let full_at = Ticks(look.at.0.wrapping_sub(since_full * LOOK.0));
        let ends = |entry: &Entry| {
            (since_full < missed && full_at.since(entry.used).0 > LIFETIME.0)
                || (look.crowded && look.at.since(entry.used).0 >= SHORT_LIFETIME.0)
        };
        for head in &mut self.heads {
            let mut at = *head;
            while let Some((entry, next)) = self.entries.get_with_next(at) {
                if ends(entry) {
                    self.nodes.give_list(entry.first);
                    *head = self.entries.give(at, *head);
                    entries.fetch_sub(1, Relaxed);
                }
                at = next;
            }
        }
    }
}
