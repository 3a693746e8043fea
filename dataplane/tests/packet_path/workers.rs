//! Several workers: every flow has one owner, wherever its packets arrive.

use crate::support::{
    Lab, Plan, Size, TCP,
    frames::{ACK, C0, D0, Ip, SYN, Segment, checksum, ethernet, icmp_packet, tcp},
};
use pointsman_dataplane::{limits::HANDOFF_RING, scheduler::Kind, steer, verdict::DropReason};

const VIP: &str = "10.0.0.100:80";
const CLIENT: u32 = 0x0a00_0002;

fn client(port: u16, flags: u8) -> Segment {
    tcp(&format!("10.0.0.2:{port}"), VIP, flags)
}

fn lab(workers: usize) -> Lab {
    let size = Size { workers, wire: 4096, ..Size::default() };
    Lab::sized(Plan::new().service(VIP, TCP, Kind::Rr, 3), size)
}

/// A frame arrives at a port of one worker.
fn arrives(lab: &mut Lab, worker: usize, frame: &[u8]) -> Vec<Vec<u8>> {
    assert!(lab.stations[worker].wires[0].push(frame));
    lab.poll();
    lab.taken()
}

#[test]
fn a_flow_has_one_connection_at_its_owner_wherever_its_packets_arrive() {
    let mut lab = lab(3);
    for port in 1_000..1_100 {
        let server = arrives(&mut lab, 0, &client(port, SYN).frame())[0][5];
        for worker in [1, 2, 0] {
            let out = arrives(&mut lab, worker, &client(port, ACK).frame());
            assert_eq!((out.len(), out[0][5]), (1, server));
        }
    }
    assert_eq!(lab.list().len(), 100);
    assert_eq!((0..3).map(|slot| lab.counts(slot).0).sum::<u32>(), 100);
    for (worker, station) in lab.stations.iter().enumerate() {
        let owned = (1_000..1_100).filter(|port| steer::owner(CLIENT, *port, 3) == worker as u16).count();
        assert!(owned > 10);
        assert_eq!(station.shared.stats.connections.get(), owned as u64);
    }
    // Of the four packets of a flow two came to worker 0, one to each of the others.
    let astray: u64 = (1_000..1_100).map(|port| if steer::owner(CLIENT, port, 3) == 0 { 2 } else { 3 }).sum();
    assert_eq!(lab.handed_off(), astray);
    lab.assert_accounted(0);
}

#[test]
fn an_icmp_error_about_a_flow_finds_the_owner_of_the_flow() {
    let mut lab = lab(4);
    for port in 1_000..1_020 {
        let server = arrives(&mut lab, 0, &client(port, SYN).frame())[0][5];
        // What the server sent to the client, as a router between quotes it.
        let quoted = tcp(VIP, &format!("10.0.0.2:{port}"), ACK).packet();
        let message = [&[11, 0, 0, 0, 0, 0, 0, 0][..], &quoted[..28]].concat();
        let (router, vip) = ("10.0.0.77".parse().unwrap(), "10.0.0.100".parse().unwrap());
        let packet = icmp_packet(router, vip, &message, &Ip::default());
        let out = arrives(&mut lab, 3, &ethernet(D0, C0, &packet));
        assert_eq!((out.len(), out[0][5]), (1, server));
        assert_eq!(checksum(&out[0][14..34]), 0);
        assert_eq!((out[0][22], &out[0][34..]), (63, &packet[20..]));
    }
    lab.assert_accounted(0);
}

#[test]
fn frames_for_an_owner_that_is_behind_are_dropped_and_counted() {
    let mut lab = lab(2);
    let port = (1_000..).find(|port| steer::owner(CLIENT, *port, 2) == 1).expect("a port of worker 1");
    for _ in 0..HANDOFF_RING + 100 {
        assert!(lab.stations[0].wires[0].push(&client(port, SYN).frame()));
    }
    // Only the first worker polls.
    let now = lab.now;
    while lab.stations[0].worker.poll(now) > 0 {}
    assert_eq!(lab.all_drops(), [(DropReason::HandoffRingFull, 100)]);
    lab.poll();
    assert_eq!(lab.taken().len(), HANDOFF_RING);
    lab.assert_accounted(0);
}

#[test]
fn a_worker_that_never_rests_does_not_keep_others_from_handing_frames_over() {
    let mut lab = lab(3);
    let owned = |owner| (1_000..).filter(move |port| steer::owner(CLIENT, *port, 3) == owner);
    let port = owned(0).next().expect("a port of worker 0");
    let now = lab.now;
    for round in 0..20 {
        // Workers 1 and 2 each hand over more than worker 0 takes in a poll.
        for worker in [1, 2] {
            for _ in 0..64 {
                let seq = u32::from(worker == 2);
                assert!(lab.stations[worker].wires[0].push(&client(port, ACK | SYN).seq(seq, 0).frame()));
            }
            lab.stations[worker].worker.poll(now);
        }
        lab.stations[0].worker.poll(now);
        if round == 0 {
            lab.taken();
        }
    }
    let from = |frames: &[Vec<u8>], seq| frames.iter().filter(|frame| frame[41] == seq).count();
    let out = lab.taken();
    let (first, second) = (from(&out, 0), from(&out, 1));
    assert!(first.abs_diff(second) <= 64, "{first} of one, {second} of the other");
}
