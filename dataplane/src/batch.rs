//! A batch of frames and what the stages find out about them, as arrays: stage after stage runs over all of them.

use crate::{
    conn::key::{Key4, Key6},
    limits::BATCH,
    port::Frames,
    verdict::{DropReason, Verdict},
};

/// What kind of packet a frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Nothing that was understood: the host's.
    #[default]
    Foreign,
    /// An ARP message.
    Arp,
    /// A neighbour solicitation.
    NeighborSolicitation,
    /// Another message of neighbour discovery.
    NeighborDiscovery,
    /// TCP, UDP or SCTP: the key is the flow's.
    Flow,
    /// An ICMP error: the key is that of the flow it is about.
    IcmpError,
    /// An ICMP echo request.
    Echo,
    /// A fragment.
    Fragment,
    /// Any other IP packet.
    OtherIp,
}

/// Where the parts of a frame are, and what later stages ask about it. Offsets are from the start of the frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// Of the IP header.
    pub l3: u16,
    /// Of the transport or ICMP header.
    pub l4: u16,
    /// Of the first byte after the IP packet: what follows is padding.
    pub end: u16,
    /// The TCP flags; 0 for other protocols.
    pub tcp_flags: u8,
    /// IPv6.
    pub v6: bool,
    /// Sent to all or several stations by its MAC address.
    pub multicast: bool,
    /// What it is.
    pub kind: Kind,
}

impl Layout {
    /// Bytes of the IP packet.
    #[inline]
    pub fn ip_len(&self) -> u16 {
        self.end - self.l3
    }
}

/// A batch on its way through the stages. Index `i` of every array speaks of frame `i`.
pub struct Batch {
    /// The frames.
    pub frames: Frames,
    /// The port number that each came in by.
    pub port: [u8; BATCH],
    /// Its layout; valid after parse while the verdict is open.
    pub layout: [Layout; BATCH],
    /// Its verdict.
    pub verdict: [Verdict; BATCH],
    /// The hash of its key.
    pub hash: [u64; BATCH],
    /// The entry that its tag points to, which need not be its connection's.
    pub entry: [u32; BATCH],
    /// The slot of its destination, or [`Batch::NOWHERE`].
    pub destination: [u32; BATCH],
    /// Its key, if it is IPv4.
    pub key4: [Key4; BATCH],
    /// Its key, if it is IPv6.
    pub key6: [Key6; BATCH],
}

impl Batch {
    /// No destination.
    pub const NOWHERE: u32 = u32::MAX;

    /// An empty batch, on the heap: it is several kilobytes.
    pub fn new() -> Box<Self> {
        Box::new(Self {
            frames: Frames::new(),
            port: [0; BATCH],
            layout: [Layout::default(); BATCH],
            verdict: [Verdict::Open; BATCH],
            hash: [0; BATCH],
            entry: [0; BATCH],
            destination: [Self::NOWHERE; BATCH],
            key4: [Key4::default(); BATCH],
            key6: [Key6::default(); BATCH],
        })
    }

    /// Frames in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Decides that frame `i` ends here.
    #[inline]
    pub fn drop(&mut self, i: usize, reason: DropReason) {
        self.verdict[i] = Verdict::Drop(reason);
    }
}
