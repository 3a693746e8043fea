//! Ports of DPDK's: its environment, the devices, and an interface of the kernel for each.

use super::{
    Error as DaemonError,
    opened::{Running, Seat, plans},
};
use crate::{
    config::model::{
        self, Driver, Port,
        dpdk::{DpdkPort as Configured, Memory, is_pci},
    },
    exception::{self, Tap},
    kernel::{self, setup},
    ports::Source,
    workers::{Crew, Ended, Handle},
};
use pointsman_dataplane::{
    exception::{HostEnd, WorkerEnd},
    limits::EXCEPTION_RING,
    port::dpdk::{self, Device, DeviceHandle, Dpdk, DpdkPort, Mbuf, PortSettings, Settings},
    publish,
    snapshot::Snapshot,
};
use pointsman_hugepages::Report;
use std::collections::HashSet;

/// Why ports of DPDK's do not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not root.
    #[error(
        "ports with driver = \"dpdk\": the capability {0} is missing; run pointsmand as root, or give it the capabilities: `setcap cap_net_raw,cap_net_admin,cap_ipc_lock,cap_sys_rawio+ep $(command -v pointsmand)`"
    )]
    NotPermitted(&'static str),
    /// DPDK refuses.
    #[error(transparent)]
    Dpdk(Box<dpdk::Error>),
    /// DPDK does not start with what it was told.
    #[error("{source}; {hint}")]
    Start {
        /// What it said.
        source: Box<dpdk::Error>,
        /// What to look at.
        hint: String,
    },
    /// A virtual device on an interface that is not there.
    #[error(
        "port {port}: no interface is named \"{interface}\", which its device is to be made of; there are {there}: choose one of them, or create it (`ip link`)"
    )]
    NoInterface {
        /// The port.
        port: String,
        /// The interface.
        interface: String,
        /// Those that are there.
        there: String,
    },
    /// DPDK refuses the device of a port.
    #[error("port {port}: {source}")]
    Port {
        /// The port.
        port: String,
        /// What is wrong, with the remedy.
        source: Box<dpdk::Error>,
    },
    /// The kernel refuses the interface of a port.
    #[error("port {port}: {source}")]
    Tap {
        /// The port.
        port: String,
        /// What is wrong, with the remedy.
        source: exception::Error,
    },
    /// The kernel refuses an address or a route.
    #[error("port {port}: {source}")]
    Setup {
        /// The port.
        port: String,
        /// What is wrong, with the remedy.
        source: Box<setup::Error>,
    },
}

impl From<dpdk::Error> for Error {
    fn from(error: dpdk::Error) -> Self {
        Self::Dpdk(error.into())
    }
}

fn of_port(port: &Port) -> impl Fn(dpdk::Error) -> Error {
    move |source| Error::Port { port: port.name.clone(), source: source.into() }
}

/// What to look at when DPDK does not start: it says little itself.
fn not_started(error: dpdk::Error, settings: &Settings, ports: &[(&Port, &Configured)]) -> Error {
    let dpdk::Error::Refused { log, .. } = &error else { return error.into() };
    let named = |(port, _): &&(&Port, &Configured)| {
        let name = port.device.split(',').next().unwrap_or_default();
        log.contains(name)
    };
    let hint = if let Some((port, _)) = ports.iter().find(named) {
        format!(
            "correct the device \"{}\" of port {}: its first word is a driver and a number, and Debian has each driver in a package of its own (`apt-cache search librte-net`)",
            port.device, port.name
        )
    } else if !settings.arguments.is_empty() {
        format!(
            "correct or remove what dpdk.arguments adds: {} (`dpdk-testpmd --help`, of Debian's package dpdk-dev, lists what DPDK takes)",
            settings.arguments.join(" ")
        )
    } else {
        "`dpdk-testpmd` (Debian's package dpdk-dev) with the same device says more".to_owned()
    };
    Error::Start { source: error.into(), hint }
}

/// The drivers of such devices say nothing of it.
async fn check_interfaces(ports: &[(&Port, &Configured)]) -> Result<(), DaemonError> {
    let there = kernel::interfaces().await?;
    for (port, _) in ports {
        let made_of_one = port.device.starts_with("net_af_packet") || port.device.starts_with("net_af_xdp");
        let argument = port.device.split(',').find_map(|argument| argument.strip_prefix("iface="));
        if let Some(name) = argument.filter(|name| made_of_one && there.iter().all(|other| other != name)) {
            let (port, interface) = (port.name.clone(), name.to_owned());
            return Err(Error::NoInterface { port, interface, there: there.join(", ") }.into());
        }
    }
    Ok(())
}

/// The devices, open and with interfaces, before the workers run.
pub(super) struct Opened {
    seats: Vec<Seat<DpdkPort>>,
    devices: Vec<DeviceHandle>,
    taps: Vec<Tap>,
    host: HostEnd<Mbuf>,
    dpdk: Dpdk,
}

