//! What becomes of connections when the configuration changes under them.

use crate::support::{
    Lab, Plan, Size, TCP, UDP,
    frames::{ACK, C0, D0, D1, FIN, R1, R2, RST, SYN, Segment, ethernet, tcp, udp},
};
use pointsman_dataplane::{
    scheduler::Kind,
    snapshot::{Destination, Encapsulation, Method, Presence, Timeouts},
    stats::DestinationShared,
    time::Ticks,
    verdict::{Answer, DropReason},
};
use std::sync::Arc;

const VIP: &str = "10.0.0.100:80";

fn client(port: u16, flags: u8) -> Segment {
    tcp(&format!("10.0.0.2:{port}"), VIP, flags)
}

fn servers(count: usize) -> Lab {
    Lab::new(Plan::new().service(VIP, TCP, Kind::Rr, count))
}

/// Sends it and names the node that got something, with an `R` for a reset.
fn reaches(lab: &mut Lab, segment: Segment) -> String {
    let said = lab.says(segment.frame()).concat();
    let reset = if said.starts_with("cl") && said.contains(" R") { "R" } else { "" };
    said.chars().take(2).collect::<String>() + reset
}

/// Removes the server in `slot` from the only service, keeping the slot for its connections.
fn remove(lab: &mut Lab, slot: u32) {
    lab.plan.slots[slot as usize].presence = Presence::Removed;
    lab.plan.services[0].servers.retain(|(other, _)| *other != slot);
    lab.publish();
}

#[test]
fn packets_of_a_removed_server_vanish_and_flow_again_when_it_is_added_again() {
    let mut lab = servers(2);
    lab.send(&[client(1, SYN).frame(), client(1, ACK).frame()]);
    let before = lab.listed();
    remove(&mut lab, 1);
    for flags in [ACK, FIN | ACK, RST, SYN] {
        assert_eq!(reaches(&mut lab, client(1, flags)), "", "neither a server nor the client hears of it");
    }
    assert_eq!(lab.drops(DropReason::DestinationRemoved), 4);
    assert_eq!(reaches(&mut lab, client(2, SYN)), "r1", "new connections go elsewhere");
    assert_eq!(lab.listed()[0], before[0], "the state is that before the removal");
    lab.plan.slots[1].presence = Presence::Present;
    lab.plan.services[0].servers.push((1, 1));
    lab.publish();
    assert_eq!(reaches(&mut lab, client(1, ACK)), "r2");
    assert_eq!(lab.counts(1), (1, 0));
    lab.assert_accounted(0);
}

#[test]
fn a_packet_to_a_removed_server_does_not_keep_its_connection_up() {
    let mut lab = servers(1);
    lab.send(&[client(1, SYN).frame()]);
    remove(&mut lab, 0);
    for _ in 0..6 {
        lab.run(10_000);
        lab.send(&[client(1, ACK).frame()]);
    }
    lab.run(1_500);
    assert_eq!((lab.connections(), lab.counts(0)), (0, (0, 0)));
}

#[test]
fn a_client_that_comes_back_by_the_same_port_after_the_end_gets_a_server_that_is_there() {
    let mut lab = servers(2);
    lab.send(&[client(1, SYN).frame(), client(1, ACK).frame(), client(1, RST).frame()]);
    remove(&mut lab, 1);
    assert_eq!(reaches(&mut lab, client(1, SYN)), "r1");
    assert_eq!((lab.counts(0), lab.counts(1)), ((1, 0), (0, 0)));
}

#[test]
fn connections_of_a_deleted_service_are_reset_at_once() {
    let mut lab = servers(2);
    lab.send(&[client(1, SYN).frame(), client(1, ACK).frame()]);
    let old = lab.plan.slots[1].shared.clone();
    for slot in &mut lab.plan.slots {
        slot.presence = Presence::ServiceGone;
    }
    lab.plan.services[0].servers.clear();
    lab.plan.services[0].at = "10.0.0.100:81".parse().unwrap();
    lab.publish();
    assert_eq!(lab.listed(), [] as [String; 0]);
    assert_eq!(reaches(&mut lab, client(1, ACK)), "clR");
    assert_eq!((lab.connections(), old.active(), old.inactive()), (0, 0, 0));
}

