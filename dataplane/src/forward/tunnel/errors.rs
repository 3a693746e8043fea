//! ICMP errors about packets of our tunnels. A router on the way, or the server, speaks to the director about the outer
//! packet; what it says is the client's to know, whose packet is inside.
//!
//! As the original does: the MTU of the path is learned, and the client of a known connection gets an error of the same type
//! and code about its own packet, "fragmentation needed" with what the tunnel leaves of the MTU. Where the packet inside is
//! of the other family, type and code are those of RFC 7915 sections 4.2 and 5.2. What is not passed on: source quench
//! (RFC 6633), parameter problems, which point into the outer header, and an error that quotes too little of the packet
//! inside (RFC 792 asks for 8 bytes only).
//!
//! No stranger makes the director speak: the error must have come to the address that the tunnel begins at, about a packet
//! to the server and in the wrapping of a connection that this worker knows, with a right checksum; and the budget of ICMP
//! errors is asked.

use super::{GRE_CHECKSUM, GRE_LEN, GUE_LEN};
use crate::{
    batch::{Batch, Kind, Layout},
    conn::key::{Key4, Key6},
    director::Context,
    egress,
    parse::Keys,
    port::Frame,
    reply,
    snapshot::{Destination, Encapsulation, Snapshot, Tunnel},
    time::Nanos,
    verdict::{Answer, DropReason, Verdict},
    wire::{checksum, ethernet, icmp, icmpv6, ipv4, ipv6, protocol, udp},
};
use std::net::IpAddr;

/// Reads the key of the flow whose packet a tunnel's packet carries, of which an error quotes the protocol `number` of the
/// outer header and `payload`, what follows it. `None` if that is no packet of a tunnel, or less of it than is needed.
#[cold]
pub fn quoted_flow(number: u8, payload: &[u8], keys: &mut Keys) -> Option<()> {
    let at = inside(number, payload)?;
    let inner = payload.get(at..)?;
    let is_flow = |number| matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP);
    if inner.first()? >> 4 == 6 {
        let ip = ipv6::Ipv6::new(inner)?;
        let upper = ipv6::walk(inner, ip.next_header()).ok()?;
        let ports = inner.get(upper.offset..)?.first_chunk().filter(|_| upper.fragment.is_none())?;
        let (client, service) = (ip.source().octets(), ip.destination().octets());
        keys.v6 =
            is_flow(upper.protocol).then(|| Key6::from_wire(client, service, *ports, upper.protocol))?;
    } else {
        let ip = ipv4::Ipv4::new(inner).filter(|ip| ip.header_len() >= ipv4::HEADER_LEN)?;
        let ports = inner.get(ip.header_len()..)?.first_chunk().filter(|_| !ip.is_later_fragment())?;
        let addresses = inner.get(12..)?.first_chunk()?;
        keys.v4 = is_flow(ip.protocol()).then(|| Key4::from_wire(*addresses, *ports, ip.protocol()))?;
    }
    Some(())
}

/// Where the packet begins that is inside `payload` of a packet of this protocol, if it is one of a tunnel.
fn inside(number: u8, payload: &[u8]) -> Option<usize> {
    let (at, version) = match number {
        protocol::IPIP => (0, 4),
        protocol::IPV6 => (0, 6),
        protocol::GRE => {
            let [a, b, c, d] = *payload.first_chunk()?;
            let at = match u16::from_be_bytes([a, b]) {
                0 => GRE_LEN,
                GRE_CHECKSUM => GRE_LEN + 4,
                _ => return None,
            };
            match u16::from_be_bytes([c, d]) {
                ethernet::IPV4 => (at, 4),
                ethernet::IPV6 => (at, 6),
                _ => return None,
            }
        }
        protocol::UDP => match payload.get(udp::HEADER_LEN..)?.first_chunk()? {
            [0, protocol::IPIP, 0, 0] => (udp::HEADER_LEN + GUE_LEN, 4),
            [0, protocol::IPV6, 0, 0] => (udp::HEADER_LEN + GUE_LEN, 6),
            _ => return None,
        },
        _ => return None,
    };
    (payload.get(at)? >> 4 == version).then_some(at)
}

/// An error about a packet that was sent from the address that the error came to.
struct About {
    /// Of the error and so of the outer packet.
    v6: bool,
    kind: u8,
    code: u8,
    /// The second word.
    rest: u32,
    /// The outer addresses.
    from: IpAddr,
    to: IpAddr,
    /// The protocol of the outer packet.
    number: u8,
    /// Where what follows the quoted outer header begins, from the start of the frame.
    at: usize,
}

