//! What the original says and prints, against recordings of it.

mod parsing;
mod printing;

use std::net::{IpAddr, Ipv4Addr};

use pointsman_proto::v1::{
    Counters, ForwardingMethod, Protocol, Server, ServerStatus, Service, ServiceKey, ServiceStatus,
    service_key,
};

use super::names::Names;

/// A host whose names are known: 10.0.0.100 is `www`, 80 is `http`.
struct Known;

impl Names for Known {
    fn host_to_address(&self, host: &str) -> Option<Ipv4Addr> {
        (host == "www").then_some(Ipv4Addr::new(10, 0, 0, 100))
    }
    fn service_to_port(&self, service: &str, _: Protocol) -> Option<u16> {
        (service == "http").then_some(80)
    }
    fn address_to_host(&self, address: IpAddr) -> Option<String> {
        (address == IpAddr::from([10, 0, 0, 100])).then(|| "www".to_owned())
    }
    fn port_to_service(&self, port: u16, _: Protocol) -> Option<String> {
        (port == 80).then(|| "http".to_owned())
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn address_key(protocol: Protocol, address: &str, port: u32) -> ServiceKey {
    let address = service_key::Address { protocol: protocol.into(), address: address.to_owned(), port };
    ServiceKey { key: Some(service_key::Key::Address(address)) }
}

fn mark_key(mark: u32, ipv6: bool) -> ServiceKey {
    ServiceKey { key: Some(service_key::Key::Mark(service_key::Mark { mark, ipv6 })) }
}

fn tcp(address: &str, port: u32) -> ServiceKey {
    address_key(Protocol::Tcp, address, port)
}

fn service(key: ServiceKey, scheduler: &str) -> Service {
    Service { key: Some(key), scheduler: scheduler.to_owned(), ..Service::default() }
}

fn server(address: &str, port: u32, method: ForwardingMethod, weight: u32) -> Server {
    Server {
        address: address.to_owned(),
        port,
        method: method.into(),
        weight: Some(weight),
        ..Server::default()
    }
}

fn status(service: Service, servers: Vec<Server>) -> ServiceStatus {
    let idle = |server| ServerStatus { server: Some(server), ..ServerStatus::default() };
    ServiceStatus {
        service: Some(service),
        servers: servers.into_iter().map(idle).collect(),
        counters: Some(Counters::default()),
        ..ServiceStatus::default()
    }
}
