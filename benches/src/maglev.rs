//! A Maglev table: what changing a service of 1000 real servers with the scheduler `mh` costs before it is published. With a
//! table of 65537 places, as large as others have theirs; the director's own is that of the original, and smaller.

use crate::{
    Extent,
    timing::{Figure, measure},
};
use pointsman_dataplane::scheduler::mh::{Share, fill};
use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
};

/// Places: a prime.
const PLACES: u32 = 65_537;
/// Real servers, each with one turn a round.
const SERVERS: u32 = 1_000;

/// Nanoseconds a table: the servers' hashes and the filling.
pub fn table(extent: Extent) -> Figure {
    let servers: Vec<SocketAddr> =
        (0..SERVERS).map(|n| SocketAddr::new(Ipv4Addr::from_bits(0x0a01_0000 | n).into(), 80)).collect();
    let tables = extent.pick(20, 1);
    measure(|| {
        for _ in 0..tables {
            let shares: Vec<Share> = servers.iter().map(|server| Share::new(*server, 1, PLACES)).collect();
            black_box(fill(PLACES, &shares));
        }
        tables
    })
}
