//! Which slot of the snapshot each destination has.
//!
//! Connections name destinations by slot and generation, so a slot is given to another destination only when no
//! connection can name it any more:
//! - A destination that is removed from its service keeps its slot while connections refer to it, and for two minutes at
//!   least: added again, it gets its slot, its connections and its counters back.
//! - The slots of a service that is deleted end with their connections; the service that is added again begins anew.

use super::model::ServiceKey;
use pointsman_dataplane::{snapshot::Presence, stats::DestinationShared, time::Nanos};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

/// How long a removed destination is remembered at least, as the original's trash list does.
const REMEMBERED: Nanos = Nanos::from_secs(120);

/// What a destination is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DestinationKey {
    /// Its service.
    pub service: ServiceKey,
    /// RIP.
    pub address: IpAddr,
    /// Its transport port.
    pub port: u16,
}

/// One slot.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Distinguishes the destinations that have had the slot, from 1.
    pub generation: u32,
    /// What is in it.
    pub presence: Presence,
    /// Whose it is, or was.
    pub key: DestinationKey,
    /// The connection counts.
    pub shared: Arc<DestinationShared>,
    /// When it was removed, and with which generation of the snapshot.
    removed: (Nanos, u64),
}

impl Slot {
    /// What would be its own again if it came back: connections, and templates of persistent clients.
    fn connections(&self) -> u32 {
        self.shared.active().saturating_add(self.shared.inactive()).saturating_add(self.shared.templates())
    }
}

/// The moment of a change.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Now.
    pub now: Nanos,
    /// The generation that the change makes.
    pub generation: u64,
    /// The oldest generation that a worker still runs.
    pub seen: u64,
}

/// The slots of all destinations.
#[derive(Debug)]
pub struct Slots {
    slots: Vec<Slot>,
    by_key: HashMap<DestinationKey, u32>,
    /// Those without a destination that is present.
    idle: BTreeSet<u32>,
    /// Those that have changed since [`Slots::take_touched`].
    touched: Vec<u32>,
    most: usize,
}

impl Slots {
    /// No destination yet; never more than `most` slots.
    pub fn new(most: usize) -> Self {
        Self { slots: Vec::new(), by_key: HashMap::new(), idle: BTreeSet::new(), touched: Vec::new(), most }
    }

    /// All slots by number.
    pub fn all(&self) -> &[Slot] {
        &self.slots
    }

    /// The slot of a destination, present or removed.
    pub fn find(&self, key: &DestinationKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The numbers of the slots that have changed since this was last called.
    pub fn take_touched(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.touched)
    }

    /// How many slots are missing for `wanted` beside what connections still refer to; 0 if there is room. `ended` as in
    /// [`Slots::assign`].
    pub fn missing(&self, wanted: &[DestinationKey], ended: &HashSet<ServiceKey>, at: Moment) -> usize {
        let is_new = |key: &&DestinationKey| ended.contains(&key.service) || !self.by_key.contains_key(*key);
        let new = wanted.iter().filter(is_new).count();
        if new <= self.most - self.slots.len() {
            return 0;
        }
        let kept: HashSet<&DestinationKey> = wanted.iter().collect();
        let idle = self.idle.iter().filter_map(|number| self.slots.get(*number as usize));
        // What was removed comes back to its own slot; an empty one, and one of a service that is gone, are for anyone.
        let comes_back = |slot: &Slot| slot.presence == Presence::Removed && kept.contains(&slot.key);
        let free = idle.filter(|slot| Self::is_free(slot, at) && !comes_back(slot)).count();
        new.saturating_sub(free + self.most - self.slots.len())
    }

    /// Takes the slots of `leaving` away, ends what is left of the services that have `ended`, and gives each of `wanted`
    /// its slot, in order. A service that has ended may be wanted: it begins anew. All others stay as they are. Call
    /// [`Slots::missing`] first: where no slot is left, a destination gets `None`.
    pub fn assign(
        &mut self,
        leaving: &[DestinationKey],
        ended: &HashSet<ServiceKey>,
        wanted: &[DestinationKey],
        at: Moment,
    ) -> Vec<Option<u32>> {
        leaving.iter().for_each(|key| self.remove(key, at));
        self.end(ended, at);
        let mut numbers: Vec<Option<u32>> = wanted.iter().map(|key| self.revive(key)).collect();
        if numbers.contains(&None) {
            let mut free = self.sweep(at);
            // The lowest first, so that the snapshot stays short.
            free.reverse();
            for (number, key) in numbers.iter_mut().zip(wanted).filter(|(number, _)| number.is_none()) {
                *number = self.take(*key, &mut free);
            }
        }
        numbers
    }

