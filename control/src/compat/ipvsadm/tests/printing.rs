//! Lists, as the original printed them. Expectations are cut out of the recordings in `tests/oracle/golden`; where
//! these have blanks at the ends of lines cut off, so has the comparison.

use pointsman_proto::v1::{
    Connection, Counters, ForwardingMethod, Protocol, Rates, Server, Service, ServiceStatus, Timeouts,
    Tunnel, tunnel,
};

use super::super::{
    Columns, Format, NoNames, connection_line, connections_title, rules_text, services_text, timeouts_text,
};
use super::{Known, address_key, mark_key, server, service, status, tcp};

use ForwardingMethod::{Direct, Local, Nat, Tunnel as Tun};

const NUMERIC: Format = Format { columns: Columns::Default, numeric: true, exact: false, unsorted: false };

/// The answer to the `nth` time that `command` was given, in the recording of `cli-errors`.
fn recorded(command: &str, nth: usize) -> String {
    let recording = include_str!("../../../../../tests/oracle/golden/cli-errors.out");
    let start = format!("$ {command}");
    let mut answers = recording.lines().enumerate().filter(|(_, line)| *line == start);
    let (at, _) = answers.nth(nth).unwrap();
    let answer = recording.lines().skip(at + 2).take_while(|line| line.starts_with("  "));
    answer.map(|line| line[2..].to_owned() + "\n").collect()
}

