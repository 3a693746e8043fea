//! The configuration file, `pointsman.toml`.
//!
//! ```toml
//! # Virtual addresses that are up without a service.
//! virtual_addresses = ["10.0.0.200"]
//!
//! [[port]]                       # one for each NIC port; fixed at start
//! device = "eth0"                # the Linux interface; default: the name
//! name = "outside"               # how Pointsman names it; default: the device
//! driver = "af_packet"           # default
//! idle = "sleep"                 # default; "poll": never sleep, take a whole core; "adaptive": poll for about a
//!                                # millisecond after the last frame, then sleep 50 us, 100 us and so on up to 10 ms
//! receive_ring = "frames"        # or "blocks": many together, a millisecond late, for less CPU time
//!
//! [[port]]                       # a port past the kernel; all ports have the same driver
//! driver = "dpdk"
//! name = "d0"                    # the interface by which the kernel reaches the port, for all but load balancing
//! device = "0000:00:05.0"        # a PCI address, or a virtual device: "net_af_xdp0,iface=eth1"
//! addresses = ["10.0.0.10/24"]   # the director's own, on that interface
//! gateways = ["10.0.0.1"]        # where everything else goes; one for each family
//! mtu = 1500                     # default
//! rx_ring = 1024                 # default; frames in each receive ring, and
//! tx_ring = 1024                 # in each transmit ring
//! promiscuous = false            # default; true: takes frames to all stations
//! idle = "poll"                  # default with DPDK, which cannot be waited for
//!
//! [dpdk]                         # fixed at start
//! memory = "huge"                # default; "ordinary": without huge pages, for virtual devices only
//! arguments = []                 # further arguments of DPDK's environment (EAL)
//! buffers = 16383                # packet buffers on each NUMA node; default: as many as are needed
//!
//! [workers]                      # fixed at start
//! cores = [1, 2]                 # one worker on each; default: one worker on the last core
//!
//! [capacity]                     # connections that each worker can hold; fixed at start
//! connections_ipv4 = 262144      # default; 64 bytes each
//! connections_ipv6 = 65536       # default; 128 bytes each
//!
//! [memory]                       # of tables and packet buffers; fixed at start
//! pages = "auto"                 # default: huge pages if there are any; or "2M", "1G", "ordinary"
//! numa_node = 0                  # default: that of each worker's core
//! lock = true                    # default: never swapped out
//!
//! [timeouts]                     # seconds that a connection lives without a packet, 1 to 2678400; these are the defaults
//! tcp_established = 900
//! tcp_syn_sent = 120
//! tcp_syn_received = 60
//! tcp_fin_wait = 120
//! tcp_time_wait = 120
//! tcp_close = 10
//! tcp_close_wait = 60
//! tcp_last_ack = 30
//! tcp_listen = 120
//! tcp_syn_ack = 120
//! udp = 300
//!
//! [routing]                      # packets that no service takes
//! forward = "servers"            # default: those from and to NATed servers, and of networks with source NAT; or "all", "off"
//!
//! [policy]                       # the switches of `sysctl net.ipv4.vs.*`, by the same names and with the same defaults
//! sloppy_tcp = false             # `pointsman policy list` says what they are
//!
//! [[mark]]                       # which packets get a firewall mark; of all that fit a packet the last counts
//! protocol = "tcp"               # or "udp", "sctp"; default: every protocol
//! source = "10.9.0.0/16"         # an address or a network; default: anywhere
//! destination = "10.0.0.100"     # the same; an address is up like that of a service
//! port = 80                      # or "80-90"; default: every port
//! interface = "eth0"             # the port that they come in by; default: any
//! mark = 10                      # that of a service
//!
//! [[source_nat]]                 # which packets leave from another address; of all that fit a packet the first counts
//! source = "10.10.10.0/24"       # whose: an address or a network
//! interface = "eth0"             # the port that they leave by; default: any
//! to = "20.20.20.11"             # the address, which is up like that of a service
//!
//! [[service]]                    # a virtual service
//! protocol = "tcp"               # or "udp", "sctp"; default "tcp"
//! address = "10.0.0.100"         # VIP; or `mark = 10` (and `ipv6 = true`) for a firewall mark
//! port = 80                      # 0: every port, with persistence only
//! scheduler = "wlc"              # default; as `ipvsadm -s`
//! scheduler_flags = []           # as `ipvsadm -b`
//! persistence_seconds = 360      # as `ipvsadm -p`; default: none
//! persistence_prefix = 24        # length of the mask of `ipvsadm -M`; default: the whole address
//! persistence_engine = "sip"     # as `ipvsadm --pe`; default: none
//! one_packet = false             # as `ipvsadm -o`; UDP only
//! timeout_tcp = 900              # seconds, as `ipvsadm --set`, for this service alone; default: those of all
//! timeout_tcp_fin = 120
//! timeout_udp = 300
//!
//! [[service.server]]             # a real server of the service above, in the order of `ipvsadm -a`
//! address = "192.168.10.12"      # RIP
//! port = 80                      # default: the service's
//! method = "direct"              # default; or "nat", "tunnel", "local"
//! weight = 1                     # default; 0 quiesces
//! upper_threshold = 0            # as `ipvsadm -x`; default 0: none
//! lower_threshold = 0            # as `ipvsadm -y`
//! tunnel = { kind = "gue", port = 6080, checksum = "none" }  # with method "tunnel"; default kind "ipip"
//! ```
//!
//! A key that is not listed here is an error, and the nearest one that is listed is suggested.