#[test]
fn a_slot_with_a_new_generation_never_gets_the_packets_or_the_counts_of_the_old_one() {
    let mut lab = servers(1);
    lab.send(&[
        client(1, SYN).frame(),
        client(1, ACK).frame(),
        client(2, SYN).frame(),
        client(3, SYN).frame(),
        client(3, RST).frame(),
    ]);
    let address = "192.168.50.12".parse().unwrap();
    let next_hop = lab.plan.hop(address, Some(R2));
    let slot = &mut lab.plan.slots[0];
    (slot.generation, slot.address, slot.next_hop) = (2, address, next_hop);
    slot.shared = Arc::new(DestinationShared::default());
    lab.publish();
    assert_eq!(reaches(&mut lab, client(1, ACK)), "clR", "not the new server's connection");
    assert_eq!(lab.counts(0), (0, 0), "nor counted as its own when it ends by a packet");
    // The others end by time.
    lab.run(62_000);
    assert_eq!((lab.connections(), lab.counts(0)), (0, (0, 0)));
    assert_eq!(reaches(&mut lab, client(1, SYN)), "r2");
    assert_eq!(lab.counts(0), (1, 0));
}

#[test]
fn a_quiesced_server_keeps_its_connections_and_gets_no_new_ones() {
    let mut lab = servers(2);
    assert_eq!(reaches(&mut lab, client(1, SYN)), "r2");
    lab.plan.services[0].servers[1].1 = 0;
    lab.publish();
    assert_eq!(reaches(&mut lab, client(1, ACK)), "r2");
    for port in 2..9 {
        assert_eq!(reaches(&mut lab, client(port, SYN)), "r1");
    }
    assert_eq!(reaches(&mut lab, client(1, ACK)), "r2");
}

#[test]
fn a_syn_in_time_wait_or_close_is_scheduled_anew_and_in_other_states_is_not() {
    let mut lab = servers(2);
    let open = |lab: &mut Lab, flags: &[u8]| {
        flags.iter().map(|flags| reaches(lab, client(1, *flags))).collect::<Vec<_>>().concat()
    };
    // FIN in SYN_RECV gives TIME_WAIT.
    assert_eq!(open(&mut lab, &[SYN, FIN | ACK]), "r2r2");
    assert!(lab.listed()[0].starts_with("TCP 02:00 TIME_WAIT"));
    assert_eq!(open(&mut lab, &[SYN]), "r1");
    assert_eq!(open(&mut lab, &[ACK, RST]), "r1r1");
    assert!(lab.listed()[0].starts_with("TCP 00:10 CLOSE"));
    assert_eq!(open(&mut lab, &[SYN]), "r2");
    assert_eq!(open(&mut lab, &[SYN]), "r2", "SYN_RECV");
    assert_eq!(open(&mut lab, &[ACK, SYN]), "r2r2", "ESTABLISHED");
    assert!(lab.listed()[0].starts_with("TCP 15:00 ESTABLISHED"));
    assert_eq!(open(&mut lab, &[FIN | ACK, SYN]), "r2r2", "FIN_WAIT");
    assert_eq!(lab.listed().len(), 1);
    assert_eq!((lab.counts(0), lab.counts(1)), ((0, 0), (1, 0)));
    assert_eq!(lab.lives().0, 3);
}

