//! The exception path: what goes to the host and what does not, and what the host sends.

use crate::support::{
    Lab, Plan, Size, TCP,
    frames::{
        ACK, C0, D0, D1, Ip, SYN, arp_request, echo, ethernet, frame, icmp, solicitation, tagged, tcp, udp,
        udp_packet,
    },
};
use pointsman_dataplane::{
    exception::Offered,
    limits::{EXCEPTION_BUDGET, EXCEPTION_BUFFERS, EXCEPTION_RING},
    scheduler::Kind,
    verdict::DropReason,
};

const VIP: &str = "10.0.0.100:80";
const VIP6: &str = "[fd00:1::100]:80";

fn lab(size: Size) -> Lab {
    let plan = Plan::new().service(VIP, TCP, Kind::Rr, 1).service(VIP6, TCP, Kind::Rr, 1);
    Lab::sized(plan, Size { exception: true, ..size })
}

/// What the host was given, with the port that it came in by.
fn given(lab: &mut Lab) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    lab.host.pop(usize::MAX, |frame, port| all.push((port, frame.data().to_vec())));
    all
}

/// The host sends a frame.
fn host_sends(lab: &mut Lab, port: u16, frame: &[u8]) -> Offered {
    lab.host.offer(port, |buffer| {
        buffer[..frame.len()].copy_from_slice(frame);
        Some(frame.len())
    })
}

/// A VRRP advertisement to 224.0.0.18, whose MAC address is 01:00:5e:00:00:12 (RFC 9568 section 5.1.1.2, RFC 1112).
fn vrrp() -> Vec<u8> {
    let ip = Ip { ttl: 255, ..Ip::default() };
    let mut packet = udp_packet("10.0.0.3:1", "224.0.0.18:1", b"advertisement", &ip);
    packet[9] = 112;
    packet[10..12].fill(0);
    let sum = crate::support::frames::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    ethernet([1, 0, 0x5e, 0, 0, 0x12], C0, &packet)
}

/// The same by IPv6, to ff02::12.
fn vrrp6() -> Vec<u8> {
    let mut packet = udp_packet("[fe80::3]:1", "[ff02::12]:1", b"advertisement", &Ip::default());
    packet[6] = 112;
    ethernet([0x33, 0x33, 0, 0, 0, 0x12], C0, &packet)
}

/// The reply of 10.0.0.2 to a request of the director.
fn arp_reply() -> Vec<u8> {
    let mut frame = arp_request("10.0.0.2", "10.0.0.1");
    frame[..6].copy_from_slice(&D0);
    frame[21] = 2;
    frame
}

#[test]
fn the_host_is_given_what_is_its_own_as_it_came() {
    let mut lab = lab(Size::default());
    let own = vec![
        tcp("10.0.0.2:4000", "10.0.0.1:22", SYN).frame(),
        tcp("[fd00:1::2]:4000", "[fd00:1::1]:22", SYN).frame(),
        tcp("192.168.50.11:80", "192.168.50.1:50000", ACK).frame(),
        udp("10.0.0.2:53", "10.0.0.1:53"),
        echo("10.0.0.2", "10.0.0.1"),
        echo("fd00:1::2", "fd00:1::1"),
        icmp("10.0.0.2", "10.0.0.1", &[0, 0, 0, 0, 0, 1, 0, 1], &Ip::default()),
        ethernet(
            D0,
            C0,
            &udp_packet("10.0.0.2:1", "10.0.0.1:2", b"part", &Ip { fragment: 0x2000, ..Ip::default() }),
        ),
        arp_request("10.0.0.2", "10.0.0.1"),
        arp_reply(),
        solicitation("fd00:1::2", "fd00:1::1"),
        vrrp(),
        vrrp6(),
        // A frame of the link layer, and one to all stations.
        frame([1, 0x80, 0xc2, 0, 0, 0xe], C0, 0x88cc, &[0; 46]),
        ethernet([0xff; 6], C0, &udp_packet("0.0.0.0:68", "255.255.255.255:67", b"discover", &Ip::default())),
        // A tag stays where it is.
        tagged(&echo("10.0.0.2", "10.0.0.1"), 0x8100, 7),
        tagged(&vrrp(), 0x8100, 7),
    ];
    assert!(lab.send(&own).is_empty(), "nothing is answered for the host");
    assert_eq!(lab.all_drops(), []);
    let expected: Vec<_> = own.into_iter().map(|frame| (0, frame)).collect();
    assert_eq!(given(&mut lab), expected);
    assert_eq!(lab.punted(), 17);
    // Those that tell of neighbours went to the resolver as well.
    assert_eq!(lab.stations[0].shared.punts.len(), 3);
    lab.assert_accounted(0);
}