mod reader;
mod rules;

use super::{Configuration, model::MAX_SECONDS, validate};
use pointsman_proto::v1;
use reader::{Report, Section, whole};
use std::{
    fmt,
    path::{Path, PathBuf},
};
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {}{message}; {remedy}", file.display(), Colon(field))]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The path of the field: `service[0].server[1].weight`, counted from 0. Empty if it is not one field's.
    pub field: String,
    /// What was expected and what was found.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

struct Colon<'a>(&'a str);

impl fmt::Display for Colon<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

/// Everything that is wrong with a configuration file, in the order of its lines. One line each when printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads the text of the file `path`, which only names it in errors.
pub fn read(path: &Path, text: &str) -> Result<Configuration, ConfigErrors> {
    let mut report = Report::new(path.to_owned(), text);
    let (table, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        let line = report.line_at(error.span().map_or(0, |span| span.start));
        report.error(line, "", error.message().to_owned(), "correct the TOML");
    }
    if !report.errors.is_empty() {
        // What follows a broken line means something else than its author had in mind.
        return Err(sorted(report));
    }
    let asked = document(Section::root(table.get_ref()), &mut report);
    let validated = validate::configuration(&asked);
    for refusal in validated.as_ref().err().into_iter().flatten() {
        let field = field_in_file(&refusal.field);
        // A value that could not be read is not also reported as missing.
        if !report.errors.iter().any(|error| error.field == field) {
            let line = report.line_of(&field);
            report.error(line, &field, refusal.reason.clone(), refusal.remedy.clone());
        }
    }
    match validated {
        Ok(configuration) if report.errors.is_empty() => Ok(configuration),
        _ => Err(sorted(report)),
    }
}

fn sorted(report: Report) -> ConfigErrors {
    let mut errors = report.errors;
    errors.sort_by_key(|error| error.line);
    ConfigErrors(errors)
}

/// The path of a field in the file, for that of the gRPC message.
fn field_in_file(field: &str) -> String {
    field
        .replace("services[", "service[")
        .replace(".servers[", ".server[")
        .replace("start.ports[", "port[")
        .replace("start.cores", "workers.cores")
        .replace("start.ports", "port")
        .replace("start.memory", "memory")
        .replace("start.dpdk", "dpdk")
        .replace("marks[", "mark[")
        .replace("policies.", "policy.")
}

fn document(mut root: Section<'_, '_>, report: &mut Report) -> v1::Configuration {
    let ports = root.sections("port", report).into_iter().map(|section| port(section, report)).collect();
    let mut start = v1::Start { ports, ..Default::default() };
    if let Some(mut workers) = root.section("workers", report) {
        let core = |value: &DeValue<'_>| whole(value).and_then(|core| u32::try_from(core).ok());
        start.cores = workers.list("cores", "numbers of cores", report, core);
        workers.finish(report);
    }
    if let Some(mut capacity) = root.section("capacity", report) {
        start.connections_ipv4 = capacity.number("connections_ipv4", CONNECTIONS, report).unwrap_or(0);
        start.connections_ipv6 = capacity.number("connections_ipv6", CONNECTIONS, report).unwrap_or(0);
        capacity.finish(report);
    }
    start.memory = root.section("memory", report).map(|section| memory(section, report));
    start.dpdk = root.section("dpdk", report).map(|section| dpdk(section, report));
    let timeouts = root.section("timeouts", report).map(|section| timeouts(section, report));
    let routing = root.section("routing", report).map(|section| rules::routing(section, report));
    let policies = root.section("policy", report).map(|section| rules::policies(section, report));
    let marks =
        root.sections("mark", report).into_iter().map(|section| rules::mark(section, report)).collect();
    let nats = root.sections("source_nat", report).into_iter();
    let source_nat = nats.map(|section| rules::source_nat(section, report)).collect();
    let services =
        root.sections("service", report).into_iter().map(|section| service(section, report)).collect();
    let virtual_addresses = root
        .list("virtual_addresses", "addresses in quotes", report, |value| value.as_str().map(str::to_owned));
    root.finish(report);
    v1::Configuration {
        start: Some(start),
        timeouts,
        services,
        virtual_addresses,
        marks,
        source_nat,
        routing,
        policies: policies.unwrap_or_default(),
    }
}

