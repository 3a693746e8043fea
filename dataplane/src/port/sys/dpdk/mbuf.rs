//! DPDK's packet buffers, the pools that they come from, and the bursts in which they come and go.
//!
//! Invariant of the unsafe code: an [`Mbuf`] is the only handle of its mbuf, which lies in one piece in a buffer of its own
//! that nobody else refers to, with `data_off + data_len <= buf_len`, all of it initialised. Its pool stays as long as the
//! mbuf is out: a pool that is dropped with mbufs out is never freed, and keeps DPDK running.
#![allow(unsafe_code)]

use super::{Alive, Errno, Running};
use crate::{
    limits::BATCH,
    port::{
        Frames,
        frame::{Frame, FramePool},
    },
};
use dpdk_sys as raw;
use pointsman_hugepages::{PageSize, Report};
use std::{ffi::CString, fmt, ptr::NonNull, sync::Arc};

/// A frame in a buffer of DPDK's: what the device wrote is what the worker changes and what the device reads again.
/// Dropping it, on any thread, gives it back to its pool.
#[repr(transparent)]
pub struct Mbuf(NonNull<raw::Mbuf>);

const _: () = assert!(size_of::<Mbuf>() == size_of::<*mut raw::Mbuf>());

// SAFETY: a handle is the only one for its mbuf, and DPDK's pools take mbufs from any thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    #[inline(always)]
    fn header(&self) -> &raw::Mbuf {
        // SAFETY: ours alone while the handle lives.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    fn header_mut(&mut self) -> &mut raw::Mbuf {
        // SAFETY: ours alone, and borrowed exclusively.
        unsafe { self.0.as_mut() }
    }

    #[inline(always)]
    fn resize(&mut self, data_off: usize, len: usize) {
        let header = self.header_mut();
        debug_assert!(data_off + len <= usize::from(header.buf_len), "inside the buffer");
        // Both are at most `buf_len`, of 16 bits.
        header.data_off = data_off as u16;
        header.data_len = len as u16;
        header.pkt_len = len as u32;
    }

    /// Whether a driver's mbuf keeps the invariant.
    #[inline(always)]
    fn is_whole(&self) -> bool {
        let header = self.header();
        let end = u32::from(header.data_off) + u32::from(header.data_len);
        (header.nb_segs == 1)
            & (header.refcnt == 1)
            & (header.ol_flags & (raw::MBUF_EXTERNAL | raw::MBUF_INDIRECT) == 0)
            & (end <= u32::from(header.buf_len))
    }

    #[inline(always)]
    fn data_ptr(&self) -> *mut u8 {
        let header = self.header();
        // Its users rely on `data_off <= buf_len`: inside the buffer or one behind it. What a driver gives may break that
        // until it is looked at, so that the address alone must claim nothing.
        header.buf_addr.cast::<u8>().wrapping_add(usize::from(header.data_off))
    }
}

impl Frame for Mbuf {
    type Pool = MbufPool;

    #[inline(always)]
    fn data(&self) -> &[u8] {
        // SAFETY: `data_off + data_len <= buf_len`, initialised, and ours alone.
        unsafe { std::slice::from_raw_parts(self.data_ptr(), self.len()) }
    }

    #[inline(always)]
    fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.data_ptr(), self.len()) }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        usize::from(self.header().data_len)
    }

    #[inline(always)]
    fn has_good_header(&self) -> bool {
        self.header().ol_flags & raw::MBUF_IP_CHECKSUM == raw::MBUF_IP_CHECKSUM_GOOD
    }

    #[inline]
    fn headroom(&self) -> usize {
        usize::from(self.header().data_off)
    }

    #[inline]
    fn tailroom(&self) -> usize {
        usize::from(self.header().buf_len) - self.headroom() - self.len()
    }

    #[inline]
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        let (off, len) = (self.headroom(), self.len());
        self.resize(off.checked_sub(n)?, len + n);
        self.data_mut().get_mut(..n)
    }

    #[inline]
    fn trim_front(&mut self, n: usize) -> bool {
        let (off, len) = (self.headroom(), self.len());
        let fits = n <= len;
        if fits {
            self.resize(off + n, len - n);
        }
        fits
    }

    #[inline]
    fn set_len(&mut self, len: usize) -> bool {
        let fits = len <= self.len() + self.tailroom();
        if fits {
            self.resize(self.headroom(), len);
        }
        fits
    }

    #[inline]
    fn copy_from(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() + raw::HEADROOM <= usize::from(self.header().buf_len);
        if fits {
            self.resize(raw::HEADROOM, bytes.len());
            self.data_mut().copy_from_slice(bytes);
        }
        fits
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this handle was the only one, and it is gone with this call.
        unsafe { raw::dpdk_free(self.0.as_ptr()) }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("len", &self.len())
            .field("headroom", &self.headroom())
            .finish_non_exhaustive()
    }
}

/// A pool of mbufs on one NUMA node.
pub(crate) struct Mempool {
    raw: NonNull<raw::Mempool>,
    mbufs: u32,
    report: Report,
    alive: Arc<Alive>,
}

// SAFETY: DPDK's pools serve any number of threads.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

/// Mbufs that a thread keeps back for itself: some bursts.
const CACHE: u32 = 4 * BATCH as u32;