    fn remove(&mut self, key: &DestinationKey, at: Moment) {
        let Some(number) = self.find(key) else { return };
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        if slot.presence == Presence::Present {
            slot.presence = Presence::Removed;
            slot.removed = (at.now, at.generation);
            self.idle.insert(number);
            self.touched.push(number);
        }
    }

    fn end(&mut self, services: &HashSet<ServiceKey>, at: Moment) {
        for number in self.idle.iter().filter(|_| !services.is_empty()) {
            let Some(slot) = self.slots.get_mut(*number as usize) else { continue };
            if slot.presence == Presence::Removed && services.contains(&slot.key.service) {
                slot.presence = Presence::ServiceGone;
                slot.removed = (at.now, at.generation);
                self.by_key.remove(&slot.key);
                self.touched.push(*number);
            }
        }
    }

    /// Empties the slots that nothing refers to, and returns all empty ones in order.
    fn sweep(&mut self, at: Moment) -> Vec<u32> {
        let mut empty = Vec::new();
        for number in &self.idle {
            let Some(slot) = self.slots.get_mut(*number as usize) else { continue };
            if !Self::is_free(slot, at) {
                continue;
            }
            if slot.presence == Presence::Removed {
                self.by_key.remove(&slot.key);
            }
            if slot.presence != Presence::Vacant {
                slot.presence = Presence::Vacant;
                self.touched.push(*number);
            }
            empty.push(*number);
        }
        empty
    }

    /// Whether no connection refers to a slot, and none can any more.
    fn is_free(slot: &Slot, at: Moment) -> bool {
        let (since, generation) = slot.removed;
        // A worker that still runs an older generation may be making a connection to it.
        let over = slot.connections() == 0 && at.seen >= generation;
        match slot.presence {
            Presence::Vacant => true,
            Presence::Present => false,
            Presence::Removed => over && at.now.0.saturating_sub(since.0) >= REMEMBERED.0,
            Presence::ServiceGone => over,
        }
    }

    fn revive(&mut self, key: &DestinationKey) -> Option<u32> {
        let number = self.find(key)?;
        let slot = self.slots.get_mut(number as usize)?;
        if slot.presence != Presence::Present {
            slot.presence = Presence::Present;
            self.idle.remove(&number);
            self.touched.push(number);
        }
        Some(number)
    }

    fn take(&mut self, key: DestinationKey, free: &mut Vec<u32>) -> Option<u32> {
        let shared = Arc::new(DestinationShared::default());
        let number = match free.pop() {
            Some(number) => {
                let slot = self.slots.get_mut(number as usize)?;
                let generation = slot.generation.wrapping_add(1);
                *slot = Slot {
                    generation,
                    presence: Presence::Present,
                    key,
                    shared,
                    removed: Default::default(),
                };
                number
            }
            None if self.slots.len() < self.most => {
                let number = u32::try_from(self.slots.len()).ok()?;
                let presence = Presence::Present;
                self.slots.push(Slot { generation: 1, presence, key, shared, removed: Default::default() });
                number
            }
            None => return None,
        };
        self.by_key.insert(key, number);
        self.idle.remove(&number);
        self.touched.push(number);
        Some(number)
    }
}