/// From what an idle director needs to what 256 GiB hold.
const CONNECTIONS: std::ops::Range<u64> = 1_024..(1 << 32) + 1;
/// Any port.
const PORTS: std::ops::Range<u64> = 0..65_536;
/// Any number of 32 bits.
const NUMBERS: std::ops::Range<u64> = 0..(1 << 32);
const SECONDS: std::ops::Range<u64> = 1..MAX_SECONDS as u64 + 1;

fn port(mut section: Section<'_, '_>, report: &mut Report) -> v1::Port {
    let drivers = ["af_packet", "dpdk"].map(|word| (word, word));
    let driver = section.word("driver", &drivers, report).unwrap_or_default();
    let (what, remedy) = match driver {
        "dpdk" => ("a PCI address or a virtual device of DPDK", "`lspci -D` lists the PCI devices"),
        _ => ("the name of a network interface", "`ip link` lists the interfaces"),
    };
    if !section.has("device") && (driver == "dpdk" || !section.has("name")) {
        section.missing("device", what, report);
    }
    let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned);
    let device = section.string("device", remedy, report).unwrap_or_default().to_owned();
    let name = section.string("name", "choose any name", report).unwrap_or_default().to_owned();
    let idle = ["sleep", "adaptive", "poll"].map(|word| (word, word));
    let idle = section.word("idle", &idle, report).unwrap_or_default();
    let kinds = [("frames", "frames"), ("blocks", "blocks")];
    let receive_ring = section.word("receive_ring", &kinds, report).unwrap_or_default();
    let port = v1::Port {
        name,
        driver: driver.to_owned(),
        device,
        idle: idle.to_owned(),
        receive_ring: receive_ring.to_owned(),
        addresses: section.list("addresses", "addresses with prefixes in quotes", report, text),
        gateways: section.list("gateways", "addresses in quotes", report, text),
        mtu: section.number32("mtu", NUMBERS, report).unwrap_or(0),
        rx_ring: section.number32("rx_ring", NUMBERS, report).unwrap_or(0),
        tx_ring: section.number32("tx_ring", NUMBERS, report).unwrap_or(0),
        promiscuous: section.boolean("promiscuous", report).unwrap_or(false),
    };
    section.finish(report);
    port
}

fn dpdk(mut section: Section<'_, '_>, report: &mut Report) -> v1::Dpdk {
    let words = ["huge", "ordinary"].map(|word| (word, word));
    let dpdk = v1::Dpdk {
        memory: section.word("memory", &words, report).unwrap_or_default().to_owned(),
        arguments: section
            .list("arguments", "arguments in quotes", report, |value| value.as_str().map(str::to_owned)),
        buffers: section.number32("buffers", NUMBERS, report).unwrap_or(0),
    };
    section.finish(report);
    dpdk
}

fn memory(mut section: Section<'_, '_>, report: &mut Report) -> v1::Memory {
    let words = ["auto", "2M", "1G", "ordinary"].map(|word| (word, word));
    let memory = v1::Memory {
        pages: section.word("pages", &words, report).unwrap_or_default().to_owned(),
        numa_node: section.number32("numa_node", 0..1_024, report),
        lock: section.boolean("lock", report),
    };
    section.finish(report);
    memory
}

fn timeouts(mut section: Section<'_, '_>, report: &mut Report) -> v1::ConnectionTimeouts {
    let mut seconds = |key| section.number32(key, SECONDS, report).unwrap_or(0);
    let timeouts = v1::ConnectionTimeouts {
        tcp_established: seconds("tcp_established"),
        tcp_syn_sent: seconds("tcp_syn_sent"),
        tcp_syn_received: seconds("tcp_syn_received"),
        tcp_fin_wait: seconds("tcp_fin_wait"),
        tcp_time_wait: seconds("tcp_time_wait"),
        tcp_close: seconds("tcp_close"),
        tcp_close_wait: seconds("tcp_close_wait"),
        tcp_last_ack: seconds("tcp_last_ack"),
        tcp_listen: seconds("tcp_listen"),
        tcp_syn_ack: seconds("tcp_syn_ack"),
        udp: seconds("udp"),
    };
    section.finish(report);
    timeouts
}

