//! A fixed number of packet buffers, owned by one worker.
//!
//! Who may touch what
//! - The *owner* is the thread whose token is in `Shared::owner`: the first one that allocates. It alone touches the
//!   `stack` of free buffers, so allocating and freeing there are plain loads and stores.
//! - A buffer freed on any other thread goes through `returns`, a bounded queue, which the pool drains when its stack
//!   is empty.
//! - A pool that has moved to another thread changes its owner only when every buffer is home: nobody can then be in
//!   the middle of a free. Until then it allocates from `returns` alone, and what its first owner frees waits on the
//!   stack. So move a pool before it allocates, or after its buffers have come back.
//!
//! Who is home: `stack.len + returned - taken`, where `returned` counts buffers that came through the queue and
//! `taken` those that the pool took out of it. Both sides of a free end with a Release store to `stack.len` or
//! `returned`, their last touch of the pool. While the pool does not allocate, both only grow. So when Acquire loads
//! of the two add up to the capacity, no buffer is out, every free has ended and all of it is visible here.
//!
//! A pool that is dropped while buffers are out is parked, memory and all, and unmapped by the next pool that is
//! made or dropped after the last buffer came home. Its buffers notice nothing.
//!
//! Invariant of the unsafe code: each buffer index is at any time in exactly one place: on the stack, in the queue,
//! or in one `Buffer`.
#![allow(unsafe_code)]

use crate::{Buffer, Error, HEADROOM, Options, Region, Report};
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Bytes of the header in front of each buffer: one cache line.
pub(crate) const HEADER: usize = 64;

/// The owner of a pool that has not allocated yet. No thread has this token.
const NOBODY: u64 = u64::MAX;

/// `Header::state` of a buffer that is home, and of one that is out.
const HOME: u32 = 0x0f4e_e0f4;
const OUT: u32 = 0x0a11_0ca7;

/// The size of a pool.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Buffers: 1 to 2^32 - 1.
    pub buffers: usize,
    /// Bytes in each behind the headroom: at most 65535 - [`HEADROOM`].
    pub room: usize,
    /// How to map them.
    pub memory: Options,
}

/// A pool of buffers. It belongs to one worker, which alone allocates; its buffers may be dropped anywhere, also
/// after the pool.
pub struct Pool {
    shared: NonNull<Shared>,
    /// Buffers taken out of `Shared::returns` so far.
    taken: u64,
}

// SAFETY: the pool's own thread is asked for at each use (see the head). It is not Sync: `NonNull` takes care of it.
unsafe impl Send for Pool {}

impl Pool {
    /// Maps the buffers of a pool for `purpose`, all zeroed and home.
    ///
    /// # Errors
    /// Those of [`Region::map`]; [`Error::BufferCount`] and [`Error::BufferRoom`] for sizes that are not possible.
    pub fn new(purpose: &str, options: PoolOptions) -> Result<Pool, Error> {
        sweep();
        let shared = Shared::new(purpose, &options)?;
        let shared = NonNull::from(Box::leak(Box::new(shared)));
        // SAFETY: just made, and nobody else knows it.
        unsafe { Shared::write_headers(shared) };
        Ok(Pool { shared, taken: 0 })
    }

    /// An empty buffer with full headroom; its bytes are whatever was there before. `None` when none is home.
    #[inline]
    pub fn alloc(&mut self) -> Option<Buffer> {
        if !self.is_owner() && !self.adopt() {
            return self.take_return().map(|index| self.buffer(index));
        }
        // SAFETY: this thread is the owner.
        let index = match unsafe { self.shared().pop() } {
            Some(index) => index,
            None => self.take_return()?,
        };
        Some(self.buffer(index))
    }

    /// Allocates up to `n` buffers, hands each to `f` and returns how many there were.
    #[inline]
    pub fn alloc_into(&mut self, n: usize, mut f: impl FnMut(Buffer)) -> usize {
        for done in 0..n {
            match self.alloc() {
                Some(buffer) => f(buffer),
                None => return done,
            }
        }
        n
    }

    /// All buffers, home or out.
    pub fn capacity(&self) -> usize {
        self.shared().stack.len()
    }

    /// Buffers that can be allocated now: exact unless another thread is freeing one meanwhile.
    pub fn available(&mut self) -> usize {
        let on_stack = match self.is_owner() || self.adopt() {
            true => self.shared().stack_len.load(Ordering::Relaxed),
            false => 0,
        };
        on_stack + self.shared().returns.len()
    }

    /// What the memory became.
    pub fn report(&self) -> &Report {
        self.shared().region.report()
    }

    #[inline]
    fn is_owner(&self) -> bool {
        self.shared().owner.load(Ordering::Relaxed) == THREAD.get()
    }

