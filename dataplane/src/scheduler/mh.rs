//! Maglev hashing: a table of a prime number of places, each destination's share of them by its weight, and nearly all
//! staying where they were when one comes or goes (Eisenbud and others, "Maglev", NSDI 2016, section 3.4).
//!
//! A destination whose weight falls to 0 keeps the share of its last weight: its clients find no server, or with
//! `mh-fallback` another one, and nobody else's clients move.
//!
//! The table is made by the thread that changes the configuration, and workers share it.

use super::{Candidate, Flags, hash};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Places of the original's table as it is shipped: a prime.
pub const PLACES: u32 = 4093;

/// The keys of the two hashes: for places, and for steps.
const FIRST: u64 = 2_654_435_761;
const SECOND: u64 = 2_654_446_892;

/// What decides the places of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The first place that it wants.
    offset: u32,
    /// From one place that it wants to the next: 1 to the number of places less 1.
    skip: u32,
    /// Places that it takes in each round; 0: none.
    turns: u32,
}

impl Share {
    /// Of a server in a table of `places`, a prime above 2.
    pub fn new(server: SocketAddr, turns: u32, places: u32) -> Self {
        let word = word(server.ip(), server.port(), 0);
        Self {
            offset: hash::sip(word, FIRST) % places,
            skip: hash::sip(word, SECOND) % (places - 1) + 1,
            turns,
        }
    }
}

/// A table, and what it was made of.
#[derive(Debug)]
pub(super) struct Table {
    shares: Box<[Share]>,
    /// Indices into the list; none if no destination has a share.
    places: Box<[u32]>,
}

impl Table {
    /// The table for `list`; `previous` if it is the same.
    pub(super) fn compile(list: &[Candidate], previous: Option<&Arc<Table>>) -> Arc<Table> {
        let shares = shares(list);
        match previous.filter(|previous| previous.shares == shares) {
            Some(same) => Arc::clone(same),
            None => Arc::new(Table { places: fill(PLACES, &shares), shares }),
        }
    }
}

fn shares(list: &[Candidate]) -> Box<[Share]> {
    let weights = || list.iter().map(|c| c.shared.last_weight());
    let divisor = weights().fold(0, super::wrr::gcd).max(1);
    let heaviest = weights().max().unwrap_or(0) / divisor;
    // Weights are scaled down to six bits, so that a round stays short beside the table.
    let shift = (u32::BITS - heaviest.leading_zeros()).saturating_sub(6);
    let turns = |weight: u32| ((weight / divisor) >> shift).max(u32::from(weight > 0));
    let share = |c: &Candidate| Share::new(c.server, turns(c.shared.last_weight()), PLACES);
    list.iter().map(share).collect()
}

/// Fills a table of `places`, a prime, in rounds: in the order of `shares` each takes, `turns` times, the first of the
/// places that it wants that is still free. Returns for each place the index of its share; none if no share has a turn.
/// The shares must be of a table of as many places.
pub fn fill(places: u32, shares: &[Share]) -> Box<[u32]> {
    let with_turns = shares.iter().zip(0u32..).filter(|(share, _)| share.turns > 0);
    let mut takers: Vec<Taker> = with_turns.map(|(share, index)| Taker::new(share, index, places)).collect();
    if takers.is_empty() {
        return Box::default();
    }
    let mut table = vec![0u32; places as usize].into_boxed_slice();
    let mut taken = vec![0u8; places as usize];
    let mut free = places;
    loop {
        for at in 0..takers.len() {
            for turn in 0..takers[at].turns {
                if free <= places / FEW {
                    takers.rotate_left(at);
                    fill_rest(&mut table, &taken, &takers, turn);
                    return table;
                }
                let place = takers[at].take(&taken, places);
                taken[place as usize] = 1;
                table[place as usize] = takers[at].index;
                free -= 1;
            }
        }
    }
}

/// Places looked at together. A search for the last free places looks at most of the table; in eights, which do not wait
/// for one another, it takes half the time.
const TOGETHER: usize = 8;

/// When no more than one place in so many is free, it is shorter to reckon which of the free ones is wanted first than to
/// search.
const FEW: u32 = 2048;

struct Taker {
    /// The next place that it wants.
    next: u32,
    turns: u32,
    index: u32,
    /// 0, 1, 2, ... skips.
    skips: [u32; TOGETHER],
}

impl Taker {
    fn new(share: &Share, index: u32, places: u32) -> Self {
        let mut skips = [0; TOGETHER];
        for k in 1..TOGETHER {
            skips[k] = after(skips[k - 1], share.skip, places);
        }
        Self { next: share.offset, turns: share.turns, index, skips }
    }

    /// The first free place that it wants. There must be one.
    #[inline(always)]
    fn take(&mut self, taken: &[u8], places: u32) -> u32 {
        let [_, skip, .., most_skips] = self.skips;
        let mut place = self.next;
        while taken[place as usize] != 0 {
            let wanted = self.skips.map(|skips| after(place, skips, places));
            let mask =
                wanted.iter().rev().fold(0u32, |mask, place| mask << 1 | u32::from(taken[*place as usize]));
            place = match wanted.get(mask.trailing_ones() as usize) {
                Some(free) => *free,
                None => after(after(place, most_skips, places), skip, places),
            };
        }
        self.next = after(place, skip, places);
        place
    }
}

