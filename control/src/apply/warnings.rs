//! What is accepted but needs the operator's eye.

use crate::{
    config::{
        compile::{is_local, local_addresses, pending},
        model::{Configuration, Service},
    },
    kernel::Network,
};
use pointsman_dataplane::index::Addresses;
use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
};

/// The warnings that `new` brings.
pub(super) fn new_warnings(old: &Configuration, new: &Configuration, network: &Network) -> Vec<String> {
    let services =
        |of: &Configuration| -> HashSet<*const Service> { of.services.iter().map(Arc::as_ptr).collect() };
    let (before, after) = (services(old), services(new));
    let mut warnings = warnings_of(new, network, |service| !before.contains(&Arc::as_ptr(service)));
    if !warnings.is_empty() {
        let known = warnings_of(old, network, |service| !after.contains(&Arc::as_ptr(service)));
        let known: HashSet<String> = known.into_iter().collect();
        warnings.retain(|warning| !known.contains(warning));
    }
    warnings
}

/// What is accepted but needs the operator's eye.
pub(super) fn warnings(configuration: &Configuration, network: &Network) -> Vec<String> {
    warnings_of(configuration, network, |_| true)
}

/// The same, of some of the services.
fn warnings_of(
    configuration: &Configuration,
    network: &Network,
    wanted: impl Fn(&Arc<Service>) -> bool,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let up = configuration.addresses_up();
    let host: Addresses = network.host_addresses.iter().copied().collect();
    let both: Vec<&IpAddr> = up.iter().filter(|address| host.contains(address)).collect();
    let has_local = |service: &&Service| service.servers.iter().any(|server| is_local(server, &host));
    let local = match both.is_empty() {
        true => BTreeSet::new(),
        false => {
            let services = configuration.services.iter().map(AsRef::as_ref);
            local_addresses(services.filter(has_local), &configuration.marks)
        }
    };
    for address in both.into_iter().filter(|address| !local.contains(address)) {
        warnings.push(format!(
            "{address} is also an address of this machine: the kernel answers for it too and resets connections; \
             remove it with `ip addr del {address}/PREFIX dev DEVICE`."
        ));
    }
    let forwards = [
        (network.forwards_ipv4 && up.iter().any(IpAddr::is_ipv4), "IPv4", "net.ipv4.ip_forward"),
        (network.forwards_ipv6 && up.iter().any(IpAddr::is_ipv6), "IPv6", "net.ipv6.conf.all.forwarding"),
    ];
    for (_, family, switch) in forwards.into_iter().filter(|(forwards, ..)| *forwards) {
        warnings.push(format!(
            "The kernel forwards {family} packets by itself, so that a server may get them twice; \
             turn it off with `sysctl -w {switch}=0`."
        ));
    }
    for service in configuration.services.iter().filter(|service| wanted(service)) {
        warnings.extend(pending(service, &configuration.marks, &host, None));
        for server in &service.servers {
            if !is_local(server, &host) && network.route(server.address).is_none() {
                warnings.push(format!(
                    "No route leads to the server {} of {}: its packets are dropped until there is one out of a port.",
                    server.socket(),
                    service.key
                ));
            }
        }
    }
    warnings
}
