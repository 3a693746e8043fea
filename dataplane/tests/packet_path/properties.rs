//! What holds for any frames at all, and for any sequence of packets: against a slow plain model of connections.

use crate::{
    drops::valid,
    states::{after, name},
    support::{
        Lab, Plan, Size, TCP, UDP,
        frames::{ACK, D0, FIN, PSH, RST, SYN, checksum, tcp, udp},
        ordinary,
    },
};
use pointsman_dataplane::{
    batch::{Batch, Kind, Lookup},
    conn::table::Table,
    parse::{self, Keys},
    prefix::Prefix,
    routing::{Routing, SourceNat},
    scheduler,
    snapshot::{PortFacts, Presence, Snapshot},
    time::Nanos,
    verdict::{DropReason, Verdict},
};
use pointsman_hugepages::{Pool, PoolOptions};
use proptest::{collection::vec, prelude::*, sample::Index};
use std::{collections::BTreeMap, sync::Arc};

const VIP: &str = "10.0.0.100:80";
const VIP6: &str = "[fd00:1::100]:80";
const DNS: &str = "10.0.0.100:53";

fn plan() -> Plan {
    Plan::new()
        .service(VIP, TCP, scheduler::Kind::Rr, 3)
        .service(VIP6, TCP, scheduler::Kind::Wlc, 3)
        .service(DNS, UDP, scheduler::Kind::Lc, 3)
        .service("[fd00:1::100]:80", UDP, scheduler::Kind::Rr, 1)
}

fn small() -> Lab {
    Lab::sized(plan(), Size { connections: 64, wire: 128, ..Size::default() })
}

