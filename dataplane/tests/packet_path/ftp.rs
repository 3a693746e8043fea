//! FTP by NAT: what a session says of its data connections, and those connections.

use crate::support::{
    Lab, Plan, Size, TCP,
    frames::{ACK, C0, D0, D1, FIN, PSH, R1, R2, SYN, Segment, ethernet, tcp},
};
use pointsman_dataplane::{
    scheduler::Kind,
    snapshot::Persistence,
    time::Ticks,
    verdict::{Answer, DropReason},
};

/// A session of a client with the second server, whose segments and lines are those of the wire.
struct Session {
    lab: Lab,
    client: &'static str,
    vip: &'static str,
    server: &'static str,
}

fn with_ttl(segment: &Segment, ttl: u8) -> Vec<u8> {
    segment.clone().ip(|ip| ip.ttl = ttl).packet()
}

impl Session {
    fn plan(vip: &str, port: u16) -> Plan {
        Plan::new().service(vip, TCP, Kind::Rr, 2).natted(0, port).natted(1, port)
    }

    /// The server has greeted: the client is at 1001, the server at 5012.
    fn new(workers: usize) -> Self {
        Self::of(
            Self::plan("10.0.0.100:21", 21),
            workers,
            ["10.0.0.2:2001", "10.0.0.100:21", "192.168.50.12:21"],
        )
    }

    fn v6(workers: usize) -> Self {
        let ends = ["[fd00:1::2]:2001", "[fd00:1::100]:21", "[fd00:50::12]:21"];
        Self::of(Self::plan(ends[1], 21), workers, ends)
    }

