//! Locality-based least connections: packets to one virtual address keep to one destination, chosen as by `wlc`, while it
//! can take connections and is not crowded (more active connections than its weight, while another destination has less
//! than half as many as its weight).

use super::{
    Candidate,
    cache::{Cache, Index, Name},
    wlc,
};
use crate::time::Ticks;
use std::net::IpAddr;

pub(super) fn pick(
    list: &[Candidate],
    (cache, index): (&Cache, &Index),
    destination: IpAddr,
    now: Ticks,
) -> Option<usize> {
    let remembered = cache.part(destination, now).and_then(|mut part| {
        part.touch();
        part.members().next()
    });
    // The specification can be read to keep to a remembered server that is overloaded. We take the other reading: no
    // scheduler chooses one that is marked so, and `is_eligible` is false of it.
    let usable = |found: &usize| list.get(*found).is_some_and(|c| c.is_eligible() && !is_crowded(c, list));
    let hit = remembered.and_then(|name| index.find(list, name)).filter(usable);
    if hit.is_some() {
        return hit;
    }
    let choice = wlc::pick(list)?;
    let name = Name::of(list.get(choice)?);
    if remembered != Some(name)
        && let Some(mut part) = cache.part(destination, now)
    {
        part.set(name);
    }
    Some(choice)
}

/// Whether a destination has more active connections than its weight while another has less than half as many.
pub(super) fn is_crowded(candidate: &Candidate, list: &[Candidate]) -> bool {
    let active = |c: &Candidate| u64::from(c.shared.active());
    active(candidate) > u64::from(candidate.weight)
        && list.iter().any(|other| active(other) * 2 < u64::from(other.weight))
}
