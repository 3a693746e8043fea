//! Network address translation: one end of a packet, its source or its destination, becomes another address and port.
//!
//! Checksums are changed by the difference (RFC 1624), so that what was damaged on the way stays damaged. A UDP datagram
//! without checksum (0, RFC 768) gets one, as by the original; one that would become 0 becomes 0xffff. SCTP has a CRC32c over
//! itself alone (RFC 9260 section 6.8), which is linear, so that it too is changed by the difference.
//!
//! An ICMP error about a packet that was translated is translated the other way within (RFC 5508 section 4.2): the packet
//! that it quotes becomes what its sender had sent. As with the original its IP header is made right and its transport
//! checksum left as it was; the ICMP checksum is made anew, after it was found right.

mod usual;

pub use usual::Ends;
pub(crate) use usual::{batch, run};

use crate::{
    batch::{Kind, Layout},
    director::Context,
    fragments::{self, tracker::Datagram, unfinished::Unsummed},
    port::Frame,
    verdict::DropReason,
    wire::{checksum, icmp, ipv4, ipv6, protocol, sctp},
};
use std::net::IpAddr;

/// Which end of a packet changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

impl End {
    fn other(self) -> Self {
        match self {
            End::Source => End::Destination,
            End::Destination => End::Source,
        }
    }

    /// Where the address is in an IPv4 header.
    pub(super) fn ipv4(self) -> usize {
        12 + 4 * usize::from(self == End::Destination)
    }

    /// Where the address is in an IPv6 header.
    pub(super) fn ipv6(self) -> usize {
        8 + 16 * usize::from(self == End::Destination)
    }

    /// Where the port is in a transport header, or in an echo the identifier that stands for the port of who asks.
    fn port(self, number: u8) -> usize {
        match number {
            protocol::ICMP | protocol::ICMPV6 => 4,
            _ => 2 * usize::from(self == End::Destination),
        }
    }
}

/// Gives one end of a packet another address, and another port unless that is 0. An ICMP error is translated with what it
/// quotes. Returns what is missing of a first fragment's checksum.
///
/// # Errors
/// `FrameTruncated`, `Ipv6Extensions` and `TransportHeader` for what is not whole or not right, `NoRoute` for an address of the other
/// family, `FragmentMalformed` for a first fragment that ends behind the last.
pub fn translate(
    frame: &mut impl Frame,
    layout: &Layout,
    (end, to): (End, (IpAddr, u16)),
    context: &Context<'_>,
) -> Result<Option<Unsummed>, DropReason> {
    let packet = frame.data_mut().get_mut(usize::from(layout.l3)..usize::from(layout.end));
    let packet = packet.ok_or(DropReason::FrameTruncated)?;
    let l4 = usize::from(layout.l4 - layout.l3);
    if layout.kind == Kind::IcmpError {
        return translate_error(packet, layout.v6, l4, end, to).map(|()| None);
    }
    let number = transport(packet)?;
    let is_numbered = !matches!(layout.kind, Kind::Fragment | Kind::Ipsec);
    // By the addresses that it came with.
    let datagram = match number {
        protocol::SCTP if is_numbered => fragments::extent(packet, layout.v6),
        _ => None,
    };
    let difference = readdress(packet, end, to.0)?;
    // There is no port in a later fragment, and none in AH and ESP.
    if !is_numbered {
        return Ok(None);
    }
    if l4 >= packet.len() {
        return Err(DropReason::TransportHeader);
    }
    if number == protocol::SCTP {
        return renumber_sctp(&mut packet[l4..], end, to.1, (datagram, context));
    }
    renumber(&mut packet[l4..], number, end, to.1, difference)?;
    if number == protocol::UDP && packet[l4..].get(6..8) == Some(&[0, 0]) {
        sum_up(packet, l4);
    }
    Ok(None)
}

