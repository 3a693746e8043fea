//! What happens to a packet, and why.
//!
//! A [`DropReason`] *is* its counter, its name in the gRPC interface and its row in the documentation; nothing is
//! dropped without one. An [`Answer`] counts what the director said itself.

use std::fmt;

/// What is to happen to a packet. Later stages skip packets that are decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet.
    Open,
    /// On its way to a real server: leaves by the port with this number, its MAC addresses set.
    Forward(u16),
    /// The same, but the MAC address of its next hop, an index into the snapshot's table, is not known.
    Resolve(u32),
    /// The frame has become the director's own answer, and leaves by the port that it came from.
    Answer(Answer),
    /// The same, but it is larger than the MTU of the next hop of that number, and may be cut into fragments.
    Cut(u32),
    /// A fragment that waits for the first of its datagram.
    Hold,
    /// The first fragment of a datagram, which waits for the last: see [`crate::fragments::unfinished`].
    Unfinished,
    /// Left to the host: it has its own copy where it sees the port itself, else the frame goes by the exception path.
    Punt,
    /// For the host as a real server: goes by the exception path on every port, as the host's own copies are kept from it.
    Local,
    /// To the worker that owns the flow.
    Handoff(u16),
    /// Ends here.
    Drop(DropReason),
}

macro_rules! counted {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal, $explanation:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $(#[doc = $explanation] $variant,)* }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name as users see it.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// What it means and what to do about it.
            pub const fn explanation(self) -> &'static str {
                match self { $($name::$variant => $explanation,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

counted! {
    /// Why a packet ended here.
    DropReason {
        FrameTruncated = "frame_truncated", "The frame ends inside a header: a broken sender or cable.";
        NotOurMac = "not_our_mac", "The frame is addressed to another station: usual while a switch floods; else check who uses our address.";
        SourceInvalid = "source_invalid", "The source address is a multicast, broadcast or loopback one, or our own: spoofed, or a loop.";
        Ipv4Header = "ipv4_header", "An IPv4 version, header length or total length that cannot be.";
        Ipv4Checksum = "ipv4_checksum", "The checksum of the IPv4 header is wrong: damaged on the way.";
        Ipv6Header = "ipv6_header", "An IPv6 version or payload length that cannot be.";
        Ipv6Extensions = "ipv6_extensions", "More than eight extension headers, or a chain of them that is broken.";
        TransportHeader = "transport_header", "A TCP, UDP, SCTP or ICMP header that is cut off or contradicts itself.";
        FragmentMalformed = "fragment_malformed", "A fragment that is empty, overlaps or cuts off the transport header, or reaches beyond 65,535 bytes: broken, or an attack.";
        FragmentUnmatched = "fragment_unmatched", "A fragment whose first (of SCTP that NAT gives another port: whose last) did not come within a second, or was of no connection: lost on the way, or a scan.";
        ProtocolUnsupported = "protocol_unsupported", "An ICMP message to a virtual address that is neither an echo request nor an error about a connection, or a packet of a protocol that source NAT cannot give another address.";
        MethodPending = "method_pending", "The server is the director itself, whose kernel takes no packets from the workers: `pointsman show` and the log say why.";
        NoCallId = "no_call_id", "A packet to a service with the persistence engine of SIP that would open a connection and has no Call-ID: not SIP, or not by UDP.";
        ResetUnmatched = "reset_unmatched", "A RST that belongs to no connection: late, or a scan.";
        DestinationRemoved = "destination_removed", "The real server of this connection was removed; it resumes if the server is added again.";
        NoRoute = "no_route", "No route leads to the real server, or to where a server sends, out of a port; add one, or the port (`pointsman show` says which).";
        NeighborUnresolved = "neighbor_unresolved", "The next hop did not answer ARP or neighbour discovery in time; check that it is up and on this link.";
        NeighborQueueFull = "neighbor_queue_full", "Too many packets waited for next hops to answer ARP or neighbour discovery, or packets went to too many stations of a link: a scan.";
        TooBig = "too_big", "Larger than the MTU of the way out, and no fragments can be made of it.";
        TunnelMtu = "tunnel_mtu", "The path to a tunnelled server carries no packet of 68 bytes (IPv6: 1280) with the tunnel's headers: check the MTU on the way.";
        DropPacket = "drop_packet", "The policy `drop_packet` took it: one of so many packets that would open a connection, while it works.";
        TableFull = "table_full", "The connection table is full of established connections; raise `connections_ipv4` or `connections_ipv6` under `[capacity]` in the configuration, and start again.";
        PortsExhausted = "ports_exhausted", "Source NAT found no free port for a connection to this station: its address has too many to it; use another address for some of the senders.";
        AnswerRateLimited = "answer_rate_limited", "An ICMP error was due, but more than 1000 a second were: a flood or a scan.";
        IcmpUnmatched = "icmp_unmatched", "An ICMP error about a connection that the director does not know.";
        NotAnswerable = "not_answerable", "An ICMP error was due, but none may answer this packet: an ICMP error itself, or a packet to several stations.";
        HandoffRingFull = "handoff_ring_full", "The worker that owns the flow is behind; more workers or queues are needed.";
        ExceptionRingFull = "exception_ring_full", "The host takes frames to the director's own addresses slower than they come: a flood of them, or no core left for the control plane.";
        TransmitRingFull = "transmit_ring_full", "The port could not send as fast as packets came.";
        BufferPoolEmpty = "buffer_pool_empty", "No packet buffer was free for an answer.";
        PortGone = "port_gone", "The way out leads to a port that this worker does not have.";
        LoopDetected = "loop_detected", "Our own packet came back: two directors or a switch loop send it round.";
    }
}

counted! {
    /// What the director said itself.
    Answer {
        Arp = "arp", "ARP reply for a virtual address.";
        NeighborAdvertisement = "neighbor_advertisement", "Neighbour advertisement for a virtual address.";
        EchoReply = "echo_reply", "Reply to a ping of a virtual address.";
        TcpReset = "tcp_reset", "RST to a segment that belongs to no connection and opens none.";
        PortUnreachable = "port_unreachable", "No such service, or no server of it can take the connection.";
        ProtocolUnreachable = "protocol_unreachable", "A packet of a protocol that is not balanced, or of SCTP that no connection or service takes.";
        TimeExceeded = "time_exceeded", "The TTL or hop limit ended here.";
        PacketTooBig = "packet_too_big", "Larger than the MTU of the way out, and may not be fragmented.";
        TunnelError = "tunnel_error", "An ICMP error about a packet in a tunnel, passed on to the client whose packet it was.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_names_and_explanations_are_distinct_and_present() {
        for (number, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert!(reason.explanation().ends_with('.'), "{reason}");
            assert_eq!(DropReason::ALL.iter().filter(|r| r.name() == reason.name()).count(), 1);
        }
    }

    #[test]
    fn a_verdict_is_two_words_at_most() {
        assert!(std::mem::size_of::<Verdict>() <= 8);
    }
}
