//! Stage 3: packets of no known connection. A new connection is scheduled; what cannot be one is answered as the original
//! or the host's own stack would, left to the host, or dropped for a reason.
//!
//! Order of the original (SPEC of IPVS admission): service by protocol, address and port; for TCP, if an FTP service is
//! there and the port is 20 or from 1024 on, the FTP service of that address; then the service of every port. TCP is
//! scheduled by a SYN without RST, UDP always; no service, or no connection and no SYN, is the local stack's: it resets
//! TCP and answers UDP with port unreachable. A service without a usable server answers port unreachable, TCP too.

mod unserved;

use crate::{
    app::{helper, sip},
    batch::{Batch, Kind, Lookup, Packet},
    command::WorkerShared,
    conn::{
        Connections, TableFull, destination_of,
        key::{Key4, Key6},
        lookup::{BatchKey, Followed, Picked, follow},
        sctp,
        table::Role,
        template::{self, Held, TemplateKey},
    },
    forward::{route, tunnel},
    fragments,
    index::Asked,
    limits::{ICMP_ERROR_BURST, ICMP_ERRORS_PER_SECOND},
    parse::mark_of,
    policy::Policies,
    port::Frame,
    rate::TokenBucket,
    scheduler::Opening,
    snapshot::{Destination, Method, Persistence, Presence, Service, Snapshot},
    time::Nanos,
    verdict::{Answer, DropReason, Verdict},
    wire::{protocol, tcp},
};
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
};

use unserved::{message, no_business, no_service, other, port_unreachable};

/// What every stage after the lookup works with.
pub struct Context<'a> {
    /// The time of this poll.
    pub now: Nanos,
    /// The configuration in force.
    pub snapshot: &'a Snapshot,
    /// Counters, and the queue of frames to learn from.
    pub shared: &'a WorkerShared,
    /// The budget of ICMP errors.
    pub errors: &'a mut TokenBucket,
}

impl Context<'_> {
    /// The budget that a worker starts with.
    pub fn error_budget() -> TokenBucket {
        TokenBucket::new(ICMP_ERRORS_PER_SECOND, ICMP_ERROR_BURST)
    }

    /// An ICMP error in place of frame `i`, if the budget has one.
    pub fn icmp_error<F: Frame>(
        &mut self,
        batch: &mut Batch<F>,
        i: usize,
        make: impl FnOnce(&mut Batch<F>, [u8; 6]) -> Result<Answer, DropReason>,
    ) {
        batch.packets[i].verdict = if self.errors.take(self.now) {
            self.answer(batch, i, make)
        } else {
            Verdict::Drop(DropReason::AnswerRateLimited)
        };
    }

    /// An answer in place of frame `i`, from the address of the port that it came in by.
    fn answer<F: Frame>(
        &self,
        batch: &mut Batch<F>,
        i: usize,
        make: impl FnOnce(&mut Batch<F>, [u8; 6]) -> Result<Answer, DropReason>,
    ) -> Verdict {
        let Some(port) = self.snapshot.ports.get(usize::from(batch.packets[i].port)) else {
            return Verdict::Drop(DropReason::PortGone);
        };
        match make(batch, port.mac) {
            Ok(answer) => Verdict::Answer(answer),
            Err(reason) => Verdict::Drop(reason),
        }
    }
}

/// Decides the packets that open a connection, or belong to none.
pub fn admit<F: Frame>(
    batch: &mut Batch<F>,
    misses: &Picked,
    v4: &mut Connections<Key4>,
    v6: &mut Connections<Key6>,
    context: &mut Context<'_>,
) {
    let (mut recent4, mut recent6) = (Recent::default(), Recent::default());
    v4.make_ready(misses.len());
    v6.make_ready(misses.len());
    for &i in misses {
        let i = usize::from(i);
        match batch.packets[i].lookup {
            Lookup::V4 => {
                let key = batch.packets[i].key4;
                flow(batch, i, &key, (v4, &mut recent4), context);
            }
            Lookup::V6 => {
                let key = batch.key6[i];
                flow(batch, i, &key, (v6, &mut recent6), context);
            }
            Lookup::None => batch.packets[i].verdict = other(batch, i, context),
        }
    }
}

/// What packets before in the batch have brought.
struct Recent<'a, K> {
    /// The connections that were made, by some bits of their hashes.
    made: [u64; 8],
    /// The last service that was asked for, and by which key.
    service: Option<(K, &'a Service)>,
}

impl<K> Default for Recent<'_, K> {
    fn default() -> Self {
        Self { made: [0; 8], service: None }
    }
}

impl<'a, K: Asked> Recent<'a, K> {
    fn add(&mut self, hash: u64) {
        self.made[(hash >> 38) as usize % 8] |= 1 << (hash >> 32 & 63);
    }

