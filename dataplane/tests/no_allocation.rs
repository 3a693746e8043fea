//! A worker takes all its memory at start: a counting allocator sees nothing allocated and nothing freed for a packet,
//! whatever the packet is.

#[allow(dead_code, reason = "the harness serves the tests of the packet path too")]
mod support;

use pointsman_dataplane::{
    mark,
    prefix::Prefix,
    routing::SourceNat,
    scheduler::Kind,
    snapshot::{Encapsulation, NeighborState},
    verdict::{Answer, DropReason},
};
use support::{
    Lab, Plan, Size, TCP, UDP,
    frames::{
        ACK, C0, D0, D1, FIN, Ip, R1, R2, RST, SYN, Segment, arp_request, echo, ethernet, frame, icmp,
        icmp_packet, solicitation, tcp, udp, udp_packet,
    },
};

const VIP: &str = "10.0.0.100:80";
const VIP6: &str = "[fd00:1::100]:80";

/// Packets of every kind: of known and new connections, to be answered, to be left to the host, and to be dropped.
fn mixture() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for n in 0..200_u16 {
        let (client, client6) = (format!("10.0.1.{}:{}", n % 50, 2_000 + n), format!("[fd00:9::{n:x}]:2000"));
        for flags in [SYN, ACK, ACK, if n % 2 == 0 { FIN | ACK } else { RST | ACK }] {
            frames.push(tcp(&client, VIP, flags).len(usize::from(n)).frame());
            frames.push(tcp(&client6, VIP6, flags).frame());
        }
        frames.push(udp(&client, "10.0.0.100:53"));
        frames.push(udp(&client, "10.0.0.100:54"));
        frames.push(tcp(&client, VIP, ACK).ip(|ip| ip.ttl = 1).frame());
        frames.push(tcp(&client, "10.0.0.100:81", SYN).frame());
        frames.push(tcp(&client, "10.0.0.1:22", SYN).frame());
        let quoted = tcp(VIP, &client, ACK).packet();
        let error = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
        frames.push(icmp("10.0.0.9", "10.0.0.100", &error, &Ip::default()));
        frames.push(echo("10.0.0.2", "10.0.0.100"));
        let gre = Ip::default().packet([10, 0, 0, 2].into(), [10, 0, 0, 100].into(), 47, &[0; 8]);
        frames.push(ethernet(D0, C0, &gre));
        frames.push(echo("fd00:1::2", "fd00:1::100"));
        frames.push(arp_request("10.0.0.2", "10.0.0.100"));
        frames.push(solicitation("fd00:1::2", "fd00:1::100"));
        frames.push(ethernet(D1, C0, &tcp(&client, VIP, ACK).packet()));
        let fragment = Ip { fragment: 0x2000, ..Ip::default() };
        frames.push(ethernet(D0, C0, &udp_packet(&client, "10.0.0.100:53", b"part", &fragment)));
        // A later one that has to wait, the first, and one behind it; then one whose first never comes.
        let part = |id, fragment| {
            let ip = Ip { id, fragment, ..Ip::default() };
            ethernet(D0, C0, &udp_packet(&client, "10.0.0.100:53", &[7; 16], &ip))
        };
        if n % 8 == 0 {
            frames.extend([part(n, 0x2006), part(n, 0x2000), part(n, 3), part(1_000 + n, 3)]);
            frames.push(tcp(&client, VIP, ACK).ip(|ip| ip.fragment = 0).len(1_600).frame());
        }
        frames.push(tcp(&client, VIP, ACK).frame()[..30].to_vec());
        frames.push(frame(D0, C0, 0x88cc, &[0; 40]));
        frames.push(tcp(&client, VIP, ACK).ip(|ip| ip.fragment = 0x4000).len(1_600).frame());
    }
    frames
}

/// Brings the frames to the worker, takes what comes out, and lets time pass. Returns how many came out.
fn rounds(lab: &mut Lab, frames: &[Vec<u8>], packets: usize) -> usize {
    let (mut sent, mut out) = (0, 0);
    let hop = lab.plan.hops[1].cell.clone();
    for batch in frames.chunks(50).cycle() {
        for frame in batch {
            assert!(lab.stations[0].wires[0].push(frame));
        }
        sent += batch.len();
        // One of the servers is resolved anew now and then.
        match sent / 50 % 40 {
            7 => hop.set(NeighborState::Incomplete),
            9 => hop.set(NeighborState::Reachable(R2)),
            _ => {}
        }
        lab.wait(200);
        for _ in 0..3 {
            lab.stations[0].worker.poll(lab.now);
        }
        for wire in &mut lab.stations[0].wires {
            while wire.pop().is_some() {
                out += 1;
            }
        }
        if sent >= packets {
            break;
        }
    }
    out
}

