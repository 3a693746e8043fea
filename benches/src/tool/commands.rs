//! What each command measures, and the report that it fills.

use super::{
    cli,
    load::Mix,
    order::{Order, Outcome, Plan, Workers},
    prepare::{arrivals, clock, label, method, prepare},
    progress::Progress,
    report::{Better, Line, Plot, Report},
    search::{self, Limits},
    wire,
};

/// Nanoseconds of a second.
const SECOND: f64 = 1e9;
/// How much faster than the workers' own pace a search begins.
const ABOVE: f64 = 1.25;
const SEARCH_PROBE_SECONDS: f64 = 0.3;

/// Back to back for so many seconds, a second at a time, so that the terminal can be told how it goes.
fn back_to_back(
    workers: &mut dyn Workers,
    seconds: f64,
    latency: bool,
    progress: &Progress,
) -> Result<Outcome, String> {
    let mut all = Outcome::default();
    for (done, part) in parts(seconds) {
        let outcome = workers.run(Order::BackToBack { nanos: (part * SECOND) as u64, latency })?;
        progress.say(&format!("{:.0} of {seconds} s: {:.2} Mpps", done + part, outcome.mpps()));
        all = all.then(outcome);
    }
    Ok(all)
}

/// A duration as seconds and what is left: where each part begins, and how long it is.
pub(super) fn parts(seconds: f64) -> impl Iterator<Item = (f64, f64)> {
    (0..seconds.ceil() as u32).map(move |n| (f64::from(n), (seconds - f64::from(n)).min(1.0)))
}

/// Generator and sink alone, in nanoseconds a packet.
fn floor(workers: &mut dyn Workers, seconds: f64) -> Result<f64, String> {
    let frames = (seconds * 4e6).clamp(6_400.0, 4e6) as u64;
    let outcome = workers.run(Order::Floor(frames))?;
    Ok(outcome.cpu_nanos as f64 / outcome.offered as f64)
}

/// `run`.
///
/// # Errors
/// When it cannot be measured.
pub fn run(plan: &Plan, seconds: f64) -> Result<Report, String> {
    let progress = Progress::new();
    let mut report = Report::new(
        format!("run: {}", label(plan)),
        format!("Back to back for {seconds} s. {}", method(plan)),
    );
    let outcome = one_run(plan, seconds, &mut report, &progress)?;
    report.plot("throughput over time", "s", "Mpps", outcome.slices);
    Ok(report)
}

fn one_run(plan: &Plan, seconds: f64, report: &mut Report, progress: &Progress) -> Result<Outcome, String> {
    let mut workers = prepare(plan, report, progress)?;
    if plan.wire.is_some() {
        let outcome = wire::exchange(&mut *workers, plan, None, seconds, progress)?;
        wire::rows(report, plan, &outcome);
        return Ok(outcome);
    }
    let floor = floor(&mut *workers, seconds)?;
    let outcome = back_to_back(&mut *workers, seconds, false, progress)?;
    let label = label(plan);
    let mpps = outcome.mpps();
    report.row(format!("{label}: throughput"), mpps, "Mpps", Better::More);
    report.row(format!("{label}: on the wire"), gbits(plan, mpps), "Gbit/s", Better::More);
    remark(report, "with preamble and gap");
    report.row(format!("{label}: CPU time a packet"), outcome.nanos_per_packet(), "ns", Better::Less);
    remark(report, &format!("of which generator and port {floor:.1} ns"));
    report.row(format!("{label}: CPU time a packet, best slice"), outcome.best_nanos, "ns", Better::Less);
    lose(report, &outcome);
    Ok(outcome)
}

pub(super) fn gbits(plan: &Plan, mpps: f64) -> f64 {
    mpps * plan.sizes.wire_bits() / 1e3
}

pub(super) fn remark(report: &mut Report, text: &str) {
    if let Some(row) = report.rows.last_mut() {
        text.clone_into(&mut row.remark);
    }
}

pub(super) fn lose(report: &mut Report, outcome: &Outcome) {
    let losses = report.losses.get_or_insert_default();
    for (reason, n) in &outcome.losses {
        *losses.entry(reason.clone()).or_default() += n;
    }
}

