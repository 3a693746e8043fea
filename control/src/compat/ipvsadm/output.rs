//! The lists of ipvsadm: what the director answered in, text out. Pure.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::net::IpAddr;

use pointsman_proto::v1::{
    Connection, Counters, ForwardingMethod, Protocol, Rates, Server, ServerStatus, Service, ServiceKey,
    ServiceStatus, Timeouts, Tunnel, service_key, tunnel,
};

use super::address::mask_text;
use super::command::{Columns, Format};
use super::flags;
use super::names::Names;

/// The version of the interface that the originals speak; scripts look for this line.
const BANNER: &str = "IP Virtual Server version 1.2.1 (size=4096)\n";
/// Letters of an IPv4 service's name and of a real server's that are printed.
const SERVICE_NAME_MAX: usize = 33;
const SERVER_NAME_MAX: usize = 28;

/// `-L`: the services and their servers. `banner` is left out when one service was asked for.
pub fn services_text(services: &[ServiceStatus], banner: bool, format: Format, names: &dyn Names) -> String {
    let mut text = String::new();
    if banner {
        text.push_str(BANNER);
    }
    text.push_str(&title(format.columns));
    for service in sorted(services, format.unsorted) {
        service_line(&mut text, service, format, names);
        for server in sorted_servers(&service.servers, format.unsorted) {
            server_line(&mut text, service, server, format, names);
        }
    }
    text
}

/// The two lines above the entries of `-Lc`.
pub fn connections_title(format: Format) -> &'static str {
    if format.columns == Columns::PersistentConn {
        "IPVS connection entries\n\
         pro expire state       source             virtual            destination        pe name          pe_data\n"
    } else {
        "IPVS connection entries\npro expire state       source             virtual            destination\n"
    }
}

/// One entry of `-Lc`, with its newline.
pub fn connection_line(connection: &Connection, format: Format, names: &dyn Names) -> String {
    let protocol = connection.protocol();
    let end = |address: &str, port| endpoint(address, port, protocol, format.numeric, names);
    let seconds = connection.expires_milliseconds / 1000;
    let expire = format!("{:02}:{:02}", seconds / 60, seconds % 60);
    let mut server = end(&connection.server_address, connection.server_port);
    if format.columns == Columns::PersistentConn && !connection.persistence_engine.is_empty() {
        // The original's columns are not those of its title.
        server =
            format!("{server:<16} {:<18} {}", connection.persistence_engine, connection.persistence_data);
    }
    format!(
        "{:<3} {expire:<6} {:<11} {:<18} {:<18} {server}\n",
        if protocol == Protocol::Unspecified { "IP" } else { protocol_name(protocol) },
        connection.state,
        end(&connection.client_address, connection.client_port),
        end(&connection.virtual_address, connection.virtual_port),
    )
}

/// `-L --timeout`.
pub fn timeouts_text(timeouts: &Timeouts) -> String {
    let Timeouts { tcp_seconds, tcp_fin_seconds, udp_seconds } = timeouts;
    format!("Timeout (tcp tcpfin udp): {tcp_seconds} {tcp_fin_seconds} {udp_seconds}\n")
}

/// `-S`: the commands that make these services. Like the original it leaves thresholds out unless
/// `with_thresholds` is set, as `pointsman save` does; `-R` takes them.
pub fn rules_text(
    services: &[ServiceStatus],
    format: Format,
    with_thresholds: bool,
    names: &dyn Names,
) -> String {
    let mut text = String::new();
    for status in sorted(services, format.unsorted) {
        let service = status.service.clone().unwrap_or_default();
        let selector = selector(&service, format, names);
        let _ = write!(text, "-A {selector} -s {}", service.scheduler);
        if service.persistence_seconds > 0 {
            let _ = write!(text, " -p {}", service.persistence_seconds);
            if let Some(mask) = mask(&service) {
                let _ = write!(text, " -M {mask}");
            }
        }
        if !service.persistence_engine.is_empty() {
            let _ = write!(text, " --pe {}", service.persistence_engine);
        }
        if service.one_packet {
            text.push_str(" -o");
        }
        let flags = flags::text(&service.scheduler, &service.scheduler_flags);
        if !flags.is_empty() {
            let _ = write!(text, " -b {flags}");
        }
        text.push('\n');
        for server in sorted_servers(&status.servers, format.unsorted) {
            let server = server.server.clone().unwrap_or_default();
            let real = endpoint(&server.address, server.port, protocol_of(&service), format.numeric, names);
            let _ = write!(text, "-a {selector} -r {real} {} -w {}", method_option(&server), weight(&server));
            if with_thresholds && server.upper_threshold > 0 {
                let _ = write!(text, " -x {}", server.upper_threshold);
            }
            if with_thresholds && server.lower_threshold > 0 {
                let _ = write!(text, " -y {}", server.lower_threshold);
            }
            if server.method() == ForwardingMethod::Tunnel {
                text.push_str(&tunnel_options(&server.tunnel.unwrap_or_default()));
            }
            text.push('\n');
        }
    }
    text
}

