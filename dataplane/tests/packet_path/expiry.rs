//! When connections end, and which of them give way when the table is full.

use crate::support::{
    Lab, Plan, Size, TCP, UDP,
    frames::{ACK, FIN, RST, SYN, Segment, tcp, udp},
};
use pointsman_dataplane::{
    scheduler::Kind,
    time::Nanos,
    verdict::{Answer, DropReason},
};

const VIP: &str = "10.0.0.100:80";
const DNS: &str = "10.0.0.100:53";

fn client(n: u32, flags: u8) -> Segment {
    tcp(&format!("10.{}.{}.2:{}", 1 + (n >> 14), n >> 6 & 255, 1024 + (n & 63)), VIP, flags)
}

fn lab(connections: usize) -> Lab {
    let plan = Plan::new().service(VIP, TCP, Kind::Rr, 2).service(DNS, UDP, Kind::Rr, 1);
    let size = Size { connections, ..Size::default() };
    Lab::sized(plan, size)
}

/// Frames that bring a connection into a state, its name, and its seconds to live in the specification.
fn lives() -> Vec<(&'static str, Vec<Vec<u8>>, u64)> {
    let segments = |flags: &[u8]| flags.iter().map(|flags| client(7, *flags).frame()).collect();
    let datagram = udp("10.0.0.2:5001", DNS);
    vec![
        ("SYN_RECV", segments(&[SYN]), 60),
        ("ESTABLISHED", segments(&[SYN, ACK]), 900),
        ("FIN_WAIT", segments(&[SYN, ACK, FIN | ACK]), 120),
        ("TIME_WAIT", segments(&[SYN, FIN | ACK]), 120),
        ("CLOSE", segments(&[SYN, ACK, RST]), 10),
        ("UDP", vec![datagram.clone()], 300),
        ("UDP", vec![datagram.clone(), datagram], 300),
    ]
}

#[test]
fn a_connection_ends_when_its_state_says_and_no_more_than_a_second_and_a_half_later() {
    for (state, frames, seconds) in lives() {
        let mut lab = lab(64);
        assert_eq!(lab.send(&frames).len(), frames.len());
        assert_eq!(lab.list()[0].state, state);
        lab.run(seconds * 1_000 - 100);
        assert_eq!((lab.connections(), state), (1, state), "not before {seconds} s");
        lab.run(1_600);
        assert_eq!((lab.connections(), state), (0, state), "at the latest {} s", seconds as f64 + 1.5);
        assert_eq!(lab.lives(), (1, 1, 0));
        let counts = [lab.counts(0), lab.counts(1), lab.counts(2)];
        assert_eq!(counts, [(0, 0); 3], "{state}");
    }
}

#[test]
fn a_packet_in_between_begins_the_time_anew() {
    for (state, frames, seconds) in lives() {
        let mut lab = lab(64);
        lab.send(&frames);
        lab.run(seconds * 1_000 * 2 / 3);
        let last = frames.last().expect("there are frames").clone();
        lab.send(&[last]);
        lab.run(seconds * 1_000 - 100);
        assert_eq!((lab.connections(), state), (1, state));
        lab.run(1_600);
        assert_eq!((lab.connections(), state), (0, state));
    }
}

#[test]
fn a_change_to_a_shorter_life_counts_from_then_on() {
    let mut lab = lab(64);
    lab.send(&[client(1, SYN).frame(), client(1, ACK).frame()]);
    lab.run(500_000);
    lab.send(&[client(1, RST).frame()]);
    lab.run(9_900);
    assert_eq!(lab.connections(), 1);
    lab.run(1_600);
    assert_eq!(lab.connections(), 0);
}

#[test]
fn connections_end_in_time_when_nobody_polled_for_hours() {
    for hours in [1, 5, 24 * 30] {
        let mut lab = lab(4096);
        let frames: Vec<_> =
            (0..500).flat_map(|n| [client(n, SYN).frame(), client(n, ACK).frame()]).collect();
        lab.send(&frames);
        lab.send(&[client(1000, SYN).frame(), udp("10.0.0.2:1", DNS)]);
        assert_eq!(lab.connections(), 502);
        lab.wait(hours * 3_600_000);
        lab.run(1_500);
        assert_eq!((lab.connections(), hours), (0, hours));
        assert_eq!(lab.lives(), (502, 502, 0));
        assert_eq!(lab.send(&[client(1, SYN).frame()]).len(), 1, "and new ones are made");
        lab.run(59_900);
        assert_eq!((lab.connections(), hours), (1, hours));
        lab.run(1_600);
        assert_eq!((lab.connections(), hours), (0, hours));
    }
}

