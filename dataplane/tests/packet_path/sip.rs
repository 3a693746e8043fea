//! The persistence engine of SIP: calls that stay with their servers.

use crate::support::{
    Lab, Plan, Size, TCP, UDP,
    frames::{C0, D0, D1, Ip, R1, R2, SYN, ethernet, tcp, udp_packet},
};
use pointsman_dataplane::{
    scheduler::Kind,
    snapshot::{Persistence, Presence},
    time::Ticks,
    verdict::DropReason,
};

const VIP: &str = "10.0.0.100:5060";

/// Two servers; a client's calls stay for two minutes.
fn plan(at: &str, protocol: u8, prefix: u8) -> Plan {
    let mut plan = Plan::new().service(at, protocol, Kind::Rr, 2);
    plan.services[0].persistence =
        Some(Persistence { timeout: Ticks::from_secs(120), prefix, by_call: true });
    plan
}

fn message(call: &str) -> String {
    format!(
        "INVITE sip:bob@biloxi.com SIP/2.0\r\nVia: SIP/2.0/UDP pc33.atlanta.com\r\nCall-ID: {call}\r\n\
         CSeq: 1 INVITE\r\n\r\n"
    )
}

fn datagram(from: &str, at: &str, payload: &str) -> Vec<u8> {
    ethernet(D0, C0, &udp_packet(from, at, payload.as_bytes(), &Ip::default()))
}

/// The server that a message of this call goes to.
fn goes(lab: &mut Lab, from: &str, call: &str) -> &'static str {
    let out = lab.send(&[datagram(from, VIP, &message(call))]);
    match out.iter().map(|frame| &frame[..12]).collect::<Vec<_>>()[..] {
        [ends] if ends == [R1, D1].concat() => "r1",
        [ends] if ends == [R2, D1].concat() => "r2",
        _ => panic!("{out:?}"),
    }
}

#[test]
fn a_call_stays_with_its_server_from_whatever_port_its_client_speaks() {
    for workers in [1, 2, 3] {
        let mut lab = Lab::sized(plan(VIP, UDP, 32), Size { workers, ..Size::default() });
        let mut to = |from: &str, call: &str| goes(&mut lab, from, call);
        assert_eq!([to("10.0.0.2:5060", "first"), to("10.0.0.2:5061", "second@host")], ["r2", "r1"]);
        for port in 6001..6009 {
            let from = format!("10.0.0.2:{port}");
            assert_eq!(
                to(&from, if port % 2 == 0 { "first" } else { "second@host" }),
                ["r1", "r2"][usize::from(port % 2 == 0)]
            );
        }
        // Another client's call of the same name is another.
        assert_eq!([to("10.0.0.3:5060", "x"), to("10.0.0.3:5061", "first")], ["r2", "r1"]);
        let calls: Vec<_> = lab
            .list()
            .into_iter()
            .filter_map(|record| {
                let call = String::from_utf8(record.call_id?.as_bytes().to_vec()).expect("a Call-ID is text");
                Some(format!("{} {} {} {call}", record.client, record.virtual_service, record.destination))
            })
            .collect();
        let mut expected = [
            "10.0.0.2:0 10.0.0.100:5060 192.168.50.12:5060 first",
            "10.0.0.2:0 10.0.0.100:5060 192.168.50.11:5060 second@host",
            "10.0.0.3:0 10.0.0.100:5060 192.168.50.12:5060 x",
            "10.0.0.3:0 10.0.0.100:5060 192.168.50.11:5060 first",
        ];
        let mut calls: Vec<&str> = calls.iter().map(String::as_str).collect();
        calls.sort_unstable();
        expected.sort_unstable();
        assert_eq!(calls, expected, "{workers} workers");
        lab.assert_accounted(0);
    }
}

#[test]
fn calls_of_one_network_are_told_apart_by_their_call_id_alone() {
    let mut lab = Lab::new(plan(VIP, UDP, 24));
    let mut to = |from: &str, call: &str| goes(&mut lab, from, call);
    assert_eq!(
        [to("10.0.7.2:5060", "one"), to("10.0.7.3:5060", "one"), to("10.0.7.3:5061", "two")],
        ["r2", "r2", "r1"]
    );
}

#[test]
fn a_call_is_scheduled_anew_when_its_server_is_gone() {
    let mut lab = Lab::new(plan(VIP, UDP, 32));
    assert_eq!(goes(&mut lab, "10.0.0.2:5060", "one"), "r2");
    lab.plan.slots[1].presence = Presence::Removed;
    lab.plan.services[0].servers.pop();
    lab.publish();
    assert_eq!(goes(&mut lab, "10.0.0.2:5061", "one"), "r1");
}

#[test]
fn what_has_no_call_id_opens_no_connection() {
    let mut lab = Lab::new(plan(VIP, UDP, 32));
    let too_long = message(&"c".repeat(256));
    for payload in ["", "ping", "INVITE sip:bob@biloxi.com SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n", &too_long] {
        assert_eq!(lab.send(&[datagram("10.0.0.2:5060", VIP, payload)]), Vec::<Vec<u8>>::new());
    }
    assert_eq!((lab.all_drops(), lab.connections()), (vec![(DropReason::NoCallId, 4)], 0));
    // Of a connection that is there it need not be SIP: an empty datagram keeps a way through address translation.
    assert_eq!(goes(&mut lab, "10.0.0.2:5060", "one"), "r2");
    assert_eq!(lab.send(&[datagram("10.0.0.2:5060", VIP, "\r\n\r\n")]).len(), 1);
    lab.assert_accounted(0);
    // The engine knows no calls by TCP.
    let mut lab = Lab::new(plan(VIP, TCP, 32));
    assert_eq!(lab.send(&[tcp("10.0.0.2:5060", VIP, SYN).frame()]), Vec::<Vec<u8>>::new());
    assert_eq!(lab.all_drops(), [(DropReason::NoCallId, 1)]);
}

#[test]
fn ipv6_calls_stay_too() {
    let vip = "[fd00:1::100]:5060";
    let mut lab = Lab::new(plan(vip, UDP, 128));
    let mut to = |from: &str, call: &str| lab.send(&[datagram(from, vip, &message(call))])[0][..6].to_vec();
    assert_eq!(to("[fd00:1::2]:5060", "one"), R2);
    assert_eq!(to("[fd00:1::2]:5061", "two"), R1);
    assert_eq!(to("[fd00:1::2]:5062", "two"), R1);
    assert_eq!(to("[fd00:1::2]:5063", "one"), R2);
}
