//! Connection templates: which server a client of a persistent service stays with.
//!
//! A template is asked when a connection is made and told when one of its connections ends, never on a hit. All workers
//! share them, as a client's connections are of several: in shards, each behind a lock that is held for one question. All
//! memory is taken at once. Without room the youngest of a few gives way, which under a flood is one of the flood's: its
//! client is scheduled anew with its next connection, and the control plane is told.
//!
//! As with the original, a template lives for the service's timeout from its last *new* connection, and beyond that in
//! steps of a minute for as long as it has connections.

use crate::{stats::DestinationShared, time::Ticks};
use crossbeam::utils::CachePadded;
use hashbrown::{DefaultHashBuilder, HashMap};
use std::{
    hash::BuildHasher,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

/// What a template is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TemplateKey {
    /// IP protocol number.
    pub protocol: u8,
    /// The client's network: its address with the bits beyond the service's mask 0.
    pub client: IpAddr,
    /// The virtual address.
    pub address: IpAddr,
    /// The virtual port; 0 if connections to all ports go to one server.
    pub port: u16,
}

/// A destination that a scheduler picked.
#[derive(Clone, Debug)]
pub struct Picked {
    /// Its slot.
    pub slot: u32,
    /// The generation of the slot.
    pub generation: u32,
    /// Its connection counts.
    pub shared: Arc<DestinationShared>,
}

/// A connection's hold on its template; none is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Held(u32);

/// A template, for a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateRecord {
    /// What it is known by.
    pub key: TemplateKey,
    /// Slot of its destination.
    pub slot: u32,
    /// The generation of that slot.
    pub generation: u32,
    /// How long it lives on if its client makes no connection.
    pub remaining: Ticks,
}

/// See the module.
#[derive(Debug)]
pub struct Templates {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    in_shard: usize,
    hasher: DefaultHashBuilder,
    /// The number of the template that the next look for dead ones begins with.
    turn: AtomicUsize,
    /// Live ones that gave way for want of room.
    gave_way: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    numbers: HashMap<TemplateKey, u32>,
    templates: Vec<Template>,
    free: Vec<u32>,
    /// Where the search for one that gives way begins.
    hand: usize,
}

#[derive(Debug)]
struct Template {
    key: TemplateKey,
    slot: u32,
    generation: u32,
    /// `None`: free.
    shared: Option<Arc<DestinationShared>>,
    deadline: Ticks,
    made: Ticks,
    /// Its connections.
    children: u32,
    /// Tells this one from those that had its place before.
    tag: u32,
}

impl Held {
    const TAG_BITS: u32 = 14;

    fn new(number: usize, tag: u32) -> Self {
        Self((number as u32 + 1) << Self::TAG_BITS | tag & ((1 << Self::TAG_BITS) - 1))
    }

    /// Whether there is one.
    pub fn is_some(self) -> bool {
        self.0 != 0
    }

    /// The number of the template.
    fn number(self) -> Option<usize> {
        (self.0 >> Self::TAG_BITS).checked_sub(1).map(|number| number as usize)
    }
}

impl Default for Templates {
    /// Without room for any: clients are scheduled each time.
    fn default() -> Self {
        Self::new(0)
    }
}

impl Templates {
    const SHARDS: usize = 64;
    /// Seconds by which a template with connections lives on.
    const STEP: Ticks = Ticks::from_secs(60);
    /// How many are looked at for one that gives way.
    const LOOKED_AT: usize = 8;

    /// With room for `capacity` templates, at most 2^18 - 1, spread over its shards.
    pub fn new(capacity: usize) -> Self {
        let in_shard = capacity.min((1 << 18) - Self::SHARDS) / Self::SHARDS;
        let shard = |_| CachePadded::new(Mutex::new(Shard::new(in_shard)));
        Self {
            shards: (0..Self::SHARDS).map(shard).collect(),
            in_shard,
            hasher: DefaultHashBuilder::default(),
            turn: AtomicUsize::new(0),
            gave_way: AtomicU64::new(0),
        }
    }

    /// The destination that a client's new connection goes to: that of its template, if there is a live one whose
    /// destination `is_usable` (slot, generation); else what `pick` says, which a new template remembers. `None` if that
    /// is nothing. The connection's hold on the template is to be given back by [`Templates::release`]. No lock is held while
    /// `pick` runs: of workers that make one template at once, the first one's pick holds for all.
    pub fn follow(
        &self,
        key: &TemplateKey,
        (now, timeout): (Ticks, Ticks),
        is_usable: impl Fn(u32, u32) -> bool,
        pick: impl FnOnce() -> Option<Picked>,
    ) -> Option<(u32, Held)> {
        let number = self.hasher.hash_one(key) as usize % Self::SHARDS;
        let known = |shard: &mut Shard| {
            let (slot, local, tag) = shard.find(key, (now, timeout), &is_usable)?;
            Some((slot, Held::new(number * self.in_shard + local, tag)))
        };
        if let Some(found) = known(&mut self.lock(number)) {
            return Some(found);
        }
        let picked = pick()?;
        let mut shard = self.lock(number);
        if let Some(found) = known(&mut shard) {
            return Some(found);
        }
        let slot = picked.slot;
        let held = match shard.insert(key, picked, (now, timeout), self.in_shard) {
            Some((local, tag, gave_way)) => {
                self.gave_way.fetch_add(u64::from(gave_way), Relaxed);
                Held::new(number * self.in_shard + local, tag)
            }
            None => Held::default(),
        };
        Some((slot, held))
    }

