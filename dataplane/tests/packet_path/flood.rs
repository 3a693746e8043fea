//! Floods against a full table: what stands loses nothing, clients that answer in time connect, and nothing grows.

use crate::support::{
    Lab, Plan, Size, TCP, UDP,
    frames::{ACK, C0, D0, D1, Ip, R1, SYN, ethernet, sctp_packet, tcp, udp_packet},
};
use pointsman_dataplane::{
    scheduler::Kind,
    snapshot::{Encapsulation, Method},
    verdict::DropReason,
};

const SCTP: u8 = 132;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;

/// Entries of a worker's table.
const ROOM: usize = 1_024;
/// Connections that stand before the flood.
const STANDING: u16 = 100;
/// Packets of the flood in each of its ticks, of 10 ms.
const BURST: u32 = 60;
const TICK: u64 = 10;

/// What is flooded.
#[derive(Clone, Copy, Debug)]
struct Case {
    protocol: u8,
    method: Method,
    workers: usize,
    /// From the ports of one client, one after the other; else from clients at random.
    one_client: bool,
}

/// What a packet is in the life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    First,
    Answer,
    Second,
    /// The server's to that, of SCTP.
    Settled,
    Data,
}

impl Case {
    fn plan(self) -> Plan {
        let mut plan = Plan::new().service("10.0.0.100:80", self.protocol, Kind::Rr, 2).router();
        for slot in 0..2 {
            plan = match self.method {
                Method::Nat => plan.natted(slot, 8080),
                Method::Tunnel => plan.tunnelled(slot, Encapsulation::Ipip),
                _ => plan,
            };
        }
        plan
    }

    fn packet(self, is: Is, from: &str, to: &str) -> Vec<u8> {
        match self.protocol {
            TCP => {
                let flags = match is {
                    Is::First => SYN,
                    Is::Answer => SYN | ACK,
                    _ => ACK,
                };
                tcp(from, to, flags).packet()
            }
            UDP => udp_packet(from, to, b"ping", &Ip::default()),
            _ => {
                let kind = match is {
                    Is::First => INIT,
                    Is::Answer => INIT_ACK,
                    Is::Second => COOKIE_ECHO,
                    Is::Settled => COOKIE_ACK,
                    Is::Data => SACK,
                };
                sctp_packet(from, to, &[kind], &Ip::default())
            }
        }
    }

    /// A client's packet to the service.
    fn to_service(self, is: Is, client: &str) -> Vec<u8> {
        ethernet(D0, C0, &self.packet(is, client, "10.0.0.100:80"))
    }

    /// What the server answers to a frame that it got by NAT.
    fn answer(self, is: Is, got: &[u8]) -> Vec<u8> {
        let at = |at: usize, port: usize| {
            let port = u16::from_be_bytes([got[port], got[port + 1]]);
            format!("{}.{}.{}.{}:{port}", got[at], got[at + 1], got[at + 2], got[at + 3])
        };
        ethernet(D1, R1, &self.packet(is, &at(30, 36), &at(26, 34)))
    }

    /// Connections that the table of all workers has room for beside those that stand.
    fn queue(self) -> u64 {
        let room = (ROOM * self.workers) as u64;
        let room = if self.method == Method::Nat { room / 2 } else { room };
        room - u64::from(STANDING)
    }
}

/// A real client during the flood.
struct Trying {
    name: String,
    /// When it sends its second packet, and, by NAT, what the server is to answer by then.
    back: u64,
    got: Vec<u8>,
    round_trip: u64,
}

struct Flood {
    case: Case,
    lab: Lab,
    random: u64,
    sent: u32,
    millis: u64,
    trying: Vec<Trying>,
    /// Of those that tried: their round trip, and whether they connected.
    tried: Vec<(u64, bool)>,
}