impl About {
    /// Reads it; `None` for any other packet, one with a wrong checksum, and an error that nobody is to hear of.
    fn read(frame: &[u8], layout: &Layout) -> Option<Self> {
        if !matches!(layout.kind, Kind::TunnelError | Kind::IcmpError | Kind::OtherIp) {
            return None;
        }
        let (l3, l4, end) = (usize::from(layout.l3), usize::from(layout.l4), usize::from(layout.end));
        let (packet, bytes) = (frame.get(l3..end)?, frame.get(l4..end)?);
        let message = icmp::Icmp::new(bytes)?;
        let (kind, code, rest) = (message.kind(), message.code(), message.rest());
        let quoted = message.payload();
        let at = l4 + icmp::HEADER_LEN;
        let (ours, pseudo, about) = if layout.v6 {
            let (ip, outer) = (ipv6::Ipv6::new(packet)?, ipv6::Ipv6::new(quoted)?);
            let (from, to) = (outer.source(), outer.destination());
            let len = bytes.len() as u32;
            let pseudo = checksum::pseudo_v6(ip.source(), ip.destination(), protocol::ICMPV6, len);
            let heard = matches!(kind, icmpv6::UNREACHABLE | icmpv6::PACKET_TOO_BIG | icmpv6::TIME_EXCEEDED);
            let upper = ip.upper_layer().ok()?;
            let ours = heard && upper.protocol == protocol::ICMPV6 && ip.destination() == from;
            let (number, at) = (outer.next_header(), at + ipv6::HEADER_LEN);
            let (from, to) = (from.into(), to.into());
            (ours, pseudo, Self { v6: true, kind, code, rest, from, to, number, at })
        } else {
            let (ip, outer) = (ipv4::Ipv4::new(packet)?, ipv4::Ipv4::new(quoted)?);
            let (from, to) = (outer.source(), outer.destination());
            let heard = matches!(kind, icmp::UNREACHABLE | icmp::TIME_EXCEEDED);
            let ours = heard && ip.protocol() == protocol::ICMP && ip.destination() == from;
            let (number, at) = (outer.protocol(), at + outer.header_len());
            let (from, to) = (from.into(), to.into());
            (ours, 0, Self { v6: false, kind, code, rest, from, to, number, at })
        };
        let wraps = [protocol::IPIP, protocol::IPV6, protocol::UDP, protocol::GRE];
        (ours && wraps.contains(&about.number) && checksum::transport_ok(pseudo, bytes)).then_some(about)
    }

    /// The MTU that the outer packet did not fit, if it is about that: RFC 1191, RFC 8201. One below what the original
    /// accepts, 552 bytes or 1280 with IPv6, counts as that.
    fn mtu(&self) -> Option<u16> {
        const LEAST_V4: u16 = 552;
        const LEAST_V6: u32 = 1280;
        match (self.v6, self.kind, self.code) {
            (false, icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED) => Some((self.rest as u16).max(LEAST_V4)),
            (true, icmpv6::PACKET_TOO_BIG, _) => Some(self.rest.clamp(LEAST_V6, u32::from(u16::MAX)) as u16),
            _ => None,
        }
    }

    /// Learns from it. Whether it is about the director's own way to a server behind a tunnel, not another station's.
    fn learn(&self, snapshot: &Snapshot, now: Nanos) -> bool {
        let path = snapshot.paths.get(&self.to).filter(|_| snapshot.host_addresses.contains(&self.from));
        let Some(path) = path else { return false };
        if let Some(mtu) = self.mtu().filter(|mtu| *mtu < path.get(now)) {
            path.learn(mtu, now);
        }
        true
    }

    /// Whether it is about a packet of this tunnel to the server at `to`; `packet` is the rest of the error's frame, from
    /// what follows the quoted outer header.
    fn is_of(&self, tunnel: &Tunnel, to: IpAddr, packet: &[u8]) -> bool {
        let wrapped = match (tunnel.encapsulation, self.number) {
            (Encapsulation::Ipip, protocol::IPIP | protocol::IPV6)
            | (Encapsulation::Gre { .. }, protocol::GRE) => true,
            (Encapsulation::Gue { port, .. }, protocol::UDP) => {
                udp::Udp::new(packet).is_some_and(|udp| udp.destination_port() == port)
            }
            _ => false,
        };
        wrapped && (self.from, self.to) == (tunnel.source, to)
    }