impl Mempool {
    /// Of `mbufs` mbufs with `room` bytes behind their headroom. `node` is -1 for any.
    pub(crate) fn new(
        alive: &Arc<Alive>,
        name: &str,
        mbufs: u32,
        room: u16,
        node: i32,
    ) -> Result<Self, Errno> {
        let c_name = CString::new(name).unwrap_or_default();
        // SAFETY: the name is a C string, and DPDK runs.
        let pool = unsafe { raw::dpdk_pool_create(c_name.as_ptr(), mbufs, CACHE.min(mbufs / 2), room, node) };
        // SAFETY: it reads a number of this thread.
        let pool = NonNull::new(pool).ok_or_else(|| Errno(unsafe { raw::dpdk_errno() }))?;
        let each = size_of::<raw::Mbuf>() + raw::HEADROOM + usize::from(room);
        let report = Report {
            purpose: format!("packets of DPDK, pool {name}"),
            bytes: each * mbufs as usize,
            page_size: if alive.has_huge_pages() { PageSize::Huge2M } else { PageSize::Ordinary },
            numa_node: u32::try_from(node).ok(),
            locked: true,
            warnings: Vec::new(),
        };
        Ok(Self { raw: pool, mbufs, report, alive: Arc::clone(alive) })
    }

    /// Mbufs that are not out: exact while no other thread takes or gives any.
    pub(crate) fn available(&self) -> u32 {
        // SAFETY: a live pool.
        unsafe { raw::dpdk_pool_available(self.raw.as_ptr()) }
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.mbufs
    }

    pub(super) fn as_ptr(&self) -> *mut raw::Mempool {
        self.raw.as_ptr()
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        if self.available() == self.mbufs {
            // SAFETY: every mbuf is home and this was the last handle that could give one out.
            unsafe { raw::dpdk_pool_free(self.raw.as_ptr()) }
        } else {
            // The mbufs that are out come home to it later: it and DPDK stay until the process ends.
            std::mem::forget(Arc::clone(&self.alive));
        }
    }
}

impl fmt::Debug for Mempool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mempool")
            .field("report", &self.report)
            .field("mbufs", &self.mbufs)
            .finish_non_exhaustive()
    }
}

/// A worker's way to empty frames.
#[derive(Clone, Debug)]
pub struct MbufPool(pub(crate) Arc<Mempool>);

impl MbufPool {
    /// Mbufs that are not out: neither in a device's rings nor with a worker. Exact while no other thread takes or gives
    /// any.
    pub fn available(&self) -> u32 {
        self.0.available()
    }

    /// All mbufs, home or out.
    pub fn capacity(&self) -> u32 {
        self.0.capacity()
    }
}

impl FramePool<Mbuf> for MbufPool {
    fn alloc(&mut self) -> Option<Mbuf> {
        let mut mbuf = std::ptr::null_mut();
        // SAFETY: a live pool, and room for one.
        let refused = unsafe { raw::dpdk_alloc_bulk(self.0.as_ptr(), &mut mbuf, 1) };
        // An mbuf that is given is whole, empty and ours alone.
        NonNull::new(mbuf).filter(|_| refused == 0).map(Mbuf)
    }

    fn report(&self) -> Report {
        self.0.report.clone()
    }
}

/// One queue each way of a device that has been started. There is one of each number, so that only one thread uses a queue.
#[derive(Debug)]
pub(crate) struct Queue {
    device: Arc<Running>,
    queue: u16,
    /// Frames that did not lie in one piece, or were shared.
    refused: u64,
}

impl Queue {
    /// # Safety
    /// The device has been started with more than `queue` queues each way, and no other `Queue` has this number.
    pub(super) unsafe fn new(device: Arc<Running>, queue: u16) -> Self {
        Self { device, queue, refused: 0 }
    }

    pub(crate) fn device(&self) -> &Arc<Running> {
        &self.device
    }

    pub(crate) fn number(&self) -> u16 {
        self.queue
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Appends what has arrived.
    #[inline]
    pub(crate) fn receive(&mut self, frames: &mut Frames<Mbuf>) -> usize {
        let (before, room) = (frames.len(), frames.remaining_capacity());
        if room == 0 {
            return 0;
        }
        // SAFETY: the device runs, the queue is ours, and there is room for so many pointers. Those that are written are of
        // mbufs that the driver gives away; `Mbuf` has the form of a pointer.
        let got = unsafe {
            let behind = frames.as_mut_ptr().add(before).cast::<*mut raw::Mbuf>();
            let got = usize::from(raw::dpdk_rx_burst(self.device.port, self.queue, behind, room as u16));
            frames.set_len(before + got.min(room));
            got
        };
        if got == 0 {
            return 0;
        }
        let mut whole = true;
        for frame in &frames[before..] {
            whole &= frame.is_whole();
            prefetch(frame.data_ptr());
        }
        if !whole {
            self.refuse(frames, before);
        }
        frames.len() - before
    }

    /// Drops what is not whole of the frames from `before` on.
    #[cold]
    fn refuse(&mut self, frames: &mut Frames<Mbuf>, before: usize) {
        let mut i = before;
        while i < frames.len() {
            if frames[i].is_whole() {
                i += 1;
            } else {
                drop(frames.remove(i));
                self.refused += 1;
            }
        }
    }

    /// Gives all of `frames` to the device, frees those that it has no room for, and returns how many it took.
    #[inline]
    pub(crate) fn send(&mut self, frames: &mut Frames<Mbuf>) -> usize {
        let count = frames.len();
        // SAFETY: the device runs, and the queue is ours. The driver takes the first `sent` mbufs and the pool the others;
        // the handles are forgotten before either has them.
        unsafe {
            let first = frames.as_mut_ptr().cast::<*mut raw::Mbuf>();
            frames.set_len(0);
            let sent = usize::from(raw::dpdk_tx_burst(self.device.port, self.queue, first, count as u16));
            let sent = sent.min(count);
            if sent < count {
                raw::dpdk_free_bulk(first.add(sent), (count - sent) as u32);
            }
            sent
        }
    }
}

/// Starts to fetch a line that is read soon.
#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program can see, wherever it points to.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
