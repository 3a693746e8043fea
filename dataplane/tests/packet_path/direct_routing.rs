//! What a client's packets become on their way to the servers: the recordings of the original, line by line.

use crate::support::{
    Lab, Plan, TCP, UDP,
    frames::{
        ACK, C0, D0, D1, FIN, Ip, PSH, R1, R2, R3, RST, SYN, Segment, ethernet, tagged, tcp, udp, udp_packet,
    },
};
use pointsman_dataplane::{scheduler::Kind, verdict::Answer};

const VIP: &str = "10.0.0.100:80";

fn client(port: u16, flags: u8) -> Segment {
    tcp(&format!("10.0.0.2:{port}"), VIP, flags)
}

fn three_servers() -> Lab {
    Lab::new(Plan::new().service(VIP, TCP, Kind::Rr, 3))
}

/// The segments of the recording, up to its listings.
fn dr_rr(lab: &mut Lab) -> Vec<String> {
    [
        client(1001, SYN),
        client(1001, ACK).seq(1001, 5),
        client(1001, PSH | ACK).seq(1001, 5).len(20),
        client(1002, SYN),
        client(1003, SYN),
        client(1004, SYN).ip(|ip| ip.tos = 8),
        client(1001, FIN | ACK).seq(1021, 9),
    ]
    .iter()
    .flat_map(|segment| lab.says(segment.frame()))
    .collect()
}

#[test]
fn segments_reach_the_servers_as_in_the_recording_of_the_original() {
    let lines = dr_rr(&mut three_servers());
    assert_eq!(
        lines,
        [
            "r3 < d1>r3 ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=44 ck=ok | tcp 1001>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)] l4=ok",
            "r3 < d1>r3 ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=40 ck=ok | tcp 1001>80 A seq=1001 ack=5 win=8192 l4=ok",
            "r3 < d1>r3 ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=60 ck=ok | tcp 1001>80 PA seq=1001 ack=5 win=8192 data[20]=01080f161d242b32 l4=ok",
            "r2 < d1>r2 ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=44 ck=ok | tcp 1002>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)] l4=ok",
            "r1 < d1>r1 ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=44 ck=ok | tcp 1003>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)] l4=ok",
            "r3 < d1>r3 ip 10.0.0.2>10.0.0.100 ttl=63 tos=8 flags=DF frag=0 len=44 ck=ok | tcp 1004>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)] l4=ok",
            "r3 < d1>r3 ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=40 ck=ok | tcp 1001>80 FA seq=1021 ack=9 win=8192 l4=ok",
        ]
    );
}

#[test]
fn counters_and_connections_are_those_of_the_recording() {
    let mut lab = three_servers();
    dr_rr(&mut lab);
    // ipvsadm -Ln --stats: Conns, InPkts, InBytes of r1, r2, r3.
    assert_eq!([lab.traffic(0), lab.traffic(1), lab.traffic(2)], [(1, 1, 44), (1, 1, 44), (2, 5, 228)]);
    // ipvsadm -Ln: ActiveConn, InActConn.
    assert_eq!([lab.counts(0), lab.counts(1), lab.counts(2)], [(1, 0), (1, 0), (1, 1)]);
    assert_eq!(
        lab.listed(),
        [
            "TCP 02:00 FIN_WAIT 10.0.0.2:1001 10.0.0.100:80 192.168.50.13:80",
            "TCP 01:00 SYN_RECV 10.0.0.2:1002 10.0.0.100:80 192.168.50.12:80",
            "TCP 01:00 SYN_RECV 10.0.0.2:1003 10.0.0.100:80 192.168.50.11:80",
            "TCP 01:00 SYN_RECV 10.0.0.2:1004 10.0.0.100:80 192.168.50.13:80",
        ]
    );
    let stats = &lab.stations[0].shared.stats;
    assert_eq!((stats.ports[0].rx_packets.get(), stats.ports[1].tx_packets.get()), (7, 7));
    // 316 bytes of IP in 7 frames with 14 bytes of Ethernet each.
    assert_eq!((stats.ports[0].rx_bytes.get(), stats.ports[1].tx_bytes.get()), (414, 414));
    lab.assert_accounted(0);
}