#[test]
fn nothing_is_allocated_for_a_hundred_thousand_packets_of_every_kind() {
    let plan = Plan::new().service(VIP, TCP, Kind::Rr, 3).service(VIP6, TCP, Kind::Wlc, 2).service(
        "10.0.0.100:53",
        UDP,
        Kind::Lc,
        2,
    );
    // Small tables, so that connections give way as well as expire.
    let mut lab = Lab::sized(plan, Size { connections: 150, wire: 256, ..Size::default() });
    let frames = mixture();
    rounds(&mut lab, &frames, 5_000);
    let mut out = 0;
    let seen = allocation_counter::measure(|| out = rounds(&mut lab, &frames, 100_000));
    assert_eq!((seen.count_total, seen.bytes_total, seen.count_current), (0, 0, 0));
    assert!(out > 40_000, "{out} frames came out");
    assert!(lab.stations[0].shared.stats.cut.get() > 100, "packets were cut");
    let (created, expired, evicted) = lab.lives();
    assert!(created > 1_000 && expired > 100 && evicted > 100, "{created} {expired} {evicted}");
    // Errors about tunnels have a test of their own.
    for answer in Answer::ALL.iter().filter(|answer| **answer != Answer::TunnelError) {
        assert!(lab.answers(*answer) > 0, "{answer} was not among them");
    }
    let reasons = [DropReason::FragmentMalformed, DropReason::FragmentUnmatched];
    for reason in [DropReason::FrameTruncated, DropReason::NotOurMac].into_iter().chain(reasons) {
        assert!(lab.drops(reason) > 100, "{reason} was not among them");
    }
}

/// An FTP session of a client with the first server, and the data connections that it speaks of.
fn ftp(n: u16) -> Vec<(usize, Vec<u8>)> {
    let client = format!("10.0.0.2:{}", 5_000 + n);
    let (vip, server) = ("10.0.0.103:21", "192.168.50.11:21");
    let waits = format!("227 ok (192,168,50,11,100,{n})\r\n");
    let asks = format!("PORT 10,0,0,2,101,{n}\r\n");
    let data = [format!("10.0.0.2:{}", 7_000 + n), format!("10.0.0.2:{}", 25_856 + n)];
    let by_server = |segment: Segment| (1, ethernet(D1, R1, &segment.packet()));
    vec![
        (0, tcp(&client, vip, SYN).frame()),
        by_server(tcp(server, &client, SYN | ACK)),
        (0, tcp(&client, vip, ACK).seq(1001, 1001).text("PASV\r\n").frame()),
        by_server(tcp(server, &client, ACK).seq(1001, 1007).text(&waits)),
        (0, tcp(&data[0], &format!("10.0.0.103:{}", 25_600 + n), SYN).frame()),
        (0, tcp(&client, vip, ACK).seq(1007, 1027).text(&asks).frame()),
        by_server(tcp("192.168.50.11:20", &data[1], SYN)),
        (0, tcp(&data[1], "10.0.0.103:20", SYN | ACK).frame()),
        (0, tcp(&client, vip, FIN | ACK).seq(1030, 1027).frame()),
    ]
}

#[test]
fn nothing_is_allocated_for_ftp_sessions_and_their_data_connections() {
    let plan = Plan::new().service("10.0.0.103:21", TCP, Kind::Rr, 1).natted(0, 21);
    let mut lab = Lab::sized(plan, Size { connections: 600, ..Size::default() });
    let frames: Vec<_> = (1..60).flat_map(ftp).collect();
    let round = |lab: &mut Lab| {
        for (port, frame) in &frames {
            assert!(lab.stations[0].wires[*port].push(frame));
            lab.stations[0].worker.poll(lab.now);
        }
        lab.wait(1_000_000);
        (0..2_000).for_each(|_| assert!(lab.stations[0].worker.poll(lab.now) < 1_000));
        lab.stations[0].wires.iter_mut().for_each(|wire| while wire.pop().is_some() {});
    };
    round(&mut lab);
    lab.plan.resolve();
    round(&mut lab);
    let (before, dropped) = (lab.lives().0, lab.all_drops());
    let seen = allocation_counter::measure(|| (0..20).for_each(|_| round(&mut lab)));
    assert_eq!((seen.count_total, seen.bytes_total, seen.count_current), (0, 0, 0));
    // Each session has had a connection of either kind.
    assert_eq!((lab.lives().0 - before, lab.connections()), (20 * 59 * 3, 0));
    assert_eq!(lab.all_drops(), dropped);
}

