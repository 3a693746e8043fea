//! Stage 4: what a packet needs to reach its destination. Of direct routing that is another TTL and other MAC addresses, and
//! so it stands here; what other methods do besides has a file of its own.
//!
//! As the original does: a TTL (hop limit) of 1 or 0 is answered with time exceeded, a packet that is larger than the MTU
//! of the way out and must not be fragmented with "fragmentation needed" or "packet too big"; one that may is cut. The
//! connection and the counters have been served before either.

pub mod fragment;
pub mod nat;
pub mod route;
pub mod tunnel;

use crate::{
    batch::{Batch, Packet},
    conn::{
        key::{Key, Key6},
        lookup::Picked,
        table::Role,
    },
    director::Context,
    egress,
    fragments::unfinished::Unsummed,
    port::Frame,
    reply::{self, Speaker},
    snapshot::{Destination, NextHop, Snapshot},
    stats::DestinationCounters,
    verdict::{DropReason, Verdict},
    wire::{checksum, ethernet, ipv4},
};
use nat::End;
use std::net::IpAddr;

/// "Don't fragment" in byte 6 of an IPv4 header.
const DONT_FRAGMENT: u8 = (ipv4::DONT_FRAGMENT >> 8) as u8;

/// What every packet's numbers point into. Said once for a batch: what packets are written to may be anywhere, so that the
/// compiler would look for these anew behind each.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    /// By slot, as many as there are counters for.
    destinations: &'a [Destination],
    /// By slot.
    counters: &'a [DestinationCounters],
    hops: &'a [NextHop],
}

impl<'a> Tables<'a> {
    #[inline(always)]
    fn of(context: &Context<'a>) -> Self {
        let (destinations, counters) =
            (&context.snapshot.destinations[..], &context.shared.stats.destinations[..]);
        // Then one comparison is enough for both.
        let slots = destinations.len().min(counters.len());
        Self {
            destinations: &destinations[..slots],
            counters: &counters[..slots],
            hops: &context.snapshot.next_hops,
        }
    }
}

/// The bits that the numbers of the ports have that packets leave by: any of them, and all. The same if they leave by one.
type Ports = (u16, u16);

/// Rewrites the packets of the batch that have a destination, and decides them.
#[inline]
pub fn batch<F: Frame>(batch: &mut Batch<F>, context: &mut Context<'_>) {
    let mut ports = (0, u16::MAX);
    // A loop for each method. What begins a batch is mostly of one method and usual to its end.
    let first = role(batch, 0);
    let rewritten = match first {
        Some(Role::Direct) => direct(batch, 0, context, &mut ports),
        Some(Role::Nat | Role::Server) => nat::run(batch, context, &mut ports),
        Some(Role::Tunnel) => tunnel::run(batch, context, &mut ports),
        _ => 0,
    };
    let is_whole = rewritten == batch.frames.len() || mixed(batch, (first, rewritten), context, &mut ports);
    // Whether all leave by one port: then the numbers of all ports have the same bits as any.
    batch.way = (ports.0 == ports.1 && is_whole).then_some(ports.0);
}

/// Rewrites the packets from number `from` on, the first of which is not usual by the method `begun`. Whether all that are
/// left leave by the ports that are noted.
#[inline(never)]
fn mixed<F: Frame>(
    batch: &mut Batch<F>,
    (begun, from): (Option<Role>, usize),
    context: &mut Context<'_>,
    ports: &mut Ports,
) -> bool {
    let (mut nat, mut tunnels, mut rest) = (Picked::new(), Picked::new(), Picked::new());
    let mut left = 0;
    let mut is_unusual = begun == Some(Role::Direct);
    let mut i = from;
    while i < batch.frames.len() {
        // Each is of one of them, and they hold a batch.
        match role(batch, i) {
            Some(Role::Nat | Role::Server) => nat.push(i as u8),
            Some(Role::Tunnel) => tunnels.push(i as u8),
            None => left += 1,
            Some(Role::Direct) if !is_unusual => {
                i = direct(batch, i, context, ports);
                is_unusual = true;
                continue;
            }
            _ => rest.push(i as u8),
        }
        is_unusual = false;
        i += 1;
    }
    if !nat.is_empty() {
        *ports = nat::batch(batch, (&nat, &mut rest), *ports, context);
    }
    if !tunnels.is_empty() {
        *ports = tunnel::batch(batch, (&tunnels, &mut rest), *ports, context);
    }
    if !rest.is_empty() {
        others(batch, &rest, context);
    }
    left == 0 && rest.is_empty()
}

