//! Command lines: what they mean, and what is said of those that mean nothing.

use pointsman_proto::v1::{ForwardingMethod, Protocol, Server, Service, Timeouts, Tunnel, tunnel};
use proptest::prelude::*;

use super::super::{Columns, Command, Format, Listing, NoNames, arguments, parse, rules_text};
use super::{Known, address_key, mark_key, server, service, status, tcp, words};

/// `exit message` of a line that must be refused.
fn refused(line: &str) -> String {
    match parse(&words(line), &NoNames) {
        Err(error) => format!("{} {}", error.exit, error.message),
        Ok(command) => format!("accepted: {command:?}"),
    }
}

fn parsed(line: &str) -> Command {
    parse(&words(line), &Known).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The scenario `cli-errors` holds every one of these answers of the original but those of its kernel.
#[test]
fn the_recorded_mistakes_are_refused_in_the_recorded_words() {
    let recording = include_str!("../../../../../tests/oracle/golden/cli-errors.out");
    let lines: Vec<&str> = recording.lines().collect();
    let mut seen = 0;
    for (at, line) in lines.iter().enumerate() {
        let Some(command) = line.strip_prefix("$ ") else {
            continue;
        };
        let exit = lines[at + 1].trim_start().strip_prefix("exit ").unwrap();
        let said = lines.get(at + 2).map_or("", |text| text.trim_start());
        let parser_refuses = exit == "2" || said.starts_with("Try ");
        let expected = format!("{exit} {said}");
        match parse(&words(command), &NoNames) {
            Err(_) => assert_eq!(refused(command), expected, "{command}"),
            Ok(_) => assert!(!parser_refuses, "{command} must be refused: {expected}"),
        }
        seen += usize::from(parser_refuses);
    }
    assert_eq!(seen, 19, "the recording's refusals of the command line");
}

/// Command lines that must be refused, with the exit status and the message.
const MISTAKES: &[(&str, &str)] = &[
    // First option.
    ("-n", "255 Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("list", "255 Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("-O", "255 Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("--nosuch", "255 Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    // The option parser.
    ("-L --nosuch", "255 --nosuch: unknown option"),
    ("-Lq", "255 -Lq: unknown option"),
    ("-A -t", "255 -t: missing argument"),
    ("-L --stats=1", "255 --stats=1: option does not take an argument"),
    // Missing, not allowed, twice, in conflict.
    ("-D", "2 You need to supply the 'service-address' option for the 'delete-service' command"),
    ("-E -s rr", "2 You need to supply the 'service-address' option for the 'edit-service' command"),
    ("-e -t 10.0.0.1:80", "2 You need to supply the 'real-server' option for the 'edit-server' command"),
    ("-D -t 10.0.0.1:80 -s rr", "2 Illegal 'scheduler' option with the 'delete-service' command"),
    ("-A -t 10.0.0.1:80 -n", "2 Illegal 'numeric' option with the 'add-service' command"),
    ("-A -t 10.0.0.1:80 -g", "2 Illegal 'forwarding-method' option with the 'add-service' command"),
    ("-C -n", "2 Illegal 'numeric' option with the 'flush' command"),
    ("-L -s rr", "2 Illegal 'scheduler' option with the 'list' command"),
    ("-Z -n", "2 Illegal 'numeric' option with the 'zero' command"),
    ("-S -c", "2 Illegal 'connection' option with the 'save' command"),
    ("-R -n", "2 Illegal 'numeric' option with the 'restore' command"),
    ("--set 1 2 3 -n", "2 Illegal 'numeric' option with the 'set' command"),
    ("--start-daemon master -n", "2 Illegal 'numeric' option with the 'start-daemon' command"),
    ("--stop-daemon master --mcast-ttl 5", "2 Illegal 'mcast-ttl' option with the 'stop-daemon' command"),
    ("-L -n -n", "2 multiple 'numeric' options specified"),
    ("-A -t 10.0.0.1:80 -u 10.0.0.1:80", "2 multiple 'service-address' options specified"),
    ("-A -t 10.0.0.1:80 -f 1", "2 multiple 'service-address' options specified"),
    ("-A -t 10.0.0.1:80 -s rr -s rr", "2 multiple 'scheduler' options specified"),
    ("-L -C", "2 invalid option `-C'"),
    ("-L --clear", "2 invalid option `--clear'"),
    (
        "-Ln -c --timeout",
        "2 The option 'timeout' conflicts with the 'connection' option in the 'list' command",
    ),
    (
        "-L --daemon --timeout",
        "2 The option 'daemon' conflicts with the 'timeout' option in the 'list' command",
    ),
    (
        "-L -t 10.0.0.1:80 -c",
        "2 The option 'service-address' conflicts with the 'connection' option in the 'list' command",
    ),
    ("-Lc --stats", "2 options conflicts in the list command"),
    ("-L --timeout --persistent-conn", "2 options conflicts in the list command"),
    ("-L more", "2 unexpected argument more"),
    ("--set 1 2 3 4", "2 unexpected argument 4"),
    // Addresses.
    ("-A -t 12345", "2 illegal virtual server address[:port] specified"),
    ("-A -t fd00::1", "2 illegal virtual server address[:port] specified"),
    ("-A -t [fd00::1", "2 illegal virtual server address[:port] specified"),
    ("-A -u 10.0.0.1:nosuch", "2 illegal virtual server address[:port] specified"),
    ("-a -t 10.0.0.1:80 -r 300.0.0.1", "2 illegal real server address[:port] specified"),
    ("-A -f x", "2 invalid fwmark value `x' specified"),
    ("-A -f -1", "2 invalid fwmark value `-1' specified"),
    ("-L -6 -f 5", "2 -6 used before -f"),
    ("-A -t 10.0.0.1:80 -6", "2 -6 used before -f"),
    // Ranges.
    ("-a -t 10.0.0.1:80 -r 10.0.0.2 -w x", "2 illegal weight specified"),
    ("-a -t 10.0.0.1:80 -r 10.0.0.2 -w 2147483648", "2 illegal weight specified"),
    ("-a -t 10.0.0.1:80 -r 10.0.0.2 -x -1", "2 illegal u_threshold specified"),
    ("-a -t 10.0.0.1:80 -r 10.0.0.2 -y x", "2 illegal l_threshold specified"),
    ("-A -t 10.0.0.1:80 -p 0", "2 invalid timeout value `0' specified"),
    ("-A -t 10.0.0.1:80 -p 2678401", "2 invalid timeout value `2678401' specified"),
    ("--set 1 x 3", "2 invalid timeout value `x' specified"),
    ("--set 1 2 2678401", "2 invalid timeout value `2678401' specified"),
    ("--set", "2 --set option requires 3 timeout values"),
    ("-A -t 10.0.0.1:80 -p -M 24", "2 illegal virtual server persistent mask specified"),
    ("-A -t 10.0.0.1:80 -p -M 255.0.255.0", "2 illegal virtual server persistent mask specified"),
    ("-A -M 255.0.255.0 -t 10.0.0.1:80 -p", "2 illegal virtual server persistent mask specified"),
    ("-A -t [fd00::1]:80 -p -M 0", "2 illegal ipv6 netmask specified"),
    ("-A -t [fd00::1]:80 -p -M 129", "2 illegal ipv6 netmask specified"),
    ("-A -f 5 -6 -p -M 255.255.0.0", "2 illegal ipv6 netmask specified"),
    // Services.
    ("-A -t 10.0.0.1", "2 Zero port specified for non-persistent service"),
    ("-E -t 10.0.0.1:0", "2 Zero port specified for non-persistent service"),
    ("-A --sctp-service 10.0.0.1:80 -o", "2 One-Packet Scheduling is only for UDP virtual services"),
    ("-A -t 10.0.0.1:80 -s mh -b sh-port", "2 incompatible scheduler flag `sh-port'"),
    ("-A -t 10.0.0.1:80 -b mh-fallback", "2 incompatible scheduler flag `mh-fallback'"),
    // Servers and tunnels.
    (
        "-a -t 10.0.0.1:80 -r [fd00::1]:80 -m",
        "2 Different address family is allowed only for tunneling servers",
    ),
    ("-a -t 10.0.0.1:80 -r 10.0.0.2 --tun-type gue", "2 Tunnel options conflict with forward method"),
    ("-a -t 10.0.0.1:80 -r 10.0.0.2 -i --tun-type vxlan", "2 illegal tunnel type specified"),
    ("-a -t 10.0.0.1:80 -r 10.0.0.2 -i --tun-port 0", "2 illegal tunnel port specified"),
    ("-a -t 10.0.0.1:80 -r 10.0.0.2 -i --tun-port 65536", "2 illegal tunnel port specified"),
    (
        "-a -t 10.0.0.1:80 -r 10.0.0.2 -i --tun-port 5",
        "2 Illegal 'tun-port' option with the 'ipip' tunnel type",
    ),
    (
        "-a -t 10.0.0.1:80 -r 10.0.0.2 -i --tun-type gre --tun-remcsum",
        "2 Illegal 'tun-remcsum' option with the 'gre' tunnel type",
    ),
    (
        "-a -t 10.0.0.1:80 -r 10.0.0.2 -i --tun-type gue --tun-port 5 --tun-csum --tun-nocsum",
        "2 The option 'tun-csum' conflicts with the 'tun-nocsum' option in the 'gue' tunnel type",
    ),
    // The synchronisation daemon.
    ("--start-daemon", "255 Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("--start-daemon both", "2 illegal start-daemon parameter specified"),
    ("--stop-daemon both", "2 illegal start_daemon specified"),
    ("--start-daemon master --syncid 256", "2 illegal syncid specified"),
    ("--start-daemon master --mcast-group 10.0.0.1", "2 invalid IPv4 mcast-group `10.0.0.1'"),
    ("--start-daemon master --mcast-group fd00::1", "2 invalid IPv6 mcast-group `fd00::1'"),
    ("--start-daemon master --mcast-port 0", "2 illegal mcast-port specified"),
    ("--start-daemon master --mcast-ttl 0", "2 illegal mcast-ttl specified"),
    ("--start-daemon master --sync-maxlen 65508", "2 illegal sync-maxlen specified"),
];

#[test]
fn every_mistake_of_usage_has_its_own_words() {
    for (line, expected) in MISTAKES {
        assert_eq!(refused(line), *expected, "{line}");
    }
}

#[test]
fn services_are_read_with_all_their_options() {
    let key = tcp("10.0.0.100", 80);
    let plain = || service(key.clone(), "wlc");
    let table = [
        ("-A -t 10.0.0.100:80", plain()),
        ("-A -t www:http", plain()),
        ("--add-service --tcp-service 10.0.0.100:80 --scheduler=wlc", plain()),
        ("-A -t 10.0.0.100:80 -s sixteen-letters-x", service(key.clone(), "sixteen-letters")),
        ("-A -t 10.0.0.100:80 -p", Service { persistence_seconds: 360, ..plain() }),
        ("-A -t 10.0.0.100:80 -p 50", Service { persistence_seconds: 50, ..plain() }),
        (
            "-A -t 10.0.0.100:80 -p -M 255.255.0.0",
            Service { persistence_seconds: 360, persistence_prefix: Some(16), ..plain() },
        ),
        (
            "-A -M 255.255.0.0 -p 9 -t 10.0.0.100:80",
            Service { persistence_seconds: 9, persistence_prefix: Some(16), ..plain() },
        ),
        ("-A -t 10.0.0.100:80 -p -M 255.255.255.255", Service { persistence_seconds: 360, ..plain() }),
        ("-A -t 10.0.0.100:80 -M 255.255.0.0", plain()),
        (
            "-A -t 10.0.0.100:80 -p 9 --pe sip",
            Service { persistence_seconds: 9, persistence_engine: "sip".into(), ..plain() },
        ),
        (
            "-A -t 10.0.0.100:80 -s sh -b sh-port,flag-1",
            Service {
                scheduler_flags: vec!["sh-fallback".into(), "sh-port".into()],
                ..service(key.clone(), "sh")
            },
        ),
        (
            "-A -t 10.0.0.100 -p 120",
            Service { persistence_seconds: 120, ..service(tcp("10.0.0.100", 0), "wlc") },
        ),
        (
            "-A -u 10.0.0.100:53 -o",
            Service { one_packet: true, ..service(address_key(Protocol::Udp, "10.0.0.100", 53), "wlc") },
        ),
        ("-A --sctp-service 10.0.0.100:53", service(address_key(Protocol::Sctp, "10.0.0.100", 53), "wlc")),
        ("-A -f 10 -s rr", service(mark_key(10, false), "rr")),
        ("-A -f 10 -6 -s rr", service(mark_key(10, true), "rr")),
        (
            "-A -t [fd00:1::100]:81 -s rr -p 60 -M 64",
            Service {
                persistence_seconds: 60,
                persistence_prefix: Some(64),
                ..service(tcp("fd00:1::100", 81), "rr")
            },
        ),
    ];
    for (line, expected) in table {
        assert_eq!(parsed(line), Command::AddService(expected.clone()), "{line}");
        let edit = line.replacen("-A", "-E", 1).replacen("--add-service", "--edit-service", 1);
        assert_eq!(parsed(&edit), Command::EditService(expected), "{edit}");
    }
}

#[test]
fn servers_are_read_with_all_their_options() {
    use ForwardingMethod::{Direct, Nat, Tunnel as Tun};
    let tunnelled = |kind: tunnel::Kind, port, checksum: tunnel::Checksum| Server {
        tunnel: Some(Tunnel { kind: kind.into(), port, checksum: checksum.into() }),
        ..server("10.0.1.2", 80, Tun, 1)
    };
    let table = [
        ("-r 10.0.1.2", server("10.0.1.2", 80, Direct, 1)),
        // Direct routing and tunnels cannot change the port.
        ("-r 10.0.1.2:8080 -g", server("10.0.1.2", 80, Direct, 1)),
        ("-r 10.0.1.2:8080 -m", server("10.0.1.2", 8080, Nat, 1)),
        ("-r 10.0.1.2 --masquerading", server("10.0.1.2", 80, Nat, 1)),
        ("-r 10.0.1.2:80 -w 0", server("10.0.1.2", 80, Direct, 0)),
        ("-r 10.0.1.2:80 -w 70000", server("10.0.1.2", 80, Direct, 70000)),
        (
            "-r 10.0.1.2:80 -x 100 -y 50",
            Server { upper_threshold: 100, lower_threshold: 50, ..server("10.0.1.2", 80, Direct, 1) },
        ),
        ("-r 10.0.1.2:99 -i", tunnelled(tunnel::Kind::Ipip, 0, tunnel::Checksum::None)),
        (
            "-r 10.0.1.2 -i --tun-type gue --tun-port 6080",
            tunnelled(tunnel::Kind::Gue, 6080, tunnel::Checksum::None),
        ),
        (
            "-r 10.0.1.2 -i --tun-type gue --tun-port 6080 --tun-remcsum",
            tunnelled(tunnel::Kind::Gue, 6080, tunnel::Checksum::Remote),
        ),
        ("-r 10.0.1.2 -i --tun-type gre --tun-csum", tunnelled(tunnel::Kind::Gre, 0, tunnel::Checksum::On)),
        (
            "-r [fd00::2] -i",
            Server { address: "fd00::2".into(), ..tunnelled(tunnel::Kind::Ipip, 0, tunnel::Checksum::None) },
        ),
    ];
    let key = tcp("10.0.0.100", 80);
    for (options, expected) in table {
        let add = Command::AddServer(key.clone(), expected.clone());
        assert_eq!(parsed(&format!("-a -t 10.0.0.100:80 {options}")), add, "{options}");
        assert_eq!(parsed(&format!("-a {options} -t 10.0.0.100:80")), add, "{options}");
        let edit = Command::EditServer(key.clone(), expected);
        assert_eq!(parsed(&format!("-e -t 10.0.0.100:80 {options}")), edit, "{options}");
    }
    assert_eq!(
        parsed("-a -f 5 -r 10.0.1.2:8080 -g"),
        Command::AddServer(mark_key(5, false), server("10.0.1.2", 8080, Direct, 1))
    );
    assert_eq!(
        parsed("-d -t 10.0.0.100:80 -r 10.0.1.2:8080"),
        Command::DeleteServer(key.clone(), "10.0.1.2".into(), 8080)
    );
    assert_eq!(parsed("-d -t 10.0.0.100:80 -r 10.0.1.2"), Command::DeleteServer(key, "10.0.1.2".into(), 80));
}

#[test]
fn the_other_commands_are_read() {
    let list =
        |columns, numeric| Command::List(Listing::Services, Format { columns, numeric, ..Format::default() });
    let numeric = Format { numeric: true, ..Format::default() };
    let table = [
        ("", list(Columns::Default, false)),
        ("-L", list(Columns::Default, false)),
        ("-l", list(Columns::Default, false)),
        ("--list --numeric", list(Columns::Default, true)),
        ("-ln", list(Columns::Default, true)),
        ("-Ln --sort", list(Columns::Default, true)),
        ("-Ln --stats", list(Columns::Stats, true)),
        ("-Ln --rate --stats", list(Columns::Stats, true)),
        ("-Ln --rate", list(Columns::Rate, true)),
        ("-Ln --thresholds", list(Columns::Thresholds, true)),
        ("-Ln --persistent-conn", list(Columns::PersistentConn, true)),
        ("-Ln --tun-info", list(Columns::TunInfo, true)),
        (
            "-LnX --nosort",
            Command::List(Listing::Services, Format { exact: true, unsorted: true, ..numeric }),
        ),
        ("-Lnc", Command::List(Listing::Connections, numeric)),
        ("-L -n -t 10.0.0.100:80", Command::List(Listing::Service(tcp("10.0.0.100", 80)), numeric)),
        ("-Ln -f 10", Command::List(Listing::Service(mark_key(10, false)), numeric)),
        ("-L --timeout", Command::List(Listing::Timeouts, Format::default())),
        ("-L --daemon", Command::List(Listing::Daemon, Format::default())),
        ("-D -t 10.0.0.100:80", Command::DeleteService(tcp("10.0.0.100", 80))),
        ("-C", Command::Clear),
        ("--clear", Command::Clear),
        ("-Z", Command::Zero(None)),
        ("-Z -u 10.0.0.100:53", Command::Zero(Some(address_key(Protocol::Udp, "10.0.0.100", 53)))),
        (
            "--set 100 0 2678400",
            Command::SetTimeouts(Timeouts { tcp_seconds: 100, tcp_fin_seconds: 0, udp_seconds: 2_678_400 }),
        ),
        ("-S", Command::Save(Format::default())),
        ("--save -n", Command::Save(numeric)),
        ("-R", Command::Restore),
        ("-h", Command::Help),
        ("--help", Command::Help),
        ("-v", Command::Version),
        (
            "--start-daemon master --mcast-interface eth0 --syncid 1 --mcast-group 224.0.0.81 --mcast-port 8848 \
             --mcast-ttl 1 --sync-maxlen 1472",
            Command::StartDaemon,
        ),
        ("--stop-daemon backup --syncid 1", Command::StopDaemon),
    ];
    for (line, expected) in table {
        assert_eq!(parsed(line), expected, "{line}");
    }
}

fn any_service() -> impl Strategy<Value = Service> {
    let key = prop_oneof![
        (any::<[u8; 4]>(), 1..=65535u32, 0..3usize).prop_map(|(ip, port, protocol)| {
            let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][protocol];
            address_key(protocol, &std::net::Ipv4Addr::from(ip).to_string(), port)
        }),
        (any::<u128>(), 1..=65535u32)
            .prop_map(|(ip, port)| tcp(&std::net::Ipv6Addr::from(ip).to_string(), port)),
        (1..=u32::MAX, any::<bool>()).prop_map(|(mark, ipv6)| mark_key(mark, ipv6)),
    ];
    let scheduler = prop_oneof![
        Just(("rr", vec![])),
        Just(("sh", vec!["sh-fallback", "sh-port"])),
        Just(("mh", vec!["mh-port"])),
        Just(("wlc", vec!["flag-1", "flag-3"])),
    ];
    (key, scheduler, 0..=2_678_400u32, proptest::option::of(1..32u32)).prop_map(
        |(key, (scheduler, flags), persistence_seconds, prefix)| Service {
            scheduler_flags: flags.into_iter().map(str::to_owned).collect(),
            persistence_seconds,
            persistence_prefix: prefix.filter(|_| persistence_seconds > 0),
            ..service(key, scheduler)
        },
    )
}

fn any_server(of: &Service) -> impl Strategy<Value = Server> + use<> {
    use ForwardingMethod::{Direct, Nat, Tunnel as Tun};
    let (ipv6, service_port) = match of.key.clone().and_then(|key| key.key) {
        Some(pointsman_proto::v1::service_key::Key::Address(a)) => (a.address.contains(':'), Some(a.port)),
        Some(pointsman_proto::v1::service_key::Key::Mark(mark)) => (mark.ipv6, None),
        None => (false, None),
    };
    let kinds = prop_oneof![
        Just((tunnel::Kind::Ipip, 0, tunnel::Checksum::None)),
        Just((tunnel::Kind::Gue, 6080, tunnel::Checksum::Remote)),
        Just((tunnel::Kind::Gre, 0, tunnel::Checksum::On)),
    ];
    (any::<u128>(), 0..=65535u32, 0..3usize, 0..=70_000u32, (0..9u32, 0..9u32), kinds).prop_map(
        move |(ip, port, method, weight, (upper, lower), (kind, tunnel_port, checksum))| {
            let method = [Direct, Nat, Tun][method];
            let address = if ipv6 {
                std::net::Ipv6Addr::from(ip).to_string()
            } else {
                std::net::Ipv4Addr::from(ip as u32).to_string()
            };
            let port = if method == Nat { port } else { service_port.unwrap_or(port) };
            let tunnel = Tunnel { kind: kind.into(), port: tunnel_port, checksum: checksum.into() };
            Server {
                upper_threshold: upper,
                lower_threshold: lower,
                tunnel: (method == Tun).then_some(tunnel),
                ..server(&address, port, method, weight)
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_saved_is_read_back_as_it_was(
        (service, server) in any_service().prop_flat_map(|service| {
            let server = any_server(&service);
            (Just(service), server)
        })
    ) {
        let format = Format { numeric: true, ..Format::default() };
        let rules = rules_text(&[status(service.clone(), vec![server.clone()])], format, true, &NoNames);
        let commands: Vec<Command> = rules
            .lines()
            .map(|line| parse(&arguments(line).unwrap(), &NoNames).unwrap())
            .collect();
        let key = service.key.clone().unwrap();
        prop_assert_eq!(commands, vec![Command::AddService(service), Command::AddServer(key, server)]);
    }

    #[test]
    fn no_command_line_makes_the_parser_panic(line in proptest::collection::vec("-{0,2}[A-Za-z0-9=:\\[\\]., é-]{0,12}", 0..8)) {
        let _ = parse(&line, &NoNames);
    }
}
