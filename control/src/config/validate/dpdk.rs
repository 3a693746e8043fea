//! What is asked for of DPDK and of its ports.

use super::{address, start::is_interface};
use crate::{
    config::model::{
        Driver, Port,
        dpdk::{Dpdk, DpdkPort, Memory, Subnet, is_pci},
    },
    kernel::contains,
    refusal::Refusal,
};
use pointsman_proto::v1;
use std::{net::IpAddr, num::NonZeroU32};

/// Frames that a ring may have.
const RINGS: std::ops::RangeInclusive<u32> = 64..=16_384;
/// The least MTU of IPv6, and the largest that NICs have in common.
const MTUS: std::ops::RangeInclusive<u32> = 1_280..=9_216;
/// The most packet buffers: 16 GiB of the usual ones.
const MOST_BUFFERS: u32 = 1 << 23;

/// How DPDK is started.
pub(super) fn start(asked: &v1::Dpdk, ports: &[Port], refusals: &mut Vec<Refusal>) -> Dpdk {
    let memory = match asked.memory.as_str() {
        "" | "huge" => Memory::Huge,
        "ordinary" => Memory::Ordinary,
        other => {
            refusals.push(Refusal::invalid(
                "start.dpdk.memory",
                format!("expected \"huge\" or \"ordinary\", found \"{other}\""),
                "leave it out for huge pages",
            ));
            Memory::Huge
        }
    };
    if memory == Memory::Ordinary
        && let Some(port) = ports.iter().find(|port| is_pci(&port.device))
    {
        refusals.push(Refusal::invalid(
            "start.dpdk.memory",
            format!("the device {} of the port \"{}\" reaches huge pages only", port.device, port.name),
            "leave it out; ordinary pages are for virtual devices",
        ));
    }
    for (index, argument) in asked.arguments.iter().enumerate() {
        if argument.is_empty() || argument.contains('\0') {
            refusals.push(Refusal::invalid(
                format!("start.dpdk.arguments[{index}]"),
                "expected an argument of DPDK's environment (EAL), found an empty or broken one",
                "remove it",
            ));
        }
    }
    if asked.buffers > MOST_BUFFERS {
        refusals.push(Refusal::invalid(
            "start.dpdk.buffers",
            format!("expected at most {MOST_BUFFERS} packet buffers, found {}", asked.buffers),
            "leave it out for as many as are needed",
        ));
    }
    Dpdk { memory, arguments: asked.arguments.clone(), buffers: NonZeroU32::new(asked.buffers) }
}

/// A port on a device of DPDK's: its device, name and driver.
pub(super) fn port(
    asked: &v1::Port,
    at: &str,
    refusals: &mut Vec<Refusal>,
) -> Option<(String, String, Driver)> {
    let before = refusals.len();
    let device = device(&asked.device, at, refusals);
    if !is_interface(&asked.name) || asked.name.contains(':') || matches!(asked.name.as_str(), "." | "..") {
        refusals.push(Refusal::invalid(
            format!("{at}.name"),
            format!(
                "expected a name that an interface can have (up to 15 characters without blanks, / and :), found \"{}\"",
                asked.name
            ),
            "name the port, for example \"d0\": the kernel reaches it by an interface of that name",
        ));
    }
    if !asked.receive_ring.is_empty() {
        refusals.push(Refusal::invalid(
            format!("{at}.receive_ring"),
            "this is for ports with driver = \"af_packet\"",
            "leave it out; `rx_ring` and `tx_ring` say how many frames the rings of a DPDK port hold",
        ));
    }
    let addresses = subnets(&asked.addresses, at, refusals);
    let gateways = gateways(&asked.gateways, &addresses, at, refusals);
    let default = DpdkPort::default();
    let driver = DpdkPort {
        mtu: within(asked.mtu, default.mtu, MTUS, &format!("{at}.mtu"), "bytes", refusals),
        rx_ring: within(asked.rx_ring, default.rx_ring, RINGS, &format!("{at}.rx_ring"), "frames", refusals),
        tx_ring: within(asked.tx_ring, default.tx_ring, RINGS, &format!("{at}.tx_ring"), "frames", refusals),
        promiscuous: asked.promiscuous,
        addresses,
        gateways,
    };
    (refusals.len() == before).then_some((device?, asked.name.clone(), Driver::Dpdk(driver)))
}

