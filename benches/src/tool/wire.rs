//! `generate` and `sink`: what a director on a wire does with frames that come from here.

use super::{
    cli::{self, Rate},
    commands::{gbits, latencies, lose, remark},
    offer::Clock,
    order::{Order, Outcome, Plan, Workers},
    prepare::{label, method, prepare},
    progress::Progress,
    report::{Better, Report},
};

/// Nanoseconds of a second.
const SECOND: f64 = 1e9;

/// Frames for so many seconds at `rate` a second, or as fast as the sender can.
///
/// # Errors
/// When it cannot be measured.
pub fn exchange(
    workers: &mut dyn Workers,
    plan: &Plan,
    rate: Option<f64>,
    seconds: f64,
    progress: &Progress,
) -> Result<Outcome, String> {
    let order = match rate {
        None => Order::BackToBack { nanos: (seconds * SECOND) as u64, latency: true },
        Some(rate) => Order::Paced { rate, frames: ((rate * seconds) as u64).max(1), latency: true },
    };
    let one_way = plan.wire.as_ref().is_some_and(|wire| wire.one_way);
    let mut outcome = watched(workers, order, one_way, |at, sent, came| {
        let back = if one_way { String::new() } else { format!(", {came} came back") };
        progress.say(&format!("{at:.0} of {seconds} s: {sent} frames sent{back}"));
    })?;
    if !one_way {
        let lost = outcome.offered.saturating_sub(outcome.forwarded);
        if lost > 0 {
            outcome.losses.insert("lost_on_the_way".to_owned(), lost);
        }
    }
    Ok(outcome)
}

/// Does what is ordered and takes down how many frames left, or came, in each part of it.
fn watched(
    workers: &mut dyn Workers,
    order: Order,
    of_sent: bool,
    mut say: impl FnMut(f64, u64, u64),
) -> Result<Outcome, String> {
    let begin = Clock::Wall.nanos();
    let (mut slices, mut at, mut before) = (Vec::new(), 0.0, 0);
    let outcome = workers.run_watched(order, &mut |sent, came| {
        let now = (Clock::Wall.nanos() - begin) as f64 / SECOND;
        let count = if of_sent { sent } else { came };
        slices.push([now, count.saturating_sub(before) as f64 / 1e6 / (now - at).max(1e-3)]);
        (at, before) = (now, count);
        say(now, sent, came);
    })?;
    // What is shorter than a part is one.
    if slices.is_empty() {
        let count = if of_sent { outcome.offered } else { outcome.forwarded };
        slices.push([outcome.nanos as f64 / SECOND, count as f64 * 1e3 / outcome.nanos.max(1) as f64]);
    }
    Ok(Outcome { slices, ..outcome })
}

/// The rows that tell what was sent, what came back, and how.
pub fn rows(report: &mut Report, plan: &Plan, outcome: &Outcome) {
    let label = label(plan);
    let sent = outcome.sent_a_second.unwrap_or(0.0) / 1e6;
    report.row(format!("{label}: sent"), sent, "Mpps", Better::More);
    remark(report, &format!("{} frames", outcome.offered));
    if plan.wire.as_ref().is_some_and(|wire| wire.one_way) {
        report.row(format!("{label}: on the wire"), gbits(plan, sent), "Gbit/s", Better::More);
        remark(report, "with preamble and gap");
        return;
    }
    let mpps = outcome.mpps();
    report.row(format!("{label}: throughput"), mpps, "Mpps", Better::More);
    report.row(format!("{label}: on the wire"), gbits(plan, mpps), "Gbit/s", Better::More);
    remark(report, "with preamble and gap");
    let lost = outcome.offered.saturating_sub(outcome.forwarded) as f64;
    report.row(format!("{label}: loss"), lost * 100.0 / outcome.offered.max(1) as f64, "%", Better::Less);
    order(report, &label, outcome);
    lose(report, outcome);
}

fn order(report: &mut Report, label: &str, outcome: &Outcome) {
    report.row(format!("{label}: out of order"), outcome.seen.reordered as f64, "frames", Better::Less);
    remark(report, "behind a later frame of the same flow");
    report.row(format!("{label}: twice"), outcome.seen.duplicated as f64, "frames", Better::Less);
    if outcome.seen.foreign > 0 {
        remark(report, &format!("{} frames were not ours, or late", outcome.seen.foreign));
    }
}

/// `generate`.
///
/// # Errors
/// When it cannot be measured.
pub fn generate(plan: &Plan, asked: &cli::Generate) -> Result<Report, String> {
    let progress = Progress::new();
    let mut report = Report::new(format!("generate: {}", label(plan)), String::new());
    let mut workers = prepare(plan, &mut report, &progress)?;
    let rate = match asked.rate {
        Rate::Most => None,
        Rate::Frames(rate) => Some(rate),
        Rate::Bits(bits) => Some(plan.sizes.line_rate(bits)),
        Rate::Line => Some(plan.sizes.line_rate(link(plan)?)),
    };
    let told = rate.map_or("as fast as the sender can".to_owned(), |rate| format!("{:.3} Mpps", rate / 1e6));
    report.method = format!("{} s, {told}. {}{}", asked.seconds, method(plan), report.method);
    let outcome = exchange(&mut *workers, plan, rate, asked.seconds, &progress)?;
    rows(&mut report, plan, &outcome);
    if let (Some(rate), Some(sent)) = (rate, outcome.sent_a_second)
        && sent < rate * 0.99
    {
        report.rows[0].remark =
            format!("{} frames; the sender did not keep {:.3} Mpps: --workers", outcome.offered, rate / 1e6);
    }
    if !asked.one_way {
        latencies(&mut report, &outcome, &label(plan))?;
    }
    report.plot("frames over time", "s", "Mpps", outcome.slices);
    Ok(report)
}

#[cfg(feature = "dpdk")]
fn link(plan: &Plan) -> Result<f64, String> {
    super::dpdk::link_bits(plan)?.ok_or_else(|| {
        "--rate line: the port does not tell the speed of its link; say it, for example --rate 10G".to_owned()
    })
}

#[cfg(not(feature = "dpdk"))]
fn link(_: &Plan) -> Result<f64, String> {
    Err("--rate line needs DPDK".to_owned())
}

/// `sink`.
///
/// # Errors
/// When it cannot be measured.
pub fn sink(plan: &Plan, asked: &cli::Sink) -> Result<Report, String> {
    let progress = Progress::new();
    let mut report = Report::new(format!("sink: {}", label(plan)), String::new());
    let mut workers = prepare(plan, &mut report, &progress)?;
    report.method = format!("{} s. {}{}", asked.seconds, method(plan), report.method);
    let all =
        watched(&mut *workers, Order::Listen((asked.seconds * SECOND) as u64), false, |at, _, came| {
            progress.say(&format!("{at:.0} of {} s: {came} frames came", asked.seconds));
        })?;
    let label = label(plan);
    report.row(format!("{label}: received"), all.mpps(), "Mpps", Better::More);
    remark(&mut report, &format!("{} frames", all.forwarded));
    report.row(format!("{label}: on the wire"), gbits(plan, all.mpps()), "Gbit/s", Better::More);
    report.row(format!("{label}: missing"), all.streams.missing() as f64, "frames", Better::Less);
    remark(&mut report, "numbers that never came between the first and the last of each sender");
    order(&mut report, &label, &all);
    if all.seen.answered > 0 {
        remark(&mut report, &format!("{} ARP queries for real servers were answered", all.seen.answered));
    }
    report.plot("received over time", "s", "Mpps", all.slices);
    Ok(report)
}
