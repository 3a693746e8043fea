//! A director under test: one virtual service (TCP, rr), sixteen real servers by direct routing whose neighbours are known,
//! and a worker between the two ends of one [`Loopback`]. With NAT the service hashes sources, so that who writes the answers
//! knows whose they are.

use crate::traffic::{
    BothWays, DIRECTOR_MAC, FIRST_SERVER, Pattern, Permuted, ROUTER_MAC, SERVER_PORT, SERVERS, Traffic, VIP,
    VPORT,
};
use pointsman_dataplane::{
    command::WorkerShared,
    forward::nat::Ends,
    handoff::{self, Endpoint},
    limits::{BATCH, FRAME_ROOM},
    port::{Frames, Port, memory::Loopback},
    prefix::Prefix,
    publish::{self, Reader},
    routing::{Forwarding, Routes, Routing, Way},
    scheduler::{Candidate, Kind, Scheduler},
    snapshot::{
        Destination, Encapsulation, Method, NeighborCell, NeighborState, NextHop, PortFacts, Presence,
        Service, ServiceKey, Snapshot, Timeouts, Tunnel,
    },
    stats::DestinationShared,
    time::Nanos,
    verdict::{Answer, DropReason},
    wire::{protocol, tcp},
    worker::{Setup, Worker},
};
use pointsman_hugepages::{Error, Options, PageChoice, PageSize, Pool, PoolOptions, Report};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// The director's own address, from which tunnels begin.
const DIRECTOR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The router on the way to the clients.
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);

/// Frames on their way round: what a NIC's receive ring would hold.
const RING: usize = 256;

/// Ordinary pages without a warning, for counting instructions.
pub fn ordinary() -> Options {
    Options { pages: PageChoice::Ordinary, numa_node: None, lock: false }
}

/// The configuration that a bench runs, with these timeouts, by direct routing.
pub fn snapshot(timeouts: Timeouts) -> Snapshot {
    snapshot_by(Method::Direct, timeouts)
}

/// The same by direct routing, by tunnels (IP in IP) over links that carry the longer packets, or by NAT to another port,
/// whose answers go to clients by a router.
pub fn snapshot_by(method: Method, timeouts: Timeouts) -> Snapshot {
    let mtu = if method == Method::Tunnel { 1600 } else { 1500 };
    let tunnel = |to| Arc::new(Tunnel::new(Encapsulation::Ipip, (IpAddr::V4(DIRECTOR), to), Arc::default()));
    let key = ServiceKey { protocol: protocol::TCP, address: IpAddr::V4(VIP), port: VPORT };
    let mut destinations = Vec::new();
    let mut next_hops = Vec::new();
    let mut candidates = Vec::new();
    let port = if method == Method::Nat { SERVER_PORT } else { VPORT };
    for n in 0..SERVERS {
        let address = IpAddr::V4(Ipv4Addr::from(u32::from(FIRST_SERVER) + u32::from(n)));
        let shared = Arc::new(DestinationShared::default());
        next_hops.push(hop(address, [0x02, 0, 0, 0, 1, n], mtu));
        let (server, shared_too) = (SocketAddr::new(address, port), Arc::clone(&shared));
        candidates.push(Candidate {
            slot: u32::from(n),
            generation: 1,
            server,
            weight: 1,
            settings: (0, 0, method),
            shared: shared_too,
        });
        destinations.push(Destination {
            generation: 1,
            presence: Presence::Present,
            address,
            port,
            virtual_service: Some((IpAddr::V4(VIP), VPORT)),
            ends: Ends::new((address, port), Some((IpAddr::V4(VIP), VPORT))),
            method,
            next_hop: u32::from(n),
            tunnel: (method == Method::Tunnel).then(|| tunnel(address)),
            timeouts: None,
            shared,
        });
    }
    let service = Service {
        key: Some(key),
        mark: None,
        persistence: None,
        one_packet: false,
        scheduler: Scheduler::compile(
            if method == Method::Nat { Kind::Sh } else { Kind::Rr },
            candidates,
            None,
        ),
    };
    next_hops.push(hop(IpAddr::V4(ROUTER), ROUTER_MAC, mtu));
    let routes =
        Routes::new([(Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0), Way::Router(u32::from(SERVERS)))]);
    let routing = Routing { routes, forwarding: Forwarding::Off, ..Routing::default() };
    Snapshot {
        generation: 1,
        routing: Arc::new(routing),
        ports: [PortFacts { name: "loop".to_owned(), mac: DIRECTOR_MAC, mtu, ..PortFacts::default() }].into(),
        virtual_addresses: [IpAddr::V4(VIP)].into_iter().collect(),
        services: [service].into(),
        service_index: [(key, 0)].into_iter().collect(),
        destinations: destinations.into(),
        next_hops: next_hops.into(),
        timeouts,
        ..Snapshot::default()
    }
}

