//! From what was asked for to types that cannot be wrong.
//!
//! A request is the gRPC message, whatever it was read from. Every rule of ipvsadm and of the kernel is here, once. All
//! that is wrong is reported, not only the first: a function takes the list of refusals and returns `None` if it added
//! one.

mod dpdk;
mod rules;
mod start;

use super::model::*;
use crate::refusal::{Code, Refusal};
use pointsman_dataplane::{
    limits::{MAX_DESTINATIONS, MAX_SERVICES},
    policy::Policies,
    scheduler::{Kind, mh},
};
use pointsman_proto::v1;
pub use rules::{forwarding, interfaces, mark, policies, source_nat};
use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

/// A whole configuration.
pub fn configuration(asked: &v1::Configuration) -> Result<Configuration, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let start = start::start(asked.start.as_ref().unwrap_or(&v1::Start::default()), &mut refusals);
    let timeouts = timeouts(&asked.timeouts.unwrap_or_default(), &mut refusals);
    let services = services(&asked.services, &mut refusals);
    let mut virtual_addresses = BTreeSet::new();
    for (index, text) in asked.virtual_addresses.iter().enumerate() {
        let field = format!("virtual_addresses[{index}]");
        let Some(address) = virtual_address(text, &field, &mut refusals) else {
            continue;
        };
        if !virtual_addresses.insert(address) {
            refusals.push(Refusal::new(
                Code::AddressExists,
                field,
                format!("{address} is listed twice"),
                "remove one of them",
            ));
        }
    }
    let marks = rules::marks(&asked.marks, &mut refusals);
    let source_nat = rules::source_nats(&asked.source_nat, &mut refusals);
    let forward = asked.routing.as_ref().map_or("", |routing| &routing.forward);
    let forwarding = forwarding(forward, "routing.forward", &mut refusals);
    let mut switches = Policies::default();
    policies(&asked.policies, "policies", &mut switches, &mut refusals);
    match (start, timeouts, forwarding, refusals.is_empty()) {
        (Some(start), Some(timeouts), Some(forwarding), true) => Ok(Configuration {
            start,
            timeouts,
            services,
            virtual_addresses,
            marks,
            source_nat,
            forwarding,
            policies: switches,
        }),
        _ => Err(refusals),
    }
}

fn at_most(field: &str, found: usize, most: usize, refusals: &mut Vec<Refusal>) {
    if found > most {
        refusals.push(Refusal::new(
            Code::Capacity,
            field,
            format!("expected at most {most}, found {found}"),
            "remove some",
        ));
    }
}

/// Timeouts of connections; 0 stands for the default.
fn timeouts(asked: &v1::ConnectionTimeouts, refusals: &mut Vec<Refusal>) -> Option<Timeouts> {
    let before = refusals.len();
    let mut pick = |name: &str, asked: u32, default: u32| match asked {
        0 => default,
        1..=MAX_SECONDS => asked,
        _ => {
            refusals.push(Refusal::invalid(
                format!("timeouts.{name}"),
                format!("expected 1 to {MAX_SECONDS} seconds, found {asked}"),
                format!("the default is {default}"),
            ));
            default
        }
    };
    let default = Timeouts::default();
    let timeouts = Timeouts {
        tcp_established: pick("tcp_established", asked.tcp_established, default.tcp_established),
        tcp_syn_sent: pick("tcp_syn_sent", asked.tcp_syn_sent, default.tcp_syn_sent),
        tcp_syn_received: pick("tcp_syn_received", asked.tcp_syn_received, default.tcp_syn_received),
        tcp_fin_wait: pick("tcp_fin_wait", asked.tcp_fin_wait, default.tcp_fin_wait),
        tcp_time_wait: pick("tcp_time_wait", asked.tcp_time_wait, default.tcp_time_wait),
        tcp_close: pick("tcp_close", asked.tcp_close, default.tcp_close),
        tcp_close_wait: pick("tcp_close_wait", asked.tcp_close_wait, default.tcp_close_wait),
        tcp_last_ack: pick("tcp_last_ack", asked.tcp_last_ack, default.tcp_last_ack),
        tcp_listen: pick("tcp_listen", asked.tcp_listen, default.tcp_listen),
        tcp_syn_ack: pick("tcp_syn_ack", asked.tcp_syn_ack, default.tcp_syn_ack),
        udp: pick("udp", asked.udp, default.udp),
    };
    (refusals.len() == before).then_some(timeouts)
}

