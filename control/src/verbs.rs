//! The verbs of ipvsadm as changes of a configuration, refused in the order and for the reasons of the originals.
//!
//! A verb is pure: it gets the configuration in force and a request, and changes the copy that is to be applied.

mod batch;
mod rules;

pub use batch::{MOST_VERBS, batch};
pub use rules::{add_mark, add_source_nat, delete_mark, delete_source_nat, set_policies};

use crate::{
    config::{
        model::{Configuration, MAX_SECONDS, ServiceKey},
        validate,
    },
    refusal::{Code, Refusal},
};
use pointsman_dataplane::limits::{MAX_DESTINATIONS, MAX_SERVICES};
use pointsman_proto::v1;
use std::{net::IpAddr, sync::Arc};

/// `-A`
pub fn add_service(config: &mut Configuration, asked: &v1::Service) -> Result<(), Refusal> {
    let key = key(asked.key.as_ref())?;
    if config.position(&key).is_some() {
        return Err(Refusal::new(
            Code::ServiceExists,
            "service",
            format!("the service {key} exists already"),
            "edit it instead, or delete it first",
        ));
    }
    if config.services.len() >= MAX_SERVICES {
        return Err(capacity("service", "services", MAX_SERVICES));
    }
    let service = first(|refusals| validate::service(asked, "service", refusals))?;
    config.services.push(Arc::new(service));
    Ok(())
}

/// `-E`: everything but what it is known by, its servers, and timeouts of its own that are not said, is replaced.
pub fn edit_service(config: &mut Configuration, asked: &v1::Service) -> Result<(), Refusal> {
    let key = key(asked.key.as_ref())?;
    let place = find(config, &key, Code::NoSuchService)?;
    let mut new = first(|refusals| validate::service(asked, "service", refusals))?;
    // The original's `-E` does not know of a service's own timeouts: what it does not say stays.
    let (was, own) = (config.services[place].timeouts, &mut new.timeouts);
    own.tcp = if asked.timeout_tcp.is_some() { own.tcp } else { was.tcp };
    own.tcp_fin = if asked.timeout_tcp_fin.is_some() { own.tcp_fin } else { was.tcp_fin };
    own.udp = if asked.timeout_udp.is_some() { own.udp } else { was.udp };
    let servers = config.services[place].servers.len();
    if let Some(refusal) = validate::too_many_for_the_table(new.scheduler, servers, "service") {
        return Err(refusal);
    }
    let service = Arc::make_mut(&mut config.services[place]);
    let servers = std::mem::take(&mut service.servers);
    *service = crate::config::model::Service { servers, ..new };
    Ok(())
}

/// `-D`
pub fn delete_service(config: &mut Configuration, asked: Option<&v1::ServiceKey>) -> Result<(), Refusal> {
    let place = find(config, &key(asked)?, Code::NoSuchService)?;
    config.services.remove(place);
    Ok(())
}

/// `-C`
pub fn flush(config: &mut Configuration) {
    config.services.clear();
}

/// `-a`
pub fn add_server(
    config: &mut Configuration,
    service: Option<&v1::ServiceKey>,
    asked: &v1::Server,
) -> Result<(), Refusal> {
    let place = find(config, &key(service)?, Code::ServiceNotDefined)?;
    let full = config.server_count() >= MAX_DESTINATIONS;
    let service = &mut config.services[place];
    let server = first(|refusals| validate::server(asked, service, "server", refusals))?;
    if service.position(server.address, server.port).is_some() {
        return Err(Refusal::new(
            Code::DestinationExists,
            "server",
            format!("{} is a server of {} already", server.socket(), service.key),
            "edit it instead",
        ));
    }
    if full {
        return Err(capacity("server", "servers", MAX_DESTINATIONS));
    }
    if let Some(refusal) =
        validate::too_many_for_the_table(service.scheduler, service.servers.len() + 1, "service")
    {
        return Err(refusal);
    }
    Arc::make_mut(service).servers.push(server);
    Ok(())
}

/// `-e`: it keeps its place among the servers.
pub fn edit_server(
    config: &mut Configuration,
    service: Option<&v1::ServiceKey>,
    asked: &v1::Server,
) -> Result<(), Refusal> {
    let place = find(config, &key(service)?, Code::ServiceNotDefined)?;
    let service = &mut config.services[place];
    let server = first(|refusals| validate::server(asked, service, "server", refusals))?;
    match service.position(server.address, server.port) {
        Some(at) => Arc::make_mut(service).servers[at] = server,
        None => return Err(no_such_destination(&service.key, server.address, server.port)),
    }
    Ok(())
}

