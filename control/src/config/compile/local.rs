//! Servers that are the director itself.
//!
//! Their packets are given to the kernel as they came, to the virtual address and the service's port, so that it must have
//! that address. With `af_packet` it has a copy of every frame besides: with the address it would reset the connections of
//! all other servers, and so there is no such server there.

use super::super::model::{Configuration, Method, Server, Service, ServiceKey};
use pointsman_dataplane::index::Addresses;
use std::{collections::BTreeSet, net::IpAddr};

/// Whether a server is the director itself, on a machine of these addresses.
pub fn is_local(server: &Server, host_addresses: &Addresses) -> bool {
    server.method == Method::Local || host_addresses.contains(&server.address)
}

/// The virtual addresses that the kernel must have for such servers: none where it sees the ports itself. Of a mark, those
/// that its rules name one by one.
pub fn local_addresses(configuration: &Configuration, host_addresses: &Addresses) -> BTreeSet<IpAddr> {
    if !configuration.start.has_exception_path() {
        return BTreeSet::new();
    }
    let has_local =
        |service: &&Service| service.servers.iter().any(|server| is_local(server, host_addresses));
    let services = configuration.services.iter().map(AsRef::as_ref).filter(has_local);
    let mut addresses = BTreeSet::new();
    for service in services {
        match service.key {
            ServiceKey::Address { address, .. } => {
                addresses.insert(address);
            }
            ServiceKey::Mark { mark, ipv6 } => {
                let rules = configuration.marks.iter().filter(|rule| rule.mark == mark);
                let single = rules.filter_map(|rule| rule.destination?.single());
                addresses.extend(single.filter(|address| address.is_ipv6() == ipv6));
            }
        }
    }
    addresses
}

/// What of a service is accepted but not in force on a machine of these addresses, one sentence each.
pub fn pending(service: &Service, host_addresses: &Addresses, has_exception_path: bool) -> Vec<String> {
    let sentence = |server: &Server| {
        let (at, key) = (server.socket(), service.key);
        if !has_exception_path {
            return Some(format!(
                "The server {at} of {key} gets no packets: it is the director itself, whose kernel sees every frame with af_packet \
                 and would reset the connections of the other servers; use ports with driver = \"dpdk\", or run the server \
                 in a network namespace behind a veth pair, with method = \"nat\"."
            ));
        }
        let (port, own) = (key.port(), server.port);
        (port != 0 && own != 0 && port != own).then(|| {
            format!(
                "The server {at} of {key} gets its packets at port {port}, not {own}: it is the director itself, whose \
                 packets stay as they are; let it listen on {key}."
            )
        })
    };
    service.servers.iter().filter(|server| is_local(server, host_addresses)).filter_map(sentence).collect()
}