impl Flood {
    fn new(case: Case) -> Self {
        let size = Size { workers: case.workers, connections: ROOM, ..Size::default() };
        let lab = Lab::sized(case.plan(), size);
        Self { case, lab, random: 7, sent: 0, millis: 0, trying: Vec::new(), tried: Vec::new() }
    }

    /// Packets of clients: each must leave to a server. Returns what left.
    fn sent_on(&mut self, is: Is, clients: &[String]) -> Vec<Vec<u8>> {
        let frames: Vec<_> = clients.iter().map(|client| self.case.to_service(is, client)).collect();
        let out = self.lab.send(&frames);
        assert_eq!(out.len(), frames.len(), "{:?} {is:?}: {:?}", self.case, self.lab.all_drops());
        out
    }

    /// The servers' answers to what they got: each must leave to its client.
    fn answered(&mut self, is: Is, got: &[Vec<u8>]) {
        if self.case.method == Method::Nat {
            let frames: Vec<_> = got.iter().map(|got| self.case.answer(is, got)).collect();
            let out = self.lab.send_by(1, &frames);
            assert_eq!(out.len(), frames.len(), "{:?} {is:?}: {:?}", self.case, self.lab.all_drops());
            assert!(out.iter().all(|frame| frame[26..30] == [10, 0, 0, 100]), "they come from the service");
        }
    }

    fn stand(&mut self) {
        let clients: Vec<String> = (0..STANDING).map(standing).collect();
        let got = self.sent_on(Is::First, &clients);
        self.answered(Is::Answer, &got);
        let got = self.sent_on(Is::Second, &clients);
        self.answered(Is::Settled, &got);
    }

    /// Every connection that stands has a packet each way, and makes no new one.
    fn check_standing(&mut self, which: impl Iterator<Item = u16>) {
        let clients: Vec<String> = which.map(standing).collect();
        let made = self.lab.lives().0;
        let got = self.sent_on(Is::Data, &clients);
        self.answered(Is::Data, &got);
        assert_eq!(self.lab.lives().0, made, "{:?}: they stand", self.case);
    }

    fn flooder(&mut self) -> String {
        self.sent += 1;
        if self.case.one_client {
            return format!("198.51.100.7:{}", 1_024 + self.sent % 60_000);
        }
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let [a, b, c, d, ..] = self.random.to_be_bytes();
        format!("{}.{a}.{b}.{c}:{}", 20 + d % 64, 1_024 + self.sent % 60_000)
    }

    /// One tick: a burst, some of what stands, and what the real clients do by now.
    fn tick(&mut self, round_trip: u64) {
        let burst: Vec<String> = (0..BURST).map(|_| self.flooder()).collect();
        let got = self.sent_on(Is::First, &burst);
        self.answered(Is::Answer, &got);
        let first = (self.millis / TICK * 7 % 100) as u16;
        self.check_standing((first..first + 7).map(|n| n % STANDING));
        let name = format!("10.0.0.{}:{}", 10 + self.millis / TICK % 50, 2_000 + self.millis / TICK);
        let got = self.sent_on(Is::First, std::slice::from_ref(&name));
        self.answered(Is::Answer, &got);
        let back = self.millis + round_trip;
        self.trying.push(Trying { name, back, got: got[0].clone(), round_trip });
        let now = self.millis;
        let (due, later) = std::mem::take(&mut self.trying).into_iter().partition(|one| one.back <= now);
        self.trying = later;
        due.into_iter().for_each(|one| self.second(one));
        self.lab.wait(TICK);
        self.millis += TICK;
        let (made, expired, evicted) = self.lab.lives();
        assert_eq!(made - expired - evicted, self.lab.connections());
    }

    /// A client has heard the server and sends its second packet. It is connected if that makes no new connection, goes to
    /// the same server, and, by NAT, what the server says then is its service's.
    fn second(&mut self, one: Trying) {
        let made = self.lab.lives().0;
        let out = self.lab.send(&[self.case.to_service(Is::Second, &one.name)]);
        let connected = self.lab.lives().0 == made && out.len() == 1 && out[0][..6] == one.got[..6];
        if connected {
            self.answered(Is::Settled, &[one.got]);
        }
        self.tried.push((one.round_trip, connected));
    }

