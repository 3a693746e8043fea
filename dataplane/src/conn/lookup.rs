//! The lookup of a batch: three steps, each over all packets before the next, so that their memory misses overlap.

use super::{
    Connections,
    key::{Key, Key4, Key6},
    pair::is_valid,
    sctp::Event,
    table::{Entry, NONE, Role},
};
use crate::{
    batch::{Batch, Kind, Layout, Lookup, Packet},
    limits::BATCH,
    port::Frame,
    snapshot::{self, Presence, Snapshot},
    time::{Nanos, Ticks},
    verdict::DropReason,
    wire::{protocol, tcp},
};
use arrayvec::ArrayVec;

/// Numbers of packets of a batch, in order.
pub type Picked = ArrayVec<u8, BATCH>;

/// A key that packets of a batch have.
pub trait BatchKey: Key {
    /// The table that it is looked up in.
    const TABLE: Lookup;

    /// The key of a packet, which is the `i`th of its batch.
    fn of<'a>(packet: &'a Packet, key6: &'a [Key6; BATCH], i: usize) -> &'a Self;

    /// Makes it the key of a packet; `key6` is where such keys are.
    fn keep_in(&self, packet: &mut Packet, key6: &mut Key6);
}

impl BatchKey for Key4 {
    const TABLE: Lookup = Lookup::V4;

    #[inline(always)]
    fn of<'a>(packet: &'a Packet, _: &'a [Key6; BATCH], _: usize) -> &'a Self {
        &packet.key4
    }

    fn keep_in(&self, packet: &mut Packet, _: &mut Key6) {
        packet.key4 = *self;
    }
}

impl BatchKey for Key6 {
    const TABLE: Lookup = Lookup::V6;

    #[inline(always)]
    fn of<'a>(_: &'a Packet, key6: &'a [Key6; BATCH], i: usize) -> &'a Self {
        &key6[i]
    }

    fn keep_in(&self, _: &mut Packet, key6: &mut Key6) {
        *key6 = *self;
    }
}

/// Finds the connections of the packets of one address family, whose buckets are on their way. A packet of a connection
/// gets its destination and is counted; one whose server was removed ends here; the others are added to `misses`, and so
/// are those that go on by their role (source NAT, FTP).
#[inline]
pub fn batch<K: BatchKey, F: Frame>(
    connections: &mut Connections<K>,
    batch: &mut Batch<F>,
    misses: &mut Picked,
    (now, snapshot): (Nanos, &Snapshot),
) {
    let frames = batch.frames.len();
    for packet in &mut batch.packets[..frames] {
        // Those of no flow too: a glance at a wrong bucket is cheaper than to ask.
        packet.entry = connections.table.probe(packet.hash);
    }
    // The usual ones go through a loop of their own, up to the next that is not.
    let mut i = 0;
    loop {
        i += usual(connections, &mut batch.packets[i..frames], &batch.key6, i, (now.ticks(), snapshot));
        if i == frames {
            break;
        }
        let key = *K::of(&batch.packets[i], &batch.key6, i);
        let packet = &mut batch.packets[i];
        // An error about a tunnel's packet is none of the client's packets, and does not go to its server.
        let is_own = packet.layout.kind != Kind::TunnelError;
        let found = connections.table.confirm(&key, packet.hash, packet.entry).filter(|_| is_own);
        match found.and_then(|entry| follow(connections, entry, packet, &mut batch.key6[i], (now, snapshot)))
        {
            Some(Followed::Destination) => {}
            Some(Followed::Drop(reason)) => packet.drop(reason),
            // `misses` holds a batch, and each packet is in one of the two families.
            Some(Followed::ByRole) | None => misses.push(i as u8),
        }
        i += 1;
    }
}

/// What nearly every packet is: of the connection that its tag points to, which stays in its state and in its list, to a
/// server that is there or from it. Counted and followed with one look at the entry, packet after packet, up to the first
/// that is anything else. Returns how many there were; `first` is the number of the first of `packets`.
#[inline(always)]
fn usual<K: BatchKey>(
    connections: &mut Connections<K>,
    packets: &mut [Packet],
    key6: &[Key6; BATCH],
    first: usize,
    (now, snapshot): (Ticks, &Snapshot),
) -> usize {
    let (entries, destinations) = (&mut connections.table.entries[..], &snapshot.destinations[..]);
    for (i, packet) in packets.iter_mut().enumerate() {
        if packet.lookup != K::TABLE {
            continue;
        }
        let Some(entry) = entries.get_mut(packet.entry as usize) else { return i };
        let Some(destination) = destinations.get(entry.destination as usize) else { return i };
        // No half-open connection is in a state that a packet leaves as it is.
        if entry.key != *K::of(packet, key6, first + i)
            || destination.generation != entry.destination_generation
            || destination.presence != Presence::Present
            || u32::from(packet.keeps) >> (entry.state & 31) & 1 == 0
        {
            return i;
        }
        if entry.peer == NONE {
            // Of NAT: another connection has taken its answers.
            if entry.role > Role::Local {
                return i;
            }
        } else {
            let Some(hop) = hop_of_nat(entry, snapshot) else { return i };
            packet.hop = hop;
        }
        packet.role = entry.role;
        entry.count(packet.layout.ip_len());
        entry.last_seen = now;
        packet.destination = entry.destination;
    }
    packets.len()
}

