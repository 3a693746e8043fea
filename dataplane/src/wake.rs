//! Wakes a thread that sleeps, and costs one that does not sleep nothing but a look.
//!
//! The sleeper says that it falls asleep, looks once more whether there is something to do, and then waits on its
//! descriptor. Who has something for it makes that visible first and wakes it then: the one or the other sees it.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
};

/// Wakes one thread.
#[derive(Debug)]
pub struct Waker {
    asleep: AtomicBool,
    stream: UnixStream,
}

/// The thread's own side of it.
#[derive(Debug)]
pub struct Sleeper {
    waker: Arc<Waker>,
    stream: UnixStream,
}

/// Both sides.
///
/// # Errors
/// When the process has no descriptors left.
pub fn pair() -> io::Result<(Arc<Waker>, Sleeper)> {
    let (near, far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let waker = Arc::new(Waker { asleep: AtomicBool::new(false), stream: near });
    Ok((waker.clone(), Sleeper { waker, stream: far }))
}

impl Waker {
    /// To be called after what the thread is to see was made visible. A system call only if it sleeps.
    pub fn wake(&self) {
        // With the fence in `falls_asleep`: either the thread sees what was written before, or we see it asleep.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::SeqCst) {
            // A full socket has bytes enough to wake it.
            let _ = (&self.stream).write(&[1]);
        }
    }
}

impl Sleeper {
    /// What to wait on.
    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// To be called before the last look at what there is to do.
    pub fn falls_asleep(&self) {
        self.waker.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// To be called after the wait, or instead of it.
    pub fn wakes(&mut self) {
        if !self.waker.asleep.swap(false, Ordering::SeqCst) {
            // Somebody wrote, or is about to: a byte that comes later costs one look too many.
            let mut bytes = [0; 16];
            while matches!(self.stream.read(&mut bytes), Ok(n) if n == bytes.len()) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::sys::poll;

    #[test]
    fn a_thread_that_sleeps_is_woken_and_one_that_does_not_is_left_alone() {
        let (waker, mut sleeper) = pair().unwrap();
        let fds = [sleeper.fd()];
        waker.wake();
        assert!(!poll::wait(&fds, 0), "it does not sleep");
        sleeper.falls_asleep();
        waker.wake();
        assert!(poll::wait(&fds, 1_000));
        sleeper.wakes();
        assert!(!poll::wait(&fds, 0), "the byte was taken");
    }
}
