//! A director with one worker, whose port is made of memory on the one side and is a real interface of the kernel on the
//! other. At the wire there are a neighbour that answers, and clients of a virtual service that never rest if they are
//! told to: then every batch is full and the worker has no moment without work.

use crossbeam::queue::ArrayQueue;
use pointsman_control::{
    apply::Prepared,
    clock,
    config::{self, model::Idle},
    exception::{self, Exception, Tap},
    kernel::{Network, PortNetwork, Route},
    workers::{Crew, Handle, Plan},
};
use pointsman_dataplane::{
    command::WorkerShared,
    exception as path, handoff,
    limits::{BATCH, EXCEPTION_RING, FRAME_ROOM},
    port::{
        Frame, Frames, Port,
        memory::{Generator, Loopback},
    },
    publish::{self, Publisher},
    snapshot::{NeighborState, Snapshot},
    worker::Setup,
};
use pointsman_hugepages::{Buffer, Options, PageChoice, Pool, PoolOptions};
use std::{
    collections::VecDeque,
    fs::File,
    io::{Read, Write},
    net::Ipv6Addr,
    os::fd::RawFd,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

pub(crate) const PORT: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const NEIGHBOR: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 0x12];
pub(crate) const MTU: u16 = 1_500;

const CONFIGURATION: &str = r#"
    [[port]]
    device = "p0"
    [[service]]
    address = "10.0.0.100"
    protocol = "udp"
    port = 53
    scheduler = "rr"
    [[service.server]]
    address = "10.0.0.12"
"#;

/// What passes between a test and the worker's thread.
pub(crate) struct Wire {
    /// Frames that arrive next.
    pub(crate) arriving: ArrayQueue<Vec<u8>>,
    /// Frames of the host that have left; those that nobody takes are forgotten when there are too many.
    pub(crate) left: ArrayQueue<Vec<u8>>,
    /// Whether clients send as much as the worker takes.
    pub(crate) load: AtomicBool,
    /// Pings of the neighbour that are still to be sent, and how many nanoseconds after one another.
    pub(crate) pings: AtomicU64,
    pub(crate) pace: AtomicU64,
    /// From a ping's arrival at the port to its reply's leaving, in nanoseconds.
    pub(crate) round_trips: ArrayQueue<u64>,
}

/// The worker's port.
struct Station {
    wire: Arc<Wire>,
    /// Made by the worker's thread, which owns its pool.
    clients: Option<Loopback<Clients>>,
    arriving: VecDeque<Vec<u8>>,
    /// By sequence number.
    sent: Box<[u64; 0x1_0000]>,
    sequence: u16,
    due: u64,
    /// A real neighbour instead of the one that is played here: the wire of another interface.
    peer: Option<File>,
}

/// Segments of 4096 flows in turn.
struct Clients {
    frame: Vec<u8>,
    flow: u16,
}

impl Clients {
    fn new() -> Self {
        let datagram = ipv4([10, 0, 0, 2], [10, 0, 0, 100], 17, &[4, 0, 0, 53, 0, 8, 0, 0]);
        Self { frame: ethernet(PORT, NEIGHBOR, 0x0800, &datagram), flow: 0 }
    }
}

impl Generator for Clients {
    fn fill(&mut self, frame: &mut impl Frame) {
        self.flow = (self.flow + 1) % 4_096;
        self.frame[34..36].copy_from_slice(&(1_024 + self.flow).to_be_bytes());
        assert!(frame.copy_from(&self.frame));
    }
}

impl Port for Station {
    type Frame = Buffer;

    fn rx(&mut self, pool: &mut Pool, frames: &mut Frames) -> usize {
        let before = frames.len();
        self.ping();
        self.of_peer();
        while let Some(bytes) = self.arriving.pop_front().or_else(|| self.wire.arriving.pop()) {
            let mut frame = pool.alloc().expect("a buffer for what arrives");
            assert!(frame.copy_from(&bytes));
            frames.push(frame);
            if frames.is_full() {
                return frames.len() - before;
            }
        }
        if self.wire.load.load(Relaxed) {
            let clients = || Loopback::new(Clients::new(), pool, 4 * BATCH);
            let mut of_clients = self.clients.take().unwrap_or_else(clients);
            of_clients.rx(pool, frames);
            self.clients = Some(of_clients);
        }
        frames.len() - before
    }

    fn tx(&mut self, frames: &mut Frames) -> usize {
        let sent = frames.len();
        let mut balanced = Frames::new();
        for frame in frames.drain(..) {
            if frame.data().starts_with(&SERVER) {
                balanced.push(frame);
            } else {
                self.of_host(frame.data());
            }
        }
        if let Some(clients) = &mut self.clients {
            clients.tx(&mut balanced);
        }
        sent
    }

    fn rx_ring_drops(&mut self) -> u64 {
        0
    }

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }
}

