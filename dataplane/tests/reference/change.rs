//! Changes of configuration, each in force before the next packet.

use crate::{
    Both, KINDS, SERVICES, STAYS, Sort,
    model::{Method, Policies, schedule::Service},
    support::{PlannedService, TCP},
    ticks,
};
use pointsman_dataplane::{
    conn::tcp::TcpState,
    snapshot::{self, Encapsulation, Persistence, Presence, Tunnel},
    stats::DestinationShared,
    time::Ticks,
};
use std::sync::Arc;

/// Where NATed servers of plain services take connections: such a port and their slot, or the service's own.
const MAPPED: u16 = 9_000;

impl Both {
    pub(crate) fn configure(&mut self) {
        let number = self.dice.below(SERVICES.len());
        let slot = 3 * number + self.dice.below(3);
        let what = self.dice.below(24);
        if what == 23 && self.model.is_quiet() {
            // What a shorter time has overtaken ends within a second and a half.
            let times = (self.dice.of(&[900, 250]), self.dice.of(&[120, 59]), self.dice.of(&[304, 61]));
            self.set_times(times);
        } else if what >= 22 {
            self.set_policies();
        } else if !self.model.services[number].present {
            self.create(number);
        } else {
            self.change(number, slot, what);
        }
        self.lab.publish();
        self.lab.poll();
    }

    /// The original's switches.
    fn set_policies(&mut self) {
        let (policies, dice) = (&mut self.lab.plan.policies, &mut self.dice);
        policies.sloppy_tcp = dice.below(4) == 0;
        policies.expire_nodest_conn = dice.below(3) == 0;
        policies.expire_quiescent_template = dice.below(2) == 0;
        policies.conn_reuse_mode = dice.of(&[0, 1, 1, 1, 2, 3]);
        self.model.policies = Policies {
            sloppy_tcp: policies.sloppy_tcp,
            expire_nodest_conn: policies.expire_nodest_conn,
            expire_quiescent_template: policies.expire_quiescent_template,
            conn_reuse_mode: policies.conn_reuse_mode,
        };
    }

    fn change(&mut self, number: usize, slot: usize, what: usize) {
        let weight = self.dice.of(&[0, 1, 1, 2, 3, 6]);
        let kind = self.dice.of(&KINDS);
        let place = self.planned(number).servers.iter().position(|(other, _)| *other as usize == slot);
        match (what, place) {
            (0, _) => self.delete(number),
            (1..=3, _) => {
                self.planned(number).kind = kind;
                if kind != self.model.services[number].kind {
                    self.model.schedule(number, kind);
                }
            }
            (4..=5, _) => self.set_thresholds(slot),
            (6..=8, _) => self.set_method(slot),
            (9, _) => self.set_persistence(number),
            (10..=12, Some(place)) => {
                self.planned(number).servers.remove(place);
                self.lab.plan.slots[slot].presence = Presence::Removed;
                self.model.remove(number, slot);
            }
            (_, Some(place)) => {
                let old = std::mem::replace(&mut self.planned(number).servers[place].1, weight);
                if old != weight {
                    self.model.weigh(number, slot, u64::from(weight));
                }
            }
            (_, None) => {
                self.planned(number).servers.push((slot as u32, weight));
                self.lab.plan.slots[slot].presence = Presence::Present;
                self.model.add(number, slot, u64::from(weight));
            }
        }
    }

    /// A service that is there.
    fn planned(&mut self, number: usize) -> &mut PlannedService {
        let Service { at, tcp, .. } = self.model.services[number];
        let is = |planned: &&mut PlannedService| (planned.at, planned.protocol == TCP) == (at, tcp);
        self.lab.plan.services.iter_mut().find(is).expect("it is there")
    }

    fn delete(&mut self, number: usize) {
        let Service { at, tcp, .. } = self.model.services[number];
        self.lab.plan.services.retain(|planned| (planned.at, planned.protocol == TCP) != (at, tcp));
        for slot in 3 * number..3 * number + 3 {
            self.lab.plan.slots[slot].presence = Presence::ServiceGone;
        }
        self.model.delete(number, 3 * number..3 * number + 3);
    }

