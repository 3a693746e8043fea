//! A port that does to frames what networks do: it wraps any other and loses, doubles, delays, cuts and damages what it
//! receives, and refuses what is sent as a full ring does. A seed decides all of it: the same seed and the same calls give
//! the same faults.

use super::{Frame, FramePool, Frames, PoolOf, Port};
use std::os::fd::RawFd;

/// How often each fault happens, in frames of a million (of sent batches for `full_ring`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A received frame is lost.
    pub loss: u32,
    /// It comes twice.
    pub duplication: u32,
    /// It comes after the next one.
    pub reordering: u32,
    /// It is cut to some length, at least one byte.
    pub truncation: u32,
    /// One of its bits is another.
    pub bit_flip: u32,
    /// The transmit ring has no room for the last part of a batch.
    pub full_ring: u32,
}

/// How many of each have happened.
pub type Happened = Faults;

/// A port with faults.
#[derive(Debug)]
pub struct FaultPort<P: Port> {
    port: P,
    faults: Faults,
    happened: Happened,
    random: u64,
    /// A frame that comes after the next one.
    late: Option<P::Frame>,
}

impl<P: Port> FaultPort<P> {
    /// Around `port`.
    pub fn new(port: P, faults: Faults, seed: u64) -> Self {
        Self { port, faults, happened: Happened::default(), random: seed, late: None }
    }

    /// The port within.
    pub fn inner(&mut self) -> &mut P {
        &mut self.port
    }

    /// How many of each fault have happened.
    pub fn happened(&self) -> Happened {
        self.happened
    }

    /// The next number of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.random() % bound as u64) as usize
    }

    /// Whether a fault happens, and counts it.
    fn strikes(&mut self, which: impl Fn(&mut Faults) -> &mut u32) -> bool {
        let rate = *which(&mut self.faults);
        let strikes = rate > 0 && self.below(1_000_000) < rate as usize;
        *which(&mut self.happened) += u32::from(strikes);
        strikes
    }

    /// What becomes of one received frame. There is room in `frames` for two more.
    fn receive(&mut self, mut frame: P::Frame, pool: &mut PoolOf<P>, frames: &mut Frames<P::Frame>) {
        if self.strikes(|faults| &mut faults.loss) {
            return;
        }
        if !frame.is_empty() && self.strikes(|faults| &mut faults.truncation) {
            let len = 1 + self.below(frame.len());
            frame.truncate(len);
        }
        if !frame.is_empty() && self.strikes(|faults| &mut faults.bit_flip) {
            let (byte, bit) = (self.below(frame.len()), self.below(8));
            frame.data_mut()[byte] ^= 1 << bit;
        }
        if self.late.is_none() && self.strikes(|faults| &mut faults.reordering) {
            self.late = Some(frame);
            return;
        }
        let copy = if self.strikes(|faults| &mut faults.duplication) { pool.alloc() } else { None };
        let copy = copy.and_then(|mut copy| copy.copy_from(frame.data()).then_some(copy));
        frames.push(frame);
        // In place of the copy comes the late one, if both are due: there is room for one of them.
        if let Some(second) = self.late.take().or(copy) {
            frames.push(second);
        }
    }
}

impl<P: Port> Port for FaultPort<P> {
    type Frame = P::Frame;

    const SEEN_BY_HOST: bool = P::SEEN_BY_HOST;

    fn rx(&mut self, pool: &mut PoolOf<P>, frames: &mut Frames<P::Frame>) -> usize {
        let before = frames.len();
        let mut received = Frames::new();
        // Each may become two. A call that finds nothing lets the late one go.
        if frames.remaining_capacity() >= 2 {
            self.port.rx(pool, &mut received);
        }
        if received.is_empty() && !frames.is_full() {
            frames.extend(self.late.take());
        }
        for frame in received {
            if frames.remaining_capacity() >= 2 {
                self.receive(frame, pool, frames);
            } else {
                // The batch is full of doubles: counted as lost.
                self.happened.loss += 1;
            }
        }
        frames.len() - before
    }

    fn tx(&mut self, frames: &mut Frames<P::Frame>) -> usize {
        if !frames.is_empty() && self.strikes(|faults| &mut faults.full_ring) {
            let room = self.below(frames.len());
            frames.truncate(room);
        }
        self.port.tx(frames)
    }

    fn rx_ring_drops(&mut self) -> u64 {
        self.port.rx_ring_drops()
    }