/// Gives a UDP datagram the checksum that it lacks. A fragment, of which only a part is here, goes on without.
#[cold]
fn sum_up(packet: &mut [u8], l4: usize) {
    let (bytes, len) = (packet.get(l4..).unwrap_or_default(), packet.len().saturating_sub(l4));
    let pseudo = match (ipv4::Ipv4::new(packet), ipv6::Ipv6::new(packet)) {
        (Some(ip), _) if packet[0] >> 4 == 4 && !ip.is_fragment() => {
            checksum::pseudo_v4(ip.source(), ip.destination(), protocol::UDP, len as u16)
        }
        (_, Some(ip))
            if packet[0] >> 4 == 6 && ip.upper_layer().is_ok_and(|upper| upper.fragment.is_none()) =>
        {
            checksum::pseudo_v6(ip.source(), ip.destination(), protocol::UDP, len as u32)
        }
        _ => return,
    };
    let sum = match !checksum::fold(pseudo + checksum::sum(bytes)) {
        0 => u16::MAX,
        sum => sum,
    };
    packet[l4 + 6..l4 + 8].copy_from_slice(&sum.to_be_bytes());
}

/// What a change does to a one's complement sum: the sum of the complement of what was and of what is.
fn difference(old: &[u8], new: &[u8]) -> u32 {
    let old = u32::from(!checksum::fold(checksum::sum(old)));
    old + checksum::sum(new)
}

/// A checksum after a change of what it covers (RFC 1624 equation 3).
fn after(sum: u16, difference: u32) -> u16 {
    !checksum::fold(u32::from(!sum) + difference)
}

/// The transport protocol of an IP packet.
fn transport(packet: &[u8]) -> Result<u8, DropReason> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(9).copied().ok_or(DropReason::FrameTruncated),
        Some(6) => {
            let next = packet.first_chunk::<{ ipv6::HEADER_LEN }>().ok_or(DropReason::FrameTruncated)?[6];
            let upper = ipv6::walk(packet, next).map_err(|_| DropReason::Ipv6Extensions)?;
            Ok(upper.protocol)
        }
        _ => Err(DropReason::NoRoute),
    }
}

/// Writes the address of one end into an IP header and corrects the header's checksum. Returns the difference that transport
/// checksums see.
fn readdress(packet: &mut [u8], end: End, to: IpAddr) -> Result<u32, DropReason> {
    match (packet.first().map(|first| first >> 4), to) {
        (Some(4), IpAddr::V4(to)) => {
            let header =
                packet.first_chunk_mut::<{ ipv4::HEADER_LEN }>().ok_or(DropReason::FrameTruncated)?;
            let (at, new) = (end.ipv4(), to.octets());
            let change = difference(&header[at..at + 4], &new);
            header[at..at + 4].copy_from_slice(&new);
            let sum = after(u16::from_be_bytes([header[10], header[11]]), change);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            Ok(change)
        }
        (Some(6), IpAddr::V6(to)) => {
            let header =
                packet.first_chunk_mut::<{ ipv6::HEADER_LEN }>().ok_or(DropReason::FrameTruncated)?;
            let (at, new) = (end.ipv6(), to.octets());
            let change = difference(&header[at..at + 16], &new);
            header[at..at + 16].copy_from_slice(&new);
            Ok(change)
        }
        _ => Err(DropReason::NoRoute),
    }
}

/// Writes the port of one end into a transport header and corrects its checksum by that and by `change`.
fn renumber(segment: &mut [u8], number: u8, end: End, port: u16, change: u32) -> Result<(), DropReason> {
    let at = end.port(number);
    let old: [u8; 2] = *segment.get(at..).and_then(<[u8]>::first_chunk).ok_or(DropReason::TransportHeader)?;
    let new = if port == 0 { old } else { port.to_be_bytes() };
    let renumbered = difference(&old, &new);
    let change = change + renumbered;
    match number {
        // No pseudo-header.
        protocol::ICMP => correct(segment, 2, renumbered, false)?,
        protocol::ICMPV6 => correct(segment, 2, change, false)?,
        protocol::TCP => correct(segment, 16, change, false)?,
        protocol::UDP => correct(segment, 6, change, true)?,
        _ => {}
    }
    segment[at..at + 2].copy_from_slice(&new);
    Ok(())
}

