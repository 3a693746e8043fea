//! What the loop for usual packets makes of any packet must be what the long way makes of it.

use super::{
    super::super::{Tables, rewrite},
    *,
};
use crate::{
    batch::Layout,
    command::WorkerShared,
    conn::key::Key6,
    parse::{self, Keys},
    snapshot::{Method, NeighborCell, NeighborState, NextHop, Presence, Snapshot},
    stats::DestinationShared,
    time::Nanos,
    wire::checksum,
};
use pointsman_hugepages::{Buffer, Options, PageChoice, Pool, PoolOptions};
use proptest::{collection::vec, prelude::*};
use std::{net::Ipv4Addr, sync::Arc};

const D0: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A packet and where it goes.
#[derive(Clone, Debug)]
struct Case {
    frame: Vec<u8>,
    layout: Layout,
    is_answer: bool,
    destination: (IpAddr, u16),
    service: Option<(IpAddr, u16)>,
    mtu: u16,
    known: bool,
}

/// An address, now and then one whose words are all zeros or ones.
fn address() -> impl Strategy<Value = u32> {
    prop_oneof![8 => any::<u32>(), 1 => Just(0), 1 => Just(u32::MAX), 1 => Just(0xffff_0000)]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![8 => any::<u16>(), 1 => Just(0), 1 => Just(u16::MAX)]
}

fn v4(bits: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(bits))
}

