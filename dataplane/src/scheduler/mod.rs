//! Picking a destination for a new connection, exactly in the order of the originals.
//!
//! A destination that is added goes to the *head* of the list, so that the list runs from the last one added to the
//! first. Every scheduler skips destinations of weight 0 (quiesced) and overloaded ones.
//!
//! One file per scheduler. Each reads the list. Some keep more, which all workers share: `rr`, `wrr` and `twos` a *place*,
//! one word; `sh`, `dh` and `mh` a table, which is made when the configuration changes; `lblc` and `lblcr` a cache. Places
//! and caches are carried from one snapshot into the next, and so are tables as long as nothing in them changes.

mod cache;
mod change;
mod dh;
mod fo;
mod hash;
mod lblc;
mod lblcr;
mod lc;
pub mod mh;
mod nq;
mod ovf;
mod rr;
mod sed;
mod sh;
mod twos;
mod wlc;
mod wrr;

use crate::{conn::key::Key, snapshot::Method, stats::DestinationShared, time::Ticks};
use cache::{Cache, Index};
use crossbeam::utils::CachePadded;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// The packet that opens a connection, as far as schedulers choose by it.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a, K> {
    /// The client and what it wants.
    pub key: &'a K,
    /// The key's hash, which nobody outside can know: what `twos` draws from.
    pub hash: u64,
    /// The time of this poll.
    pub now: Ticks,
}

/// A destination as a scheduler sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its slot in the snapshot.
    pub slot: u32,
    /// Distinguishes it from others that had the slot before.
    pub generation: u32,
    /// RIP and transport port, which `mh` places it by.
    pub server: SocketAddr,
    /// 0: quiesced.
    pub weight: u32,
    /// Thresholds and method, which a change may touch alone: schedulers ask only whether they are the same.
    pub settings: (u32, u32, Method),
    /// Its connection counts.
    pub shared: Arc<DestinationShared>,
}

impl Candidate {
    /// Whether it may get a new connection.
    #[inline]
    fn is_eligible(&self) -> bool {
        self.weight > 0 && !self.shared.overloaded()
    }

    /// Whether it is the same destination, whatever its weight.
    fn is(&self, other: &Candidate) -> bool {
        self.slot == other.slot && Arc::ptr_eq(&self.shared, &other.shared)
    }
}

/// The schedulers of the originals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Least connections by weight.
    Wlc,
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// Source hashing.
    Sh,
    /// Destination hashing.
    Dh,
    /// Locality-based least connections.
    Lblc,
    /// The same with replication.
    Lblcr,
    /// Maglev hashing.
    Mh,
    /// Weighted failover.
    Fo,
    /// Weighted overflow.
    Ovf,
    /// Power of two choices.
    Twos,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 14] = {
        use Kind::*;
        [Rr, Wrr, Lc, Wlc, Sed, Nq, Sh, Dh, Lblc, Lblcr, Mh, Fo, Ovf, Twos]
    };

    /// The scheduler of this name (`ipvsadm -s`). `None`: there is no such scheduler.
    pub fn parse(name: &str) -> Option<Kind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// As ipvsadm calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Rr => "rr",
            Kind::Wrr => "wrr",
            Kind::Lc => "lc",
            Kind::Wlc => "wlc",
            Kind::Sed => "sed",
            Kind::Nq => "nq",
            Kind::Sh => "sh",
            Kind::Dh => "dh",
            Kind::Lblc => "lblc",
            Kind::Lblcr => "lblcr",
            Kind::Mh => "mh",
            Kind::Fo => "fo",
            Kind::Ovf => "ovf",
            Kind::Twos => "twos",
        }
    }
}

/// Which scheduler a service has, and what modifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which.
    pub kind: Kind,
    /// Of `sh` and `mh`.
    pub flags: Flags,
    /// Whether packets to many addresses are the service's (a firewall mark), not to one. `lblc` and `lblcr` keep a
    /// destination for each.
    pub many_addresses: bool,
}

impl From<Kind> for Rule {
    /// Without flags, for a service at one address.
    fn from(kind: Kind) -> Self {
        Self { kind, flags: Flags::default(), many_addresses: false }
    }
}

/// What modifies `sh` and `mh` (`ipvsadm -b`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `sh-fallback`, `mh-fallback`: where the destination can take no connection, another one is looked for.
    pub fallback: bool,
    /// `sh-port`, `mh-port`: the client's port counts too.
    pub port: bool,
}

