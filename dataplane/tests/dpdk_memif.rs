//! DPDK ports between two processes, over memory that they share (`net_memif`): one is a director's worker with a port on
//! either side, the other is the client and all servers. What comes back is, byte for byte, what the same worker sends over
//! wires in memory.
//!
//! DPDK starts once in the life of a process, so the test starts itself again for each of the two. They find each other by
//! a name that is theirs alone, as their network namespace is.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "support/inside.rs"]
mod inside;
#[allow(dead_code, reason = "the harness serves the tests of the packet path too")]
mod support;

use inside::inside;
use pointsman_dataplane::{
    command::WorkerShared,
    handoff,
    port::{
        Frame, FramePool, Frames, Port,
        dpdk::{Device, Dpdk, DpdkPort, Mbuf, MbufPool, Memory, PortSettings, Settings},
    },
    publish,
    scheduler::Kind,
    time::Nanos,
    worker::{Setup, Worker},
};
use std::{
    process::{Child, Command},
    sync::Arc,
    thread::sleep,
    time::Duration,
};
use support::{
    Lab, Plan, TCP, UDP,
    frames::{ACK, FIN, SYN, arp_request, echo, solicitation, tcp, udp},
    ordinary,
};

/// Says to the program that it is the other side.
const PEER: &str = "POINTSMAN_TEST_PEER";
const VIP: &str = "10.0.0.100:80";
const VIP6: &str = "[fd00:1::100]:80";
/// Milliseconds until something that must happen has happened.
const LIMIT: u32 = 20_000;

fn services() -> Plan {
    let udp = "10.0.0.100:53";
    Plan::new().service(VIP, TCP, Kind::Rr, 3).service(udp, UDP, Kind::Rr, 2).service(VIP6, TCP, Kind::Rr, 2)
}

/// Frames of every length that a link carries, of flows old and new; some are answered, some dropped.
fn traffic() -> Vec<Vec<u8>> {
    let mut list = Vec::new();
    for length in 0..1_440_u16 {
        let flow = length / 3;
        let client = format!("10.0.{}.{}:{}", 1 + flow % 7, 1 + flow % 199, 1_000 + flow);
        let flags = [SYN, ACK, FIN | ACK][usize::from(length % 3)];
        list.push(tcp(&client, VIP, flags).len(usize::from(length)).frame());
        let client6 = format!("[fd00:9::{:x}]:2000", 1 + flow);
        list.push(tcp(&client6, VIP6, flags).len(usize::from(length)).frame());
        if length % 10 == 0 {
            list.push(udp(&client, "10.0.0.100:53"));
            list.push(udp(&client, "10.0.0.100:54"));
            list.push(tcp(&client, "10.0.0.100:81", SYN).frame());
            list.push(echo("10.0.0.2", "10.0.0.100"));
            list.push(arp_request("10.0.0.2", "10.0.0.100"));
            list.push(solicitation("fd00:1::2", "fd00:1::100"));
            list.push(vec![0; 60]);
        }
    }
    list
}

/// Starts DPDK with the two sides of the director, and opens them; each port's queues, one for each worker.
fn start(role: &str, workers: u16) -> (Dpdk, Vec<Vec<DpdkPort>>) {
    let names = [0, 1].map(|id| format!("vdev:net_memif{id},role={role},id={id},socket=pointsman-test"));
    let devices: Vec<Device> = names.iter().map(|name| name.parse().unwrap()).collect();
    let buffers = Settings::buffers(2, usize::from(workers), 1_024);
    let settings = Settings {
        memory: Memory::Ordinary,
        buffers,
        ..Settings::new(devices.clone(), usize::from(workers), 1_024)
    };
    let dpdk = Dpdk::start(&settings).unwrap();
    let open = |device| dpdk.open(&PortSettings { workers, ..PortSettings::new(device) }).unwrap();
    let ports = devices.into_iter().map(open).collect();
    (dpdk, ports)
}

