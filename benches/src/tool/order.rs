//! What is to be measured, what workers are told to do, and what they say that they did.

use super::{
    load::Mix,
    offer::Clock,
    ports::{PortSpec, Wire},
    search::Device,
    sizes::Sizes,
    track::Streams,
};
use hdrhistogram::Histogram;
use pointsman_dataplane::snapshot::Method;
use pointsman_hugepages::Options;
use std::collections::BTreeMap;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Established connections (hit), or what the table holds (new, syn-flood); of all workers together.
    pub flows: u32,
    /// Of the frames.
    pub sizes: Sizes,
    /// Which packets come.
    pub mix: Mix,
    /// How the directors of this process forward.
    pub method: Method,
    /// How many threads run workers.
    pub workers: u16,
    /// Queues that devices are opened with: the most workers of all runs of a command, if that is more.
    pub queues: u16,
    /// Frames that the receive ring of each worker holds.
    pub ring: usize,
    /// What rates and latencies are counted by.
    pub clock: Clock,
    /// Where tables and buffers lie.
    pub memory: Options,
    /// Where frames come from and go to: memory if there is none.
    pub ports: Vec<PortSpec>,
    /// What is at the other end of a wire, for ports that have one.
    pub wire: Option<Wire>,
}

/// What the workers are to do; rates and frames are of all of them together.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Frames without a gap for so long, in nanoseconds of the clock on the wall.
    BackToBack {
        /// How long.
        nanos: u64,
        /// Whether to take latencies.
        latency: bool,
    },
    /// Frames that are due.
    Paced {
        /// Frames a second.
        rate: f64,
        /// How many.
        frames: u64,
        /// Whether to take latencies.
        latency: bool,
    },
    /// Generator and sink alone, for so many frames. Stations on a wire have nothing to leave out: they do nothing.
    Floor(u64),
    /// Only receive, for so long, in nanoseconds of the clock on the wall. Stations on a wire alone do it.
    Listen(u64),
}

impl Order {
    /// What worker `n` of `count` has of it.
    pub fn share(self, n: u64, count: u64) -> Self {
        match self {
            Order::Paced { rate, frames, latency } => Order::Paced {
                rate: rate / count as f64,
                frames: frames / count + u64::from(n < frames % count),
                latency,
            },
            all => all,
        }
    }
}

/// Workers that can be measured: directors in this process ([`super::device`]), or stations on a wire ([`super::station`])
/// with a director at its other end.
pub trait Workers: Device {
    /// Has all workers do the same at the same time.
    ///
    /// # Errors
    /// When a worker has ended.
    fn run(&mut self, order: Order) -> Result<Outcome, String>;

    /// The same. `tick` is told now and then how many frames have left and how many have come, where that is known.
    ///
    /// # Errors
    /// When a worker has ended.
    fn run_watched(&mut self, order: Order, tick: &mut dyn FnMut(u64, u64)) -> Result<Outcome, String> {
        let _ = tick;
        self.run(order)
    }

    /// Whether tables and buffers of all workers lie in huge pages.
    fn has_huge_pages(&self) -> bool;
}

/// What came by a wire, besides what is counted as forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Behind a later frame of the same flow.
    pub reordered: u64,
    /// A second time.
    pub duplicated: u64,
    /// Not written by this tool, or for an earlier run.
    pub foreign: u64,
    /// Queries for the addresses of real servers that were answered.
    pub answered: u64,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.reordered += other.reordered;
        self.duplicated += other.duplicated;
        self.foreign += other.foreign;
        self.answered += other.answered;
    }
}

/// What the workers did, together.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Frames offered.
    pub offered: u64,
    /// Frames that came back from the workers towards real servers.
    pub forwarded: u64,
    /// Connections made.
    pub created: u64,
    /// By the clock on the wall; of the worker that took longest.
    pub nanos: u64,
    /// CPU time of all threads.
    pub cpu_nanos: u64,
    /// Of the best slice, in nanoseconds of CPU time a packet; of the worker that was slowest.
    pub best_nanos: f64,
    /// Packets that were not forwarded, by reason; `receive_ring_full` are those that the port lost.
    pub losses: BTreeMap<String, u64>,
    /// Latencies in nanoseconds, if they were asked for.
    pub latency: Option<Histogram<u64>>,
    /// Whether any worker's tables or buffers lie in ordinary pages.
    pub ordinary_pages: bool,
    /// Frames a second that left a sender on a wire: fewer than it was told to send if it could not.
    pub sent_a_second: Option<f64>,
    /// What came by a wire.
    pub seen: Seen,
    /// Whose frames those were.
    pub streams: Streams,
    /// How far the run was, in seconds, and millions of packets a second there.
    pub slices: Vec<[f64; 2]>,
}