    /// Type and code of the error about the packet inside, of IPv6 or of IPv4.
    fn about_inner(&self, v6: bool) -> (u8, u8) {
        match (self.v6, v6, self.kind, self.code) {
            (false, true, icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED) => (icmpv6::PACKET_TOO_BIG, 0),
            (false, true, icmp::UNREACHABLE, icmp::PORT_UNREACHABLE) => {
                (icmpv6::UNREACHABLE, icmpv6::PORT_UNREACHABLE)
            }
            // Administratively prohibited; no route.
            (false, true, icmp::UNREACHABLE, 9 | 10 | 13) => (icmpv6::UNREACHABLE, 1),
            (false, true, icmp::UNREACHABLE, _) => (icmpv6::UNREACHABLE, 0),
            (false, true, _, code) => (icmpv6::TIME_EXCEEDED, code),
            (true, false, icmpv6::PACKET_TOO_BIG, _) => (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED),
            (true, false, icmpv6::UNREACHABLE, icmpv6::PORT_UNREACHABLE) => {
                (icmp::UNREACHABLE, icmp::PORT_UNREACHABLE)
            }
            // Host administratively prohibited; host unreachable.
            (true, false, icmpv6::UNREACHABLE, 1) => (icmp::UNREACHABLE, 10),
            (true, false, icmpv6::UNREACHABLE, _) => (icmp::UNREACHABLE, 1),
            (true, false, _, code) => (icmp::TIME_EXCEEDED, code),
            (_, _, kind, code) => (kind, code),
        }
    }
}

/// What becomes of a packet that is no flow's and not for a virtual address: an error about a tunnel of ours that tells too
/// little of the packet inside ends here, as does a packet of ours that has come back; else it is the host's.
#[cold]
pub fn others(frame: &[u8], layout: &Layout, context: &Context<'_>) -> Verdict {
    let snapshot = context.snapshot;
    if snapshot.paths.is_empty() {
        Verdict::Punt
    } else if About::read(frame, layout).is_some_and(|about| about.learn(snapshot, context.now)) {
        Verdict::Drop(DropReason::IcmpUnmatched)
    } else if has_come_back(frame, layout, snapshot) {
        Verdict::Drop(DropReason::LoopDetected)
    } else {
        Verdict::Punt
    }
}

/// Whether the packet goes from the director to a server behind a tunnel: it is one that we sent.
fn has_come_back(frame: &[u8], layout: &Layout, snapshot: &Snapshot) -> bool {
    let packet = frame.get(usize::from(layout.l3)..).unwrap_or_default();
    let addresses = if !matches!(layout.kind, Kind::Flow | Kind::Fragment | Kind::OtherIp) {
        None
    } else if layout.v6 {
        ipv6::Ipv6::new(packet).map(|ip| (ip.source().into(), ip.destination().into()))
    } else {
        ipv4::Ipv4::new(packet).map(|ip| (ip.source().into(), ip.destination().into()))
    };
    addresses.is_some_and(|(source, destination): (IpAddr, IpAddr)| {
        snapshot.paths.contains_key(&destination) && snapshot.host_addresses.contains(&source)
    })
}

/// Decides an error about a packet in a tunnel: frame `i`, whose inner flow is that of a connection to `destination`, if
/// this worker knows one.
#[cold]
pub fn relay<F: Frame>(
    batch: &mut Batch<F>,
    i: usize,
    destination: Option<&Destination>,
    context: &mut Context<'_>,
) {
    let layout = batch.packets[i].layout;
    let about = About::read(batch.frames[i].data(), &layout);
    let Some(about) = about.filter(|about| about.learn(context.snapshot, context.now)) else {
        batch.packets[i].verdict = Verdict::Punt;
        return;
    };
    let quoted = batch.frames[i].data().get(about.at..usize::from(layout.end)).unwrap_or_default();
    let found = destination.and_then(|found| Some((found, found.tunnel.as_deref()?)));
    let Some((destination, tunnel)) =
        found.filter(|(found, tunnel)| about.is_of(tunnel, found.address, quoted))
    else {
        return batch.packets[i].drop(DropReason::IcmpUnmatched);
    };
    match answer(&about, quoted, (destination, tunnel), context) {
        Err(reason) => batch.packets[i].drop(reason),
        Ok(answer) => {
            context.icmp_error(batch, i, |batch, mac| {
                let inner = unwrap(&mut batch.frames[i], &layout, answer.at)?;
                reply::relayed(&mut batch.frames[i], &inner, mac, answer.error)?;
                Ok(Answer::TunnelError)
            });
            send_to(batch, i, answer.client, context);
        }
    }
}

