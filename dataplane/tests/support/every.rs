//! A configuration with every forwarding method, frames of every kind for it, and a judge of what may leave.

use super::{
    Plan, TCP, UDP,
    frames::{
        ACK, C0, D0, D1, FIN, Ip, R1, SYN, checksum, crc32c, echo, ethernet, icmp_packet, pseudo_header,
        sctp_packet, tcp, udp_packet,
    },
    marked,
    text::GUE_PORT,
};
use pointsman_dataplane::{prefix::Prefix, routing::SourceNat, scheduler::Kind, snapshot::Encapsulation};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const SCTP: u8 = 132;

/// Services by NAT (the last group of their addresses ends in 0), direct routing (1) and tunnels (2), with a mark (4), and
/// source NAT for all that the servers send by themselves.
pub(crate) fn plan() -> Plan {
    let rr = Kind::Rr;
    let mut plan = Plan::new()
        .service("10.0.0.100:80", TCP, rr, 1)
        .service("[fd00:1::100]:80", TCP, rr, 1)
        .service("10.0.0.100:53", UDP, rr, 1)
        .service("[fd00:1::100]:53", UDP, rr, 1)
        .service("10.0.0.100:36412", SCTP, rr, 1)
        .service("10.0.0.104:0", TCP, rr, 1)
        .service("10.0.0.101:80", TCP, rr, 1)
        .service("[fd00:1::101]:80", TCP, rr, 1)
        .service("10.0.0.101:53", UDP, rr, 1)
        .service("10.0.0.101:36412", SCTP, rr, 1)
        .service("10.0.0.102:80", TCP, rr, 1)
        .service("[fd00:1::102]:80", TCP, rr, 1)
        .service("10.0.0.102:53", UDP, rr, 1);
    for (slot, port) in [(0, 8080), (1, 8080), (2, 5353), (3, 5353), (4, 36_500), (5, 0)] {
        plan = plan.natted(slot, port);
    }
    plan.services[5].mark = Some(7);
    plan.marks.push(marked([10, 0, 0, 104].into(), 7));
    for (network, len, address) in [("192.168.50.0", 24, "10.0.0.100"), ("fd00:50::", 64, "fd00:1::100")] {
        let network = network.parse().expect("an address");
        let address = address.parse().expect("an address");
        plan.source_nat.push(SourceNat { source: Prefix::new(network, len), port: Some(0), address });
    }
    plan.tunnelled(10, Encapsulation::Ipip)
        .tunnelled(11, Encapsulation::Gue { port: GUE_PORT, checksum: true })
        .tunnelled(12, Encapsulation::Gre { checksum: true })
        .router()
}

/// From the client's side, port 0.
fn outside(packet: &[u8]) -> (usize, Vec<u8>) {
    (0, ethernet(D0, C0, packet))
}

/// From the servers' side, port 1.
fn inside(packet: &[u8]) -> (usize, Vec<u8>) {
    (1, ethernet(D1, R1, packet))
}

fn error(from: &str, to: &str, head: [u8; 8], quoted: &[u8]) -> Vec<u8> {
    let address = |text: &str| text.parse().expect("an address");
    icmp_packet(address(from), address(to), &[&head[..], quoted].concat(), &Ip::default())
}

