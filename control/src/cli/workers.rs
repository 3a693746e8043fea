//! `pointsman workers`: how busy each worker is, in what pieces work comes to it, and where it waits or loses.

use std::path::Path;

use clap::Args;
use pointsman_proto::v1::{GetStatsResponse, WorkerQueue, WorkerStats};

use super::error::CliError;
use super::output::{Output, Table, duration};
use super::stats::{rate, readings, view};

/// Shows how busy each worker is: its core, its time, its batches, what it hands over, its queues
#[derive(Debug, Args)]
#[command(
    after_help = "BUSY is the time in polls that did something, POLLING in those that found nothing, ASLEEP in the \
                  kernel. Under BATCHES is the share of the polls with frames that took so many. RING FILL is of the \
                  rings from other workers, in the last second; HIGHEST since start.\n\n\
                  With --watch and --json each line is one reading.\n\nExample: pointsman workers --watch 5"
)]
pub(super) struct Workers {
    /// Again every so many seconds, with what happened in between [1 if no number is given]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    watch: Option<u32>,
}

impl Workers {
    pub(super) async fn run(self, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
        readings(socket, self.watch, output, view::workers, text).await
    }
}

/// What happened between `before`, or the start, and `now`.
fn text(now: &GetStatsResponse, before: Option<&GetStatsResponse>) -> String {
    // A director that was started anew counts from its start.
    let before = before.filter(|before| before.uptime_milliseconds < now.uptime_milliseconds);
    let millis = now.uptime_milliseconds - before.map_or(0, |before| before.uptime_milliseconds);
    let heading = match before {
        Some(_) => format!("in the last {}.{} s", millis / 1000, millis % 1000 / 100),
        None => format!("since start, {} ago", duration(millis / 1000)),
    };
    let periods: Vec<Period<'_>> = now
        .workers
        .iter()
        .map(|worker| {
            let was = before.and_then(|before| before.workers.iter().find(|was| was.index == worker.index));
            Period { now: worker, was, millis }
        })
        .collect();
    let mut text = format!("{heading}\n\n{}\n{}\n{}", time(&periods), batches(&periods), queues(&periods));
    for warning in now.workers.iter().flat_map(|worker| &worker.warnings) {
        text += &format!("\nwarning: {warning}\n");
    }
    text
}

/// A worker, and what it was when the period began; `None` at start.
struct Period<'a> {
    now: &'a WorkerStats,
    was: Option<&'a WorkerStats>,
    millis: u64,
}

impl Period<'_> {
    /// How much a counter grew.
    fn grew(&self, counter: impl Fn(&WorkerStats) -> u64) -> u64 {
        counter(self.now).saturating_sub(self.was.map_or(0, counter))
    }

    /// The same for each second.
    fn rate(&self, counter: impl Fn(&WorkerStats) -> u64) -> String {
        self.per_second(self.grew(counter))
    }

    fn per_second(&self, events: u64) -> String {
        rate(events, Some(0), Some(self.millis)).map_or("-".to_owned(), |rate| rate.to_string())
    }
}

