//! The lookup of a batch: three steps, each over all packets before the next, so that their memory misses overlap.

use super::{
    Connections, destination_of,
    key::{Key, Key4, Key6},
    wheel::Wheel,
};
use crate::{
    batch::{Batch, Kind, Layout, Lookup, Packet},
    limits::BATCH,
    port::Frame,
    snapshot::{Presence, Snapshot},
    time::Ticks,
    verdict::DropReason,
    wire::tcp,
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

/// Finds the connections of the packets of one address family, whose buckets are on their way. A packet of a connection
/// gets its destination and is counted; one whose server was removed ends here; the others are added to `misses`.
#[inline]
pub fn batch<K: BatchKey, F: Frame>(
    connections: &mut Connections<K>,
    batch: &mut Batch<F>,
    misses: &mut Picked,
    (now, snapshot): (Ticks, &Snapshot),
) {
    let frames = batch.frames.len();
    for packet in &mut batch.packets[..frames] {
        // Those of no flow too: a glance at a wrong bucket is cheaper than to ask.
        packet.entry = connections.table.probe(packet.hash);
    }
    // The usual ones go through a loop of their own, up to the next that is not.
    let mut i = 0;
    loop {
        i += usual(connections, &mut batch.packets[i..frames], &batch.key6, i, (now, snapshot));
        if i == frames {
            break;
        }
        let key = *K::of(&batch.packets[i], &batch.key6, i);
        match other(connections, &key, &batch.packets[i], now, snapshot) {
            Some(Followed::Destination(slot)) => batch.packets[i].destination = slot,
            Some(Followed::Removed) => batch.packets[i].drop(DropReason::DestinationRemoved),
            // `misses` holds a batch, and each packet is in one of the two families.
            None => misses.push(i as u8),
        }
        i += 1;
    }
}

/// What nearly every packet is: of the connection that its tag points to, which stays in its state and in its list, to a
/// server that is there. Counted and followed with one look at the entry, packet after packet, up to the first that is
/// anything else. Returns how many there were; `first` is the number of the first of `packets`.
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
        if entry.key != *K::of(packet, key6, first + i)
            || destination.generation != entry.destination_generation
            || destination.presence != Presence::Present
            || u32::from(packet.keeps) >> (entry.state & 31) & 1 == 0
            || Wheel::is_half_open(entry)
        {
            return i;
        }
        entry.count(packet.layout.ip_len());
        entry.last_seen = now;
        packet.destination = entry.destination;
    }
    packets.len()
}

/// Any other packet: `None` if it is of no connection.
#[inline(never)]
fn other<K: BatchKey>(
    connections: &mut Connections<K>,
    key: &K,
    packet: &Packet,
    now: Ticks,
    snapshot: &Snapshot,
) -> Option<Followed> {
    let entry = connections.table.confirm(key, packet.hash, packet.entry)?;
    follow(connections, entry, &packet.layout, now, snapshot)
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
        connections.end(entry, now, snapshot);
        return None;
    };
    let slot = connections.table.get(entry).destination;
    if layout.tcp_flags & (tcp::SYN | tcp::RST) == tcp::SYN && connections.is_reused_by_syn(entry) {
        connections.end(entry, now, snapshot);
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
