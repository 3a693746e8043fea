//! IPVS as plain lists and maps: one packet after the other, nothing clever, nothing shared with what it is compared with.
//! The rules are those of the specification, told again.

pub(crate) mod maglev;
pub(crate) mod schedule;
pub(crate) mod states;

use pointsman_dataplane::scheduler::Kind;
use schedule::Service;
use states::{States, is_active};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// Milliseconds by which a template whose time has come lives on while it has connections.
const STEP: u64 = 60_000;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To the server in this slot, by this method.
    Server(usize, Method),
    /// To the client, from its virtual service.
    Client(SocketAddr),
    /// On as it is, as by any router.
    Routed,
    /// Its server was removed, or a reset of nothing, or it is the host's: nothing leaves.
    Vanishes,
    /// The director resets it.
    Reset,
    /// Port unreachable, if the director has not said too much lately.
    Unreachable,
}

/// A packet as far as it matters: of an answer, `client` is where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) tcp: bool,
    pub(crate) client: SocketAddr,
    pub(crate) service: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Direct,
    Nat,
    Tunnel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Present,
    Removed,
    ServiceGone,
}

#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) address: IpAddr,
    /// 0: that of the packet.
    pub(crate) port: u16,
    pub(crate) method: Method,
    pub(crate) presence: Presence,
    pub(crate) generation: u32,
    pub(crate) weight: u64,
    pub(crate) last_weight: u64,
    pub(crate) active: u64,
    pub(crate) inactive: u64,
    pub(crate) upper: u64,
    pub(crate) lower: u64,
    pub(crate) overloaded: bool,
    /// Connections made; packets and bytes of clients; the same of its answers.
    pub(crate) traffic: [u64; 5],
}

impl Server {
    pub(crate) fn new(address: IpAddr, port: u16) -> Self {
        Self {
            address,
            port,
            method: Method::Direct,
            presence: Presence::Present,
            generation: 1,
            weight: 0,
            last_weight: 0,
            active: 0,
            inactive: 0,
            upper: 0,
            lower: 0,
            overloaded: false,
            traffic: [0; 5],
        }
    }

    fn usable(&self) -> bool {
        self.weight > 0 && !self.overloaded
    }

    /// A connection was made: overload begins at the upper threshold.
    fn made(&mut self) {
        self.overloaded |= self.upper > 0 && self.active + self.inactive >= self.upper;
    }

    /// One has ended: overload does so below the lower threshold, or below three quarters of the upper.
    fn ended(&mut self) {
        let total = self.active + self.inactive;
        self.overloaded &= match self.lower {
            0 => self.upper > 0 && total * 4 >= self.upper * 3,
            lower => total >= lower,
        };
    }

    /// A higher threshold ends the overload, and so does none.
    pub(crate) fn set_thresholds(&mut self, upper: u64, lower: u64) {
        self.overloaded &= upper > 0 && upper <= self.upper;
        (self.upper, self.lower) = (upper, lower);
    }

    fn count(&mut self, state: &str) -> &mut u64 {
        if is_active(state) { &mut self.active } else { &mut self.inactive }
    }

    /// Where a packet of this flow goes when its destination changes.
    pub(crate) fn socket(&self, flow: &Flow) -> SocketAddr {
        SocketAddr::new(self.address, if self.port == 0 { flow.service.port() } else { self.port })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) slot: usize,
    /// That of the server when it was made.
    method: Method,
    pub(crate) state: &'static str,
    /// Seconds.
    pub(crate) seen: u64,
    template: Option<(Network, u64)>,
}

/// Protocol (0: of a mark), the client's network, virtual address and port.
pub(crate) type Network = (u8, IpAddr, IpAddr, u16);

#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) slot: usize,
    pub(crate) generation: u32,
    number: u64,
    connections: u64,
    /// Milliseconds.
    deadline: u64,
}

/// The original's switches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policies {
    pub(crate) sloppy_tcp: bool,
    pub(crate) expire_nodest_conn: bool,
    pub(crate) expire_quiescent_template: bool,
    /// 1: what is over begins anew; 2: also in FIN_WAIT where no answers are seen; 0: never.
    pub(crate) conn_reuse_mode: u8,
}

