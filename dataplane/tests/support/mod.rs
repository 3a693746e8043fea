//! A lab in one process: a worker between two wires in memory, a configuration made by hand, and time that the test sets.
//!
//! The topology is that of the recordings: the client 10.0.0.2 at port d0, the servers 192.168.50.11 to .13 at port d1.

pub(crate) mod every;
pub(crate) mod frames;
pub(crate) mod text;

use crossbeam::channel;
use frames::{C0, D0, D1, R1, R2, R3};
use pointsman_dataplane::{
    app::expected::Expectations,
    command::{Command, ConnectionRecord, ConnectionsQuery, WorkerShared},
    conn::template::Templates,
    exception::{self, HostEnd},
    forward::nat::Ends,
    fragments::tracker::Fragments,
    handoff,
    limits::FRAME_ROOM,
    mark::{self, Marks},
    on_link::OnLink,
    policy::Policies,
    port::memory::{self, Wire},
    prefix::Prefix,
    publish::{self, Publisher},
    routing::{Forwarding, Routes, Routing, SourceNat, Way},
    scheduler::{Candidate, Kind, Scheduler},
    snapshot::{
        Destination, Encapsulation, Method, NeighborCell, NeighborState, NextHop, PathMtu, Persistence,
        PortFacts, Presence, Service, ServiceKey, Snapshot, Timeouts, Tunnel,
    },
    stats::DestinationShared,
    time::Nanos,
    verdict::{Answer, DropReason},
    worker::{Setup, Worker},
};
use pointsman_hugepages::{Buffer, Options, PageChoice, Pool, PoolOptions};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// A virtual service of the plan. Servers are slots of [`Plan::slots`] with their weights, in the order of addition.
#[derive(Clone, Debug)]
pub(crate) struct PlannedService {
    pub(crate) protocol: u8,
    pub(crate) at: SocketAddr,
    pub(crate) kind: Kind,
    pub(crate) servers: Vec<(u32, u32)>,
    pub(crate) persistence: Option<Persistence>,
    pub(crate) one_packet: bool,
    /// The mark that its packets have; it is known by that then, and `at` says its family.
    pub(crate) mark: Option<u32>,
}

/// The configuration that a test works with; [`Plan::snapshot`] compiles it.
#[derive(Clone, Default)]
pub(crate) struct Plan {
    pub(crate) services: Vec<PlannedService>,
    pub(crate) slots: Vec<Destination>,
    pub(crate) hops: Vec<NextHop>,
    pub(crate) mtu: u16,
    pub(crate) timeouts: Timeouts,
    pub(crate) marks: Vec<mark::Rule>,
    pub(crate) policies: Policies,
    pub(crate) forwarding: Forwarding,
    pub(crate) source_nat: Vec<SourceNat>,
    /// Beside those of the links.
    pub(crate) routes: Vec<(Prefix, Way)>,
    /// Beside those of the ports.
    pub(crate) host_addresses: Vec<IpAddr>,
    /// That of the lab; see [`Size::exception`].
    pub(crate) exception_path: bool,
    on_link: Arc<OnLink>,
    templates: Arc<Templates>,
    fragments: Arc<Fragments>,
    expectations: Arc<Expectations>,
    schedulers: HashMap<ServiceKey, Scheduler>,
}

/// As the control plane compiles it.
fn compiled(slot: &Destination) -> Destination {
    let ends = Ends::new((slot.address, slot.port), slot.virtual_service);
    Destination { ends, ..slot.clone() }
}

fn path(destination: &Destination) -> Option<(IpAddr, Arc<PathMtu>)> {
    Some((destination.address, destination.tunnel.as_ref()?.path.clone()))
}

impl Plan {
    /// Nothing, with an MTU of 1500.
    pub(crate) fn new() -> Self {
        Self {
            mtu: 1500,
            templates: Arc::new(Templates::new(1024)),
            fragments: Arc::new(Fragments::new(1024)),
            ..Self::default()
        }
    }

    /// A service with servers of weight 1 at r1, r2, ...: `service("10.0.0.100:80", TCP, Kind::Rr, 3)`.
    pub(crate) fn service(mut self, at: &str, protocol: u8, kind: Kind, servers: usize) -> Self {
        let at: SocketAddr = at.parse().expect("an address and port");
        let servers = (0..servers).map(|n| (self.server(n, at), 1)).collect();
        self.services.push(PlannedService {
            protocol,
            at,
            kind,
            servers,
            persistence: None,
            one_packet: false,
            mark: None,
        });
        self
    }

