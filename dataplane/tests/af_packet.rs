//! The `af_packet` driver on real interfaces.
//!
//! Each test starts itself again in a user and network namespace of its own, where it may do all that root may, and makes
//! pairs of virtual Ethernet interfaces there. Tests that need other machines put an interface's other end into the
//! network namespace of a child process. What the ring has to do with is tried with both kinds of it.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "support/inside.rs"]
mod inside;

use inside::inside;
use pointsman_dataplane::{
    port::{
        Frames, Port,
        af_packet::{AfPacket, Counters, Error, ReceiveRing, Settings},
        sys::poll,
    },
    steer,
};
use pointsman_hugepages::{Options, PageChoice, Pool, PoolOptions};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

fn ip(command: &str) {
    let run = Command::new("ip").args(command.split(' ')).output().expect("ip (package iproute2) starts");
    assert!(run.status.success(), "ip {command}: {}", String::from_utf8_lossy(&run.stderr));
}

/// Makes a pair of interfaces that are up and say nothing by themselves.
fn veth(one: &str, other: &str) {
    ip(&format!("link add {one} type veth peer name {other}"));
    for name in [one, other] {
        ip(&format!("link set {name} addrgenmode none"));
        ip(&format!("link set {name} up"));
    }
}

fn pool() -> Pool {
    let memory = Options { pages: PageChoice::Ordinary, ..Options::default() };
    Pool::new("test", PoolOptions { buffers: 1_024, room: 1_856, memory }).unwrap()
}

fn open(device: &str, receive_ring: ReceiveRing) -> AfPacket {
    AfPacket::open(&Settings { receive_ring, ..Settings::new(device) }).unwrap()
}

/// Does this with both kinds of receive ring, and new interfaces each time.
fn with_both_rings(test: impl Fn(ReceiveRing)) {
    for ring in [ReceiveRing::Frames, ReceiveRing::Blocks] {
        println!("{ring:?}");
        veth("va", "vb");
        test(ring);
        ip("link del va");
    }
}

/// A frame of `len` bytes of an EtherType for experiments, from here to everybody.
fn frame(len: usize, seed: u8) -> Vec<u8> {
    let mut frame = b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x88\xb5".to_vec();
    frame.extend((frame.len()..len).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed)));
    frame
}

/// Sends `list` and returns how many were accepted.
fn send(port: &mut AfPacket, pool: &mut Pool, list: &[Vec<u8>]) -> usize {
    let mut accepted = 0;
    for part in list.chunks(64) {
        let mut frames = Frames::new();
        for bytes in part {
            let mut buffer = pool.alloc().unwrap();
            assert!(buffer.copy_from(bytes));
            frames.push(buffer);
        }
        accepted += port.tx(&mut frames);
        assert!(frames.is_empty());
    }
    accepted
}

/// Receives until `count` frames have come, or none has for a while.
fn receive(port: &mut AfPacket, pool: &mut Pool, count: usize) -> Vec<Vec<u8>> {
    let mut list = Vec::new();
    while list.len() < count {
        let mut frames = Frames::new();
        if port.rx(pool, &mut frames) == 0 && !poll::wait(&[port.wait_fd().unwrap()], 500) {
            break;
        }
        list.extend(frames.iter().map(|frame| frame.data().to_vec()));
    }
    list
}

#[test]
fn frames_of_all_sizes_cross_unchanged_and_in_order() {
    if !inside("frames_of_all_sizes_cross_unchanged_and_in_order") {
        return;
    }
    with_both_rings(|ring| {
        let (mut a, mut b, mut pool) = (open("va", ring), open("vb", ring), pool());
        let sent: Vec<_> = (0..1_455).map(|n| frame(60 + n, n as u8)).collect();
        for part in sent.chunks(500) {
            assert_eq!(send(&mut a, &mut pool, part), part.len());
            assert!(receive(&mut b, &mut pool, part.len()) == part);
        }
        // And round the ring several times.
        for round in 0..100 {
            let part: Vec<_> = (0..192).map(|n| frame(60 + n, round)).collect();
            assert_eq!(send(&mut b, &mut pool, &part), part.len());
            assert!(receive(&mut a, &mut pool, part.len()) == part, "round {round}");
        }
        assert_eq!((a.rx_ring_drops(), b.rx_ring_drops()), (0, 0));
        assert_eq!(receive(&mut b, &mut pool, 1).len(), 0, "a port does not hear itself");
        assert_eq!(pool.available(), pool.capacity());
    });
}

