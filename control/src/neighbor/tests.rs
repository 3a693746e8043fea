//! Every frame here was made by scapy 2.5.0, not by this crate.

use super::*;

/// Who has 192.168.50.11? To all.
const ASK: &str = "\
    ffffffffffff0200000000d1080600010800060400010200000000d1c0a83201000000000000c0a8320b";

/// The same, to 02:00:00:00:00:0b.
const ASK_ONE: &str = "\
    02000000000b0200000000d1080600010800060400010200000000d1c0a83201000000000000c0a8320b";

/// The reply of 02:00:00:00:00:0b.
const ANSWER: &str = "\
    0200000000d102000000000b0806000108000604000202000000000bc0a8320b0200000000d1c0a83201";

/// That of 02:00:00:00:00:2b.
const ANSWER_OTHER: &str = "\
    0200000000d102000000002b0806000108000604000202000000002bc0a8320b0200000000d1c0a83201";

/// 02:00:00:00:00:2b announces that it has 192.168.50.11.
const GRATUITOUS_OTHER: &str = "\
    ffffffffffff02000000002b0806000108000604000102000000002bc0a8320bffffffffffffc0a8320b";

/// 02:00:00:00:00:0b asks for us.
const REQUEST: &str = "\
    ffffffffffff02000000000b0806000108000604000102000000000bc0a8320b000000000000c0a83201";

/// Who has fd00:50::11? To its solicited-node group.
const ASK6: &str = "\
    3333ff0000110200000000d186dd6000000000203afffd000050000000000000000000000001ff020000000000000000\
    0001ff00001187007c0900000000fd00005000000000000000000000001101010200000000d1";

/// The same, to 02:00:00:00:00:0b.
const ASK6_ONE: &str = "\
    02000000000b0200000000d186dd6000000000203afffd000050000000000000000000000001fd000050000000000000\
    00000000001187007cbd00000000fd00005000000000000000000000001101010200000000d1";

/// The advertisement of 02:00:00:00:00:0b: solicited, override.
const ANSWER6: &str = "\
    0200000000d102000000000b86dd6000000000203afffd000050000000000000000000000011fd000050000000000000\
    00000000000188001b8360000000fd000050000000000000000000000011020102000000000b";

/// The same without a link-layer option and without override.
const ANSWER6_BARE: &str = "\
    0200000000d102000000000b86dd6000000000183afffd000050000000000000000000000011fd000050000000000000\
    00000000000188003f9740000000fd000050000000000000000000000011";

/// The same as ANSWER6, with a hop limit of 254.
const ANSWER6_ROUTED: &str = "\
    0200000000d102000000000b86dd6000000000203afefd000050000000000000000000000011fd000050000000000000\
    00000000000188001b8360000000fd000050000000000000000000000011020102000000000b";

/// 02:00:00:00:00:2b advertises itself to all nodes without override.
const WEAK6_OTHER: &str = "\
    33330000000102000000002b86dd6000000000203afffd000050000000000000000000000011ff020000000000000000\
    000000000001880079b100000000fd000050000000000000000000000011020102000000002b";

/// The same with override.
const STRONG6_OTHER: &str = "\
    33330000000102000000002b86dd6000000000203afffd000050000000000000000000000011ff020000000000000000\
    000000000001880059b120000000fd000050000000000000000000000011020102000000002b";

/// 02:00:00:00:00:0b solicits us.
const REQUEST6: &str = "\
    3333ff00000102000000000b86dd6000000000203afffd000050000000000000000000000011ff020000000000000000\
    0001ff00000187007cdf00000000fd000050000000000000000000000001010102000000000b";

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digit).collect()
}

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xd1];
const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0x2b];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal address")
}

/// A next hop behind port 1, in a cell of its own.
fn hop(address: IpAddr) -> NextHop {
    NextHop { address, port: 1, mtu: 1500, source: MAC, cell: Arc::default() }
}

fn ms(millis: u64) -> Nanos {
    Nanos::from_millis(millis)
}

