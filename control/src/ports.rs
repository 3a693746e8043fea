//! What a port is and does, as its device tells it: link, speed, queues, counters of the driver.

use crate::{
    config::model::Driver,
    exception::PortCounters,
    kernel::{Network, PortNetwork},
};
#[cfg(feature = "dpdk")]
use pointsman_dataplane::port::dpdk::{self, DeviceHandle};
use pointsman_dataplane::time::Nanos;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Whom to ask about a port.
#[derive(Clone, Debug)]
pub enum Source {
    /// The kernel, about an interface that so many workers share.
    Kernel {
        /// The interface.
        interface: String,
        /// The workers.
        workers: u32,
        /// What it was given of the port's packets.
        host: Arc<PortCounters>,
    },
    /// DPDK, about a device.
    #[cfg(feature = "dpdk")]
    Dpdk {
        /// The device.
        device: DeviceHandle,
        /// The interface of the kernel that it is made of: its driver says of the link only that there is one.
        interface: Option<String>,
        /// What went through its own interface.
        host: Arc<PortCounters>,
    },
}

/// How a device chooses the queue of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// There is one queue.
    #[default]
    OneQueue,
    /// By the source: the worker that owns a flow receives it.
    Owner,
    /// By a hash of its own: workers hand over.
    DeviceHash,
    /// Not at all: the first worker hands over.
    FirstQueue,
}

impl Spread {
    /// As the interface names it.
    pub fn name(self) -> &'static str {
        match self {
            Spread::OneQueue => "one_queue",
            Spread::Owner => "owner",
            Spread::DeviceHash => "device_hash",
            Spread::FirstQueue => "first_queue",
        }
    }
}

/// What a device says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What drives it; empty if nothing does.
    pub driver: String,
    /// In megabits a second, if there is a link and it is known.
    pub speed_mbps: Option<u32>,
    /// Queues each way.
    pub queues: u32,
    /// How it chooses among them.
    pub spread: Spread,
    /// What it counts.
    pub counters: Counters,
}

/// What a device counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes of them.
    pub rx_bytes: u64,
    /// Lost as its rings were full.
    pub rx_missed: u64,
    /// Lost as no buffer was free.
    pub rx_no_buffer: u64,
    /// Broken ones.
    pub rx_errors: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes of them.
    pub tx_bytes: u64,
    /// Not sent.
    pub tx_errors: u64,
}

impl Source {
    /// A device that a configuration names so.
    #[cfg(feature = "dpdk")]
    pub fn dpdk(device: DeviceHandle, configured: &str, host: Arc<PortCounters>) -> Self {
        let made_of_one = configured.starts_with("net_af_packet") || configured.starts_with("net_af_xdp");
        let argument = configured.split(',').find_map(|argument| argument.strip_prefix("iface="));
        // Not if the kernel's files are of another network namespace.
        let interface = argument.filter(|name| made_of_one && sysfs(name).exists()).map(str::to_owned);
        Self::Dpdk { device, interface, host }
    }

    /// Its rings and its driver, for the log.
    pub fn words(&self, configured: &Driver) -> String {
        match (self, configured) {
            #[cfg(feature = "dpdk")]
            (Self::Dpdk { device, .. }, Driver::Dpdk(port)) => {
                let facts = device.facts();
                format!(
                    "driver {}, rings of {} and {} frames, {}",
                    facts.driver, port.rx_ring, port.tx_ring, facts.spread
                )
            }
            (_, Driver::AfPacket(ring)) => format!("receive ring of {}", ring.name()),
            (_, Driver::Dpdk(_)) => String::new(),
        }
    }

    /// Asks the device. A driver may take milliseconds.
    pub fn ask(&self) -> Told {
        match self {
            Self::Kernel { interface, workers, .. } => of_kernel(&sysfs(interface), *workers),
            #[cfg(feature = "dpdk")]
            Self::Dpdk { device, interface, .. } => of_dpdk(device, interface.as_deref()),
        }
    }

