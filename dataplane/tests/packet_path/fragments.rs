//! Fragments of datagrams: those that arrive follow the first of their datagram, and a packet that is too large for the way
//! out leaves as fragments.

use crate::support::{
    Lab, Plan, Size, TCP, UDP,
    frames::{ACK, C0, D0, D1, Ip, R1, R2, SYN, Segment, checksum, ethernet, tcp, udp, udp_packet},
    text::text,
};
use pointsman_dataplane::{
    scheduler::Kind,
    snapshot::{Encapsulation, NeighborState},
    verdict::{Answer, DropReason},
};

const DNS: &str = "10.0.0.100:53";
const DNS6: &str = "[fd00:1::100]:53";
const VIP: &str = "10.0.0.100:80";

fn plan() -> Plan {
    Plan::new().service(DNS, UDP, Kind::Rr, 2).service(DNS6, UDP, Kind::Rr, 2).service(VIP, TCP, Kind::Rr, 2)
}

fn segment(port: u16, flags: u8) -> Segment {
    tcp(&format!("10.0.0.2:{port}"), VIP, flags)
}

/// The frames of the fragments of an IPv4 packet of 20 bytes of header, whose data is cut at these places.
fn cut(packet: &[u8], places: &[usize]) -> Vec<Vec<u8>> {
    let (header, data) = packet.split_at(20);
    let ends = places.iter().copied().chain([data.len()]);
    let mut begin = 0;
    let part = |end: usize| {
        let mut part = [header, &data[begin..end]].concat();
        let word = (begin / 8) as u16 | if end < data.len() { 0x2000 } else { 0 };
        let len = part.len() as u16;
        part[2..4].copy_from_slice(&len.to_be_bytes());
        part[6..8].copy_from_slice(&word.to_be_bytes());
        part[10..12].fill(0);
        let sum = checksum(&part[..20]);
        part[10..12].copy_from_slice(&sum.to_be_bytes());
        begin = end;
        ethernet(D0, C0, &part)
    };
    ends.map(part).collect()
}

/// The fragments of a datagram of 60 bytes with this identification: 16, 24 and 20 bytes.
fn datagram(client: &str, id: u16) -> [Vec<u8>; 3] {
    let packet = udp_packet(client, DNS, &[7; 52], &Ip { id, fragment: 0, ..Ip::default() });
    cut(&packet, &[16, 40]).try_into().expect("three parts")
}

/// The same of IPv6, whose first part has 8 bytes of destination options in front of the UDP header.
fn datagram6(client: &str, id: u32) -> [Vec<u8>; 3] {
    let packet = udp_packet(client, DNS6, &[7; 52], &Ip::default());
    let data = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &packet[40..]].concat();
    [(0, 24), (24, 48), (48, 68)].map(|(begin, end)| {
        let word = begin as u16 | u16::from(end < 68);
        let header = [&[60, 0][..], &word.to_be_bytes(), &id.to_be_bytes()].concat();
        let mut part = [&packet[..40], &header, &data[begin..end]].concat();
        part[4..6].copy_from_slice(&((end - begin + 8) as u16).to_be_bytes());
        part[6] = 44;
        ethernet(D0, C0, &part)
    })
}

/// What a server gets of a frame: another TTL, a right checksum, other MAC addresses.
fn routed(frame: &[u8], server: [u8; 6]) -> Vec<u8> {
    let mut packet = frame[14..].to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
    } else {
        packet[8] -= 1;
        packet[10..12].fill(0);
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    ethernet(server, D1, &packet)
}

fn brought(lab: &mut Lab, worker: usize, frame: &[u8]) -> Vec<Vec<u8>> {
    assert!(lab.stations[worker].wires[0].push(frame));
    lab.poll();
    lab.taken()
}

