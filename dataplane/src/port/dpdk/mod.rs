//! Kernel bypass: any device that DPDK has a driver for, by its PCI address or as a virtual device.
//!
//! - `eal.rs`: the arguments that DPDK's environment is started with, and what is checked before, so that a refusal names
//!   its cause and the remedy.
//! - `error.rs`: those refusals.
//! - The unsafe parts are in `port/sys/dpdk`, over the shim `dpdk-sys`.
//!
//! A process starts DPDK once ([`Dpdk::start`]), with all its devices. [`Dpdk::open`] gives one [`DpdkPort`] for each
//! worker: a queue each way that no other thread uses. Frames are [`Mbuf`]s from the device's ring through the worker to
//! another device's ring, never copied. There is one pool of them for each NUMA node that has a device.
//!
//! Which worker receives a flow is the device's choice. One that takes a key for its hash and a table of 128 entries or
//! more gives each frame to its owner ([`crate::steer`]); of any other a worker hands over what is not its own, and the
//! device works as well ([`Spread`]).
//!
//! What a device says of the checksum of an IPv4 header is believed if it is good: [`crate::parse`] then adds nothing up.
//! No checksum that a worker sends is left to a device: those of forwarded packets are kept as they were or changed by the
//! difference, which costs less than to tell a device.

mod device;
mod eal;
mod error;

pub use super::sys::dpdk::{DevInfo, Errno, Mbuf, MbufPool, Stats, version};
pub use crate::steer::Side;
pub use device::{DeviceHandle, Facts, Link, Spread};
pub use eal::{Device, Memory};
pub use error::Error;

