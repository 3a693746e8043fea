//! Packets that no service takes: answered as the host's own stack would, routed, left to the host, or dropped for a reason.

use super::{Context, Recent};
use crate::{
    batch::{Batch, Kind, Layout},
    command::{PuntedFrame, WorkerShared},
    conn::{Connections, lookup::BatchKey, sctp},
    forward::{nat::End, route, tunnel},
    fragments,
    index::Asked,
    limits::PUNT_BYTES,
    port::Frame,
    reply::{self, Speaker},
    snapshot::{ServiceKey, Snapshot},
    verdict::{DropReason, Verdict},
    wire::{arp, icmpv6, ipv4, ipv6, protocol, tcp},
};
use std::net::IpAddr;

/// A packet that is not of a flow, or goes with no connection that we know.
#[cold]
pub(super) fn other<F: Frame>(batch: &mut Batch<F>, i: usize, context: &mut Context<'_>) -> Verdict {
    let layout = batch.packets[i].layout;
    let Some(address) = destination_address(batch.frames[i].data(), &layout) else {
        return Verdict::Drop(DropReason::FrameTruncated);
    };
    let ours = context.snapshot.virtual_addresses.contains(&address);
    match layout.kind {
        Kind::Arp | Kind::NeighborSolicitation | Kind::NeighborDiscovery => {
            learn(batch, i, context.shared);
            let request = match layout.kind {
                Kind::Arp => arp_operation(batch.frames[i].data(), &layout) == Some(arp::REQUEST),
                kind => kind == Kind::NeighborSolicitation,
            };
            match (ours && request, layout.v6) {
                (false, _) => Verdict::Punt,
                (true, false) => context
                    .answer(batch, i, |batch, mac| reply::arp_reply(&mut batch.frames[i], &layout, mac)),
                (true, true) => context.answer(batch, i, |batch, mac| {
                    reply::neighbor_advertisement(&mut batch.frames[i], &layout, mac)
                }),
            }
        }
        _ if !ours => {
            let source = route::address(batch.frames[i].data(), &layout, End::Source);
            if !layout.multicast
                && source.is_some_and(|source| route::is_routed(context.snapshot, source, address))
            {
                return routed(batch, i, address, context);
            }
            tunnel::others(batch.frames[i].data(), &layout, context)
        }
        Kind::Echo => context.answer(batch, i, |batch, mac| reply::echo(&mut batch.frames[i], &layout, mac)),
        Kind::IcmpError | Kind::TunnelError => Verdict::Drop(DropReason::IcmpUnmatched),
        _ if is_icmp(batch.frames[i].data(), &layout) => Verdict::Drop(DropReason::ProtocolUnsupported),
        _ => {
            protocol_unreachable(batch, i, context);
            batch.packets[i].verdict
        }
    }
}

/// Whether a packet is an ICMP message of its family.
fn is_icmp(frame: &[u8], layout: &Layout) -> bool {
    let packet = frame.get(usize::from(layout.l3)..).unwrap_or_default();
    match layout.v6 {
        true => ipv6::Ipv6::new(packet)
            .and_then(|ip| ip.upper_layer().ok())
            .is_some_and(|upper| upper.protocol == protocol::ICMPV6),
        false => ipv4::Ipv4::new(packet).is_some_and(|ip| ip.protocol() == protocol::ICMP),
    }
}

/// A packet that is no flow's and is for another station than the director.
fn routed<F: Frame>(batch: &mut Batch<F>, i: usize, address: IpAddr, context: &mut Context<'_>) -> Verdict {
    if route::is_loop(batch, i, context.snapshot) {
        return Verdict::Drop(DropReason::LoopDetected);
    }
    route::other(batch, i, address, context);
    batch.packets[i].verdict
}