/// Frames of every kind and mode, with the port that they come in by, in an order in which each finds its connection.
pub(crate) fn conversation() -> Vec<(usize, Vec<u8>)> {
    let ip = Ip::default();
    let mut all = Vec::new();
    // Opened, answered, spoken.
    for (client, vip, server) in [
        ("10.0.0.2:2000", "10.0.0.100:80", "192.168.50.11:8080"),
        ("[fd00:1::2]:2000", "[fd00:1::100]:80", "[fd00:50::11]:8080"),
        ("10.0.0.2:2001", "10.0.0.104:443", "192.168.50.11:443"),
    ] {
        all.push(outside(&tcp(client, vip, SYN).packet()));
        all.push(inside(&tcp(server, client, SYN | ACK).packet()));
        all.push(outside(&tcp(client, vip, ACK).len(21).packet()));
        all.push(inside(&tcp(server, client, ACK).len(22).packet()));
    }
    for (client, vip) in [
        ("10.0.0.2:2000", "10.0.0.101:80"),
        ("[fd00:1::2]:2000", "[fd00:1::101]:80"),
        ("10.0.0.2:2000", "10.0.0.102:80"),
        ("[fd00:1::2]:2000", "[fd00:1::102]:80"),
    ] {
        all.push(outside(&tcp(client, vip, SYN).packet()));
        all.push(outside(&tcp(client, vip, ACK).len(23).packet()));
    }
    for (client, vip, server) in [
        ("10.0.0.2:2000", "10.0.0.100:53", Some("192.168.50.11:5353")),
        ("[fd00:1::2]:2000", "[fd00:1::100]:53", Some("[fd00:50::11]:5353")),
        ("10.0.0.2:2000", "10.0.0.101:53", None),
        ("10.0.0.2:2000", "10.0.0.102:53", None),
    ] {
        all.push(outside(&udp_packet(client, vip, b"question", &ip)));
        all.extend(server.map(|server| inside(&udp_packet(server, client, b"answer", &ip))));
    }
    let client = "10.0.0.2:2000";
    all.push(outside(&sctp_packet(client, "10.0.0.100:36412", &[1], &ip)));
    all.push(inside(&sctp_packet("192.168.50.11:36500", client, &[2], &ip)));
    all.push(outside(&sctp_packet(client, "10.0.0.101:36412", &[1], &ip)));
    all.extend(fragments());
    all.extend(errors());
    // The servers' own.
    all.push(inside(&tcp("192.168.50.12:3000", "10.0.0.2:99", SYN).packet()));
    all.push(outside(&tcp("10.0.0.2:99", "10.0.0.100:3000", SYN | ACK).packet()));
    all.push(inside(&tcp("[fd00:50::12]:3000", "[fd00:1::2]:99", SYN).packet()));
    all.push(outside(&tcp("[fd00:1::2]:99", "[fd00:1::100]:3000", SYN | ACK).packet()));
    all.push(inside(&echo("192.168.50.12", "10.0.0.2")[14..]));
    let reply = [&[0, 0, 0, 0, 0, 5, 0, 1][..], b"abcdefgh"].concat();
    all.push(outside(&icmp_packet([10, 0, 0, 2].into(), [10, 0, 0, 100].into(), &reply, &ip)));
    all.push(outside(&echo("10.0.0.2", "10.0.0.100")[14..]));
    all.push(outside(&echo("fd00:1::2", "fd00:1::100")[14..]));
    all.push(inside(&Ip::default().packet([192, 168, 50, 12].into(), [10, 0, 0, 2].into(), 50, &[9; 40])));
    all.push(inside(&tcp("192.168.50.11:8080", "10.0.0.2:2000", FIN | ACK).packet()));
    all
}

/// Datagrams in two fragments, of both directions of NAT.
fn fragments() -> Vec<(usize, Vec<u8>)> {
    let cut = |packet: &[u8], id: u8| {
        let (header, data) = packet.split_at(20);
        [(0_usize, 24_usize), (24, data.len())].map(|(begin, end)| {
            let mut part = [header, &data[begin..end]].concat();
            let word = (begin / 8) as u8;
            part[3] = part.len() as u8;
            part[4..8].copy_from_slice(&[0, id, if begin == 0 { 0x20 } else { 0 }, word]);
            part[10..12].fill(0);
            let sum = checksum(&part[..20]);
            part[10..12].copy_from_slice(&sum.to_be_bytes());
            part
        })
    };
    let there = cut(&udp_packet("10.0.0.2:2005", "10.0.0.100:53", &[5; 60], &Ip::default()), 50);
    let back = cut(&udp_packet("192.168.50.11:5353", "10.0.0.2:2005", &[6; 60], &Ip::default()), 51);
    // SCTP: the first of each waits for its other.
    let chunks = [3; 12];
    let there_too = cut(&sctp_packet("10.0.0.2:2000", "10.0.0.100:36412", &chunks, &Ip::default()), 52);
    let back_too = cut(&sctp_packet("192.168.50.11:36500", "10.0.0.2:2000", &chunks, &Ip::default()), 53);
    let outside = there.iter().chain(&there_too).map(|part| outside(part));
    outside.chain(back.iter().chain(&back_too).map(|part| inside(part))).collect()
}