#[test]
fn vlan_tags_that_the_kernel_strips_are_put_back() {
    if !inside("vlan_tags_that_the_kernel_strips_are_put_back") {
        return;
    }
    with_both_rings(|ring| {
        let (mut a, mut b, mut pool) = (open("va", ring), open("vb", ring), pool());
        let tagged = |tags: &[u8]| {
            let mut frame = frame(100, 1);
            frame.splice(12..12, tags.iter().copied());
            frame
        };
        let sent = [
            tagged(b"\x81\0\x60\x05"),
            tagged(b"\x88\xa8\0\x07\x81\0\x0f\xfe"),
            tagged(b"\x81\0\0\0"),
            tagged(b""),
        ];
        assert_eq!(send(&mut a, &mut pool, &sent), 4);
        assert_eq!(receive(&mut b, &mut pool, 4), sent);
    });
}

#[test]
fn a_full_receive_ring_counts_what_is_lost() {
    if !inside("a_full_receive_ring_counts_what_is_lost") {
        return;
    }
    veth("va", "vb");
    let (mut a, mut pool) = (open("va", ReceiveRing::Frames), pool());
    let rings = Settings { rx_slots: 256, receive_ring: ReceiveRing::Frames, ..Settings::new("vb") };
    let mut b = AfPacket::open(&rings).unwrap();
    let sent: Vec<_> = (0..600).map(|n| frame(60, n as u8)).collect();
    assert_eq!(send(&mut a, &mut pool, &sent), 600);
    assert_eq!(receive(&mut b, &mut pool, 600), sent[..256]);
    assert_eq!(b.rx_ring_drops(), 344);
    assert_eq!(b.rx_ring_drops(), 344, "they are counted once");
    assert_eq!(send(&mut a, &mut pool, &sent[..100]), 100);
    assert_eq!(receive(&mut b, &mut pool, 100), sent[..100]);
}

#[test]
fn a_full_ring_of_blocks_counts_what_is_lost_and_goes_on() {
    if !inside("a_full_ring_of_blocks_counts_what_is_lost_and_goes_on") {
        return;
    }
    veth("va", "vb");
    let (mut a, mut pool) = (open("va", ReceiveRing::Blocks), pool());
    // The least that there is: 1 MiB, for 655 frames of 1500 bytes with their headers (92 bytes, at multiples of 8), or
    // fewer where blocks were handed over before they were full.
    let rings = Settings { rx_slots: 64, receive_ring: ReceiveRing::Blocks, ..Settings::new("vb") };
    let mut b = AfPacket::open(&rings).unwrap();
    let sent: Vec<_> = (0..1_000).map(|n| frame(1_500, n as u8)).collect();
    let mut lost = 0;
    for round in 1..=2 {
        assert_eq!(send(&mut a, &mut pool, &sent), 1_000);
        let received = receive(&mut b, &mut pool, 1_000);
        assert!((1..=656).contains(&received.len()), "{}", received.len());
        assert!(received == sent[..received.len()]);
        lost += 1_000 - received.len() as u64;
        assert_eq!(b.rx_ring_drops(), lost);
        assert_eq!(b.rx_ring_drops(), lost, "they are counted once");
        let counters = b.counters();
        assert_eq!((counters.ring_drops, counters.ring_freezes, counters.oversize), (lost, round, 0));
        assert_eq!(send(&mut a, &mut pool, &sent[..100]), 100);
        assert!(receive(&mut b, &mut pool, 100) == sent[..100]);
    }
}

