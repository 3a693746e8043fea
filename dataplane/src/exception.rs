//! The exception path: frames that are the host's own, where the kernel does not see the port itself.
//!
//! A worker gives the frames that it leaves to the host ([`crate::verdict::Verdict::Punt`]) into a ring of its own, which
//! a thread of the control plane empties into a TAP device of each port. What the host sends comes back in buffers that
//! are used again and again, and leaves by the first worker, so that it keeps its order. A worker that is busy with
//! load-balanced packets serves both ways at every poll all the same: what it takes from the host is bounded by
//! [`EXCEPTION_BUDGET`], what it gives by the batch; a full ring costs the host's frames and no others.
//!
//! A worker neither allocates, nor locks, nor makes a system call here, but for one a poll that wakes the other thread if
//! it sleeps. Nor does it ever wait for that thread, which the kernel may suspend anywhere: each ring has one thread at
//! either end, so that neither claims a place that the other waits for. For the same reason that thread never gives a
//! frame to the pool, which all workers share: it goes back to its worker, which does.

use crate::{
    limits::{BATCH, EXCEPTION_BUFFERS, EXCEPTION_RING},
    wake::{self, Sleeper, Waker},
};
use rtrb::{Consumer, Producer, PushError, RingBuffer};
use std::{io, os::fd::RawFd, sync::Arc};

#[cfg(doc)]
use crate::limits::EXCEPTION_BUDGET;

/// A worker's end of the path.
#[derive(Debug)]
pub struct WorkerEnd<F> {
    to_host: Producer<(F, u8)>,
    /// Frames that the host has read.
    read: Consumer<F>,
    /// Frames that were given and have not come back: at most [`EXCEPTION_RING`], so that both rings have room for all.
    out: usize,
    /// Only the first worker sends for the host.
    from_host: Option<Sender>,
    waker: Arc<Waker>,
    /// Something was given since the thread was last woken.
    given: bool,
}

/// The end of the thread that serves the host.
#[derive(Debug)]
pub struct HostEnd<F> {
    workers: Vec<FromWorker<F>>,
    /// Buffers go round: empty, filled here, emptied by the worker.
    empty: Consumer<HostFrame>,
    full: Producer<HostFrame>,
    /// One that was not filled: the next.
    spare: Option<HostFrame>,
    sleeper: Sleeper,
    waker: Arc<Waker>,
    /// The ring that is emptied next, so that none starves.
    turn: usize,
    frame_room: usize,
}

/// A frame that the host sends.
#[derive(Debug)]
pub struct HostFrame {
    port: u16,
    len: usize,
    bytes: Box<[u8]>,
}

/// The worker's ends of the rings of the host's frames.
#[derive(Debug)]
struct Sender {
    empty: Producer<HostFrame>,
    full: Consumer<HostFrame>,
}

/// The host's ends of the rings of one worker's frames.
#[derive(Debug)]
struct FromWorker<F> {
    left: Consumer<(F, u8)>,
    read: Producer<F>,
}

/// What became of a frame that the host may have had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is on its way to the worker.
    Sent,
    /// The host had none.
    Nothing,
    /// No buffer is free: the worker is behind. Nothing was asked of the host.
    NoRoom,
}

/// The ends for `workers` workers and the host, for frames of at most `frame_room` bytes from the host. All memory that
/// the path uses is taken here, but for the frames of the workers: up to [`EXCEPTION_RING`] of each worker's pool may be on
/// their way to the host.
///
/// # Errors
/// When the process has no descriptors left.
pub fn channel<F>(workers: usize, frame_room: usize) -> io::Result<(Vec<WorkerEnd<F>>, HostEnd<F>)> {
    let (waker, sleeper) = wake::pair()?;
    let (mut to_empty, empty) = RingBuffer::new(EXCEPTION_BUFFERS);
    for _ in 0..EXCEPTION_BUFFERS {
        let buffer = HostFrame { port: 0, len: 0, bytes: vec![0; frame_room + 1].into() };
        // There is room for as many as there are.
        let _ = to_empty.push(buffer);
    }
    let (full, to_send) = RingBuffer::new(EXCEPTION_BUFFERS);
    let mut sender = Some(Sender { empty: to_empty, full: to_send });
    let end = |_| {
        let (to_host, left) = RingBuffer::new(EXCEPTION_RING);
        let (to_read, read) = RingBuffer::new(EXCEPTION_RING);
        let (from_host, waker) = (sender.take(), waker.clone());
        let worker = WorkerEnd { to_host, read, out: 0, from_host, waker, given: false };
        (worker, FromWorker { left, read: to_read })
    };
    let (ends, workers) = (0..workers).map(end).unzip();
    Ok((ends, HostEnd { workers, empty, full, spare: None, sleeper, waker, turn: 0, frame_room }))
}