pub(crate) struct Model {
    pub(crate) servers: Vec<Server>,
    pub(crate) services: Vec<Service>,
    pub(crate) connections: BTreeMap<Flow, Connection>,
    /// Answers that pass the director, and what they answer.
    pub(crate) answers: BTreeMap<Flow, Flow>,
    pub(crate) templates: BTreeMap<Network, Template>,
    pub(crate) states: States,
    pub(crate) policies: Policies,
    /// Packets to these have the mark.
    pub(crate) marked: (IpAddr, std::ops::RangeInclusive<u16>, u32),
    made: u64,
    /// When times were set last, in seconds.
    pub(crate) set_at: u64,
    /// Seconds.
    pub(crate) now: u64,
}

impl Model {
    pub(crate) fn new(marked: (IpAddr, std::ops::RangeInclusive<u16>, u32)) -> Self {
        Self {
            servers: Vec::new(),
            services: Vec::new(),
            connections: BTreeMap::new(),
            answers: BTreeMap::new(),
            templates: BTreeMap::new(),
            states: States::new((900, 120, 304)),
            policies: Policies {
                sloppy_tcp: false,
                expire_nodest_conn: false,
                expire_quiescent_template: false,
                conn_reuse_mode: 1,
            },
            marked,
            made: 0,
            set_at: 0,
            now: 1_000,
        }
    }

    /// Adds a server at the head, a new one or one that was removed.
    pub(crate) fn add(&mut self, service: usize, slot: usize, weight: u64) {
        self.servers[slot].presence = Presence::Present;
        self.give_weight(slot, weight);
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
        self.servers[slot].presence = Presence::Removed;
        service.changed(&self.servers);
    }

    pub(crate) fn weigh(&mut self, service: usize, slot: usize, weight: u64) {
        self.give_weight(slot, weight);
        self.services[service].changed(&self.servers);
    }

    fn give_weight(&mut self, slot: usize, weight: u64) {
        let server = &mut self.servers[slot];
        server.weight = weight;
        if weight > 0 {
            server.last_weight = weight;
        }
    }

    /// Another scheduler, which begins with the whole list.
    pub(crate) fn schedule(&mut self, service: usize, kind: Kind) {
        self.services[service].begin(kind, &self.servers);
    }

    /// Deletes a service with the servers in these slots: their connections are gone at once.
    pub(crate) fn delete(&mut self, service: usize, slots: std::ops::Range<usize>) {
        self.services[service].present = false;
        self.services[service].list.clear();
        for slot in slots.clone() {
            self.servers[slot].presence = Presence::ServiceGone;
        }
        self.end_all(|connection| slots.contains(&connection.slot));
    }

    /// A service in its place, with new servers in its slots.
    pub(crate) fn create(&mut self, service: usize, kind: Kind, slots: std::ops::Range<usize>) {
        self.services[service].present = true;
        self.services[service].begin(kind, &self.servers);
        for slot in slots {
            let old = &self.servers[slot];
            let new = Server {
                method: old.method,
                generation: old.generation + 1,
                traffic: old.traffic,
                ..Server::new(old.address, old.port)
            };
            self.servers[slot] = new;
            self.add(service, slot, 1);
        }
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now += seconds;
        let (now, states) = (self.now, States::new(self.states.set));
        self.end_all(|connection| now - connection.seen > states.lifetime(connection.state));
    }

    fn end_all(&mut self, ends: impl Fn(&Connection) -> bool) {
        // One that a shorter time had overtaken ended when that was set.
        let over = |connection: &Connection| {
            let over = connection.seen + self.states.lifetime(connection.state);
            over.max(self.set_at).min(self.now)
        };
        let ended = self.connections.iter().filter(|(_, connection)| ends(connection));
        let mut flows: Vec<(u64, Flow)> = ended.map(|(flow, connection)| (over(connection), *flow)).collect();
        flows.sort_unstable();
        for (at, flow) in flows {
            self.end(&flow, at);
        }
    }

    /// Ends a connection at a second.
    fn end(&mut self, flow: &Flow, at: u64) {
        let Some(connection) = self.connections.remove(flow) else { return };
        let server = &mut self.servers[connection.slot];
        *server.count(connection.state) -= 1;
        server.ended();
        self.answers.retain(|_, answered| answered != flow);
        let Some((network, number)) = connection.template else { return };
        if let Some(template) = self.templates.get_mut(&network).filter(|t| t.number == number) {
            template.connections -= 1;
            while template.connections == 0 && template.deadline <= at * 1_000 {
                template.deadline += STEP;
            }
        }
    }

