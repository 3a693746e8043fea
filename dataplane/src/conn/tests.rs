//! What holds of connections after any packets, changes and evictions, found by a walk over all entries.

use super::{key::Key4, pair::is_valid, table::Table, *};
use crate::{
    prefix::Prefix,
    routing::{Routing, SourceNat},
    stats::DestinationShared,
    wire::{protocol, tcp as flags},
};
use pointsman_hugepages::PageChoice;
use proptest::{collection::vec, prelude::*};
use std::sync::Arc;

const VIPS: [[u8; 4]; 2] = [[10, 0, 0, 100], [10, 0, 0, 101]];
const CLIENT: [u8; 4] = [10, 0, 0, 2];
const SERVER: [u8; 4] = [192, 168, 50, 11];
const OUTSIDE: [u8; 4] = [10, 0, 0, 200];

/// Protocol, virtual address and method of each destination. The first three are one server's port, so that one client
/// reaches it by two virtual addresses, whose answers cannot be told apart.
const SLOTS: [(u8, [u8; 4], Method); 6] = [
    (protocol::TCP, VIPS[0], Method::Nat),
    (protocol::TCP, VIPS[1], Method::Nat),
    (protocol::UDP, VIPS[0], Method::Nat),
    (protocol::SCTP, VIPS[0], Method::Nat),
    (protocol::SCTP, VIPS[1], Method::Direct),
    (protocol::UDP, VIPS[1], Method::Direct),
];

fn key(protocol: u8, from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Key4 {
    let ([a, b], [c, d]) = (from.1.to_be_bytes(), to.1.to_be_bytes());
    let ([e, f, g, h], [i, j, k, l]) = (from.0, to.0);
    Key4::from_wire([e, f, g, h, i, j, k, l], [a, b, c, d], protocol)
}

fn destination(number: usize, generation: u32, presence: Presence) -> Destination {
    let (_, address, method) = SLOTS[number];
    Destination {
        generation,
        presence,
        address: SERVER.into(),
        port: 8080,
        virtual_service: Some((address.into(), 80)),
        ends: crate::forward::nat::Ends::default(),
        method,
        next_hop: 0,
        tunnel: None,
        timeouts: None,
        shared: Arc::new(DestinationShared::default()),
    }
}

struct World {
    connections: Connections<Key4>,
    snapshot: Arc<Snapshot>,
    stats: WorkerStats,
    now: Ticks,
}

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    /// A packet of a client to the service of a slot.
    Client(u16, usize, u8),
    /// An answer of the server of a slot to it.
    Server(u16, usize, u8),
    /// A packet of the server's own to the client, from one of its ports, one of which is the service's.
    Outbound(u16, bool, u8),
    /// An answer to such a packet.
    Inbound(u16, bool, u8),
    /// Time, in ticks.
    Wait(u32),
    /// A slot's service is deleted, or another destination has the slot.
    Replace(usize, bool),
    /// A part of the walk that ends what a change has left behind.
    Sweep,
}

impl World {
    fn new(capacity: usize) -> Self {
        let memory = Options { pages: PageChoice::Ordinary, numa_node: None, lock: false };
        let destinations = (0..SLOTS.len()).map(|slot| destination(slot, 1, Presence::Present));
        let rule = SourceNat { source: Prefix::host(SERVER.into()), port: None, address: OUTSIDE.into() };
        let routing = Routing { source_nat: [rule].into(), ..Routing::default() };
        Self {
            connections: Connections::new(capacity, 5, &memory).expect("memory for a table"),
            snapshot: Arc::new(Snapshot {
                destinations: destinations.collect(),
                routing: Arc::new(routing),
                ..Snapshot::default()
            }),
            stats: WorkerStats::default(),
            now: Ticks::from_secs(1_000),
        }
    }

    /// The entry of a packet's connection, if that is not one that a change or the packet ends.
    fn known(&mut self, key: &Key4, event: u8) -> Option<u32> {
        let connections = &mut self.connections;
        let entry = connections.table.find(key, connections.table.hash(key))?;
        let found = connections.table.get(entry);
        let first = if found.role.is_first() { entry } else { found.peer };
        let is_new = found.role.is_first()
            && event & flags::SYN != 0
            && connections.is_reused(first, false, &self.snapshot.policies);
        if is_new || !is_valid(connections.table.get(entry), &self.snapshot) {
            connections.end(first, self.now, &self.snapshot);
            return None;
        }
        Some(entry)
    }

