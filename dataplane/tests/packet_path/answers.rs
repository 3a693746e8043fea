//! What the director answers for its virtual addresses, what it leaves to the host, and what it says nothing to.

use crate::support::{
    Lab, Plan, TCP, UDP,
    frames::{
        ACK, C0, D0, Ip, RST, SYN, Segment, arp_request, checksum, echo, ethernet, frame, icmp, icmp_packet,
        solicitation, tagged, tcp, udp, udp_packet,
    },
    text::text,
};
use pointsman_dataplane::{
    command::PuntedFrame,
    scheduler::Kind,
    verdict::{Answer, DropReason},
};

const VIP: &str = "10.0.0.100:80";
const VIP6: &str = "[fd00:1::100]:80";

fn client(port: u16, flags: u8) -> Segment {
    tcp(&format!("10.0.0.2:{port}"), VIP, flags)
}

fn lab() -> Lab {
    Lab::new(Plan::new().service(VIP, TCP, Kind::Rr, 2).service(VIP6, TCP, Kind::Rr, 1))
}

fn punts(lab: &Lab) -> Vec<PuntedFrame> {
    std::iter::from_fn(|| lab.stations[0].shared.punts.pop()).collect()
}

#[test]
fn a_protocol_that_nobody_balances_is_refused_as_by_a_host_that_does_not_know_it() {
    let mut lab = lab();
    let gre = |from: &str, to: &str| {
        let (from, to) = (from.parse().expect("an address"), to.parse().expect("an address"));
        ethernet(D0, C0, &Ip::default().packet(from, to, 47, &[0; 8]))
    };
    let said = lab.send(&[gre("10.0.0.2", "10.0.0.100")]).concat();
    // Protocol unreachable, from the virtual address to who asked, about the packet.
    assert_eq!((&said[..6], said[23], said[34], said[35]), (&C0[..], 1, 3, 2));
    let quoted = &gre("10.0.0.2", "10.0.0.100")[14..];
    assert_eq!((&said[26..34], &said[42..]), (&[10, 0, 0, 100, 10, 0, 0, 2][..], quoted));
    assert_eq!(checksum(&said[34..]), 0);
    // Parameter problem, unknown next header; it is named in the seventh byte.
    let said = lab.send(&[gre("fd00:1::2", "fd00:1::100")]).concat();
    assert_eq!((said[20], &said[54..56], &said[58..62]), (58, &[4, 1][..], &[0, 0, 0, 6][..]));
    assert_eq!(&said[62..], &gre("fd00:1::2", "fd00:1::100")[14..]);
    assert_eq!(lab.answers(Answer::ProtocolUnreachable), 2);
    lab.assert_accounted(0);
}

