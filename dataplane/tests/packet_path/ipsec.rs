//! AH and ESP go where the ISAKMP flow (UDP, port 500) of the same stations goes, whatever that is.

use crate::support::{
    Lab, Plan, Size, UDP,
    frames::{C0, D0, D1, Ip, R1, R2, ethernet, icmp_packet, udp_packet},
};
use pointsman_dataplane::{
    scheduler::Kind,
    snapshot::{Encapsulation, Presence},
    verdict::{Answer, DropReason},
};

const ESP: u8 = 50;
const AH: u8 = 51;
const VIP: &str = "10.0.0.100:500";

/// A packet of one of the two; nobody but its ends can read what it carries.
fn sealed(from: &str, to: &str, number: u8, ttl: u8) -> Vec<u8> {
    let ip = Ip { ttl, ..Ip::default() };
    ip.packet(
        from.parse().expect("an address"),
        to.parse().expect("an address"),
        number,
        b"\0\0\x01\x00\0\0\0\x01sealed, not to be read",
    )
}

fn isakmp(from: &str, to: &str, ttl: u8) -> Vec<u8> {
    udp_packet(&format!("{from}:500"), &format!("{to}:500"), b"ike", &Ip { ttl, ..Ip::default() })
}

fn by_client(packet: &[u8]) -> Vec<u8> {
    ethernet(D0, C0, packet)
}

#[test]
fn by_nat_they_follow_the_isakmp_flow_both_ways() {
    for workers in [1, 2, 3] {
        let plan = Plan::new().service(VIP, UDP, Kind::Rr, 2).natted(0, 500).natted(1, 500);
        let mut lab = Lab::sized(plan, Size { workers, ..Size::default() });
        let (vip, server) = ("10.0.0.100", "192.168.50.12");
        for client in ["10.0.0.2", "10.0.0.3"] {
            let (server, mac) = if client == "10.0.0.2" { (server, R2) } else { ("192.168.50.11", R1) };
            let out = lab.send(&[by_client(&isakmp(client, vip, 64))]);
            assert_eq!(out, [ethernet(mac, D1, &isakmp(client, server, 63))], "{workers} workers");
            for number in [ESP, AH] {
                let out = lab.send(&[by_client(&sealed(client, vip, number, 64))]);
                assert_eq!(out, [ethernet(mac, D1, &sealed(client, server, number, 63))]);
                let out = lab.send_by(1, &[ethernet(D1, mac, &sealed(server, client, number, 64))]);
                assert_eq!(out, [ethernet(C0, D0, &sealed(vip, client, number, 63))]);
            }
        }
        let record = lab.list().remove(0);
        assert_eq!((record.protocol, record.packets_in, record.packets_out), (UDP, 3, 2));
        lab.assert_accounted(0);
        assert_eq!((lab.all_drops(), lab.connections()), (vec![], 2));
    }
}

#[test]
fn a_server_of_another_isakmp_port_gets_them_and_is_not_known_by_its_own() {
    // As with the original: the port of the connection is none of theirs, and answers are known by 500.
    let mut lab = Lab::new(Plan::new().service(VIP, UDP, Kind::Rr, 1).natted(0, 4500));
    let (client, server) = ("10.0.0.2", "192.168.50.11");
    lab.send(&[by_client(&isakmp(client, "10.0.0.100", 64))]);
    let out = lab.send(&[by_client(&sealed(client, "10.0.0.100", ESP, 64))]);
    assert_eq!(out, [ethernet(R1, D1, &sealed(client, server, ESP, 63))]);
    let out = lab.send_by(1, &[ethernet(D1, R1, &sealed(server, client, ESP, 64))]);
    assert_eq!(out, [ethernet(C0, D0, &sealed(server, client, ESP, 63))], "routed as it is");
}

#[test]
fn by_direct_routing_and_by_a_tunnel_they_follow_it_too() {
    let plan = Plan::new().service(VIP, UDP, Kind::Rr, 2).tunnelled(0, Encapsulation::Ipip);
    let mut lab = Lab::new(plan);
    let vip = "10.0.0.100";
    for client in ["10.0.0.2", "10.0.0.3"] {
        lab.send(&[by_client(&isakmp(client, vip, 64))]);
    }
    for number in [ESP, AH] {
        let out = lab.send(&[by_client(&sealed("10.0.0.2", vip, number, 64))]);
        assert_eq!(out, [ethernet(R2, D1, &sealed("10.0.0.2", vip, number, 63))]);
        let out = lab.send(&[by_client(&sealed("10.0.0.3", vip, number, 64))]);
        assert_eq!(out[0][..6], R1);
        assert_eq!((out[0][23], &out[0][34..]), (4, &sealed("10.0.0.3", vip, number, 63)[..]));
    }
}

