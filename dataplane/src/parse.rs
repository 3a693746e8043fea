//! Stage 1: from a frame to its layout and key, or to a reason to drop it.
//!
//! Only what the table needs is looked at here; what a rare packet means is found out by the stages that meet it. Nothing
//! depends on the bytes being sane: every length is checked before it is used (RFC 791, RFC 8200, IEEE 802.1Q).

use crate::{
    batch::{Batch, Kind, Layout, Lookup, Packet},
    conn::{
        key::{Key, Key4, Key6},
        lookup::Picked,
        sctp, state,
        table::{Role, Table, alike},
        tcp,
    },
    forward::tunnel,
    fragments,
    index::Asked,
    mark,
    port::Frame,
    snapshot::Snapshot,
    steer,
    time::Nanos,
    verdict::{DropReason, Verdict},
    wire::{checksum, ethernet, icmp, icmpv6, ipv4, ipv6, protocol, vlan},
};

/// What the key of a packet is in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keys {
    /// Of an IPv4 flow.
    pub v4: Key4,
    /// Of an IPv6 flow.
    pub v6: Key6,
}

/// Which of the stages that follow have something to do.
#[derive(Debug, Default)]
pub struct Found {
    /// There are packets to be looked up in the table of IPv4 connections.
    pub v4: bool,
    /// There are packets to be looked up in the table of IPv6 connections.
    pub v6: bool,
    /// Packets that are no flow's and that the director decides.
    pub others: Picked,
}

/// Parses the frames of the batch, finds the worker that owns each, and starts the lookup of flows in `tables`. `worker` is
/// this one, of `workers`.
#[inline]
pub fn batch<F: Frame>(
    batch: &mut Batch<F>,
    (snapshot, now): (&Snapshot, Nanos),
    (worker, workers): (u16, u16),
    tables: (&Table<Key4>, &Table<Key6>),
) -> Found {
    let ports = &snapshot.ports[..];
    let mut rest = Picked::new();
    let mut from = 0;
    for run in &mut batch.runs {
        let mac = ports.get(usize::from(run.port)).map_or([0; 6], |port| port.mac);
        let looks = (head(mac, protocol::TCP), head(mac, protocol::UDP));
        let (port, mut bytes) = (run.port, 0);
        let frames = batch.frames[from..run.end].iter().zip(&mut batch.packets[from..run.end]);
        for (i, (frame, packet)) in frames.enumerate() {
            (packet.port, packet.destination) = (port, Packet::NOWHERE);
            bytes += frame.len() as u64;
            if usual((frame.data(), frame.has_good_header()), (&looks.0, &looks.1), packet) {
                packet.hash = tables.0.start(&packet.key4);
            } else {
                // It holds a batch.
                rest.push((from + i) as u8);
            }
        }
        (run.bytes, from) = (bytes, run.end);
    }
    let mut found = Found { v4: rest.len() < batch.frames.len(), ..Found::default() };
    for i in rest {
        other(batch, i, (snapshot, now), tables, &mut found);
    }
    if workers > 1 {
        hand_over(batch, snapshot, worker, workers);
    }
    found
}

/// What the first 32 bytes of a usual frame are where [`HEAD`] has bits: to `mac`, IPv4, version 4, no options, no fragment,
/// of this protocol.
fn head(mac: [u8; 6], number: u8) -> [u8; 32] {
    let [a, b, c, d, e, f] = mac;
    let mut head = [0; 32];
    head[..15].copy_from_slice(&[a, b, c, d, e, f, 0, 0, 0, 0, 0, 0, 0x08, 0x00, 0x45]);
    head[23] = number;
    head
}

