//! Servers behind tunnels: the recording of the original for IP in IP; for the other wrappings the headers that their
//! documents give (RFC 2473, RFC 2784, draft-ietf-intarea-gue).

use crate::support::{
    Lab, Plan, TCP,
    frames::{ACK, C0, D0, Ip, SYN, Segment, checksum, ethernet, icmp, tagged, tcp, udp},
    text::{GUE_PORT, text},
};
use pointsman_dataplane::{
    scheduler::Kind,
    snapshot::Encapsulation,
    verdict::{Answer, DropReason},
};

const VIP: &str = "10.0.0.100:80";
const VIP6: &str = "[fd00:1::100]:80";

fn client(port: u16, flags: u8) -> Segment {
    tcp(&format!("10.0.0.2:{port}"), VIP, flags)
}

/// A service at `at` with one server behind a tunnel.
fn one(at: &str, encapsulation: Encapsulation) -> Lab {
    Lab::new(Plan::new().service(at, TCP, Kind::Rr, 1).tunnelled(0, encapsulation))
}

#[test]
fn ip_in_ip_is_that_of_the_recording_of_the_original() {
    let plan = Plan::new().service(VIP, TCP, Kind::Rr, 2);
    let plan = plan.tunnelled(0, Encapsulation::Ipip).tunnelled(1, Encapsulation::Ipip);
    let mut lab = Lab::new(plan);
    let lines: Vec<String> = [
        client(3001, SYN).frame(),
        client(3001, ACK).seq(1001, 5).ip(|ip| ip.tos = 16).frame(),
        client(3001, ACK).seq(1001, 5).ip(|ip| ip.fragment = 0).frame(),
        client(3002, SYN).ip(|ip| ip.tos = 1).frame(),
        client(3001, ACK).seq(1001, 5).len(1440).frame(),
        client(3001, ACK).seq(1001, 5).len(1450).frame(),
        udp("10.0.0.2:3001", VIP),
        client(3003, SYN).ip(|ip| ip.ttl = 1).frame(),
    ]
    .into_iter()
    .flat_map(|frame| lab.says(frame))
    .collect();
    assert_eq!(
        lines,
        [
            "r2 < d1>r2 ip 192.168.50.1>192.168.50.12 ttl=63 tos=0 flags=DF frag=0 len=64 ck=ok [ ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=44 ck=ok | tcp 3001>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)] l4=ok ]",
            "r2 < d1>r2 ip 192.168.50.1>192.168.50.12 ttl=63 tos=16 flags=DF frag=0 len=60 ck=ok [ ip 10.0.0.2>10.0.0.100 ttl=63 tos=16 flags=DF frag=0 len=40 ck=ok | tcp 3001>80 A seq=1001 ack=5 win=8192 l4=ok ]",
            "r2 < d1>r2 ip 192.168.50.1>192.168.50.12 ttl=63 tos=0 flags= frag=0 len=60 ck=ok [ ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags= frag=0 len=40 ck=ok | tcp 3001>80 A seq=1001 ack=5 win=8192 l4=ok ]",
            "r1 < d1>r1 ip 192.168.50.1>192.168.50.11 ttl=63 tos=1 flags=DF frag=0 len=64 ck=ok [ ip 10.0.0.2>10.0.0.100 ttl=63 tos=1 flags=DF frag=0 len=44 ck=ok | tcp 3002>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)] l4=ok ]",
            "r2 < d1>r2 ip 192.168.50.1>192.168.50.12 ttl=63 tos=0 flags=DF frag=0 len=1500 ck=ok [ ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=1480 ck=ok | tcp 3001>80 A seq=1001 ack=5 win=8192 data[1440]=01080f161d242b32 l4=ok ]",
            "cl < d0>c0 ip 10.0.0.100>10.0.0.2 ttl=64 tos=192 flags= frag=0 len=576 ck=ok | icmp 3/4 l4=ok rest=000005c8 about ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=1490 ck=ok | tcp 3001>80 A seq=1001 ack=5 win=8192 data[508]=01080f161d242b32",
            "cl < d0>c0 ip 10.0.0.100>10.0.0.2 ttl=64 tos=192 flags= frag=0 len=60 ck=ok | icmp 3/3 l4=ok rest=00000000 about ip 10.0.0.2>10.0.0.100 ttl=64 tos=0 flags=DF frag=0 len=32 ck=ok | udp 3001>80 len=12 data[4]=70696e67",
            "cl < d0>c0 ip 10.0.0.100>10.0.0.2 ttl=64 tos=192 flags= frag=0 len=72 ck=ok | icmp 11/0 l4=ok rest=00000000 about ip 10.0.0.2>10.0.0.100 ttl=1 tos=0 flags=DF frag=0 len=44 ck=ok | tcp 3003>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)]",
        ]
    );
    // ipvsadm -Ln: ActiveConn, InActConn of both.
    assert_eq!([lab.counts(0), lab.counts(1)], [(1, 0), (2, 0)]);
    lab.assert_accounted(0);
}