    fn packet(&mut self, key: &Key4, event: u8) -> bool {
        let known = self.known(key, event);
        if let Some(entry) = known {
            self.connections.touch(entry, event, 100, self.now, &self.snapshot);
        }
        known.is_some()
    }

    fn step(&mut self, step: &Step) {
        let (now, snapshot) = (self.now, self.snapshot.clone());
        match *step {
            Step::Client(port, slot, event) => {
                let (protocol, address, _) = SLOTS[slot];
                let key = key(protocol, (CLIENT, port), (address, 80));
                if !self.packet(&key, event) && snapshot.destinations[slot].presence == Presence::Present {
                    let hash = self.connections.table.hash(&key);
                    let slot = (slot as u32, Held::default());
                    // There may be no room.
                    let _ = self.connections.create(
                        (&key, hash),
                        slot,
                        (event, 100),
                        now,
                        (&snapshot, &self.stats),
                    );
                }
            }
            Step::Server(port, slot, event) => {
                self.packet(&key(SLOTS[slot].0, (SERVER, 8080), (CLIENT, port)), event);
            }
            Step::Outbound(port, own, event) => {
                let from = if own { 8080 } else { 9999 };
                let inner = key(protocol::TCP, (SERVER, from), (CLIENT, port));
                let answers = key(protocol::TCP, (CLIENT, port), (OUTSIDE, from));
                let hash = self.connections.table.hash(&answers);
                if !self.packet(&inner, event) && self.connections.table.find(&answers, hash).is_none() {
                    let hash = self.connections.table.hash(&inner);
                    let packet = (event, 100);
                    let around = (&*snapshot, &self.stats);
                    let _ = self.connections.create_outbound((&inner, hash), &answers, packet, now, around);
                }
            }
            Step::Inbound(port, own, event) => {
                let to = if own { 8080 } else { 9999 };
                self.packet(&key(protocol::TCP, (CLIENT, port), (OUTSIDE, to)), event);
            }
            Step::Wait(ticks) => {
                self.now = now.plus(Ticks(ticks));
                self.connections.expire(self.now, &snapshot, &self.stats);
            }
            Step::Replace(slot, gone) => {
                let mut all = snapshot.destinations.to_vec();
                if gone {
                    all[slot].presence = Presence::ServiceGone;
                } else {
                    all[slot] = destination(slot, all[slot].generation + 1, Presence::Present);
                }
                let routing = snapshot.routing.clone();
                self.snapshot =
                    Arc::new(Snapshot { destinations: all.into(), routing, ..Snapshot::default() });
                self.connections.begin_sweep();
            }
            Step::Sweep => {
                self.connections.sweep(now, &snapshot);
            }
        }
    }