/// How a packet reaches its destination or is one's answer, if it has one.
#[inline(always)]
fn role<F: Frame>(batch: &Batch<F>, i: usize) -> Option<Role> {
    let packet = batch.packets.get(i)?;
    (packet.destination != Packet::NOWHERE).then_some(packet.role)
}

/// Rewrites the usual packets of direct routing from number `from` on, up to the first that is anything else, whose number it
/// returns. A loop of its own, which has the processor's registers for itself.
#[inline(never)]
fn direct<F: Frame>(batch: &mut Batch<F>, from: usize, context: &Context<'_>, ports: &mut Ports) -> usize {
    let tables = Tables::of(context);
    run(batch, from, ports, |frame, packet| usual(frame, packet, &tables))
}

/// Has the usual packets rewritten from number `from` on, up to the first that is anything else, whose number it returns.
#[inline(always)]
fn run<F: Frame>(
    batch: &mut Batch<F>,
    from: usize,
    ports: &mut Ports,
    mut usual: impl FnMut(&mut F, &mut Packet) -> Option<u16>,
) -> usize {
    let (mut any, mut all) = *ports;
    let frames = batch.frames.len();
    let mut pairs = batch.frames.iter_mut().zip(&mut batch.packets);
    if from > 0 {
        pairs.nth(from - 1);
    }
    let mut end = frames;
    while let Some((frame, packet)) = pairs.next() {
        let Some(port) = usual(frame, packet) else {
            end = frames - pairs.len() - 1;
            break;
        };
        (any, all) = (any | port, all & port);
    }
    *ports = (any, all);
    end
}

/// Has the usual ones of the picked packets rewritten, and adds the others to `rest`.
#[inline(always)]
fn each_usual<F: Frame>(
    batch: &mut Batch<F>,
    (picked, rest): (&Picked, &mut Picked),
    (mut any, mut all): Ports,
    mut usual: impl FnMut(&mut F, &mut Packet) -> Option<u16>,
) -> Ports {
    let (frames, packets) = (&mut batch.frames[..], &mut batch.packets);
    for &i in picked {
        let (Some(frame), Some(packet)) = (frames.get_mut(usize::from(i)), packets.get_mut(usize::from(i)))
        else {
            continue;
        };
        match usual(frame, packet) {
            Some(port) => (any, all) = (any | port, all & port),
            // Each packet is picked once, and it holds a batch.
            None => rest.push(i),
        }
    }
    (any, all)
}

/// Rewrites the picked packets, whatever they are.
#[inline(never)]
fn others<F: Frame>(batch: &mut Batch<F>, picked: &Picked, context: &mut Context<'_>) {
    let (mut expired, mut large) = (Picked::new(), Picked::new());
    for &i in picked {
        let i = usize::from(i);
        let (frame, packet) = (&mut batch.frames[i], &mut batch.packets[i]);
        match rewrite(frame, packet, &batch.key6[i], context) {
            Ok((verdict, unsummed)) => batch.goes(i, verdict, unsummed),
            Err(Unusual::Drop(reason)) => packet.drop(reason),
            // It holds a batch.
            Err(Unusual::TimeExceeded) => expired.push(i as u8),
            Err(Unusual::TooBig) => large.push(i as u8),
        }
    }
    for i in expired {
        time_exceeded(batch, usize::from(i), context);
    }
    for i in large {
        too_big(batch, usize::from(i), context);
    }
}

/// Why a packet is not forwarded.
enum Unusual {
    Drop(DropReason),
    TimeExceeded,
    TooBig,
}