    /// Whether a connection with that hash may have been made. Of those that were not, one in eight at most seem to be.
    fn may_have(&self, hash: u64) -> bool {
        self.made[(hash >> 38) as usize % 8] >> (hash >> 32 & 63) & 1 != 0
    }

    /// The service that the key asks for, if the last one that was found is it.
    fn service(&self, key: &K) -> Option<&'a Service> {
        self.service.as_ref().filter(|(last, _)| last.asks_as(key)).map(|(_, service)| *service)
    }

    /// The service that the key asks for.
    #[inline(never)]
    fn find_service(&mut self, key: &K, snapshot: &'a Snapshot) -> Option<&'a Service> {
        let found = find_service(key, snapshot);
        self.service = found.map(|service| (*key, service));
        found
    }
}

/// The service that a packet is of by its mark.
#[inline]
fn of_mark<'a, K: Asked>(key: &K, port: u8, snapshot: &'a Snapshot) -> Option<&'a Service> {
    let mark = NonZeroU32::new(mark_of(key, port, snapshot))?;
    let number = snapshot.service_index.of_mark(mark.get(), key.virtual_service().is_ipv6())?;
    snapshot.services.get(number as usize)
}

/// A packet of a flow, or what goes with one, that no connection was found for.
#[inline]
fn flow<'a, K: Asked + BatchKey, F: Frame>(
    batch: &mut Batch<F>,
    i: usize,
    key: &K,
    (connections, recent): (&mut Connections<K>, &mut Recent<'a, K>),
    context: &mut Context<'a>,
) {
    let Packet { layout, hash, port, .. } = batch.packets[i];
    if !batch.packets[i].role.is_client() {
        if connections.table.get(batch.packets[i].entry).key == *key {
            return route::by_role(batch, i, connections, context);
        }
        // A packet before it in this batch has taken the place of its connection, which begins anew.
        batch.packets[i].role = Role::Direct;
    }
    if layout.kind == Kind::TunnelError {
        let entry = connections.table.find(key, hash).map(|entry| connections.table.get(entry));
        let entry = entry.filter(|entry| entry.role == Role::Tunnel);
        let destination = entry.and_then(|entry| destination_of(entry, context.snapshot));
        return tunnel::relay(batch, i, destination, context);
    }
    // A packet before it in this batch may have made the connection.
    if recent.may_have(hash)
        && let Some(entry) = connections.table.find(key, hash)
    {
        let (packet, key6) = (&mut batch.packets[i], &mut batch.key6[i]);
        match follow(connections, entry, packet, key6, (context.now, context.snapshot)) {
            Some(Followed::Destination) => return,
            Some(Followed::Drop(reason)) => return packet.drop(reason),
            Some(Followed::ByRole) => return route::by_role(batch, i, connections, context),
            None => {}
        }
    }
    let scheduled = layout.kind == Kind::IcmpError && context.snapshot.policies.schedule_icmp;
    let is_error = matches!(layout.kind, Kind::IcmpError | Kind::Ipsec);
    if (is_error && !scheduled) || layout.kind.is_echo() {
        return message(batch, i, key, (connections, recent), context);
    }
    if !context.snapshot.expectations.is_empty() && helper::expected(batch, i, key, connections, context) {
        return recent.add(hash);
    }
    let marked = of_mark(key, port, context.snapshot);
    let known = marked.or_else(|| recent.service(key));
    if known.is_none() && !key.is_ours(&context.snapshot.virtual_addresses) {
        return no_business(batch, i, key, (connections, recent), context);
    }
    if key.has_no_client(&context.snapshot.virtual_addresses) {
        return batch.packets[i].drop(DropReason::SourceInvalid);
    }
    if is_own(batch.frames[i].data(), port, context.snapshot) {
        return batch.packets[i].drop(DropReason::LoopDetected);
    }
    open(batch, i, key, (connections, recent), (known, scheduled), context);
}

