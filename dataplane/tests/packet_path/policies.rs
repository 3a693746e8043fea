//! The switches of the original, each with its effect and, beside it, what happens without it.

use crate::support::{
    Lab, Plan, Size, TCP, UDP,
    frames::{ACK, C0, D0, D1, FIN, Ip, R1, R2, SYN, ethernet, icmp_packet, tcp, udp, udp_packet},
    text::text,
};
use pointsman_dataplane::{
    policy::{Defence, Policies},
    scheduler::Kind,
    snapshot::{Method, Persistence, Presence},
    time::Ticks,
    verdict::DropReason,
};

const VIP: &str = "10.0.0.100:80";

fn lab(policies: impl FnOnce(&mut Policies)) -> Lab {
    let mut plan = Plan::new().service(VIP, TCP, Kind::Rr, 2);
    policies(&mut plan.policies);
    Lab::new(plan)
}

/// Where a packet went: "r1", "cl" for an answer, nothing.
fn went(lab: &mut Lab, frame: Vec<u8>) -> String {
    lab.send(&[frame]).iter().map(|frame| text(frame)[..2].to_owned()).collect()
}

fn segment(port: u16, flags: u8) -> Vec<u8> {
    tcp(&format!("10.0.0.2:{port}"), VIP, flags).frame()
}

/// Takes a server out of the service, or gives it another weight.
fn change(lab: &mut Lab, slot: usize, weight: Option<u32>) {
    let servers = &mut lab.plan.services[0].servers;
    match weight {
        Some(weight) => servers.iter_mut().filter(|(of, _)| *of as usize == slot).for_each(|s| s.1 = weight),
        None => {
            servers.retain(|(of, _)| *of as usize != slot);
            lab.plan.slots[slot].presence = Presence::Removed;
        }
    }
    lab.publish();
    lab.poll();
}

#[test]
fn expire_nodest_conn_ends_the_connections_of_a_removed_server() {
    for on in [false, true] {
        let mut lab = lab(|policies| policies.expire_nodest_conn = on);
        for port in [1, 3] {
            assert_eq!(went(&mut lab, segment(port, SYN)), "r2");
            assert_eq!(went(&mut lab, segment(port + 1, SYN)), "r1");
        }
        change(&mut lab, 1, None);
        // A SYN is scheduled anew, other segments are reset as the host would.
        let expected = if on { ["r1", "cl"] } else { ["", ""] };
        assert_eq!([went(&mut lab, segment(1, SYN)), went(&mut lab, segment(3, ACK))], expected);
        assert_eq!(lab.connections(), if on { 3 } else { 4 });
        assert_eq!(went(&mut lab, segment(2, ACK)), "r1");
    }
}

#[test]
fn with_expire_nodest_conn_a_syn_leaves_a_quiesced_server() {
    for (on, mode, expected) in [(false, 1, "r2"), (true, 1, "r1"), (true, 0, "r1"), (false, 0, "r2")] {
        let mut lab = lab(|policies| {
            policies.expire_nodest_conn = on;
            policies.conn_reuse_mode = mode;
        });
        went(&mut lab, segment(1, SYN));
        went(&mut lab, segment(1, ACK));
        change(&mut lab, 1, Some(0));
        assert_eq!(went(&mut lab, segment(1, ACK)), "r2", "what is open goes on");
        assert_eq!(went(&mut lab, segment(1, SYN)), expected, "{on} {mode}");
        assert_eq!(lab.connections(), 1);
    }
}

#[test]
fn expire_quiescent_template_lets_a_client_go_whose_server_is_quiesced() {
    for (on, expected) in [(false, "r2"), (true, "r1")] {
        let mut lab = lab(|policies| policies.expire_quiescent_template = on);
        lab.plan.services[0].persistence =
            Some(Persistence { timeout: Ticks::from_secs(120), prefix: 32, by_call: false });
        lab.publish();
        assert_eq!(went(&mut lab, segment(1, SYN)), "r2");
        change(&mut lab, 1, Some(0));
        assert_eq!(went(&mut lab, segment(2, SYN)), expected);
    }
}

