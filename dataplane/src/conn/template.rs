//! Connection templates: which server a client of a persistent service stays with.
//!
//! A template is asked when a connection is made and told when one of its connections ends, never on a hit. All workers
//! share them, as a client's connections are of several: in shards, each behind a lock that is held for one question. All
//! memory is taken at once. Without room the youngest of a few gives way, which under a flood is one of the flood's: its
//! client is scheduled anew with its next connection, and the control plane is told.
//!
//! As with the original, a template lives for the service's timeout from its last *new* connection, and beyond that in
//! steps of a minute for as long as it has connections.
//!
//! The persistence engine of SIP tells the calls of a client apart: a template is then of one call, and its Call-ID is kept
//! beside it, in memory that nothing touches while no service uses the engine.

use crate::{
    app::sip::{CallId, MAX_CALL_ID},
    stats::DestinationShared,
    time::Ticks,
};
use crossbeam::utils::CachePadded;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::{
    hash::BuildHasher,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

/// What a template is known by, and a call's by its Call-ID besides.
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
    /// And which call it is of, if of one: what the original lists as PEData, with `sip` as PEName.
    pub call_id: Option<CallId>,
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

#[derive(Debug)]
struct Shard {
    /// Places of the templates, by who they are of.
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    templates: Vec<Template>,
    free: Vec<u32>,
    call_ids: Vec<CallId>,
    free_call_ids: Vec<u32>,
    /// Where the search for one that gives way begins.
    hand: usize,
}

/// All that tells templates apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Caller<'a> {
    key: &'a TemplateKey,
    /// Empty: it is not of one call.
    call_id: &'a [u8],
}

#[derive(Debug)]
struct Template {
    key: TemplateKey,
    /// Place of its Call-ID, or [`NO_CALL`].
    call_id: u32,
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

const NO_CALL: u32 = u32::MAX;

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
        self.follow_call(key, &[], (now, timeout), is_usable, pick)
    }

    /// The same for a client's call: as with the original, two networks' calls of one Call-ID are two. An empty `call_id`
    /// is of no call; of a longer one than [`MAX_CALL_ID`] that many bytes count.
    pub fn follow_call(
        &self,
        key: &TemplateKey,
        call_id: &[u8],
        (now, timeout): (Ticks, Ticks),
        is_usable: impl Fn(u32, u32) -> bool,
        pick: impl FnOnce() -> Option<Picked>,
    ) -> Option<(u32, Held)> {
        let caller = Caller { key, call_id: call_id.get(..MAX_CALL_ID).unwrap_or(call_id) };
        let number = self.hasher.hash_one(caller) as usize % Self::SHARDS;
        let known = |shard: &mut Shard| {
            let (slot, local, tag) = shard.find(caller, (now, timeout), &is_usable)?;
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
        let held = match shard.insert(caller, picked, (now, timeout), self.in_shard) {
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
        let call_id = shard.call_ids.get(template.call_id as usize).copied();
        live.then(|| TemplateRecord { key, call_id, slot, generation, remaining: template.remaining(now) })
    }

    fn lock(&self, number: usize) -> MutexGuard<'_, Shard> {
        // What a panicking holder left is whole: every change of a shard is made by one call that does not panic.
        self.shards[number % Self::SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn new(capacity: usize) -> Self {
        Self {
            // Twice the room, so that the table never grows for what was removed from it.
            numbers: HashTable::with_capacity(2 * capacity),
            hasher: DefaultHashBuilder::default(),
            templates: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            call_ids: Vec::with_capacity(capacity),
            free_call_ids: Vec::with_capacity(capacity),
            hand: 0,
        }
    }

    /// The slot, the place and the tag of a client's live template whose destination is usable; it has a connection more.
    /// One that is not is forgotten.
    fn find(
        &mut self,
        caller: Caller<'_>,
        (now, timeout): (Ticks, Ticks),
        is_usable: impl Fn(u32, u32) -> bool,
    ) -> Option<(u32, usize, u32)> {
        let is_its = |local: &u32| Caller::of(&self.templates, &self.call_ids, *local) == caller;
        let local = self.numbers.find(self.hasher.hash_one(caller), is_its).copied()?;
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
        caller: Caller<'_>,
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
        let (key, call_id) = (*caller.key, self.keep(caller.call_id));
        let mut template =
            Template { key, call_id, slot, generation, shared, deadline, made: now, children: 1, tag: 0 };
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
        let hash = |local: &u32| self.hasher.hash_one(Caller::of(&self.templates, &self.call_ids, *local));
        self.numbers.insert_unique(self.hasher.hash_one(caller), local, hash);
        Some((local as usize, self.templates[local as usize].tag, gave_way))
    }

    /// The place of a copy of a Call-ID. There is one for each template.
    fn keep(&mut self, call_id: &[u8]) -> u32 {
        if call_id.is_empty() {
            return NO_CALL;
        }
        match self.free_call_ids.pop() {
            Some(place) => {
                self.call_ids[place as usize] = CallId::new(call_id);
                place
            }
            None => {
                self.call_ids.push(CallId::new(call_id));
                (self.call_ids.len() - 1) as u32
            }
        }
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
        let hash = self.hasher.hash_one(Caller::of(&self.templates, &self.call_ids, local));
        let template = &mut self.templates[local as usize];
        if let Some(shared) = template.shared.take() {
            shared.template_ended();
            if let Ok(number) = self.numbers.find_entry(hash, |number| *number == local) {
                number.remove();
            }
            self.free.push(local);
            if template.call_id != NO_CALL {
                self.free_call_ids.push(std::mem::replace(&mut template.call_id, NO_CALL));
            }
        }
    }
}

impl<'a> Caller<'a> {
    fn of(templates: &'a [Template], call_ids: &'a [CallId], local: u32) -> Self {
        let template = &templates[local as usize];
        Self {
            key: &template.key,
            call_id: call_ids.get(template.call_id as usize).map_or(&[], CallId::as_bytes),
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
mod tests;