#[test]
fn nothing_is_allocated_for_nat_routed_packets_marks_and_errors_about_tunnels() {
    let mut plan = Plan::new()
        .service(VIP, TCP, Kind::Rr, 2)
        .service("10.0.0.101:80", TCP, Kind::Rr, 1)
        .service("10.0.0.102:0", TCP, Kind::Rr, 1)
        .natted(0, 8080)
        .natted(1, 8081)
        .tunnelled(2, Encapsulation::Ipip)
        .natted(3, 0);
    plan.services[2].mark = Some(7);
    let mark = std::num::NonZeroU32::new(7).expect("not 0");
    let destination = Some(Prefix::host([10, 0, 0, 102].into()));
    let rule = mark::Rule { protocol: None, source: None, destination, ports: None, interface: None, mark };
    plan.marks.push(rule);
    let source = Prefix::new([192, 168, 50, 0].into(), 24);
    plan.source_nat.push(SourceNat { source, port: Some(0), address: [10, 0, 0, 100].into() });
    let mut lab = Lab::sized(plan, Size { connections: 300, wire: 256, ..Size::default() });
    let mut frames: Vec<(usize, Vec<u8>)> = Vec::new();
    for n in 0..100_u16 {
        let client = format!("10.0.0.2:{}", 2_000 + n);
        for flags in [SYN, ACK, ACK, FIN | ACK] {
            for vip in [VIP, "10.0.0.101:80", "10.0.0.102:443"] {
                frames.push((0, tcp(&client, vip, flags).frame()));
            }
            for server in ["192.168.50.12:8081", "192.168.50.11:8080", "192.168.50.11:443", "192.168.50.11:9"]
            {
                frames.push((1, ethernet(D1, R2, &tcp(server, &client, flags).packet())));
            }
        }
        let inner = tcp(&client, "10.0.0.101:80", ACK).packet();
        let (from, to) = ([192, 168, 50, 1].into(), [192, 168, 50, 11].into());
        let message = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &Ip::default().packet(from, to, 4, &inner)].concat();
        frames.push((1, ethernet(D1, R2, &icmp_packet(to, from, &message, &Ip::default()))));
        let quoted = tcp(VIP, &client, ACK).packet();
        let error = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
        frames.push((0, icmp("10.0.0.9", "10.0.0.100", &error, &Ip::default())));
        let mut ping = echo("192.168.50.12", "10.0.0.2");
        ping[..12].copy_from_slice(&[D1, R2].concat());
        frames.push((1, ping));
    }
    let round = |lab: &mut Lab| {
        for batch in frames.chunks(50) {
            for (port, frame) in batch {
                assert!(lab.stations[0].wires[*port].push(frame));
            }
            lab.wait(200);
            for _ in 0..3 {
                lab.stations[0].worker.poll(lab.now);
            }
            lab.stations[0].wires.iter_mut().for_each(|wire| while wire.pop().is_some() {});
        }
    };
    round(&mut lab);
    lab.plan.resolve();
    round(&mut lab);
    let seen = allocation_counter::measure(|| (0..20).for_each(|_| round(&mut lab)));
    assert_eq!((seen.count_total, seen.bytes_total, seen.count_current), (0, 0, 0));
    let (created, _, evicted) = lab.lives();
    assert!(
        created > 1_000 && evicted > 100 && lab.forwarded() > 10_000,
        "{created} {evicted} {} {:?}",
        lab.forwarded(),
        lab.all_drops()
    );
    assert!(lab.answers(Answer::TunnelError) > 100);
}

#[test]
fn nothing_is_allocated_for_a_new_connection_whatever_picks_its_server() {
    for kind in Kind::ALL {
        let plan = Plan::new().service(VIP, TCP, kind, 3);
        let mut lab = Lab::sized(plan, Size { connections: 150, wire: 256, ..Size::default() });
        let syn = |n: u16| tcp(&format!("10.0.{}.2:{n}", n % 50), VIP, SYN).frame();
        let frames: Vec<Vec<u8>> = (1..1_000).map(syn).collect();
        rounds(&mut lab, &frames, 1_000);
        let seen = allocation_counter::measure(|| assert!(rounds(&mut lab, &frames, 3_000) > 2_000));
        assert_eq!((seen.count_total, seen.bytes_total), (0, 0), "{kind:?}");
    }
}

#[test]
fn nothing_is_allocated_for_the_host_either() {
    let plan = Plan::new().service(VIP, TCP, Kind::Rr, 3);
    let mut lab = Lab::sized(plan, Size { exception: true, ..Size::default() });
    let frames = mixture();
    let mut both_ways = |packets: usize| {
        let (mut given, mut sent) = (0, 0);
        for batch in frames.chunks(50).cycle() {
            for frame in batch {
                assert!(lab.stations[0].wires[0].push(frame));
                lab.host.offer(1, |buffer| {
                    let len = frame.len().min(buffer.len());
                    buffer[..len].copy_from_slice(&frame[..len]);
                    Some(len)
                });
            }
            for _ in 0..3 {
                lab.stations[0].worker.poll(lab.now);
            }
            given += lab.host.pop(64, |_, _| {});
            for wire in &mut lab.stations[0].wires {
                while wire.pop().is_some() {
                    sent += 1;
                }
            }
            if sent >= packets {
                break;
            }
        }
        given
    };
    both_ways(1_000);
    let mut given = 0;
    let seen = allocation_counter::measure(|| given = both_ways(50_000));
    assert_eq!((seen.count_total, seen.bytes_total, seen.count_current), (0, 0, 0));
    assert!(given > 1_000, "the host was given {given}");
}

#[test]
fn the_counting_allocator_counts() {
    let seen = allocation_counter::measure(|| drop(std::hint::black_box(vec![1_u8; 100])));
    assert_eq!((seen.count_total, seen.bytes_total, seen.count_current), (1, 100, 0));
}
