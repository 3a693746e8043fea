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
    // Next place wanted, step, turns, index: only of those that have turns.
    let mut takers: Vec<(u32, u32, u32, u32)> = shares
        .iter()
        .zip(0u32..)
        .filter(|(share, _)| share.turns > 0)
        .map(|(share, index)| (share.offset, share.skip, share.turns, index))
        .collect();
    if takers.is_empty() {
        return Box::default();
    }
    let mut table = vec![0u32; places as usize].into_boxed_slice();
    let mut taken = vec![0u64; places.div_ceil(64) as usize];
    let mut free = places;
    loop {
        for (next, skip, turns, index) in &mut takers {
            for _ in 0..*turns {
                let mut place = *next;
                while taken[(place / 64) as usize] >> (place % 64) & 1 != 0 {
                    place = after(place, *skip, places);
                }
                taken[(place / 64) as usize] |= 1 << (place % 64);
                table[place as usize] = *index;
                *next = after(place, *skip, places);
                free -= 1;
                if free == 0 {
                    return table;
                }
            }
        }
    }
}

#[inline(always)]
fn after(place: u32, skip: u32, places: u32) -> u32 {
    let next = place + skip;
    if next >= places { next - places } else { next }
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
    fn a_table_without_a_share_is_empty() {
        assert!(fill(PLACES, &[]).is_empty());
        assert!(fill(PLACES, &[Share { offset: 1, skip: 1, turns: 0 }]).is_empty());
    }
}
