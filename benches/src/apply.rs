//! How long a change of the configuration takes, from the call to the moment when every worker runs it, while packets pass.
//!
//! The control plane's own way: a file is read, and [`Control::change`] compares, compiles, publishes, and waits for the
//! workers. One worker on a core of its own forwards packets of established connections without a pause; none may be lost.
//! Times are by the clock on the wall, because what is waited for is another thread.
//!
//! - *all*: from one service with 100 real servers to 1000 services with 100 each.
//! - *one server*: a real server more, or less, of one of these services.

use crate::{
    Extent,
    tool::{
        load::{Flows, Load, Share, Target},
        offer::{Clock, Plain, Tester},
        sizes::Sizes,
    },
    traffic::{DIRECTOR_MAC, ROUTER_MAC},
};
use pointsman_control::{
    apply::{Control, Prepared, Terms},
    config::{Configuration, model::Idle, read},
    kernel::{Network, PortNetwork, Route},
    local::Local,
    workers::{Crew, Plan},
};
use pointsman_dataplane::{
    command::WorkerShared,
    handoff,
    limits::{BATCH, FRAME_ROOM},
    publish,
    snapshot::NeighborState,
    wire::tcp,
    worker::Setup,
};
use pointsman_hugepages::{Options, Pool, PoolOptions};
use std::{fmt::Write as _, path::Path, sync::Arc, time::Duration};
use tokio::runtime::{Builder, Runtime};

/// Times of each change, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// To read the file of all services.
    pub reading: f64,
    /// To bring all services into force.
    pub all: Times,
    /// To bring one server into force.
    pub one: Times,
    /// Packets that the worker forwarded meanwhile; it lost none.
    pub forwarded: u64,
}

/// The best and the one in the middle of several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    /// In milliseconds.
    pub min: f64,
    /// In milliseconds.
    pub median: f64,
}

impl Times {
    fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let at = |n: usize| all.get(n).copied().unwrap_or(f64::NAN);
        Self { min: at(0), median: at(all.len() / 2) }
    }
}

const FLOWS: u32 = 1_000;
/// How often everything is changed, and how often one server.
const ALL: usize = 9;
const ONE: usize = 21;

/// Measures it.
///
/// # Errors
/// When it cannot be measured, or packets were lost.
pub fn measure(extent: Extent) -> Result<Measured, String> {
    let (services, servers) = (extent.pick(1_000, 20), 100);
    let begin = Clock::Wall.nanos();
    let full = parsed(services, servers)?;
    let reading = millis_since(begin);
    let base = parsed(1, servers)?;
    let bench = Bench::new(base.clone())?;
    let mut all = Vec::new();
    for _ in 0..extent.pick(ALL, 2) {
        all.push(bench.change(full.clone())?);
        bench.change(base.clone())?;
    }
    bench.change(full.clone())?;
    let mut one = Vec::new();
    for n in 0..extent.pick(ONE, 2) {
        let mut changed = full.clone();
        if n % 2 == 0 {
            let service = Arc::make_mut(&mut changed.services[services / 2]);
            let mut server = service.servers[0].clone();
            server.address = "10.200.0.1".parse().map_err(|_| "an address")?;
            service.servers.push(server);
        }
        one.push(bench.change(changed)?);
    }
    let forwarded = bench.end()?;
    Ok(Measured { reading, all: Times::of(all), one: Times::of(one), forwarded })
}

fn millis_since(begin: u64) -> f64 {
    (Clock::Wall.nanos() - begin) as f64 / 1e6
}

/// A configuration of so many services with so many servers each; the first is the one that packets are for.
fn parsed(services: usize, servers: usize) -> Result<Configuration, String> {
    let mut text = String::new();
    for service in 0..services {
        let vip = match service {
            0 => Target::default().vip.to_string(),
            n => format!("10.9.{}.{}", n / 250, n % 250 + 1),
        };
        let _ = writeln!(text, "[[service]]\naddress = \"{vip}\"\nport = 80\nscheduler = \"wrr\"");
        for server in 0..servers {
            let address = format!("10.{}.{}.{}", 20 + service / 250, service % 250, server + 1);
            let _ = writeln!(text, "[[service.server]]\naddress = \"{address}\"");
        }
    }
    read(Path::new("bench.toml"), &text).map_err(|errors| errors.to_string())
}

