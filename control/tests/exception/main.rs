//! The exception path against the real kernel: an interface, the thread that serves it, and a worker on a thread of its
//! own. Each test runs in a network namespace of its own.

#[path = "../../../dataplane/tests/support/inside.rs"]
mod inside;
mod station;

use inside::inside;
use pointsman_control::{
    config::model::Idle,
    exception::{self, Error, Tap},
};
use pointsman_dataplane::{
    exception as path,
    port::sys::{poll, tap},
};
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketType, ipproto, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use station::{
    Director, GATEWAY, NEIGHBOR, PORT, echo_request, ethernet, icmpv6, ipv4, multicast6, set_sum, sh,
};
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    num::NonZeroU32,
    os::fd::{AsFd, AsRawFd},
    process::{Child, Command, Stdio},
    sync::atomic::Ordering::Relaxed,
    thread,
    time::Duration,
};

/// VRRP (RFC 9568 section 5.1.1.4).
const VRRP: u8 = 112;

/// Waits until `done`, 10 seconds at most.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("not within 10 seconds: {what}");
}

/// The host sends pings, one every `millis`, and each comes back once, however late.
fn host_pings(to: &str, count: u16, millis: u64, len: usize) {
    let to: IpAddr = to.parse().expect("an address");
    let (family, protocol, request, reply, header) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0, 20),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129, 0),
    };
    let socket = net::socket(family, SocketType::RAW, Some(protocol)).expect("a raw socket");
    let mut answered = Vec::new();
    let mut take = |wait: u32| {
        let mut heard = [0; 2_048];
        while answered.len() < usize::from(count) && poll::wait(&[socket.as_raw_fd()], wait) {
            let (_, got) = net::recv(&socket, &mut heard[..], RecvFlags::empty()).expect("what waits");
            let message = &heard[header..got];
            if message[0] == reply && message[4..6] == [0x77, 0x77] {
                assert_eq!(message.len(), 8 + len);
                answered.push(u16::from_be_bytes([message[6], message[7]]));
            }
        }
    };
    for sequence in 0..count {
        let mut message =
            [&[request, 0, 0, 0, 0x77, 0x77][..], &sequence.to_be_bytes(), &vec![0x5a; len]].concat();
        // Of ICMPv6 it is the kernel's business.
        set_sum(&mut message, 2, 0);
        net::sendto(&socket, &message, SendFlags::empty(), &SocketAddr::from((to, 0))).expect("a route");
        take(0);
        thread::sleep(Duration::from_millis(millis));
    }
    take(10_000);
    assert_eq!(answered, (0..count).collect::<Vec<_>>(), "pings of {to}");
}

impl Director {
    /// Waits for a frame of the host that has left and is as `wanted`.
    fn leaves(&self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut found = None;
        until(what, || {
            while found.is_none()
                && let Some(frame) = self.wire.left.pop()
            {
                found = wanted(&frame).then_some(frame);
            }
            found.is_some()
        });
        found.expect("it was found")
    }

    fn arrives(&self, frame: Vec<u8>) {
        assert!(self.wire.arriving.push(frame).is_ok());
    }
}

#[test]
fn the_host_reaches_its_neighbors_and_what_is_behind_a_gateway() {
    if !inside("the_host_reaches_its_neighbors_and_what_is_behind_a_gateway") {
        return;
    }
    // A worker that sleeps is woken for what the host sends.
    for idle in [Idle::Sleep, Idle::Poll] {
        let director = Director::start(idle);
        host_pings("10.0.0.2", 20, 10, 56);
        host_pings("10.0.0.2", 5, 10, 1_472);
        host_pings("fd00::2", 5, 10, 56);
        while director.wire.left.pop().is_some() {}
        host_pings("198.51.100.7", 5, 10, 56);
        let ping =
            director.leaves("a ping to the far host", |frame| frame.get(30..34) == Some(&[198, 51, 100, 7]));
        assert_eq!((&ping[..6], &ping[6..12]), (&GATEWAY[..], &PORT[..]));
        let counters = &director.exception.counters()[0];
        assert!(counters.from_host.get() >= 35 && counters.to_host.get() >= 35, "{counters:?}");
        assert_eq!((counters.refused.get(), counters.too_long.get()), (0, 0));
        let punted = &director.worker.shared.stats.punted;
        until("the host has taken all that is its own", || punted.get() == counters.to_host.get());
        drop(director);
        assert!(!sh("ip -o link show").contains("p0"), "the interface goes with the path");
    }
}

