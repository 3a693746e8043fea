//! The rules of the schedulers that keep a table or a cache, as they are told, in plain lists and maps; stepped beside the
//! real ones through any changes of configuration, loads and time.

use super::*;
use std::collections::HashMap;

#[derive(Clone, Debug)]
struct Server {
    slot: u32,
    weight: u64,
    last_weight: u64,
    active: u64,
    inactive: u64,
    upper: u64,
    overloaded: bool,
}

impl Server {
    fn usable(&self) -> bool {
        self.weight > 0 && !self.overloaded
    }

    fn overhead(&self) -> u64 {
        self.active * 256 + self.inactive
    }

    fn less_loaded(&self, than: &Server) -> bool {
        self.overhead() * than.weight < than.overhead() * self.weight
    }

    fn count(&mut self, is_made: bool) {
        let total = self.active + self.inactive;
        if is_made && self.upper > 0 && total >= self.upper {
            self.overloaded = true;
        } else if !is_made && (self.upper == 0 || total * 4 < self.upper * 3) {
            self.overloaded = false;
        }
    }
}

#[derive(Debug)]
struct Entry {
    used: u64,
    changed: u64,
    /// The last one added first.
    set: Vec<u32>,
}

/// The service as the originals see it.
struct Model {
    kind: Kind,
    flags: Flags,
    /// From the last one added to the first.
    list: Vec<Server>,
    /// Who left the list, for when they come back.
    left: Vec<Server>,
    cache: HashMap<IpAddr, Entry>,
    /// Seconds of the next look at the cache, and its number.
    look: Option<(u64, u32)>,
    table: Option<Vec<usize>>,
}

const DAY: u64 = 86_400;

impl Model {
    fn new(kind: Kind, flags: Flags) -> Self {
        let (list, left) = (Vec::new(), Vec::new());
        Self { kind, flags, list, left, cache: HashMap::new(), look: None, table: None }
    }

    fn server(&mut self, slot: u32) -> &mut Server {
        self.list.iter_mut().find(|server| server.slot == slot).expect("in the list")
    }

    fn add(&mut self, slot: u32, weight: u32) {
        let old = self.left.iter().position(|server| server.slot == slot);
        let new = || Server {
            slot,
            weight: 0,
            last_weight: 0,
            active: 0,
            inactive: 0,
            upper: 0,
            overloaded: false,
        };
        let server = old.map_or_else(new, |at| self.left.remove(at));
        self.list.insert(0, server);
        self.edit(slot, weight);
    }

    fn delete(&mut self, slot: u32) {
        let at = self.list.iter().position(|server| server.slot == slot).expect("in the list");
        self.left.push(self.list.remove(at));
        self.table = None;
    }

    fn edit(&mut self, slot: u32, weight: u32) {
        let server = self.server(slot);
        server.weight = u64::from(weight);
        if weight > 0 {
            server.last_weight = server.weight;
        }
        self.table = None;
    }

    fn pick(&mut self, client: SocketAddr, destination: IpAddr, now: u64) -> Option<u32> {
        let port = if self.flags.port { u32::from(client.port()) } else { 0 };
        let source = hash::word(client.ip()).wrapping_add(port);
        let found = match self.kind {
            Kind::Dh => {
                let table = self.turns(256, |_| 1);
                self.usable(*table.get(hash::place(hash::word(destination)) as usize)?)
            }
            Kind::Sh => {
                let table = self.turns(256, |server| server.weight.max(1));
                self.hashed(&table, |offset| (offset + hash::place(source)) % 256)
            }
            Kind::Mh => {
                let table = self.table.take().unwrap_or_else(|| self.maglev());
                let key = 2_654_435_761;
                let found = self.hashed(&table, |offset| hash::sip(source.wrapping_add(offset), key) % 4093);
                self.table = Some(table);
                found
            }
            Kind::Lblc => self.lblc(destination, now),
            Kind::Lblcr => self.lblcr(destination, now),
            kind => panic!("{kind:?}"),
        };
        found.map(|at| self.list[at].slot)
    }

    fn usable(&self, at: usize) -> Option<usize> {
        self.list[at].usable().then_some(at)
    }

    fn turns(&self, places: usize, times: impl Fn(&Server) -> u64) -> Vec<usize> {
        let mut table = Vec::new();
        while table.len() < places && !self.list.is_empty() {
            for (at, server) in self.list.iter().enumerate() {
                for _ in 0..times(server) {
                    table.push(at);
                }
            }
        }
        table.truncate(places);
        table
    }

    fn hashed(&self, table: &[usize], place: impl Fn(u32) -> u32) -> Option<usize> {
        let first = place(0);
        let places = table.len() as u32;
        let mut found = self.usable(*table.get(first as usize)?);
        for k in 0..places {
            if found.is_none() && self.flags.fallback {
                found = self.usable(table[place((k + first) % places) as usize]);
            }
        }
        found
    }

