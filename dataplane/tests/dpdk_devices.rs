//! DPDK's devices: whose frames they take and whom they give them to, large frames, restarts, and that nothing is lost of
//! what they borrow. Each test starts itself again in a process of its own: see `dpdk.rs`.

#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "support/director.rs"]
#[allow(dead_code, reason = "it serves the other tests of DPDK too")]
mod director;
#[path = "support/inside.rs"]
mod inside;
#[allow(dead_code, reason = "the harness serves the tests of the packet path too")]
mod support;

use director::{Bench, VIP, mixture, open, services, settings};
use inside::inside;
use pointsman_dataplane::{
    port::{
        FramePool, Frames, Port,
        dpdk::{Dpdk, DpdkPort, Memory, PortSettings, Settings, Side, Spread, restart},
        fault::{FaultPort, Faults},
    },
    time::Nanos,
    verdict::DropReason,
};
use std::{fs, process::Command, sync::Arc};
use support::frames::{ACK, SYN, tcp};

fn ip(command: &str) {
    let run = Command::new("ip").args(command.split(' ')).output().expect("ip (package iproute2) starts");
    assert!(run.status.success(), "ip {command}: {}", String::from_utf8_lossy(&run.stderr));
}

/// How a device says to spread frames over workers.
fn spread(dpdk: &Dpdk, device: &str, workers: u16, side: Side) -> Spread {
    let settings = PortSettings { workers, side, ..PortSettings::new(device.parse().unwrap()) };
    dpdk.open(&settings).unwrap()[0].facts().spread
}

#[test]
fn a_device_with_a_key_and_a_table_is_told_the_owners() {
    if !inside("a_device_with_a_key_and_a_table_is_told_the_owners") {
        return;
    }
    let names = ["vdev:net_null0", "vdev:net_null1", "vdev:net_null2", "vdev:net_ring0"];
    let dpdk = Dpdk::start(&settings(&names)).unwrap();
    // The driver says what key and what table it has: they are compared with what it was told.
    assert_eq!(spread(&dpdk, names[0], 3, Side::Outside), Spread::Owner);
    assert_eq!(spread(&dpdk, names[1], 2, Side::Inside), Spread::Owner);
    assert_eq!(spread(&dpdk, names[2], 1, Side::Outside), Spread::OneQueue);
    // It has no hash.
    let spread = spread(&dpdk, names[3], 2, Side::Outside);
    assert_eq!(spread, Spread::FirstQueue);
    assert_eq!(spread.to_string(), "as the device does it, handed over to owners");
}

#[test]
fn frames_to_other_stations_come_to_promiscuous_ports_only() {
    if !inside("frames_to_other_stations_come_to_promiscuous_ports_only") {
        return;
    }
    ip("link add va type veth peer name vb");
    ip("link set va up");
    ip("link set vb up");
    let device = "vdev:net_af_packet0,iface=vb";
    let dpdk = Dpdk::start(&settings(&[device])).unwrap();
    let is_promiscuous = || {
        let link = Command::new("ip").args(["-d", "link", "show", "vb"]).output().unwrap();
        String::from_utf8(link.stdout).unwrap().contains("promiscuity 1")
    };
    assert!(!is_promiscuous());
    let settings = PortSettings::new(device.parse().unwrap());
    let ports = dpdk.open(&PortSettings { promiscuous: true, ..settings }).unwrap();
    assert!(is_promiscuous() && ports[0].handle().is_open());
}

#[test]
fn large_frames_go_through_rings_whole() {
    if !inside("large_frames_go_through_rings_whole") {
        return;
    }
    let names = ["vdev:net_ring0", "vdev:net_ring1"];
    let dpdk = Dpdk::start(&Settings { frame_room: Settings::room(9_000), ..settings(&names) }).unwrap();
    let large = |name: &str| {
        let settings = PortSettings { mtu: 9_000, ..PortSettings::new(name.parse().unwrap()) };
        dpdk.open(&settings).unwrap().remove(0)
    };
    let ports: Vec<DpdkPort> = names.map(large).into();
    assert_eq!(ports[0].facts().mtu, 9_000);
    let pool = ports[0].pool();
    let mut plan = services();
    plan.mtu = 9_000;
    let mut bench = Bench::new(plan, vec![ports], pool);
    let opening = tcp("10.0.1.1:1000", VIP, SYN).frame();
    let frames: Vec<_> =
        [100, 2_000, 8_959, 8_960].map(|len| tcp("10.0.1.1:1000", VIP, ACK).len(len).frame()).into();
    assert_eq!(frames[3].len(), 9_014);
    bench.put(0, 0, &[opening]);
    bench.poll();
    assert_eq!(bench.take(0, 1).len(), 1);
    bench.put(0, 0, &frames);
    bench.poll();
    let sent = bench.take(0, 1);
    assert_eq!(sent.len(), 4);
    for (frame, sent) in frames.iter().zip(&sent) {
        assert!(frame.len() == sent.len() && frame[26..] == sent[26..], "all from the addresses on");
    }
}

