//! What would change: one line a change, for people.

use super::model::{
    policies::{SWITCHES, forwarding_name},
    *,
};
use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    net::SocketAddr,
    sync::Arc,
};

/// The changes that make `new` of `old`, one line each; empty if there are none.
///
/// `+` is added, `-` removed, `~` changed. What is fixed at start is not looked at.
pub fn diff(old: &Configuration, new: &Configuration) -> Vec<String> {
    let mut lines = Vec::new();
    timeouts(&old.timeouts, &new.timeouts, &mut lines);
    for address in old.virtual_addresses.difference(&new.virtual_addresses) {
        lines.push(format!("- virtual address {address}"));
    }
    for address in new.virtual_addresses.difference(&old.virtual_addresses) {
        lines.push(format!("+ virtual address {address}"));
    }
    rules("marks", &old.marks, &new.marks, &mut lines);
    rules("source NAT", &old.source_nat, &new.source_nat, &mut lines);
    if old.forwarding != new.forwarding {
        let (old, new) = (forwarding_name(old.forwarding), forwarding_name(new.forwarding));
        lines.push(format!("~ policy forward: {old} -> {new}"));
    }
    for switch in &SWITCHES {
        let (old, new) = (switch.of(&old.policies), switch.of(&new.policies));
        if old != new {
            lines.push(format!("~ policy {}: {old} -> {new}", switch.name));
        }
    }
    let before: HashMap<&ServiceKey, &Arc<Service>> = old.services.iter().map(|s| (&s.key, s)).collect();
    let after: HashSet<&ServiceKey> = new.services.iter().map(|s| &s.key).collect();
    for service in old.services.iter().filter(|service| !after.contains(&service.key)) {
        lines.push(format!("- service {}", service.key));
    }
    for service in &new.services {
        match before.get(&service.key) {
            // The same `Arc` is not looked into.
            Some(old) if *old == service => {}
            Some(old) => changed_service(old, service, &mut lines),
            None => {
                lines.push(format!("+ service {}", describe(service)));
                let at = service.key;
                lines.extend(service.servers.iter().map(|server| added_server(&at, server)));
            }
        }
    }
    lines
}

/// Rules are told apart by all that they say, and their order counts.
fn rules<Rule: PartialEq + Display>(what: &str, old: &[Rule], new: &[Rule], lines: &mut Vec<String>) {
    lines.extend(old.iter().filter(|rule| !new.contains(rule)).map(|rule| format!("- {rule}")));
    lines.extend(new.iter().filter(|rule| !old.contains(rule)).map(|rule| format!("+ {rule}")));
    let stayed = old.iter().filter(|rule| new.contains(rule));
    let in_new = new.iter().filter(|rule| old.contains(rule));
    // What is added comes after what stays, or it has changed the order, too.
    let appended = new.iter().skip(in_new.clone().count()).all(|rule| !old.contains(rule));
    if !stayed.eq(in_new) || !appended {
        lines.push(format!("~ {what}: order of the rules"));
    }
}

fn timeouts(old: &Timeouts, new: &Timeouts, lines: &mut Vec<String>) {
    let pairs = [
        ("tcp_established", old.tcp_established, new.tcp_established),
        ("tcp_syn_sent", old.tcp_syn_sent, new.tcp_syn_sent),
        ("tcp_syn_received", old.tcp_syn_received, new.tcp_syn_received),
        ("tcp_fin_wait", old.tcp_fin_wait, new.tcp_fin_wait),
        ("tcp_time_wait", old.tcp_time_wait, new.tcp_time_wait),
        ("tcp_close", old.tcp_close, new.tcp_close),
        ("tcp_close_wait", old.tcp_close_wait, new.tcp_close_wait),
        ("tcp_last_ack", old.tcp_last_ack, new.tcp_last_ack),
        ("tcp_listen", old.tcp_listen, new.tcp_listen),
        ("tcp_syn_ack", old.tcp_syn_ack, new.tcp_syn_ack),
        ("udp", old.udp, new.udp),
    ];
    for (name, old, new) in pairs {
        if old != new {
            lines.push(format!("~ timeout {name}: {old} -> {new} s"));
        }
    }
}

