//! Stage 1: from a frame to its layout and key, or to a reason to drop it.
//!
//! Only what the table needs is looked at here; what a rare packet means is found out by the stages that meet it. Nothing
//! depends on the bytes being sane: every length is checked before it is used (RFC 791, RFC 8200, IEEE 802.1Q).

use crate::{
    batch::{Batch, Kind, Layout},
    conn::key::{Key4, Key6},
    snapshot::PortFacts,
    steer,
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

/// Parses the frames of the batch and finds the worker that owns each. `worker` is this one, of `workers`.
#[inline]
pub fn batch(batch: &mut Batch, ports: &[PortFacts], worker: u16, workers: u16) {
    for i in 0..batch.frames.len() {
        let mac = ports
            .get(usize::from(batch.port[i]))
            .map_or([0; 6], |port| port.mac);
        let mut keys = Keys::default();
        batch.verdict[i] = match frame(batch.frames[i].data(), mac, &mut keys) {
            Err(reason) => Verdict::Drop(reason),
            Ok(layout) => {
                batch.layout[i] = layout;
                match layout.kind {
                    Kind::Foreign => Verdict::Punt,
                    Kind::Flow | Kind::IcmpError => {
                        let owner = owner(&layout, &keys, workers);
                        batch.key4[i] = keys.v4;
                        if layout.v6 {
                            batch.key6[i] = keys.v6;
                        }
                        if owner == worker {
                            Verdict::Open
                        } else {
                            Verdict::Handoff(owner)
                        }
                    }
                    _ => Verdict::Open,
                }
            }
        };
    }
}

#[inline]
fn owner(layout: &Layout, keys: &Keys, workers: u16) -> u16 {
    if workers == 1 {
        return 0;
    }
    let (address, port) = if layout.v6 {
        (steer::fold(&keys.v6.client_address()), keys.v6.ports().0)
    } else {
        (u32::from_be_bytes(keys.v4.client_address()), keys.v4.ports().0)
    };
    steer::owner(address, port, workers)
}

/// Parses one frame that a port with address `mac` received. The keys are set for flows and ICMP errors.
#[inline]
pub fn frame(frame: &[u8], mac: [u8; 6], keys: &mut Keys) -> Result<Layout, DropReason> {
    let (ethertype, l3) = vlan::skip(frame).ok_or(DropReason::FrameTruncated)?;
    let destination: [u8; 6] = *frame.first_chunk().ok_or(DropReason::FrameTruncated)?;
    let multicast = ethernet::is_multicast(destination);
    if destination != mac && !multicast {
        return Err(DropReason::NotOurMac);
    }
    let mut layout = Layout {
        l3: l3 as u16,
        l4: l3 as u16,
        multicast,
        ..Layout::default()
    };
    match ethertype {
        ethernet::IPV4 => ipv4_packet(&frame[l3..], &mut layout, keys)?,
        ethernet::IPV6 => ipv6_packet(&frame[l3..], &mut layout, keys)?,
        ethernet::ARP => layout.kind = Kind::Arp,
        _ => layout.kind = Kind::Foreign,
    }
    // What was sent to many stations is no business of a virtual service: ARP and neighbour discovery are all we hear.
    if multicast
        && !matches!(
            layout.kind,
            Kind::Arp | Kind::NeighborSolicitation | Kind::NeighborDiscovery
        )
    {
        layout.kind = Kind::Foreign;
    }
    Ok(layout)
}

#[inline]
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
    if packet.is_fragment() {
        layout.kind = Kind::Fragment;
        return Ok(());
    }
    let payload = packet.payload();
    layout.kind = match packet.protocol() {
        number @ (protocol::TCP | protocol::UDP | protocol::SCTP) => {
            let ports = transport(payload, number, layout)?;
            let addresses = bytes[12..20].first_chunk().ok_or(DropReason::Ipv4Header)?;
            keys.v4 = Key4::from_wire(*addresses, ports, number);
            Kind::Flow
        }
        protocol::ICMP => icmp4(payload, keys)?,
        _ => Kind::OtherIp,
    };
    Ok(())
}

