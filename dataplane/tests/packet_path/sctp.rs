//! SCTP: associations by NAT and by direct routing, their states, their CRC32c, and what is no association's.

use crate::support::{
    Lab, Plan, Size,
    frames::{C0, D0, D1, Ip, R1, R2, checksum, ethernet, icmp_packet},
};
use pointsman_dataplane::{
    scheduler::Kind,
    verdict::{
        Answer,
        DropReason::{self, FragmentMalformed, FragmentUnmatched},
    },
};
use std::net::SocketAddr;

const SCTP: u8 = 132;
const VIP: &str = "10.0.0.100:80";

/// Chunks with values as short as RFC 9260 section 3.3 lets them be.
const DATA: &[u8] = b"\0\x03\0\x12\0\0\0\x01\0\0\0\0\0\0\0\0hi\0\0";
const INIT: &[u8] = b"\x01\0\0\x14\0\0\0\x01\0\0\x05\xdc\0\x01\0\x01\0\0\0\x01";
const INIT_ACK: &[u8] =
    b"\x02\0\0\x1c\0\0\0\x02\0\0\x05\xdc\0\x01\0\x01\0\0\0\x07\0\x07\0\x08\xc0\x0c\x1e\x5a";
const ABORT: &[u8] = &[6, 0, 0, 4];
const SHUTDOWN: &[u8] = &[7, 0, 0, 8, 0, 0, 0, 1];
const SHUTDOWN_ACK: &[u8] = &[8, 0, 0, 4];
const COOKIE_ECHO: &[u8] = &[10, 0, 0, 8, 0xc0, 0x0c, 0x1e, 0x5a];
const COOKIE_ACK: &[u8] = &[11, 0, 0, 4];
const SHUTDOWN_COMPLETE: &[u8] = &[14, 0, 0, 4];

/// CRC32c bit after bit (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let odd = crc & 1 == 1;
            crc >>= 1;
            if odd {
                crc ^= 0x82f6_3b78;
            }
        }
    }
    !crc
}

#[test]
fn the_crc_of_these_tests_is_that_of_the_rfc() {
    // RFC 3720 appendix B.4: 32 bytes of zero, and of ones.
    assert_eq!((crc32c(&[0; 32]), crc32c(&[0xff; 32])), (0x8a91_36aa, 0x62a8_ab43));
}

/// A packet of these chunks with a checksum that is right by `crc32c` if `damage` is 0.
fn packet_of(from: &str, to: &str, chunks: &[u8], damage: u32, ttl: u8) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) =
        (from.parse().expect("an address"), to.parse().expect("an address"));
    let mut bytes = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    bytes.extend([0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0]);
    bytes.extend(chunks);
    let crc = crc32c(&bytes) ^ damage;
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    Ip { ttl, ..Ip::default() }.packet(from.ip(), to.ip(), SCTP, &bytes)
}

fn packet(from: &str, to: &str, chunks: &[u8], ttl: u8) -> Vec<u8> {
    packet_of(from, to, chunks, 0, ttl)
}

fn from_client(client: &str, to: &str, chunks: &[u8]) -> Vec<u8> {
    ethernet(D0, C0, &packet(client, to, chunks, 64))
}

fn natted(port: u16) -> Plan {
    Plan::new().service(VIP, SCTP, Kind::Rr, 2).natted(0, port).natted(1, port)
}

/// An association from its first packet to its last: whether the client sends, what, and the state and the active
/// connections after it.
const LIFE: [(bool, &[u8], &str, u32); 10] = [
    (true, INIT, "INIT1", 0),
    (false, INIT_ACK, "C-SENT", 0),
    (true, COOKIE_ECHO, "C-REPLIED", 0),
    (false, COOKIE_ACK, "ESTABLISHED", 1),
    (true, DATA, "ESTABLISHED", 1),
    (false, DATA, "ESTABLISHED", 1),
    (false, SHUTDOWN, "S-SENT", 0),
    (true, SHUTDOWN_ACK, "CLOSED", 0),
    (false, SHUTDOWN_COMPLETE, "CLOSED", 0),
    (true, ABORT, "CLOSED", 0),
];