/// `search`.
///
/// # Errors
/// When it cannot be measured.
pub fn search(plan: &Plan, asked: &cli::Search) -> Result<Report, String> {
    let progress = Progress::new();
    let method = format!(
        "RFC 2544 section 26.1: a binary search for the fastest rate at which no more than {} % of the frames are lost, \
         in trials of {} s. {} {}",
        asked.loss * 100.0,
        asked.seconds,
        arrivals(plan),
        method(plan)
    );
    let mut report = Report::new(format!("search: {}", label(plan)), method);
    let mut workers = prepare(plan, &mut report, &progress)?;
    let most = match asked.max {
        Some(mpps) => mpps * 1e6,
        None => back_to_back(&mut *workers, SEARCH_PROBE_SECONDS, false, &progress)?.mpps() * 1e6 * ABOVE,
    };
    let limits = Limits { most, loss: asked.loss, seconds: asked.seconds, resolution: asked.resolution };
    let found = search::throughput(&mut *workers, limits, |trial| {
        progress.say(&format!("{:.3} Mpps: {:.4} % lost", trial.rate / 1e6, trial.loss() * 100.0));
    })?;
    let mpps = found.best.map_or(0.0, |best| best.rate / 1e6);
    let name = format!("{}: throughput at {} % loss", label(plan), asked.loss * 100.0);
    report.row(&name, mpps, "Mpps", Better::More);
    match found.best {
        None => remark(&mut report, "no rate was without such loss: a busy machine? try --clock cpu"),
        Some(best) if best.rate >= most => remark(&mut report, "the greatest rate that was tried: see --max"),
        Some(best) if asked.max.is_none() && best.rate < most / ABOVE / 2.0 => {
            remark(&mut report, "not half of what is taken back to back: a busy machine? try --clock cpu");
        }
        Some(_) => {}
    }
    report.row(format!("{name}, on the wire"), gbits(plan, mpps), "Gbit/s", Better::More);
    let mut points: Vec<[f64; 2]> = (found.trials.iter())
        .map(|trial| [trial.rate / 1e6, trial.rate / 1e6 * (1.0 - trial.loss())])
        .collect();
    points.sort_by(|a, b| a[0].total_cmp(&b[0]));
    report.plot("forwarded at offered rates", "offered Mpps", "Mpps", points);
    Ok(report)
}

/// `latency`.
///
/// # Errors
/// When it cannot be measured.
pub fn latency(plan: &Plan, asked: &cli::Latency) -> Result<Report, String> {
    let progress = Progress::new();
    let (how, at) = match asked.rate {
        Some(mpps) => {
            let begins = if plan.wire.is_some() { "is sent" } else { "was due" };
            (format!("{mpps} Mpps were offered; time begins when a frame {begins}"), format!("{mpps} Mpps"))
        }
        None if plan.wire.is_some() => (
            "As fast as the sender can; time begins when a frame is sent".to_owned(),
            "back to back".to_owned(),
        ),
        None => {
            ("Back to back; time begins when its batch was received".to_owned(), "back to back".to_owned())
        }
    };
    let ends = if plan.wire.is_some() { "has come back" } else { "is sent" };
    let method = format!("{how}, and ends when it {ends}, by {}. {}", clock(plan), method(plan));
    let mut report = Report::new(format!("latency: {}", label(plan)), method);
    let mut workers = prepare(plan, &mut report, &progress)?;
    back_to_back(&mut *workers, asked.seconds.min(1.0) / 10.0, false, &progress)?;
    let outcome = match asked.rate {
        None => back_to_back(&mut *workers, asked.seconds, true, &progress)?,
        Some(mpps) => paced(&mut *workers, mpps * 1e6, asked.seconds, &progress)?,
    };
    latencies(&mut report, &outcome, &format!("{}, {at}", label(plan)))?;
    lose(&mut report, &outcome);
    Ok(report)
}

/// At a rate for so many seconds, a second at a time, with latencies.
fn paced(workers: &mut dyn Workers, rate: f64, seconds: f64, progress: &Progress) -> Result<Outcome, String> {
    let mut all = Outcome::default();
    for (done, part) in parts(seconds) {
        progress.say(&format!("{done:.0} of {seconds} s"));
        let frames = ((rate * part) as u64).max(1);
        all = all.then(workers.run(Order::Paced { rate, frames, latency: true })?);
    }
    Ok(all)
}

/// The percentiles of a run.
pub(super) fn latencies(report: &mut Report, outcome: &Outcome, label: &str) -> Result<(), String> {
    let Some(latencies) = outcome.latency.as_ref().filter(|latencies| !latencies.is_empty()) else {
        return Err("no frame came back".to_owned());
    };
    let name = |what: &str| format!("{label}: {what}");
    let mut points = Vec::new();
    for (text, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)] {
        let micros = latencies.value_at_quantile(share) as f64 / 1e3;
        report.row(name(text), micros, "us", Better::Less);
        points.push([-(1.0 - share).log10(), micros]);
    }
    report.row(name("longest"), latencies.max() as f64 / 1e3, "us", Better::Less);
    remark(report, &format!("of {} frames", latencies.len()));
    report.plot("latency by nines", "nines: 1 is p90, 2 is p99", "us", points);
    Ok(())
}