use super::{
    Frames,
    sys::dpdk::{Alive, Hash, Mempool, Plan, Queue, Refused, take_log},
};
use crate::limits::{BATCH, HANDOFF_RING, MAX_WAITING, MAX_WORKERS};
use std::{
    collections::BTreeMap,
    os::fd::RawFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Bytes of a packet buffer behind its headroom, unless frames are larger: NICs use whole kilobytes of it.
const ROOM: u16 = 2_048;

/// Bytes that a frame has beyond the MTU: an Ethernet header and two VLAN tags.
const LINK_BYTES: usize = 14 + 2 * 4;

/// How to start DPDK.
#[derive(Clone, Debug)]
pub struct Settings {
    /// All devices that will be opened.
    pub devices: Vec<Device>,
    /// Where packets lie.
    pub memory: Memory,
    /// Bytes of a packet buffer behind its headroom: an MTU and 22 bytes more at least; NICs use whole kilobytes of it.
    pub frame_room: u16,
    /// Packet buffers on each NUMA node: see [`Settings::buffers`].
    pub buffers: u32,
    /// Further arguments as DPDK documents them, behind ours.
    pub arguments: Vec<String>,
}

impl Settings {
    /// For these devices, a queue of `slots` each way on every one for each of `workers`, in huge pages.
    pub fn new(devices: Vec<Device>, workers: usize, slots: u16) -> Self {
        let buffers = Self::buffers(devices.len(), workers, slots);
        Self { devices, memory: Memory::HugePages, frame_room: ROOM, buffers, arguments: Vec::new() }
    }

    /// Bytes behind the headroom that a packet buffer needs for frames of this MTU: [`Settings::frame_room`].
    pub fn room(mtu: u16) -> u16 {
        let whole = (usize::from(mtu) + LINK_BYTES).next_multiple_of(1_024);
        whole.clamp(usize::from(ROOM), 63 * 1_024) as u16
    }

    /// Packet buffers that may be out at once: in the rings of all devices, and with the workers.
    pub fn buffers(devices: usize, workers: usize, slots: u16) -> u32 {
        let rings = devices * workers * 2 * usize::from(slots);
        // A batch in, a batch out by each port, what waits for neighbours, what others have not taken, and DPDK's store of
        // half as many again as a thread keeps.
        let worker = BATCH * (2 + devices) + MAX_WAITING + HANDOFF_RING * (workers.max(1) - 1) + 6 * BATCH;
        // One less than a power of two is what DPDK's rings hold best.
        ((rings + workers * worker).max(2 * 1024) + 1).next_power_of_two() as u32 - 1
    }
}

/// How to open a device.
#[derive(Clone, Debug)]
pub struct PortSettings {
    /// One of those that DPDK was started with.
    pub device: Device,
    /// Workers that share it: 1 to [`MAX_WORKERS`].
    pub workers: u16,
    /// The MTU.
    pub mtu: u16,
    /// Frames in each receive ring; the driver may take another number.
    pub rx_slots: u16,
    /// Frames in each transmit ring; likewise.
    pub tx_slots: u16,
    /// Whether it takes frames to all stations. If not, those to its own address and to groups, all of them: VRRP and
    /// neighbour discovery go there.
    pub promiscuous: bool,
    /// Where the clients are, seen from it.
    pub side: Side,
}

impl PortSettings {
    /// For one worker, outside, an MTU of 1500, and rings of 1024.
    pub fn new(device: Device) -> Self {
        let (promiscuous, side) = (false, Side::Outside);
        Self { device, workers: 1, mtu: 1500, rx_slots: 1024, tx_slots: 1024, promiscuous, side }
    }
}

/// DPDK, started. All that it gives keeps it running.
#[derive(Debug)]
pub struct Dpdk {
    alive: Arc<Alive>,
    frame_room: u16,
    buffers: u32,
    pools: Mutex<BTreeMap<i32, Arc<Mempool>>>,
}

impl Dpdk {
    /// Starts it. Once in the life of a process.
    ///
    /// # Errors
    /// Each names what is wrong and the remedy.
    pub fn start(settings: &Settings) -> Result<Self, Error> {
        eal::check(settings, Path::new("/"))?;
        let cores = eal::allowed_cores(Path::new("/"));
        let arguments = eal::arguments(settings, &cores, std::process::id());
        let alive =
            Alive::start(&arguments, settings.memory == Memory::HugePages).map_err(
                |refused| match refused {
                    Refused::StartedBefore => Error::StartedBefore,
                    Refused::No(errno) => Error::refused(errno, &take_log()),
                },
            )?;
        Ok(Self {
            alive,
            frame_room: settings.frame_room,
            buffers: settings.buffers,
            pools: Mutex::default(),
        })
    }

    /// Starts a device. Returns its port for each worker, in their order.
    ///
    /// # Errors
    /// Each names the device and the remedy.
    pub fn open(&self, settings: &PortSettings) -> Result<Vec<DpdkPort>, Error> {
        let device = settings.device.to_string();
        let step = |step| {
            let device = device.clone();
            move |errno| Error::Step { device, step, errno, log: error::last_line(&take_log()) }
        };
        let not_found = || Error::NoDriver { device: device.clone(), log: error::last_line(&take_log()) };
        let port = self.alive.device(settings.device.name()).ok_or_else(not_found)?;
        let info = self.alive.info(port).map_err(step("ask what it is"))?;
        let driver = text(&info.driver);
        self.check(settings, &device, &driver, &info)?;
        let several = settings.workers > 1;
        let hash = if several { Hash::of(&info, settings.side, settings.workers) } else { Hash::NONE };
        let chooses = hash.chooses();
        let plan = Plan {
            queues: settings.workers,
            mtu: settings.mtu,
            hash,
            rx_slots: settings.rx_slots,
            tx_slots: settings.tx_slots,
            node: info.socket,
            promiscuous: settings.promiscuous,
        };
        let pool = self.mempool(info.socket)?;
        let started = self.alive.run(port, plan, pool).map_err(|(step, errno, log)| {
            let log = error::last_line(&log);
            Error::Step { device: device.clone(), step, errno, log }
        })?;
        let facts = Facts {
            driver,
            mac: started.running.ask().mac().map_err(step("ask for its MAC address"))?,
            mtu: settings.mtu,
            numa_node: u32::try_from(info.socket).ok(),
            queues: settings.workers,
            spread: match started.to_owners {
                _ if !several => Spread::OneQueue,
                true => Spread::Owner,
                false if chooses => Spread::OwnHash,
                false => Spread::FirstQueue,
            },
        };
        let handle = DeviceHandle {
            name: device.as_str().into(),
            facts: Arc::new(facts),
            device: Arc::downgrade(&started.running),
        };
        let port = |queue| DpdkPort {
            queue,
            handle: handle.clone(),
            alive: self.alive.clone(),
            registered: false,
            lost: 0,
            up: true,
        };
        Ok(started.queues.into_iter().map(port).collect())
    }

    /// The pool of a NUMA node, for a worker's own frames; of `None`, the first that there is.
    ///
    /// # Errors
    /// When its memory is not to be had.
    pub fn pool(&self, numa_node: Option<u32>) -> Result<MbufPool, Error> {
        let first = self.pools.lock().unwrap_or_else(PoisonError::into_inner).keys().next().copied();
        let node = numa_node.and_then(|node| i32::try_from(node).ok()).or(first).unwrap_or(-1);
        self.mempool(node).map(MbufPool)
    }

    fn mempool(&self, node: i32) -> Result<Arc<Mempool>, Error> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&node) {
            return Ok(Arc::clone(pool));
        }
        // DPDK numbers the parts of a pool behind its name with `_`.
        let name = if node < 0 { "packets.any".to_owned() } else { format!("packets.node{node}") };
        let pool =
            Mempool::new(&self.alive, &name, self.buffers, self.frame_room, node).map_err(|errno| {
                let bytes = u64::from(self.buffers) * (u64::from(self.frame_room) + 384);
                let log = error::last_line(&take_log());
                Error::Pool { mebibytes: bytes.div_ceil(1 << 20), numa_node: node, errno, log }
            })?;
        let pool = Arc::new(pool);
        pools.insert(node, Arc::clone(&pool));
        Ok(pool)
    }

    fn check(
        &self,
        settings: &PortSettings,
        device: &str,
        driver: &str,
        info: &DevInfo,
    ) -> Result<(), Error> {
        let (device, driver) = (device.to_owned(), driver.to_owned());
        let (workers, mtu) = (settings.workers, settings.mtu);
        let queues = queues(&driver, info.max_rx_queues, info.max_tx_queues);
        if workers == 0 || usize::from(workers) > MAX_WORKERS {
            return Err(Error::Workers { device, workers });
        }
        if queues < workers {
            return Err(Error::Queues { device, driver, queues, workers });
        }
        if !(info.min_mtu..=info.max_mtu).contains(&mtu) {
            let (least, largest) = (info.min_mtu, info.max_mtu);
            return Err(Error::Mtu { device, driver, mtu, least, largest });
        }
        let largest = usize::from(self.frame_room).saturating_sub(LINK_BYTES);
        if usize::from(mtu) > largest {
            return Err(Error::Room { device, mtu, largest });
        }
        Ok(())
    }
}

