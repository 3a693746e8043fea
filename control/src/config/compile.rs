//! From a configuration to what workers run.
//!
//! The compiler keeps what outlives a change: the slots of destinations with their connection counts, the places of
//! schedulers, and the next hops with what is known of their neighbours.

mod local;
mod rules;
mod ways;

use self::rules::{marks, own_timeouts, source_nat, timeouts};
use super::{
    model::{Configuration, Engine, Method, Server, Service, ServiceKey, ServiceTimeouts, Timeouts},
    next_hops::NextHops,
    published::Published,
    slots::{DestinationKey, Moment, Slot, Slots},
    tunnels::{self, Tunnels},
};
use crate::{
    kernel::Network,
    refusal::{Code, Refusal},
};
pub use local::{is_local, local_addresses, pending};
use pointsman_dataplane::{
    app::expected::Expectations,
    conn::template::Templates,
    forward::nat::Ends,
    fragments::tracker::Fragments,
    index,
    limits::{MAX_DESTINATIONS, MAX_FRAGMENTED, MAX_TEMPLATES},
    on_link::OnLink,
    scheduler::{Candidate, Flags, Rule, Scheduler},
    snapshot::{self, Destination, Encapsulation, NeighborState, NextHop, Presence, Snapshot},
    stats::DestinationShared,
    time::{Nanos, Ticks},
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};
use ways::Ways;

/// Compiles one generation after the other. What a change leaves alone is taken over from the generation before.
#[derive(Debug)]
pub struct Compiler {
    slots: Slots,
    next_hops: NextHops,
    /// The services of the last generation.
    services: HashMap<ServiceKey, Compiled>,
    /// The destinations by slot, as they are to be next.
    destinations: Vec<Destination>,
    /// What the connections of each of them may need.
    made_by: Vec<MadeBy>,
    /// The slots whose connections need what new ones do not.
    kept: BTreeSet<u32>,
    published: Published,
    tunnels: Tunnels,
    ways: Ways,
    templates: Arc<Templates>,
    fragments: Arc<Fragments>,
    expectations: Arc<Expectations>,
    on_link: Arc<OnLink>,
    /// Of the last generation, as all services have them.
    timeouts: Timeouts,
    /// The network of the last generation.
    network: Network,
    /// The addresses of this machine in it.
    host_addresses: index::Addresses,
    /// The slots that the last generation changed.
    touched: Vec<u32>,
}

#[derive(Debug)]
struct Compiled {
    source: Arc<Service>,
    scheduler: Scheduler,
    /// Whether the director itself is one of its servers, or was one and has connections.
    local: bool,
    /// Its NATed servers, likewise.
    nat: Vec<snapshot::ServiceKey>,
    /// Those of its connections, if it has some of its own.
    timeouts: Option<Arc<snapshot::Timeouts>>,
}

/// What a change that is made of several did on the way, as far as the result does not show it.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    /// Services that were deleted and added again: nothing of the old ones goes on.
    pub reborn: HashSet<ServiceKey>,
    /// What services were between the changes, in order. The places of schedulers are carried from one to the next.
    pub between: HashMap<ServiceKey, Vec<Arc<Service>>>,
}

/// What a configuration changes.
#[derive(Default)]
struct Difference {
    /// Services that are new or not what they were.
    changed: Vec<Arc<Service>>,
    /// Services that are there no more, or begin anew.
    ended: HashSet<ServiceKey>,
    /// Destinations that are there no more, or begin anew.
    leaving: Vec<DestinationKey>,
    /// The destinations of `changed`.
    wanted: Vec<DestinationKey>,
}

impl Default for Compiler {
    fn default() -> Self {
        Self::new(MAX_DESTINATIONS)
    }
}

impl Compiler {
    /// For at most `slots` destinations, removed ones with connections included.
    pub fn new(slots: usize) -> Self {
        Self {
            slots: Slots::new(slots),
            next_hops: NextHops::default(),
            services: HashMap::new(),
            destinations: Vec::new(),
            made_by: Vec::new(),
            kept: BTreeSet::new(),
            published: Published::default(),
            tunnels: Tunnels::default(),
            ways: Ways::default(),
            templates: Arc::new(Templates::new(MAX_TEMPLATES)),
            fragments: Arc::new(Fragments::new(MAX_FRAGMENTED)),
            expectations: Arc::default(),
            on_link: Arc::default(),
            timeouts: Timeouts::default(),
            network: Network::default(),
            host_addresses: index::Addresses::default(),
            touched: Vec::new(),
        }
    }

    /// The slots, for whoever counts by slot.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The stations on the links that workers route packets to.
    pub fn on_link(&self) -> &Arc<OnLink> {
        &self.on_link
    }