impl Opened {
    /// Starts DPDK, opens its devices, and gives each an interface with the addresses of its port.
    pub(super) async fn new(start: &model::Start) -> Result<Self, DaemonError> {
        check_permission()?;
        let workers = start.cores.len();
        let ports: Vec<(&Port, &Configured)> = start.ports.iter().filter_map(configured).collect();
        let settings = settings(start, &ports)?;
        let room = settings.frame_room.into();
        tracing::info!("starting DPDK: {}", dpdk::version());
        check_interfaces(&ports).await?;
        let dpdk = Dpdk::start(&settings).map_err(|error| not_started(error, &settings, &ports))?;
        let (ends, host) = exception::path(workers, room)?;
        let mut queues: Vec<Vec<DpdkPort>> = (0..workers).map(|_| Vec::new()).collect();
        let (mut devices, mut taps) = (Vec::new(), Vec::new());
        for (port, configured) in ports {
            let name = || port.name.clone();
            let opened = dpdk.open(&port_settings(port, configured, workers)?).map_err(of_port(port))?;
            let Some(device) = opened.first().map(DpdkPort::handle) else { continue };
            let mac = device.facts().mac;
            let tap = Tap::create(&port.name, mac, configured.mtu)
                .map_err(|source| Error::Tap { port: name(), source })?;
            setup::interface(&port.name, &configured.addresses, &configured.gateways)
                .await
                .map_err(|source| Error::Setup { port: name(), source: source.into() })?;
            taps.push(tap);
            devices.push(device);
            queues.iter_mut().zip(opened).for_each(|(of_worker, queue)| of_worker.push(queue));
        }
        let seats = queues.into_iter().zip(ends).map(|(ports, end)| seat(&dpdk, ports, end));
        let seats = seats.collect::<Result<_, _>>()?;
        Ok(Self { seats, devices, taps, host, dpdk })
    }

    /// Starts the workers, and the thread that serves the host's own frames.
    pub(super) fn run(
        self,
        start: &model::Start,
        readers: Vec<publish::Reader<Snapshot>>,
        ended: impl Fn(Ended) + Clone + Send + 'static,
    ) -> Result<(Running, Vec<Report>), DaemonError> {
        let (crew, mut reports) = Crew::start(plans(start, self.seats, readers), ended)?;
        // The workers share the pools of DPDK.
        let mut known = HashSet::new();
        reports.retain(|report| !report.purpose.contains("DPDK") || known.insert(report.purpose.clone()));
        let first = crew.handles().first().cloned();
        let wake = move || first.iter().for_each(Handle::wake);
        let host = exception::start(self.taps.len(), self.taps, self.host, wake)?;
        let counters = host.counters();
        let devices = self.devices.into_iter().zip(&start.ports).zip(counters.iter().cloned());
        let source =
            |((device, port), counters): ((_, &Port), _)| Source::dpdk(device, &port.device, counters);
        let sources = devices.map(source).collect::<Vec<_>>().into();
        Ok((Running { host: host.into(), crew, sources, _dpdk: Some(self.dpdk) }, reports))
    }
}

fn seat(dpdk: &Dpdk, ports: Vec<DpdkPort>, exception: WorkerEnd<Mbuf>) -> Result<Seat<DpdkPort>, Error> {
    let node = ports.first().and_then(|port| port.facts().numa_node);
    Ok(Seat { ports, pool: dpdk.pool(node)?, exception: Some(exception) })
}

fn configured(port: &Port) -> Option<(&Port, &Configured)> {
    match &port.driver {
        Driver::Dpdk(configured) => Some((port, configured)),
        Driver::AfPacket(_) => None,
    }
}

/// How DPDK is to be started for all ports.
fn settings(start: &model::Start, ports: &[(&Port, &Configured)]) -> Result<Settings, Error> {
    let devices = ports.iter().map(|(port, _)| device(port)).collect::<Result<Vec<_>, _>>()?;
    let (workers, general) = (start.cores.len(), start.dpdk.clone().unwrap_or_default());
    let slots =
        ports.iter().map(|(_, port)| port.rx_ring.max(port.tx_ring)).max().unwrap_or(Configured::RING);
    let mtu = ports.iter().map(|(_, port)| port.mtu).max().unwrap_or(Configured::MTU);
    let needed = Settings::buffers(devices.len(), workers, slots);
    // With those on their way to the host; one less than a power of two is what DPDK's rings hold best.
    let needed = (needed + (workers * EXCEPTION_RING) as u32 + 1).next_power_of_two() - 1;
    let defaults = Settings::new(devices, workers, slots);
    Ok(Settings {
        memory: match general.memory {
            Memory::Huge => dpdk::Memory::HugePages,
            Memory::Ordinary => dpdk::Memory::Ordinary,
        },
        frame_room: Settings::room(mtu),
        buffers: general.buffers.map_or(needed, |asked| asked.get()),
        arguments: general.arguments,
        ..defaults
    })
}

fn port_settings(port: &Port, configured: &Configured, workers: usize) -> Result<PortSettings, Error> {
    Ok(PortSettings {
        // At most MAX_WORKERS.
        workers: workers as u16,
        mtu: configured.mtu,
        rx_slots: configured.rx_ring,
        tx_slots: configured.tx_ring,
        promiscuous: configured.promiscuous,
        ..PortSettings::new(device(port)?)
    })
}

fn device(port: &Port) -> Result<Device, Error> {
    let text = if is_pci(&port.device) { port.device.clone() } else { format!("vdev:{}", port.device) };
    text.parse().map_err(of_port(port))
}

/// Looked at first: DPDK's own refusals do not say it.
fn check_permission() -> Result<(), Error> {
    const NEEDED: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW")];
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    // Where it cannot be read the kernel's refusals must do.
    let effective = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(u64::MAX);
    match NEEDED.iter().find(|(bit, _)| effective & (1 << bit) == 0) {
        Some((_, name)) => Err(Error::NotPermitted(name)),
        None => Ok(()),
    }
}