impl Station {
    fn new(wire: Arc<Wire>, peer: Option<File>) -> Self {
        Self {
            wire,
            clients: None,
            arriving: VecDeque::new(),
            sent: Box::new([0; 0x1_0000]),
            sequence: 0,
            due: 0,
            peer,
        }
    }

    /// What the real neighbour has sent, a little of it.
    fn of_peer(&mut self) {
        let Some(peer) = &mut self.peer else { return };
        let mut bytes = [0; 2_048];
        for _ in 0..16 {
            let Ok(len) = peer.read(&mut bytes) else { break };
            self.arriving.push_back(bytes[..len].to_vec());
        }
    }

    /// The neighbour sends its next ping if it is time.
    fn ping(&mut self) {
        let left = self.wire.pings.load(Relaxed);
        if left == 0 {
            return;
        }
        let now = clock::now().0;
        if now < self.due {
            return;
        }
        self.wire.pings.store(left - 1, Relaxed);
        self.due = now + self.wire.pace.load(Relaxed);
        self.sequence = self.sequence.wrapping_add(1);
        self.sent[usize::from(self.sequence)] = now;
        self.arriving.push_back(echo_request(self.sequence));
    }

    /// A frame of the host has left.
    fn of_host(&mut self, frame: &[u8]) {
        if let Some(peer) = &mut self.peer {
            // One that is set down hears nothing.
            let _ = peer.write(frame);
            return;
        }
        if frame.get(12..14) == Some(&[8, 0])
            && frame.get(23) == Some(&1)
            && frame.get(34..40).is_some_and(|icmp| icmp[0] == 0)
        {
            let sequence = usize::from(u16::from_be_bytes([frame[40], frame[41]]));
            let round_trip = clock::now().0 - std::mem::take(&mut self.sent[sequence]);
            assert!(self.wire.round_trips.push(round_trip).is_ok());
        }
        self.arriving.extend(answer(frame));
        self.wire.left.force_push(frame.to_vec());
    }
}

/// What the neighbour, or the gateway, says to a frame.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let own = |last: u8| if last == 0xfe { GATEWAY } else { NEIGHBOR };
    let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    let packet = &frame[14..];
    match (ethertype, packet[0]) {
        (0x0806, _) if packet[7] == 1 && matches!(packet[24..28], [10, 0, 0, 2 | 0xfe]) => {
            let mac = own(packet[27]);
            let reply = [&packet[..7], &[2], &mac, &packet[24..28], &packet[8..18]].concat();
            Some(ethernet(PORT, mac, 0x0806, &reply))
        }
        (0x0800, _) if packet[9] == 1 && packet[20] == 8 => {
            let mut icmp = packet[20..].to_vec();
            icmp[0] = 0;
            set_sum(&mut icmp, 2, 0);
            let (from, to) = (packet[16..20].try_into().ok()?, packet[12..16].try_into().ok()?);
            Some(ethernet(PORT, frame[..6].try_into().ok()?, 0x0800, &ipv4(from, to, 1, &icmp)))
        }
        (0x86dd, _) if packet[6] == 58 && packet[40] == 135 && packet[63] == 2 => {
            let asker: [u8; 16] = packet[8..24].try_into().ok()?;
            // Solicited, and to override; with our address as an option (RFC 4861 section 4.4).
            let advertisement =
                [&[136, 0, 0, 0, 0x60, 0, 0, 0], &packet[48..64], &[2, 1], &NEIGHBOR[..]].concat();
            let from: [u8; 16] = packet[48..64].try_into().ok()?;
            Some(ethernet(PORT, NEIGHBOR, 0x86dd, &icmpv6(from, asker, advertisement)))
        }
        (0x86dd, _) if packet[6] == 58 && packet[40] == 128 => {
            let mut reply = packet[40..].to_vec();
            reply[0] = 129;
            let (from, to) = (packet[24..40].try_into().ok()?, packet[8..24].try_into().ok()?);
            Some(ethernet(PORT, NEIGHBOR, 0x86dd, &icmpv6(from, to, reply)))
        }
        _ => None,
    }
}

/// Writes the Internet checksum of `bytes` at `at`; `start` is the sum of what else it covers.
pub(crate) fn set_sum(bytes: &mut [u8], at: usize, start: u32) {
    bytes[at..at + 2].fill(0);
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = start + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    bytes[at..at + 2].copy_from_slice(&(!sum as u16).to_be_bytes());
}

pub(crate) fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// A packet with a TTL of 255.
pub(crate) fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = (20 + payload.len() as u16).to_be_bytes();
    let mut packet =
        [&[0x45, 0, total[0], total[1], 0, 0, 0, 0, 255, protocol, 0, 0], &from[..], &to, payload].concat();
    set_sum(&mut packet[..20], 10, 0);
    packet
}