    /// Live templates that gave way to others so far.
    pub fn gave_way(&self) -> u64 {
        self.gave_way.load(Relaxed)
    }

    /// A connection of a template has ended, which went to the destination in `slot` of that generation.
    pub fn release(&self, held: Held, (slot, generation): (u32, u32), now: Ticks) {
        let Some(number) = held.number() else { return };
        if self.in_shard == 0 || number / self.in_shard >= Self::SHARDS {
            return;
        }
        let mut shard = self.lock(number / self.in_shard);
        let Some(template) = shard.templates.get_mut(number % self.in_shard) else { return };
        let is_its = Held::new(number, template.tag) == held
            && (template.slot, template.generation) == (slot, generation);
        if template.shared.is_none() || !is_its {
            // It gave way before its connections did.
            return;
        }
        template.children = template.children.saturating_sub(1);
        if template.children == 0 {
            template.deadline = now.plus(template.remaining(now));
        }
    }

    /// Ends templates whose time has come, looking at no more than `most`. For one worker, again and again.
    pub fn expire(&self, now: Ticks, most: usize) {
        if self.in_shard == 0 {
            return;
        }
        let turn = self.turn.load(Relaxed);
        let (number, first) = (turn / self.in_shard % Self::SHARDS, turn % self.in_shard);
        let mut shard = self.lock(number);
        let last = (first + most).min(shard.templates.len());
        for local in first..last {
            let template = &shard.templates[local];
            if template.shared.is_some() && !template.is_live(now) {
                shard.remove(local as u32);
            }
        }
        let more = last < shard.templates.len();
        self.turn
            .store(if more { turn + most } else { (number + 1) % Self::SHARDS * self.in_shard }, Relaxed);
    }

    /// Numbers of templates are below this.
    pub fn capacity(&self) -> usize {
        self.in_shard * Self::SHARDS
    }

    /// The live template of that number, if it is one.
    pub fn record(&self, number: usize, now: Ticks) -> Option<TemplateRecord> {
        if number >= self.capacity() {
            return None;
        }
        let shard = self.lock(number / self.in_shard);
        let template = shard.templates.get(number % self.in_shard)?;
        let live = template.shared.is_some() && template.is_live(now);
        let Template { key, slot, generation, .. } = *template;
        live.then(|| TemplateRecord { key, slot, generation, remaining: template.remaining(now) })
    }

    fn lock(&self, number: usize) -> MutexGuard<'_, Shard> {
        // What a panicking holder left is whole: every change of a shard is made by one call that does not panic.
        self.shards[number % Self::SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn new(capacity: usize) -> Self {
        Self {
            // Twice the room, so that the map never grows for what was removed from it.
            numbers: HashMap::with_capacity(2 * capacity),
            templates: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            hand: 0,
        }
    }

    /// The slot, the place and the tag of a client's live template whose destination is usable; it has a connection more.
    /// One that is not is forgotten.
    fn find(
        &mut self,
        key: &TemplateKey,
        (now, timeout): (Ticks, Ticks),
        is_usable: impl Fn(u32, u32) -> bool,
    ) -> Option<(u32, usize, u32)> {
        let local = self.numbers.get(key).copied()?;
        let known = &mut self.templates[local as usize];
        if !known.is_live(now) || !is_usable(known.slot, known.generation) {
            self.remove(local);
            return None;
        }
        known.deadline = now.plus(timeout);
        known.children += 1;
        Some((known.slot, local as usize, known.tag))
    }

    /// The place and the tag of a new template with one connection, and whether a live one gave way to it; `None` if there
    /// is no room at all.
    fn insert(
        &mut self,
        key: &TemplateKey,
        picked: Picked,
        (now, timeout): (Ticks, Ticks),
        capacity: usize,
    ) -> Option<(usize, u32, bool)> {
        if capacity == 0 {
            return None;
        }
        let gave_way = self.free.is_empty() && self.templates.len() == capacity && self.make_room(now);
        let Picked { slot, generation, shared } = picked;
        shared.template_made();
        let (shared, deadline) = (Some(shared), now.plus(timeout));
        let mut template =
            Template { key: *key, slot, generation, shared, deadline, made: now, children: 1, tag: 0 };
        let local = match self.free.pop() {
            Some(local) => {
                let place = &mut self.templates[local as usize];
                template.tag = place.tag.wrapping_add(1);
                *place = template;
                local
            }
            None => {
                self.templates.push(template);
                (self.templates.len() - 1) as u32
            }
        };
        self.numbers.insert(*key, local);
        Some((local as usize, self.templates[local as usize].tag, gave_way))
    }

    /// Of a few, one that has ended, else the youngest, gives way. Says whether it was live.
    fn make_room(&mut self, now: Ticks) -> bool {
        let len = self.templates.len();
        let looked_at = (0..Templates::LOOKED_AT).map(|n| (self.hand + n) % len);
        let age = |local: &usize| {
            let template = &self.templates[*local];
            (template.is_live(now), now.since(template.made).0)
        };
        let victim = looked_at.min_by_key(age);
        self.hand = (self.hand + Templates::LOOKED_AT) % len;
        let Some(victim) = victim else { return false };
        let was_live = self.templates[victim].is_live(now);
        self.remove(victim as u32);
        was_live
    }

    fn remove(&mut self, local: u32) {
        let template = &mut self.templates[local as usize];
        if let Some(shared) = template.shared.take() {
            shared.template_ended();
            self.numbers.remove(&template.key);
            self.free.push(local);
        }
    }
}

impl Template {
    fn is_live(&self, now: Ticks) -> bool {
        self.children > 0 || self.deadline.since(now).0 > 0
    }

