//! Source hashing: 256 places, filled with the destinations in turn, each as often in a row as its weight says (once for
//! weight 0); the client's address says which place, with `sh-port` its port too. If the destination there can take no
//! connection there is none, or with `sh-fallback` places are tried one after the other, each for the address and another
//! offset, until one has a destination that can.

use super::{
    Candidate, Flags,
    dh::{PLACES, Places},
    hash,
};
use std::net::SocketAddr;

pub(super) fn fill(list: &[Candidate]) -> Places {
    let times = |c: &Candidate| c.weight.max(1) as usize;
    let once = list.iter().enumerate().flat_map(|(index, c)| std::iter::repeat_n(index as u32, times(c)));
    once.cycle().take(PLACES).collect()
}

#[inline]
pub(super) fn pick(list: &[Candidate], places: &[u32], flags: Flags, client: SocketAddr) -> Option<usize> {
    let port = if flags.port { u32::from(client.port()) } else { 0 };
    let word = hash::word(client.ip()).wrapping_add(port);
    let place = |offset: u32| (offset + hash::place(word)) % PLACES as u32;
    let first = place(0);
    usable(list, places, first).or_else(|| {
        let others = (0..PLACES as u32).map(|k| place((k + first) % PLACES as u32));
        others.filter(|_| flags.fallback).find_map(|place| usable(list, places, place))
    })
}

fn usable(list: &[Candidate], places: &[u32], place: u32) -> Option<usize> {
    let index = *places.get(place as usize)? as usize;
    list.get(index)?.is_eligible().then_some(index)
}