fn lives_by_nat(vip: &str, client: &str, server: &str, port: u16) {
    for workers in [1, 2, 3] {
        let plan = Plan::new().service(vip, SCTP, Kind::Rr, 1).natted(0, port);
        let mut lab = Lab::sized(plan, Size { workers, ..Size::default() });
        for (by_client, chunks, state, active) in LIFE {
            let out = if by_client {
                let out = lab.send(&[from_client(client, vip, chunks)]);
                assert_eq!(out, [ethernet(R1, D1, &packet(client, server, chunks, 63))], "{chunks:?}");
                out
            } else {
                let out = lab.send_by(1, &[ethernet(D1, R1, &packet(server, client, chunks, 64))]);
                assert_eq!(out, [ethernet(C0, D0, &packet(vip, client, chunks, 63))], "{chunks:?}");
                out
            };
            assert_eq!(out.len(), 1);
            let listed = lab.list();
            assert_eq!((listed.len(), listed[0].state, lab.counts(0)), (1, state, (active, 1 - active)));
        }
        lab.assert_accounted(0);
        assert_eq!(lab.all_drops(), []);
        // CLOSED lasts a minute.
        lab.run(61_500);
        assert_eq!((lab.connections(), lab.counts(0)), (0, (0, 0)));
    }
}

#[test]
fn an_association_by_nat_to_another_port_has_a_right_crc_both_ways() {
    lives_by_nat(VIP, "10.0.0.2:5000", "192.168.50.11:2905", 2905);
}

#[test]
fn an_association_by_nat_to_the_same_port_keeps_its_crc() {
    lives_by_nat(VIP, "10.0.0.2:5000", "192.168.50.11:80", 80);
}

#[test]
fn an_association_over_ipv6_is_translated_too() {
    lives_by_nat("[fd00:1::100]:80", "[fd00:1::2]:5000", "[fd00:50::11]:2905", 2905);
    lives_by_nat("[fd00:1::100]:80", "[fd00:1::2]:5000", "[fd00:50::11]:80", 80);
}

#[test]
fn a_wrong_crc_stays_as_wrong_as_it_was() {
    let (client, wrong) = ("10.0.0.2:5000", |to: &str, ttl| packet_of("10.0.0.2:5000", to, DATA, 0x100, ttl));
    for port in [80, 2905] {
        let mut lab = Lab::new(natted(port));
        lab.send(&[from_client(client, VIP, INIT)]);
        let out = lab.send(&[ethernet(D0, C0, &wrong(VIP, 64))]);
        assert_eq!(out, [ethernet(R2, D1, &wrong(&format!("192.168.50.12:{port}"), 63))]);
        assert_eq!(lab.all_drops(), []);
    }
}

/// The packet's data in fragments of at most 24 bytes, but the first `front` bytes in one. `extension`: of IPv6, behind the
/// fragment header of the first.
fn cut(packet: &[u8], front: usize, extension: &[u8]) -> Vec<Vec<u8>> {
    let v6 = packet[0] >> 4 == 6;
    let (header, data) = packet.split_at(if v6 { 40 } else { 20 });
    let data = [extension, data].concat();
    let mut begins = vec![0];
    begins.extend((extension.len() + front..data.len()).step_by(24));
    let ends = begins.iter().skip(1).copied().chain([data.len()]);
    let part = |(begin, end): (&usize, usize)| {
        let more = end < data.len();
        let mut part = header.to_vec();
        if v6 {
            let word = (*begin as u16 | u16::from(more)).to_be_bytes();
            part[4..6].copy_from_slice(&((end - begin + 8) as u16).to_be_bytes());
            part[6] = 44;
            part.extend([if extension.is_empty() { SCTP } else { 60 }, 0, word[0], word[1], 0, 0, 0, 7]);
        } else {
            part[2..4].copy_from_slice(&((end - begin + 20) as u16).to_be_bytes());
            let word = (*begin / 8) as u16 | if more { 0x2000 } else { 0 };
            part[6..8].copy_from_slice(&word.to_be_bytes());
            part[10..12].fill(0);
            let sum = checksum(&part);
            part[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        [part, data[*begin..end].to_vec()].concat()
    };
    begins.iter().zip(ends).map(part).collect()
}

/// What leaves when the packet of `sent` comes in fragments by port `by`, in an order: each has the other's place in `expected`.
fn in_fragments(
    lab: &mut Lab,
    (by, sent, expected): (usize, &[Vec<u8>], &[Vec<u8>]),
    order: &[usize],
) -> Vec<usize> {
    let (to, from, next, own) = [(D0, C0, R1, D1), (D1, R1, C0, D0)][by];
    let mut out = Vec::new();
    for n in order {
        out.extend(lab.send_by(by, &[ethernet(to, from, &sent[*n])]));
        lab.poll();
        out.extend(lab.taken());
    }
    let place = |frame: &Vec<u8>| expected.iter().position(|part| *frame == ethernet(next, own, part));
    out.iter().map(|frame| place(frame).unwrap_or_else(|| panic!("{order:?}: {frame:02x?}"))).collect()
}

/// Of a datagram: 80 bytes of data.
fn large() -> Vec<u8> {
    [&b"\0\x03\0\x50\0\0\0\x01\0\0\0\0\0\0\0\0"[..], &[7; 64]].concat()
}

const ORDERS: [[usize; 5]; 4] = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 4, 0, 3, 2], [3, 0, 4, 1, 2]];

