//! ICMP errors about packets of our tunnels, which are passed on to the client whose packet is inside; and packets of ours
//! that come back. What is quoted is what the director has sent, cut where a router would.

use crate::support::{
    Lab, Plan, Size, TCP,
    frames::{ACK, C0, D0, Ip, R3, SYN, checksum, ethernet, icmp, icmp_packet, tcp},
    text::GUE_PORT,
};
use pointsman_dataplane::{
    prefix::Prefix,
    routing::Way,
    scheduler::Kind,
    snapshot::Encapsulation,
    verdict::{Answer, DropReason},
};
use proptest::prelude::*;
use std::net::IpAddr;

const VIP: &str = "10.0.0.100:80";
const VIP6: &str = "[fd00:1::100]:80";
const CLIENT: &str = "10.0.0.2:1";
const CLIENT6: &str = "[fd00:1::2]:1";
const ROUTER: &str = "192.168.50.77";
const ROUTER6: &str = "fd00:50::77";
const GUE: Encapsulation = Encapsulation::Gue { port: GUE_PORT, checksum: false };
const GRE: Encapsulation = Encapsulation::Gre { checksum: false };

fn plan(vip: &str, encapsulation: Encapsulation) -> Plan {
    Plan::new().service(vip, TCP, Kind::Rr, 1).tunnelled(0, encapsulation)
}

/// A service whose server is of the other family.
fn across(vip: &str, other: &str) -> Plan {
    let mut plan = Plan::new().service(vip, TCP, Kind::Rr, 1).service(other, TCP, Kind::Rr, 1);
    plan.services.truncate(1);
    plan.services[0].servers = vec![(1, 1)];
    plan.tunnelled(1, Encapsulation::Ipip)
}

/// The packet that the first segment of a client became in the tunnel.
fn sent(lab: &mut Lab, client: &str, vip: &str) -> Vec<u8> {
    let sent = lab.send(&[tcp(client, vip, SYN).frame()]);
    assert_eq!(sent.len(), 1);
    sent[0][14..].to_vec()
}

/// The error of a router about a packet; type, code and second word.
fn about(packet: &[u8], (kind, code, rest): (u8, u8, u32)) -> Vec<u8> {
    let [a, b, c, d] = rest.to_be_bytes();
    let message = [&[kind, code, 0, 0, a, b, c, d][..], packet].concat();
    let (router, director) =
        if packet[0] >> 4 == 6 { (ROUTER6, "fd00:50::1") } else { (ROUTER, "192.168.50.1") };
    icmp(router, director, &message, &Ip::default())
}

/// What a client hears about its first segment.
fn hears(error: &str) -> Vec<String> {
    vec![format!(
        "cl < d0>c0 ip 10.0.0.100>10.0.0.2 ttl=64 tos=192 flags= frag=0 len=72 ck=ok | icmp {error} about ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=44 ck=ok | tcp 1>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)]"
    )]
}

fn hears6(error: &str) -> Vec<String> {
    vec![format!(
        "cl < d0>c0 ip6 fd00:1::100>fd00:1::2 hlim=64 tc=0 plen=72 | icmp6 {error} about ip6 fd00:1::2>fd00:1::100 hlim=63 tc=0 plen=24 | tcp 1>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)]"
    )]
}

