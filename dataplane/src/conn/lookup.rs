//! The lookup of a batch: three steps, each over all packets before the next, so that their memory misses overlap.

use super::{
    Connections, destination_of,
    key::{Key, Key4, Key6},
    table::Table,
};
use crate::{
    batch::{Batch, Kind, Layout},
    limits::BATCH,
    snapshot::{Presence, Snapshot},
    time::Ticks,
    verdict::{DropReason, Verdict},
    wire::tcp,
};
use arrayvec::ArrayVec;

/// Numbers of packets of a batch, in order.
pub type Picked = ArrayVec<u8, BATCH>;

/// Finds the connections of the `picked` packets, which are of the family of `K`. A packet of a connection gets its destination
/// and is counted; one whose server was removed ends here; the others are added to `misses`.
#[inline]
pub fn batch<K: BatchKey>(
    connections: &mut Connections<K>,
    batch: &mut Batch,
    picked: &Picked,
    misses: &mut Picked,
    (now, snapshot): (Ticks, &Snapshot),
) {
    start(&connections.table, batch, picked);
    for &i in picked {
        let i = usize::from(i);
        let found = connections
            .table
            .confirm(&K::keys(batch)[i], batch.hash[i], batch.entry[i]);
        match found.and_then(|entry| follow(connections, entry, &batch.layout[i], now, snapshot)) {
            Some(Followed::Destination(slot)) => batch.destination[i] = slot,
            Some(Followed::Removed) => batch.verdict[i] = Verdict::Drop(DropReason::DestinationRemoved),
            // `misses` holds a batch, and each packet is in one of the two families.
            None => misses.push(i as u8),
        }
    }
}

/// A key that a batch has an array of.
pub trait BatchKey: Key {
    /// That array.
    fn keys(batch: &Batch) -> &[Self; BATCH];
}

impl BatchKey for Key4 {
    #[inline]
    fn keys(batch: &Batch) -> &[Self; BATCH] {
        &batch.key4
    }
}

impl BatchKey for Key6 {
    #[inline]
    fn keys(batch: &Batch) -> &[Self; BATCH] {
        &batch.key6
    }
}

/// Hashes all keys and starts their buckets, then starts their entries.
#[inline]
fn start<K: BatchKey>(table: &Table<K>, batch: &mut Batch, picked: &Picked) {
    for &i in picked {
        let i = usize::from(i);
        batch.hash[i] = table.hash(&K::keys(batch)[i]);
        table.prefetch(batch.hash[i]);
    }
    for &i in picked {
        let i = usize::from(i);
        batch.entry[i] = table.probe(batch.hash[i]);
    }
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
    if destination.presence == Presence::Removed {
        return Some(Followed::Removed);
    }
    let slot = connections.table.get(entry).destination;
    if layout.kind == Kind::IcmpError {
        // An error is no sign of life: it counts, but keeps nothing up.
        connections.table.get_mut(entry).count(layout.ip_len());
        return Some(Followed::Destination(slot));
    }
    if layout.tcp_flags & (tcp::SYN | tcp::RST) == tcp::SYN && connections.is_reused_by_syn(entry) {
        connections.end(entry, snapshot);
        return None;
    }
    connections.touch(entry, layout.tcp_flags, layout.ip_len(), now, snapshot);
    Some(Followed::Destination(slot))
}