#[test]
fn fragments_by_nat_to_another_port_have_the_crc_of_the_whole_in_whatever_order_they_come() {
    let families = [
        (VIP, "10.0.0.2:5000", "192.168.50.11:2905", &b""[..]),
        ("[fd00:1::100]:80", "[fd00:1::2]:5000", "[fd00:50::11]:2905", b""),
        // Eight bytes of options between.
        ("[fd00:1::100]:80", "[fd00:1::2]:5000", "[fd00:50::11]:2905", &[SCTP, 0, 1, 4, 0, 0, 0, 0]),
    ];
    for (workers, (vip, client, server, extension)) in
        [1, 2, 3].iter().flat_map(|n| families.map(|family| (*n, family)))
    {
        let plan = Plan::new().service(vip, SCTP, Kind::Rr, 1).natted(0, 2905);
        let mut lab = Lab::sized(plan, Size { workers, ..Size::default() });
        lab.send(&[from_client(client, vip, INIT)]);
        let parts = |from: &str, to: &str, ttl| cut(&packet(from, to, &large(), ttl), 16, extension);
        // One after the other, with the same identification and another length.
        for order in ORDERS {
            let (sent, expected) = (parts(client, vip, 64), parts(client, server, 63));
            let mut out = in_fragments(&mut lab, (0, &sent, &expected), &order);
            out.sort_unstable();
            assert_eq!(out, [0, 1, 2, 3, 4], "{order:?}");
            let (sent, expected) = (parts(server, client, 64), parts(vip, client, 63));
            let mut out = in_fragments(&mut lab, (1, &sent, &expected), &order);
            out.sort_unstable();
            assert_eq!(out, [0, 1, 2, 3, 4], "{order:?}");
            let short = |from: &str, to: &str, ttl| cut(&packet(from, to, DATA, ttl), 16, extension);
            let (sent, expected) = (short(client, vip, 64), short(client, server, 63));
            assert_eq!(in_fragments(&mut lab, (0, &sent, &expected), &[0, 1]).len(), 2);
            // In one batch none waits.
            let frames: Vec<_> = sent.iter().map(|part| ethernet(D0, C0, part)).collect();
            let expected: Vec<_> = expected.iter().map(|part| ethernet(R1, D1, part)).collect();
            assert_eq!(lab.send(&frames), expected);
        }
        assert_eq!(lab.all_drops(), []);
        lab.assert_accounted(0);
    }
}

