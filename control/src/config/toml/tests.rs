//! What users see when a configuration file is wrong, and what a right one becomes.

use super::read;
use crate::config::{Configuration, model::*};
use pointsman_dataplane::{
    policy::{Defence, Policies},
    routing::Forwarding,
    scheduler::Kind,
};
use std::path::Path;

fn parsed(text: &str) -> Configuration {
    read(Path::new("pointsman.toml"), text).unwrap()
}

/// All messages about a wrong file.
fn messages(text: &str) -> Vec<String> {
    let errors = read(Path::new("pointsman.toml"), text).unwrap_err();
    errors.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn an_empty_file_is_an_empty_director() {
    assert_eq!(parsed(""), Configuration::default());
}

#[test]
fn the_example_that_is_delivered_is_valid() {
    let text = include_str!("../../../../deploy/pointsman.toml");
    let configuration = parsed(text);
    assert_eq!(configuration.start.ports.len(), 1);
    assert_eq!(configuration.services.len(), 1);
}

const EVERY_KEY: &str = r#"
    virtual_addresses = ["10.0.0.200", "fd00::200"]
    [[port]]
    device = "eth0"
    name = "outside"
    driver = "af_packet"
    idle = "poll"
    receive_ring = "blocks"
    [[port]]
    device = "eth1"
    [workers]
    cores = [1, 2]
    [capacity]
    connections_ipv4 = 1_000_000
    connections_ipv6 = 0x1000
    [memory]
    pages = "2M"
    numa_node = 1
    lock = false
    [timeouts]
    tcp_established = 100
    udp = 30
    [[service]]
    protocol = "sctp"
    address = "10.0.0.100"
    port = 0
    scheduler = "mh"
    scheduler_flags = ["mh-port", "mh-fallback"]
    persistence_seconds = 360
    persistence_prefix = 24
    persistence_engine = "sip"
    [[service.server]]
    address = "192.168.10.12"
    method = "tunnel"
    weight = 0
    upper_threshold = 100
    lower_threshold = 50
    tunnel = { kind = "gue", port = 6080, checksum = "remote" }
    [[service]]
    mark = 10
    ipv6 = true
    one_packet = true
    timeout_tcp = 100
    timeout_tcp_fin = 10
    timeout_udp = 30
    [routing]
    forward = "off"
    [policy]
    expire_nodest_conn = true
    conn_reuse_mode = 3
    drop_entry = 2
    am_droprate = 4
    pmtu_disc = false
    [[mark]]
    protocol = "udp"
    source = "10.9.7.1/16"
    destination = "10.0.0.100"
    port = 80
    interface = "eth1"
    mark = 10
    [[mark]]
    port = "80-90"
    mark = 4294967295
    [[source_nat]]
    source = "10.10.10.0/24"
    interface = "outside"
    to = "20.20.20.11"
    [[source_nat]]
    source = "fd00:9::/64"
    to = "fd00::11"
"#;

#[test]
fn every_key_of_rules_and_policies_reaches_the_model() {
    let configuration = parsed(EVERY_KEY);
    let said = |rules: &[String]| rules.join("; ");
    let marks: Vec<String> = configuration.marks.iter().map(ToString::to_string).collect();
    assert_eq!(
        said(&marks),
        "mark 10: udp from 10.9.0.0/16 to 10.0.0.100 port 80 by eth1; mark 4294967295: every protocol port 80-90"
    );
    let nats: Vec<String> = configuration.source_nat.iter().map(ToString::to_string).collect();
    assert_eq!(
        said(&nats),
        "source NAT of 10.10.10.0/24 by outside to 20.20.20.11; source NAT of fd00:9::/64 to fd00::11"
    );
    let expected = Policies {
        expire_nodest_conn: true,
        conn_reuse_mode: 3,
        drop_entry: Defence::Working,
        am_droprate: 4,
        pmtu_disc: false,
        ..Policies::default()
    };
    assert_eq!((configuration.policies, configuration.forwarding), (expected, Forwarding::Off));
    let timeouts = configuration.services[1].timeouts;
    let seconds = [timeouts.tcp, timeouts.tcp_fin, timeouts.udp].map(|seconds| seconds.unwrap().get());
    assert_eq!(seconds, [100, 10, 30]);
    let sent = pointsman_proto::v1::Configuration::from(&configuration);
    assert_eq!(crate::config::validate::configuration(&sent), Ok(configuration));
}

#[test]
fn wrong_rules_and_policies_are_named_with_their_lines() {
    let text = "[routing]\nforward = \"some\"\n[policy]\nsloppy_tpc = true\nam_droprate = 0\n[[mark]]\n\
                port = \"90-80\"\nmark = 1\n[[mark]]\ndestination = \"10.0.0.0/33\"\nport = true\nmark = 2\n\
                [[source_nat]]\nsource = \"10.10.10.0/24\"\nto = \"fd00::1\"\n[[source_nat]]\nto = \"10.0.0.1\"\n\
                [[service]]\nmark = 1\ntimeout_udp = 2678401\n";
    assert_eq!(
        messages(text),
        [
            "pointsman.toml:2: routing.forward: expected \"servers\", \"all\" or \"off\", found \"some\"; choose one of them",
            "pointsman.toml:4: policy.sloppy_tpc: unknown key; did you mean `sloppy_tcp`?",
            "pointsman.toml:5: policy.am_droprate: expected a whole number from 1 to 4294967295, found 0; choose a number in that range",
            "pointsman.toml:7: mark[0].port: expected a port from 1 to 65535, or two with the lower one first, found 90-80; write it as 80 or \"80-90\", or leave it out for every port",
            "pointsman.toml:10: mark[1].destination: expected 0 to 32 bits after the slash, found \"33\"; write it as 10.9.0.0/16 or fd00:9::/64",
            "pointsman.toml:11: mark[1].port: expected a port, or two in quotes, found true; write it as 80 or \"80-90\"",
            "pointsman.toml:15: source_nat[0].to: packets of 10.10.10.0/24 cannot leave from fd00::1: they are of different families; choose an address of the family of the source",
            "pointsman.toml:16: source_nat[1].source: expected an address or a network in quotes, found nothing; add `source = ...`",
            "pointsman.toml:20: service[0].timeout_udp: expected a whole number from 1 to 2678400, found 2678401; choose a number in that range",
        ]
    );
}

#[test]
fn every_key_of_what_is_fixed_at_start_reaches_the_model() {
    let Configuration { start, timeouts, virtual_addresses, .. } = parsed(EVERY_KEY);
    let port = |name: &str, device: &str, idle, receive_ring| Port {
        name: name.into(),
        driver: Driver::AfPacket(receive_ring),
        device: device.into(),
        idle,
    };
    let outside = port("outside", "eth0", Idle::Poll, ReceiveRing::Blocks);
    let eth1 = port("eth1", "eth1", Idle::Sleep, ReceiveRing::Frames);
    assert_eq!(start.ports, [outside, eth1]);
    assert_eq!(start.cores, [1, 2]);
    let capacity = (start.connections_ipv4.unwrap().get(), start.connections_ipv6.unwrap().get());
    assert_eq!(capacity, (1_000_000, 4_096));
    assert_eq!(start.memory, Some(Memory { pages: Pages::Huge2M, numa_node: Some(1), lock: false }));
    assert_eq!((timeouts.tcp_established, timeouts.udp, timeouts.tcp_fin_wait), (100, 30, 120));
    let addresses: Vec<String> = virtual_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.200", "fd00::200"]);
}

#[test]
fn a_port_receives_frames_each_at_once_unless_blocks_are_asked_for() {
    for (line, ring) in [
        ("", ReceiveRing::Frames),
        ("receive_ring = \"frames\"", ReceiveRing::Frames),
        ("receive_ring = \"blocks\"", ReceiveRing::Blocks),
    ] {
        let configuration = parsed(&format!("[[port]]\ndevice = \"eth0\"\n{line}\n"));
        assert_eq!(configuration.start.ports[0].driver, Driver::AfPacket(ring), "{line}");
        let sent = pointsman_proto::v1::Configuration::from(&configuration);
        assert_eq!(crate::config::validate::configuration(&sent), Ok(configuration));
    }
    assert_eq!(
        messages("[[port]]\ndevice = \"eth0\"\nreceive_ring = \"slots\"\n"),
        [
            "pointsman.toml:3: port[0].receive_ring: expected \"frames\" or \"blocks\", found \"slots\"; choose one of them"
        ]
    );
}

#[test]
fn a_port_is_told_what_its_workers_do_when_idle() {
    for (line, idle) in [
        ("", Idle::Sleep),
        ("idle = \"sleep\"", Idle::Sleep),
        ("idle = \"adaptive\"", Idle::Adaptive),
        ("idle = \"poll\"", Idle::Poll),
    ] {
        let configuration = parsed(&format!("[[port]]\ndevice = \"eth0\"\n{line}\n"));
        assert_eq!(configuration.start.ports[0].idle, idle, "{line}");
        let sent = pointsman_proto::v1::Configuration::from(&configuration);
        assert_eq!(crate::config::validate::configuration(&sent), Ok(configuration));
    }
    assert_eq!(
        messages("[[port]]\ndevice = \"eth0\"\nidle = \"nap\"\n"),
        [
            "pointsman.toml:3: port[0].idle: expected \"sleep\", \"adaptive\" or \"poll\", found \"nap\"; choose one of them"
        ]
    );
    // A worker has queues of all ports: the one that suffers the least delay decides.
    assert!(Idle::Sleep < Idle::Adaptive && Idle::Adaptive < Idle::Poll);
}

#[test]
fn every_key_of_services_and_servers_reaches_the_model() {
    let services = parsed(EVERY_KEY).services;
    let [sctp, mark] = &services[..] else { panic!("two services") };
    assert_eq!(sctp.key.to_string(), "sctp 10.0.0.100:0");
    assert_eq!(
        (sctp.scheduler, sctp.flag_names()),
        (Kind::parse("mh").unwrap(), vec!["mh-fallback", "mh-port"])
    );
    assert_eq!(sctp.persistence.map(|p| (p.seconds.get(), p.prefix)), Some((360, 24)));
    assert_eq!(sctp.engine, Some(Engine::Sip));
    let server = &sctp.servers[0];
    assert_eq!((server.socket().to_string(), server.weight.get()), ("192.168.10.12:0".into(), 0));
    assert_eq!((server.upper_threshold, server.lower_threshold), (100, 50));
    let gue = Tunnel::Gue { port: 6_080.try_into().unwrap(), checksum: Checksum::Remote };
    assert_eq!(server.method, Method::Tunnel(gue));
    assert_eq!((mark.key.to_string().as_str(), mark.one_packet), ("mark 10 ipv6", true));
    assert_eq!(mark.scheduler.name(), "wlc");
}

#[test]
fn what_is_sent_by_grpc_comes_back_the_same() {
    let configuration = parsed(EVERY_KEY);
    let sent = pointsman_proto::v1::Configuration::from(&configuration);
    assert_eq!(crate::config::validate::configuration(&sent), Ok(configuration));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
    assert_eq!(
        messages("[[port]]\ndevice = \"eth0\"\nidel = \"poll\"\n\n[worker]\ncores = [1]\n"),
        [
            "pointsman.toml:3: port[0].idel: unknown key; did you mean `idle`?",
            "pointsman.toml:5: worker: unknown key; did you mean `workers`?",
        ]
    );
    assert_eq!(
        messages("[memory]\ncolour = 1\n"),
        ["pointsman.toml:2: memory.colour: unknown key; the keys known here are pages, numa_node, lock"]
    );
}

#[test]
fn all_errors_of_a_file_are_reported_each_with_its_line_field_and_remedy() {
    let text = r#"[[port]]
idle = "sleep"

[timeouts]
udp = 2678401

[[service]]
protocol = "tpc"
address = "10.0.0.300"
port = "80"

[[service]]
address = "10.0.0.100"
port = 80
scheduler = "rrr"
one_packet = true
[[service.server]]
address = "192.168.0.1"
weight = -1
[[service.server]]
address = "fd00::1"
[[service.server]]
address = "192.168.0.2"
upper_threshold = 5
lower_threshold = 10
"#;
    assert_eq!(
        messages(text),
        [
            "pointsman.toml:1: port[0].device: expected the name of a network interface, found nothing; add `device = ...`",
            "pointsman.toml:5: timeouts.udp: expected a whole number from 1 to 2678400, found 2678401; choose a number in that range",
            "pointsman.toml:8: service[0].protocol: expected \"tcp\", \"udp\" or \"sctp\", found \"tpc\"; choose one of them",
            "pointsman.toml:9: service[0].address: expected an IPv4 or IPv6 address, found \"10.0.0.300\"; write it as 10.0.0.100 or fd00::100",
            "pointsman.toml:10: service[0].port: expected a whole number from 0 to 65535, found \"80\"; write it without quotes",
            "pointsman.toml:15: service[1].scheduler: no scheduler is named \"rrr\"; choose one of rr, wrr, lc, wlc, sed, nq, sh, dh, lblc, lblcr, mh, fo, ovf, twos",
            "pointsman.toml:16: service[1].one_packet: One-Packet Scheduling is only for UDP virtual services; leave it out, or make the service UDP",
            "pointsman.toml:19: service[1].server[0].weight: expected a whole number from 0 to 2147483647, found -1; choose a number in that range",
        ]
    );
}

#[test]
fn servers_are_held_to_the_rules_of_ipvsadm() {
    let text = r#"[[service]]
address = "10.0.0.100"
port = 80
[[service.server]]
address = "fd00::1"
[[service.server]]
address = "192.168.0.2"
upper_threshold = 5
lower_threshold = 10
[[service.server]]
address = "192.168.0.3"
[[service.server]]
address = "192.168.0.3"
port = 8080
[[service]]
address = "10.0.0.101"
port = 0
"#;
    assert_eq!(
        messages(text),
        [
            "pointsman.toml:5: service[0].server[0].address: Different address family is allowed only for tunneling servers; use the tunnel method, or an address of the service's family",
            "pointsman.toml:9: service[0].server[1].lower_threshold: 10 is above the upper threshold 5; the lower threshold ends what the upper one begins: make it the smaller",
            "pointsman.toml:12: service[0].server[3]: 192.168.0.3:80 is a server of tcp 10.0.0.100:80 already; remove one of them",
            "pointsman.toml:17: service[1].port: Zero port specified for non-persistent service; give the port, or a persistence for a service of every port",
        ]
    );
}

#[test]
fn a_service_has_an_address_or_a_mark_and_not_both() {
    assert_eq!(
        messages("[[service]]\nscheduler = \"rr\"\n"),
        [
            "pointsman.toml:1: service[0].address: expected an IPv4 or IPv6 address in quotes, found nothing; add `address = ...`",
            "pointsman.toml:1: service[0].port: expected a port from 0 to 65535, found nothing; add `port = ...`",
        ]
    );
    assert_eq!(
        messages("[[service]]\nmark = 1\nport = 80\n"),
        [
            "pointsman.toml:3: service[0].port: a service is known by a mark or by an address, not by both; remove `port` or `mark`",
        ]
    );
}

#[test]
fn broken_toml_names_its_line() {
    let messages = messages("[[port]]\ndevice = eth0\n");
    assert!(messages[0].starts_with("pointsman.toml:2: "), "{messages:?}");
    assert!(messages[0].ends_with("; correct the TOML"), "{messages:?}");
}

#[test]
fn what_cannot_be_fixed_at_start_is_refused() {
    assert_eq!(
        messages(
            "[[port]]\ndevice = \"eth0\"\n[[port]]\ndevice = \"eth0\"\nname = \"b\"\n[workers]\ncores = [1, 1]\n"
        ),
        [
            "pointsman.toml:4: port[1].device: two ports use the interface \"eth0\"; give each port its own interface",
            "pointsman.toml:7: workers.cores[1]: core 1 is listed twice; give each worker its own core",
        ]
    );
}

#[test]
fn no_bytes_make_the_reader_panic() {
    let seed = include_str!("../../../../deploy/pointsman.toml");
    for end in 0..seed.len() {
        if seed.is_char_boundary(end) {
            let _ = read(Path::new("pointsman.toml"), &seed[..end]);
            let _ = read(Path::new("pointsman.toml"), &seed[end..]);
        }
    }
}

const DPDK: &str = r#"
    [[port]]
    name = "d0"
    driver = "dpdk"
    device = "00:1F.6"
    addresses = ["10.0.0.10/24", "fd00::10/64"]
    gateways = ["10.0.0.1", "fe80::1"]
    mtu = 9000
    rx_ring = 2048
    tx_ring = 512
    promiscuous = true
    idle = "adaptive"
    [[port]]
    name = "d1"
    driver = "dpdk"
    device = "vdev:net_af_xdp0,iface=eth1"
    [dpdk]
    memory = "huge"
    arguments = ["--log-level=8"]
    buffers = 65535
"#;

#[test]
fn every_key_of_dpdk_reaches_the_model_and_comes_back() {
    use crate::config::model::dpdk::{self, DpdkPort, Subnet};
    let configuration = parsed(DPDK);
    let start = &configuration.start;
    let subnet = |address: &str, prefix| Subnet { address: address.parse().unwrap(), prefix };
    let first = DpdkPort {
        addresses: vec![subnet("10.0.0.10", 24), subnet("fd00::10", 64)],
        gateways: vec!["10.0.0.1".parse().unwrap(), "fe80::1".parse().unwrap()],
        mtu: 9_000,
        rx_ring: 2_048,
        tx_ring: 512,
        promiscuous: true,
    };
    let (d0, d1) = (&start.ports[0], &start.ports[1]);
    assert_eq!(
        (d0.device.as_str(), d0.idle, &d0.driver),
        ("0000:00:1f.6", Idle::Adaptive, &Driver::Dpdk(first))
    );
    assert_eq!((d0.interface(), d1.interface()), ("d0", "d1"));
    let default = Driver::Dpdk(DpdkPort::default());
    assert_eq!((d1.device.as_str(), d1.idle, &d1.driver), ("net_af_xdp0,iface=eth1", Idle::Poll, &default));
    let dpdk = start.dpdk.clone().unwrap();
    assert_eq!(dpdk.arguments, ["--log-level=8"]);
    assert_eq!((dpdk.memory, dpdk.buffers.map(|n| n.get())), (dpdk::Memory::Huge, Some(65_535)));
    let sent = pointsman_proto::v1::Configuration::from(&configuration);
    assert_eq!(crate::config::validate::configuration(&sent), Ok(configuration));
}

#[test]
fn what_is_wrong_with_ports_of_dpdk_is_told_by_line_and_field() {
    let port = "[[port]]\nname = \"d0\"\ndriver = \"dpdk\"\ndevice = \"net_null0\"\n";
    for (text, expected) in [
        (
            "[[port]]\nname = \"d0\"\ndriver = \"dpdk\"\n".to_owned(),
            "1: port[0].device: expected a PCI address or a virtual device of DPDK, found nothing; add `device = ...`",
        ),
        (
            "[[port]]\nname = \"d0\"\ndriver = \"dpdk\"\ndevice = \"eth0\"\n".to_owned(),
            "4: port[0].device: expected a device of DPDK, found \"eth0\"; write a PCI address as `lspci -D` does (0000:00:05.0), or a virtual device with its arguments (net_af_xdp0,iface=eth1)",
        ),
        (
            "[[port]]\ndriver = \"dpdk\"\ndevice = \"net_null0\"\n".to_owned(),
            "1: port[0].name: expected a name that an interface can have (up to 15 characters without blanks, / and :), found \"\"; name the port, for example \"d0\": the kernel reaches it by an interface of that name",
        ),
        (
            format!("{port}[[port]]\ndevice = \"eth0\"\n"),
            "5: port[1].driver: the port \"d0\" has the driver dpdk, the port \"eth0\" has af_packet: a worker has ports of one kind only; give all ports the same driver; with \"dpdk\" an interface of the kernel is device = \"net_af_packet0,iface=NAME\"",
        ),
        (
            format!("{port}[[port]]\nname = \"d1\"\ndriver = \"dpdk\"\ndevice = \"net_null0,size=64\"\n"),
            "8: port[1].device: two ports use the device \"net_null0\"; give each port its own device",
        ),
        (
            format!("{port}addresses = [\"10.0.0.10\"]\n"),
            "5: port[0].addresses[0]: expected the address of one host with the length of its subnet, found \"10.0.0.10\"; write it as 10.0.0.10/24 or fd00::10/64",
        ),
        (
            format!("{port}addresses = [\"10.0.0.10/24\"]\ngateways = [\"10.0.1.1\"]\n"),
            "6: port[0].gateways[0]: 10.0.1.1 is in no subnet of the port's addresses; give the port an address in its subnet, or choose a gateway that is in one",
        ),
        (
            format!("{port}mtu = 100\n"),
            "5: port[0].mtu: expected 1280 to 9216 bytes, found 100; the default is 1500",
        ),
        (
            format!("{port}rx_ring = 20000\n"),
            "5: port[0].rx_ring: expected 64 to 16384 frames, found 20000; the default is 1024",
        ),
        (
            format!("{port}receive_ring = \"blocks\"\n"),
            "5: port[0].receive_ring: this is for ports with driver = \"af_packet\"; leave it out; `rx_ring` and `tx_ring` say how many frames the rings of a DPDK port hold",
        ),
        (
            "[[port]]\ndevice = \"eth0\"\nmtu = 9000\n".to_owned(),
            "3: port[0].mtu: this is for ports with driver = \"dpdk\"; leave it out: with af_packet it is what the kernel's interface eth0 has",
        ),
        (
            "[[port]]\nname = \"d0\"\ndriver = \"dpdk\"\ndevice = \"0000:00:05.0\"\n[dpdk]\nmemory = \"ordinary\"\n"
                .to_owned(),
            "6: dpdk.memory: the device 0000:00:05.0 of the port \"d0\" reaches huge pages only; leave it out; ordinary pages are for virtual devices",
        ),
    ] {
        assert_eq!(messages(&text), [format!("pointsman.toml:{expected}")], "{text}");
    }
}