#[test]
fn they_keep_the_connection_up_and_make_none() {
    let mut lab = Lab::new(Plan::new().service(VIP, UDP, Kind::Rr, 1));
    let (client, vip) = ("10.0.0.2", "10.0.0.100");
    for number in [ESP, AH] {
        let said = lab.says(by_client(&sealed(client, vip, number, 64))).concat();
        assert!(said.contains("| icmp 3/2 "), "{said}");
    }
    assert_eq!((lab.answers(Answer::ProtocolUnreachable), lab.connections()), (2, 0));
    lab.send(&[by_client(&isakmp(client, vip, 64))]);
    for _ in 0..3 {
        lab.run(250_000);
        assert_eq!(lab.send(&[by_client(&sealed(client, vip, ESP, 64))]).len(), 1);
    }
    lab.plan.slots[0].presence = Presence::Removed;
    lab.publish();
    assert!(lab.send(&[by_client(&sealed(client, vip, ESP, 64))]).is_empty());
    assert_eq!(lab.drops(DropReason::DestinationRemoved), 1);
    lab.run(301_000);
    assert_eq!(lab.connections(), 0);
    // To the director itself or by it they are what they were.
    assert!(lab.send(&[by_client(&sealed(client, "10.0.0.1", ESP, 64))]).is_empty());
    assert_eq!(lab.punted(), 1);
}

#[test]
fn a_fragment_of_one_goes_the_same_way() {
    let mut lab = Lab::new(Plan::new().service(VIP, UDP, Kind::Rr, 1).natted(0, 500));
    lab.send(&[by_client(&isakmp("10.0.0.2", "10.0.0.100", 64))]);
    for word in [0x2000, 0x0001] {
        let part = |to: &str, ttl| {
            let ip = Ip { ttl, fragment: word, ..Ip::default() };
            ip.packet(
                "10.0.0.2".parse().expect("an address"),
                to.parse().expect("an address"),
                ESP,
                b"8 bytes.",
            )
        };
        let out = lab.send(&[by_client(&part("10.0.0.100", 64))]);
        assert_eq!(out, [ethernet(R1, D1, &part("192.168.50.11", 63))], "{word:#x}");
    }
}

#[test]
fn errors_about_them_find_their_other_side() {
    let mut lab = Lab::new(Plan::new().service(VIP, UDP, Kind::Rr, 1).natted(0, 4500));
    let (client, vip, server) = ("10.0.0.2", "10.0.0.100", "192.168.50.11");
    lab.send(&[by_client(&isakmp(client, vip, 64))]);
    let error = |to: &str, quoted: &[u8], ttl| {
        let message = [&[3, 4, 0, 0, 0, 0, 5, 0x14][..], quoted].concat();
        icmp_packet(
            "10.0.0.9".parse().expect("an address"),
            to.parse().expect("an address"),
            &message,
            &Ip { ttl, ..Ip::default() },
        )
    };
    for number in [ESP, AH] {
        let out = lab.send(&[by_client(&error(vip, &sealed(vip, client, number, 60), 64))]);
        let expected = error(server, &sealed(server, client, number, 60), 63);
        assert_eq!(out, [ethernet(R1, D1, &expected)]);
    }
}

#[test]
fn esp_over_ipv6_follows_it_and_ah_over_ipv6_hides_nothing() {
    let plan = Plan::new().service("[fd00:1::100]:500", UDP, Kind::Rr, 1).natted(0, 500).service(
        "[fd00:1::100]:53",
        UDP,
        Kind::Rr,
        1,
    );
    let mut lab = Lab::new(plan);
    let udp = |to: &str, ttl| udp_packet("[fd00:1::2]:500", to, b"ike", &Ip { ttl, ..Ip::default() });
    lab.send(&[by_client(&udp("[fd00:1::100]:500", 64))]);
    let out = lab.send(&[by_client(&sealed("fd00:1::2", "fd00:1::100", ESP, 64))]);
    assert_eq!(out, [ethernet(R1, D1, &sealed("fd00:1::2", "fd00:50::11", ESP, 63))]);
    let out = lab.send_by(1, &[ethernet(D1, R1, &sealed("fd00:50::11", "fd00:1::2", ESP, 64))]);
    assert_eq!(out, [ethernet(C0, D0, &sealed("fd00:1::100", "fd00:1::2", ESP, 63))]);
    // AH is an extension header there (RFC 4302 section 2): the datagram behind it is a flow's.
    let datagram = udp("[fd00:1::100]:53", 64)[40..].to_vec();
    let header = [&[17, 4, 0, 0][..], &[0, 0, 1, 0, 0, 0, 0, 1], &[7; 12]].concat();
    let (from, to) = ("fd00:1::2".parse().expect("an address"), "fd00:1::100".parse().expect("an address"));
    let packet = Ip::default().packet(from, to, AH, &[header, datagram].concat());
    assert_eq!(lab.send(&[by_client(&packet)]).len(), 1);
    assert_eq!(lab.list()[0].virtual_service.port(), 53);
}