#[test]
fn only_a_first_fragment_that_gets_another_port_waits_and_not_before_it_has_made_its_association() {
    // By NAT to another port, to the same, and by direct routing.
    let plan = Plan::new().service(VIP, SCTP, Kind::Rr, 1).natted(0, 2905);
    let plan = plan.service("10.0.0.101:80", SCTP, Kind::Rr, 1).natted(1, 80);
    let mut lab = Lab::new(plan.service("10.0.0.102:80", SCTP, Kind::Rr, 1));
    let client = "10.0.0.2:5000";
    let opening = [INIT, &[0x80, 0, 0, 40], &[1; 36]].concat();
    for (vip, server, waits) in [
        (VIP, "192.168.50.11:2905", true),
        ("10.0.0.101:80", "192.168.50.11:80", false),
        ("10.0.0.102:80", "10.0.0.102:80", false),
    ] {
        let parts = |to: &str, ttl| cut(&packet(client, to, &opening, ttl), 32, b"");
        let (sent, expected) = (parts(vip, 64), parts(server, 63));
        let out = in_fragments(&mut lab, (0, &sent, &expected), &[0, 1, 2]);
        assert_eq!(out, if waits { [1, 2, 0] } else { [0, 1, 2] }, "{vip}");
    }
    assert_eq!((lab.connections(), lab.all_drops()), (3, vec![]));
    assert!(lab.list().iter().all(|listed| listed.packets_in == 3), "each is counted once");
    lab.assert_accounted(0);
}