#[test]
fn an_error_about_a_packet_in_a_tunnel_reaches_its_client() {
    let summed = Encapsulation::Gre { checksum: true };
    for (encapsulation, mtu) in [(Encapsulation::Ipip, 0x564), (GUE, 0x558), (GRE, 0x560), (summed, 0x55c)] {
        let mut lab = Lab::new(plan(VIP, encapsulation));
        let packet = sent(&mut lab, CLIENT, VIP);
        for (kind, code) in [(3, 0), (3, 1), (3, 2), (3, 3), (3, 13), (11, 0), (11, 1)] {
            let heard = lab.says(about(&packet, (kind, code, 0)));
            assert_eq!(heard, hears(&format!("{kind}/{code} l4=ok rest=00000000")), "{encapsulation:?}");
        }
        // 1400 less the tunnel's headers.
        let heard = lab.says(about(&packet, (3, 4, 1400)));
        assert_eq!(heard, hears(&format!("3/4 l4=ok rest={mtu:08x}")));
        // The first had to wait for the client's station to answer, and counts as forwarded.
        assert_eq!((lab.answers(Answer::TunnelError), lab.all_drops()), (7, vec![]));
        assert_eq!(lab.traffic(0).1, 1, "no packet for the server");
        lab.assert_accounted(0);
    }
}

#[test]
fn an_error_about_an_ipv6_tunnel_reaches_its_client() {
    for (encapsulation, mtu) in [(Encapsulation::Ipip, 0x550), (GUE, 0x544), (GRE, 0x54c)] {
        let mut lab = Lab::new(plan(VIP6, encapsulation));
        let packet = sent(&mut lab, CLIENT6, VIP6);
        for (kind, code) in [(1, 0), (1, 3), (1, 4), (3, 0)] {
            let heard = lab.says(about(&packet, (kind, code, 0)));
            assert_eq!(heard, hears6(&format!("{kind}/{code} l4=ok rest=00000000")), "{encapsulation:?}");
        }
        let heard = lab.says(about(&packet, (2, 0, 1400)));
        assert_eq!(heard, hears6(&format!("2/0 l4=ok rest={mtu:08x}")));
        lab.assert_accounted(0);
    }
}

#[test]
fn an_error_of_the_other_family_is_told_in_that_of_the_client() {
    let mut lab = Lab::new(across(VIP6, VIP));
    let packet = sent(&mut lab, CLIENT6, VIP6);
    // RFC 7915 section 4.2.
    for ((kind, code), told) in
        [((3, 1), "1/0"), ((3, 3), "1/4"), ((3, 13), "1/1"), ((3, 9), "1/1"), ((11, 0), "3/0")]
    {
        assert_eq!(lab.says(about(&packet, (kind, code, 0))), hears6(&format!("{told} l4=ok rest=00000000")));
    }
    assert_eq!(lab.says(about(&packet, (3, 4, 1400))), hears6("2/0 l4=ok rest=00000564"));

    let mut lab = Lab::new(across(VIP, VIP6));
    let packet = sent(&mut lab, CLIENT, VIP);
    // RFC 7915 section 5.2.
    for ((kind, code), told) in [((1, 0), "3/1"), ((1, 1), "3/10"), ((1, 4), "3/3"), ((3, 0), "11/0")] {
        assert_eq!(lab.says(about(&packet, (kind, code, 0))), hears(&format!("{told} l4=ok rest=00000000")));
    }
    assert_eq!(lab.says(about(&packet, (2, 0, 1400))), hears("3/4 l4=ok rest=00000550"));
}

#[test]
fn an_error_that_quotes_too_little_teaches_the_mtu_and_is_counted() {
    // Outer header, what stands between, the inner header and its ports.
    for (encapsulation, needed) in [(Encapsulation::Ipip, 44), (GUE, 56), (GRE, 48)] {
        let mut lab = Lab::new(plan(VIP, encapsulation));
        let packet = sent(&mut lab, CLIENT, VIP);
        for len in 20..packet.len() {
            let heard = lab.send(&[about(&packet[..len], (3, 1, 0))]);
            // From the first bytes of UDP on the flow of the wrapping itself can be looked for.
            assert_eq!(heard.len(), usize::from(len >= needed), "{len} bytes of {encapsulation:?}");
        }
        lab.assert_accounted(0);
        lab.wait(1_000);
        lab.send(&[about(&packet[..28], (3, 4, 1400))]);
        let large = lab.says(tcp(CLIENT, VIP, ACK).len(1400).frame()).concat();
        assert!(large.contains("icmp 3/4 "), "{large}");
        let unmatched = lab.drops(DropReason::IcmpUnmatched) + lab.drops(DropReason::TransportHeader);
        assert_eq!(unmatched, needed as u64 - 20 + 1, "{encapsulation:?}");
    }
}