/// One port, with a router behind which all real servers are.
fn network() -> Network {
    let router = [10, 0, 0, 254].into();
    let route = |network: [u8; 4], prefix, gateway| Route {
        network: network.into(),
        prefix,
        gateway,
        port: 0,
        metric: 0,
    };
    Network {
        ports: vec![PortNetwork {
            name: "bench".to_owned(),
            device: "bench".to_owned(),
            index: 2,
            mac: DIRECTOR_MAC,
            mtu: 1_500,
            up: true,
            carrier: true,
            addresses: vec![([10, 0, 0, 1].into(), 24)],
        }],
        routes: vec![route([0, 0, 0, 0], 0, Some(router)), route([10, 0, 0, 0], 24, None)],
        ..Network::default()
    }
}

/// A director whose worker never rests.
struct Bench {
    runtime: Runtime,
    control: Arc<Control>,
    shared: Arc<WorkerShared>,
    _crew: Crew,
}

impl Bench {
    fn new(mut configuration: Configuration) -> Result<Self, String> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start the control plane: {error}"))?;
        let core = core_affinity::get_core_ids().and_then(|cores| cores.last().map(|core| core.id));
        let core = core.unwrap_or(0) as u32;
        configuration.start.cores = vec![core];
        let (prepared, snapshot) =
            Prepared::new(configuration, network()).map_err(|refusal| refusal.to_string())?;
        // The router need not be asked for.
        for hop in snapshot.next_hops.iter() {
            hop.cell.set(NeighborState::Reachable(ROUTER_MAC));
        }
        let (publisher, mut readers) = publish::channel(1, snapshot, 1);
        let memory = Options::default();
        let pool = PoolOptions { buffers: 4 * BATCH, room: FRAME_ROOM, memory: memory.clone() };
        let shared = Arc::new(WorkerShared::new(0));
        // A SYN of a known connection is forwarded as any other packet of it.
        let flows = Flows::known(Share { index: 0, workers: 1 }, FLOWS, tcp::SYN);
        let load = Load::new(flows, Sizes::Fixed(64), &Target::default());
        let setup = Setup {
            index: 0,
            ports: vec![Tester::new(load, Plain)],
            pool: Pool::new("packet buffers", pool).map_err(|error| error.to_string())?,
            connections_ipv4: 2 * FLOWS as usize,
            connections_ipv6: 1,
            memory,
            snapshot: readers.remove(0),
            handoff: handoff::mesh(1).remove(0),
            exception: None,
            shared: Arc::clone(&shared),
            seed: 0x5eed,
        };
        let plan = Plan { core, idle: Idle::Poll, setup };
        let crew = Crew::start(vec![plan], |_| eprintln!("the worker has ended"));
        let (crew, _) = crew.map_err(|error| error.to_string())?;
        let control = Control::new(prepared, publisher, crew.handles().to_vec(), Local::default());
        Ok(Self { runtime, control, shared, _crew: crew })
    }

    /// Milliseconds until the configuration is in force.
    fn change(&self, new: Configuration) -> Result<f64, String> {
        let begin = Clock::Wall.nanos();
        let changed = self.runtime.block_on(self.control.change(Terms::default(), |configuration| {
            *configuration = new;
            Ok(())
        }));
        let took = millis_since(begin);
        changed.map_err(|error| error.to_string())?;
        // What announces the new addresses is not to be in the next figure.
        std::thread::sleep(Duration::from_millis(20));
        Ok(took)
    }

    /// Packets forwarded.
    fn end(self) -> Result<u64, String> {
        let stats = &self.shared.stats;
        let lost: u64 = stats.drops.iter().map(|counter| counter.get()).sum();
        let answered: u64 = stats.answers.iter().map(|counter| counter.get()).sum();
        let forwarded = stats.forwarded.get();
        if lost + answered > 0 || forwarded == 0 {
            return Err(format!("{lost} packets were lost and {answered} answered, {forwarded} forwarded"));
        }
        Ok(forwarded)
    }
}
