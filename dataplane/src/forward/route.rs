//! Packets that no service takes: a NATed server's own traffic, whose gateway the director is, and what comes back to it.
//!
//! They are forwarded as a router does (RFC 1812 section 5.3): TTL, MTU, next hop by the longest prefix. Those of networks
//! with source NAT leave from another address, by a port of that address that no other connection to the same station
//! has; the station's answers find the same worker as the packets to it, because an owner is computed from the far end
//! alone ([`crate::steer`]), so that ports are given without asking other workers. As with iptables the port stays what it
//! was if that is free; RFC 6056 section 3.3.3 for the others.

use super::{
    lower_ttl, may_be_cut,
    nat::{self, End},
    ttl_at,
};
use crate::{
    app::helper,
    batch::{Batch, Kind, Layout, Packet},
    conn::{Connections, TableFull, lookup::BatchKey, table::Role},
    director::Context,
    egress,
    index::Asked,
    port::Frame,
    reply,
    routing::{Forwarding, SourceNat},
    snapshot::{PortFacts, Snapshot},
    verdict::{DropReason, Verdict},
    wire::{protocol, tcp},
};
use std::net::{IpAddr, SocketAddr};

/// Ports that are tried for a connection before there is none.
const TRIES: u64 = 256;
/// The first port that is given where a connection cannot keep its own.
const FIRST_PORT: u64 = 1_024;

/// Whether a packet between these addresses is routed, if neither is the director's.
pub fn is_routed(snapshot: &Snapshot, source: IpAddr, destination: IpAddr) -> bool {
    let routing = &snapshot.routing;
    let one_station = |address: IpAddr| match address {
        IpAddr::V4(v4) => {
            !v4.is_multicast() && !v4.is_broadcast() && v4.octets()[0] != 0 && !v4.is_loopback()
        }
        IpAddr::V6(v6) => {
            !v6.is_multicast() && !v6.is_unspecified() && !v6.is_loopback() && !v6.is_unicast_link_local()
        }
    };
    let wanted = match routing.forwarding {
        Forwarding::Off => false,
        Forwarding::All => true,
        Forwarding::Servers => {
            routing.servers.contains(&source)
                || routing.servers.contains(&destination)
                || routing.source_nat.iter().any(|rule| rule.source.contains(source))
        }
    };
    wanted
        && one_station(source)
        && one_station(destination)
        && !snapshot.host_addresses.contains(&destination)
}

/// The rule by which a packet from `source` that leaves by a port gets another source.
fn rule(snapshot: &Snapshot, source: IpAddr, port: u16) -> Option<&SourceNat> {
    let fits = |rule: &&SourceNat| rule.source.contains(source) && rule.port.is_none_or(|only| only == port);
    snapshot.routing.source_nat.iter().find(fits)
}

/// Routes a packet of no connection, frame `i`, with the key `key`.
pub(crate) fn flow<K: Asked + BatchKey, F: Frame>(
    batch: &mut Batch<F>,
    i: usize,
    key: &K,
    connections: &mut Connections<K>,
    context: &mut Context<'_>,
) {
    let (source, destination) = (key.client().ip(), key.virtual_service().ip());
    let snapshot = context.snapshot;
    let hop = match snapshot.hop_towards(destination, context.now) {
        Ok(hop) => hop,
        Err(reason) => return batch.packets[i].drop(reason),
    };
    let port = snapshot.hop(hop).map_or(u16::MAX, |hop| hop.port);
    let Some(rule) = rule(snapshot, source, port) else { return send(batch, i, (hop, None), context) };
    let Packet { layout, hash, .. } = batch.packets[i];
    if key.protocol() == protocol::TCP && layout.event & tcp::RST != 0 {
        return batch.packets[i].drop(DropReason::ResetUnmatched);
    }
    let Some(answers) = free_port(key, hash, rule, connections, snapshot) else {
        return batch.packets[i].drop(DropReason::PortsExhausted);
    };
    let surroundings = (snapshot, &context.shared.stats);
    let packet = (layout.event, layout.ip_len());
    match connections.create_outbound((key, hash), &answers, packet, context.now.ticks(), surroundings) {
        Ok(_) => {
            let from = answers.virtual_service();
            send(batch, i, (hop, Some((End::Source, (from.ip(), from.port())))), context);
        }
        Err(TableFull) => batch.packets[i].drop(DropReason::TableFull),
    }
}