    /// Whether no template comes to the end of its time, or of a step, within a second and a half.
    pub(crate) fn is_quiet(&self) -> bool {
        let soon = self.now * 1_000 + 1_500;
        self.templates.values().all(|t| t.deadline > soon || (soon - t.deadline) % STEP > 1_500)
    }

    pub(crate) fn is_live(&self, template: &Template) -> bool {
        template.connections > 0 || template.deadline > self.now * 1_000
    }

    /// A packet of a client: `bytes` from the IP header on.
    pub(crate) fn packet(&mut self, flow: &Flow, flags: u8, bytes: u64) -> Verdict {
        let Some(connection) = self.connections.get(flow).cloned() else {
            return self.open(flow, flags, bytes);
        };
        let server = &self.servers[connection.slot];
        let Policies { expire_nodest_conn, conn_reuse_mode, .. } = self.policies;
        let both_ways = self.is_seen_both_ways(flow);
        let over = match connection.state {
            "TW" | "CL" => conn_reuse_mode != 0,
            "FW" => conn_reuse_mode & 2 != 0 && !both_ways,
            _ => false,
        };
        let begins = flow.tcp && flags & (SYN | RST) == SYN;
        let again = (over && connection.template.is_none()) || (expire_nodest_conn && server.weight == 0);
        let removed = server.presence == Presence::Removed;
        if (begins && again) || (removed && expire_nodest_conn) {
            self.end(flow, self.now);
            return self.open(flow, flags, bytes);
        }
        if removed {
            return Verdict::Vanishes;
        }
        self.moves(flow, if both_ways { "IN" } else { "IN-ONLY" }, flags);
        self.count(connection.slot, false, bytes);
        Verdict::Server(connection.slot, connection.method)
    }

    fn is_seen_both_ways(&self, flow: &Flow) -> bool {
        self.answers.values().any(|answered| answered == flow)
    }

    /// The next state of a connection, which is used.
    fn moves(&mut self, flow: &Flow, direction: &str, flags: u8) {
        let connection = self.connections.get_mut(flow).expect("a connection");
        let server = &mut self.servers[connection.slot];
        *server.count(connection.state) -= 1;
        connection.state = self.states.after(direction, connection.state, flow.tcp, flags);
        *server.count(connection.state) += 1;
        connection.seen = self.now;
    }

    fn count(&mut self, slot: usize, is_answer: bool, bytes: u64) {
        let at = if is_answer { 3 } else { 1 };
        self.servers[slot].traffic[at] += 1;
        self.servers[slot].traffic[at + 1] += bytes;
    }

    fn service(&self, flow: &Flow) -> Option<usize> {
        let (address, ports, _) = &self.marked;
        let has_mark = flow.service.ip() == *address && ports.contains(&flow.service.port());
        let find = |wanted: &dyn Fn(&Service) -> bool| {
            self.services.iter().position(|service| service.present && wanted(service))
        };
        let at = |socket: SocketAddr| find(&|s| !s.marked && (s.tcp, s.at) == (flow.tcp, socket));
        let of_mark = if has_mark { find(&|s| s.marked) } else { None };
        of_mark.or_else(|| at(flow.service)).or_else(|| at(SocketAddr::new(flow.service.ip(), 0)))
    }

    pub(crate) fn is_ours(&self, address: IpAddr) -> bool {
        self.services.iter().any(|service| service.present && service.at.ip() == address)
    }

    fn open(&mut self, flow: &Flow, flags: u8, bytes: u64) -> Verdict {
        let opens = match flow.tcp {
            true if self.policies.sloppy_tcp => flags & RST == 0,
            true => flags & (SYN | RST) == SYN,
            false => true,
        };
        let Some(number) = self.service(flow).filter(|_| opens) else {
            return match (self.is_ours(flow.service.ip()), flow.tcp, flags & RST) {
                (false, ..) => Verdict::Vanishes,
                (true, false, _) => Verdict::Unreachable,
                (true, true, 0) => Verdict::Reset,
                (true, true, _) => Verdict::Vanishes,
            };
        };
        let picked = match self.services[number].persistence {
            Some(persistence) => self.stay(number, persistence, flow),
            None => self.services[number].pick(&self.servers, flow, self.now).map(|slot| (slot, None)),
        };
        let Some((slot, template)) = picked else { return Verdict::Unreachable };
        self.servers[slot].traffic[0] += 1;
        self.count(slot, false, bytes);
        let server = &mut self.servers[slot];
        let method = server.method;
        if self.services[number].one_packet {
            return Verdict::Server(slot, method);
        }
        let direction = if method == Method::Nat { "IN" } else { "IN-ONLY" };
        let state = self.states.after(direction, "NO", flow.tcp, flags);
        *server.count(state) += 1;
        server.made();
        if method == Method::Nat {
            let answer = Flow { tcp: flow.tcp, client: server.socket(flow), service: flow.client };
            let other = self.answers.insert(answer, *flow);
            assert_eq!(other, None, "no two connections of these tests look the same to a server");
        }
        self.connections.insert(*flow, Connection { slot, method, state, seen: self.now, template });
        Verdict::Server(slot, method)
    }