/// Ports 0 (nothing of interest) and 1, behind which the server is.
fn ports() -> Vec<PortAddresses> {
    let outside = PortAddresses { mac: [2, 0, 0, 0, 0, 0xd0], addresses: vec![(ip("10.0.0.1"), 24)] };
    let inside = PortAddresses {
        mac: MAC,
        addresses: vec![
            (ip("172.16.0.1"), 12),
            (ip("192.168.50.1"), 24),
            (ip("fe80::d1"), 64),
            (ip("fd00:50::1"), 64),
        ],
    };
    vec![outside, inside]
}

/// One wanted neighbour, and what a worker sees of it.
struct Bench {
    neighbors: Neighbors,
    cell: Arc<NeighborCell>,
}

impl Bench {
    fn wanting(address: &str) -> Bench {
        let cell = Arc::new(NeighborCell::default());
        let mut neighbors = Neighbors::new(ports());
        let hop = NextHop { cell: Arc::clone(&cell), ..hop(ip(address)) };
        neighbors.want(ms(0), &[hop]);
        Bench { neighbors, cell }
    }

    /// Wanted and answered at 0.
    fn reachable(address: &str, answer: &str) -> Bench {
        let mut bench = Bench::wanting(address);
        bench.run_to(0);
        bench.hear(0, answer);
        assert_eq!(bench.cell.get(), NeighborState::Reachable(SERVER));
        bench
    }

    fn hear(&mut self, at: u64, frame: &str) {
        self.neighbors.handle_frame(ms(at), 1, &bytes(frame));
    }

    fn state(&self) -> State {
        self.neighbors.states().next().expect("one neighbour").state
    }

    /// Lets time pass up to `end` and tells what was sent when, in milliseconds.
    fn run_to(&mut self, end: u64) -> Vec<(u64, Vec<u8>)> {
        let mut sent = Vec::new();
        for _ in 0..1_000 {
            let Some(due) = self.neighbors.poll_timeout().filter(|due| *due <= ms(end)) else {
                return sent;
            };
            self.neighbors.handle_timeout(due);
            while let Some(transmit) = self.neighbors.poll_transmit() {
                assert_eq!(transmit.port, 1);
                sent.push((due.0 / 1_000_000, transmit.frame.into_vec()));
            }
        }
        panic!("the timers do not end");
    }

    /// The times at which `frame` and nothing else was sent.
    fn times_to(&mut self, end: u64, frame: &str) -> Vec<u64> {
        let frame = bytes(frame);
        let time = |(at, sent): (u64, Vec<u8>)| {
            assert_eq!(sent, frame);
            at
        };
        self.run_to(end).into_iter().map(time).collect()
    }
}

#[test]
fn a_silent_neighbour_fails_after_three_probes_and_is_asked_again_and_again() {
    for (address, question) in [("192.168.50.11", ASK), ("fd00:50::11", ASK6)] {
        let mut bench = Bench::wanting(address);
        assert_eq!(bench.times_to(2_999, question), [0, 1_000, 2_000]);
        assert_eq!((bench.cell.get(), bench.state()), (NeighborState::Incomplete, State::Incomplete));
        assert_eq!(bench.times_to(3_000, question), [3_000]);
        assert_eq!((bench.cell.get(), bench.state()), (NeighborState::Failed, State::Failed));
        let again = [4_000, 6_000, 9_000, 13_000, 18_000, 23_000, 28_000];
        assert_eq!(bench.times_to(28_000, question), again);
    }
}

#[test]
fn an_answer_makes_a_neighbour_reachable_at_once_also_after_it_failed() {
    let cases = [("192.168.50.11", ANSWER), ("fd00:50::11", ANSWER6)];
    for (address, answer) in cases {
        let bench = Bench::reachable(address, answer);
        assert_eq!(bench.state(), State::Reachable);
        assert_eq!(bench.neighbors.poll_timeout(), Some(ms(15_000)));
        let mut bench = Bench::wanting(address);
        bench.run_to(5_000);
        assert_eq!(bench.cell.get(), NeighborState::Failed);
        bench.hear(5_500, answer);
        assert_eq!(bench.cell.get(), NeighborState::Reachable(SERVER));
        assert_eq!(bench.neighbors.poll_timeout(), Some(ms(20_500)));
    }
}

