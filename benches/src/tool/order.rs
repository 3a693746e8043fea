//! What is to be measured, what workers are told to do, and what they say that they did.

use super::{load::Mix, offer::Clock, search::Device, sizes::Sizes};
use hdrhistogram::Histogram;
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
    /// How many threads run workers.
    pub workers: u16,
    /// Frames that the receive ring of each worker holds.
    pub ring: usize,
    /// What rates and latencies are counted by.
    pub clock: Clock,
    /// Where tables and buffers lie.
    pub memory: Options,
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
    /// Generator and sink alone, for so many frames.
    Floor(u64),
}

/// Workers that can be measured. Those on memory ports are [`super::device::Memory`]; ports of another kind need one
/// implementation, and all commands work with it.
pub trait Workers: Device {
    /// Has all workers do the same at the same time.
    ///
    /// # Errors
    /// When a worker has ended.
    fn run(&mut self, order: Order) -> Result<Outcome, String>;

    /// Whether tables and buffers of all workers lie in huge pages.
    fn has_huge_pages(&self) -> bool;
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
        Outcome { nanos, best_nanos, slices, ..self.join(later) }
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