/// Gives away the places that are still free, from turn `turn` of the first taker on: each turn to the place to which the
/// fewest skips lead, which is the distance divided by the skip, modulo the prime.
fn fill_rest(table: &mut [u32], taken: &[u8], takers: &[Taker], turn: u32) {
    let places = taken.len() as u64;
    let mut rest: Vec<u32> = (0..places as u32).filter(|place| taken[*place as usize] == 0).collect();
    let mut done = turn;
    for taker in takers.iter().cycle() {
        let inverse = inverse(u64::from(taker.skips[1]), places);
        for _ in done..taker.turns {
            let skips = |place: &u32| {
                let distance = (u64::from(*place) + places - u64::from(taker.next)) % places;
                distance * inverse % places
            };
            let Some(first) = (0..rest.len()).min_by_key(|at| skips(&rest[*at])) else { return };
            table[rest.swap_remove(first) as usize] = taker.index;
        }
        done = 0;
    }
}

/// The number whose product with `n` is 1 modulo a prime: the power of the prime less 2.
fn inverse(n: u64, prime: u64) -> u64 {
    let (mut power, mut square, mut exponent) = (1, n, prime - 2);
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = power * square % prime;
        }
        square = square * square % prime;
        exponent >>= 1;
    }
    power
}

#[inline(always)]
fn after(place: u32, skip: u32, places: u32) -> u32 {
    let next = place + skip;
    // The lesser of both, as what is below 0 wraps: without a branch.
    next.min(next.wrapping_sub(places))
}

#[inline]
pub(super) fn pick(list: &[Candidate], table: &Table, flags: Flags, client: SocketAddr) -> Option<usize> {
    let port = if flags.port { client.port() } else { 0 };
    let place = |offset: u32| hash::sip(word(client.ip(), port, offset), FIRST) % PLACES;
    let first = place(0);
    let usable = |place: u32| {
        let index = *table.places.get(place as usize)? as usize;
        list.get(index)?.is_eligible().then_some(index)
    };
    let found = usable(first);
    // Without any that can take it, all places would be tried for nothing.
    if found.is_some() || !flags.fallback || !list.iter().any(Candidate::is_eligible) {
        return found;
    }
    (0..PLACES).find_map(|k| usable(place((k + first) % PLACES)))
}

fn word(address: IpAddr, port: u16, offset: u32) -> u32 {
    hash::word(address).wrapping_add(u32::from(port)).wrapping_add(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_and_a_server_have_the_places_that_were_measured() {
        assert_eq!(hash::sip(word([10, 0, 0, 1].into(), 0, 0), FIRST) % PLACES, 3711);
        let share = Share::new("192.168.1.103:80".parse().unwrap(), 1, PLACES);
        assert_eq!((share.offset, share.skip), (388, 2492));
    }

    /// The rules word for word: lists of all places wanted, and a table to look into.
    fn slow(places: u32, shares: &[Share]) -> Vec<u32> {
        let mut table = vec![u32::MAX; places as usize];
        let wanted = |share: &Share| -> Vec<u32> {
            (0..u64::from(places))
                .map(|j| ((u64::from(share.offset) + j * u64::from(share.skip)) % u64::from(places)) as u32)
                .collect()
        };
        let wanted: Vec<Vec<u32>> = shares.iter().map(wanted).collect();
        loop {
            for (index, share) in shares.iter().enumerate() {
                for _ in 0..share.turns {
                    let Some(place) = wanted[index].iter().find(|p| table[**p as usize] == u32::MAX) else {
                        return table;
                    };
                    table[*place as usize] = index as u32;
                }
            }
        }
    }

    #[test]
    fn a_table_is_filled_as_the_rules_say() {
        for (places, servers) in
            [(251, 1), (251, 2), (251, 250), (251, 251), (1021, 7), (4093, 100), (4093, 900)]
        {
            let share = |n: u32| {
                let server = SocketAddr::new([10, (n >> 8) as u8, n as u8, 1].into(), 80);
                Share::new(server, (n * 7) % 5, places)
            };
            let shares: Vec<Share> = (1..=servers).map(share).collect();
            assert_eq!(fill(places, &shares).to_vec(), slow(places, &shares), "{servers} in {places}");
        }
    }

    #[test]
    fn a_table_smaller_than_what_is_reckoned_is_filled_too() {
        for places in [3, 5, 61, 67] {
            let share = |n: u8| Share::new(SocketAddr::new([10, 0, 0, n].into(), 80), u32::from(n), places);
            let shares: Vec<Share> = (1..=3).map(share).collect();
            assert_eq!(fill(places, &shares).to_vec(), slow(places, &shares), "{places}");
        }
    }

    #[test]
    fn a_table_without_a_share_is_empty() {
        assert!(fill(PLACES, &[]).is_empty());
        assert!(fill(PLACES, &[Share { offset: 1, skip: 1, turns: 0 }]).is_empty());
    }
}
