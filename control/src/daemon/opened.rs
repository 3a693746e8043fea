//! From configured ports to running workers: the one place that knows the kinds of ports.
//!
//! Each kind gives every worker its [`Seat`]; the rest is the same for all, compiled for each.

use super::Error;
#[cfg(feature = "dpdk")]
use super::dpdk;
use crate::{
    clock,
    config::model::{self, Driver},
    exception::{self, Exception},
    local::Local,
    ports::{Ports, Source},
    workers::{Crew, Ended, Plan},
};
use pointsman_dataplane::{
    command::WorkerShared,
    exception::WorkerEnd,
    handoff,
    limits::{BATCH, EXCEPTION_RING, FRAME_ROOM, HANDOFF_RING, MAX_WAITING},
    port::{
        PoolOf, Port,
        af_packet::{self, AfPacket, Settings},
    },
    publish,
    snapshot::Snapshot,
    worker::Setup,
};
use pointsman_hugepages::{self as hugepages, Buffer, PageChoice, PageSize, Pool, PoolOptions, Report};
use std::{num::NonZeroU64, sync::Arc};

/// What one worker has of the ports.
pub(super) struct Seat<P: Port> {
    /// Its queue of each port.
    pub(super) ports: Vec<P>,
    /// Its buffers.
    pub(super) pool: PoolOf<P>,
    /// Its end of the exception path.
    pub(super) exception: Option<WorkerEnd<P::Frame>>,
}

/// The ports of a director before its workers run.
pub(super) enum Opened {
    /// Interfaces of the kernel, which are there already.
    Kernel,
    /// Devices of DPDK's, whose interfaces were made.
    #[cfg(feature = "dpdk")]
    Dpdk(Box<dpdk::Opened>),
}

/// The workers of a director and what serves them; it ends in this order.
pub(super) struct Running {
    /// What serves the host's own frames.
    pub(super) host: Arc<Exception>,
    pub(super) crew: Crew,
    /// What to ask of the ports.
    pub(super) sources: Arc<[Source]>,
    #[cfg(feature = "dpdk")]
    pub(super) _dpdk: Option<pointsman_dataplane::port::dpdk::Dpdk>,
}

impl Running {
    /// What gives the kernel the packets to servers that are the director itself.
    pub(super) fn local(&self) -> Local {
        let seen = |source: &Source| matches!(source, Source::Kernel { .. });
        match self.sources.iter().any(seen) {
            true => Local::by_device(self.host.delivery()),
            false => Local::by_interfaces(),
        }
    }

    /// Tells the kernel about the links that only their devices see, from now on.
    pub(super) fn follow_links(&self, ports: &Arc<Ports>) {
        #[cfg(feature = "dpdk")]
        if self._dpdk.is_some() {
            tokio::spawn(super::follow::follow_links(ports.clone(), Arc::downgrade(&self.host)));
        }
        #[cfg(not(feature = "dpdk"))]
        let _ = ports;
    }
}

impl Opened {
    /// Makes what the kernel is to know of the ports, where it does not know them anyway.
    pub(super) async fn new(start: &model::Start) -> Result<Self, Error> {
        #[cfg(feature = "dpdk")]
        if start.ports.iter().any(|port| matches!(port.driver, Driver::Dpdk(_))) {
            return Ok(Self::Dpdk(dpdk::Opened::new(start).await?.into()));
        }
        super::can_run(start)?;
        Ok(Self::Kernel)
    }

    /// Starts the workers.
    pub(super) fn run(
        self,
        start: &model::Start,
        readers: Vec<publish::Reader<Snapshot>>,
        ended: impl Fn(Ended) + Clone + Send + 'static,
    ) -> Result<(Running, Vec<Report>), Error> {
        match self {
            Self::Kernel => {
                let workers = start.cores.len();
                // Nothing comes from the host this way.
                let (ends, host) = exception::path::<Buffer>(workers, 0)?;
                let (crew, reports) = Crew::start(plans(start, seats(start, ends)?, readers), ended)?;
                let host = exception::start(start.ports.len(), Vec::new(), host, || ())?;
                let source = |(port, host): (&model::Port, _)| Source::Kernel {
                    interface: port.device.clone(),
                    workers: workers as u32,
                    host,
                };
                let sources = start.ports.iter().zip(host.counters().iter().cloned()).map(source).collect();
                let running = Running {
                    host: host.into(),
                    crew,
                    sources,
                    #[cfg(feature = "dpdk")]
                    _dpdk: None,
                };
                Ok((running, reports))
            }
            #[cfg(feature = "dpdk")]
            Self::Dpdk(opened) => opened.run(start, readers, ended),
        }
    }
}

