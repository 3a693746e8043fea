//! What is fixed at start: ports, cores, capacity, memory.

use super::{at_most, dpdk};
use crate::{config::model::*, refusal::Refusal};
use pointsman_dataplane::limits::{MAX_PORTS, MAX_WORKERS};
use pointsman_proto::v1;
use std::{collections::HashSet, num::NonZeroU64};

/// Characters of the longest interface name (IFNAMSIZ - 1).
const INTERFACE_NAME: usize = 15;

/// What is fixed at start.
pub(super) fn start(asked: &v1::Start, refusals: &mut Vec<Refusal>) -> Option<Start> {
    let before = refusals.len();
    let ports = asked.ports.iter().enumerate();
    let ports: Vec<Port> =
        ports.filter_map(|(index, asked)| port(asked, &format!("start.ports[{index}]"), refusals)).collect();
    for index in 1..ports.len() {
        one_of_its_kind(&ports, index, refusals);
    }
    at_most("start.ports", ports.len(), MAX_PORTS, refusals);
    at_most("start.cores", asked.cores.len(), MAX_WORKERS, refusals);
    let mut seen = HashSet::new();
    for (index, core) in asked.cores.iter().enumerate() {
        if !seen.insert(core) {
            refusals.push(Refusal::invalid(
                format!("start.cores[{index}]"),
                format!("core {core} is listed twice"),
                "give each worker its own core",
            ));
        }
    }
    let memory = asked.memory.as_ref().map(|asked| memory(asked, refusals));
    let dpdk = asked.dpdk.as_ref().map(|asked| dpdk::start(asked, &ports, refusals));
    (refusals.len() == before).then(|| Start {
        ports,
        cores: asked.cores.clone(),
        connections_ipv4: NonZeroU64::new(asked.connections_ipv4),
        connections_ipv6: NonZeroU64::new(asked.connections_ipv6),
        memory,
        dpdk,
    })
}

/// Refuses what a port must not have in common with those before it, and what it must.
fn one_of_its_kind(ports: &[Port], index: usize, refusals: &mut Vec<Refusal>) {
    let (before, port) = (&ports[..index], &ports[index]);
    let mut refuse = |key: &str, reason: String, remedy: &str| {
        refusals.push(Refusal::invalid(format!("start.ports[{index}].{key}"), reason, remedy));
    };
    if before.iter().any(|other| other.name == port.name) {
        refuse("name", format!("two ports are named \"{}\"", port.name), "give each port its own name");
    } else if before.iter().any(|other| dpdk::name_of(&other.device) == dpdk::name_of(&port.device)) {
        let what = if matches!(port.driver, Driver::Dpdk(_)) { "device" } else { "interface" };
        let reason = format!("two ports use the {what} \"{}\"", dpdk::name_of(&port.device));
        refuse("device", reason, &format!("give each port its own {what}"));
    }
    if let Some(first) = before.first()
        && first.driver.name() != port.driver.name()
    {
        let reason = format!(
            "the port \"{}\" has the driver {}, the port \"{}\" has {}: a worker has ports of one kind only",
            first.name,
            first.driver.name(),
            port.name,
            port.driver.name()
        );
        refuse(
            "driver",
            reason,
            "give all ports the same driver; with \"dpdk\" an interface of the kernel is device = \"net_af_packet0,iface=NAME\"",
        );
    }
}

fn memory(asked: &v1::Memory, refusals: &mut Vec<Refusal>) -> Memory {
    let pages = match asked.pages.as_str() {
        "" | "auto" => Pages::Auto,
        "2M" => Pages::Huge2M,
        "1G" => Pages::Huge1G,
        "ordinary" => Pages::Ordinary,
        other => {
            refusals.push(Refusal::invalid(
                "start.memory.pages",
                format!("expected \"auto\", \"2M\", \"1G\" or \"ordinary\", found \"{other}\""),
                "leave it out to take the best that there is",
            ));
            Pages::Auto
        }
    };
    Memory { pages, numa_node: asked.numa_node, lock: asked.lock.unwrap_or(true) }
}

fn port(asked: &v1::Port, at: &str, refusals: &mut Vec<Refusal>) -> Option<Port> {
    let before = refusals.len();
    let is_dpdk = asked.driver == "dpdk";
    let default = if is_dpdk { Idle::Poll } else { Idle::Sleep };
    let idle = match asked.idle.as_str() {
        "" => default,
        "sleep" => Idle::Sleep,
        "adaptive" => Idle::Adaptive,
        "poll" => Idle::Poll,
        other => {
            refusals.push(Refusal::invalid(
                format!("{at}.idle"),
                format!("expected \"sleep\", \"adaptive\" or \"poll\", found \"{other}\""),
                format!("leave it out for \"{}\"", default.name()),
            ));
            default
        }
    };
    let (device, name, driver) = match asked.driver.as_str() {
        "dpdk" => dpdk::port(asked, at, refusals)?,
        "" | "af_packet" => af_packet(asked, at, refusals)?,
        other => {
            refusals.push(Refusal::invalid(
                format!("{at}.driver"),
                format!("expected \"af_packet\" or \"dpdk\", found \"{other}\""),
                "leave it out for an interface of the kernel",
            ));
            return None;
        }
    };
    (refusals.len() == before).then_some(Port { name, driver, device, idle })
}

/// A port on an interface of the kernel: its device, name and driver.
fn af_packet(asked: &v1::Port, at: &str, refusals: &mut Vec<Refusal>) -> Option<(String, String, Driver)> {
    // One name is enough.
    let (device, name) = match (asked.device.as_str(), asked.name.as_str()) {
        ("", name) => (name, name),
        (device, "") => (device, device),
        both => both,
    };
    if !is_interface(device) {
        refusals.push(Refusal::invalid(
            format!("{at}.device"),
            format!("expected the name of a network interface, found \"{device}\""),
            "`ip link` lists them; a device of DPDK needs driver = \"dpdk\"",
        ));
        return None;
    }
    let before = refusals.len();
    let own = [
        ("addresses", !asked.addresses.is_empty()),
        ("gateways", !asked.gateways.is_empty()),
        ("mtu", asked.mtu != 0),
        ("rx_ring", asked.rx_ring != 0),
        ("tx_ring", asked.tx_ring != 0),
        ("promiscuous", asked.promiscuous),
    ];
    for (key, _) in own.iter().filter(|(_, said)| *said) {
        refusals.push(Refusal::invalid(
            format!("{at}.{key}"),
            "this is for ports with driver = \"dpdk\"",
            format!("leave it out: with af_packet it is what the kernel's interface {device} has"),
        ));
    }
    let receive_ring = match asked.receive_ring.as_str() {
        "" | "frames" => ReceiveRing::Frames,
        "blocks" => ReceiveRing::Blocks,
        other => {
            refusals.push(Refusal::invalid(
                format!("{at}.receive_ring"),
                format!("expected \"frames\" or \"blocks\", found \"{other}\""),
                "leave it out to be handed each frame at once",
            ));
            ReceiveRing::Frames
        }
    };
    let found = (device.to_owned(), name.to_owned(), Driver::AfPacket(receive_ring));
    (refusals.len() == before).then_some(found)
}

/// Whether the kernel may have an interface of this name.
pub(super) fn is_interface(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= INTERFACE_NAME
        && !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
}
