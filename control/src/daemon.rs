//! The appliance: reads what it is told, starts workers and control plane, and ends in order.

#[cfg(feature = "dpdk")]
mod dpdk;
mod follow;
mod opened;

use crate::{
    apply::{Control, Prepared},
    claim::{self, Claims},
    clock,
    config::{self, Configuration, model},
    exception, grpc,
    kernel::{self, Monitor, Network},
    ports::{Ports, remedy},
    refusal::Refusal,
    resolver::Resolver,
    socket::{self, Socket},
    workers::{self, Ended},
};
use opened::{Opened, Running};
use pointsman_dataplane::{port::af_packet, publish};
use pointsman_hugepages::{self as hugepages, Report};
use std::{
    io::{self, Write},
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc},
};

/// What the daemon is told on its command line.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "pointsmand",
    version,
    about = "The Pointsman appliance: a layer-4 load balancer (an LVS director)"
)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["config", "port"])))]
pub struct Options {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Start without services on this interface. May be repeated.
    #[arg(long, value_name = "INTERFACE")]
    pub port: Vec<String>,
    /// Where to listen for clients.
    #[arg(
        long,
        value_name = "PATH",
        env = "POINTSMAN_SOCKET",
        default_value = "/run/pointsman/pointsman.sock"
    )]
    pub socket: PathBuf,
    /// Only say whether the configuration is right.
    #[arg(long, conflicts_with = "port")]
    pub check: bool,
}

/// Why the daemon did not start, or did not go on. Each names the thing and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration {}: {source}; check --config", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] config::ConfigErrors),
    /// The configuration has no port.
    #[error("{}: no [[port]] is configured; add one with `device = \"eth0\"`", .0.display())]
    NoPort(PathBuf),
    /// It cannot be run.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A core that is not there.
    #[error(
        "core {core} is not there for a worker: this process may use the cores {there}; change workers.cores, or the cpuset it runs in"
    )]
    Core {
        /// The core that was asked for.
        core: u32,
        /// Those that may be used.
        there: String,
    },
    /// The socket.
    #[error(transparent)]
    Socket(#[from] socket::Error),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// A port that another daemon has.
    #[error(transparent)]
    Claim(#[from] claim::Error),
    /// A port of DPDK's for a daemon that has none.
    #[error(
        "port {0}: driver = \"dpdk\" needs a pointsmand that is built with DPDK, and this one is not; get one with `make release-dpdk`, or `cargo build --release --package pointsman-control --features dpdk` (on Debian: apt-get install libdpdk-dev), or use driver = \"af_packet\""
    )]
    BuiltWithoutDpdk(String),
    /// DPDK, or a port of its.
    #[cfg(feature = "dpdk")]
    #[error(transparent)]
    Dpdk(#[from] dpdk::Error),
    /// The way to the host.
    #[error(transparent)]
    Exception(#[from] exception::Error),
    /// A port without permission.
    #[error(
        "port {0}: the capability CAP_NET_RAW is missing; run pointsmand as root, or give it the capability: `setcap cap_net_raw,cap_net_admin,cap_ipc_lock+ep $(command -v pointsmand)`"
    )]
    NotPermitted(String),
    /// A port.
    #[error("port {0}")]
    Port(#[from] af_packet::Error),
    /// Memory for packets.
    #[error(transparent)]
    Memory(#[from] hugepages::Error),
    /// A worker that did not start.
    #[error(transparent)]
    Worker(#[from] workers::Error),
    /// A worker that ended.
    #[error(
        "worker {0} ended abnormally, so the director ends; what it said is above. Start it again, and report the message"
    )]
    Ended(u16),
    /// The runtime of the control plane, or its server.
    #[error("the control plane failed: {0}")]
    Control(Box<dyn std::error::Error + Send + Sync>),
}

