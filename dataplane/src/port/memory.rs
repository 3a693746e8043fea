//! Ports whose wire is memory, for tests and benches.
//!
//! - [`Port`] and [`Wire`], made by [`pair`]: bounded rings between a worker and a test, on the same thread or two.
//! - [`Loopback`]: offers frames that a [`Generator`] writes, and takes back what is sent. One thread, no atomics, no
//!   allocation: what a bench measures is the worker.

use super::{Frame, Frames};
use crossbeam::queue::ArrayQueue;
use pointsman_hugepages::{Buffer, Error, Options, PageChoice, Pool, PoolOptions};
use std::{
    collections::VecDeque,
    os::fd::RawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

/// A port and the other end of its wire. Each direction has room for `ring` frames of at most `frame_room` bytes.
///
/// # Errors
/// Those of [`Pool::new`]: the wire has a pool for the frames that it brings.
pub fn pair(ring: usize, frame_room: usize) -> Result<(Port, Wire), Error> {
    let ring = ring.max(1);
    let pool = Pool::new(
        "frames of a wire in memory",
        PoolOptions {
            // As many again as the ring holds may be with the worker.
            buffers: 2 * ring + crate::limits::BATCH,
            room: frame_room,
            memory: Options { pages: PageChoice::Ordinary, ..Options::default() },
        },
    )?;
    let shared = Arc::new(Shared {
        inbound: ArrayQueue::new(ring),
        outbound: ArrayQueue::new(ring),
        rx_ring_drops: AtomicU64::new(0),
        up: AtomicBool::new(true),
    });
    let port = Port { shared: Arc::clone(&shared) };
    Ok((port, Wire { shared, pool }))
}

#[derive(Debug)]
struct Shared {
    /// Towards the worker.
    inbound: ArrayQueue<Buffer>,
    /// From the worker.
    outbound: ArrayQueue<Buffer>,
    rx_ring_drops: AtomicU64,
    up: AtomicBool,
}

/// The worker's end of a wire in memory.
#[derive(Debug)]
pub struct Port {
    shared: Arc<Shared>,
}

impl super::Port for Port {
    type Frame = Buffer;

    fn rx(&mut self, _pool: &mut Pool, frames: &mut Frames) -> usize {
        let before = frames.len();
        while !frames.is_full() {
            let Some(buffer) = self.shared.inbound.pop() else {
                break;
            };
            frames.push(buffer);
        }
        frames.len() - before
    }

    fn tx(&mut self, frames: &mut Frames) -> usize {
        let mut accepted = 0;
        for buffer in frames.drain(..) {
            // A refused buffer is dropped here and goes back to its pool.
            accepted += usize::from(self.shared.outbound.push(buffer).is_ok());
        }
        accepted
    }

    fn rx_ring_drops(&mut self) -> u64 {
        self.shared.rx_ring_drops.load(Relaxed)
    }

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }

    fn is_up(&mut self) -> bool {
        self.shared.up.load(Relaxed)
    }
}

/// The test's end of a wire in memory. It may live on another thread than the port.
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Shared>,
    pool: Pool,
}

impl Wire {
    /// Brings `frame` to the port. False, and counted as a frame that the receive ring had no room for, if the ring is
    /// full or the frame longer than the buffers.
    pub fn push(&mut self, frame: &[u8]) -> bool {
        let buffer = self.pool.alloc().and_then(|mut buffer| buffer.copy_from(frame).then_some(buffer));
        let pushed = buffer.is_some_and(|buffer| self.shared.inbound.push(buffer).is_ok());
        if !pushed {
            self.shared.rx_ring_drops.fetch_add(1, Relaxed);
        }
        pushed
    }

    /// Takes the first frame that the port has sent and nobody has taken.
    pub fn pop(&mut self) -> Option<Buffer> {
        self.shared.outbound.pop()
    }

    /// Takes all frames that the port has sent, as bytes.
    pub fn pop_all(&mut self) -> Vec<Vec<u8>> {
        // Bounded by what is there now, so that a busy port on another thread cannot keep us.
        (0..self.shared.outbound.len())
            .map_while(|_| self.pop())
            .map(|buffer| buffer.data().to_vec())
            .collect()
    }

    /// Frames that wait for the port to receive them.
    pub fn unread(&self) -> usize {
        self.shared.inbound.len()
    }

    /// Takes the port's link away, or gives it back.
    pub fn set_up(&self, up: bool) {
        self.shared.up.store(up, Relaxed);
    }
}

/// Writes the frames that a [`Loopback`] offers.
pub trait Generator: Send {
    /// Writes the next frame into `frame`. It is fresh from its pool, or holds a frame of an earlier call as the worker
    /// sent it: changed, perhaps with other headroom.
    fn fill(&mut self, frame: &mut impl Frame);
}

/// A port that always has frames: `rx` offers a full batch written by `G`, `tx` takes the buffers back for the next.
///
/// Buffers go round in order through a set of a fixed size, as they do in a NIC's ring, a batch at a time so that the port
/// itself costs next to nothing. The set is made up from the worker's pool when frames have ended otherwise than by `tx`;
/// what does not fit goes back to the pool.
#[derive(Debug)]
pub struct Loopback<G> {
    generator: G,
    set: VecDeque<Frames>,
    /// Buffers in `set`, and how many it may have.
    held: usize,
    capacity: usize,
    sent: u64,
}

