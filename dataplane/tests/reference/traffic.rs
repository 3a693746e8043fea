//! Packets, and what should become of each: byte by byte.

use crate::{
    Both, MARK, MARKED_PORTS, SERVICES,
    crafted::{Crafted, Report, in_tunnel},
    model::{ACK, FIN, Flow, Method, RST, SYN, Verdict},
    support::{
        TCP,
        frames::{C0, D0, D1, Ip, R1, R2, R3, ethernet},
        marked,
    },
};
use pointsman_dataplane::{mark::Rule, verdict::DropReason};
use std::net::{IpAddr, SocketAddr};

const MACS: [[u8; 6]; 3] = [R1, R2, R3];
/// RST and what is no event at all are rarer than they would be among all flags.
const FLAGS: [u8; 12] = [SYN, SYN, ACK, ACK, ACK, ACK, FIN | ACK, RST, 0, SYN | FIN, SYN | RST, SYN | ACK];

/// The rule that marks packets to an address.
pub(crate) fn marks(address: IpAddr) -> Vec<Rule> {
    vec![Rule { ports: Some(MARKED_PORTS), ..marked(address, MARK) }]
}

/// A frame that should leave, and whether the director may have said too much to say it.
type Expected = Option<(Vec<u8>, bool)>;

impl Both {
    fn ip(&mut self, len: usize) -> Ip {
        let ttl = self.dice.of(&[64, 64, 64, 64, 64, 64, 64, 2, 1, 255]);
        let tos = self.dice.of(&[0, 0, 0, 16, 1, 3, 0xb8]);
        let fragment = if len > 300 { 0x4000 } else { self.dice.of(&[0x4000, 0x4000, 0]) };
        Ip { ttl, tos, id: self.dice.below(65_536) as u16, fragment, options: Vec::new() }
    }

    fn crafted(&mut self, flow: Flow) -> Crafted {
        let len = if self.dice.below(12) == 0 { 1_300 + self.dice.below(180) } else { self.dice.below(200) };
        let (flags, ip) = (self.dice.of(&FLAGS), self.ip(len));
        Crafted { flow, flags, seq: 1_000 + u32::from(ip.id), ack: 77, len, ip }
    }

    /// A client and what it wants: not always a service.
    fn flow(&mut self) -> Flow {
        let (text, protocol, _) = self.dice.of(&SERVICES);
        let mut service: SocketAddr = text.parse().expect("a socket");
        let mut tcp = protocol == TCP;
        match service.port() {
            0 => service.set_port(self.dice.of(&[81, 444])),
            8_000 => {
                service.set_port(8_000 + self.dice.below(4) as u16);
                tcp = self.dice.below(2) == 0;
            }
            _ => {}
        }
        if self.dice.below(30) == 0 {
            service.set_port(99);
        }
        let (host, port) = (1 + self.dice.below(5), 2_000 + self.dice.below(6));
        let client = if service.is_ipv6() { format!("[fd00:9::{host}]") } else { format!("10.0.1.{host}") };
        let client = format!("{client}:{port}").parse().expect("a socket");
        Flow { tcp, client, service }
    }

    /// A packet of a client, or a few of one flow in a row.
    pub(crate) fn packets(&mut self) {
        let flow = self.flow();
        let count = self.dice.of(&[1, 1, 1, 2, 3]);
        let (mut frames, mut expected, mut context) = (Vec::new(), Vec::new(), String::new());
        for _ in 0..count {
            let packet = self.crafted(flow);
            let bytes = packet.packet();
            let verdict = self.model.packet(&flow, packet.flags, bytes.len() as u64);
            let kind =
                self.model.services.iter().find(|s| s.at == flow.service).map(|s| (s.kind, s.persistence));
            context += &format!("{packet:?} expected {verdict:?} {kind:?}; ");
            expected.extend(self.expected_of_client_or_server(verdict, &packet, bytes.len()));
            frames.push(ethernet(D0, C0, &bytes));
        }
        self.send(0, &frames, expected, &context);
    }

    fn expected_of_client_or_server(&mut self, verdict: Verdict, packet: &Crafted, len: usize) -> Expected {
        let back = |packet: Vec<u8>, limited| Some((ethernet(C0, D0, &packet), limited));
        let name = match verdict {
            Verdict::Server(slot, method) => return self.expected_of_server((slot, method), packet, len),
            Verdict::Reset => "reset",
            Verdict::Unreachable => "unreachable",
            _ => "vanishes",
        };
        *self.verdicts.entry(name).or_default() += 1;
        match verdict {
            Verdict::Reset => back(packet.reset(), false),
            Verdict::Unreachable => back(packet.unreachable(), true),
            _ => None,
        }
    }

