//! A batch of frames and what the stages find out about them, as arrays: stage after stage runs over all of them.

use crate::{
    conn::{
        key::{Key4, Key6},
        table::Role,
    },
    fragments::{
        held::Held,
        tracker::Fragments,
        unfinished::{Unfinished, Unsummed},
    },
    limits::{BATCH, RELEASE_BUDGET},
    port::{Frame, Frames},
    time::Nanos,
    verdict::{DropReason, Verdict},
};
use arrayvec::ArrayVec;

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
    /// AH or ESP, also a fragment of either: the key is that of the UDP flow by which the same stations negotiate, from and to
    /// port 500 (ISAKMP).
    Ipsec,
    /// An ICMP error: the key is that of the flow it is about.
    IcmpError,
    /// An ICMP error about a packet in a tunnel: the key is that of the flow inside, whose family may be another one.
    TunnelError,
    /// An ICMP echo request.
    Echo,
    /// An ICMP echo reply.
    EchoReply,
    /// A fragment, but the first of a flow's datagram is a [`Kind::Flow`]. If it is looked up, the key is the flow's; there is
    /// no transport header in it.
    Fragment,
    /// Any other IP packet.
    OtherIp,
}

impl Kind {
    /// Whether it is an echo request or reply, whose key has its identifier in place of the sender's port in a request, of
    /// the receiver's in a reply.
    #[inline]
    pub fn is_echo(self) -> bool {
        matches!(self, Kind::Echo | Kind::EchoReply)
    }
}

/// Where the parts of a frame are, and what later stages ask about it. Offsets are from the start of the frame.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Layout {
    /// Of the IP header.
    pub l3: u16,
    /// Of the transport or ICMP header.
    pub l4: u16,
    /// Of the first byte after the IP packet: what follows is padding.
    pub end: u16,
    /// What the packet means to the state of its connection: the TCP flags; of SCTP the number
    /// of its [`crate::conn::sctp::Event`]; 0 for other protocols.
    pub event: u8,
    /// What it is.
    pub kind: Kind,
    /// IPv6.
    pub v6: bool,
    /// Sent to all or several stations by its MAC address.
    pub multicast: bool,
}

impl Layout {
    const NEW: Layout =
        Layout { l3: 0, l4: 0, end: 0, event: 0, v6: false, multicast: false, kind: Kind::Foreign };

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

/// What the stages find out about one frame: one cache line. In this order: what most packets have in common lies side by
/// side, so that it takes few stores.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
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
    /// The connection states, as bits by number, that the packet leaves as they are: of TCP see
    /// [`crate::conn::tcp::kept`]; all of other flows; none if it is no flow's own packet.
    pub keeps: u16,
    /// The next hop of an answer, by number ([`crate::snapshot::Snapshot::hop`]).
    pub hop: u32,
    /// Where its parts are.
    pub layout: Layout,
    /// Of the entry that it was found in: with a destination, how it gets there.
    pub role: Role,
    /// The table that it is looked up in.
    pub lookup: Lookup,
    /// The port number that it came in by.
    pub port: u8,
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
        hop: 0,
        layout: Layout::NEW,
        role: Role::Direct,
        keeps: 0,
        port: 0,
        lookup: Lookup::None,
    };

    /// Decides that the packet ends here.
    #[inline]
    pub fn drop(&mut self, reason: DropReason) {
        self.verdict = Verdict::Drop(reason);
    }
}

/// Frames of a batch that came in by one port, in a row.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The port's number.
    pub port: u8,
    /// Whether this worker received them; else another one handed them over.
    pub received: bool,
    /// The number of the frame behind the last.
    pub end: usize,
    /// Bytes of the frames from the Ethernet header on, once they have been parsed.
    pub bytes: u64,
}

/// A batch on its way through the stages. Index `i` of every array speaks of frame `i`; what stands behind the last frame
/// is of earlier batches.
pub struct Batch<F> {
    /// The frames.
    pub frames: Frames<F>,
    /// Where they came from, in their order.
    pub runs: ArrayVec<Run, BATCH>,
    /// The port that all of them leave by, once that is known of each.
    pub way: Option<u16>,
    /// What is known of each.
    pub packets: [Packet; BATCH],
    /// The keys of IPv6 flows.
    pub key6: [Key6; BATCH],
    /// Fragments that came before the first of their datagram.
    pub held: Held<F>,
    /// First fragments of this batch whose checksum takes the last: their numbers, where they go, and what is missing.
    pub unsummed: ArrayVec<(u8, Verdict, Unsummed), BATCH>,
    /// Those of earlier batches.
    pub unfinished: Unfinished<F>,
    /// How many of the frames were held until now: they have been counted already.
    pub released: usize,
}

impl<F: Frame> Batch<F> {
    /// An empty batch, on the heap: it is several kilobytes.
    pub fn new() -> Box<Self> {
        Box::new(Self {
            frames: Frames::new(),
            runs: ArrayVec::new(),
            way: None,
            packets: [Packet::NEW; BATCH],
            key6: [Key6::default(); BATCH],
            held: Held::new(),
            unsummed: ArrayVec::new(),
            unfinished: Unfinished::new(),
            released: 0,
        })
    }

    /// Notes that the frames behind those noted before came in by `port`.
    #[inline]
    pub fn came_by(&mut self, port: u8, received: bool) {
        came_by(&mut self.runs, self.frames.len(), (port, received));
    }

    /// Takes the fragments into the empty batch whose first has come, at most [`RELEASE_BUDGET`].
    #[cold]
    pub fn release(&mut self, fragments: &Fragments, now: Nanos) {
        let Self { frames, runs, held, .. } = self;
        held.give(fragments, now, RELEASE_BUDGET, |frame, port| {
            frames.push(frame);
            came_by(runs, frames.len(), (port, false));
        });
        self.released = self.frames.len();
    }

    /// Says where frame `i` goes, at once or when its checksum is right.
    pub fn goes(&mut self, i: usize, verdict: Verdict, unsummed: Option<Unsummed>) {
        self.packets[i].verdict = verdict;
        if let Some(unsummed) = unsummed {
            // Each frame of a batch but once.
            self.unsummed.push((i as u8, verdict, unsummed));
            self.packets[i].verdict = Verdict::Unfinished;
        }
    }

    /// Takes the first fragments into the empty batch that have what they waited for, or waited in vain. They are decided.
    #[cold]
    pub fn finish(&mut self, fragments: &Fragments, now: Nanos) {
        let Self { frames, packets, unfinished, .. } = self;
        unfinished.finish(fragments, now, BATCH, |frame, packet| {
            packets[frames.len()] = packet;
            frames.push(frame);
        });
        self.way = None;
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

#[inline(always)]
fn came_by(runs: &mut ArrayVec<Run, BATCH>, end: usize, (port, received): (u8, bool)) {
    match runs.last_mut() {
        Some(last) if last.end == end => {}
        Some(last) if last.port == port && last.received == received => last.end = end,
        // Each has a frame at least, and there is room for one run a frame.
        _ => runs.push(Run { port, received, end, bytes: 0 }),
    }
}