/// A neighbour that is known.
fn hop(address: IpAddr, mac: [u8; 6], mtu: u16) -> NextHop {
    let cell = NeighborCell::default();
    cell.set(NeighborState::Reachable(mac));
    NextHop { address, port: 0, mtu, source: DIRECTOR_MAC, cell: Arc::new(cell) }
}

/// What differs between rigs.
pub struct Plan {
    /// Connections that the table holds.
    pub capacity: usize,
    /// Where tables and buffers live.
    pub memory: Options,
    /// How much later each poll is than the one before, in nanoseconds.
    pub nanos_per_poll: u64,
}

/// A worker, the frames that it is offered, and its time.
pub struct Rig<P: Pattern> {
    worker: Worker<Loopback<Traffic<P>>>,
    shared: Arc<WorkerShared>,
    now: Nanos,
    nanos_per_poll: u64,
}

impl<P: Pattern> Rig<P> {
    /// The only worker of a director.
    ///
    /// # Errors
    /// When the memory is not to be had.
    pub fn new(plan: Plan, pattern: P, timeouts: Timeouts) -> Result<Self, Error> {
        Self::running(plan, pattern, snapshot(timeouts))
    }

    /// The only worker of a director with this configuration.
    ///
    /// # Errors
    /// When the memory is not to be had.
    pub fn running(plan: Plan, pattern: P, snapshot: Snapshot) -> Result<Self, Error> {
        let (_, mut readers) = publish::channel(1, snapshot, 1);
        let mut ends = handoff::mesh(1);
        match (readers.pop(), ends.pop()) {
            (Some(reader), Some(end)) => Self::one_of_several(plan, pattern, 0, reader, end),
            _ => unreachable!("one of each was made"),
        }
    }

    /// Worker number `index`. Call it on the thread that is to run it: buffers belong to it.
    ///
    /// # Errors
    /// When the memory is not to be had.
    pub fn one_of_several(
        plan: Plan,
        pattern: P,
        index: u16,
        snapshot: Reader<Snapshot>,
        handoff: Endpoint,
    ) -> Result<Self, Error> {
        let shared = Arc::new(WorkerShared::new(index));
        let mut pool = pool(&plan.memory)?;
        let port = Loopback::new(Traffic::new(pattern), &mut pool, RING);
        let worker = Worker::new(Setup {
            index,
            ports: vec![port],
            pool,
            connections_ipv4: plan.capacity,
            connections_ipv6: 1,
            memory: plan.memory,
            snapshot,
            handoff,
            exception: None,
            shared: Arc::clone(&shared),
            seed: 0x5eed,
        })?;
        Ok(Self { worker, shared, now: Nanos::from_secs(1_000), nanos_per_poll: plan.nanos_per_poll })
    }

    /// Has the worker take at least `packets` frames and returns how many it took.
    #[inline(never)]
    pub fn run(&mut self, packets: u64) -> u64 {
        let polls = packets.div_ceil(BATCH as u64);
        for _ in 0..polls {
            self.now.0 += self.nanos_per_poll;
            self.worker.poll(self.now);
        }
        polls * BATCH as u64
    }

