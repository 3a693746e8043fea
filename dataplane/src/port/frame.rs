//! What the packet path asks of a frame, and of the pool that empty ones come from.
//!
//! Each kind of port has its own kind of frame: a [`Buffer`] of our own memory for most, the driver's own buffer for one
//! that receives and sends without a copy. The worker is compiled for one kind.

use pointsman_hugepages::{Buffer, Pool, Report};

/// A frame, owned: dropping it, on any thread, gives its memory back to where it came from.
pub trait Frame: Send + Sized + 'static {
    /// What empty ones come from.
    type Pool: FramePool<Self>;

    /// The frame from its Ethernet header on.
    fn data(&self) -> &[u8];

    /// The frame, to change.
    fn data_mut(&mut self) -> &mut [u8];

    /// Bytes of the frame.
    fn len(&self) -> usize;

    /// Whether it has no bytes.
    #[inline]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the device that received the frame found the checksum of its IPv4 header right. False says nothing.
    #[inline(always)]
    fn has_good_header(&self) -> bool {
        false
    }

    /// Free bytes in front of the frame.
    fn headroom(&self) -> usize;

    /// Free bytes behind it.
    fn tailroom(&self) -> usize;

    /// Grows the frame by `n` bytes at the front and returns these, whose contents are whatever was there before. `None`,
    /// and no change, without that much headroom.
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]>;

    /// Takes `n` bytes off the front. False, and no change, if there are fewer.
    fn trim_front(&mut self, n: usize) -> bool;

    /// Makes the frame `len` bytes long: shorter, or longer by bytes of the tailroom, whose contents are whatever was
    /// there before. False, and no change, without that much tailroom.
    fn set_len(&mut self, len: usize) -> bool;

    /// Cuts the frame to `len` bytes; no change if it is not longer.
    #[inline]
    fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.set_len(len);
        }
    }

    /// Makes the frame a copy of `bytes`, with full headroom. False, and no change, if they do not fit.
    fn copy_from(&mut self, bytes: &[u8]) -> bool;
}

/// Where one worker's empty frames come from.
pub trait FramePool<F>: Send {
    /// An empty frame with full headroom; its bytes are whatever was there before. `None` when all are out.
    fn alloc(&mut self) -> Option<F>;

    /// What its memory became.
    fn report(&self) -> Report;
}

impl Frame for Buffer {
    type Pool = Pool;

    #[inline(always)]
    fn data(&self) -> &[u8] {
        self.data()
    }

    #[inline(always)]
    fn data_mut(&mut self) -> &mut [u8] {
        self.data_mut()
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn headroom(&self) -> usize {
        self.headroom()
    }

    #[inline(always)]
    fn tailroom(&self) -> usize {
        self.tailroom()
    }

    #[inline(always)]
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        self.prepend(n)
    }

    #[inline(always)]
    fn trim_front(&mut self, n: usize) -> bool {
        self.trim_front(n)
    }

    #[inline(always)]
    fn set_len(&mut self, len: usize) -> bool {
        self.set_len(len)
    }

    #[inline(always)]
    fn copy_from(&mut self, bytes: &[u8]) -> bool {
        self.copy_from(bytes)
    }
}

impl FramePool<Buffer> for Pool {
    #[inline(always)]
    fn alloc(&mut self) -> Option<Buffer> {
        self.alloc()
    }

    fn report(&self) -> Report {
        self.report().clone()
    }
}