/// A packet with a hop limit of 255; `message` is an ICMPv6 one.
pub(crate) fn icmpv6(from: [u8; 16], to: [u8; 16], mut message: Vec<u8>) -> Vec<u8> {
    let pseudo = [&from[..], &to].concat();
    let words = pseudo.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let start = words.sum::<u32>() + message.len() as u32 + 58;
    set_sum(&mut message, 2, start);
    let len = (message.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, len[0], len[1], 58, 255], &from[..], &to, &message].concat()
}

/// A ping of 10.0.0.2 to the director's own address.
pub(crate) fn echo_request(sequence: u16) -> Vec<u8> {
    let mut icmp = [&[8, 0, 0, 0, 0x12, 0x34][..], &sequence.to_be_bytes(), &[0xa5; 48]].concat();
    set_sum(&mut icmp, 2, 0);
    ethernet(PORT, NEIGHBOR, 0x0800, &ipv4([10, 0, 0, 2], [10, 0, 0, 1], 1, &icmp))
}

/// A shell line that must succeed; its standard output.
pub(crate) fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}\n{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// See the module. The interface is `p0` with 10.0.0.1/24, fd00::1/64 and routes by 10.0.0.254.
pub(crate) struct Director {
    pub(crate) wire: Arc<Wire>,
    pub(crate) exception: Exception,
    pub(crate) worker: Handle,
    _crew: Crew,
    _publisher: Publisher<Snapshot>,
}

impl Director {
    /// Starts one in the network namespace that this process is in. The worker runs on the last core there is.
    pub(crate) fn start(idle: Idle) -> Self {
        Self::start_with(idle, None)
    }

    /// The same with a real neighbour.
    pub(crate) fn start_with(idle: Idle, peer: Option<File>) -> Self {
        // Duplicate address detection and the search for routers would only delay.
        sh("sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.router_solicitations=0");
        let tap = Tap::create("p0", PORT, MTU).expect("an interface");
        sh(
            "ip addr add 10.0.0.1/24 dev p0 && ip addr add fd00::1/64 dev p0 nodad && ip route add default via 10.0.0.254",
        );
        let wire = Arc::new(Wire {
            arriving: ArrayQueue::new(1_024),
            left: ArrayQueue::new(1_024),
            load: AtomicBool::new(false),
            pings: AtomicU64::new(0),
            pace: AtomicU64::new(0),
            round_trips: ArrayQueue::new(0x1_0000),
        });
        let (mut ends, host) = path::channel(1, FRAME_ROOM).expect("descriptors");
        let (publisher, mut readers) = publish::channel(1, snapshot(), 1);
        let memory = Options { pages: PageChoice::Ordinary, numa_node: None, lock: false };
        let buffers = EXCEPTION_RING + 16 * BATCH + 1_024;
        let options = PoolOptions { buffers, room: FRAME_ROOM, memory: memory.clone() };
        let setup = Setup {
            index: 0,
            ports: vec![Station::new(wire.clone(), peer)],
            pool: Pool::new("test", options).expect("memory"),
            connections_ipv4: 8_192,
            connections_ipv6: 64,
            memory,
            snapshot: readers.remove(0),
            handoff: handoff::mesh(1).remove(0),
            exception: Some(ends.remove(0)),
            shared: Arc::new(WorkerShared::new(0)),
            seed: 1,
        };
        let core = core_affinity::get_core_ids().and_then(|cores| cores.last().copied()).expect("a core");
        let plan = Plan { core: core.id as u32, idle, setup };
        let (crew, _) = Crew::start(vec![plan], |ended| panic!("{ended:?}")).expect("a worker");
        let worker = crew.handles()[0].clone();
        let wakes = worker.clone();
        let exception = exception::start(1, vec![tap], host, move || wakes.wake()).expect("a thread");
        Self { wire, exception, worker, _crew: crew, _publisher: publisher }
    }
}

fn snapshot() -> Snapshot {
    let configuration = config::read(Path::new("test.toml"), CONFIGURATION).expect("a configuration");
    let addresses = vec![("10.0.0.1".parse().expect("an address"), 24)];
    let port = PortNetwork {
        name: "p0".into(),
        device: "p0".into(),
        mac: PORT,
        mtu: MTU,
        up: true,
        carrier: true,
        addresses,
        ..Default::default()
    };
    let network = "10.0.0.0".parse().expect("an address");
    let route = Route { network, prefix: 24, gateway: None, port: 0, metric: 0 };
    let network = Network { ports: vec![port], routes: vec![route], ..Default::default() };
    let (_, snapshot) = Prepared::new(configuration, network).expect("it can be run");
    assert_eq!(snapshot.next_hops.len(), 1);
    snapshot.next_hops[0].cell.set(NeighborState::Reachable(SERVER));
    snapshot
}

/// The multicast MAC address of an IPv6 address (RFC 2464 section 7).
pub(crate) fn multicast6(address: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = address.octets();
    [0x33, 0x33, a, b, c, d]
}