    /// Adds server `n` (0: r1) for the service at `at`, and returns its slot.
    pub(crate) fn server(&mut self, n: usize, at: SocketAddr) -> u32 {
        let address: IpAddr =
            if at.is_ipv6() { format!("fd00:50::{}", 11 + n) } else { format!("192.168.50.{}", 11 + n) }
                .parse()
                .expect("an address");
        let next_hop = self.hop(address, [R1, R2, R3].get(n).copied());
        self.slots.push(Destination {
            generation: 1,
            presence: Presence::Present,
            address,
            port: at.port(),
            virtual_service: Some((at.ip(), at.port())),
            ends: Ends::default(),
            method: Method::Direct,
            next_hop,
            tunnel: None,
            timeouts: None,
            shared: Arc::new(DestinationShared::default()),
        });
        self.slots.len() as u32 - 1
    }

    /// Puts a slot behind a tunnel from the director's address on port d1.
    pub(crate) fn tunnelled(mut self, slot: usize, encapsulation: Encapsulation) -> Self {
        let destination = &mut self.slots[slot];
        let source = if destination.address.is_ipv6() { "fd00:50::1" } else { "192.168.50.1" };
        let source = source.parse().expect("an address");
        destination.method = Method::Tunnel;
        destination.tunnel =
            Some(Arc::new(Tunnel::new(encapsulation, (source, destination.address), Arc::default())));
        self
    }

    /// Has a slot reached by NAT at a port of its own.
    pub(crate) fn natted(mut self, slot: usize, port: u16) -> Self {
        (self.slots[slot].method, self.slots[slot].port) = (Method::Nat, port);
        self
    }

    /// Packets of port d0's network, and of those behind the client, go to stations there; of d1's to those there.
    fn routing(&self) -> Routing {
        let prefix = |text: &str, len| Prefix::new(text.parse().expect("an address"), len);
        let mut routes = self.routes.clone();
        routes.extend([
            (prefix("10.0.0.0", 24), Way::Link(0)),
            (prefix("192.168.50.0", 24), Way::Link(1)),
            (prefix("fd00:1::", 64), Way::Link(0)),
            (prefix("fd00:50::", 64), Way::Link(1)),
        ]);
        // The client is also a router: the next hops that lead by d0.
        for (number, hop) in (0..).zip(&self.hops).filter(|(_, hop)| hop.port == 0) {
            routes
                .push((prefix(if hop.address.is_ipv6() { "::" } else { "0.0.0.0" }, 0), Way::Router(number)));
        }
        let natted = self.slots.iter().filter(|slot| slot.method == Method::Nat);
        let protocol = |slot: &Destination| {
            let of = |service: &&PlannedService| {
                slot.virtual_service == Some((service.at.ip(), service.at.port()))
            };
            self.services.iter().find(of).map_or(0, |service| service.protocol)
        };
        let real = natted
            .clone()
            .map(|slot| (ServiceKey { protocol: protocol(slot), address: slot.address, port: slot.port }, 0));
        Routing {
            routes: Routes::new(routes),
            forwarding: self.forwarding,
            real_services: real.collect(),
            servers: natted.map(|slot| slot.address).collect(),
            source_nat: self.source_nat.clone().into(),
        }
    }

    /// Has every station on the links answer for its address: the clients, which the one at d0 stands for, and the servers.
    pub(crate) fn resolve(&self) {
        for hop in self.on_link.wanted(|_| Some((0, [0; 6]))) {
            let servers = [("192.168.50.11", R1), ("192.168.50.12", R2), ("192.168.50.13", R3)];
            let servers6 = [("fd00:50::11", R1), ("fd00:50::12", R2), ("fd00:50::13", R3)];
            let is =
                |(text, _): &&(&str, [u8; 6])| hop.address == text.parse::<IpAddr>().expect("an address");
            let server = servers.iter().chain(&servers6).find(is).map(|(_, mac)| *mac);
            let mac = server.or((hop.port == 0).then_some(C0));
            hop.cell.set(mac.map_or(NeighborState::Failed, NeighborState::Reachable));
        }
    }

    /// The router at port d0, which leads everywhere: the client's station.
    pub(crate) fn router(mut self) -> Self {
        for address in ["10.0.0.2", "fd00:1::2"] {
            let cell = Arc::new(NeighborCell::default());
            cell.set(NeighborState::Reachable(C0));
            let address = address.parse().expect("an address");
            self.hops.push(NextHop { address, port: 0, mtu: self.mtu, source: D0, cell });
        }
        self
    }