#[test]
fn the_kernel_answers_for_the_directors_own_addresses() {
    if !inside("the_kernel_answers_for_the_directors_own_addresses") {
        return;
    }
    let director = Director::start(Idle::Sleep);
    let asks = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &NEIGHBOR, &[10, 0, 0, 2], &[0; 6], &[10, 0, 0, 1]].concat();
    director.arrives(ethernet([0xff; 6], NEIGHBOR, 0x0806, &asks));
    let reply = director.leaves("an ARP reply", |frame| frame[12..14] == [8, 6] && frame[21] == 2);
    // Its sender is the port, with the director's own address.
    assert_eq!((&reply[..6], &reply[6..12], &reply[22..28]), (&NEIGHBOR[..], &PORT[..], &PORT[..]));
    assert_eq!(reply[28..32], [10, 0, 0, 1]);

    let (own, neighbor): (Ipv6Addr, Ipv6Addr) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    let group: Ipv6Addr = "ff02::1:ff00:1".parse().unwrap();
    let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0], &own.octets()[..], &[1, 1], &NEIGHBOR].concat();
    let packet = icmpv6(neighbor.octets(), group.octets(), solicitation);
    director.arrives(ethernet(multicast6(group), NEIGHBOR, 0x86dd, &packet));
    let reply =
        director.leaves("an advertisement", |frame| frame[12..14] == [0x86, 0xdd] && frame[54] == 136);
    assert_eq!((&reply[..6], &reply[62..78]), (&NEIGHBOR[..], &own.octets()[..]));

    for sequence in 1..=20 {
        director.arrives(echo_request(sequence));
        let reply = director.leaves("an echo reply", |frame| frame[12..14] == [8, 0] && frame[34] == 0);
        assert_eq!(reply[..6], NEIGHBOR);
        assert_eq!(reply[40..42], sequence.to_be_bytes());
    }
    // One for a station that is not us leaves the host alone.
    let before = director.exception.counters()[0].to_host.get();
    let mut strange = echo_request(1);
    strange[..6].copy_from_slice(&NEIGHBOR);
    director.arrives(strange);
    director.arrives(echo_request(2));
    director.leaves("an echo reply", |frame| frame[12..14] == [8, 0] && frame[34] == 0);
    assert_eq!(director.exception.counters()[0].to_host.get(), before + 1);
}

#[test]
fn vrrp_advertisements_reach_a_raw_socket_and_leave_by_it() {
    if !inside("vrrp_advertisements_reach_a_raw_socket_and_leave_by_it") {
        return;
    }
    // Of a worker that has no moment without balanced packets, too.
    for (idle, load) in [(Idle::Sleep, false), (Idle::Poll, true)] {
        let director = Director::start(idle);
        director.wire.load.store(load, Relaxed);
        advertise_and_listen(&director);
        advertise_and_listen_by_ipv6(&director);
    }
}

/// Version 3, VRID 7, priority 200, one address, every second: what it says is no business of the path.
const SAID: [u8; 12] = [0x31, 7, 200, 1, 0, 100, 0, 0, 10, 0, 0, 100];

fn advertise_and_listen(director: &Director) {
    let protocol = NonZeroU32::new(VRRP.into()).map(Protocol::from_raw);
    let socket = net::socket(AddressFamily::INET, SocketType::RAW, protocol).expect("a raw socket for VRRP");
    let (group, own) = (Ipv4Addr::new(224, 0, 0, 18), Ipv4Addr::new(10, 0, 0, 1));
    sockopt::set_ip_add_membership(&socket, &group, &own).expect("IP_ADD_MEMBERSHIP");
    sockopt::set_ip_multicast_if(&socket, &own).expect("IP_MULTICAST_IF");
    sockopt::set_ip_multicast_ttl(&socket, 255).expect("IP_MULTICAST_TTL");
    let packet = ipv4([10, 0, 0, 2], group.octets(), VRRP, &SAID);
    director.arrives(ethernet([1, 0, 0x5e, 0, 0, 0x12], NEIGHBOR, 0x0800, &packet));
    assert!(poll::wait(&[socket.as_raw_fd()], 10_000), "nothing has reached the socket");
    let mut heard = [0; 64];
    let (_, len) = net::recv(&socket, &mut heard[..], RecvFlags::empty()).expect("recv of the advertisement");
    assert_eq!(heard[..len], packet);

    net::sendto(&socket, &SAID, SendFlags::empty(), &SocketAddr::from((group, 0))).expect("sendto the group");
    let left = director.leaves("an advertisement", |frame| frame[12..14] == [8, 0] && frame[23] == VRRP);
    assert_eq!((&left[..6], &left[6..12]), (&[1, 0, 0x5e, 0, 0, 0x12][..], &PORT[..]));
    assert_eq!((left[22], &left[26..34], &left[34..46]), (255, &[10, 0, 0, 1, 224, 0, 0, 18][..], &SAID[..]));
}