fn services(asked: &[v1::ServiceConfiguration], refusals: &mut Vec<Refusal>) -> Vec<Arc<Service>> {
    let mut services = Vec::new();
    let mut keys = HashSet::new();
    at_most("services", asked.len(), MAX_SERVICES, refusals);
    at_most("services", asked.iter().map(|s| s.servers.len()).sum(), MAX_DESTINATIONS, refusals);
    for (index, asked) in asked.iter().enumerate() {
        let at = format!("services[{index}]");
        let head = asked.service.clone().unwrap_or_default();
        let Some(mut service) = service(&head, &at, refusals) else {
            continue;
        };
        if !keys.insert(service.key) {
            refusals.push(Refusal::new(
                Code::ServiceExists,
                &at,
                format!("{} is configured twice", service.key),
                "remove one of them",
            ));
        }
        let mut servers = HashSet::new();
        for (index, asked) in asked.servers.iter().enumerate() {
            let at = format!("{at}.servers[{index}]");
            let Some(server) = server(asked, &service, &at, refusals) else {
                continue;
            };
            if !servers.insert(server.socket()) {
                refusals.push(Refusal::new(
                    Code::DestinationExists,
                    &at,
                    format!("{} is a server of {} already", server.socket(), service.key),
                    "remove one of them",
                ));
            }
            service.servers.push(server);
        }
        refusals.extend(too_many_for_the_table(service.scheduler, service.servers.len(), &at));
        services.push(Arc::new(service));
    }
    services
}

/// Why a service at the path `at` cannot have so many servers: each needs a place in the table of `mh`.
pub fn too_many_for_the_table(scheduler: Kind, servers: usize, at: &str) -> Option<Refusal> {
    (scheduler == Kind::Mh && servers > mh::PLACES as usize).then(|| {
        Refusal::invalid(
            format!("{at}.scheduler"),
            format!("mh has a table of {} places, too few for {servers} servers", mh::PLACES),
            "remove servers, or choose another scheduler",
        )
    })
}

/// What a service is known by. `at` is the path of the service.
pub fn service_key(
    asked: Option<&v1::ServiceKey>,
    at: &str,
    refusals: &mut Vec<Refusal>,
) -> Option<ServiceKey> {
    use v1::service_key::Key;
    match asked.and_then(|key| key.key.as_ref()) {
        None => {
            refusals.push(Refusal::invalid(
                at,
                "expected an address and a port, or a mark; found neither",
                "name what the service is known by",
            ));
            None
        }
        Some(Key::Mark(key)) => {
            let Some(mark) = NonZeroU32::new(key.mark) else {
                refusals.push(Refusal::invalid(
                    format!("{at}.mark"),
                    "expected a firewall mark above 0, found 0",
                    "choose the mark that the packets carry",
                ));
                return None;
            };
            Some(ServiceKey::Mark { mark, ipv6: key.ipv6 })
        }
        Some(Key::Address(key)) => {
            let protocol = protocol(key.protocol, at, refusals);
            let address = virtual_address(&key.address, &format!("{at}.address"), refusals);
            let port = port_number(key.port, &format!("{at}.port"), refusals);
            Some(ServiceKey::Address { protocol: protocol?, address: address?, port: port? })
        }
    }
}