/// What DPDK calls a device: without the arguments of a virtual one.
pub(super) fn name_of(device: &str) -> &str {
    device.split_once(',').map_or(device, |(name, _)| name)
}

/// A PCI address in full, or a virtual device with its arguments.
fn device(text: &str, at: &str, refusals: &mut Vec<Refusal>) -> Option<String> {
    let virtual_device = text.strip_prefix("vdev:").unwrap_or(text);
    let name = name_of(virtual_device);
    if name.starts_with("net_")
        && name.len() > 4
        && virtual_device.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Some(virtual_device.to_owned());
    }
    let pci = if text.len() == 7 { format!("0000:{text}") } else { text.to_owned() };
    if is_pci(&pci) {
        return Some(pci.to_ascii_lowercase());
    }
    refusals.push(Refusal::invalid(
        format!("{at}.device"),
        format!("expected a device of DPDK, found \"{text}\""),
        "write a PCI address as `lspci -D` does (0000:00:05.0), or a virtual device with its arguments (net_af_xdp0,iface=eth1)",
    ));
    None
}

fn subnets(asked: &[String], at: &str, refusals: &mut Vec<Refusal>) -> Vec<Subnet> {
    let mut found: Vec<Subnet> = Vec::new();
    for (index, text) in asked.iter().enumerate() {
        let field = format!("{at}.addresses[{index}]");
        let Some(subnet) = subnet(text) else {
            refusals.push(Refusal::invalid(
                field,
                format!("expected the address of one host with the length of its subnet, found \"{text}\""),
                "write it as 10.0.0.10/24 or fd00::10/64",
            ));
            continue;
        };
        if found.iter().any(|other| other.address == subnet.address) {
            let reason = format!("{} is listed twice", subnet.address);
            refusals.push(Refusal::invalid(field, reason, "remove one of them"));
        }
        found.push(subnet);
    }
    found
}

fn subnet(text: &str) -> Option<Subnet> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let one_host = match address {
        IpAddr::V4(v4) => {
            !v4.is_broadcast() && !v4.is_unspecified() && !v4.is_multicast() && !v4.is_loopback()
        }
        IpAddr::V6(v6) => {
            !v6.is_unspecified() && !v6.is_multicast() && !v6.is_loopback() && v6.to_ipv4_mapped().is_none()
        }
    };
    (one_host && (1..=bits).contains(&prefix)).then_some(Subnet { address, prefix })
}

fn gateways(asked: &[String], own: &[Subnet], at: &str, refusals: &mut Vec<Refusal>) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for (index, text) in asked.iter().enumerate() {
        let field = format!("{at}.gateways[{index}]");
        let Some(gateway) = address(text, &field, refusals) else { continue };
        if found.iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
            let family = if gateway.is_ipv4() { "IPv4" } else { "IPv6" };
            let reason = format!("{gateway} is the second {family} gateway of the port");
            refusals.push(Refusal::invalid(&field, reason, "keep one; add other routes with `ip route`"));
        }
        let near =
            |subnet: &Subnet| contains(subnet.address, subnet.prefix, gateway) && subnet.address != gateway;
        let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !link_local && !own.iter().any(near) {
            refusals.push(Refusal::invalid(
                &field,
                format!("{gateway} is in no subnet of the port's addresses"),
                "give the port an address in its subnet, or choose a gateway that is in one",
            ));
        }
        found.push(gateway);
    }
    found
}

/// A number in `range`; 0 stands for the default.
fn within(
    asked: u32,
    default: u16,
    range: std::ops::RangeInclusive<u32>,
    field: &str,
    unit: &str,
    refusals: &mut Vec<Refusal>,
) -> u16 {
    if asked == 0 {
        return default;
    }
    if let Some(fits) = u16::try_from(asked).ok().filter(|_| range.contains(&asked)) {
        return fits;
    }
    refusals.push(Refusal::invalid(
        field,
        format!("expected {} to {} {unit}, found {asked}", range.start(), range.end()),
        format!("the default is {default}"),
    ));
    default
}