const INNER: &str = "[ ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=44 ck=ok | tcp 1>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)] l4=ok ]";
const INNER6: &str = "[ ip6 fd00:1::2>fd00:1::100 hlim=63 tc=0 plen=24 | tcp 1>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)] l4=ok ]";

#[test]
fn each_family_travels_in_each() {
    let mut both = one(VIP6, Encapsulation::Ipip);
    let six = tcp("[fd00:1::2]:1", VIP6, SYN).frame();
    let outer = "r1 < d1>r1 ip6 fd00:50::1>fd00:50::11 hlim=63 tc=0 plen=64";
    assert_eq!(both.says(six.clone()), [format!("{outer} {INNER6}")]);

    // A server of the other family: slot 1 is made for a service of it, and given to the first.
    let swap = |at: &str, other: &str| {
        let mut plan = Plan::new().service(at, TCP, Kind::Rr, 1).service(other, TCP, Kind::Rr, 1);
        plan.services.truncate(1);
        plan.services[0].servers = vec![(1, 1)];
        Lab::new(plan.tunnelled(1, Encapsulation::Ipip))
    };
    // An IPv6 packet inside IPv4 goes without "don't fragment".
    let outer = "r1 < d1>r1 ip 192.168.50.1>192.168.50.11 ttl=63 tos=0 flags= frag=0 len=84 ck=ok";
    assert_eq!(swap(VIP6, VIP).says(six), [format!("{outer} {INNER6}")]);
    let outer = "r1 < d1>r1 ip6 fd00:50::1>fd00:50::11 hlim=63 tc=0 plen=44";
    assert_eq!(swap(VIP, VIP6).says(client(1, SYN).frame()), [format!("{outer} {INNER}")]);
}

#[test]
fn gre_has_a_checksum_if_it_is_to() {
    let outer = |len| {
        format!("r1 < d1>r1 ip 192.168.50.1>192.168.50.11 ttl=63 tos=0 flags=DF frag=0 len={len} ck=ok")
    };
    let mut plain = one(VIP, Encapsulation::Gre { checksum: false });
    let said = plain.says(client(1, SYN).frame());
    assert_eq!(said, [format!("{} | gre flags=0000 type=0800 {INNER}", outer(68))]);
    let mut summed = one(VIP, Encapsulation::Gre { checksum: true });
    let said = summed.says(client(1, SYN).frame());
    assert_eq!(said, [format!("{} | gre flags=8000 type=0800 ck=ok {INNER}", outer(72))]);
    let mut six = one(VIP6, Encapsulation::Gre { checksum: true });
    let said = six.says(tcp("[fd00:1::2]:1", VIP6, SYN).frame());
    let outer = "r1 < d1>r1 ip6 fd00:50::1>fd00:50::11 hlim=63 tc=0 plen=72";
    assert_eq!(said, [format!("{outer} | gre flags=8000 type=86dd ck=ok {INNER6}")]);
}

