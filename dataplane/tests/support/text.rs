//! Frames as text, in the form of the recordings of the original (`tests/oracle`), so that their lines can stand in tests
//! as they are. Reads the bytes itself and makes every sum anew.

use super::frames::{C0, D0, D1, R1, R2, R3, checksum, pseudo_header};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where the tests' servers take GUE.
pub(crate) const GUE_PORT: u16 = 6080;

/// `r3 < d1>r3 ip ...`
pub(crate) fn text(frame: &[u8]) -> String {
    let (destination, source) = (station(&frame[..6]), station(&frame[6..12]));
    let node = if destination == "c0" { "cl" } else { &destination };
    let mut at = 12;
    let mut tags = String::new();
    while matches!(be16(frame, at), 0x8100 | 0x88a8) {
        tags += &format!(" vlan {}", be16(frame, at + 2) & 0xfff);
        at += 4;
    }
    let payload = match be16(frame, at) {
        0x0806 => arp(&frame[at + 2..]),
        _ => ip(&frame[at + 2..], false),
    };
    format!("{node} < {source}>{destination}{tags} {payload}")
}

fn station(mac: &[u8]) -> String {
    let known = [("c0", C0), ("d0", D0), ("d1", D1), ("r1", R1), ("r2", R2), ("r3", R3)];
    match known.into_iter().find(|(_, known)| known == mac) {
        Some((name, _)) => name.to_owned(),
        None => mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn ok(sum: u16) -> &'static str {
    if sum == 0 { "ok" } else { "BAD" }
}

fn v4(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(be32(bytes, at))
}

fn v6(bytes: &[u8], at: usize) -> Ipv6Addr {
    let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("16 bytes");
    Ipv6Addr::from(octets)
}

fn arp(b: &[u8]) -> String {
    let form = (be16(b, 0), be16(b, 2), b[4], b[5]);
    assert_eq!(form, (1, 0x0800, 6, 4), "ARP for IPv4 over Ethernet");
    let (sender, target) = (station(&b[8..14]), station(&b[18..24]));
    format!("arp {} {} {sender} {} {target}", be16(b, 6), v4(b, 14), v4(b, 24))
}

/// An IP packet; of one that an error quotes only what is there.
fn ip(b: &[u8], quoted: bool) -> String {
    if b[0] >> 4 == 6 {
        let class = b[0] << 4 | b[1] >> 4;
        let len = usize::from(be16(b, 4));
        let (source, destination) = (v6(b, 8), v6(b, 24));
        let head = format!("ip6 {source}>{destination} hlim={} tc={class} plen={len}", b[7]);
        let payload = &b[40..(40 + len).min(b.len())];
        return head + &transport(payload, b[6], (source.into(), destination.into()), quoted);
    }
    let header = usize::from(b[0] & 15) * 4;
    let len = usize::from(be16(b, 2));
    let word = be16(b, 6);
    let flags = match (word & 0x2000 != 0, word & 0x4000 != 0) {
        (false, false) => "",
        (true, false) => "MF",
        (false, true) => "DF",
        (true, true) => "MF+DF",
    };
    let (source, destination) = (v4(b, 12), v4(b, 16));
    let head = format!(
        "ip {source}>{destination} ttl={} tos={} flags={flags} frag={} len={len} ck={}",
        b[8],
        b[1],
        word & 0x1fff,
        ok(checksum(&b[..header]))
    );
    let payload = &b[header..len.min(b.len())];
    if word & 0x1fff != 0 {
        return format!("{head} | fragment-data[{}]", payload.len());
    }
    head + &transport(payload, b[9], (source.into(), destination.into()), quoted || word & 0x2000 != 0)
}

fn transport(b: &[u8], protocol: u8, (source, destination): (IpAddr, IpAddr), quoted: bool) -> String {
    let sum = |pseudo: bool| {
        let mut bytes =
            if pseudo { pseudo_header(source, destination, protocol, b.len()) } else { Vec::new() };
        bytes.extend(b);
        if quoted { String::new() } else { format!(" l4={}", ok(checksum(&bytes))) }
    };
    match protocol {
        6 if b.len() >= 20 => format!(" | {}{}", tcp(b), sum(true)),
        4 | 41 => format!(" [ {} ]", ip(b, quoted)),
        47 => gre(b),
        // What the tests send to this port is wrapped.
        17 if be16(b, 2) == GUE_PORT => {
            let none = be16(b, 6) == 0;
            let sum = if none { " l4=none".to_owned() } else { sum(true) };
            let header: String = b[8..12].iter().map(|byte| format!("{byte:02x}")).collect();
            format!(" | gue {} len={} {header}{sum} [ {} ]", be16(b, 0), be16(b, 4), ip(&b[12..], quoted))
        }
        17 => {
            let none = !quoted && be16(b, 6) == 0;
            let sum = if none { " l4=none".to_owned() } else { sum(true) };
            format!(" | udp {}>{} len={}{}{sum}", be16(b, 0), be16(b, 2), be16(b, 4), data(&b[8..]))
        }
        1 | 58 => {
            let v6 = protocol == 58;
            let name = if v6 { "icmp6" } else { "icmp" };
            let rest: String = b[4..8].iter().map(|byte| format!("{byte:02x}")).collect();
            let is_error = if v6 { b[0] < 128 } else { matches!(b[0], 3 | 4 | 5 | 11 | 12) };
            let what = if is_error {
                format!("about {}", ip(&b[8..], true))
            } else {
                format!("data[{}]", b.len() - 8)
            };
            format!(" | {name} {}/{}{} rest={rest} {what}", b[0], b[1], sum(v6))
        }
        _ => format!(" | proto {protocol} [{}]", b.len()),
    }
}

fn gre(b: &[u8]) -> String {
    let with_sum = b[0] & 0x80 != 0;
    let sum = if with_sum { format!(" ck={}", ok(checksum(b))) } else { String::new() };
    let inner = ip(&b[if with_sum { 8 } else { 4 }..], false);
    format!(" | gre flags={:04x} type={:04x}{sum} [ {inner} ]", be16(b, 0), be16(b, 2))
}

fn tcp(b: &[u8]) -> String {
    let flags: String = "FSRPAUEC"
        .chars()
        .enumerate()
        .filter(|(bit, _)| b[13] & 1 << bit != 0)
        .map(|(_, letter)| letter)
        .collect();
    let header = usize::from(b[12] >> 4) * 4;
    let options = match &b[20..header.min(b.len())] {
        [] => String::new(),
        [2, 4, high, low] => format!(" opt=[('MSS', {})]", u16::from_be_bytes([*high, *low])),
        other => format!(" opt={other:?}"),
    };
    format!(
        "tcp {}>{} {flags} seq={} ack={} win={}{options}{}",
        be16(b, 0),
        be16(b, 2),
        be32(b, 4),
        be32(b, 8),
        be16(b, 14),
        data(&b[header.min(b.len())..])
    )
}

fn data(b: &[u8]) -> String {
    if b.is_empty() {
        return String::new();
    }
    let first: String = b[..b.len().min(8)].iter().map(|byte| format!("{byte:02x}")).collect();
    format!(" data[{}]={first}", b.len())
}