impl Outcome {
    /// Millions of packets a second on the clock.
    pub fn mpps(&self) -> f64 {
        self.forwarded as f64 * 1e3 / self.nanos.max(1) as f64
    }

    /// Nanoseconds of CPU time a packet, in the mean.
    pub fn nanos_per_packet(&self) -> f64 {
        self.cpu_nanos as f64 / self.offered.max(1) as f64
    }

    /// This and what the same workers did after it.
    pub fn then(self, mut later: Outcome) -> Outcome {
        if self.offered == 0 {
            return later;
        }
        let offset = self.nanos as f64 / 1e9;
        let (nanos, best_nanos) = (self.nanos + later.nanos, self.best_nanos.min(later.best_nanos));
        let mut slices = self.slices.clone();
        slices.extend(later.slices.drain(..).map(|[at, mpps]| [at + offset, mpps]));
        // In the mean of both.
        let sent = |outcome: &Outcome| outcome.sent_a_second.map(|rate| rate * outcome.nanos as f64);
        let sent_a_second = match (sent(&self), sent(&later)) {
            (Some(ours), Some(theirs)) => Some((ours + theirs) / nanos.max(1) as f64),
            _ => None,
        };
        Outcome { nanos, best_nanos, slices, sent_a_second, ..self.join(later) }
    }

    /// This and what another worker did at the same time.
    pub fn join(mut self, other: Outcome) -> Outcome {
        self.offered += other.offered;
        self.forwarded += other.forwarded;
        self.created += other.created;
        self.ordinary_pages |= other.ordinary_pages;
        self.nanos = self.nanos.max(other.nanos);
        self.cpu_nanos += other.cpu_nanos;
        self.best_nanos = self.best_nanos.max(other.best_nanos);
        self.seen.add(other.seen);
        self.streams.add(&other.streams);
        if let Some(theirs) = other.sent_a_second {
            self.sent_a_second = Some(self.sent_a_second.unwrap_or(0.0) + theirs);
        }
        for (reason, n) in other.losses {
            *self.losses.entry(reason).or_default() += n;
        }
        if let (Some(ours), Some(theirs)) = (&mut self.latency, &other.latency) {
            // Both have the same bounds.
            let _ = ours.add(theirs);
        }
        for (ours, theirs) in self.slices.iter_mut().zip(&other.slices) {
            ours[1] += theirs[1];
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(offered: u64, nanos: u64, best_nanos: f64) -> Outcome {
        let losses = [("table_full".to_owned(), 1)].into();
        let slices = vec![[0.5, 2.0], [1.0, 4.0]];
        Outcome {
            offered,
            forwarded: offered - 1,
            nanos,
            cpu_nanos: nanos,
            best_nanos,
            losses,
            slices,
            ..Default::default()
        }
    }

    #[test]
    fn workers_add_up_and_the_slowest_tells_the_time() {
        let both = outcome(2_000, 1_000_000, 30.0).join(outcome(1_001, 1_500_000, 40.0));
        assert_eq!(
            (both.offered, both.forwarded, both.nanos, both.cpu_nanos),
            (3_001, 2_999, 1_500_000, 2_500_000)
        );
        assert_eq!((both.best_nanos, both.losses["table_full"]), (40.0, 2));
        assert_eq!(both.slices, [[0.5, 4.0], [1.0, 8.0]]);
        // 2999 packets in 1.5 ms.
        assert!((both.mpps() - 1.999_333).abs() < 1e-6);
    }

    #[test]
    fn one_run_after_the_other_is_a_longer_run() {
        let both = outcome(2_000, 1_000_000_000, 30.0).then(outcome(1_000, 2_000_000_000, 25.0));
        assert_eq!((both.offered, both.nanos, both.best_nanos), (3_000, 3_000_000_000, 25.0));
        assert_eq!(both.slices, [[0.5, 2.0], [1.0, 4.0], [1.5, 2.0], [2.0, 4.0]]);
        assert_eq!(Outcome::default().then(outcome(2, 7, 1.0)).nanos, 7);
    }
}