    fn create(&mut self, number: usize) {
        let kind = self.dice.of(&KINDS);
        let (_, protocol, sort) = SERVICES[number];
        let slots = 3 * number..3 * number + 3;
        for slot in slots.clone() {
            let slot = &mut self.lab.plan.slots[slot];
            (slot.presence, slot.shared) = (Presence::Present, Arc::new(DestinationShared::default()));
            slot.generation += 1;
        }
        self.model.create(number, kind, slots.clone());
        let service = &self.model.services[number];
        let stays = |(timeout, prefix)| Persistence { timeout: ticks(timeout), prefix, by_call: false };
        self.lab.plan.services.push(PlannedService {
            protocol,
            at: service.at,
            kind,
            servers: slots.map(|slot| (slot as u32, 1)).collect(),
            persistence: service.persistence.map(stays),
            one_packet: sort == Sort::OnePacket,
            mark: (sort == Sort::Marked).then_some(crate::MARK),
        });
    }

    fn set_thresholds(&mut self, slot: usize) {
        let (upper, lower) = self.dice.of(&[(0, 0), (0, 0), (3, 0), (8, 0), (8, 2), (5, 4), (2, 1)]);
        self.lab.plan.slots[slot].shared.set_thresholds(upper, lower);
        let server = &mut self.model.servers[slot];
        let before = (server.upper, server.lower);
        server.set_thresholds(upper.into(), lower.into());
        if before != (server.upper, server.lower) {
            self.edited(slot);
        }
    }

    /// Where a server has its place in the scheduler's list, that begins anew.
    fn edited(&mut self, slot: usize) {
        let service = &mut self.model.services[slot / 3];
        if service.list.contains(&slot) {
            service.changed(&self.model.servers);
        }
    }

    /// Another method for a server. Its connections keep theirs, and a server with connections its port: it is known by that.
    pub(crate) fn set_method(&mut self, slot: usize) {
        let server = &mut self.model.servers[slot];
        let planned = &mut self.lab.plan.slots[slot];
        let before = server.method;
        server.method = self.dice.of(&[Method::Direct, Method::Nat, Method::Nat, Method::Tunnel]);
        planned.method = match server.method {
            Method::Direct => snapshot::Method::Direct,
            Method::Nat => snapshot::Method::Nat,
            Method::Tunnel => snapshot::Method::Tunnel,
        };
        let has_connections = server.active + server.inactive > 0;
        if !has_connections {
            (planned.tunnel, self.numbers[slot]) = (None, 0);
        }
        if server.method == Method::Tunnel && planned.tunnel.is_none() {
            let source = if planned.address.is_ipv6() { "fd00:50::1" } else { "192.168.50.1" };
            let ends = (source.parse().expect("an address"), planned.address);
            planned.tunnel = Some(Arc::new(Tunnel::new(Encapsulation::Ipip, ends, Arc::default())));
        }
        if has_connections {
            if server.method != before {
                self.edited(slot);
            }
            return;
        }
        let (text, _, sort) = SERVICES[slot / 3];
        let own: std::net::SocketAddr = text.parse().expect("a socket");
        server.port = match sort {
            Sort::Marked => 0,
            Sort::Plain if server.method == Method::Nat && self.dice.below(2) == 0 => MAPPED + slot as u16,
            _ => own.port(),
        };
        planned.port = server.port;
        // A table of places is made by the ports too.
        let is_mh = self.model.services[slot / 3].kind == pointsman_dataplane::scheduler::Kind::Mh;
        if is_mh || self.model.servers[slot].method != before {
            self.edited(slot);
        }
    }

    fn set_persistence(&mut self, number: usize) {
        let (_, _, sort) = SERVICES[number];
        let v6 = self.model.services[number].at.is_ipv6();
        let prefix = if v6 { self.dice.of(&[128, 64]) } else { self.dice.of(&[32, 24, 30]) };
        let stays = Some((self.dice.of(&STAYS), prefix));
        let stays = match sort {
            Sort::OnePacket => None,
            Sort::EveryPort => stays,
            _ => stays.filter(|_| self.dice.below(2) == 0),
        };
        self.model.services[number].persistence = stays;
        self.planned(number).persistence =
            stays.map(|(timeout, prefix)| Persistence { timeout: ticks(timeout), prefix, by_call: false });
    }

    /// `ipvsadm --set`.
    pub(crate) fn set_times(&mut self, (tcp, finishing, udp): (u64, u64, u64)) {
        let timeouts = &mut self.lab.plan.timeouts;
        let seconds = |seconds: u64| Ticks::from_secs(seconds as u32);
        timeouts.tcp[TcpState::Established as usize] = seconds(tcp);
        timeouts.tcp[TcpState::FinWait as usize] = seconds(finishing);
        timeouts.udp = seconds(udp);
        self.model.states.set = (tcp, finishing, udp);
        self.model.set_at = self.model.now;
    }
}
