//! Rules of marks and source NAT, and the switches.

use super::{
    reader::{Report, Section},
    v1,
};
use crate::config::model::policies::{FORWARDING, SWITCHES};
use std::collections::BTreeMap;

pub(super) fn routing(mut section: Section<'_, '_>, report: &mut Report) -> v1::Routing {
    let words = FORWARDING.map(|(name, _)| (name, name));
    let forward = section.word("forward", &words, report).unwrap_or_default().to_owned();
    section.finish(report);
    v1::Routing { forward }
}

pub(super) fn policies(mut section: Section<'_, '_>, report: &mut Report) -> BTreeMap<String, u32> {
    let mut policies = BTreeMap::new();
    for switch in &SWITCHES {
        let value = match switch.is_boolean() {
            true => section.boolean(switch.name, report).map(u32::from),
            false => {
                let (lowest, highest) = (u64::from(*switch.range.start()), u64::from(*switch.range.end()));
                section.number32(switch.name, lowest..highest + 1, report)
            }
        };
        if let Some(value) = value {
            policies.insert(switch.name.to_owned(), value);
        }
    }
    section.finish(report);
    policies
}

pub(super) fn mark(mut section: Section<'_, '_>, report: &mut Report) -> v1::MarkRule {
    let protocols = [("tcp", v1::Protocol::Tcp), ("udp", v1::Protocol::Udp), ("sctp", v1::Protocol::Sctp)];
    if !section.has("mark") {
        section.missing("mark", "a firewall mark above 0", report);
    }
    let (port, last_port) = section.ports("port", report).unzip();
    let rule = v1::MarkRule {
        protocol: section.word("protocol", &protocols, report).unwrap_or(v1::Protocol::Unspecified).into(),
        source: text(&mut section, "source", NETWORK, report),
        destination: text(&mut section, "destination", NETWORK, report),
        port,
        last_port: last_port.flatten(),
        interface: text(&mut section, "interface", INTERFACE, report),
        // One that could not be read has been reported; any number stands for it.
        mark: section.number32("mark", 1..1 << 32, report).unwrap_or(1),
    };
    section.finish(report);
    rule
}

pub(super) fn source_nat(mut section: Section<'_, '_>, report: &mut Report) -> v1::SourceNat {
    for (key, what) in
        [("source", "an address or a network in quotes"), ("to", "an IPv4 or IPv6 address in quotes")]
    {
        if !section.has(key) {
            section.missing(key, what, report);
        }
    }
    let rule = v1::SourceNat {
        source: text(&mut section, "source", NETWORK, report),
        interface: text(&mut section, "interface", INTERFACE, report),
        to: text(&mut section, "to", "write it as \"20.20.20.11\"", report),
    };
    section.finish(report);
    rule
}

const NETWORK: &str = "write it as \"10.0.0.100\" or \"10.9.0.0/16\"";
const INTERFACE: &str = "name a port of the director";

fn text(section: &mut Section<'_, '_>, key: &'static str, remedy: &str, report: &mut Report) -> String {
    section.string(key, remedy, report).unwrap_or_default().to_owned()
}