#[test]
fn the_host_is_not_given_what_is_balanced_answered_or_of_others() {
    let mut lab = lab(Size::default());
    let not_its_own = [
        tcp("10.0.0.2:4000", VIP, SYN).frame(),
        tcp("10.0.0.2:4000", VIP, ACK).frame(),
        tcp("10.0.0.2:4000", "10.0.0.100:81", SYN).frame(),
        udp("10.0.0.2:4000", "10.0.0.100:53"),
        tcp("[fd00:1::2]:4000", VIP6, SYN).frame(),
        echo("10.0.0.2", "10.0.0.100"),
        echo("fd00:1::2", "fd00:1::100"),
        arp_request("10.0.0.2", "10.0.0.100"),
        solicitation("fd00:1::2", "fd00:1::100"),
        ethernet(D1, C0, &tcp("10.0.0.2:4000", "10.0.0.1:22", SYN).packet()),
        frame([2, 0, 0, 0, 0, 0x99], C0, 0x88cc, &[0; 46]),
        echo("10.0.0.2", "10.0.0.1")[..30].to_vec(),
    ];
    assert_eq!(lab.send(&not_its_own).len(), 9);
    assert_eq!(lab.all_drops(), [(DropReason::FrameTruncated, 1), (DropReason::NotOurMac, 2)]);
    assert_eq!(given(&mut lab), []);
    assert_eq!(lab.punted(), 0);
    lab.assert_accounted(0);
}