#[inline]
fn ipv6_packet(bytes: &[u8], layout: &mut Layout, keys: &mut Keys) -> Result<(), DropReason> {
    let packet = ipv6::Ipv6::new(bytes).ok_or(DropReason::FrameTruncated)?;
    // A payload length of 65,495 and more does not fit the offsets of a layout, nor any frame that a port receives.
    let total = ipv6::HEADER_LEN + usize::from(packet.payload_len());
    if !packet.is_consistent() || total > usize::from(u16::MAX - layout.l3) {
        return Err(DropReason::Ipv6Header);
    }
    layout.v6 = true;
    layout.end = layout.l3 + total as u16;
    let upper = packet
        .upper_layer()
        .map_err(|ipv6::BrokenExtensions| DropReason::Ipv6Extensions)?;
    if upper.fragment.is_some() {
        layout.kind = Kind::Fragment;
        return Ok(());
    }
    layout.l4 = layout.l3 + upper.offset as u16;
    let payload = packet
        .packet()
        .get(upper.offset..)
        .ok_or(DropReason::Ipv6Extensions)?;
    layout.kind = match upper.protocol {
        number @ (protocol::TCP | protocol::UDP | protocol::SCTP) => {
            let ports = transport(payload, number, layout)?;
            keys.v6 = Key6::from_wire(
                packet.source().octets(),
                packet.destination().octets(),
                ports,
                number,
            );
            Kind::Flow
        }
        protocol::ICMPV6 => icmp6(payload, packet.hop_limit(), keys)?,
        _ => Kind::OtherIp,
    };
    Ok(())
}

/// The ports of a transport header that is whole.
#[inline]
fn transport(payload: &[u8], number: u8, layout: &mut Layout) -> Result<[u8; 4], DropReason> {
    let least = match number {
        protocol::TCP => {
            layout.tcp_flags = *payload.get(13).ok_or(DropReason::TransportHeader)?;
            20
        }
        protocol::UDP => 8,
        _ => 12,
    };
    if payload.len() < least {
        return Err(DropReason::TransportHeader);
    }
    payload.first_chunk().copied().ok_or(DropReason::TransportHeader)
}

/// An ICMP message is an error about a flow, an echo request, or another one. The flow that an error quotes runs from the
/// virtual service to the client, so that its destination is the client.
#[cold]
fn icmp4(payload: &[u8], keys: &mut Keys) -> Result<Kind, DropReason> {
    let message = icmp::Icmp::new(payload).ok_or(DropReason::TransportHeader)?;
    if message.kind() == icmp::ECHO_REQUEST {
        return Ok(Kind::Echo);
    }
    // The original relays these three; what else there is goes to the host.
    if !matches!(
        message.kind(),
        icmp::UNREACHABLE | icmp::SOURCE_QUENCH | icmp::TIME_EXCEEDED
    ) {
        return Ok(Kind::OtherIp);
    }
    let quoted = ipv4::Ipv4::new(message.payload()).ok_or(DropReason::TransportHeader)?;
    let header = quoted.header_len();
    if header < ipv4::HEADER_LEN || quoted.is_later_fragment() {
        return Err(DropReason::TransportHeader);
    }
    let number = quoted.protocol();
    if !matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP) {
        return Ok(Kind::OtherIp);
    }
    let ports = message
        .payload()
        .get(header..)
        .and_then(<[u8]>::first_chunk)
        .ok_or(DropReason::TransportHeader)?;
    let [s0, s1, s2, s3] = quoted.source().octets();
    let [d0, d1, d2, d3] = quoted.destination().octets();
    keys.v4 = Key4::from_wire([d0, d1, d2, d3, s0, s1, s2, s3], swapped(ports), number);
    Ok(Kind::IcmpError)
}

/// See [`icmp4`]; neighbour discovery besides (RFC 4861 section 7.1: only with a hop limit of 255).
#[cold]
fn icmp6(payload: &[u8], hop_limit: u8, keys: &mut Keys) -> Result<Kind, DropReason> {
    let message = icmpv6::Icmpv6::new(payload).ok_or(DropReason::TransportHeader)?;
    match message.kind() {
        icmpv6::ECHO_REQUEST => return Ok(Kind::Echo),
        icmpv6::NEIGHBOR_SOLICITATION | icmpv6::NEIGHBOR_ADVERTISEMENT
            if hop_limit != icmpv6::NEIGHBOR_HOP_LIMIT =>
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
    if !matches!(upper.protocol, protocol::TCP | protocol::UDP | protocol::SCTP) {
        return Ok(Kind::OtherIp);
    }
    let ports = message
        .payload()
        .get(upper.offset..)
        .and_then(<[u8]>::first_chunk);
    let ports = ports.ok_or(DropReason::TransportHeader)?;
    let (client, service) = (quoted.destination().octets(), quoted.source().octets());
    keys.v6 = Key6::from_wire(client, service, swapped(ports), upper.protocol);
    Ok(Kind::IcmpError)
}

fn swapped(&[a, b, c, d]: &[u8; 4]) -> [u8; 4] {
    [c, d, a, b]
}
