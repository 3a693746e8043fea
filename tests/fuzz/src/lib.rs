//! What the fuzz targets do with their bytes, and what must hold whatever these are.
//!
//! `tests/fuzz/run.sh pipeline` looks for new cases; those that are kept in `corpus` are replayed by every `cargo test`.

#[allow(dead_code, reason = "the lab of the packet path's tests, of which a part is used here")]
#[path = "../../../dataplane/tests/support/mod.rs"]
mod support;

use pointsman_dataplane::{
    batch::{Kind, Layout},
    parse,
    routing::Forwarding,
    scheduler::Kind as Rule,
    snapshot::{Method, Presence},
};
use std::sync::LazyLock;
use support::{
    Lab, Size, TCP, every,
    frames::{ACK, C0, D0, D1, R1, SYN, checksum, ethernet, frame, pseudo_header, tcp},
};

const VIP: &str = "10.0.0.100:80";
const VIP6: &str = "[fd00:1::100]:80";

/// Any frame has a layout inside its bytes, or a reason to be dropped.
pub fn parse(data: &[u8]) {
    let mut keys = parse::Keys::default();
    let Ok(layout) = parse::frame(data, D0, &mut keys) else { return };
    if layout.kind == Kind::Foreign || layout.kind == Kind::Arp {
        assert!(usize::from(layout.l3) <= data.len());
        return;
    }
    let Layout { l3, l4, end, .. } = layout;
    assert!(l3 >= 14 && l3 < end && usize::from(end) <= data.len(), "{layout:?} of {} bytes", data.len());
    if layout.kind != Kind::Fragment {
        assert!(l3 < l4 && l4 <= end, "{layout:?}");
    }
}

/// Every method and family, and a service without a server.
fn director(workers: usize) -> Lab {
    let plan = every::plan().service("10.0.0.103:80", TCP, Rule::Wlc, 0);
    Lab::sized(plan, Size { workers, connections: 64, wire: 64, ..Size::default() })
}

/// Any frames, at any time, under a configuration that changes, leave a director that counts each of them once and sends
/// nothing that is broken.
///
/// The bytes are records: what it is (1 byte), how long (1), and that many bytes. Frames come as they are or as IP packets
/// whose checksums are made right, so that they get further.
pub fn pipeline(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else { return };
    let mut lab = director(1 + usize::from(first % 2));
    // As many as any case of a minute has.
    for _ in 0..64 {
        let [kind, len, after @ ..] = rest else { break };
        let (record, after) = after.split_at(usize::from(*len).min(after.len()));
        rest = after;
        // The servers' port for some.
        let by = usize::from(kind >> 6 & 1);
        match kind % 10 {
            0 => inject(&mut lab, by, record.to_vec()),
            // The host's link has no frames without a packet.
            1..=3 if record.is_empty() => {}
            1 | 2 => inject(&mut lab, by, from_side(by, &corrected(record.to_vec()))),
            3 => inject(&mut lab, by, frame(FACES[by].0, FACES[by].1, 0x8100, &[&[0, 42], record].concat())),
            4 if kind & 0x80 != 0 => inject(&mut lab, by, part(record)),
            4 => inject(&mut lab, 0, known(record)),
            5 => lab.wait(u64::from(*len) * 500),
            6 => reconfigure(&mut lab, record),
            7 | 8 => talk(&mut lab, record),
            _ => lab.run(u64::from(*len) * 100),
        }
    }
    lab.poll();
    sent_is_sound(&mut lab);
    lab.assert_accounted(0);
}