/// A service without its servers. `at` is its path.
pub fn service(asked: &v1::Service, at: &str, refusals: &mut Vec<Refusal>) -> Option<Service> {
    let before = refusals.len();
    let key = service_key(asked.key.as_ref(), at, refusals);
    let scheduler = scheduler(&asked.scheduler, at, refusals);
    let flags = scheduler.map(|kind| flags(kind, &asked.scheduler_flags, at, refusals)).unwrap_or_default();
    let persistence = persistence(asked, key.as_ref(), at, refusals);
    let engine = match asked.persistence_engine.as_str() {
        "" => None,
        "sip" => Some(Engine::Sip),
        other => {
            refusals.push(Refusal::new(
                Code::SchedulerNotFound,
                format!("{at}.persistence_engine"),
                format!("expected \"sip\", found \"{other}\""),
                "leave it out to know clients by their address",
            ));
            None
        }
    };
    let timeouts = service_timeouts(asked, at, refusals);
    if let Some(ServiceKey::Address { protocol, port, .. }) = key {
        if port == 0 && asked.persistence_seconds == 0 {
            refusals.push(Refusal::invalid(
                format!("{at}.port"),
                "Zero port specified for non-persistent service",
                "give the port, or a persistence for a service of every port",
            ));
        }
        if asked.one_packet && protocol != Protocol::Udp {
            refusals.push(Refusal::invalid(
                format!("{at}.one_packet"),
                "One-Packet Scheduling is only for UDP virtual services",
                "leave it out, or make the service UDP",
            ));
        }
    }
    if refusals.len() > before {
        return None;
    }
    let (key, scheduler) = (key?, scheduler?);
    Some(Service {
        key,
        scheduler,
        flags,
        persistence,
        engine,
        one_packet: asked.one_packet,
        timeouts,
        servers: Vec::new(),
    })
}

fn service_timeouts(asked: &v1::Service, at: &str, refusals: &mut Vec<Refusal>) -> ServiceTimeouts {
    let mut pick = |name: &str, asked: Option<u32>| {
        let seconds = NonZeroU32::new(asked.unwrap_or(0))?;
        if seconds.get() > MAX_SECONDS {
            refusals.push(Refusal::invalid(
                format!("{at}.{name}"),
                format!("expected 1 to {MAX_SECONDS} seconds, found {seconds}"),
                "leave it out for the time that all services have",
            ));
        }
        Some(seconds)
    };
    ServiceTimeouts {
        tcp: pick("timeout_tcp", asked.timeout_tcp),
        tcp_fin: pick("timeout_tcp_fin", asked.timeout_tcp_fin),
        udp: pick("timeout_udp", asked.timeout_udp),
    }
}

fn protocol(asked: i32, at: &str, refusals: &mut Vec<Refusal>) -> Option<Protocol> {
    match v1::Protocol::try_from(asked) {
        Ok(v1::Protocol::Tcp) => Some(Protocol::Tcp),
        Ok(v1::Protocol::Udp) => Some(Protocol::Udp),
        Ok(v1::Protocol::Sctp) => Some(Protocol::Sctp),
        Ok(v1::Protocol::Unspecified) | Err(_) => {
            refusals.push(Refusal::invalid(
                format!("{at}.protocol"),
                format!("expected tcp (6), udp (17) or sctp (132), found {asked}"),
                "name the protocol of the service",
            ));
            None
        }
    }
}

fn scheduler(name: &str, at: &str, refusals: &mut Vec<Refusal>) -> Option<Kind> {
    let name = if name.is_empty() { "wlc" } else { name };
    let kind = Kind::parse(name);
    if kind.is_none() {
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        refusals.push(Refusal::new(
            Code::SchedulerNotFound,
            format!("{at}.scheduler"),
            format!("no scheduler is named \"{name}\""),
            format!("choose one of {}", known.join(", ")),
        ));
    }
    kind
}

fn flags(kind: Kind, names: &[String], at: &str, refusals: &mut Vec<Refusal>) -> SchedulerFlags {
    let mut flags = SchedulerFlags::default();
    for (index, name) in names.iter().enumerate() {
        if !flags.set(kind, name) {
            refusals.push(Refusal::invalid(
                format!("{at}.scheduler_flags[{index}]"),
                format!("the scheduler {} has no flag \"{name}\"", kind.name()),
                "sh has sh-port and sh-fallback, mh has mh-port and mh-fallback, all have flag-1, flag-2 and flag-3",
            ));
        }
    }
    flags
}

