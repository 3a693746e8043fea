//! From options to workers that can be measured: the plan, its words in a report, and the one place that picks ports.

use super::{
    cli::{self, ForwardBy},
    load::Mix,
    offer::Clock,
    order::{Plan, Workers},
    ports::{Arrangement, Wire, arrange},
    progress::Progress,
    report::Report,
};
use crate::rig;
use pointsman_dataplane::snapshot::Method;
use pointsman_hugepages::Options;

/// The plan that options ask for.
///
/// # Errors
/// Which option cannot be had.
pub fn plan(offered: &cli::Offered, mix: Mix) -> Result<Plan, String> {
    let method = match offered.method {
        ForwardBy::Dr => Method::Direct,
        ForwardBy::Tun => Method::Tunnel,
        ForwardBy::Nat => Method::Nat,
    };
    let on_wire = matches!(arrange(&offered.ports, false)?, Arrangement::OnWire(_));
    if let Some(option) =
        offered.wire.given().filter(|_| !on_wire && !offered.ports.iter().any(|port| port.is_loop()))
    {
        return Err(format!(
            "{option} is for a director on a wire; name the NICs by --port, or leave it out"
        ));
    }
    if on_wire {
        wall_clock(offered)?;
        only_dr(method)?;
    }
    Ok(Plan {
        flows: offered.flows,
        sizes: offered.frame_size,
        mix,
        method,
        workers: offered.workers,
        queues: offered.workers,
        ring: offered.ring as usize,
        clock: offered.clock,
        memory: match offered.pages {
            cli::Pages::Huge => Options::default(),
            cli::Pages::Ordinary => rig::ordinary(),
        },
        ports: offered.ports.clone(),
        wire: on_wire.then(|| wire(&offered.wire)),
    })
}

/// The plan of a command that has no director in this process.
///
/// # Errors
/// Which option cannot be had.
pub fn plan_of_stations(
    offered: &cli::Offered,
    mix: Mix,
    one_way: bool,
    receives_only: bool,
) -> Result<Plan, String> {
    arrange(&offered.ports, true)?;
    wall_clock(offered)?;
    let plan = plan(offered, mix)?;
    only_dr(plan.method)?;
    let wire = Wire { stations: true, one_way, receives_only, ..wire(&offered.wire) };
    Ok(Plan { wire: Some(wire), ..plan })
}

/// A sink looks for frames as they were sent.
fn only_dr(method: Method) -> Result<(), String> {
    match method {
        Method::Direct => Ok(()),
        _ => Err(format!(
            "--method {} is not measured on a wire yet, only of a director in this process",
            word(method)
        )),
    }
}

/// What leaves by a wire does so by everybody's time.
fn wall_clock(offered: &cli::Offered) -> Result<(), String> {
    match offered.clock {
        Clock::Wall => Ok(()),
        Clock::Cpu => {
            Err("--clock cpu is for a director in this process; frames on a wire go by --clock wall"
                .to_owned())
        }
    }
}

fn wire(options: &cli::WireOptions) -> Wire {
    let default = Wire::default();
    Wire {
        destination_mac: options.destination_mac.map(|mac| mac.0),
        service: options.vip.unwrap_or(default.service),
        real_servers: options.real_servers.clone(),
        ..default
    }
}

/// The word of `--method`.
fn word(method: Method) -> &'static str {
    match method {
        Method::Tunnel => "tun",
        Method::Nat => "nat",
        Method::Direct | Method::Local => "dr",
    }
}

/// What is in the figures.
pub fn method(plan: &Plan) -> String {
    let ports: Vec<String> = plan.ports.iter().map(ToString::to_string).collect();
    let way = match plan.method {
        Method::Tunnel => "round robin, tunnels (IP in IP)",
        Method::Nat => {
            "source hashing, address translation to another port; half of the packets are the servers' answers"
        }
        _ => "round robin, direct routing",
    };
    match (&plan.wire, arrange(&plan.ports, plan.wire.is_some())) {
        (None, Ok(Arrangement::Inside(_))) => format!(
            "Over the virtual device {}: each worker's thread runs generator, worker and sink in turn, and all three are in \
             the figures. Sixteen real servers behind one TCP service, {way}.",
            ports[0]
        ),
        (Some(wire), Ok(Arrangement::OnWire(_))) if wire.receives_only => {
            format!("Received by {} for {}.", ports.join(" and "), wire.service)
        }
        (Some(wire), Ok(Arrangement::OnWire(_))) => {
            let ways = match (wire.one_way, &ports[..]) {
                (true, [first, ..]) => format!("Sent by {first}, and received by another machine"),
                (false, [first, last]) => format!("Sent by {first} and received by {last}"),
                (_, all) => format!("Sent and received by {}", all.join(" and ")),
            };
            format!(
                "{ways}. The director between them is no part of this program: virtual service {} (TCP).",
                wire.service
            )
        }
        _ => format!(
            "On memory ports: each worker's thread runs generator, worker and sink in turn, and all three are in the \
             figures. Sixteen real servers behind one TCP service, {way}."
        ),
    }
}