/// Runs the daemon until it is told to end.
///
/// # Errors
/// See [`Error`].
pub fn run(options: &Options) -> Result<(), Error> {
    clock::now();
    let mut configuration = load(options)?;
    if options.check {
        // A pipe that is closed has been answered by the exit status.
        let _ = writeln!(
            io::stdout(),
            "the configuration is right; whether its interfaces and cores are there is seen at the start"
        );
        return Ok(());
    }
    resolve_start(&mut configuration.start)?;
    let others = other_cores(&configuration.start.cores);
    if others.is_empty() && configuration.start.cores.len() > 1 {
        tracing::warn!(
            "every core that this process may use has a worker: the control plane takes time from them; leave a core out of workers.cores"
        );
    }
    let first = others.first().copied();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .on_thread_start(move || {
            // Off the cores of the workers, where there are others.
            let turn = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if let Some(core) = others.get(turn % others.len().max(1)) {
                core_affinity::set_for_current(*core);
            }
        })
        .build()
        .map_err(|error| Error::Control(error.into()))?;
    // This thread too, which now only waits.
    if let Some(core) = first {
        core_affinity::set_for_current(core);
    }
    let result = runtime.block_on(async { tokio::spawn(serve(options.clone(), configuration)).await });
    // Tasks that wait for workers have none any more.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result.unwrap_or_else(|panicked| Err(Error::Control(panicked.into())))
}

fn load(options: &Options) -> Result<Configuration, Error> {
    let Some(path) = &options.config else {
        let port = |device: &String| model::Port {
            name: device.clone(),
            driver: model::Driver::AfPacket(model::ReceiveRing::default()),
            device: device.clone(),
            idle: model::Idle::default(),
        };
        let ports = options.port.iter().map(port).collect();
        let start = model::Start { ports, ..Default::default() };
        // By the rules that a file is held to.
        let asked = (&Configuration { start, ..Default::default() }).into();
        let first = |refusals: Vec<Refusal>| refusals.into_iter().next();
        return config::validate::configuration(&asked).map_err(|refusals| match first(refusals) {
            Some(refusal) => refusal.into(),
            None => Error::Control("the ports were refused without a reason".into()),
        });
    };
    let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.clone(), source })?;
    let configuration = config::read(path, &text)?;
    if configuration.start.ports.is_empty() {
        return Err(Error::NoPort(path.clone()));
    }
    can_run(&configuration.start)?;
    Ok(configuration)
}

/// Refuses what only another build can run.
fn can_run(start: &model::Start) -> Result<(), Error> {
    let is_dpdk = |port: &&model::Port| matches!(port.driver, model::Driver::Dpdk(_));
    match start.ports.iter().find(is_dpdk) {
        Some(port) if cfg!(not(feature = "dpdk")) => Err(Error::BuiltWithoutDpdk(port.name.clone())),
        _ => Ok(()),
    }
}

/// Fills in what was not said.
fn resolve_start(start: &mut model::Start) -> Result<(), Error> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let there: Vec<u32> = cores.iter().filter_map(|core| u32::try_from(core.id).ok()).collect();
    if start.cores.is_empty() {
        start.cores = vec![there.iter().copied().max().unwrap_or(0)];
    }
    if let Some(core) = start.cores.iter().find(|core| !there.contains(core)) {
        let there: Vec<String> = there.iter().map(ToString::to_string).collect();
        return Err(Error::Core { core: *core, there: there.join(", ") });
    }
    let or = |number: &mut Option<NonZeroU64>, default| *number = number.or(NonZeroU64::new(default));
    or(&mut start.connections_ipv4, model::Start::CONNECTIONS_IPV4);
    or(&mut start.connections_ipv6, model::Start::CONNECTIONS_IPV6);
    start.memory.get_or_insert_default();
    Ok(())
}

fn other_cores(workers: &[u32]) -> Vec<core_affinity::CoreId> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.into_iter().filter(|core| !workers.iter().any(|worker| *worker as usize == core.id)).collect()
}

/// Takes the interfaces of the kernel that are ports.
fn claimed(start: &model::Start, network: &Network) -> Result<Claims, claim::Error> {
    let is_kernels = |port: &model::Port| matches!(port.driver, model::Driver::AfPacket(_));
    let ports = start.ports.iter().zip(&network.ports).filter(|(port, _)| is_kernels(port));
    Claims::new(ports.map(|(_, network)| network))
}