    /// Every counter that the driver has, by name; behind them those of the exception path, if it has one.
    pub fn driver_counters(&self) -> Vec<(String, u64)> {
        match self {
            Self::Kernel { interface, host, .. } => {
                let folder = fs::read_dir(sysfs(interface).join("statistics"));
                let counter =
                    |file: fs::DirEntry| Some((file.file_name().into_string().ok()?, number(&file.path())?));
                let mut all: Vec<_> = folder.into_iter().flatten().flatten().filter_map(counter).collect();
                all.sort_unstable();
                all.extend(host.to_host());
                all
            }
            #[cfg(feature = "dpdk")]
            Self::Dpdk { device, host, .. } => {
                let mut all = device.xstats();
                all.extend(host.to_host().into_iter().chain(host.from_host()));
                all
            }
        }
    }

    /// Whether the device has a link, where the kernel does not know it by itself.
    pub fn link(&self) -> Option<bool> {
        match self {
            Self::Kernel { .. } => None,
            #[cfg(feature = "dpdk")]
            Self::Dpdk { device, interface, .. } => {
                // The file cannot be read while the interface is down.
                let carrier = |name: &String| number(&sysfs(name).join("carrier")) == Some(1);
                Some(device.link().is_some_and(|link| link.up) && interface.as_ref().is_none_or(carrier))
            }
        }
    }
}

fn sysfs(interface: &str) -> PathBuf {
    Path::new("/sys/class/net").join(interface)
}

/// What the kernel says of an interface in its files. Those that are not there count as 0.
fn of_kernel(folder: &Path, workers: u32) -> Told {
    let driver = fs::read_link(folder.join("device/driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name);
    let count = |name: &str| number(&folder.join("statistics").join(name)).unwrap_or(0);
    Told {
        driver: driver.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        speed_mbps: speed(folder),
        queues: workers,
        // A program of ours, which the kernel runs for each frame.
        spread: if workers > 1 { Spread::Owner } else { Spread::OneQueue },
        counters: Counters {
            rx_packets: count("rx_packets"),
            rx_bytes: count("rx_bytes"),
            rx_missed: count("rx_missed_errors"),
            rx_no_buffer: count("rx_dropped"),
            rx_errors: count("rx_errors"),
            tx_packets: count("tx_packets"),
            tx_bytes: count("tx_bytes"),
            tx_errors: count("tx_errors") + count("tx_dropped"),
        },
    }
}

/// -1, or nothing, where it is not known.
fn speed(folder: &Path) -> Option<u32> {
    number(&folder.join("speed")).and_then(|mbps| u32::try_from(mbps).ok()).filter(|mbps| *mbps > 0)
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(feature = "dpdk")]
fn of_dpdk(device: &DeviceHandle, interface: Option<&str>) -> Told {
    let (facts, stats) = (device.facts(), device.stats().unwrap_or_default());
    Told {
        driver: facts.driver.clone(),
        speed_mbps: match interface {
            Some(interface) => speed(&sysfs(interface)),
            None => device.link().and_then(|link| link.mbps),
        },
        queues: facts.queues.into(),
        spread: match facts.spread {
            dpdk::Spread::OneQueue => Spread::OneQueue,
            dpdk::Spread::Owner => Spread::Owner,
            dpdk::Spread::OwnHash => Spread::DeviceHash,
            dpdk::Spread::FirstQueue => Spread::FirstQueue,
        },
        counters: Counters {
            rx_packets: stats.rx_packets,
            rx_bytes: stats.rx_bytes,
            rx_missed: stats.rx_missed,
            rx_no_buffer: stats.rx_no_mbuf,
            rx_errors: stats.rx_errors,
            tx_packets: stats.tx_packets,
            tx_bytes: stats.tx_bytes,
            tx_errors: stats.tx_errors,
        },
    }
}

/// The state of a link, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether there is one.
    pub up: bool,
    /// When that was first seen.
    pub since: Nanos,
    /// How often it was lost.
    pub losses: u64,
}

/// A link that was lost, or is there again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkChange {
    /// The number of the port.
    pub port: usize,
    /// Whether it is there.
    pub up: bool,
    /// How long it was as it is no longer.
    pub lasted: Nanos,
}

/// The ports of a director, whom to ask about them, and what became of their links.
#[derive(Debug)]
pub struct Ports {
    sources: Arc<[Source]>,
    links: Mutex<Vec<Link>>,
}

