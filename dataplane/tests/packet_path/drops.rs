//! Every reason to drop a packet is caused once, and counted once; damaged frames go nowhere.

use crate::support::{
    Lab, Plan, Size, TCP, UDP,
    frames::{
        ACK, C0, D0, D1, Ip, RST, SYN, Segment, arp_request, checksum, echo, ethernet, icmp, solicitation,
        tagged, tcp, udp, udp_packet,
    },
};
use pointsman_dataplane::{
    scheduler::Kind,
    snapshot::{Destination, Method, NeighborState, Presence},
    verdict::DropReason::{self, *},
};

const VIP: &str = "10.0.0.100:80";
const VIP6: &str = "[fd00:1::100]:80";

fn client(port: u16, flags: u8) -> Segment {
    tcp(&format!("10.0.0.2:{port}"), VIP, flags)
}

fn plan() -> Plan {
    Plan::new().service(VIP, TCP, Kind::Rr, 1).service(VIP6, UDP, Kind::Rr, 1)
}

/// The frame with byte `at` set, and the checksum of its IPv4 header made right again if `right`.
fn with(mut frame: Vec<u8>, at: usize, byte: u8, right: bool) -> Vec<u8> {
    frame[at] = byte;
    if right {
        frame[24..26].fill(0);
        let header = usize::from(frame[14] & 15) * 4;
        let sum = checksum(&frame[14..(14 + header).min(frame.len())]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// Frames that one look at their bytes condemns, and the reason.
fn broken() -> Vec<(DropReason, Vec<u8>)> {
    [broken_frames(), broken_headers(), broken_extensions(), broken_contents(), unwanted()].concat()
}

fn syn() -> Vec<u8> {
    client(1, SYN).frame()
}

fn broken_frames() -> Vec<(DropReason, Vec<u8>)> {
    let from = |source: &str| tcp(&format!("{source}:9"), VIP, SYN).frame();
    let v6_from = |source: &str| udp(&format!("[{source}]:9"), VIP6);
    vec![
        (FrameTruncated, vec![]),
        (FrameTruncated, syn()[..13].to_vec()),
        (FrameTruncated, syn()[..33].to_vec()),
        (FrameTruncated, tagged(&syn(), 0x8100, 1)[..17].to_vec()),
        (FrameTruncated, arp_request("10.0.0.2", "10.0.0.100")[..41].to_vec()),
        (NotOurMac, ethernet(D1, C0, &client(1, SYN).packet())),
        (NotOurMac, ethernet([2, 0, 0, 0, 0, 9], C0, &client(1, SYN).packet())),
        (SourceInvalid, from("224.0.0.1")),
        (SourceInvalid, from("255.255.255.255")),
        (SourceInvalid, from("127.0.0.1")),
        (SourceInvalid, from("0.1.2.3")),
        (SourceInvalid, from("10.0.0.100")),
        (SourceInvalid, v6_from("ff02::1")),
        (SourceInvalid, v6_from("::1")),
        (SourceInvalid, v6_from("::")),
        (SourceInvalid, v6_from("fd00:1::100")),
        (LoopDetected, ethernet(D0, D0, &client(1, SYN).packet())),
    ]
}

fn broken_headers() -> Vec<(DropReason, Vec<u8>)> {
    let six = || udp("[fd00:1::2]:1", VIP6);
    vec![
        (Ipv4Header, with(syn(), 14, 0x55, true)),
        (Ipv4Header, with(syn(), 14, 0x44, false)),
        (Ipv4Header, with(syn(), 17, 45, true)),
        (Ipv4Header, with(syn(), 17, 19, true)),
        (Ipv4Header, with(syn(), 14, 0x4f, false)),
        (Ipv4Checksum, with(syn(), 24, syn()[24] ^ 1, false)),
        (Ipv4Checksum, with(syn(), 22, 63, false)),
        (Ipv6Header, with(six(), 14, 0x50, false)),
        (Ipv6Header, with(six(), 19, 13, false)),
    ]
}

fn broken_extensions() -> Vec<(DropReason, Vec<u8>)> {
    let six = || udp("[fd00:1::2]:1", VIP6);
    // Nine hop-by-hop headers one after the other.
    let mut chain = six();
    let payload = chain.split_off(54);
    chain[20] = 0;
    chain.extend([0, 0, 1, 4, 0, 0, 0, 0].repeat(8));
    chain.extend([17, 0, 1, 4, 0, 0, 0, 0]);
    chain.extend(payload);
    chain[18..20].copy_from_slice(&(12 + 72_u16).to_be_bytes());
    // An extension header that is longer than the packet.
    let mut running_out = six();
    (running_out[20], running_out[55]) = (60, 200);
    vec![(Ipv6Extensions, chain), (Ipv6Extensions, running_out)]
}

/// A packet to the virtual address with a payload of zeroes.
fn zeroes(protocol: u8, len: usize) -> Vec<u8> {
    let packet = Ip::default().packet([10, 0, 0, 2].into(), [10, 0, 0, 100].into(), protocol, &vec![0; len]);
    ethernet(D0, C0, &packet)
}

fn broken_contents() -> Vec<(DropReason, Vec<u8>)> {
    let quoted_cut = [&[3, 0, 0, 0, 0, 0, 0, 0][..], &client(1, ACK).packet()[..22]].concat();
    let mut far_solicitation = solicitation("fd00:1::2", "fd00:1::100");
    far_solicitation[21] = 254;
    vec![
        (TransportHeader, zeroes(6, 19)),
        (TransportHeader, zeroes(17, 7)),
        (TransportHeader, zeroes(132, 11)),
        (TransportHeader, zeroes(1, 7)),
        (TransportHeader, icmp("10.0.0.9", "10.0.0.100", &quoted_cut, &Ip::default())),
        (TransportHeader, far_solicitation),
        (TransportHeader, with(echo("10.0.0.2", "10.0.0.100"), 36, 0, false)),
    ]
}

fn unwanted() -> Vec<(DropReason, Vec<u8>)> {
    let fragment = |word| Ip { fragment: word, ..Ip::default() };
    let part = |mut packet: Vec<u8>| {
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[10..12].fill(0);
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        ethernet(D0, C0, &packet)
    };
    let icmp_fragment = fragment(0x2000).packet([10, 0, 0, 2].into(), [10, 0, 0, 100].into(), 1, &[8; 16]);
    vec![
        (FragmentMalformed, part(udp_packet("10.0.0.2:1", VIP, b"first part", &fragment(0x2000)))),
        (FragmentMalformed, part(udp_packet("10.0.0.2:1", VIP, b"", &fragment(0x2000))[..20].to_vec())),
        (FragmentMalformed, part(udp_packet("10.0.0.2:1", VIP, b"at the end", &fragment(0x1ffe)))),
        (FragmentMalformed, part(client(1, SYN).ip(|ip| ip.fragment = 1).packet())),
        (ProtocolUnsupported, part(icmp_fragment)),
        (ResetUnmatched, client(1, RST).frame()),
    ]
}

#[test]
fn a_broken_packet_is_dropped_for_its_reason_and_that_counter_alone_goes_up() {
    for (number, (reason, frame)) in broken().into_iter().enumerate() {
        let mut lab = Lab::new(plan());
        assert_eq!(lab.send(&[frame]).len(), 0, "number {number}");
        assert_eq!(lab.all_drops(), [(reason, 1)], "number {number}");
        assert_eq!(lab.connections(), 0);
        lab.assert_accounted(0);
    }
}

#[test]
fn the_state_of_the_director_is_a_reason_too() {
    type Change = fn(&mut Plan);
    let reasons: [(DropReason, Change); 4] = [
        (MethodPending, |plan| plan.slots[0].method = Method::Local),
        (NoRoute, |plan| plan.slots[0].next_hop = Destination::NO_ROUTE),
        (NeighborUnresolved, |plan| plan.hops[0].cell.set(NeighborState::Failed)),
        (PortGone, |plan| plan.hops[0].port = 2),
    ];
    for (reason, change) in reasons {
        let mut plan = plan();
        change(&mut plan);
        let mut lab = Lab::new(plan);
        assert_eq!(lab.send(&[client(1, SYN).frame()]).len(), 0);
        assert_eq!(lab.all_drops(), [(reason, 1)]);
        lab.assert_accounted(0);
    }
}

#[test]
fn frames_that_the_port_cannot_send_are_counted_as_such() {
    let mut lab = Lab::sized(plan(), Size { wire: 8, ..Size::default() });
    for n in 0..12 {
        assert!(lab.stations[0].wires[0].push(&client(n + 1, SYN).frame()));
        lab.poll();
    }
    assert_eq!(lab.all_drops(), [(TransmitRingFull, 4)]);
    assert_eq!(lab.stations[0].shared.stats.ports[1].tx_packets.get(), 8);
}

/// Reasons, and where they are caused: here, or by the test that is named.
#[test]
fn every_reason_has_a_test_that_causes_it() {
    let elsewhere = [
        (MethodPending, "the_state_of_the_director_is_a_reason_too"),
        (NoCallId, "what_has_no_call_id_opens_no_connection"),
        (NoRoute, "the_state_of_the_director_is_a_reason_too"),
        (TunnelMtu, "a_path_too_narrow_for_any_packet_in_a_tunnel_is_counted"),
        (PortGone, "the_state_of_the_director_is_a_reason_too"),
        (TransmitRingFull, "frames_that_the_port_cannot_send_are_counted_as_such"),
        (BufferPoolEmpty, "a_frame_of_the_control_plane_without_a_buffer_is_counted"),
        (DestinationRemoved, "packets_of_a_removed_server_vanish_and_flow_again_when_it_is_added_again"),
        (NeighborUnresolved, "a_neighbor_known_not_to_answer_costs_each_frame_at_once"),
        (NeighborQueueFull, "no_more_frames_wait_than_the_queue_holds"),
        (FragmentUnmatched, "fragments_without_the_first_end_after_a_second"),
        (TooBig, "a_link_too_narrow_for_fragments_is_counted"),
        (TableFull, "a_table_full_of_established_connections_takes_no_new_one_and_says_so"),
        (AnswerRateLimited, "icmp_errors_are_limited_to_fifty_at_once_and_a_thousand_a_second"),
        (IcmpUnmatched, "an_icmp_error_about_no_connection_is_counted_and_ends"),
        (NotAnswerable, "no_icmp_error_is_sent_about_an_icmp_error"),
        (ExceptionRingFull, "what_the_host_does_not_take_is_dropped_and_counted_and_nothing_else_is"),
        (DropPacket, "drop_packet_takes_each_so_manieth_that_would_open_a_connection"),
        (PortsExhausted, "the_ports_to_one_station_come_to_an_end_and_that_is_counted"),
        (HandoffRingFull, "frames_for_an_owner_that_is_behind_are_dropped_and_counted"),
    ];
    let sources = [
        include_str!("drops.rs"),
        include_str!("answers.rs"),
        include_str!("changes.rs"),
        include_str!("expiry.rs"),
    ]
    .concat()
        + include_str!("exception.rs")
        + include_str!("fragments.rs")
        + include_str!("neighbors.rs")
        + include_str!("policies.rs")
        + include_str!("sip.rs")
        + include_str!("source_nat.rs")
        + include_str!("tunnels.rs")
        + include_str!("workers.rs");
    for reason in DropReason::ALL {
        let here = broken().iter().any(|(caused, _)| caused == reason);
        let test = elsewhere.iter().find(|(caused, _)| caused == reason);
        let there = test.is_some_and(|(_, name)| sources.contains(&format!("fn {name}()")));
        assert!(here || there, "{reason} has no test");
    }
}

#[test]
fn a_frame_of_the_control_plane_without_a_buffer_is_counted() {
    use pointsman_dataplane::command::Command;
    let mut lab = Lab::new(plan());
    let frame: Box<[u8]> = arp_request("10.0.0.100", "10.0.0.2").into();
    // The worker's pool has 128 buffers, which the wire keeps as long as nobody takes them.
    for _ in 0..130 {
        let command = Command::Transmit { port: 1, frame: frame.clone() };
        lab.stations[0].shared.commands.push(command).expect("room for a command");
    }
    lab.poll();
    assert_eq!(lab.all_drops(), [(BufferPoolEmpty, 2)]);
    let out = lab.taken();
    assert!(out.len() == 128 && out.iter().all(|sent| **sent == *frame));
}

/// Valid frames of every kind that the director looks into.
pub(crate) fn valid() -> Vec<Vec<u8>> {
    let quoted = tcp(VIP, "10.0.0.2:7", ACK).packet();
    let error = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
    let quoted6 = udp_packet(VIP6, "[fd00:1::2]:7", b"ping", &Ip::default());
    let error6 = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &quoted6].concat();
    vec![
        client(7, SYN).frame(),
        client(7, ACK).ip(|ip| ip.options = vec![7, 7, 4, 0, 0, 0, 0, 0]).len(40).frame(),
        tagged(&tagged(&client(7, ACK).len(9).frame(), 0x8100, 5), 0x88a8, 6),
        udp("10.0.0.2:7", VIP),
        udp("[fd00:1::2]:7", VIP6),
        tcp("[fd00:1::2]:7", VIP6, ACK).frame(),
        echo("10.0.0.2", "10.0.0.100"),
        echo("fd00:1::2", "fd00:1::100"),
        icmp("10.0.0.9", "10.0.0.100", &error, &Ip::default()),
        icmp("fd00:1::9", "fd00:1::100", &error6, &Ip::default()),
        arp_request("10.0.0.2", "10.0.0.100"),
        solicitation("fd00:1::2", "fd00:1::100"),
    ]
}

#[test]
fn a_frame_cut_anywhere_goes_nowhere_and_is_counted_once() {
    let mut lab = Lab::new(plan());
    lab.send(&[client(7, SYN).frame(), udp("[fd00:1::2]:7", VIP6)]);
    for frame in valid() {
        for len in 0..frame.len() {
            let (before, punted) = (lab.all_drops().iter().map(|(_, n)| n).sum::<u64>(), lab.punted());
            assert_eq!(lab.send(&[frame[..len].to_vec()]), [] as [Vec<u8>; 0], "cut to {len}: {frame:02x?}");
            let after = lab.all_drops().iter().map(|(_, n)| n).sum::<u64>();
            assert_eq!((after - before, lab.punted() - punted), (1, 0), "cut to {len}: {frame:02x?}");
        }
        lab.wait(100);
    }
    lab.assert_accounted(0);
    assert_eq!(lab.connections(), 2);
}

#[test]
fn a_removed_destination_is_not_vacant() {
    // Four presences, two of which lead nowhere for a packet of an old connection.
    for (presence, out) in
        [(Presence::Present, 1), (Presence::Removed, 0), (Presence::ServiceGone, 1), (Presence::Vacant, 1)]
    {
        let mut lab = Lab::new(plan());
        lab.send(&[client(7, SYN).frame()]);
        lab.plan.slots[0].presence = presence;
        lab.publish();
        // ServiceGone and Vacant: the RST of one that is not known.
        assert_eq!(lab.send(&[client(7, ACK).frame()]).len(), out, "{presence:?}");
    }
}
