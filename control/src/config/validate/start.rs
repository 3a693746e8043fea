//! What is fixed at start: ports, cores, capacity, memory.

use super::at_most;
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
    for (index, port) in ports.iter().enumerate() {
        if ports[..index].iter().any(|other| other.name == port.name) {
            refusals.push(Refusal::invalid(
                format!("start.ports[{index}].name"),
                format!("two ports are named \"{}\"", port.name),
                "give each port its own name",
            ));
        } else if ports[..index].iter().any(|other| other.device == port.device) {
            refusals.push(Refusal::invalid(
                format!("start.ports[{index}].device"),
                format!("two ports use the interface \"{}\"", port.device),
                "give each port its own interface",
            ));
        }
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
    (refusals.len() == before).then(|| Start {
        ports,
        cores: asked.cores.clone(),
        connections_ipv4: NonZeroU64::new(asked.connections_ipv4),
        connections_ipv6: NonZeroU64::new(asked.connections_ipv6),
        memory,
    })
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
    // One name is enough.
    let (device, name) = match (asked.device.as_str(), asked.name.as_str()) {
        ("", name) => (name, name),
        (device, "") => (device, device),
        both => both,
    };
    let bad_device = device.is_empty()
        || device.len() > INTERFACE_NAME
        || device.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
    if bad_device {
        refusals.push(Refusal::invalid(
            format!("{at}.device"),
            format!("expected the name of a network interface, found \"{device}\""),
            "`ip link` lists them",
        ));
    }
    let driver = match asked.driver.as_str() {
        "" | "af_packet" => Some(Driver::AfPacket),
        other => {
            refusals.push(Refusal::invalid(
                format!("{at}.driver"),
                format!("expected \"af_packet\", found \"{other}\""),
                "leave it out",
            ));
            None
        }
    };
    let idle = match asked.idle.as_str() {
        "" | "sleep" => Some(Idle::Sleep),
        "adaptive" => Some(Idle::Adaptive),
        "poll" => Some(Idle::Poll),
        other => {
            refusals.push(Refusal::invalid(
                format!("{at}.idle"),
                format!("expected \"sleep\", \"adaptive\" or \"poll\", found \"{other}\""),
                "leave it out to sleep when idle",
            ));
            None
        }
    };
    let receive_ring = match asked.receive_ring.as_str() {
        "" | "frames" => Some(ReceiveRing::Frames),
        "blocks" => Some(ReceiveRing::Blocks),
        other => {
            refusals.push(Refusal::invalid(
                format!("{at}.receive_ring"),
                format!("expected \"frames\" or \"blocks\", found \"{other}\""),
                "leave it out to be handed each frame at once",
            ));
            None
        }
    };
    if bad_device {
        return None;
    }
    let (driver, idle, receive_ring) = (driver?, idle?, receive_ring?);
    Some(Port { name: name.to_owned(), driver, device: device.to_owned(), idle, receive_ring })
}