fn advertise_and_listen_by_ipv6(director: &Director) {
    let mut heard = [0; 64];
    let protocol = Some(ipproto::ICMPV6).and(NonZeroU32::new(VRRP.into()).map(Protocol::from_raw));
    let socket =
        net::socket(AddressFamily::INET6, SocketType::RAW, protocol).expect("a raw socket for VRRP by IPv6");
    let group: Ipv6Addr = "ff02::12".parse().expect("an address");
    let shown = sh("ip -o link show p0");
    let index = shown.split(':').next().and_then(|number| number.parse().ok()).expect("the number of p0");
    sockopt::set_ipv6_add_membership(&socket, &group, index).expect("IPV6_ADD_MEMBERSHIP");
    let mut packet =
        icmpv6("fe80::2".parse::<Ipv6Addr>().expect("an address").octets(), group.octets(), SAID.to_vec());
    packet[6] = VRRP;
    director.arrives(ethernet([0x33, 0x33, 0, 0, 0, 0x12], NEIGHBOR, 0x86dd, &packet));
    assert!(poll::wait(&[socket.as_raw_fd()], 10_000), "nothing has reached the socket");
    let (_, len) = net::recv(&socket, &mut heard[..], RecvFlags::empty()).expect("recv of the advertisement");
    assert_eq!(heard[..len], packet[40..]);
}

#[test]
fn the_interface_is_the_ports_and_ends_with_it() {
    if !inside("the_interface_is_the_ports_and_ends_with_it") {
        return;
    }
    let tap = Tap::create("north-0", [2, 0, 0, 0, 0x77, 1], 9_000).unwrap();
    let link = sh("ip -o link show north-0");
    assert!(
        link.contains("mtu 9000") && link.contains("02:00:00:00:77:01") && link.contains(",UP"),
        "{link}"
    );
    assert_eq!(tap.name(), "north-0");
    let (_, host) = path::channel::<pointsman_hugepages::Buffer>(1, 9_022).unwrap();
    let running = exception::start(1, vec![tap], host, || ()).unwrap();
    let no_carrier = || sh("ip -o link show north-0").contains("NO-CARRIER");
    assert!(!no_carrier());
    running.set_carrier(0, false);
    assert!(no_carrier());
    running.set_carrier(0, true);
    assert!(!no_carrier());
    // There is no such port.
    running.set_carrier(1, false);
    drop(running);
    assert!(!sh("ip -o link show").contains("north-0"));
}

#[test]
fn an_interface_that_cannot_be_made_is_explained() {
    if !inside("an_interface_that_cannot_be_made_is_explained") {
        return;
    }
    let mac = [2, 0, 0, 0, 0, 1];
    let create = |name: &str| Tap::create(name, mac, 1_500);
    for name in ["", ".", "..", "sixteen-bytes-ab", "a b", "a/b", "a:b", "tap%d", "a\0"] {
        let error = create(name).unwrap_err();
        assert!(matches!(&error, Error::Name(given) if given == name), "{error}");
    }
    assert!(create("fifteen-bytes-a").is_ok());
    let first = create("p0").unwrap();
    for name in ["p0", "lo"] {
        let error = create(name).unwrap_err().to_string();
        assert!(error.starts_with(&format!("another interface is named {name}: ")), "{error}");
    }
    drop(first);
    let said = |mac, mtu| Tap::create("p0", mac, mtu).unwrap_err().to_string();
    let multicast = said([1, 0, 0, 0, 0, 1], 1_500);
    let start = "the kernel does not take the MAC address 01:00:00:00:00:01 for the interface p0: ";
    assert!(multicast.starts_with(start), "{multicast}");
    assert!(said(mac, 60).starts_with("the kernel does not take an MTU of 60 for the interface p0: "));
    assert!(!sh("ip -o link show").contains("p0"), "nothing is left of them");
    let (_, host) = path::channel::<pointsman_hugepages::Buffer>(1, 1_856).unwrap();
    let error = exception::start(1, vec![Tap::create("p0", mac, 9_000).unwrap()], host, || ()).unwrap_err();
    let expected = "the interface p0 has an MTU of 9000, whose frames do not fit into buffers of 1856 bytes; lower the port's `mtu`";
    assert_eq!(error.to_string(), expected);
    sh("mount -t tmpfs none /dev/net");
    assert!(
        create("p1")
            .unwrap_err()
            .to_string()
            .starts_with("/dev/net/tun is not there: load the kernel's module")
    );
}