#[test]
fn times_hold_across_the_wrap_of_ticks_after_497_days() {
    for (state, frames, seconds) in lives() {
        // The counter of hundredths of a second wraps after 42,949,672.96 s.
        for before in [1, seconds / 2, seconds - 1] {
            let mut lab = lab(64);
            lab.now = Nanos::from_millis(42_949_672_960 - before * 1_000);
            lab.poll();
            lab.send(&frames);
            lab.run(seconds * 1_000 - 100);
            assert_eq!((lab.connections(), state, before), (1, state, before));
            lab.run(1_600);
            assert_eq!((lab.connections(), state, before), (0, state, before));
        }
    }
}

#[test]
fn when_the_table_is_full_the_oldest_half_open_connection_gives_way() {
    let mut lab = lab(8);
    for n in 0..8 {
        assert_eq!(lab.send(&[client(n, SYN).frame()]).len(), 1);
        lab.run(100);
    }
    // The first talks again, the second is established.
    lab.send(&[client(0, SYN).frame(), client(1, ACK).frame()]);
    for n in 8..11 {
        assert_eq!(lab.send(&[client(n, SYN).frame()]).len(), 1);
        lab.run(100);
    }
    let mut left: Vec<u16> = lab.list().iter().map(|record| record.client.port() - 1024).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 1, 5, 6, 7, 8, 9, 10]);
    assert_eq!(lab.lives(), (11, 0, 3));
    assert_eq!(lab.counts(0).0 + lab.counts(1).0, 8);
}

#[test]
fn a_flood_pushes_connections_out_in_the_order_in_which_they_came() {
    let mut lab = lab(200);
    for n in 0..500 {
        assert_eq!(lab.send(&[client(n, SYN).frame()]).len(), 1);
        lab.wait(10);
    }
    // 64 ports of each address: the last 200 of 500 are there.
    let mut left: Vec<String> = lab.list().iter().map(|record| record.client.to_string()).collect();
    let mut expected: Vec<String> =
        (300..500).map(|n| format!("10.1.{}.2:{}", n / 64, 1024 + n % 64)).collect();
    left.sort_unstable();
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!(lab.lives(), (500, 0, 300));
}

#[test]
fn established_connections_never_give_way_and_lose_no_packet_in_a_flood_of_syn() {
    let mut lab = lab(256);
    let established = 200;
    for n in 0..established {
        lab.send(&[client(n, SYN).frame(), client(n, ACK).frame()]);
    }
    let mut servers = Vec::new();
    for n in 0..established {
        servers.push(lab.send(&[client(n, ACK).frame()])[0][..6].to_vec());
    }
    for round in 0..200_u32 {
        let flood: Vec<_> = (0..100).map(|n| client(10_000 + round * 100 + n, SYN).frame()).collect();
        assert_eq!(lab.send(&flood).len(), 100, "each finds room");
        let one = round % established;
        let out = lab.send(&[client(one, ACK).frame()]);
        assert_eq!(out[0][..6], servers[one as usize][..]);
        lab.wait(10);
    }
    assert_eq!(lab.connections(), 256);
    assert_eq!(lab.all_drops(), []);
    lab.assert_accounted(0);
}

#[test]
fn a_table_full_of_established_connections_takes_no_new_one_and_says_so() {
    let mut lab = lab(16);
    for n in 0..16 {
        lab.send(&[client(n, SYN).frame(), client(n, ACK).frame()]);
    }
    assert_eq!(lab.send(&[client(99, SYN).frame(), client(3, ACK).frame()]).len(), 1);
    assert_eq!(lab.all_drops(), [(DropReason::TableFull, 1)]);
    assert_eq!((lab.counts(0).0 + lab.counts(1).0, lab.lives()), (16, (16, 0, 0)));
    lab.run(901_500);
    assert_eq!(lab.send(&[client(99, SYN).frame()]).len(), 1);
    assert_eq!(lab.answers(Answer::PortUnreachable), 0);
}

#[test]
fn more_connections_than_one_poll_visits_end_within_a_second_and_a_half() {
    let mut lab = lab(4096);
    for n in 0..3_000 {
        lab.send(&[client(n, SYN).frame(), client(n, ACK).frame(), client(n, RST).frame()]);
    }
    assert_eq!(lab.connections(), 3_000);
    lab.run(9_900);
    assert_eq!(lab.connections(), 3_000);
    lab.run(1_600);
    assert_eq!(lab.connections(), 0);
}

#[test]
fn more_half_open_connections_than_one_poll_visits_end_within_a_second_and_a_half() {
    let mut lab = lab(4096);
    for n in 0..2_000 {
        let datagram = udp(&format!("10.0.{}.2:{}", n / 64, 1024 + n % 64), DNS);
        lab.send(&[client(n, SYN).frame(), datagram]);
    }
    assert_eq!(lab.connections(), 4_000);
    lab.run(59_900);
    assert_eq!(lab.connections(), 4_000);
    lab.run(1_600);
    assert_eq!(lab.connections(), 2_000, "the datagrams' stay for 300 s");
    lab.run(238_300);
    assert_eq!(lab.connections(), 2_000);
    lab.run(1_600);
    assert_eq!(lab.connections(), 0);
}