/// The next hop that a packet of NAT is known to have: of an answer the last one's; of a client's packet, of which nobody asks
/// for it, any. `None`: it is to be found, or the entry is of neither.
#[inline(always)]
fn hop_of_nat<K: BatchKey>(entry: &Entry<K>, snapshot: &Snapshot) -> Option<u32> {
    let (hop, is_known) = Connections::last_hop(entry, snapshot.generation);
    // 0 of a client's, 1 of an answer.
    let way = (entry.role as u32).wrapping_sub(Role::Nat as u32);
    if way > Role::Server as u32 - Role::Nat as u32 {
        return None;
    }
    // Nothing branches by the direction, which no processor can guess.
    if way & (u32::from(!is_known) | snapshot::on_link_bit(hop)) != 0 {
        let client = || entry.key.virtual_service().ip();
        return (is_known && snapshot.is_hop_of(hop, client)).then_some(hop);
    }
    Some(hop)
}

/// What becomes of a packet of a known connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It goes where the packet says now.
    Destination,
    /// It ends here.
    Drop(DropReason),
    /// It goes on by its role, for more than its destination counts: the packet says its entry and role.
    ByRole,
}

/// Whether a packet of a flow begins a connection: TCP's SYN, SCTP's INIT.
fn begins(number: u8, kind: Kind, event: u8) -> bool {
    let begins = match number {
        protocol::TCP => event & (tcp::SYN | tcp::RST) == tcp::SYN,
        protocol::SCTP => Event::from_u8(event).opens(false),
        _ => false,
    };
    begins && kind == Kind::Flow
}

/// Whether a packet begins a new connection in the place of the one whose own entry has that number.
#[inline]
fn is_begun_anew<K: Key>(
    connections: &Connections<K>,
    entry: u32,
    layout: &Layout,
    snapshot: &Snapshot,
) -> bool {
    let found = connections.table.get(entry);
    let destination = snapshot.destinations.get(found.destination as usize);
    let quiesced = (found.role.is_client() || found.role == Role::Control)
        && destination.is_some_and(|destination| destination.shared.weight() == 0);
    begins(found.key.protocol(), layout.kind, layout.event)
        && connections.is_reused(entry, quiesced, &snapshot.policies)
}

/// Counts a packet of the connection of an entry and says where it goes; `None` if the connection is no more: its service
/// was deleted, or a SYN begins a new one in its place. `key6` is the packet's, if it has one.
pub fn follow<K: BatchKey>(
    connections: &mut Connections<K>,
    entry: u32,
    packet: &mut Packet,
    key6: &mut Key6,
    (now, snapshot): (Nanos, &Snapshot),
) -> Option<Followed> {
    let (layout, ticks) = (packet.layout, now.ticks());
    let found = connections.table.get(entry);
    let (role, slot) = (found.role, found.destination);
    let first = if role.is_first() { entry } else { found.peer };
    if !is_valid(found, snapshot) {
        connections.end(first, ticks, snapshot);
        return None;
    }
    let destination = snapshot.destinations.get(slot as usize);
    if role.is_first() && is_begun_anew(connections, first, &layout, snapshot) {
        connections.end(first, ticks, snapshot);
        return None;
    }
    let removed = destination.is_some_and(|destination| destination.presence == Presence::Removed);
    if (role.is_client() || matches!(role, Role::Control | Role::Data)) && removed {
        if !snapshot.policies.expire_nodest_conn {
            return Some(Followed::Drop(DropReason::DestinationRemoved));
        }
        connections.end(first, ticks, snapshot);
        return None;
    }
    if matches!(layout.kind, Kind::IcmpError | Kind::Fragment) {
        // An error is no sign of life, and a later fragment none that the first was not: they count, but keep nothing up.
        connections.table.get_mut(entry).count(layout.ip_len());
    } else {
        connections.touch(entry, layout.event, layout.ip_len(), ticks, snapshot);
    }
    packet.role = role;
    match role {
        Role::Direct | Role::Tunnel | Role::Local | Role::Nat => {}
        Role::Server | Role::ControlAnswers => {
            // What the client knows itself and its service by, for a service of many addresses.
            let client = connections.table.get(first).key;
            match snapshot.hop_towards(client.client().ip(), now) {
                Ok(hop) => {
                    let destination = snapshot.destinations.get(slot as usize);
                    // Without a virtual service answers are always told by the client's key.
                    if destination.is_some_and(|destination| destination.virtual_service.is_some()) {
                        connections.remember_hop(entry, hop, snapshot.generation);
                    }
                    packet.hop = hop;
                }
                Err(reason) => return Some(Followed::Drop(reason)),
            }
            // A session's reply is still to be found by its own.
            if role == Role::Server {
                client.keep_in(packet, key6);
            }
        }
        Role::Outbound | Role::Inbound | Role::Control | Role::Data | Role::DataAnswers => {}
    }
    if !role.is_client() && role != Role::Server {
        packet.entry = entry;
        return Some(Followed::ByRole);
    }
    packet.destination = slot;
    Some(Followed::Destination)
}
