//! One packet buffer: a handle of 16 bytes that owns its bytes.
//!
//! A buffer in memory is a header of one cache line, then headroom and room:
//!
//! ```text
//! start            +64                  +64+off          +64+off+len        +64+capacity
//! | header (pool)  | headroom           | data           | tailroom         |
//! ```
//!
//! The handle holds all that working on the data needs, so the header's cache line is read only when the buffer is
//! freed.
//!
//! Invariant of the unsafe code: a handle is the only one for its buffer, made by the buffer's pool, whose memory
//! stays mapped until the handle is dropped; every byte of it is initialised; `off + len <= capacity`.
#![allow(unsafe_code)]

use crate::pool::{self, HEADER};
use std::fmt;
use std::ptr::NonNull;

/// Bytes in front of a fresh buffer's data, for headers that a packet gains on its way.
pub const HEADROOM: usize = 128;

/// An owned packet buffer. Dropping it, on any thread, gives it back to its pool; there is no other way to free it,
/// and so none to free it twice. It may outlive its pool.
#[must_use = "a buffer that is dropped goes back to its pool"]
pub struct Buffer {
    start: NonNull<u8>,
    off: u16,
    len: u16,
    capacity: u16,
}

const _: () = assert!(size_of::<Buffer>() == 16 && size_of::<Option<Buffer>>() == 16);

// SAFETY: a handle is the only one for its bytes, and `drop` asks which thread it runs on.
unsafe impl Send for Buffer {}
// SAFETY: a shared handle only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// The handle for the buffer whose header is at `start`, empty, with full headroom.
    ///
    /// # Safety
    /// `start` is a header of a live pool, no other handle exists for it, and `capacity`, at least `HEADROOM`, is
    /// the pool's.
    #[inline]
    pub(crate) unsafe fn new(start: NonNull<u8>, capacity: u16) -> Buffer {
        Buffer { start, off: HEADROOM as u16, len: 0, capacity }
    }

    /// The data.
    #[inline]
    pub fn data(&self) -> &[u8] {
        // SAFETY: `off + len <= capacity`, all initialised, and ours alone.
        unsafe { std::slice::from_raw_parts(self.data_ptr(), self.len()) }
    }

    /// The data, to change.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.data_ptr(), self.len()) }
    }

    /// Bytes of data.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there is no data.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Free bytes in front of the data.
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.off)
    }

    /// Free bytes behind the data.
    #[inline]
    pub fn tailroom(&self) -> usize {
        usize::from(self.capacity) - self.headroom() - self.len()
    }

    /// Grows the data by `n` bytes at the front and returns these, whose contents are whatever was there before.
    /// `None`, and no change, without that much headroom.
    #[inline]
    pub fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.headroom() {
            return None;
        }
        // `n` is at most `off` and `off + len` at most `capacity`: all three fit in 16 bits.
        self.off -= n as u16;
        self.len += n as u16;
        self.data_mut().get_mut(..n)
    }

    /// Takes `n` bytes off the front. False, and no change, if there are fewer.
    #[inline]
    pub fn trim_front(&mut self, n: usize) -> bool {
        if n > self.len() {
            return false;
        }
        self.off += n as u16;
        self.len -= n as u16;
        true
    }

    /// Cuts the data to `len` bytes; no change if it is not longer.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.len = len as u16;
        }
    }

    /// Makes the data `len` bytes long: shorter, or longer by bytes of the tailroom, whose contents are whatever was
    /// there before. False, and no change, without that much tailroom.
    #[inline]
    pub fn set_len(&mut self, len: usize) -> bool {
        if len > self.len() + self.tailroom() {
            return false;
        }
        self.len = len as u16;
        true
    }

    /// Makes the data empty, with `HEADROOM` bytes of headroom again.
    #[inline]
    pub fn reset(&mut self) {
        self.off = HEADROOM as u16;
        self.len = 0;
    }

    /// Makes the data a copy of `bytes`, with `HEADROOM` bytes of headroom. False, and no change, if they do not fit.
    #[inline]
    pub fn copy_from(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > usize::from(self.capacity) - HEADROOM {
            return false;
        }
        self.reset();
        self.len = bytes.len() as u16;
        self.data_mut().copy_from_slice(bytes);
        true
    }

    #[inline]
    fn data_ptr(&self) -> *mut u8 {
        // SAFETY: `off <= capacity`, so this is inside the buffer or one behind it.
        unsafe { self.start.as_ptr().add(HEADER + self.headroom()) }
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this handle was the only one, and it is gone with this call.
        unsafe { pool::free(self.start) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("len", &self.len())
            .field("headroom", &self.headroom())
            .field("tailroom", &self.tailroom())
            .finish_non_exhaustive()
    }
}
