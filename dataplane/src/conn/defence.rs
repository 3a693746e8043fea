//! The original's defences against floods, each switched by a policy: connections that are dropped at random
//! (`drop_entry`), every so many-th packet that would open one (`drop_packet`), and other TCP states (`secure_tcp`).
//!
//! As with the original they are looked at once a second, and those that are automatic work while room is short; here that
//! is room in the worker's own table. A thirty-second of the table is walked each second: half-open connections end, and of
//! those that were silent for a minute and have had k packets, of 1 to 8, every k-th.

use super::{Connections, key::Key, sctp::SctpState, table::Entry, tcp::TcpState};
use crate::{
    policy::{Defence, Policies},
    snapshot::Snapshot,
    stats::WorkerStats,
    time::Ticks,
    wire::protocol,
};

/// The part of the table that is walked in a second.
const PART: u32 = 32;
/// Entries that one poll looks at.
const BUDGET: u32 = 512;
/// How long a connection must have been silent.
const SILENT: Ticks = Ticks::from_secs(60);
/// The most packets that a connection may have had.
const FEW: usize = 8;

/// Where the defences of one table stand.
#[derive(Debug, Default)]
pub(super) struct Defences {
    /// When they were last looked at.
    looked: Ticks,
    /// Whether room is short.
    pub(super) short: bool,
    /// Every so many-th packet that would open a connection is dropped; 0: none.
    rate: u32,
    /// Until the next one.
    left: u32,
    /// The next entry of the walk, and how many are to be looked at.
    at: u32,
    walk: u32,
    /// By packets: silent connections until one is dropped.
    until: [u8; FEW + 1],
}

impl<K: Key> Connections<K> {
    /// Whether the other TCP states are in force.
    #[inline]
    pub(super) fn is_secure(&self, snapshot: &Snapshot) -> bool {
        snapshot.policies.secure_tcp.works(self.defences.short)
    }

    /// Whether a packet that would open a connection is to be dropped.
    #[inline]
    pub fn drops_new(&mut self) -> bool {
        let defences = &mut self.defences;
        if defences.rate == 0 {
            return false;
        }
        defences.left = defences.left.saturating_sub(1);
        let drops = defences.left == 0;
        if drops {
            defences.left = defences.rate;
        }
        drops
    }

    /// Looks at the defences if a second has passed, and goes on with the walk. Returns how many entries it looked at.
    #[inline]
    pub fn defend(&mut self, now: Ticks, snapshot: &Snapshot, stats: &WorkerStats) -> usize {
        if now.since(self.defences.looked).0 >= Ticks::PER_SECOND {
            self.look(now, &snapshot.policies);
        }
        if self.defences.walk == 0 { 0 } else { self.walk(now, snapshot, stats) }
    }

    #[cold]
    fn look(&mut self, now: Ticks, policies: &Policies) {
        let (capacity, len) = (self.table.capacity(), self.table.len());
        let wanted = match policies.amemthresh {
            0 => capacity / 16,
            places => places as usize,
        };
        let free = capacity - len;
        let defences = &mut self.defences;
        (defences.looked, defences.short) = (now, free < wanted);
        let rate = match policies.drop_packet {
            Defence::Always => policies.am_droprate.max(1),
            automatic if automatic.works(defences.short) => (wanted / (wanted - free)).max(1) as u32,
            _ => 0,
        };
        if rate != defences.rate {
            (defences.rate, defences.left) = (rate, rate);
        }
        if policies.drop_entry.works(defences.short) {
            defences.walk = self.table.used().div_ceil(PART);
        }
    }

    #[cold]
    fn walk(&mut self, now: Ticks, snapshot: &Snapshot, stats: &WorkerStats) -> usize {
        let looked = self.defences.walk.min(BUDGET);
        self.defences.walk -= looked;
        for _ in 0..looked {
            if self.defences.at >= self.table.used() {
                self.defences.at = 0;
            }
            let entry = self.defences.at;
            self.defences.at += 1;
            let Some(found) = self.live(entry).copied() else { continue };
            let silent = now.since(self.last_seen(entry, now, snapshot)).0 >= SILENT.0;
            if is_dropped(&found, silent, &mut self.defences.until) {
                self.end(entry, now, snapshot);
                stats.connections_evicted.add(1);
            }
        }
        looked as usize
    }
}

fn is_dropped<K: Key>(entry: &Entry<K>, silent: bool, until: &mut [u8; FEW + 1]) -> bool {
    let (tcp, sctp) = (TcpState::from_u8(entry.state), SctpState::from_u8(entry.state));
    let may_be = match entry.key.protocol() {
        _ if !entry.role.is_client() => false,
        protocol::TCP if matches!(tcp, TcpState::SynReceived | TcpState::SynAck) => return true,
        protocol::TCP => tcp == TcpState::Established,
        protocol::SCTP if matches!(sctp, SctpState::Init1 | SctpState::Init) => return true,
        protocol::SCTP => sctp == SctpState::Established,
        _ => true,
    };
    let packets = usize::try_from(entry.packets).unwrap_or(usize::MAX);
    if !may_be || !silent || packets == 0 || packets > FEW {
        return false;
    }
    until[packets] = until[packets].saturating_sub(1);
    let drops = until[packets] == 0;
    if drops {
        until[packets] = packets as u8;
    }
    drops
}
