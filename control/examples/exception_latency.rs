//! How long pings of the director's own address take by the exception path, while its worker has nothing else to do and
//! while it has no moment without balanced packets.
//!
//!     cargo run --release -p pointsman-control --example exception_latency
//!
//! The port is memory: a time is taken when a ping arrives at the worker and when the kernel's reply leaves it. Between
//! are the worker, the ring, the thread that serves the host, the TAP device, the kernel's IP stack, and all of it back.
//! The program makes a network namespace of its own; root is not needed where user namespaces are allowed.

#[allow(dead_code, reason = "the harness serves the tests too")]
#[path = "../tests/exception/station.rs"]
mod station;

use pointsman_control::config::model::Idle;
use pointsman_dataplane::stats::WorkerStats;
use station::Director;
use std::{process::Command, sync::atomic::Ordering::Relaxed, thread, time::Duration};

const INSIDE: &str = "POINTSMAN_BENCH_INSIDE";
/// Pings of one row, and nanoseconds between them.
const PINGS: u64 = 5_000;
const PACE: u64 = 1_000_000;

fn main() {
    if std::env::var_os(INSIDE).is_none() {
        let own = std::env::current_exe().expect("this program has a path");
        let run = Command::new("unshare").args(["-Urn", "--"]).arg(own).env(INSIDE, "1").status();
        let status = run.expect("unshare (package util-linux) starts");
        std::process::exit(status.code().unwrap_or(1));
    }
    // The threads that follow inherit it; the worker takes the last core.
    if let Some([first, _, ..]) = core_affinity::get_core_ids().as_deref() {
        core_affinity::set_for_current(*first);
    }
    println!(
        "| load of the worker | busy | balanced Mpps | pings | lost | p50 us | p99 us | p99.9 us | max us |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let director = Director::start(Idle::Poll);
    for (name, load) in [("none", false), ("all it takes", true)] {
        println!("{}", row(&director, name, load));
    }
}

/// Time spent busy and idle, and packets forwarded.
fn seen(stats: &WorkerStats) -> [f64; 3] {
    [&stats.time.busy, &stats.time.empty, &stats.forwarded].map(|counter| counter.get() as f64)
}

fn row(director: &Director, name: &str, load: bool) -> String {
    let (wire, stats) = (&director.wire, &director.worker.shared.stats);
    wire.load.store(load, Relaxed);
    thread::sleep(Duration::from_millis(500));
    while wire.round_trips.pop().is_some() {}
    let before = seen(stats);
    wire.pace.store(PACE, Relaxed);
    wire.pings.store(PINGS, Relaxed);
    while wire.pings.load(Relaxed) > 0 {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(500));
    let after = seen(stats);
    let [busy, empty, forwarded] = [0, 1, 2].map(|at| after[at] - before[at]);
    let mut times: Vec<u64> = std::iter::from_fn(|| wire.round_trips.pop()).collect();
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len().saturating_sub(1))).map_or(f64::NAN, |nanos| *nanos as f64 / 1e3)
    };
    format!(
        "| {name} | {:.1} % | {:.2} | {PINGS} | {} | {:.0} | {:.0} | {:.0} | {:.0} |",
        100.0 * busy / (busy + empty),
        forwarded / (busy + empty) * 1e3,
        PINGS - times.len() as u64,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
    )
}
