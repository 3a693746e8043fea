//! Next hops, compiled: what is known of a neighbour outlives a change, and a number is nobody else's until all frames that
//! were sent by it have left.

use crate::kernel::Network;
use pointsman_dataplane::{
    snapshot::{Destination, NeighborCell, NextHop},
    time::Nanos,
};
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

/// How long the number of a next hop rests before another one gets it: longer than a frame waits for its neighbour.
const REST: Nanos = Nanos::from_secs(10);

/// Next hops by number. A number stays the same for as long as a destination or a route uses it.
#[derive(Debug, Default)]
pub(super) struct NextHops {
    entries: Vec<Entry>,
    by_address: HashMap<(u16, IpAddr), u32>,
    /// Those that nothing uses.
    unused: BTreeSet<u32>,
    /// As they were published last.
    published: Arc<[NextHop]>,
    /// Whether anything has changed in this generation.
    pub(super) moved: bool,
}

#[derive(Debug)]
struct Entry {
    hop: NextHop,
    /// How many destinations and routes use it.
    users: u32,
    /// When the last one let go of it.
    last_used: Nanos,
}

impl NextHops {
    /// Begins a generation; `moved`: it changes them in any case.
    pub(super) fn begin(&mut self, moved: bool) {
        self.moved = moved;
    }

    /// The number of the next hop to an address, which has one user more.
    pub(super) fn towards(&mut self, address: IpAddr, network: &Network, now: Nanos) -> u32 {
        let Some((port, address)) = network.route(address) else {
            return Destination::NO_ROUTE;
        };
        self.hold(port, address, network, now)
    }

    /// The number of the next hop to a neighbour on the link of a port, which has one user more.
    pub(super) fn hold(&mut self, port: u16, address: IpAddr, network: &Network, now: Nanos) -> u32 {
        let known = self.by_address.get(&(port, address)).copied();
        let number = known.unwrap_or_else(|| self.add(port, address, now));
        let entry = &mut self.entries[number as usize];
        entry.users += 1;
        if entry.users == 1 {
            self.unused.remove(&number);
            self.moved = true;
        }
        // The port may have got another MAC address or MTU since.
        if let Some(facts) = network.ports.get(usize::from(port)) {
            (entry.hop.source, entry.hop.mtu) = (facts.mac, facts.mtu);
        }
        number
    }

    fn add(&mut self, port: u16, address: IpAddr, now: Nanos) -> u32 {
        let hop = NextHop { address, port, mtu: 0, source: [0; 6], cell: Arc::new(NeighborCell::default()) };
        let entry = Entry { hop, users: 0, last_used: now };
        let rested = |entry: &Entry| now.0.saturating_sub(entry.last_used.0) >= REST.0;
        let number = match self.unused.iter().find(|number| rested(&self.entries[**number as usize])) {
            Some(&number) => {
                let old = std::mem::replace(&mut self.entries[number as usize], entry);
                self.by_address.remove(&(old.hop.port, old.hop.address));
                number
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.by_address.insert((port, address), number);
        number
    }

    /// A user less.
    pub(super) fn release(&mut self, number: u32, now: Nanos) {
        // None where no route led.
        let Some(entry) = self.entries.get_mut(number as usize) else { return };
        entry.users = entry.users.saturating_sub(1);
        if entry.users == 0 {
            entry.last_used = now;
            self.unused.insert(number);
            self.moved = true;
        }
    }

    /// They as they are now, for workers.
    pub(super) fn end(&mut self) -> Arc<[NextHop]> {
        if self.moved {
            self.published = self.entries.iter().map(|entry| entry.hop.clone()).collect();
        }
        self.published.clone()
    }

    /// The next hop of that number.
    pub(super) fn get(&self, number: u32) -> Option<&NextHop> {
        self.entries.get(number as usize).map(|entry| &entry.hop)
    }

    /// Those that a destination or a route uses.
    pub(super) fn used(&self) -> impl Iterator<Item = &NextHop> {
        self.entries.iter().filter(|entry| entry.users > 0).map(|entry| &entry.hop)
    }
}