    /// Makes this thread the owner, if every buffer is home.
    #[cold]
    fn adopt(&mut self) -> bool {
        let all_home = self.shared().all_home(self.taken);
        if all_home {
            self.shared().owner.store(thread_token(), Ordering::Relaxed);
        }
        all_home
    }

    #[cold]
    fn take_return(&mut self) -> Option<u32> {
        let index = self.shared().returns.pop()?;
        self.taken += 1;
        Some(index)
    }

    /// The handle for a buffer that has just been taken from the stack or the queue.
    #[inline]
    fn buffer(&self, index: u32) -> Buffer {
        let shared = self.shared();
        let start = shared.start(index);
        // SAFETY: the index was home and is in no other place now; its header was written when the pool was made.
        unsafe {
            if cfg!(debug_assertions) {
                let before = header(start).state.swap(OUT, Ordering::Relaxed);
                assert!(before == HOME, "buffer {index} is allocated while it is out");
            }
            Buffer::new(start, shared.capacity)
        }
    }

    #[inline]
    fn shared(&self) -> &Shared {
        // SAFETY: `Shared` lives until the pool is dropped at least, and is only ever borrowed shared.
        unsafe { self.shared.as_ref() }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut parked = lock_parked();
        parked.push(Parked { shared: self.shared, taken: self.taken });
        release_home(&mut parked);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("report", self.report())
            .field("buffers", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// Gives back the buffer whose header is at `start`.
///
/// # Safety
/// `start` is the header of a buffer that is out, and its only handle is never used again.
#[inline]
pub(crate) unsafe fn free(start: NonNull<u8>) {
    // SAFETY: the header was written when the pool was made, and stays mapped while the buffer is out.
    let header = unsafe { header(start) };
    if cfg!(debug_assertions) {
        let before = header.state.swap(HOME, Ordering::Relaxed);
        assert!(before == OUT, "buffer {} is freed twice", header.index);
    }
    // SAFETY: `Shared` stays until every buffer is home, and this one is out.
    let shared = unsafe { header.shared.as_ref() };
    if shared.owner.load(Ordering::Relaxed) == THREAD.get() {
        // SAFETY: this thread is the owner, and the buffer is out until now.
        unsafe { shared.push(header.index) }
    } else {
        shared.push_remote(header.index);
    }
}

/// In front of each buffer, alone in its cache line. Written when the pool is made; release builds only read it.
#[repr(C, align(64))]
struct Header {
    shared: NonNull<Shared>,
    index: u32,
    /// `HOME` or `OUT`, kept in debug builds only.
    state: AtomicU32,
}

const _: () = assert!(size_of::<Header>() == HEADER);

/// # Safety
/// `start` is the header of a live pool's buffer, and has been written.
#[inline]
unsafe fn header<'a>(start: NonNull<u8>) -> &'a Header {
    // SAFETY: the caller's promise; the address is a multiple of 64.
    unsafe { start.cast::<Header>().as_ref() }
}

/// What a pool and its buffers share. Boxed; freed when the pool is gone and every buffer is home.
#[repr(C)]
struct Shared {
    /// The token of the thread that may touch the stack.
    owner: AtomicU64,
    /// Entries of `stack` in use. Written by the owner alone.
    stack_len: AtomicUsize,
    /// Indices of the buffers that are home: `stack_len` of them. The owner's alone.
    stack: Box<[UnsafeCell<u32>]>,
    base: NonNull<u8>,
    /// Bytes from one header to the next.
    stride: usize,
    /// Bytes of a buffer behind its header.
    capacity: u16,
    /// Buffers that came home through `returns` so far.
    returned: CachePadded<AtomicU64>,
    returns: ArrayQueue<u32>,
    region: Region,
}

impl Shared {
    fn new(purpose: &str, options: &PoolOptions) -> Result<Shared, Error> {
        let buffers = options.buffers;
        let count = u32::try_from(buffers)
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| Error::BufferCount { purpose: purpose.to_owned(), buffers })?;
        let too_long = || Error::BufferRoom {
            purpose: purpose.to_owned(),
            room: options.room,
            max: usize::from(u16::MAX) - HEADROOM,
        };
        let capacity = options.room.checked_add(HEADROOM).ok_or_else(too_long)?;
        let capacity = u16::try_from(capacity).map_err(|_| too_long())?;
        let stride = stride(usize::from(capacity));
        let too_large =
            || Error::TooLarge { purpose: purpose.to_owned(), items: buffers, item_bytes: stride };
        let bytes = stride.checked_mul(buffers).ok_or_else(too_large)?;
        let region = Region::map(purpose, bytes, &options.memory)?;
        Ok(Shared {
            owner: AtomicU64::new(NOBODY),
            stack_len: AtomicUsize::new(buffers),
            // The first buffer is on top, so that a pool is used from its beginning.
            stack: (0..count).rev().map(UnsafeCell::new).collect(),
            base: NonNull::new(region.as_ptr()).ok_or_else(too_large)?,
            stride,
            capacity,
            returned: CachePadded::new(AtomicU64::new(0)),
            returns: ArrayQueue::new(buffers),
            region,
        })
    }

    /// # Safety
    /// Nobody else knows `shared` yet.
    unsafe fn write_headers(shared: NonNull<Shared>) {
        // SAFETY: the caller's promise.
        let this = unsafe { shared.as_ref() };
        for index in 0..this.stack.len() as u32 {
            let header = Header { shared, index, state: AtomicU32::new(HOME) };
            // SAFETY: the region holds `stack.len()` strides from `base`, and each begins with a header.
            unsafe { this.start(index).cast::<Header>().write(header) };
        }
    }

    #[inline]
    fn start(&self, index: u32) -> NonNull<u8> {
        debug_assert!((index as usize) < self.stack.len(), "an index of this pool");
        // SAFETY: the region holds `stack.len()` strides from `base`, and indices are below that.
        unsafe { self.base.add(index as usize * self.stride) }
    }

    /// Takes the top of the stack.
    ///
    /// # Safety
    /// This thread is the owner.
    #[inline]
    unsafe fn pop(&self) -> Option<u32> {
        let top = self.stack_len.load(Ordering::Relaxed).checked_sub(1)?;
        // SAFETY: `top < stack_len <= stack.len()`, and the owner alone touches the stack.
        let index = unsafe { *self.stack.get_unchecked(top).get() };
        self.stack_len.store(top, Ordering::Relaxed);
        Some(index)
    }

    /// Puts a buffer on the stack.
    ///
    /// # Safety
    /// This thread is the owner, and the buffer of this index was out.
    #[inline]
    unsafe fn push(&self, index: u32) {
        let top = self.stack_len.load(Ordering::Relaxed);
        debug_assert!(top < self.stack.len(), "each buffer is on the stack once");
        // SAFETY: the stack has a place for each buffer, and this one was not on it.
        unsafe { *self.stack.get_unchecked(top).get() = index };
        // Release: whoever counts this buffer as home sees it on the stack. The last touch (see the head).
        self.stack_len.store(top + 1, Ordering::Release);
    }

    #[cold]
    fn push_remote(&self, index: u32) {
        // The queue has a place for each buffer, and this one was not in it.
        let pushed = self.returns.push(index);
        debug_assert!(pushed.is_ok(), "the queue of returns holds every buffer");
        // Release, as in `push`. Without a place in the queue the buffer would be lost, never in two places.
        if pushed.is_ok() {
            self.returned.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether no buffer is out. The caller is the pool, or holds it parked, so none goes out meanwhile.
    fn all_home(&self, taken: u64) -> bool {
        let on_stack = self.stack_len.load(Ordering::Acquire) as u64;
        let returned = self.returned.load(Ordering::Acquire);
        // A buffer can be taken out of the queue just before `returned` counts it, hence wrapping.
        on_stack.wrapping_add(returned).wrapping_sub(taken) == self.stack.len() as u64
    }
}

/// Bytes from one buffer to the next: an odd number of cache lines. A stride of a power of two would put the headers
/// of all buffers, and their Ethernet headers too, into a few of the cache's sets; an odd number of lines is coprime
/// with the number of sets, so that neighbours use all sets in turn.
fn stride(capacity: usize) -> usize {
    const LINE: usize = 64;
    ((HEADER + capacity).div_ceil(LINE) | 1) * LINE
}

/// A pool that was dropped, while buffers are out.
struct Parked {
    shared: NonNull<Shared>,
    taken: u64,
}

// SAFETY: a parked pool is only asked whether all is home, and then freed, by whoever holds the lock.
unsafe impl Send for Parked {}

static PARKED: Mutex<Vec<Parked>> = Mutex::new(Vec::new());

fn lock_parked() -> std::sync::MutexGuard<'static, Vec<Parked>> {
    PARKED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Frees the parked pools whose buffers have all come home.
fn sweep() {
    release_home(&mut lock_parked());
}

fn release_home(parked: &mut Vec<Parked>) {
    parked.retain(|pool| {
        // SAFETY: parked, so not freed yet.
        let all_home = unsafe { pool.shared.as_ref() }.all_home(pool.taken);
        if all_home {
            // SAFETY: the pool is gone, every buffer is home and every free has ended (see the head): nobody else
            // knows this box.
            drop(unsafe { Box::from_raw(pool.shared.as_ptr()) });
        }
        !all_home
    });
}

thread_local! {
    /// This thread's token; 0 until it owns a pool. Never reused, unlike an address or the kernel's thread id.
    static THREAD: Cell<u64> = const { Cell::new(0) };
}

fn thread_token() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    if THREAD.get() == 0 {
        THREAD.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    THREAD.get()
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
