//! What the director itself answers, and the frames by which it asks and announces.
//!
//! An answer takes the place of the frame that it answers, behind the same VLAN tags, and goes back to the station that
//! sent the frame. Its form is that of the original on a host that has the virtual address:
//!
//! - ARP replies (RFC 826), neighbour advertisements (RFC 4861 section 7.2.4).
//! - Echo replies (RFC 792, RFC 4443): TTL 64, DF clear, the traffic class of the request.
//! - RST (RFC 9293 section 3.10.7.1): TTL 64, DF set, window 0, the class of the segment without its ECN bits.
//! - ICMP errors: TTL 64, from the virtual address. IPv4 (RFC 1812 section 4.3.2): precedence 6, DF clear, 576 bytes at
//!   most in all. IPv6 (RFC 4443): class 0, 1280 bytes at most.
//!
//! Nothing answers what RFC 1122 section 3.2.2 and RFC 4443 section 2.4 say must not be answered, nor what has a wrong
//! transport checksum (RST, echo, neighbour discovery).

use crate::{
    batch::{Kind, Layout},
    port::Frame,
    verdict::{Answer, DropReason},
    wire::{arp, checksum, ethernet, icmp, icmpv6, ipv4, ipv6, protocol, tcp},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who answers.
#[derive(Clone, Copy, Debug)]
pub struct Speaker {
    /// The address of the port that the frame came in by.
    pub mac: [u8; 6],
    /// The director's own address, from which it speaks of what it routes; `None`: it speaks as the virtual address that the
    /// packet was for.
    pub from: Option<IpAddr>,
}

impl Speaker {
    /// As a virtual address.
    pub fn virtual_address(mac: [u8; 6]) -> Self {
        Self { mac, from: None }
    }
}

/// How an answer was made: what to count, or why there is none.
pub type Replied = Result<Answer, DropReason>;

/// TTL and hop limit of answers.
const TTL: u8 = 64;
/// Largest ICMP error over IPv4, with its IP header (RFC 1812 section 4.3.2.3).
const ERROR_V4: usize = 576;
/// Largest ICMP error over IPv6: the least MTU of a link.
const ERROR_V6: usize = 1280;
/// IP precedence 6, "internetwork control", of ICMP errors (RFC 1812 section 4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;
/// The type of service proper, which an error takes from the packet that it is about.
const TOS_MASK: u8 = 0x1e;
/// The bits of TOS and traffic class that are not ECN's.
const NOT_ECN: u8 = 0xfc;
/// "Don't fragment", and no offset.
const DF: u16 = ipv4::DONT_FRAGMENT;

/// Turns an ARP request for a virtual address into the reply that port address `mac` has it.
///
/// # Errors
/// `SourceInvalid` if the asker claims the address itself, or its MAC address is none that one station can have.
pub fn arp_reply(frame: &mut impl Frame, layout: &Layout, mac: [u8; 6]) -> Replied {
    let l3 = usize::from(layout.l3);
    let request = frame.data().get(l3..).and_then(arp::Arp::new);
    let request = request.filter(arp::Arp::is_ethernet_ipv4).ok_or(DropReason::FrameTruncated)?;
    let (asker, target) = ((request.sender_mac(), request.sender_ip()), request.target_ip());
    if ethernet::is_multicast(asker.0) || asker.1 == target {
        return Err(DropReason::SourceInvalid);
    }
    let message = arp::message(arp::REPLY, (mac, target), asker);
    place(frame, l3, &message, mac)?;
    Ok(Answer::Arp)
}

/// Turns a neighbour solicitation for a virtual address into the advertisement that port address `mac` has it: solicited,
/// override, no router. One from the unspecified address (duplicate address detection) is answered to all nodes.
///
/// # Errors
/// `TransportHeader` if the solicitation is broken (RFC 4861 section 7.1.1), `SourceInvalid` if its source can be no
/// station.
pub fn neighbor_advertisement(frame: &mut impl Frame, layout: &Layout, mac: [u8; 6]) -> Replied {
    let packet = ip_packet(frame.data(), layout)?;
    let ip = ipv6::Ipv6::new(packet).ok_or(DropReason::FrameTruncated)?;
    let bytes = transport(packet, layout)?;
    let message = icmpv6::Icmpv6::new(bytes).ok_or(DropReason::TransportHeader)?;
    let target = message.target().ok_or(DropReason::TransportHeader)?;
    let detection = ip.source().is_unspecified();
    let broken = message.kind() != icmpv6::NEIGHBOR_SOLICITATION
        || message.code() != 0
        || ip.hop_limit() != icmpv6::NEIGHBOR_HOP_LIMIT
        || target.is_multicast()
        || (detection && message.link_layer(icmpv6::SOURCE_LINK_LAYER).is_some());
    if broken || !checksum_v6_ok(&ip, bytes) {
        return Err(DropReason::TransportHeader);
    }
    if ip.source().is_multicast() || ip.source() == target {
        return Err(DropReason::SourceInvalid);
    }
    let (destination, solicited) = if detection { (ALL_NODES, 0) } else { (ip.source(), icmpv6::SOLICITED) };
    let packet = neighbor_packet(
        icmpv6::NEIGHBOR_ADVERTISEMENT,
        solicited | icmpv6::OVERRIDE,
        (target, destination),
        target,
        mac,
    );
    place(frame, usize::from(layout.l3), &packet, mac)?;
    if detection {
        ethernet::set_addresses(frame.data_mut(), ethernet::ipv6_multicast(ALL_NODES), mac);
    }
    Ok(Answer::NeighborAdvertisement)
}

/// Turns an echo request (IPv4 or IPv6) into its reply. IP options and extension headers do not come back.
///
/// # Errors
/// `TransportHeader` for a wrong checksum, `SourceInvalid` if the source can be no station.
pub fn echo(frame: &mut impl Frame, layout: &Layout, mac: [u8; 6]) -> Replied {
    let (l3, l4, end) = offsets(layout);
    let packet = ip_packet(frame.data(), layout)?;
    let bytes = transport(packet, layout)?;
    let &[kind, code, high, low, ..] = bytes.first_chunk::<8>().ok_or(DropReason::TransportHeader)?;
    let (header_len, reply) = if layout.v6 {
        let ip = ipv6::Ipv6::new(packet).ok_or(DropReason::FrameTruncated)?;
        if kind != icmpv6::ECHO_REQUEST || !checksum_v6_ok(&ip, bytes) {
            return Err(DropReason::TransportHeader);
        }
        (ipv6::HEADER_LEN, icmpv6::ECHO_REPLY)
    } else {
        if kind != icmp::ECHO_REQUEST || checksum::of(bytes) != 0 {
            return Err(DropReason::TransportHeader);
        }
        (ipv4::HEADER_LEN, icmp::ECHO_REPLY)
    };
    let header = Header::answering(packet, layout)?;
    let sum = checksum::update16(
        u16::from_be_bytes([high, low]),
        u16::from_be_bytes([kind, code]),
        u16::from_be_bytes([reply, code]),
    );
    back_to_sender(frame.data_mut(), mac)?;
    let data = frame.data_mut();
    data.copy_within(l4..end, l3 + header_len);
    let [high, low] = sum.to_be_bytes();
    data[l3 + header_len..l3 + header_len + 4].copy_from_slice(&[reply, code, high, low]);
    let fields = Fields {
        class: header.class,
        fragment: 0,
        identification: header.identification,
        protocol: if layout.v6 { protocol::ICMPV6 } else { protocol::ICMP },
    };
    header.write(&mut data[l3..], end - l4, &fields);
    frame.truncate(l3 + header_len + (end - l4));
    Ok(Answer::EchoReply)
}

/// Turns a TCP segment (IPv4 or IPv6) into the RST that answers it.
///
/// # Errors
/// `ResetUnmatched` for a RST, `TransportHeader` for a broken segment or a wrong checksum, `SourceInvalid` and
/// `NotAnswerable` for addresses that no one station has.
pub fn tcp_reset(frame: &mut impl Frame, layout: &Layout, mac: [u8; 6]) -> Replied {
    let l3 = usize::from(layout.l3);
    let packet = ip_packet(frame.data(), layout)?;
    let bytes = transport(packet, layout)?;
    let segment = tcp::Tcp::new(bytes).filter(tcp::Tcp::is_consistent).ok_or(DropReason::TransportHeader)?;
    if segment.flags() & tcp::RST != 0 {
        return Err(DropReason::ResetUnmatched);
    }
    let header = Header::answering(packet, layout)?;
    // The pseudo-header's sum is the same with its addresses changed round.
    if !checksum::transport_ok(header.pseudo(protocol::TCP, bytes.len()), bytes) {
        return Err(DropReason::TransportHeader);
    }
    let mut reset = [0; tcp::HEADER_LEN];
    reset[0..2].copy_from_slice(&segment.destination_port().to_be_bytes());
    reset[2..4].copy_from_slice(&segment.source_port().to_be_bytes());
    reset[12] = 5 << 4;
    if segment.flags() & tcp::ACK != 0 {
        reset[4..8].copy_from_slice(&segment.ack().to_be_bytes());
        reset[13] = tcp::RST;
    } else {
        let opens = u32::from(segment.flags() & tcp::SYN != 0);
        let ends = u32::from(segment.flags() & tcp::FIN != 0);
        let length = segment.payload().len() as u32 + opens + ends;
        reset[8..12].copy_from_slice(&segment.seq().wrapping_add(length).to_be_bytes());
        reset[13] = tcp::RST | tcp::ACK;
    }
    let sum = header.pseudo(protocol::TCP, reset.len()) + checksum::sum(&reset);
    reset[16..18].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
    back_to_sender(frame.data_mut(), mac)?;
    let fields =
        Fields { class: header.class & NOT_ECN, fragment: DF, identification: 0, protocol: protocol::TCP };
    let at = l3 + header.len();
    resize(frame, at + reset.len())?;
    header.write(&mut frame.data_mut()[l3..], reset.len(), &fields);
    frame.data_mut()[at..].copy_from_slice(&reset);
    Ok(Answer::TcpReset)
}

/// Turns a packet into the "port unreachable" about it: IPv4 type 3 code 3, IPv6 type 1 code 4.
///
/// # Errors
/// `NotAnswerable`, `FragmentUnmatched` and `SourceInvalid` for what no ICMP error may answer.
pub fn port_unreachable(frame: &mut impl Frame, layout: &Layout, speaker: Speaker) -> Replied {
    let error = if layout.v6 {
        (icmpv6::UNREACHABLE, icmpv6::PORT_UNREACHABLE, 0)
    } else {
        (icmp::UNREACHABLE, icmp::PORT_UNREACHABLE, 0)
    };
    icmp_error(frame, layout, speaker, error)?;
    Ok(Answer::PortUnreachable)
}

/// Turns a packet into what a host says that does not know its protocol: IPv4 type 3 code 2 (RFC 1122 section 3.2.2.1), IPv6
/// type 4 code 1 with the place where the protocol is named (RFC 8200 section 4).
///
/// # Errors
/// See [`port_unreachable`].
pub fn protocol_unreachable(frame: &mut impl Frame, layout: &Layout, speaker: Speaker) -> Replied {
    let error = if layout.v6 {
        let ip = ipv6::Ipv6::new(ip_packet(frame.data(), layout)?).ok_or(DropReason::FrameTruncated)?;
        let upper = ip.upper_layer().map_err(|_| DropReason::Ipv6Extensions)?;
        (icmpv6::PARAMETER_PROBLEM, icmpv6::UNKNOWN_NEXT_HEADER, upper.named_at as u32)
    } else {
        (icmp::UNREACHABLE, icmp::PROTOCOL_UNREACHABLE, 0)
    };
    icmp_error(frame, layout, speaker, error)?;
    Ok(Answer::ProtocolUnreachable)
}

/// Turns a packet into the "time exceeded in transit" about it: IPv4 type 11, IPv6 type 3.
///
/// # Errors
/// See [`port_unreachable`].
pub fn time_exceeded(frame: &mut impl Frame, layout: &Layout, speaker: Speaker) -> Replied {
    let kind = if layout.v6 { icmpv6::TIME_EXCEEDED } else { icmp::TIME_EXCEEDED };
    icmp_error(frame, layout, speaker, (kind, 0, 0))?;
    Ok(Answer::TimeExceeded)
}

/// Turns a packet into the "fragmentation needed" (IPv4 type 3 code 4) or "packet too big" (IPv6 type 2) about it, with
/// the MTU that it must fit.
///
/// # Errors
/// See [`port_unreachable`].
pub fn packet_too_big(frame: &mut impl Frame, layout: &Layout, speaker: Speaker, mtu: u16) -> Replied {
    let error = if layout.v6 {
        (icmpv6::PACKET_TOO_BIG, 0, u32::from(mtu))
    } else {
        (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, u32::from(mtu))
    };
    icmp_error(frame, layout, speaker, error)?;
    Ok(Answer::PacketTooBig)
}

/// Turns a packet of a client, of which the end may be missing, into the ICMP error of this type, code and second word about
/// it: what another station said of it.
///
/// # Errors
/// See [`port_unreachable`].
pub fn relayed(
    frame: &mut impl Frame,
    layout: &Layout,
    mac: [u8; 6],
    error: (u8, u8, u32),
) -> Result<(), DropReason> {
    icmp_error(frame, layout, Speaker::virtual_address(mac), error)
}

/// An ARP request that announces `vip` at `mac` to all stations, in keepalived's form: the target MAC address is the
/// broadcast one.
pub fn gratuitous_arp(mac: [u8; 6], vip: Ipv4Addr) -> [u8; 42] {
    let message = arp::message(arp::REQUEST, (mac, vip), (ethernet::BROADCAST, vip));
    arp_frame(ethernet::BROADCAST, mac, &message)
}

/// An ARP request for the MAC address of `target`, to all stations or only to the one thought to have it.
pub fn arp_request(mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr, unicast: Option<[u8; 6]>) -> [u8; 42] {
    let message = arp::message(arp::REQUEST, (mac, sender), ([0; 6], target));
    arp_frame(unicast.unwrap_or(ethernet::BROADCAST), mac, &message)
}

/// A neighbour advertisement that announces `vip` at `mac` to all nodes: override, not solicited, no router.
pub fn unsolicited_na(mac: [u8; 6], vip: Ipv6Addr) -> [u8; 86] {
    let kind = icmpv6::NEIGHBOR_ADVERTISEMENT;
    let packet = neighbor_packet(kind, icmpv6::OVERRIDE, (vip, ALL_NODES), vip, mac);
    neighbor_frame(ethernet::ipv6_multicast(ALL_NODES), mac, &packet)
}

/// A neighbour solicitation from address `sender` for the MAC address of `target`, to the target's solicited-node group
/// or only to the station thought to have it.
pub fn neighbor_solicitation(
    mac: [u8; 6],
    sender: Ipv6Addr,
    target: Ipv6Addr,
    unicast: Option<[u8; 6]>,
) -> [u8; 86] {
    let group = ipv6::solicited_node(target);
    let (to, station) = match unicast {
        Some(station) => (target, station),
        None => (group, ethernet::ipv6_multicast(group)),
    };
    let packet = neighbor_packet(icmpv6::NEIGHBOR_SOLICITATION, 0, (sender, to), target, mac);
    neighbor_frame(station, mac, &packet)
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The ICMP error of this type, code and second word about the packet, in its place.
fn icmp_error(
    frame: &mut impl Frame,
    layout: &Layout,
    speaker: Speaker,
    (kind, code, rest): (u8, u8, u32),
) -> Result<(), DropReason> {
    let (l3, _, end) = offsets(layout);
    let packet = ip_packet(frame.data(), layout)?;
    may_be_answered(packet, layout)?;
    let mut header = Header::answering(packet, layout)?;
    header.speak_as(speaker.from);
    back_to_sender(frame.data_mut(), speaker.mac)?;
    let (most, protocol, class) = if layout.v6 {
        (ERROR_V6, protocol::ICMPV6, 0)
    } else {
        let class = header.class & TOS_MASK | INTERNETWORK_CONTROL;
        (ERROR_V4, protocol::ICMP, class)
    };
    let at = l3 + header.len();
    let quoted = (end - l3).min(most - header.len() - icmp::HEADER_LEN);
    let len = icmp::HEADER_LEN + quoted;
    // Enough for the quoted bytes where they are and for the error: the packet may be shorter than the headers before it.
    resize(frame, at + len)?;
    let data = frame.data_mut();
    data.copy_within(l3..l3 + quoted, at + icmp::HEADER_LEN);
    let [a, b, c, d] = rest.to_be_bytes();
    data[at..at + icmp::HEADER_LEN].copy_from_slice(&[kind, code, 0, 0, a, b, c, d]);
    let pseudo = if layout.v6 { header.pseudo(protocol, len) } else { 0 };
    let sum = !checksum::fold(pseudo + checksum::sum(&data[at..]));
    data[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
    let fields = Fields { class, fragment: 0, identification: header.identification, protocol };
    header.write(&mut data[l3..], len, &fields);
    Ok(())
}

/// Whether an ICMP error may be about the packet (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
fn may_be_answered(packet: &[u8], layout: &Layout) -> Result<(), DropReason> {
    let kind = transport(packet, layout)?.first().copied();
    let about_error = if layout.v6 {
        let ip = ipv6::Ipv6::new(packet).ok_or(DropReason::FrameTruncated)?;
        let upper = ip.upper_layer().map_err(|_| DropReason::Ipv6Extensions)?;
        if upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Err(DropReason::FragmentUnmatched);
        }
        upper.protocol == protocol::ICMPV6 && kind.is_none_or(icmpv6::is_error)
    } else {
        let ip = ipv4::Ipv4::new(packet).ok_or(DropReason::FrameTruncated)?;
        if ip.is_later_fragment() {
            return Err(DropReason::FragmentUnmatched);
        }
        ip.protocol() == protocol::ICMP && kind.is_none_or(icmp::is_error)
    };
    if about_error || layout.kind == Kind::IcmpError {
        return Err(DropReason::NotAnswerable);
    }
    Ok(())
}

/// The header of an answer: the addresses of the packet that it answers, changed round, and what else it takes from it.
enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

struct Header {
    /// Source and destination of the answer.
    addresses: Addresses,
    /// TOS or traffic class of the packet.
    class: u8,
    /// Of the packet; in IPv4.
    identification: u16,
}

/// What [`Header::write`] does not know itself; `fragment` and `identification` are of IPv4.
struct Fields {
    class: u8,
    fragment: u16,
    identification: u16,
    protocol: u8,
}

impl Header {
    /// For an answer to `packet`, unless one of its addresses can be no one station's.
    fn answering(packet: &[u8], layout: &Layout) -> Result<Self, DropReason> {
        let (addresses, class, identification, bad_source, to_many);
        if layout.v6 {
            let ip = ipv6::Ipv6::new(packet).ok_or(DropReason::FrameTruncated)?;
            let (from, to) = (ip.source(), ip.destination());
            (class, identification) = (ip.traffic_class(), 0);
            bad_source = from.is_multicast() || from.is_unspecified() || from.is_loopback() || from == to;
            to_many = to.is_multicast();
            addresses = Addresses::V6(to, from);
        } else {
            let ip = ipv4::Ipv4::new(packet).ok_or(DropReason::FrameTruncated)?;
            let (from, to) = (ip.source(), ip.destination());
            (class, identification) = (ip.tos(), ip.identification());
            bad_source = from.is_multicast()
                || from.is_broadcast()
                || from.is_loopback()
                || from.octets()[0] == 0
                || from == to;
            to_many = to.is_multicast() || to.is_broadcast();
            addresses = Addresses::V4(to, from);
        }
        if bad_source {
            return Err(DropReason::SourceInvalid);
        }
        if to_many || layout.multicast {
            return Err(DropReason::NotAnswerable);
        }
        Ok(Self { addresses, class, identification })
    }

    /// Makes another address of the same family the source.
    fn speak_as(&mut self, from: Option<IpAddr>) {
        match (&mut self.addresses, from) {
            (Addresses::V4(source, _), Some(IpAddr::V4(from))) => *source = from,
            (Addresses::V6(source, _), Some(IpAddr::V6(from))) => *source = from,
            _ => {}
        }
    }

    fn len(&self) -> usize {
        match self.addresses {
            Addresses::V4(..) => ipv4::HEADER_LEN,
            Addresses::V6(..) => ipv6::HEADER_LEN,
        }
    }

    /// The sum of the pseudo-header for a transport packet of `len` bytes.
    fn pseudo(&self, protocol: u8, len: usize) -> u32 {
        match self.addresses {
            Addresses::V4(source, destination) => {
                checksum::pseudo_v4(source, destination, protocol, len as u16)
            }
            Addresses::V6(source, destination) => {
                checksum::pseudo_v6(source, destination, protocol, len as u32)
            }
        }
    }

    /// Writes it at the front of `bytes`, which are long enough, for `payload` bytes behind it.
    fn write(&self, bytes: &mut [u8], payload: usize, fields: &Fields) {
        let written = match self.addresses {
            Addresses::V4(source, destination) => ipv4::write(
                bytes,
                &ipv4::Fields {
                    tos: fields.class,
                    total_len: (ipv4::HEADER_LEN + payload) as u16,
                    identification: fields.identification,
                    fragment: fields.fragment,
                    ttl: TTL,
                    protocol: fields.protocol,
                    source,
                    destination,
                },
            ),
            Addresses::V6(source, destination) => ipv6::write(
                bytes,
                &ipv6::Fields {
                    traffic_class: fields.class,
                    payload_len: payload as u16,
                    next_header: fields.protocol,
                    hop_limit: TTL,
                    source,
                    destination,
                },
            ),
        };
        debug_assert!(written, "the answer was given room for its header");
    }
}

fn offsets(layout: &Layout) -> (usize, usize, usize) {
    (usize::from(layout.l3), usize::from(layout.l4), usize::from(layout.end))
}

/// The IP packet without padding.
fn ip_packet<'a>(data: &'a [u8], layout: &Layout) -> Result<&'a [u8], DropReason> {
    let (l3, _, end) = offsets(layout);
    data.get(l3..end).ok_or(DropReason::FrameTruncated)
}