#[test]
fn fragments_leave_as_they_come_to_the_server_of_the_first() {
    let mut lab = Lab::new(plan());
    for (id, server) in [(1, R2), (2, R1), (3, R2)] {
        for part in datagram(&format!("10.0.0.2:{}", 100 + id), id) {
            assert_eq!(lab.send(std::slice::from_ref(&part)), [routed(&part, server)]);
        }
    }
    // As the recording of the original shows a datagram in two parts.
    let packet = udp_packet(
        "10.0.0.2:101",
        DNS,
        &[1, 8, 15, 22, 29, 36, 43, 50, 57, 64],
        &Ip { fragment: 0, ..Ip::default() },
    );
    let lines: Vec<String> = lab.send(&cut(&packet, &[16])).iter().map(|frame| text(frame)).collect();
    assert_eq!(
        lines,
        [
            "r2 < d1>r2 ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=MF frag=0 len=36 ck=ok | udp 101>53 len=18 data[8]=01080f161d242b32",
            "r2 < d1>r2 ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags= frag=2 len=22 ck=ok | fragment-data[2]",
        ]
    );
    assert_eq!((lab.connections(), lab.all_drops()), (3, vec![]));
    // 36, 44 and 40 bytes thrice among the two, 36 and 22 once.
    assert_eq!([lab.traffic(0), lab.traffic(1)], [(1, 3, 120), (2, 8, 298)]);
    lab.assert_accounted(0);
}

#[test]
fn nothing_leaves_before_the_first_fragment_and_then_all_does() {
    let mut lab = Lab::new(plan());
    let [first, second, third] = datagram("10.0.0.2:1", 1);
    for later in [&third, &second] {
        assert_eq!(lab.send(std::slice::from_ref(later)), [] as [Vec<u8>; 0]);
    }
    lab.run(900);
    assert_eq!(
        lab.send(std::slice::from_ref(&first)),
        [&first, &third, &second].map(|part| routed(part, R2))
    );
    // All in one batch.
    let [first, second, third] = datagram("10.0.0.2:2", 2);
    let out = lab.send(&[second.clone(), first.clone(), third.clone()]);
    assert_eq!(out, [first, third, second].map(|part| routed(&part, R1)));
    assert_eq!(lab.all_drops(), []);
    lab.assert_accounted(0);
}

#[test]
fn fragments_of_several_datagrams_may_be_mixed_and_come_twice() {
    let mut lab = Lab::new(plan());
    let (a, b) = (datagram("10.0.0.2:1", 1), datagram("10.0.0.2:2", 2));
    // The same identification, but another client's.
    let c = datagram("10.0.0.3:1", 1);
    let mixed = [&a[1], &b[0], &c[0], &b[0], &a[0], &c[2], &a[2], &a[2], &b[1], &c[1], &b[2], &a[0]];
    let out = lab.send(&mixed.map(Clone::clone));
    // In this order the connections were made.
    let (b, c, a) =
        (b.map(|part| routed(&part, R2)), c.map(|part| routed(&part, R1)), a.map(|part| routed(&part, R2)));
    assert_eq!(
        out,
        [&b[0], &c[0], &b[0], &a[0], &c[2], &a[2], &a[2], &b[1], &c[1], &b[2], &a[0], &a[1]]
            .map(Clone::clone)
    );
    assert_eq!((lab.connections(), lab.all_drops()), (3, vec![]));
    lab.assert_accounted(0);
}

#[test]
fn fragments_of_ipv6_are_followed_likewise_and_an_atomic_one_is_a_whole_packet() {
    let mut lab = Lab::new(plan());
    let [first, second, third] = datagram6("[fd00:1::2]:1", 0x1234_5678);
    assert_eq!(lab.send(&[third.clone(), second.clone()]), [] as [Vec<u8>; 0]);
    assert_eq!(lab.send(std::slice::from_ref(&first)), [first, third, second].map(|part| routed(&part, R2)));
    // RFC 6946: a fragment header that says "offset 0, no more" takes nothing away.
    let packet = udp_packet("[fd00:1::2]:2", DNS6, b"ping", &Ip::default());
    let mut atomic = [&packet[..40], &[17, 0, 0, 0, 0, 0, 0, 9], &packet[40..]].concat();
    (atomic[5], atomic[6]) = (20, 44);
    let atomic = ethernet(D0, C0, &atomic);
    assert_eq!(lab.send(std::slice::from_ref(&atomic)), [routed(&atomic, R1)]);
    assert_eq!((lab.connections(), lab.all_drops()), (2, vec![]));
    lab.assert_accounted(0);
}