#[cfg(test)]
impl Slots {
    /// Gives the slots to exactly `wanted`, of exactly these services.
    pub(crate) fn assign_all(
        &mut self,
        wanted: &[DestinationKey],
        services: &HashSet<ServiceKey>,
        at: Moment,
    ) -> Vec<Option<u32>> {
        let keys = self.slots.iter().map(|slot| slot.key);
        let leaving: Vec<_> = keys.clone().filter(|key| !wanted.contains(key)).collect();
        let ended = keys.map(|key| key.service).filter(|service| !services.contains(service)).collect();
        self.assign(&leaving, &ended, wanted, at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::Protocol;
    use super::*;

    const SERVICE: ServiceKey = ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)),
        port: 80,
    };

    fn server(n: u8) -> DestinationKey {
        DestinationKey { service: SERVICE, address: [192, 168, 0, n].into(), port: 80 }
    }

    /// At a second; every worker has seen the generation before, which is as many.
    fn at(second: u64) -> Moment {
        Moment { now: Nanos::from_secs(second), generation: second + 1, seen: second }
    }

    fn assign(slots: &mut Slots, servers: &[u8], second: u64) -> Vec<Option<u32>> {
        let wanted: Vec<_> = servers.iter().map(|n| server(*n)).collect();
        slots.assign_all(&wanted, &HashSet::from([SERVICE]), at(second))
    }

    #[test]
    fn a_destination_keeps_its_slot_whatever_happens_around_it() {
        let mut slots = Slots::new(8);
        assert_eq!(assign(&mut slots, &[1, 2, 3], 1), [Some(0), Some(1), Some(2)]);
        assert_eq!(assign(&mut slots, &[3, 1, 4], 2), [Some(2), Some(0), Some(3)]);
        assert_eq!(slots.all()[1].presence, Presence::Removed);
    }

    #[test]
    fn a_removed_destination_gets_slot_and_generation_back_for_two_minutes() {
        let mut slots = Slots::new(8);
        assign(&mut slots, &[1], 1);
        assign(&mut slots, &[], 10);
        assert_eq!(assign(&mut slots, &[2], 129), [Some(1)], "remembered: another slot is taken");
        assert_eq!(assign(&mut slots, &[1, 2], 200), [Some(0), Some(1)]);
        assert_eq!((slots.all()[0].generation, slots.all()[0].presence), (1, Presence::Present));
        assign(&mut slots, &[2], 300);
        assert_eq!(assign(&mut slots, &[2, 3], 420), [Some(1), Some(0)], "forgotten: its slot is taken");
        assert_eq!(slots.all()[0].generation, 2);
        assert_eq!(slots.find(&server(1)), None);
    }

    #[test]
    fn a_removed_destination_is_remembered_for_as_long_as_it_has_connections() {
        let mut slots = Slots::new(8);
        assign(&mut slots, &[1], 1);
        slots.all()[0].shared.connected(false);
        assign(&mut slots, &[], 10);
        assert_eq!(assign(&mut slots, &[2], 10_000), [Some(1)]);
        slots.all()[0].shared.disconnected(false);
        assert_eq!(assign(&mut slots, &[2, 3], 10_001), [Some(1), Some(0)]);
    }

    #[test]
    fn a_deleted_service_that_is_added_again_begins_anew() {
        let mut slots = Slots::new(8);
        assign(&mut slots, &[1], 1);
        slots.all()[0].shared.connected(true);
        slots.assign_all(&[], &HashSet::new(), at(2));
        assert_eq!(slots.all()[0].presence, Presence::ServiceGone);
        assert_eq!(assign(&mut slots, &[1], 3), [Some(1)]);
        slots.all()[0].shared.disconnected(true);
        assert_eq!(assign(&mut slots, &[1, 2], 4), [Some(1), Some(0)]);
        assert_eq!(slots.all()[0].generation, 2);
    }

    #[test]
    fn a_slot_is_not_reused_while_a_worker_runs_the_generation_that_had_it() {
        let mut slots = Slots::new(8);
        assign(&mut slots, &[1], 1);
        slots.assign_all(&[], &HashSet::new(), at(2));
        let behind = Moment { now: Nanos::from_secs(3), generation: 4, seen: 2 };
        assert_eq!(slots.assign_all(&[server(2)], &HashSet::from([SERVICE]), behind), [Some(1)]);
        assert_eq!(assign(&mut slots, &[2, 3], 5), [Some(1), Some(0)]);
    }

    #[test]
    fn a_director_that_is_full_says_how_many_slots_are_missing() {
        let mut slots = Slots::new(2);
        assign(&mut slots, &[1, 2], 1);
        assert_eq!(slots.missing(&[server(1), server(2)], &HashSet::new(), at(2)), 0);
        assert_eq!(slots.missing(&[server(1), server(2), server(3), server(4)], &HashSet::new(), at(2)), 2);
        assert_eq!(assign(&mut slots, &[1, 2, 3], 2), [Some(0), Some(1), None]);
    }

    #[test]
    fn the_servers_of_a_deleted_service_have_room_when_it_is_added_again() {
        let mut slots = Slots::new(2);
        assign(&mut slots, &[1, 2], 1);
        slots.assign_all(&[], &HashSet::new(), at(2));
        assert_eq!(slots.missing(&[server(1), server(2)], &HashSet::new(), at(4)), 0);
        assert_eq!(assign(&mut slots, &[1, 2], 4), [Some(0), Some(1)]);
    }
}