impl<F> WorkerEnd<F> {
    /// Gives the host a frame that came in by `port`. Returns it if as many as the ring holds are with the host, or have
    /// not been dropped by [`WorkerEnd::drop_read`] yet.
    pub fn push(&mut self, frame: F, port: u8) -> Result<(), F> {
        if self.out >= EXCEPTION_RING {
            return Err(frame);
        }
        self.to_host.push((frame, port)).map_err(|PushError::Full((frame, _))| frame)?;
        self.out += 1;
        self.given = true;
        Ok(())
    }

    /// Drops frames that the host has read, at most a batch, which is as many as a poll may give. To be called once a
    /// poll; costs nothing but a comparison while the host has none.
    #[inline]
    pub fn drop_read(&mut self) {
        if self.out > 0 {
            for _ in 0..BATCH {
                let Ok(frame) = self.read.pop() else { break };
                drop(frame);
                self.out -= 1;
            }
        }
    }

    /// Wakes the host's thread if it was given something since the last call and sleeps. To be called once a poll.
    #[inline]
    pub fn wake(&mut self) {
        if self.given {
            self.given = false;
            self.waker.wake();
        }
    }

    /// The next frame that the host sends; to be given back by [`WorkerEnd::give_back`].
    #[inline]
    pub fn pop(&mut self) -> Option<HostFrame> {
        self.from_host.as_mut()?.full.pop().ok()
    }

    /// Gives back the buffer of a frame that was sent.
    pub fn give_back(&mut self, frame: HostFrame) {
        if let Some(from_host) = &mut self.from_host {
            // There is room for as many as there are.
            let _ = from_host.empty.push(frame);
        }
    }
}