fn trimmed(text: &str) -> String {
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// The table of the scenario `cli-errors` when it is first listed, in another order than it is printed in.
fn table() -> Vec<ServiceStatus> {
    let gre = Tunnel { kind: tunnel::Kind::Gre.into(), port: 0, checksum: tunnel::Checksum::None.into() };
    let web = vec![
        server("192.168.50.15", 80, Direct, 70000),
        server("192.168.50.11", 80, Direct, 3),
        server("192.168.50.12", 80, Direct, 1),
        Server { upper_threshold: 100, lower_threshold: 50, ..server("192.168.50.13", 8080, Nat, 5) },
        Server { tunnel: Some(Tunnel::default()), ..server("192.168.50.14", 80, Tun, 1) },
        Server { tunnel: Some(gre), ..server("192.168.50.16", 80, Tun, 1) },
    ];
    let marked = Service {
        persistence_seconds: 50,
        persistence_prefix: Some(16),
        ..service(mark_key(6, false), "rr")
    };
    let maglev = Service { scheduler_flags: vec!["mh-port".into()], ..service(tcp("10.0.0.103", 80), "mh") };
    let held = Service { persistence_seconds: 300, ..service(tcp("10.0.0.102", 80), "wlc") };
    vec![
        status(marked, vec![]),
        status(service(mark_key(5, false), "rr"), vec![]),
        status(maglev, vec![]),
        status(held, vec![]),
        status(service(tcp("10.0.0.100", 80), "wlc"), web),
    ]
}

#[test]
fn every_list_of_services_is_the_recorded_one() {
    let of = |columns| Format { columns, ..NUMERIC };
    let lists = [
        ("-Ln", of(Columns::Default)),
        ("-Ln --thresholds", of(Columns::Thresholds)),
        ("-Ln --tun-info", of(Columns::TunInfo)),
        ("-Ln --rate --stats", of(Columns::Stats)),
    ];
    for (command, format) in lists {
        assert_eq!(
            trimmed(&services_text(&table(), true, format, &NoNames)),
            recorded(command, 0),
            "{command}"
        );
    }
    let one = services_text(&table()[4..], false, NUMERIC, &NoNames);
    assert_eq!(trimmed(&one), recorded("-L -n -t 10.0.0.100:80", 0));
    assert_eq!(trimmed(&services_text(&[], true, NUMERIC, &NoNames)), recorded("-Ln", 2));
}

#[test]
fn ipv6_services_stand_between_ipv4_and_marks() {
    let mut services = table();
    services.push(status(
        Service {
            persistence_seconds: 60,
            persistence_prefix: Some(64),
            ..service(tcp("fd00:1::100", 81), "rr")
        },
        vec![],
    ));
    services.push(status(service(tcp("fd00:1::100", 80), "rr"), vec![server("fd00:50::11", 80, Direct, 1)]));
    assert_eq!(trimmed(&services_text(&services, true, NUMERIC, &NoNames)), recorded("-Ln", 1));
}

#[test]
fn the_saved_rules_are_the_recorded_ones() {
    assert_eq!(rules_text(&table(), NUMERIC, false, &NoNames), recorded("-Sn", 0));
}

#[test]
fn rules_with_thresholds_say_them() {
    let rules = rules_text(&table(), NUMERIC, true, &NoNames);
    assert!(rules.contains("-a -t 10.0.0.100:80 -r 192.168.50.13:8080 -m -w 5 -x 100 -y 50\n"), "{rules}");
}

#[test]
fn blanks_at_the_ends_of_lines_are_kept() {
    let text = services_text(&table()[4..], false, NUMERIC, &NoNames);
    let expected = "  -> 192.168.50.11:80             Route   3      0          0         \n";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn unsorted_is_the_order_of_the_director() {
    let format = Format { unsorted: true, ..NUMERIC };
    let text = services_text(&table(), false, format, &NoNames);
    let first: Vec<&str> = text.lines().skip(2).take(2).collect();
    assert_eq!(first, ["FWM  6 rr persistent 50 mask 255.255.0.0", "FWM  5 rr"]);
}

#[test]
fn persistent_connections_have_their_columns() {
    let mut of = status(
        Service { persistence_seconds: 120, ..service(tcp("10.0.0.100", 0), "rr") },
        vec![server("192.168.50.11", 0, Direct, 1), server("192.168.50.12", 0, Direct, 1)],
    );
    for (server, active) in of.servers.iter_mut().zip([2, 3]) {
        server.persistent_connections = 1;
        server.active_connections = active;
    }
    let format = Format { columns: Columns::PersistentConn, ..NUMERIC };
    let expected = "IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn
  -> RemoteAddress:Port
TCP  10.0.0.100:0 rr persistent 120
  -> 192.168.50.11:0              1         1           2          0
  -> 192.168.50.12:0              1         1           3          0
";
    assert_eq!(trimmed(&services_text(&[of], true, format, &NoNames)), expected);
}

/// From the recording of `dr-rr`.
#[test]
fn counters_stand_in_their_columns() {
    let mut of = status(service(tcp("10.0.0.100", 80), "rr"), vec![server("192.168.50.11", 80, Direct, 1)]);
    of.counters = Some(Counters { connections: 4, packets_in: 7, bytes_in: 316, ..Counters::default() });
    of.servers[0].counters =
        Some(Counters { connections: 1, packets_in: 1, bytes_in: 44, ..Counters::default() });
    let format = Format { columns: Columns::Stats, ..NUMERIC };
    let expected = "IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  10.0.0.100:80                       4        7        0      316        0
  -> 192.168.50.11:80                    1        1        0       44        0
";
    assert_eq!(services_text(&[of], true, format, &NoNames), expected);
}

#[test]
fn large_numbers_get_a_unit_unless_exact() {
    let table = [
        (0, "        0", "        0"),
        (99_999_999, " 99999999", " 99999999"),
        (100_000_000, "  100000K", " 100000000"),
        (999_999_999, "  999999K", " 999999999"),
        (1_000_000_000, "    1000M", " 1000000000"),
        (99_999_999_999, "   99999M", " 99999999999"),
        (100_000_000_000, "     100G", " 100000000000"),
        (99_999_999_999_999, "   99999G", " 99999999999999"),
        (100_000_000_000_000, "     100T", " 100000000000000"),
        (u64::MAX, "18446744T", " 18446744073709551615"),
    ];
    for (number, short, exact) in table {
        let mut of = status(service(tcp("10.0.0.100", 80), "rr"), vec![]);
        of.counters = Some(Counters { connections: number, ..Counters::default() });
        let line = |exact| {
            let format = Format { columns: Columns::Stats, exact, ..NUMERIC };
            services_text(std::slice::from_ref(&of), false, format, &NoNames)
                .lines()
                .last()
                .unwrap()
                .to_owned()
        };
        let rest = "        0        0        0        0";
        assert_eq!(line(false), format!("TCP  10.0.0.100:80               {short}{rest}"), "{number}");
        assert_eq!(line(true), format!("TCP  10.0.0.100:80               {exact}{rest}"), "{number}");
    }
}

#[test]
fn rates_count_connections_and_packets_in_full_and_bytes_with_a_unit() {
    let mut of = status(service(mark_key(7, true), "rr"), vec![server("fd00::1", 80, Direct, 1)]);
    let rates = Rates {
        connections: 123_456_789,
        packets_in: 2,
        packets_out: 3,
        bytes_in: 123_456_789,
        bytes_out: 5,
    };
    of.rates = Some(rates);
    of.servers[0].rates = Some(rates);
    let format = Format { columns: Columns::Rate, ..NUMERIC };
    let expected = "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS
  -> RemoteAddress:Port
FWM  7 IPv6                       123456789        2        3  123456K        5
  -> [fd00::1]:80                 123456789        2        3  123456K        5
";
    assert_eq!(services_text(&[of], false, format, &NoNames), expected);
}

#[test]
fn flags_persistence_mask_engine_and_one_packet_follow_the_scheduler_in_this_order() {
    let all = Service {
        scheduler_flags: vec!["sh-port".into(), "sh-fallback".into()],
        persistence_seconds: 60,
        persistence_prefix: Some(24),
        persistence_engine: "sip".into(),
        one_packet: true,
        ..service(address_key(Protocol::Udp, "10.0.0.100", 5060), "sh")
    };
    let text = services_text(&[status(all.clone(), vec![])], false, NUMERIC, &NoNames);
    assert!(
        text.ends_with(
            "UDP  10.0.0.100:5060 sh (sh-fallback,sh-port) persistent 60 mask 255.255.255.0 pe sip ops\n"
        ),
        "{text}"
    );
    assert_eq!(
        rules_text(&[status(all, vec![])], NUMERIC, false, &NoNames),
        "-A -u 10.0.0.100:5060 -s sh -p 60 -M 255.255.255.0 --pe sip -o -b sh-fallback,sh-port\n"
    );
}

/// The line for SCTP is from a listing of ipvsadm in kubernetes/kubernetes pull request 81477.
#[test]
fn sctp_and_local_servers_have_their_words() {
    let sctp = address_key(Protocol::Sctp, "10.0.2.15", 31514);
    let of = status(service(sctp, "rr"), vec![server("20.20.195.135", 1000, Local, 1)]);
    let text = services_text(std::slice::from_ref(&of), false, NUMERIC, &NoNames);
    assert!(text.contains("\nSCTP 10.0.2.15:31514 rr\n"), "{text}");
    assert!(text.contains("\n  -> 20.20.195.135:1000           Local   1 "), "{text}");
    assert_eq!(
        rules_text(&[of], NUMERIC, false, &NoNames),
        "-A --sctp-service 10.0.2.15:31514 -s rr\n-a --sctp-service 10.0.2.15:31514 -r 20.20.195.135:1000 -g -w 1\n"
    );
}

#[test]
fn tunnels_say_their_kind_port_and_checksum() {
    let with = |kind: tunnel::Kind, port, checksum: tunnel::Checksum| {
        let tunnel = Tunnel { kind: kind.into(), port, checksum: checksum.into() };
        let server = Server { tunnel: Some(tunnel), ..server("10.0.1.2", 80, Tun, 1) };
        let of = [status(service(tcp("10.0.0.100", 80), "rr"), vec![server])];
        let format = Format { columns: Columns::TunInfo, ..NUMERIC };
        let listed = services_text(&of, false, format, &NoNames);
        let info = listed.lines().last().unwrap().split_whitespace().nth(3).unwrap().to_owned();
        let rule = rules_text(&of, NUMERIC, false, &NoNames);
        (info, rule.split("-w 1").nth(1).unwrap().trim().to_owned())
    };
    let pair = |info: &str, rule: &str| (info.to_owned(), rule.to_owned());
    use tunnel::{Checksum, Kind};
    assert_eq!(with(Kind::Ipip, 0, Checksum::None), pair("ipip", "--tun-type ipip"));
    assert_eq!(
        with(Kind::Gue, 6080, Checksum::None),
        pair("gue:6080:-c", "--tun-type gue --tun-port 6080 --tun-nocsum")
    );
    assert_eq!(with(Kind::Gue, 7, Checksum::On), pair("gue:7:+c", "--tun-type gue --tun-port 7 --tun-csum"));
    assert_eq!(
        with(Kind::Gue, 7, Checksum::Remote),
        pair("gue:7:r+c", "--tun-type gue --tun-port 7 --tun-remcsum")
    );
    assert_eq!(with(Kind::Gre, 0, Checksum::None), pair("gre:-c", "--tun-type gre --tun-nocsum"));
}

#[test]
fn names_are_printed_without_n_and_cut_for_ipv4() {
    let of = status(service(tcp("10.0.0.100", 80), "rr"), vec![server("10.0.0.100", 81, Direct, 1)]);
    let named = Format { numeric: false, ..NUMERIC };
    let text = services_text(std::slice::from_ref(&of), false, named, &Known);
    assert!(text.contains("\nTCP  www:http rr\n  -> www:81                       Route "), "{text}");
    assert_eq!(
        rules_text(&[of], named, false, &Known),
        "-A -t www:http -s rr\n-a -t www:http -r www:81 -g -w 1\n"
    );

    struct Long;
    impl super::Names for Long {
        fn host_to_address(&self, _: &str) -> Option<std::net::Ipv4Addr> {
            None
        }
        fn service_to_port(&self, _: &str, _: Protocol) -> Option<u16> {
            None
        }
        fn address_to_host(&self, _: std::net::IpAddr) -> Option<String> {
            Some("a-name-of-forty-letters-or-rather-more.xx".to_owned())
        }
        fn port_to_service(&self, _: u16, _: Protocol) -> Option<String> {
            None
        }
    }
    let of = status(service(tcp("10.0.0.100", 80), "rr"), vec![server("10.0.0.101", 81, Direct, 1)]);
    let text = services_text(&[of], false, named, &Long);
    assert!(
        text.contains("\nTCP  a-name-of-forty-letters-or-r rr\n  -> a-name-of-forty-letters-or-r Route "),
        "{text}"
    );
}

fn connection(
    protocol: Protocol,
    ends: [(&str, u32); 3],
    state: &str,
    expires_milliseconds: u32,
) -> Connection {
    let [client, virtual_end, server] = ends;
    Connection {
        protocol: protocol.into(),
        client_address: client.0.into(),
        client_port: client.1,
        virtual_address: virtual_end.0.into(),
        virtual_port: virtual_end.1,
        server_address: server.0.into(),
        server_port: server.1,
        state: state.into(),
        expires_milliseconds,
        ..Connection::default()
    }
}

/// The lines are from the recordings of `tcp-states`, `ipv6`, `udp` and `persist-client`.
#[test]
fn connections_are_printed_as_recorded() {
    let v4 = [("10.0.0.2", 9101), ("10.0.0.100", 80), ("192.168.50.11", 80)];
    let v6 = [("fd00:1::2", 8004), ("fd00:1::100", 80), ("fd00:50::12", 8080)];
    let template = [("10.9.1.1", 0), ("10.0.0.100", 0), ("192.168.50.11", 0)];
    let table = [
        (
            connection(Protocol::Tcp, v4, "SYN_RECV", 60_000),
            "TCP 01:00  SYN_RECV    10.0.0.2:9101      10.0.0.100:80      192.168.50.11:80\n",
        ),
        (
            connection(Protocol::Tcp, v4, "ESTABLISHED", 900_999),
            "TCP 15:00  ESTABLISHED 10.0.0.2:9101      10.0.0.100:80      192.168.50.11:80\n",
        ),
        (
            connection(Protocol::Tcp, v6, "SYN_RECV", 60_000),
            "TCP 01:00  SYN_RECV    [fd00:1::2]:8004   [fd00:1::100]:80   [fd00:50::12]:8080\n",
        ),
        (
            connection(
                Protocol::Udp,
                [("10.0.0.2", 5002), ("10.0.0.100", 53), ("192.168.50.11", 53)],
                "UDP",
                300_000,
            ),
            "UDP 05:00  UDP         10.0.0.2:5002      10.0.0.100:53      192.168.50.11:53\n",
        ),
        (
            connection(Protocol::Tcp, template, "NONE", 120_000),
            "TCP 02:00  NONE        10.9.1.1:0         10.0.0.100:0       192.168.50.11:0\n",
        ),
        (
            connection(
                Protocol::Unspecified,
                [("10.9.1.1", 0), ("0.0.0.10", 0), ("192.168.50.11", 0)],
                "NONE",
                59_999,
            ),
            "IP  00:59  NONE        10.9.1.1:0         0.0.0.10:0         192.168.50.11:0\n",
        ),
    ];
    for (connection, expected) in table {
        assert_eq!(connection_line(&connection, NUMERIC, &NoNames), expected);
        let with_engines = Format { columns: Columns::PersistentConn, ..NUMERIC };
        assert_eq!(connection_line(&connection, with_engines, &NoNames), expected, "it has no engine");
    }
    assert_eq!(
        connections_title(NUMERIC),
        "IPVS connection entries\npro expire state       source             virtual            destination\n"
    );
}

/// The widths are those of ipvsadm, which are not those of its title.
#[test]
fn a_template_of_an_engine_is_printed_with_what_the_engine_knows() {
    let template = Connection {
        persistence_engine: "sip".into(),
        persistence_data: "a84b4c76e66710@pc33.atlanta.com".into(),
        ..connection(
            Protocol::Udp,
            [("10.9.1.1", 0), ("10.0.0.100", 5060), ("192.168.50.11", 5060)],
            "NONE",
            59_999,
        )
    };
    let with_engines = Format { columns: Columns::PersistentConn, ..NUMERIC };
    assert_eq!(
        connections_title(with_engines),
        "IPVS connection entries\n\
         pro expire state       source             virtual            destination        pe name          pe_data\n"
    );
    assert_eq!(
        connection_line(&template, with_engines, &NoNames),
        "UDP 00:59  NONE        10.9.1.1:0         10.0.0.100:5060    192.168.50.11:5060 \
         sip                a84b4c76e66710@pc33.atlanta.com\n"
    );
    assert_eq!(
        connection_line(&template, NUMERIC, &NoNames),
        "UDP 00:59  NONE        10.9.1.1:0         10.0.0.100:5060    192.168.50.11:5060\n"
    );
}

#[test]
fn timeouts_are_printed_as_recorded() {
    let timeouts = Timeouts { tcp_seconds: 900, tcp_fin_seconds: 120, udp_seconds: 300 };
    assert_eq!(timeouts_text(&timeouts), recorded("-L --timeout", 0));
    assert_eq!(timeouts_text(&Timeouts { tcp_seconds: 100, ..timeouts }), recorded("-L --timeout", 1));
}
