//! `pointsman stats`: what workers, ports and memory do, and why packets were dropped.

pub(super) mod view;

use std::path::Path;

use clap::Args;
use pointsman_proto::v1::{GetStatsRequest, GetStatsResponse, PortStats, WatchStatsRequest, WorkerStats};
use serde::Serialize;

use super::client::Director;
use super::error::CliError;
use super::output::{Output, Table, bytes, duration};

/// Shows counters of workers and ports, drops, neighbours and memory
#[derive(Debug, Args)]
#[command(
    after_help = "With --watch and --json each line is one reading.\n\nExample: pointsman stats --watch 5"
)]
pub(super) struct Stats {
    /// Again every so many seconds, with what happened in between [1 if no number is given]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    watch: Option<u32>,
    /// Also the reasons for which nothing was dropped
    #[arg(long)]
    all: bool,
}

impl Stats {
    pub(super) async fn run(self, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
        let text = |now: &_, before: Option<&_>| text(now, before, self.all);
        readings(socket, self.watch, output, view::of, text).await
    }
}

/// Prints the counters as of now, or again every `watch` seconds; as `json` or as `text` makes them of a reading and the
/// one before it.
pub(super) async fn readings<T: Serialize>(
    socket: &Path,
    watch: Option<u32>,
    output: &mut Output<'_>,
    json: impl Fn(&GetStatsResponse) -> T,
    text: impl Fn(&GetStatsResponse, Option<&GetStatsResponse>) -> String,
) -> Result<(), CliError> {
    let mut stats = Director::connect(socket).await?.stats();
    let Some(seconds) = watch else {
        let answer = stats.get(GetStatsRequest {}).await?.into_inner();
        return match output.json {
            true => output.json(&json(&answer)),
            false => output.text(&text(&answer, None)),
        };
    };
    let request = WatchStatsRequest { interval_milliseconds: seconds * 1000 };
    let mut stream = stats.watch(request).await?.into_inner();
    let mut before: Option<GetStatsResponse> = None;
    while let Some(answer) = stream.message().await? {
        if output.json {
            output.json_line(&json(&answer))?;
        } else {
            output.text(&text(&answer, before.as_ref()))?;
            output.text("\n")?;
            output.out.flush()?;
        }
        before = Some(answer);
    }
    Err(CliError::new(
        "the director ended the readings",
        "see whether pointsmand still runs and what its log says",
    ))
}

fn text(now: &GetStatsResponse, before: Option<&GetStatsResponse>, all: bool) -> String {
    let up = duration(now.uptime_milliseconds / 1000);
    let mut text = format!("generation {}, up {up}\n\n", now.generation);
    text += &workers(now, before);
    text += "\n";
    text += &ports(now, before);
    text += "\n";
    text += &drops(now, before, all);
    if !now.neighbors.is_empty() {
        let mut table = Table::new(0, &[]);
        table.row(["NEIGHBOR", "PORT", "STATE", "MAC"]);
        for neighbor in &now.neighbors {
            let of = neighbor.clone();
            table.row([of.address, of.port, of.state, of.mac]);
        }
        text += &format!("\n{}", table.text());
    }
    if !now.memory.is_empty() {
        text += &format!("\n{}", memory(now));
    }
    text
}

/// Events per second between two readings, by the director's clock. `None` without a reading before, and when the
/// director was started anew in between.
pub(super) fn rate(now: u64, before: Option<u64>, elapsed: Option<u64>) -> Option<u64> {
    let events = now.checked_sub(before?)?;
    let elapsed = elapsed.filter(|elapsed| *elapsed > 0)?;
    u64::try_from(u128::from(events) * 1000 / u128::from(elapsed)).ok()
}

fn elapsed(now: &GetStatsResponse, before: Option<&GetStatsResponse>) -> Option<u64> {
    now.uptime_milliseconds.checked_sub(before?.uptime_milliseconds)
}