    /// The next hop with this address on port d1, and its MAC address if it is to be known.
    pub(crate) fn hop(&mut self, address: IpAddr, mac: Option<[u8; 6]>) -> u32 {
        if let Some(known) = self.hops.iter().position(|hop| hop.address == address) {
            return known as u32;
        }
        let cell = Arc::new(NeighborCell::default());
        if let Some(mac) = mac {
            cell.set(NeighborState::Reachable(mac));
        }
        self.hops.push(NextHop { address, port: 1, mtu: self.mtu, source: D1, cell });
        self.hops.len() as u32 - 1
    }

    fn candidate(&self, (slot, weight): (u32, u32)) -> Candidate {
        let Destination { generation, address, port, method, ref shared, .. } = self.slots[slot as usize];
        let ((upper, lower), server) = (shared.thresholds(), SocketAddr::new(address, port));
        let settings = (upper, lower, method);
        Candidate { slot, generation, server, weight, settings, shared: shared.clone() }
    }

    /// Compiles it; the place of schedulers is carried from the last time.
    pub(crate) fn snapshot(&mut self, generation: u64) -> Snapshot {
        let mut snapshot = Snapshot {
            generation,
            ports: [("d0", D0, "10.0.0.1", "fd00:1::1"), ("d1", D1, "192.168.50.1", "fd00:50::1")]
                .map(|(name, mac, ipv4, ipv6)| PortFacts {
                    name: name.to_owned(),
                    mac,
                    mtu: self.mtu,
                    ipv4: ipv4.parse().ok(),
                    ipv6: ipv6.parse().ok(),
                })
                .into(),
            host_addresses: ["10.0.0.1", "192.168.50.1", "fd00:1::1", "fd00:50::1"]
                .map(|address| address.parse().expect("an address"))
                .into_iter()
                .chain(self.host_addresses.iter().copied())
                .collect(),
            exception_path: self.exception_path,
            routing: Arc::new(self.routing()),
            on_link: self.on_link.clone(),
            marks: Marks::new(self.marks.clone()),
            policies: self.policies,
            destinations: self.slots.iter().map(compiled).collect(),
            next_hops: self.hops.iter().map(|hop| NextHop { mtu: self.mtu, ..hop.clone() }).collect(),
            timeouts: self.timeouts.clone(),
            templates: self.templates.clone(),
            fragments: self.fragments.clone(),
            expectations: self.expectations.clone(),
            paths: Arc::new(self.slots.iter().filter_map(path).collect()),
            ..Snapshot::default()
        };
        let names = |planned: &PlannedService, key: &ServiceKey| {
            (planned.protocol, planned.at.ip(), planned.at.port()) == (key.protocol, key.address, key.port)
        };
        self.schedulers.retain(|key, _| self.services.iter().any(|planned| names(planned, key)));
        let mut services = Vec::new();
        for planned in &self.services {
            let key =
                ServiceKey { protocol: planned.protocol, address: planned.at.ip(), port: planned.at.port() };
            let candidates = planned.servers.iter().map(|server| self.candidate(*server)).collect();
            let scheduler = Scheduler::compile(planned.kind, candidates, self.schedulers.get(&key));
            self.schedulers.insert(key, scheduler.clone());
            snapshot.virtual_addresses.insert(planned.at.ip());
            let PlannedService { persistence, one_packet, .. } = *planned;
            let mark = planned.mark.and_then(NonZeroU32::new);
            let number = services.len() as u32;
            match mark {
                Some(mark) => {
                    snapshot.service_index.insert_mark((mark.get(), planned.at.is_ipv6()), number);
                }
                None => snapshot.service_index.insert(key, number),
            }
            let key = mark.is_none().then_some(key);
            services.push(Service { key, mark, persistence, one_packet, scheduler });
        }
        for rule in &self.source_nat {
            snapshot.virtual_addresses.insert(rule.address);
        }
        snapshot.services = services.into();
        snapshot
    }
}

/// The rule that gives all packets to an address a mark.
pub(crate) fn marked(address: IpAddr, mark: u32) -> mark::Rule {
    mark::Rule {
        protocol: None,
        source: None,
        destination: Some(Prefix::host(address)),
        ports: None,
        interface: None,
        mark: NonZeroU32::new(mark).expect("a mark is not 0"),
    }
}

/// How large a lab is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) workers: usize,
    pub(crate) connections: usize,
    /// Frames that a wire holds each way.
    pub(crate) wire: usize,
    /// Whether what is left to the host goes to [`Lab::host`].
    pub(crate) exception: bool,
}