    fn of(plan: Plan, workers: usize, [client, vip, server]: [&'static str; 3]) -> Self {
        let lab = Lab::sized(plan, Size { workers, ..Size::default() });
        let mut session = Self { lab, client, vip, server };
        session.there((client, vip), (client, server), |segment| flags(segment, SYN).seq(1000, 0));
        session.back((server, client), (vip, client), |segment| flags(segment, SYN | ACK).seq(5000, 1001));
        session.there((client, vip), (client, server), |segment| segment.seq(1001, 5001));
        session.server_says((5001, 1001), "220 ready\r\n", 5001, "220 ready\r\n");
        session
    }

    /// Sends what `make` makes of an ACK, from the client's side; it comes out between the ends `expected`.
    fn there(&mut self, ends: (&str, &str), expected: (&str, &str), make: impl Fn(Segment) -> Segment) {
        let out = self.lab.send(&[make(tcp(ends.0, ends.1, ACK)).frame()]);
        let expected = with_ttl(&make(tcp(expected.0, expected.1, ACK)), 63);
        assert_eq!(out, [ethernet(R2, D1, &expected)]);
    }

    /// The same from the server's side.
    fn back(&mut self, ends: (&str, &str), expected: (&str, &str), make: impl Fn(Segment) -> Segment) {
        let out = self.lab.send_by(1, &[ethernet(D1, R2, &make(tcp(ends.0, ends.1, ACK)).packet())]);
        let expected = with_ttl(&make(tcp(expected.0, expected.1, ACK)), 63);
        assert_eq!(out, [ethernet(C0, D0, &expected)]);
    }

    /// The client says a line at `seq`, having heard up to `heard`, which is `ack` to the server.
    fn client_says(&mut self, (seq, heard): (u32, u32), line: &str, ack: u32) {
        let said = tcp(self.client, self.vip, PSH | ACK).seq(seq, heard).text(line);
        let expected = tcp(self.client, self.server, PSH | ACK).seq(seq, ack).text(line);
        assert_eq!(self.lab.send(&[said.frame()]), [ethernet(R2, D1, &with_ttl(&expected, 63))], "{line}");
    }

    /// The server says a line, which the client hears as `heard` at `given`.
    fn server_says(&mut self, (seq, ack): (u32, u32), line: &str, given: u32, heard: &str) {
        let said = tcp(self.server, self.client, PSH | ACK).seq(seq, ack).text(line);
        let expected = tcp(self.vip, self.client, PSH | ACK).seq(given, ack).text(heard);
        let out = self.lab.send_by(1, &[ethernet(D1, R2, &said.packet())]);
        assert_eq!(out, [ethernet(C0, D0, &with_ttl(&expected, 63))], "{line}");
    }

    /// A data connection by the client: opened, used both ways, closed.
    fn passive(&mut self, client: &str, at: &str, server: &str) {
        self.there((client, at), (client, server), |segment| flags(segment, SYN).seq(100, 0));
        self.back((server, client), (at, client), |segment| flags(segment, SYN | ACK).seq(300, 101));
        self.there((client, at), (client, server), |segment| segment.seq(101, 301));
        for n in 0..3 {
            self.there((client, at), (client, server), |segment| segment.seq(101 + 700 * n, 301).len(700));
            self.back((server, client), (at, client), |segment| segment.seq(301, 801 + 700 * n).len(9));
        }
    }

    /// A data connection by the server.
    fn active(&mut self, server: &str, at: &str, client: &str) {
        self.back((server, client), (at, client), |segment| flags(segment, SYN).seq(300, 0));
        self.there((client, at), (client, server), |segment| flags(segment, SYN | ACK).seq(100, 301));
        for n in 0..3 {
            self.back((server, client), (at, client), |segment| segment.seq(301 + 1400 * n, 101).len(1400));
            self.there((client, at), (client, server), |segment| segment.seq(101, 1701 + 1400 * n));
        }
    }

    fn is_done(&self) {
        self.lab.assert_accounted(0);
        assert_eq!(self.lab.all_drops(), []);
    }
}

fn flags(mut segment: Segment, flags: u8) -> Segment {
    segment.flags = flags;
    segment
}

/// Where a server waits: port 40000.
const WAITS: &str = "227 Entering Passive Mode (192,168,50,12,156,64).\r\n";
const HEARD: &str = "227 Entering Passive Mode (10,0,0,100,156,64).\r\n";

#[test]
fn a_passive_data_connection_leads_to_the_sessions_server_by_the_virtual_address() {
    for workers in [1, 2, 3] {
        for client in ["10.0.0.2:3001", "10.0.0.2:3002", "10.0.0.2:3003", "10.0.0.2:3004"] {
            let mut session = Session::new(workers);
            session.client_says((1001, 5012), "PASV\r\n", 5012);
            session.server_says((5012, 1007), WAITS, 5012, HEARD);
            session.passive(client, "10.0.0.100:40000", "192.168.50.12:40000");
            let listed = session.lab.listed();
            assert_eq!(listed[0], "TCP 15:00 ESTABLISHED 10.0.0.2:2001 10.0.0.100:21 192.168.50.12:21");
            let expected = format!("TCP 15:00 ESTABLISHED {client} 10.0.0.100:40000 192.168.50.12:40000");
            assert_eq!(listed[1..], [expected], "{workers} workers");
            // Both count as the server's; one was scheduled.
            assert_eq!((session.lab.counts(1), session.lab.traffic(1).0), ((2, 0), 1));
            let stats = |get: fn(&pointsman_dataplane::stats::DestinationCounters) -> u64| -> u64 {
                session.lab.stations.iter().map(|station| get(&station.shared.stats.destinations[1])).sum()
            };
            assert_eq!((stats(|s| s.packets_in.get()), stats(|s| s.packets_out.get())), (8, 7));
            session.is_done();
        }
    }
}

#[test]
fn both_ends_see_their_own_numbers_after_a_text_of_another_length_however_it_is_sent_again() {
    let mut session = Session::new(1);
    session.client_says((1001, 5012), "PASV\r\n", 5012);
    session.server_says((5012, 1007), WAITS, 5012, HEARD);
    // The text has 51 bytes, and 48 to the client.
    session.server_says((5012, 1007), WAITS, 5012, HEARD);
    session.client_says((1007, 5060), "LIST\r\n", 5063);
    session.server_says((5063, 1013), "150 here\r\n", 5060, "150 here\r\n");
    // In two parts, cut within the address.
    session.server_says((5012, 1007), &WAITS[..30], 5012, &HEARD[..30]);
    session.server_says((5042, 1007), &WAITS[30..], 5042, &HEARD[30..]);
    session.client_says((1013, 5070), "PASV\r\n", 5073);
    // Longer this time, by 3 bytes: the numbers are the server's again.
    let (waits, heard) = ("227 ok (1,1,1,1,156,65)\r\n", "227 ok (10,0,0,100,156,65)\r\n");
    session.server_says((5073, 1019), waits, 5070, heard);
    session.server_says((5073, 1019), waits, 5070, heard);
    session.client_says((1019, 5098), "QUIT\r\n", 5098);
    session.server_says((5098, 1025), "221 bye\r\n", 5098, "221 bye\r\n");
    session.passive("10.0.0.2:3001", "10.0.0.100:40001", "192.168.50.12:40001");
    session.is_done();
}

#[test]
fn an_active_data_connection_comes_from_the_virtual_address() {
    for workers in [1, 2, 3] {
        for (port, command) in [
            (50000, "PORT 10,0,0,2,195,80\r\n"),
            (50001, "port 10,0,0,2,195,81\r\n"),
            (50002, "EPRT |1|10.0.0.2|50002|\r\n"),
            (50003, "EPRT |1|10.0.0.2|50003|\r\n"),
        ] {
            let mut session = Session::new(workers);
            session.client_says((1001, 5012), command, 5012);
            let client = format!("10.0.0.2:{port}");
            session.active("192.168.50.12:20", "10.0.0.100:20", &client);
            let expected = format!("TCP 15:00 ESTABLISHED {client} 10.0.0.100:20 192.168.50.12:20");
            assert_eq!(session.lab.listed()[1..], [expected], "{workers} workers");
            assert_eq!((session.lab.counts(1), session.lab.traffic(1).0), ((2, 0), 1));
            session.is_done();
        }
    }
}

#[test]
fn the_servers_data_port_is_the_one_below_its_own() {
    let ends = ["10.0.0.2:2001", "10.0.0.100:21", "192.168.50.12:2121"];
    let mut session = Session::of(Session::plan(ends[1], 2121), 1, ends);
    session.client_says((1001, 5012), "PORT 10,0,0,2,195,80\r\n", 5012);
    session.active("192.168.50.12:2120", "10.0.0.100:20", "10.0.0.2:50000");
    session.is_done();
}

#[test]
fn ipv6_has_both_modes_too() {
    for workers in [1, 3] {
        let mut session = Session::v6(workers);
        session.client_says((1001, 5012), "EPSV\r\n", 5012);
        let line = "229 Entering Extended Passive Mode (|||40000|)\r\n";
        session.server_says((5012, 1007), line, 5012, line);
        session.passive("[fd00:1::2]:3001", "[fd00:1::100]:40000", "[fd00:50::12]:40000");
        session.client_says((1007, 5060), "EPRT |2|fd00:1::2|50000|\r\n", 5060);
        session.active("[fd00:50::12]:20", "[fd00:1::100]:20", "[fd00:1::2]:50000");
        // An address of the server's own is left out.
        session.client_says((1033, 5060), "EPSV\r\n", 5060);
        let (line, heard) = ("229 ok (|2|fd00:50::12|40001|)\r\n", "229 ok (|||40001|)\r\n");
        session.server_says((5060, 1039), line, 5060, heard);
        session.client_says((1039, 5080), "QUIT\r\n", 5092);
        session.is_done();
    }
}

#[test]
fn extended_passive_mode_leads_an_ipv4_client_to_the_server_as_well() {
    let mut session = Session::new(2);
    session.client_says((1001, 5012), "EPSV 1\r\n", 5012);
    let line = "229 Entering Extended Passive Mode (|||40000|)\r\n";
    session.server_says((5012, 1009), line, 5012, line);
    session.passive("10.0.0.2:3001", "10.0.0.100:40000", "192.168.50.12:40000");
    session.is_done();
}

#[test]
fn a_client_has_the_server_connect_to_itself_alone_and_not_to_a_service() {
    for (target, command) in [
        ("10.0.0.9:50000", "PORT 10,0,0,9,195,80\r\n"),
        ("10.0.0.2:80", "PORT 10,0,0,2,0,80\r\n"),
        ("10.0.0.2:1023", "EPRT |1|10.0.0.2|1023|\r\n"),
    ] {
        let mut session = Session::new(1);
        session.client_says((1001, 5012), command, 5012);
        // It is the server's own connection, and leaves as that.
        let ends = ("192.168.50.12:20", target);
        session.back(ends, ends, |segment| flags(segment, SYN));
        assert_eq!(session.lab.connections(), 1);
    }
}

#[test]
fn a_data_connection_nobody_spoke_of_is_none() {
    let mut session = Session::new(1);
    let opened = |session: &mut Session, client: &str, port: u16| {
        let out = session.lab.send(&[tcp(client, &format!("10.0.0.100:{port}"), SYN).frame()]);
        assert_eq!(out.len(), 1);
        out[0][..6] == R2
    };
    // A reply that nobody asked for says nothing.
    session.server_says((5012, 1001), WAITS, 5012, WAITS);
    assert!(!opened(&mut session, "10.0.0.2:3001", 40_000));
    session.client_says((1001, 5063), "PASV\r\n", 5063);
    session.server_says((5063, 1007), WAITS, 5063, HEARD);
    assert!(!opened(&mut session, "10.0.0.3:3001", 40_000), "another client");
    assert!(!opened(&mut session, "10.0.0.2:3001", 40_001), "another port");
    assert!(opened(&mut session, "10.0.0.2:3001", 40_000));
    assert!(!opened(&mut session, "10.0.0.2:3002", 40_000), "it has been opened");
    session.client_says((1007, 5111), "PASV\r\n", 5114);
    session.server_says((5114, 1013), WAITS, 5111, HEARD);
    session.lab.run(121_000);
    assert!(!opened(&mut session, "10.0.0.2:3003", 40_000), "its time is over");
    assert_eq!(session.lab.answers(Answer::TcpReset), 5);
}

#[test]
fn a_data_connection_ends_as_any_other() {
    let mut session = Session::new(1);
    session.client_says((1001, 5012), "PASV\r\n", 5012);
    session.server_says((5012, 1007), WAITS, 5012, HEARD);
    let (client, at, server) = ("10.0.0.2:3001", "10.0.0.100:40000", "192.168.50.12:40000");
    session.passive(client, at, server);
    session.back((server, client), (at, client), |segment| flags(segment, FIN | ACK));
    session.there((client, at), (client, server), |segment| flags(segment, FIN | ACK));
    let expected = format!("TCP 02:00 TIME_WAIT {client} {at} {server}");
    assert_eq!((session.lab.listed()[1..].to_vec(), session.lab.counts(1)), (vec![expected], (1, 1)));
    session.lab.run(121_000);
    assert_eq!((session.lab.connections(), session.lab.counts(1)), (1, (1, 0)));
    // The session ends too, and nothing of it is left.
    session.lab.run(900_000);
    assert_eq!((session.lab.connections(), session.lab.counts(1)), (0, (0, 0)));
    session.is_done();
}

#[test]
fn a_session_outlives_a_transfer_of_any_length() {
    for workers in [1, 2, 3] {
        let mut session = Session::new(workers);
        session.client_says((1001, 5012), "PASV\r\n", 5012);
        session.server_says((5012, 1007), WAITS, 5012, HEARD);
        let (client, at, server) = ("10.0.0.2:3001", "10.0.0.100:40000", "192.168.50.12:40000");
        session.passive(client, at, server);
        // The time of an established connection is 15 minutes; the client sends, or the server, but not in the session.
        for n in 0..4 {
            session.lab.run(600_000);
            match n % 2 {
                0 => session.there((client, at), (client, server), |segment| segment.seq(9000, 301).len(700)),
                _ => session.back((server, client), (at, client), |segment| segment.seq(301, 9700).len(9)),
            }
        }
        session.lab.run(600_000);
        session.server_says((5063, 1007), "226 done\r\n", 5060, "226 done\r\n");
        // Nobody says anything any more.
        session.lab.run(901_000);
        assert_eq!(session.lab.connections(), 0, "{workers} workers");
        session.is_done();
    }
}

/// Persistent FTP services of two addresses, with the same server.
fn persistent() -> Lab {
    let mut plan = Plan::new().service("10.0.0.100:21", TCP, Kind::Rr, 1).natted(0, 21);
    plan = plan.service("10.0.0.101:21", TCP, Kind::Rr, 1).natted(1, 21);
    for service in &mut plan.services {
        let timeout = Ticks::from_secs(300);
        service.persistence = Some(Persistence { timeout, prefix: 32, by_call: false });
    }
    let address = plan.slots[0].address;
    plan.slots[1].address = address;
    Lab::new(plan)
}

#[test]
fn the_data_of_a_persistent_service_keeps_its_port_without_a_word_of_the_session() {
    let mut lab = persistent();
    let mut passes = |ends: (&str, &str), expected: (&str, &str), set: u8| {
        let out = lab.send(&[flags(tcp(ends.0, ends.1, ACK), set).frame()]);
        assert_eq!(out, [ethernet(R1, D1, &with_ttl(&flags(tcp(expected.0, expected.1, ACK), set), 63))]);
    };
    passes(("10.0.0.2:2001", "10.0.0.100:21"), ("10.0.0.2:2001", "192.168.50.11:21"), SYN);
    let (client, at, server) = ("10.0.0.2:3001", "10.0.0.100:40000", "192.168.50.11:40000");
    passes((client, at), (client, server), SYN);
    let back = lab.send_by(1, &[ethernet(D1, R1, &tcp(server, client, SYN | ACK).packet())]);
    assert_eq!(back, [ethernet(C0, D0, &with_ttl(&tcp(at, client, SYN | ACK), 63))]);
    let out = lab.send(&[tcp(client, at, ACK).len(700).frame()]);
    assert_eq!(out, [ethernet(R1, D1, &with_ttl(&tcp(client, server, ACK).len(700), 63))]);
    let listed = lab.listed();
    assert!(listed.contains(&format!("TCP 15:00 ESTABLISHED {client} {at} {server}")), "{listed:?}");
    // A connection and its data, both scheduled; two packets and one in, one out.
    assert_eq!((lab.counts(0), lab.traffic(0).0), ((2, 0), 2));
    lab.assert_accounted(0);
    assert_eq!(lab.all_drops(), []);
}

#[test]
fn a_data_connection_whose_answers_are_anothers_goes_nowhere() {
    let mut lab = persistent();
    let client = "10.0.0.2:3001";
    for at in ["10.0.0.100:40000", "10.0.0.101:40000"] {
        assert_eq!(lab.send(&[tcp(client, at, SYN).frame()]).len(), 1, "{at}");
    }
    // No server could tell them apart: the answers are the younger one's.
    let back = lab.send_by(1, &[ethernet(D1, R1, &tcp("192.168.50.11:40000", client, SYN | ACK).packet())]);
    assert_eq!(back, [ethernet(C0, D0, &with_ttl(&tcp("10.0.0.101:40000", client, SYN | ACK), 63))]);
    assert!(lab.send(&[tcp(client, "10.0.0.100:40000", ACK).frame()]).is_empty());
    assert_eq!(lab.all_drops(), [(DropReason::DestinationRemoved, 1)]);
    lab.assert_accounted(0);
}

#[test]
fn a_reply_that_no_longer_fits_the_way_out_is_dropped() {
    let mut session = Session::new(1);
    session.client_says((1001, 5012), "PASV\r\n", 5012);
    // 1460 bytes, and three more to the client.
    let line = format!("227 ok (1,1,1,1,156,64)\r\n230 {}\r\n", "x".repeat(1429));
    let said = tcp(session.server, session.client, PSH | ACK).seq(5012, 1007).text(&line);
    assert_eq!(session.lab.send_by(1, &[ethernet(D1, R2, &said.packet())]), Vec::<Vec<u8>>::new());
    assert_eq!(session.lab.all_drops(), [(DropReason::TooBig, 1)]);
    // Sent again in smaller parts it arrives.
    session.server_says((5012, 1007), &line[..25], 5012, "227 ok (10,0,0,100,156,64)\r\n");
    session.lab.assert_accounted(0);
}

#[test]
fn a_service_of_another_port_is_not_looked_into() {
    let ends = ["10.0.0.2:2001", "10.0.0.100:2100", "192.168.50.12:21"];
    let mut session = Session::of(Session::plan(ends[1], 21), 1, ends);
    session.client_says((1001, 5012), "PASV\r\n", 5012);
    session.server_says((5012, 1007), WAITS, 5012, WAITS);
    session.is_done();
}