    /// The services with servers for whose connections something is kept though they have none: the next generation is
    /// without.
    pub fn kept_in_vain(&self) -> impl Iterator<Item = ServiceKey> {
        let slots = self.kept.iter().filter_map(|number| self.slots.all().get(*number as usize));
        let is_over = |slot: &&Slot| slot.presence == Presence::Present && !slot.shared.has_connections();
        slots.filter(is_over).map(|slot| slot.key.service)
    }

    /// The services of the last generation that have the director itself as a server, or had it and may have connections to
    /// it.
    pub fn local_services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().filter(|compiled| compiled.local).map(|compiled| compiled.source.as_ref())
    }

    /// Templates of persistent clients that gave way for want of room.
    pub fn templates_that_gave_way(&self) -> u64 {
        self.templates.gave_way()
    }

    /// The slots that the last generation changed, with their numbers.
    pub fn touched(&self) -> impl Iterator<Item = (usize, &Slot)> {
        let slot = |number: &u32| Some((*number as usize, self.slots.all().get(*number as usize)?));
        self.touched.iter().filter_map(slot)
    }

    /// Whether there is room for a configuration.
    pub fn check(&self, configuration: &Configuration, steps: &Steps, at: Moment) -> Result<(), Refusal> {
        let Difference { ended, wanted, .. } = self.difference(configuration, steps, false);
        match self.slots.missing(&wanted, &ended, at) {
            0 => Ok(()),
            missing => Err(Refusal::new(
                Code::Capacity,
                "services",
                format!("no room for {missing} of the servers: removed ones still have connections"),
                "wait until they have ended, or remove servers",
            )),
        }
    }

    /// Compiles a configuration that [`Compiler::check`] has found room for.
    pub fn compile(&mut self, configuration: &Configuration, network: &Network, at: Moment) -> Snapshot {
        self.compile_steps(configuration, &Steps::default(), network, at)
    }

    /// The same for a change that was made in steps.
    pub fn compile_steps(
        &mut self,
        configuration: &Configuration,
        steps: &Steps,
        network: &Network,
        at: Moment,
    ) -> Snapshot {
        // Other routes may lead every destination elsewhere.
        let rerouted = self.network != *network;
        if rerouted {
            self.network = network.clone();
            self.host_addresses = network.host_addresses.iter().copied().collect();
        }
        let difference = self.difference(configuration, steps, rerouted);
        self.timeouts = configuration.timeouts.clone();
        self.next_hops.begin(rerouted);
        let mut hops = self.hops_of(&difference);
        self.slots.assign(&difference.leaving, &difference.ended, &difference.wanted, at);
        let mut old: Vec<Compiled> =
            difference.ended.iter().filter_map(|key| self.services.remove(key)).collect();
        self.touched = self.slots.take_touched();
        let mut changed = self.empty_touched();
        for service in &difference.changed {
            old.extend(self.compile_service(service, steps, at.now, &mut changed));
        }
        if rerouted {
            hops.extend(self.ways.reroute(&self.network, &mut self.next_hops, at.now));
        }
        old.iter().for_each(|old| self.ways.release(&old.nat));
        hops.into_iter().for_each(|hop| self.next_hops.release(hop, at.now));
        if !changed.is_empty() {
            self.published.publish(&self.destinations, changed);
            self.tunnels.keep(&self.destinations);
        }
        let (services, service_index) = self.services_of(configuration);
        Snapshot {
            generation: at.generation,
            ports: network.ports.iter().map(|port| port.facts()).collect(),
            virtual_addresses: configuration.addresses_up().into_iter().collect(),
            host_addresses: self.host_addresses.clone(),
            // Whoever publishes it knows.
            exception_path: false,
            routing: self.ways.end(configuration.forwarding, source_nat(configuration, network)),
            marks: marks(configuration, network),
            policies: configuration.policies,
            services,
            service_index,
            destinations: self.published.last(),
            next_hops: self.next_hops.end(),
            templates: self.templates.clone(),
            fragments: self.fragments.clone(),
            expectations: self.expectations.clone(),
            on_link: self.on_link.clone(),
            paths: self.tunnels.paths(),
            timeouts: timeouts(&configuration.timeouts),
        }
    }

    /// The services of a configuration, by number.
    fn services_of(&self, configuration: &Configuration) -> (Box<[snapshot::Service]>, index::Services) {
        let mut services = Vec::with_capacity(configuration.services.len());
        let mut service_index = index::Services::default();
        for service in &configuration.services {
            let Some(compiled) = self.services.get(&service.key) else { continue };
            // At most MAX_SERVICES: the index fits.
            let number = services.len() as u32;
            let (key, mark) = match service.key {
                ServiceKey::Address { protocol, address, port } => {
                    let key = snapshot::ServiceKey { protocol: protocol as u8, address, port };
                    service_index.insert(key, number);
                    (Some(key), None)
                }
                ServiceKey::Mark { mark, ipv6 } => {
                    service_index.insert_mark((mark.get(), ipv6), number);
                    (None, Some(mark))
                }
            };
            let persistence = service.persistence.map(|persistence| snapshot::Persistence {
                timeout: Ticks::from_secs(persistence.seconds.get()),
                prefix: persistence.prefix,
                by_call: service.engine == Some(Engine::Sip),
            });
            let (scheduler, one_packet) = (compiled.scheduler.clone(), service.one_packet);
            services.push(snapshot::Service { key, mark, persistence, one_packet, scheduler });
        }
        (services.into(), service_index)
    }

    /// What is to be compiled anew; `all`: every service.
    fn difference(&self, configuration: &Configuration, steps: &Steps, all: bool) -> Difference {
        let mut difference = Difference { ended: steps.reborn.clone(), ..Difference::default() };
        let there: HashSet<&ServiceKey> = configuration.services.iter().map(|service| &service.key).collect();
        for (key, compiled) in &self.services {
            if !there.contains(key) {
                difference.ended.insert(*key);
            }
            if difference.ended.contains(key) {
                difference.leaving.extend(destinations(&compiled.source));
            }
        }
        let retimed = self.timeouts != configuration.timeouts;
        let over: HashSet<ServiceKey> = self.kept_in_vain().collect();
        for service in &configuration.services {
            let old = self.services.get(&service.key).filter(|_| !difference.ended.contains(&service.key));
            let anew = all
                || over.contains(&service.key)
                || (retimed && service.timeouts != ServiceTimeouts::default());
            if old.is_some_and(|old| Arc::ptr_eq(&old.source, service)) && !anew {
                continue;
            }
            if let Some(old) = old {
                let stays: HashSet<DestinationKey> = destinations(service).collect();
                difference.leaving.extend(destinations(&old.source).filter(|key| !stays.contains(key)));
            }
            difference.wanted.extend(destinations(service));
            difference.changed.push(service.clone());
        }
        difference
    }

    /// The next hops that are in use by what changes, as often as they are.
    fn hops_of(&self, difference: &Difference) -> Vec<u32> {
        let changed = difference.changed.iter().map(|service| &service.key);
        let known = changed.filter(|key| !difference.ended.contains(*key)).chain(&difference.ended);
        let old = known.filter_map(|key| self.services.get(key));
        let hop = |key| Some(self.destinations.get(self.slots.find(&key)? as usize)?.next_hop);
        old.flat_map(|old| destinations(&old.source)).filter_map(hop).collect()
    }

    /// Makes the destinations of the slots that have changed as if nothing used them; returns their numbers.
    fn empty_touched(&mut self) -> Vec<u32> {
        let slots = self.slots.all();
        let new = slots.get(self.destinations.len()..).unwrap_or_default();
        self.destinations.extend(new.iter().map(empty));
        self.made_by.resize(slots.len(), MadeBy::default());
        for number in &self.touched {
            let number = *number as usize;
            if let (Some(destination), Some(slot)) = (self.destinations.get_mut(number), slots.get(number)) {
                // It may have connections, and come back.
                let keeps = destination.generation == slot.generation
                    && matches!(slot.presence, Presence::Present | Presence::Removed);
                let tunnel = destination.tunnel.take().filter(|_| keeps);
                let timeouts = destination.timeouts.take().filter(|_| keeps);
                let new = empty(slot);
                let (port, ends) =
                    if keeps { (destination.port, destination.ends) } else { (new.port, new.ends) };
                *destination = Destination { tunnel, timeouts, port, ends, ..new };
                if let Some(made_by) = self.made_by.get_mut(number).filter(|_| !keeps) {
                    *made_by = MadeBy::default();
                }
                // Of a removed one nothing more is given up; it is looked at when it comes back.
                self.kept.remove(&(number as u32));
            }
        }
        self.touched.clone()
    }

    /// Returns what the service was before, and adds the destinations that have changed besides their slots.
    fn compile_service(
        &mut self,
        service: &Arc<Service>,
        steps: &Steps,
        now: Nanos,
        changed: &mut Vec<u32>,
    ) -> Option<Compiled> {
        let (mut local, mut nat) = (false, Vec::new());
        let known = self.services.get(&service.key).and_then(|known| known.timeouts.clone());
        let timeouts = own_timeouts(&self.timeouts, &service.timeouts, known);
        let mut candidates = Vec::with_capacity(service.servers.len());
        for (server, key) in service.servers.iter().zip(destinations(service)) {
            let Some(number) = self.slots.find(&key) else { continue };
            // A persistent service of every port leaves packets the port that their clients asked for.
            let keeps_ports = service.persistence.is_some() && service.key.port() == 0;
            let port = if keeps_ports { 0 } else { server.port };
            let Some((made_by, is_changed)) = self.compile_server(number, server, (&timeouts, port), now)
            else {
                continue;
            };
            if is_changed {
                changed.push(number);
            }
            if made_by.has(snapshot::Method::Nat) {
                nat.push(real_service(&service.key, server));
            }
            local |= made_by.has(snapshot::Method::Local);
            let Some(destination) = self.destinations.get(number as usize) else { continue };
            candidates.push(Candidate {
                slot: number,
                generation: destination.generation,
                server: server.socket(),
                weight: server.weight.get(),
                settings: self.settings(server),
                shared: destination.shared.clone(),
            });
        }
        let previous = self.after_steps(&service.key, steps.between.get(&service.key));
        let scheduler = Scheduler::compile(rule(service), candidates, previous.as_ref());
        self.ways.add(&nat);
        let compiled = Compiled { source: service.clone(), scheduler, local, nat, timeouts };
        self.services.insert(service.key, compiled)
    }

    /// Compiles the destination in a slot. Returns by which methods it may have connections, and whether workers must hear of a
    /// change.
    fn compile_server(
        &mut self,
        number: u32,
        server: &Server,
        (timeouts, wanted_port): (&Option<Arc<snapshot::Timeouts>>, u16),
        now: Nanos,
    ) -> Option<(MadeBy, bool)> {
        let destination = self.destinations.get_mut(number as usize)?;
        let made_by = self.made_by.get_mut(number as usize)?;
        destination.shared.set_thresholds(server.upper_threshold, server.lower_threshold);
        let is_ours = self.host_addresses.contains(&server.address);
        let method = method(server, is_ours);
        let is_known = made_by.methods != 0;
        // A worker may still be making connections by the method before.
        if destination.method == method && !destination.shared.has_connections() {
            *made_by = MadeBy::default();
        }
        made_by.add(method, server.method);
        // NAT goes by the port of the destination: while there are connections, that stays what it is.
        let stays = is_known && destination.shared.has_connections();
        let port = if stays { destination.port } else { wanted_port };
        match made_by.is_only(method) && port == wanted_port {
            true => self.kept.remove(&number),
            false => self.kept.insert(number),
        };
        let known = destination.tunnel.take();
        let encapsulation = made_by.encapsulation.filter(|_| !is_ours);
        let tunnel = encapsulation.and_then(|encapsulation| {
            self.tunnels.to(server.address, encapsulation, &self.network, known.as_ref())
        });
        let rewrapped = known.as_ref().map(Arc::as_ptr) != tunnel.as_ref().map(Arc::as_ptr);
        let next_hop = match (method, &tunnel) {
            _ if is_ours => Destination::NO_ROUTE,
            // Without an address of ours on the way of a tunnel there is none.
            (snapshot::Method::Local, _) | (snapshot::Method::Tunnel, None) if made_by.is_only(method) => {
                Destination::NO_ROUTE
            }
            _ => self.next_hops.towards(server.address, &self.network, now),
        };
        let retimed = destination.timeouts.as_ref().map(Arc::as_ptr) != timeouts.as_ref().map(Arc::as_ptr);
        destination.timeouts.clone_from(timeouts);
        let found = (method, next_hop, tunnel);
        let rerouted =
            (destination.method, destination.next_hop, destination.port) != (found.0, found.1, port);
        if destination.port != port {
            destination.port = port;
            destination.ends = Ends::new((server.address, port), destination.virtual_service);
        }
        (destination.method, destination.next_hop, destination.tunnel) = found;
        Some((*made_by, rewrapped || retimed || rerouted))
    }

    /// What of a server schedulers ask whether it has changed.
    fn settings(&self, server: &Server) -> (u32, u32, snapshot::Method) {
        let is_ours = self.host_addresses.contains(&server.address);
        (server.upper_threshold, server.lower_threshold, method(server, is_ours))
    }

    /// A service's scheduler after the steps before the last one.
    fn after_steps(&self, key: &ServiceKey, steps: Option<&Vec<Arc<Service>>>) -> Option<Scheduler> {
        let mut scheduler = self.services.get(key).map(|known| known.scheduler.clone());
        // Servers that came and went on the way have no slot: here they need but be told apart.
        let mut passing: HashMap<DestinationKey, Arc<DestinationShared>> = HashMap::new();
        for step in steps.into_iter().flatten() {
            let candidate = |server: &Server| {
                let key = DestinationKey { service: *key, address: server.address, port: server.port };
                let slot = self.slots.find(&key);
                let known = slot.and_then(|slot| self.slots.all().get(slot as usize));
                let shared = match known {
                    Some(known) => known.shared.clone(),
                    None => passing.entry(key).or_default().clone(),
                };
                Candidate {
                    slot: slot.unwrap_or(u32::MAX),
                    generation: known.map_or(0, |known| known.generation),
                    server: server.socket(),
                    weight: server.weight.get(),
                    settings: self.settings(server),
                    shared,
                }
            };
            let candidates = step.servers.iter().map(candidate).collect();
            scheduler = Some(Scheduler::compile(rule(step), candidates, scheduler.as_ref()));
        }
        scheduler
    }
}

