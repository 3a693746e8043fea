//! NAT: destination and port rewritten, answers rewritten back, whoever owns the flow; errors with what they quote.

use crate::support::{
    Lab, Plan, Size, TCP, UDP,
    frames::{
        ACK, C0, D0, D1, FIN, Ip, R1, R2, RST, SYN, Segment, data, ethernet, icmp_packet, tcp, udp_packet,
    },
};
use pointsman_dataplane::{
    scheduler::Kind,
    verdict::{Answer, DropReason},
};

const VIP: &str = "10.0.0.100:80";

fn plan() -> Plan {
    Plan::new().service(VIP, TCP, Kind::Rr, 2).natted(0, 8080).natted(1, 8081)
}

/// A segment of a server, as it comes to port d1.
fn from_server(server: &str, client: &str, flags: u8) -> Segment {
    tcp(server, client, flags)
}

/// The frame by which a server sends.
fn sent(by: [u8; 6], packet: &[u8]) -> Vec<u8> {
    ethernet(D1, by, packet)
}

fn with_ttl(segment: &Segment, ttl: u8) -> Vec<u8> {
    segment.clone().ip(|ip| ip.ttl = ttl).packet()
}

#[test]
fn packets_to_a_server_and_its_answers_are_rewritten_and_their_checksums_right() {
    for workers in [1, 2, 3] {
        let mut lab = Lab::sized(plan(), Size { workers, ..Size::default() });
        for n in 0..20_u16 {
            let (client, len) = (format!("10.0.0.2:{}", 2001 + n), usize::from(n));
            // The server added last is chosen first.
            let (server, mac) =
                if n % 2 == 0 { ("192.168.50.12:8081", R2) } else { ("192.168.50.11:8080", R1) };
            let out = lab.send(&[tcp(&client, VIP, SYN).frame()]);
            assert_eq!(out, [ethernet(mac, D1, &with_ttl(&tcp(&client, server, SYN), 63))]);
            let answer = from_server(server, &client, SYN | ACK).seq(70, 1001);
            let out = lab.send_by(1, &[sent(mac, &answer.packet())]);
            let expected = tcp(VIP, &client, SYN | ACK).seq(70, 1001);
            assert_eq!(out, [ethernet(C0, D0, &with_ttl(&expected, 63))], "{workers} workers");
            for _ in 0..2 {
                let data = |from: &str, to: &str| tcp(from, to, ACK).seq(1001, 71).len(len);
                let out = lab.send(&[data(&client, VIP).frame()]);
                assert_eq!(out, [ethernet(mac, D1, &with_ttl(&data(&client, server), 63))]);
                let out = lab.send_by(1, &[sent(mac, &data(server, &client).packet())]);
                assert_eq!(out, [ethernet(C0, D0, &with_ttl(&data(VIP, &client), 63))]);
            }
        }
        assert_eq!(lab.connections(), 20);
        lab.assert_accounted(0);
        let stats = |get: fn(&pointsman_dataplane::stats::DestinationCounters) -> u64| -> u64 {
            lab.stations.iter().map(|station| get(&station.shared.stats.destinations[0])).sum()
        };
        assert_eq!((stats(|s| s.packets_in.get()), stats(|s| s.packets_out.get())), (30, 30));
    }
}

#[test]
fn both_directions_move_the_state_and_keep_the_connection() {
    let mut lab = Lab::new(plan());
    let (client, server) = ("10.0.0.2:2001", "192.168.50.12:8081");
    let from_client = |lab: &mut Lab, flags| lab.send(&[tcp(client, VIP, flags).frame()]).len();
    let back = |lab: &mut Lab, flags| lab.send_by(1, &[sent(R2, &tcp(server, client, flags).packet())]).len();
    let state = |lab: &mut Lab| lab.list()[0].state;
    assert_eq!((from_client(&mut lab, SYN), state(&mut lab)), (1, "SYN_RECV"));
    assert_eq!((back(&mut lab, SYN | ACK), state(&mut lab)), (1, "SYN_RECV"));
    assert_eq!((from_client(&mut lab, ACK), state(&mut lab)), (1, "ESTABLISHED"));
    assert_eq!(lab.counts(1), (1, 0));
    // Answers alone keep it, as the client's packets alone do.
    for _ in 0..3 {
        lab.run(800_000);
        assert_eq!(back(&mut lab, ACK), 1);
    }
    assert_eq!((lab.connections(), state(&mut lab)), (1, "ESTABLISHED"));
    assert_eq!((back(&mut lab, FIN | ACK), state(&mut lab)), (1, "FIN_WAIT"));
    assert_eq!((from_client(&mut lab, FIN | ACK), state(&mut lab)), (1, "TIME_WAIT"));
    assert_eq!((back(&mut lab, ACK), lab.counts(1)), (1, (0, 1)));
    lab.run(121_500);
    assert_eq!((lab.connections(), lab.counts(1)), (0, (0, 0)));
    // Now the server's segment is its own, and routed.
    let out = lab.send_by(1, &[sent(R2, &tcp(server, client, ACK).packet())]);
    assert_eq!(out, [ethernet(C0, D0, &with_ttl(&tcp(server, client, ACK), 63))]);
}

