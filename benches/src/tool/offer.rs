//! A port that offers frames when they are due, and takes the time of those that come back.
//!
//! A frame arrives when the clock says so, whether or not the worker is there to take it, and waits in a receive ring of a
//! fixed size; what finds the ring full is lost, as in a NIC. Latency is counted from the moment of arrival, so that a
//! worker that is late is seen to be late for every frame that waited.

use super::load::{Load, Stamp, time_of};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use pointsman_dataplane::port::{Frame, Frames, Port};
use pointsman_hugepages::{Buffer, Pool};
use rustix::time::{ClockId, clock_gettime};
use std::{collections::VecDeque, os::fd::RawFd};

/// What offered rates and latencies are counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Clock {
    /// The clock on the wall: what a client would see.
    #[default]
    Wall,
    /// CPU time of the worker's thread: on a machine that does other work too, time in which others have the core does not
    /// pass. Reading it is a system call, which costs a share of each batch.
    Cpu,
}

impl Clock {
    /// The time now, in nanoseconds since some moment.
    #[inline]
    pub fn nanos(self) -> u64 {
        let at = clock_gettime(match self {
            Clock::Wall => ClockId::Monotonic,
            Clock::Cpu => ClockId::ThreadCPUTime,
        });
        at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
    }
}

/// When frames are due, and which of them found room.
#[derive(Clone, Debug)]
pub struct Pacer {
    start: u64,
    /// Nanoseconds from one frame to the next.
    gap: f64,
    frames: u64,
    arrived: u64,
    lost: u64,
    ring: usize,
    /// When the frames came that wait.
    waiting: VecDeque<u64>,
}

impl Pacer {
    /// `frames` frames, the first at `start`, `rate` a second, into a ring of `ring`.
    pub fn new(start: u64, rate: f64, frames: u64, ring: usize) -> Self {
        let gap = 1e9 / rate.max(1e-3);
        let waiting = VecDeque::with_capacity(ring);
        Self { start, gap, frames, arrived: 0, lost: 0, ring, waiting }
    }

    /// Has all frames arrive that are due at `now`.
    #[inline]
    pub fn arrive(&mut self, now: u64) {
        let Some(since) = now.checked_sub(self.start) else {
            return;
        };
        let due = ((since as f64 / self.gap) as u64 + 1).min(self.frames);
        let new = due.saturating_sub(self.arrived);
        let accepted = new.min((self.ring - self.waiting.len()) as u64);
        for n in self.arrived..self.arrived + accepted {
            self.waiting.push_back(self.start + (n as f64 * self.gap) as u64);
        }
        self.lost += new - accepted;
        self.arrived += new;
    }

    /// The moment at which the first of those that wait came.
    #[inline]
    pub fn take(&mut self) -> Option<u64> {
        self.waiting.pop_front()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many found the ring full.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// How many have arrived, lost ones included.
    pub fn arrived(&self) -> u64 {
        self.arrived
    }

    /// Whether all have arrived and been taken.
    pub fn is_done(&self) -> bool {
        self.arrived == self.frames && self.waiting.is_empty()
    }
}

/// What a [`Tester`] offers.
#[derive(Clone, Debug, Default)]
pub enum Mode {
    /// Full batches, as fast as the worker takes them, and no look at the clock.
    #[default]
    BackToBack,
    /// The same, with the time at which each batch was taken.
    Stamped(Clock),
    /// Frames that are due.
    Paced(Clock, Pacer),
}

/// Where a tester's empty frames come from, and where those that were sent go.
pub trait Medium: Send {
    /// What frames are.
    type Frame: Frame;

    /// Appends at most `wanted` frames, for which there is room, to be written.
    fn take(
        &mut self,
        pool: &mut <Self::Frame as Frame>::Pool,
        frames: &mut Frames<Self::Frame>,
        wanted: usize,
    );

    /// Takes all frames back and returns how many it accepted as sent.
    fn give(&mut self, frames: &mut Frames<Self::Frame>) -> usize;
}

/// Memory: frames are taken from the worker's pool, and go back to it.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Medium for Plain {
    type Frame = Buffer;

    #[inline]
    fn take(&mut self, pool: &mut Pool, frames: &mut Frames, wanted: usize) {
        pool.alloc_into(wanted, |buffer| frames.push(buffer));
    }