/// Any ICMP message, to a virtual address or to the director's own, about flows that there are, or tunnels, or anything.
///
/// The first byte says whom the message is for and what it quotes; the others are its type, code, second word, and what is
/// exclusive-ored over the quoted packet.
pub fn icmp(data: &[u8]) {
    let [choice, kind, code, a, b, c, d, damage @ ..] = data else { return };
    let mut lab = director(1);
    inject(&mut lab, 0, tcp("10.0.0.2:1001", VIP, SYN).frame());
    inject(&mut lab, 0, tcp("[fd00:1::2]:1001", VIP6, SYN).frame());
    inject(&mut lab, 0, tcp("10.0.0.2:1002", "10.0.0.102:80", SYN).frame());
    let v6 = choice & 1 != 0;
    let mut quoted = match (choice >> 1 & 3, v6) {
        (0, false) => tcp(VIP, "10.0.0.2:1001", ACK).packet(),
        (0, true) => tcp(VIP6, "[fd00:1::2]:1001", ACK).packet(),
        (1, false) => tcp("10.0.0.2:1001", "192.168.50.11:8080", ACK).packet(),
        (1, true) => tcp("[fd00:1::2]:1001", "[fd00:50::11]:8080", ACK).packet(),
        (_, false) => support::frames::Ip::default().packet(
            [192, 168, 50, 1].into(),
            [192, 168, 50, 11].into(),
            if choice & 8 != 0 { 4 } else { 17 },
            &tcp("10.0.0.2:1002", "10.0.0.102:80", ACK).packet(),
        ),
        (_, true) => tcp("[fd00:50::1]:6080", "[fd00:50::11]:6080", ACK).packet(),
    };
    for (byte, damage) in quoted.iter_mut().zip(damage) {
        *byte ^= damage;
    }
    quoted.extend(damage.get(quoted.len()..).unwrap_or_default());
    quoted.truncate(if choice & 16 != 0 { damage.len() } else { quoted.len() });
    let message = [&[*kind, *code, 0, 0, *a, *b, *c, *d][..], &quoted].concat();
    let (from, to) = match (v6, choice & 32 != 0) {
        (false, false) => ("10.0.0.77", "10.0.0.100"),
        (false, true) => ("192.168.50.77", "192.168.50.1"),
        (true, false) => ("fd00:1::77", "fd00:1::100"),
        (true, true) => ("fd00:50::77", "fd00:50::1"),
    };
    let mut error = support::frames::icmp(from, to, &message, &support::frames::Ip::default());
    if choice & 64 != 0 {
        error = ethernet(D0, C0, &corrected(error[14..].to_vec()));
    }
    let by = usize::from(choice & 128 != 0);
    error = from_side(by, &error[14..]);
    inject(&mut lab, by, error);
    inject(&mut lab, 0, tcp("10.0.0.2:1002", "10.0.0.102:80", ACK).len(1400).frame());
    sent_is_sound(&mut lab);
    lab.assert_accounted(0);
}

/// The director's address on each port, and that of the station there.
const FACES: [([u8; 6], [u8; 6]); 2] = [(D0, C0), (D1, R1)];

fn from_side(by: usize, packet: &[u8]) -> Vec<u8> {
    ethernet(FACES[by].0, FACES[by].1, packet)
}

/// A frame of the conversation of the packet path's tests, damaged: its number, then places and what is exclusive-ored there;
/// the last may be a length to cut it to. Half of them with their checksums made right again.
fn talk(lab: &mut Lab, record: &[u8]) {
    let [number, damage @ ..] = record else { return };
    static CONVERSATION: LazyLock<Vec<(usize, Vec<u8>)>> = LazyLock::new(every::conversation);
    let all = &*CONVERSATION;
    let (by, mut frame) = all[usize::from(number % 128) % all.len()].clone();
    for pair in damage.chunks(2) {
        match *pair {
            [at, flip] if usize::from(at) + 12 < frame.len() => frame[12 + usize::from(at)] ^= flip,
            [len] => frame.truncate(12 + usize::from(len)),
            _ => {}
        }
    }
    if *number >= 128 && frame.len() > 14 {
        frame = [&frame[..14], &corrected(frame[14..].to_vec())].concat();
    }
    inject(lab, by, frame);
}

fn inject(lab: &mut Lab, by: usize, frame: Vec<u8>) {
    // No wire carries less than an address or more than a jumbo frame; a full wire loses it.
    lab.stations[0].wires[by].push(&frame);
    lab.poll();
    lab.plan.resolve();
    lab.poll();
    sent_is_sound(lab);
}