/// The workers on the server's side of the memory, until all has come that the other process sends, which then ends well.
fn direct(dpdk: &Dpdk, ports: Vec<Vec<DpdkPort>>, peer: &mut Child) -> Vec<Arc<WorkerShared>> {
    let count = ports[0].len();
    let (_publisher, readers) = publish::channel(1, services().snapshot(1), count);
    let mut queues: Vec<_> = ports.into_iter().map(Vec::into_iter).collect();
    let (mut workers, mut all) = (Vec::new(), Vec::new());
    for (index, (snapshot, handoff)) in readers.into_iter().zip(handoff::mesh(count)).enumerate() {
        let shared = Arc::new(WorkerShared::new(index as u16));
        all.push(shared.clone());
        let worker = Worker::new(Setup {
            index: index as u16,
            ports: queues.iter_mut().map(|queues| queues.next().unwrap()).collect(),
            pool: dpdk.pool(None).unwrap(),
            connections_ipv4: 4_096,
            connections_ipv6: 4_096,
            memory: ordinary(),
            snapshot,
            handoff,
            exception: None,
            shared,
            seed: 0x5eed,
        });
        workers.push(worker.unwrap());
    }
    // When the other side goes, DPDK's driver takes its memory away under a thread that receives from it: no thread must.
    let mut ended = None;
    let sent = traffic().len() as u64;
    while ended.is_none() && received(&all) < sent {
        for _ in 0..1_000 {
            for worker in &mut workers {
                worker.poll(Nanos::from_secs(1_000));
            }
        }
        ended = peer.try_wait().unwrap();
    }
    let status = ended.unwrap_or_else(|| peer.wait().unwrap());
    assert!(status.success(), "the other side found something wrong; see above");
    all
}

/// Frames that came in by ports and met their end; what a worker was handed is counted by both.
fn received(workers: &[Arc<WorkerShared>]) -> u64 {
    workers.iter().map(|shared| shared.stats.packets.get() - shared.stats.handed_off.get()).sum()
}

/// The client and the servers: sends by one queue of the client's side, takes from both sides.
struct Peer {
    ports: Vec<Vec<DpdkPort>>,
    pool: MbufPool,
}

impl Peer {
    fn start(workers: u16) -> Self {
        let (dpdk, mut ports) = start("client", workers);
        let all_up = |ports: &mut Vec<Vec<DpdkPort>>| ports.iter_mut().all(|port| port[0].is_up());
        within("the other process opens its side", || all_up(&mut ports));
        let mut peer = Self { pool: dpdk.pool(None).unwrap(), ports };
        // The client's side gives the other side its first buffers when it first receives.
        assert_eq!([0, 1].map(|port| peer.take(port).len()), [0, 0]);
        peer
    }

    fn send(&mut self, queue: usize, list: &[Vec<u8>]) {
        let mut frames = Frames::<Mbuf>::new();
        for bytes in list {
            let mut frame = self.pool.alloc().unwrap();
            assert!(frame.copy_from(bytes));
            frames.push(frame);
        }
        assert_eq!(self.ports[0][queue].tx(&mut frames), list.len());
    }

    /// What comes by each port, as soon as it is as many as expected.
    fn receive(&mut self, expected: &[Vec<Vec<u8>>; 2]) -> [Vec<Vec<u8>>; 2] {
        [0, 1].map(|port| {
            let mut got = Vec::new();
            within("each frame arrives", || {
                got.extend(self.take(port));
                got.len() >= expected[port].len()
            });
            got
        })
    }

    /// What came by a port, on any of its queues.
    fn take(&mut self, port: usize) -> Vec<Vec<u8>> {
        let (mut all, mut frames) = (Vec::new(), Frames::new());
        for queue in &mut self.ports[port] {
            while queue.rx(&mut self.pool, &mut frames) > 0 {
                all.extend(frames.drain(..).map(|frame| frame.data().to_vec()));
            }
        }
        all
    }
}

