//! Frames a second of CPU time that the `af_packet` driver receives and sends over virtual Ethernet interfaces.
//!
//! 64-byte frames (60 without check sequence) of 1000 TCP flows, one worker thread, which receives by one interface and
//! sends by another. All that the kernel does in the worker's thread is counted, also the delivery of what it sends to the
//! far end, where the kernel drops it; what it does in the sender's thread (the way into the receive ring) is not, as on a
//! NIC whose interrupts have a core of their own.
//!
//! - *receiver*: receive, and no more.
//! - *driver*: the bare driver: receive, exchange the MAC addresses, send.
//! - *director*: a whole worker between: the flows are established connections to 16 real servers by direct routing.
//! - *paced*: a frame comes every 20 us, and the receiver sleeps whenever it finds none: its CPU time with all its waking.
//! - *alone*: a frame goes to a worker that sleeps until it comes, and back by the same interface; the time of that on
//!   the clock.
//!
//! For the first three, the sender fills the receive ring and waits while the worker empties it (*full ring*), or both work
//! at once for some seconds, and the worker sleeps for a millisecond when it finds nothing (*flood*).
//!
//! Run it on a quiet machine: when the kernel is behind with its own work, it delivers what is sent in a thread of its own,
//! and that time is not in the figure. Frames that it lost on the way to the far end are reported.
//!
//! `--receive-ring frames` or `--receive-ring blocks` says by which kind of ring to receive; else it is the default one.
//!
//! It makes its interfaces in a namespace of its own: no rights are needed, and nothing is left.

#![allow(clippy::unwrap_used, reason = "a bench fails by it")]

use pointsman_benches::{
    rig,
    timing::{RUNS, thread_nanos},
    traffic::{Permuted, Traffic},
};
use pointsman_dataplane::{
    command::WorkerShared,
    handoff,
    port::{
        Frames, Port,
        af_packet::{AfPacket, ReceiveRing, Settings},
        memory::Generator,
        sys::poll,
    },
    publish,
    snapshot::{NextHop, PortFacts, Timeouts},
    time::Nanos,
    wire::tcp,
    worker::{Setup, Worker},
};
use pointsman_hugepages::{Options, Pool, PoolOptions};
use rustix::time::{ClockId, clock_gettime};
use std::{
    process::Command,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

const FLOWS: u32 = 1_000;
const RING: u32 = 4_096;
/// Times that a run fills the ring.
const ROUNDS: usize = 20;
const FLOOD_NANOS: u64 = 2_000_000_000;
/// Between frames, and how many come so.
const PACE_NANOS: u64 = 20_000;
const PACED: u64 = 50_000;
const PINGS: usize = 2_000;
const INSIDE: &str = "POINTSMAN_BENCH_INSIDE";

fn main() {
    let Some(ring) = receive_ring() else {
        eprintln!("usage: af_packet_veth [--receive-ring frames|blocks]");
        std::process::exit(2);
    };
    if std::env::var_os(INSIDE).is_none() {
        let own = std::env::current_exe().unwrap();
        let mut inside = Command::new("unshare");
        inside.args(["-Urnm", "--"]).arg(own).args(std::env::args_os().skip(1)).env(INSIDE, "1");
        let inside = inside.status().expect("unshare (package util-linux) starts, and may make namespaces");
        std::process::exit(inside.code().unwrap_or(1));
    }
    for (end, other) in [("near", "far"), ("out", "sink")] {
        ip(&format!("link add {end} type veth peer name {other}"));
        for name in [end, other] {
            ip(&format!("link set {name} addrgenmode none"));
            ip(&format!("link set {name} up"));
        }
    }
    let mut receiver = receiver(ring);
    full_ring("receiver", &mut receiver);
    flood("receiver", &mut receiver);
    drop(receiver);
    paced(ring);
    let mut driver = driver(ring);
    full_ring("driver", &mut driver);
    flood("driver", &mut driver);
    drop(driver);
    let mut director = director(ring);
    full_ring("director", &mut director);
    flood("director", &mut director);
    drop(director);
    alone(ring);
    let lost = lost("out");
    if lost > 0 {
        println!("{lost} frames were lost on the way to the far end: the machine was busy");
    }
}

fn ip(command: &str) {
    assert!(Command::new("ip").args(command.split(' ')).status().unwrap().success(), "ip {command}");
}

fn pool(name: &str) -> Pool {
    Pool::new(name, PoolOptions { buffers: 1_024, room: 1_856, memory: Options::default() }).unwrap()
}

fn open(device: &str, receive_ring: ReceiveRing) -> AfPacket {
    AfPacket::open(&Settings { receive_ring, rx_slots: RING, ..Settings::new(device) }).unwrap()
}

/// The kind of ring that the command line asks for. `None` if it asks for something else.
fn receive_ring() -> Option<ReceiveRing> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Some(ReceiveRing::default()),
        ["--receive-ring", "frames"] => Some(ReceiveRing::Frames),
        ["--receive-ring", "blocks"] => Some(ReceiveRing::Blocks),
        _ => None,
    }
}