#[test]
fn first_fragments_that_have_their_last_never_give_way_and_those_that_wait_in_vain_are_counted() {
    let mut lab = Lab::new(natted(2905));
    lab.send(&[from_client("10.0.0.2:5000", VIP, INIT)]);
    let parts = |id: u8| {
        let mut parts = cut(&packet("10.0.0.2:5000", VIP, DATA, 64), 16, b"");
        for part in &mut parts {
            part[5] = id;
            part[10..12].fill(0);
            let sum = checksum(&part[..20]);
            part[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        parts.into_iter().map(|part| ethernet(D0, C0, &part)).collect::<Vec<_>>()
    };
    // Full batches of datagrams in two parts, first as they are sent and then all first ones before all others.
    let all: Vec<_> = (0..200).map(parts).collect();
    let mut frames = all.concat();
    assert_eq!(lab.send(&frames).len(), 400);
    // The lasts of some come in the batch of other first ones, when no more could wait.
    frames = (0..2)
        .flat_map(|part| (0..96).map(move |n| (n, part)))
        .map(|(n, part)| all[n][part].clone())
        .collect();
    let mut out = lab.send(&frames).len();
    lab.poll();
    out += lab.taken().len();
    assert_eq!((out, lab.all_drops()), (192, vec![]));
    // No last comes.
    for first in all.iter().take(150).map(|parts| &parts[0]) {
        assert!(lab.send(std::slice::from_ref(first)).is_empty());
    }
    assert_eq!(lab.all_drops(), [(FragmentUnmatched, 22)]);
    lab.assert_accounted(0);
    lab.run(1_100);
    assert_eq!(lab.all_drops(), [(FragmentUnmatched, 150)]);
    lab.assert_accounted(0);
}

#[test]
fn a_last_fragment_that_ends_before_the_first_does_makes_none_of_them_right() {
    let mut lab = Lab::new(natted(2905));
    lab.send(&[from_client("10.0.0.2:5000", VIP, INIT)]);
    let parts = cut(&packet("10.0.0.2:5000", VIP, &[DATA, DATA, DATA].concat(), 64), 48, b"");
    let mut last = parts[1].clone();
    // Its offset: 8 bytes, which the first has.
    last[6..8].copy_from_slice(&[0, 1]);
    last[10..12].fill(0);
    let sum = checksum(&last[..20]);
    last[10..12].copy_from_slice(&sum.to_be_bytes());
    assert!(lab.send(&[ethernet(D0, C0, &parts[0]), ethernet(D0, C0, &last)]).is_empty());
    assert_eq!(lab.all_drops(), [(FragmentMalformed, 1)]);
    lab.run(1_100);
    assert_eq!(lab.all_drops(), [(FragmentMalformed, 1), (FragmentUnmatched, 1)]);
    lab.assert_accounted(0);
}

/// What direct routing sees of an association: the client's packets.
#[test]
fn an_association_by_direct_routing_is_known_by_the_client_s_side_alone() {
    let mut lab = Lab::new(Plan::new().service(VIP, SCTP, Kind::Rr, 1));
    let client = "10.0.0.2:5000";
    for (chunks, state, lasts) in [
        (INIT, "INIT1", 4),
        (INIT, "INIT", 61),
        (COOKIE_ECHO, "ESTABLISHED", 900),
        (DATA, "ESTABLISHED", 900),
        (SHUTDOWN, "S-RECEIVED", 61),
        (SHUTDOWN_COMPLETE, "CLOSED", 61),
    ] {
        let out = lab.send(&[from_client(client, VIP, chunks)]);
        assert_eq!(out, [ethernet(R1, D1, &packet(client, VIP, chunks, 63))]);
        let record = &lab.list()[0];
        assert_eq!((record.state, record.expires_millis), (state, lasts * 1_000));
    }
    lab.send(&[from_client("10.0.0.2:5001", VIP, INIT), from_client("10.0.0.2:5001", VIP, ABORT)]);
    assert_eq!(lab.list()[1].state, "CLOSED");
    // One that gets no further than its first packet.
    lab.send(&[from_client("10.0.0.2:5002", VIP, INIT)]);
    lab.run(4_200);
    assert_eq!(lab.list().iter().map(|record| record.client.port()).collect::<Vec<_>>(), [5000, 5001]);
}

#[test]
fn an_init_begins_a_new_association_where_one_has_closed() {
    let mut lab = Lab::new(Plan::new().service(VIP, SCTP, Kind::Rr, 2));
    let client = "10.0.0.2:5000";
    let to = |lab: &mut Lab, chunks: &[u8]| lab.send(&[from_client(client, VIP, chunks)])[0][..6].to_vec();
    assert_eq!(to(&mut lab, INIT), R2);
    assert_eq!(to(&mut lab, ABORT), R2);
    // Not any packet, but an INIT: the next server has its turn.
    assert_eq!(to(&mut lab, DATA), R2);
    assert_eq!(to(&mut lab, INIT), R1);
    assert_eq!((lab.list()[0].state, lab.lives().0), ("INIT1", 2));
    // Nor an INIT of one that has not closed.
    assert_eq!(to(&mut lab, INIT), R1);
    assert_eq!(to(&mut lab, COOKIE_ECHO), R1);
    assert_eq!(to(&mut lab, INIT), R1);
    assert_eq!((lab.list()[0].state, lab.lives().0), ("ESTABLISHED", 2));
}

/// A host without SCTP says that it does not know the protocol.
fn unknown(lab: &mut Lab, to: &str, chunks: &[u8]) {
    let said = lab.says(from_client("10.0.0.2:6000", to, chunks)).concat();
    assert!(
        said.starts_with("cl < d0>c0 ip 10.0.0.100>10.0.0.2 ttl=64") && said.contains("| icmp 3/2 "),
        "{said}"
    );
}

#[test]
fn what_is_no_init_and_of_no_association_is_of_an_unknown_protocol_unless_the_director_is_sloppy() {
    let mut plan = Plan::new().service(VIP, SCTP, Kind::Rr, 1);
    let mut lab = Lab::new(plan.clone());
    for chunks in [INIT_ACK, COOKIE_ECHO, COOKIE_ACK, DATA, SHUTDOWN, ABORT, &[]] {
        unknown(&mut lab, VIP, chunks);
    }
    // Nor is there a service at this port.
    unknown(&mut lab, "10.0.0.100:81", INIT);
    assert_eq!((lab.answers(Answer::ProtocolUnreachable), lab.connections()), (8, 0));
    plan.policies.sloppy_sctp = true;
    let mut lab = Lab::new(plan);
    for (port, chunks) in (5000..).zip([DATA, COOKIE_ECHO, SHUTDOWN]) {
        assert_eq!(lab.send(&[from_client(&format!("10.0.0.2:{port}"), VIP, chunks)]).len(), 1);
    }
    let states: Vec<_> = lab.list().iter().map(|record| record.state).collect();
    assert_eq!(states, ["ESTABLISHED", "ESTABLISHED", "S-RECEIVED"]);
    for chunks in [ABORT, &[]] {
        unknown(&mut lab, VIP, chunks);
    }
}

#[test]
fn a_flood_of_inits_takes_no_association_s_place() {
    let size = Size { connections: 64, ..Size::default() };
    let mut lab = Lab::sized(Plan::new().service(VIP, SCTP, Kind::Rr, 1), size);
    let client = |n: u32| format!("10.0.1.{}:{}", n / 5_000, 2_000 + n % 5_000);
    for n in 0..40 {
        let chunks = [INIT, COOKIE_ECHO];
        assert_eq!(lab.send(&chunks.map(|chunks| from_client(&client(n), VIP, chunks))).len(), 2);
    }
    for n in 40..10_000 {
        assert_eq!(lab.send(&[from_client(&client(n), VIP, INIT)]).len(), 1, "association {n}");
    }
    let states: Vec<_> = lab.list().iter().map(|record| record.state).collect();
    assert_eq!(states.iter().filter(|state| **state == "ESTABLISHED").count(), 40);
    assert_eq!((lab.counts(0).0, lab.drops(DropReason::TableFull)), (40, 0));
    assert_eq!(lab.lives().0 - lab.lives().2, lab.connections());
}

/// An ICMP error that quotes a packet whole.
fn error(from: &str, to: &str, head: [u8; 8], quoted: &[u8], ttl: u8) -> Vec<u8> {
    let message = [&head[..], quoted].concat();
    icmp_packet(
        from.parse().expect("an address"),
        to.parse().expect("an address"),
        &message,
        &Ip { ttl, ..Ip::default() },
    )
}

/// `packet` with the CRC of `other`, which is not made anew in what an error quotes.
fn quoting(packet: &[u8], other: &[u8]) -> Vec<u8> {
    let at = if packet[0] >> 4 == 6 { 40 + 8 } else { 20 + 8 };
    let mut quoted = packet.to_vec();
    quoted[at..at + 4].copy_from_slice(&other[at..at + 4]);
    quoted
}

#[test]
fn errors_about_an_association_find_its_other_side() {
    let unreachable = [3, 2, 0, 0, 0, 0, 0, 0];
    for workers in [1, 2, 3] {
        let mut lab = Lab::sized(natted(2905), Size { workers, ..Size::default() });
        let (client, server) = ("10.0.0.2:5000", "192.168.50.12:2905");
        lab.send(&[from_client(client, VIP, INIT)]);
        let (answer, as_sent) = (packet(VIP, client, INIT_ACK, 64), packet(server, client, INIT_ACK, 64));
        let out = lab.send(&[ethernet(D0, C0, &error("10.0.0.9", "10.0.0.100", unreachable, &answer, 64))]);
        let quoted = quoting(&as_sent, &answer);
        let expected = error("10.0.0.9", "192.168.50.12", unreachable, &quoted, 63);
        assert_eq!(out, [ethernet(R2, D1, &expected)], "{workers} workers");
        let (request, as_sent) = (packet(client, server, INIT, 63), packet(client, VIP, INIT, 63));
        let came = error("192.168.50.12", "10.0.0.2", unreachable, &request, 64);
        let out = lab.send_by(1, &[ethernet(D1, R2, &came)]);
        let expected = error("10.0.0.100", "10.0.0.2", unreachable, &quoting(&as_sent, &request), 63);
        assert_eq!(out, [ethernet(C0, D0, &expected)], "{workers} workers");
        // An error about another association is nobody's.
        let stray = packet(VIP, "10.0.0.2:5001", DATA, 64);
        assert!(
            lab.send(&[ethernet(D0, C0, &error("10.0.0.9", "10.0.0.100", unreachable, &stray, 64))])
                .is_empty()
        );
        assert_eq!(lab.all_drops(), [(DropReason::IcmpUnmatched, 1)]);
        lab.assert_accounted(0);
    }
    // By direct routing the server hears of it as it is.
    let mut lab = Lab::new(Plan::new().service(VIP, SCTP, Kind::Rr, 1));
    lab.send(&[from_client("10.0.0.2:5000", VIP, INIT)]);
    let answer = packet(VIP, "10.0.0.2:5000", INIT_ACK, 64);
    let relayed = |ttl| error("10.0.0.9", "10.0.0.100", unreachable, &answer, ttl);
    assert_eq!(lab.send(&[ethernet(D0, C0, &relayed(64))]), [ethernet(R1, D1, &relayed(63))]);
}