impl Default for Size {
    fn default() -> Self {
        Self { workers: 1, connections: 4096, wire: 2048, exception: false }
    }
}

/// One worker with its wires.
pub(crate) struct Station {
    pub(crate) worker: Worker<memory::Port>,
    pub(crate) wires: [Wire; 2],
    pub(crate) shared: Arc<WorkerShared>,
}

/// See the module.
pub(crate) struct Lab {
    pub(crate) stations: Vec<Station>,
    pub(crate) plan: Plan,
    pub(crate) now: Nanos,
    pub(crate) publisher: Publisher<Snapshot>,
    pub(crate) host: HostEnd<Buffer>,
    generation: u64,
}

pub(crate) fn ordinary() -> Options {
    Options { pages: PageChoice::Ordinary, numa_node: None, lock: false }
}

impl Lab {
    /// One worker, room for 4096 connections of each family.
    pub(crate) fn new(plan: Plan) -> Self {
        Self::sized(plan, Size::default())
    }

    pub(crate) fn sized(mut plan: Plan, size: Size) -> Self {
        let generation = 1;
        plan.exception_path = size.exception;
        let (publisher, readers) = publish::channel(generation, plan.snapshot(generation), size.workers);
        let mut ends = handoff::mesh(size.workers);
        let (host_ends, host) = exception::channel(size.workers, FRAME_ROOM).expect("descriptors for a wake");
        let mut host_ends = host_ends.into_iter();
        let mut stations = Vec::new();
        for (index, snapshot) in readers.into_iter().enumerate() {
            let shared = Arc::new(WorkerShared::new(index as u16));
            let (port0, wire0) = memory::pair(size.wire, FRAME_ROOM).expect("memory for a wire");
            let (port1, wire1) = memory::pair(size.wire, FRAME_ROOM).expect("memory for a wire");
            let pool = PoolOptions { buffers: 128, room: FRAME_ROOM, memory: ordinary() };
            let worker = Worker::new(Setup {
                index: index as u16,
                ports: vec![port0, port1],
                pool: Pool::new("frames of the worker", pool).expect("memory for a pool"),
                connections_ipv4: size.connections,
                connections_ipv6: size.connections,
                memory: ordinary(),
                snapshot,
                handoff: ends.remove(0),
                exception: host_ends.next().filter(|_| size.exception),
                shared: shared.clone(),
                seed: 0x5eed,
            });
            stations.push(Station {
                worker: worker.expect("memory for tables"),
                wires: [wire0, wire1],
                shared,
            });
        }
        Self { stations, plan, now: Nanos::from_secs(1_000), publisher, host, generation }
    }

    /// Puts the plan in force.
    pub(crate) fn publish(&mut self) {
        self.generation += 1;
        let snapshot = self.plan.snapshot(self.generation);
        self.publisher.publish(self.generation, snapshot);
    }

    /// Lets time pass without a poll.
    pub(crate) fn wait(&mut self, millis: u64) {
        self.now = Nanos(self.now.0 + millis * 1_000_000);
    }

    /// Polls every worker until none finds anything to do.
    pub(crate) fn poll(&mut self) {
        for _ in 0..10_000 {
            let now = self.now;
            if self.stations.iter_mut().map(|station| station.worker.poll(now)).sum::<usize>() == 0 {
                return;
            }
        }
        panic!("the workers do not come to rest");
    }

    /// Lets time pass with a poll every tenth of a second.
    pub(crate) fn run(&mut self, millis: u64) {
        for _ in 0..millis / 100 {
            self.wait(100);
            self.poll();
        }
        self.wait(millis % 100);
        self.poll();
    }