fn workers(now: &GetStatsResponse, before: Option<&GetStatsResponse>) -> String {
    let mut table = Table::new(0, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    table.row([
        "WORKER",
        "CORE",
        "PACKETS",
        "PACKETS/S",
        "FORWARDED",
        "ANSWERED",
        "TO HOST",
        "HANDED OFF",
        "DROPPED",
        "CONNECTIONS",
        "OF",
        "MADE",
        "EXPIRED",
        "EVICTED",
    ]);
    let elapsed = elapsed(now, before);
    for worker in &now.workers {
        let was = before.and_then(|before| before.workers.iter().find(|was| was.index == worker.index));
        let WorkerStats { index, core, packets, forwarded, answered, punted, handed_off, dropped, .. } =
            *worker;
        table.row([
            index.to_string(),
            core.to_string(),
            packets.to_string(),
            or_dash(rate(packets, was.map(|was| was.packets), elapsed)),
            forwarded.to_string(),
            answered.to_string(),
            punted.to_string(),
            handed_off.to_string(),
            dropped.to_string(),
            worker.connections.to_string(),
            worker.connection_capacity.to_string(),
            worker.connections_created.to_string(),
            worker.connections_expired.to_string(),
            worker.connections_evicted.to_string(),
        ]);
    }
    table.text()
}

fn ports(now: &GetStatsResponse, before: Option<&GetStatsResponse>) -> String {
    let mut table = Table::new(0, &[4, 5, 6, 7, 8, 9, 10]);
    table.row([
        "PORT",
        "DRIVER",
        "LINK",
        "MAC",
        "MTU",
        "RX PACKETS",
        "RX/S",
        "TX PACKETS",
        "TX/S",
        "RX RING FULL",
        "TX RING FULL",
        "ADDRESSES",
    ]);
    let elapsed = elapsed(now, before);
    for port in &now.ports {
        let was = before.and_then(|before| before.ports.iter().find(|was| was.name == port.name));
        let PortStats { name, driver, mac, mtu, up, addresses, rx_packets, tx_packets, .. } = port.clone();
        table.row([
            name,
            driver,
            if up { "up" } else { "down" }.to_owned(),
            mac,
            mtu.to_string(),
            rx_packets.to_string(),
            or_dash(rate(rx_packets, was.map(|was| was.rx_packets), elapsed)),
            tx_packets.to_string(),
            or_dash(rate(tx_packets, was.map(|was| was.tx_packets), elapsed)),
            port.rx_ring_drops.to_string(),
            port.tx_ring_drops.to_string(),
            addresses.join(" "),
        ]);
    }
    table.text()
}

fn drops(now: &GetStatsResponse, before: Option<&GetStatsResponse>, all: bool) -> String {
    let mut table = Table::new(0, &[0, 1]);
    table.row(["DROPPED", "NEW", "REASON", "WHAT IT MEANS"]);
    let shown: Vec<_> = now.drops.iter().filter(|drop| all || drop.packets > 0).collect();
    if shown.is_empty() {
        return "nothing was dropped\n".to_owned();
    }
    for drop in shown {
        let was = before.and_then(|before| before.drops.iter().find(|was| was.reason == drop.reason));
        let new = was.and_then(|was| drop.packets.checked_sub(was.packets));
        table.row([drop.packets.to_string(), or_dash(new), drop.reason.clone(), drop.explanation.clone()]);
    }
    table.text()
}

fn memory(now: &GetStatsResponse) -> String {
    let mut table = Table::new(0, &[0, 1, 2]);
    table.row(["MEMORY", "PAGES OF", "NODE", "LOCKED", "FOR"]);
    for report in &now.memory {
        table.row([
            bytes(report.bytes),
            bytes(report.page_bytes),
            report.numa_node.map_or("-".to_owned(), |node| node.to_string()),
            if report.locked { "yes" } else { "no" }.to_owned(),
            report.purpose.clone(),
        ]);
        for warning in &report.warnings {
            table.line(format!("  warning: {warning}"));
        }
    }
    table.text()
}

fn or_dash(number: Option<u64>) -> String {
    number.map_or("-".to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_proto::v1::{DropCount, MemoryReport, Neighbor};

    fn reading(uptime_milliseconds: u64, packets: u64, dropped: u64) -> GetStatsResponse {
        GetStatsResponse {
            generation: 3,
            uptime_milliseconds,
            workers: vec![WorkerStats {
                core: 1,
                packets,
                connection_capacity: 1000,
                ..WorkerStats::default()
            }],
            ports: vec![PortStats {
                name: "eth0".into(),
                up: true,
                rx_packets: packets,
                ..PortStats::default()
            }],
            drops: vec![
                DropCount { reason: "no_route".into(), packets: dropped, explanation: "No route.".into() },
                DropCount { reason: "too_big".into(), packets: 0, explanation: "Too big.".into() },
            ],
            memory: vec![MemoryReport {
                purpose: "connections".into(),
                bytes: 64 << 20,
                page_bytes: 4096,
                warnings: vec!["no huge pages".into()],
                ..MemoryReport::default()
            }],
            neighbors: vec![Neighbor {
                address: "10.0.0.2".into(),
                port: "eth0".into(),
                state: "reachable".into(),
                mac: "02:00:00:00:00:02".into(),
            }],
        }
    }

    #[test]
    fn only_reasons_that_occurred_are_shown_unless_all_are_asked_for() {
        let now = reading(5000, 100, 4);
        assert_eq!(
            drops(&now, None, false),
            "DROPPED  NEW  REASON    WHAT IT MEANS\n      4    -  no_route  No route.\n"
        );
        assert!(drops(&now, None, true).contains("      0    -  too_big   Too big.\n"));
        assert_eq!(drops(&reading(5000, 100, 0), None, false), "nothing was dropped\n");
    }

    #[test]
    fn rates_are_of_the_time_between_two_readings() {
        let (before, now) = (reading(5000, 100, 4), reading(7000, 1100, 9));
        assert!(
            workers(&now, Some(&before)).contains("1100        500 "),
            "{}",
            workers(&now, Some(&before))
        );
        assert!(drops(&now, Some(&before), false).contains("      9    5  no_route"));
        // A director that was started anew counts from zero.
        assert!(workers(&before, Some(&now)).contains("100          - "), "{}", workers(&before, Some(&now)));
        assert_eq!(rate(10, Some(10), Some(0)), None);
    }

    #[test]
    fn everything_is_on_one_page() {
        let page = text(&reading(3_725_000, 100, 4), None, false);
        for part in [
            "generation 3, up 1h 02m\n",
            "eth0",
            "reachable  02:00:00:00:00:02",
            "64.0 MiB   4.0 KiB",
            "  warning: no huge pages\n",
        ] {
            assert!(page.contains(part), "{part} in\n{page}");
        }
    }
}