fn service(mut section: Section<'_, '_>, report: &mut Report) -> v1::ServiceConfiguration {
    let key = service_key(&mut section, report);
    let service = v1::Service {
        key: Some(v1::ServiceKey { key: Some(key) }),
        scheduler: section
            .string("scheduler", "\"wlc\" is the default", report)
            .unwrap_or_default()
            .to_owned(),
        scheduler_flags: section
            .list("scheduler_flags", "flags in quotes", report, |value| value.as_str().map(str::to_owned)),
        persistence_seconds: section.number32("persistence_seconds", SECONDS, report).unwrap_or(0),
        persistence_prefix: section.number32("persistence_prefix", 0..129, report),
        persistence_engine: section
            .word("persistence_engine", &[("sip", "sip")], report)
            .unwrap_or_default()
            .into(),
        one_packet: section.boolean("one_packet", report).unwrap_or(false),
        timeout_tcp: section.number32("timeout_tcp", SECONDS, report),
        timeout_tcp_fin: section.number32("timeout_tcp_fin", SECONDS, report),
        timeout_udp: section.number32("timeout_udp", SECONDS, report),
    };
    let servers =
        section.sections("server", report).into_iter().map(|section| server(section, report)).collect();
    section.finish(report);
    v1::ServiceConfiguration { service: Some(service), servers }
}

fn service_key(section: &mut Section<'_, '_>, report: &mut Report) -> v1::service_key::Key {
    use v1::service_key::{Address, Key, Mark};
    let protocols = [("tcp", v1::Protocol::Tcp), ("udp", v1::Protocol::Udp), ("sctp", v1::Protocol::Sctp)];
    let marked = section.has("mark");
    let protocol = section.word("protocol", &protocols, report).unwrap_or(v1::Protocol::Tcp).into();
    let address =
        section.string("address", "write it as \"10.0.0.100\"", report).unwrap_or_default().to_owned();
    let port = section.number32("port", PORTS, report);
    let mark = section.number32("mark", 1..1 << 32, report);
    let ipv6 = section.boolean("ipv6", report).unwrap_or(false);
    for key in ["protocol", "address", "port"] {
        if marked && section.has(key) {
            let (field, line) = (section.path(key), report.line_of(&section.path(key)));
            let message = "a service is known by a mark or by an address, not by both".to_owned();
            report.error(line, &field, message, format!("remove `{key}` or `mark`"));
        }
    }
    for (key, what) in [("address", "an IPv4 or IPv6 address in quotes"), ("port", "a port from 0 to 65535")]
    {
        if !marked && !section.has(key) {
            section.missing(key, what, report);
        }
    }
    match mark {
        // A mark that could not be read has been reported; any number stands for it.
        _ if marked => Key::Mark(Mark { mark: mark.unwrap_or(1), ipv6 }),
        // So has a port; one that needs no persistence stands for it.
        _ => Key::Address(Address { protocol, address, port: port.unwrap_or(1) }),
    }
}

fn server(mut section: Section<'_, '_>, report: &mut Report) -> v1::Server {
    use v1::ForwardingMethod::{Direct, Local, Nat, Tunnel};
    let methods = [("direct", Direct), ("nat", Nat), ("tunnel", Tunnel), ("local", Local)];
    if !section.has("address") {
        section.missing("address", "an IPv4 or IPv6 address in quotes", report);
    }
    let server = v1::Server {
        address: section
            .string("address", "write it as \"10.0.0.12\"", report)
            .unwrap_or_default()
            .to_owned(),
        port: section.number32("port", PORTS, report).unwrap_or(0),
        method: section.word("method", &methods, report).unwrap_or(Direct).into(),
        weight: section.number32("weight", 0..1 << 31, report),
        upper_threshold: section.number32("upper_threshold", NUMBERS, report).unwrap_or(0),
        lower_threshold: section.number32("lower_threshold", NUMBERS, report).unwrap_or(0),
        tunnel: section.section("tunnel", report).map(|section| tunnel(section, report)),
    };
    section.finish(report);
    server
}

fn tunnel(mut section: Section<'_, '_>, report: &mut Report) -> v1::Tunnel {
    use v1::tunnel::{Checksum, Kind};
    let kinds = [("ipip", Kind::Ipip), ("gue", Kind::Gue), ("gre", Kind::Gre)];
    let checksums = [("none", Checksum::None), ("on", Checksum::On), ("remote", Checksum::Remote)];
    let tunnel = v1::Tunnel {
        kind: section.word("kind", &kinds, report).unwrap_or(Kind::Ipip).into(),
        port: section.number32("port", PORTS, report).unwrap_or(0),
        checksum: section.word("checksum", &checksums, report).unwrap_or(Checksum::None).into(),
    };
    section.finish(report);
    tunnel
}

#[cfg(test)]
mod tests;