    /// Where a client stays; a new template if there is none, or none that is of use.
    fn stay(
        &mut self,
        number: usize,
        (timeout, prefix): (u64, u8),
        flow: &Flow,
    ) -> Option<(usize, Option<(Network, u64)>)> {
        let service = &self.services[number];
        let client = network(flow.client.ip(), prefix);
        let key = match (service.marked, if flow.tcp { 6 } else { 17 }) {
            (true, _) => (0, client, Ipv4Addr::from(self.marked.2.to_be_bytes()).into(), 0),
            (false, protocol) => (protocol, client, flow.service.ip(), service.at.port()),
        };
        let deadline = self.now * 1_000 + timeout;
        if let Some(known) = self.templates.get(&key) {
            let server = &self.servers[known.slot];
            let quiesced = self.policies.expire_quiescent_template && server.weight == 0;
            let there = server.presence == Presence::Present && server.generation == known.generation;
            let usable = there && !quiesced;
            if self.is_live(known) && usable {
                let known = self.templates.get_mut(&key).expect("it is there");
                known.connections += 1;
                known.deadline = deadline;
                return Some((known.slot, Some((key, known.number))));
            }
            self.templates.remove(&key);
        }
        let slot = self.services[number].pick(&self.servers, flow, self.now)?;
        self.made += 1;
        let generation = self.servers[slot].generation;
        let made = Template { slot, generation, number: self.made, connections: 1, deadline };
        self.templates.insert(key, made);
        Some((slot, Some((key, self.made))))
    }

    /// A packet of a server to a client.
    pub(crate) fn answer(&mut self, answer: &Flow, flags: u8, bytes: u64) -> Verdict {
        match self.answers.get(answer).copied() {
            Some(flow) => {
                self.moves(&flow, "OUT", flags);
                self.count(self.connections[&flow].slot, true, bytes);
                Verdict::Client(flow.service)
            }
            None => self.route(answer.client.ip()),
        }
    }

    /// Those of NATed servers are routed, and others the host's.
    fn route(&self, source: IpAddr) -> Verdict {
        let is_natted = |s: &Server| s.method == Method::Nat && s.address == source;
        if self.servers.iter().any(is_natted) { Verdict::Routed } else { Verdict::Vanishes }
    }

    /// An ICMP error about what the client of a flow was sent.
    pub(crate) fn error(&mut self, flow: &Flow, bytes: u64) -> Verdict {
        let Some(&Connection { slot, method, .. }) = self.connections.get(flow) else {
            return Verdict::Vanishes;
        };
        if self.servers[slot].presence == Presence::Removed {
            if self.policies.expire_nodest_conn {
                self.end(flow, self.now);
            }
            return Verdict::Vanishes;
        }
        self.count(slot, false, bytes);
        Verdict::Server(slot, method)
    }

    /// An ICMP error of a server about what it was sent; `answer` is what it would have answered.
    pub(crate) fn error_of_server(&mut self, answer: &Flow, bytes: u64) -> Verdict {
        match self.answers.get(answer).copied() {
            Some(flow) => {
                self.count(self.connections[&flow].slot, true, bytes);
                Verdict::Client(flow.service)
            }
            None => self.route(answer.client.ip()),
        }
    }
}

/// The first `prefix` bits of an address.
fn network(address: IpAddr, prefix: u8) -> IpAddr {
    let cut = |mut octets: Vec<u8>| {
        for (n, octet) in octets.iter_mut().enumerate() {
            let kept = usize::from(prefix).saturating_sub(8 * n).min(8);
            *octet &= !(0xff_u16 >> kept) as u8;
        }
        octets
    };
    match address {
        IpAddr::V4(a) => <[u8; 4]>::try_from(cut(a.octets().to_vec())).expect("four").into(),
        IpAddr::V6(a) => <[u8; 16]>::try_from(cut(a.octets().to_vec())).expect("sixteen").into(),
    }
}