    /// What chooses the flows.
    pub fn pattern(&mut self) -> &mut P {
        &mut self.worker.ports_mut()[0].generator().pattern
    }

    /// What the worker has counted.
    pub fn counts(&self) -> Counts {
        let stats = &self.shared.stats;
        Counts {
            packets: stats.packets.get(),
            forwarded: stats.forwarded.get(),
            dropped: stats.drops.iter().map(|counter| counter.get()).sum(),
            answered: stats.answers.iter().map(|counter| counter.get()).sum(),
            connections: stats.connections.get(),
            created: stats.connections_created.get(),
            expired: stats.connections_expired.get(),
            evicted: stats.connections_evicted.get(),
        }
    }

    /// Why packets were not forwarded, for a message.
    pub fn losses(&self) -> String {
        let stats = &self.shared.stats;
        let drops =
            (DropReason::ALL.iter().zip(&stats.drops)).map(|(reason, n)| (format!("{reason:?}"), n.get()));
        let answers = (0..Answer::COUNT).map(|n| (format!("answer {n}"), stats.answers[n].get()));
        let texts: Vec<_> =
            drops.chain(answers).filter(|(_, n)| *n > 0).map(|(what, n)| format!("{what}: {n}")).collect();
        texts.join(", ")
    }

    /// The memory that it got.
    pub fn memory(&self) -> Vec<Report> {
        self.worker.memory_reports()
    }

    /// Whether all that is as large as a huge page lies in huge pages. A figure without them is not comparable.
    pub fn has_huge_pages(&self) -> bool {
        self.memory().iter().all(|report| report.page_size != PageSize::Ordinary)
    }

    /// Bytes of the IPv4 connection index and entries.
    pub fn table_bytes(&self) -> usize {
        // The tables come first: index and entries of IPv4, then those of IPv6.
        self.memory().iter().take(2).map(|report| report.bytes).sum()
    }
}

impl Rig<Permuted> {
    /// A director whose table holds `flows` established connections, all made by its own path: a SYN each, then an ACK.
    ///
    /// # Errors
    /// When the memory is not to be had.
    pub fn established(flows: u32, memory: Options) -> Result<Self, Error> {
        Self::established_by(Method::Direct, flows, memory)
    }

    /// The same, forwarded by this method.
    ///
    /// # Errors
    /// When the memory is not to be had.
    pub fn established_by(method: Method, flows: u32, memory: Options) -> Result<Self, Error> {
        let plan = Plan {
            capacity: flows as usize,
            memory,
            // What a batch takes at 25 ns a packet.
            nanos_per_poll: 1_600,
        };
        let mut rig =
            Self::running(plan, Permuted::new(flows, tcp::SYN), snapshot_by(method, Timeouts::default()))?;
        rig.run(u64::from(flows));
        rig.pattern().flags = tcp::ACK;
        rig.run(u64::from(flows));
        Ok(rig)
    }
}

impl Rig<BothWays> {
    /// A director with NAT whose table holds `flows` established connections, each with an entry for its answers.
    ///
    /// # Errors
    /// When the memory is not to be had.
    pub fn translating(flows: u32, memory: Options) -> Result<Self, Error> {
        let plan = Plan { capacity: 2 * flows as usize, memory, nanos_per_poll: 3_200 };
        let snapshot = snapshot_by(Method::Nat, Timeouts::default());
        let mut rig = Self::running(plan, BothWays::new(flows), snapshot)?;
        rig.run(u64::from(flows));
        rig.pattern().opening.flags = tcp::ACK;
        rig.run(u64::from(flows));
        rig.pattern().begun = true;
        // Then the way of the answers is known, too.
        rig.run(2 * u64::from(flows));
        Ok(rig)
    }
}

