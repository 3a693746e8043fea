//! Direct routing: the packet goes to the real server as it is, but for the MAC addresses and the TTL.
//!
//! As the original does: a TTL (hop limit) of 1 or 0 is answered with time exceeded, a packet that is larger than the MTU
//! of the way out and must not be fragmented with "fragmentation needed" or "packet too big". The connection and the
//! counters have been served before either.

use crate::{
    batch::Batch,
    conn::lookup::Picked,
    director::Context,
    reply,
    snapshot::{Destination, NextHop},
    verdict::{DropReason, Verdict},
    wire::{checksum, ipv4},
};

/// Rewrites the packets of the batch that have a destination, and decides them.
#[inline]
pub fn batch(batch: &mut Batch, picked: &Picked, context: &mut Context<'_>) {
    for &i in picked {
        let i = usize::from(i);
        if batch.destination[i] == Batch::NOWHERE {
            continue;
        }
        let slot = batch.destination[i] as usize;
        let Some(destination) = context.snapshot.destinations.get(slot) else {
            batch.drop(i, DropReason::DestinationRemoved);
            continue;
        };
        if let Some(counters) = context.shared.stats.destinations.get(slot) {
            counters.packets_in.add(1);
            counters.bytes_in.add(u64::from(batch.layout[i].ip_len()));
        }
        packet(batch, i, destination, context);
    }
}

#[inline]
fn packet(batch: &mut Batch, i: usize, destination: &Destination, context: &mut Context<'_>) {
    let layout = batch.layout[i];
    let Some(next_hop) = context.snapshot.next_hops.get(destination.next_hop as usize) else {
        return batch.drop(i, DropReason::NoRoute);
    };
    let header = &mut batch.frames[i].data_mut()[usize::from(layout.l3)..];
    // The layout was read from a whole header: 20 bytes of IPv4 or 40 of IPv6.
    let ttl = &mut header[if layout.v6 { 7 } else { 8 }];
    if *ttl <= 1 {
        return time_exceeded(batch, i, context);
    }
    if let Some(mtu) = exceeded_mtu(layout.ip_len(), next_hop, context) {
        return too_big(batch, i, mtu, context);
    }
    if layout.v6 {
        *ttl -= 1;
    } else {
        checksum::decrement_ttl(header);
    }
    batch.verdict[i] = Verdict::Forward(destination.next_hop);
}

/// The MTU of the way out if `len` does not fit it.
#[inline]
fn exceeded_mtu(len: u16, next_hop: &NextHop, context: &Context<'_>) -> Option<u16> {
    let port = context.snapshot.ports.get(usize::from(next_hop.port))?;
    (len > port.mtu).then_some(port.mtu)
}

#[cold]
fn time_exceeded(batch: &mut Batch, i: usize, context: &mut Context<'_>) {
    let layout = batch.layout[i];
    context.icmp_error(batch, i, |batch, mac| {
        reply::time_exceeded(&mut batch.frames[i], &layout, mac)
    });
}

#[cold]
fn too_big(batch: &mut Batch, i: usize, mtu: u16, context: &mut Context<'_>) {
    let layout = batch.layout[i];
    let may_fragment = !layout.v6
        && ipv4::Ipv4::new(&batch.frames[i].data()[usize::from(layout.l3)..])
            .is_some_and(|packet| !packet.dont_fragment());
    if may_fragment {
        // The original would fragment it here. Clients have sent with DF for decades; it is counted.
        return batch.drop(i, DropReason::TooBig);
    }
    context.icmp_error(batch, i, |batch, mac| {
        reply::packet_too_big(&mut batch.frames[i], &layout, mac, mtu)
    });
}