/// Everything after the configuration was read.
async fn serve(options: Options, configuration: Configuration) -> Result<(), Error> {
    let control_error = |error: io::Error| Error::Control(error.into());
    // First of all, so that two daemons never answer at the same socket.
    let (socket, listener) = Socket::listen(&options.socket)?;
    let listener = UnixListener::from_std(listener).map_err(control_error)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(control_error)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(control_error)?;
    let hangup = signal(SignalKind::hangup()).map_err(control_error)?;

    let start = configuration.start.clone();
    let devices: Vec<(String, String)> =
        start.ports.iter().map(|port| (port.name.clone(), port.interface().to_owned())).collect();
    // Before it is read, so that no change is missed.
    let monitor = Monitor::new()?;
    let opened = Opened::new(&start).await?;
    let network = Network::read(&devices).await?;
    if let Some(port) = network.ports.iter().find(|port| !port.up) {
        return Err(kernel::Error::Down(port.device.clone()).into());
    }
    let _claims = claimed(&start, &network)?;
    let (prepared, snapshot) = Prepared::new(configuration, network.clone())?;
    let (publisher, readers) = publish::channel(1, snapshot, start.cores.len());
    let (ended_sender, mut ended) = mpsc::unbounded_channel();
    let (running, reports) = opened.run(&start, readers, move |ended: Ended| {
        // Nobody listens any more when the daemon ends.
        let _ = ended_sender.send(ended);
    })?;
    say_what_runs(&start, &network, &running, &reports);
    let ports = Arc::new(Ports::new(running.sources.clone(), &network, clock::now()));

    let control = Control::new(prepared, publisher, running.crew.handles().to_vec(), running.local());
    control.begin_local().await.map_err(|error| Error::Control(error.into()))?;
    for warning in control.warnings().await {
        tracing::warn!("{warning}");
    }
    let resolver = Arc::new(Resolver::default());
    let resolving = (resolver.clone(), control.clone());
    tokio::spawn(async move { resolving.0.run(resolving.1).await });
    tokio::spawn(follow::estimate_rates(control.clone()));
    tokio::spawn(follow::follow_kernel(control.clone(), monitor, devices, ports.clone()));
    running.follow_links(&ports);
    tokio::spawn(follow::reload(control.clone(), hangup, options.config.clone()));
    control.announce_all().await;
    let context = grpc::Context { control, resolver, ports, memory: reports.into() };
    let end = Arc::new(Notify::new());
    let ending = end.clone();
    let mut server = tokio::spawn(grpc::serve(context, listener, async move { ending.notified().await }));
    say_ready(&options.socket);

    let result = tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        Some(Ended(worker)) = ended.recv() => Err(Error::Ended(worker)),
        result = &mut server => Err(Error::Control(match result {
            Ok(Ok(())) => "its server ended".into(),
            Ok(Err(error)) => error,
            Err(panicked) => panicked.into(),
        })),
    };
    if let Ok(signal) = result {
        tracing::info!("{signal}: ending");
        end.notify_one();
        // Requests in progress are answered; streams that never end are not waited for.
        let _ = tokio::time::timeout(Duration::from_millis(500), server).await;
    }
    drop(socket);
    drop(running);
    result.map(|_| ())
}

/// What an operator wants to find in the log.
fn say_what_runs(start: &model::Start, network: &Network, running: &Running, reports: &[Report]) {
    for ((port, facts), source) in start.ports.iter().zip(&network.ports).zip(running.sources.iter()) {
        let addresses: Vec<String> = facts.addresses.iter().map(|(ip, len)| format!("{ip}/{len}")).collect();
        tracing::info!(
            "port {}: {} on {}, MTU {}, {}, {}, when idle: {}",
            port.name,
            port.driver.name(),
            port.device,
            facts.mtu,
            if addresses.is_empty() { "no addresses".to_owned() } else { addresses.join(" ") },
            source.words(&port.driver),
            port.idle.name()
        );
    }
    for (index, core) in start.cores.iter().enumerate() {
        tracing::info!("worker {index} on core {core}");
    }
    for (port, source) in network.ports.iter().zip(running.sources.iter()) {
        remedy(port, Some(source)).iter().for_each(|remedy| tracing::warn!("{remedy}"));
    }
    for report in reports {
        tracing::info!("{report}");
        report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
}

fn say_ready(socket: &Path) {
    tracing::info!("listening on {}", socket.display());
    let mut out = io::stdout();
    // Whoever started us may not want to know.
    let _ = writeln!(out, "ready").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests;
