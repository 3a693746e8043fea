//! The packet path offline: each folder of `tests/pipeline` is a configuration, the frames that arrive, the frames that must
//! leave, and what must be counted. `tests/pipeline/make.py` makes them, by scapy and rules of its own.
//!
//! `POINTSMAN_REGENERATE=1` rewrites what leaves and what is counted with what the director did, for `git diff` to show.

use pointsman_control::{
    config::{
        compile::Compiler,
        model::{Configuration, ServiceKey},
        slots::Moment,
        toml,
    },
    kernel::{Network, PortNetwork, Route},
};
use pointsman_dataplane::{
    command::WorkerShared,
    handoff,
    limits::FRAME_ROOM,
    port::pcap::PcapPort,
    publish,
    snapshot::{NeighborState, Snapshot},
    time::Nanos,
    verdict::{Answer, DropReason},
    worker::{Setup, Worker},
};
use pointsman_hugepages::{Options, PageChoice, Pool, PoolOptions};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The port of all fixtures, as the kernel would describe it.
fn network() -> Network {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let route =
        |network, prefix| Route { network: address(network), prefix, gateway: None, port: 0, metric: 0 };
    let port = PortNetwork {
        name: "eth0".into(),
        device: "eth0".into(),
        index: 1,
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        up: true,
        carrier: true,
        addresses: vec![(address("192.168.10.1"), 24), (address("fd00:10::1"), 64)],
    };
    Network {
        ports: vec![port],
        routes: vec![route("192.168.10.0", 24), route("fd00:10::", 64)],
        host_addresses: vec![address("192.168.10.1"), address("fd00:10::1")],
        ..Network::default()
    }
}

/// A neighbour's MAC address is 02:00 and the last four bytes of its IP address.
fn mac(address: IpAddr) -> [u8; 6] {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut mac = [2, 0, 0, 0, 0, 0];
    mac[2..].copy_from_slice(&octets[octets.len() - 4..]);
    mac
}

/// Runs a worker over the frames of `folder`, which writes those that leave to `out`, and returns what was counted.
fn run(folder: &Path, out: &Path) -> String {
    let path = folder.join("pointsman.toml");
    let text = fs::read_to_string(&path).expect("a fixture has a configuration");
    let configuration = toml::read(&path, &text).unwrap_or_else(|errors| panic!("{errors}"));
    let at = Moment { now: Nanos(0), generation: 1, seen: 0 };
    let snapshot = Compiler::default().compile(&configuration, &network(), at);
    for hop in snapshot.next_hops.iter() {
        hop.cell.set(NeighborState::Reachable(mac(hop.address)));
    }
    let slots = slots(&configuration, &snapshot);
    let shared_counts: Vec<_> =
        snapshot.destinations.iter().map(|destination| destination.shared.clone()).collect();
    let (_publisher, mut readers) = publish::channel(1, snapshot, 1);
    let memory = Options { pages: PageChoice::Ordinary, numa_node: None, lock: false };
    let pool = PoolOptions { buffers: 256, room: FRAME_ROOM, memory: memory.clone() };
    let shared = Arc::new(WorkerShared::new(0));
    let port =
        PcapPort::open(Some(&folder.join("in.pcap")), Some(out)).unwrap_or_else(|error| panic!("{error}"));
    let mut worker = Worker::new(Setup {
        index: 0,
        ports: vec![port],
        pool: Pool::new("frames of a fixture", pool).expect("memory for frames"),
        connections_ipv4: 1024,
        connections_ipv6: 1024,
        memory,
        snapshot: readers.remove(0),
        handoff: handoff::mesh(1).remove(0),
        exception: None,
        shared: shared.clone(),
        seed: 1,
    })
    .expect("memory for tables");
    for _ in 0..10_000 {
        worker.poll(Nanos::from_secs(1));
        if worker.ports_mut()[0].is_done() {
            break;
        }
    }
    let nothing = PcapPort::open(None, None).expect("a port without captures");
    let port = std::mem::replace(&mut worker.ports_mut()[0], nothing);
    port.finish().unwrap_or_else(|error| panic!("{error}"));
    let mut lines = counters(&shared);
    for (line, slot) in slots {
        let (traffic, counts) = (&shared.stats.destinations[slot], &shared_counts[slot]);
        lines.push(format!(
            "{line} connections {} packets {} bytes {} active {} inactive {}",
            traffic.connections.get(),
            traffic.packets_in.get(),
            traffic.bytes_in.get(),
            counts.active(),
            counts.inactive()
        ));
    }
    lines.join("\n") + "\n"
}