#[test]
fn the_kernel_gets_an_answer_to_a_large_ping() {
    if !inside("the_kernel_gets_an_answer_to_a_large_ping") {
        return;
    }
    ip("link add va mtu 9000 type veth peer name vb mtu 9000");
    ip("link set vb addrgenmode none");
    ip("link set vb address 02:00:00:00:00:01");
    ip("link set vb up");
    ip("address add 10.0.0.2/24 dev va");
    ip("link set va up");
    // By libpcap: of the drivers for interfaces of the kernel the one that takes large frames.
    let names = ["vdev:net_pcap0,iface=vb,phy_mac=1", "vdev:net_ring1", "vdev:net_af_packet0,iface=vb"];
    let dpdk = Dpdk::start(&Settings { frame_room: Settings::room(9_000), ..settings(&names) }).unwrap();
    let large = |name: &str| PortSettings { mtu: 9_000, ..PortSettings::new(name.parse().unwrap()) };
    let refused = dpdk.open(&large(names[2])).map(drop).unwrap_err().to_string();
    assert_eq!(
        refused,
        "vdev:net_af_packet0,iface=vb: an MTU of 9000 is not possible: the device (net_af_packet) takes 46 to 1500; set `mtu` of the port to one of these"
    );
    let mut ports = dpdk.open(&large(names[0])).unwrap();
    assert_eq!((ports[0].facts().driver.as_str(), ports[0].facts().mtu), ("net_pcap", 9_000));
    ports.extend(open(&dpdk, "vdev:net_ring1", 1));
    let pool = ports[0].pool();
    let mut bench = Bench::new(services(), vec![ports], pool);
    let arguments = ["-c", "3", "-i", "0.2", "-W", "2", "-M", "do", "-s", "8972", "10.0.0.100"];
    let mut ping = Command::new("ping").args(arguments).spawn().unwrap();
    let answered = loop {
        bench.poll();
        if let Some(status) = ping.try_wait().unwrap() {
            break status;
        }
    };
    assert!(answered.success(), "9,000 bytes are not answered");
    let stats = bench.workers[0].ports_mut()[0].handle().stats().unwrap();
    assert!(stats.tx_bytes >= 3 * 9_014, "{stats:?}");
}

#[test]
fn a_device_is_restarted_by_all_of_its_ports_only() {
    if !inside("a_device_is_restarted_by_all_of_its_ports_only") {
        return;
    }
    let names = ["vdev:net_ring0", "vdev:net_null0"];
    let dpdk = Dpdk::start(&settings(&names)).unwrap();
    let [mut first, mut second] = <[DpdkPort; 2]>::try_from(open(&dpdk, names[1], 2)).unwrap();
    let message = restart(&mut [&mut first]).unwrap_err().to_string();
    assert!(
        message.starts_with("vdev:net_null0: cannot restart it while some of its ports are in use: "),
        "{message}"
    );
    restart(&mut [&mut second, &mut first]).unwrap();
    let mut frames = Frames::new();
    assert!(second.rx(&mut first.pool(), &mut frames) > 0, "it receives again");
    frames.clear();
    restart(&mut []).unwrap();
}

/// Packets of the test below: `POINTSMAN_PACKETS=100000000` for more.
fn packets() -> u64 {
    std::env::var("POINTSMAN_PACKETS").map_or(2_000_000, |text| text.parse().unwrap())
}