    fn wait_fd(&self) -> Option<RawFd> {
        self.port.wait_fd()
    }

    fn is_up(&mut self) -> bool {
        self.port.is_up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::memory;
    use pointsman_hugepages::{Options, PageChoice, Pool, PoolOptions};

    const ALL: u32 = 1_000_000;

    /// What comes of `count` frames of 60 bytes, which begin with their number, given eight at a time.
    fn through(faults: Faults, count: u16, seed: u64) -> (Vec<Vec<u8>>, Happened) {
        let memory = Options { pages: PageChoice::Ordinary, ..Options::default() };
        let mut pool = Pool::new("test", PoolOptions { buffers: 200, room: 100, memory }).unwrap();
        let (port, mut wire) = memory::pair(64, 100).unwrap();
        let mut port = FaultPort::new(port, faults, seed);
        let (mut came, mut frames) = (Vec::new(), Frames::new());
        for n in 0..count {
            let mut bytes = [7; 60];
            bytes[..2].copy_from_slice(&n.to_be_bytes());
            assert!(wire.push(&bytes));
            if n % 8 == 7 || n + 1 == count {
                while port.rx(&mut pool, &mut frames) > 0 {
                    came.extend(frames.drain(..).map(|frame| frame.data().to_vec()));
                }
            }
        }
        (came, port.happened())
    }

    fn numbers(frames: &[Vec<u8>]) -> Vec<u16> {
        frames.iter().map(|frame| u16::from_be_bytes([frame[0], frame[1]])).collect()
    }

    #[test]
    fn without_faults_nothing_changes() {
        let (came, happened) = through(Faults::default(), 1_000, 1);
        assert_eq!(numbers(&came), (0..1_000).collect::<Vec<_>>());
        assert_eq!(happened, Happened::default());
    }

    #[test]
    fn each_fault_does_what_it_says() {
        let (came, _) = through(Faults { loss: ALL, ..Faults::default() }, 100, 1);
        assert!(came.is_empty());
        let (came, _) = through(Faults { duplication: ALL, ..Faults::default() }, 3, 1);
        assert_eq!(numbers(&came), [0, 0, 1, 1, 2, 2]);
        let (came, _) = through(Faults { reordering: ALL, ..Faults::default() }, 5, 1);
        assert_eq!(numbers(&came), [1, 0, 3, 2, 4], "the last is late, and comes when nothing else does");
        let (came, _) = through(Faults { truncation: ALL, ..Faults::default() }, 100, 1);
        assert!(came.iter().all(|frame| (1..=60).contains(&frame.len())));
        assert!(came.iter().any(|frame| frame.len() < 20));
        let (came, _) = through(Faults { bit_flip: ALL, ..Faults::default() }, 100, 1);
        for (frame, n) in came.iter().zip(0_u16..) {
            let sent = n.to_be_bytes().into_iter().chain([7; 58]);
            assert_eq!(frame.iter().zip(sent).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>(), 1);
        }
    }

    #[test]
    fn faults_happen_as_often_as_asked_and_a_seed_repeats_them() {
        let faults = Faults { loss: 100_000, bit_flip: 200_000, reordering: 50_000, ..Faults::default() };
        let (came, happened) = through(faults, 10_000, 3);
        assert!((900..1_100).contains(&happened.loss), "{happened:?}");
        assert!((1_600..2_000).contains(&happened.bit_flip), "{happened:?}");
        assert_eq!(came.len(), 10_000 - happened.loss as usize);
        assert_eq!(through(faults, 10_000, 3), (came, happened));
    }

    #[test]
    fn a_full_ring_takes_the_first_part_of_a_batch() {
        let memory = Options { pages: PageChoice::Ordinary, ..Options::default() };
        let mut pool = Pool::new("test", PoolOptions { buffers: 40, room: 100, memory }).unwrap();
        let (port, mut wire) = memory::pair(64, 100).unwrap();
        let mut port = FaultPort::new(port, Faults { full_ring: ALL, ..Faults::default() }, 5);
        let mut frames = Frames::new();
        pool.alloc_into(40, |buffer| frames.push(buffer));
        let accepted = port.tx(&mut frames);
        assert!(accepted < 40 && frames.is_empty());
        assert_eq!(wire.pop_all().len(), accepted);
        assert_eq!(pool.available(), 40);
    }
}
