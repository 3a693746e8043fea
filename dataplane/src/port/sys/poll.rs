//! Waiting for frames.
//!
//! Invariant of the unsafe code: the kernel is told the length of the array that it gets.
#![allow(unsafe_code)]

use crate::limits::MAX_PORTS;
use std::{os::fd::RawFd, time::Duration};

/// The most descriptors that are looked at: those of all ports, and what wakes the thread.
pub const MAX_FDS: usize = MAX_PORTS + 1;

/// Sleeps until a frame waits at one of `fds` (those beyond [`MAX_FDS`] are not looked at), `millis` have passed, or
/// a signal comes. Returns whether a frame, or an error, waits.
pub fn wait(fds: &[RawFd], millis: u32) -> bool {
    wait_for(fds, Duration::from_millis(millis.into()))
}

/// The same for a time that may be shorter than a millisecond; the kernel adds some 50 microseconds.
pub fn wait_for(fds: &[RawFd], longest: Duration) -> bool {
    let mut polled = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; MAX_FDS];
    let count = fds.len().min(MAX_FDS);
    for (entry, fd) in polled.iter_mut().zip(fds) {
        entry.fd = *fd;
    }
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(longest.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(longest.subsec_nanos()),
    };
    // SAFETY: `polled` has at least `count` entries; a null mask leaves the signals as they are.
    let ready = unsafe {
        libc::ppoll(polled.as_mut_ptr(), count as libc::nfds_t, &raw const timeout, std::ptr::null())
    };
    ready > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::fd::AsRawFd, os::unix::net::UnixStream};

    #[test]
    fn waiting_ends_when_something_waits_at_one_of_the_descriptors() {
        let (idle, _other) = UnixStream::pair().unwrap();
        let (ours, mut other) = UnixStream::pair().unwrap();
        let fds = [idle.as_raw_fd(), ours.as_raw_fd()];
        assert!(!wait(&fds, 1));
        other.write_all(b"x").unwrap();
        assert!(wait(&fds, 10_000));
        assert!(!wait(&[], 1));
    }
}