#[test]
fn packets_by_the_million_with_faults_and_restarts_leave_no_mbuf_behind() {
    if !inside("packets_by_the_million_with_faults_and_restarts_leave_no_mbuf_behind") {
        return;
    }
    let dpdk = Dpdk::start(&settings(&["vdev:net_ring0", "vdev:net_ring1"])).unwrap();
    let faults = Faults {
        loss: 10_000,
        duplication: 10_000,
        reordering: 10_000,
        truncation: 10_000,
        bit_flip: 10_000,
        full_ring: 10_000,
    };
    let faulty = |name| FaultPort::new(open(&dpdk, name, 1).remove(0), faults, 7);
    let ports: Vec<_> = ["vdev:net_ring0", "vdev:net_ring1"].map(faulty).into();
    let pool = dpdk.pool(None).unwrap();
    // One server does not answer, so that frames wait for it and are dropped.
    let mut plan = services();
    plan.hops[1].cell = Arc::default();
    let mut bench = Bench::new(plan, vec![ports], pool);
    let list = mixture();
    let (mut sent, mut round, mut restarts) = (0_u64, 0_u64, 0);
    while sent < packets() {
        for frames in list.chunks(60) {
            sent += bench.put(0, 0, frames) as u64;
            bench.poll();
        }
        bench.now = Nanos(bench.now.0 + 3_000_000);
        // The ring of the servers' port fills up in between, and frames are refused.
        if round.is_multiple_of(16) {
            bench.take(0, 1);
        }
        // Both ports go down and come back, with frames in their rings and on their way through the worker.
        if round.is_multiple_of(500) {
            bench.put(0, 0, &list[..60]);
            for port in bench.workers[0].ports_mut() {
                restart(&mut [port.inner()]).unwrap();
            }
            restarts += 2;
        }
        round += 1;
    }
    let shared = &bench.shared[0];
    let (packets, forwarded) = (shared.stats.packets.get(), shared.stats.forwarded.get());
    assert!(packets > sent * 9 / 10 && restarts > 10, "{sent} {packets} {restarts}");
    assert!(forwarded > sent / 4, "traffic resumes: {forwarded} of {sent}");
    for reason in [
        DropReason::TransmitRingFull,
        DropReason::NeighborQueueFull,
        DropReason::NeighborUnresolved,
        DropReason::FrameTruncated,
        DropReason::NotOurMac,
    ] {
        assert!(bench.drops(reason) > 0, "{reason} did not happen");
    }
    // Frames that are late, that wait for a neighbour, and that are in the rings.
    bench.now = Nanos(bench.now.0 + 60_000_000_000);
    for _ in 0..1_000 {
        bench.poll();
        bench.take(0, 0);
        bench.take(0, 1);
    }
    let Bench { workers, pool, .. } = bench;
    drop(workers);
    println!("{sent} sent, {forwarded} forwarded, {restarts} restarts: all {} are home", pool.capacity());
    assert_eq!(pool.available(), pool.capacity());
    let again = dpdk.open(&PortSettings::new("vdev:net_ring0".parse().unwrap()));
    assert!(again.is_err(), "the device was closed with its last port");
}

/// A number of KiB that the kernel says of this process.
fn kib(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Starts DPDK in huge pages if there are free ones (in others it keeps what it had until the process ends), uses it, and
/// lets `end` drop what there is.
fn stops(end: impl FnOnce(Dpdk, Vec<DpdkPort>, Box<dyn std::any::Any>)) {
    let free = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    // No other test that asks so takes them in between: the lock ends with this function.
    let lock = fs::File::open(free);
    lock.iter().for_each(|file| file.lock().expect("flock of a file of the kernel"));
    let huge =
        fs::read_to_string(free).is_ok_and(|text| text.trim().parse::<u32>().is_ok_and(|pages| pages >= 64));
    let names = ["vdev:net_ring0", "vdev:net_null0"];
    let memory = if huge { Memory::HugePages } else { Memory::Ordinary };
    let dpdk = Dpdk::start(&Settings { memory, ..settings(&names) }).unwrap();
    let ports: Vec<_> = names.iter().flat_map(|name| open(&dpdk, name, 1)).collect();
    let mut pool = dpdk.pool(None).unwrap();
    let mut frames = Frames::new();
    frames.extend((0..8).map(|_| pool.alloc().unwrap()));
    // Some are in a ring, one is out.
    let out = frames.pop().unwrap();
    let mut ports = ports;
    ports[0].tx(&mut frames);
    let packets = pool.report().bytes as u64 / 1_024;
    assert_eq!(kib("HugetlbPages:") >= packets, huge);
    end(dpdk, ports, Box::new((out, pool)));
    // Some pages are DPDK's own until the process ends.
    assert!(packets > 32 * 1_024 && kib("HugetlbPages:") <= 8 * 1_024, "{} KiB", kib("HugetlbPages:"));
}

#[test]
fn dpdk_ends_with_the_last_that_uses_it_if_that_is_a_frame() {
    if inside("dpdk_ends_with_the_last_that_uses_it_if_that_is_a_frame") {
        stops(|dpdk, ports, rest| {
            drop(dpdk);
            drop(ports);
            drop(rest);
        });
    }
}

#[test]
fn dpdk_ends_with_the_last_that_uses_it_if_that_is_a_port() {
    if inside("dpdk_ends_with_the_last_that_uses_it_if_that_is_a_port") {
        stops(|dpdk, ports, rest| {
            let handles: Vec<_> = ports.iter().map(DpdkPort::handle).collect();
            drop(rest);
            drop(dpdk);
            assert!(handles.iter().all(|handle| handle.is_open() && handle.link().is_some()));
            drop(ports);
            assert!(handles.iter().all(|handle| !handle.is_open()));
        });
    }
}
