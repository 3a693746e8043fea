//! IPVS with direct routing as plain lists and maps: one packet after the other, nothing clever, nothing shared with what
//! it is compared with. The rules are those of the specification, told again.

use pointsman_dataplane::scheduler::Kind;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To the server in this slot.
    Server(usize),
    /// Its server was removed, or a reset of nothing: nobody hears of it.
    Vanishes,
    /// The director resets it.
    Reset,
    /// Port unreachable, if the director has not said too much lately.
    Unreachable,
}

/// A packet as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    pub(crate) tcp: bool,
    pub(crate) client: SocketAddr,
    pub(crate) service: SocketAddr,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    pub(crate) weight: u64,
    pub(crate) active: u64,
    pub(crate) inactive: u64,
    pub(crate) upper: u64,
    pub(crate) overloaded: bool,
    pub(crate) removed: bool,
    pub(crate) packets: u64,
}

impl Server {
    fn usable(&self) -> bool {
        self.weight > 0 && !self.overloaded
    }

    /// Overload begins at the threshold and ends below three quarters of it.
    pub(crate) fn weigh(&mut self) {
        let total = self.active + self.inactive;
        if self.upper > 0 && total >= self.upper {
            self.overloaded = true;
        } else if self.upper == 0 || total * 4 < self.upper * 3 {
            self.overloaded = false;
        }
    }

    fn count(&mut self, state: &str) -> &mut u64 {
        if matches!(state, "ES" | "SR") { &mut self.active } else { &mut self.inactive }
    }
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) tcp: bool,
    pub(crate) at: SocketAddr,
    pub(crate) kind: Kind,
    /// Slots, from the last one added to the first.
    pub(crate) list: Vec<usize>,
    /// The one last used; `None` before the head.
    last: Option<usize>,
    level: u64,
    top: u64,
    step: u64,
}

#[derive(Debug)]
struct Connection {
    slot: usize,
    state: &'static str,
    /// Seconds.
    seen: u64,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) servers: Vec<Server>,
    pub(crate) services: Vec<Service>,
    connections: HashMap<Flow, Connection>,
    now: u64,
}

/// Seconds without a packet after which a connection ends. That of UDP is the test's.
fn lifetime(state: &str) -> u64 {
    match state {
        "ES" => 900,
        "SR" => 60,
        "CL" => 10,
        "UDP" => 304,
        _ => 120,
    }
}

/// The row IN-ONLY of the table of states, without the states that it does not lead to.
fn after(state: &str, flags: u8) -> &'static str {
    let event = [RST, SYN, FIN, ACK].into_iter().find(|event| flags & event != 0);
    match (event, state) {
        (Some(RST), "SR") => "SR",
        (Some(RST), _) | (None, _) => "CL",
        (Some(SYN), "ES") => "ES",
        (Some(SYN), _) => "SR",
        (Some(FIN), "ES") => "FW",
        (Some(FIN), "SR") => "TW",
        (_, "ES" | "SR") => "ES",
        (_, "FW") => "FW",
        (_, "TW") => "TW",
        (_, _) => "CL",
    }
}

impl Service {
    pub(crate) fn new(tcp: bool, at: SocketAddr, kind: Kind) -> Self {
        Self { tcp, at, kind, list: Vec::new(), last: None, level: 0, top: 0, step: 1 }
    }

    /// Weighted round robin looks at all weights after each change.
    fn changed(&mut self, servers: &[Server]) {
        if self.kind != Kind::Wrr {
            return;
        }
        self.last = None;
        let weights = || self.list.iter().map(|slot| servers[*slot].weight);
        let heaviest = weights().max().unwrap_or(0);
        self.step = (1..=heaviest).rev().find(|d| weights().all(|w| w % d == 0)).unwrap_or(1);
        self.top = (heaviest + 1).saturating_sub(self.step);
        if self.level > self.top || self.level == 0 {
            self.level = self.top;
        } else if self.step > 1 {
            self.level = self.level / self.step * self.step + 1;
        }
    }

    /// Round robin, weighted or not: on from the last one, lap after lap.
    fn next(&mut self, servers: &[Server]) -> Option<usize> {
        let weighted = self.kind == Kind::Wrr;
        self.list.iter().find(|slot| servers[**slot].usable())?;
        let place = |slot| self.list.iter().position(|other| *other == slot);
        let mut at = self.last.and_then(place).map_or(0, |at| at + 1);
        loop {
            for slot in self.list.iter().skip(at) {
                if servers[*slot].usable() && (!weighted || servers[*slot].weight >= self.level) {
                    self.last = Some(*slot);
                    return self.last;
                }
            }
            at = 0;
            self.level = if self.level > self.step { self.level - self.step } else { self.top };
        }
    }