/// ICMP errors about packets of each direction, about tunnels, and of no connection.
fn errors() -> Vec<(usize, Vec<u8>)> {
    let (unreachable, unreachable6) = ([3, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]);
    let answer = tcp("10.0.0.100:80", "10.0.0.2:2000", ACK).len(9).packet();
    let answer6 = tcp("[fd00:1::100]:80", "[fd00:1::2]:2000", ACK).len(9).packet();
    let request = tcp("10.0.0.2:2000", "192.168.50.11:8080", ACK).len(9).packet();
    let request6 = tcp("[fd00:1::2]:2000", "[fd00:50::11]:8080", ACK).len(9).packet();
    let direct = tcp("10.0.0.101:80", "10.0.0.2:2000", ACK).packet();
    let unknown = tcp("10.0.0.2:1", "192.168.50.11:2", ACK).packet();
    let in_tunnel = Ip::default().packet(
        [192, 168, 50, 1].into(),
        [192, 168, 50, 11].into(),
        4,
        &tcp("10.0.0.2:2000", "10.0.0.102:80", ACK).packet(),
    );
    vec![
        outside(&error("10.0.0.9", "10.0.0.100", unreachable, &answer)),
        outside(&error("fd00:1::9", "fd00:1::100", unreachable6, &answer6)),
        outside(&error("10.0.0.9", "10.0.0.101", unreachable, &direct)),
        inside(&error("192.168.50.11", "10.0.0.2", unreachable, &request)),
        inside(&error("fd00:50::11", "fd00:1::2", unreachable6, &request6)),
        inside(&error("192.168.50.11", "10.0.0.2", unreachable, &unknown)),
        inside(&error("192.168.50.13", "192.168.50.1", unreachable, &in_tunnel)),
    ]
}

fn be16(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])
}

/// The addresses of an IP packet, and its protocol and payload if it is no fragment.
struct Read<'a> {
    source: IpAddr,
    destination: IpAddr,
    payload: Option<(u8, &'a [u8])>,
}

/// Reads an IP packet, of which an error may quote only the beginning; `None` if it is none.
fn read(packet: &[u8], whole: bool) -> Option<Read<'_>> {
    if packet.len() >= 40 && packet[0] >> 4 == 6 {
        let octets = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).expect("16 bytes");
        let end = 40 + be16(packet, 4);
        assert!(!whole || end <= packet.len(), "a payload that is not there");
        let (mut next, mut rest) = (packet[6], &packet[40..end.min(packet.len())]);
        let mut in_parts = false;
        while matches!(next, 0 | 43 | 44 | 60) && rest.len() >= 8 {
            in_parts |= next == 44 && be16(rest, 2) & !6 != 0;
            let len = if next == 44 { 8 } else { 8 + usize::from(rest[1]) * 8 };
            (next, rest) = (rest[0], rest.get(len..).unwrap_or_default());
        }
        let payload = (!in_parts).then_some((next, rest));
        let (source, destination) = (Ipv6Addr::from(octets(8)).into(), Ipv6Addr::from(octets(24)).into());
        return Some(Read { source, destination, payload });
    }
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return None;
    }
    let (header, end) = (usize::from(packet[0] & 15) * 4, be16(packet, 2));
    if whole {
        assert!(header >= 20 && header <= end && end <= packet.len(), "lengths that cannot be");
        assert_eq!(checksum(&packet[..header]), 0, "the header's checksum");
    }
    let octets = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).expect("4 bytes");
    let rest = packet.get(header..end.min(packet.len())).unwrap_or_default();
    let payload = (be16(packet, 6) & 0x3fff == 0).then_some((packet[9], rest));
    Some(Read {
        source: Ipv4Addr::from(octets(12)).into(),
        destination: Ipv4Addr::from(octets(16)).into(),
        payload,
    })
}

/// The packet of a frame, behind its tags, if it is an IP packet.
fn packet_of(frame: &[u8]) -> Option<&[u8]> {
    let mut at = 12;
    while matches!(frame.get(at..at + 2)?, [0x81, 0] | [0x88, 0xa8]) {
        at += 4;
    }
    matches!(frame.get(at..at + 2)?, [8, 0] | [0x86, 0xdd]).then(|| &frame[at + 2..])
}

/// Whether the checksums of what a packet carries are right, in tunnels too; `None` if it has none or is cut.
pub(crate) fn sums_are_right(frame: &[u8]) -> Option<bool> {
    let packet = packet_of(frame)?;
    let is_whole = match packet.first()? >> 4 {
        4 => packet.len() >= 20 && be16(packet, 2) <= packet.len(),
        _ => packet.len() >= 40 && 40 + be16(packet, 4) <= packet.len(),
    };
    if is_whole { inner_sums(packet) } else { None }
}

