//! Direct routing with DPDK's own packet buffers from receive to transmit: what one worker does over virtual devices.
//!
//! - `net_null`: the driver takes a fresh buffer from its pool for each frame, and frees it when it is sent.
//! - `net_ring`: a ring gives back what was sent: a buffer is neither taken nor freed.
//!
//! As in the figures of memory ports, a generator writes every frame anew, and the *floor*, generator and device with no
//! worker between them, is given beside. Packets and tables lie on huge pages where there are any. `--smoke` for a short
//! run.

use pointsman_benches::{
    pin,
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
use std::{os::fd::RawFd, process::ExitCode, sync::Arc};

/// Frames on their way round in a ring.
const RING: usize = 256;

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

fn main() -> ExitCode {
    pin(0);
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    match run(smoke) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(smoke: bool) -> Result<(), Box<dyn std::error::Error>> {
    let devices = ["vdev:net_null0", "vdev:net_ring0"];
    let list = devices.iter().map(|device| device.parse()).collect::<Result<_, Error>>()?;
    let mut settings = Settings::new(list, 1, 1_024);
    // Virtual devices need no huge pages, and a pool on ordinary ones says so by its figure.
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let huge = free.is_ok_and(|text| text.trim().parse::<u32>().is_ok_and(|pages| pages >= 128));
    if !huge {
        settings.memory = Memory::Ordinary;
    }
    let dpdk = Dpdk::start(&settings)?;
    println!(
        "{}, {} pages",
        pointsman_dataplane::port::dpdk::version(),
        if huge { "huge" } else { "ordinary" }
    );
    let packets = if smoke { 6_400 } else { 4_000_000 };
    for device in devices {
        // A queue each for the floor and the two numbers of flows.
        let settings = PortSettings { workers: 3, ..PortSettings::new(device.parse()?) };
        let mut ports = dpdk.open(&settings)?.into_iter();
        for flows in [0, 1_000, if smoke { 2_000 } else { 1_000_000 }] {
            let Some(mut port) = ports.next() else { break };
            let mut pool = port.pool();
            if device.ends_with("ring0") {
                prime(&mut port, &mut pool);
            }
            let port = Offered { port, traffic: Traffic::new(Permuted::new(flows.max(1_000), tcp::SYN)) };
            if flows == 0 {
                println!("{device}, floor: {}", floor(port, pool, packets));
            } else {
                println!("{device}, DR hit, {flows} connections: {}", hit(port, pool, flows, packets)?);
            }
        }
    }
    Ok(())
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