/// Stops a device and starts it again: all of its ports are needed, so that no worker uses it meanwhile. What is in its
/// rings may be lost; nothing of it stays out of its pool.
///
/// # Errors
/// When some of its ports are missing, or the device does not start again; it then receives and sends nothing.
pub fn restart(ports: &mut [&mut DpdkPort]) -> Result<(), Error> {
    let Some(first) = ports.first() else { return Ok(()) };
    let (handle, device) = (first.handle(), Arc::clone(first.queue.device()));
    let queues: Vec<&mut Queue> = ports.iter_mut().map(|port| &mut port.queue).collect();
    device.restart(queues).map_err(|(step, errno, log)| Error::Step {
        device: handle.name().to_owned(),
        step,
        errno,
        log: error::last_line(&log),
    })
}

/// One worker's queues of a device.
#[derive(Debug)]
pub struct DpdkPort {
    queue: Queue,
    handle: DeviceHandle,
    alive: Arc<Alive>,
    registered: bool,
    /// What the device had lost when it was last asked.
    lost: u64,
    /// Whether it had a link then.
    up: bool,
}

impl DpdkPort {
    /// What the device is.
    pub fn facts(&self) -> &Facts {
        self.handle.facts()
    }

    /// The device, to ask from other threads.
    pub fn handle(&self) -> DeviceHandle {
        self.handle.clone()
    }

    /// The pool that the device's frames come from.
    pub fn pool(&self) -> MbufPool {
        MbufPool(Arc::clone(&self.queue.device().pool))
    }

    /// The worker's thread is the first that receives.
    #[cold]
    fn register(&mut self) {
        self.alive.register_thread();
        self.registered = true;
    }
}

impl super::Port for DpdkPort {
    type Frame = Mbuf;

    #[inline]
    fn rx(&mut self, _pool: &mut MbufPool, frames: &mut Frames<Mbuf>) -> usize {
        if !self.registered {
            self.register();
        }
        self.queue.receive(frames)
    }

    #[inline]
    fn tx(&mut self, frames: &mut Frames<Mbuf>) -> usize {
        self.queue.send(frames)
    }

    /// The device counts for all its queues: the first worker tells it. Each tells what it refused itself: frames that do
    /// not lie in one piece. While another thread asks the device, what it said the last time.
    fn rx_ring_drops(&mut self) -> u64 {
        if self.queue.number() == 0
            && let Some(device) = self.queue.device().ask_now()
        {
            let stats = device.stats();
            self.lost = stats.rx_missed + stats.rx_no_mbuf;
        }
        self.lost + self.queue.refused()
    }

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }

    /// While another thread asks the device, as the last time.
    fn is_up(&mut self) -> bool {
        if let Some(device) = self.queue.device().ask_now() {
            self.up = device.link().is_some_and(|(up, _)| up);
        }
        self.up
    }
}

/// Queues each way that a device has, by what its driver says.
fn queues(driver: &str, receive: u16, transmit: u16) -> u16 {
    match driver {
        // It says two of every NIC in its family, but the older ones have one: what is sent by the second is lost.
        "net_e1000_em" => 1,
        _ => receive.min(transmit),
    }
}

/// A name with zeros behind it.
fn text(bytes: &[u8]) -> String {
    bytes.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_driver_is_not_believed_that_has_more_queues_than_its_nics() {
        assert_eq!(super::queues("net_e1000_em", 2, 2), 1);
        assert_eq!(super::queues("net_virtio", 2, 4), 2);
    }
}