#[test]
fn nothing_but_mac_addresses_ttl_and_header_checksum_changes() {
    let mut lab = three_servers();
    let options = vec![1, 1, 1, 0];
    for (segment, server) in [
        (client(1, SYN).ip(|ip| (ip.id, ip.tos, ip.fragment) = (0xffff, 0xfc, 0)), R3),
        (client(2, SYN).ip(|ip| (ip.ttl, ip.options) = (255, options)).len(1400), R2),
        (client(3, SYN).ip(|ip| ip.ttl = 2), R1),
    ] {
        let mut expected = segment.clone();
        expected.ip.ttl -= 1;
        assert_eq!(lab.send(&[segment.frame()]), [ethernet(server, D1, &expected.packet())]);
    }
}

#[test]
fn every_ttl_from_2_to_255_is_one_less_with_a_right_checksum() {
    let mut lab = three_servers();
    lab.send(&[client(9, SYN).frame()]);
    for ttl in 2..=255 {
        for id in [0, 1, 0x7fff, 0xfffe] {
            let segment = client(9, ACK).ip(|ip| (ip.ttl, ip.id) = (ttl, id));
            let expected = client(9, ACK).ip(|ip| (ip.ttl, ip.id) = (ttl - 1, id));
            assert_eq!(lab.send(&[segment.frame()]), [ethernet(R3, D1, &expected.packet())]);
        }
    }
}

#[test]
fn padding_of_short_frames_and_vlan_tags_go_along() {
    let mut lab = three_servers();
    let (segment, expected) = (client(1, SYN), client(1, SYN).ip(|ip| ip.ttl = 63));
    let expected = ethernet(R3, D1, &expected.packet());
    let padded = |frame: Vec<u8>| [frame, vec![0xaa; 6]].concat();
    assert_eq!(lab.send(&[padded(segment.frame())]), [padded(expected.clone())]);
    let one = |frame: &[u8]| tagged(frame, 0x8100, 0x6064);
    assert_eq!(lab.send(&[one(&segment.frame())]), [one(&expected)]);
    let two = |frame: &[u8]| tagged(&one(frame), 0x88a8, 0x00c8);
    assert_eq!(lab.send(&[two(&segment.frame())]), [two(&expected)]);
    assert_eq!(lab.traffic(2), (1, 3, 132), "padding and tags are no bytes of the packet");
}

#[test]
fn ipv6_reaches_the_servers_as_in_the_recording_of_the_original() {
    let vip = "[fd00:1::100]:80";
    let mut lab = Lab::new(Plan::new().service(vip, TCP, Kind::Rr, 1));
    assert_eq!(
        lab.says(tcp("[fd00:1::2]:8002", vip, SYN).frame()),
        [
            "r1 < d1>r1 ip6 fd00:1::2>fd00:1::100 hlim=63 tc=0 plen=24 | tcp 8002>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)] l4=ok"
        ]
    );
    assert_eq!(lab.listed(), ["TCP 01:00 SYN_RECV [fd00:1::2]:8002 [fd00:1::100]:80 [fd00:50::11]:80"]);
    assert_eq!(lab.traffic(0), (1, 1, 64));
}