#[test]
fn a_reset_by_the_server_ends_a_half_open_connection() {
    let mut lab = Lab::new(plan());
    lab.send(&[tcp("10.0.0.2:2001", VIP, SYN).frame()]);
    let out = lab.send_by(1, &[sent(R2, &tcp("192.168.50.12:8081", "10.0.0.2:2001", RST | ACK).packet())]);
    assert_eq!(out, [ethernet(C0, D0, &with_ttl(&tcp(VIP, "10.0.0.2:2001", RST | ACK), 63))]);
    assert_eq!(lab.list()[0].state, "CLOSE");
    lab.run(11_000);
    assert_eq!(lab.connections(), 0);
}

#[test]
fn a_datagram_without_checksum_gets_one_and_none_becomes_zero() {
    let dns = "10.0.0.100:53";
    let mut lab = Lab::new(Plan::new().service(dns, UDP, Kind::Rr, 1).natted(0, 5353));
    let without = |from: &str, to: &str, ttl: u8| {
        let mut packet = udp_packet(from, to, b"ping", &Ip { ttl, ..Ip::default() });
        packet[26..28].fill(0);
        packet
    };
    let server = "192.168.50.11:5353";
    let with = |from: &str, to: &str| udp_packet(from, to, b"ping", &Ip { ttl: 63, ..Ip::default() });
    let out = lab.send(&[ethernet(D0, C0, &without("10.0.0.2:5001", dns, 64))]);
    assert_eq!(out, [ethernet(R1, D1, &with("10.0.0.2:5001", server))]);
    let out = lab.send_by(1, &[sent(R1, &without(server, "10.0.0.2:5001", 64))]);
    assert_eq!(out, [ethernet(C0, D0, &with(dns, "10.0.0.2:5001"))]);
    // Every pair of bytes: among them those whose sum is 0, which is sent as 0xffff.
    for n in 0..=u16::MAX {
        let payload = n.to_be_bytes();
        let packet = |to: &str, ttl| udp_packet("10.0.0.2:5001", to, &payload, &Ip { ttl, ..Ip::default() });
        let out = lab.send(&[ethernet(D0, C0, &packet(dns, 64))]);
        assert_eq!(out, [ethernet(R1, D1, &packet(server, 63))], "payload {payload:?}");
    }
}

#[test]
fn ipv6_is_translated_too() {
    let vip = "[fd00:1::100]:80";
    let mut lab = Lab::new(Plan::new().service(vip, TCP, Kind::Rr, 1).natted(0, 8080));
    let (client, server) = ("[fd00:1::2]:8001", "[fd00:50::11]:8080");
    let out = lab.send(&[tcp(client, vip, SYN).frame()]);
    assert_eq!(out, [ethernet(R1, D1, &with_ttl(&tcp(client, server, SYN), 63))]);
    let out = lab.send_by(1, &[sent(R1, &tcp(server, client, SYN | ACK).packet())]);
    assert_eq!(out, [ethernet(C0, D0, &with_ttl(&tcp(vip, client, SYN | ACK), 63))]);
    lab.assert_accounted(0);
}

/// An ICMP error (type, code, second word) that quotes a packet whole.
fn error(source: &str, destination: &str, head: [u8; 8], quoted: &[u8], ttl: u8) -> Vec<u8> {
    let message = [&head[..], quoted].concat();
    let (source, destination) =
        (source.parse().expect("an address"), destination.parse().expect("an address"));
    icmp_packet(source, destination, &message, &Ip { ttl, ..Ip::default() })
}

