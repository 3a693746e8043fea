//! A batch of frames and what the stages find out about them, as arrays: stage after stage runs over all of them.

use crate::{
    conn::key::{Key4, Key6},
    limits::BATCH,
    port::{Frame, Frames},
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
    const NEW: Layout =
        Layout { l3: 0, l4: 0, end: 0, tcp_flags: 0, v6: false, multicast: false, kind: Kind::Foreign };

    /// Bytes of the IP packet.
    #[inline]
    pub fn ip_len(&self) -> u16 {
        self.end - self.l3
    }
}

/// The table that a packet is looked up in: flows and the ICMP errors about them, if this worker owns them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// None.
    None,
    /// That of IPv4 connections.
    V4,
    /// That of IPv6 connections.
    V6,
}

/// What the stages find out about one frame: one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Packet {
    /// Its key, if it is an IPv4 flow.
    pub key4: Key4,
    /// The hash of its key.
    pub hash: u64,
    /// What becomes of it.
    pub verdict: Verdict,
    /// The entry that its tag points to, which need not be its connection's.
    pub entry: u32,
    /// The slot of its destination, or [`Packet::NOWHERE`].
    pub destination: u32,
    /// Where its parts are.
    pub layout: Layout,
    /// The port number that it came in by.
    pub port: u8,
    /// The table that it is looked up in.
    pub lookup: Lookup,
}

const _: () = assert!(size_of::<Packet>() == 64);

impl Packet {
    /// No destination.
    pub const NOWHERE: u32 = u32::MAX;

    pub(crate) const NEW: Packet = Packet {
        key4: Key4::ZERO,
        hash: 0,
        verdict: Verdict::Open,
        entry: 0,
        destination: Self::NOWHERE,
        layout: Layout::NEW,
        port: 0,
        lookup: Lookup::None,
    };

    /// Decides that the packet ends here.
    #[inline]
    pub fn drop(&mut self, reason: DropReason) {
        self.verdict = Verdict::Drop(reason);
    }
}

/// A batch on its way through the stages. Index `i` of every array speaks of frame `i`; what stands behind the last frame
/// is of earlier batches.
pub struct Batch<F> {
    /// The frames.
    pub frames: Frames<F>,
    /// What is known of each.
    pub packets: [Packet; BATCH],
    /// The keys of IPv6 flows.
    pub key6: [Key6; BATCH],
}

impl<F: Frame> Batch<F> {
    /// An empty batch, on the heap: it is several kilobytes.
    pub fn new() -> Box<Self> {
        Box::new(Self {
            frames: Frames::new(),
            packets: [Packet::NEW; BATCH],
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
}