/// `-d`
pub fn delete_server(
    config: &mut Configuration,
    service: Option<&v1::ServiceKey>,
    address: &str,
    port: u32,
) -> Result<(), Refusal> {
    let place = find(config, &key(service)?, Code::ServiceNotDefined)?;
    let address = first(|refusals| validate::server_address(address, "server", refusals))?;
    let service = &mut config.services[place];
    let port = match port {
        0 => service.key.port(),
        port => u16::try_from(port).map_err(|_| {
            Refusal::invalid(
                "port",
                format!("expected a port from 0 to 65535, found {port}"),
                "choose one in that range",
            )
        })?,
    };
    match service.position(address, port) {
        Some(at) => Arc::make_mut(service).servers.remove(at),
        None => return Err(no_such_destination(&service.key, address, port)),
    };
    Ok(())
}

/// `--set`: 0 keeps what is in force.
pub fn set_timeouts(config: &mut Configuration, asked: &v1::Timeouts) -> Result<(), Refusal> {
    let fields = [
        ("tcp_seconds", asked.tcp_seconds, &mut config.timeouts.tcp_established),
        ("tcp_fin_seconds", asked.tcp_fin_seconds, &mut config.timeouts.tcp_fin_wait),
        ("udp_seconds", asked.udp_seconds, &mut config.timeouts.udp),
    ];
    for (name, asked, timeout) in fields {
        if asked > MAX_SECONDS {
            return Err(Refusal::invalid(
                format!("timeouts.{name}"),
                format!("expected 0 to {MAX_SECONDS} seconds, found {asked}"),
                "0 keeps what is in force",
            ));
        }
        if asked != 0 {
            *timeout = asked;
        }
    }
    Ok(())
}

/// Brings an address up without a service.
pub fn add_virtual_address(config: &mut Configuration, address: &str) -> Result<(), Refusal> {
    let address = first(|refusals| validate::virtual_address(address, "address", refusals))?;
    if !config.virtual_addresses.insert(address) {
        return Err(Refusal::new(
            Code::AddressExists,
            "address",
            format!("{address} has been brought up already"),
            "nothing is left to do",
        ));
    }
    Ok(())
}

/// Takes an address down that was brought up without a service.
pub fn delete_virtual_address(config: &mut Configuration, address: &str) -> Result<(), Refusal> {
    let address = first(|refusals| validate::virtual_address(address, "address", refusals))?;
    if config.virtual_addresses.remove(&address) {
        return Ok(());
    }
    let (reason, remedy) = if config.addresses_up().contains(&address) {
        let reason = format!("{address} is up because of a service, a mark or source NAT");
        (reason, "delete that to take it down")
    } else {
        (format!("{address} is not up"), "`pointsman show` lists those that are")
    };
    Err(Refusal::new(Code::NoSuchAddress, "address", reason, remedy))
}

/// What a request names, whether or not there is such a service.
pub fn key(asked: Option<&v1::ServiceKey>) -> Result<ServiceKey, Refusal> {
    first(|refusals| validate::service_key(asked, "service", refusals))
}

/// The place of a service that must be there.
pub fn find(config: &Configuration, key: &ServiceKey, code: Code) -> Result<usize, Refusal> {
    config.position(key).ok_or_else(|| {
        Refusal::new(
            code,
            "service",
            format!("there is no service {key}"),
            "`ipvsadm -Ln` lists those there are",
        )
    })
}

fn no_such_destination(key: &ServiceKey, address: IpAddr, port: u16) -> Refusal {
    let socket = std::net::SocketAddr::new(address, port);
    Refusal::new(
        Code::NoSuchDestination,
        "server",
        format!("{socket} is no server of {key}"),
        "`ipvsadm -Ln` lists those there are",
    )
}

fn capacity(field: &str, what: &str, most: usize) -> Refusal {
    Refusal::new(
        Code::Capacity,
        field,
        format!("the director has {most} {what}, its most"),
        "delete some first",
    )
}