/// What follows the IP header and its options or extensions.
fn transport<'a>(packet: &'a [u8], layout: &Layout) -> Result<&'a [u8], DropReason> {
    let header_len = usize::from(layout.l4).checked_sub(usize::from(layout.l3));
    header_len.and_then(|len| packet.get(len..)).ok_or(DropReason::TransportHeader)
}

fn checksum_v6_ok(ip: &ipv6::Ipv6<'_>, message: &[u8]) -> bool {
    let len = message.len() as u32;
    let pseudo = checksum::pseudo_v6(ip.source(), ip.destination(), protocol::ICMPV6, len);
    checksum::transport_ok(pseudo, message)
}

/// Makes the station that sent the frame its receiver, and `mac` its sender.
fn back_to_sender(data: &mut [u8], mac: [u8; 6]) -> Result<(), DropReason> {
    let station = ethernet::Ethernet::new(data).ok_or(DropReason::FrameTruncated)?.source();
    if ethernet::is_multicast(station) {
        return Err(DropReason::SourceInvalid);
    }
    if station == mac {
        return Err(DropReason::LoopDetected);
    }
    ethernet::set_addresses(data, station, mac);
    Ok(())
}

/// Puts `packet` at `l3`, the last of the frame, and sends it back.
fn place(frame: &mut impl Frame, l3: usize, packet: &[u8], mac: [u8; 6]) -> Result<(), DropReason> {
    back_to_sender(frame.data_mut(), mac)?;
    resize(frame, l3 + packet.len())?;
    frame.data_mut()[l3..].copy_from_slice(packet);
    Ok(())
}