/// The methods by which a destination may have connections: each keeps that which it was made by.
#[derive(Clone, Copy, Debug, Default)]
struct MadeBy {
    /// As bits by their numbers.
    methods: u8,
    /// That of the last tunnel.
    encapsulation: Option<Encapsulation>,
}

impl MadeBy {
    /// That which new connections are made by, and what was asked for.
    fn add(&mut self, method: snapshot::Method, asked: Method) {
        self.methods |= 1 << method as u8;
        if let Method::Tunnel(kind) = asked {
            self.encapsulation = Some(tunnels::encapsulation(kind));
        }
    }

    fn has(self, method: snapshot::Method) -> bool {
        self.methods & 1 << method as u8 != 0
    }

    fn is_only(self, method: snapshot::Method) -> bool {
        self.methods == 1 << method as u8
    }
}

/// A destination without what only a configured one has.
fn empty(slot: &Slot) -> Destination {
    let virtual_service = slot.key.service.address().map(|address| (address, slot.key.service.port()));
    Destination {
        generation: slot.generation,
        presence: slot.presence,
        address: slot.key.address,
        port: slot.key.port,
        virtual_service,
        ends: Ends::new((slot.key.address, slot.key.port), virtual_service),
        method: snapshot::Method::Direct,
        next_hop: Destination::NO_ROUTE,
        tunnel: None,
        timeouts: None,
        shared: slot.shared.clone(),
    }
}