/// `tcp 10.0.0.1:80 wlc persistent 360 mask 24 (sh-port)`, as `ipvsadm -L` has it.
fn describe(service: &Service) -> String {
    let mut text = format!("{} {}", service.key, service.scheduler.name());
    if !service.flags.is_empty() {
        text += &format!(" ({})", service.flag_names().join(","));
    }
    text += &persistence(service);
    if let Some(engine) = service.engine {
        text += &format!(" pe {}", engine.name());
    }
    if service.one_packet {
        text += " ops";
    }
    match own_timeouts(service).as_str() {
        "" => {}
        own => text += &format!(" timeouts {own}"),
    }
    text
}

/// `tcp 100 tcp-fin 10 udp 30`, of those that are its own.
fn own_timeouts(service: &Service) -> String {
    let ServiceTimeouts { tcp, tcp_fin, udp } = service.timeouts;
    let all = [("tcp", tcp), ("tcp-fin", tcp_fin), ("udp", udp)];
    let own = all.into_iter().filter_map(|(name, seconds)| Some(format!("{name} {}", seconds?)));
    own.collect::<Vec<_>>().join(" ")
}

fn persistence(service: &Service) -> String {
    match service.persistence {
        Some(Persistence { seconds, prefix }) => format!(" persistent {seconds} /{prefix}"),
        None => String::new(),
    }
}

fn added_server(key: &ServiceKey, server: &Server) -> String {
    let mut text =
        format!("+ server {} of {key}: {} weight {}", server.socket(), method(server), server.weight.get());
    if server.upper_threshold != 0 {
        text += &format!(" thresholds {} {}", server.upper_threshold, server.lower_threshold);
    }
    text
}

fn method(server: &Server) -> String {
    match server.method {
        Method::Tunnel(Tunnel::Gue { port, checksum }) => {
            format!("tunnel gue {port} checksum {}", checksum.name())
        }
        Method::Tunnel(Tunnel::Gre { checksum: true }) => "tunnel gre checksum on".into(),
        Method::Tunnel(tunnel) => format!("tunnel {}", tunnel.name()),
        other => other.name().into(),
    }
}

fn changed_service(old: &Service, new: &Service, lines: &mut Vec<String>) {
    let what = format!("service {}", new.key);
    let changes = [
        ("scheduler", old.scheduler.name().to_owned(), new.scheduler.name().to_owned()),
        ("flags", old.flag_names().join(","), new.flag_names().join(",")),
        ("persistence", persistence(old), persistence(new)),
        ("engine", old.engine.map_or("", Engine::name).into(), new.engine.map_or("", Engine::name).into()),
        ("one-packet", old.one_packet.to_string(), new.one_packet.to_string()),
        ("timeouts", own_timeouts(old), own_timeouts(new)),
    ];
    for (name, old, new) in changes {
        changed(&what, name, or_none(&old), or_none(&new), lines);
    }
    let before: HashMap<SocketAddr, &Server> = old.servers.iter().map(|s| (s.socket(), s)).collect();
    let after: HashSet<SocketAddr> = new.servers.iter().map(Server::socket).collect();
    for server in old.servers.iter().filter(|server| !after.contains(&server.socket())) {
        lines.push(format!("- server {} of {}", server.socket(), new.key));
    }
    for server in &new.servers {
        match before.get(&server.socket()) {
            Some(old) => changed_server(&new.key, old, server, lines),
            None => lines.push(added_server(&new.key, server)),
        }
    }
    let old_order = old.servers.iter().map(Server::socket).filter(|socket| after.contains(socket));
    let new_order = new.servers.iter().map(Server::socket).filter(|socket| before.contains_key(socket));
    if !old_order.eq(new_order) {
        lines.push(format!("~ {what}: order of its servers"));
    }
}

fn changed_server(key: &ServiceKey, old: &Server, new: &Server, lines: &mut Vec<String>) {
    let what = format!("server {} of {key}", new.socket());
    changed(&what, "method", &method(old), &method(new), lines);
    changed(&what, "weight", old.weight.get(), new.weight.get(), lines);
    changed(&what, "upper threshold", old.upper_threshold, new.upper_threshold, lines);
    changed(&what, "lower threshold", old.lower_threshold, new.lower_threshold, lines);
}

fn changed<T: PartialEq + Display>(what: &str, name: &str, old: T, new: T, lines: &mut Vec<String>) {
    if old != new {
        lines.push(format!("~ {what}: {name} {old} -> {new}"));
    }
}