/// Makes the frame `len` bytes long.
fn resize(frame: &mut impl Frame, len: usize) -> Result<(), DropReason> {
    if frame.set_len(len) { Ok(()) } else { Err(DropReason::BufferPoolEmpty) }
}

fn arp_frame(to: [u8; 6], from: [u8; 6], message: &[u8; arp::LEN]) -> [u8; 42] {
    let mut frame = [0; ethernet::HEADER_LEN + arp::LEN];
    ethernet::set_addresses(&mut frame, to, from);
    frame[12..14].copy_from_slice(&ethernet::ARP.to_be_bytes());
    frame[14..].copy_from_slice(message);
    frame
}

/// Bytes of a neighbour message with one link-layer option, and its IPv6 header.
const NEIGHBOR_PACKET: usize = ipv6::HEADER_LEN + icmpv6::NEIGHBOR_LEN + 8;

fn neighbor_packet(
    kind: u8,
    flags: u8,
    (source, destination): (Ipv6Addr, Ipv6Addr),
    target: Ipv6Addr,
    mac: [u8; 6],
) -> [u8; NEIGHBOR_PACKET] {
    let option = if kind == icmpv6::NEIGHBOR_SOLICITATION {
        icmpv6::SOURCE_LINK_LAYER
    } else {
        icmpv6::TARGET_LINK_LAYER
    };
    let mut message = icmpv6::neighbor_message(kind, flags, target, option, mac);
    let pseudo = checksum::pseudo_v6(source, destination, protocol::ICMPV6, message.len() as u32);
    let sum = !checksum::fold(pseudo + checksum::sum(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = [0; NEIGHBOR_PACKET];
    let fields = ipv6::Fields {
        traffic_class: 0,
        payload_len: message.len() as u16,
        next_header: protocol::ICMPV6,
        hop_limit: icmpv6::NEIGHBOR_HOP_LIMIT,
        source,
        destination,
    };
    ipv6::write(&mut packet, &fields);
    packet[ipv6::HEADER_LEN..].copy_from_slice(&message);
    packet
}

fn neighbor_frame(to: [u8; 6], from: [u8; 6], packet: &[u8; NEIGHBOR_PACKET]) -> [u8; 86] {
    let mut frame = [0; ethernet::HEADER_LEN + NEIGHBOR_PACKET];
    ethernet::set_addresses(&mut frame, to, from);
    frame[12..14].copy_from_slice(&ethernet::IPV6.to_be_bytes());
    frame[14..].copy_from_slice(packet);
    frame
}

#[cfg(test)]
mod tests;