    fn maglev(&self) -> Vec<usize> {
        const PLACES: u32 = 4093;
        let most = self.list.iter().map(|s| s.last_weight).max().unwrap_or(0);
        if most == 0 {
            return Vec::new();
        }
        let divides = |d: &u64| self.list.iter().all(|s| s.last_weight % d == 0);
        let divisor = (1..=most).rev().find(divides).expect("1 does");
        let mut shift = 0;
        while (most / divisor) >> shift >= 64 {
            shift += 1;
        }
        let mut table = vec![usize::MAX; PLACES as usize];
        let mut free = PLACES;
        let mut next: Vec<u32> = Vec::new();
        let word = |s: &Server| hash::word([192, 168, 50, (11 + s.slot) as u8].into()).wrapping_add(80);
        next.extend(self.list.iter().map(|s| hash::sip(word(s), 2_654_435_761) % PLACES));
        loop {
            for (at, server) in self.list.iter().enumerate() {
                let skip = hash::sip(word(server), 2_654_446_892) % (PLACES - 1) + 1;
                let turns = match server.last_weight {
                    0 => 0,
                    weight => ((weight / divisor) >> shift).max(1),
                };
                for _ in 0..turns {
                    while table[next[at] as usize] != usize::MAX {
                        next[at] = (next[at] + skip) % PLACES;
                    }
                    table[next[at] as usize] = at;
                    free -= 1;
                    if free == 0 {
                        return table;
                    }
                }
            }
        }
    }

    fn wlc(&self) -> Option<usize> {
        let usable = (0..self.list.len()).filter(|at| self.list[*at].usable());
        usable.reduce(|best, at| if self.list[at].less_loaded(&self.list[best]) { at } else { best })
    }

    fn crowded(&self, at: usize) -> bool {
        self.list[at].active > self.list[at].weight && self.list.iter().any(|s| s.active * 2 < s.weight)
    }

    /// The looks that are due, one a minute.
    fn look(&mut self, now: u64) {
        let (mut at, mut number) = self.look.unwrap_or((now + 60, 1));
        while at <= now {
            if number % 30 == 0 {
                self.cache.retain(|_, entry| at.saturating_sub(entry.used) <= DAY);
            }
            (at, number) = (at + 60, number + 1);
        }
        self.look = Some((at, number));
    }

    fn lblc(&mut self, destination: IpAddr, now: u64) -> Option<usize> {
        self.look(now);
        if let Some(entry) = self.cache.get_mut(&destination) {
            entry.used = now;
            let slot = entry.set[0];
            let at = self.list.iter().position(|s| s.slot == slot);
            if let Some(at) = at.filter(|at| self.list[*at].usable() && !self.crowded(*at)) {
                return Some(at);
            }
        }
        let at = self.wlc()?;
        let set = vec![self.list[at].slot];
        self.cache.insert(destination, Entry { used: now, changed: now, set });
        Some(at)
    }