/// What the workers are made of.
pub(super) fn plans<P: Port>(
    start: &model::Start,
    seats: Vec<Seat<P>>,
    readers: Vec<publish::Reader<Snapshot>>,
) -> Vec<Plan<P>> {
    let size =
        |number: Option<NonZeroU64>| number.and_then(|n| usize::try_from(n.get()).ok()).unwrap_or(usize::MAX);
    // A worker polls all its ports: the one that suffers the least delay decides.
    let idle = start.ports.iter().map(|port| port.idle).max().unwrap_or_default();
    let seed = clock::seed();
    let ends = handoff::mesh(seats.len()).into_iter().zip(readers).zip(&start.cores);
    let plan = |((index, seat), ((handoff, snapshot), core)): ((u16, Seat<P>), ((_, _), &u32))| {
        let setup = Setup {
            index,
            ports: seat.ports,
            pool: seat.pool,
            connections_ipv4: size(start.connections_ipv4),
            connections_ipv6: size(start.connections_ipv6),
            memory: memory_options(start.memory.unwrap_or_default()),
            snapshot,
            handoff,
            exception: seat.exception,
            shared: Arc::new(WorkerShared::new(index)),
            seed,
        };
        Plan { core: *core, idle, setup }
    };
    (0u16..).zip(seats).zip(ends).map(plan).collect()
}

/// Opens interfaces of the kernel for each worker and takes the memory for its packets.
fn seats(start: &model::Start, ends: Vec<WorkerEnd<Buffer>>) -> Result<Vec<Seat<AfPacket>>, Error> {
    let workers = start.cores.len();
    let memory = memory_options(start.memory.unwrap_or_default());
    let mut seats = Vec::new();
    for (index, exception) in (0u16..).zip(ends) {
        let ports = start.ports.iter().enumerate();
        let ports =
            ports.map(|(number, port)| open(number, port, index, workers)).collect::<Result<_, _>>()?;
        // What may be out of the pool at once: a batch in and one out, what waits for neighbours or for other fragments, and what
        // other workers or the host have not taken yet.
        let buffers = 2 * BATCH + MAX_WAITING + HANDOFF_RING * (workers - 1) + EXCEPTION_RING + 2_048;
        let options = PoolOptions { buffers, room: FRAME_ROOM, memory: memory.clone() };
        let pool = Pool::new(&format!("packets of worker {index}"), options)?;
        seats.push(Seat { ports, pool, exception: Some(exception) });
    }
    Ok(seats)
}

fn open(number: usize, port: &model::Port, worker_index: u16, workers: usize) -> Result<AfPacket, Error> {
    let settings = Settings {
        worker_index,
        // At most MAX_WORKERS.
        workers: workers as u16,
        // One for each port of each process; processes that run at once have different numbers.
        fanout_group: (std::process::id().wrapping_mul(16) as u16) | number as u16,
        receive_ring: match port.driver {
            Driver::AfPacket(model::ReceiveRing::Blocks) => af_packet::ReceiveRing::Blocks,
            _ => af_packet::ReceiveRing::Frames,
        },
        ..Settings::new(&port.device)
    };
    AfPacket::open(&settings).map_err(|error| match error {
        af_packet::Error::NotPermitted { device } => Error::NotPermitted(device),
        other => other.into(),
    })
}

fn memory_options(memory: model::Memory) -> hugepages::Options {
    let pages = match memory.pages {
        model::Pages::Auto => PageChoice::Auto,
        model::Pages::Huge2M => PageChoice::Exactly(PageSize::Huge2M),
        model::Pages::Huge1G => PageChoice::Exactly(PageSize::Huge1G),
        model::Pages::Ordinary => PageChoice::Ordinary,
    };
    hugepages::Options { pages, numa_node: memory.numa_node, lock: memory.lock }
}