/// The quoted transport checksum stays as it was: that of the packet before its translation.
fn quoting(packet: &[u8], checksum_of: &[u8]) -> Vec<u8> {
    let mut quoted = packet.to_vec();
    let at = if packet[0] >> 4 == 6 { 40 + 16 } else { 20 + 16 };
    quoted[at..at + 2].copy_from_slice(&checksum_of[at..at + 2]);
    quoted
}

#[test]
fn errors_about_packets_of_either_side_reach_the_other_translated() {
    let unreachable = [3, 1, 0, 0, 0, 0, 0, 0];
    for workers in [1, 2, 3] {
        let mut lab = Lab::sized(plan(), Size { workers, ..Size::default() });
        let (client, server) = ("10.0.0.2:2001", "192.168.50.12:8081");
        lab.send(&[tcp(client, VIP, SYN).frame()]);
        lab.send_by(1, &[sent(R2, &tcp(server, client, SYN | ACK).packet())]);
        // A router before the client could not deliver an answer.
        let (answer, as_sent) = (tcp(VIP, client, ACK).packet(), tcp(server, client, ACK).packet());
        let out = lab.send(&[ethernet(D0, C0, &error("10.0.0.9", "10.0.0.100", unreachable, &answer, 64))]);
        let quoted = quoting(&as_sent, &answer);
        let expected = error("10.0.0.9", "192.168.50.12", unreachable, &quoted, 63);
        assert_eq!(out, [ethernet(R2, D1, &expected)], "{workers} workers");
        // The server has no such port any more; a router before it would be hidden as well.
        let (request, as_sent) = (tcp(client, server, ACK).packet(), tcp(client, VIP, ACK).packet());
        for from in ["192.168.50.12", "192.168.50.77"] {
            let came = error(from, "10.0.0.2", [3, 3, 0, 0, 0, 0, 0, 0], &request, 64);
            let out = lab.send_by(1, &[sent(R2, &came)]);
            let quoted = quoting(&as_sent, &request);
            let expected = error("10.0.0.100", "10.0.0.2", [3, 3, 0, 0, 0, 0, 0, 0], &quoted, 63);
            assert_eq!(out, [ethernet(C0, D0, &expected)], "{workers} workers");
        }
        lab.assert_accounted(0);
        assert_eq!(lab.all_drops(), []);
    }
}

#[test]
fn ipv6_errors_are_translated_too() {
    let vip = "[fd00:1::100]:80";
    let mut lab = Lab::new(Plan::new().service(vip, TCP, Kind::Rr, 1).natted(0, 8080));
    let (client, server) = ("[fd00:1::2]:8001", "[fd00:50::11]:8080");
    lab.send(&[tcp(client, vip, SYN).frame()]);
    let too_big = [2, 0, 0, 0, 0, 0, 5, 0];
    let (answer, as_sent) = (tcp(vip, client, ACK).packet(), tcp(server, client, ACK).packet());
    let out = lab.send(&[ethernet(D0, C0, &error("fd00:1::9", "fd00:1::100", too_big, &answer, 64))]);
    let expected = error("fd00:1::9", "fd00:50::11", too_big, &quoting(&as_sent, &answer), 63);
    assert_eq!(out, [ethernet(R1, D1, &expected)]);
    let (request, as_sent) = (tcp(client, server, ACK).packet(), tcp(client, vip, ACK).packet());
    let out = lab
        .send_by(1, &[sent(R1, &error("fd00:50::11", "fd00:1::2", [1, 4, 0, 0, 0, 0, 0, 0], &request, 64))]);
    let expected =
        error("fd00:1::100", "fd00:1::2", [1, 4, 0, 0, 0, 0, 0, 0], &quoting(&as_sent, &request), 63);
    assert_eq!(out, [ethernet(C0, D0, &expected)]);
}