#[test]
fn a_reachable_neighbour_is_confirmed_every_15_seconds_and_used_meanwhile() {
    let cases = [("192.168.50.11", ANSWER, ASK_ONE), ("fd00:50::11", ANSWER6, ASK6_ONE)];
    for (address, answer, question) in cases {
        let mut bench = Bench::reachable(address, answer);
        assert_eq!(bench.times_to(16_500, question), [15_000, 16_000]);
        assert_eq!((bench.cell.get(), bench.state()), (NeighborState::Reachable(SERVER), State::Stale));
        bench.hear(16_500, answer);
        assert_eq!(bench.state(), State::Reachable);
        assert_eq!(bench.times_to(33_500, question), [31_500, 32_500, 33_500]);
        assert_eq!(bench.cell.get(), NeighborState::Reachable(SERVER));
        bench.run_to(34_500);
        assert_eq!((bench.cell.get(), bench.state()), (NeighborState::Failed, State::Failed));
        assert_eq!(bench.neighbors.states().next().expect("one").mac, None);
    }
}

#[test]
fn a_neighbour_that_asks_us_is_used_and_asked_back() {
    let cases = [("192.168.50.11", REQUEST, ASK_ONE), ("fd00:50::11", REQUEST6, ASK6_ONE)];
    for (address, request, question) in cases {
        let mut bench = Bench::wanting(address);
        bench.run_to(500);
        bench.hear(500, request);
        assert_eq!((bench.cell.get(), bench.state()), (NeighborState::Reachable(SERVER), State::Stale));
        assert_eq!(bench.times_to(1_000, question), [500]);
        // What it says again changes nothing.
        bench.hear(1_000, request);
        assert_eq!(bench.times_to(2_500, question), [1_500, 2_500]);
    }
}

#[test]
fn an_announcement_moves_a_neighbour_to_another_mac_address() {
    let cases = [("192.168.50.11", ANSWER, GRATUITOUS_OTHER), ("fd00:50::11", ANSWER6, STRONG6_OTHER)];
    for (address, answer, announcement) in cases {
        let mut bench = Bench::reachable(address, answer);
        bench.hear(2_000, announcement);
        assert_eq!((bench.cell.get(), bench.state()), (NeighborState::Reachable(OTHER), State::Stale));
        let sent = bench.run_to(2_000);
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].1[..6], OTHER, "asked to confirm itself");
    }
    let mut bench = Bench::reachable("192.168.50.11", ANSWER);
    bench.hear(2_000, ANSWER_OTHER);
    assert_eq!((bench.cell.get(), bench.state()), (NeighborState::Reachable(OTHER), State::Reachable));
}

#[test]
fn an_advertisement_without_override_only_raises_doubt() {
    let mut bench = Bench::reachable("fd00:50::11", ANSWER6);
    bench.hear(2_000, WEAK6_OTHER);
    assert_eq!(bench.cell.get(), NeighborState::Reachable(SERVER));
    assert_eq!(bench.times_to(2_000, ASK6_ONE), [2_000]);
    // An answer without the option confirms the address that was asked.
    bench.hear(2_001, ANSWER6_BARE);
    assert_eq!(bench.state(), State::Reachable);
    assert_eq!(bench.neighbors.poll_timeout(), Some(ms(17_001)));
    // To one who is not known it says nothing.
    let mut bench = Bench::wanting("fd00:50::11");
    bench.hear(0, ANSWER6_BARE);
    assert_eq!(bench.cell.get(), NeighborState::Incomplete);
}