#[test]
fn a_batch_may_end_inside_of_a_block() {
    if !inside("a_batch_may_end_inside_of_a_block") {
        return;
    }
    veth("va", "vb");
    let (mut a, mut b, mut pool) = (open("va", ReceiveRing::Blocks), open("vb", ReceiveRing::Blocks), pool());
    let sent: Vec<_> = (0..200).map(|n| frame(60 + n, n as u8)).collect();
    assert_eq!(send(&mut a, &mut pool, &sent), 200);
    for part in sent.chunks(3) {
        let mut frames = Frames::new();
        // All but three places of the batch are taken.
        while frames.remaining_capacity() > part.len() {
            frames.push(pool.alloc().unwrap());
        }
        let taken = frames.len();
        while !frames.is_full() {
            let more = poll::wait(&[b.wait_fd().unwrap()], 1_000);
            assert!(more, "what is left of a block does not let a worker sleep");
            b.rx(&mut pool, &mut frames);
        }
        assert!(frames[taken..].iter().map(|frame| frame.data().to_vec()).eq(part.iter().cloned()));
    }
    assert_eq!(b.rx(&mut pool, &mut Frames::new()), 0);
    assert!(!poll::wait(&[b.wait_fd().unwrap()], 20));
}

#[test]
fn frames_wait_in_the_ring_while_no_buffer_is_free() {
    if !inside("frames_wait_in_the_ring_while_no_buffer_is_free") {
        return;
    }
    with_both_rings(|ring| {
        let (mut a, mut b, mut buffers) = (open("va", ring), open("vb", ring), pool());
        let sent: Vec<_> = (0..10).map(|n| frame(60, n)).collect();
        assert_eq!(send(&mut a, &mut buffers, &sent), 10);
        let held: Vec<_> = std::iter::from_fn(|| buffers.alloc()).collect();
        assert!(poll::wait(&[b.wait_fd().unwrap()], 1_000), "they have come");
        assert_eq!(b.rx(&mut buffers, &mut Frames::new()), 0);
        drop(held);
        assert_eq!(receive(&mut b, &mut buffers, 10), sent);
    });
}

#[test]
fn the_kernel_delivers_each_flow_to_its_owner() {
    if !inside("the_kernel_delivers_each_flow_to_its_owner") {
        return;
    }
    for workers in [2, 3, 4] {
        with_both_rings(|ring| flows_go_to_their_owners(ring, workers));
    }
}

fn flows_go_to_their_owners(receive_ring: ReceiveRing, workers: u16) {
    let (mut a, mut pool) = (open("va", receive_ring), pool());
    let open = |worker_index| {
        let settings =
            Settings { worker_index, workers, fanout_group: 7, receive_ring, ..Settings::new("vb") };
        AfPacket::open(&settings).unwrap()
    };
    let mut ports: Vec<_> = (0..workers).map(open).collect();
    let flows: Vec<_> = (0..2_000).map(flow).collect();
    for part in flows.chunks(500) {
        let frames: Vec<_> = part.iter().map(|(frame, _, _)| frame.clone()).collect();
        assert_eq!(send(&mut a, &mut pool, &frames), part.len());
    }
    for (worker, port) in ports.iter_mut().enumerate() {
        let owned = flows
            .iter()
            .filter(|(_, address, port)| usize::from(steer::owner(*address, *port, workers)) == worker);
        let owned: Vec<_> = owned.map(|(frame, _, _)| frame.clone()).collect();
        assert!(owned.len() > 1_600 / usize::from(workers));
        assert!(receive(port, &mut pool, owned.len()) == owned, "worker {worker} of {workers}");
        assert_eq!(
            port.rx(&mut pool, &mut Frames::new()),
            0,
            "worker {worker} of {workers} gets nothing else"
        );
    }
}

/// A packet of some client: the frame, and the address and the port by which its owner is found.
fn flow(n: u32) -> (Vec<u8>, u32, u16) {
    let random =
        |salt: u32| (n + 1).wrapping_mul(0x9e37_79b1).wrapping_add(salt).wrapping_mul(0x85eb_ca6b) ^ (n << 7);
    let (address, port) = (random(1), random(2) as u16);
    let protocol = [6, 17, 132, 1][n as usize % 4];
    let steered = if protocol == 1 { 0 } else { port };
    let mut frame = b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01".to_vec();
    if n.is_multiple_of(3) {
        frame.extend(*b"\x86\xdd\x60\0\0\0\0\x14");
        frame.extend([protocol, 64]);
        let words = [0x2001_0db8, random(3), random(4), address];
        words.iter().for_each(|word: &u32| frame.extend(word.to_be_bytes()));
        frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend(port.to_be_bytes());
        frame.resize(74, 0);
        // Its first and last word; its fifth group as a port.
        return (frame, words[0] ^ words[3], (words[2] >> 16) as u16 ^ steered);
    }
    // Some with options, some behind a VLAN tag, some fragments.
    let options = if n.is_multiple_of(5) { 8 } else { 0 };
    if n.is_multiple_of(7) {
        frame.extend(*b"\x81\0\0\x09");
    }
    let fragment: &[u8] = if n.is_multiple_of(11) { b"\x20\0" } else { b"\x40\0" };
    frame.extend(*b"\x08\0");
    frame.extend([0x45 + options / 4, 0, 0, 40 + options, 0, 0]);
    frame.extend(fragment);
    frame.extend([64, protocol, 0, 0]);
    frame.extend(address.to_be_bytes());
    frame.extend([198, 51, 100, 1]);
    frame.resize(frame.len() + usize::from(options), 1);
    frame.extend(port.to_be_bytes());
    frame.resize(90, 0);
    (frame, address, if n.is_multiple_of(11) { 0 } else { steered })
}

