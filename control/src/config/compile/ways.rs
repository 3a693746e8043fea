//! Where packets go that no service takes, compiled. While neither routes nor NATed servers change, workers keep what they
//! have.

use super::super::next_hops::NextHops;
use crate::kernel::Network;
use pointsman_dataplane::{
    index::{Addresses, Services},
    prefix::Prefix,
    routing::{Forwarding, Routes, Routing, SourceNat, Way},
    snapshot::ServiceKey,
    time::Nanos,
};
use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

/// The routes of the director and who may use them.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// The next hops of all routers.
    routers: Vec<u32>,
    /// NATed servers, with how often they are servers; of a mark's services those of protocol 0.
    servers: HashMap<ServiceKey, u32>,
    /// Those that have come since the last generation.
    come: Vec<ServiceKey>,
    /// Whether one has gone.
    gone: bool,
    /// As it was published last.
    published: Arc<Routing>,
}

impl Ways {
    /// Takes over the routes of a network. Returns the next hops of the routers before, each to be released.
    pub(super) fn reroute(&mut self, network: &Network, hops: &mut NextHops, now: Nanos) -> Vec<u32> {
        // The same order as that of `Network::route`: of routes alike the last.
        let mut sorted: Vec<_> = network.routes.iter().rev().collect();
        sorted.sort_by_key(|route| (Reverse(route.prefix), route.metric));
        let mut known = HashSet::new();
        let mut routers: HashMap<(u16, IpAddr), u32> = HashMap::new();
        let mut ways = Vec::with_capacity(sorted.len());
        for route in sorted {
            let prefix = Prefix::new(route.network, route.prefix);
            if !known.insert(prefix) {
                continue;
            }
            let way = match route.gateway {
                Some(gateway) => {
                    let held = routers.entry((route.port, gateway));
                    Way::Router(*held.or_insert_with(|| hops.hold(route.port, gateway, network, now)))
                }
                None => Way::Link(route.port),
            };
            ways.push((prefix, way));
        }
        self.published = Arc::new(Routing { routes: Routes::new(ways), ..(*self.published).clone() });
        std::mem::replace(&mut self.routers, routers.into_values().collect())
    }

    /// NATed servers have come.
    pub(super) fn add(&mut self, servers: &[ServiceKey]) {
        for server in servers {
            let times = self.servers.entry(*server).or_default();
            *times += 1;
            if *times == 1 {
                self.come.push(*server);
            }
        }
    }

    /// NATed servers have gone: to be said after what has come, so that one that stays does both.
    pub(super) fn release(&mut self, servers: &[ServiceKey]) {
        for server in servers {
            let Some(times) = self.servers.get_mut(server) else { continue };
            *times -= 1;
            if *times == 0 {
                self.servers.remove(server);
                self.gone = true;
            }
        }
    }

    /// All of it, as workers run it from this generation on.
    pub(super) fn end(&mut self, forwarding: Forwarding, source_nat: Vec<SourceNat>) -> Arc<Routing> {
        let come = std::mem::take(&mut self.come);
        let gone = std::mem::take(&mut self.gone);
        let published = &self.published;
        let same = (published.forwarding, &*published.source_nat) == (forwarding, &*source_nat);
        if gone || !come.is_empty() || !same {
            let (mut servers, mut real_services) = match gone {
                true => (Addresses::default(), Services::default()),
                false => (published.servers.clone(), published.real_services.clone()),
            };
            let new: &mut dyn Iterator<Item = ServiceKey> =
                if gone { &mut self.servers.keys().copied() } else { &mut come.into_iter() };
            for server in new {
                servers.insert(server.address);
                real_services.insert(server, 0);
            }
            let routes = published.routes.clone();
            let source_nat = source_nat.into();
            self.published = Arc::new(Routing { routes, forwarding, servers, real_services, source_nat });
        }
        self.published.clone()
    }
}