#[test]
fn what_no_neighbour_would_send_is_ignored() {
    let mut bench = Bench::wanting("192.168.50.11");
    bench.run_to(0);
    // The sender's MAC address (byte 22 on): multicast, none, ours, that of our other port.
    for mac in ["010000000000", "ffffffffffff", "000000000000", "0200000000d1", "0200000000d0"] {
        let mut frame = bytes(ANSWER);
        frame[22..28].copy_from_slice(&bytes(mac));
        bench.neighbors.handle_frame(ms(1), 1, &frame);
    }
    // Another port, a port that is not, a sender that is not wanted, an operation that is not known.
    bench.neighbors.handle_frame(ms(1), 0, &bytes(ANSWER));
    bench.neighbors.handle_frame(ms(1), 7, &bytes(ANSWER));
    for (at, value) in [(31, 12), (21, 3)] {
        let mut frame = bytes(ANSWER);
        frame[at] = value;
        bench.neighbors.handle_frame(ms(1), 1, &frame);
    }
    for end in 0..42 {
        bench.neighbors.handle_frame(ms(1), 1, &bytes(ANSWER)[..end]);
    }
    assert_eq!((bench.cell.get(), bench.state()), (NeighborState::Incomplete, State::Incomplete));

    let mut bench = Bench::wanting("fd00:50::11");
    bench.run_to(0);
    bench.hear(1, ANSWER6_ROUTED);
    for at in 14..86 {
        let mut damaged = bytes(ANSWER6);
        // Traffic class and flow label are covered by no checksum.
        if !(14..18).contains(&at) {
            damaged[at] ^= 1;
            bench.neighbors.handle_frame(ms(1), 1, &damaged);
        }
        bench.neighbors.handle_frame(ms(1), 1, &bytes(ANSWER6)[..at]);
    }
    assert_eq!(bench.cell.get(), NeighborState::Incomplete);
}

#[test]
fn what_is_known_outlives_a_change_of_what_is_wanted() {
    let mut bench = Bench::reachable("192.168.50.11", ANSWER);
    let (kept, new) = (hop(ip("192.168.50.11")), hop(ip("192.168.50.12")));
    bench.neighbors.want(ms(5_000), &[new.clone(), kept.clone()]);
    assert_eq!(kept.cell.get(), NeighborState::Reachable(SERVER), "also in another cell");
    assert_eq!(new.cell.get(), NeighborState::Incomplete);
    assert_eq!(bench.neighbors.poll_timeout(), Some(ms(5_000)));
    bench.neighbors.want(ms(6_000), &[]);
    assert_eq!(bench.neighbors.poll_timeout(), None);
    assert_eq!(bench.neighbors.states().count(), 0);
}

#[test]
fn the_sender_of_a_question_is_an_address_of_the_port() {
    let with = |addresses: &[&str]| PortAddresses {
        mac: MAC,
        addresses: addresses.iter().map(|a| (ip(a), if a.contains(':') { 64 } else { 24 })).collect(),
    };
    let v4 = |addresses: &[&str]| sender_v4(&with(addresses), Ipv4Addr::new(192, 168, 50, 11)).to_string();
    assert_eq!(v4(&["fd00::1", "10.0.0.1", "192.168.50.9"]), "192.168.50.9");
    assert_eq!(v4(&["fd00::1", "10.0.0.1", "192.168.51.9"]), "10.0.0.1");
    assert_eq!(v4(&["fd00::1"]), "0.0.0.0");
    let target = "fd00:50::11".parse().expect("a literal address");
    let v6 = |addresses: &[&str]| sender_v6(&with(addresses), target).to_string();
    assert_eq!(v6(&["10.0.0.1", "fe80::1", "fd00:51::9", "fd00:50::9"]), "fd00:50::9");
    assert_eq!(v6(&["10.0.0.1", "fd00:51::9", "fe80::1"]), "fe80::1");
    // The identifier of 02:00:00:00:00:d1 with its universal bit turned.
    assert_eq!(v6(&["fd00:51::9"]), "fe80::ff:fe00:d1");
}

#[test]
fn many_probes_leave_in_bursts_with_a_pause_between() {
    let hops: Vec<NextHop> = (0..600u32).map(|n| hop(Ipv4Addr::from(0xc0a8_0000 + n).into())).collect();
    let mut neighbors = Neighbors::new(ports());
    neighbors.want(ms(0), &hops);
    for (at, expected, next) in [(0, 256, 10), (5, 0, 10), (10, 256, 20), (20, 88, 1_000)] {
        neighbors.handle_timeout(ms(at));
        let sent = std::iter::from_fn(|| neighbors.poll_transmit()).count();
        assert_eq!((sent, neighbors.poll_timeout()), (expected, Some(ms(next))), "at {at} ms");
    }
}