/// Picks destinations of one service. A clone shares list, place, table and cache.
#[derive(Clone, Debug)]
pub struct Scheduler {
    rule: Rule,
    /// From the last one added to the first.
    list: Arc<[Candidate]>,
    way: Way,
}

/// What a scheduler keeps besides the list.
#[derive(Clone, Debug)]
enum Way {
    Rr(Arc<Place>),
    Wrr(Arc<Place>, wrr::Laps),
    Lc,
    Wlc,
    Sed,
    Nq,
    Fo,
    Ovf,
    Sh(dh::Places),
    Dh(dh::Places),
    Mh(Arc<mh::Table>),
    Lblc(Arc<Cache>, Arc<Index>),
    Lblcr(Arc<Cache>, Arc<Index>),
    Twos(Arc<Place>),
}

impl Scheduler {
    /// A scheduler of `candidates`, given in the order in which they were added.
    ///
    /// Of `previous`, the scheduler of the same service before the change, what it kept is carried over as if each
    /// difference had been made by one command: deletions, then changes of weight, then additions. Without `previous`
    /// the service is new, and its destinations are added one by one. If `previous` is of another kind, the service
    /// changes its scheduler, which begins with the whole list. Nothing else is taken from `previous`.
    pub fn compile(
        rule: impl Into<Rule>,
        candidates: Vec<Candidate>,
        previous: Option<&Scheduler>,
    ) -> Scheduler {
        let rule = rule.into();
        candidates.iter().for_each(|c| c.shared.weighs(c.weight));
        let way = match (rule.kind, previous, previous.map(|previous| &previous.way)) {
            (Kind::Rr, Some(p), Some(Way::Rr(place))) => Way::Rr(rr::carry((p, place), &candidates)),
            (Kind::Rr, ..) => Way::Rr(Arc::default()),
            (Kind::Wrr, Some(p), Some(Way::Wrr(place, laps))) => {
                let (place, laps) = wrr::carry((p, place, *laps), &candidates);
                Way::Wrr(place, laps)
            }
            (Kind::Wrr, previous, _) => {
                let begin = if previous.is_none() { wrr::added_one_by_one } else { wrr::begun_with_all };
                let (place, laps) = begin(&candidates);
                Way::Wrr(place, laps)
            }
            (Kind::Lc, ..) => Way::Lc,
            (Kind::Wlc, ..) => Way::Wlc,
            (Kind::Sed, ..) => Way::Sed,
            (Kind::Nq, ..) => Way::Nq,
            (Kind::Fo, ..) => Way::Fo,
            (Kind::Ovf, ..) => Way::Ovf,
            (Kind::Sh | Kind::Dh | Kind::Mh | Kind::Lblc | Kind::Lblcr | Kind::Twos, ..) => {
                return Self::of_whole_list(rule, candidates, previous);
            }
        };
        Scheduler { rule, list: candidates.into_iter().rev().collect(), way }
    }

    /// Of the kinds to which it does not matter what led to a list.
    fn of_whole_list(rule: Rule, candidates: Vec<Candidate>, previous: Option<&Scheduler>) -> Scheduler {
        let list: Arc<[Candidate]> = candidates.into_iter().rev().collect();
        let same_list = previous.is_some_and(|previous| previous.has(&list));
        let same_addresses = previous.is_some_and(|p| p.rule.many_addresses == rule.many_addresses);
        let cache = |old: &Arc<Cache>| {
            old.reserve(list.len());
            Arc::clone(old)
        };
        let new_cache = |members| Arc::new(Cache::new(rule.many_addresses, members));
        let index = || Arc::new(Index::new(&list));
        let way = match (rule.kind, previous.map(|previous| &previous.way)) {
            (Kind::Sh, Some(Way::Sh(places))) if same_list => Way::Sh(Arc::clone(places)),
            (Kind::Sh, _) => Way::Sh(sh::fill(&list)),
            (Kind::Dh, Some(Way::Dh(places))) if same_list => Way::Dh(Arc::clone(places)),
            (Kind::Dh, _) => Way::Dh(dh::fill(&list)),
            (Kind::Mh, Some(Way::Mh(table))) => Way::Mh(mh::Table::compile(&list, Some(table))),
            (Kind::Mh, _) => Way::Mh(mh::Table::compile(&list, None)),
            (Kind::Lblc, Some(Way::Lblc(old, _))) if same_addresses => Way::Lblc(Arc::clone(old), index()),
            (Kind::Lblc, _) => Way::Lblc(new_cache(1), index()),
            (Kind::Lblcr, Some(Way::Lblcr(old, _))) if same_addresses => Way::Lblcr(cache(old), index()),
            (Kind::Lblcr, _) => Way::Lblcr(new_cache(list.len()), index()),
            (_, Some(Way::Twos(place))) => Way::Twos(Arc::clone(place)),
            _ => Way::Twos(Arc::default()),
        };
        Scheduler { rule, list, way }
    }