#[test]
fn packets_of_a_new_flow_in_one_batch_make_one_connection() {
    let mut lab = servers(3);
    let out = lab.send(&[
        client(1, SYN).frame(),
        client(1, ACK).frame(),
        client(1, SYN).frame(),
        client(2, SYN).frame(),
        client(2, FIN | ACK).frame(),
        client(2, SYN).frame(),
        client(1, ACK).frame(),
    ]);
    let servers: Vec<u8> = out.iter().map(|frame| frame[5]).collect();
    // The second connection ends in TIME_WAIT within the batch, and a third takes its place.
    assert_eq!(servers, [0x13, 0x13, 0x13, 0x12, 0x12, 0x11, 0x13]);
    assert_eq!((lab.lives().0, lab.connections()), (3, 2));
    lab.assert_accounted(0);
}

#[test]
fn a_server_is_overloaded_from_its_upper_threshold_on_and_until_it_falls_below_the_lower() {
    let mut lab = servers(2);
    lab.plan.slots[1].shared.set_thresholds(2, 2);
    for (port, server) in [(1, "r2"), (2, "r1"), (3, "r2"), (4, "r1"), (5, "r1"), (6, "r1")] {
        assert_eq!(reaches(&mut lab, client(port, SYN)), server);
    }
    // A reset leaves the connection in CLOSE for 10 s: it still counts.
    lab.send(&[client(1, ACK).frame(), client(1, RST).frame()]);
    assert_eq!(reaches(&mut lab, client(7, SYN)), "r1");
    lab.run(11_500);
    assert_eq!(reaches(&mut lab, client(8, SYN)), "r2");
}

#[test]
fn without_a_server_that_can_take_it_the_client_hears_port_unreachable_for_tcp_too() {
    let mut lab = servers(1);
    lab.plan.slots[0].shared.set_thresholds(1, 0);
    assert_eq!(reaches(&mut lab, client(1, SYN)), "r1");
    let said = lab.says(client(2, SYN).frame()).concat();
    assert_eq!(
        said,
        "cl < d0>c0 ip 10.0.0.100>10.0.0.2 ttl=64 tos=192 flags= frag=0 len=72 ck=ok | icmp 3/3 l4=ok rest=00000000 about ip 10.0.0.2>10.0.0.100 ttl=64 tos=0 flags=DF frag=0 len=44 ck=ok | tcp 2>80 S seq=1000 ack=0 win=8192 opt=[('MSS', 1460)]"
    );
    lab.plan.services[0].servers.clear();
    lab.publish();
    assert!(lab.says(client(3, SYN).frame()).concat().contains("icmp 3/3"));
    assert_eq!(lab.answers(Answer::PortUnreachable), 2);
}

#[test]
fn new_timeouts_hold_for_connections_that_are_there() {
    let mut lab = Lab::new(Plan::new().service("10.0.0.100:53", UDP, Kind::Rr, 1));
    let datagram = |port| udp(&format!("10.0.0.2:{port}"), "10.0.0.100:53");
    lab.send(&[datagram(1), datagram(1), datagram(2)]);
    lab.plan.timeouts.udp = Ticks::from_secs(10);
    lab.publish();
    lab.run(9_900);
    assert_eq!(lab.connections(), 2);
    lab.run(1_600);
    assert_eq!(lab.connections(), 0);
    lab.send(&[datagram(1), datagram(1), datagram(2)]);
    lab.plan.timeouts = Timeouts::default();
    lab.publish();
    lab.run(299_900);
    assert_eq!(lab.connections(), 2);
    lab.run(1_600);
    assert_eq!(lab.connections(), 0);
}

/// What of a packet of this client leaves, told shortly: by which method.
fn way(lab: &mut Lab, port: u16, flags: u8) -> &'static str {
    let host = lab.punted();
    let said = lab.says(client(port, flags).frame()).concat();
    match said {
        _ if lab.punted() > host => "local",
        said if said.contains("[ ip") => "tunnel",
        said if said.contains("10.0.0.2>10.0.0.100 ") => "direct",
        said if said.contains("10.0.0.2>192.168.50.11 ") => "nat",
        _ => "nowhere",
    }
}

