//! Frames that arrived at a worker which does not own their flow: one bounded ring from each worker to each other.

use crate::limits::HANDOFF_RING;
use crossbeam::queue::ArrayQueue;
use pointsman_hugepages::Buffer;
use std::sync::Arc;

/// A frame and the number of the port that it came in by.
pub type Handed<F> = (F, u8);

type Ring<F> = ArrayQueue<Handed<F>>;

/// One worker's ends of the rings.
pub struct Endpoint<F = Buffer> {
    index: usize,
    /// `rings[from][to]`.
    rings: Arc<[Box<[Ring<F>]>]>,
    /// The ring that is emptied next, so that none starves.
    turn: usize,
}

/// The ends of the rings between `workers` workers.
pub fn mesh<F>(workers: usize) -> Vec<Endpoint<F>> {
    let ring = |from, to| ArrayQueue::new(if from == to { 1 } else { HANDOFF_RING });
    let rings: Arc<[Box<[_]>]> =
        (0..workers).map(|from| (0..workers).map(|to| ring(from, to)).collect()).collect::<Vec<_>>().into();
    (0..workers).map(|index| Endpoint { index, rings: rings.clone(), turn: 0 }).collect()
}

impl<F> Endpoint<F> {
    /// Workers that are joined.
    pub fn workers(&self) -> u16 {
        self.rings.len() as u16
    }

    /// Gives a frame to worker `to`. Returns it if that worker's ring is full or there is no such worker.
    pub fn push(&self, to: u16, frame: Handed<F>) -> Result<(), Handed<F>> {
        match self.rings[self.index].get(usize::from(to)) {
            Some(ring) => ring.push(frame),
            None => Err(frame),
        }
    }

    /// Takes at most `limit` frames that other workers gave, a ring at a time, each ring in its order. Returns how many
    /// frames waited in the fullest of the rings that it took from; 0 if it took none.
    pub fn pop(&mut self, limit: usize, mut take: impl FnMut(Handed<F>)) -> usize {
        let workers = self.rings.len();
        let mut left = limit;
        let mut fill = 0;
        for _ in 0..workers {
            self.turn = (self.turn + 1) % workers;
            let ring = &self.rings[self.turn][self.index];
            let before = left;
            while left > 0 {
                let Some(frame) = ring.pop() else { break };
                left -= 1;
                take(frame);
            }
            if left < before {
                fill = fill.max(before - left + ring.len());
            }
            if left == 0 {
                // The next call begins with the ring after this one.
                break;
            }
        }
        fill
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_hugepages::{Options, PageChoice, Pool, PoolOptions};

    #[test]
    fn a_frame_reaches_its_owner_once_and_a_full_ring_gives_it_back() {
        let memory = Options { pages: PageChoice::Ordinary, numa_node: None, lock: false };
        let options = PoolOptions { buffers: HANDOFF_RING + 1, room: 64, memory };
        let mut pool = Pool::new("test", options).unwrap();
        let mut ends = mesh(3);
        for n in 0..HANDOFF_RING {
            let mut frame = pool.alloc().unwrap();
            frame.copy_from(&(n as u32).to_be_bytes());
            assert!(ends[0].push(2, (frame, 1)).is_ok());
        }
        assert!(ends[0].push(2, (pool.alloc().unwrap(), 1)).is_err());
        assert_eq!(ends[1].pop(10, |_| panic!("worker 1 was given nothing")), 0);
        let mut taken = Vec::new();
        let fill = ends[2].pop(10, |(frame, port)| taken.push((frame.data().to_vec(), port)));
        assert_eq!(fill, HANDOFF_RING);
        let fill = ends[2].pop(usize::MAX, |(frame, port)| taken.push((frame.data().to_vec(), port)));
        assert_eq!(fill, HANDOFF_RING - 10);
        let expected: Vec<_> = (0..HANDOFF_RING as u32).map(|n| (n.to_be_bytes().to_vec(), 1)).collect();
        assert_eq!(taken, expected);
    }
}