/// The servers as lines begin with them, in order, and their slots.
fn slots(configuration: &Configuration, snapshot: &Snapshot) -> Vec<(String, usize)> {
    let mut slots = Vec::new();
    for (service, compiled) in configuration.services.iter().zip(&snapshot.services) {
        let ServiceKey::Address { protocol, address, port } = service.key else { continue };
        // Schedulers list from the last one added to the first.
        for (server, candidate) in service.servers.iter().zip(compiled.scheduler.candidates().iter().rev()) {
            let order = (protocol as u8, address.to_string(), port, server.address.to_string());
            let protocol = if protocol as u8 == 6 { "tcp" } else { "udp" };
            let (at, to) = (SocketAddr::new(address, port), SocketAddr::new(server.address, server.port));
            slots.push((order, format!("{protocol} {at} -> {to}"), candidate.slot as usize));
        }
    }
    slots.sort();
    slots.into_iter().map(|(_, line, slot)| (line, slot)).collect()
}

/// What was counted at all, by name.
fn counters(shared: &WorkerShared) -> Vec<String> {
    let stats = &shared.stats;
    let mut all = vec![
        ("packets".to_owned(), stats.packets.get()),
        ("forwarded".to_owned(), stats.forwarded.get()),
        ("punted".to_owned(), stats.punted.get()),
        ("handed_off".to_owned(), stats.handed_off.get()),
        ("connections_created".to_owned(), stats.connections_created.get()),
        ("connections_expired".to_owned(), stats.connections_expired.get()),
        ("connections_evicted".to_owned(), stats.connections_evicted.get()),
    ];
    all.extend(
        Answer::ALL.iter().map(|answer| (format!("answers.{answer}"), stats.answers[*answer as usize].get())),
    );
    all.extend(
        DropReason::ALL.iter().map(|reason| (format!("drops.{reason}"), stats.drops[*reason as usize].get())),
    );
    all.retain(|(_, count)| *count > 0);
    all.sort();
    all.iter().map(|(name, count)| format!("{name} {count}")).collect()
}

/// The frames of a capture, of either resolution of time, in the byte order of this machine's tools: little-endian.
fn frames(capture: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(capture).unwrap_or_else(|error| panic!("{}: {error}", capture.display()));
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    assert!([0xa1b2_c3d4, 0xa1b2_3c4d].contains(&word(0)), "{}: a little-endian capture", capture.display());
    let (mut at, mut frames) = (24, Vec::new());
    while at < bytes.len() {
        let len = word(at + 8) as usize;
        frames.push(bytes[at + 16..at + 16 + len].to_vec());
        at += 16 + len;
    }
    frames
}

fn hex(frame: Option<&Vec<u8>>) -> String {
    frame.map_or("nothing".into(), |frame| frame.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What differs between what left and what must leave.
fn difference(out: &[Vec<u8>], expected: &[Vec<u8>]) -> Option<String> {
    let first = (0..out.len().max(expected.len())).find(|n| out.get(*n) != expected.get(*n))?;
    let (left, must) = (hex(out.get(first)), hex(expected.get(first)));
    Some(format!(
        "frame {} (of {}, {} must leave)\n  left: {left}\n  must: {must}",
        first + 1,
        out.len(),
        expected.len()
    ))
}

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipeline");
    let entries = fs::read_dir(&root).expect("the folder of fixtures");
    let mut folders: Vec<_> =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

#[test]
fn every_fixture_gives_the_frames_and_the_counters_that_it_names() {
    let regenerate = std::env::var_os("POINTSMAN_REGENERATE").is_some();
    let mut wrong = Vec::new();
    let folders = folders();
    assert!(folders.len() >= 8, "the fixtures are there: {folders:?}");
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.pcap"));
        let counted = run(&folder, &out);
        let difference = difference(&frames(&out), &frames(&folder.join("out.pcap")));
        if regenerate {
            if difference.is_some() {
                fs::copy(&out, folder.join("out.pcap")).expect("out.pcap can be written");
            }
            fs::write(folder.join("counters.txt"), &counted).expect("counters.txt can be written");
            continue;
        }
        wrong.extend(difference.map(|text| format!("{name}: {text}")));
        let must = fs::read_to_string(folder.join("counters.txt")).expect("a fixture has counters");
        if counted != must {
            wrong.push(format!("{name}: counted\n{counted}\nbut must count\n{must}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