/// The key of the answers to a connection that leaves by a rule: with a port that makes it the only one.
fn free_port<K: Asked>(
    key: &K,
    hash: u64,
    rule: &SourceNat,
    connections: &Connections<K>,
    snapshot: &Snapshot,
) -> Option<K> {
    let own = key.client().port();
    let range = u64::from(u16::MAX) + 1 - FIRST_PORT;
    let others =
        (0..TRIES).map(|n| (FIRST_PORT + (hash >> 16).wrapping_add(n.wrapping_mul(0x9e37)) % range) as u16);
    std::iter::once(own).filter(|port| *port != 0).chain(others).find_map(|port| {
        let answers = key.with_source_address(rule.address, port)?.turned();
        let is_services = answers.service(&snapshot.service_index, port).is_some();
        let taken =
            is_services || connections.table.find(&answers, connections.table.hash(&answers)).is_some();
        (!taken).then_some(answers)
    })
}

/// A packet of a connection whose destination alone does not say where it goes.
#[cold]
pub(crate) fn by_role<K: Asked + BatchKey, F: Frame>(
    batch: &mut Batch<F>,
    i: usize,
    connections: &mut Connections<K>,
    context: &mut Context<'_>,
) {
    match batch.packets[i].role {
        Role::Control | Role::ControlAnswers => helper::session(batch, i, connections, context),
        _ => translated(batch, i, connections, context),
    }
}

/// Routes a packet, frame `i`, of a connection that was found in the table, with source NAT or of an FTP data connection.
/// What it becomes is what its peer's packets answer.
pub(crate) fn translated<K: Asked + BatchKey, F: Frame>(
    batch: &mut Batch<F>,
    i: usize,
    connections: &Connections<K>,
    context: &mut Context<'_>,
) {
    let Packet { entry, role, layout, .. } = batch.packets[i];
    let Some(new) = connections.becomes(entry) else {
        return batch.packets[i].drop(DropReason::DestinationRemoved);
    };
    let pair = |socket: SocketAddr| (socket.ip(), socket.port());
    if let Role::Data | Role::DataAnswers = role {
        let slot = connections.table.get(entry).destination;
        if let Some(counters) = context.shared.stats.destinations.get(slot as usize) {
            counters.count(role == Role::DataAnswers, layout.ip_len());
        }
        context.snapshot.expectations.transfers(connections.session_of(entry), context.now.ticks());
    }
    let (change, towards) = match role {
        Role::Inbound | Role::Data => {
            ((End::Destination, pair(new.virtual_service())), Some(new.virtual_service().ip()))
        }
        _ => ((End::Source, pair(new.client())), address(batch.frames[i].data(), &layout, End::Destination)),
    };
    let Some(towards) = towards else { return batch.packets[i].drop(DropReason::FrameTruncated) };
    match context.snapshot.hop_towards(towards, context.now) {
        Ok(hop) => send(batch, i, (hop, Some(change)), context),
        Err(reason) => batch.packets[i].drop(reason),
    }
}

/// Routes any other packet, frame `i`, unless it would have to leave from another address: then it tells too little.
pub(crate) fn other<F: Frame>(
    batch: &mut Batch<F>,
    i: usize,
    destination: IpAddr,
    context: &mut Context<'_>,
) {
    let (snapshot, layout) = (context.snapshot, batch.packets[i].layout);
    let hop = match snapshot.hop_towards(destination, context.now) {
        Ok(hop) => hop,
        Err(reason) => return batch.packets[i].drop(reason),
    };
    let port = snapshot.hop(hop).map_or(u16::MAX, |hop| hop.port);
    let source = address(batch.frames[i].data(), &layout, End::Source);
    if source.is_some_and(|source| rule(snapshot, source, port).is_some()) {
        return batch.packets[i].drop(match layout.kind {
            Kind::IcmpError | Kind::TunnelError => DropReason::IcmpUnmatched,
            Kind::Fragment => DropReason::FragmentUnmatched,
            _ => DropReason::ProtocolUnsupported,
        });
    }
    send(batch, i, (hop, None), context);
}