/// What a worker sends by its two ports when it receives these frames by the first, over wires in memory.
fn in_memory(lab: &mut Lab, frames: &[Vec<u8>]) -> [Vec<Vec<u8>>; 2] {
    for frame in frames {
        assert!(lab.stations[0].wires[0].push(frame), "the wire has room");
    }
    lab.poll();
    [0, 1].map(|port| lab.stations[0].wires[port].pop_all())
}

/// As `assert_eq!`, which would print thousands of bytes.
fn assert_same(got: &[Vec<u8>], expected: &[Vec<u8>]) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let first = |frame: &[u8]| format!("{} bytes, {:02x?}", frame.len(), &frame[..frame.len().min(60)]);
        assert!(got == expected, "frame {index}:\n{}\nnot\n{}", first(got), first(expected));
    }
}

fn within(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..LIMIT {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(1));
    }
    panic!("not within {LIMIT} ms: {what}");
}

/// Starts the test of this name once more, as the other side.
fn peer_of(test: &str) -> Child {
    let own = std::env::current_exe().unwrap();
    let arguments = ["--exact", test, "--nocapture", "--test-threads=1"];
    Command::new(own).args(arguments).env(PEER, "1").spawn().unwrap()
}

fn is_peer() -> bool {
    std::env::var_os(PEER).is_some()
}

#[test]
fn frames_between_two_processes_arrive_byte_for_byte() {
    if is_peer() {
        let mut peer = Peer::start(1);
        let mut lab = Lab::new(services());
        let mut sent = [0, 0];
        for frames in traffic().chunks(32) {
            let expected = in_memory(&mut lab, frames);
            peer.send(0, frames);
            let got = peer.receive(&expected);
            assert_same(&got.concat(), &expected.concat());
            sent = [0, 1].map(|port| sent[port] + got[port].len());
        }
        assert!(sent[0] > 600 && sent[1] > 3_000, "answers and what was forwarded: {sent:?}");
        sleep(Duration::from_millis(100));
        assert_eq!((peer.take(0).len(), peer.take(1).len()), (0, 0), "nothing more");
        return;
    }
    let test = "frames_between_two_processes_arrive_byte_for_byte";
    if !inside(test) {
        return;
    }
    let (dpdk, ports) = start("server", 1);
    assert_eq!(ports[0][0].facts().driver, "net_memif");
    let pool = dpdk.pool(None).unwrap();
    let workers = direct(&dpdk, ports, &mut peer_of(test));
    assert_eq!(workers[0].stats.packets.get(), traffic().len() as u64);
    assert_eq!(pool.available(), pool.capacity(), "no buffer stays behind");
}

#[test]
fn two_workers_have_a_queue_each_of_memory_shared_with_another_process() {
    // Which server a flow is given to depends on which worker is first.
    let sorted = |list: &[Vec<u8>]| {
        let mut list = list.to_vec();
        list.iter_mut().for_each(|frame| frame[..6].fill(0));
        list.sort();
        list
    };
    if is_peer() {
        let mut peer = Peer::start(2);
        let mut lab = Lab::new(services());
        for (index, frames) in traffic().chunks(32).enumerate() {
            let expected = in_memory(&mut lab, frames);
            peer.send(index % 2, frames);
            let got = peer.receive(&expected);
            // Each worker limits its own answers.
            assert_same(&sorted(&got[1]), &sorted(&expected[1]));
        }
        return;
    }
    let test = "two_workers_have_a_queue_each_of_memory_shared_with_another_process";
    if !inside(test) {
        return;
    }
    let (dpdk, ports) = start("server", 2);
    let pool = dpdk.pool(None).unwrap();
    let workers = direct(&dpdk, ports, &mut peer_of(test));
    let handed_off: Vec<_> = workers.iter().map(|shared| shared.stats.handed_off.get()).collect();
    assert!(handed_off.iter().all(|count| *count > 500), "each had frames of the other: {handed_off:?}");
    assert_eq!(received(&workers), traffic().len() as u64);
    assert_eq!(pool.available(), pool.capacity(), "no buffer stays behind");
}