fn inner_sums(packet: &[u8]) -> Option<bool> {
    let Read { source, destination, payload } = read(packet, false)?;
    let (protocol, bytes) = payload?;
    let with_pseudo = || {
        let all = [&pseudo_header(source, destination, protocol, bytes.len())[..], bytes].concat();
        Some(checksum(&all) == 0)
    };
    let both = |outer: Option<bool>, inner: Option<&[u8]>| {
        let inner = inner.and_then(inner_sums);
        if outer.is_none() { inner } else { Some(outer == Some(true) && inner != Some(false)) }
    };
    match protocol {
        6 if bytes.len() >= 20 => with_pseudo(),
        17 if bytes.len() >= 8 && be16(bytes, 4) == bytes.len() => {
            let outer = if be16(bytes, 6) == 0 && source.is_ipv4() { None } else { with_pseudo() };
            let is_gue = be16(bytes, 2) == usize::from(GUE_PORT);
            both(outer, if is_gue { bytes.get(12..) } else { None })
        }
        1 if bytes.len() >= 8 => Some(checksum(bytes) == 0),
        58 if bytes.len() >= 8 => with_pseudo(),
        132 if bytes.len() >= 12 => {
            let zeroed = [&bytes[..8], &[0; 4], &bytes[12..]].concat();
            Some(crc32c(&zeroed).to_le_bytes() == bytes[8..12])
        }
        4 | 41 => inner_sums(bytes),
        47 if bytes.len() >= 8 && bytes[0] & 0x80 != 0 => both(Some(checksum(bytes) == 0), bytes.get(8..)),
        _ => None,
    }
}

fn is_inner(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [192, 168, 50],
        IpAddr::V6(v6) => v6.segments()[..4] == [0xfd00, 0x50, 0, 0],
    }
}

/// Whether it is the director's own on the link of a port.
fn is_port(address: IpAddr) -> bool {
    let own = ["10.0.0.1", "192.168.50.1", "fd00:1::1", "fd00:50::1"];
    own.iter().any(|own| address == own.parse::<IpAddr>().expect("an address"))
}

/// Whether it is the director's own, or a virtual address.
fn is_ours(address: IpAddr) -> bool {
    let is_virtual = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [10, 0, 0] && (100..=104).contains(&v4.octets()[3]),
        IpAddr::V6(v6) => {
            v6.segments()[..7] == [0xfd00, 1, 0, 0, 0, 0, 0] && (0x100..=0x104).contains(&v6.segments()[7])
        }
    };
    is_virtual || is_port(address)
}

/// What may leave under [`plan`] whatever comes: frames of the director's, well formed; by d1 only to servers and, by direct
/// routing, to its virtual addresses; by d0 nothing that tells of an inner address.
pub(crate) fn assert_allowed(frame: &[u8]) {
    assert!(frame.len() >= 34, "{} bytes", frame.len());
    let by_d0 = frame[6..12] == D0;
    assert!(by_d0 || frame[6..12] == D1, "it comes from the director: {frame:02x?}");
    let Some(packet) = packet_of(frame) else { return };
    let Some(Read { source, destination, payload }) = read(packet, true) else {
        panic!("an EtherType that lies: {frame:02x?}")
    };
    // What a frame has behind its packet it keeps. The answer to a ping is as long as that, whatever link brought it.
    let len = if packet[0] >> 4 == 6 { 40 + be16(packet, 4) } else { be16(packet, 2) };
    let is_pong = matches!(payload, Some((1, [0, ..]) | (58, [129, ..])));
    assert!(len <= 1500 || is_pong, "{len} bytes: {frame:02x?}");
    let quoted = match payload {
        Some((1, message)) if message.len() >= 28 && matches!(message[0], 3 | 4 | 5 | 11 | 12) => {
            read(&message[8..], false)
        }
        Some((58, message)) if message.len() >= 48 && message[0] < 128 => read(&message[8..], false),
        _ => None,
    };
    if !by_d0 {
        let direct: [IpAddr; 2] =
            [[10, 0, 0, 101].into(), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x101).into()];
        // Its own answers go to whoever asked; an error about a flow to the flow's server, whomever it is addressed to.
        let about = quoted.is_some_and(|quoted| direct.contains(&quoted.source));
        assert!(
            is_ours(source) || is_inner(destination) || direct.contains(&destination) || about,
            "to {destination} by d1: {frame:02x?}"
        );
        return;
    }
    assert!(!is_inner(source), "{source} leaves by d0: {frame:02x?}");
    if is_inner(destination) || is_port(source) {
        // To who sent what is quoted.
        return;
    }
    if let Some(quoted) = quoted {
        assert!(
            !is_inner(quoted.source) && !is_inner(quoted.destination),
            "a quoted inner address: {frame:02x?}"
        );
    }
}
