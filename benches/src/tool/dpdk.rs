//! Ports of DPDK for the tool: a director in this process over a virtual device, or stations on a wire.
//!
//! DPDK starts once in the life of a process, with all its devices and the most queues that a command will use. Whoever
//! needs queues for a run borrows them.

use super::{
    crew::Crew,
    device::{self, directors},
    offer::Medium,
    order::{Order, Outcome, Plan, Workers},
    ports::{Arrangement, PortSpec, Wire, arrange},
    search::{Device, Trial},
    station::{self, Live, Station},
};
use pointsman_dataplane::{
    limits::{BATCH, MAX_WORKERS},
    port::{
        FramePool, Frames, PoolOf, Port,
        dpdk::{Dpdk, DpdkPort, Error, Mbuf, MbufPool, Memory, PortSettings, Settings, version},
    },
};
use pointsman_hugepages::PageChoice;
use std::{
    os::fd::RawFd,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

/// Frames on their way round in a device that gives back what it is sent.
const RING: usize = 256;
/// Frames in each ring of a device.
const SLOTS: u16 = 1_024;
/// How often a link is looked for, and how long is waited between.
const LINK_TRIES: u32 = 100;
/// See [`LINK_TRIES`].
const LINK_PAUSE: Duration = Duration::from_millis(100);
/// Free huge pages of 2 MiB with which DPDK is told to use them.
const ENOUGH_PAGES: u32 = 128;

/// The devices of this process.
struct Devices {
    names: Vec<String>,
    queues: u16,
    /// By device and queue; `None` while borrowed.
    ports: Vec<Vec<Option<DpdkPort>>>,
    huge_pages: bool,
    described: String,
    _dpdk: Dpdk,
}

static DEVICES: Mutex<Option<Devices>> = Mutex::new(None);

fn with<T>(act: impl FnOnce(&mut Option<Devices>) -> T) -> T {
    act(&mut DEVICES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Closes all devices.
pub fn end() {
    with(|devices| drop(devices.take()));
}

/// A queue of a device that goes back where it was.
struct Borrowed {
    port: Option<DpdkPort>,
    place: (usize, usize),
}

impl Borrowed {
    fn new(device: usize, queue: usize) -> Result<Self, String> {
        let port = with(|devices| devices.as_mut()?.ports.get_mut(device)?.get_mut(queue)?.take());
        match port {
            Some(port) => Ok(Self { port: Some(port), place: (device, queue) }),
            None => Err(format!("queue {queue} of device {device} is in use or was not opened")),
        }
    }

    #[inline]
    fn port(&mut self) -> &mut DpdkPort {
        self.port.as_mut().expect("it is borrowed until it is dropped")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let (port, (device, queue)) = (self.port.take(), self.place);
        with(|devices| {
            if let Some(devices) = devices {
                devices.ports[device][queue] = port;
            }
        });
    }
}

impl Port for Borrowed {
    type Frame = Mbuf;

    #[inline]
    fn rx(&mut self, pool: &mut PoolOf<Self>, frames: &mut Frames<Mbuf>) -> usize {
        self.port().rx(pool, frames)
    }

    #[inline]
    fn tx(&mut self, frames: &mut Frames<Mbuf>) -> usize {
        self.port().tx(frames)
    }

    fn rx_ring_drops(&mut self) -> u64 {
        self.port().rx_ring_drops()
    }

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }
}

/// Starts DPDK with these devices and `queues` queues each, unless it has been started so.
fn open(names: &[String], queues: u16, pages: PageChoice) -> Result<(), String> {
    with(|devices| {
        if let Some(devices) = devices {
            let same = devices.names == names && devices.queues >= queues;
            return if same { Ok(()) } else { Err(Error::StartedBefore.to_string()) };
        }
        let opened = start(names, queues, pages).map_err(|error| error.to_string())?;
        *devices = Some(opened);
        Ok(())
    })
}

fn start(names: &[String], queues: u16, pages: PageChoice) -> Result<Devices, Error> {
    let list = names.iter().map(|name| name.parse()).collect::<Result<Vec<_>, Error>>()?;
    let virtual_only = names.iter().all(|name| name.starts_with("vdev:"));
    let mut settings = Settings::new(list, queues.into(), SLOTS);
    // Devices of PCI reach huge pages alone; virtual ones do with ordinary ones, and the report says so.
    let huge_pages = pages != PageChoice::Ordinary && (!virtual_only || free_huge_pages() >= ENOUGH_PAGES);
    settings.memory = if huge_pages { Memory::HugePages } else { Memory::Ordinary };
    let dpdk = Dpdk::start(&settings)?;
    let (mut ports, mut drivers) = (Vec::new(), Vec::new());
    for device in &settings.devices {
        let settings = PortSettings { workers: queues, ..PortSettings::new(device.clone()) };
        let opened = dpdk.open(&settings)?;
        let driver = opened.first().map_or("", |port| port.facts().driver.as_str());
        drivers.push(format!("{} ({driver})", device.name()));
        ports.push(opened.into_iter().map(Some).collect());
    }
    let described = format!("{}: {}", version(), drivers.join(" and "));
    Ok(Devices { names: names.to_vec(), queues, ports, huge_pages, described, _dpdk: dpdk })
}

fn free_huge_pages() -> u32 {
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    free.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// What the devices are, for a report: DPDK's version, and the name and driver of each.
pub fn describe() -> Option<String> {
    with(|devices| devices.as_ref().map(|devices| devices.described.clone()))
}

/// A NIC that has just been started needs seconds to find its link.
fn wait_for_links(names: &[String]) -> Result<(), String> {
    let is_up = |ports: &Vec<Option<DpdkPort>>| {
        // What is borrowed has been waited for.
        ports.iter().flatten().next().is_none_or(|port| port.handle().link().is_some_and(|link| link.up))
    };
    let mut down = None;
    for _ in 0..LINK_TRIES {
        let links: Vec<bool> =
            with(|devices| devices.iter().flat_map(|devices| devices.ports.iter().map(is_up)).collect());
        down = links.iter().position(|up| !up);
        if down.is_none() {
            return Ok(());
        }
        std::thread::sleep(LINK_PAUSE);
    }
    let name = down.and_then(|n| names.get(n)).map_or("", |name| name.trim_start_matches("vdev:"));
    Err(format!(
        "{name} has no link after 10 seconds: check the cable, the switch, and that the other end is up"
    ))
}

/// Bits a second of the link of the port that sends, if it is known.
///
/// # Errors
/// When DPDK or the device refuses.
pub fn link_bits(plan: &Plan) -> Result<Option<f64>, String> {
    let names: Vec<String> = plan.ports.iter().filter_map(name_of).collect();
    open(&names, plan.queues.max(plan.workers), plan.memory.pages)?;
    let mbps = with(|devices| devices.as_ref()?.ports.first()?.first()?.as_ref()?.handle().link()?.mbps);
    Ok(mbps.map(|mbps| f64::from(mbps) * 1e6))
}

fn name_of(port: &PortSpec) -> Option<String> {
    match port {
        PortSpec::Memory => None,
        PortSpec::Device(name) => Some(name.clone()),
    }
}

/// Workers on the plan's devices: with directors in this process, or stations.
///
/// # Errors
/// What is wrong with the plan, or what DPDK or a device refuses, with its remedy.
pub fn workers(plan: &Plan) -> Result<Box<dyn Workers>, String> {
    device::check(plan)?;
    match arrange(&plan.ports, plan.wire.as_ref().is_some_and(|wire| wire.stations))? {
        Arrangement::InMemory => Ok(Box::new(device::in_memory(plan)?)),
        Arrangement::Inside(name) => Ok(Box::new(inside(plan, &name)?)),
        Arrangement::OnWire(names) => Ok(Box::new(Stations::new(plan, &names)?)),
    }
}

fn queues(plan: &Plan) -> u16 {
    plan.queues.max(plan.workers).min(MAX_WORKERS as u16)
}

/// Directors in this process over a device that gives back what it is sent, or empty frames.
fn inside(plan: &Plan, name: &str) -> Result<Crew, String> {
    open(&[name.to_owned()], queues(plan), plan.memory.pages)?;
    let gives_back = PortSpec::Device(name.to_owned()).gives_back();
    let parts = (0..plan.workers).map(|queue| {
        move || {
            let mut port = Borrowed::new(0, queue.into())?;
            let pool = port.port().pool();
            let mut medium = Looped { port, waiting: Frames::new() };
            if gives_back {
                medium.fill_ring(&mut pool.clone());
            }
            Ok(device::Parts { medium, pool: pool.clone(), floor_pool: pool })
        }
    });
    directors(plan, parts.collect())
}

/// A device without another end. Frames that it gives are written anew.
struct Looped {
    port: Borrowed,
    /// Received, and not yet due.
    waiting: Frames<Mbuf>,
}

impl Looped {
    /// Makes up what goes round in a ring; what is more than that is lost.
    fn fill_ring(&mut self, pool: &mut MbufPool) {
        let mut frames = Frames::new();
        while self.port.rx(pool, &mut frames) > 0 {
            frames.clear();
        }
        for _ in 0..RING / BATCH {
            frames.extend((0..BATCH).map_while(|_| pool.alloc()));
            self.port.tx(&mut frames);
        }
    }

    /// Fills `frames` from the device; from the pool where the device has none, because frames ended otherwise than by it.
    #[inline]
    fn receive(port: &mut Borrowed, pool: &mut MbufPool, frames: &mut Frames<Mbuf>) {
        if port.rx(pool, frames) == 0 {
            let room = frames.remaining_capacity();
            frames.extend((0..room).map_while(|_| pool.alloc()));
        }
    }
}

impl Medium for Looped {
    type Frame = Mbuf;

    #[inline]
    fn take(&mut self, pool: &mut MbufPool, frames: &mut Frames<Mbuf>, wanted: usize) {
        if self.waiting.is_empty() && wanted == frames.remaining_capacity() {
            return Self::receive(&mut self.port, pool, frames);
        }
        if self.waiting.is_empty() {
            Self::receive(&mut self.port, pool, &mut self.waiting);
        }
        let count = wanted.min(self.waiting.len());
        frames.extend(self.waiting.drain(..count));
    }

    #[inline]
    fn give(&mut self, frames: &mut Frames<Mbuf>) -> usize {
        self.port.tx(frames)
    }
}

/// Stations on a wire.
struct Stations {
    crew: Crew,
    live: Arc<Live>,
}

impl Stations {
    fn new(plan: &Plan, names: &[String]) -> Result<Self, String> {
        let queues = queues(plan);
        open(names, queues, plan.memory.pages)?;
        let mut wire = plan.wire.clone().unwrap_or_default();
        let gives_back = PortSpec::Device(names[0].clone()).gives_back();
        if wire.destination_mac.is_none() && !gives_back && !wire.receives_only {
            return Err("--destination-mac is missing: the MAC address of the director's port, which `ip link` shows \
                        there, or of the router on the way to it"
                .to_owned());
        }
        if !wire.receives_only {
            wait_for_links(names)?;
        }
        wire.destination_mac = wire.destination_mac.or(Some([0x02, 0, 0, 0, 0, 0x01]));
        let live = Arc::new(Live::default());
        let receiving = names.len() - 1;
        let makers = (0..plan.workers).map(|index| {
            let (plan, wire, live) = (plan.clone(), wire.clone(), Arc::clone(&live));
            move || {
                let mut send = Borrowed::new(0, index.into())?;
                // The receiving device spreads frames over all its queues, whatever the number of stations.
                let mine = (usize::from(index)..queues.into()).step_by(plan.workers.into());
                let first = usize::from(receiving == 0);
                let mut receive = mine
                    .skip(first)
                    .map(|queue| Borrowed::new(receiving, queue))
                    .collect::<Result<Vec<_>, _>>()?;
                let mac = send.port().facts().mac;
                let receiver =
                    receive.first_mut().filter(|_| receiving > 0).map(|port| port.port().facts().mac);
                let parts = station::Parts {
                    pool: send.port().pool(),
                    macs: [mac, receiver.unwrap_or(mac)],
                    huge_pages: with(|devices| devices.as_ref().is_some_and(|devices| devices.huge_pages)),
                    send,
                    sends_and_receives: receiving == 0,
                    receive,
                };
                Ok(Station::new(&plan, &wire, index, parts, live))
            }
        });
        let crew = Crew::start(makers.collect())?;
        let stations = Self { crew, live };
        stations.check(plan, &wire)?;
        Ok(stations)
    }

    /// That something comes back is better known before a measurement than after it.
    fn check(&self, plan: &Plan, wire: &Wire) -> Result<(), String> {
        let (sent, came) = (self.live.sent.load(Relaxed), self.live.came.load(Relaxed));
        if wire.one_way || sent == 0 || came > 0 {
            return Ok(());
        }
        let last = plan.ports.last().map(ToString::to_string).unwrap_or_default();
        Err(format!(
            "none of the {sent} frames that made connections came back by {last}. Is the director up, and is the virtual \
             service {} (TCP) there? Does --destination-mac name its port? Do its real servers lie behind {last}, and does \
             --real-servers name their addresses, so that its ARP queries are answered ({} were)? Where the frames are \
             received by another machine: --one-way",
            wire.service,
            self.live.answered.load(Relaxed)
        ))
    }
}

impl Workers for Stations {
    fn run(&mut self, order: Order) -> Result<Outcome, String> {
        self.run_watched(order, &mut |_, _| {})
    }

    fn run_watched(&mut self, order: Order, tick: &mut dyn FnMut(u64, u64)) -> Result<Outcome, String> {
        self.live.clear();
        let live = Arc::clone(&self.live);
        self.crew.run_watched(order, &mut || tick(live.sent.load(Relaxed), live.came.load(Relaxed)))
    }

    fn has_huge_pages(&self) -> bool {
        self.crew.has_huge_pages()
    }
}

impl Device for Stations {
    fn trial(&mut self, rate: f64, frames: u64) -> Result<Trial, String> {
        self.live.clear();
        self.crew.trial(rate, frames)
    }
}
