//! Stations that packets are routed to on the links of the ports: not known before the first packet to them comes.
//!
//! Workers claim a place for an address when the first packet to it comes, and look there for its MAC address; the control
//! thread asks for the address and writes what it learns, and clears places that nobody has used for a while. A place that
//! was cleared rests before another address gets it, for longer than any packet is under way: who read the old address
//! never sees the new one's MAC. The number of places is fixed; without one a packet is dropped.

use crate::{
    limits::MAX_ON_LINK,
    snapshot::{NeighborCell, NeighborState, NextHop},
    time::Nanos,
};
use crossbeam::queue::ArrayQueue;
use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release},
    },
};

/// See the module.
#[derive(Debug)]
pub struct OnLink {
    places: Box<[Place]>,
    /// Places that were claimed since the control thread last looked.
    claimed: ArrayQueue<u32>,
}

#[derive(Debug, Default)]
struct Place {
    /// [`FREE`], [`WRITTEN`], [`LIVE`] or [`RESTING`].
    state: AtomicU32,
    port: AtomicU32,
    /// The address, IPv4 in its IPv6 form: the high and the low half.
    address: [AtomicU64; 2],
    /// The second in which it was last used, or cleared.
    used: AtomicU64,
    cell: Arc<NeighborCell>,
}

/// Nobody's.
const FREE: u32 = 0;
/// A worker writes down whose it is.
const WRITTEN: u32 = 1;
/// Somebody's.
const LIVE: u32 = 2;
/// Nobody's, but some may not know it yet.
const RESTING: u32 = 3;

/// How many places are looked at for an address.
const LOOKED_AT: usize = 16;
/// Seconds after which a place that was not used is cleared.
const IDLE: u64 = 60;
/// Seconds that it rests then.
const REST: u64 = 10;

impl Default for OnLink {
    fn default() -> Self {
        Self {
            places: (0..MAX_ON_LINK).map(|_| Place::default()).collect(),
            claimed: ArrayQueue::new(MAX_ON_LINK),
        }
    }
}

impl Place {
    fn is(&self, port: u16, (high, low): (u64, u64)) -> bool {
        // Acquire, with the release of the state: who sees LIVE sees the address.
        self.state.load(Acquire) == LIVE
            && self.address[1].load(Relaxed) == low
            && self.address[0].load(Relaxed) == high
            && self.port.load(Relaxed) == u32::from(port)
    }

    fn address(&self) -> IpAddr {
        let [high, low] = self.address.each_ref().map(|half| u128::from(half.load(Relaxed)));
        Ipv6Addr::from_bits(high << 64 | low).to_canonical()
    }

    fn touch(&self, second: u64) {
        if self.used.load(Relaxed) != second {
            self.used.store(second, Relaxed);
        }
    }
}

fn halves(address: IpAddr) -> (u64, u64) {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    ((bits >> 64) as u64, bits as u64)
}

fn second(now: Nanos) -> u64 {
    now.0 / 1_000_000_000
}

impl OnLink {
    /// The place of an address on the link of a port, claimed if it has none; `None` without a free one near where it belongs.
    pub fn place(&self, port: u16, address: IpAddr, now: Nanos) -> Option<u32> {
        let key = halves(address);
        let looked_at = self.near(port, key);
        for number in looked_at.clone() {
            let place = &self.places[number];
            if place.is(port, key) {
                place.touch(second(now));
                return Some(number as u32);
            }
        }
        for number in looked_at {
            let place = &self.places[number];
            if place.state.compare_exchange(FREE, WRITTEN, Acquire, Relaxed).is_ok() {
                place.address[0].store(key.0, Relaxed);
                place.address[1].store(key.1, Relaxed);
                place.port.store(u32::from(port), Relaxed);
                place.used.store(second(now), Relaxed);
                place.state.store(LIVE, Release);
                // As many fit as there are places; a place that is not told is found by the next look at all.
                let _ = self.claimed.push(number as u32);
                return Some(number as u32);
            }
        }
        None
    }

    /// Whether the place of that number is the address's, on whatever port.
    pub fn is(&self, number: u32, address: IpAddr) -> bool {
        self.places
            .get(number as usize)
            .is_some_and(|place| place.state.load(Acquire) == LIVE && place.address() == address)
    }

    /// The port, and what is known of the neighbour, of a place.
    pub fn get(&self, number: u32) -> Option<(u16, &Arc<NeighborCell>)> {
        let place = self.places.get(number as usize)?;
        Some((place.port.load(Relaxed) as u16, &place.cell))
    }

