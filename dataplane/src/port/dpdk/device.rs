//! What a device is and does, to ask from any thread while workers run.

use super::Stats;
use crate::port::sys::dpdk::Running;
use std::{
    fmt,
    sync::{Arc, Weak},
};

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its driver, like "net_virtio".
    pub driver: String,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// The MTU in force.
    pub mtu: u16,
    /// Its NUMA node, if it is on one.
    pub numa_node: Option<u32>,
    /// Workers that share it, each with a queue each way.
    pub queues: u16,
    /// How it chooses the worker that receives a frame.
    pub spread: Spread,
}

/// How a device chooses the worker that receives a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// There is one worker.
    OneQueue,
    /// It gives each frame to the worker that owns it, and says so; the counter of handoffs tells if it does. Protocols
    /// whose ports it does not know, like SCTP on most devices, are handed over.
    Owner,
    /// By a hash of its own, since it takes no key or has no table of 128 entries: workers hand over what is not theirs.
    OwnHash,
    /// It has no hash that DPDK knows of: mostly all to the first worker, which hands over what is not its own.
    FirstQueue,
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneQueue => "one queue",
            Self::Owner => "to owners",
            Self::OwnHash => "by the device's hash, handed over to owners",
            Self::FirstQueue => "as the device does it, handed over to owners",
        })
    }
}

/// The state of a device's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether there is one.
    pub up: bool,
    /// Its speed in megabits a second, if it is known and there is a link.
    pub mbps: Option<u32>,
}

impl Link {
    pub(super) fn new((up, mbps): (bool, u32)) -> Self {
        Self { up, mbps: (up && mbps != u32::MAX && mbps != 0).then_some(mbps) }
    }
}

/// A device, to ask from any thread while workers use it. It does not keep the device open: once the last of its ports is
/// gone, nothing is answered. A question may take as long as the driver does (milliseconds); no worker waits for it.
#[derive(Clone, Debug)]
pub struct DeviceHandle {
    pub(super) name: Arc<str>,
    pub(super) facts: Arc<Facts>,
    pub(super) device: Weak<Running>,
}

impl DeviceHandle {
    /// What it is called in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.device.strong_count() > 0
    }

    /// The state of its link; `None` if it is closed or gone.
    pub fn link(&self) -> Option<Link> {
        self.device.upgrade()?.ask().link().map(Link::new)
    }

    /// What it has counted, for all its workers; `None` if it is closed.
    pub fn stats(&self) -> Option<Stats> {
        Some(self.device.upgrade()?.ask().stats())
    }

    /// The driver's own counters, by name; none if it is closed.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        self.device.upgrade().map_or_else(Vec::new, |device| device.ask().xstats())
    }
}
