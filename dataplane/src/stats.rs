//! Counters, and the connection counts that schedulers weigh.
//!
//! A worker's counters have one writer, the worker: a count is a plain load and store (no locked instruction), and
//! readers on other threads see a value that was true a moment ago. Connection counts of a destination are shared by the
//! workers and change only when a connection is made, changes between active and inactive, or ends.

use crate::{
    limits::{BATCH, MAX_DESTINATIONS, MAX_PORTS},
    verdict::{Answer, DropReason},
};
use crossbeam::utils::CachePadded;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// How many sizes of batches are told apart: 1, 2 to 3, 4 to 7 and so on, and a full one.
pub const BATCH_SIZES: usize = BATCH.ilog2() as usize + 1;

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the one writer may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Replaces the value. Only the one writer may call it.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value of a moment ago.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one worker has forwarded to one destination.
#[derive(Debug, Default)]
pub struct DestinationCounters {
    /// Connections made.
    pub connections: Counter,
    /// Packets from clients.
    pub packets_in: Counter,
    /// Bytes of them, from the IP header on.
    pub bytes_in: Counter,
    /// Packets of the server to clients, where they pass the director.
    pub packets_out: Counter,
    /// Bytes of them, from the IP header on.
    pub bytes_out: Counter,
}

impl DestinationCounters {
    /// Counts a packet of `bytes` bytes from a client, or an answer. Only the one writer may call it.
    #[inline(always)]
    pub fn count(&self, is_answer: bool, bytes: u16) {
        let (packets, total) = match is_answer {
            false => (&self.packets_in, &self.bytes_in),
            true => (&self.packets_out, &self.bytes_out),
        };
        packets.add(1);
        total.add(u64::from(bytes));
    }
}

/// What a port of one worker has moved.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Frames received, and their bytes from the Ethernet header on.
    pub rx_packets: Counter,
    /// See `rx_packets`.
    pub rx_bytes: Counter,
    /// Frames sent.
    pub tx_packets: Counter,
    /// See `tx_packets`.
    pub tx_bytes: Counter,
    /// Frames that the port lost because its receive ring was full.
    pub rx_ring_drops: Counter,
    /// Frames for which its transmit ring had no room.
    pub tx_ring_drops: Counter,
}

/// Where the time of a worker's thread went.
#[derive(Debug, Default)]
pub struct TimeCounters {
    /// Nanoseconds in polls that did something.
    pub busy: Counter,
    /// Nanoseconds in polls that found nothing, and in the pauses after them.
    pub empty: Counter,
    /// Nanoseconds in the kernel, waiting for frames.
    pub asleep: Counter,
    /// How often it waited.
    pub sleeps: Counter,
    /// How often a frame or another thread ended that before its time.
    pub woken: Counter,
    /// 1 if the thread is bound to its core.
    pub bound: Counter,
}

/// Everything that one worker counts.
#[derive(Debug)]
pub struct WorkerStats {
    /// Calls of poll.
    pub polls: Counter,
    /// Those that found nothing to do.
    pub empty_polls: Counter,
    /// Frames taken from the ports and from other workers.
    pub packets: Counter,
    /// Polls that took frames, by how many: at `n` those of 2^n up to the next power of two.
    pub batches: [Counter; BATCH_SIZES],
    /// Frames given to ports for next hops: with those that a port could then not send (`transmit_ring_full`).
    pub forwarded: Counter,
    /// Frames more than there were packets, as these were cut into fragments; counted where these went, too.
    pub cut: Counter,
    /// Fragments that wait for another of their datagram.
    pub held: Counter,
    /// Frames left to the host.
    pub punted: Counter,
    /// Frames of the host that were given to ports: with those that a port could then not send.
    pub from_host: Counter,
    /// Frames given to other workers.
    pub handed_off: Counter,
    /// Frames taken from other workers.
    pub handed_in: Counter,
    /// The most frames that waited in a ring from another worker in the last full second.
    pub handoff_fill: Counter,
    /// The same since start.
    pub handoff_fill_highest: Counter,
    /// Where the worker's time went, in nanoseconds. Written by the thread that polls, which reads the clock.
    pub time: TimeCounters,
    /// Connections in the table.
    pub connections: Counter,
    /// Connections made.
    pub connections_created: Counter,
    /// Connections that timed out.
    pub connections_expired: Counter,
    /// Half-open connections that gave way when the table was full.
    pub connections_evicted: Counter,
    /// The generation of configuration that the worker runs.
    pub generation: Counter,
    /// By reason.
    pub drops: [Counter; DropReason::COUNT],
    /// By kind.
    pub answers: [Counter; Answer::COUNT],
    /// By port number.
    pub ports: [PortCounters; MAX_PORTS],
    /// By slot.
    pub destinations: Box<[DestinationCounters]>,
}