#[test]
fn nobody_else_makes_the_director_send_an_error() {
    let mut both = plan(VIP, Encapsulation::Ipip).service("10.0.0.100:81", TCP, Kind::Rr, 2);
    both = both.tunnelled(1, GUE);
    let mut lab = Lab::new(both);
    let packet = sent(&mut lab, CLIENT, VIP);
    let gue = sent(&mut lab, "10.0.0.2:2", "10.0.0.100:81");
    // By direct routing.
    lab.send(&[tcp("10.0.0.2:3", "10.0.0.100:81", SYN).frame()]);

    let outer = |source: &str, destination: &str, protocol, inner: &[u8]| {
        let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
        Ip::default().packet(source, destination, protocol, inner)
    };
    let inner = &packet[20..];
    let (ours, r1, r2) = ("192.168.50.1", "192.168.50.11", "192.168.50.12");
    let direct = tcp("10.0.0.2:3", "10.0.0.100:81", SYN).packet();
    let unknown = tcp("10.0.0.3:1", VIP, SYN).packet();
    let gre = [&[0, 0, 8, 0][..], inner].concat();
    let mut other_port = gue[20..].to_vec();
    other_port[3] ^= 1;
    let unmatched = [
        ("a flow that is not known", outer(ours, r1, 4, &unknown)),
        ("a connection by direct routing", outer(ours, r1, 4, &direct)),
        ("another wrapping", outer(ours, r1, 47, &gre)),
        ("another port of GUE", outer(ours, r1, 17, &other_port)),
        ("a connection by GUE in IP in IP", outer(ours, r1, 4, &gue[32..])),
    ];
    for (n, (what, quoted)) in unmatched.iter().enumerate() {
        assert_eq!(lab.send(&[about(quoted, (3, 1, 0))]).len(), 0, "{what}");
        assert_eq!(lab.all_drops(), [(DropReason::IcmpUnmatched, n as u64 + 1)], "{what}");
    }
    let punted = lab.punted();
    let mut damaged = about(&packet, (3, 1, 0));
    *damaged.last_mut().unwrap() ^= 1;
    let left = [
        ("a wrong checksum", damaged),
        (
            "not from the address that the error came to",
            about(&outer("192.168.50.9", r1, 4, inner), (3, 1, 0)),
        ),
        ("no server behind a tunnel", about(&outer(ours, r2, 4, inner), (3, 1, 0))),
        ("source quench", about(&packet, (4, 0, 0))),
        ("parameter problem", about(&packet, (12, 0, 0))),
        ("redirect", about(&packet, (5, 1, 0))),
    ];
    for (what, frame) in &left {
        assert_eq!(lab.send(std::slice::from_ref(frame)).len(), 0, "{what}");
    }
    assert_eq!(lab.punted() - punted, left.len() as u64);
    lab.assert_accounted(0);
}

#[test]
fn a_client_that_lets_routers_fragment_hears_nothing_of_sizes() {
    let mut lab = Lab::new(plan(VIP, Encapsulation::Ipip));
    let frames = lab.send(&[tcp(CLIENT, VIP, SYN).ip(|ip| ip.fragment = 0).frame()]);
    assert_eq!(lab.send(&[about(&frames[0][14..], (3, 4, 1400))]).len(), 0);
    assert_eq!(lab.all_drops(), [(DropReason::NotAnswerable, 1)]);
    assert_eq!(lab.send(&[about(&frames[0][14..], (3, 1, 0))]).len(), 1);
}