/// The error that the client gets.
struct ToClient {
    client: IpAddr,
    /// Type, code and second word.
    error: (u8, u8, u32),
    /// Where its packet begins in the frame.
    at: usize,
}

fn answer(
    about: &About,
    quoted: &[u8],
    (destination, tunnel): (&Destination, &Tunnel),
    context: &Context<'_>,
) -> Result<ToClient, DropReason> {
    let at = inside(about.number, quoted).ok_or(DropReason::IcmpUnmatched)?;
    let inner = quoted.get(at..).unwrap_or_default();
    let v6 = inner.first().is_some_and(|byte| byte >> 4 == 6);
    let (client, dont_fragment) = if v6 {
        (ipv6::Ipv6::new(inner).map(|ip| ip.source().into()), true)
    } else {
        let ip = ipv4::Ipv4::new(inner);
        (ip.map(|ip| ip.source().into()), ip.is_some_and(|ip| ip.dont_fragment()))
    };
    let client = client.ok_or(DropReason::IcmpUnmatched)?;
    let (kind, code) = about.about_inner(v6);
    let mut rest = 0;
    if about.mtu().is_some() {
        // Who lets routers fragment does not ask how much fits.
        if !dont_fragment {
            return Err(DropReason::NotAnswerable);
        }
        let link =
            context.snapshot.next_hops.get(destination.next_hop as usize).map_or(u16::MAX, |hop| hop.mtu);
        rest = u32::from(tunnel.mtu(link, v6, context.now).ok_or(DropReason::TunnelMtu)?);
    }
    Ok(ToClient { client, error: (kind, code, rest), at: about.at + at })
}

/// Makes the frame one of the packet at `at`, behind its Ethernet header and VLAN tags, as far as the packet was quoted.
fn unwrap(frame: &mut impl Frame, layout: &Layout, at: usize) -> Result<Layout, DropReason> {
    let l3 = usize::from(layout.l3);
    frame.truncate(usize::from(layout.end));
    let cut = at.checked_sub(l3).ok_or(DropReason::FrameTruncated)?;
    let data = frame.data_mut();
    let version = data.get(at).ok_or(DropReason::FrameTruncated)? >> 4;
    data.copy_within(..l3, cut);
    if !frame.trim_front(cut) {
        return Err(DropReason::FrameTruncated);
    }
    let v6 = version == 6;
    let data = frame.data_mut();
    let ethertype = if v6 { ethernet::IPV6 } else { ethernet::IPV4 };
    data.get_mut(l3 - 2..l3).ok_or(DropReason::FrameTruncated)?.copy_from_slice(&ethertype.to_be_bytes());
    let packet = &data[l3..];
    let (header, len) = if v6 {
        let ip = ipv6::Ipv6::new(packet).ok_or(DropReason::FrameTruncated)?;
        let upper = ip.upper_layer().map_err(|_| DropReason::Ipv6Extensions)?;
        (upper.offset, ip.packet().len())
    } else {
        let ip = ipv4::Ipv4::new(packet).ok_or(DropReason::FrameTruncated)?;
        (ip.header_len(), ip.packet().len())
    };
    // A frame is shorter than 64 KB.
    Ok(Layout {
        l4: (l3 + header) as u16,
        end: (l3 + len) as u16,
        v6,
        kind: Kind::Flow,
        multicast: false,
        event: 0,
        ..*layout
    })
}

/// Sends an answer the way to the client, which need not be that by which the error came.
fn send_to<F: Frame>(batch: &mut Batch<F>, i: usize, client: IpAddr, context: &Context<'_>) {
    let (snapshot, packet) = (context.snapshot, &mut batch.packets[i]);
    if !matches!(packet.verdict, Verdict::Answer(_)) {
        return;
    }
    let number = match snapshot.hop_towards(client, context.now) {
        Ok(number) => number,
        Err(reason) => return packet.drop(reason),
    };
    if let Some(hop) = snapshot.hop(number) {
        match egress::address(&mut batch.frames[i], number, &hop) {
            Verdict::Forward(port) => packet.port = port as u8,
            unresolved => packet.verdict = unresolved,
        }
    }
}