#[test]
fn a_connection_keeps_the_method_that_it_was_made_by() {
    let plan = Plan::new().service(VIP, TCP, Kind::Rr, 1).tunnelled(0, Encapsulation::Ipip);
    let mut lab = Lab::sized(plan, Size { exception: true, ..Size::default() });
    let methods = [
        ("tunnel", Method::Tunnel),
        ("nat", Method::Nat),
        ("direct", Method::Direct),
        ("tunnel", Method::Tunnel),
    ];
    for (n, (name, method)) in (1..).zip(methods) {
        lab.plan.slots[0].method = method;
        lab.publish();
        assert_eq!(way(&mut lab, n, SYN), name);
        for (port, (made_by, _)) in (1..=n).zip(methods) {
            assert_eq!(way(&mut lab, port, ACK), made_by, "client {port} after {n} changes");
        }
    }
    // Packets of all in one batch, and the answer to the one that is answered by the director.
    let all: Vec<_> = (1..=4).map(|port| client(port, ACK).frame()).collect();
    let mut lengths: Vec<usize> = lab.send(&all).iter().map(Vec::len).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [all[0].len(), all[0].len(), all[0].len() + 20, all[0].len() + 20]);
    let answer = tcp("192.168.50.11:80", "10.0.0.2:2", ACK).packet();
    let out = lab.send_by(1, &[ethernet(D1, R1, &answer)]);
    let expected = tcp(VIP, "10.0.0.2:2", ACK).ip(|ip| ip.ttl = 63).packet();
    assert_eq!(out, [ethernet(C0, D0, &expected)]);
    let methods: Vec<_> =
        lab.list().into_iter().map(|record| (record.client.port(), record.method)).collect();
    let expected = [(1, Method::Tunnel), (2, Method::Nat), (3, Method::Direct), (4, Method::Tunnel)];
    assert!(expected.iter().all(|made| methods.contains(made)), "{methods:?}");
    lab.assert_accounted(0);
}

#[test]
fn a_packet_that_is_too_large_for_a_tunnel_is_told_so_if_its_connection_goes_through_it() {
    let mut lab = Lab::new(Plan::new().service(VIP, TCP, Kind::Rr, 1).tunnelled(0, Encapsulation::Ipip));
    lab.send(&[client(1, SYN).frame()]);
    lab.plan.slots[0].method = Method::Direct;
    lab.publish();
    lab.send(&[client(2, SYN).frame()]);
    let large = |port| client(port, ACK).len(1450).frame();
    let said = lab.says(large(1)).concat();
    // 1500 less an outer header.
    assert!(said.contains("icmp 3/4") && said.contains("rest=000005c8"), "{said}");
    assert!(lab.says(large(2)).concat().starts_with("r1"));
    lab.assert_accounted(0);
}

#[test]
fn a_server_that_has_become_the_director_itself_is_it_for_its_connections_too() {
    let plan = Plan::new().service(VIP, TCP, Kind::Rr, 1);
    let mut lab = Lab::sized(plan, Size { exception: true, ..Size::default() });
    assert_eq!(way(&mut lab, 1, SYN), "direct");
    let next_hop = lab.plan.slots[0].next_hop;
    (lab.plan.slots[0].method, lab.plan.slots[0].next_hop) = (Method::Local, Destination::NO_ROUTE);
    lab.plan.host_addresses.push([192, 168, 50, 11].into());
    lab.publish();
    assert_eq!((way(&mut lab, 1, ACK), way(&mut lab, 2, SYN)), ("local", "local"));
    // And one that was is it for those that it had then.
    (lab.plan.slots[0].method, lab.plan.slots[0].next_hop) = (Method::Nat, next_hop);
    lab.plan.host_addresses.clear();
    lab.publish();
    assert_eq!(
        (way(&mut lab, 2, ACK), way(&mut lab, 3, SYN), way(&mut lab, 1, ACK)),
        ("local", "nat", "direct")
    );
    lab.assert_accounted(0);
}