#[test]
fn errors_that_are_passed_on_are_limited() {
    let mut lab = Lab::new(plan(VIP, Encapsulation::Ipip));
    let packet = sent(&mut lab, CLIENT, VIP);
    let flood = vec![about(&packet, (3, 1, 0)); 500];
    assert_eq!(lab.send(&flood).len() as u64 + lab.drops(DropReason::AnswerRateLimited), 500);
    assert!(lab.drops(DropReason::AnswerRateLimited) > 300);
    lab.assert_accounted(0);
}

#[test]
fn an_error_about_a_tunnel_finds_the_owner_of_the_flow_inside() {
    for encapsulation in [Encapsulation::Ipip, GUE, GRE] {
        let size = Size { workers: 3, ..Size::default() };
        let mut lab = Lab::sized(plan(VIP, encapsulation), size);
        for port in 1_000..1_020 {
            let packet = sent(&mut lab, &format!("10.0.0.2:{port}"), VIP);
            let heard = lab.says(about(&packet, (3, 1, 0)));
            assert!(heard.concat().contains(&format!("| tcp {port}>80 S")), "{heard:?}");
        }
        assert!(lab.handed_off() > 10, "{}", lab.handed_off());
        lab.assert_accounted(0);
    }
}

#[test]
fn an_error_leaves_by_the_router_on_the_way_to_the_client() {
    let mut plan = plan(VIP, Encapsulation::Ipip);
    let router = plan.hop("192.168.50.254".parse().unwrap(), Some(R3));
    plan.routes = vec![(Prefix::host("10.0.0.2".parse().unwrap()), Way::Router(router))];
    let mut lab = Lab::new(plan);
    let packet = sent(&mut lab, CLIENT, VIP);
    let heard = lab.says(about(&packet, (3, 1, 0))).concat();
    assert!(heard.starts_with("r3 < d1>r3 ip 10.0.0.100>10.0.0.2 "), "{heard}");
    assert_eq!(lab.answers(Answer::TunnelError), 1);
}

#[test]
fn a_packet_of_ours_that_comes_back_is_a_loop() {
    for encapsulation in [Encapsulation::Ipip, GUE, GRE] {
        for (vip, client, ours) in [(VIP, CLIENT, "192.168.50.1"), (VIP6, CLIENT6, "fd00:50::1")] {
            let mut plan = plan(vip, encapsulation);
            plan.host_addresses = vec![ours.parse().unwrap()];
            let mut lab = Lab::new(plan);
            let packet = sent(&mut lab, client, vip);
            assert_eq!(lab.send(&[ethernet(D0, C0, &packet)]).len(), 0);
            assert_eq!(lab.all_drops(), [(DropReason::LoopDetected, 1)], "{encapsulation:?}");
            lab.assert_accounted(0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_error_however_damaged_makes_the_director_write_to_a_stranger(
        kind in prop_oneof![Just(3_u8), Just(11), any::<u8>()],
        encapsulation in prop_oneof![Just(Encapsulation::Ipip), Just(GUE), Just(GRE)],
        len in 0_usize..90,
        changes in proptest::collection::vec((0_usize..90, any::<u8>()), 0..4),
    ) {
        let mut lab = Lab::new(plan(VIP, encapsulation));
        let mut packet = sent(&mut lab, CLIENT, VIP);
        for (at, value) in changes {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        packet.truncate(len.min(packet.len()));
        let message = [&[kind, 1, 0, 0, 0, 0, 5, 0x78][..], &packet].concat();
        let error = icmp_packet(
            ROUTER.parse().unwrap(), "192.168.50.1".parse().unwrap(), &message, &Ip::default(),
        );
        for frame in lab.send(&[ethernet(D0, C0, &error)]) {
            let packet = &frame[14..];
            prop_assert_eq!(&packet[12..20], &[10, 0, 0, 100, 10, 0, 0, 2]);
            prop_assert_eq!((checksum(&packet[..20]), checksum(&packet[20..])), (0, 0));
        }
        lab.assert_accounted(0);
    }
}
