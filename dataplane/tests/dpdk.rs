//! DPDK ports: the worker over virtual devices, and over a real interface of the kernel.
//!
//! DPDK starts once in the life of a process, so each test starts itself again in a process of its own, in a user and
//! network namespace where it may do all that root may. Packets lie in ordinary pages: the tests run on any machine.
//! `net_ring` gives back what it is sent: what the test sends by a port, the worker receives by it.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "support/director.rs"]
mod director;
#[path = "support/inside.rs"]
mod inside;
#[allow(dead_code, reason = "the harness serves the tests of the packet path too")]
mod support;

use director::{Bench, VIP, mixture, open, services, settings};
use inside::inside;
use pointsman_dataplane::{
    port::{
        Frame, FramePool, Frames, Port,
        dpdk::{Device, Dpdk, DpdkPort, Link, PortSettings, Settings},
    },
    verdict::{Answer, DropReason},
};
use std::process::Command;
use support::{
    Lab,
    frames::{D0, SYN, tcp},
};

#[test]
fn frames_go_the_way_that_they_go_over_wires_in_memory() {
    if !inside("frames_go_the_way_that_they_go_over_wires_in_memory") {
        return;
    }
    let dpdk = Dpdk::start(&settings(&["vdev:net_ring0", "vdev:net_ring1"])).unwrap();
    let ports: Vec<DpdkPort> =
        ["vdev:net_ring0", "vdev:net_ring1"].map(|name| open(&dpdk, name, 1).remove(0)).into();
    assert_eq!(ports[0].facts().driver, "net_ring");
    let pool = ports[0].pool();
    let mut bench = Bench::new(services(), vec![ports], pool);
    let mut lab = Lab::new(services());
    for frames in mixture().chunks(32) {
        // The same frames, one batch, over both; what left by the first port, then what left by the second.
        let expected = lab.send(frames);
        assert_eq!(bench.put(0, 0, frames), frames.len());
        bench.poll();
        let got = [bench.take(0, 0), bench.take(0, 1)].concat();
        assert_eq!(got, expected);
    }
    assert_eq!(bench.shared[0].stats.forwarded.get(), lab.forwarded());
    assert!(lab.forwarded() > 150, "{}", lab.forwarded());
    for reason in DropReason::ALL {
        assert_eq!(bench.drops(*reason), lab.drops(*reason), "{reason}");
    }
    for answer in
        [Answer::Arp, Answer::EchoReply, Answer::TcpReset, Answer::PortUnreachable, Answer::TimeExceeded]
    {
        let answers = bench.shared[0].stats.answers[answer as usize].get();
        assert!(answers > 0 && answers == lab.answers(answer), "{answer}: {answers}");
    }
    let stats = bench.workers[0].ports_mut()[1].handle().stats().unwrap();
    assert_eq!(stats.tx_packets, lab.forwarded());
}

#[test]
fn a_frame_that_is_forwarded_stays_where_the_device_wrote_it() {
    if !inside("a_frame_that_is_forwarded_stays_where_the_device_wrote_it") {
        return;
    }
    let dpdk = Dpdk::start(&settings(&["vdev:net_ring0", "vdev:net_ring1"])).unwrap();
    let ports: Vec<DpdkPort> =
        ["vdev:net_ring0", "vdev:net_ring1"].map(|name| open(&dpdk, name, 1).remove(0)).into();
    let pool = ports[0].pool();
    let mut bench = Bench::new(services(), vec![ports], pool);
    let mut frame = bench.pool.alloc().unwrap();
    assert!(frame.copy_from(&tcp("10.0.0.2:1000", VIP, SYN).frame()));
    assert_eq!(frame.headroom(), 128);
    let address = frame.data().as_ptr();
    let mut frames = Frames::new();
    frames.push(frame);
    assert_eq!(bench.workers[0].ports_mut()[0].tx(&mut frames), 1);
    bench.poll();
    let mut pool = bench.pool.clone();
    assert_eq!(bench.workers[0].ports_mut()[1].rx(&mut pool, &mut frames), 1);
    assert_eq!(frames[0].data().as_ptr(), address);
    assert_eq!(frames[0].data()[..6], support::frames::R3, "to the first server of the scheduler");
}

