//! Ports: where frames come from and go to. The worker is compiled for one kind of port: no dynamic dispatch per packet.

pub mod af_packet;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod fault;
pub mod frame;
pub mod memory;
pub mod pcap;
pub mod segment;
pub mod sys;

pub use frame::{Frame, FramePool};

use crate::limits::BATCH;
use arrayvec::ArrayVec;
use pointsman_hugepages::Buffer;
use std::os::fd::RawFd;

/// Frames on their way between a port and a worker, in order.
pub type Frames<F = Buffer> = ArrayVec<F, BATCH>;

/// The pool of the frames of a port.
pub type PoolOf<P> = <<P as Port>::Frame as Frame>::Pool;

/// One worker's queue pair of a NIC port, or what stands for one.
pub trait Port: Send {
    /// What it receives and sends. All ports of a worker have one kind of frame.
    type Frame: Frame;

    /// Whether the host has its own copy of every frame that comes in, so that what is left to it need not be given to it.
    const SEEN_BY_HOST: bool = false;

    /// Appends the frames that have arrived to `frames`, in order, until it is full or none is left, taking buffers from
    /// `pool` where the driver has none of its own. Returns how many were appended. Never waits.
    fn rx(&mut self, pool: &mut PoolOf<Self>, frames: &mut Frames<Self::Frame>) -> usize;

    /// Sends all of `frames` in order and leaves it empty. Returns how many frames the port accepted; the others, for
    /// which its ring had no room, have been dropped. Never waits.
    fn tx(&mut self, frames: &mut Frames<Self::Frame>) -> usize;

    /// Frames that have been lost since start because the receive ring was full. May cost a system call: called about
    /// once a second.
    fn rx_ring_drops(&mut self) -> u64;

    /// What to wait on for frames to arrive, if the driver can sleep.
    fn wait_fd(&self) -> Option<RawFd>;

    /// Whether the driver still has a link to its device: false once an interface was taken away or set down.
    fn is_up(&mut self) -> bool {
        true
    }
}
