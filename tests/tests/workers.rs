//! Workers as an operator sees them: where they run, how busy they are, and that they rest without losing frames.

use pointsman_proto::v1::{GetStatsRequest, WorkerStats, stats_client::StatsClient};
use pointsman_tests::{Director, Lab, wait_until};

mod support;
use support::connect;

async fn worker(director: &Director) -> WorkerStats {
    let mut stats = StatsClient::new(connect(director).await);
    let answer = stats.get(GetStatsRequest {}).await.expect("Stats.Get answers").into_inner();
    answer.workers.into_iter().next().expect("a director has a worker")
}

/// The threads of the daemon: their names, and the cores that each may use, as the kernel lists them.
fn threads(lab: &Lab, director: &Director) -> Vec<(String, String)> {
    let line = format!(
        "for task in /proc/{}/task/*; do echo \"$(cat $task/comm):$(grep Cpus_allowed_list $task/status)\"; done",
        director.process.pid()
    );
    let text = lab.sh(&line);
    let thread = |line: &str| {
        let (name, list) = line.split_once(":Cpus_allowed_list:").expect("a name and its cores");
        (name.to_owned(), list.trim().to_owned())
    };
    text.lines().map(thread).collect()
}

#[test]
fn a_worker_has_a_core_of_its_own_and_the_control_plane_stays_off_it() {
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    let threads = threads(&lab, &director);
    let (workers, others): (Vec<_>, Vec<_>) =
        threads.iter().partition(|(name, _)| name.starts_with("worker-"));
    let [(_, core)] = &workers[..] else { panic!("one worker by default: {threads:?}") };
    assert!(core.parse::<u32>().is_ok(), "it is bound to one core: {threads:?}");
    assert!(others.len() >= 3, "the main thread and two of the control plane: {threads:?}");
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
        for (name, cores) in others {
            assert!(cores.parse::<u32>().is_ok() && cores != core, "{name}: {threads:?}");
        }
    }
}

#[tokio::test]
async fn workers_shows_the_core_the_time_the_batches_and_the_queues_of_a_worker_that_rests() {
    let lab = Lab::segment();
    lab.write("/run/lab/adaptive.toml", "[[port]]\ndevice = \"eth0\"\nidle = \"adaptive\"\n");
    let director = Director::start(&lab, "director", "--config /run/lab/adaptive.toml");
    director.add_web_service("rr");
    let mut before = worker(&director).await;
    for _ in 0..100 {
        if before.sleeps > 20 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        before = worker(&director).await;
    }
    // It sleeps when the first comes, and none is lost.
    lab.ok("client", "ping -c 10 -i 0.1 -W 2 192.168.10.100");
    let after = worker(&director).await;
    assert_eq!(after.idle, "adaptive");
    assert!(after.sleeps > before.sleeps && after.woken > before.woken, "{before:?}\n{after:?}");
    assert!(after.asleep_nanoseconds > before.asleep_nanoseconds, "{before:?}\n{after:?}");
    assert!(after.busy_nanoseconds > before.busy_nanoseconds, "{before:?}\n{after:?}");
    let batches = |worker: &WorkerStats| worker.batches.iter().sum::<u64>();
    assert!(batches(&after) >= batches(&before) + 10, "{before:?}\n{after:?}");
    let queue = &after.queues[0];
    assert_eq!((queue.port.as_str(), queue.queue), ("eth0", 0));
    assert!(queue.rx_packets >= 10 && queue.tx_packets >= 10, "{queue:?}");

    let shown = director.pointsman("workers");
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""));
    for part in ["since start, ", "BUSY  POLLING  ASLEEP", "  adaptive  ", "32-63", "\n     0  eth0      0 "]
    {
        assert!(shown.stdout.contains(part), "`{part}` is not in:\n{}", shown.stdout);
    }
    assert!(director.pointsman("workers --json").stdout.contains("\"busy_nanoseconds\": "));
    lab.run("director", "timeout 3 pointsman workers --watch 1 >/run/lab/watched");
    wait_until("two readings are there", 1, || lab.read("/run/lab/watched").contains("in the last 1."));
    assert!(lab.read("/run/lab/watched").starts_with("since start, "));
}