#[test]
fn the_fragments_of_a_datagram_find_its_owner_wherever_they_arrive() {
    let mut lab = Lab::sized(plan(), Size { workers: 3, ..Size::default() });
    for n in 0..30_u16 {
        let parts = datagram(&format!("10.0.0.2:{}", 1_000 + n), n);
        let arrives = |part: usize| (usize::from(n) + part * usize::from(n / 3)) % 3;
        // The later ones first with every second.
        let order = if n % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] };
        let mut out: Vec<_> =
            order.iter().flat_map(|&part| brought(&mut lab, arrives(part), &parts[part])).collect();
        let server: [u8; 6] = out[0][..6].try_into().expect("a MAC address");
        let mut expected = parts.map(|part| routed(&part, server));
        out.sort();
        expected.sort();
        assert_eq!(out, expected, "datagram {n}");
    }
    assert_eq!((lab.list().len(), lab.all_drops()), (30, vec![]));
    assert!(lab.handed_off() > 20);
    lab.assert_accounted(0);
}

#[test]
fn fragments_without_the_first_end_after_a_second() {
    let mut lab = Lab::new(plan());
    let [_, second, third] = datagram("10.0.0.2:1", 1);
    assert_eq!(lab.send(&[second, third]).len(), 0);
    lab.run(900);
    assert_eq!(lab.all_drops(), []);
    lab.run(200);
    assert_eq!(lab.all_drops(), [(DropReason::FragmentUnmatched, 2)]);
    lab.assert_accounted(0);
}

#[test]
fn a_flood_of_fragments_is_bounded_and_others_pass() {
    let mut lab = Lab::new(plan());
    lab.send(&[segment(1, SYN).frame()]);
    let ours = datagram("10.0.0.2:9", 9);
    let out = lab.send(std::slice::from_ref(&ours[0]))[0].clone();
    // Later fragments of nothing: 64 wait, the oldest give way.
    for round in 0..20_u16 {
        let flood: Vec<_> = (0..50).map(|n| datagram(&format!("10.9.{round}.{n}:7"), n)[1].clone()).collect();
        assert_eq!(lab.send(&flood).len(), 0);
        assert_eq!(lab.send(&[segment(1, ACK).frame(), ours[1].clone()]).len(), 2);
    }
    assert_eq!(lab.all_drops(), [(DropReason::FragmentUnmatched, 1_000 - 64)]);
    // First fragments of datagrams without end, to a port without a service: our connections stay, and so does a datagram
    // whose fragments come together.
    for round in 0..400_u16 {
        let first = |n: u16| {
            let client = format!("10.{}.{}.2:7", 10 + round / 200, round % 200);
            let ip = Ip { id: n, fragment: 0x2000, ..Ip::default() };
            ethernet(D0, C0, &udp_packet(&client, "10.0.0.100:99", &[0; 8], &ip))
        };
        lab.send(&(0..50).map(first).collect::<Vec<_>>());
        let again = lab.send(&ours);
        assert_eq!((again.len(), &again[0]), (3, &out), "round {round}");
        assert_eq!(lab.send(&[segment(1, ACK).frame()]).len(), 1);
    }
    lab.run(1_100);
    assert_eq!(lab.drops(DropReason::FragmentUnmatched), 1_000);
    lab.assert_accounted(0);
}

#[test]
fn the_fragments_of_one_datagram_go_to_one_server_without_a_connection_too() {
    let mut plan = plan();
    plan.services[0].one_packet = true;
    let mut lab = Lab::new(plan);
    for (id, server) in [(1, R2), (2, R1), (3, R2)] {
        let parts = datagram("10.0.0.2:1", id);
        assert_eq!(lab.send(&parts), parts.map(|part| routed(&part, server)));
    }
    assert_eq!((lab.connections(), lab.all_drops()), (0, vec![]));
    lab.assert_accounted(0);
}

