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
    port::Frame,
    reply::{self, Speaker},
    snapshot::Method,
    verdict::{DropReason, Verdict},
    wire::{checksum, ethernet, ipv4},
};
use nat::End;
use std::net::IpAddr;

/// "Don't fragment" in byte 6 of an IPv4 header.
const DONT_FRAGMENT: u8 = (ipv4::DONT_FRAGMENT >> 8) as u8;

/// Rewrites the packets of the batch that have a destination, and decides them.
#[inline]
pub fn batch<F: Frame>(batch: &mut Batch<F>, context: &mut Context<'_>) {
    let mut rest = Picked::new();
    // Whether all leave by one port: then the numbers of all ports have the same bits as any.
    let (mut left, mut any, mut all) = (0, 0, u16::MAX);
    for (i, (frame, packet)) in batch.frames.iter_mut().zip(&mut batch.packets).enumerate() {
        if packet.destination == Packet::NOWHERE {
            left += 1;
        } else if let Some(port) = usual(frame, packet, context) {
            (any, all) = (any | port, all & port);
        } else {
            // It holds a batch.
            rest.push(i as u8);
        }
    }
    if !rest.is_empty() {
        (any, all) = tunnel::batch(batch, &mut rest, (any, all), context);
    }
    batch.way = (any == all && left == 0 && rest.is_empty()).then_some(any);
    if !rest.is_empty() {
        others(batch, &rest, context);
    }
}

/// Rewrites the picked packets, whatever they are.
#[inline(never)]
fn others<F: Frame>(batch: &mut Batch<F>, picked: &Picked, context: &mut Context<'_>) {
    let (mut expired, mut large) = (Picked::new(), Picked::new());
    for &i in picked {
        let i = usize::from(i);
        let (frame, packet) = (&mut batch.frames[i], &mut batch.packets[i]);
        match rewrite(frame, packet, &batch.key6[i], context) {
            Ok(verdict) => packet.verdict = verdict,
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

/// Rewrites what nearly every packet is: IPv4, by direct routing, with a TTL and of a length that may pass, to a neighbour
/// that is known. Returns the number of the port that it leaves by; `None`, and no change, if it is anything else.
#[inline(always)]
fn usual(frame: &mut impl Frame, packet: &mut Packet, context: &Context<'_>) -> Option<u16> {
    let slot = packet.destination as usize;
    let destination = context.snapshot.destinations.get(slot)?;
    if destination.method != Method::Direct {
        return None;
    }
    let hop = context.snapshot.next_hops.get(destination.next_hop as usize)?;
    let counters = context.shared.stats.destinations.get(slot)?;
    let mac = hop.cell.mac_word()?;
    let ip_len = packet.layout.ip_len();
    // The usual place of the IP header: behind an Ethernet header without a tag.
    let (addresses, rest) = frame.data_mut().split_first_chunk_mut::<12>()?;
    let ([_, _, header @ ..], _) = rest.split_first_chunk_mut::<14>()?;
    if packet.layout.l3 != 14 || packet.layout.v6 || header[8] <= 1 || ip_len > hop.mtu {
        return None;
    }
    counters.count(false, ip_len);
    checksum::lower_ttl(header);
    ethernet::set_words(addresses, mac, hop.source);
    packet.verdict = Verdict::Forward(hop.port);
    Some(hop.port)
}

/// Rewrites any packet.
fn rewrite(
    frame: &mut impl Frame,
    packet: &Packet,
    key6: &Key6,
    context: &Context<'_>,
) -> Result<Verdict, Unusual> {
    let slot = packet.destination as usize;
    let destination =
        context.snapshot.destinations.get(slot).ok_or(Unusual::Drop(DropReason::DestinationRemoved))?;
    let (ip_len, is_answer) = (packet.layout.ip_len(), packet.role == Role::Server);
    if let Some(counters) = context.shared.stats.destinations.get(slot) {
        counters.count(is_answer, ip_len);
    }
    let number = if is_answer { packet.hop } else { destination.next_hop };
    let hop = context.snapshot.hop(number).ok_or(Unusual::Drop(DropReason::NoRoute))?;
    // The layout was read from a whole header: 20 bytes of IPv4 or 40 of IPv6.
    let header =
        frame.data_mut().get_mut(usize::from(packet.layout.l3)..).and_then(<[u8]>::first_chunk_mut::<20>);
    let header = header.ok_or(Unusual::Drop(DropReason::FrameTruncated))?;
    let may_be_cut = !packet.layout.v6 && header[6] & DONT_FRAGMENT == 0;
    let ttl = &mut header[if packet.layout.v6 { 7 } else { 8 }];
    if *ttl <= 1 {
        return Err(Unusual::TimeExceeded);
    }
    // An answer is routed, and its sender hears of it as it sent it; to a server, the original quotes the packet with the
    // lower TTL.
    if is_answer && ip_len > hop.mtu && !may_be_cut {
        return Err(Unusual::TooBig);
    }
    if packet.layout.v6 {
        *ttl -= 1;
    } else {
        checksum::decrement_ttl(header);
    }
    let mut len = ip_len;
    match &destination.tunnel {
        Some(tunnel) if !is_answer => {
            let mtu = tunnel
                .mtu(hop.mtu, packet.layout.v6, context.now)
                .ok_or(Unusual::Drop(DropReason::TunnelMtu))?;
            if ip_len > mtu && !may_be_cut {
                return Err(Unusual::TooBig);
            }
            if ip_len > mtu && destination.address.is_ipv6() {
                return Err(Unusual::Drop(DropReason::TooBig));
            }
            let way = (&**tunnel, destination.address);
            let flow = (&packet.layout, packet.hash, mtu);
            tunnel::wrap(frame, flow, way, &context.snapshot.policies).map_err(Unusual::Drop)?;
            len = ip_len.saturating_add(tunnel.overhead());
        }
        _ if ip_len > hop.mtu && !may_be_cut => return Err(Unusual::TooBig),
        _ if is_answer => {
            let from = destination.virtual_service.unwrap_or_else(|| known_as(packet, key6));
            nat::translate(frame, &packet.layout, End::Source, from).map_err(Unusual::Drop)?;
        }
        _ if destination.method == Method::Nat => {
            let to = (destination.address, destination.port);
            nat::translate(frame, &packet.layout, End::Destination, to).map_err(Unusual::Drop)?;
        }
        _ => {}
    }
    if len > hop.mtu {
        return Ok(Verdict::Cut(number));
    }
    Ok(egress::address(frame, number, &hop))
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
        destination.tunnel.as_ref().map_or(Some(link), |tunnel| tunnel.mtu(link, layout.v6, context.now))
    });
    let mtu = mtu.unwrap_or(0);
    context.icmp_error(batch, i, |batch, mac| {
        reply::packet_too_big(&mut batch.frames[i], &layout, Speaker::virtual_address(mac), mtu)
    });
}
