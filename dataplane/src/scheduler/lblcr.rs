//! Locality-based least connections with replication: packets to one virtual address keep to a set of destinations, of
//! which the one with the least overhead for each unit of weight is taken. If there is none that can take connections, or
//! it is crowded (as for `lblc`), the choice of `wlc` joins the set. A set that has not changed for a day gives up the most
//! loaded of its destinations.

use super::{
    Candidate,
    cache::{Cache, Held, Index, LIFETIME, Name},
    lblc::is_crowded,
    overhead, ratio_less, wlc,
};
use crate::time::Ticks;
use std::net::IpAddr;

pub(super) fn pick(
    list: &[Candidate],
    (cache, index): (&Cache, &Index),
    destination: IpAddr,
    now: Ticks,
) -> Option<usize> {
    let member = cache.part(destination, now).and_then(|mut part| {
        part.touch();
        let least = least_loaded(list, index, &part);
        let stale = part.unchanged().0 > LIFETIME.0 && part.members().nth(1).is_some();
        if let Some(most) = stale.then(|| most_loaded(list, index, &part)).flatten() {
            part.remove(most);
        }
        least
    });
    let usable = |found: &usize| list.get(*found).is_some_and(|c| !is_crowded(c, list));
    if let Some(member) = member.filter(usable) {
        return Some(member);
    }
    let choice = wlc::pick(list)?;
    let name = Name::of(list.get(choice)?);
    if let Some(mut part) = cache.part(destination, now) {
        if part.touch() {
            part.add(name, |member| index.find(list, member).is_some());
        } else {
            part.set(name);
        }
    }
    Some(choice)
}

fn least_loaded(list: &[Candidate], index: &Index, part: &Held<'_>) -> Option<usize> {
    let mut least: Option<(usize, &Candidate)> = None;
    for found in part.members().filter_map(|name| index.find(list, name)) {
        let Some(c) = list.get(found).filter(|c| c.is_eligible()) else { continue };
        if least.is_none_or(|(_, l)| ratio_less(overhead(c), c.weight, overhead(l), l.weight)) {
            least = Some((found, c));
        }
    }
    least.map(|(found, _)| found)
}

/// Of those with a weight; one that is no destination any more goes before all.
fn most_loaded(list: &[Candidate], index: &Index, part: &Held<'_>) -> Option<Name> {
    let mut most: Option<(Name, &Candidate)> = None;
    for name in part.members() {
        let Some(c) = index.find(list, name).and_then(|found| list.get(found)) else {
            return Some(name);
        };
        if c.weight > 0 && most.is_none_or(|(_, m)| ratio_less(overhead(m), m.weight, overhead(c), c.weight))
        {
            most = Some((name, c));
        }
    }
    most.map(|(name, _)| name)
}
