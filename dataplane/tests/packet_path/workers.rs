//! Several workers: every flow has one owner, wherever its packets arrive.

use crate::support::{
    Lab, Plan, Size, TCP,
    frames::{ACK, C0, D0, Ip, SYN, Segment, checksum, ethernet, icmp_packet, tcp},
};
use pointsman_dataplane::{limits::HANDOFF_RING, scheduler::Kind, steer, verdict::DropReason};
use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

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
fn a_worker_counts_its_batches_what_it_was_given_and_how_full_its_rings_were() {
    let mut lab = lab(2);
    // Seconds begin with the first poll.
    lab.poll();
    let port = (1_000..).find(|port| steer::owner(CLIENT, *port, 2) == 1).expect("a port of worker 1");
    for _ in 0..100 {
        assert!(lab.stations[0].wires[0].push(&client(port, ACK | SYN).frame()));
    }
    // Worker 0 takes a full batch and one of 36, and gives all to worker 1, which takes 32 a poll.
    let now = lab.now;
    while lab.stations[0].worker.poll(now) > 0 {}
    lab.poll();
    lab.run(1_100);
    let batches = |station: usize| {
        let stats = &lab.stations[station].shared.stats;
        stats.batches.each_ref().map(pointsman_dataplane::stats::Counter::get)
    };
    assert_eq!(batches(0), [0, 0, 0, 0, 0, 1, 1]);
    assert_eq!(batches(1), [0, 0, 1, 0, 0, 3, 0]);
    let handed = |station: usize| {
        let stats = &lab.stations[station].shared.stats;
        (stats.handed_off.get(), stats.handed_in.get())
    };
    assert_eq!((handed(0), handed(1)), ((100, 0), (0, 100)));
    let shared = lab.stations[1].shared.clone();
    let fill = || (shared.stats.handoff_fill.get(), shared.stats.handoff_fill_highest.get());
    assert_eq!(fill(), (100, 100));
    // The next second is quiet.
    lab.run(1_100);
    assert_eq!(fill(), (0, 100));
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

/// Lets the workers' threads end, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn workers_on_threads_of_their_own_keep_every_flow_together_while_configurations_change() {
    const FLOWS: u16 = 500;
    const ROUNDS: u32 = 20;
    let mut lab = lab(3);
    let (now, stop) = (lab.now, AtomicBool::new(false));
    let mut servers: HashMap<[u8; 2], u8> = HashMap::new();
    let mut came = 0;
    let mut generation = 1;
    let (plan, publisher) = (&mut lab.plan, &mut lab.publisher);
    let (mut workers, mut wires): (Vec<_>, Vec<_>) =
        lab.stations.iter_mut().map(|station| (&mut station.worker, &mut station.wires)).unzip();
    std::thread::scope(|scope| {
        for worker in &mut workers {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    if worker.poll(now) == 0 {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let _stop = Stop(&stop);
        let sent = u64::from(ROUNDS) * u64::from(FLOWS);
        for round in 0..ROUNDS {
            for flow in 0..FLOWS {
                let flags = if round == 0 { SYN } else { ACK };
                // Each time at another worker, and not before there is room.
                let frame = client(1_000 + flow, flags).frame();
                let wire = (usize::from(flow) + round as usize) % 3;
                while wires[wire][0].unread() > 1_000 {
                    std::thread::yield_now();
                }
                assert!(wires[wire][0].push(&frame));
            }
            // The round's frames are through before the next begins, as a client waits for answers.
            for _ in 0..10_000_000 {
                for frame in wires.iter_mut().flat_map(|wires| wires[1].pop()) {
                    let server =
                        *servers.entry([frame.data()[34], frame.data()[35]]).or_insert(frame.data()[5]);
                    assert_eq!(frame.data()[5], server, "a flow has one server");
                    came += 1;
                }
                if came == u64::from(round + 1) * u64::from(FLOWS) {
                    break;
                }
                std::thread::yield_now();
            }
            generation += 1;
            publisher.publish(generation, plan.snapshot(generation));
        }
        assert_eq!(came, sent);
    });
    assert_eq!(lab.all_drops(), []);
    lab.assert_accounted(0);
    assert_eq!((lab.lives().0, servers.len()), (u64::from(FLOWS), usize::from(FLOWS)));
    let counts: Vec<u32> = (0..3).map(|slot| lab.counts(slot).0).collect();
    assert!(
        counts.iter().sum::<u32>() == 500 && counts.iter().all(|count| (166..=168).contains(count)),
        "{counts:?}"
    );
    lab.poll();
    assert_eq!(lab.publisher.collect(), 1, "old configurations are freed");
}