    fn expected_of_server(
        &mut self,
        (slot, method): (usize, Method),
        packet: &Crafted,
        len: usize,
    ) -> Expected {
        let (server, vip) = (self.model.servers[slot].clone(), packet.flow.service.ip());
        if server.method != method {
            *self.verdicts.entry("by the method before").or_default() += 1;
        }
        let name = match method {
            Method::Direct => "direct",
            Method::Nat => "nat",
            Method::Tunnel => "tunnel",
        };
        *self.verdicts.entry(name).or_default() += 1;
        let back = |packet: Vec<u8>| Some((ethernet(C0, D0, &packet), true));
        if packet.ip.ttl <= 1 {
            return back(packet.expired(vip));
        }
        let outer = match (method, vip.is_ipv6()) {
            (Method::Tunnel, true) => 40,
            (Method::Tunnel, false) => 20,
            _ => 0,
        };
        let most = usize::from(self.lab.plan.mtu) - outer;
        if len > most {
            return back(packet.too_big(vip, &packet.lowered(), most as u32));
        }
        let sent = match method {
            Method::Nat => packet.forwarded(packet.flow.client, server.socket(&packet.flow)),
            _ => packet.lowered(),
        };
        Some((self.towards((slot, method), sent), false))
    }

    /// The frame by which a packet, translated if need be, leaves towards the server in a slot.
    fn towards(&mut self, (slot, method): (usize, Method), packet: Vec<u8>) -> Vec<u8> {
        let server = &self.model.servers[slot];
        if method != Method::Tunnel {
            return ethernet(MACS[slot % 3], D1, &packet);
        }
        let may_be_cut = !server.address.is_ipv6() && packet[6] & 0x40 == 0;
        let outer = in_tunnel(&packet, server.address, self.numbers[slot]);
        self.numbers[slot] = self.numbers[slot].wrapping_add(u16::from(may_be_cut));
        ethernet(MACS[slot % 3], D1, &outer)
    }

    /// An answer that is expected, or one of nothing; and the slot of a server with its address.
    fn answer_of_server(&mut self) -> (Flow, usize) {
        let known = self.model.answers.len();
        if known > 0 && self.dice.below(5) > 0 {
            let answer = *self.model.answers.keys().nth(self.dice.below(known)).expect("one of them");
            let is_its = |server: &crate::model::Server| server.address == answer.client.ip();
            return (answer, self.model.servers.iter().position(is_its).expect("a server"));
        }
        let slot = self.dice.below(self.model.servers.len());
        let asked = loop {
            let flow = self.flow();
            if flow.service.is_ipv6() == self.model.servers[slot].address.is_ipv6() {
                break flow;
            }
        };
        let server = self.model.servers[slot].socket(&asked);
        (Flow { client: server, service: asked.client, ..asked }, slot)
    }

    /// What a server sends.
    pub(crate) fn answer(&mut self) {
        let (answer, slot) = self.answer_of_server();
        let packet = self.crafted(answer);
        let bytes = packet.packet();
        let verdict = self.model.answer(&answer, packet.flags, bytes.len() as u64);
        let context = format!("{packet:?} expected {verdict:?}");
        let own = own(answer.client.ip());
        let back = |packet: Vec<u8>| Some((ethernet(MACS[slot % 3], D1, &packet), true));
        let from = match verdict {
            Verdict::Client(service) => service,
            _ => answer.client,
        };
        let mtu = self.lab.plan.mtu;
        let expected = if !self.leaves(verdict) {
            None
        } else if packet.ip.ttl <= 1 {
            back(packet.expired(own))
        } else if bytes.len() > usize::from(mtu) {
            back(packet.too_big(own, &bytes, u32::from(mtu)))
        } else {
            Some((ethernet(C0, D0, &packet.forwarded(from, answer.service)), false))
        };
        self.send(1, &[ethernet(D1, MACS[slot % 3], &bytes)], expected.into_iter().collect(), &context);
    }

    fn leaves(&mut self, verdict: Verdict) -> bool {
        let name = match verdict {
            Verdict::Client(_) => "client",
            Verdict::Routed => "routed",
            _ => "vanishes",
        };
        *self.verdicts.entry(name).or_default() += 1;
        name != "vanishes"
    }