/// `bursts`.
///
/// # Errors
/// When it cannot be measured.
pub fn bursts(plan: &Plan, asked: &cli::Bursts) -> Result<Report, String> {
    let progress = Progress::new();
    let rate = plan.sizes.line_rate(asked.link * 1e9);
    let most = ((rate * asked.seconds) as u64).max(1);
    let method = format!(
        "RFC 2544 section 26.4: the longest burst at the speed of a link of {} Gbit/s that is forwarded whole, {} times; \
         of {most} frames at most. {} {}",
        asked.link,
        asked.repeats,
        arrivals(plan),
        method(plan)
    );
    let mut report = Report::new(format!("bursts: {}", label(plan)), method);
    let mut workers = prepare(plan, &mut report, &progress)?;
    let mut lengths = Vec::new();
    for n in 1..=asked.repeats {
        let (length, _) = search::burst(&mut *workers, rate, most)?;
        progress.say(&format!("{n} of {}: {length} frames", asked.repeats));
        lengths.push(length as f64);
    }
    let mean = lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
    let least = lengths.iter().copied().fold(f64::INFINITY, f64::min);
    let name = format!("{}, {} Gbit/s: longest burst", label(plan), asked.link);
    report.row(format!("{name}, mean"), mean, "frames", Better::More);
    if least >= most as f64 {
        remark(&mut report, "it keeps up with the link: as long as --seconds allows");
    }
    report.row(format!("{name}, least"), least, "frames", Better::More);
    let points = lengths.iter().enumerate().map(|(n, length)| [(n + 1) as f64, *length]).collect();
    report.plot("longest bursts", "repetition", "frames", points);
    Ok(report)
}

/// `connections`.
///
/// # Errors
/// When it cannot be measured.
pub fn connections(plan: &Plan, seconds: f64) -> Result<Report, String> {
    let progress = Progress::new();
    let how = match plan.mix {
        Mix::SynFlood => {
            "The table is full: each SYN takes the place of the oldest half-open connection, and one packet in \
                          sixteen is of an established one."
        }
        _ => "Each packet is the SYN of another client; as many connections end as begin.",
    };
    let mut report =
        Report::new(format!("connections: {}", label(plan)), format!("{seconds} s. {how} {}", method(plan)));
    let mut workers = prepare(plan, &mut report, &progress)?;
    let outcome = back_to_back(&mut *workers, seconds, false, &progress)?;
    let created = outcome.created.max(1) as f64;
    let name = label(plan);
    report.row(
        format!("{name}: connections"),
        created * 1e3 / outcome.nanos.max(1) as f64,
        "M/s",
        Better::More,
    );
    report.row(
        format!("{name}: CPU time a connection"),
        outcome.cpu_nanos as f64 / created,
        "ns",
        Better::Less,
    );
    lose(&mut report, &outcome);
    report.plot("packets over time", "s", "Mpps", outcome.slices);
    Ok(report)
}

/// `scaling`.
///
/// # Errors
/// When it cannot be measured.
pub fn scaling(plan: &Plan, seconds: f64) -> Result<Report, String> {
    let progress = Progress::new();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let title =
        format!("scaling: 1 to {} workers, {}, {} flows, {}", plan.workers, plan.mix, plan.flows, plan.sizes);
    let mut report = Report::new(
        title,
        format!("Back to back for {seconds} s with each number of workers. {}", method(plan)),
    );
    let (mut points, mut ideal) = (Vec::new(), Vec::new());
    for workers in 1..=plan.workers {
        let plan = Plan { workers, queues: plan.workers, ..plan.clone() };
        let mpps = one_run(&plan, seconds, &mut report, &progress)?.mpps();
        let one = points.first().map_or(mpps, |first: &[f64; 2]| first[1]);
        points.push([workers.into(), mpps]);
        ideal.push([workers.into(), one * f64::from(workers)]);
        if workers > 1 {
            report.row(format!("{}: times one worker", label(&plan)), mpps / one, "x", Better::More);
            if usize::from(workers) > cores {
                remark(&mut report, &format!("this machine has {cores} cores"));
            }
        }
    }
    let lines = vec![
        Line { name: "measured".to_owned(), points },
        Line { name: "one worker times so many".to_owned(), points: ideal },
    ];
    let (title, x, y) = ("throughput by workers".to_owned(), "workers".to_owned(), "Mpps".to_owned());
    report.plots.push(Plot { title, x, y, lines });
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_cut_into_seconds() {
        assert_eq!(parts(2.5).collect::<Vec<_>>(), [(0.0, 1.0), (1.0, 1.0), (2.0, 0.5)]);
        assert_eq!(parts(0.05).collect::<Vec<_>>(), [(0.0, 0.05)]);
    }
}