#[test]
fn an_mbuf_grows_and_shrinks_within_its_buffer_only() {
    if !inside("an_mbuf_grows_and_shrinks_within_its_buffer_only") {
        return;
    }
    let dpdk = Dpdk::start(&settings(&["vdev:net_null0"])).unwrap();
    let mut pool = dpdk.pool(None).unwrap();
    let before = pool.available();
    let mut frame = pool.alloc().unwrap();
    assert_eq!((frame.len(), frame.headroom(), frame.tailroom()), (0, 128, 2_048));
    assert!(frame.copy_from(b"abcdef") && frame.data() == b"abcdef");
    frame.prepend(2).unwrap().copy_from_slice(b"xy");
    assert_eq!((frame.data(), frame.headroom()), (&b"xyabcdef"[..], 126));
    assert!(frame.prepend(127).is_none() && frame.prepend(126).is_some());
    assert!(frame.trim_front(126) && !frame.trim_front(9));
    assert!(frame.set_len(2_050) && !frame.set_len(2_051));
    frame.truncate(3);
    assert_eq!((frame.data(), frame.tailroom()), (&b"xya"[..], 2_047));
    assert!(!frame.copy_from(&[0; 2_049]) && frame.data() == b"xya");
    assert!(frame.copy_from(&[7; 2_048]) && frame.tailroom() == 0);
    assert_eq!(pool.available(), before - 1);
    // On a thread that DPDK does not know.
    std::thread::spawn(move || drop(frame)).join().unwrap();
    assert_eq!((pool.available(), pool.capacity()), (before, before));
    assert!(pool.report().bytes > 2_048 * before as usize);
}

#[test]
fn workers_on_threads_of_their_own_hand_over_what_is_not_theirs() {
    if !inside("workers_on_threads_of_their_own_hand_over_what_is_not_theirs") {
        return;
    }
    let dpdk = Dpdk::start(&settings(&["vdev:net_ring0", "vdev:net_ring1"])).unwrap();
    let (mut outside, mut within) = (open(&dpdk, "vdev:net_ring0", 1), open(&dpdk, "vdev:net_ring1", 1));
    // Each worker has a device of its own, and all servers are on it: the second receives nothing but what it is handed.
    let ports = vec![vec![outside.remove(0)], vec![within.remove(0)]];
    let pool = dpdk.pool(None).unwrap();
    let mut plan = services();
    for hop in &mut plan.hops {
        hop.port = 0;
    }
    let mut bench = Bench::new(plan, ports, pool);
    let frames: Vec<_> = (0..60).map(|n| tcp(&format!("10.0.1.{n}:2000"), VIP, SYN).frame()).collect();
    bench.put(0, 0, &frames);
    let mut workers = std::mem::take(&mut bench.workers).into_iter();
    let (mut first, mut second) = (workers.next().unwrap(), workers.next().unwrap());
    let now = bench.now;
    first.poll(now);
    // Once: it would receive what it has sent.
    let thread = std::thread::spawn(move || {
        second.poll(now);
        second
    });
    bench.workers = vec![first, thread.join().unwrap()];
    let handed = bench.sum(|shared| shared.stats.handed_off.get());
    assert!((15..45).contains(&handed), "about half: {handed}");
    let (own, other) = (bench.take(0, 0).len(), bench.take(1, 0).len());
    assert_eq!((own + other, other as u64), (60, handed), "each left by the port of its owner");
    let Bench { workers, pool, .. } = bench;
    drop(workers);
    assert_eq!(pool.available(), pool.capacity());
}

fn ip(command: &str) {
    let run = Command::new("ip").args(command.split(' ')).output().expect("ip (package iproute2) starts");
    assert!(run.status.success(), "ip {command}: {}", String::from_utf8_lossy(&run.stderr));
}