impl Default for WorkerStats {
    fn default() -> Self {
        Self {
            polls: Counter::default(),
            empty_polls: Counter::default(),
            packets: Counter::default(),
            batches: std::array::from_fn(|_| Counter::default()),
            forwarded: Counter::default(),
            cut: Counter::default(),
            held: Counter::default(),
            punted: Counter::default(),
            from_host: Counter::default(),
            handed_off: Counter::default(),
            handed_in: Counter::default(),
            handoff_fill: Counter::default(),
            handoff_fill_highest: Counter::default(),
            time: TimeCounters::default(),
            connections: Counter::default(),
            connections_created: Counter::default(),
            connections_expired: Counter::default(),
            connections_evicted: Counter::default(),
            generation: Counter::default(),
            drops: std::array::from_fn(|_| Counter::default()),
            answers: std::array::from_fn(|_| Counter::default()),
            ports: std::array::from_fn(|_| PortCounters::default()),
            destinations: (0..MAX_DESTINATIONS).map(|_| DestinationCounters::default()).collect(),
        }
    }
}

impl WorkerStats {
    /// Counts a batch of `frames`; once a poll.
    #[inline]
    pub fn batch(&self, frames: usize) {
        self.packets.add(frames as u64);
        let size = frames.max(1).ilog2() as usize;
        self.batches[size.min(BATCH_SIZES - 1)].add(1);
    }

    /// Counts a packet that ends here.
    #[inline]
    pub fn dropped(&self, reason: DropReason) {
        self.drops[reason as usize].add(1);
    }
}

/// The connection counts of one destination, shared by all workers and kept across generations.
#[derive(Debug, Default)]
pub struct DestinationShared {
    counts: CachePadded<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    active: AtomicU32,
    inactive: AtomicU32,
    templates: AtomicU32,
    upper: AtomicU32,
    lower: AtomicU32,
    overloaded: AtomicBool,
    weight: AtomicU32,
    last_weight: AtomicU32,
}

impl DestinationShared {
    /// Connections that are established or on the way to it.
    #[inline]
    pub fn active(&self) -> u32 {
        self.counts.active.load(Relaxed)
    }

    /// All other connections.
    #[inline]
    pub fn inactive(&self) -> u32 {
        self.counts.inactive.load(Relaxed)
    }

    /// Whether it has any.
    pub fn has_connections(&self) -> bool {
        // One that changes from one count into the other meanwhile is seen in the first or in the last.
        self.active() > 0 || self.inactive() > 0 || self.active() > 0
    }

    /// Whether the destination has reached its upper threshold and not come down to its lower one since.
    #[inline]
    pub fn overloaded(&self) -> bool {
        self.counts.overloaded.load(Relaxed)
    }

    /// Sets the thresholds of `ipvsadm -x` and `-y`; 0 turns each off. A higher upper one, or none, ends the overload; a lower one
    /// begins none before the next connection.
    pub fn set_thresholds(&self, upper: u32, lower: u32) {
        let before = self.counts.upper.swap(upper, Relaxed);
        self.counts.lower.store(lower, Relaxed);
        if upper == 0 || upper > before {
            self.counts.overloaded.store(false, Relaxed);
        }
    }

    /// The upper and the lower threshold.
    pub fn thresholds(&self) -> (u32, u32) {
        (self.counts.upper.load(Relaxed), self.counts.lower.load(Relaxed))
    }

    /// Remembers the weight that the destination was given, and the last one above 0.
    pub fn weighs(&self, weight: u32) {
        self.counts.weight.store(weight, Relaxed);
        if weight > 0 {
            self.counts.last_weight.store(weight, Relaxed);
        }
    }

    /// Its weight; 0: quiesced.
    pub fn weight(&self) -> u32 {
        self.counts.weight.load(Relaxed)
    }

    /// The last weight above 0; 0 if there was none.
    pub fn last_weight(&self) -> u32 {
        self.counts.last_weight.load(Relaxed)
    }

    /// Templates of persistent clients.
    #[inline]
    pub fn templates(&self) -> u32 {
        self.counts.templates.load(Relaxed)
    }