/// A server of a service as packets from it are known.
fn real_service(service: &ServiceKey, server: &Server) -> snapshot::ServiceKey {
    let protocol = match service {
        ServiceKey::Address { protocol, .. } => *protocol as u8,
        ServiceKey::Mark { .. } => 0,
    };
    snapshot::ServiceKey { protocol, address: server.address, port: server.port }
}

fn destinations(service: &Service) -> impl Iterator<Item = DestinationKey> {
    let of =
        |server: &Server| DestinationKey { service: service.key, address: server.address, port: server.port };
    service.servers.iter().map(of)
}

/// How packets reach a server; `is_ours`: its address is this machine's.
fn method(server: &Server, is_ours: bool) -> snapshot::Method {
    match server.method {
        _ if is_ours => snapshot::Method::Local,
        Method::Direct => snapshot::Method::Direct,
        Method::Nat => snapshot::Method::Nat,
        Method::Tunnel(_) => snapshot::Method::Tunnel,
        Method::Local => snapshot::Method::Local,
    }
}

fn rule(service: &Service) -> Rule {
    let many_addresses = matches!(service.key, ServiceKey::Mark { .. });
    let flags = Flags { fallback: service.flags.fallback(), port: service.flags.port() };
    Rule { kind: service.scheduler, flags, many_addresses }
}

impl Compiler {
    /// The addresses of this machine: servers at them are local ones, whatever was asked for.
    pub fn host_addresses(&self) -> &index::Addresses {
        &self.host_addresses
    }

    /// The next hops that destinations and routes use, for whoever resolves them.
    pub fn next_hops(&self) -> impl Iterator<Item = &NextHop> {
        self.next_hops.used()
    }

    /// Whether the station that packets to the destination in a slot go to was asked for and does not answer.
    pub fn is_silent(&self, slot: u32) -> bool {
        let destination = self.destinations.get(slot as usize);
        let hop = destination.and_then(|destination| self.next_hops.get(destination.next_hop));
        hop.is_some_and(|hop| hop.cell.get() == NeighborState::Failed)
    }

    /// Whether the last generation changed them, or their ports.
    pub fn next_hops_moved(&self) -> bool {
        self.next_hops.moved
    }
}

#[cfg(test)]
mod tests;