/// Rewrites what nearly every packet is: IPv4 without options, by direct routing, with a TTL and of a length that may pass, to
/// a neighbour that is known. Returns the number of the port that it leaves by; `None`, and no change, if it is anything else.
#[inline(always)]
fn usual(frame: &mut impl Frame, packet: &mut Packet, tables: &Tables<'_>) -> Option<u16> {
    let slot = packet.destination as usize;
    let destination = tables.destinations.get(slot)?;
    let hop = tables.hops.get(destination.next_hop as usize)?;
    let counters = tables.counters.get(slot)?;
    let mac = hop.cell.mac_word()?;
    let (addresses, rest) = frame.data_mut().split_first_chunk_mut::<12>()?;
    let ([_, _, header @ ..], _) = rest.split_first_chunk_mut::<14>()?;
    if !is_plain(packet) || packet.role != Role::Direct || header[8] <= 1 {
        return None;
    }
    let ip_len = packet.layout.end - ethernet::HEADER_LEN as u16;
    if ip_len > hop.mtu {
        return None;
    }
    counters.count(false, ip_len);
    checksum::lower_ttl(header);
    ethernet::set_words(addresses, mac, hop.source);
    packet.verdict = Verdict::Forward(hop.port);
    Some(hop.port)
}

/// Whether a packet that has a destination is of IPv4 without options, behind an Ethernet header without a tag: nothing else
/// puts what follows, or would follow, the IP header so near to the beginning.
#[inline(always)]
fn is_plain(packet: &Packet) -> bool {
    usize::from(packet.layout.l4) == ethernet::HEADER_LEN + ipv4::HEADER_LEN
}

/// Rewrites any packet. Returns where it goes, and what is missing of its checksum.
fn rewrite(
    frame: &mut impl Frame,
    packet: &Packet,
    key6: &Key6,
    context: &Context<'_>,
) -> Result<(Verdict, Option<Unsummed>), Unusual> {
    let slot = packet.destination as usize;
    let destination =
        context.snapshot.destinations.get(slot).ok_or(Unusual::Drop(DropReason::DestinationRemoved))?;
    let (ip_len, is_answer) = (packet.layout.ip_len(), packet.role == Role::Server);
    let counters = context.shared.stats.destinations.get(slot);
    counters.iter().for_each(|counters| counters.count(is_answer, ip_len));
    // A connection keeps the method that it was made by. But a server whose address has become this machine's own is the director
    // for all: the original sees that by the route.
    let is_ours = || {
        destination.next_hop == Destination::NO_ROUTE
            && context.snapshot.host_addresses.contains(&destination.address)
    };
    if packet.role == Role::Local || (!is_answer && is_ours()) {
        return local(context.snapshot).map(|verdict| (verdict, None));
    }
    let number = if is_answer { packet.hop } else { destination.next_hop };
    let hop = context.snapshot.hop(number).ok_or(Unusual::Drop(DropReason::NoRoute))?;
    // The layout was read from a whole header: 20 bytes of IPv4 or 40 of IPv6.
    let header =
        frame.data_mut().get_mut(usize::from(packet.layout.l3)..).and_then(<[u8]>::first_chunk_mut::<20>);
    let header = header.ok_or(Unusual::Drop(DropReason::FrameTruncated))?;
    let may_be_cut = may_be_cut(header, packet.layout.v6);
    if header[ttl_at(packet.layout.v6)] <= 1 {
        return Err(Unusual::TimeExceeded);
    }
    // An answer is routed, and its sender hears of it as it sent it; to a server, the original quotes the packet with the
    // lower TTL.
    if is_answer && ip_len > hop.mtu && !may_be_cut {
        return Err(Unusual::TooBig);
    }
    lower_ttl(header, packet.layout.v6);
    let (mut len, mut unsummed) = (ip_len, None);
    match packet.role {
        Role::Tunnel => len = into_tunnel(frame, packet, (destination, hop.mtu, may_be_cut), context)?,
        _ if ip_len > hop.mtu && !may_be_cut => return Err(Unusual::TooBig),
        Role::Server => {
            let from = destination.virtual_service.unwrap_or_else(|| known_as(packet, key6));
            let translated = nat::translate(frame, &packet.layout, (End::Source, from), context);
            unsummed = translated.map_err(Unusual::Drop)?;
        }
        Role::Nat => {
            let to = (destination.address, destination.port);
            let translated = nat::translate(frame, &packet.layout, (End::Destination, to), context);
            unsummed = translated.map_err(Unusual::Drop)?;
        }
        _ => {}
    }
    let verdict = if len > hop.mtu { Verdict::Cut(number) } else { egress::address(frame, number, &hop) };
    Ok((verdict, unsummed))
}