#[test]
fn without_rights_the_capability_is_named() {
    const INSIDE: &str = "POINTSMAN_TEST_WITHOUT_RIGHTS";
    if std::env::var_os(INSIDE).is_some() {
        let error = Tap::create("p0", [2, 0, 0, 0, 0, 1], 1_500).unwrap_err().to_string();
        assert!(error.starts_with("the capability CAP_NET_ADMIN is missing"), "{error}");
        return;
    }
    // Nobody in a user namespace: the process has no capability that the network namespace knows.
    let own = std::env::current_exe().expect("this test is a program");
    let mut run = Command::new("unshare");
    run.arg("-U").arg(own).args(["--exact", "without_rights_the_capability_is_named"]).env(INSIDE, "1");
    let output = run.output().expect("unshare (package util-linux) starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn what_a_worker_cannot_take_yet_waits_in_the_kernel() {
    if !inside("what_a_worker_cannot_take_yet_waits_in_the_kernel") {
        return;
    }
    sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    let tap = Tap::create("p0", PORT, 1_500).unwrap();
    sh("ip addr add 10.0.0.1/24 dev p0 && ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev p0");
    let (mut ends, host) = path::channel::<pointsman_hugepages::Buffer>(1, 1_856).unwrap();
    let running = exception::start(1, vec![tap], host, || ()).unwrap();
    let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
    let send = |numbers: std::ops::Range<u32>| {
        for n in numbers {
            socket.send_to(&n.to_be_bytes(), "10.0.0.2:9").unwrap();
        }
    };
    let counters = running.counters();
    send(0..256);
    until("the buffers are full", || counters[0].from_host.get() == 256);
    // The interface holds 500 frames at most.
    send(256..656);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(counters[0].from_host.get(), 256);
    let mut numbers = Vec::new();
    until("all frames have come", || {
        while let Some(frame) = ends[0].pop() {
            numbers.push(u32::from_be_bytes(frame.data()[42..46].try_into().unwrap()));
            ends[0].give_back(frame);
        }
        numbers.len() >= 656
    });
    assert_eq!(numbers, (0..656).collect::<Vec<_>>());
}

#[test]
fn frames_longer_than_the_mtu_that_the_port_began_with_are_lost_and_counted() {
    if !inside("frames_longer_than_the_mtu_that_the_port_began_with_are_lost_and_counted") {
        return;
    }
    let director = Director::start(Idle::Sleep);
    sh("ping -q -c 1 -w 10 10.0.0.2 && ip link set p0 mtu 9000");
    let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
    // Buffers have 1856 bytes, of which the headers take 42.
    for len in [1_814, 1_815, 4_000, 1_814] {
        socket.send_to(&vec![7; len], "10.0.0.2:9").unwrap();
    }
    for _ in 0..2 {
        assert_eq!(
            director.leaves("a datagram", |frame| frame[12..14] == [8, 0] && frame[23] == 17).len(),
            1_856
        );
    }
    assert_eq!(director.exception.counters()[0].too_long.get(), 2);
}

#[test]
fn an_interface_that_was_taken_away_or_set_down_costs_its_own_frames_only() {
    if !inside("an_interface_that_was_taken_away_or_set_down_costs_its_own_frames_only") {
        return;
    }
    let director = Director::start(Idle::Sleep);
    let counters = director.exception.counters();
    sh("ping -q -c 1 -w 10 10.0.0.2 && ip link set p0 down");
    director.arrives(echo_request(1));
    until("it is refused", || counters[0].refused.get() == 1);
    sh("ip link set p0 up && ping -q -c 1 -w 10 10.0.0.2 && ip link del p0");
    director.arrives(echo_request(2));
    until("it is refused", || counters[0].refused.get() == 2);
    // The thread sleeps: it is not kept awake by what is gone.
    let time = || -> u64 {
        let of_thread = sh("cat /proc/$PPID/task/*/stat | grep '(exception)'");
        let numbers: Vec<&str> = of_thread.rsplit(')').next().unwrap().split_whitespace().collect();
        // The 14th and 15th field: hundredths of seconds in user and system mode.
        numbers[11..13].iter().map(|number| number.parse::<u64>().unwrap()).sum()
    };
    let before = time();
    thread::sleep(Duration::from_millis(500));
    assert!(time() - before < 10, "it does not rest");
}

#[test]
fn pings_come_back_while_the_worker_has_no_moment_without_balanced_packets() {
    if !inside("pings_come_back_while_the_worker_has_no_moment_without_balanced_packets") {
        return;
    }
    let director = Director::start(Idle::Poll);
    let (wire, stats) = (&director.wire, &director.worker.shared.stats);
    wire.load.store(true, Relaxed);
    until("the clients are served", || stats.forwarded.get() > 1_000_000);
    let before = (stats.polls.get(), stats.empty_polls.get(), stats.forwarded.get());
    // From the wire, and from the host, at once.
    wire.pace.store(2_000_000, Relaxed);
    wire.pings.store(500, Relaxed);
    host_pings("10.0.0.2", 200, 5, 56);
    until("all pings have come back", || wire.round_trips.len() == 500);
    let (polls, forwarded) = (stats.polls.get() - before.0, stats.forwarded.get() - before.2);
    assert_eq!(stats.empty_polls.get() - before.1, 0, "of {polls} polls");
    assert!(forwarded > 50 * polls, "{forwarded} packets in {polls} polls: the batches were not full");
    let drops: Vec<u64> =
        stats.drops.iter().map(|counter| counter.get()).filter(|count| *count > 0).collect();
    assert_eq!(drops, [] as [u64; 0]);
}

/// A process in a network namespace of its own. It ends with this, at the latest with this process: its input ends then.
struct Namespace(Child);

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn tcp_works_while_the_worker_has_no_moment_without_balanced_packets() {
    if !inside("tcp_works_while_the_worker_has_no_moment_without_balanced_packets") {
        return;
    }
    // A real neighbour: another interface, in another network namespace.
    let peer = tap::create("c0").unwrap();
    tap::set_mac("c0", NEIGHBOR).unwrap();
    let mut other = Command::new("unshare");
    let other =
        Namespace(other.args(["-n", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    let id = other.0.id();
    let namespace = |id: &str| std::fs::read_link(format!("/proc/{id}/ns/net")).unwrap();
    until("the other namespace is there", || namespace(&id.to_string()) != namespace("self"));
    sh(&format!("ip link set c0 netns {id}"));
    sh(&format!("nsenter -t {id} -n sh -c 'ip addr add 10.0.0.2/24 dev c0 && ip link set c0 up'"));
    let director = Director::start_with(Idle::Poll, Some(peer));
    let stats = &director.worker.shared.stats;
    director.wire.load.store(true, Relaxed);
    until("the clients are served", || stats.forwarded.get() > 100_000);
    let (polls, empty) = (stats.polls.get(), stats.empty_polls.get());

    let listener = TcpListener::bind("10.0.0.1:7").unwrap();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n * 7 / 5) as u8).collect();
    let client = sent.clone();
    let client = thread::spawn(move || {
        let there = std::fs::File::open(format!("/proc/{id}/ns/net")).unwrap();
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let mut stream = TcpStream::connect("10.0.0.1:7").unwrap();
        stream.write_all(&client).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        back
    });
    let (mut stream, from) = listener.accept().unwrap();
    assert_eq!(from.ip().to_string(), "10.0.0.2");
    let mut arrived = Vec::new();
    stream.read_to_end(&mut arrived).unwrap();
    stream.write_all(&arrived).unwrap();
    drop(stream);
    assert!(client.join().unwrap() == sent && arrived == sent);
    assert!(stats.polls.get() > polls + 50);
    assert_eq!(stats.empty_polls.get(), empty);
}
