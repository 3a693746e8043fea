//! Direct routing with DPDK's own packet buffers from receive to transmit: what one worker does over virtual devices.
//!
//! - `net_null`: the driver takes a fresh buffer from its pool for each frame, and frees it when it is sent.
//! - `net_ring`: a ring gives back what was sent: a buffer is neither taken nor freed.
//!
//! As in the figures of memory ports, a generator writes every frame anew, and the *floor*, generator and device with no
//! worker between them, is given beside. Packets and tables lie on huge pages where there are any.

use crate::{
    Extent, pin,
    rig::{ordinary, snapshot},
    timing::{Figure, measure},
    traffic::{Permuted, Traffic},
};
use pointsman_dataplane::{
    command::WorkerShared,
    handoff,
    limits::BATCH,
    port::{
        FramePool, Frames, PoolOf, Port,
        dpdk::{Dpdk, DpdkPort, Error, Mbuf, MbufPool, Memory, PortSettings, Settings},
        memory::Generator,
    },
    publish,
    snapshot::Timeouts,
    time::Nanos,
    wire::tcp,
    worker::{Setup, Worker},
};
use pointsman_hugepages::Options;
use serde::{Deserialize, Serialize};
use std::{os::fd::RawFd, process::Command, sync::Arc};

/// Frames on their way round in a ring.
const RING: usize = 256;

/// The devices that can be measured.
pub const DEVICES: [&str; 2] = ["net_null0", "net_ring0"];

/// What was measured over one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// DPDK's version.
    pub version: String,
    /// Whether packets lay in huge pages.
    pub huge: bool,
    /// Generator and device alone.
    pub floor: Figure,
    /// With a worker between them: established connections, and the figure.
    pub hits: Vec<(u32, Figure)>,
}

/// A device whose frames a generator writes when they have been received.
struct Offered {
    port: DpdkPort,
    traffic: Traffic<Permuted>,
}

impl Port for Offered {
    type Frame = Mbuf;

    #[inline]
    fn rx(&mut self, pool: &mut PoolOf<Self>, frames: &mut Frames<Mbuf>) -> usize {
        let before = frames.len();
        let received = self.port.rx(pool, frames);
        for frame in &mut frames[before..] {
            self.traffic.fill(frame);
        }
        received
    }

    #[inline]
    fn tx(&mut self, frames: &mut Frames<Mbuf>) -> usize {
        self.port.tx(frames)
    }

    fn rx_ring_drops(&mut self) -> u64 {
        self.port.rx_ring_drops()
    }

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }
}

/// Measures over each of these devices. Once in the life of a process.
///
/// # Errors
/// When DPDK or the memory is not to be had.
pub fn measure_devices(
    devices: &[&str],
    extent: Extent,
) -> Result<Vec<Measured>, Box<dyn std::error::Error>> {
    pin(0);
    let names: Vec<String> = devices.iter().map(|device| format!("vdev:{device}")).collect();
    let list = names.iter().map(|name| name.parse()).collect::<Result<_, Error>>()?;
    let mut settings = Settings::new(list, 1, 1_024);
    // Virtual devices need no huge pages, and a pool on ordinary ones says so by its figure.
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let huge = free.is_ok_and(|text| text.trim().parse::<u32>().is_ok_and(|pages| pages >= 128));
    if !huge {
        settings.memory = Memory::Ordinary;
    }
    let dpdk = Dpdk::start(&settings)?;
    let mut all = Vec::new();
    for name in &names {
        all.push(over(&dpdk, name, huge, extent)?);
    }
    Ok(all)
}

fn over(dpdk: &Dpdk, name: &str, huge: bool, extent: Extent) -> Result<Measured, Box<dyn std::error::Error>> {
    let packets = extent.pick(4_000_000, 6_400);
    // A queue each for the floor and the two numbers of flows.
    let settings = PortSettings { workers: 3, ..PortSettings::new(name.parse()?) };
    let mut ports = dpdk.open(&settings)?.into_iter();
    let mut next = |flows: u32| {
        let mut port = ports.next().ok_or("the device has three queues")?;
        let mut pool = port.pool();
        if name.contains("net_ring") {
            prime(&mut port, &mut pool);
        }
        let traffic = Traffic::new(Permuted::new(flows, tcp::SYN));
        Ok::<_, Box<dyn std::error::Error>>((Offered { port, traffic }, pool))
    };
    let (port, pool) = next(1_000)?;
    let floor = floor(port, pool, packets);
    let mut hits = Vec::new();
    for flows in [1_000, extent.pick(1_000_000, 2_000)] {
        let (port, pool) = next(flows)?;
        hits.push((flows, hit(port, pool, flows, packets)?));
    }
    Ok(Measured { version: pointsman_dataplane::port::dpdk::version(), huge, floor, hits })
}