/// An IP packet with the checksums that its bytes ask for, where there is room for them.
fn corrected(mut packet: Vec<u8>) -> Vec<u8> {
    let len = packet.len();
    if packet.first().is_some_and(|first| first >> 4 == 4) && len >= 20 {
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        let header = (usize::from(packet[0] & 15) * 4).clamp(20, len);
        packet[10..12].fill(0);
        let sum = checksum(&packet[..header]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        let protocol = packet[9];
        let address = |at: usize| [packet[at], packet[at + 1], packet[at + 2], packet[at + 3]].into();
        let (source, destination) = (address(12), address(16));
        let pseudo = if protocol == 1 {
            Vec::new()
        } else {
            pseudo_header(source, destination, protocol, len - header)
        };
        correct(&mut packet[header..], protocol, pseudo);
    } else if packet.first().is_some_and(|first| first >> 4 == 6) && len >= 40 {
        packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
        let address = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap_or_default().into();
        let pseudo = pseudo_header(address(8), address(24), packet[6], len - 40);
        let protocol = packet[6];
        correct(&mut packet[40..], protocol, pseudo);
    }
    packet
}

fn correct(segment: &mut [u8], protocol: u8, pseudo: Vec<u8>) {
    let at = match protocol {
        6 => 16,
        17 => 6,
        1 | 58 => 2,
        _ => return,
    };
    if segment.len() < at + 2 {
        return;
    }
    segment[at..at + 2].fill(0);
    let sum = checksum(&[pseudo, segment.to_vec()].concat());
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// A segment of one of a few clients to one of the services, so that connections come and go.
fn known(record: &[u8]) -> Vec<u8> {
    let [client, service, flags, len] = *record.first_chunk().unwrap_or(&[0; 4]);
    let six = service & 1 != 0;
    let port = 1000 + u16::from(client % 96);
    let client = if six { format!("[fd00:1::2]:{port}") } else { format!("10.0.0.2:{port}") };
    let service = match service % 6 {
        0 => VIP,
        1 => VIP6,
        2 => "10.0.0.101:80",
        3 => "[fd00:1::102]:80",
        4 => "10.0.0.104:443",
        _ => "[fd00:1::100]:81",
    };
    tcp(&client, service, flags).len(usize::from(len) * 6).frame()
}

/// A fragment of such a segment: the fifth byte says which, and of which datagram.
fn part(record: &[u8]) -> Vec<u8> {
    let mut packet = known(record)[14..].to_vec();
    let which = record.get(4).copied().unwrap_or_default();
    let (six, id) = (packet[0] >> 4 == 6, which >> 5);
    let data = packet.split_off(if six { 40 } else { 20 });
    let begin = (usize::from(which % 8) * 8).min(data.len() / 8 * 8);
    let end = (begin + 64).min(data.len());
    if six {
        let word = begin as u16 | u16::from(end < data.len());
        packet.extend([6, 0]);
        packet.extend(word.to_be_bytes());
        packet.extend([0, 0, 0, id]);
        packet[4..6].copy_from_slice(&((8 + end - begin) as u16).to_be_bytes());
        packet[6] = 44;
    } else {
        let word = (begin / 8) as u16 | if end < data.len() { 0x2000 } else { 0 };
        packet[2..4].copy_from_slice(&((20 + end - begin) as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&[0, id, (word >> 8) as u8, word as u8]);
        packet[10..12].fill(0);
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet.extend(&data[begin..end]);
    ethernet(D0, C0, &packet)
}

/// A server goes with its service or without, comes back, or weighs something else; rules, switches and the MTU change.
fn reconfigure(lab: &mut Lab, record: &[u8]) {
    let [what, which, ..] = *record else { return };
    let slot = usize::from(which) % lab.plan.slots.len();
    let service = usize::from(which) % lab.plan.services.len();
    match what % 10 {
        0 => lab.plan.slots[slot].presence = Presence::Removed,
        1 => lab.plan.slots[slot].presence = Presence::Present,
        2 => lab.plan.slots[slot].presence = Presence::ServiceGone,
        3 => lab.plan.marks = if which % 2 == 0 { Vec::new() } else { every::plan().marks },
        4 => lab.plan.forwarding = if which % 2 == 0 { Forwarding::All } else { Forwarding::Servers },
        5 => lab.plan.policies.sloppy_tcp ^= true,
        6 => lab.plan.mtu = 1_280 + u16::from(which % 221),
        7 => lab.plan.slots[slot].shared.set_thresholds(u32::from(which) % 8, 0),
        // Of those of direct routing, whose virtual addresses may leave towards the servers.
        8 => {
            let slot = &mut lab.plan.slots[6 + usize::from(which) % 4];
            slot.method = if which < 128 { Method::Direct } else { Method::Nat };
        }
        _ => {
            for (_, weight) in &mut lab.plan.services[service].servers {
                *weight = u32::from(what) % 5;
            }
        }
    }
    lab.publish();
}

/// Whatever leaves is what the judge of the packet path's tests allows.
fn sent_is_sound(lab: &mut Lab) {
    lab.taken().iter().for_each(|sent| every::assert_allowed(sent));
}
