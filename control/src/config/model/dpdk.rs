//! What is configured of DPDK and of its ports. Known in every build; only one with the feature `dpdk` can run it.

use std::{fmt, net::IpAddr, num::NonZeroU32};

/// How DPDK is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dpdk {
    /// Where packets lie.
    pub memory: Memory,
    /// Further arguments of its environment, behind ours.
    pub arguments: Vec<String>,
    /// Packet buffers on each NUMA node; `None`: as many as the rings and the workers can have out.
    pub buffers: Option<NonZeroU32>,
}

/// Where the packets of DPDK lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// In huge pages, which every device can reach.
    #[default]
    Huge,
    /// In ordinary pages: for virtual devices only.
    Ordinary,
}

impl Memory {
    /// As configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            Memory::Huge => "huge",
            Memory::Ordinary => "ordinary",
        }
    }
}

/// What is configured of a port of DPDK's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpdkPort {
    /// The director's own addresses on it.
    pub addresses: Vec<Subnet>,
    /// Where everything else goes: at most one for each family, in a subnet of the addresses.
    pub gateways: Vec<IpAddr>,
    /// The MTU: 1280 to 9216.
    pub mtu: u16,
    /// Frames in each receive ring: 64 to 16384.
    pub rx_ring: u16,
    /// Frames in each transmit ring: likewise.
    pub tx_ring: u16,
    /// Whether it takes frames to all stations.
    pub promiscuous: bool,
}

impl DpdkPort {
    /// The MTU where nothing is said.
    pub const MTU: u16 = 1_500;
    /// Frames in a ring where nothing is said.
    pub const RING: u16 = 1_024;
}

impl Default for DpdkPort {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            gateways: Vec::new(),
            mtu: Self::MTU,
            rx_ring: Self::RING,
            tx_ring: Self::RING,
            promiscuous: false,
        }
    }
}

/// An address and how many of its bits are those of its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The address of a host.
    pub address: IpAddr,
    /// 1..=32, or 1..=128.
    pub prefix: u8,
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Whether a device is named by its PCI address, not as a virtual one.
pub fn is_pci(device: &str) -> bool {
    let form = b"xxxx:xx:xx.x";
    device.len() == form.len()
        && device.bytes().zip(form).all(|(byte, form)| match form {
            b'x' => byte.is_ascii_hexdigit(),
            other => byte == *other,
        })
}
