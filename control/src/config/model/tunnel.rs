//! How packets to servers behind tunnels are wrapped.

use std::num::NonZeroU16;

/// What a tunnelled packet is wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// IP in IP.
    Ipip,
    /// Generic UDP encapsulation.
    Gue {
        /// Its UDP port.
        port: NonZeroU16,
        /// Of the outer header.
        checksum: Checksum,
    },
    /// GRE.
    Gre {
        /// Whether it carries a checksum.
        checksum: bool,
    },
}

impl Tunnel {
    /// As configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            Tunnel::Ipip => "ipip",
            Tunnel::Gue { .. } => "gue",
            Tunnel::Gre { .. } => "gre",
        }
    }
}

/// The checksum of a GUE header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// None.
    None,
    /// The UDP checksum.
    On,
    /// Remote checksum offload.
    Remote,
}

impl Checksum {
    /// As configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            Checksum::None => "none",
            Checksum::On => "on",
            Checksum::Remote => "remote",
        }
    }
}