/// The address of one end of a packet.
pub fn address(frame: &[u8], layout: &Layout, end: End) -> Option<IpAddr> {
    let packet = frame.get(usize::from(layout.l3)..)?;
    if layout.v6 {
        let octets: [u8; 16] = *packet.get(end.ipv6()..)?.first_chunk()?;
        return Some(octets.into());
    }
    let octets: [u8; 4] = *packet.get(end.ipv4()..)?.first_chunk()?;
    Some(octets.into())
}

/// What changes of a packet that is routed: one end, to an address and a port.
type Change = (End, (IpAddr, u16));

/// Forwards frame `i` by a next hop, with one end changed.
fn send<F: Frame>(
    batch: &mut Batch<F>,
    i: usize,
    (number, change): (u32, Option<Change>),
    context: &mut Context<'_>,
) {
    let Packet { layout, .. } = batch.packets[i];
    let Some(hop) = context.snapshot.hop(number) else { return batch.packets[i].drop(DropReason::NoRoute) };
    let l3 = usize::from(layout.l3);
    let Some(header) = batch.frames[i].data().get(l3..).and_then(<[u8]>::first_chunk::<20>) else {
        return batch.packets[i].drop(DropReason::FrameTruncated);
    };
    if header[ttl_at(layout.v6)] <= 1 {
        return error(batch, i, context, |frame, layout, at| reply::time_exceeded(frame, layout, at));
    }
    let is_too_big = layout.ip_len() > hop.mtu;
    if is_too_big && !may_be_cut(header, layout.v6) {
        let mtu = hop.mtu;
        return error(batch, i, context, |frame, layout, at| reply::packet_too_big(frame, layout, at, mtu));
    }
    let frame = &mut batch.frames[i];
    let translated = change.map_or(Ok(None), |change| nat::translate(frame, &layout, change, context));
    let unsummed = match translated {
        Ok(unsummed) => unsummed,
        Err(reason) => return batch.packets[i].drop(reason),
    };
    if let Some(header) = frame.data_mut().get_mut(l3..) {
        lower_ttl(header, layout.v6);
    }
    let verdict = if is_too_big { Verdict::Cut(number) } else { egress::address(frame, number, &hop) };
    batch.goes(i, verdict, unsummed);
}

/// Tells the sender of frame `i` what is wrong, from the director's own address on its link.
pub(crate) fn error<F: Frame>(
    batch: &mut Batch<F>,
    i: usize,
    context: &mut Context<'_>,
    make: impl FnOnce(&mut F, &Layout, reply::Speaker) -> reply::Replied,
) {
    let Packet { layout, port, .. } = batch.packets[i];
    let from = context.snapshot.ports.get(usize::from(port)).and_then(|port| own(port, layout.v6));
    let Some(from) = from else {
        // Nobody to speak as.
        return batch.packets[i].drop(DropReason::NotAnswerable);
    };
    context.icmp_error(batch, i, |batch, mac| {
        make(&mut batch.frames[i], &layout, reply::Speaker { mac, from: Some(from) })
    });
}

fn own(port: &PortFacts, v6: bool) -> Option<IpAddr> {
    if v6 { port.ipv6.map(IpAddr::V6) } else { port.ipv4.map(IpAddr::V4) }
}

/// Whether a packet that is routed is one that the port sent itself.
pub(crate) fn is_loop<F: Frame>(batch: &Batch<F>, i: usize, snapshot: &Snapshot) -> bool {
    let source = batch.frames[i].data().get(6..).and_then(<[u8]>::first_chunk::<6>);
    source.is_some_and(|source| snapshot.ports.iter().any(|port| port.mac == *source))
}