/// A packet of a flow that no service takes, to an address that is none of the director's: the host's, or to be routed.
#[cold]
pub(super) fn no_business<K: Asked + BatchKey, F: Frame>(
    batch: &mut Batch<F>,
    i: usize,
    key: &K,
    (connections, recent): (&mut Connections<K>, &mut Recent<'_, K>),
    context: &mut Context<'_>,
) {
    let (source, destination) = (key.client().ip(), key.virtual_service().ip());
    if !route::is_routed(context.snapshot, source, destination) {
        batch.packets[i].verdict = tunnel::others(batch.frames[i].data(), &batch.packets[i].layout, context);
    } else if route::is_loop(batch, i, context.snapshot) {
        batch.packets[i].drop(DropReason::LoopDetected);
    } else if context.snapshot.policies.nat_icmp_send && answers_nothing(batch, i, key, context.snapshot) {
        route::error(batch, i, context, |frame, layout, at| reply::port_unreachable(frame, layout, at));
    } else {
        recent.add(batch.packets[i].hash);
        route::flow(batch, i, key, connections, context);
    }
}

/// Whether a packet is from a NATed server's service, and no reset: an answer to a connection that there is not.
fn answers_nothing<K: Asked, F: Frame>(batch: &Batch<F>, i: usize, key: &K, snapshot: &Snapshot) -> bool {
    let (source, layout) = (key.client(), batch.packets[i].layout);
    let from = ServiceKey { protocol: key.protocol(), address: source.ip(), port: source.port() };
    let resets = match key.protocol() {
        protocol::TCP => layout.event & tcp::RST != 0,
        protocol::SCTP => sctp::Event::from_u8(layout.event) == sctp::Event::Abort,
        _ => false,
    };
    // Those of marks are of no protocol.
    let is_real = |from: &ServiceKey| snapshot.routing.real_services.get(from).is_some();
    layout.kind == Kind::Flow && !resets && (is_real(&from) || is_real(&ServiceKey { protocol: 0, ..from }))
}

/// An ICMP message of no connection: an echo request of a station behind the director may leave by a rule of source NAT.
#[cold]
pub(super) fn message<K: Asked + BatchKey, F: Frame>(
    batch: &mut Batch<F>,
    i: usize,
    key: &K,
    (connections, recent): (&mut Connections<K>, &mut Recent<'_, K>),
    context: &mut Context<'_>,
) {
    let leaves =
        batch.packets[i].layout.kind == Kind::Echo && !key.is_ours(&context.snapshot.virtual_addresses);
    if leaves {
        no_business(batch, i, key, (connections, recent), context);
    } else {
        batch.packets[i].verdict = other(batch, i, context);
    }
}

/// What the local stack would say to a packet that nobody takes.
pub(super) fn no_service<F: Frame>(batch: &mut Batch<F>, i: usize, number: u8, context: &mut Context<'_>) {
    let layout = batch.packets[i].layout;
    match number {
        protocol::TCP if layout.event & tcp::RST != 0 => batch.packets[i].drop(DropReason::ResetUnmatched),
        // Its checksum is over what has not come.
        protocol::TCP if fragments::datagram(batch.frames[i].data(), &layout).is_some() => {
            batch.packets[i].drop(DropReason::FragmentUnmatched);
        }
        protocol::TCP => {
            batch.packets[i].verdict =
                context.answer(batch, i, |batch, mac| reply::tcp_reset(&mut batch.frames[i], &layout, mac));
        }
        protocol::UDP => port_unreachable(batch, i, context),
        // The director has no SCTP of its own, and says what such a host says.
        _ => protocol_unreachable(batch, i, context),
    }
}

fn protocol_unreachable<F: Frame>(batch: &mut Batch<F>, i: usize, context: &mut Context<'_>) {
    let layout = batch.packets[i].layout;
    context.icmp_error(batch, i, |batch, mac| {
        reply::protocol_unreachable(&mut batch.frames[i], &layout, Speaker::virtual_address(mac))
    });
}

pub(super) fn port_unreachable<F: Frame>(batch: &mut Batch<F>, i: usize, context: &mut Context<'_>) {
    let layout = batch.packets[i].layout;
    context.icmp_error(batch, i, |batch, mac| {
        reply::port_unreachable(&mut batch.frames[i], &layout, Speaker::virtual_address(mac))
    });
}

/// The address that a packet, an ARP message or a solicitation is for.
fn destination_address(frame: &[u8], layout: &Layout) -> Option<IpAddr> {
    let l3 = frame.get(usize::from(layout.l3)..)?;
    match layout.kind {
        Kind::Arp => arp::Arp::new(l3).filter(arp::Arp::is_ethernet_ipv4).map(|arp| arp.target_ip().into()),
        Kind::NeighborSolicitation | Kind::NeighborDiscovery => {
            let l4 = frame.get(usize::from(layout.l4)..usize::from(layout.end))?;
            icmpv6::Icmpv6::new(l4)?.target().map(IpAddr::V6)
        }
        _ => route::address(frame, layout, End::Destination),
    }
}

fn arp_operation(frame: &[u8], layout: &Layout) -> Option<u16> {
    arp::Arp::new(frame.get(usize::from(layout.l3)..)?).map(|arp| arp.operation())
}

/// Gives the control plane a copy, without VLAN tags, of a frame that tells who a neighbour is.
fn learn<F: Frame>(batch: &Batch<F>, i: usize, shared: &WorkerShared) {
    let (frame, l3) = (batch.frames[i].data(), usize::from(batch.packets[i].layout.l3));
    let mut copy = PuntedFrame { port: u16::from(batch.packets[i].port), len: 0, bytes: [0; PUNT_BYTES] };
    let rest = &frame[l3..];
    let len = (14 + rest.len()).min(PUNT_BYTES);
    copy.bytes[..12].copy_from_slice(&frame[..12]);
    copy.bytes[12..14].copy_from_slice(&frame[l3 - 2..l3]);
    copy.bytes[14..len].copy_from_slice(&rest[..len - 14]);
    copy.len = len as u8;
    // A full queue means that the control thread is behind; neighbours repeat themselves.
    let _ = shared.punts.push(copy);
}