/// Frames that nearly all are usual, of any bytes where that matters.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let rarely = |n: u32| prop::bool::weighted(1.0 / f64::from(n));
    let number = prop_oneof![6 => Just(6), 6 => Just(17), 1 => Just(132), 1 => Just(1)];
    let ttl = prop_oneof![8 => any::<u8>(), 1 => 0..3_u8];
    let sum = prop_oneof![8 => any::<u16>(), 1 => Just(0), 1 => Just(u16::MAX)];
    let shape = (rarely(20), rarely(20), prop_oneof![4 => Just(0x40_u8), 2 => Just(0), 1 => Just(0x20)]);
    ((address(), address()), number, ttl, sum, shape, vec(any::<u8>(), 20..60), 0..20_usize).prop_map(
        |((source, destination), number, ttl, sum, (tagged, options, flags), mut segment, padding)| {
            let at = if number == 17 { 6 } else { 16 };
            segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            match number {
                6 => segment[12] = 5 << 4,
                17 => {
                    let len = segment.len() as u16;
                    segment[4..6].copy_from_slice(&len.to_be_bytes());
                }
                _ => {}
            }
            let len = if options { 24 } else { 20 };
            let mut header = vec![0; len];
            header[0] = 0x40 | (len / 4) as u8;
            header[2..4].copy_from_slice(&((len + segment.len()) as u16).to_be_bytes());
            (header[6], header[8], header[9]) = (flags, ttl, number);
            header[12..16].copy_from_slice(&source.to_be_bytes());
            header[16..20].copy_from_slice(&destination.to_be_bytes());
            let sum = checksum::of(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            let tag: &[u8] = if tagged { &[0x81, 0, 0, 7] } else { &[] };
            [&D0, &[2, 0, 0, 0, 0, 9], tag, &[8, 0], &header, &segment, &vec![0; padding]].concat()
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let family = prop::bool::weighted(0.05);
    let mtu = prop_oneof![4 => Just(1500), 1 => 40..80_u16];
    let service = prop::option::weighted(0.9, (address(), port()));
    let known = prop::bool::weighted(0.95);
    (frame(), any::<bool>(), (family, address(), port()), service, mtu, known).prop_filter_map(
        "the director drops it before",
        |(mut frame, is_answer, (v6, address, port), service, mtu, known)| {
            let address = if v6 { IpAddr::V6(Ipv4Addr::from(address).to_ipv6_mapped()) } else { v4(address) };
            let service = service.map(|(address, port)| (v4(address), port));
            // A packet of a connection has the end that the connection's key has.
            let old = if is_answer { Some((address, port)) } else { service };
            old.into_iter().for_each(|old| set_end(&mut frame, old, is_answer));
            let layout = parse::frame(&frame, D0, &mut Keys::default()).ok()?;
            Some(Case { frame, layout, is_answer, destination: (address, port), service, mtu, known })
        },
    )
}

/// Gives a frame without a VLAN tag its source, or its destination, unless its port is to stay.
fn set_end(frame: &mut [u8], (address, port): (IpAddr, u16), is_source: bool) {
    let IpAddr::V4(address) = address else { return };
    if frame[12..14] != [8, 0] {
        return;
    }
    let len = usize::from(frame[14] & 15) * 4;
    let (address_at, port_at) = if is_source { (26, 14 + len) } else { (30, 16 + len) };
    frame[address_at..address_at + 4].copy_from_slice(&address.octets());
    if port != 0 {
        frame[port_at..port_at + 2].copy_from_slice(&port.to_be_bytes());
    }
    frame[24..26].fill(0);
    let sum = checksum::of(&frame[14..14 + len]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// A director with one destination: the hop to it is number 0, that of answers number 1.
fn snapshot(case: &Case) -> Snapshot {
    let hop = |n: u8, known: bool| {
        let cell = NeighborCell::default();
        cell.set(if known {
            NeighborState::Reachable([2, 0, 0, 0, 7, n])
        } else {
            NeighborState::Incomplete
        });
        NextHop {
            address: v4(u32::from(n)),
            port: u16::from(n),
            mtu: case.mtu,
            source: [2, 0, 0, 0, 8, n],
            cell: Arc::new(cell),
        }
    };
    let destination = Destination {
        generation: 1,
        presence: Presence::Present,
        address: case.destination.0,
        port: case.destination.1,
        virtual_service: case.service,
        ends: Ends::new(case.destination, case.service),
        method: Method::Nat,
        next_hop: 0,
        tunnel: None,
        timeouts: None,
        shared: Arc::new(DestinationShared::default()),
    };
    Snapshot {
        destinations: [destination].into(),
        next_hops: [hop(0, case.known), hop(1, case.known)].into(),
        ..Snapshot::default()
    }
}

fn buffer(frame: &[u8]) -> Buffer {
    let memory = Options { pages: PageChoice::Ordinary, numa_node: None, lock: false };
    let options = PoolOptions { buffers: 1, room: 2048, memory };
    let mut buffer = Pool::new("a frame", options).expect("memory").alloc().expect("a buffer");
    assert!(buffer.copy_from(frame));
    buffer
}

/// The frame that leaves, the verdict if there is one, and what was counted: packets and bytes to the server and from it.
type Outcome = (Vec<u8>, Option<Verdict>, [u64; 4]);

fn outcome(
    case: &Case,
    snapshot: &Snapshot,
    translate: impl FnOnce(&mut Buffer, &mut Packet, &Context<'_>) -> Option<Verdict>,
) -> Outcome {
    let shared = WorkerShared::new(0);
    let mut errors = Context::error_budget();
    let context = Context { now: Nanos(0), snapshot, shared: &shared, errors: &mut errors };
    let role = if case.is_answer { Role::Server } else { Role::Nat };
    let mut packet = Packet { layout: case.layout, role, hop: 1, destination: 0, ..Packet::NEW };
    let mut frame = buffer(&case.frame);
    let verdict = translate(&mut frame, &mut packet, &context);
    let counters = &shared.stats.destinations[0];
    let counted = [&counters.packets_in, &counters.bytes_in, &counters.packets_out, &counters.bytes_out];
    (frame.data().to_vec(), verdict, counted.map(|counter| counter.get()))
}

/// Whether a packet is of those that the loop is for.
fn is_usual(case: &Case) -> bool {
    let ip = &case.frame[14..];
    let plain = case.frame[12..14] == [8, 0] && ip[0] == 0x45;
    let len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    plain
        && (ip[9] == 6 || ip[9] == 17 && ip[26..28] != [0, 0])
        && case.frame.len() >= 54
        && len <= usize::from(case.mtu)
        && ip[8] > 1
        && case.known
        && match case.is_answer {
            true => case.service.is_some_and(|(address, _)| !address.is_unspecified()),
            false => case.destination.0.is_ipv4() && !case.destination.0.is_unspecified(),
        }
        && case.layout.kind == Kind::Flow
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_usual_packet_is_translated_as_any_other_is(case in case()) {
        let snapshot = snapshot(&case);
        let fast = outcome(&case, &snapshot, |frame, packet, context| {
            let tables = Tables::of(context);
            let ends = context.snapshot.destinations[0].ends.0;
            let same_for_all = |end: NewEnd| end.address != [0, 0] && end.port != 0;
            let port = match usual(frame, packet, tables) {
                Some(port) => {
                    assert!(ends.into_iter().all(same_for_all));
                    port
                }
                None => unusual_end(frame, packet, tables, context)?,
            };
            assert_eq!(packet.verdict, Verdict::Forward(port));
            Some(packet.verdict)
        });
        prop_assert_eq!(fast.1.is_some(), is_usual(&case));
        if fast.1.is_some() {
            let slow = outcome(&case, &snapshot, |frame, packet, context| {
                rewrite(frame, packet, &Key6::default(), context).ok().map(|(verdict, _)| verdict)
            });
            prop_assert_eq!(fast, slow);
        } else {
            prop_assert_eq!(fast, (case.frame.clone(), None, [0; 4]), "nothing is changed");
        }
    }
}