fn or_none(text: &str) -> &str {
    match text.trim() {
        "" => "none",
        text => text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;
    use std::path::Path;

    fn parsed(text: &str) -> Configuration {
        read(Path::new("test.toml"), text).unwrap()
    }

    const OLD: &str = r#"
        virtual_addresses = ["10.0.0.9"]
        [[service]]
        address = "10.0.0.1"
        port = 80
        scheduler = "rr"
        [[service.server]]
        address = "192.168.0.1"
        [[service.server]]
        address = "192.168.0.2"
        [[service]]
        protocol = "udp"
        address = "fd00::1"
        port = 53
    "#;

    #[test]
    fn a_configuration_does_not_differ_from_itself() {
        assert_eq!(diff(&parsed(OLD), &parsed(OLD)), Vec::<String>::new());
    }

    #[test]
    fn every_change_is_one_line() {
        let new = r#"
            virtual_addresses = ["10.0.0.8"]
            [timeouts]
            udp = 60
            [[service]]
            address = "10.0.0.1"
            port = 80
            scheduler = "wrr"
            persistence_seconds = 50
            [[service.server]]
            address = "192.168.0.2"
            weight = 3
            [[service.server]]
            address = "192.168.0.3"
            method = "nat"
            port = 8080
            upper_threshold = 9
            [[service]]
            mark = 7
            scheduler = "sh"
            scheduler_flags = ["sh-port"]
        "#;
        assert_eq!(
            diff(&parsed(OLD), &parsed(new)),
            [
                "~ timeout udp: 300 -> 60 s",
                "- virtual address 10.0.0.9",
                "+ virtual address 10.0.0.8",
                "- service udp [fd00::1]:53",
                "~ service tcp 10.0.0.1:80: scheduler rr -> wrr",
                "~ service tcp 10.0.0.1:80: persistence none -> persistent 50 /32",
                "- server 192.168.0.1:80 of tcp 10.0.0.1:80",
                "~ server 192.168.0.2:80 of tcp 10.0.0.1:80: weight 1 -> 3",
                "+ server 192.168.0.3:8080 of tcp 10.0.0.1:80: nat weight 1 thresholds 9 0",
                "+ service mark 7 sh (sh-port)",
            ]
        );
    }

    #[test]
    fn a_new_order_of_servers_is_a_change_because_schedulers_follow_it() {
        let one = "[[service]]\naddress = \"10.0.0.1\"\nport = 80\n";
        let server = |n: u8| format!("[[service.server]]\naddress = \"192.168.0.{n}\"\n");
        let (old, new) = (
            parsed(&(one.to_owned() + &server(1) + &server(2))),
            parsed(&(one.to_owned() + &server(2) + &server(1))),
        );
        assert_eq!(diff(&old, &new), ["~ service tcp 10.0.0.1:80: order of its servers"]);
    }

    #[test]
    fn rules_policies_and_own_timeouts_are_lines_too() {
        let mark = |port: u16, mark: u8| format!("[[mark]]\nport = {port}\nmark = {mark}\n");
        let service = |own: &str| format!("[[service]]\nmark = 1\n{own}");
        let old = parsed(&(mark(80, 1) + &mark(443, 1) + &service("timeout_tcp = 100\n")));
        let new = "[routing]\nforward = \"all\"\n[policy]\nconn_reuse_mode = 0\nsloppy_tcp = true\n\
                   [[source_nat]]\nsource = \"10.10.10.0/24\"\nto = \"20.20.20.11\"\n"
            .to_owned();
        let new = parsed(&(new + &mark(443, 1) + &mark(8080, 2) + &service("timeout_udp = 9\n")));
        assert_eq!(
            diff(&old, &new),
            [
                "- mark 1: every protocol port 80",
                "+ mark 2: every protocol port 8080",
                "+ source NAT of 10.10.10.0/24 to 20.20.20.11",
                "~ policy forward: servers -> all",
                "~ policy conn_reuse_mode: 1 -> 0",
                "~ policy sloppy_tcp: 0 -> 1",
                "~ service mark 1: timeouts tcp 100 -> udp 9",
            ]
        );
        let (one, other) = (mark(80, 1) + &mark(80, 2), mark(80, 2) + &mark(80, 1));
        assert_eq!(diff(&parsed(&one), &parsed(&other)), ["~ marks: order of the rules"]);
        let before = mark(1, 1) + &one;
        assert_eq!(
            diff(&parsed(&one), &parsed(&before)),
            ["+ mark 1: every protocol port 1", "~ marks: order of the rules"]
        );
        let added = parsed(&service("timeout_tcp_fin = 5\n"));
        assert_eq!(diff(&Configuration::default(), &added), ["+ service mark 1 wlc timeouts tcp-fin 5"]);
    }
}