fn title(columns: Columns) -> String {
    let numbers = |names: [&str; 5]| {
        let mut text = format!("{:<33}", "Prot LocalAddress:Port");
        for name in names {
            let _ = write!(text, " {name:>8}");
        }
        text + "\n  -> RemoteAddress:Port\n"
    };
    match columns {
        Columns::Stats => numbers(["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]),
        Columns::Rate => numbers(["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"]),
        Columns::Thresholds => format!(
            "{:<33} {:<10} {:<10} {:<10} {:<10}\n  -> RemoteAddress:Port\n",
            "Prot LocalAddress:Port", "Uthreshold", "Lthreshold", "ActiveConn", "InActConn"
        ),
        Columns::PersistentConn => format!(
            "{:<33} {:<9} {:<11} {:<10} {:<10}\n  -> RemoteAddress:Port\n",
            "Prot LocalAddress:Port", "Weight", "PersistConn", "ActiveConn", "InActConn"
        ),
        Columns::TunInfo => "Prot LocalAddress:Port Scheduler Flags\n  \
             -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n"
            .to_owned(),
        Columns::Default => "Prot LocalAddress:Port Scheduler Flags\n  \
             -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
            .to_owned(),
    }
}

fn service_line(text: &mut String, status: &ServiceStatus, format: Format, names: &dyn Names) {
    let service = status.service.clone().unwrap_or_default();
    let name = service_name(&service, format, names);
    let _ = match format.columns {
        Columns::Stats => write!(text, "{name:<33}{}", counters(status.counters.unwrap_or_default(), format)),
        Columns::Rate => write!(text, "{name:<33}{}", rates(status.rates.unwrap_or_default(), format)),
        _ => write!(text, "{name} {}{}", service.scheduler, service_flags(&service)),
    };
    text.push('\n');
}

/// ` (flags) persistent N mask M pe NAME ops`, each only where it applies.
fn service_flags(service: &Service) -> String {
    let mut text = String::new();
    let flags = flags::text(&service.scheduler, &service.scheduler_flags);
    if !flags.is_empty() {
        let _ = write!(text, " ({flags})");
    }
    if service.persistence_seconds > 0 {
        let _ = write!(text, " persistent {}", service.persistence_seconds);
        if let Some(mask) = mask(service) {
            let _ = write!(text, " mask {mask}");
        }
        if !service.persistence_engine.is_empty() {
            let _ = write!(text, " pe {}", service.persistence_engine);
        }
    }
    if service.one_packet {
        text.push_str(" ops");
    }
    text
}

fn server_line(
    text: &mut String,
    of: &ServiceStatus,
    status: &ServerStatus,
    format: Format,
    names: &dyn Names,
) {
    let server = status.server.clone().unwrap_or_default();
    let protocol = of.service.as_ref().map_or(Protocol::Unspecified, protocol_of);
    let mut name = endpoint(&server.address, server.port, protocol, format.numeric, names);
    if !of.service.as_ref().is_some_and(is_ipv6) {
        name = name.chars().take(SERVER_NAME_MAX).collect();
    }
    let (active, inactive) = (status.active_connections, status.inactive_connections);
    let (forward, weight) = (forward_word(server.method()), weight(&server));
    let _ = write!(text, "  -> {name:<28}");
    let _ = match format.columns {
        Columns::Stats => write!(text, "{}", counters(status.counters.unwrap_or_default(), format)),
        Columns::Rate => write!(text, "{}", rates(status.rates.unwrap_or_default(), format)),
        Columns::Thresholds => {
            let (upper, lower) = (server.upper_threshold, server.lower_threshold);
            write!(text, " {upper:<10} {lower:<10} {active:<10} {inactive:<10}")
        }
        Columns::PersistentConn => {
            let persistent = status.persistent_connections;
            write!(text, " {weight:<9} {persistent:<11} {active:<10} {inactive:<10}")
        }
        Columns::TunInfo => {
            let info = tunnel_info(&server);
            write!(text, " {forward:<7} {info:<13} {weight:<6} {active:<10} {inactive:<10}")
        }
        Columns::Default => write!(text, " {forward:<7} {weight:<6} {active:<10} {inactive:<10}"),
    };
    text.push('\n');
}

fn counters(counters: Counters, format: Format) -> String {
    let Counters { connections, packets_in, packets_out, bytes_in, bytes_out } = counters;
    [connections, packets_in, packets_out, bytes_in, bytes_out]
        .map(|n| large_number(n, format.exact))
        .concat()
}

fn rates(rates: Rates, format: Format) -> String {
    let Rates { connections, packets_in, packets_out, bytes_in, bytes_out } = rates;
    let bytes = [bytes_in, bytes_out].map(|n| large_number(n, format.exact)).concat();
    format!(" {connections:>8} {packets_in:>8} {packets_out:>8}{bytes}")
}

/// A number in nine columns, the first of them blank, with a decimal unit once it has more than eight digits.
fn large_number(number: u64, exact: bool) -> String {
    if exact {
        return format!(" {number:>8}");
    }
    match number {
        0..100_000_000 => format!("{number:>9}"),
        100_000_000..1_000_000_000 => format!("{:>8}K", number / 1_000),
        1_000_000_000..100_000_000_000 => format!("{:>8}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{:>8}G", number / 1_000_000_000),
        _ => format!("{:>8}T", number / 1_000_000_000_000),
    }
}

fn service_name(service: &Service, format: Format, names: &dyn Names) -> String {
    match service.key.as_ref().and_then(|key| key.key.as_ref()) {
        Some(service_key::Key::Address(address)) => {
            let protocol = address.protocol();
            let end = endpoint(&address.address, address.port, protocol, format.numeric, names);
            let name = format!("{:<4} {end}", protocol_name(protocol));
            if is_ipv6(service) { name } else { name.chars().take(SERVICE_NAME_MAX).collect() }
        }
        Some(service_key::Key::Mark(mark)) => {
            format!("FWM  {}{}", mark.mark, if mark.ipv6 { " IPv6" } else { "" })
        }
        None => "?".to_owned(),
    }
}

/// The options that select a service: `-t 10.0.0.1:80`.
fn selector(service: &Service, format: Format, names: &dyn Names) -> String {
    match service.key.as_ref().and_then(|key| key.key.as_ref()) {
        Some(service_key::Key::Address(address)) => {
            let protocol = address.protocol();
            let option = match protocol {
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
                Protocol::Tcp | Protocol::Unspecified => "-t",
            };
            format!("{option} {}", endpoint(&address.address, address.port, protocol, format.numeric, names))
        }
        Some(service_key::Key::Mark(mark)) => {
            format!("-f {}{}", mark.mark, if mark.ipv6 { " -6" } else { "" })
        }
        None => "-f 0".to_owned(),
    }
}

/// `host:port`, or `[host]:port` for IPv6; names are used where there are any and `numeric` is not set.
fn endpoint(address: &str, port: u32, protocol: Protocol, numeric: bool, names: &dyn Names) -> String {
    let parsed = address.parse::<IpAddr>().ok();
    let named = if numeric { None } else { parsed.and_then(|address| names.address_to_host(address)) };
    let service = match u16::try_from(port) {
        Ok(port) if !numeric => names.port_to_service(port, protocol),
        _ => None,
    };
    let host = named.as_deref().unwrap_or(address);
    let port = service.unwrap_or_else(|| port.to_string());
    if parsed.is_some_and(|address| address.is_ipv6()) {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp | Protocol::Unspecified => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

fn protocol_of(service: &Service) -> Protocol {
    match service.key.as_ref().and_then(|key| key.key.as_ref()) {
        Some(service_key::Key::Address(address)) => address.protocol(),
        _ => Protocol::Unspecified,
    }
}

fn is_ipv6(service: &Service) -> bool {
    match service.key.as_ref().and_then(|key| key.key.as_ref()) {
        Some(service_key::Key::Address(address)) => address.address.contains(':'),
        Some(service_key::Key::Mark(mark)) => mark.ipv6,
        None => false,
    }
}

/// The persistence mask, unless it is the whole address.
fn mask(service: &Service) -> Option<String> {
    let prefix = service.persistence_prefix?;
    match is_ipv6(service) {
        true if prefix >= 128 => None,
        true => Some(prefix.to_string()),
        false if prefix >= 32 => None,
        false => Some(mask_text(prefix)),
    }
}

fn weight(server: &Server) -> u32 {
    server.weight.unwrap_or(1)
}

fn forward_word(method: ForwardingMethod) -> &'static str {
    match method {
        ForwardingMethod::Direct => "Route",
        ForwardingMethod::Nat => "Masq",
        ForwardingMethod::Tunnel => "Tunnel",
        ForwardingMethod::Local => "Local",
    }
}

fn method_option(server: &Server) -> &'static str {
    match server.method() {
        ForwardingMethod::Direct | ForwardingMethod::Local => "-g",
        ForwardingMethod::Nat => "-m",
        ForwardingMethod::Tunnel => "-i",
    }
}

fn tunnel_info(server: &Server) -> String {
    if server.method() != ForwardingMethod::Tunnel {
        return "n/a".to_owned();
    }
    let tunnel = server.tunnel.unwrap_or_default();
    let checksum = match tunnel.checksum() {
        tunnel::Checksum::None => "-c",
        tunnel::Checksum::On => "+c",
        tunnel::Checksum::Remote => "r+c",
    };
    match tunnel.kind() {
        tunnel::Kind::Ipip => "ipip".to_owned(),
        tunnel::Kind::Gue => format!("gue:{}:{checksum}", tunnel.port),
        tunnel::Kind::Gre => format!("gre:{checksum}"),
    }
}

fn tunnel_options(tunnel: &Tunnel) -> String {
    let checksum = match tunnel.checksum() {
        tunnel::Checksum::None => " --tun-nocsum",
        tunnel::Checksum::On => " --tun-csum",
        tunnel::Checksum::Remote => " --tun-remcsum",
    };
    match tunnel.kind() {
        tunnel::Kind::Ipip => " --tun-type ipip".to_owned(),
        tunnel::Kind::Gue => format!(" --tun-type gue --tun-port {}{checksum}", tunnel.port),
        tunnel::Kind::Gre => format!(" --tun-type gre{checksum}"),
    }
}

/// By mark, family, protocol, address and port, as the original sorts.
fn sorted(services: &[ServiceStatus], unsorted: bool) -> Vec<&ServiceStatus> {
    let mut services: Vec<_> = services.iter().collect();
    if !unsorted {
        services.sort_by(|a, b| compare_keys(key_of(a), key_of(b)));
    }
    services
}

fn key_of(status: &ServiceStatus) -> Option<&ServiceKey> {
    status.service.as_ref().and_then(|service| service.key.as_ref())
}

fn compare_keys(a: Option<&ServiceKey>, b: Option<&ServiceKey>) -> Ordering {
    let rank = |key: Option<&ServiceKey>| match key.and_then(|key| key.key.as_ref()) {
        Some(service_key::Key::Address(address)) => {
            let parsed = address.address.parse::<IpAddr>().ok();
            (0, parsed.is_some_and(|a| a.is_ipv6()), address.protocol, parsed, address.port)
        }
        Some(service_key::Key::Mark(mark)) => (mark.mark, mark.ipv6, 0, None, 0),
        None => (0, false, 0, None, 0),
    };
    rank(a).cmp(&rank(b))
}

fn sorted_servers(servers: &[ServerStatus], unsorted: bool) -> Vec<&ServerStatus> {
    let mut servers: Vec<_> = servers.iter().collect();
    if !unsorted {
        let rank = |status: &&ServerStatus| {
            status.server.as_ref().map(|server| (server.address.parse::<IpAddr>().ok(), server.port))
        };
        servers.sort_by_key(rank);
    }
    servers
}
