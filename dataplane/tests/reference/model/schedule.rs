//! The schedulers, each told again in the plainest way.

use super::{Flow, Server, maglev};
use pointsman_dataplane::scheduler::Kind;
use std::net::{IpAddr, SocketAddr};

/// Seconds after which a set of `lblcr` that has not changed gives one up.
const DAY: u64 = 86_400;

/// A virtual service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) tcp: bool,
    pub(crate) at: SocketAddr,
    pub(crate) kind: Kind,
    /// Known by a mark, and of both protocols.
    pub(crate) marked: bool,
    pub(crate) one_packet: bool,
    /// Milliseconds, and bits of the address that count.
    pub(crate) persistence: Option<(u64, u8)>,
    pub(crate) present: bool,
    /// Slots, from the last one added to the first.
    pub(crate) list: Vec<usize>,
    /// The one last used; `None` before the head.
    pub(crate) last: Option<usize>,
    level: u64,
    top: u64,
    step: u64,
    table: Vec<usize>,
    /// Of `lblc` and `lblcr`: servers of the one address, the one added last first, and when they changed.
    kept: Vec<usize>,
    changed_at: u64,
}

impl Service {
    pub(crate) fn new(tcp: bool, at: SocketAddr, kind: Kind) -> Self {
        let (list, table, kept) = (Vec::new(), Vec::new(), Vec::new());
        let (marked, one_packet, persistence, present) = (false, false, None, true);
        let (last, level, top, step, changed_at) = (None, 0, 0, 1, 0);
        Self {
            tcp,
            at,
            kind,
            marked,
            one_packet,
            persistence,
            present,
            list,
            last,
            level,
            top,
            step,
            table,
            kept,
            changed_at,
        }
    }

    /// As if it were new, with another scheduler or the same, and without servers or with those it has.
    pub(crate) fn begin(&mut self, kind: Kind, servers: &[Server]) {
        (self.kind, self.last, self.level) = (kind, None, 0);
        self.kept.clear();
        self.changed(servers);
    }

    /// After any change of its servers.
    pub(crate) fn changed(&mut self, servers: &[Server]) {
        self.table.clear();
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

    pub(crate) fn pick(&mut self, servers: &[Server], flow: &Flow, now: u64) -> Option<usize> {
        let all = self.list.clone();
        let usable = || all.iter().copied().filter(|slot| servers[*slot].usable());
        let delay = |s: &Server| s.active + 1;
        let heaviest = |a: usize, b: usize| if servers[b].weight > servers[a].weight { b } else { a };
        match self.kind {
            Kind::Rr | Kind::Wrr => self.next(servers),
            Kind::Lc => least(servers, usable(), &overhead, false),
            Kind::Wlc => least(servers, usable(), &overhead, true),
            Kind::Sed => least(servers, usable(), &delay, true),
            Kind::Nq => {
                let idle = usable().find(|slot| servers[*slot].active == 0);
                idle.or(least(servers, usable(), &delay, true))
            }
            Kind::Fo => usable().reduce(heaviest),
            Kind::Ovf => {
                usable().filter(|slot| servers[*slot].active <= servers[*slot].weight).reduce(heaviest)
            }
            Kind::Dh => self.hashed(servers, flow.service.ip(), false),
            Kind::Sh => self.hashed(servers, flow.client.ip(), true),
            Kind::Mh => {
                if self.table.is_empty() {
                    let word = |s: &Server| maglev::word(s.address).wrapping_add(s.port.into());
                    let shares = self.list.iter().map(|slot| &servers[*slot]);
                    let shares: Vec<_> = shares.map(|s| (word(s), s.last_weight)).collect();
                    self.table = maglev::table(&shares);
                }
                let number = *self.table.get(maglev::place(flow.client.ip()))?;
                Some(self.list[number]).filter(|slot| servers[*slot].usable())
            }
            Kind::Lblc => self.local(servers),
            Kind::Lblcr => self.local_set(servers, now),
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
        let word = u64::from(maglev::word(address));
        let place = (word * 0x61c8_8647) % (1 << 32) / (1 << 24);
        places.get(place as usize).copied().filter(|slot| servers[*slot].usable())
    }

    fn has(&self, slot: usize) -> bool {
        self.list.contains(&slot)
    }

    fn crowded(&self, servers: &[Server], slot: usize) -> bool {
        servers[slot].active > servers[slot].weight
            && self.list.iter().any(|other| servers[*other].active * 2 < servers[*other].weight)
    }

    /// Keeps to one server as long as that serves.
    fn local(&mut self, servers: &[Server]) -> Option<usize> {
        if let Some(slot) = self.kept.first().copied()
            && self.has(slot)
            && servers[slot].usable()
            && !self.crowded(servers, slot)
        {
            return Some(slot);
        }
        let usable = self.list.iter().copied().filter(|slot| servers[*slot].usable());
        let slot = least(servers, usable, &overhead, true)?;
        self.kept = vec![slot];
        Some(slot)
    }

    /// Keeps to a set, the least loaded of which serves.
    fn local_set(&mut self, servers: &[Server], now: u64) -> Option<usize> {
        let usable = self.kept.iter().copied().filter(|slot| self.has(*slot) && servers[*slot].usable());
        let found = least(servers, usable, &overhead, true);
        if self.kept.len() > 1 && now - self.changed_at > DAY {
            let gone = self.kept.iter().copied().find(|slot| !self.has(*slot));
            let with_weight = self.kept.iter().copied().filter(|slot| servers[*slot].weight > 0);
            let most = with_weight.reduce(|most, slot| {
                let (m, s) = (&servers[most], &servers[slot]);
                if overhead(m) * s.weight < overhead(s) * m.weight { slot } else { most }
            });
            if let Some(slot) = gone.or(most) {
                self.kept.retain(|member| *member != slot);
                self.changed_at = now;
            }
        }
        if let Some(slot) = found.filter(|slot| !self.crowded(servers, *slot)) {
            return Some(slot);
        }
        let usable = self.list.iter().copied().filter(|slot| servers[*slot].usable());
        let slot = least(servers, usable, &overhead, true)?;
        if !self.kept.contains(&slot) {
            self.kept.insert(0, slot);
            self.changed_at = now;
        }
        Some(slot)
    }
}

fn overhead(server: &Server) -> u64 {
    server.active * 256 + server.inactive
}

/// The slot with the least cost, by weight or not; the first of equals.
fn least(
    servers: &[Server],
    slots: impl Iterator<Item = usize>,
    cost: &dyn Fn(&Server) -> u64,
    by_weight: bool,
) -> Option<usize> {
    let weight = |slot: usize| if by_weight { servers[slot].weight } else { 1 };
    slots.reduce(|best, slot| {
        if cost(&servers[slot]) * weight(best) < cost(&servers[best]) * weight(slot) { slot } else { best }
    })
}
