//! Destination hashing: 256 places, filled with the destinations in turn whatever their weights; the virtual address says
//! which place. If the destination there can take no connection, there is none: no other one is looked for.

use super::{Candidate, hash};
use std::{net::IpAddr, sync::Arc};

/// Indices into the list; none if the list is empty.
pub(super) type Places = Arc<[u32]>;

pub(super) const PLACES: usize = 256;

pub(super) fn fill(list: &[Candidate]) -> Places {
    let in_turn = (0..list.len() as u32).cycle();
    in_turn.take(PLACES).collect()
}

#[inline]
pub(super) fn pick(list: &[Candidate], places: &[u32], destination: IpAddr) -> Option<usize> {
    let index = *places.get(hash::place(hash::word(destination)) as usize)? as usize;
    list.get(index)?.is_eligible().then_some(index)
}
