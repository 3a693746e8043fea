//! What is accepted but needs the operator's eye.

use crate::{
    config::{
        compile::{is_local, local_addresses, pending},
        model::{Configuration, Method, Server, Service, ServiceKey, rules::MarkRule},
    },
    kernel::{Leaves, Network},
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
    // Then there may be some of services that are what they were.
    let all = old.marks != new.marks || old.virtual_addresses != new.virtual_addresses;
    let mut warnings = warnings_of(new, network, |service| all || !before.contains(&Arc::as_ptr(service)));
    if !warnings.is_empty() {
        let known = warnings_of(old, network, |service| all || !after.contains(&Arc::as_ptr(service)));
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
             remove it with `ip addr del {}`, or choose another virtual address if the machine needs it.",
            at(*address, network)
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
        if let ServiceKey::Mark { mark, ipv6 } = service.key
            && !configuration.marks.iter().any(|rule| rule.mark == mark && may_be_of(rule, ipv6))
        {
            warnings.push(format!(
                "No rule gives packets the mark {mark}: the service of {} gets none; say which have it with \
                 `pointsman mark add --mark {mark}`, as rules of iptables do not reach the packets of a port.",
                service.key
            ));
        }
        let servers = service.servers.iter().filter(|server| !is_local(server, &host));
        warnings.extend(servers.filter_map(|server| strange(service, server, &up, network)));
    }
    warnings
}

/// Whether packets of a family may have the mark of a rule.
fn may_be_of(rule: &MarkRule, ipv6: bool) -> bool {
    [rule.source, rule.destination].iter().flatten().all(|prefix| prefix.address().is_ipv6() == ipv6)
}

/// An address of this machine as `ip addr del` takes it.
fn at(address: IpAddr, network: &Network) -> String {
    let of_port = network.ports.iter().find_map(|port| {
        let (_, prefix) = port.addresses.iter().find(|(own, _)| *own == address)?;
        Some(format!("{address}/{prefix} dev {}", port.device))
    });
    of_port.unwrap_or_else(|| format!("{address}/PREFIX dev DEVICE"))
}

/// Why a server that is not the director itself may get nothing, or its clients.
fn strange(service: &Service, server: &Server, up: &BTreeSet<IpAddr>, network: &Network) -> Option<String> {
    let (socket, key) = (server.socket(), &service.key);
    if up.contains(&server.address) {
        return Some(format!(
            "The server {socket} of {key} is a virtual address of this director, for which no other machine answers: its \
             packets are dropped; give a server's own address, or 127.0.0.1 for the director itself."
        ));
    }
    match network.leaves(server.address) {
        Leaves::Nowhere => Some(format!(
            "No route leads to the server {socket} of {key}: its packets are dropped until there is one out of a port."
        )),
        Leaves::Elsewhere(device) => Some(format!(
            "The server {socket} of {key} is reached by {device}, which is no port of the director: its packets are \
             dropped; start pointsmand with {device} as a port too (`--port {device}`, or a [[port]] of its file), or give \
             the server a route out of a port."
        )),
        Leaves::Port(_, next) if next != server.address && server.method == Method::Direct => Some(format!(
            "The server {socket} of {key} is behind the router {next}, which does not pass on what is sent to a virtual \
             address: by direct routing it gets nothing; put it on a link of the director, or use a tunnel or NAT."
        )),
        Leaves::Port(..) => None,
    }
}
