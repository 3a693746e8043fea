//! Stage 4: what a packet needs to reach its destination. Of direct routing that is another TTL and other MAC addresses, and
//! so it stands here; what other methods do besides has a file of its own.
//!
//! As the original does: a TTL (hop limit) of 1 or 0 is answered with time exceeded, a packet that is larger than the MTU
//! of the way out and must not be fragmented with "fragmentation needed" or "packet too big". The connection and the
//! counters have been served before either.

pub mod tunnel;

use crate::{
    batch::{Batch, Packet},
    conn::lookup::Picked,
    director::Context,
    egress,
    port::Frame,
    reply,
    snapshot::Method,
    verdict::{DropReason, Verdict},
    wire::{checksum, ethernet, ipv4},
};

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
        let (frame, packet) = (&mut batch.frames[usize::from(i)], &mut batch.packets[usize::from(i)]);
        match rewrite(frame, packet, context) {
            Ok(verdict) => packet.verdict = verdict,
            Err(Unusual::Drop(reason)) => packet.drop(reason),
            Err(Unusual::TimeExceeded) => expired.push(i),
            Err(Unusual::TooBig) => large.push(i),
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
    let hop = context.snapshot.next_hops.get(destination.next_hop as usize)?;
    let counters = context.shared.stats.destinations.get(slot)?;
    let mac = hop.cell.mac_word()?;
    let ip_len = packet.layout.ip_len();
    // The usual place of the IP header: behind an Ethernet header without a tag.
    let (addresses, rest) = frame.data_mut().split_first_chunk_mut::<12>()?;
    let ([_, _, header @ ..], _) = rest.split_first_chunk_mut::<14>()?;
    if destination.method != Method::Direct
        || packet.layout.l3 != 14
        || packet.layout.v6
        || header[8] <= 1
        || ip_len > hop.mtu
    {
        return None;
    }
    counters.packets_in.add(1);
    counters.bytes_in.add(u64::from(ip_len));
    checksum::lower_ttl(header);
    ethernet::set_words(addresses, mac, hop.source);
    packet.verdict = Verdict::Forward(hop.port);
    Some(hop.port)
}

/// Rewrites any packet.
fn rewrite(frame: &mut impl Frame, packet: &Packet, context: &Context<'_>) -> Result<Verdict, Unusual> {
    let slot = packet.destination as usize;
    let destination =
        context.snapshot.destinations.get(slot).ok_or(Unusual::Drop(DropReason::DestinationRemoved))?;
    let ip_len = packet.layout.ip_len();
    if let Some(counters) = context.shared.stats.destinations.get(slot) {
        counters.packets_in.add(1);
        counters.bytes_in.add(u64::from(ip_len));
    }
    let next_hop = context.snapshot.next_hops.get(destination.next_hop as usize);
    let next_hop = next_hop.ok_or(Unusual::Drop(DropReason::NoRoute))?;
    // The layout was read from a whole header: 20 bytes of IPv4 or 40 of IPv6.
    let header =
        frame.data_mut().get_mut(usize::from(packet.layout.l3)..).and_then(<[u8]>::first_chunk_mut::<20>);
    let header = header.ok_or(Unusual::Drop(DropReason::FrameTruncated))?;
    let ttl = &mut header[if packet.layout.v6 { 7 } else { 8 }];
    if *ttl <= 1 {
        return Err(Unusual::TimeExceeded);
    }
    if packet.layout.v6 {
        *ttl -= 1;
    } else {
        checksum::decrement_ttl(header);
    }
    // After the TTL, as the original does it: the answer quotes the packet with the lower one.
    match &destination.tunnel {
        None if ip_len > next_hop.mtu => return Err(Unusual::TooBig),
        None => {}
        Some(tunnel) => {
            let mtu = tunnel
                .mtu(next_hop.mtu, packet.layout.v6, context.now)
                .ok_or(Unusual::Drop(DropReason::TunnelMtu))?;
            if ip_len > mtu {
                return Err(Unusual::TooBig);
            }
            let way = (&**tunnel, destination.address);
            tunnel::wrap(frame, &packet.layout, way, packet.hash).map_err(Unusual::Drop)?;
        }
    }
    Ok(egress::address(frame, destination.next_hop, next_hop))
}

#[cold]
fn time_exceeded<F: Frame>(batch: &mut Batch<F>, i: usize, context: &mut Context<'_>) {
    let layout = batch.packets[i].layout;
    context.icmp_error(batch, i, |batch, mac| reply::time_exceeded(&mut batch.frames[i], &layout, mac));
}

#[cold]
fn too_big<F: Frame>(batch: &mut Batch<F>, i: usize, context: &mut Context<'_>) {
    let (layout, slot) = (batch.packets[i].layout, batch.packets[i].destination as usize);
    let header = &batch.frames[i].data()[usize::from(layout.l3)..];
    if !layout.v6 && ipv4::Ipv4::new(header).is_some_and(|packet| !packet.dont_fragment()) {
        // The original would fragment it here. Clients have sent with DF for decades; it is counted.
        return batch.packets[i].drop(DropReason::TooBig);
    }
    let mtu = context.snapshot.destinations.get(slot).and_then(|destination| {
        let link = context.snapshot.next_hops.get(destination.next_hop as usize)?.mtu;
        destination.tunnel.as_ref().map_or(Some(link), |tunnel| tunnel.mtu(link, layout.v6, context.now))
    });
    let mtu = mtu.unwrap_or(0);
    context.icmp_error(batch, i, |batch, mac| reply::packet_too_big(&mut batch.frames[i], &layout, mac, mtu));
}