#[test]
fn ipv6_extension_headers_do_not_hide_the_flow() {
    let vip = "[fd00:1::100]:53";
    let mut lab = Lab::new(Plan::new().service(vip, UDP, Kind::Rr, 2));
    let plain = udp_packet("[fd00:1::2]:5001", vip, b"ping", &Ip::default());
    // Hop-by-hop and destination options of eight bytes each (PadN), then UDP.
    let mut packet = plain[..40].to_vec();
    (packet[5], packet[6]) = (16 + 12, 0);
    packet.extend([60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend(&plain[40..]);
    let out = lab.send(&[ethernet(D0, C0, &plain), ethernet(D0, C0, &packet)]);
    packet[7] = 63;
    assert_eq!(out[1], ethernet(R2, D1, &packet));
    assert_eq!(lab.list().len(), 1);
}

#[test]
fn udp_flows_stick_and_are_inactive() {
    let mut lab = Lab::new(Plan::new().service("10.0.0.100:53", UDP, Kind::Rr, 2));
    for (port, server) in [(5001, "r2"), (5001, "r2"), (5002, "r1"), (5001, "r2"), (5002, "r1")] {
        let out = lab.says(udp(&format!("10.0.0.2:{port}"), "10.0.0.100:53"));
        assert!(out[0].starts_with(server), "{out:?}");
    }
    assert_eq!(
        lab.listed(),
        [
            "UDP 05:00 UDP 10.0.0.2:5001 10.0.0.100:53 192.168.50.12:53",
            "UDP 05:00 UDP 10.0.0.2:5002 10.0.0.100:53 192.168.50.11:53",
        ]
    );
    assert_eq!([lab.counts(0), lab.counts(1)], [(0, 1), (0, 1)]);
}

#[test]
fn wrr_gives_the_order_that_was_recorded() {
    let mut plan = Plan::new().service(VIP, TCP, Kind::Wrr, 3);
    for ((_, weight), planned) in plan.services[0].servers.iter_mut().zip([4, 3, 2]) {
        *weight = planned;
    }
    let mut lab = Lab::new(plan);
    let order: String =
        (4001..=4020).map(|port| lab.says(client(port, SYN).frame())[0][1..2].to_owned()).collect();
    assert_eq!(order, "32112132132112132132");
    assert_eq!([lab.counts(0), lab.counts(1), lab.counts(2)], [(8, 0), (7, 0), (5, 0)]);
}

#[test]
fn the_states_of_a_connection_are_those_of_the_recording() {
    // The direct routing part of the recording of TCP states.
    let vip = "10.0.0.100:81";
    let mut lab = Lab::new(Plan::new().service(vip, TCP, Kind::Rr, 1));
    let segment = |port: u16, flags| tcp(&format!("10.0.0.2:{port}"), vip, flags).seq(1000, 0).frame();
    for (flags, line) in [
        (SYN, "TCP 01:00 SYN_RECV"),
        (ACK, "TCP 15:00 ESTABLISHED"),
        (FIN | ACK, "TCP 02:00 FIN_WAIT"),
        (ACK, "TCP 02:00 FIN_WAIT"),
        (RST, "TCP 00:10 CLOSE"),
    ] {
        assert_eq!(lab.send(&[segment(9102, flags)]).len(), 1);
        let listed = lab.listed();
        assert_eq!(listed, [format!("{line} 10.0.0.2:9102 10.0.0.100:81 192.168.50.11:81")]);
    }
    // `--set 60 20 10`: ESTABLISHED 60, FIN_WAIT 20, UDP 10.
    let seconds = pointsman_dataplane::time::Ticks::from_secs;
    (lab.plan.timeouts.tcp[1], lab.plan.timeouts.tcp[4]) = (seconds(60), seconds(20));
    lab.publish();
    lab.send(&[segment(9103, SYN), segment(9103, ACK)]);
    assert_eq!(lab.listed()[1], "TCP 01:00 ESTABLISHED 10.0.0.2:9103 10.0.0.100:81 192.168.50.11:81");
}

#[test]
fn what_the_director_says_itself_is_as_recorded() {
    let mut lab = three_servers();
    dr_rr(&mut lab);
    let mut says = |frame| lab.says(frame).concat();
    assert_eq!(
        says(client(1005, ACK).seq(5, 5).frame()),
        "cl < d0>c0 ip 10.0.0.100>10.0.0.2 ttl=64 tos=0 flags=DF frag=0 len=40 ck=ok | tcp 80>1005 R seq=5 ack=0 win=0 l4=ok"
    );
    assert_eq!(
        says(tcp("10.0.0.2:1006", "10.0.0.100:81", SYN).frame()),
        "cl < d0>c0 ip 10.0.0.100>10.0.0.2 ttl=64 tos=0 flags=DF frag=0 len=40 ck=ok | tcp 81>1006 RA seq=0 ack=1001 win=0 l4=ok"
    );
    assert_eq!(
        says(crate::support::frames::echo("10.0.0.2", "10.0.0.100")),
        "cl < d0>c0 ip 10.0.0.100>10.0.0.2 ttl=64 tos=0 flags= frag=0 len=36 ck=ok | icmp 0/0 l4=ok rest=00050001 data[8]"
    );
    assert_eq!(
        says(client(1007, SYN).ip(|ip| ip.ttl = 1).frame()),
        "cl < d0>c0 ip 10.0.0.100>10.0.0.2 ttl=64 tos=192 flags= frag=0 len=72 ck=ok | icmp 11/0 l4=ok rest=00000000 about ip 10.0.0.2>10.0.0.100 ttl=1 tos=0 flags=DF frag=0 len=44 ck=ok | tcp 1007>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)]"
    );
    assert_eq!(lab.answers(Answer::TcpReset), 2);
    assert_eq!((lab.answers(Answer::EchoReply), lab.answers(Answer::TimeExceeded)), (1, 1));
    lab.assert_accounted(0);
}