#[test]
fn conn_reuse_mode_says_when_a_port_begins_anew() {
    // By the segments before: FIN after the handshake (FIN_WAIT), FIN in SYN_RECV (TIME_WAIT). The server added last is
    // the first that is chosen.
    for (mode, segments, expected) in [
        (0, &[SYN, FIN][..], "r2"),
        (1, &[SYN, FIN], "r1"),
        (2, &[SYN, FIN], "r1"),
        (1, &[SYN, ACK, FIN | ACK], "r2"),
        (2, &[SYN, ACK, FIN | ACK], "r1"),
        (3, &[SYN, ACK, FIN | ACK], "r1"),
        (3, &[SYN, ACK], "r2"),
    ] {
        let mut lab = lab(|policies| policies.conn_reuse_mode = mode);
        for flags in segments {
            assert_eq!(went(&mut lab, segment(1, *flags)), "r2");
        }
        assert_eq!(went(&mut lab, segment(1, SYN)), expected, "mode {mode} after {segments:?}");
    }
    // With NAT both sides are seen: bit 1 does not count.
    let mut lab = lab(|policies| policies.conn_reuse_mode = 3);
    lab.plan.slots.iter_mut().for_each(|slot| slot.method = Method::Nat);
    lab.publish();
    let back = |flags| ethernet(D1, R2, &tcp("192.168.50.12:80", "10.0.0.2:1", flags).packet());
    went(&mut lab, segment(1, SYN));
    went(&mut lab, segment(1, ACK));
    lab.send_by(1, &[back(FIN | ACK)]);
    assert_eq!(lab.list()[0].state, "FIN_WAIT");
    assert_eq!(went(&mut lab, segment(1, SYN)), "r2");
}

#[test]
fn sloppy_tcp_lets_any_segment_but_a_reset_open_a_connection() {
    for (on, expected) in [(false, "cl"), (true, "r2")] {
        let mut lab = lab(|policies| policies.sloppy_tcp = on);
        assert_eq!(went(&mut lab, segment(1, ACK)), expected);
        assert_eq!(lab.list().first().map(|record| record.state), on.then_some("ESTABLISHED"));
        assert_eq!(went(&mut lab, segment(2, 4)), "");
        assert_eq!(lab.drops(DropReason::ResetUnmatched), 1);
    }
}

#[test]
fn drop_packet_takes_each_so_manieth_that_would_open_a_connection() {
    let mut lab = lab(|policies| (policies.drop_packet, policies.am_droprate) = (Defence::Always, 4));
    lab.wait(1_000);
    lab.poll();
    let sent: Vec<bool> = (1..=12).map(|port| !went(&mut lab, segment(port, SYN)).is_empty()).collect();
    let expected: Vec<bool> = (1..=12).map(|n| n % 4 != 0).collect();
    assert_eq!(sent, expected);
    assert_eq!(lab.drops(DropReason::DropPacket), 3);
    assert_eq!(went(&mut lab, segment(1, ACK)), "r2", "what is open is not touched");
}

#[test]
fn automatic_defences_work_while_room_is_short() {
    let mut lab = lab(|policies| {
        (policies.drop_packet, policies.amemthresh) = (Defence::Automatic, 4_000);
    });
    // 4096 places: from the 97th connection on fewer than 4000 are free.
    for port in 1..=200 {
        assert_ne!(went(&mut lab, segment(port, SYN)), "");
    }
    lab.wait(1_000);
    lab.poll();
    // 3896 are free: 4000 / 104 = 38.
    let dropped: Vec<u16> =
        (1_000..1_100).filter(|port| went(&mut lab, segment(*port, SYN)).is_empty()).collect();
    assert_eq!(dropped, [1_037, 1_075]);
    lab.run(65_000);
    assert_eq!(lab.connections(), 0);
    assert!((2_000..2_050).all(|port| !went(&mut lab, segment(port, SYN)).is_empty()));
}