    fn report(&mut self, about: Crafted, from: IpAddr, to: IpAddr) -> Report {
        let head = match from.is_ipv6() {
            true => {
                self.dice.of(&[[1, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 5, 0], [3, 0, 0, 0, 0, 0, 0, 0]])
            }
            false => {
                self.dice.of(&[[3, 1, 0, 0, 0, 0, 0, 0], [3, 4, 0, 0, 0, 0, 5, 0], [11, 0, 0, 0, 0, 0, 0, 0]])
            }
        };
        let kept = 60 + self.dice.below(200);
        let ip = Ip { ttl: 64, ..self.ip(0) };
        Report { from, to, head, about, kept, ip }
    }

    /// What a router before a client says about a packet to it.
    pub(crate) fn error(&mut self) {
        let known = self.model.connections.len();
        let flow = if known > 0 && self.dice.below(5) > 0 {
            *self.model.connections.keys().nth(self.dice.below(known)).expect("one of them")
        } else {
            self.flow()
        };
        let about = self.crafted(Flow { client: flow.service, service: flow.client, ..flow });
        let router = if flow.client.is_ipv6() { "fd00:1::77" } else { "10.0.0.77" };
        let report = self.report(about, router.parse().expect("an address"), flow.service.ip());
        let bytes = report.packet();
        let verdict = self.model.error(&flow, bytes.len() as u64);
        let context = format!("{report:?} expected {verdict:?}");
        let expected = match verdict {
            Verdict::Server(slot, method) => {
                let server = self.model.servers[slot].clone();
                let socket = server.socket(&flow);
                let packet = match method {
                    Method::Nat => {
                        let quoted = Flow { client: socket, service: flow.client, ..flow };
                        report.translated(report.from, socket.ip(), quoted)
                    }
                    _ => report.lowered(),
                };
                Some((self.towards((slot, method), packet), false))
            }
            _ => None,
        };
        self.send(0, &[ethernet(D0, C0, &bytes)], expected.into_iter().collect(), &context);
    }

    /// What a server says about a packet to it.
    pub(crate) fn error_of_server(&mut self) {
        let (answer, slot) = self.answer_of_server();
        let (server, client) = (answer.client, answer.service);
        let about = self.crafted(Flow { client, service: server, ..answer });
        let report = self.report(about, server.ip(), client.ip());
        let bytes = report.packet();
        let verdict = self.model.error_of_server(&answer, bytes.len() as u64);
        let context = format!("{report:?} expected {verdict:?}");
        let leaves = self.leaves(verdict);
        let expected = match verdict {
            Verdict::Client(service) => {
                let quoted = Flow { client, service, ..answer };
                Some(report.translated(service.ip(), client.ip(), quoted))
            }
            _ => leaves.then(|| report.lowered()),
        };
        let expected = expected.map(|packet| (ethernet(C0, D0, &packet), false));
        self.send(1, &[ethernet(D1, MACS[slot % 3], &bytes)], expected.into_iter().collect(), &context);
    }

    /// Sends frames by a port and compares what leaves, in any order.
    fn send(&mut self, port: usize, frames: &[Vec<u8>], mut expected: Vec<(Vec<u8>, bool)>, context: &str) {
        let before = self.lab.drops(DropReason::AnswerRateLimited);
        let out = self.lab.send_by(port, frames);
        let mut unsaid = self.lab.drops(DropReason::AnswerRateLimited) - before;
        for frame in &out {
            match expected.iter().position(|(expected, _)| expected == frame) {
                Some(at) => drop(expected.remove(at)),
                None => panic!(
                    "left:\n{}\nof what was expected:\n{:#?}\n{context}",
                    crate::support::text::text(frame),
                    expected.iter().map(|(frame, _)| crate::support::text::text(frame)).collect::<Vec<_>>()
                ),
            }
        }
        for (frame, limited) in expected {
            assert!(limited && unsaid > 0, "missing: {}\n{context}", crate::support::text::text(&frame));
            unsaid -= 1;
        }
        assert_eq!(unsaid, 0, "{context}");
    }
}

/// The director's own address on the servers' link.
fn own(server: IpAddr) -> IpAddr {
    if server.is_ipv6() { "fd00:50::1".parse().expect("an address") } else { [192, 168, 50, 1].into() }
}