/// Pins this thread to one of the cores, in turn if there is only one.
fn pin(number: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(core) = cores.get(number % cores.len().max(1)) {
        core_affinity::set_for_current(*core);
    }
}

/// Receives a batch and exchanges its addresses.
fn receive(port: &mut AfPacket, pool: &mut Pool, frames: &mut Frames) -> u64 {
    let received = port.rx(pool, frames);
    for frame in frames.iter_mut() {
        if let Some((destination, rest)) = frame.data_mut().split_at_mut_checked(6) {
            destination.swap_with_slice(&mut rest[..6]);
        }
    }
    received as u64
}

/// Sends what is there.
fn transmit(port: &mut AfPacket, frames: &mut Frames) {
    let count = frames.len();
    if count > 0 {
        assert_eq!(port.tx(frames), count, "the transmit ring has room");
    }
}

/// Receives a batch and returns how many frames it had.
fn receiver(ring: ReceiveRing) -> impl FnMut() -> u64 {
    let (mut near, mut pool, mut frames) = (open("near", ring), pool("worker"), Frames::new());
    move || {
        let received = receive(&mut near, &mut pool, &mut frames);
        frames.clear();
        received
    }
}

/// The bare driver. The closure moves a batch and returns how many frames it had.
fn driver(ring: ReceiveRing) -> impl FnMut() -> u64 {
    let (mut near, mut out, mut pool, mut frames) =
        (open("near", ring), open("out", ring), pool("worker"), Frames::new());
    move || {
        let received = receive(&mut near, &mut pool, &mut frames);
        transmit(&mut out, &mut frames);
        received
    }
}

/// A worker between the two interfaces, likewise.
fn director(ring: ReceiveRing) -> impl FnMut() -> u64 {
    let mut snapshot = rig::snapshot(Timeouts::default());
    let near = snapshot.ports[0].clone();
    snapshot.ports = [near.clone(), PortFacts { name: "out".to_owned(), ..near }].into();
    snapshot.next_hops = snapshot.next_hops.iter().map(|hop| NextHop { port: 1, ..hop.clone() }).collect();
    let (_publisher, mut readers) = publish::channel(1, snapshot, 1);
    let shared = Arc::new(WorkerShared::new(0));
    let mut worker = Worker::new(Setup {
        index: 0,
        ports: vec![open("near", ring), open("out", ring)],
        pool: pool("worker"),
        connections_ipv4: 2 * FLOWS as usize,
        connections_ipv6: 1,
        memory: Options::default(),
        snapshot: readers.remove(0),
        handoff: handoff::mesh(1).remove(0),
        exception: None,
        shared: Arc::clone(&shared),
        seed: 1,
    })
    .unwrap();
    let mut forwarded = 0;
    move || {
        worker.poll(Nanos(clock()));
        let before = forwarded;
        forwarded = shared.stats.forwarded.get();
        forwarded - before
    }
}

/// Sends `count` frames, as many as go at once.
fn send(port: &mut AfPacket, pool: &mut Pool, traffic: &mut Traffic<Permuted>, count: usize) {
    let mut left = count;
    while left > 0 {
        let mut frames = Frames::new();
        pool.alloc_into(left.min(frames.capacity()), |mut buffer| {
            traffic.fill(&mut buffer);
            frames.push(buffer);
        });
        left -= port.tx(&mut frames);
    }
}

/// All flows begin; then they go on.
fn traffic(port: &mut AfPacket, pool: &mut Pool) -> Traffic<Permuted> {
    let mut traffic = Traffic::new(Permuted::new(FLOWS, tcp::SYN));
    send(port, pool, &mut traffic, FLOWS as usize);
    traffic.pattern.flags = tcp::ACK;
    traffic
}

fn full_ring(name: &str, step: &mut impl FnMut() -> u64) {
    let mut far = open("far", ReceiveRing::Frames);
    let turn = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            let mut pool = pool("sender");
            let mut traffic = traffic(&mut far, &mut pool);
            turn.wait();
            turn.wait();
            for _ in 0..RUNS * ROUNDS {
                send(&mut far, &mut pool, &mut traffic, RING as usize);
                turn.wait();
                turn.wait();
            }
        });
        pin(0);
        let mut round = |frames| {
            turn.wait();
            let (mut nanos, mut moved, mut naps) = (0, 0, 0);
            // On a busy machine the kernel may deliver some frames late, or lose them before they come to the ring.
            while moved < frames && naps < 20 {
                let from = thread_nanos();
                let before = moved;
                while moved < frames {
                    let step = step();
                    moved += step;
                    if step == 0 {
                        break;
                    }
                }
                nanos += thread_nanos() - from;
                if moved == before {
                    naps += 1;
                    poll::wait(&[], 1);
                }
            }
            turn.wait();
            (nanos, moved)
        };
        round(FLOWS.into());
        let mut run = || {
            let sum = |sum: (u64, u64), one: (u64, u64)| (sum.0 + one.0, sum.1 + one.1);
            let (nanos, moved) = (0..ROUNDS).map(|_| round(RING.into())).fold((0, 0), sum);
            nanos as f64 / moved.max(1) as f64
        };
        let mut each = [0.0; RUNS].map(|_: f64| run());
        each.sort_by(f64::total_cmp);
        println!(
            "{name:<9} full ring  min {:5.0} ns  median {:5.0} ns of CPU time a frame: {:.2} M frames a CPU second; goal 0.9",
            each[0],
            each[RUNS / 2],
            1e3 / each[0]
        );
    });
}