    fn pick(&mut self, servers: &[Server], flow: &Flow) -> Option<usize> {
        let usable = || self.list.iter().copied().filter(|slot| servers[*slot].usable());
        let least = |cost: &dyn Fn(&Server) -> u64, by_weight: bool| {
            let weight = |slot: usize| if by_weight { servers[slot].weight } else { 1 };
            usable().reduce(|best, slot| {
                let less = cost(&servers[slot]) * weight(best) < cost(&servers[best]) * weight(slot);
                if less { slot } else { best }
            })
        };
        let overhead = |s: &Server| s.active * 256 + s.inactive;
        let heaviest = |a: usize, b: usize| if servers[b].weight > servers[a].weight { b } else { a };
        match self.kind {
            Kind::Rr | Kind::Wrr => self.next(servers),
            Kind::Lc => least(&overhead, false),
            Kind::Wlc => least(&overhead, true),
            Kind::Sed => least(&|s| s.active + 1, true),
            Kind::Nq => usable().find(|slot| servers[*slot].active == 0).or(least(&|s| s.active + 1, true)),
            Kind::Fo => usable().reduce(heaviest),
            Kind::Ovf => {
                usable().filter(|slot| servers[*slot].active <= servers[*slot].weight).reduce(heaviest)
            }
            Kind::Dh => self.hashed(servers, flow.service.ip(), false),
            Kind::Sh => self.hashed(servers, flow.client.ip(), true),
            kind => panic!("{kind:?} is not in this model"),
        }
    }

    /// 256 places; the address says which.
    fn hashed(&self, servers: &[Server], address: IpAddr, weighted: bool) -> Option<usize> {
        let mut places = Vec::new();
        while places.len() < 256 && !self.list.is_empty() {
            for slot in &self.list {
                let times = if weighted { servers[*slot].weight.max(1) } else { 1 };
                (0..times).for_each(|_| places.push(*slot));
            }
        }
        let words: Vec<u32> = match address {
            IpAddr::V4(address) => vec![u32::from_be_bytes(address.octets())],
            IpAddr::V6(address) => {
                address.octets().chunks(4).map(|w| u32::from_be_bytes(w.try_into().expect("four"))).collect()
            }
        };
        let word = u64::from(words.into_iter().fold(0, |a, b| a ^ b));
        let place = (word * 0x61c8_8647) % (1 << 32) / (1 << 24);
        places.get(place as usize).copied().filter(|slot| servers[*slot].usable())
    }
}

impl Model {
    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Adds a server at the head, a new one or one that was removed.
    pub(crate) fn add(&mut self, service: usize, slot: usize, weight: u64) {
        (self.servers[slot].weight, self.servers[slot].removed) = (weight, false);
        self.services[service].list.insert(0, slot);
        self.services[service].changed(&self.servers);
    }

    pub(crate) fn remove(&mut self, service: usize, slot: usize) {
        let service = &mut self.services[service];
        let at = service.list.iter().position(|other| *other == slot).expect("in the list");
        if service.last == Some(slot) {
            service.last = at.checked_sub(1).map(|before| service.list[before]);
        }
        service.list.remove(at);
        self.servers[slot].removed = true;
        service.changed(&self.servers);
    }

    pub(crate) fn weigh(&mut self, service: usize, slot: usize, weight: u64) {
        self.servers[slot].weight = weight;
        self.services[service].changed(&self.servers);
    }

    /// Another scheduler, which begins with the whole list.
    pub(crate) fn schedule(&mut self, service: usize, kind: Kind) {
        let service = &mut self.services[service];
        (service.kind, service.last, service.level) = (kind, None, 0);
        service.changed(&self.servers);
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now += seconds;
        let ended = |c: &Connection| self.now - c.seen > lifetime(c.state);
        let flows: Vec<Flow> =
            self.connections.iter().filter(|(_, c)| ended(c)).map(|(flow, _)| *flow).collect();
        flows.iter().for_each(|flow| self.end(flow));
    }

    fn end(&mut self, flow: &Flow) {
        let Some(connection) = self.connections.remove(flow) else { return };
        let server = &mut self.servers[connection.slot];
        *server.count(connection.state) -= 1;
        server.weigh();
    }

    pub(crate) fn packet(&mut self, flow: &Flow, flags: u8) -> Verdict {
        let opens = !flow.tcp || flags & (SYN | RST) == SYN;
        if let Some(connection) = self.connections.get_mut(flow) {
            let over = flow.tcp && opens && matches!(connection.state, "TW" | "CL");
            if !over {
                let server = &mut self.servers[connection.slot];
                if server.removed {
                    return Verdict::Vanishes;
                }
                *server.count(connection.state) -= 1;
                if flow.tcp {
                    connection.state = after(connection.state, flags);
                }
                connection.seen = self.now;
                *server.count(connection.state) += 1;
                server.packets += 1;
                return Verdict::Server(connection.slot);
            }
            self.end(flow);
        }
        let service = self.services.iter_mut().find(|s| (s.tcp, s.at) == (flow.tcp, flow.service));
        let Some(service) = service.filter(|_| opens) else {
            return match (flow.tcp, flags & RST) {
                (false, _) => Verdict::Unreachable,
                (true, 0) => Verdict::Reset,
                (true, _) => Verdict::Vanishes,
            };
        };
        let Some(slot) = service.pick(&self.servers, flow) else { return Verdict::Unreachable };
        let state = if flow.tcp { "SR" } else { "UDP" };
        self.connections.insert(*flow, Connection { slot, state, seen: self.now });
        let server = &mut self.servers[slot];
        *server.count(state) += 1;
        server.packets += 1;
        server.weigh();
        Verdict::Server(slot)
    }
}
