//! Frames whose next hop has not answered yet.

use crate::support::{
    Lab, Plan, TCP,
    frames::{ACK, R1, SYN, Segment, tcp},
};
use pointsman_dataplane::{
    limits::MAX_WAITING,
    scheduler::Kind,
    snapshot::{Destination, NeighborState},
    verdict::DropReason,
};

const VIP: &str = "10.0.0.100:80";

fn client(port: u16, flags: u8) -> Segment {
    tcp(&format!("10.0.0.2:{port}"), VIP, flags)
}

/// One server that is not known yet.
fn lab() -> Lab {
    let lab = Lab::new(Plan::new().service(VIP, TCP, Kind::Rr, 1));
    lab.plan.hops[0].cell.set(NeighborState::Incomplete);
    lab
}

#[test]
fn frames_wait_for_their_neighbor_and_leave_in_order() {
    let mut lab = lab();
    assert_eq!(lab.send(&[client(1, SYN).frame()]).len(), 0);
    lab.run(500);
    assert_eq!(lab.send(&[client(1, ACK).seq(1, 0).frame(), client(1, ACK).seq(2, 0).frame()]).len(), 0);
    lab.assert_accounted(3);
    lab.plan.hops[0].cell.set(NeighborState::Reachable(R1));
    // One more comes in the poll that finds the neighbour: it is the last to leave.
    let out = lab.send(&[client(1, ACK).seq(3, 0).frame()]);
    let order: Vec<u8> = out.iter().map(|frame| frame[41]).collect();
    assert_eq!(order, [0xe8, 1, 2, 3], "the last byte of each sequence number");
    assert!(out.iter().all(|frame| frame[..6] == R1));
    assert_eq!(lab.forwarded(), 4);
    lab.assert_accounted(0);
}

#[test]
fn a_neighbor_that_does_not_answer_within_a_second_costs_the_frames_and_names_the_cause() {
    let mut lab = lab();
    lab.send(&[client(1, SYN).frame()]);
    lab.run(1_000);
    lab.assert_accounted(1);
    lab.run(100);
    assert_eq!(lab.all_drops(), [(DropReason::NeighborUnresolved, 1)]);
    lab.assert_accounted(0);
    lab.plan.hops[0].cell.set(NeighborState::Reachable(R1));
    assert_eq!(lab.send(&[client(1, ACK).frame()]).len(), 1, "what comes later is forwarded");
}

#[test]
fn a_neighbor_known_not_to_answer_costs_each_frame_at_once() {
    let mut lab = lab();
    lab.send(&[client(1, SYN).frame()]);
    lab.plan.hops[0].cell.set(NeighborState::Failed);
    assert_eq!(lab.send(&[client(1, ACK).frame()]).len(), 0);
    assert_eq!(lab.all_drops(), [(DropReason::NeighborUnresolved, 2)]);
    lab.assert_accounted(0);
}

#[test]
fn no_more_frames_wait_than_the_queue_holds() {
    let mut lab = lab();
    let frames: Vec<_> = (0..MAX_WAITING as u16 + 7).map(|port| client(port + 100, SYN).frame()).collect();
    assert_eq!(lab.send(&frames).len(), 0);
    assert_eq!(lab.all_drops(), [(DropReason::NeighborQueueFull, 7)]);
    lab.assert_accounted(MAX_WAITING as u64);
    lab.plan.hops[0].cell.set(NeighborState::Reachable(R1));
    lab.poll();
    assert_eq!(lab.taken().len(), MAX_WAITING);
    lab.assert_accounted(0);
}

#[test]
fn frames_for_one_neighbor_do_not_wait_for_another() {
    let mut lab = Lab::new(Plan::new().service(VIP, TCP, Kind::Rr, 2));
    lab.plan.hops[1].cell.set(NeighborState::Incomplete);
    let out = lab.send(&[client(1, SYN).frame(), client(2, SYN).frame(), client(2, ACK).frame()]);
    assert_eq!(out.iter().map(|frame| frame[5]).collect::<Vec<_>>(), [0x11, 0x11]);
    lab.assert_accounted(1);
}

#[test]
fn waiting_frames_survive_a_new_configuration() {
    let mut lab = lab();
    lab.send(&[client(1, SYN).frame()]);
    let cell = lab.plan.hops[0].cell.clone();
    lab.plan.services.clear();
    lab.plan.slots.clear();
    lab.plan.hops.clear();
    lab.publish();
    lab.poll();
    cell.set(NeighborState::Reachable(R1));
    lab.poll();
    assert_eq!(lab.taken().len(), 1);
}

#[test]
fn a_server_without_a_route_and_a_way_out_by_a_missing_port_are_told_apart() {
    let mut lab = lab();
    lab.plan.slots[0].next_hop = Destination::NO_ROUTE;
    lab.publish();
    lab.send(&[client(1, SYN).frame()]);
    assert_eq!(lab.all_drops(), [(DropReason::NoRoute, 1)]);
    (lab.plan.slots[0].next_hop, lab.plan.hops[0].port) = (0, 5);
    lab.plan.hops[0].cell.set(NeighborState::Reachable(R1));
    lab.publish();
    lab.send(&[client(1, ACK).frame()]);
    assert_eq!(lab.all_drops(), [(DropReason::NoRoute, 1), (DropReason::PortGone, 1)]);
    lab.assert_accounted(0);
}