    /// Whether places were claimed since this was last asked. For the control thread.
    pub fn has_new(&self) -> bool {
        let mut some = false;
        for _ in 0..self.places.len() {
            if self.claimed.pop().is_none() {
                break;
            }
            some = true;
        }
        some
    }

    /// Clears the places that were idle, or whose neighbour has failed; says whether there were any. For the control thread.
    pub fn clear(&self, now: Nanos) -> bool {
        let mut some = false;
        for place in &self.places {
            let idle = second(now).saturating_sub(place.used.load(Relaxed));
            match place.state.load(Acquire) {
                LIVE if idle >= IDLE || (idle >= 3 && place.cell.get() == NeighborState::Failed) => {
                    place.state.store(RESTING, Relaxed);
                    place.used.store(second(now), Relaxed);
                    some = true;
                }
                RESTING if idle >= REST => {
                    place.cell.set(NeighborState::Incomplete);
                    place.state.store(FREE, Release);
                }
                _ => {}
            }
        }
        some
    }

    /// The neighbours that are wanted, as next hops of the ports whose MTU and MAC address `facts` gives.
    pub fn wanted(&self, facts: impl Fn(u16) -> Option<(u16, [u8; 6])>) -> Vec<NextHop> {
        let live = self.places.iter().filter(|place| place.state.load(Acquire) == LIVE);
        let hop = |place: &Place| {
            let port = place.port.load(Relaxed) as u16;
            let (mtu, source) = facts(port)?;
            Some(NextHop { address: place.address(), port, mtu, source, cell: place.cell.clone() })
        };
        live.filter_map(hop).collect()
    }

    fn near(&self, port: u16, (high, low): (u64, u64)) -> impl Iterator<Item = usize> + Clone + use<> {
        let word = (high ^ low.rotate_left(32) ^ u64::from(port)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (start, len) = ((word >> 32) as usize, self.places.len());
        (0..LOOKED_AT.min(len)).map(move |n| (start + n) % len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATION: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn an_address_keeps_its_place_while_it_is_used() {
        let table = OnLink::default();
        let place = table.place(1, STATION, Nanos::from_secs(5)).unwrap();
        assert!(table.has_new() && !table.has_new());
        assert_eq!(table.place(1, STATION, Nanos::from_secs(6)), Some(place));
        assert_ne!(table.place(0, STATION, Nanos::from_secs(6)), Some(place), "another link");
        assert!(table.is(place, STATION) && !table.is(place, [10, 0, 0, 3].into()));
        let wanted: Vec<_> = table.wanted(|port| Some((1500, [port as u8; 6])));
        assert_eq!(wanted.len(), 2);
        assert!(wanted.iter().all(|hop| hop.address == STATION && hop.source == [hop.port as u8; 6]));
        assert!(!table.clear(Nanos::from_secs(65)));
        table.place(1, STATION, Nanos::from_secs(65));
        assert!(table.clear(Nanos::from_secs(66)), "the other one");
        assert!(table.is(place, STATION));
    }

    #[test]
    fn a_place_rests_before_it_is_anothers() {
        let table = OnLink::default();
        let v6: IpAddr = "fd00::7".parse().unwrap();
        let place = table.place(0, v6, Nanos::from_secs(0)).unwrap();
        table.get(place).unwrap().1.set(NeighborState::Reachable([2; 6]));
        table.clear(Nanos::from_secs(60));
        assert!(!table.is(place, v6));
        assert_ne!(table.place(0, v6, Nanos::from_secs(61)), Some(place));
        table.clear(Nanos::from_secs(70));
        assert_eq!(table.get(place).unwrap().1.get(), NeighborState::Incomplete);
        table.clear(Nanos::from_secs(140));
        table.clear(Nanos::from_secs(150));
        assert_eq!(table.place(0, v6, Nanos::from_secs(151)), Some(place));
    }

    #[test]
    fn a_scan_of_a_network_finds_the_places_taken_and_no_more() {
        let table = OnLink::default();
        let placed = (0..100_000_u32).filter(|n| table.place(0, IpAddr::V4((*n).into()), Nanos(0)).is_some());
        let placed = placed.count();
        assert!(placed <= MAX_ON_LINK && placed > MAX_ON_LINK / 2, "{placed}");
    }
}