    /// Until its deadline; beyond that, to the end of the step that it is in.
    fn remaining(&self, now: Ticks) -> Ticks {
        match self.deadline.since(now) {
            Ticks(0) => Ticks(Templates::STEP.0 - now.since(self.deadline).0 % Templates::STEP.0),
            left => left,
        }
    }
}

/// The first `prefix` bits of an address; the others 0.
pub fn network(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Ticks = Ticks::from_secs(120);

    fn key(client: u32) -> TemplateKey {
        TemplateKey {
            protocol: 6,
            client: IpAddr::V4(client.into()),
            address: [10, 0, 0, 100].into(),
            port: 0,
        }
    }

    fn at(seconds: u32) -> Ticks {
        // Near the wrap of the clock.
        Ticks(u32::MAX - 5_000).plus(Ticks::from_secs(seconds))
    }

    /// One destination in slot 7.
    struct Server(Arc<DestinationShared>);

    impl Server {
        fn follow(&self, templates: &Templates, client: u32, now: Ticks) -> (bool, Held) {
            let mut scheduled = false;
            let pick = || {
                scheduled = true;
                Some(Picked { slot: 7, generation: 3, shared: self.0.clone() })
            };
            let is_usable = |slot, generation| (slot, generation) == (7, 3);
            let (slot, held) = templates.follow(&key(client), (now, TIMEOUT), is_usable, pick).unwrap();
            assert_eq!(slot, 7);
            (scheduled, held)
        }
    }

    #[test]
    fn a_template_lives_for_its_timeout_from_the_last_new_connection() {
        let (templates, server) = (Templates::new(64 * 4), Server(Arc::default()));
        let (scheduled, first) = server.follow(&templates, 1, at(0));
        assert!(scheduled && first.is_some());
        templates.release(first, (7, 3), at(1));
        let (scheduled, second) = server.follow(&templates, 1, at(119));
        assert!(!scheduled, "it is remembered");
        templates.release(second, (7, 3), at(120));
        let (scheduled, third) = server.follow(&templates, 1, at(119 + 119));
        assert!(!scheduled, "the second connection began the time anew");
        templates.release(third, (7, 3), at(119 + 119));
        let (scheduled, _) = server.follow(&templates, 1, at(119 + 119 + 120));
        assert!(scheduled, "it has ended");
        assert_eq!(server.0.templates(), 1);
    }

    #[test]
    fn a_template_with_connections_lives_on_in_steps_of_a_minute() {
        let (templates, server) = (Templates::new(64 * 4), Server(Arc::default()));
        let (_, held) = server.follow(&templates, 1, at(0));
        let remaining = |now| {
            let mut records = (0..templates.capacity()).filter_map(|n| templates.record(n, now));
            records.next().map(|record| record.remaining.0 / Ticks::PER_SECOND)
        };
        assert_eq!((remaining(at(0)), remaining(at(119))), (Some(120), Some(1)));
        // Beyond 120 seconds to 180, then to 240.
        assert_eq!((remaining(at(130)), remaining(at(190))), (Some(50), Some(50)));
        templates.release(held, (7, 3), at(190));
        assert_eq!((remaining(at(239)), remaining(at(240))), (Some(1), None));
    }

    #[test]
    fn what_has_ended_is_found_and_forgotten_a_part_at_a_time() {
        let (templates, server) = (Templates::new(64 * 8), Server(Arc::default()));
        for client in 0..64 {
            let (_, held) = server.follow(&templates, client, at(0));
            templates.release(held, (7, 3), at(0));
        }
        let (_, held) = server.follow(&templates, 1000, at(0));
        assert_eq!(server.0.templates(), 65);
        (0..64 * 8).for_each(|_| templates.expire(at(119), 4));
        assert_eq!(server.0.templates(), 65);
        (0..64 * 8).for_each(|_| templates.expire(at(121), 4));
        assert_eq!(server.0.templates(), 1, "the one with a connection");
        templates.release(held, (7, 3), at(121));
        (0..64 * 8).for_each(|_| templates.expire(at(181), 4));
        assert_eq!(server.0.templates(), 0);
    }

    #[test]
    fn a_template_that_cannot_be_used_is_made_anew() {
        let (templates, server) = (Templates::new(64 * 4), Server(Arc::default()));
        let (_, held) = server.follow(&templates, 1, at(0));
        let other = Arc::new(DestinationShared::default());
        let pick = || Some(Picked { slot: 8, generation: 1, shared: other.clone() });
        let follow =
            |usable: bool| templates.follow(&key(1), (at(1), TIMEOUT), |_, _| usable, pick).unwrap().0;
        assert_eq!(follow(false), 8);
        assert_eq!((server.0.templates(), other.templates()), (0, 1));
        // The connection of the old one ends: it is not the new one's.
        templates.release(held, (7, 3), at(2));
        assert_eq!(follow(true), 8);
        let none = templates.follow(&key(2), (at(1), TIMEOUT), |_, _| true, || None);
        assert!(none.is_none(), "no server, no template");
    }

    #[test]
    fn without_room_another_gives_way_and_nothing_grows() {
        let (templates, server) = (Templates::new(64 * 4), Server(Arc::default()));
        let mut held = Vec::new();
        for client in 0..10_000 {
            held.push(server.follow(&templates, client, at(client / 1000)).1);
        }
        assert!(held.iter().all(|held| held.is_some()));
        assert!(server.0.templates() <= 64 * 4);
        // Connections of those that gave way end as well.
        held.into_iter().for_each(|held| templates.release(held, (7, 3), at(20)));
        (0..64).for_each(|_| templates.expire(at(200), 4));
        assert_eq!(server.0.templates(), 0);
        let (scheduled, held) = server.follow(&Templates::default(), 1, at(0));
        assert!(scheduled && !held.is_some(), "without any room each is scheduled");
    }

    #[test]
    fn a_flood_of_new_clients_takes_no_room_from_those_that_stay() {
        let (templates, server) = (Templates::new(64 * 64), Server(Arc::default()));
        for client in 0..1_000 {
            let (_, held) = server.follow(&templates, client, at(0));
            templates.release(held, (7, 3), at(1));
        }
        let flood: Vec<Held> =
            (0..50_000).map(|n| server.follow(&templates, 1_000_000 + n, at(2)).1).collect();
        assert!(templates.gave_way() > 40_000);
        let forgotten = (0..1_000).filter(|client| server.follow(&templates, *client, at(3)).0).count();
        // A few stand among eight older ones, so that all that were looked at are theirs.
        assert!(forgotten < 100, "{forgotten} of 1000 clients were forgotten");
        flood.into_iter().for_each(|held| templates.release(held, (7, 3), at(4)));
    }

    #[test]
    fn a_network_is_the_first_bits_of_an_address() {
        let v4 = |prefix| network([10, 9, 7, 255].into(), prefix).to_string();
        assert_eq!([0, 8, 23, 24, 32].map(v4), ["0.0.0.0", "10.0.0.0", "10.9.6.0", "10.9.7.0", "10.9.7.255"]);
        let address: IpAddr = "fd00:1:2:3:4:5:6:7".parse().unwrap();
        let v6 = |prefix| network(address, prefix).to_string();
        assert_eq!([0, 48, 64, 128].map(v6), ["::", "fd00:1:2::", "fd00:1:2:3::", "fd00:1:2:3:4:5:6:7"]);
    }

    #[test]
    fn workers_that_ask_at_once_get_one_answer() {
        let (templates, shared) = (Templates::new(64 * 4), Arc::new(DestinationShared::default()));
        let next = AtomicUsize::new(0);
        let answers: Vec<u32> = std::thread::scope(|scope| {
            let ask = || {
                let pick = || {
                    let slot = next.fetch_add(1, Relaxed) as u32;
                    Some(Picked { slot, generation: 1, shared: shared.clone() })
                };
                templates.follow(&key(9), (at(0), TIMEOUT), |_, _| true, pick).map(|(slot, _)| slot)
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(answers, [0; 8]);
    }
}
