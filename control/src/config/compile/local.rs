//! Servers that are the director itself.
//!
//! Their packets are given to the kernel as they came, to the virtual address and the service's port, so that it must have
//! that address.

use super::super::model::{Method, Server, Service, ServiceKey, rules::MarkRule};
use pointsman_dataplane::index::Addresses;
use std::{collections::BTreeSet, net::IpAddr};

/// Whether a server is the director itself, on a machine of these addresses.
pub fn is_local(server: &Server, host_addresses: &Addresses) -> bool {
    server.method == Method::Local || host_addresses.contains(&server.address)
}

/// The virtual addresses that the kernel must have for services with such servers. Of a mark, those that its rules name one
/// by one.
pub fn local_addresses<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    marks: &[MarkRule],
) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    for service in services {
        match service.key {
            ServiceKey::Address { address, .. } => {
                addresses.insert(address);
            }
            ServiceKey::Mark { mark, ipv6 } => {
                let rules = marks.iter().filter(|rule| rule.mark == mark);
                let single = rules.filter_map(|rule| rule.destination?.single());
                addresses.extend(single.filter(|address| address.is_ipv6() == ipv6));
            }
        }
    }
    addresses
}

/// What of a service is accepted but not in force on a machine of these addresses, one sentence each. `refused`: why its
/// kernel takes no packets from the workers.
pub fn pending(
    service: &Service,
    marks: &[MarkRule],
    host_addresses: &Addresses,
    refused: Option<&str>,
) -> Vec<String> {
    let servers = service.servers.iter().filter(|server| is_local(server, host_addresses));
    servers.flat_map(|server| sentences(service.key, server, marks, refused)).collect()
}

/// Those of one server that is the director itself.
fn sentences(key: ServiceKey, server: &Server, marks: &[MarkRule], refused: Option<&str>) -> Vec<String> {
    let at = server.socket();
    if let Some(why) = refused {
        return vec![format!(
            "The server {at} of {key} gets no packets: it is the director itself, and {why}."
        )];
    }
    if let ServiceKey::Mark { mark, ipv6 } = key {
        let wide = |rule: &&MarkRule| match rule.destination {
            Some(destination) => destination.address().is_ipv6() == ipv6 && destination.single().is_none(),
            None => true,
        };
        let sentence = |rule: &MarkRule| {
            format!(
                "The server {at} of {key} gets no packets by the rule \"{rule}\": it is the director itself, whose \
                 kernel has single addresses only; give each address a rule of its own."
            )
        };
        return marks.iter().filter(|rule| rule.mark == mark).filter(wide).map(sentence).collect();
    }
    let (port, own) = (key.port(), server.port);
    let moved = (port != 0 && own != 0 && port != own).then(|| {
        format!(
            "The server {at} of {key} gets its packets at port {port}, not {own}: it is the director itself, whose \
             packets stay as they are; let it listen on {key}."
        )
    });
    moved.into_iter().collect()
}