/// All that a figure depends on.
pub fn label(plan: &Plan) -> String {
    let kind = if plan.wire.is_some() { "sender" } else { "worker" };
    let plural = if plan.workers == 1 { "" } else { "s" };
    let ports: Vec<String> =
        plan.ports.iter().map(ToString::to_string).filter(|port| port != "memory").collect();
    let ports = if ports.is_empty() { String::new() } else { format!(", {}", ports.join(" to ")) };
    let method =
        if plan.method == Method::Direct { String::new() } else { format!(", {}", word(plan.method)) };
    let (mix, flows, sizes, workers) = (plan.mix, plan.flows, plan.sizes, plan.workers);
    format!("{mix}, {flows} flows, {sizes}, {workers} {kind}{plural}{method}{ports}")
}

/// The workers of a plan, ready to be measured.
pub fn prepare(plan: &Plan, report: &mut Report, progress: &Progress) -> Result<Box<dyn Workers>, String> {
    progress.say(&format!("making {} connections", plan.flows));
    let workers = open(plan)?;
    report.huge_pages_used &= workers.has_huge_pages();
    #[cfg(feature = "dpdk")]
    if let Some(devices) = super::dpdk::describe().filter(|devices| !report.method.contains(devices)) {
        report.method = format!("{} {devices}.", report.method);
    }
    Ok(workers)
}

#[cfg(feature = "dpdk")]
fn open(plan: &Plan) -> Result<Box<dyn Workers>, String> {
    super::dpdk::workers(plan)
}

#[cfg(not(feature = "dpdk"))]
fn open(plan: &Plan) -> Result<Box<dyn Workers>, String> {
    match plan.ports.iter().find(|port| **port != super::ports::PortSpec::Memory) {
        None => Ok(Box::new(super::device::in_memory(plan)?)),
        Some(port) => Err(format!(
            "--port {port}: this pointsman-bench was built without DPDK; install libdpdk-dev and build it anew: cargo build \
             --release -p pointsman-benches --features dpdk --bin pointsman-bench"
        )),
    }
}

/// How frames come and are lost.
pub fn arrivals(plan: &Plan) -> String {
    if plan.wire.is_some() {
        return "Frames are lost that have not come back when none has for a fifth of a second.".to_owned();
    }
    format!(
        "Frames arrive by {} in a receive ring of {} frames, and are lost when it is full.",
        clock(plan),
        plan.ring
    )
}

/// What rates and latencies are counted by.
pub fn clock(plan: &Plan) -> &'static str {
    match plan.clock {
        Clock::Wall => "the clock on the wall",
        Clock::Cpu => "CPU time of the worker's thread",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::sizes::Sizes, *};

    #[test]
    fn a_label_names_all_that_a_figure_depends_on() {
        let plan = Plan {
            flows: 1_000_000,
            sizes: Sizes::Imix,
            mix: Mix::SynFlood,
            method: Method::Direct,
            workers: 2,
            ring: 1_024,
            clock: Clock::Wall,
            memory: rig::ordinary(),
            queues: 0,
            ports: Vec::new(),
            wire: None,
        };
        assert_eq!(label(&plan), "syn-flood, 1000000 flows, imix, 2 workers");
        let tunnels = Plan { method: Method::Tunnel, ..plan.clone() };
        assert_eq!(label(&tunnels), "syn-flood, 1000000 flows, imix, 2 workers, tun");
        let nat = Plan { method: Method::Nat, ..plan.clone() };
        assert_eq!(label(&nat), "syn-flood, 1000000 flows, imix, 2 workers, nat");
        let one = Plan { workers: 1, sizes: Sizes::Fixed(64), mix: Mix::Hit, ..plan };
        assert_eq!(label(&one), "hit, 1000000 flows, 64 B, 1 worker");
        // 10 Gbit/s of frames of 64 bytes.
        assert!((super::super::commands::gbits(&one, 14.880_952) - 10.0).abs() < 1e-4);
    }
}