fn time(workers: &[Period<'_>]) -> String {
    let mut table = Table::new(0, &[0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    table.row([
        "WORKER",
        "CORE",
        "WHEN IDLE",
        "BUSY",
        "POLLING",
        "ASLEEP",
        "SLEEPS/S",
        "WOKEN/S",
        "HANDED OUT/S",
        "HANDED IN/S",
        "RING FILL",
        "HIGHEST",
        "OF",
    ]);
    for worker in workers {
        let busy = worker.grew(|worker| worker.busy_nanoseconds);
        let empty = worker.grew(|worker| worker.empty_nanoseconds);
        let asleep = worker.grew(|worker| worker.asleep_nanoseconds);
        let all = u128::from(busy) + u128::from(empty) + u128::from(asleep);
        table.row([
            worker.now.index.to_string(),
            worker.now.core.to_string(),
            worker.now.idle.clone(),
            share(busy, all),
            share(empty, all),
            share(asleep, all),
            worker.rate(|worker| worker.sleeps),
            worker.rate(|worker| worker.woken),
            worker.rate(|worker| worker.handed_off),
            worker.rate(|worker| worker.handed_in),
            worker.now.handoff_fill.to_string(),
            worker.now.handoff_fill_highest.to_string(),
            worker.now.handoff_room.to_string(),
        ]);
    }
    table.text()
}

fn batches(workers: &[Period<'_>]) -> String {
    let sizes = workers.iter().map(|worker| worker.now.batches.len()).max().unwrap_or(0).min(16);
    let mut table = Table::new(0, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    let heads = ["WORKER", "PACKETS/S", "BATCHES/S", "MEAN"].map(str::to_owned);
    table.row(heads.into_iter().chain((0..sizes).map(|size| size_name(size, sizes))));
    for worker in workers {
        let counted: Vec<u64> = (0..sizes)
            .map(|size| worker.grew(|worker| worker.batches.get(size).copied().unwrap_or(0)))
            .collect();
        let all: u128 = counted.iter().map(|count| u128::from(*count)).sum();
        let packets = worker.grew(|worker| worker.packets);
        let mean = (u128::from(packets) * 10).checked_div(all);
        let first = [
            worker.now.index.to_string(),
            worker.per_second(packets),
            worker.per_second(u64::try_from(all).unwrap_or(u64::MAX)),
            mean.map_or("-".to_owned(), |tenths| format!("{}.{}", tenths / 10, tenths % 10)),
        ];
        table.row(first.into_iter().chain(counted.into_iter().map(|count| share(count, all))));
    }
    table.text()
}

/// Frames of the batches that are counted at `size` of `sizes`: `1`, `2-3`, `4-7`; the last is a full batch.
fn size_name(size: usize, sizes: usize) -> String {
    let least = 1_u32 << size;
    if size == 0 || size + 1 == sizes { least.to_string() } else { format!("{least}-{}", 2 * least - 1) }
}

fn queues(workers: &[Period<'_>]) -> String {
    let mut table = Table::new(0, &[0, 2, 3, 4, 5, 6]);
    table.row(["WORKER", "PORT", "QUEUE", "RX/S", "TX/S", "RX RING FULL", "TX RING FULL"]);
    for worker in workers {
        for queue in &worker.now.queues {
            let was = worker.was.and_then(|was| was.queues.iter().find(|was| was.port == queue.port));
            let grew =
                |counter: fn(&WorkerQueue) -> u64| counter(queue).saturating_sub(was.map_or(0, counter));
            table.row([
                worker.now.index.to_string(),
                queue.port.clone(),
                queue.queue.to_string(),
                worker.per_second(grew(|queue| queue.rx_packets)),
                worker.per_second(grew(|queue| queue.tx_packets)),
                grew(|queue| queue.rx_ring_drops).to_string(),
                grew(|queue| queue.tx_ring_drops).to_string(),
            ]);
        }
    }
    table.text()
}

/// `12.5 %`; `-` of nothing.
fn share(part: u64, whole: u128) -> String {
    let tenths = (u128::from(part) * 1000).checked_div(whole);
    tenths.map_or("-".to_owned(), |tenths| format!("{}.{} %", tenths / 10, tenths % 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One worker and one queue; everything but the time of start grows with `n`.
    fn reading(uptime_milliseconds: u64, n: u64) -> GetStatsResponse {
        let queue = WorkerQueue {
            port: "eth0".into(),
            queue: 1,
            rx_packets: 64 * n,
            tx_packets: 32 * n,
            rx_ring_drops: n,
            ..WorkerQueue::default()
        };
        let worker = WorkerStats {
            index: 1,
            core: 3,
            idle: "adaptive".into(),
            busy_nanoseconds: 125 * n,
            empty_nanoseconds: 250 * n,
            asleep_nanoseconds: 625 * n,
            sleeps: 10 * n,
            woken: 4 * n,
            packets: 64 * n,
            batches: vec![n, 0, 0, n, 0, 0, 2 * n],
            handed_off: 30 * n,
            handed_in: 20 * n,
            handoff_fill: 17,
            handoff_fill_highest: 900,
            handoff_room: 1024,
            queues: vec![queue],
            ..WorkerStats::default()
        };
        GetStatsResponse { uptime_milliseconds, workers: vec![worker], ..GetStatsResponse::default() }
    }

    #[test]
    fn a_worker_is_shown_with_its_time_batches_and_queues_since_start() {
        let expected = "\
since start, 1m ago

WORKER  CORE  WHEN IDLE    BUSY  POLLING  ASLEEP  SLEEPS/S  WOKEN/S  HANDED OUT/S  HANDED IN/S  RING FILL  HIGHEST    OF
     1     3  adaptive   12.5 %   25.0 %  62.5 %       100       40           300          200         17      900  1024

WORKER  PACKETS/S  BATCHES/S  MEAN       1    2-3    4-7    8-15  16-31  32-63      64
     1        640         40  16.0  25.0 %  0.0 %  0.0 %  25.0 %  0.0 %  0.0 %  50.0 %

WORKER  PORT  QUEUE  RX/S  TX/S  RX RING FULL  TX RING FULL
     1  eth0      1   640   320           600             0
";
        assert_eq!(text(&reading(60_000, 600), None), expected);
    }

    #[test]
    fn between_two_readings_it_is_what_happened_between_them() {
        let mut now = reading(62_500, 700);
        // Busy all the time.
        now.workers[0].busy_nanoseconds = 125 * 600 + 5_000;
        now.workers[0].empty_nanoseconds = 250 * 600;
        now.workers[0].asleep_nanoseconds = 625 * 600;
        let expected = "\
in the last 2.5 s

WORKER  CORE  WHEN IDLE     BUSY  POLLING  ASLEEP  SLEEPS/S  WOKEN/S  HANDED OUT/S  HANDED IN/S  RING FILL  HIGHEST    OF
     1     3  adaptive   100.0 %    0.0 %   0.0 %       400      160          1200          800         17      900  1024

WORKER  PACKETS/S  BATCHES/S  MEAN       1    2-3    4-7    8-15  16-31  32-63      64
     1       2560        160  16.0  25.0 %  0.0 %  0.0 %  25.0 %  0.0 %  0.0 %  50.0 %

WORKER  PORT  QUEUE  RX/S  TX/S  RX RING FULL  TX RING FULL
     1  eth0      1  2560  1280           100             0
";
        assert_eq!(text(&now, Some(&reading(60_000, 600))), expected);
        // A director that was started anew is shown since its start.
        assert!(text(&reading(1_000, 1), Some(&now)).starts_with("since start, 1s ago\n"));
    }

    #[test]
    fn nothing_is_divided_by_nothing_and_warnings_are_shown() {
        let mut now = reading(0, 0);
        now.workers[0].warnings = vec!["worker 1 shares core 3 with worker 0: mend it".into()];
        let page = text(&now, None);
        assert!(page.contains("     1     3  adaptive      -        -       -         -        -"), "{page}");
        assert!(page.ends_with("\nwarning: worker 1 shares core 3 with worker 0: mend it\n"), "{page}");
        assert_eq!(share(u64::MAX, u128::from(u64::MAX)), "100.0 %");
    }

    #[test]
    fn json_has_the_names_of_the_interface() {
        let value = serde_json::to_value(view::workers(&reading(60_000, 600))).unwrap();
        assert_eq!(value["uptime_milliseconds"], 60_000);
        let worker = &value["workers"][0];
        assert_eq!((&worker["idle"], &worker["busy_nanoseconds"]), (&"adaptive".into(), &75_000.into()));
        assert_eq!(worker["batches"], serde_json::json!([600, 0, 0, 600, 0, 0, 1200]));
        assert_eq!(
            (&worker["queues"][0]["port"], &worker["queues"][0]["queue"]),
            (&"eth0".into(), &1.into())
        );
    }
}
