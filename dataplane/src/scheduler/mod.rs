//! Picking a destination for a new connection, exactly in the order of the originals.
//!
//! A destination that is added goes to the *head* of the list, so that the list runs from the last one added to the
//! first. Every scheduler skips destinations of weight 0 (quiesced) and overloaded ones.
//!
//! One file per scheduler. Each reads the list; `rr` and `wrr` also keep a *place*, one word that all workers share and
//! that is carried from one snapshot into the next.

mod change;
mod fo;
mod lc;
mod nq;
mod ovf;
mod rr;
mod sed;
mod wlc;
mod wrr;

use crate::{conn::key::Key, stats::DestinationShared, time::Ticks};
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

    /// Whether this version runs it. The others are accepted, and [`Scheduler::pick`] finds no destination.
    pub const fn is_built(self) -> bool {
        match self {
            Kind::Rr | Kind::Wrr | Kind::Lc | Kind::Wlc | Kind::Sed | Kind::Nq | Kind::Fo | Kind::Ovf => true,
            Kind::Sh | Kind::Dh | Kind::Lblc | Kind::Lblcr | Kind::Mh | Kind::Twos => false,
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

/// Picks destinations of one service. A clone shares list and place.
#[derive(Clone, Debug)]
pub struct Scheduler {
    kind: Kind,
    /// From the last one added to the first.
    list: Arc<[Candidate]>,
    place: Arc<Place>,
    laps: wrr::Laps,
}

impl Scheduler {
    /// A scheduler of `candidates`, given in the order in which they were added.
    ///
    /// Of `previous`, the scheduler of the same service before the change, the place is carried over as if each
    /// difference had been made by one command: deletions, then changes of weight, then additions. Without `previous`
    /// the service is new, and its destinations are added one by one. If `previous` is of another kind, the service
    /// changes its scheduler, which begins with the whole list. Nothing but the place is taken from `previous`.
    pub fn compile(
        rule: impl Into<Rule>,
        candidates: Vec<Candidate>,
        previous: Option<&Scheduler>,
    ) -> Scheduler {
        let Rule { kind, .. } = rule.into();
        let previous_of_kind = previous.filter(|p| p.kind == kind);
        let (place, laps) = match (kind, previous_of_kind) {
            (Kind::Rr, Some(p)) => (rr::carry(p, &candidates), wrr::Laps::default()),
            (Kind::Wrr, Some(p)) => wrr::carry(p, &candidates),
            (Kind::Wrr, None) if previous.is_none() => wrr::added_one_by_one(&candidates),
            (Kind::Wrr, None) => wrr::begun_with_all(&candidates),
            _ => Default::default(),
        };
        let mut list = candidates;
        list.reverse();
        Scheduler { kind, list: list.into(), place, laps }
    }

    /// The slot of the destination for a new connection. `None`: no destination can take one, or the kind is not built.
    ///
    /// Workers may pick at the same time; each pick of `rr` and `wrr` moves their common place on.
    #[inline]
    pub fn pick<K: Key>(&self, _opening: &Opening<'_, K>) -> Option<u32> {
        let list = &*self.list;
        let index = match self.kind {
            Kind::Rr => rr::pick(list, &self.place),
            Kind::Wrr => wrr::pick(list, self.laps, &self.place),
            Kind::Lc => lc::pick(list),
            Kind::Wlc => wlc::pick(list),
            Kind::Sed => sed::pick(list),
            Kind::Nq => nq::pick(list),
            Kind::Fo => fo::pick(list),
            Kind::Ovf => ovf::pick(list),
            Kind::Sh | Kind::Dh | Kind::Lblc | Kind::Lblcr | Kind::Mh | Kind::Twos => None,
        }?;
        list.get(index).map(|candidate| candidate.slot)
    }

    /// The destinations in the order of the list: from the last one added to the first.
    pub fn candidates(&self) -> &[Candidate] {
        &self.list
    }

    /// Which scheduler it is.
    pub fn kind(&self) -> Kind {
        self.kind
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
