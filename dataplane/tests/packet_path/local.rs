//! Destinations that are the director itself: their packets are the host's, as they came.

use crate::support::{
    Lab, Plan, Size, TCP, UDP,
    frames::{ACK, C0, D0, FIN, Ip, SYN, ethernet, icmp_packet, tcp, udp, udp_packet},
};
use pointsman_dataplane::{
    scheduler::Kind,
    snapshot::{Destination, Method},
    verdict::DropReason,
};

const VIP: &str = "10.0.0.100:80";
const VIP6: &str = "[fd00:1::100]:80";
const DNS: &str = "10.0.0.100:53";

/// Three services with two servers each, of which the first is the director.
fn plan() -> Plan {
    let mut plan = Plan::new();
    for (vip, protocol) in [(VIP, TCP), (VIP6, TCP), (DNS, UDP)] {
        plan = plan.service(vip, protocol, Kind::Rr, 2);
    }
    plan.slots.iter_mut().step_by(2).for_each(|slot| slot.method = Method::Local);
    plan
}

fn lab() -> Lab {
    Lab::sized(plan(), Size { exception: true, ..Size::default() })
}

/// What the host was given.
fn given(lab: &mut Lab) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    lab.host.pop(usize::MAX, |frame, _| all.push(frame.data().to_vec()));
    all
}

#[test]
fn the_director_takes_turns_with_another_server_and_its_packets_are_the_hosts_as_they_came() {
    let mut lab = lab();
    let packets =
        |from: &str| [tcp(from, VIP, SYN), tcp(from, VIP, ACK).len(1460), tcp(from, VIP, FIN | ACK)];
    for (from, local) in
        [("10.0.0.2:1", false), ("10.0.0.2:2", true), ("10.0.0.2:3", false), ("10.0.0.2:4", true)]
    {
        let frames: Vec<_> = packets(from).into_iter().map(|packet| packet.frame()).collect();
        let sent = lab.send(&frames);
        assert_eq!(sent.len(), if local { 0 } else { 3 }, "{from}");
        assert_eq!(given(&mut lab), if local { frames } else { vec![] }, "{from}");
    }
    assert_eq!((lab.punted(), lab.forwarded(), lab.all_drops()), (6, 6, vec![]));
    // Three packets of each of two connections, the first with an option: 44 + 1500 + 40 bytes.
    assert_eq!([lab.traffic(0), lab.traffic(1)], [(2, 6, 3168), (2, 6, 3168)]);
    assert_eq!((lab.counts(0), lab.counts(1)), ((0, 2), (0, 2)));
    assert_eq!(
        lab.listed()[1],
        "TCP 02:00 FIN_WAIT 10.0.0.2:2 10.0.0.100:80 192.168.50.11:80",
        "states follow the client alone, as in direct routing"
    );
    lab.assert_accounted(0);
}

#[test]
fn a_packet_to_the_director_itself_is_at_its_end_whatever_its_ttl_and_its_length() {
    let mut lab = lab();
    lab.plan.mtu = 1280;
    lab.publish();
    lab.send(&[tcp("10.0.0.2:1", VIP, SYN).frame(), tcp("[fd00:1::2]:1", VIP6, SYN).frame()]);
    let last = |from: &str, vip: &str| tcp(from, vip, SYN).ip(|ip| ip.ttl = 1).frame();
    let frames = [
        last("10.0.0.2:2", VIP),
        last("[fd00:1::2]:2", VIP6),
        tcp("10.0.0.2:2", VIP, ACK).len(1400).frame(),
        tcp("[fd00:1::2]:2", VIP6, ACK).len(1400).frame(),
    ];
    assert!(lab.send(&frames).is_empty(), "neither time exceeded nor packet too big");
    assert_eq!(given(&mut lab), frames);
    lab.assert_accounted(0);
}

#[test]
fn fragments_and_icmp_errors_about_its_connections_are_the_directors_too() {
    let mut lab = lab();
    lab.send(&[tcp("10.0.0.2:1", VIP, SYN).frame(), udp("10.0.0.2:1", DNS)]);
    let part = |fragment, payload: &[u8]| {
        let ip = Ip { fragment, id: 7, ..Ip::default() };
        ethernet(D0, C0, &udp_packet("10.0.0.2:2", DNS, payload, &ip))
    };
    // "Fragmentation needed" (RFC 792) of a router about an answer of the host.
    let answer = tcp(VIP, "10.0.0.2:2", ACK).len(1460).packet();
    let message = [&[3, 4, 0, 0, 0, 0, 0x05, 0x00][..], &answer[..28]].concat();
    let error = icmp_packet([10, 0, 0, 9].into(), [10, 0, 0, 100].into(), &message, &Ip::default());
    let frames = [
        tcp("10.0.0.2:2", VIP, SYN).frame(),
        ethernet(D0, C0, &error),
        part(0x2000, &[1; 24]),
        part(4, &[2; 16]),
    ];
    assert!(lab.send(&frames).is_empty());
    assert_eq!((given(&mut lab), lab.all_drops()), (frames.to_vec(), vec![]));
    lab.assert_accounted(0);
}

#[test]
fn a_datagram_without_a_connection_may_be_the_directors() {
    let mut lab = lab();
    lab.plan.services[2].one_packet = true;
    lab.publish();
    let frame = udp("10.0.0.2:1", DNS);
    assert_eq!(lab.send(&vec![frame.clone(); 4]).len(), 2);
    assert_eq!((given(&mut lab), lab.connections()), (vec![frame; 2], 0));
    lab.assert_accounted(0);
}

#[test]
fn where_the_host_takes_no_packets_it_is_no_server_and_that_is_counted() {
    let mut lab = Lab::new(plan());
    lab.send(&[tcp("10.0.0.2:1", VIP, SYN).frame()]);
    assert!(lab.send(&[tcp("10.0.0.2:2", VIP, SYN).frame()]).is_empty());
    assert_eq!((lab.all_drops(), lab.connections()), (vec![(DropReason::MethodPending, 1)], 1));
    // A connection to a server whose address has become the director's own.
    (lab.plan.slots[1].method, lab.plan.slots[1].next_hop) = (Method::Local, Destination::NO_ROUTE);
    lab.plan.host_addresses.push([192, 168, 50, 12].into());
    lab.publish();
    assert!(lab.send(&[tcp("10.0.0.2:1", VIP, ACK).frame()]).is_empty());
    assert_eq!((lab.all_drops(), lab.punted()), (vec![(DropReason::MethodPending, 2)], 0));
    lab.assert_accounted(0);
}
