//! Benchmarks of Pointsman and what they share.
//!
//! [`packet_path`] measures the whole way of a packet; [`rig`] is the director that it runs, [`traffic`] the frames that it
//! is offered. Read [`timing`] for how a figure is taken.

pub mod callgrind;
pub mod packet_path;
pub mod rig;
pub mod timing;
pub mod traffic;
