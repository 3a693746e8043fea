//! System calls and shared memory of the port drivers: the only unsafe code of the ports.
//!
//! Each file wraps one thing in a safe interface and states its invariant. `abi.rs` has none: it is the kernel's numbers
//! and structures (`linux/if_packet.h`, `linux/virtio_net.h`, `linux/filter.h`).

pub(crate) mod abi;
pub(crate) mod blocks;
#[cfg(feature = "dpdk")]
pub(crate) mod dpdk;
pub mod interface;
mod mapping;
pub mod poll;
pub(crate) mod ring;
pub(crate) mod socket;
pub mod tap;