/// See [`head`]: MAC address, EtherType and version; fragment and protocol.
#[rustfmt::skip]
static HEAD: [u8; 32] = [
    255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 255, 255, 255, 0,
    0, 0, 0, 0, 0x3f, 255, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Parses what nearly every frame is: no VLAN tag, IPv4 without options, whole, TCP or UDP, for the port's own address: its
/// [`head`] is that of `tcp` or `udp`. `good`: its header's checksum is known to be right. False, and to be parsed by [`frame`], if it is anything else or wrong in any way.
#[inline(always)]
fn usual((bytes, good): (&[u8], bool), (tcp, udp): (&[u8; 32], &[u8; 32]), packet: &mut Packet) -> bool {
    const L3: u16 = 14;
    const L4: u16 = 34;
    let Some(h) = bytes.first_chunk::<54>() else { return false };
    let Some(first) = h.first_chunk::<32>() else { return false };
    // Whole words at once: made of single bytes, the compiler takes them to pieces.
    let word = |at: usize| u32::from_le(bytemuck::pod_read_unaligned(&h[at..at + 4]));
    let double = |at: usize| u64::from_le(bytemuck::pod_read_unaligned(&h[at..at + 8]));
    let total = u16::from_be(bytemuck::pod_read_unaligned(&h[16..18]));
    let number = if alike(first, tcp, &HEAD) && total >= 40 {
        (packet.layout.event, packet.keeps) = (h[47], tcp::kept(h[47]));
        protocol::TCP
    } else if alike(first, udp, &HEAD) && total >= 28 {
        (packet.layout.event, packet.keeps) = (0, state::FLOWING_KEEPS);
        protocol::UDP
    } else {
        return false;
    };
    packet.key4 = Key4::from_words(double(26), word(34), number);
    let end = usize::from(L3) + usize::from(total);
    if end > bytes.len() {
        return false;
    }
    if !good {
        // The header's sum, with the carries brought in, is a multiple of 0xffff; it is not 0, as its first byte is not.
        let (sum, carry) = double(14).overflowing_add(double(22));
        let (sum, carry) = sum.overflowing_add(u64::from(word(30)) + u64::from(carry));
        if !sum.wrapping_add(u64::from(carry)).is_multiple_of(0xffff) {
            return false;
        }
    }
    (packet.layout.l3, packet.layout.l4, packet.layout.end) = (L3, L4, end as u16);
    (packet.layout.kind, packet.layout.v6, packet.layout.multicast) = (Kind::Flow, false, false);
    (packet.role, packet.lookup) = (Role::Direct, Lookup::V4);
    packet.verdict = Verdict::Open;
    true
}

/// The long way, for frame `i`.
#[cold]
fn other<F: Frame>(
    batch: &mut Batch<F>,
    i: u8,
    (snapshot, now): (&Snapshot, Nanos),
    tables: (&Table<Key4>, &Table<Key6>),
    found: &mut Found,
) {
    // What was handed over another worker has noted.
    let at = usize::from(i);
    let is_received = batch.runs.iter().find(|run| at < run.end).is_some_and(|run| run.received);
    let is_new = is_received || at < batch.released;
    let (frame, packet) = (&batch.frames[at], &mut batch.packets[at]);
    let key6 = &mut batch.key6[usize::from(i)];
    let mac = snapshot.ports.get(usize::from(packet.port)).map_or([0; 6], |port| port.mac);
    unusual(frame.data(), (mac, !snapshot.routing.source_nat.is_empty()), packet, key6);
    if packet.layout.kind == Kind::Fragment
        && packet.verdict == Verdict::Open
        && let Some(keys) = fragments::admit(frame.data(), packet, snapshot, (now, is_new))
    {
        is_looked_up(packet, key6, &keys);
    }
    let packet = &mut batch.packets[usize::from(i)];
    match packet.lookup {
        Lookup::V4 => {
            found.v4 = true;
            packet.hash = tables.0.start(&packet.key4);
        }
        Lookup::V6 => {
            found.v6 = true;
            packet.hash = tables.1.start(key6);
        }
        // `others` holds a batch.
        Lookup::None if packet.verdict == Verdict::Open => found.others.push(i),
        Lookup::None => {}
    }
}

/// Decides the flows of other workers.
fn hand_over<F: Frame>(batch: &mut Batch<F>, snapshot: &Snapshot, worker: u16, workers: u16) {
    for (i, packet) in batch.packets[..batch.frames.len()].iter_mut().enumerate() {
        let owner = match packet.lookup {
            Lookup::None => continue,
            Lookup::V4 => owner(&packet.key4, packet.port, snapshot, workers),
            Lookup::V6 => owner(&batch.key6[i], packet.port, snapshot, workers),
        };
        if owner != worker {
            (packet.verdict, packet.lookup) = (Verdict::Handoff(owner), Lookup::None);
        }
    }
}

/// Parses any other frame, received by a port with address `mac`. Echoes are of connections only if the director `translates`
/// sources.
#[cold]
fn unusual(bytes: &[u8], (mac, translates): ([u8; 6], bool), packet: &mut Packet, key6: &mut Key6) {
    let mut keys = Keys::default();
    (packet.role, packet.lookup) = (Role::Direct, Lookup::None);
    packet.keeps = 0;
    let layout = match frame(bytes, mac, &mut keys) {
        Err(reason) => return packet.drop(reason),
        Ok(layout) => layout,
    };
    packet.layout = layout;
    packet.verdict = if layout.kind == Kind::Foreign { Verdict::Punt } else { Verdict::Open };
    let is_translated = layout.kind.is_echo() && translates;
    if matches!(layout.kind, Kind::Flow | Kind::Ipsec | Kind::IcmpError | Kind::TunnelError) || is_translated
    {
        is_looked_up(packet, key6, &keys);
    }
}

/// Gives a packet its key and what else the lookup asks for.
fn is_looked_up(packet: &mut Packet, key6: &mut Key6, keys: &Keys) {
    let layout = packet.layout;
    // Inside a tunnel may be a packet of the other family.
    let v6 = if layout.kind == Kind::TunnelError { keys.v6 != Key6::default() } else { layout.v6 };
    let number = if v6 {
        (packet.lookup, *key6) = (Lookup::V6, keys.v6);
        keys.v6.protocol()
    } else {
        (packet.lookup, packet.key4) = (Lookup::V4, keys.v4);
        keys.v4.protocol()
    };
    packet.keeps = match layout.kind {
        Kind::Flow if number == protocol::TCP => tcp::kept(layout.event),
        Kind::Flow if number == protocol::SCTP => sctp::keeps(sctp::Event::from_u8(layout.event)),
        Kind::Flow | Kind::Ipsec | Kind::Echo | Kind::EchoReply => state::FLOWING_KEEPS,
        _ => 0,
    };
}

/// The worker that owns the flow of a key: that of the far end, which is the source of what is to the director and the
/// destination of everything else, a NATed server's answers for instance.
fn owner<K: Asked>(key: &K, port: u8, snapshot: &Snapshot, workers: u16) -> u16 {
    let to_us = key.is_ours(&snapshot.virtual_addresses)
        || key.is_ours(&snapshot.host_addresses)
        || mark_of(key, port, snapshot) != 0;
    let (address, port) = if to_us { key.far_end() } else { key.turned().far_end() };
    steer::owner(address, port, workers)
}

/// The mark of a packet with that key which came in by a port; 0: none.
#[inline]
pub(crate) fn mark_of<K: Key>(key: &K, port: u8, snapshot: &Snapshot) -> u32 {
    if snapshot.marks.is_empty() {
        return 0;
    }
    let (source, destination) = (key.client(), key.virtual_service());
    snapshot.marks.of(&mark::Packet {
        protocol: key.protocol(),
        source: source.ip(),
        destination: destination.ip(),
        port: destination.port(),
        interface: u16::from(port),
    })
}

/// Parses one frame that a port with address `mac` received. The keys are set for flows and ICMP errors.
///
/// # Errors
/// The reason to drop it.
pub fn frame(frame: &[u8], mac: [u8; 6], keys: &mut Keys) -> Result<Layout, DropReason> {
    let (ethertype, l3) = vlan::skip(frame).ok_or(DropReason::FrameTruncated)?;
    let destination: [u8; 6] = *frame.first_chunk().ok_or(DropReason::FrameTruncated)?;
    let multicast = ethernet::is_multicast(destination);
    if destination != mac && !multicast {
        return Err(DropReason::NotOurMac);
    }
    let mut layout = Layout { l3: l3 as u16, l4: l3 as u16, multicast, ..Layout::default() };
    let packet = frame.get(l3..).ok_or(DropReason::FrameTruncated)?;
    match ethertype {
        ethernet::IPV4 => ipv4_packet(packet, &mut layout, keys)?,
        ethernet::IPV6 => ipv6_packet(packet, &mut layout, keys)?,
        ethernet::ARP => layout.kind = Kind::Arp,
        _ => layout.kind = Kind::Foreign,
    }
    // What was sent to many stations is no business of a virtual service: ARP and neighbour discovery are all we hear.
    if layout.multicast
        && !matches!(layout.kind, Kind::Arp | Kind::NeighborSolicitation | Kind::NeighborDiscovery)
    {
        layout.kind = Kind::Foreign;
    }
    Ok(layout)
}

fn ipv4_packet(bytes: &[u8], layout: &mut Layout, keys: &mut Keys) -> Result<(), DropReason> {
    let packet = ipv4::Ipv4::new(bytes).ok_or(DropReason::FrameTruncated)?;
    if !packet.is_consistent() {
        return Err(DropReason::Ipv4Header);
    }
    if !checksum::ipv4_header_ok(packet.header()) {
        return Err(DropReason::Ipv4Checksum);
    }
    layout.l4 = layout.l3 + packet.header_len() as u16;
    layout.end = layout.l3 + packet.total_len();
    let payload = packet.payload();
    if matches!(packet.protocol(), protocol::AH | protocol::ESP) {
        let addresses = bytes[12..20].first_chunk().ok_or(DropReason::Ipv4Header)?;
        keys.v4 = Key4::from_wire(*addresses, ISAKMP, protocol::UDP);
        layout.kind = ipsec(payload)?;
        return Ok(());
    }
    if packet.is_fragment() {
        layout.kind = Kind::Fragment;
        return Ok(());
    }
    layout.kind = match packet.protocol() {
        number @ (protocol::TCP | protocol::UDP | protocol::SCTP) => {
            let ports = transport(payload, number, layout)?;
            let addresses = bytes[12..20].first_chunk().ok_or(DropReason::Ipv4Header)?;
            keys.v4 = Key4::from_wire(*addresses, ports, number);
            Kind::Flow
        }
        protocol::ICMP => {
            let addresses = *bytes[12..20].first_chunk().ok_or(DropReason::Ipv4Header)?;
            icmp4(payload, addresses, keys)?
        }
        _ => Kind::OtherIp,
    };
    Ok(())
}

fn ipv6_packet(bytes: &[u8], layout: &mut Layout, keys: &mut Keys) -> Result<(), DropReason> {
    let packet = ipv6::Ipv6::new(bytes).ok_or(DropReason::FrameTruncated)?;
    // A payload length of 65,495 and more does not fit the offsets of a layout, nor any frame that a port receives.
    let total = ipv6::HEADER_LEN + usize::from(packet.payload_len());
    if !packet.is_consistent() || total > usize::from(u16::MAX - layout.l3) {
        return Err(DropReason::Ipv6Header);
    }
    layout.v6 = true;
    layout.end = layout.l3 + total as u16;
    let upper = packet.upper_layer().map_err(|ipv6::BrokenExtensions| DropReason::Ipv6Extensions)?;
    let is_part = upper.fragment.is_some_and(|fragment| !fragment.is_atomic());
    if is_part && upper.protocol != protocol::ESP {
        layout.kind = Kind::Fragment;
        return Ok(());
    }
    layout.l4 = layout.l3 + upper.offset as u16;
    let payload = packet.packet().get(upper.offset..).ok_or(DropReason::Ipv6Extensions)?;
    layout.kind = match upper.protocol {
        // AH is one of the headers that were passed by: what it protects is in sight.
        protocol::ESP => {
            let (source, destination) = (packet.source().octets(), packet.destination().octets());
            keys.v6 = Key6::from_wire(source, destination, ISAKMP, protocol::UDP);
            ipsec(payload)?
        }
        number @ (protocol::TCP | protocol::UDP | protocol::SCTP) => {
            let ports = transport(payload, number, layout)?;
            keys.v6 = Key6::from_wire(packet.source().octets(), packet.destination().octets(), ports, number);
            Kind::Flow
        }
        protocol::ICMPV6 => icmp6(payload, &packet, keys)?,
        _ => Kind::OtherIp,
    };
    Ok(())
}

/// The ports of the flow by which stations negotiate what AH and ESP need (RFC 2408 section 2.5.1): 500 and 500.
const ISAKMP: [u8; 4] = [1, 244, 1, 244];

/// AH or ESP, of which nothing is looked at.
fn ipsec(payload: &[u8]) -> Result<Kind, DropReason> {
    if payload.is_empty() { Err(DropReason::TransportHeader) } else { Ok(Kind::Ipsec) }
}

/// The ports of a transport header that is whole.
pub(crate) fn transport(payload: &[u8], number: u8, layout: &mut Layout) -> Result<[u8; 4], DropReason> {
    let least = match number {
        protocol::TCP => {
            layout.event = *payload.get(13).ok_or(DropReason::TransportHeader)?;
            20
        }
        protocol::UDP => 8,
        _ => {
            layout.event = sctp::event_of(payload) as u8;
            12
        }
    };
    if payload.len() < least {
        return Err(DropReason::TransportHeader);
    }
    payload.first_chunk().copied().ok_or(DropReason::TransportHeader)
}

/// An ICMP message is an error about a flow, an echo request, or another one. The flow that an error quotes runs from the
/// virtual service to the client, so that its destination is the client.
fn icmp4(payload: &[u8], addresses: [u8; 8], keys: &mut Keys) -> Result<Kind, DropReason> {
    let message = icmp::Icmp::new(payload).ok_or(DropReason::TransportHeader)?;
    if let Some((kind, ports)) = echo(&message, icmp::ECHO_REQUEST, icmp::ECHO_REPLY) {
        keys.v4 = Key4::from_wire(addresses, ports, protocol::ICMP);
        return Ok(kind);
    }
    // The original relays these three; what else there is goes to the host.
    if !matches!(message.kind(), icmp::UNREACHABLE | icmp::SOURCE_QUENCH | icmp::TIME_EXCEEDED) {
        return Ok(Kind::OtherIp);
    }
    let quoted = ipv4::Ipv4::new(message.payload()).ok_or(DropReason::TransportHeader)?;
    let header = quoted.header_len();
    if header < ipv4::HEADER_LEN || quoted.is_later_fragment() {
        return Err(DropReason::TransportHeader);
    }
    let number = quoted.protocol();
    let behind = message.payload().get(header..).unwrap_or_default();
    if message.kind() != icmp::SOURCE_QUENCH && tunnel::quoted_flow(number, behind, keys).is_some() {
        return Ok(Kind::TunnelError);
    }
    let echoes = (protocol::ICMP, icmp::ECHO_REQUEST, icmp::ECHO_REPLY);
    let Some((number, ports)) = quoted_flow(number, behind, echoes)? else { return Ok(Kind::OtherIp) };
    let [s0, s1, s2, s3] = quoted.source().octets();
    let [d0, d1, d2, d3] = quoted.destination().octets();
    keys.v4 = Key4::from_wire([d0, d1, d2, d3, s0, s1, s2, s3], swapped(&ports), number);
    Ok(Kind::IcmpError)
}

/// See [`icmp4`]; neighbour discovery besides (RFC 4861 section 7.1: only with a hop limit of 255).
fn icmp6(payload: &[u8], packet: &ipv6::Ipv6<'_>, keys: &mut Keys) -> Result<Kind, DropReason> {
    let message = icmpv6::Icmpv6::new(payload).ok_or(DropReason::TransportHeader)?;
    if let Some((kind, ports)) = echo(&message, icmpv6::ECHO_REQUEST, icmpv6::ECHO_REPLY) {
        let (from, to) = (packet.source().octets(), packet.destination().octets());
        keys.v6 = Key6::from_wire(from, to, ports, protocol::ICMPV6);
        return Ok(kind);
    }
    match message.kind() {
        icmpv6::NEIGHBOR_SOLICITATION | icmpv6::NEIGHBOR_ADVERTISEMENT
            if packet.hop_limit() != icmpv6::NEIGHBOR_HOP_LIMIT =>
        {
            return Err(DropReason::TransportHeader);
        }
        icmpv6::NEIGHBOR_SOLICITATION => return Ok(Kind::NeighborSolicitation),
        icmpv6::NEIGHBOR_ADVERTISEMENT => return Ok(Kind::NeighborDiscovery),
        kind if icmpv6::is_error(kind) => {}
        _ => return Ok(Kind::OtherIp),
    }
    let quoted = ipv6::Ipv6::new(message.payload()).ok_or(DropReason::TransportHeader)?;
    let upper =
        ipv6::walk(message.payload(), quoted.next_header()).map_err(|_| DropReason::TransportHeader)?;
    if upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return Err(DropReason::TransportHeader);
    }
    let behind = message.payload().get(upper.offset..).unwrap_or_default();
    if message.kind() != icmpv6::PARAMETER_PROBLEM
        && tunnel::quoted_flow(upper.protocol, behind, keys).is_some()
    {
        return Ok(Kind::TunnelError);
    }
    let echoes = (protocol::ICMPV6, icmpv6::ECHO_REQUEST, icmpv6::ECHO_REPLY);
    let found = quoted_flow(upper.protocol, behind, echoes)?;
    let Some((number, ports)) = found else { return Ok(Kind::OtherIp) };
    let (client, service) = (quoted.destination().octets(), quoted.source().octets());
    keys.v6 = Key6::from_wire(client, service, swapped(&ports), number);
    Ok(Kind::IcmpError)
}

