//! A director's workers over DPDK's devices: what a test sends by a port of `net_ring`, the worker receives by it.

use crate::support::{
    Plan, TCP, UDP,
    frames::{
        ACK, C0, D0, FIN, Ip, RST, SYN, arp_request, echo, ethernet, icmp, solicitation, tcp, udp, udp_packet,
    },
    ordinary,
};
use pointsman_dataplane::{
    command::WorkerShared,
    handoff,
    port::{
        Frame, FramePool, Frames, Port,
        dpdk::{Device, Dpdk, DpdkPort, Mbuf, MbufPool, Memory, PortSettings, Settings},
    },
    publish::{self, Publisher},
    scheduler::Kind,
    snapshot::Snapshot,
    time::Nanos,
    verdict::DropReason,
    worker::{Setup, Worker},
};
use std::sync::Arc;

pub(crate) const VIP: &str = "10.0.0.100:80";

pub(crate) fn settings(devices: &[&str]) -> Settings {
    let devices: Vec<Device> = devices.iter().map(|device| device.parse().unwrap()).collect();
    let buffers = Settings::buffers(devices.len(), 2, 1_024);
    Settings { memory: Memory::Ordinary, buffers, ..Settings::new(devices, 2, 1_024) }
}

pub(crate) fn open(dpdk: &Dpdk, device: &str, workers: u16) -> Vec<DpdkPort> {
    let device: Device = device.parse().unwrap();
    dpdk.open(&PortSettings { workers, ..PortSettings::new(device) }).unwrap()
}

/// A worker over two devices for each entry of `ports`.
pub(crate) struct Bench<P: Port> {
    pub(crate) workers: Vec<Worker<P>>,
    pub(crate) shared: Vec<Arc<WorkerShared>>,
    pub(crate) pool: MbufPool,
    pub(crate) now: Nanos,
    _publisher: Publisher<Snapshot>,
}

impl<P: Port<Frame = Mbuf>> Bench<P> {
    pub(crate) fn new(mut plan: Plan, ports: Vec<Vec<P>>, pool: MbufPool) -> Self {
        let (publisher, readers) = publish::channel(1, plan.snapshot(1), ports.len());
        let (mut workers, mut shared) = (Vec::new(), Vec::new());
        let ends = handoff::mesh(ports.len());
        for (index, ((ports, snapshot), handoff)) in ports.into_iter().zip(readers).zip(ends).enumerate() {
            let own = Arc::new(WorkerShared::new(index as u16));
            shared.push(own.clone());
            let worker = Worker::new(Setup {
                index: index as u16,
                ports,
                pool: pool.clone(),
                connections_ipv4: 4_096,
                connections_ipv6: 4_096,
                memory: ordinary(),
                snapshot,
                handoff,
                exception: None,
                shared: own,
                seed: 0x5eed,
            });
            workers.push(worker.unwrap());
        }
        Self { workers, shared, pool, now: Nanos::from_secs(1_000), _publisher: publisher }
    }

    /// Sends frames by a port of a worker, which is to receive them.
    pub(crate) fn put(&mut self, worker: usize, port: usize, list: &[Vec<u8>]) -> usize {
        let mut frames = Frames::new();
        for bytes in list {
            let mut frame = self.pool.alloc().unwrap();
            assert!(frame.copy_from(bytes));
            frames.push(frame);
        }
        self.workers[worker].ports_mut()[port].tx(&mut frames)
    }

    /// What a worker has sent by a port.
    pub(crate) fn take(&mut self, worker: usize, port: usize) -> Vec<Vec<u8>> {
        let (mut all, mut frames, mut pool) = (Vec::new(), Frames::new(), self.pool.clone());
        while self.workers[worker].ports_mut()[port].rx(&mut pool, &mut frames) > 0 {
            all.extend(frames.drain(..).map(|frame| frame.data().to_vec()));
        }
        all
    }

    pub(crate) fn poll(&mut self) {
        for worker in &mut self.workers {
            worker.poll(self.now);
        }
    }

    pub(crate) fn sum(&self, get: impl Fn(&WorkerShared) -> u64) -> u64 {
        self.shared.iter().map(|shared| get(shared)).sum()
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.sum(|shared| shared.stats.drops[reason as usize].get())
    }
}

pub(crate) fn services() -> Plan {
    Plan::new().service(VIP, TCP, Kind::Rr, 3).service("10.0.0.100:53", UDP, Kind::Rr, 2).service(
        "[fd00:1::100]:80",
        TCP,
        Kind::Rr,
        2,
    )
}

/// Packets of every kind: of known and new connections, to be answered, to be left to the host, and to be dropped.
pub(crate) fn mixture() -> Vec<Vec<u8>> {
    let mut list = Vec::new();
    for n in 0..20_u16 {
        let (client, client6) = (format!("10.0.1.{n}:{}", 2_000 + n), format!("[fd00:9::{n:x}]:2000"));
        for flags in [SYN, ACK, ACK, if n % 2 == 0 { FIN | ACK } else { RST | ACK }] {
            list.push(tcp(&client, VIP, flags).len(usize::from(n)).frame());
            list.push(tcp(&client6, "[fd00:1::100]:80", flags).frame());
        }
        list.push(udp(&client, "10.0.0.100:53"));
        list.push(udp(&client, "10.0.0.100:54"));
        list.push(tcp(&client, VIP, ACK).ip(|ip| ip.ttl = 1).frame());
        list.push(tcp(&client, "10.0.0.100:81", SYN).frame());
        list.push(tcp(&client, "10.0.0.1:22", SYN).frame());
        let quoted = tcp(VIP, &client, ACK).packet();
        let error = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
        list.push(icmp("10.0.0.9", "10.0.0.100", &error, &Ip::default()));
        list.push(echo("10.0.0.2", "10.0.0.100"));
        list.push(arp_request("10.0.0.2", "10.0.0.100"));
        list.push(solicitation("fd00:1::2", "fd00:1::100"));
        list.push(ethernet(D0, C0, &udp_packet(&client, "10.0.0.100:53", &[7; 1_400], &Ip::default())));
        list.push(vec![0; 60]);
        list.push(vec![1; 9]);
    }
    list
}