    #[inline]
    fn give(&mut self, frames: &mut Frames) -> usize {
        let sent = frames.len();
        frames.clear();
        sent
    }
}

/// A port between the generator and the sink of one worker.
pub struct Tester<M> {
    /// Writes the frames.
    pub load: Load,
    /// When they come.
    pub mode: Mode,
    /// Where the latencies go.
    pub latency: Option<Histogram<u64>>,
    medium: M,
    sent: u64,
}

impl<M: Medium> Tester<M> {
    /// That offers full batches.
    pub fn new(load: Load, medium: M) -> Self {
        Self { load, mode: Mode::BackToBack, latency: None, medium, sent: 0 }
    }

    /// Frames that came back since start.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    fn record(&mut self, frames: &Frames<M::Frame>) {
        let (Some(latency), Mode::Stamped(clock) | Mode::Paced(clock, _)) = (&mut self.latency, &self.mode)
        else {
            return;
        };
        let now = clock.nanos() as u32;
        for frame in frames {
            if let Some(time) = time_of(frame.data()) {
                latency.saturating_record(u64::from(now.wrapping_sub(time)));
            }
        }
    }
}

impl<M: Medium> Port for Tester<M> {
    type Frame = M::Frame;

    #[inline]
    fn rx(&mut self, pool: &mut <M::Frame as Frame>::Pool, frames: &mut Frames<M::Frame>) -> usize {
        let (before, room) = (frames.len(), frames.remaining_capacity());
        let (wanted, now) = match &mut self.mode {
            Mode::BackToBack => (room, 0),
            Mode::Stamped(clock) => (room, clock.nanos()),
            Mode::Paced(clock, pacer) => {
                pacer.arrive(clock.nanos());
                (pacer.waiting().min(room), 0)
            }
        };
        if wanted == 0 {
            return 0;
        }
        self.medium.take(pool, frames, wanted);
        for frame in &mut frames[before..] {
            let at = match &mut self.mode {
                Mode::Paced(_, pacer) => pacer.take().unwrap_or(0),
                _ => now,
            };
            self.load.fill(frame, Stamp { time: at as u32, ..Stamp::default() });
        }
        frames.len() - before
    }

    #[inline]
    fn tx(&mut self, frames: &mut Frames<M::Frame>) -> usize {
        self.record(frames);
        let sent = self.medium.give(frames);
        self.sent += sent as u64;
        sent
    }

    fn rx_ring_drops(&mut self) -> u64 {
        match &self.mode {
            Mode::Paced(_, pacer) => pacer.lost(),
            _ => 0,
        }
    }

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_when_they_are_due() {
        // A million a second: one each microsecond.
        let mut pacer = Pacer::new(5_000, 1e6, 10, 100);
        pacer.arrive(4_999);
        assert_eq!(pacer.arrived(), 0);
        pacer.arrive(5_000);
        assert_eq!(pacer.arrived(), 1);
        pacer.arrive(5_999);
        assert_eq!(pacer.arrived(), 1);
        pacer.arrive(8_000);
        assert_eq!((pacer.arrived(), pacer.waiting()), (4, 4));
        assert_eq!([0; 5].map(|_| pacer.take()), [Some(5_000), Some(6_000), Some(7_000), Some(8_000), None]);
        assert!(!pacer.is_done());
        pacer.arrive(1_000_000);
        assert_eq!((pacer.arrived(), pacer.waiting(), pacer.lost()), (10, 6, 0));
        while pacer.take().is_some() {}
        assert!(pacer.is_done());
    }

    #[test]
    fn what_finds_the_ring_full_is_lost_and_the_first_ones_stay() {
        let mut pacer = Pacer::new(0, 1e9, 1_000, 64);
        pacer.arrive(99);
        assert_eq!((pacer.arrived(), pacer.waiting(), pacer.lost()), (100, 64, 36));
        assert_eq!(pacer.take(), Some(0));
        pacer.arrive(100);
        assert_eq!((pacer.arrived(), pacer.waiting(), pacer.lost()), (101, 64, 36));
        assert_eq!(
            (0..64).map_while(|_| pacer.take()).last(),
            Some(100),
            "the newest found the place that one left"
        );
    }
}
