//! After a change of configuration: a walk over all connections, a bounded number at each poll.
//!
//! It ends the connections of services that were deleted, as the original does at once, and arms anew those that a shorter
//! timeout has end earlier. Until it has come by, a connection of a deleted service is none to a packet either
//! ([`super::lookup::follow`]), so that the walk only gives memory and counts back.

use super::{Connections, half_open_queue, key::Key, pair::is_valid, timeout, wheel::Wheel};
use crate::{snapshot::Snapshot, time::Ticks};

/// Entries that one poll looks at: 32 KB of memory in a row.
const BUDGET: u32 = 512;

/// How far the walk has come.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// The next entry.
    at: u32,
    /// Entries that are still to be looked at.
    left: u32,
}

impl<K: Key> Connections<K> {
    /// Begins the walk, or has the one that is under way go all round from where it is.
    pub fn begin_sweep(&mut self) {
        self.sweep.left = self.table.used();
    }

    /// Goes on with the walk. Returns how many entries it looked at: 0 when there is no walk.
    #[inline]
    pub fn sweep(&mut self, now: Ticks, snapshot: &Snapshot) -> usize {
        if self.sweep.left == 0 { 0 } else { self.sweep_some(now, snapshot) }
    }

    #[cold]
    fn sweep_some(&mut self, now: Ticks, snapshot: &Snapshot) -> usize {
        let looked = self.sweep.left.min(BUDGET);
        for _ in 0..looked {
            // Entries that were never used hold no connection, and those used since know the new configuration.
            if self.sweep.at >= self.table.used() {
                self.sweep.at = 0;
            }
            let entry = self.sweep.at;
            self.sweep.at += 1;
            self.sweep.left -= 1;
            let Some(found) = self.live(entry) else { continue };
            if !is_valid(found, snapshot) {
                self.end(entry, now, snapshot);
                continue;
            }
            let deadline = self.last_seen(entry, now, snapshot).plus(timeout(found, snapshot));
            let is_queued = Wheel::is_half_open(found) || half_open_queue(found, snapshot).is_some();
            if !is_queued && self.wheel.is_armed_after(found, deadline) {
                self.wheel.unlink(&mut self.table.entries, entry);
                self.wheel.arm(&mut self.table.entries, entry, deadline, now);
            }
        }
        looked as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        conn::key::Key4,
        forward::nat::Ends,
        snapshot::{Destination, Method, Presence},
        stats::{DestinationShared, WorkerStats},
        wire::tcp,
    };
    use pointsman_hugepages::{Options, PageChoice};
    use std::sync::Arc;

    const START: Ticks = Ticks::from_secs(1000);
    const CONNECTIONS: u32 = 2000;

    /// Established connections to one destination.
    fn established() -> (Connections<Key4>, Snapshot, WorkerStats) {
        let destination = Destination {
            generation: 1,
            presence: Presence::Present,
            address: [192, 168, 50, 11].into(),
            port: 80,
            virtual_service: Some(([10, 0, 0, 100].into(), 80)),
            ends: Ends::default(),
            method: Method::Direct,
            next_hop: 0,
            tunnel: None,
            timeouts: None,
            shared: Arc::new(DestinationShared::default()),
        };
        let snapshot = Snapshot { destinations: [destination].into(), ..Snapshot::default() };
        let memory = Options { pages: PageChoice::Ordinary, numa_node: None, lock: false };
        let mut connections = Connections::<Key4>::new(CONNECTIONS as usize, 1, &memory).unwrap();
        let stats = WorkerStats::default();
        for n in 0..CONNECTIONS {
            let [a, b, c, d] = n.to_be_bytes();
            let key = Key4::from_wire([10, a, b, c, 10, 0, 0, 100], [d, 0, 0, 80], 6);
            let hash = connections.table.hash(&key);
            let entry = connections
                .create(
                    (&key, hash),
                    (0, crate::conn::Held::default()),
                    (tcp::SYN, 40),
                    START,
                    (&snapshot, &stats),
                )
                .unwrap();
            connections.touch(entry, tcp::ACK, 40, START, &snapshot);
        }
        (connections, snapshot, stats)
    }

    fn sweep_all(connections: &mut Connections<Key4>, now: Ticks, snapshot: &Snapshot) -> usize {
        connections.begin_sweep();
        std::iter::from_fn(|| Some(connections.sweep(now, snapshot)).filter(|looked| *looked > 0)).sum()
    }

    #[test]
    fn the_connections_of_a_deleted_service_end_and_are_counted_off() {
        let (mut connections, mut snapshot, _) = established();
        assert_eq!(snapshot.destinations[0].shared.active(), CONNECTIONS);
        assert_eq!(sweep_all(&mut connections, START, &snapshot), CONNECTIONS as usize);
        assert_eq!(connections.table.len(), CONNECTIONS as usize);
        let destinations = std::sync::Arc::get_mut(&mut snapshot.destinations).unwrap();
        destinations[0].presence = Presence::ServiceGone;
        assert_eq!(sweep_all(&mut connections, START, &snapshot), CONNECTIONS as usize);
        assert_eq!((connections.table.len(), snapshot.destinations[0].shared.active()), (0, 0));
    }

    #[test]
    fn a_shorter_timeout_holds_for_connections_that_are_there() {
        let (mut connections, mut snapshot, stats) = established();
        // Turns the wheel to the present.
        connections.expire(START, &snapshot, &stats);
        snapshot.timeouts.tcp[1] = Ticks::from_secs(60);
        sweep_all(&mut connections, START, &snapshot);
        for (seconds, left) in [(59, CONNECTIONS), (62, 0)] {
            let now = START.plus(Ticks::from_secs(seconds));
            for _ in 0..10 * CONNECTIONS {
                connections.expire(now, &snapshot, &stats);
            }
            assert_eq!(connections.table.len(), left as usize, "after {seconds} s");
        }
    }

    #[test]
    fn a_timeout_shorter_than_a_connection_has_been_idle_ends_it_now() {
        let (mut connections, mut snapshot, stats) = established();
        let now = |seconds| START.plus(Ticks::from_secs(seconds));
        for n in 0..10 {
            connections.expire(now(10 * n), &snapshot, &stats);
        }
        snapshot.timeouts.tcp[1] = Ticks::from_secs(60);
        sweep_all(&mut connections, now(100), &snapshot);
        for _ in 0..10 * CONNECTIONS {
            connections.expire(now(102), &snapshot, &stats);
        }
        assert_eq!(connections.table.len(), 0);
    }
}