/// The value, or the first refusal.
fn first<T>(check: impl FnOnce(&mut Vec<Refusal>) -> Option<T>) -> Result<T, Refusal> {
    let mut refusals = Vec::new();
    let value = check(&mut refusals);
    match (refusals.into_iter().next(), value) {
        (None, Some(value)) => Ok(value),
        (Some(refusal), _) => Err(refusal),
        (None, None) => Err(Refusal::invalid("", "the request is incomplete", "fill in what is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;
    use v1::service_key::{Address, Key};

    fn key_of(address: &str, port: u32) -> v1::ServiceKey {
        let protocol = v1::Protocol::Tcp.into();
        v1::ServiceKey { key: Some(Key::Address(Address { protocol, address: address.into(), port })) }
    }

    fn service(address: &str, port: u32, scheduler: &str) -> v1::Service {
        v1::Service { key: Some(key_of(address, port)), scheduler: scheduler.into(), ..Default::default() }
    }

    fn server(address: &str, port: u32) -> v1::Server {
        v1::Server { address: address.into(), port, ..Default::default() }
    }

    fn code(result: Result<(), Refusal>) -> Code {
        result.unwrap_err().code
    }

    /// The recorded session of the original with wrong commands (`cli-errors`), as far as the kernel answers it.
    #[test]
    fn refusals_come_in_the_order_of_the_original() {
        let mut config = Configuration::default();
        let c = &mut config;
        let (vip, other) = ("10.0.0.100", key_of("10.0.0.109", 80));
        let web = key_of(vip, 80);
        add_service(c, &service(vip, 80, "")).unwrap();
        assert_eq!(code(add_service(c, &service(vip, 80, "rr"))), Code::ServiceExists);
        assert_eq!(code(add_service(c, &service(vip, 80, "nosuch"))), Code::ServiceExists);
        assert_eq!(code(add_service(c, &service(vip, 81, "nosuch"))), Code::SchedulerNotFound);
        assert_eq!(code(add_service(c, &service(vip, 0, "rr"))), Code::Invalid);
        add_server(c, Some(&web), &server("192.168.50.11", 80)).unwrap();
        assert_eq!(code(add_server(c, Some(&web), &server("192.168.50.11", 80))), Code::DestinationExists);
        // Direct routing cannot change the port: it is the service's.
        assert_eq!(code(add_server(c, Some(&web), &server("192.168.50.11", 81))), Code::DestinationExists);
        let wide = v1::Server { weight: Some(70_000), ..server("192.168.50.15", 80) };
        add_server(c, Some(&web), &wide).unwrap();
        let crossed = v1::Server { upper_threshold: 5, lower_threshold: 10, ..server("192.168.50.15", 80) };
        assert_eq!(code(add_server(c, Some(&web), &crossed)), Code::ThresholdRange);
        assert_eq!(code(add_server(c, Some(&other), &server("192.168.50.17", 80))), Code::ServiceNotDefined);
        assert_eq!(code(edit_server(c, Some(&web), &server("192.168.50.99", 80))), Code::NoSuchDestination);
        let heavier = v1::Server { weight: Some(3), ..server("192.168.50.11", 80) };
        edit_server(c, Some(&web), &heavier).unwrap();
        assert_eq!(code(delete_server(c, Some(&web), "192.168.50.99", 80)), Code::NoSuchDestination);
        assert_eq!(code(delete_server(c, Some(&other), "192.168.50.11", 80)), Code::ServiceNotDefined);
        assert_eq!(code(delete_service(c, Some(&other))), Code::NoSuchService);
        assert_eq!(code(edit_service(c, &service("10.0.0.109", 80, "nosuch"))), Code::NoSuchService);
        let weights: Vec<u32> = config.services[0].servers.iter().map(|server| server.weight.get()).collect();
        assert_eq!(weights, [3, 70_000]);
    }

    #[test]
    fn a_nat_server_has_its_own_port_and_is_deleted_by_it() {
        let mut config = Configuration::default();
        let web = key_of("10.0.0.100", 80);
        add_service(&mut config, &service("10.0.0.100", 80, "rr")).unwrap();
        let nat = v1::Server { method: v1::ForwardingMethod::Nat.into(), ..server("192.168.50.13", 8080) };
        add_server(&mut config, Some(&web), &nat).unwrap();
        assert_eq!(config.services[0].servers[0].port, 8080);
        assert_eq!(code(delete_server(&mut config, Some(&web), "192.168.50.13", 0)), Code::NoSuchDestination);
        delete_server(&mut config, Some(&web), "192.168.50.13", 8080).unwrap();
        assert_eq!(config.server_count(), 0);
    }

    #[test]
    fn editing_a_service_replaces_all_but_its_servers() {
        let mut config = Configuration::default();
        let flags =
            v1::Service { scheduler_flags: vec!["sh-port".into()], ..service("10.0.0.102", 80, "sh") };
        add_service(&mut config, &flags).unwrap();
        add_server(&mut config, flags.key.as_ref(), &server("192.168.50.11", 80)).unwrap();
        let edited = v1::Service { persistence_seconds: 300, ..service("10.0.0.102", 80, "wlc") };
        edit_service(&mut config, &edited).unwrap();
        let service = &config.services[0];
        assert_eq!(
            (service.scheduler.name(), service.flag_names().len(), service.servers.len()),
            ("wlc", 0, 1)
        );
        assert_eq!(service.persistence.map(|p| (p.seconds.get(), p.prefix)), Some((300, 32)));
    }

    #[test]
    fn an_edit_that_does_not_speak_of_timeouts_leaves_the_services_own_as_they_are() {
        let mut config = Configuration::default();
        let own =
            v1::Service { timeout_tcp: Some(100), timeout_udp: Some(9), ..service("10.0.0.102", 80, "") };
        add_service(&mut config, &own).unwrap();
        edit_service(&mut config, &service("10.0.0.102", 80, "rr")).unwrap();
        let seconds = |config: &Configuration| {
            let timeouts = config.services[0].timeouts;
            (timeouts.tcp.map(NonZeroU32::get), timeouts.udp.map(NonZeroU32::get))
        };
        assert_eq!(seconds(&config), (Some(100), Some(9)));
        let edited = v1::Service { timeout_tcp: Some(0), ..service("10.0.0.102", 80, "rr") };
        edit_service(&mut config, &edited).unwrap();
        assert_eq!(seconds(&config), (None, Some(9)));
        let long = v1::Service { timeout_tcp: Some(2_678_401), ..edited };
        assert_eq!(code(edit_service(&mut config, &long)), Code::Invalid);
    }

    #[test]
    fn mh_has_a_place_for_each_server_or_is_refused() {
        let mut config = Configuration::default();
        let web = key_of("10.0.0.100", 80);
        add_service(&mut config, &service("10.0.0.100", 80, "mh")).unwrap();
        for n in 0..4093u32 {
            let address = format!("10.1.{}.{}", n / 250, n % 250);
            add_server(&mut config, Some(&web), &server(&address, 80)).unwrap();
        }
        let one_more = server("10.2.0.1", 80);
        assert_eq!(code(add_server(&mut config, Some(&web), &one_more)), Code::Invalid);
        edit_service(&mut config, &service("10.0.0.100", 80, "sh")).unwrap();
        add_server(&mut config, Some(&web), &one_more).unwrap();
        let refusal = edit_service(&mut config, &service("10.0.0.100", 80, "mh")).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "service.scheduler: mh has a table of 4093 places, too few for 4094 servers; remove servers, or choose another scheduler"
        );
        assert_eq!(config.services[0].scheduler.name(), "sh");
    }

    #[test]
    fn a_mask_without_persistence_is_ignored() {
        let mut config = Configuration::default();
        let mark = Key::Mark(v1::service_key::Mark { mark: 5, ipv6: false });
        let asked = v1::Service {
            key: Some(v1::ServiceKey { key: Some(mark) }),
            persistence_prefix: Some(16),
            ..Default::default()
        };
        add_service(&mut config, &asked).unwrap();
        assert_eq!(config.services[0].persistence, None);
    }

    #[test]
    fn a_timeout_of_0_keeps_what_is_in_force() {
        let mut config = Configuration::default();
        let asked = |tcp_seconds, udp_seconds| v1::Timeouts { tcp_seconds, tcp_fin_seconds: 0, udp_seconds };
        set_timeouts(&mut config, &asked(100, 0)).unwrap();
        assert_eq!((config.timeouts.tcp_established, config.timeouts.udp), (100, 300));
        assert_eq!(code(set_timeouts(&mut config, &asked(0, 2_678_401))), Code::Invalid);
    }

    #[test]
    fn an_address_without_a_service_comes_up_once_and_goes_down_once() {
        let mut config = Configuration::default();
        add_virtual_address(&mut config, "fd00::9").unwrap();
        assert_eq!(code(add_virtual_address(&mut config, "fd00::9")), Code::AddressExists);
        delete_virtual_address(&mut config, "fd00::9").unwrap();
        assert_eq!(code(delete_virtual_address(&mut config, "fd00::9")), Code::NoSuchAddress);
        assert_eq!(code(add_virtual_address(&mut config, "224.0.0.1")), Code::Invalid);
        assert_eq!(code(add_virtual_address(&mut config, "eth0")), Code::Invalid);
    }
}
