//! Frames a second of CPU time that the `af_packet` driver receives and sends over virtual Ethernet interfaces.
//!
//! 64-byte frames (60 without check sequence), one worker thread, which receives by one interface, exchanges the MAC
//! addresses and sends by another: the bare driver, without the packet path. All that the kernel does in the worker's
//! thread is counted, also the delivery of what it sends to the far end, where the kernel drops it; what it does in the
//! sender's thread (the way into the receive ring) is not, as on a NIC whose interrupts have a core of their own.
//!
//! - *full ring*: the sender fills the receive ring, then the worker empties it.
//! - *flood*: both at once for some seconds; the worker sleeps for a millisecond when it finds nothing.
//! - *alone*: a frame goes to a worker that sleeps until it comes, and back by the same interface; the time of that on
//!   the clock.
//!
//! It makes its interfaces in a namespace of its own: no rights are needed, and nothing is left.

#![allow(clippy::unwrap_used, reason = "a bench fails by it")]

use pointsman_benches::timing::{RUNS, thread_nanos};
use pointsman_dataplane::port::{
    Frames, Port,
    af_packet::{AfPacket, Settings},
    sys::poll,
};
use pointsman_hugepages::{Options, Pool, PoolOptions};
use rustix::time::{ClockId, clock_gettime};
use std::{
    process::Command,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

const FRAME_BYTES: usize = 60;
const RING: u32 = 4_096;
const FLOOD_NANOS: u64 = 3_000_000_000;
const PINGS: usize = 2_000;
const INSIDE: &str = "POINTSMAN_BENCH_INSIDE";

fn main() {
    if std::env::var_os(INSIDE).is_none() {
        let own = std::env::current_exe().unwrap();
        let inside = Command::new("unshare").args(["-Urnm", "--"]).arg(own).env(INSIDE, "1").status();
        let inside = inside.expect("unshare (package util-linux) starts, and may make namespaces");
        std::process::exit(inside.code().unwrap_or(1));
    }
    for (end, other) in [("near", "far"), ("out", "sink")] {
        ip(&format!("link add {end} type veth peer name {other}"));
        for name in [end, other] {
            ip(&format!("link set {name} addrgenmode none"));
            ip(&format!("link set {name} up"));
        }
    }
    full_ring();
    flood();
    alone();
}

fn ip(command: &str) {
    assert!(Command::new("ip").args(command.split(' ')).status().unwrap().success(), "ip {command}");
}

fn pool(name: &str) -> Pool {
    Pool::new(name, PoolOptions { buffers: 1_024, room: 1_856, memory: Options::default() }).unwrap()
}

fn open(device: &str) -> AfPacket {
    AfPacket::open(&Settings { rx_slots: RING, ..Settings::new(device) }).unwrap()
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

/// Sends `count` frames, as many as go at once.
fn send(port: &mut AfPacket, pool: &mut Pool, count: usize) {
    let mut left = count;
    let mut bytes = [0; FRAME_BYTES];
    bytes[..14].copy_from_slice(b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x88\xb5");
    while left > 0 {
        let mut frames = Frames::new();
        pool.alloc_into(left.min(frames.capacity()), |mut buffer| {
            buffer.copy_from(&bytes);
            frames.push(buffer);
        });
        left -= port.tx(&mut frames);
    }
}

fn full_ring() {
    let (mut near, mut far, mut out) = (open("near"), open("far"), open("out"));
    let turn = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            let mut pool = pool("sender");
            for _ in 0..RUNS {
                for _ in 0..ROUNDS {
                    send(&mut far, &mut pool, RING as usize);
                    turn.wait();
                    turn.wait();
                }
            }
        });
        pin(0);
        let (mut pool, mut frames) = (pool("worker"), Frames::new());
        let mut each = Vec::new();
        for _ in 0..RUNS {
            let (mut nanos, mut count) = (0, 0);
            for _ in 0..ROUNDS {
                turn.wait();
                let from = thread_nanos();
                let mut received = 0;
                while received < u64::from(RING) {
                    received += receive(&mut near, &mut pool, &mut frames);
                    transmit(&mut out, &mut frames);
                }
                nanos += thread_nanos() - from;
                count += received;
                turn.wait();
            }
            each.push(nanos as f64 / count as f64);
        }
        each.sort_by(f64::total_cmp);
        report("full ring", each[0], each[each.len() / 2]);
    });
}

const ROUNDS: usize = 50;

fn flood() {
    let (mut near, mut far, mut out) = (open("near"), open("far"), open("out"));
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            let mut pool = pool("sender");
            while !stop.load(Relaxed) {
                send(&mut far, &mut pool, 512);
                sent.fetch_add(512, Relaxed);
            }
        });
        pin(0);
        let (mut pool, mut frames) = (pool("worker"), Frames::new());
        let (began, from, mut count) = (clock(), thread_nanos(), 0);
        while clock() - began < FLOOD_NANOS {
            let received = receive(&mut near, &mut pool, &mut frames);
            transmit(&mut out, &mut frames);
            count += received;
            if received == 0 {
                poll::wait(&[], 1);
            }
        }
        let nanos = thread_nanos() - from;
        let took = clock() - began;
        stop.store(true, Relaxed);
        report("flood", nanos as f64 / count as f64, nanos as f64 / count as f64);
        println!(
            "           {:.2} M/s sent, {:.2} M/s received and sent on; the worker had {:.0} % of a core",
            sent.load(Relaxed) as f64 * 1e3 / took as f64,
            count as f64 * 1e3 / took as f64,
            nanos as f64 * 100.0 / took as f64
        );
    });
}

fn alone() {
    let (mut near, mut far) = (open("near"), open("far"));
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
        let mut times = Vec::new();
        for _ in 0..PINGS {
            let from = clock();
            send(&mut far, &mut pool, 1);
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
            "alone      there and back: median {:.0} us, of 100 frames 99 within {:.0} us",
            micros(50),
            micros(99)
        );
    });
}

fn report(name: &str, min: f64, median: f64) {
    println!(
        "{name:<10} {min:5.0} ns of CPU time a frame (median {median:.0}), {:.2} M frames a CPU second; goal 0.9",
        1e3 / min
    );
}

/// Nanoseconds on the clock.
fn clock() -> u64 {
    let at = clock_gettime(ClockId::Monotonic);
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}
