//! Fragments of packets (RFC 791 section 3.2, RFC 8200 section 4.5), between the stages 1 and 2: each becomes a packet of
//! its datagram's flow, or waits until the first fragment tells which that is.
//!
//! The original puts datagrams together, decides, and takes them apart again; here the fragments pass as they came. What
//! the server gets is the same: nothing before the first fragment has come, then all. The first is a packet like any other
//! ([`Kind::Flow`]); a later one stays [`Kind::Fragment`], has the flow's key, but no transport header: it changes
//! the state of no connection, opens none but of UDP, and nothing answers it.
//!
//! SCTP's checksum is over the whole datagram, and changes with a port by how long that is. A first fragment of SCTP that NAT has
//! given another port therefore waits, ready but for that, for the last, which tells the length ([`unfinished`]); what comes
//! between goes before it.
//!
//! A fragment that would hide or overwrite the transport header ends here (RFC 1858, RFC 3128, RFC 7112). What overlaps
//! behind it is for the server to judge, which puts the datagram together.
//!
//! Only datagrams that may be of a connection are followed; others are left to the host or to the routes, as they came.

pub mod held;
pub mod tracker;
pub mod unfinished;
pub mod waiting;

use crate::{
    batch::{Kind, Layout, Packet},
    conn::key::{Key4, Key6},
    parse::{self, Keys},
    snapshot::Snapshot,
    time::Nanos,
    verdict::{DropReason, Verdict},
    wire::{ipv4, ipv6, protocol},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tracker::{Datagram, First};

/// A fragment, as its IP header tells.
#[derive(Clone, Copy, Debug)]
struct Part {
    datagram: Datagram,
    /// Its protocol; of a later fragment of IPv6 what its sender says.
    protocol: u8,
    /// Where its data begins in the datagram, in bytes.
    offset: u16,
    /// Bytes of its data; in IPv6 from behind the fragment header on.
    len: u16,
    /// Of the transport header in the IP packet, if it is the first.
    l4: u16,
    more: bool,
    /// Bytes of the datagram's IP header that count for its length.
    header: u16,
}

impl Part {
    fn of(packet: &[u8], v6: bool) -> Result<Option<Self>, DropReason> {
        if v6 { Self::of_v6(packet) } else { Ok(Self::of_v4(packet)) }
    }

    /// `None` if the packet is no fragment.
    fn of_v4(packet: &[u8]) -> Option<Self> {
        let ip = ipv4::Ipv4::new(packet).filter(|ip| ip.is_consistent() && ip.is_fragment())?;
        let datagram = Datagram {
            source: wide(ip.source()),
            destination: wide(ip.destination()),
            identification: u32::from(ip.identification()),
            protocol: ip.protocol(),
            v6: false,
        };
        Some(Self {
            datagram,
            protocol: ip.protocol(),
            offset: ip.fragment_offset(),
            len: ip.payload().len() as u16,
            l4: ip.header_len() as u16,
            more: ip.more_fragments(),
            header: ip.header_len() as u16,
        })
    }

    /// See [`Part::of_v4`].
    fn of_v6(packet: &[u8]) -> Result<Option<Self>, DropReason> {
        let ip = ipv6::Ipv6::new(packet).filter(ipv6::Ipv6::is_consistent);
        let ip = ip.ok_or(DropReason::Ipv6Header)?;
        let upper = ip.upper_layer().map_err(|ipv6::BrokenExtensions| DropReason::Ipv6Extensions)?;
        let Some(fragment) = upper.fragment.filter(|fragment| !fragment.is_atomic()) else { return Ok(None) };
        let datagram = Datagram {
            source: ip.source().octets(),
            destination: ip.destination().octets(),
            identification: fragment.identification,
            protocol: 0,
            v6: true,
        };
        Ok(Some(Self {
            datagram,
            protocol: upper.protocol,
            offset: fragment.offset,
            len: ip.packet().len().saturating_sub(fragment.data) as u16,
            l4: upper.offset as u16,
            more: fragment.more,
            header: 0,
        }))
    }

    /// Whether no datagram can have such a part, or it would overwrite the flags of a TCP segment.
    fn is_malformed(&self) -> bool {
        let end = u32::from(self.header) + u32::from(self.offset) + u32::from(self.len);
        self.len == 0
            || (self.more && !self.len.is_multiple_of(8))
            || end > u32::from(u16::MAX)
            || (self.protocol == protocol::TCP && self.offset == 8)
    }
}

fn wide(address: Ipv4Addr) -> [u8; 16] {
    let [a, b, c, d] = address.octets();
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// The datagram that a packet is a fragment of, and whether it is the first; `None` if it is none.
pub fn datagram(frame: &[u8], layout: &Layout) -> Option<(Datagram, bool)> {
    let packet = frame.get(usize::from(layout.l3)..usize::from(layout.end))?;
    let part = Part::of(packet, layout.v6).ok()??;
    Some((part.datagram, part.offset == 0))
}

/// The datagram that an IP packet is a fragment of, and where its data ends in that; `None` if it is none.
pub(crate) fn extent(packet: &[u8], v6: bool) -> Option<(Datagram, u16)> {
    let part = Part::of(packet, v6).ok()??;
    Some((part.datagram, part.offset.checked_add(part.len)?))
}

/// Decides what a fragment is, which has no key yet: afterwards it has one, or is decided, or stays as it is
/// because it is no concern of a connection. Returns its key if it has one. `is_new`: no other worker has seen it before.
#[cold]
pub fn admit(
    frame: &[u8],
    packet: &mut Packet,
    snapshot: &Snapshot,
    (now, is_new): (Nanos, bool),
) -> Option<Keys> {
    match flow(frame, packet, snapshot, (now, is_new)) {
        Ok(keys) => keys,
        Err(reason) => {
            packet.drop(reason);
            None
        }
    }
}

fn flow(
    frame: &[u8],
    packet: &mut Packet,
    snapshot: &Snapshot,
    (now, is_new): (Nanos, bool),
) -> Result<Option<Keys>, DropReason> {
    let layout = &mut packet.layout;
    let bytes = frame.get(usize::from(layout.l3)..usize::from(layout.end));
    let bytes = bytes.ok_or(DropReason::FrameTruncated)?;
    let Some(part) = Part::of(bytes, layout.v6)?.filter(|part| concerns(&part.datagram, snapshot)) else {
        return Ok(None);
    };
    if part.is_malformed() {
        return Err(DropReason::FragmentMalformed);
    }
    if !is_balanced(&part) {
        return Ok(None);
    }
    let first = if part.offset == 0 {
        let payload = bytes.get(usize::from(part.l4)..).ok_or(DropReason::FragmentMalformed)?;
        let ports = parse::transport(payload, part.protocol, layout);
        let ports = ports.map_err(|_| DropReason::FragmentMalformed)?;
        let first = First { ports, protocol: part.protocol, len: part.len };
        if is_new {
            snapshot.fragments.note(&part.datagram, first, now);
        }
        (layout.kind, layout.l4) = (Kind::Flow, layout.l3 + part.l4);
        first
    } else {
        let Some(first) = snapshot.fragments.known(&part.datagram, now) else {
            packet.verdict = Verdict::Hold;
            return Ok(None);
        };
        if part.offset < first.len || (first.protocol == protocol::TCP && part.offset == 8) {
            return Err(DropReason::FragmentMalformed);
        }
        if first.protocol == protocol::SCTP && !part.more && is_new {
            snapshot.fragments.ends(&part.datagram, part.offset + part.len, now);
        }
        first
    };
    Ok(Some(keys(&part.datagram, &first)))
}

fn keys(datagram: &Datagram, first: &First) -> Keys {
    let Datagram { source, destination, v6, .. } = *datagram;
    if v6 {
        let v6 = Key6::from_wire(source, destination, first.ports, first.protocol);
        return Keys { v6, ..Keys::default() };
    }
    let ([a, b, c, d, ..], [e, f, g, h, ..]) = (source, destination);
    Keys { v4: Key4::from_wire([a, b, c, d, e, f, g, h], first.ports, first.protocol), ..Keys::default() }
}

/// Whether the datagram may be of a connection: it is to a virtual address, may have a mark, or is from or to a station whose
/// packets are translated.
fn concerns(datagram: &Datagram, snapshot: &Snapshot) -> bool {
    let address = |octets: [u8; 16]| match octets {
        [a, b, c, d, ..] if !datagram.v6 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        octets => IpAddr::V6(Ipv6Addr::from(octets)),
    };
    let (source, destination) = (address(datagram.source), address(datagram.destination));
    let routing = &snapshot.routing;
    snapshot.virtual_addresses.contains(&destination)
        || (!snapshot.marks.is_empty() && !snapshot.host_addresses.contains(&destination))
        || routing.servers.contains(&source)
        || routing.source_nat.iter().any(|nat| nat.source.contains(source) || nat.address == destination)
}

/// Whether the protocol is one that is balanced, as far as the fragment tells.
fn is_balanced(part: &Part) -> bool {
    let transport = matches!(part.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
    let is_later_v6 = part.datagram.v6 && part.offset > 0;
    transport
        || is_later_v6
            && matches!(part.protocol, protocol::DESTINATION_OPTIONS | protocol::AH | protocol::ROUTING)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fragment of a UDP datagram with this word of flags and offset, and this many bytes of data.
    fn v4(word: u16, len: usize) -> Vec<u8> {
        let mut packet = vec![0; 20 + len];
        let fields = ipv4::Fields {
            tos: 0,
            total_len: packet.len() as u16,
            identification: 0x1234,
            fragment: word,
            ttl: 64,
            protocol: 17,
            source: Ipv4Addr::new(10, 0, 0, 2),
            destination: Ipv4Addr::new(10, 0, 0, 100),
        };
        assert!(ipv4::write(&mut packet, &fields));
        packet
    }

    fn v6(next: u8, offset: u16, more: bool, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 48];
        let fields = ipv6::Fields {
            traffic_class: 0,
            payload_len: 8 + rest.len() as u16,
            next_header: 44,
            hop_limit: 64,
            source: "fd00:1::2".parse().unwrap(),
            destination: "fd00:1::100".parse().unwrap(),
        };
        assert!(ipv6::write(&mut packet, &fields));
        packet[40] = next;
        packet[42..44].copy_from_slice(&(offset | u16::from(more)).to_be_bytes());
        packet[44..48].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
        [&packet, rest].concat()
    }

    #[test]
    fn a_fragment_is_read_from_its_header() {
        let part = Part::of(&v4(0x2003, 16), false).unwrap().unwrap();
        assert_eq!((part.offset, part.len, part.more, part.l4, part.protocol), (24, 16, true, 20, 17));
        assert_eq!((part.datagram.identification, part.datagram.protocol), (0x1234, 17));
        assert_eq!((&part.datagram.source[..5], part.datagram.destination[3]), (&[10, 0, 0, 2, 0][..], 100));
        assert!(Part::of(&v4(0x4000, 16), false).unwrap().is_none());
        // Behind the fragment header of the first: destination options of 8 bytes, then UDP.
        let first = v6(60, 0, true, &[&[17, 0, 1, 4, 0, 0, 0, 0][..], &[0; 16]].concat());
        let part = Part::of(&first, true).unwrap().unwrap();
        assert_eq!((part.offset, part.len, part.more, part.l4, part.protocol), (0, 24, true, 56, 17));
        assert_eq!((part.datagram.identification, part.datagram.protocol), (0x1234_5678, 0));
        let later = Part::of(&v6(60, 24, false, &[0; 5]), true).unwrap().unwrap();
        assert_eq!((later.offset, later.len, later.more, later.protocol), (24, 5, false, 60));
        assert_eq!(later.datagram, part.datagram);
        // RFC 6946: the one part of a whole packet.
        assert!(Part::of(&v6(17, 0, false, &[0; 8]), true).unwrap().is_none());
    }

    #[test]
    fn parts_that_no_datagram_can_have_are_malformed() {
        let malformed = |packet: &[u8], v6| Part::of(packet, v6).unwrap().unwrap().is_malformed();
        for (word, len, expected) in [
            (0x2000, 16, false),
            (0x2000, 17, true),
            (0x2000, 0, true),
            (0x0002, 17, false),
            (0x0002, 0, true),
            // 65,512 and 3 bytes, and a header of 20: 65,535.
            (0x1ffd, 3, false),
            (0x1ffd, 4, true),
        ] {
            assert_eq!(malformed(&v4(word, len), false), expected, "{word:04x} {len}");
        }
        let mut tcp = v4(1, 16);
        assert!(!malformed(&tcp, false));
        tcp[9] = 6;
        assert!(malformed(&tcp, false), "RFC 1858: it would hold the flags");
        assert!(malformed(&v6(17, 24, true, &[0; 9]), true));
        assert!(malformed(&v6(17, 24, false, &[]), true));
        assert!(!malformed(&v6(17, 65_528, false, &[0; 7]), true));
        assert!(malformed(&v6(17, 65_528, false, &[0; 8]), true));
    }
}
