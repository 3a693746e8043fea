//! Clients that stay with their servers, and datagrams that do not: the recording of the original where there is one.

use crate::support::{
    Lab, Plan, Size, TCP, UDP,
    frames::{ACK, FIN, R1, SYN, Segment, tcp, udp},
    marked,
};
use pointsman_dataplane::{
    scheduler::Kind,
    snapshot::{Method, Persistence, Presence},
    time::Ticks,
    verdict::DropReason,
};
const VIP: &str = "10.0.0.100";

fn client(from: &str, port: u16, flags: u8) -> Segment {
    tcp(from, &format!("{VIP}:{port}"), flags)
}

/// A service with two servers whose clients stay for two minutes.
fn plan(port: u16, prefix: u8) -> Plan {
    let mut plan = Plan::new().service(&format!("{VIP}:{port}"), TCP, Kind::Rr, 2);
    plan.services[0].persistence =
        Some(Persistence { timeout: Ticks::from_secs(120), prefix, by_call: false });
    plan
}

/// The server that a SYN goes to.
fn server(lab: &mut Lab, segment: Segment) -> String {
    let said = lab.says(segment.frame()).concat();
    said.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn all_ports_of_a_client_go_to_one_server_as_in_the_recording() {
    let mut lab = Lab::new(plan(0, 32));
    let mut to = |from, port| server(&mut lab, client(from, port, SYN));
    assert_eq!([to("10.0.0.2:6001", 80), to("10.0.0.2:6002", 443), to("10.0.0.2:6003", 80)], ["r2"; 3]);
    assert_eq!([to("10.9.1.1:6001", 80), to("10.9.1.1:6002", 8443)], ["r1"; 2]);
    assert_eq!(
        lab.listed(),
        [
            "TCP 02:00 NONE 10.0.0.2:0 10.0.0.100:0 192.168.50.12:0",
            "TCP 01:00 SYN_RECV 10.0.0.2:6001 10.0.0.100:80 192.168.50.12:80",
            "TCP 01:00 SYN_RECV 10.0.0.2:6002 10.0.0.100:443 192.168.50.12:443",
            "TCP 01:00 SYN_RECV 10.0.0.2:6003 10.0.0.100:80 192.168.50.12:80",
            "TCP 02:00 NONE 10.9.1.1:0 10.0.0.100:0 192.168.50.11:0",
            "TCP 01:00 SYN_RECV 10.9.1.1:6001 10.0.0.100:80 192.168.50.11:80",
            "TCP 01:00 SYN_RECV 10.9.1.1:6002 10.0.0.100:8443 192.168.50.11:8443",
        ]
    );
    // PersistConn, ActiveConn, InActConn.
    let counts = [0, 1].map(|slot: usize| (lab.plan.slots[slot].shared.templates(), lab.counts(slot)));
    assert_eq!(counts, [(1, (2, 0)), (1, (3, 0))]);
    lab.plan.services[0].persistence =
        Some(Persistence { timeout: Ticks::from_secs(120), prefix: 24, by_call: false });
    lab.publish();
    let mut to = |from| server(&mut lab, client(from, 80, SYN));
    assert_eq!([to("10.9.7.1:6001"), to("10.9.7.2:6001"), to("10.9.8.2:6001")], ["r2", "r2", "r1"]);
}

#[test]
fn a_client_of_a_port_stays_there_and_is_scheduled_elsewhere() {
    let mut plan = plan(80, 32).service(&format!("{VIP}:81"), TCP, Kind::Rr, 2);
    plan.services[1].persistence = plan.services[0].persistence;
    let mut lab = Lab::new(plan);
    let mut to = |from, port| server(&mut lab, client(from, port, SYN));
    assert_eq!([to("10.0.0.2:1", 80), to("10.0.0.2:2", 80), to("10.0.0.3:3", 80)], ["r2", "r2", "r1"]);
    assert_eq!([to("10.0.0.3:4", 81), to("10.0.0.3:5", 81), to("10.0.0.3:6", 80)], ["r2", "r2", "r1"]);
    assert!(lab.listed().contains(&"TCP 02:00 NONE 10.0.0.3:0 10.0.0.100:81 192.168.50.12:81".to_owned()));
}

#[test]
fn an_ftp_clients_data_goes_where_its_commands_went() {
    let mut lab = Lab::new(plan(21, 32));
    let mut to = |from, port| server(&mut lab, client(from, port, SYN));
    assert_eq!([to("10.0.0.2:1", 21), to("10.0.0.3:1", 21)], ["r2", "r1"]);
    assert_eq!([to("10.0.0.3:2", 40_000), to("10.0.0.2:2", 1024), to("10.0.0.2:3", 20)], ["r1", "r2", "r2"]);
}

#[test]
fn a_template_attracts_its_client_to_a_quiesced_or_overloaded_server_and_not_to_a_removed_one() {
    let mut lab = Lab::new(plan(80, 32));
    assert_eq!(server(&mut lab, client("10.0.0.2:1", 80, SYN)), "r2");
    lab.plan.services[0].servers[1].1 = 0;
    lab.plan.slots[1].shared.set_thresholds(1, 0);
    lab.publish();
    assert_eq!(server(&mut lab, client("10.0.0.2:2", 80, SYN)), "r2");
    assert_eq!(server(&mut lab, client("10.0.0.3:2", 80, SYN)), "r1", "another client is scheduled");
    lab.plan.slots[1].presence = Presence::Removed;
    lab.plan.services[0].servers.pop();
    lab.publish();
    assert_eq!(server(&mut lab, client("10.0.0.2:3", 80, SYN)), "r1");
    assert_eq!(lab.plan.slots[1].shared.templates(), 0);
}

#[test]
fn connections_of_all_workers_share_the_templates() {
    let mut lab = Lab::sized(plan(80, 32), Size { workers: 2, ..Size::default() });
    let servers: Vec<String> = (1..=64)
        .map(|port| server(&mut lab, client(&format!("10.0.0.2:{}", 3000 + port), 80, SYN)))
        .collect();
    assert_eq!(servers, ["r2"; 64]);
    assert!(lab.handed_off() > 10, "both workers have some");
    assert_eq!(
        lab.listed().iter().filter(|line| line.contains(" NONE ")).count(),
        1,
        "one template, told once"
    );
}

#[test]
fn a_template_ends_after_its_time_and_its_connections() {
    let mut lab = Lab::new(plan(80, 32));
    lab.send(&[client("10.0.0.2:1", 80, SYN).frame(), client("10.0.0.2:1", 80, ACK).frame()]);
    lab.run(125_000);
    assert_eq!(lab.plan.slots[1].shared.templates(), 1, "its connection holds it");
    lab.send(&[client("10.0.0.2:1", 80, FIN).frame()]);
    // FIN_WAIT for two minutes from 125 s on: the template, in steps from 120 s, until 300 s.
    lab.run(130_000);
    assert_eq!((lab.connections(), lab.plan.slots[1].shared.templates()), (0, 1));
    lab.run(60_000);
    assert_eq!(lab.plan.slots[1].shared.templates(), 0);
    assert_eq!(server(&mut lab, client("10.0.0.2:2", 80, SYN)), "r1", "it is scheduled again");
}

#[test]
fn a_syn_in_time_wait_goes_on_with_the_connection_of_a_persistent_client() {
    let mut lab = Lab::new(plan(80, 32));
    // A FIN in SYN_RECV leads to TIME_WAIT.
    for flags in [SYN, FIN] {
        lab.send(&[client("10.0.0.2:1", 80, flags).frame()]);
    }
    assert!(lab.listed().iter().any(|line| line.contains("TIME_WAIT")), "{:?}", lab.listed());
    assert_eq!(server(&mut lab, client("10.0.0.2:1", 80, SYN)), "r2");
    assert_eq!(lab.lives().0, 1, "no second connection was made");
}

#[test]
fn a_mark_of_one_packet_makes_connections_of_all_but_datagrams() {
    let mut plan = Plan::new().service("10.0.0.100:53", UDP, Kind::Rr, 1);
    (plan.services[0].one_packet, plan.services[0].mark) = (true, Some(7));
    (plan.slots[0].port, plan.slots[0].virtual_service) = (0, None);
    plan.marks.push(marked([10, 0, 0, 100].into(), 7));
    let mut lab = Lab::new(plan);
    let segment = |flags| tcp("10.0.0.2:1", "10.0.0.100:53", flags).frame();
    assert_eq!(lab.send(&[udp("10.0.0.2:1", "10.0.0.100:53"), segment(SYN)]).len(), 2);
    assert_eq!(lab.connections(), 1);
    assert_eq!(lab.send(&[segment(ACK)])[0][..6], R1, "it is no reset");
}

#[test]
fn each_datagram_of_a_one_packet_service_is_scheduled_and_none_makes_a_connection() {
    let mut plan = Plan::new().service("10.0.0.100:55", UDP, Kind::Rr, 2);
    plan.services[0].one_packet = true;
    let mut lab = Lab::new(plan);
    let lines: Vec<String> = (0..3).flat_map(|_| lab.says(udp("10.0.0.2:5004", "10.0.0.100:55"))).collect();
    assert_eq!(
        lines,
        [
            "r2 < d1>r2 ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=32 ck=ok | udp 5004>55 len=12 data[4]=70696e67 l4=ok",
            "r1 < d1>r1 ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=32 ck=ok | udp 5004>55 len=12 data[4]=70696e67 l4=ok",
            "r2 < d1>r2 ip 10.0.0.2>10.0.0.100 ttl=63 tos=0 flags=DF frag=0 len=32 ck=ok | udp 5004>55 len=12 data[4]=70696e67 l4=ok",
        ]
    );
    assert_eq!((lab.connections(), lab.counts(0), lab.counts(1)), (0, (0, 0), (0, 0)));
    assert_eq!([lab.traffic(0), lab.traffic(1)], [(1, 1, 32), (2, 2, 64)]);
    lab.plan.slots.iter_mut().for_each(|slot| slot.method = Method::Local);
    lab.publish();
    assert_eq!(lab.send(&[udp("10.0.0.2:5004", "10.0.0.100:55")]).len(), 0);
    assert_eq!(lab.all_drops(), [(DropReason::MethodPending, 1)]);
    lab.assert_accounted(0);
}
