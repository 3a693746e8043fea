//! `dpdk-testpmd`, DPDK's own forwarder, over the same virtual devices: what forwarding costs there when nothing is looked up.
//!
//! It runs on two cores: its main thread prints statistics, one other forwards, on the core where our workers run. A figure
//! is CPU time of that thread, from /proc, for the packets that it sent in about a second. It sends and receives by one
//! device, in batches as large as ours, with a pool as small as ours.
//!
//! - *io*: packets are passed on without a look.
//! - *macswap*: the MAC addresses are exchanged.

use crate::timing::{Figure, RUNS, figure_of};
use pointsman_dataplane::limits::BATCH;
use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

const PROGRAM: &str = "dpdk-testpmd";
/// How long it may say nothing.
const SILENCE: Duration = Duration::from_secs(15);
/// Samples of a second each.
const SAMPLES: usize = if RUNS < 12 { RUNS } else { 12 };

/// Nanoseconds a packet that it takes over a device in a forwarding mode.
///
/// # Errors
/// That it is not there, with the package, or what it said.
pub fn measure(device: &str, mode: &str, huge: bool) -> Result<Figure, String> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    // The main thread gets the first of the list.
    let (Some(main), Some(other)) = (cores.first(), cores.last().filter(|_| cores.len() > 1)) else {
        return Err("dpdk-testpmd needs two cores".to_owned());
    };
    let mut command = Command::new(PROGRAM);
    match huge {
        true => command.arg("--in-memory"),
        false => command.args(["--no-huge", "--no-shconf", "-m", "256"]),
    };
    command.args(["--no-pci", "--no-telemetry", "-l", &format!("{},{}", main.id, other.id)]);
    command.args([&format!("--vdev={device}"), "--"]);
    command.args(["--nb-cores=1", "--port-topology=loop", "--total-num-mbufs=4096", "--stats-period=1"]);
    command.args([&format!("--forward-mode={mode}"), &format!("--burst={BATCH}")]);
    // A ring has nothing to give before something was sent.
    command.args(device.starts_with("net_ring").then_some("--tx-first"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("{PROGRAM} is not installed: apt-get install dpdk-dev"),
        _ => format!("cannot start {PROGRAM}: {error}"),
    })?;
    let sampled = sample(&mut child);
    // It ends itself when it is interrupted, but need not: its memory is nobody's when it is gone.
    let _ = child.kill();
    let said = child.wait_with_output();
    sampled.map(figure_of).map_err(|message| {
        let errors = said.map(|said| String::from_utf8_lossy(&said.stderr).into_owned()).unwrap_or_default();
        format!("{PROGRAM} {message}: {}", errors.trim().lines().last().unwrap_or("it said nothing"))
    })
}

fn sample(child: &mut Child) -> Result<Vec<f64>, String> {
    let lines = lines(child)?;
    let (mut nanos, mut before) = (Vec::new(), None);
    while nanos.len() < SAMPLES {
        let line = lines.recv_timeout(SILENCE).map_err(|_| "ended, or hangs")?;
        let Some(packets) = sent(&line) else { continue };
        let cpu = busiest_thread(child.id()).ok_or("is gone")?;
        if let Some((packets_before, cpu_before)) = before.replace((packets, cpu)) {
            let count = packets - packets_before;
            if count == 0 {
                return Err("forwards nothing".to_owned());
            }
            nanos.push((cpu - cpu_before) as f64 / count as f64);
        }
    }
    // The first second is that of the start.
    Ok(nanos.split_off(1))
}

/// What it prints, line by line. The thread ends with it.
fn lines(child: &mut Child) -> Result<Receiver<String>, String> {
    let said = child.stdout.take().ok_or("has no output")?;
    let (give, take) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(said).lines().map_while(Result::ok) {
            if give.send(line).is_err() {
                break;
            }
        }
    });
    Ok(take)
}

/// The number of a line like `  TX-packets: 29622656   TX-errors: 0          TX-bytes:  0`.
fn sent(line: &str) -> Option<u64> {
    let (_, behind) = line.split_once("TX-packets:").filter(|_| line.contains("TX-errors:"))?;
    behind.split_whitespace().next()?.parse().ok()
}

/// Nanoseconds that the busiest thread of a process has run: the one that forwards.
fn busiest_thread(process: u32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let run = |thread: fs::DirEntry| -> Option<u64> {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    threads.flatten().filter_map(run).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_from_its_statistics() {
        let line = "  TX-packets: 29622656   TX-errors: 0          TX-bytes:  0";
        assert_eq!(sent(line), Some(29_622_656));
        assert_eq!(sent("  RX-packets: 752128     RX-missed: 0          RX-bytes:  0"), None);
        // What it prints at its end.
        assert_eq!(sent("  TX-packets: 53756736       TX-dropped: 0             TX-total: 53756736"), None);
    }

    #[test]
    fn the_time_of_a_thread_is_told() {
        let mut x = 1_u64;
        for n in 0..20_000_000 {
            x = std::hint::black_box(x ^ n);
        }
        assert!(busiest_thread(std::process::id()).unwrap() > 1_000_000);
        assert_eq!(busiest_thread(u32::MAX), None);
    }
}