#[test]
fn a_port_tells_when_its_interface_is_set_down_and_goes_on_when_it_is_up_again() {
    if !inside("a_port_tells_when_its_interface_is_set_down_and_goes_on_when_it_is_up_again") {
        return;
    }
    with_both_rings(|ring| {
        let (mut a, mut b, mut pool) = (open("va", ring), open("vb", ring), pool());
        assert!(b.is_up());
        ip("link set vb down");
        assert!(!b.is_up());
        assert!(!poll::wait(&[b.wait_fd().unwrap()], 1), "the error does not end every wait");
        assert_eq!(send(&mut b, &mut pool, &[frame(60, 0)]), 1, "waits in the ring");
        ip("link set vb up");
        assert!(b.is_up());
        assert_eq!(send(&mut a, &mut pool, &[frame(60, 1)]), 1);
        assert_eq!(receive(&mut b, &mut pool, 1), [frame(60, 1)]);
        assert_eq!(receive(&mut a, &mut pool, 1), [frame(60, 0)], "sent by the next call of rx");
        ip("link del va");
        assert!(!b.is_up());
        veth("va", "vb");
        assert!(!b.is_up(), "another interface of the same name");
    });
}

#[test]
fn interfaces_that_cannot_be_opened_are_refused_with_the_remedy() {
    if !inside("interfaces_that_cannot_be_opened_are_refused_with_the_remedy") {
        return;
    }
    veth("va", "vb");
    let refused = |settings: &Settings| AfPacket::open(settings).unwrap_err();
    ip("link set va down");
    let error = refused(&Settings::new("va"));
    assert!(matches!(error, Error::Down { .. }));
    assert_eq!(error.to_string(), "va: the interface is down; set it up by `ip link set va up`");
    ip("link set vb mtu 9000");
    assert_eq!(
        refused(&Settings::new("vb")).to_string(),
        "vb: its MTU of 9000 is too large for buffers of 1856 bytes; lower it by `ip link set vb mtu 1834` or configure larger buffers"
    );
    ip("link set vb mtu 1500");
    // Inside a namespace that does not own the network, nobody may.
    let own = std::env::current_exe().unwrap();
    let mut nobody = Command::new("unshare");
    nobody.arg("-U").arg(own).args(["--exact", "role", "--nocapture"]).env(ROLE, "not permitted");
    let nobody = nobody.output().unwrap();
    let text = String::from_utf8_lossy(&nobody.stdout);
    assert!(text.contains("vb: opening a raw socket is not permitted; run as root, or"), "{text}");
}

/// What a child process of a test is to do.
const ROLE: &str = "POINTSMAN_TEST_ROLE";
const UPLOAD_BYTES: u32 = 10 << 20;

/// A machine of its own: a child in a network namespace, whose only interface is `device`. It ends with the value.
struct Machine(Child);