#[test]
fn arp_and_neighbor_discovery_are_answered_for_virtual_addresses_alone_and_learned_from() {
    let mut lab = lab();
    assert_eq!(
        lab.says(arp_request("10.0.0.2", "10.0.0.100")),
        ["cl < d0>c0 arp 2 10.0.0.100 d0 10.0.0.2 c0"]
    );
    let advertised = lab.send(&[solicitation("fd00:1::2", "fd00:1::100")]);
    assert_eq!(
        advertised.iter().map(|frame| text(frame)).collect::<Vec<_>>(),
        [
            "cl < d0>c0 ip6 fd00:1::100>fd00:1::2 hlim=255 tc=0 plen=32 | icmp6 136/0 l4=ok rest=60000000 data[24]"
        ]
    );
    // The target, and its link-layer address as an option (type 2, length 1).
    assert_eq!(advertised[0][62..78], [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(advertised[0][78..], [&[2, 1][..], &D0].concat());
    for other in [arp_request("10.0.0.2", "10.0.0.1"), solicitation("fd00:1::2", "fd00:1::1")] {
        assert_eq!(lab.says(other), [] as [String; 0]);
    }
    assert_eq!((lab.answers(Answer::Arp), lab.answers(Answer::NeighborAdvertisement)), (1, 1));
    assert_eq!(lab.punted(), 2);
    let learned = punts(&lab);
    assert_eq!(learned.len(), 4, "answered or not, each tells who a neighbour is");
    assert_eq!(learned[0].data(), arp_request("10.0.0.2", "10.0.0.100"));
    lab.assert_accounted(0);
}

#[test]
fn a_frame_to_learn_from_is_copied_without_its_vlan_tags() {
    let mut lab = lab();
    let plain = arp_request("10.0.0.2", "10.0.0.1");
    let tagged = tagged(&tagged(&plain, 0x8100, 10), 0x88a8, 20);
    lab.send(&[tagged]);
    assert_eq!(punts(&lab)[0].data(), plain);
}

#[test]
fn answers_go_back_behind_the_tags_that_the_question_had() {
    let mut lab = lab();
    let question = |frame: &[u8]| tagged(&tagged(frame, 0x8100, 10), 0x88a8, 20);
    assert_eq!(
        lab.says(question(&arp_request("10.0.0.2", "10.0.0.100"))),
        ["cl < d0>c0 vlan 20 vlan 10 arp 2 10.0.0.100 d0 10.0.0.2 c0"]
    );
    assert_eq!(
        lab.says(question(&client(1, ACK).seq(5, 5).frame())),
        [
            "cl < d0>c0 vlan 20 vlan 10 ip 10.0.0.100>10.0.0.2 ttl=64 tos=0 flags=DF frag=0 len=40 ck=ok | tcp 80>1 R seq=5 ack=0 win=0 l4=ok"
        ]
    );
}

#[test]
fn one_who_claims_a_virtual_address_gets_no_answer() {
    let mut lab = lab();
    assert_eq!(lab.send(&[arp_request("10.0.0.100", "10.0.0.100")]).len(), 0);
    assert_eq!(lab.answers(Answer::Arp), 0);
    lab.assert_accounted(0);
}

#[test]
fn ipv6_answers_are_those_of_the_recording() {
    let mut lab = lab();
    let segment = |port: u16, flags| tcp(&format!("[fd00:1::2]:{port}"), VIP6, flags);
    let mut says = |frame| lab.says(frame).concat();
    assert_eq!(
        says(echo("fd00:1::2", "fd00:1::100")),
        "cl < d0>c0 ip6 fd00:1::100>fd00:1::2 hlim=64 tc=0 plen=16 | icmp6 129/0 l4=ok rest=00050001 data[8]"
    );
    assert_eq!(
        says(segment(8003, ACK).seq(5, 5).frame()),
        "cl < d0>c0 ip6 fd00:1::100>fd00:1::2 hlim=64 tc=0 plen=20 | tcp 80>8003 R seq=5 ack=0 win=0 l4=ok"
    );
    assert_eq!(
        says(segment(8004, SYN).ip(|ip| ip.ttl = 1).frame()),
        "cl < d0>c0 ip6 fd00:1::100>fd00:1::2 hlim=64 tc=0 plen=72 | icmp6 3/0 l4=ok rest=00000000 about ip6 fd00:1::2>fd00:1::100 hlim=1 tc=0 plen=24 | tcp 8004>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)]"
    );
    assert_eq!(lab.listed().len(), 1, "the connection is made all the same");
}

#[test]
fn udp_without_a_service_hears_port_unreachable_as_recorded() {
    let mut lab = lab();
    assert_eq!(
        lab.says(udp("10.0.0.2:5003", "10.0.0.100:54")),
        [
            "cl < d0>c0 ip 10.0.0.100>10.0.0.2 ttl=64 tos=192 flags= frag=0 len=60 ck=ok | icmp 3/3 l4=ok rest=00000000 about ip 10.0.0.2>10.0.0.100 ttl=64 tos=0 flags=DF frag=0 len=32 ck=ok | udp 5003>54 len=12 data[4]=70696e67"
        ]
    );
    assert_eq!(lab.answers(Answer::PortUnreachable), 1);
}

#[test]
fn what_is_not_for_a_virtual_address_is_left_to_the_host() {
    let mut lab = lab();
    let other = "10.0.0.1:22";
    let mut later = Ip { fragment: 1, ..Ip::default() };
    let frames = [
        tcp("10.0.0.2:1", other, SYN).frame(),
        tcp("10.0.0.2:1", other, ACK).frame(),
        udp("10.0.0.2:1", "10.0.0.1:53"),
        udp("[fd00:1::2]:1", "[fd00:1::1]:53"),
        echo("10.0.0.2", "10.0.0.1"),
        icmp("10.0.0.2", "10.0.0.1", &[0, 0, 0, 0, 0, 5, 0, 1], &Ip::default()),
        ethernet(D0, C0, &udp_packet("10.0.0.2:1", other, b"rest", &later)),
        ethernet(D0, C0, &Ip::default().packet([10, 0, 0, 2].into(), [10, 0, 0, 1].into(), 47, &[0; 8])),
        // LLDP, and a frame of the old kind with a length in place of a type.
        frame([1, 0x80, 0xc2, 0, 0, 0xe], C0, 0x88cc, &[0; 50]),
        frame(D0, C0, 38, &[0; 46]),
        // Sent to all: no business of a virtual service, even to its address.
        ethernet([0xff; 6], C0, &client(1, SYN).packet()),
        ethernet([1, 0, 0x5e, 0, 0, 100], C0, &client(1, SYN).packet()),
    ];
    assert_eq!(lab.send(&frames).len(), 0);
    assert_eq!((lab.punted(), lab.all_drops()), (frames.len() as u64, vec![]));
    later.fragment = 0x2000;
    lab.send(&[ethernet(D0, C0, &udp_packet("10.0.0.2:1", VIP, b"part", &later))]);
    assert_eq!(lab.all_drops(), [(DropReason::FragmentMalformed, 1)]);
    lab.assert_accounted(0);
}

/// An ICMP error from a router about what server and client said to each other.
fn error_about(kind: u8, client: &str, service: &str) -> Vec<u8> {
    let v6 = service.starts_with('[');
    let quoted = tcp(service, client, ACK).packet();
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &quoted[..if v6 { 60 } else { 28 }]].concat();
    let (router, vip) = if v6 { ("fd00:1::77", "fd00:1::100") } else { ("10.0.0.77", "10.0.0.100") };
    icmp(router, vip, &message, &Ip::default())
}

#[test]
fn an_icmp_error_about_a_connection_is_relayed_to_its_server_unchanged() {
    let mut lab = lab();
    lab.send(&[client(1001, SYN).frame(), client(1001, ACK).frame(), client(1002, SYN).frame()]);
    lab.send(&[tcp("[fd00:1::2]:1", VIP6, SYN).frame()]);
    let before = lab.listed();
    lab.run(5_000);
    for (kind, server) in [(3, 0x12), (4, 0x12), (11, 0x12)] {
        let error = error_about(kind, "10.0.0.2:1001", VIP);
        let out = lab.send(std::slice::from_ref(&error));
        assert_eq!((out.len(), out[0][5]), (1, server), "type {kind}");
        assert_eq!(out[0][34..], error[34..]);
        assert_eq!(out[0][22], 63);
    }
    for kind in [1, 2, 3, 4] {
        let error = error_about(kind, "[fd00:1::2]:1", VIP6);
        let out = lab.send(std::slice::from_ref(&error));
        assert_eq!((out.len(), &out[0][54..]), (1, &error[54..]), "type {kind}");
    }
    // Five seconds on: an error is no sign of life.
    assert_eq!(before[0], "TCP 15:00 ESTABLISHED 10.0.0.2:1001 10.0.0.100:80 192.168.50.12:80");
    assert_eq!(lab.listed()[0], "TCP 14:55 ESTABLISHED 10.0.0.2:1001 10.0.0.100:80 192.168.50.12:80");
    lab.assert_accounted(0);
}

#[test]
fn an_icmp_error_in_the_batch_that_opens_its_connection_is_relayed_too() {
    let mut lab = lab();
    let out = lab.send(&[
        client(1001, SYN).frame(),
        error_about(3, "10.0.0.2:1001", VIP),
        tcp("[fd00:1::2]:1", VIP6, SYN).frame(),
        error_about(1, "[fd00:1::2]:1", VIP6),
    ]);
    assert_eq!(out.iter().map(|frame| frame[5]).collect::<Vec<_>>(), [0x12, 0x12, 0x11, 0x11]);
    lab.assert_accounted(0);
}

#[test]
fn an_icmp_error_about_no_connection_is_counted_and_ends() {
    let mut lab = lab();
    lab.send(&[client(1001, SYN).frame()]);
    let frames = [
        error_about(3, "10.0.0.2:1002", VIP),
        error_about(3, "10.0.0.3:1001", VIP),
        error_about(3, "10.0.0.2:1001", "10.0.0.100:81"),
        error_about(1, "[fd00:1::2]:1001", VIP6),
    ];
    assert_eq!(lab.send(&frames).len(), 0);
    assert_eq!(lab.all_drops(), [(DropReason::IcmpUnmatched, 4)]);
}

#[test]
fn no_icmp_error_is_sent_about_an_icmp_error() {
    let mut lab = lab();
    lab.send(&[client(1001, SYN).frame()]);
    let quoted = tcp(VIP, "10.0.0.2:1001", ACK).packet();
    let message = [&[11, 0, 0, 0, 0, 0, 0, 0][..], &quoted[..28]].concat();
    let last_hop = Ip { ttl: 1, ..Ip::default() };
    assert_eq!(lab.send(&[icmp("10.0.0.77", "10.0.0.100", &message, &last_hop)]).len(), 0);
    assert_eq!(lab.all_drops(), [(DropReason::NotAnswerable, 1)]);
    lab.assert_accounted(0);
}

#[test]
fn a_packet_larger_than_the_way_out_hears_of_it_as_the_original_says_it() {
    let mut plan = Plan::new().service(VIP, TCP, Kind::Rr, 1).service(VIP6, TCP, Kind::Rr, 1);
    plan.mtu = 1480;
    let mut lab = Lab::new(plan);
    lab.send(&[client(3001, SYN).frame(), tcp("[fd00:1::2]:1", VIP6, SYN).frame()]);
    let large = |len| client(3001, ACK).seq(1001, 5).len(len);
    assert_eq!(lab.send(&[large(1440).frame()])[0].len(), 1494);
    // The recording of a tunnel has the same form with another MTU: the original decrements the TTL first.
    assert_eq!(
        lab.says(large(1450).frame()),
        [
            "cl < d0>c0 ip 10.0.0.100>10.0.0.2 ttl=64 tos=192 flags= frag=0 len=576 ck=ok | icmp 3/4 l4=ok rest=000005c8 about ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=1490 ck=ok | tcp 3001>80 A seq=1001 ack=5 win=8192 data[508]=01080f161d242b32"
        ]
    );
    let six = tcp("[fd00:1::2]:1", VIP6, ACK).len(1430);
    let said = lab.says(six.frame()).concat();
    assert!(said.starts_with("cl < d0>c0 ip6 fd00:1::100>fd00:1::2 hlim=64 tc=0 plen=1240 | icmp6 2/0 l4=ok rest=000005c8 about ip6 "), "{said}");
    assert_eq!((lab.answers(Answer::PacketTooBig), lab.all_drops()), (2, vec![]));
}

#[test]
fn icmp_errors_are_limited_to_fifty_at_once_and_a_thousand_a_second() {
    let mut lab = lab();
    let probes: Vec<_> = (0..200).map(|n| udp(&format!("10.0.0.2:{}", 6_000 + n), "10.0.0.100:54")).collect();
    assert_eq!(lab.send(&probes).len(), 50);
    assert_eq!(lab.all_drops(), [(DropReason::AnswerRateLimited, 150)]);
    lab.wait(10);
    assert_eq!(lab.send(&probes).len(), 10);
    let resets: Vec<_> = (1..200).map(|port| client(port, ACK).frame()).collect();
    assert_eq!(lab.send(&resets).len(), 199, "a RST is none");
    lab.assert_accounted(0);
}

#[test]
fn rst_and_damaged_segments_are_not_answered() {
    let mut lab = lab();
    assert_eq!(lab.send(&[client(1, RST).frame(), client(1, RST | SYN).frame()]).len(), 0);
    assert_eq!(lab.all_drops(), [(DropReason::ResetUnmatched, 2)]);
    let mut damaged = client(1, ACK).len(10).frame();
    *damaged.last_mut().expect("a byte") ^= 1;
    assert_eq!(lab.send(&[damaged]).len(), 0);
    assert_eq!(lab.drops(DropReason::TransportHeader), 1);
}

#[test]
fn the_ftp_data_port_opens_no_connection() {
    let mut lab =
        Lab::new(Plan::new().service(VIP, TCP, Kind::Rr, 1).service("10.0.0.100:53", UDP, Kind::Rr, 1));
    let said = lab.says(client(20, SYN).frame()).concat();
    assert!(said.contains("tcp 80>20 RA"), "{said}");
    let said = lab.says(udp("10.0.0.2:20", "10.0.0.100:53")).concat();
    assert!(said.contains("icmp 3/3"), "{said}");
    assert_eq!(lab.connections(), 0);
}

#[test]
fn an_ftp_service_without_persistence_takes_no_connection_to_another_port() {
    let mut lab = Lab::new(Plan::new().service("10.0.0.100:21", TCP, Kind::Rr, 1));
    let said = lab.says(tcp("10.0.0.2:1", "10.0.0.100:3306", SYN).frame()).concat();
    assert!(said.contains("tcp 3306>1 RA"), "{said}");
    assert!(lab.says(tcp("10.0.0.2:1", "10.0.0.100:21", SYN).frame())[0].starts_with("r1"));
}

#[test]
fn an_answer_goes_to_the_station_that_asked() {
    let mut lab = lab();
    let other = [2, 0, 0, 0, 0, 0x77];
    let out = lab.send(&[ethernet(D0, other, &client(1, ACK).packet())]);
    assert_eq!((&out[0][..6], &out[0][6..12]), (&other[..], &D0[..]));
    let packet = icmp_packet(
        [10, 0, 0, 2].into(),
        [10, 0, 0, 100].into(),
        &[8, 0, 0, 0, 1, 2, 3, 4, 5],
        &Ip { tos: 0x48, ..Ip::default() },
    );
    let padded = [ethernet(D0, other, &packet), vec![0; 17]].concat();
    let out = lab.send(&[padded]);
    assert_eq!(out[0].len(), 14 + 29, "padding does not come back");
    assert_eq!(
        text(&out[0]),
        "02:00:00:00:00:77 < d0>02:00:00:00:00:77 ip 10.0.0.100>10.0.0.2 ttl=64 tos=72 flags= frag=0 len=29 ck=ok | icmp 0/0 l4=ok rest=01020304 data[1]"
    );
}