fn flood(name: &str, step: &mut impl FnMut() -> u64) {
    let mut far = open("far", ReceiveRing::Frames);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            let mut pool = pool("sender");
            let mut traffic = traffic(&mut far, &mut pool);
            while !stop.load(Relaxed) {
                send(&mut far, &mut pool, &mut traffic, 512);
            }
        });
        pin(0);
        let (began, from, mut count) = (clock(), thread_nanos(), 0);
        while clock() - began < FLOOD_NANOS {
            let moved = step();
            count += moved;
            if moved == 0 {
                poll::wait(&[], 1);
            }
        }
        let (nanos, took) = (thread_nanos() - from, clock() - began);
        stop.store(true, Relaxed);
        println!(
            "{name:<9} flood      {:.0} ns of CPU time a frame: {:.2} M frames a CPU second; {:.2} M a second came",
            nanos as f64 / count as f64,
            count as f64 * 1e3 / nanos as f64,
            count as f64 * 1e3 / took as f64
        );
    });
}

fn paced(ring: ReceiveRing) {
    let (mut near, mut far) = (open("near", ring), open("far", ReceiveRing::Frames));
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            let mut pool = pool("sender");
            let mut traffic = Traffic::new(Permuted::new(FLOWS, tcp::ACK));
            let mut next = clock();
            for _ in 0..PACED {
                while clock() < next {
                    std::hint::spin_loop();
                }
                send(&mut far, &mut pool, &mut traffic, 1);
                next += PACE_NANOS;
            }
        });
        pin(0);
        let (mut pool, mut frames) = (pool("worker"), Frames::new());
        let (from, mut count, mut naps) = (thread_nanos(), 0, 0);
        // Ends when none has come for a while: all have, or the kernel has lost some.
        while count < PACED && poll::wait(&[near.wait_fd().unwrap()], 500) {
            naps += 1;
            while near.rx(&mut pool, &mut frames) > 0 {
                count += frames.len() as u64;
                frames.clear();
            }
        }
        let nanos = thread_nanos() - from;
        println!(
            "receiver  paced      {:.0} ns of CPU time a frame, woken {:.2} times a frame",
            nanos as f64 / count.max(1) as f64,
            naps as f64 / count.max(1) as f64
        );
    });
}

fn alone(ring: ReceiveRing) {
    let (mut near, mut far) = (open("near", ring), open("far", ReceiveRing::Frames));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            let (mut pool, mut frames) = (pool("worker"), Frames::new());
            while !stop.load(Relaxed) {
                poll::wait(&[near.wait_fd().unwrap()], 100);
                receive(&mut near, &mut pool, &mut frames);
                transmit(&mut near, &mut frames);
            }
        });
        pin(0);
        let (mut pool, mut frames) = (pool("sender"), Frames::new());
        let mut traffic = Traffic::new(Permuted::new(FLOWS, tcp::ACK));
        let mut times = Vec::new();
        for _ in 0..PINGS {
            let from = clock();
            send(&mut far, &mut pool, &mut traffic, 1);
            while far.rx(&mut pool, &mut frames) == 0 {
                assert!(poll::wait(&[far.wait_fd().unwrap()], 1_000), "the frame comes back");
            }
            frames.clear();
            times.push(clock() - from);
        }
        stop.store(true, Relaxed);
        times.sort_unstable();
        let micros = |part: usize| times[(times.len() - 1) * part / 100] as f64 / 1e3;
        println!(
            "alone     there and back: median {:.0} us, of 100 frames 99 within {:.0} us",
            micros(50),
            micros(99)
        );
    });
}

/// Frames that an interface has not sent, of netdevice(7)'s counters.
fn lost(device: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{device}:"))).unwrap();
    // Eight numbers about receiving; bytes, packets, errors and drops of sending.
    line.split_whitespace().nth(11).unwrap().parse().unwrap()
}

/// Nanoseconds on the clock.
fn clock() -> u64 {
    let at = clock_gettime(ClockId::Monotonic);
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}