    fn lblcr(&mut self, destination: IpAddr, now: u64) -> Option<usize> {
        self.look(now);
        let Some(mut entry) = self.cache.remove(&destination) else {
            let at = self.wlc()?;
            let set = vec![self.list[at].slot];
            self.cache.insert(destination, Entry { used: now, changed: now, set });
            return Some(at);
        };
        entry.used = now;
        let find = |slot: &u32| self.list.iter().position(|s| s.slot == *slot);
        let usable = entry.set.iter().filter_map(find).filter(|at| self.list[*at].usable());
        let least = usable.reduce(|a, b| if self.list[b].less_loaded(&self.list[a]) { b } else { a });
        if entry.set.len() > 1 && now - entry.changed > DAY {
            let gone = entry.set.iter().copied().find(|slot| find(slot).is_none());
            let with_weight = entry.set.iter().filter_map(find).filter(|at| self.list[*at].weight > 0);
            let most = with_weight.reduce(|a, b| if self.list[a].less_loaded(&self.list[b]) { b } else { a });
            if let Some(slot) = gone.or(most.map(|at| self.list[at].slot)) {
                entry.set.retain(|member| *member != slot);
                entry.changed = now;
            }
        }
        let picked = least.filter(|at| !self.crowded(*at)).or_else(|| {
            let at = self.wlc()?;
            if !entry.set.contains(&self.list[at].slot) {
                entry.set.insert(0, self.list[at].slot);
                entry.changed = now;
            }
            Some(at)
        });
        self.cache.insert(destination, entry);
        picked
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(u32),
    /// One that was deleted, with another weight.
    AddAgain(usize, u32),
    Delete(usize),
    Edit(usize, u32),
    Threshold(usize, u32),
    Connect(usize, bool, u8),
    Disconnect(usize, bool),
    Wait(u32),
    /// Picks for clients of these numbers, some of which come again and again.
    Pick(Vec<u16>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let weight = prop_oneof![0u32..6, (1u32..5).prop_map(|w| w * 6), 1u32..1000];
    let which = any::<usize>;
    let step = prop_oneof![
        3 => weight.clone().prop_map(Step::Add),
        1 => (which(), weight.clone()).prop_map(|(at, weight)| Step::AddAgain(at, weight)),
        1 => which().prop_map(Step::Delete),
        2 => (which(), weight).prop_map(|(at, weight)| Step::Edit(at, weight)),
        1 => (which(), 0u32..8).prop_map(|(at, upper)| Step::Threshold(at, upper)),
        4 => (which(), any::<bool>(), 1u8..9).prop_map(|(at, active, n)| Step::Connect(at, active, n)),
        2 => (which(), any::<bool>()).prop_map(|(at, active)| Step::Disconnect(at, active)),
        2 => prop_oneof![0u32..100, 0u32..4000, 80_000u32..100_000].prop_map(Step::Wait),
        6 => proptest::collection::vec(prop_oneof![0u16..8, any::<u16>()], 1..20).prop_map(Step::Pick),
    ];
    proptest::collection::vec(step, 1..80)
}

/// The real one and the model.
struct Both {
    scheduler: Scheduler,
    model: Model,
    /// In the order of addition.
    candidates: Vec<Candidate>,
    left: Vec<Candidate>,
    next_slot: u32,
    now: u32,
}

impl Both {
    fn new(rule: Rule) -> Self {
        let scheduler = Scheduler::compile(rule, Vec::new(), None);
        let model = Model::new(rule.kind, rule.flags);
        Self { scheduler, model, candidates: Vec::new(), left: Vec::new(), next_slot: 0, now: 5 }
    }

    fn add(&mut self, candidate: Candidate) {
        self.model.add(candidate.slot, candidate.weight);
        self.candidates.push(candidate);
    }

    /// Candidate and model of the server that a number stands for.
    fn at(&mut self, number: usize) -> Option<(&mut Candidate, &mut Server)> {
        let at = number.checked_rem(self.candidates.len())?;
        let slot = self.candidates[at].slot;
        Some((&mut self.candidates[at], self.model.server(slot)))
    }

    /// Changes both; says whether the configuration is another one.
    fn change(&mut self, step: &Step) -> bool {
        match *step {
            Step::Add(weight) => {
                self.next_slot += 1;
                self.add(candidate(self.next_slot, weight));
            }
            Step::AddAgain(number, weight) if !self.left.is_empty() => {
                let candidate = self.left.remove(number % self.left.len());
                self.add(Candidate { weight, ..candidate });
            }
            Step::Delete(number) if !self.candidates.is_empty() => {
                let gone = self.candidates.remove(number % self.candidates.len());
                self.model.delete(gone.slot);
                self.left.push(gone);
            }
            Step::Edit(number, weight) => {
                if let Some((candidate, _)) = self.at(number) {
                    candidate.weight = weight;
                    let slot = candidate.slot;
                    self.model.edit(slot, weight);
                }
            }
            _ => {
                self.load(step);
                return false;
            }
        }
        true
    }

    fn load(&mut self, step: &Step) {
        let (&Step::Threshold(number, _) | &Step::Connect(number, ..) | &Step::Disconnect(number, _)) = step
        else {
            return;
        };
        let Some((candidate, server)) = self.at(number) else { return };
        match *step {
            Step::Threshold(_, upper) => {
                candidate.shared.set_thresholds(upper, 0);
                let before = std::mem::replace(&mut server.upper, upper.into());
                if upper == 0 || server.upper > before {
                    server.overloaded = false;
                }
            }
            Step::Connect(_, active, count) => {
                (0..count).for_each(|_| candidate.shared.connected(active));
                *(if active { &mut server.active } else { &mut server.inactive }) += u64::from(count);
                server.count(true);
            }
            Step::Disconnect(_, active) => {
                let counted = if active { &mut server.active } else { &mut server.inactive };
                if *counted > 0 {
                    *counted -= 1;
                    candidate.shared.disconnected(active);
                    server.count(false);
                }
            }
            _ => {}
        }
    }

    fn pick(&mut self, number: u16) -> (Option<u32>, Option<u32>) {
        let [high, low] = number.to_be_bytes();
        let client = SocketAddr::new([10, 1, high, low].into(), number.wrapping_mul(7));
        let service = SocketAddr::new([10, 2, high, low].into(), 80);
        (
            pick_between(&self.scheduler, client, service, Ticks::from_secs(self.now)),
            self.model.pick(client, service.ip(), self.now.into()),
        )
    }
}

proptest! {
    #[test]
    fn tables_and_caches_follow_the_model_through_any_changes(
        kind in prop::sample::select(&[Kind::Sh, Kind::Dh, Kind::Mh, Kind::Lblc, Kind::Lblcr]),
        fallback: bool,
        port: bool,
        steps in steps(),
    ) {
        let mut both = Both::new(Rule { kind, flags: Flags { fallback, port }, many_addresses: true });
        for step in &steps {
            match step {
                Step::Wait(seconds) => both.now += seconds,
                Step::Pick(numbers) => {
                    for number in numbers {
                        let (real, model) = both.pick(*number);
                        prop_assert_eq!(real, model);
                    }
                }
                step => {
                    if both.change(step) {
                        let candidates = both.candidates.clone();
                        both.scheduler = Scheduler::compile(both.scheduler.rule, candidates, Some(&both.scheduler));
                    }
                }
            }
        }
    }
}