#[test]
fn a_frame_says_by_which_port_it_came_and_comes_from_the_worker_that_owns_its_flow() {
    let mut lab = lab(Size { workers: 3, ..Size::default() });
    let to = |port: u16| tcp(&format!("10.0.0.2:{port}"), "10.0.0.1:22", ACK).frame();
    let by_the_second = ethernet(D1, C0, &tcp("10.0.0.2:9", "10.0.0.1:22", ACK).packet());
    assert!(lab.stations[0].wires[1].push(&by_the_second));
    lab.poll();
    assert_eq!(given(&mut lab), [(1, by_the_second)]);
    // Ten segments of each of ten flows, as a port without the right hash spreads them: in their order all the same.
    for n in 0..10 {
        for flow in 0..10 {
            let segment = [&to(1_000 + flow)[..], &[n]].concat();
            assert!(lab.stations[usize::from(flow) % 3].wires[0].push(&segment));
        }
    }
    lab.poll();
    let all = given(&mut lab);
    assert_eq!(all.len(), 100);
    for flow in 0..10 {
        let head = to(1_000 + flow);
        let of_flow = all.iter().filter(|(_, frame)| frame[..head.len()] == head);
        let order: Vec<u8> = of_flow.map(|(_, frame)| frame[head.len()]).collect();
        assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
    assert_eq!(lab.punted(), 101);
    lab.assert_accounted(0);
}

#[test]
fn what_the_host_does_not_take_is_dropped_and_counted_and_nothing_else_is() {
    let mut lab = lab(Size { wire: 4_096, ..Size::default() });
    let (ping, segment) = (echo("10.0.0.2", "10.0.0.1"), tcp("10.0.0.2:4000", VIP, ACK).frame());
    lab.send(&[tcp("10.0.0.2:4000", VIP, SYN).frame()]);
    for _ in 0..EXCEPTION_RING + 100 {
        assert!(lab.stations[0].wires[0].push(&ping));
        assert!(lab.stations[0].wires[0].push(&segment));
    }
    lab.poll();
    assert_eq!(lab.all_drops(), [(DropReason::ExceptionRingFull, 100)]);
    assert_eq!(lab.taken().len(), EXCEPTION_RING + 100, "the clients do not notice");
    assert_eq!((lab.punted(), given(&mut lab).len()), (EXCEPTION_RING as u64, EXCEPTION_RING));
    // It goes on once there is room.
    assert!(lab.send(&[ping]).is_empty());
    assert_eq!(given(&mut lab).len(), 1);
    lab.assert_accounted(0);
}

#[test]
fn what_the_host_sends_leaves_by_its_port_as_it_is_and_is_not_looked_into() {
    let mut lab = lab(Size::default());
    // Even what the director would have dropped, answered or forwarded had it come in.
    let frames = [
        echo("10.0.0.1", "10.0.0.2"),
        arp_request("10.0.0.1", "10.0.0.2"),
        tcp("10.0.0.1:22", VIP, SYN).frame(),
        tagged(&vrrp(), 0x8100, 7),
        vec![0xff; 14],
    ];
    for frame in &frames {
        assert_eq!(host_sends(&mut lab, 1, frame), Offered::Sent);
    }
    assert_eq!(host_sends(&mut lab, 0, &frames[0]), Offered::Sent);
    assert_eq!(host_sends(&mut lab, 9, &frames[0]), Offered::Sent);
    lab.poll();
    assert_eq!(lab.stations[0].wires[1].pop_all(), frames);
    assert_eq!(lab.stations[0].wires[0].pop_all(), [frames[0].clone()]);
    assert_eq!(lab.all_drops(), [(DropReason::PortGone, 1)]);
    let stats = &lab.stations[0].shared.stats;
    assert_eq!((stats.from_host.get(), stats.forwarded.get(), stats.packets.get()), (6, 0, 0));
    assert_eq!((stats.ports[0].tx_packets.get(), stats.ports[1].tx_packets.get()), (1, 5));
    assert!(lab.host.has_room());
}

#[test]
fn a_worker_takes_no_more_from_the_host_in_a_poll_than_its_budget_and_keeps_the_order() {
    let mut lab = lab(Size::default());
    let numbered = |n: usize| frame(C0, D0, 0x88b5, &[n as u8; 46]);
    for n in 0..EXCEPTION_BUFFERS {
        assert_eq!(host_sends(&mut lab, 0, &numbered(n)), Offered::Sent);
    }
    assert_eq!(host_sends(&mut lab, 0, &numbered(0)), Offered::NoRoom);
    let segment = tcp("10.0.0.2:4000", VIP, SYN).frame();
    let mut sent = Vec::new();
    for poll in 1..=8 {
        // Balanced packets leave in the same poll, whatever the host has to send.
        assert!(lab.stations[0].wires[0].push(&segment));
        lab.stations[0].worker.poll(lab.now);
        assert_eq!(lab.stations[0].wires[1].pop_all().len(), 1);
        let of_host = lab.stations[0].wires[0].pop_all();
        assert_eq!(of_host.len(), 32, "poll {poll}");
        sent.extend(of_host);
    }
    assert_eq!(EXCEPTION_BUDGET, 32);
    assert_eq!(sent, (0..EXCEPTION_BUFFERS).map(numbered).collect::<Vec<_>>());
    assert_eq!(lab.all_drops(), []);
}

#[test]
fn a_port_that_is_short_of_room_has_some_for_the_host() {
    let mut lab = lab(Size { wire: 64, ..Size::default() });
    let ours = frame(C0, D1, 0x88b5, &[7; 46]);
    lab.send(&[tcp("10.0.0.2:4000", VIP, SYN).frame()]);
    for _ in 0..20 {
        // As much as the port can send, at every poll.
        for _ in 0..64 {
            assert!(lab.stations[0].wires[0].push(&tcp("10.0.0.2:4000", VIP, ACK).frame()));
        }
        assert_eq!(host_sends(&mut lab, 1, &ours), Offered::Sent);
        lab.stations[0].worker.poll(lab.now);
        let sent = lab.stations[0].wires[1].pop_all();
        assert_eq!((sent.len(), sent.iter().filter(|frame| **frame == ours).count()), (64, 1));
    }
    assert_eq!(lab.all_drops(), [(DropReason::TransmitRingFull, 20)]);
}

#[test]
fn a_frame_of_the_host_without_a_buffer_is_counted_and_its_own_buffer_comes_back() {
    let mut lab = lab(Size::default());
    // The worker's pool has 128 buffers, which the wire keeps as long as nobody takes them.
    for _ in 0..130 {
        assert_eq!(host_sends(&mut lab, 1, &vrrp()), Offered::Sent);
    }
    lab.poll();
    assert_eq!(lab.all_drops(), [(DropReason::BufferPoolEmpty, 2)]);
    assert_eq!(lab.taken().len(), 128);
    for _ in 0..EXCEPTION_BUFFERS {
        assert_eq!(host_sends(&mut lab, 1, &vrrp()), Offered::Sent);
    }
}