    /// What must hold at any time.
    fn check(&self) {
        let Self { connections, snapshot, .. } = self;
        let table: &Table<Key4> = &connections.table;
        let mut counts = vec![(0, 0); SLOTS.len()];
        let (mut live, mut peers, mut half_open) = (0, 0, 0);
        for number in 0..table.used() {
            let entry = table.get(number);
            if entry.list == 0 {
                assert_eq!(entry.key, Key4::default(), "what is free has no key");
                continue;
            }
            live += 1;
            assert_eq!(table.find(&entry.key, table.hash(&entry.key)), Some(number), "it is found");
            let peer = table.entries.get(entry.peer as usize);
            assert_eq!(peer.is_some(), entry.peer != NONE);
            assert!(peer.is_none_or(|peer| peer.peer == number && peer.list != 0), "its peer knows it");
            assert!(peer.is_none_or(
                |peer| peer.state == entry.state && peer.role.is_first() != entry.role.is_first()
            ));
            if !entry.role.is_first() {
                peers += 1;
                assert!(peer.is_some() && entry.list == Wheel::WITH_PEER, "none for answers is alone");
                continue;
            }
            half_open += usize::from(Wheel::is_half_open(entry));
            let neighbours = [(entry.next, false), (entry.prev, true)];
            for (other, is_before) in neighbours.into_iter().filter(|(other, _)| *other != NONE) {
                let other = table.get(other);
                assert_eq!(if is_before { other.next } else { other.prev }, number, "a list leads both ways");
                assert_eq!(other.list, entry.list);
            }
            let slot = entry.destination as usize;
            if entry.role.is_client()
                && snapshot.destinations[slot].generation == entry.destination_generation
            {
                let (active, inactive) = &mut counts[slot];
                *if is_active(entry) { active } else { inactive } += 1;
            }
        }
        assert_eq!((table.len(), connections.peers, connections.len()), (live, peers, live - peers));
        let queued = HalfOpen::ALL.into_iter().flat_map(|queue| connections.wheel.half_open_heads(queue));
        let after = |head: u32| {
            std::iter::successors(Some(head), |at| Some(table.get(*at).next).filter(|next| *next != NONE))
        };
        assert_eq!(queued.flat_map(after).count(), half_open, "the half-open ones stand in their queues");
        for (destination, counted) in snapshot.destinations.iter().zip(counts) {
            assert_eq!((destination.shared.active(), destination.shared.inactive()), counted);
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let event = || {
        let bits = [flags::SYN, flags::SYN, flags::ACK, flags::SYN | flags::ACK, flags::FIN | flags::ACK];
        // Of SCTP: INIT, INIT ACK, COOKIE ECHO and others by their numbers, which are TCP flags as well.
        prop_oneof![3 => prop::sample::select(bits.to_vec()), 1 => 0_u8..11, 1 => Just(flags::RST)]
    };
    let slot = || 0..SLOTS.len();
    prop_oneof![
        12 => (0_u16..12, slot(), event()).prop_map(|(port, slot, event)| Step::Client(port, slot, event)),
        6 => (0_u16..12, slot(), event()).prop_map(|(port, slot, event)| Step::Server(port, slot, event)),
        3 => (0_u16..12, any::<bool>(), event()).prop_map(|(port, own, event)| Step::Outbound(port, own, event)),
        2 => (0_u16..12, any::<bool>(), event()).prop_map(|(port, own, event)| Step::Inbound(port, own, event)),
        3 => prop_oneof![0_u32..10, 100_u32..7_000, Just(100_000)].prop_map(Step::Wait),
        1 => (slot(), any::<bool>()).prop_map(|(slot, gone)| Step::Replace(slot, gone)),
        1 => Just(Step::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_entry_knows_its_peer_its_list_and_its_count_after_anything(
        capacity in 1_usize..14,
        steps in vec(step(), 1..300),
    ) {
        let mut world = World::new(capacity);
        for step in &steps {
            world.step(step);
            world.check();
        }
        // In the end nothing is left, and all room is there again.
        for _ in 0..100 {
            world.step(&Step::Wait(10_000));
        }
        world.check();
        prop_assert!(world.connections.table.is_empty());
        let slot = SLOTS.iter().position(|(_, _, method)| *method == Method::Direct).expect("one is direct");
        world.step(&Step::Replace(slot, false));
        for port in 0..capacity as u16 {
            world.step(&Step::Client(port, slot, 1));
        }
        prop_assert_eq!(world.connections.len(), capacity);
        world.check();
    }
}

/// With `open` TCP connections half-open by NAT, in a table that holds no more.
fn full_of_half_open(capacity: usize, ports: std::ops::Range<u16>) -> World {
    let mut world = World::new(capacity);
    for port in ports {
        world.step(&Step::Client(port, 0, flags::SYN));
    }
    world
}

#[test]
fn a_new_connection_takes_the_place_of_an_older_one_never_its_own() {
    // Room for three and a half connections. The fourth needs that of one that is there, whose turn it may not be.
    for established in 0..3_u16 {
        let mut world = full_of_half_open(7, 0..3);
        for port in 0..established {
            world.step(&Step::Client(port, 0, flags::ACK));
        }
        let mut made = world.stats.connections_created.get();
        for port in 10..200 {
            world.step(&Step::Client(port, 0, flags::SYN));
            made += 1;
            assert_eq!(world.stats.connections_created.get(), made, "{established} established, port {port}");
            world.check();
        }
        assert_eq!(world.connections.len(), 3);
    }
}