/// Makes the pair of interfaces va, the client's, and vb, the director's.
fn veth() {
    ip("link add va type veth peer name vb");
    ip("link set vb addrgenmode none");
    // The driver does not complete checksums that a sender leaves to its interface.
    let offload = Command::new("ethtool").args(["-K", "va", "tx", "off"]).output();
    assert!(offload.expect("ethtool starts").status.success());
    ip("link set vb address 02:00:00:00:00:01");
    ip("link set vb up");
    ip("address add 10.0.0.2/24 dev va");
    ip("link set va up");
}

#[test]
fn the_kernel_at_the_other_end_of_a_real_interface_is_answered() {
    if !inside("the_kernel_at_the_other_end_of_a_real_interface_is_answered") {
        return;
    }
    veth();
    let dpdk = Dpdk::start(&settings(&["vdev:net_af_packet0,iface=vb", "vdev:net_ring1"])).unwrap();
    let mut ports = open(&dpdk, "vdev:net_af_packet0", 1);
    assert_eq!((ports[0].facts().driver.as_str(), ports[0].facts().mac), ("net_af_packet", D0));
    assert!(ports[0].is_up());
    ports.extend(open(&dpdk, "vdev:net_ring1", 1));
    let pool = ports[0].pool();
    let mut bench = Bench::new(services(), vec![ports], pool);
    let mut ping =
        Command::new("ping").args(["-c", "3", "-i", "0.2", "-W", "2", "10.0.0.100"]).spawn().unwrap();
    // What no server of the service takes is reset.
    let connect = |address: &str, millis| {
        let address = address.parse().unwrap();
        let limit = std::time::Duration::from_millis(millis);
        std::thread::spawn(move || std::net::TcpStream::connect_timeout(&address, limit).unwrap_err().kind())
    };
    let (refused, opens) = (connect("10.0.0.100:81", 5_000), connect("10.0.0.100:80", 200));
    let answered = loop {
        bench.poll();
        if let Some(status) = ping.try_wait().unwrap()
            && refused.is_finished()
            && opens.is_finished()
        {
            break status;
        }
    };
    assert!(answered.success(), "the virtual address does not answer ping");
    assert_eq!(refused.join().unwrap(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(
        opens.join().unwrap(),
        std::io::ErrorKind::TimedOut,
        "its SYN went to a server that is not there"
    );
    let answers = &bench.shared[0].stats.answers;
    assert_eq!(answers[Answer::EchoReply as usize].get(), 3);
    assert_eq!(answers[Answer::TcpReset as usize].get(), 1);
    assert!(answers[Answer::Arp as usize].get() >= 1);
    assert!(bench.shared[0].stats.forwarded.get() >= 1);
    assert!(bench.workers[0].ports_mut()[0].handle().stats().unwrap().rx_packets >= 5);
    ip("link set va down");
    for _ in 0..100_000 {
        bench.poll();
    }
    ip("link set va up");
    let ping = Command::new("ping").args(["-c", "1", "-W", "5", "10.0.0.100"]).spawn();
    let mut ping = ping.unwrap();
    let answered = loop {
        bench.poll();
        if let Some(status) = ping.try_wait().unwrap() {
            break status;
        }
    };
    assert!(answered.success(), "traffic resumes when the link comes back");
    for _ in 0..1_000 {
        bench.poll();
        bench.take(0, 1);
    }
    let Bench { workers, pool, .. } = bench;
    drop(workers);
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn what_cannot_be_is_refused_by_name_and_remedy() {
    if !inside("what_cannot_be_is_refused_by_name_and_remedy") {
        return;
    }
    let refused = |settings: &Settings| Dpdk::start(settings).map(drop).unwrap_err().to_string();
    let pci = refused(&settings(&["ffff:1f:1f.7"]));
    assert!(pci.starts_with("ffff:1f:1f.7: there is no PCI device at this address"), "{pci}");
    let dpdk = Dpdk::start(&settings(&["vdev:net_null0"])).unwrap();
    let null: Device = "vdev:net_null0".parse().unwrap();
    let says = |settings: &PortSettings| dpdk.open(settings).map(drop).unwrap_err().to_string();
    let absent = says(&PortSettings::new("vdev:net_null7".parse().unwrap()));
    assert!(absent.starts_with("vdev:net_null7: DPDK has no driver for it"), "{absent}");
    let large = says(&PortSettings { mtu: 9_000, ..PortSettings::new(null.clone()) });
    assert_eq!(
        large,
        "vdev:net_null0: an MTU of 9000 is not possible: packet buffers hold frames of an MTU up to 2026, and are made when DPDK starts; set the `mtu` of the port back, or restart with this one"
    );
    let none = says(&PortSettings { workers: 0, ..PortSettings::new(null) });
    assert_eq!(none, "vdev:net_null0: a device is shared by 1 to 64 workers, not 0");
    let again = refused(&settings(&["vdev:net_null0"]));
    assert!(again.starts_with("DPDK was started in this process before"), "{again}");
}

#[test]
fn a_device_answers_other_threads_while_its_worker_runs() {
    if !inside("a_device_answers_other_threads_while_its_worker_runs") {
        return;
    }
    let dpdk = Dpdk::start(&settings(&["vdev:net_ring0", "vdev:net_ring1"])).unwrap();
    let mut ports = open(&dpdk, "vdev:net_ring0", 1);
    ports.extend(open(&dpdk, "vdev:net_ring1", 1));
    let handle = ports[0].handle();
    assert_eq!((handle.name(), handle.facts().spread.to_string().as_str()), ("vdev:net_ring0", "one queue"));
    assert_eq!((handle.facts().mtu, handle.facts().queues, handle.facts()), (1_500, 1, ports[0].facts()));
    let pool = ports[0].pool();
    let mut bench = Bench::new(services(), vec![ports], pool);
    let frames: Vec<_> = (0..50).map(|n| tcp(&format!("10.0.1.{n}:2000"), VIP, SYN).frame()).collect();
    let asked = handle.clone();
    let asking = std::thread::spawn(move || {
        let mut last = 0;
        for _ in 0..10_000 {
            let now = asked.stats().unwrap().rx_packets;
            assert!(now >= last && asked.link().unwrap().up && !asked.xstats().is_empty());
            last = now;
        }
    });
    let mut sent = 0;
    while !asking.is_finished() {
        sent += bench.put(0, 0, &frames) as u64;
        bench.poll();
        let port = &mut bench.workers[0].ports_mut()[0];
        assert!(port.is_up() && port.rx_ring_drops() == 0);
        bench.take(0, 1);
    }
    asking.join().unwrap();
    assert_eq!(handle.stats().unwrap().rx_packets, sent);
    let good = ("rx_good_packets".to_owned(), sent);
    assert!(handle.xstats().contains(&good), "{:?}", handle.xstats());
    assert_eq!(handle.link(), Some(Link { up: true, mbps: Some(10_000) }));
    // The device closes with its last port, whoever still has a handle.
    drop(bench);
    assert!(!handle.is_open() && handle.xstats().is_empty());
    assert_eq!((handle.stats(), handle.link()), (None, None));
}

#[test]
fn more_workers_than_queues_are_refused() {
    if !inside("more_workers_than_queues_are_refused") {
        return;
    }
    let dpdk = Dpdk::start(&settings(&["vdev:net_ring0"])).unwrap();
    let settings = PortSettings { workers: 64, ..PortSettings::new("vdev:net_ring0".parse().unwrap()) };
    let message = dpdk.open(&settings).map(drop).unwrap_err().to_string();
    assert!(message.starts_with("vdev:net_ring0: the device (net_ring) has "), "{message}");
    assert!(message.contains("queues for 64 workers; configure at most"), "{message}");
}

#[test]
fn a_refusal_of_dpdk_is_told_in_its_own_words() {
    if !inside("a_refusal_of_dpdk_is_told_in_its_own_words") {
        return;
    }
    let message = Dpdk::start(&settings(&["vdev:net_nonsense0"])).map(drop).unwrap_err().to_string();
    assert!(message.starts_with("DPDK does not start: "), "{message}");
    assert!(message.contains("net_nonsense0"), "{message}");
}