#[test]
fn a_later_fragment_changes_no_state_and_is_not_answered() {
    let mut lab = Lab::new(plan());
    lab.send(&[segment(1, SYN).frame(), segment(1, ACK).frame()]);
    let whole = segment(1, ACK).len(100).ip(|ip| ip.fragment = 0).packet();
    assert_eq!(lab.send(&cut(&whole, &[24, 64])).len(), 3);
    assert_eq!(lab.list()[0].state, "ESTABLISHED");
    // Of no connection: one answer to a datagram, none to a segment, whose checksum nobody has seen.
    let stray = tcp("10.0.0.2:2", VIP, ACK).len(100).ip(|ip| (ip.id, ip.fragment) = (8, 0)).packet();
    assert_eq!(lab.send(&cut(&stray, &[24, 64])).len(), 0);
    assert_eq!(lab.all_drops(), [(DropReason::FragmentUnmatched, 3)]);
    let nobody =
        udp_packet("10.0.0.2:3", "10.0.0.100:99", &[7; 52], &Ip { id: 9, fragment: 0, ..Ip::default() });
    let said: Vec<String> = lab.send(&cut(&nobody, &[16, 40])).iter().map(|frame| text(frame)).collect();
    assert_eq!(
        said,
        [
            "cl < d0>c0 ip 10.0.0.100>10.0.0.2 ttl=64 tos=192 flags= frag=0 len=64 ck=ok | icmp 3/3 l4=ok rest=00000000 about ip 10.0.0.2>10.0.0.100 ttl=64 tos=0 flags=MF frag=0 len=36 ck=ok | udp 3>99 len=60 data[8]=0707070707070707"
        ]
    );
    assert_eq!(lab.all_drops(), [(DropReason::FragmentUnmatched, 5)]);
    // A TTL that ends: of the first the client hears, of others nobody does.
    let mut parts = datagram("10.0.0.2:4", 4);
    for part in &mut parts {
        part[22] = 1;
        part[24..26].fill(0);
        let sum = checksum(&part[14..34]);
        part[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    assert_eq!(lab.send(&parts).len(), 1);
    assert_eq!((lab.answers(Answer::TimeExceeded), lab.drops(DropReason::FragmentUnmatched)), (1, 7));
    assert_eq!(lab.connections(), 2);
    lab.assert_accounted(0);
}

#[test]
fn a_fragment_that_hides_or_overwrites_the_transport_header_ends() {
    let whole = segment(1, SYN).len(100).ip(|ip| ip.fragment = 0).packet();
    let mut lab = Lab::new(plan());
    // RFC 1858 section 3: the flags in the second fragment; section 4: over those of the first.
    let tiny = cut(&whole, &[8, 64]);
    assert_eq!(lab.send(&[tiny[0].clone(), tiny[1].clone()]).len(), 0);
    assert_eq!(lab.all_drops(), [(DropReason::FragmentMalformed, 2)]);
    let (long, short) = (cut(&whole, &[64]), cut(&whole, &[24, 48, 56]));
    let out = lab.send(&[long[0].clone(), short[1].clone(), short[2].clone(), long[1].clone()]);
    assert_eq!(out, [&long[0], &long[1]].map(|part| routed(part, R2)));
    assert_eq!(lab.all_drops(), [(DropReason::FragmentMalformed, 4)]);
    lab.assert_accounted(0);
}

#[test]
fn each_fragment_travels_through_a_tunnel_by_itself() {
    let mut lab = Lab::new(Plan::new().service(DNS, UDP, Kind::Rr, 1).tunnelled(0, Encapsulation::Ipip));
    let parts = datagram("10.0.0.2:1", 1);
    let out = lab.send(&parts);
    for (sent, part) in out.iter().zip(&parts) {
        assert_eq!((sent[23], &sent[34..]), (4, &routed(part, R1)[14..]));
    }
    assert_eq!(out.len(), 3);
}

/// The data of a packet whose fragments these frames are, which come in order; each is right by itself.
fn reassembled(frames: &[Vec<u8>], mtu: usize) -> Vec<u8> {
    let mut data = Vec::new();
    for (n, frame) in frames.iter().enumerate() {
        let packet = &frame[14..];
        let word = u16::from_be_bytes([packet[6], packet[7]]);
        assert_eq!((checksum(&packet[..20]), usize::from(word & 0x1fff) * 8), (0, data.len()));
        assert_eq!(word & 0xe000, if n + 1 < frames.len() { 0x2000 } else { 0 });
        assert!(
            packet.len() <= mtu && usize::from(u16::from_be_bytes([packet[2], packet[3]])) == packet.len()
        );
        data.extend(&packet[20..]);
    }
    data
}

#[test]
fn a_packet_that_may_be_fragmented_leaves_in_fragments_that_fit() {
    let mut plan = plan();
    plan.mtu = 600;
    let mut lab = Lab::new(plan);
    lab.send(&[segment(1, SYN).frame()]);
    let large = segment(1, ACK).len(1_400).ip(|ip| ip.fragment = 0);
    let out = lab.send(&[large.frame()]);
    assert_eq!(out.iter().map(Vec::len).collect::<Vec<_>>(), [610, 610, 302]);
    assert_eq!(reassembled(&out, 600), large.packet()[20..]);
    assert!(out.iter().all(|frame| frame[..6] == R2 && frame[22] == 63 && frame[18..20] == [0, 7]));
    // A fragment is cut again.
    let packet = udp_packet("10.0.0.2:5", DNS, &[7; 1_200], &Ip { fragment: 0, ..Ip::default() });
    let out = lab.send(&cut(&packet, &[800]));
    assert_eq!((out.len(), reassembled(&out, 600)), (3, packet[20..].to_vec()));
    // One that must not be is answered.
    assert_eq!(lab.send(&[segment(1, ACK).len(1_400).frame()]).len(), 1);
    assert_eq!((lab.answers(Answer::PacketTooBig), lab.all_drops()), (1, vec![]));
    lab.assert_accounted(0);
}

#[test]
fn the_outer_packet_of_a_tunnel_is_fragmented_if_the_inner_may_be() {
    let mut lab = Lab::new(Plan::new().service(VIP, TCP, Kind::Rr, 1).tunnelled(0, Encapsulation::Ipip));
    lab.send(&[segment(1, SYN).frame()]);
    let large = segment(1, ACK).len(1_441).ip(|ip| ip.fragment = 0);
    let out = lab.send(&[large.frame()]);
    let mut inner = large.packet();
    inner[8] -= 1;
    inner[10..12].fill(0);
    let sum = checksum(&inner[..20]);
    inner[10..12].copy_from_slice(&sum.to_be_bytes());
    assert_eq!((out.len(), reassembled(&out, 1_500)), (2, inner));
    assert!(out.iter().all(|frame| frame[23] == 4));
    lab.assert_accounted(0);
}

#[test]
fn an_outer_ipv6_packet_is_fragmented_to_what_its_path_carries_if_the_inner_may_be() {
    // A server of the other family: slot 1 is made for a service of it, and given to the first.
    let mut plan = Plan::new().service(VIP, TCP, Kind::Rr, 1).service("[fd00:1::100]:80", TCP, Kind::Rr, 1);
    plan.services.truncate(1);
    plan.services[0].servers = vec![(1, 1)];
    let mut lab = Lab::new(plan.tunnelled(1, Encapsulation::Ipip));
    lab.send(&[segment(1, SYN).frame()]);
    let large = segment(1, ACK).len(1_441).ip(|ip| ip.fragment = 0);
    let mut inner = large.packet();
    inner[8] -= 1;
    inner[10..12].fill(0);
    let sum = checksum(&inner[..20]);
    inner[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut numbers = Vec::new();
    for mtu in [1_500, 1_280] {
        let tunnel = lab.plan.slots[1].tunnel.clone().expect("it is behind a tunnel");
        tunnel.path.learn(mtu, lab.now);
        let out = lab.send(&[large.frame()]);
        let (data, at) = (usize::from(mtu) - 48, |n: usize| &out[n][14..]);
        assert_eq!(
            out.iter().map(Vec::len).collect::<Vec<_>>(),
            [14 + 48 + data / 8 * 8, 14 + 48 + 1_481 - data / 8 * 8]
        );
        for (n, word) in [1, (data / 8 * 8) as u16].into_iter().enumerate() {
            assert_eq!(
                (out[n][..6].to_vec(), &out[n][12..14], at(n)[6]),
                (R1.to_vec(), &[0x86, 0xdd][..], 44)
            );
            assert_eq!(
                (usize::from(u16::from_be_bytes([at(n)[4], at(n)[5]])), at(n)[40]),
                (at(n).len() - 40, 4)
            );
            assert_eq!(u16::from_be_bytes([at(n)[42], at(n)[43]]), word);
            numbers.push(at(n)[44..48].to_vec());
        }
        assert_eq!([&at(0)[48..], &at(1)[48..]].concat(), inner);
    }
    assert!(numbers[0] == numbers[1] && numbers[2] == numbers[3] && numbers[0] != numbers[2], "{numbers:?}");
    // What must not be fragmented is told to its sender.
    assert_eq!(lab.send(&[segment(1, ACK).len(1_441).frame()]).len(), 1);
    assert_eq!((lab.answers(Answer::PacketTooBig), lab.all_drops()), (1, vec![]));
    lab.assert_accounted(0);
}

#[test]
fn fragments_of_ours_wait_for_a_neighbour_and_need_buffers_all_or_none() {
    let mut plan = plan();
    plan.mtu = 68;
    let mut lab = Lab::new(plan);
    let large = |port: u16| segment(port, ACK).len(900).ip(|ip| ip.fragment = 0).frame();
    lab.send(&[segment(1, SYN).frame()]);
    let cell = lab.plan.hops[1].cell.clone();
    cell.set(NeighborState::Incomplete);
    // 920 bytes in parts of 48: 20 of them.
    assert_eq!(lab.send(&[large(1)]).len(), 0);
    lab.assert_accounted(20);
    cell.set(NeighborState::Reachable(R2));
    lab.poll();
    assert_eq!(lab.taken().len(), 20);
    // The worker has 128 buffers, which the wire keeps as long as nobody takes them.
    for _ in 0..7 {
        assert!(lab.stations[0].wires[0].push(&large(1)));
    }
    lab.poll();
    assert_eq!(lab.taken().len(), 120);
    assert_eq!(lab.all_drops(), [(DropReason::BufferPoolEmpty, 1)]);
    assert_eq!(lab.send(&[large(1)]).len(), 20);
    lab.assert_accounted(0);
}

#[test]
fn a_link_too_narrow_for_fragments_is_counted() {
    let mut plan = plan();
    plan.mtu = 67;
    let mut lab = Lab::new(plan);
    lab.send(&[udp("10.0.0.2:1", DNS)]);
    let packet = udp_packet("10.0.0.2:1", DNS, &[7; 52], &Ip { fragment: 0, ..Ip::default() });
    assert_eq!(lab.send(&[ethernet(D0, C0, &packet)]).len(), 0);
    assert_eq!(lab.all_drops(), [(DropReason::TooBig, 1)]);
    lab.assert_accounted(0);
}

#[test]
fn nat_rewrites_the_fragments_of_both_directions() {
    for workers in [1, 2] {
        let plan = Plan::new().service(DNS, UDP, Kind::Rr, 1).natted(0, 5_353);
        let mut lab = Lab::sized(plan, Size { workers, ..Size::default() });
        let ip = Ip { fragment: 0, ..Ip::default() };
        let (client, server) = ("10.0.0.2:1001", "192.168.50.11:5353");
        // Put together again, what comes out is the datagram that the other would have sent: its checksum is right.
        let parts = cut(&udp_packet(client, DNS, &[7; 300], &ip), &[16, 40]);
        let mut out = lab.send(&[parts[1].clone(), parts[0].clone(), parts[2].clone()]);
        out.sort_by_key(|frame| [frame[20] & 0x1f, frame[21]]);
        assert_eq!(reassembled(&out, 1_500), udp_packet(client, server, &[7; 300], &ip)[20..]);
        assert!(out.iter().all(|frame| frame[..6] == R1 && frame[26..34] == [10, 0, 0, 2, 192, 168, 50, 11]));
        let mut parts = cut(&udp_packet(server, client, &[9; 300], &ip), &[64]);
        for part in &mut parts {
            part[..12].copy_from_slice(&[D1, R1].concat());
        }
        let out = lab.send_by(1, &parts);
        assert_eq!(reassembled(&out, 1_500), udp_packet(DNS, client, &[9; 300], &ip)[20..]);
        assert!(out.iter().all(|frame| frame[..6] == C0 && frame[26..34] == [10, 0, 0, 100, 10, 0, 0, 2]));
        assert_eq!(lab.all_drops(), []);
        lab.assert_accounted(0);
    }
}