#[test]
fn gue_tells_flows_apart_by_its_source_port() {
    let gue = |checksum| Encapsulation::Gue { port: GUE_PORT, checksum };
    let mut lab = one(VIP, gue(false));
    let mut ports = Vec::new();
    // All but 20, from which nothing is scheduled.
    for port in (1..20).chain(21..=51) {
        let opened = lab.says(client(port, SYN).frame()).concat();
        let goes_on = lab.says(client(port, ACK).frame()).concat();
        let source = |line: &str| -> u16 {
            let word = line.split(" | gue ").nth(1).and_then(|rest| rest.split(' ').next());
            word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no port: {line}"))
        };
        assert_eq!(source(&opened), source(&goes_on), "one flow, one port");
        assert!((32_768..61_000).contains(&source(&opened)), "{opened}");
        ports.push(source(&opened));
        if port == 1 {
            // Version 0, IPv4 follows, no flags.
            let tail = format!(" len=56 00040000 l4=none {INNER}");
            assert!(opened.starts_with("r1 < d1>r1 ip 192.168.50.1>192.168.50.11 ttl=63 tos=0 flags=DF frag=0 len=76 ck=ok | gue "), "{opened}");
            assert!(opened.ends_with(&tail), "{opened}");
        }
    }
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() > 40, "of 50 flows: {ports:?}");

    let said = one(VIP, gue(true)).says(client(1, SYN).frame()).concat();
    assert!(said.contains(" len=56 00040000 l4=ok "), "{said}");
    let said = one(VIP6, gue(true)).says(tcp("[fd00:1::2]:1", VIP6, SYN).frame()).concat();
    assert!(
        said.contains(" plen=76 | gue ") && said.contains(&format!(" 00290000 l4=ok {INNER6}")),
        "{said}"
    );
}

#[test]
fn congestion_stays_inside_and_travels_as_capable_of_it() {
    let mut lab = one(VIP, Encapsulation::Ipip);
    for (inner, outer) in [(0b0010_1011, 0b0010_1010), (0b11, 0b10), (0b10, 0b10), (0b01, 0b01), (0, 0)] {
        let said = lab.says(client(1, SYN).ip(|ip| ip.tos = inner).frame()).concat();
        let tos: Vec<&str> = said.split(' ').filter(|word| word.starts_with("tos=")).collect();
        assert_eq!(tos, [format!("tos={outer}"), format!("tos={inner}")]);
    }
}

#[test]
fn tags_stay_before_the_tunnel_and_padding_ends_with_the_frame() {
    let mut lab = one(VIP, Encapsulation::Ipip);
    let mut padded = tagged(&client(1, SYN).frame(), 0x8100, 42);
    padded.resize(70, 0xee);
    let sent = lab.send(&[padded]);
    assert_eq!(sent[0].len(), 14 + 4 + 20 + 44);
    let outer = "r1 < d1>r1 vlan 42 ip 192.168.50.1>192.168.50.11 ttl=63 tos=0 flags=DF frag=0 len=64 ck=ok";
    assert_eq!(text(&sent[0]), format!("{outer} {INNER}"));
}

/// "Fragmentation needed" from a router on the way to r1, about a packet of the tunnel.
fn too_big(mtu: u16, inner_is: u8) -> Vec<u8> {
    let outer = Ip::default().packet([192, 168, 50, 1].into(), [192, 168, 50, 11].into(), inner_is, &[0; 28]);
    let [high, low] = mtu.to_be_bytes();
    let message = [&[3, 4, 0, 0, 0, 0, high, low][..], &outer].concat();
    icmp("192.168.50.77", "192.168.50.1", &message, &Ip::default())
}

#[test]
fn the_path_of_a_tunnel_is_learned_from_errors_about_it_and_forgotten_after_ten_minutes() {
    let mut lab = one(VIP, Encapsulation::Ipip);
    lab.send(&[client(1, SYN).frame(), client(1, ACK).frame()]);
    let large = |len| client(1, ACK).len(len).frame();
    // 1400 bytes by the path, 20 of them the tunnel's: 1380, of which 40 are headers.
    assert_eq!(lab.send(&[large(1341)]).len(), 1);
    let mut damaged = too_big(1400, 4);
    *damaged.last_mut().unwrap() ^= 1;
    let of_another = |to: &str| {
        let quoted = Ip::default().packet([192, 168, 50, 9].into(), [192, 168, 50, 11].into(), 4, &[0; 28]);
        let message = [&[3, 4, 0, 0, 0, 0, 2, 88][..], &quoted].concat();
        icmp("192.168.50.77", to, &message, &Ip::default())
    };
    lab.send(&[damaged, of_another("192.168.50.1"), of_another("192.168.50.9")]);
    assert!(
        lab.says(large(1341)).concat().contains("[ ip "),
        "a damaged error tells nothing, nor one about another's packet"
    );
    assert_eq!(lab.send(&[too_big(1400, 4)]).len(), 0, "the error is the host's too");
    assert!(lab.says(large(1341)).concat().contains("icmp 3/4 l4=ok rest=00000564 "), "1380");
    assert!(lab.says(large(1340)).concat().contains("[ ip "));
    // A larger one later is no news, a nonsensical one counts as the least there is.
    lab.send(&[too_big(1500, 4)]);
    assert!(lab.says(large(1341)).concat().contains("rest=00000564 "));
    lab.send(&[too_big(20, 4)]);
    assert!(lab.says(large(1000)).concat().contains("rest=00000214 "), "552 less 20");
    for _ in 0..6 {
        lab.run(100_000);
        lab.send(&[client(1, ACK).frame()]);
    }
    assert!(lab.says(large(1341)).concat().contains("[ ip "), "forgotten");
    assert_eq!(lab.answers(Answer::PacketTooBig), 3);
}