impl<G: Generator> Loopback<G> {
    /// With a set of `buffers` from `pool`, or as many as it has.
    pub fn new(generator: G, pool: &mut Pool, buffers: usize) -> Self {
        // Worst case: batches of one.
        let mut set = VecDeque::with_capacity(buffers);
        let mut held = 0;
        while held < buffers {
            let mut batch = Frames::new();
            let got = pool.alloc_into((buffers - held).min(batch.capacity()), |buffer| batch.push(buffer));
            if got == 0 {
                break;
            }
            held += got;
            set.push_back(batch);
        }
        Self { generator, set, held, capacity: buffers, sent: 0 }
    }

    /// Frames sent since start.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// What writes the frames.
    pub fn generator(&mut self) -> &mut G {
        &mut self.generator
    }

    /// The first of the frames sent and not offered again.
    pub fn oldest_sent(&self) -> Option<&Buffer> {
        self.set.front()?.first()
    }
}

impl<G: Generator> super::Port for Loopback<G> {
    type Frame = Buffer;

    #[inline]
    fn rx(&mut self, pool: &mut Pool, frames: &mut Frames) -> usize {
        let before = frames.len();
        if frames.is_full() {
            return 0;
        }
        if let Some(batch) = self.set.pop_front() {
            self.held -= batch.len();
            if before == 0 {
                *frames = batch;
            } else {
                frames.extend(batch.into_iter().take(frames.remaining_capacity()));
            }
        }
        if !frames.is_full() {
            pool.alloc_into(frames.remaining_capacity(), |buffer| frames.push(buffer));
        }
        for buffer in &mut frames[before..] {
            self.generator.fill(buffer);
        }
        frames.len() - before
    }

    #[inline]
    fn tx(&mut self, frames: &mut Frames) -> usize {
        let sent = frames.len();
        if sent > 0 && self.held + sent <= self.capacity {
            self.held += sent;
            self.set.push_back(std::mem::take(frames));
        }
        frames.clear();
        self.sent += sent as u64;
        sent
    }

    fn rx_ring_drops(&mut self) -> u64 {
        0
    }

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Port as _, *};

    fn worker_pool(buffers: usize) -> Pool {
        let memory = Options { pages: PageChoice::Ordinary, ..Options::default() };
        Pool::new("test", PoolOptions { buffers, room: 256, memory }).unwrap()
    }

    #[test]
    fn frames_cross_the_wire_both_ways_in_order() {
        let (mut port, mut wire) = pair(128, 256).unwrap();
        let mut pool = worker_pool(1);
        for n in 0..100_u8 {
            assert!(wire.push(&[n; 60]));
        }
        let mut frames = Frames::new();
        assert_eq!((port.rx(&mut pool, &mut frames), frames.len()), (64, 64));
        assert_eq!(port.rx(&mut pool, &mut frames), 0, "full");
        assert_eq!(port.tx(&mut frames), 64);
        assert_eq!(port.rx(&mut pool, &mut frames), 36);
        assert_eq!(port.tx(&mut frames), 36);
        let came: Vec<u8> = wire.pop_all().iter().map(|frame| frame[59]).collect();
        assert_eq!(came, (0..100).collect::<Vec<u8>>());
    }

    #[test]
    fn frames_without_room_are_counted_and_not_accepted() {
        let (mut port, mut wire) = pair(4, 256).unwrap();
        let mut pool = worker_pool(8);
        assert_eq!((0..6).filter(|_| wire.push(&[0; 60])).count(), 4);
        assert!(!wire.push(&[0; 257]), "longer than the buffers");
        assert_eq!(port.rx_ring_drops(), 3);
        let mut frames = Frames::new();
        pool.alloc_into(6, |buffer| frames.push(buffer));
        assert_eq!((port.tx(&mut frames), frames.len()), (4, 0));
        assert_eq!(pool.available(), 4, "the refused ones went home");
        drop(wire.pop_all());
        assert_eq!(pool.available(), 8);
        wire.set_up(false);
        assert!(!port.is_up());
    }

    #[test]
    fn a_wire_serves_another_thread() {
        let (mut port, mut wire) = pair(64, 256).unwrap();
        let worker = std::thread::spawn(move || {
            let (mut pool, mut frames, mut moved) = (worker_pool(1), Frames::new(), 0);
            while moved < 10_000 {
                port.rx(&mut pool, &mut frames);
                moved += port.tx(&mut frames);
                std::thread::yield_now();
            }
        });
        let (mut pushed, mut came) = (0_u32, 0_u32);
        while came < 10_000 {
            if pushed < 10_000 && pushed - came < 32 && wire.push(&pushed.to_be_bytes()) {
                pushed += 1;
            }
            while let Some(buffer) = wire.pop() {
                assert_eq!(buffer.data(), came.to_be_bytes());
                came += 1;
            }
            std::thread::yield_now();
        }
        worker.join().unwrap();
    }

    struct Count(u32);

    impl Generator for Count {
        fn fill(&mut self, frame: &mut impl Frame) {
            frame.copy_from(&self.0.to_be_bytes());
            self.0 += 1;
        }
    }

    #[test]
    fn a_loopback_offers_full_batches_from_a_bounded_set() {
        let mut pool = worker_pool(200);
        let mut port = Loopback::new(Count(0), &mut pool, 100);
        assert_eq!(pool.available(), 100);
        let mut frames = Frames::new();
        for round in 0..1_000_u32 {
            assert_eq!(port.rx(&mut pool, &mut frames), 64);
            assert_eq!(frames[63].data(), (round * 64 + 63).to_be_bytes());
            // Some frames end otherwise than by being sent.
            frames.truncate(60);
            assert_eq!(port.tx(&mut frames), 60);
            assert!(frames.is_empty() && pool.available() >= 100);
        }
        assert_eq!(port.sent(), 60_000);
    }
}