/// A mask without persistence is ignored, as ipvsadm does.
fn persistence(
    asked: &v1::Service,
    key: Option<&ServiceKey>,
    at: &str,
    refusals: &mut Vec<Refusal>,
) -> Option<Persistence> {
    let seconds = NonZeroU32::new(asked.persistence_seconds)?;
    if seconds.get() > MAX_SECONDS {
        refusals.push(Refusal::invalid(
            format!("{at}.persistence_seconds"),
            format!("expected 1 to {MAX_SECONDS} seconds, found {seconds}"),
            "choose a shorter time",
        ));
    }
    let range = if key.is_some_and(ServiceKey::is_ipv6) { 1..=128 } else { 0..=32 };
    let prefix = asked.persistence_prefix.unwrap_or(*range.end());
    if !range.contains(&prefix) {
        refusals.push(Refusal::invalid(
            format!("{at}.persistence_prefix"),
            format!("expected {} to {} bits, found {prefix}", range.start(), range.end()),
            "leave it out to tell clients apart by their whole address",
        ));
    }
    Some(Persistence { seconds, prefix: u8::try_from(prefix).ok()? })
}

/// A server of `service`. `at` is its path.
pub fn server(
    asked: &v1::Server,
    service: &Service,
    at: &str,
    refusals: &mut Vec<Refusal>,
) -> Option<Server> {
    let before = refusals.len();
    let method = method(asked, at, refusals);
    let address = server_address(&asked.address, at, refusals);
    let port = port_number(asked.port, &format!("{at}.port"), refusals);
    let asked_weight = asked.weight.unwrap_or(1);
    let weight = Weight::new(asked_weight);
    if weight.is_none() {
        refusals.push(Refusal::invalid(
            format!("{at}.weight"),
            format!("expected 0 to {}, found {asked_weight}", Weight::MAX),
            "choose a smaller weight",
        ));
    }
    if asked.lower_threshold > asked.upper_threshold {
        refusals.push(Refusal::new(
            Code::ThresholdRange,
            format!("{at}.lower_threshold"),
            format!("{} is above the upper threshold {}", asked.lower_threshold, asked.upper_threshold),
            "the lower threshold ends what the upper one begins: make it the smaller",
        ));
    }
    if let (Some(address), Some(method)) = (address, method)
        && address.is_ipv6() != service.key.is_ipv6()
        && !matches!(method, Method::Tunnel(_))
    {
        refusals.push(Refusal::invalid(
            format!("{at}.address"),
            "Different address family is allowed only for tunneling servers",
            "use the tunnel method, or an address of the service's family",
        ));
    }
    if refusals.len() > before {
        return None;
    }
    let (method, port) = (method?, port?);
    let forced =
        matches!((service.key, method), (ServiceKey::Address { .. }, Method::Direct | Method::Tunnel(_)));
    Some(Server {
        address: address?,
        port: if forced || port == 0 { service.key.port() } else { port },
        method,
        weight: weight?,
        upper_threshold: asked.upper_threshold,
        lower_threshold: asked.lower_threshold,
    })
}

fn method(asked: &v1::Server, at: &str, refusals: &mut Vec<Refusal>) -> Option<Method> {
    let tunnel = asked.tunnel.unwrap_or_default();
    let plain = tunnel == v1::Tunnel::default();
    let method = match v1::ForwardingMethod::try_from(asked.method) {
        Ok(v1::ForwardingMethod::Tunnel) => {
            return tunnel_options(&tunnel, &format!("{at}.tunnel"), refusals).map(Method::Tunnel);
        }
        Ok(v1::ForwardingMethod::Direct) => Method::Direct,
        Ok(v1::ForwardingMethod::Nat) => Method::Nat,
        Ok(v1::ForwardingMethod::Local) => Method::Local,
        Err(_) => {
            refusals.push(Refusal::invalid(
                format!("{at}.method"),
                format!("expected direct (0), nat (1), tunnel (2) or local (3), found {}", asked.method),
                "name the forwarding method",
            ));
            return None;
        }
    };
    if !plain {
        refusals.push(Refusal::invalid(
            format!("{at}.tunnel"),
            "Tunnel options conflict with forward method",
            "leave them out, or use the tunnel method",
        ));
    }
    Some(method)
}

