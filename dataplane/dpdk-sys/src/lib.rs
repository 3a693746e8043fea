//! The C shim over the system's libdpdk, declared by hand. `shim.c` says what each function does; the two files are read
//! side by side. With feature `link` only: without it the crate is empty and needs nothing of the system.
//!
//! The safe layer is `port::dpdk` of the crate `pointsman-dataplane`.
#![allow(unsafe_code)]

#[cfg(feature = "link")]
mod shim;

#[cfg(feature = "link")]
pub use shim::*;
