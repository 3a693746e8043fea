//! From a configuration to what workers run.
//!
//! The compiler keeps what outlives a change: the slots of destinations with their connection counts, the places of
//! schedulers, and the next hops with what is known of their neighbours.

use super::{
    model::{Configuration, Method, Protocol, Server, Service, ServiceKey, Timeouts},
    next_hops::NextHops,
    slots::{DestinationKey, Moment, Slot, Slots},
    tunnels::Tunnels,
};
use crate::{
    kernel::Network,
    refusal::{Code, Refusal},
};
use pointsman_dataplane::{
    conn::template::Templates,
    index,
    limits::{MAX_DESTINATIONS, MAX_TEMPLATES},
    scheduler::{Candidate, Flags, Rule, Scheduler},
    snapshot::{self, Destination, NextHop, Snapshot},
    stats::DestinationShared,
    time::{Nanos, Ticks},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Compiles one generation after the other. What a change leaves alone is taken over from the generation before.
#[derive(Debug)]
pub struct Compiler {
    slots: Slots,
    next_hops: NextHops,
    /// The services of the last generation.
    services: HashMap<ServiceKey, Compiled>,
    /// The destinations by slot, as they are to be next.
    destinations: Vec<Destination>,
    /// As they were published last.
    published: Arc<[Destination]>,
    tunnels: Tunnels,
    templates: Arc<Templates>,
    /// The network of the last generation.
    network: Network,
    /// The slots that the last generation changed.
    touched: Vec<u32>,
}

#[derive(Debug)]
struct Compiled {
    source: Arc<Service>,
    scheduler: Scheduler,
    pending: bool,
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
            published: Arc::default(),
            tunnels: Tunnels::default(),
            templates: Arc::new(Templates::new(MAX_TEMPLATES)),
            network: Network::default(),
            touched: Vec::new(),
        }
    }

    /// The slots, for whoever counts by slot.
    pub fn slots(&self) -> &Slots {
        &self.slots
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
        }
        let difference = self.difference(configuration, steps, rerouted);
        self.next_hops.begin(rerouted);
        let hops = self.hops_of(&difference);
        self.slots.assign(&difference.leaving, &difference.ended, &difference.wanted, at);
        difference.ended.iter().for_each(|key| drop(self.services.remove(key)));
        self.touched = self.slots.take_touched();
        let mut moved = self.empty_touched();
        for service in &difference.changed {
            moved |= self.compile_service(service, steps, at.now);
        }
        hops.into_iter().for_each(|hop| self.next_hops.release(hop, at.now));
        if moved {
            self.published = self.destinations.iter().cloned().collect();
            self.tunnels.keep(&self.destinations);
        }
        let mut services = Vec::with_capacity(configuration.services.len());
        let mut service_index = index::Services::default();
        for service in &configuration.services {
            let Some(compiled) = self.services.get(&service.key) else { continue };
            let key = packets(&service.key);
            if let Some(key) = key {
                // At most MAX_SERVICES: the index fits.
                service_index.insert(key, services.len() as u32);
            }
            let (scheduler, pending) = (compiled.scheduler.clone(), compiled.pending);
            let persistence = service.persistence.map(|persistence| snapshot::Persistence {
                timeout: Ticks::from_secs(persistence.seconds.get()),
                prefix: persistence.prefix,
            });
            let one_packet = service.one_packet;
            services.push(snapshot::Service { key, persistence, one_packet, scheduler, pending });
        }
        Snapshot {
            generation: at.generation,
            ports: network.ports.iter().map(|port| port.facts()).collect(),
            virtual_addresses: configuration.addresses_up().into_iter().collect(),
            host_addresses: network.host_addresses.iter().copied().collect(),
            routing: Arc::default(),
            marks: Default::default(),
            policies: Default::default(),
            services: services.into(),
            service_index,
            destinations: self.published.clone(),
            next_hops: self.next_hops.end(),
            templates: self.templates.clone(),
            paths: self.tunnels.paths(),
            timeouts: timeouts(&configuration.timeouts),
        }
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
        for service in &configuration.services {
            let old = self.services.get(&service.key).filter(|_| !difference.ended.contains(&service.key));
            if old.is_some_and(|old| Arc::ptr_eq(&old.source, service)) && !all {
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

    /// Makes the destinations of the slots that have changed as if nothing used them; says whether there are any.
    fn empty_touched(&mut self) -> bool {
        let slots = self.slots.all();
        let new = slots.get(self.destinations.len()..).unwrap_or_default();
        self.destinations.extend(new.iter().map(empty));
        for number in &self.touched {
            let number = *number as usize;
            if let (Some(destination), Some(slot)) = (self.destinations.get_mut(number), slots.get(number)) {
                *destination = empty(slot);
            }
        }
        !self.touched.is_empty()
    }

    /// Says whether a destination has changed besides its slot.
    fn compile_service(&mut self, service: &Arc<Service>, steps: &Steps, now: Nanos) -> bool {
        let mut moved = false;
        let mut candidates = Vec::with_capacity(service.servers.len());
        for (server, key) in service.servers.iter().zip(destinations(service)) {
            let Some(number) = self.slots.find(&key) else { continue };
            let Some(destination) = self.destinations.get_mut(number as usize) else { continue };
            let shared = destination.shared.clone();
            shared.set_thresholds(server.upper_threshold, server.lower_threshold);
            let known = destination.tunnel.take();
            let tunnel = self.tunnels.to(server, &self.network, known.as_ref());
            let rewrapped = known.as_ref().map(Arc::as_ptr) != tunnel.as_ref().map(Arc::as_ptr);
            let next_hop = match (server.method, &tunnel) {
                // Without an address of ours on the way there is none.
                (Method::Tunnel(_), None) => Destination::NO_ROUTE,
                _ => self.next_hops.towards(server.address, &self.network, now),
            };
            let found = (method(server.method), next_hop, tunnel);
            moved |= rewrapped || (destination.method, destination.next_hop) != (found.0, found.1);
            (destination.method, destination.next_hop, destination.tunnel) = found;
            candidates.push(Candidate {
                slot: number,
                generation: destination.generation,
                server: server.socket(),
                weight: server.weight.get(),
                shared,
            });
        }
        let previous = self.after_steps(&service.key, steps.between.get(&service.key));
        let scheduler = Scheduler::compile(rule(service), candidates, previous.as_ref());
        let compiled = Compiled { source: service.clone(), scheduler, pending: is_pending(service) };
        self.services.insert(service.key, compiled);
        moved
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
                    shared,
                }
            };
            let candidates = step.servers.iter().map(candidate).collect();
            scheduler = Some(Scheduler::compile(rule(step), candidates, scheduler.as_ref()));
        }
        scheduler
    }
}