#[test]
fn drop_entry_ends_half_open_connections_and_silent_ones_of_few_packets() {
    let mut lab = lab(|_| {});
    // Half-open; established with 2 packets, with 3, and with many. Nothing is balanced from port 20.
    for port in 101..=200 {
        went(&mut lab, segment(port, SYN));
        went(&mut lab, segment(1_000 + port, SYN));
        (0..1 + port % 2).for_each(|_| drop(went(&mut lab, segment(1_000 + port, ACK))));
        went(&mut lab, segment(2_000 + port, SYN));
        (0..9).for_each(|_| drop(went(&mut lab, segment(2_000 + port, ACK))));
    }
    lab.run(50_000);
    (101..=200).for_each(|port| drop(went(&mut lab, segment(port, SYN))));
    lab.run(15_000);
    assert_eq!(lab.connections(), 300);
    lab.plan.policies.drop_entry = Defence::Always;
    lab.publish();
    // A thirty-second of the table each second, so that all have been looked at once after about that long.
    lab.run(34_000);
    let by = |lab: &mut Lab, from: u16| {
        lab.list().iter().filter(|record| record.client.port() / 1_000 == from).count()
    };
    assert_eq!(by(&mut lab, 0), 0, "half-open ones");
    let few = by(&mut lab, 1);
    // Of 50 with two packets every second one, of 50 with three every third: 25 and 16, and a second look at some.
    assert!((50..=60).contains(&few), "{few}");
    assert_eq!(by(&mut lab, 2), 100, "those of many packets");
}

#[test]
fn secure_tcp_keeps_half_open_what_only_the_client_says() {
    let mut lab = lab(|policies| policies.secure_tcp = Defence::Always);
    went(&mut lab, segment(1, SYN));
    assert_eq!(lab.list()[0].state, "SYNACK");
    went(&mut lab, segment(1, ACK));
    assert_eq!(lab.list()[0].state, "ESTABLISHED", "direct routing: nothing else is seen");
    lab.plan.slots.iter_mut().for_each(|slot| slot.method = Method::Nat);
    lab.publish();
    went(&mut lab, segment(2, SYN));
    went(&mut lab, segment(2, ACK));
    let state = |lab: &mut Lab| lab.list()[1].state;
    assert_eq!(state(&mut lab), "SYN_RECV");
    let syn_ack = tcp("192.168.50.11:80", "10.0.0.2:2", SYN | ACK).packet();
    assert_eq!(lab.send_by(1, &[ethernet(D1, R1, &syn_ack)]).len(), 1);
    assert_eq!(state(&mut lab), "SYNACK");
    went(&mut lab, segment(2, ACK));
    assert_eq!(state(&mut lab), "SYNACK");
    let data = tcp("192.168.50.11:80", "10.0.0.2:2", ACK).packet();
    lab.send_by(1, &[ethernet(D1, R1, &data)]);
    assert_eq!(state(&mut lab), "ESTABLISHED", "the server goes on");
    lab.run(905_000);
    assert_eq!(lab.connections(), 0);
}

#[test]
fn schedule_icmp_finds_the_server_of_a_flow_that_is_not_known() {
    for (on, expected) in [(false, ""), (true, "r2")] {
        let mut lab = lab(|policies| policies.schedule_icmp = on);
        let quoted = tcp(VIP, "10.0.0.2:7", ACK).packet();
        let message = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &quoted].concat();
        let (from, to) = ([10, 0, 0, 9].into(), [10, 0, 0, 100].into());
        let error = ethernet(D0, C0, &icmp_packet(from, to, &message, &Ip::default()));
        assert_eq!(went(&mut lab, error), expected);
        assert_eq!(lab.list().first().map(|record| record.state), on.then_some("NONE"));
        assert_eq!(lab.drops(DropReason::IcmpUnmatched), u64::from(!on));
        lab.run(4_000);
        assert_eq!(lab.connections(), 0);
    }
    // Without a service it is what it was.
    let mut lab = lab(|policies| policies.schedule_icmp = true);
    let quoted = tcp("10.0.0.100:81", "10.0.0.2:7", ACK).packet();
    let message = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &quoted].concat();
    let (from, to) = ([10, 0, 0, 9].into(), [10, 0, 0, 100].into());
    assert_eq!(went(&mut lab, ethernet(D0, C0, &icmp_packet(from, to, &message, &Ip::default()))), "");
    assert_eq!(lab.all_drops(), [(DropReason::IcmpUnmatched, 1)]);
}