/// A packet to a virtual address that is of no connection: it may open one. `known`: its service, if that was looked for.
/// `scheduled`: it does so though it is an ICMP error.
#[inline]
fn open<'a, K: Asked + BatchKey, F: Frame>(
    batch: &mut Batch<F>,
    i: usize,
    key: &K,
    (connections, recent): (&mut Connections<K>, &mut Recent<'a, K>),
    (known, scheduled): (Option<&'a Service>, bool),
    context: &mut Context<'a>,
) {
    let Packet { layout, hash, .. } = batch.packets[i];
    // Another worker may have had the first, which will come: what opens a connection by any packet need not wait for it.
    if layout.kind == Kind::Fragment && key.protocol() != protocol::UDP {
        return batch.packets[i].drop(DropReason::FragmentUnmatched);
    }
    let service = known.or_else(|| recent.find_service(key, context.snapshot));
    let may_open = match scheduled {
        true => key.ports().0 != FTP_DATA,
        false => opens(key, layout.event, &context.snapshot.policies),
    };
    let Some(service) = service.filter(|_| may_open) else {
        return match scheduled {
            true => batch.packets[i].verdict = other(batch, i, context),
            false => no_service(batch, i, key.protocol(), context),
        };
    };
    if connections.drops_new() {
        return batch.packets[i].drop(DropReason::DropPacket);
    }
    let opening = Opening { key, hash, now: context.now.ticks() };
    let (slot, template) = if is_one_packet(service, key) || service.persistence.is_some() {
        match special(batch, i, (service, &opening), context) {
            Some(chosen) => chosen,
            None => return,
        }
    } else {
        match service.scheduler.pick(&opening) {
            Some(slot) => (slot, Held::default()),
            None => return port_unreachable(batch, i, context),
        }
    };
    if !runs(slot, context.snapshot) {
        return give_back((slot, template), batch, i, DropReason::MethodPending, context);
    }
    let first_packet = (layout.event, layout.ip_len());
    let surroundings = (context.snapshot, &context.shared.stats);
    match connections.create((key, hash), (slot, template), first_packet, opening.now, surroundings) {
        Ok(entry) => {
            if scheduled {
                connections.has_no_packet(entry, opening.now, context.snapshot);
            }
            recent.add(hash);
            let role = connections.table.get(entry).role;
            if role == Role::Data {
                (batch.packets[i].role, batch.packets[i].entry) = (role, entry);
                return route::translated(batch, i, connections, context);
            }
            // The first packet of an FTP session says nothing yet.
            goes_to(&mut batch.packets[i], slot, if role == Role::Control { Role::Nat } else { role });
        }
        Err(TableFull) => give_back((slot, template), batch, i, DropReason::TableFull, context),
    }
}

/// Whether a packet makes no connection: datagrams of UDP alone, of whatever protocols the service of a mark has more.
#[inline]
fn is_one_packet<K: Asked>(service: &Service, key: &K) -> bool {
    service.one_packet && key.protocol() == protocol::UDP
}

/// Says where a packet goes, and how.
#[inline]
fn goes_to(packet: &mut Packet, slot: u32, role: Role) {
    (packet.destination, packet.role) = (slot, role);
}

/// Whether packets reach the destination in `slot` by its method.
#[inline]
fn runs(slot: u32, snapshot: &Snapshot) -> bool {
    let destination = snapshot.destinations.get(slot as usize);
    destination.is_some_and(|found| found.method != Method::Local || snapshot.exception_path)
}

/// Where a packet goes that would open a connection to a service that does not only schedule: its clients stay with their
/// servers, or its datagrams make no connections. `None`: the packet is decided.
#[inline(never)]
fn special<K: Asked, F: Frame>(
    batch: &mut Batch<F>,
    i: usize,
    (service, opening): (&Service, &Opening<'_, K>),
    context: &mut Context<'_>,
) -> Option<(u32, Held)> {
    let one_packet = is_one_packet(service, opening.key);
    if one_packet && batch.packets[i].layout.kind == Kind::Fragment {
        later_fragment(batch, i, context);
        return None;
    }
    let picked = match &service.persistence {
        None => service.scheduler.pick(opening).map(|slot| (slot, Held::default())),
        Some(persistence) if persistence.by_call => {
            let packet = (batch.frames[i].data(), &batch.packets[i].layout);
            let Some(call_id) = sip::call_id_of(packet, opening.key.protocol()) else {
                batch.packets[i].drop(DropReason::NoCallId);
                return None;
            };
            stay(service, (persistence, call_id), opening, context)
        }
        Some(persistence) => stay(service, (persistence, &[]), opening, context),
    };
    let Some((slot, template)) = picked else {
        port_unreachable(batch, i, context);
        return None;
    };
    let destination = context.snapshot.destinations.get(slot as usize);
    let Some(destination) = destination.filter(|_| one_packet && runs(slot, context.snapshot)) else {
        return Some((slot, template));
    };
    release(slot, template, context);
    if let Some(counters) = context.shared.stats.destinations.get(slot as usize) {
        counters.connections.add(1);
    }
    goes_to(&mut batch.packets[i], slot, destination.method.into());
    if let Some((datagram, true)) = fragments::datagram(batch.frames[i].data(), &batch.packets[i].layout) {
        context.snapshot.fragments.choose(&datagram, (slot, destination.generation));
    }
    None
}

/// A later fragment of a service without connections goes where the first of its datagram went, or nowhere.
#[cold]
fn later_fragment<F: Frame>(batch: &mut Batch<F>, i: usize, context: &Context<'_>) {
    let packet = &mut batch.packets[i];
    let chosen = fragments::datagram(batch.frames[i].data(), &packet.layout)
        .and_then(|(datagram, _)| context.snapshot.fragments.chosen(&datagram, context.now));
    let destination = chosen.and_then(|(slot, generation)| {
        let is_it =
            |found: &&Destination| found.generation == generation && found.presence == Presence::Present;
        Some((slot, context.snapshot.destinations.get(slot as usize).filter(is_it)?))
    });
    match destination {
        Some((slot, destination)) => goes_to(packet, slot, destination.method.into()),
        None => packet.drop(DropReason::FragmentUnmatched),
    }
}

/// There is no connection after all, which would hold the template.
#[cold]
fn give_back<F: Frame>(
    (slot, template): (u32, Held),
    batch: &mut Batch<F>,
    i: usize,
    reason: DropReason,
    context: &Context<'_>,
) {
    release(slot, template, context);
    batch.packets[i].drop(reason);
}

fn release(slot: u32, template: Held, context: &Context<'_>) {
    let generation = context.snapshot.destinations.get(slot as usize).map_or(0, |found| found.generation);
    context.snapshot.templates.release(template, (slot, generation), context.now.ticks());
}

/// Where a new connection of a persistent service goes: to the server that its client, or the client's call, stays with, if that is still
/// configured, be it quiesced or overloaded; else to the one that the scheduler picks.
fn stay<K: Asked>(
    service: &Service,
    (persistence, call_id): (&Persistence, &[u8]),
    opening: &Opening<'_, K>,
    context: &Context<'_>,
) -> Option<(u32, Held)> {
    let snapshot = context.snapshot;
    let (client, target) = (opening.key.client(), opening.key.virtual_service());
    // All ports of a client go where its first went, and an FTP client's data where its commands went; an FTP service and
    // one of every port share their templates, as with the original.
    let to_all_ports = service.key.is_none_or(|key| key.port == 0 || key.port == FTP);
    // A mark takes the place of address and port; its packets may be of any protocol.
    let (protocol, address) = match service.mark {
        Some(mark) if target.is_ipv6() => (0, Ipv6Addr::from_bits(u128::from(mark.get()) << 96).into()),
        Some(mark) => (0, Ipv4Addr::from_bits(mark.get()).into()),
        None => (opening.key.protocol(), target.ip()),
    };
    let key = TemplateKey {
        protocol,
        client: template::network(client.ip(), persistence.prefix),
        address,
        port: if to_all_ports { 0 } else { target.port() },
    };
    let destination = |slot: u32| snapshot.destinations.get(slot as usize);
    let quiescent_ends = snapshot.policies.expire_quiescent_template;
    let is_usable = |slot, generation| {
        destination(slot).is_some_and(|found| {
            found.generation == generation
                && found.presence == Presence::Present
                && !(quiescent_ends && found.shared.weight() == 0)
        })
    };
    let pick = || {
        let slot = service.scheduler.pick(opening)?;
        let found = destination(slot)?;
        Some(template::Picked { slot, generation: found.generation, shared: found.shared.clone() })
    };
    snapshot.templates.follow_call(&key, call_id, (opening.now, persistence.timeout), is_usable, pick)
}

/// Whether the packet may open a connection: nothing from the FTP data port; TCP by a SYN without RST, SCTP by INIT, unless
/// the policies are sloppy.
#[inline]
fn opens<K: Asked>(key: &K, event: u8, policies: &Policies) -> bool {
    let opens = match key.protocol() {
        protocol::TCP if policies.sloppy_tcp => event & tcp::RST == 0,
        protocol::TCP => event & (tcp::SYN | tcp::RST) == tcp::SYN,
        protocol::SCTP => sctp::Event::from_u8(event).opens(policies.sloppy_sctp),
        _ => true,
    };
    opens && key.ports().0 != FTP_DATA
}

const FTP: u16 = 21;
const FTP_DATA: u16 = 20;

#[inline]
fn find_service<'a, K: Asked>(key: &K, snapshot: &'a Snapshot) -> Option<&'a Service> {
    let (_, port) = key.ports();
    let find = |port| {
        key.service(&snapshot.service_index, port).and_then(|number| snapshot.services.get(number as usize))
    };
    let may_be_ftp_data = key.protocol() == protocol::TCP && (port == FTP_DATA || port >= 1024);
    // Only a persistent FTP service takes its clients' data connections: another would open every port of its servers.
    let ftp = || find(FTP).filter(|service| service.persistence.is_some());
    find(port).or_else(|| may_be_ftp_data.then(ftp).flatten()).or_else(|| find(0))
}

/// Whether the port sent the frame itself: it has come back.
#[inline]
fn is_own(frame: &[u8], port: u8, snapshot: &Snapshot) -> bool {
    let source = frame.get(6..).and_then(<[u8]>::first_chunk::<6>);
    snapshot.ports.get(usize::from(port)).zip(source).is_some_and(|(port, source)| port.mac == *source)
}