    /// A template was made. Templates do not count against thresholds.
    pub fn template_made(&self) {
        self.counts.templates.fetch_add(1, Relaxed);
    }

    /// A template ended.
    pub fn template_ended(&self) {
        self.counts.templates.fetch_sub(1, Relaxed);
    }

    /// A connection was made.
    #[inline]
    pub fn connected(&self, active: bool) {
        self.count(active).fetch_add(1, SeqCst);
        let upper = self.counts.upper.load(Relaxed);
        if upper != 0 && self.total() >= upper {
            self.counts.overloaded.swap(true, SeqCst);
            // Another worker may have ended connections since, before there was an overload to end: either it sees that, or this
            // one what it has ended.
            self.relieve();
        }
    }

    /// A connection ended.
    #[inline]
    pub fn disconnected(&self, active: bool) {
        self.count(active).fetch_sub(1, SeqCst);
        if self.counts.overloaded.load(SeqCst) {
            self.relieve();
        }
    }

    /// A connection has become active, or inactive.
    #[inline]
    pub fn changed(&self, now_active: bool) {
        self.count(now_active).fetch_add(1, Relaxed);
        self.count(!now_active).fetch_sub(1, Relaxed);
    }

    fn count(&self, active: bool) -> &AtomicU32 {
        if active { &self.counts.active } else { &self.counts.inactive }
    }

    fn total(&self) -> u32 {
        self.counts.active.load(SeqCst).wrapping_add(self.counts.inactive.load(SeqCst))
    }

    /// Ends an overload below `lower` connections, or below three quarters of `upper` if `lower` is 0; at once without either.
    fn relieve(&self) {
        let (upper, lower) = (self.counts.upper.load(Relaxed), self.counts.lower.load(Relaxed));
        let total = self.total();
        let is_over = match lower {
            0 => upper == 0 || u64::from(total) * 4 < u64::from(upper) * 3,
            lower => total < lower,
        };
        if is_over {
            self.counts.overloaded.store(false, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_connections(n: u32, destination: &DestinationShared) {
        while destination.active() < n {
            destination.connected(true);
        }
        while destination.active() > n {
            destination.disconnected(true);
        }
    }

    #[test]
    fn batches_are_counted_by_the_power_of_two_that_they_reach() {
        let stats = WorkerStats::default();
        for frames in [1, 2, 3, 4, 31, 32, 63, 64, 64] {
            stats.batch(frames);
        }
        assert_eq!(stats.batches.each_ref().map(Counter::get), [1, 2, 1, 0, 1, 2, 2]);
        assert_eq!(stats.packets.get(), 264);
    }

    #[test]
    fn overload_begins_at_the_upper_threshold_and_ends_below_the_lower() {
        let destination = DestinationShared::default();
        destination.set_thresholds(10, 4);
        for (connections, overloaded) in [(9, false), (10, true), (4, true), (3, false), (9, false)] {
            with_connections(connections, &destination);
            assert_eq!(destination.overloaded(), overloaded, "at {connections}");
        }
    }

    #[test]
    fn overload_without_a_lower_threshold_ends_below_three_quarters_of_the_upper() {
        let destination = DestinationShared::default();
        destination.set_thresholds(8, 0);
        for (connections, overloaded) in [(8, true), (6, true), (5, false)] {
            with_connections(connections, &destination);
            assert_eq!(destination.overloaded(), overloaded, "at {connections}");
        }
        with_connections(8, &destination);
        destination.set_thresholds(0, 0);
        assert!(!destination.overloaded());
    }

    #[test]
    fn a_higher_upper_threshold_ends_the_overload_and_a_lower_one_waits_for_the_next_connection() {
        let destination = DestinationShared::default();
        destination.set_thresholds(10, 0);
        with_connections(10, &destination);
        destination.set_thresholds(10, 0);
        assert!(destination.overloaded(), "nothing has changed");
        destination.set_thresholds(12, 0);
        assert!(!destination.overloaded());
        destination.set_thresholds(5, 0);
        assert!(!destination.overloaded());
        with_connections(11, &destination);
        assert!(destination.overloaded());
    }

    #[test]
    fn a_change_of_state_moves_a_connection_between_the_counts() {
        let destination = DestinationShared::default();
        destination.connected(true);
        destination.changed(false);
        assert_eq!((destination.active(), destination.inactive()), (0, 1));
        destination.disconnected(false);
        assert_eq!((destination.active(), destination.inactive()), (0, 0));
    }
}