/// Puts frames into a ring.
fn prime(port: &mut DpdkPort, pool: &mut MbufPool) {
    let mut frames = Frames::new();
    for _ in 0..RING / BATCH {
        frames.extend((0..BATCH).map_while(|_| pool.alloc()));
        port.tx(&mut frames);
    }
}

fn floor(mut port: Offered, mut pool: MbufPool, packets: u64) -> Figure {
    let mut frames = Frames::new();
    measure(|| {
        let mut moved = 0;
        while moved < packets {
            port.rx(&mut pool, &mut frames);
            moved += port.tx(&mut frames) as u64;
        }
        moved
    })
}

fn hit(
    port: Offered,
    pool: MbufPool,
    flows: u32,
    packets: u64,
) -> Result<Figure, Box<dyn std::error::Error>> {
    let (_publisher, mut readers) = publish::channel(1, snapshot(Timeouts::default()), 1);
    let shared = Arc::new(WorkerShared::new(0));
    let mut worker = Worker::new(Setup {
        index: 0,
        ports: vec![port],
        pool,
        connections_ipv4: flows as usize,
        connections_ipv6: 1,
        memory: if flows > 2_000 { Options::default() } else { ordinary() },
        snapshot: readers.pop().ok_or("one reader was made")?,
        handoff: handoff::mesh(1).remove(0),
        exception: None,
        shared: shared.clone(),
        seed: 0x5eed,
    })?;
    let mut now = Nanos::from_secs(1_000);
    let mut run = |worker: &mut Worker<Offered>, packets: u64| {
        let before = shared.stats.packets.get();
        while shared.stats.packets.get() - before < packets {
            now.0 += 1_600;
            worker.poll(now);
        }
        shared.stats.packets.get() - before
    };
    run(&mut worker, u64::from(flows));
    worker.ports_mut()[0].traffic.pattern.flags = tcp::ACK;
    run(&mut worker, u64::from(flows));
    let figure = measure(|| run(&mut worker, packets));
    let stats = &shared.stats;
    if stats.forwarded.get() != stats.packets.get() {
        return Err(
            format!("{} of {} packets were forwarded", stats.forwarded.get(), stats.packets.get()).into()
        );
    }
    Ok(figure)
}

/// The same in a process of its own, because DPDK starts once in the life of one: this program
/// understands `--dpdk-path DEVICE`, by [`answer`].
///
/// # Errors
/// What the other process said, or that it said something else.
pub fn in_a_process(device: &str, extent: Extent) -> Result<Measured, String> {
    let own = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut command = Command::new(own);
    command.args([OPTION, device]).args((extent == Extent::Smoke).then_some("--smoke"));
    let output = command.output().map_err(|error| format!("cannot run this program: {error}"))?;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(errors.lines().last().unwrap_or("it ended without a word").to_owned());
    }
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|error| format!("{device} was measured, but not told: {error}"))
}

/// What [`in_a_process`] calls its own program with.
pub const OPTION: &str = "--dpdk-path";

/// Prints what was measured over the device that these arguments name, for [`in_a_process`].
///
/// # Errors
/// When it cannot be measured.
pub fn answer(arguments: &[String]) -> Result<(), String> {
    let extent = if arguments.iter().any(|one| one == "--smoke") { Extent::Smoke } else { Extent::Full };
    let device = arguments.first().map(String::as_str).filter(|device| DEVICES.contains(device));
    let device = device.ok_or_else(|| format!("{OPTION} is followed by one of {}", DEVICES.join(" ")))?;
    let measured = measure_devices(&[device], extent).map_err(|error| error.to_string())?;
    println!("{}", serde_json::to_string(&measured[0]).map_err(|error| error.to_string())?);
    Ok(())
}