#[test]
fn the_path_of_a_gue_tunnel_is_learned_too() {
    let mut lab = one(VIP, Encapsulation::Gue { port: GUE_PORT, checksum: false });
    lab.send(&[client(1, SYN).frame(), client(1, ACK).frame()]);
    lab.send(&[too_big(1400, 17)]);
    // 32 bytes of headers: 1368.
    assert!(lab.says(client(1, ACK).len(1329).frame()).concat().contains("icmp 3/4 l4=ok rest=00000558 "));
    assert_eq!(lab.send(&[client(1, ACK).len(1328).frame()]).len(), 1);
}

#[test]
fn a_path_too_narrow_for_any_packet_in_a_tunnel_is_counted() {
    let mut plan = Plan::new().service(VIP, TCP, Kind::Rr, 1);
    plan.mtu = 87;
    let mut lab = Lab::new(plan.tunnelled(0, Encapsulation::Ipip));
    assert_eq!(lab.send(&[client(1, SYN).frame()]).len(), 0);
    assert_eq!(lab.all_drops(), [(DropReason::TunnelMtu, 1)]);
    lab.assert_accounted(0);
}

#[test]
fn an_ipv6_packet_needs_1280_bytes_of_a_tunnel() {
    let lab = |mtu| {
        let mut plan = Plan::new().service(VIP6, TCP, Kind::Rr, 1);
        plan.mtu = mtu;
        Lab::new(plan.tunnelled(0, Encapsulation::Ipip))
    };
    let syn = tcp("[fd00:1::2]:1", VIP6, SYN).frame();
    assert_eq!(lab(1320).send(std::slice::from_ref(&syn)).len(), 1, "1280 and 40");
    let mut narrow = lab(1319);
    assert_eq!(narrow.send(&[syn]).len(), 0);
    assert_eq!(narrow.all_drops(), [(DropReason::TunnelMtu, 1)]);
}

#[test]
fn numbers_of_outer_packets_that_may_be_fragmented_differ() {
    let mut lab = one(VIP, Encapsulation::Ipip);
    let frame = client(1, SYN).ip(|ip| ip.fragment = 0).frame();
    let sent = lab.send(&[frame.clone(), frame.clone(), ethernet(D0, C0, &client(2, SYN).packet()), frame]);
    let numbers: Vec<u16> = sent.iter().map(|frame| u16::from_be_bytes([frame[18], frame[19]])).collect();
    assert_eq!(numbers, [0, 1, 0, 2], "the third says DF");
}