/// What a worker has counted since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Frames taken.
    pub packets: u64,
    /// Frames sent to real servers.
    pub forwarded: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// Frames answered.
    pub answered: u64,
    /// Connections there are.
    pub connections: u64,
    /// Connections made.
    pub created: u64,
    /// Connections that timed out.
    pub expired: u64,
    /// Half-open connections that gave way.
    pub evicted: u64,
}

/// A generator and a loopback with nothing between them: what of a figure is not the director's.
pub struct Floor<P: Pattern> {
    port: Loopback<Traffic<P>>,
    pool: Pool,
    frames: Frames,
}

impl<P: Pattern> Floor<P> {
    /// With this pattern.
    ///
    /// # Errors
    /// When the memory is not to be had.
    pub fn new(pattern: P, memory: &Options) -> Result<Self, Error> {
        let mut pool = pool(memory)?;
        let port = Loopback::new(Traffic::new(pattern), &mut pool, RING);
        Ok(Self { port, pool, frames: Frames::new() })
    }

    /// Moves at least `packets` frames and returns how many.
    #[inline(never)]
    pub fn run(&mut self, packets: u64) -> u64 {
        let mut moved = 0;
        while moved < packets {
            self.port.rx(&mut self.pool, &mut self.frames);
            moved += self.port.tx(&mut self.frames) as u64;
        }
        moved
    }
}

fn pool(memory: &Options) -> Result<Pool, Error> {
    let options = PoolOptions { buffers: RING + 2 * BATCH, room: FRAME_ROOM, memory: memory.clone() };
    Pool::new("packet buffers", options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_tunnels_too() {
        let mut rig = Rig::established_by(Method::Tunnel, 1_000, ordinary()).unwrap();
        let before = rig.counts().forwarded;
        rig.run(10_000);
        assert_eq!(rig.counts().forwarded - before, 10_048, "{}", rig.losses());
        let frame = rig.worker.ports_mut()[0].oldest_sent().unwrap().data();
        // 20 bytes more, an outer header of protocol 4, from the director to a real server.
        assert_eq!((frame.len(), frame[23], &frame[26..33]), (74, 4, &[10, 0, 0, 1, 10, 0, 1][..]));
    }

    #[test]
    fn by_nat_both_ways() {
        let mut rig = Rig::translating(1_000, ordinary()).unwrap();
        let before = rig.counts();
        assert_eq!((before.connections, before.created), (1_000, 1_000));
        rig.run(10_000);
        assert_eq!(rig.counts().forwarded - before.forwarded, 10_048, "{}", rig.losses());
        // The last frames went to servers, or to the router from the service.
        let (mut to_servers, mut to_clients) = (0, 0);
        for _ in 0..100 {
            rig.run(64);
            let frame = rig.worker.ports_mut()[0].oldest_sent().unwrap().data().to_vec();
            if frame[..6] == ROUTER_MAC {
                assert_eq!((&frame[26..30], &frame[34..36]), (&[10, 0, 0, 100][..], &[0, 80][..]));
                to_clients += 1;
            } else {
                assert_eq!(
                    (&frame[30..33], frame[5], &frame[36..38]),
                    (&[10, 0, 1][..], frame[33], &[0x1f, 0x90][..])
                );
                to_servers += 1;
            }
        }
        assert!(to_servers > 20 && to_clients > 20, "{to_servers}, {to_clients}");
    }

    #[test]
    fn every_packet_of_an_established_flow_is_forwarded() {
        let mut rig = Rig::established(1_000, ordinary()).unwrap();
        let before = rig.counts();
        assert_eq!((before.connections, before.created), (1_000, 1_000));
        assert_eq!(rig.run(10_000), 10_048);
        let after = rig.counts();
        assert_eq!(after.forwarded - before.forwarded, 10_048, "{}", rig.losses());
        assert_eq!((after.created, after.dropped, after.answered), (1_000, 0, 0));
    }
}
