//! The lookup of a batch: three steps, each over all packets before the next, so that their memory misses overlap.

use super::{
    Connections, destination_of,
    key::{Key, Key4, Key6},
    table::Table,
    wheel::Wheel,
};
use crate::{
    batch::{Batch, Kind, Layout, Lookup, Packet},
    limits::BATCH,
    port::Frame,
    snapshot::{Presence, Snapshot},
    time::Ticks,
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
}

impl BatchKey for Key4 {
    const TABLE: Lookup = Lookup::V4;

    #[inline(always)]
    fn of<'a>(packet: &'a Packet, _: &'a [Key6; BATCH], _: usize) -> &'a Self {
        &packet.key4
    }
}

impl BatchKey for Key6 {
    const TABLE: Lookup = Lookup::V6;

    #[inline(always)]
    fn of<'a>(_: &'a Packet, key6: &'a [Key6; BATCH], i: usize) -> &'a Self {
        &key6[i]
    }
}

/// Finds the connections of the packets of one address family. A packet of a connection gets its destination and is
/// counted; one whose server was removed ends here; the others are added to `misses`.
#[inline]
pub fn batch<K: BatchKey, F: Frame>(
    connections: &mut Connections<K>,
    batch: &mut Batch<F>,
    misses: &mut Picked,
    (now, snapshot): (Ticks, &Snapshot),
) {
    let (frames, key6) = (batch.frames.len(), &batch.key6);
    start(&connections.table, &mut batch.packets[..frames], key6);
    for (i, packet) in batch.packets[..frames].iter_mut().enumerate() {
        if packet.lookup != K::TABLE {
            continue;
        }
        let key = K::of(packet, key6, i);
        if let Some(slot) = usual(connections, packet.entry, key, &packet.layout, now, snapshot) {
            packet.destination = slot;
            continue;
        }
        let found = connections.table.confirm(key, packet.hash, packet.entry);
        match found.and_then(|entry| follow(connections, entry, &packet.layout, now, snapshot)) {
            Some(Followed::Destination(slot)) => packet.destination = slot,
            Some(Followed::Removed) => packet.drop(DropReason::DestinationRemoved),
            // `misses` holds a batch, and each packet is in one of the two families.
            None => misses.push(i as u8),
        }
    }
}

/// Hashes all keys and starts their buckets, then starts their entries.
#[inline]
fn start<K: BatchKey>(table: &Table<K>, packets: &mut [Packet], key6: &[Key6; BATCH]) {
    for (i, packet) in packets.iter_mut().enumerate() {
        if packet.lookup == K::TABLE {
            packet.hash = table.hash(K::of(packet, key6, i));
            table.prefetch(packet.hash);
        }
    }
    for packet in packets {
        if packet.lookup == K::TABLE {
            packet.entry = table.probe(packet.hash);
        }
    }
}

/// What nearly every packet is: of the connection that its tag points to, which stays in its state and in its list, to a
/// server that is there. Counted and followed with one look at the entry; `None`, and nothing changed, otherwise.
#[inline(always)]
fn usual<K: Key>(
    connections: &mut Connections<K>,
    entry: u32,
    key: &K,
    layout: &Layout,
    now: Ticks,
    snapshot: &Snapshot,
) -> Option<u32> {
    let entry = connections.table.entries.get_mut(entry as usize)?;
    let destination = snapshot.destinations.get(entry.destination as usize)?;
    let stays = key.protocol() != protocol::TCP || entry.stays_after(layout.tcp_flags);
    if (entry.key != *key)
        | (destination.generation != entry.destination_generation)
        | (destination.presence != Presence::Present)
        | (layout.kind != Kind::Flow)
        | (layout.tcp_flags & tcp::SYN != 0)
        | !stays
        | Wheel::is_half_open(entry)
    {
        return None;
    }
    entry.count(layout.ip_len());
    entry.last_seen = now;
    Some(entry.destination)
}

/// Where a packet of a known connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// To the destination in this slot.
    Destination(u32),
    /// Nowhere: its server was removed.
    Removed,
}

/// Counts a packet of the connection and says where it goes; `None` if the connection is no more: its service was
/// deleted, or a SYN begins a new one in its place.
#[inline]
pub fn follow<K: Key>(
    connections: &mut Connections<K>,
    entry: u32,
    layout: &Layout,
    now: Ticks,
    snapshot: &Snapshot,
) -> Option<Followed> {
    let Some(destination) = destination_of(connections.table.get(entry), snapshot) else {
        connections.end(entry, snapshot);
        return None;
    };
    let slot = connections.table.get(entry).destination;
    if layout.tcp_flags & (tcp::SYN | tcp::RST) == tcp::SYN && connections.is_reused_by_syn(entry) {
        connections.end(entry, snapshot);
        return None;
    }
    if destination.presence == Presence::Removed {
        return Some(Followed::Removed);
    }
    if layout.kind == Kind::IcmpError {
        // An error is no sign of life: it counts, but keeps nothing up.
        connections.table.get_mut(entry).count(layout.ip_len());
        return Some(Followed::Destination(slot));
    }
    connections.touch(entry, layout.tcp_flags, layout.ip_len(), now, snapshot);
    Some(Followed::Destination(slot))
}