impl Machine {
    fn with(device: &str, address: &str) -> Self {
        let child = Command::new("unshare").args(["-n", "--", "sleep", "120"]).spawn().unwrap();
        let machine = Machine(child);
        let pid = machine.0.id();
        let moved = || {
            let own = std::fs::read_link("/proc/self/ns/net").unwrap();
            std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|theirs| theirs != own)
        };
        for _ in 0..1_000 {
            if moved() {
                break;
            }
            poll::wait(&[], 5);
        }
        ip(&format!("link set {device} netns {pid}"));
        for command in [format!("addr add {address} dev {device} nodad"), format!("link set {device} up")] {
            let run = machine.inside("ip").args(command.split(' ')).status().unwrap();
            assert!(run.success(), "{command}");
        }
        machine
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.0.id().to_string(), "-n", "--", program]);
        command
    }

    fn role(&self, role: &str) -> Child {
        let own = std::env::current_exe().unwrap();
        let mut command = self.inside(own.to_str().unwrap());
        command.args(["--exact", "role", "--nocapture"]).env(ROLE, role).spawn().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test: what the children of tests do.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let byte = |n: u32| (n.wrapping_mul(0x9e37_79b1) >> 24) as u8;
    match role.split_once(' ').unwrap() {
        ("not", _) => println!("{}", AfPacket::open(&Settings::new("vb")).unwrap_err()),
        ("receive", address) => {
            let mut stream = TcpListener::bind(address).unwrap().accept().unwrap().0;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len(), UPLOAD_BYTES as usize);
            assert!(bytes.iter().zip(0..).all(|(have, n)| *have == byte(n)));
            stream.write_all(b"good").unwrap();
        }
        ("upload", address) => {
            // The other side may not listen yet.
            let connect = |attempt| {
                poll::wait(&[], if attempt == 0 { 0 } else { 20 });
                TcpStream::connect(address).ok()
            };
            let mut stream = (0..500).find_map(connect).unwrap();
            stream.write_all(&(0..UPLOAD_BYTES).map(byte).collect::<Vec<_>>()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "good");
        }
        other => panic!("no such role: {other:?}"),
    }
}

/// Two machines with this between them, which passes every frame on as it comes: 10 MiB from one to the other.
fn upload_through(ring: ReceiveRing, client: &str, server: &str, address: &str) -> [Counters; 2] {
    veth("va", "client");
    veth("vb", "server");
    let client = Machine::with("client", client);
    let server = Machine::with("server", server);
    let (mut a, mut b, mut pool) = (open("va", ring), open("vb", ring), pool());
    let mut children =
        [server.role(&format!("receive {address}")), client.role(&format!("upload {address}"))];
    let mut frames = Frames::new();
    // A bound in idle waits, of a tenth of a second each.
    for _ in 0..600 {
        while a.rx(&mut pool, &mut frames)
            + b.tx(&mut frames)
            + b.rx(&mut pool, &mut frames)
            + a.tx(&mut frames)
            > 0
        {}
        let ended = children.each_mut().map(|child| child.try_wait().unwrap());
        if let [Some(server), Some(client)] = ended {
            assert!(server.success() && client.success());
            break;
        }
        poll::wait(&[a.wait_fd().unwrap(), b.wait_fd().unwrap()], 100);
    }
    for child in &mut children {
        let _ = child.kill();
        assert!(child.wait().unwrap().success());
    }
    a.rx_ring_drops();
    b.rx_ring_drops();
    for name in ["va", "vb"] {
        ip(&format!("link del {name}"));
    }
    [a.counters(), b.counters()]
}

fn an_upload_arrives_whole(client: &str, server: &str, address: &str) {
    for ring in [ReceiveRing::Frames, ReceiveRing::Blocks] {
        let [a, b] = upload_through(ring, client, server, address);
        println!("{ring:?} {a:?} {b:?}");
        assert!(a.super_frames >= 160 && a.segments >= 7_000, "{a:?}");
        assert!(b.checksums_completed > 0, "acknowledgements");
        assert_eq!(a.oversize, 0);
    }
}

#[test]
fn an_upload_with_segmentation_offload_arrives_whole_over_ipv4() {
    if inside("an_upload_with_segmentation_offload_arrives_whole_over_ipv4") {
        an_upload_arrives_whole("192.0.2.1/24", "192.0.2.2/24", "192.0.2.2:8080");
    }
}

#[test]
fn an_upload_with_segmentation_offload_arrives_whole_over_ipv6() {
    if inside("an_upload_with_segmentation_offload_arrives_whole_over_ipv6") {
        an_upload_arrives_whole("2001:db8::1/64", "2001:db8::2/64", "[2001:db8::2]:8080");
    }
}