fn tunnel_options(asked: &v1::Tunnel, at: &str, refusals: &mut Vec<Refusal>) -> Option<Tunnel> {
    use v1::tunnel::{Checksum as Sum, Kind as Wrap};
    let mut refuse = |field: &str, reason: String, remedy: &str| {
        refusals.push(Refusal::invalid(format!("{at}.{field}"), reason, remedy));
        None
    };
    let checksum = match Sum::try_from(asked.checksum) {
        Ok(Sum::None) => Checksum::None,
        Ok(Sum::On) => Checksum::On,
        Ok(Sum::Remote) => Checksum::Remote,
        Err(_) => {
            return refuse("checksum", format!("{} is no kind of checksum", asked.checksum), "choose none");
        }
    };
    match Wrap::try_from(asked.kind) {
        Err(_) => refuse("kind", format!("{} is no kind of tunnel", asked.kind), "choose ipip, gue or gre"),
        Ok(Wrap::Gue) => match u16::try_from(asked.port).ok().and_then(NonZeroU16::new) {
            Some(port) => Some(Tunnel::Gue { port, checksum }),
            None => refuse(
                "port",
                format!("expected 1 to 65535, found {}", asked.port),
                "give the UDP port of GUE",
            ),
        },
        Ok(kind) if asked.port != 0 => {
            let name = if kind == Wrap::Ipip { "ipip" } else { "gre" };
            refuse(
                "port",
                format!("a tunnel of kind {name} has no port, found {}", asked.port),
                "leave it out",
            )
        }
        Ok(Wrap::Ipip) if checksum == Checksum::None => Some(Tunnel::Ipip),
        Ok(Wrap::Ipip) => refuse("checksum", "a tunnel of kind ipip has no checksum".into(), "leave it out"),
        Ok(Wrap::Gre) if checksum != Checksum::Remote => {
            Some(Tunnel::Gre { checksum: checksum == Checksum::On })
        }
        Ok(Wrap::Gre) => refuse(
            "checksum",
            "a tunnel of kind gre has no remote checksum offload".into(),
            "choose none or on",
        ),
    }
}

fn port_number(asked: u32, field: &str, refusals: &mut Vec<Refusal>) -> Option<u16> {
    let port = u16::try_from(asked).ok();
    if port.is_none() {
        refusals.push(Refusal::invalid(
            field,
            format!("expected a port from 0 to 65535, found {asked}"),
            "choose a port in that range",
        ));
    }
    port
}

/// An address in text.
pub fn address(text: &str, field: &str, refusals: &mut Vec<Refusal>) -> Option<IpAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        refusals.push(Refusal::invalid(
            field,
            format!("expected an IPv4 or IPv6 address, found \"{text}\""),
            "write it as 10.0.0.100 or fd00::100",
        ));
    }
    address
}

/// An address that the director can answer for.
pub fn virtual_address(text: &str, field: &str, refusals: &mut Vec<Refusal>) -> Option<IpAddr> {
    let found = address(text, field, refusals)?;
    one_host(found, field, "a virtual address", refusals)
}

/// The address of a real server. `at` is the path of the server.
pub fn server_address(text: &str, at: &str, refusals: &mut Vec<Refusal>) -> Option<IpAddr> {
    let field = format!("{at}.address");
    let found = address(text, &field, refusals)?;
    one_host(found, &field, "a real server", refusals)
}

fn one_host(address: IpAddr, field: &str, what: &str, refusals: &mut Vec<Refusal>) -> Option<IpAddr> {
    let kind = match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4 address in IPv6 form",
        _ if address.is_loopback() && what == "a virtual address" => "a loopback address",
        _ => return Some(address),
    };
    refusals.push(Refusal::invalid(
        field,
        format!("expected the address of one host for {what}, found {kind} {address}"),
        "choose a unicast address",
    ));
    None
}