/// Wraps a packet for the tunnel to its destination. Returns the length of what that makes; what is to be cut whatever the link's
/// `mtu` has the greatest.
fn into_tunnel(
    frame: &mut impl Frame,
    packet: &Packet,
    (destination, mtu, may_be_cut): (&Destination, u16, bool),
    context: &Context<'_>,
) -> Result<u16, Unusual> {
    let (v6, ip_len) = (packet.layout.v6, packet.layout.ip_len());
    let tunnel = destination.tunnel.as_ref().ok_or(Unusual::Drop(DropReason::NoRoute))?;
    let mtu = tunnel.mtu(mtu, v6, context.now).ok_or(Unusual::Drop(DropReason::TunnelMtu))?;
    // Without `pmtu_disc` the outer packet may be cut, whatever the inner says.
    if ip_len > mtu && !may_be_cut && (v6 || context.snapshot.policies.pmtu_disc) {
        return Err(Unusual::TooBig);
    }
    let (way, flow) = ((&**tunnel, destination.address), (&packet.layout, packet.hash, mtu));
    tunnel::wrap(frame, flow, way, &context.snapshot.policies).map_err(Unusual::Drop)?;
    // No router of the path cuts IPv6.
    let is_cut = ip_len > mtu && destination.address.is_ipv6();
    Ok(if is_cut { u16::MAX } else { ip_len.saturating_add(tunnel.overhead()) })
}

/// Whether a packet that is too large for its way out may leave in fragments.
fn may_be_cut(header: &[u8; 20], v6: bool) -> bool {
    !v6 && header[6] & DONT_FRAGMENT == 0
}

/// Where the TTL is in an IP header, or the hop limit.
fn ttl_at(v6: bool) -> usize {
    if v6 { 7 } else { 8 }
}

/// One less, which it is above.
fn lower_ttl(header: &mut [u8], v6: bool) {
    if v6 {
        header[ttl_at(v6)] -= 1;
    } else {
        checksum::decrement_ttl(header);
    }
}

/// What becomes of a packet to the director itself: it is at its end, and so it keeps its TTL and may have any length. The
/// host has the virtual address, and answers straight to the client.
#[cold]
fn local(snapshot: &Snapshot) -> Result<Verdict, Unusual> {
    if snapshot.exception_path { Ok(Verdict::Local) } else { Err(Unusual::Drop(DropReason::MethodPending)) }
}

/// The virtual address and port of a packet of a service of many addresses, whose key is its client's.
fn known_as(packet: &Packet, key6: &Key6) -> (IpAddr, u16) {
    let service = if packet.layout.v6 { key6.virtual_service() } else { packet.key4.virtual_service() };
    (service.ip(), service.port())
}

#[cold]
fn time_exceeded<F: Frame>(batch: &mut Batch<F>, i: usize, context: &mut Context<'_>) {
    let Packet { layout, role, .. } = batch.packets[i];
    if role == Role::Server {
        return route::error(batch, i, context, |frame, layout, at| reply::time_exceeded(frame, layout, at));
    }
    context.icmp_error(batch, i, |batch, mac| {
        reply::time_exceeded(&mut batch.frames[i], &layout, Speaker::virtual_address(mac))
    });
}

#[cold]
fn too_big<F: Frame>(batch: &mut Batch<F>, i: usize, context: &mut Context<'_>) {
    let Packet { layout, role, hop, destination, .. } = batch.packets[i];
    if role == Role::Server {
        let mtu = context.snapshot.hop(hop).map_or(0, |hop| hop.mtu);
        return route::error(batch, i, context, |frame, layout, at| {
            reply::packet_too_big(frame, layout, at, mtu)
        });
    }
    let mtu = context.snapshot.destinations.get(destination as usize).and_then(|destination| {
        let link = context.snapshot.hop(destination.next_hop)?.mtu;
        let tunnel = destination.tunnel.as_ref().filter(|_| role == Role::Tunnel);
        tunnel.map_or(Some(link), |tunnel| tunnel.mtu(link, layout.v6, context.now))
    });
    let mtu = mtu.unwrap_or(0);
    context.icmp_error(batch, i, |batch, mac| {
        reply::packet_too_big(&mut batch.frames[i], &layout, Speaker::virtual_address(mac), mtu)
    });
}