/// A SYN with these TCP options, and the sum of its segment made anew.
fn syn_with(options: &[u8]) -> Vec<u8> {
    let mut packet = client(1, SYN).packet();
    packet.truncate(40);
    packet.extend(options);
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[32] = (5 + options.len() as u8 / 4) << 4;
    packet[36..38].fill(0);
    let pseudo = [&packet[12..20], &[0, 6], &(len - 20).to_be_bytes()].concat();
    let sum = checksum(&[&pseudo, &packet[20..]].concat()).to_be_bytes();
    packet[36..38].copy_from_slice(&sum);
    packet[10..12].fill(0);
    let sum = checksum(&packet[..20]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    ethernet(D0, C0, &packet)
}

/// With the switch on.
fn clamping(vip: &str, mtu: u16) -> Lab {
    let mut plan = Plan::new().service(vip, TCP, Kind::Rr, 1).tunnelled(0, Encapsulation::Ipip);
    plan.policies.clamp_mss = true;
    plan.mtu = mtu;
    Lab::new(plan)
}

#[test]
fn a_syn_asks_for_segments_that_fit_into_the_tunnel_if_that_is_wanted() {
    // 1500 less 20 of the tunnel, less 40 of the headers.
    let said = clamping(VIP, 1500).says(client(1, SYN).frame()).concat();
    assert!(said.contains("S seq=1000 ack=0 win=8192 opt=[('MSS', 1440)] l4=ok"), "{said}");
    let said = clamping(VIP6, 1500).says(tcp("[fd00:1::2]:1", VIP6, SYN).frame()).concat();
    assert!(said.contains("opt=[('MSS', 1400)] l4=ok"), "{said}");
    let said = clamping(VIP, 1600).says(client(1, SYN).frame()).concat();
    assert!(said.contains("opt=[('MSS', 1460)] l4=ok"), "it is not raised: {said}");
    let said = one(VIP, Encapsulation::Ipip).says(client(1, SYN).frame()).concat();
    assert!(said.contains("opt=[('MSS', 1460)] l4=ok"), "it is not wanted: {said}");
}

#[test]
fn an_mss_among_other_options_is_found_and_broken_options_stay_as_they_are() {
    let mut lab = clamping(VIP, 1500);
    for (options, after) in [
        // At an odd place; behind others; 1440 is 0x05a0.
        (&[1, 2, 4, 0x05, 0xb4, 1, 1, 0][..], &[1, 2, 4, 0x05, 0xa0, 1, 1, 0][..]),
        (&[4, 2, 1, 1, 2, 4, 0xff, 0xff], &[4, 2, 1, 1, 2, 4, 0x05, 0xa0]),
        (&[3, 3, 7, 2, 4, 0x10, 0x01, 0], &[3, 3, 7, 2, 4, 0x05, 0xa0, 0]),
        // None; behind the end; of no length that can be; cut off; unknown ones that lead beyond.
        (&[1, 1, 1, 1], &[1, 1, 1, 1]),
        (&[], &[]),
        (&[0, 0, 0, 0, 2, 4, 5, 0xb4], &[0, 0, 0, 0, 2, 4, 5, 0xb4]),
        (&[2, 3, 5, 0xb4], &[2, 3, 5, 0xb4]),
        (&[1, 2, 4, 5], &[1, 2, 4, 5]),
        (&[9, 0, 2, 4, 5, 0xb4, 0, 0], &[9, 0, 2, 4, 5, 0xb4, 0, 0]),
        (&[9, 200, 2, 4, 5, 0xb4, 0, 0], &[9, 200, 2, 4, 5, 0xb4, 0, 0]),
    ] {
        let sent = lab.send(&[syn_with(options)]);
        assert_eq!(&sent[0][14 + 20 + 40..], after, "{options:?}");
        assert!(text(&sent[0]).contains("l4=ok"), "{}", text(&sent[0]));
    }
}

#[test]
fn without_pmtu_disc_outer_headers_let_routers_fragment() {
    let mut plan = Plan::new().service(VIP, TCP, Kind::Rr, 1).service(VIP6, TCP, Kind::Rr, 1);
    plan = plan.tunnelled(0, Encapsulation::Ipip);
    plan.policies.pmtu_disc = false;
    let mut lab = Lab::new(plan.clone());
    let outer = "r1 < d1>r1 ip 192.168.50.1>192.168.50.11 ttl=63 tos=0 flags= frag=0 len=64 ck=ok";
    assert_eq!(lab.says(client(1, SYN).frame()), [format!("{outer} {INNER}")]);
    // One too large is cut without, too: its sender may not hear of it. IPv6 has no other way.
    let large = lab.says(client(1, ACK).len(1450).frame());
    let of_outer = |line: &String| line.starts_with("r1 < d1>r1 ip 192.168.50.1>192.168.50.11 ");
    assert!(large.len() == 2 && large.iter().all(of_outer), "{large:?}");
    assert!(large[0].contains("flags=MF frag=0 ") && large[1].contains("flags= frag=185 "), "{large:?}");
    let mut lab = Lab::new(plan.tunnelled(0, Encapsulation::Gre { checksum: false }));
    let outer = "r1 < d1>r1 ip 192.168.50.1>192.168.50.11 ttl=63 tos=0 flags= frag=0 len=68 ck=ok";
    assert_eq!(lab.says(client(1, SYN).frame()), [format!("{outer} | gre flags=0000 type=0800 {INNER}")]);
}