#[test]
fn a_flow_of_udp_that_schedule_icmp_has_made_gives_way_first() {
    let mut plan = Plan::new().service("10.0.0.100:53", UDP, Kind::Rr, 1);
    plan.policies.schedule_icmp = true;
    let mut lab = Lab::sized(plan, Size { connections: 4, ..Size::default() });
    let about = |client: &str| {
        let quoted = udp_packet("10.0.0.100:53", client, &[0; 8], &Ip::default());
        let message = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &quoted].concat();
        ethernet(D0, C0, &icmp_packet([10, 0, 0, 9].into(), [10, 0, 0, 100].into(), &message, &Ip::default()))
    };
    (1..9).for_each(|port| drop(lab.send(&[about(&format!("10.0.0.2:{port}"))])));
    assert_eq!((lab.connections(), lab.all_drops()), (4, vec![]), "a forged error keeps no place");
    // Source port 20 opens nothing, whoever speaks of it.
    assert_eq!(went(&mut lab, about("10.0.0.2:20")), "");
    assert_eq!(lab.all_drops(), [(DropReason::IcmpUnmatched, 1)]);
}

#[test]
fn nat_icmp_send_tells_a_server_that_its_answer_is_none() {
    for (on, marked, expected) in [(false, false, "cl"), (true, false, "r1"), (true, true, "r1")] {
        let mut plan = Plan::new().service(VIP, TCP, Kind::Rr, 1).natted(0, 8080);
        if marked {
            (plan.services[0].mark, plan.slots[0].virtual_service) = (Some(7), None);
        }
        plan.policies.nat_icmp_send = on;
        let mut lab = Lab::new(plan);
        let from = |server: &str, flags| ethernet(D1, R1, &tcp(server, "10.0.0.2:9", flags).packet());
        let by = |lab: &mut Lab, frame| lab.send_by(1, &[frame]).iter().map(|f| text(f)).collect::<String>();
        let said = by(&mut lab, from("192.168.50.11:8080", ACK));
        assert!(said.starts_with(expected), "{said}");
        assert_eq!(
            said.contains("ip 192.168.50.1>192.168.50.11 ") && said.contains("icmp 3/3"),
            on,
            "{said}"
        );
        // A reset, and what the server sends from another port, is its own.
        assert!(by(&mut lab, from("192.168.50.11:8080", 4)).starts_with("cl"));
        assert!(by(&mut lab, from("192.168.50.11:9", ACK)).starts_with("cl"));
    }
}

#[test]
fn a_service_may_have_times_of_its_own() {
    let mut plan = Plan::new().service(VIP, TCP, Kind::Rr, 1).service("10.0.0.100:53", UDP, Kind::Rr, 1);
    for slot in &mut plan.slots {
        let mut own = plan.timeouts.clone();
        (own.tcp[1], own.udp) = (Ticks::from_secs(20), Ticks::from_secs(5));
        slot.timeouts = Some(own.into());
    }
    let mut lab = Lab::new(plan);
    for flags in [SYN, ACK] {
        went(&mut lab, segment(1, flags));
    }
    lab.send(&[udp("10.0.0.2:5", "10.0.0.100:53")]);
    assert_eq!(lab.connections(), 2);
    lab.run(7_000);
    assert_eq!(lab.connections(), 1);
    lab.run(15_000);
    assert_eq!(lab.connections(), 0);
}