/// The same for SCTP. Of a `datagram` in fragments this is the front: its checksum is right only once the last has come.
fn renumber_sctp(
    segment: &mut [u8],
    end: End,
    port: u16,
    (datagram, context): (Option<(Datagram, u16)>, &Context<'_>),
) -> Result<Option<Unsummed>, DropReason> {
    let (at, new) = (end.port(protocol::SCTP), port.to_be_bytes());
    if port == 0 || segment.get(at..at + 2) == Some(&new) {
        return Ok(None);
    }
    let change = sctp::replace(segment, (at, new)).ok_or(DropReason::TransportHeader)?;
    let Some((datagram, end)) = datagram else {
        change.correct(segment, 0);
        return Ok(None);
    };
    let unsummed = Unsummed { datagram, end, change };
    let is_finished = unsummed.finish(segment, &context.snapshot.fragments, context.now)?;
    Ok((!is_finished).then_some(unsummed))
}

/// Corrects the checksum at `at` of a transport header; `may_be_missing`: 0 says that there is none.
fn correct(segment: &mut [u8], at: usize, change: u32, may_be_missing: bool) -> Result<(), DropReason> {
    let field = segment.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>);
    let field = field.ok_or(DropReason::TransportHeader)?;
    let sum = u16::from_be_bytes(*field);
    if may_be_missing && sum == 0 {
        return Ok(());
    }
    let sum = match after(sum, change) {
        0 if may_be_missing => u16::MAX,
        sum => sum,
    };
    *field = sum.to_be_bytes();
    Ok(())
}

/// Translates an ICMP error, whose header is at `l4`, and what it quotes.
fn translate_error(
    packet: &mut [u8],
    v6: bool,
    l4: usize,
    end: End,
    to: (IpAddr, u16),
) -> Result<(), DropReason> {
    let pseudo = |packet: &[u8]| match ipv6::Ipv6::new(packet).filter(|_| v6) {
        Some(ip) => {
            let len = packet.len().saturating_sub(l4) as u32;
            checksum::pseudo_v6(ip.source(), ip.destination(), protocol::ICMPV6, len)
        }
        None => 0,
    };
    let before = pseudo(packet);
    let message = packet.get(l4..).ok_or(DropReason::TransportHeader)?;
    if message.len() < icmp::HEADER_LEN || !checksum::transport_ok(before, message) {
        return Err(DropReason::TransportHeader);
    }
    readdress(packet, end, to.0)?;
    let after = pseudo(packet);
    let message = &mut packet[l4..];
    let quoted = &mut message[icmp::HEADER_LEN..];
    let number = transport(quoted)?;
    readdress(quoted, end.other(), to.0)?;
    let header = quoted_header(quoted)?;
    if to.1 != 0 && !matches!(number, protocol::AH | protocol::ESP) {
        let at = header + end.other().port(number);
        let field = quoted.get_mut(at..at + 2).ok_or(DropReason::TransportHeader)?;
        field.copy_from_slice(&to.1.to_be_bytes());
    }
    message[2..4].fill(0);
    let sum = !checksum::fold(after + checksum::sum(message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Where the transport header of a quoted packet begins.
fn quoted_header(quoted: &[u8]) -> Result<usize, DropReason> {
    match ipv4::Ipv4::new(quoted) {
        Some(ip) if quoted[0] >> 4 == 4 => Ok(ip.header_len()),
        _ => {
            let ip = ipv6::Ipv6::new(quoted).ok_or(DropReason::TransportHeader)?;
            let upper = ipv6::walk(quoted, ip.next_header()).map_err(|_| DropReason::TransportHeader)?;
            Ok(upper.offset)
        }
    }
}