/// A frame of the kinds that the director looks into, damaged.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let damage = vec((any::<Index>(), any::<u8>()), 0..4);
    let length = prop_oneof![4 => Just(None), 1 => any::<Index>().prop_map(Some)];
    (any::<Index>(), damage, length, any::<bool>(), vec(any::<u8>(), 0..20)).prop_map(
        |(which, damage, length, repaired, padding)| {
            let all = valid();
            let mut frame = all[which.index(all.len())].clone();
            for (at, byte) in damage {
                // Behind the MAC addresses, so that most are looked at.
                let at = 12 + at.index(frame.len() - 12);
                frame[at] = byte;
            }
            if repaired && frame[12..15] == [8, 0, 0x45] {
                frame[24..26].fill(0);
                let sum = checksum(&frame[14..34]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            frame.extend(padding);
            if let Some(length) = length {
                frame.truncate(length.index(frame.len() + 1));
            }
            frame
        },
    )
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    let ethertype =
        prop::sample::select(vec![[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0], [0x88, 0xa8], [0, 46]]);
    (ethertype, any::<bool>(), vec(any::<u8>(), 0..120)).prop_map(|(ethertype, ours, bytes)| {
        let destination = if ours { D0 } else { [0xff; 6] };
        [&destination[..], &[2, 0, 0, 0, 0, 2], &ethertype, &bytes].concat()
    })
}

/// What left is whole: long enough, and with a right checksum in its IPv4 header.
fn assert_whole(frame: &[u8]) {
    let mut at = 12;
    while matches!(frame[at..at + 2], [0x81, 0] | [0x88, 0xa8]) && at < 20 {
        at += 4;
    }
    if frame[at..at + 2] == [8, 0] {
        let ip = &frame[at + 2..];
        let (header, total) = (usize::from(ip[0] & 15) * 4, usize::from(u16::from_be_bytes([ip[2], ip[3]])));
        assert!(header >= 20 && total <= ip.len() && checksum(&ip[..header]) == 0, "{frame:02x?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_frame_does_harm_and_each_has_one_end(
        batches in vec(vec(prop_oneof![3 => mutated(), 1 => noise(), 1 => vec(any::<u8>(), 0..80)], 1..100), 1..6)
    ) {
        let mut lab = small();
        for frames in batches {
            let out = lab.send(&frames);
            out.iter().for_each(|frame| assert_whole(frame));
            lab.assert_accounted(0);
            let sent = lab.forwarded() + lab.stations[0].shared.stats.answers.iter().map(|n| n.get()).sum::<u64>();
            let stats = &lab.stations[0].shared.stats;
            prop_assert_eq!(sent, stats.ports[0].tx_packets.get() + stats.ports[1].tx_packets.get());
            lab.wait(700);
        }
        lab.run(901_600);
        prop_assert_eq!(lab.connections(), 0, "and every connection ends");
        for slot in 0..lab.plan.slots.len() {
            prop_assert_eq!(lab.counts(slot), (0, 0));
        }
    }
}

/// What the short way for usual frames finds must be what the long way finds.
fn parsed(frame: &[u8]) -> (String, String) {
    let options = PoolOptions { buffers: 1, room: 2048, memory: ordinary() };
    let mut buffer = Pool::new("a frame", options).expect("memory").alloc().expect("a buffer");
    assert!(buffer.copy_from(frame));
    let (mut batch, mut keys) = (Batch::new(), Keys::default());
    batch.frames.push(buffer);
    batch.came_by(0, true);
    let tables =
        (Table::new(1, 0, &ordinary()).expect("memory"), Table::new(1, 0, &ordinary()).expect("memory"));
    let port = PortFacts { name: "d0".into(), mac: D0, mtu: 1500, ..PortFacts::default() };
    // With source NAT, echoes are looked up as flows are.
    let rule = SourceNat { source: Prefix::host([9; 4].into()), port: None, address: [8; 4].into() };
    let routing = Arc::new(Routing { source_nat: [rule].into(), ..Routing::default() });
    let snapshot = Snapshot { ports: [port].into(), routing, ..Snapshot::default() };
    parse::batch(&mut batch, (&snapshot, Nanos(0)), (0, 1), (&tables.0, &tables.1));
    let packet = &batch.packets[0];
    let long = match parse::frame(frame, D0, &mut keys) {
        Err(reason) => format!("{:?}", Verdict::Drop(reason)),
        Ok(layout) if layout.kind == Kind::Foreign => format!("{:?}", Verdict::Punt),
        Ok(layout) => format!("{:?} {layout:?} {keys:?}", Verdict::Open),
    };
    let keys = match packet.lookup {
        Lookup::V4 => Keys { v4: packet.key4, v6: Default::default() },
        Lookup::V6 => Keys { v4: Default::default(), v6: batch.key6[0] },
        Lookup::None => Keys::default(),
    };
    let short = match packet.verdict {
        Verdict::Open => format!("{:?} {:?} {keys:?}", Verdict::Open, packet.layout),
        other => format!("{other:?}"),
    };
    (short, long)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn a_frame_is_read_the_same_by_the_short_and_the_long_way(frame in prop_oneof![4 => mutated(), 1 => noise()]) {
        let (short, long) = parsed(&frame);
        prop_assert_eq!(short, long);
    }
}

/// A step of a scenario.
#[derive(Clone, Debug)]
enum Step {
    /// A packet of one of 24 clients, with these TCP flags.
    Packet { client: usize, flags: u8, len: usize },
    /// Time, in milliseconds.
    Wait(u64),
    /// A server leaves its service or comes back.
    Toggle { slot: usize },
    /// A server's weight becomes 0, or 1 again.
    Quiesce { slot: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(vec![
        SYN,
        SYN,
        SYN,
        ACK,
        ACK,
        PSH | ACK,
        FIN | ACK,
        RST,
        0,
        SYN | FIN,
        SYN | RST,
    ]);
    let wait = prop::sample::select(vec![10, 400, 3_000, 11_000, 40_000, 130_000, 600_000]);
    prop_oneof![
        24 => (0..24_usize, flags, 0..100_usize)
            .prop_map(|(client, flags, len)| Step::Packet { client, flags, len }),
        4 => wait.prop_map(Step::Wait),
        1 => (0..9_usize).prop_map(|slot| Step::Toggle { slot }),
        1 => (0..9_usize).prop_map(|slot| Step::Quiesce { slot }),
    ]
}

/// A connection as the model keeps it.
#[derive(Clone, Debug)]
struct Known {
    slot: usize,
    state: &'static str,
    since: u64,
    packets: u64,
    bytes: u64,
}

/// The plain model: what the specification says, one packet after the other.
#[derive(Default)]
struct Model {
    /// By client.
    connections: BTreeMap<usize, Known>,
    removed: [bool; 9],
    quiesced: [bool; 9],
    now: u64,
    /// Packets and bytes for each slot.
    traffic: [(u64, u64); 9],
}

fn lifetime(state: &str) -> u64 {
    let seconds = match state {
        "ES" => 900,
        "SR" => 60,
        "FW" | "TW" => 120,
        "CL" => 10,
        "UDP" => 300,
        other => panic!("no state of direct routing: {other}"),
    };
    seconds * 1_000
}

impl Model {
    /// Whether some connection may have ended or not: its time has come, but not a second and a half of grace.
    fn is_unsure(&self) -> bool {
        self.connections.values().any(|known| {
            let age = self.now - known.since;
            age + 100 > lifetime(known.state) && age <= lifetime(known.state) + 1_600
        })
    }

    fn forget_dead(&mut self) {
        let now = self.now;
        self.connections.retain(|_, known| now - known.since <= lifetime(known.state));
    }

    fn counts(&self, slot: usize) -> (u32, u32) {
        let mine = self.connections.values().filter(|known| known.slot == slot);
        let active = mine.clone().filter(|known| matches!(known.state, "ES" | "SR")).count();
        (active as u32, (mine.count() - active) as u32)
    }
}

/// Clients 0..8 are IPv4, 8..16 IPv6, 16..24 UDP: the service's slots begin at 0, 3, 6.
fn frame_of(client: usize, flags: u8, len: usize) -> (Vec<u8>, u64) {
    match client / 8 {
        0 => {
            let frame = tcp(&format!("10.0.1.{client}:{}", 2_000 + client), VIP, flags).len(len).frame();
            let bytes = frame.len() as u64 - 14;
            (frame, bytes)
        }
        1 => {
            let frame = tcp(&format!("[fd00:9::{client}]:{}", 2_000 + client), VIP6, flags).len(len).frame();
            let bytes = frame.len() as u64 - 14;
            (frame, bytes)
        }
        _ => (udp(&format!("10.0.2.{client}:{}", 2_000 + client), DNS), 32),
    }
}

fn play(lab: &mut Lab, model: &mut Model, (client, flags, len): (usize, u8, usize)) {
    let (frame, bytes) = frame_of(client, flags, len);
    let is_udp = client >= 16;
    let group = client / 8 * 3;
    let vanished = lab.drops(DropReason::DestinationRemoved);
    let out = lab.send(&[frame]);
    let reached =
        out.first().filter(|frame| frame[4] == 0x50).map(|frame| group + usize::from(frame[5] - 0x11));
    let syn = !is_udp && flags & (SYN | RST) == SYN;
    if let Some(known) = model.connections.get(&client)
        && !(syn && matches!(known.state, "TW" | "CL"))
    {
        if model.removed[known.slot] {
            assert_eq!((out.len(), lab.drops(DropReason::DestinationRemoved)), (0, vanished + 1));
            return;
        }
        assert_eq!(reached, Some(known.slot), "a connection keeps its server");
        let state = if is_udp { "UDP" } else { after(known.state, flags) };
        let known = model.connections.get_mut(&client).expect("just found");
        (known.state, known.since) = (state, model.now);
        (known.packets, known.bytes) = (known.packets + 1, known.bytes + bytes);
    } else {
        model.connections.remove(&client);
        let usable = (group..group + 3).any(|slot| !model.removed[slot] && !model.quiesced[slot]);
        if !(usable && (is_udp || syn)) {
            assert_eq!(reached, None, "no server for it");
            return;
        }
        let slot = reached.expect("a new connection gets a server");
        assert!(!model.removed[slot] && !model.quiesced[slot]);
        let state = if is_udp { "UDP" } else { "SR" };
        model.connections.insert(client, Known { slot, state, since: model.now, packets: 1, bytes });
    }
    let slot = reached.expect("it reached one");
    model.traffic[slot].0 += 1;
    model.traffic[slot].1 += bytes;
}

/// Puts the servers of the model into the plan: of each service those that are there, in their order.
fn configure(lab: &mut Lab, model: &Model) {
    for (service, planned) in lab.plan.services.iter_mut().take(3).enumerate() {
        let slots = (service * 3..service * 3 + 3).filter(|slot| !model.removed[*slot]);
        planned.servers = slots.map(|slot| (slot as u32, u32::from(!model.quiesced[slot]))).collect();
    }
    for (slot, removed) in lab.plan.slots.iter_mut().zip(model.removed) {
        slot.presence = if removed { Presence::Removed } else { Presence::Present };
    }
    lab.publish();
}

fn assert_same(lab: &mut Lab, model: &Model) {
    for slot in 0..9 {
        assert_eq!(lab.counts(slot), model.counts(slot), "slot {slot}");
        let (_, packets, bytes) = lab.traffic(slot);
        assert_eq!((packets, bytes), model.traffic[slot], "slot {slot}");
    }
    let listed = lab.list();
    assert_eq!(listed.len(), model.connections.len());
    for record in listed {
        let known = &model.connections[&(usize::from(record.client.port()) - 2_000)];
        let state = if known.state == "UDP" { "UDP" } else { name(known.state) };
        assert_eq!((record.state, record.packets_in, record.bytes_in), (state, known.packets, known.bytes));
        assert_eq!(record.destination.ip(), lab.plan.slots[known.slot].address);
        let left = lifetime(known.state) - (model.now - known.since);
        assert!(u64::from(record.expires_millis).abs_diff(left) <= 10, "{record:?}, {left}");
    }
    lab.assert_accounted(0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_packets_goes_where_a_plain_model_says(steps in vec(step(), 1..400)) {
        let mut lab = small();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Packet { client, flags, len } => play(&mut lab, &mut model, (client, flags, len)),
                Step::Wait(millis) => {
                    lab.run(millis);
                    model.now += millis;
                }
                Step::Toggle { slot } => {
                    model.removed[slot] ^= true;
                    configure(&mut lab, &model);
                }
                Step::Quiesce { slot } => {
                    model.quiesced[slot] ^= true;
                    configure(&mut lab, &model);
                }
            }
            for _ in 0..40 {
                if !model.is_unsure() {
                    break;
                }
                lab.run(1_000);
                model.now += 1_000;
            }
            model.forget_dead();
        }
        assert_same(&mut lab, &model);
    }
}