/// Protocol and ports of the flow that a quoted packet is of, if of one; `behind` is what follows its IP header. `echoes`:
/// the protocol and the types of the echo of its family.
fn quoted_flow(number: u8, behind: &[u8], echoes: (u8, u8, u8)) -> Result<Option<(u8, [u8; 4])>, DropReason> {
    Ok(match number {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            Some((number, *behind.first_chunk().ok_or(DropReason::TransportHeader)?))
        }
        protocol::AH | protocol::ESP => Some((protocol::UDP, ISAKMP)),
        number if number == echoes.0 => icmp::Icmp::new(behind)
            .and_then(|quoted| echo(&quoted, echoes.1, echoes.2))
            .map(|(_, ports)| (number, ports)),
        _ => None,
    })
}

/// Whether a message is an echo request or reply, and its identifier as the port of who asks.
fn echo(message: &icmp::Icmp<'_>, request: u8, reply: u8) -> Option<(Kind, [u8; 4])> {
    let [a, b, ..] = message.rest().to_be_bytes();
    match message.kind() {
        kind if kind == request => Some((Kind::Echo, [a, b, 0, 0])),
        kind if kind == reply => Some((Kind::EchoReply, [0, 0, a, b])),
        _ => None,
    }
}

fn swapped(&[a, b, c, d]: &[u8; 4]) -> [u8; 4] {
    [c, d, a, b]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// A SYN of 10.0.0.2:1024 to 10.0.0.100:80; the header's checksum is 0x666b by hand (0x4500 + 0x28 + 0x4006 + 0x0a00 +
    /// 0x0002 + 0x0a00 + 0x0064 = 0x9994, and its complement).
    const SYN: [u8; 60] = {
        let mut frame = [0; 60];
        let head = *b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0\x45\0\0\x28\0\0\0\0\x40\x06\x66\x6b\x0a\0\0\x02\x0a\0\0\x64\x04\0\0\x50";
        let mut at = 0;
        while at < head.len() {
            frame[at] = head[at];
            at += 1;
        }
        frame[46] = 0x50;
        frame[47] = 0x02;
        frame
    };

    /// The batch's way, as one frame takes it.
    fn in_batch(bytes: &[u8]) -> (Packet, Key6) {
        let (mut packet, mut key6) = (Packet::NEW, Key6::default());
        if !usual((bytes, false), (&head(MAC, 6), &head(MAC, 17)), &mut packet) {
            unusual(bytes, (MAC, false), &mut packet, &mut key6);
        }
        (packet, key6)
    }

    #[test]
    fn a_syn_is_a_flow_of_its_addresses_and_ports() {
        let (packet, _) = in_batch(&SYN);
        assert_eq!((packet.verdict, packet.lookup), (Verdict::Open, Lookup::V4));
        assert_eq!((packet.layout.l3, packet.layout.l4, packet.layout.end), (14, 34, 54));
        assert_eq!((packet.layout.event, packet.layout.kind), (2, Kind::Flow));
        assert_eq!(packet.key4, Key4::from_wire([10, 0, 0, 2, 10, 0, 0, 100], [4, 0, 0, 80], 6));
    }

    #[test]
    fn what_a_device_found_right_is_not_added_up_again() {
        let mut damaged = SYN;
        damaged[24] ^= 1;
        assert_eq!(in_batch(&damaged).0.verdict, Verdict::Drop(DropReason::Ipv4Checksum));
        let (heads, mut packet) = ((head(MAC, 6), head(MAC, 17)), Packet::NEW);
        assert!(!usual((&damaged, false), (&heads.0, &heads.1), &mut packet));
        assert!(usual((&damaged, true), (&heads.0, &heads.1), &mut packet));
        assert_eq!((packet.verdict, packet.layout.kind), (Verdict::Open, Kind::Flow));
        // That says nothing of the lengths.
        assert!(!usual((&damaged[..53], true), (&heads.0, &heads.1), &mut packet));
    }

    #[test]
    fn a_frame_cut_off_anywhere_is_no_flow() {
        for len in 0..54 {
            let (packet, _) = in_batch(&SYN[..len]);
            let expected = match len {
                0..34 => DropReason::FrameTruncated,
                _ => DropReason::Ipv4Header,
            };
            assert_eq!(packet.verdict, Verdict::Drop(expected), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn the_short_way_says_what_the_long_way_says(
            at in prop::collection::vec((0usize..60, any::<u8>()), 0..4), len in 0usize..=60, udp: bool, fix: bool
        ) {
            let mut bytes = SYN;
            bytes[23] = if udp { 17 } else { 6 };
            for (at, value) in at {
                bytes[at] = value;
            }
            if fix {
                bytes[24..26].fill(0);
                let sum = checksum::of(&bytes[14..34]);
                bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            let (short, _) = in_batch(&bytes[..len]);
            let (mut long, mut key6) = (Packet::NEW, Key6::default());
            unusual(&bytes[..len], (MAC, false), &mut long, &mut key6);
            prop_assert_eq!(short.verdict, long.verdict);
            prop_assert_eq!(short.lookup, long.lookup);
            if long.lookup == Lookup::V4 {
                prop_assert_eq!((short.key4, short.keeps), (long.key4, long.keeps));
                prop_assert_eq!(format!("{:?}", short.layout), format!("{:?}", long.layout));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), ethertype in 0usize..4) {
            let mut bytes = bytes;
            if bytes.len() > 15 {
                bytes[..6].copy_from_slice(&MAC);
                let (kind, first) = [([8, 0], 0x45), ([0x86, 0xdd], 0x60), ([0x81, 0], 0), ([8, 6], 0)][ethertype];
                bytes[12..14].copy_from_slice(&kind);
                bytes[14] = first;
            }
            let (packet, _) = in_batch(&bytes);
            if packet.lookup != Lookup::None {
                prop_assert!(usize::from(packet.layout.end) <= bytes.len());
                prop_assert!(packet.layout.l3 < packet.layout.l4 && packet.layout.l4 < packet.layout.end);
            }
        }
    }
}