    /// Brings frames to port d0 of the first worker, lets the workers run, and returns what left by both ports.
    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.send_by(0, frames)
    }

    /// The same to a port: 1 is that of the servers.
    pub(crate) fn send_by(&mut self, port: usize, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        for frame in frames {
            assert!(self.stations[0].wires[port].push(frame), "the wire has room");
        }
        self.poll();
        // The control plane asks for the stations that are not known yet, and what waits for them leaves.
        self.plan.resolve();
        self.poll();
        self.taken()
    }

    /// One frame in, what came out as text.
    pub(crate) fn says(&mut self, frame: Vec<u8>) -> Vec<String> {
        self.send(&[frame]).iter().map(|frame| text::text(frame)).collect()
    }

    /// What has left by the ports, those of each in order.
    pub(crate) fn taken(&mut self) -> Vec<Vec<u8>> {
        let wires = self.stations.iter_mut().flat_map(|station| &mut station.wires);
        wires.flat_map(Wire::pop_all).collect()
    }

    /// The sum of a counter over all workers.
    fn sum(&self, get: impl Fn(&WorkerShared) -> u64) -> u64 {
        self.stations.iter().map(|station| get(&station.shared)).sum()
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.sum(|shared| shared.stats.drops[reason as usize].get())
    }

    /// All drops that there are.
    pub(crate) fn all_drops(&self) -> Vec<(DropReason, u64)> {
        let counted = DropReason::ALL.iter().map(|reason| (*reason, self.drops(*reason)));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    pub(crate) fn answers(&self, answer: Answer) -> u64 {
        self.sum(|shared| shared.stats.answers[answer as usize].get())
    }

    pub(crate) fn punted(&self) -> u64 {
        self.sum(|shared| shared.stats.punted.get())
    }

    pub(crate) fn forwarded(&self) -> u64 {
        self.sum(|shared| shared.stats.forwarded.get())
    }

    pub(crate) fn handed_off(&self) -> u64 {
        self.sum(|shared| shared.stats.handed_off.get())
    }

    pub(crate) fn connections(&self) -> u64 {
        self.sum(|shared| shared.stats.connections.get())
    }

    /// Connections made, timed out, and evicted.
    pub(crate) fn lives(&self) -> (u64, u64, u64) {
        (
            self.sum(|shared| shared.stats.connections_created.get()),
            self.sum(|shared| shared.stats.connections_expired.get()),
            self.sum(|shared| shared.stats.connections_evicted.get()),
        )
    }

    /// Connections, packets and bytes of a slot.
    pub(crate) fn traffic(&self, slot: usize) -> (u64, u64, u64) {
        (
            self.sum(|shared| shared.stats.destinations[slot].connections.get()),
            self.sum(|shared| shared.stats.destinations[slot].packets_in.get()),
            self.sum(|shared| shared.stats.destinations[slot].bytes_in.get()),
        )
    }

    /// Active and inactive connections of a slot.
    pub(crate) fn counts(&self, slot: usize) -> (u32, u32) {
        let shared = &self.plan.slots[slot].shared;
        (shared.active(), shared.inactive())
    }

    /// Every frame has one end, and one count, or waits: `waiting` are those that wait for a neighbour. What was cut into
    /// fragments has as many ends as these.
    pub(crate) fn assert_accounted(&self, waiting: u64) {
        let packets = self.sum(|shared| shared.stats.packets.get() + shared.stats.cut.get());
        let answers: u64 = Answer::ALL.iter().map(|answer| self.answers(*answer)).sum();
        let drops: u64 = DropReason::ALL.iter().map(|reason| self.drops(*reason)).sum();
        let waiting = waiting + self.sum(|shared| shared.stats.held.get());
        let ends = self.forwarded() + answers + self.punted() + self.handed_off() + drops + waiting;
        assert_eq!(packets, ends, "answers {answers}, drops {:?}", self.all_drops());
    }

    /// The connections of all workers, by client.
    pub(crate) fn list(&mut self) -> Vec<ConnectionRecord> {
        let mut all = Vec::new();
        for station in 0..self.stations.len() {
            let mut cursor = Some(0);
            while let Some(at) = cursor {
                let (answer, answers) = channel::bounded(1);
                let query = ConnectionsQuery { cursor: at, records: Vec::with_capacity(7), answer };
                let commands = &self.stations[station].shared.commands;
                commands.push(Command::ListConnections(query)).expect("room for a command");
                self.poll();
                let answer = answers.try_recv().expect("the worker answers");
                assert_eq!(usize::from(answer.worker), station);
                all.extend(answer.records);
                cursor = answer.next;
            }
        }
        all.sort_by_key(|record| (record.protocol, record.client, record.virtual_service));
        all
    }

    /// The connections as lines of `ipvsadm -Lnc`, in the order of their clients, blanks squeezed.
    pub(crate) fn listed(&mut self) -> Vec<String> {
        let line = |record: ConnectionRecord| {
            let protocol = if record.protocol == TCP { "TCP" } else { "UDP" };
            // Up to the next second, as a moment in it has passed.
            let seconds = record.expires_millis.div_ceil(1000);
            let expires = format!("{:02}:{:02}", seconds / 60, seconds % 60);
            let (client, service) = (record.client, record.virtual_service);
            format!("{protocol} {expires} {} {client} {service} {}", record.state, record.destination)
        };
        self.list().into_iter().map(line).collect()
    }
}
