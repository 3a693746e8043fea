//! Weighted round robin, interleaved: laps through the list, each taking the destinations whose weight reaches the lap's
//! level; from lap to lap the level falls by the greatest common divisor of the weights, and starts again at the top.
//!
//! The place is the current level in the high half and, in the low half, 0 before the head of the list, else the index
//! of the destination last used plus 1. After a change the place goes before the head but the level stays where it can:
//! it is the lowest one after the first destination of a new service was added, which makes the first lap of a service
//! that is filled one by one take every destination once.

use super::{Candidate, Place, Scheduler, change::Change};
use std::{collections::BTreeMap, sync::Arc};

/// The levels of the laps. Weights are multiples of `step`, levels 1 more than such.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Laps {
    /// The first level; 0 if no destination has a weight.
    top: u32,
    /// From one level down to the next.
    step: u32,
}

impl Laps {
    /// The level after `level`.
    #[inline]
    fn below(self, level: u32) -> u32 {
        match level.saturating_sub(self.step) {
            0 => self.top,
            lower => lower,
        }
    }

    /// The first level from `level` on down, round the bottom if need be, that `weight` reaches.
    #[inline]
    fn reached_by(self, weight: u32, level: u32) -> u32 {
        let down_from = |level: u32| {
            let laps = level.saturating_sub(weight).div_ceil(self.step.max(1));
            u64::from(level).checked_sub(u64::from(laps) * u64::from(self.step))
        };
        match down_from(level) {
            None | Some(0) => down_from(self.top).map_or(1, |level| level.max(1) as u32),
            Some(level) => level as u32,
        }
    }
}

#[inline(always)]
pub(super) fn pick(list: &[Candidate], laps: Laps, place: &Place) -> Option<usize> {
    if laps.top == 0 {
        return None;
    }
    place.advance(|word| {
        let (level, after) = ((word >> 32) as u32, word as u32 as usize);
        let (index, level) = next(list, laps, level, after)?;
        Some((pack(level, index as u32 + 1), index))
    })
}

/// The next destination and its level: on in this lap, or else from the head in the next lap that any one can take.
#[inline]
fn next(list: &[Candidate], laps: Laps, level: u32, after: usize) -> Option<(usize, u32)> {
    let takes = |level: u32| move |c: &Candidate| c.weight >= level && c.is_eligible();
    let rest = list.get(after..).unwrap_or_default();
    if let Some(found) = rest.iter().position(takes(level)) {
        return Some((after + found, level));
    }
    // Going down level by level could take as many laps as the weights are large; the heaviest tells where it ends.
    let heaviest = list.iter().filter(|c| c.is_eligible()).map(|c| c.weight).max()?;
    let level = laps.reached_by(heaviest, laps.below(level));
    let found = list.iter().position(takes(level))?;
    Some((found, level))
}

/// Place and laps of a service that changes to this scheduler.
pub(super) fn begun_with_all(candidates: &[Candidate]) -> (Arc<Place>, Laps) {
    let mut weights = Weights::default();
    candidates.iter().for_each(|c| weights.insert(c.weight));
    let laps = weights.laps();
    (Place::new(pack(laps.top, 0)), laps)
}

/// Place and laps of a new service whose destinations are added one by one.
pub(super) fn added_one_by_one(candidates: &[Candidate]) -> (Arc<Place>, Laps) {
    let mut state = State::default();
    candidates.iter().for_each(|c| state.add(c.weight));
    state.end()
}

/// Place and laps after a change.
pub(super) fn carry(
    (previous, place, laps): (&Scheduler, &Arc<Place>, Laps),
    candidates: &[Candidate],
) -> (Arc<Place>, Laps) {
    let change = Change::between(previous, candidates);
    if change.is_none() {
        return (Arc::clone(place), laps);
    }
    let mut state = State { level: (place.get() >> 32) as u32, ..State::default() };
    previous.list.iter().for_each(|c| state.weights.insert(c.weight));
    for weight in change.deleted {
        state.weights.remove(weight);
        state.changed();
    }
    for (from, to) in change.edited {
        state.weights.remove(from);
        state.weights.insert(to);
        state.changed();
    }
    candidates[change.kept.len()..].iter().for_each(|c| state.add(c.weight));
    state.end()
}

/// The level while changes are made one by one.
#[derive(Default)]
struct State {
    weights: Weights,
    level: u32,
}

impl State {
    fn add(&mut self, weight: u32) {
        self.weights.insert(weight);
        self.changed();
    }

    /// What the original does after each change.
    fn changed(&mut self) {
        let laps = self.weights.laps();
        if self.level > laps.top || self.level == 0 {
            self.level = laps.top;
        } else if laps.step > 1 {
            self.level = self.level / laps.step * laps.step + 1;
        }
    }

    fn end(self) -> (Arc<Place>, Laps) {
        (Place::new(pack(self.level, 0)), self.weights.laps())
    }
}

/// How many destinations there are of each weight above 0: services have many destinations but few weights.
#[derive(Default)]
struct Weights(BTreeMap<u32, u32>);

impl Weights {
    fn insert(&mut self, weight: u32) {
        if weight > 0 {
            *self.0.entry(weight).or_default() += 1;
        }
    }

    fn remove(&mut self, weight: u32) {
        if let Some(count) = self.0.get_mut(&weight) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&weight);
            }
        }
    }

    fn laps(&self) -> Laps {
        let step = self.0.keys().fold(0, |divisor, weight| gcd(divisor, *weight)).max(1);
        let heaviest = self.0.keys().next_back().copied().unwrap_or(0);
        Laps { top: heaviest.saturating_sub(step - 1), step }
    }
}

pub(super) fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn pack(level: u32, after: u32) -> u64 {
    u64::from(level) << 32 | u64::from(after)
}
