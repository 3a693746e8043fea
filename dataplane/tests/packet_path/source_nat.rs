//! A NATed server's own traffic: routed, and by a rule from another address.

use crate::support::{
    Lab, Plan, Size, TCP, UDP,
    frames::{ACK, C0, D0, D1, Ip, R1, R2, R3, RST, SYN, echo, ethernet, icmp_packet, tcp, udp_packet},
    text::text,
};
use pointsman_dataplane::{
    prefix::Prefix,
    routing::{Forwarding, SourceNat},
    scheduler::Kind,
    verdict::DropReason,
};

const VIP: &str = "10.0.0.100:80";

fn plan() -> Plan {
    Plan::new().service(VIP, TCP, Kind::Rr, 1).natted(0, 8080)
}

fn with_rule() -> Plan {
    let mut plan = plan();
    plan.source_nat.push(SourceNat {
        source: Prefix::new([192, 168, 50, 0].into(), 24),
        port: Some(0),
        address: [10, 0, 0, 100].into(),
    });
    plan
}

fn lower(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[8] -= 1;
    packet[10..12].fill(0);
    let sum = crate::support::frames::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn a_nated_server_s_own_packets_are_routed_as_they_are() {
    for workers in [1, 2] {
        let mut lab = Lab::sized(plan(), Size { workers, ..Size::default() });
        let syn = tcp("192.168.50.11:9999", "10.0.0.2:4000", SYN).packet();
        assert_eq!(lab.send_by(1, &[ethernet(D1, R1, &syn)]), [ethernet(C0, D0, &lower(&syn))]);
        let answer = tcp("10.0.0.2:4000", "192.168.50.11:9999", SYN | ACK).packet();
        assert_eq!(lab.send(&[ethernet(D0, C0, &answer)]), [ethernet(R1, D1, &lower(&answer))]);
        let mut ping = echo("192.168.50.11", "10.0.0.2");
        ping[..12].copy_from_slice(&[D1, R1].concat());
        assert_eq!(lab.send_by(1, &[ping.clone()]), [ethernet(C0, D0, &lower(&ping[14..]))]);
        // Another station there is no server.
        let other = tcp("192.168.50.13:9999", "10.0.0.2:4000", SYN).packet();
        assert!(lab.send_by(1, &[ethernet(D1, R3, &other)]).is_empty());
        assert_eq!((lab.punted(), lab.connections()), (1, 0));
        lab.plan.forwarding = Forwarding::All;
        lab.publish();
        assert_eq!(lab.send_by(1, &[ethernet(D1, R3, &other)]), [ethernet(C0, D0, &lower(&other))]);
        lab.plan.forwarding = Forwarding::Off;
        lab.publish();
        assert!(lab.send_by(1, &[ethernet(D1, R1, &syn)]).is_empty());
        lab.assert_accounted(0);
    }
}

#[test]
fn packets_to_the_host_and_to_many_stations_are_not_routed() {
    let mut plan = plan();
    plan.forwarding = Forwarding::All;
    let mut lab = Lab::new(plan);
    for to in ["192.168.50.1:22", "10.0.0.1:22", "224.0.0.18:22", "255.255.255.255:22", "127.0.0.1:22"] {
        let frame = ethernet(D1, R1, &udp_packet("192.168.50.11:9999", to, b"x", &Ip::default()));
        assert!(lab.send_by(1, &[frame]).is_empty(), "{to}");
    }
    assert_eq!(lab.punted(), 5);
}

#[test]
fn a_rule_gives_packets_another_source_and_answers_find_their_way_back() {
    for workers in [1, 2, 3] {
        let mut lab = Lab::sized(with_rule(), Size { workers, ..Size::default() });
        for n in 0..40_u16 {
            let (inside, far) = (format!("192.168.50.11:{}", 3000 + n), format!("10.0.0.2:{}", 80 + n));
            let outside = format!("10.0.0.100:{}", 3000 + n);
            let out = lab.send_by(1, &[ethernet(D1, R1, &tcp(&inside, &far, SYN).packet())]);
            let expected = lower(&tcp(&outside, &far, SYN).packet());
            assert_eq!(out, [ethernet(C0, D0, &expected)], "{workers} workers: the port stays");
            let out = lab.send(&[ethernet(D0, C0, &tcp(&far, &outside, SYN | ACK).packet())]);
            assert_eq!(out, [ethernet(R1, D1, &lower(&tcp(&far, &inside, SYN | ACK).packet()))]);
            let out = lab.send_by(1, &[ethernet(D1, R1, &tcp(&inside, &far, ACK).len(7).packet())]);
            assert_eq!(out, [ethernet(C0, D0, &lower(&tcp(&outside, &far, ACK).len(7).packet()))]);
        }
        assert_eq!(lab.connections(), 40);
        let record = lab.list().remove(0);
        assert!(record.outbound && record.state == "ESTABLISHED", "{record:?}");
        lab.assert_accounted(0);
        lab.run(901_600);
        assert_eq!(lab.connections(), 0);
    }
}

#[test]
fn two_senders_of_one_port_get_two_and_none_gets_a_services() {
    let mut lab = Lab::new(with_rule());
    let port_of = |frame: &[u8]| u16::from_be_bytes([frame[34], frame[35]]);
    let mut ports = Vec::new();
    for host in [11, 12, 13] {
        let packet = udp_packet(&format!("192.168.50.{host}:5000"), "10.0.0.2:53", b"ping", &Ip::default());
        let out = lab.send_by(1, &[ethernet(D1, R1, &packet)]);
        assert_eq!(out[0][26..30], [10, 0, 0, 100]);
        ports.push(port_of(&out[0]));
    }
    assert_eq!(ports[0], 5000);
    assert!(ports[1] != ports[0] && ports[2] != ports[0] && ports[1] != ports[2], "{ports:?}");
    for (port, host) in ports.iter().zip([11, 12, 13]) {
        let answer = udp_packet("10.0.0.2:53", &format!("10.0.0.100:{port}"), b"pong", &Ip::default());
        let out = lab.send(&[ethernet(D0, C0, &answer)]);
        let expected = udp_packet("10.0.0.2:53", &format!("192.168.50.{host}:5000"), b"pong", &Ip::default());
        assert_eq!(out[0][14..], lower(&expected), "{host}");
    }
    // Port 80 is the service's.
    let out = lab.send_by(1, &[ethernet(D1, R1, &tcp("192.168.50.11:80", "10.0.0.2:9", SYN).packet())]);
    assert!(port_of(&out[0]) >= 1024, "{}", text(&out[0]));
}

#[test]
fn the_ports_to_one_station_come_to_an_end_and_that_is_counted() {
    let mut lab = Lab::sized(with_rule(), Size { connections: 200_000, ..Size::default() });
    let mut ports = std::collections::HashSet::new();
    let mut left = 0;
    for n in 0..70_000_u32 {
        let inside = format!("192.168.50.{}:{}", 11 + n / 60_000, 2_000 + n % 60_000);
        let out =
            lab.send_by(1, &[ethernet(D1, R1, &udp_packet(&inside, "10.0.0.2:53", b"x", &Ip::default()))]);
        for frame in out {
            left += 1;
            assert!(ports.insert(u16::from_be_bytes([frame[34], frame[35]])), "given once");
        }
    }
    let refused = lab.drops(DropReason::PortsExhausted);
    assert_eq!(left + refused, 70_000);
    assert!(left > 64_000, "{left}");
    // Another station is spoken to all the same.
    let other = udp_packet("192.168.50.11:2000", "10.0.0.3:53", b"x", &Ip::default());
    assert_eq!(lab.send_by(1, &[ethernet(D1, R1, &other)]).len(), 1);
}

#[test]
fn a_ping_leaves_by_the_rule_and_its_answer_comes_back_to_who_asked() {
    for workers in [1, 2, 3] {
        let mut lab = Lab::sized(with_rule(), Size { workers, ..Size::default() });
        let ping = |kind: u8, from: &str, to: &str, id: u16, ttl: u8| {
            let [a, b] = id.to_be_bytes();
            let message = [&[kind, 0, 0, 0, a, b, 0, 1][..], b"abcdefgh"].concat();
            icmp_packet(from.parse().unwrap(), to.parse().unwrap(), &message, &Ip { ttl, ..Ip::default() })
        };
        let mut ids = Vec::new();
        for server in ["192.168.50.11", "192.168.50.12"] {
            let out = lab.send_by(1, &[ethernet(D1, R1, &ping(8, server, "10.0.0.2", 5, 64))]);
            let id = u16::from_be_bytes([out[0][38], out[0][39]]);
            assert_eq!(out[0][14..], ping(8, "10.0.0.100", "10.0.0.2", id, 63), "{workers} workers");
            ids.push(id);
        }
        assert!(ids[0] == 5 && ids[1] != 5, "{ids:?}");
        for (server, id) in ["192.168.50.11", "192.168.50.12"].into_iter().zip(ids) {
            let out = lab.send(&[ethernet(D0, C0, &ping(0, "10.0.0.2", "10.0.0.100", id, 64))]);
            assert_eq!(out[0][14..], ping(0, "10.0.0.2", server, 5, 63), "{workers} workers");
        }
        // The virtual address itself answers pings as ever.
        assert_eq!(lab.says(echo("10.0.0.2", "10.0.0.100")).len(), 1);
        lab.run(31_000);
        assert_eq!(lab.connections(), 0);
        lab.assert_accounted(0);
    }
}

#[test]
fn errors_about_translated_packets_find_the_sender() {
    for workers in [1, 2] {
        let mut lab = Lab::sized(with_rule(), Size { workers, ..Size::default() });
        let (inside, outside, far) = ("192.168.50.11:3000", "10.0.0.100:3000", "10.0.0.2:53");
        let packet = |from: &str| udp_packet(from, far, b"ping", &Ip::default());
        lab.send_by(1, &[ethernet(D1, R1, &packet(inside))]);
        let error = |to: &str, quoted: &[u8], ttl: u8| {
            let message = [&[3, 3, 0, 0, 0, 0, 0, 0][..], quoted].concat();
            let ip = Ip { ttl, ..Ip::default() };
            icmp_packet("10.0.0.2".parse().unwrap(), to.parse().unwrap(), &message, &ip)
        };
        let out = lab.send(&[ethernet(D0, C0, &error("10.0.0.100", &packet(outside), 64))]);
        let mut quoted = packet(inside);
        quoted[26..28].copy_from_slice(&packet(outside)[26..28]);
        assert_eq!(out, [ethernet(R1, D1, &error("192.168.50.11", &quoted, 63))], "{workers} workers");
    }
}

#[test]
fn a_connection_that_another_of_its_batch_pushes_out_begins_anew() {
    // Room for one connection. The packet after the one that takes its place was found before that.
    let mut lab = Lab::sized(with_rule(), Size { connections: 2, ..Size::default() });
    let syn = |inside: &str, far: &str| tcp(inside, far, SYN).packet();
    let (first, second) = (("192.168.50.11:3000", "10.0.0.2:4000"), ("192.168.50.12:3001", "10.0.0.2:4001"));
    lab.send_by(1, &[ethernet(D1, R1, &syn(first.0, first.1))]);
    let frames = [ethernet(D1, R2, &syn(second.0, second.1)), ethernet(D1, R1, &syn(first.0, first.1))];
    let expected = ["10.0.0.100:3001", "10.0.0.100:3000"].into_iter().zip([second.1, first.1]);
    let expected: Vec<_> = expected.map(|(from, far)| ethernet(C0, D0, &lower(&syn(from, far)))).collect();
    assert_eq!(lab.send_by(1, &frames), expected);
    assert_eq!((lab.lives(), lab.connections()), ((3, 0, 2), 1));
    lab.assert_accounted(0);
}

#[test]
fn what_cannot_be_translated_does_not_leave_with_an_inner_address() {
    let mut lab = Lab::new(with_rule());
    let reset = tcp("192.168.50.11:3000", "10.0.0.2:53", RST).packet();
    assert!(lab.send_by(1, &[ethernet(D1, R1, &reset)]).is_empty());
    assert_eq!(lab.drops(DropReason::ResetUnmatched), 1);
    // An error about nothing, and a protocol that has nothing to tell senders apart by.
    let about = tcp("10.0.0.2:1", "192.168.50.11:2", ACK).packet();
    let message = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &about].concat();
    let (from, to) = ([192, 168, 50, 11].into(), [10, 0, 0, 2].into());
    for packet in
        [icmp_packet(from, to, &message, &Ip::default()), Ip::default().packet(from, to, 50, &[9; 40])]
    {
        assert!(lab.send_by(1, &[ethernet(D1, R1, &packet)]).is_empty());
    }
    let reasons = [DropReason::IcmpUnmatched, DropReason::ProtocolUnsupported];
    assert_eq!(reasons.map(|reason| lab.drops(reason)), [1, 1]);
    let mut lab = Lab::new(with_rule().service("10.0.0.100:53", UDP, Kind::Rr, 1));
    // A packet by another port than the rule's keeps its source.
    let between = udp_packet("192.168.50.11:3000", "192.168.50.12:7", b"x", &Ip::default());
    let out = lab.send_by(1, &[ethernet(D1, R1, &between)]);
    assert_eq!(out[0][14..], lower(&between));
}