    /// The slot of the destination for a new connection. `None`: no destination can take one.
    ///
    /// Workers may pick at the same time; each pick of `rr` and `wrr` moves their common place on.
    #[inline(always)]
    pub fn pick<K: Key>(&self, opening: &Opening<'_, K>) -> Option<u32> {
        let (list, flags) = (&*self.list, self.rule.flags);
        let (client, destination) = (|| opening.key.client(), || opening.key.virtual_service().ip());
        let index = match &self.way {
            Way::Rr(place) => rr::pick(list, place),
            Way::Wrr(place, laps) => wrr::pick(list, *laps, place),
            Way::Lc => lc::pick(list),
            Way::Wlc => wlc::pick(list),
            Way::Sed => sed::pick(list),
            Way::Nq => nq::pick(list),
            Way::Fo => fo::pick(list),
            Way::Ovf => ovf::pick(list),
            Way::Sh(places) => sh::pick(list, places, flags, client()),
            Way::Dh(places) => dh::pick(list, places, destination()),
            Way::Mh(table) => mh::pick(list, table, flags, client()),
            Way::Lblc(cache, index) => lblc::pick(list, (cache, index), destination(), opening.now),
            Way::Lblcr(cache, index) => lblcr::pick(list, (cache, index), destination(), opening.now),
            Way::Twos(place) => twos::pick(list, place, opening.hash),
        }?;
        list.get(index).map(|candidate| candidate.slot)
    }

    /// The destinations in the order of the list: from the last one added to the first.
    pub fn candidates(&self) -> &[Candidate] {
        &self.list
    }

    /// Which scheduler it is.
    pub fn kind(&self) -> Kind {
        self.rule.kind
    }

    /// Whether `list` has the same destinations with the same weights in the same order.
    fn has(&self, list: &[Candidate]) -> bool {
        let same = |(a, b): (&Candidate, &Candidate)| a.is(b) && a.weight == b.weight;
        self.list.len() == list.len() && self.list.iter().zip(list).all(same)
    }
}

/// Where a scheduler stands in its list; what the word means is the scheduler's own.
#[derive(Debug, Default)]
struct Place(CachePadded<AtomicU64>);

impl Place {
    /// How often a worker tries to move on while others move too. Each failure is another worker's success, so that
    /// only a worker that is overtaken this often in a row picks without moving on.
    const TRIES: usize = 64;

    fn new(word: u64) -> Arc<Self> {
        Arc::new(Self(CachePadded::new(AtomicU64::new(word))))
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// How often this was called.
    fn count(&self) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }

    /// Moves on by `step`, which gives the next place and what is picked there. The word carries all that is shared, so
    /// no ordering with other memory is needed.
    #[inline]
    fn advance(&self, step: impl Fn(u64) -> Option<(u64, usize)>) -> Option<usize> {
        let mut seen = self.0.load(Relaxed);
        let mut picked = None;
        for _ in 0..Self::TRIES {
            let (next, index) = step(seen)?;
            picked = Some(index);
            match self.0.compare_exchange(seen, next, Relaxed, Relaxed) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        picked
    }
}

/// The index of the eligible candidate that `better` prefers to all before it; the first of equals.
#[inline(always)]
fn best(list: &[Candidate], better: impl Fn(&Candidate, &Candidate) -> bool) -> Option<usize> {
    let mut best: Option<(usize, &Candidate)> = None;
    for (index, candidate) in list.iter().enumerate() {
        if candidate.is_eligible() && best.is_none_or(|(_, so_far)| better(candidate, so_far)) {
            best = Some((index, candidate));
        }
    }
    best.map(|(index, _)| index)
}

/// What `lc` and `wlc` weigh: 256 for each active connection, 1 for each inactive one.
#[inline]
fn overhead(candidate: &Candidate) -> u64 {
    u64::from(candidate.shared.active()) * 256 + u64::from(candidate.shared.inactive())
}

/// Whether `a / wa < b / wb`, without a division and without overflow.
#[inline]
fn ratio_less(a: u64, wa: u32, b: u64, wb: u32) -> bool {
    u128::from(a) * u128::from(wb) < u128::from(b) * u128::from(wa)
}

#[cfg(test)]
mod tests;
