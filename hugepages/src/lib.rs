//! Memory that a NIC may DMA into, and that a worker may walk at random: huge pages, locked, on a chosen NUMA node.
//!
//! - [`Region`]: one mapping. It falls back to ordinary pages with a warning and reports what it got.
//! - [`HugeSlice`]: a zeroed slice in a region, as a `Box<[T]>` would be. Tables live in it.
//! - [`Pool`] and [`Buffer`]: a fixed number of packet buffers with headroom, owned by one worker; a buffer may be
//!   dropped on any thread.
//!
//! The crate knows no packets. All memory is mapped, zeroed and touched when a value is made: afterwards nothing
//! here allocates, faults or makes a system call.
//!
//! Read [`Region::map`] first, then the head of `pool.rs`, which says who may touch what.

mod buffer;
mod pool;
mod region;
mod slice;
mod sys;

#[cfg(test)]
mod memcheck;

pub use buffer::{Buffer, HEADROOM};
pub use pool::{Pool, PoolOptions};
pub use region::{Error, Options, PageChoice, PageSize, Region, Report};
pub use slice::HugeSlice;