    /// When all is over: no connection, no count.
    fn ends(&mut self) {
        self.lab.run(901_600);
        assert_eq!((self.lab.connections(), self.case.protocol), (0, self.case.protocol));
        for slot in 0..2 {
            assert_eq!(self.lab.counts(slot), (0, 0), "{:?}", self.case);
        }
        self.lab.assert_accounted(0);
    }
}

fn standing(n: u16) -> String {
    format!("10.0.0.2:{}", 1_000 + n)
}

/// Floods a full table with clients of every round trip from 10 to 400 ms between.
///
/// The queue of half-open connections is one of `queue()` places, of which each tick takes `BURST` and one more: a
/// connection gives way `queue() / 61` ticks after its last packet. Clients with a shorter round trip connect, those with a
/// longer one do not. The queue shrinks by those that have connected, workers have shares that differ by chance, and
/// packets come at the beginning of a tick: four fifths of that time are granted.
fn withstands(case: Case) {
    let mut flood = Flood::new(case);
    flood.stand();
    let ticks = case.queue() / u64::from(BURST + 1);
    // Until the table is full and has been turned over.
    for _ in 0..2 * ticks + 5 {
        flood.tick(TICK);
    }
    assert!(flood.lab.lives().2 > 0, "{case:?}: connections gave way");
    flood.tried.clear();
    let memory = flood.lab.stations.iter().map(|station| station.worker.memory_reports()).collect::<Vec<_>>();
    for n in 0..80 {
        flood.tick(10 + n % 40 * 10);
    }
    for _ in 0..41 {
        flood.tick(TICK);
    }
    let turn = ticks * TICK;
    let share = |low: u64, high: u64| {
        let of = flood.tried.iter().filter(|(round_trip, _)| (low..high).contains(round_trip));
        (of.clone().filter(|(_, connected)| *connected).count(), of.count())
    };
    let (connected, all) = share(0, turn * 4 / 5);
    assert!(all > 10 && connected == all, "{case:?}: {connected} of {all} connect within {turn} ms");
    // So that the flood is one: those that take half as long again find their place taken.
    if turn * 3 / 2 < 400 && case.protocol != UDP {
        assert_eq!(share(turn * 3 / 2, 410).0, 0, "{case:?}: {:?}", share(turn * 3 / 2, 410));
    }
    flood.check_standing(0..STANDING);
    let after = flood.lab.stations.iter().map(|station| station.worker.memory_reports()).collect::<Vec<_>>();
    assert_eq!(format!("{memory:?}"), format!("{after:?}"), "memory is what it was");
    assert_eq!(flood.lab.drops(DropReason::TableFull), 0);
    flood.ends();
}

fn cases(protocol: u8, methods: &[Method]) {
    for method in methods.iter().copied() {
        for (workers, one_client) in [(1, false), (1, true), (2, false), (2, true)] {
            withstands(Case { protocol, method, workers, one_client });
        }
    }
}

#[test]
fn a_flood_of_syn_leaves_what_stands_and_who_answers_in_time() {
    cases(TCP, &[Method::Direct, Method::Tunnel]);
}

#[test]
fn a_flood_of_syn_through_nat_leaves_both_directions_and_who_answers_in_time() {
    cases(TCP, &[Method::Nat]);
}

#[test]
fn a_flood_of_single_datagrams_leaves_flows_that_were_answered_and_spoken_to() {
    cases(UDP, &[Method::Direct, Method::Nat]);
}

#[test]
fn a_flood_of_init_leaves_associations_that_returned_the_cookie() {
    cases(SCTP, &[Method::Direct, Method::Nat]);
}