impl HostFrame {
    /// The port that it is to leave by.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The frame, from its Ethernet header on.
    pub fn data(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<F> HostEnd<F> {
    /// Shows `read` at most `limit` frames that workers left to the host, with the port that each came in by, a ring at a
    /// time, each ring in its order. Each goes back to its worker then. Returns how many.
    pub fn pop(&mut self, limit: usize, mut read: impl FnMut(&F, u8)) -> usize {
        let mut left = limit;
        for _ in 0..self.workers.len() {
            self.turn = (self.turn + 1) % self.workers.len();
            let worker = &mut self.workers[self.turn];
            while left > 0 {
                let Ok((frame, port)) = worker.left.pop() else { break };
                left -= 1;
                read(&frame, port);
                // There is room for as many as the worker has out.
                let _ = worker.read.push(frame);
            }
            if left == 0 {
                // The next call begins with the ring after this one.
                break;
            }
        }
        limit - left
    }

    /// Whether a worker has left something to the host that was not taken yet.
    pub fn has_frames(&self) -> bool {
        self.workers.iter().any(|worker| !worker.left.is_empty())
    }

    /// Asks the host for a frame to leave by `port`, if there is a buffer for one: `fill` writes it from its Ethernet
    /// header on and returns its length, or `None` if there is none. The buffer has a byte more than a frame may have, so
    /// that one that is too long can be told from one that just fits; it is cut off.
    pub fn offer(&mut self, port: u16, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> Offered {
        let Some(mut frame) = self.spare.take().or_else(|| self.empty.pop().ok()) else {
            return Offered::NoRoom;
        };
        let Some(len) = fill(&mut frame.bytes) else {
            self.spare = Some(frame);
            return Offered::Nothing;
        };
        (frame.port, frame.len) = (port, len.min(self.frame_room));
        // There is room for as many as there are.
        let _ = self.full.push(frame);
        Offered::Sent
    }

    /// Bytes of the largest frame of the host.
    pub fn frame_room(&self) -> usize {
        self.frame_room
    }

    /// Whether there is a buffer for another frame of the host.
    pub fn has_room(&self) -> bool {
        self.spare.is_some() || !self.empty.is_empty()
    }

    /// What to wait on for frames of the workers.
    pub fn fd(&self) -> RawFd {
        self.sleeper.fd()
    }

    /// To be called before the last look at [`HostEnd::has_frames`] and the wait.
    pub fn falls_asleep(&self) {
        self.sleeper.falls_asleep();
    }

    /// To be called after the wait, or instead of it.
    pub fn wakes(&mut self) {
        self.sleeper.wakes();
    }

    /// What wakes the thread that has this end, for others than workers.
    pub fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::sys::poll;

    #[test]
    fn frames_reach_the_host_in_order_and_a_full_ring_gives_them_back() {
        let (mut ends, mut host) = channel::<usize>(2, 64).unwrap();
        for n in 0..EXCEPTION_RING {
            assert_eq!(ends[1].push(n, 3), Ok(()));
        }
        assert_eq!(ends[1].push(9_999, 3), Err(9_999));
        assert_eq!(ends[0].push(7_777, 1), Ok(()), "a ring of its own");
        assert!(host.has_frames());
        let mut taken = Vec::new();
        // The second worker's ring fills the first call; then it is the first one's turn.
        assert_eq!(host.pop(10, |frame, port| taken.push((*frame, port))), 10);
        assert_eq!(host.pop(10, |frame, port| taken.push((*frame, port))), 10);
        let mut expected: Vec<_> = (0..10).map(|n| (n, 3)).collect();
        expected.push((7_777, 1));
        expected.extend((10..19).map(|n| (n, 3)));
        assert_eq!(taken, expected);
        assert_eq!(host.pop(usize::MAX, |frame, _| taken.push((*frame, 3))), EXCEPTION_RING - 19);
        assert_eq!(taken.last(), Some(&(EXCEPTION_RING - 1, 3)));
        assert!(!host.has_frames());
    }

    #[test]
    fn a_frame_that_the_host_has_read_is_dropped_by_the_worker_that_gave_it() {
        let frames = [Arc::new(0), Arc::new(1)];
        let (mut ends, mut host) = channel::<Arc<usize>>(2, 64).unwrap();
        let out = |n: usize| Arc::strong_count(&frames[n]) - 1;
        // More than the rings have places, so that each is used again.
        for _ in 0..3 {
            for (end, frame) in ends.iter_mut().zip(&frames) {
                for _ in 0..EXCEPTION_RING {
                    end.push(frame.clone(), 0).unwrap();
                }
            }
            assert_eq!(host.pop(usize::MAX, |_, _| {}), 2 * EXCEPTION_RING);
            assert_eq!((out(0), out(1)), (EXCEPTION_RING, EXCEPTION_RING), "the host drops none");
            assert!(ends[1].push(frames[1].clone(), 0).is_err(), "the way back has room for no more");
            ends[1].drop_read();
            assert_eq!((out(0), out(1)), (EXCEPTION_RING, EXCEPTION_RING - BATCH), "its own, a batch");
            ends[1].push(frames[1].clone(), 0).unwrap();
            assert_eq!(host.pop(usize::MAX, |_, _| {}), 1);
            for _ in 0..EXCEPTION_RING / BATCH {
                ends.iter_mut().for_each(WorkerEnd::drop_read);
            }
            assert_eq!((out(0), out(1)), (0, 0));
        }
        // Whatever is on its way when the path ends is dropped too.
        ends[0].push(frames[0].clone(), 0).unwrap();
        host.pop(1, |_, _| {});
        ends[0].push(frames[0].clone(), 0).unwrap();
        drop((ends, host));
        assert_eq!(out(0), 0);
    }

    #[test]
    fn frames_of_the_host_reach_the_first_worker_in_order_and_their_buffers_come_back() {
        let (mut ends, mut host) = channel::<()>(2, 4).unwrap();
        for round in 0..3_u8 {
            for n in 0..EXCEPTION_BUFFERS {
                let fill = |bytes: &mut [u8]| {
                    bytes.copy_from_slice(&[round, n as u8, 0xaa, 0xbb, 0xcc]);
                    Some(3)
                };
                assert_eq!(host.offer(2, fill), Offered::Sent);
            }
            assert!(!host.has_room());
            let asked = |_: &mut [u8]| panic!("nothing is asked of the host that cannot be taken");
            assert_eq!(host.offer(2, asked), Offered::NoRoom);
            assert!(ends[1].pop().is_none(), "only the first worker sends for the host");
            for n in 0..EXCEPTION_BUFFERS {
                let frame = ends[0].pop().unwrap();
                assert_eq!((frame.port(), frame.data()), (2, &[round, n as u8, 0xaa][..]));
                ends[0].give_back(frame);
            }
            assert!(ends[0].pop().is_none());
        }
        for _ in 0..2 * EXCEPTION_BUFFERS {
            assert_eq!(host.offer(2, |_| None), Offered::Nothing, "the buffer stays");
        }
        assert_eq!(host.frame_room(), 4);
        assert_eq!(host.offer(2, |_| Some(5)), Offered::Sent);
        assert_eq!(ends[0].pop().unwrap().data().len(), 4, "no longer than the buffer");
    }

    #[test]
    fn the_host_is_woken_once_for_all_that_it_was_given_and_only_when_it_sleeps() {
        let (mut ends, mut host) = channel::<u8>(1, 64).unwrap();
        let fds = [host.fd()];
        ends[0].push(1, 0).unwrap();
        ends[0].wake();
        assert!(!poll::wait(&fds, 0), "it does not sleep");
        host.falls_asleep();
        ends[0].wake();
        assert!(!poll::wait(&fds, 0), "it was given nothing new");
        ends[0].push(2, 0).unwrap();
        ends[0].push(3, 0).unwrap();
        ends[0].wake();
        assert!(poll::wait(&fds, 1_000));
        host.wakes();
        assert!(!poll::wait(&fds, 0));
        host.falls_asleep();
        host.waker().wake();
        assert!(poll::wait(&fds, 1_000), "another thread may wake it too");
    }
}