#[test]
fn a_damaged_error_is_dropped_and_a_damaged_segment_stays_damaged() {
    let mut lab = Lab::new(plan());
    let (client, server) = ("10.0.0.2:2001", "192.168.50.12:8081");
    lab.send(&[tcp(client, VIP, SYN).frame()]);
    let answer = tcp(VIP, client, ACK).packet();
    let mut damaged = error("10.0.0.9", "10.0.0.100", [3, 1, 0, 0, 0, 0, 0, 0], &answer, 64);
    *damaged.last_mut().unwrap() ^= 1;
    assert!(lab.send(&[ethernet(D0, C0, &damaged)]).is_empty());
    assert_eq!(lab.drops(DropReason::TransportHeader), 1);
    let mut segment = tcp(client, VIP, ACK).len(9).packet();
    let mut expected = with_ttl(&tcp(client, server, ACK).len(9), 63);
    for packet in [&mut segment, &mut expected] {
        *packet.last_mut().unwrap() ^= 0x10;
    }
    assert_eq!(lab.send(&[ethernet(D0, C0, &segment)]), [ethernet(R2, D1, &expected)]);
}

#[test]
fn answers_of_a_removed_server_pass_and_its_clients_packets_vanish() {
    let mut lab = Lab::new(plan());
    let (client, server) = ("10.0.0.2:2001", "192.168.50.12:8081");
    lab.send(&[tcp(client, VIP, SYN).frame()]);
    lab.plan.services[0].servers.pop();
    lab.plan.slots[1].presence = pointsman_dataplane::snapshot::Presence::Removed;
    lab.publish();
    lab.poll();
    assert!(lab.send(&[tcp(client, VIP, ACK).frame()]).is_empty());
    let out = lab.send_by(1, &[sent(R2, &tcp(server, client, SYN | ACK).packet())]);
    assert_eq!(out, [ethernet(C0, D0, &with_ttl(&tcp(VIP, client, SYN | ACK), 63))]);
}

#[test]
fn an_answer_whose_ttl_ends_or_that_is_too_big_is_told_by_the_directors_own_address() {
    let mut plan = plan();
    plan.mtu = 1400;
    let mut lab = Lab::new(plan);
    let (client, server) = ("10.0.0.2:2001", "192.168.50.12:8081");
    lab.send(&[tcp(client, VIP, SYN).frame()]);
    let expired = with_ttl(&tcp(server, client, ACK), 1);
    let out = lab.send_by(1, &[sent(R2, &expired)]);
    let said = crate::support::text::text(&out[0]);
    assert!(said.contains("ip 192.168.50.1>192.168.50.12 ttl=64") && said.contains("icmp 11/0"), "{said}");
    let large = tcp(server, client, ACK).len(1380).packet();
    let out = lab.send_by(1, &[sent(R2, &large)]);
    let said = crate::support::text::text(&out[0]);
    assert!(said.contains("ip 192.168.50.1>192.168.50.12") && said.contains("icmp 3/4"), "{said}");
    assert_eq!((lab.answers(Answer::TimeExceeded), lab.answers(Answer::PacketTooBig)), (1, 1));
}

#[test]
fn answers_go_by_the_router_where_one_leads_to_the_client() {
    let mut lab = Lab::new(plan().router());
    let (client, server) = ("203.0.113.7:2001", "192.168.50.12:8081");
    lab.send(&[tcp(client, VIP, SYN).frame()]);
    for flags in [SYN | ACK, ACK, ACK] {
        let out = lab.send_by(1, &[sent(R2, &tcp(server, client, flags).packet())]);
        assert_eq!(out, [ethernet(C0, D0, &with_ttl(&tcp(VIP, client, flags), 63))]);
    }
}

#[test]
fn a_full_table_takes_no_connection_whose_answers_it_could_not_follow() {
    let mut lab = Lab::sized(plan(), Size { connections: 3, ..Size::default() });
    let establish = |lab: &mut Lab, port: u16| {
        let client = format!("10.0.0.2:{port}");
        lab.send(&[tcp(&client, VIP, SYN).frame()]);
        lab.send(&[tcp(&client, VIP, ACK).frame()]).len()
    };
    assert_eq!(establish(&mut lab, 1), 1);
    let out = lab.send(&[tcp("10.0.0.2:2", VIP, SYN).frame()]);
    assert!(out.is_empty());
    assert_eq!((lab.connections(), lab.drops(DropReason::TableFull)), (1, 1));
    assert_eq!((lab.counts(0), lab.counts(1)), ((0, 0), (1, 0)));
    let data = data(4);
    assert_eq!(data.len(), 4);
}