impl Ports {
    /// Ports as the kernel sees them now.
    pub fn new(sources: Arc<[Source]>, network: &Network, now: Nanos) -> Self {
        let link = |port: &PortNetwork| Link { up: has_link(port), since: now, losses: 0 };
        Self { sources, links: Mutex::new(network.ports.iter().map(link).collect()) }
    }

    /// Whom to ask, by number.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The state of the links, by number.
    pub fn links(&self) -> Vec<Link> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what the kernel sees now, and returns what has changed.
    pub fn observe(&self, network: &Network, now: Nanos) -> Vec<LinkChange> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::new();
        for (number, (link, port)) in links.iter_mut().zip(&network.ports).enumerate() {
            let up = has_link(port);
            if up != link.up {
                let lasted = Nanos(now.0.saturating_sub(link.since.0));
                changes.push(LinkChange { port: number, up, lasted });
                *link = Link { up, since: now, losses: link.losses + u64::from(!up) };
            }
        }
        changes
    }
}

fn has_link(port: &PortNetwork) -> bool {
    port.up && port.carrier
}

/// What to do about a port without a link: a sentence with the remedy, or none.
pub fn remedy(port: &PortNetwork, source: Option<&Source>) -> Option<String> {
    match source {
        _ if has_link(port) => None,
        _ if !port.up => Some(format!(
            "port {}: the interface {} is down or gone; `ip link set {} up`",
            port.name, port.device, port.device
        )),
        #[cfg(feature = "dpdk")]
        Some(Source::Dpdk { device, .. }) => Some(format!(
            "port {}: the device {} has no link: check its cable, or the other side",
            port.name,
            device.name()
        )),
        _ => Some(format!(
            "port {}: {} has no link: check its cable, or the other side",
            port.name, port.device
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing;

    #[test]
    fn a_link_that_is_lost_and_comes_back_is_told_with_how_long_it_lasted() {
        let mut network = testing::network();
        let ports = Ports::new([].into(), &network, Nanos::from_secs(100));
        assert_eq!(ports.observe(&network, Nanos::from_secs(110)), []);
        network.ports[0].carrier = false;
        let lost = LinkChange { port: 0, up: false, lasted: Nanos::from_secs(30) };
        assert_eq!(ports.observe(&network, Nanos::from_secs(130)), [lost]);
        assert_eq!(ports.observe(&network, Nanos::from_secs(131)), [], "told once");
        assert_eq!(ports.links(), [Link { up: false, since: Nanos::from_secs(130), losses: 1 }]);
        network.ports[0].carrier = true;
        let back = LinkChange { port: 0, up: true, lasted: Nanos::from_secs(12) };
        assert_eq!(ports.observe(&network, Nanos::from_secs(142)), [back]);
        assert_eq!(ports.links(), [Link { up: true, since: Nanos::from_secs(142), losses: 1 }]);
    }

    #[test]
    fn a_port_without_a_link_has_a_remedy() {
        let mut port = testing::network().ports.remove(0);
        assert_eq!(remedy(&port, None), None);
        port.carrier = false;
        let cable = "port eth0: eth0 has no link: check its cable, or the other side";
        assert_eq!(remedy(&port, None).as_deref(), Some(cable));
        port.up = false;
        let down = "port eth0: the interface eth0 is down or gone; `ip link set eth0 up`";
        assert_eq!(remedy(&port, None).as_deref(), Some(down));
    }

    #[test]
    fn the_kernel_is_asked_by_its_files_and_what_is_not_there_is_not_known() {
        let source = Source::Kernel { interface: "lo".into(), workers: 2, host: Arc::default() };
        let told = source.ask();
        assert_eq!((told.queues, told.spread, told.speed_mbps), (2, Spread::Owner, None));
        assert!(source.driver_counters().iter().any(|(name, _)| name == "rx_packets"));
        let nothing =
            Source::Kernel { interface: "no-such-interface".into(), workers: 1, host: Arc::default() };
        assert_eq!(nothing.ask(), Told { queues: 1, ..Told::default() });
        assert!(nothing.driver_counters().iter().all(|(name, _)| name.starts_with("exception_to_host")));
    }
}
