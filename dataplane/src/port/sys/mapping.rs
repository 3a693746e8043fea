//! The memory that a packet socket shares with the kernel: mapped when the ring has been made, unmapped with the value.
//!
//! Invariant of the unsafe code: `base` is the start of `bytes` mapped bytes as long as the value lives, aligned to a page.
#![allow(unsafe_code)]

use super::socket::PacketSocket;
use std::{io, ptr::NonNull};

/// A mapped ring. What its bytes mean, and when they may be touched, is the matter of who holds it.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory is reached through this value alone, and by the kernel, which does not care from which thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the only ring of `socket`, which has that many bytes.
    ///
    /// # Errors
    /// What the kernel says, also if the ring has another size.
    pub(super) fn new(socket: &PacketSocket, bytes: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours. It fails if the ring has
        // another size.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, socket.fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, bytes })
    }

    /// Memory that stands for a ring of a kernel, all zeroes.
    #[cfg(test)]
    pub(super) fn anonymous(bytes: usize) -> Self {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: as above.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        Self { base: NonNull::new(base.cast()).unwrap(), bytes }
    }

    /// The byte `offset` from the start. Whoever touches it states why it is inside the mapping, and why it is ours.
    #[inline]
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset < self.bytes, "a byte of this mapping");
        self.base.as_ptr().wrapping_add(offset)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our mapping, and no reference into it outlives the ring.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