/// A destination without what only a configured one has.
fn empty(slot: &Slot) -> Destination {
    Destination {
        generation: slot.generation,
        presence: slot.presence,
        address: slot.key.address,
        port: slot.key.port,
        virtual_service: slot.key.service.address().map(|address| (address, slot.key.service.port())),
        method: snapshot::Method::Direct,
        next_hop: Destination::NO_ROUTE,
        tunnel: None,
        timeouts: None,
        shared: slot.shared.clone(),
    }
}

fn destinations(service: &Service) -> impl Iterator<Item = DestinationKey> {
    let of =
        |server: &Server| DestinationKey { service: service.key, address: server.address, port: server.port };
    service.servers.iter().map(of)
}

fn packets(key: &ServiceKey) -> Option<snapshot::ServiceKey> {
    match *key {
        ServiceKey::Address { protocol, address, port } => {
            Some(snapshot::ServiceKey { protocol: protocol as u8, address, port })
        }
        ServiceKey::Mark { .. } => None,
    }
}

fn method(method: Method) -> snapshot::Method {
    match method {
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

fn timeouts(from: &Timeouts) -> snapshot::Timeouts {
    // NONE is no timeout that a user sets.
    let none = snapshot::Timeouts::default().tcp[0];
    let seconds = Ticks::from_secs;
    snapshot::Timeouts {
        tcp: [
            none,
            seconds(from.tcp_established),
            seconds(from.tcp_syn_sent),
            seconds(from.tcp_syn_received),
            seconds(from.tcp_fin_wait),
            seconds(from.tcp_time_wait),
            seconds(from.tcp_close),
            seconds(from.tcp_close_wait),
            seconds(from.tcp_last_ack),
            seconds(from.tcp_listen),
            seconds(from.tcp_syn_ack),
        ],
        udp: seconds(from.udp),
        ..snapshot::Timeouts::default()
    }
}

/// Whether the packet path does not run a service at all yet.
fn is_pending(service: &Service) -> bool {
    !pending_of_service(service).is_empty()
}

/// What of a service is accepted but not in force yet, one sentence each.
pub fn pending(service: &Service) -> Vec<String> {
    let mut pending = pending_of_service(service);
    for server in &service.servers {
        if matches!(server.method, Method::Nat | Method::Local) {
            pending.push(format!(
                "The server {} of {} gets no packets: the method {} is accepted but not run yet; use direct routing or a tunnel.",
                server.socket(),
                service.key,
                server.method.name()
            ));
        }
    }
    pending
}

fn pending_of_service(service: &Service) -> Vec<String> {
    let mut pending = Vec::new();
    let mut say = |what: &str| {
        let text = format!("{what} accepted but not run yet: {} gets no connections.", service.key);
        pending.push(text);
    };
    if service.engine.is_some() {
        say("Persistence engines are");
    }
    match service.key {
        ServiceKey::Mark { .. } => say("Firewall marks are"),
        ServiceKey::Address { protocol: Protocol::Sctp, .. } => say("SCTP is"),
        ServiceKey::Address { .. } => {}
    }
    pending
}

impl Compiler {
    /// The next hops that destinations use, for whoever resolves them.
    pub fn next_hops(&self) -> impl Iterator<Item = &NextHop> {
        self.next_hops.used()
    }

    /// Whether the last generation changed them, or their ports.
    pub fn next_hops_moved(&self) -> bool {
        self.next_hops.moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::read, kernel::testing};
    use pointsman_dataplane::{
        conn::key::Key4,
        scheduler::Opening,
        snapshot::{NeighborState, Presence},
    };
    use std::path::Path;

    fn parsed(text: &str) -> Configuration {
        read(Path::new("test.toml"), text).unwrap()
    }

    fn service(servers: &[&str]) -> String {
        let mut text = "[[service]]\naddress = \"10.0.0.100\"\nport = 80\nscheduler = \"rr\"\n".to_owned();
        for server in servers {
            text += &format!("[[service.server]]\naddress = \"{server}\"\n");
        }
        text
    }

    fn at(generation: u64) -> Moment {
        Moment { now: Nanos::from_secs(generation), generation, seen: generation - 1 }
    }

    #[test]
    fn a_service_becomes_an_index_a_scheduler_and_destinations_with_next_hops() {
        let mut compiler = Compiler::default();
        // The port is 10.0.0.1/24 with a default route by 10.0.0.254.
        let network = testing::network();
        let configuration = parsed(&service(&["10.0.0.12", "192.168.9.9", "fd00::9"][..2]));
        let snapshot = compiler.compile(&configuration, &network, at(1));
        assert_eq!(snapshot.generation, 1);
        let key = snapshot::ServiceKey { protocol: 6, address: [10, 0, 0, 100].into(), port: 80 };
        assert_eq!(snapshot.service_index.get(&key), Some(0));
        assert!(snapshot.virtual_addresses.contains(&key.address));
        let hops: Vec<String> = snapshot.next_hops.iter().map(|hop| hop.address.to_string()).collect();
        assert_eq!(hops, ["10.0.0.12", "10.0.0.254"]);
        let next: Vec<u32> = snapshot.destinations.iter().map(|d| d.next_hop).collect();
        assert_eq!(next, [0, 1]);
        // Added first, chosen last.
        let client = Key4::from_wire([10, 0, 0, 2, 10, 0, 0, 100], [0x1f, 0x90, 0, 80], 6);
        let opening = Opening { key: &client, hash: 0, now: Ticks(0) };
        let picked: Vec<u32> = (0..4).filter_map(|_| snapshot.services[0].scheduler.pick(&opening)).collect();
        assert_eq!(picked, [1, 0, 1, 0]);
    }

    #[test]
    fn a_removed_server_keeps_its_connections_and_gets_them_back() {
        let mut compiler = Compiler::default();
        let network = testing::network();
        let both = parsed(&service(&["10.0.0.12", "10.0.0.13"]));
        let first = compiler.compile(&both, &network, at(1));
        first.destinations[0].shared.connected(true);
        let second = compiler.compile(&parsed(&service(&["10.0.0.13"])), &network, at(2));
        assert_eq!(second.destinations[0].presence, Presence::Removed);
        let third = compiler.compile(&both, &network, at(3));
        assert_eq!(
            (third.destinations[0].presence, third.destinations[0].generation),
            (Presence::Present, 1)
        );
        assert_eq!(third.destinations[0].shared.active(), 1);
        let gone = compiler.compile(&Configuration::default(), &network, at(4));
        assert_eq!(gone.destinations[0].presence, Presence::ServiceGone);
        assert!(gone.service_index.is_empty() && gone.virtual_addresses.is_empty());
    }

    #[test]
    fn what_is_known_of_a_neighbour_outlives_a_change() {
        let mut compiler = Compiler::default();
        let network = testing::network();
        let configuration = parsed(&service(&["10.0.0.12"]));
        let first = compiler.compile(&configuration, &network, at(1));
        first.next_hops[0].cell.set(NeighborState::Reachable([2; 6]));
        let second = compiler.compile(&configuration, &network, at(2));
        assert_eq!(second.next_hops[0].cell.get(), NeighborState::Reachable([2; 6]));
        assert_eq!(compiler.next_hops().count(), 1);
        compiler.compile(&Configuration::default(), &network, at(3));
        assert_eq!(compiler.next_hops().count(), 0);
    }

    #[test]
    fn what_is_not_run_yet_is_said_in_a_sentence() {
        let text = "[[service]]\nmark = 7\nscheduler = \"sh\"\n[[service.server]]\naddress = \"10.0.0.12\"\nmethod = \"nat\"\n";
        let service = &parsed(text).services[0];
        assert_eq!(
            pending(service),
            [
                "Firewall marks are accepted but not run yet: mark 7 gets no connections.",
                "The server 10.0.0.12:0 of mark 7 gets no packets: the method nat is accepted but not run yet; use direct routing or a tunnel.",
            ]
        );
    }
}
