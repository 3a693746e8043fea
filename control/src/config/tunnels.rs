//! How packets to tunnelled servers are wrapped, compiled. What was learned of a path outlives a change.

use super::model;
use crate::kernel::Network;
use hashbrown::{HashMap, HashSet};
use pointsman_dataplane::snapshot::{Destination, Encapsulation, PathMtu, Tunnel};
use std::{net::IpAddr, sync::Arc};

/// The paths of all tunnels.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    /// By the address at their end.
    paths: HashMap<IpAddr, Arc<PathMtu>>,
    /// As they were published last.
    published: Arc<HashMap<IpAddr, Arc<PathMtu>>>,
}

impl Tunnels {
    /// The tunnel to a server: the known one, if it is the same. `None` without an address of ours on the way there.
    pub(super) fn to(
        &mut self,
        server: IpAddr,
        encapsulation: Encapsulation,
        network: &Network,
        known: Option<&Arc<Tunnel>>,
    ) -> Option<Arc<Tunnel>> {
        let (port, next) = network.route(server)?;
        let source = network.source(port, next)?;
        let path = self.paths.entry(server).or_default();
        let same = |known: &&Arc<Tunnel>| (known.encapsulation, known.source) == (encapsulation, source);
        let new = || Arc::new(Tunnel::new(encapsulation, (source, server), path.clone()));
        Some(known.filter(same).cloned().unwrap_or_else(new))
    }

    /// Forgets the paths that lead to none of these any more.
    pub(super) fn keep(&mut self, destinations: &[Destination]) {
        if self.paths.is_empty() && self.published.is_empty() {
            return;
        }
        let tunnelled = destinations.iter().filter(|destination| destination.tunnel.is_some());
        let ends: HashSet<IpAddr> = tunnelled.map(|destination| destination.address).collect();
        self.paths.retain(|address, _| ends.contains(address));
        if self.published.len() != self.paths.len() || !self.published.keys().all(|end| ends.contains(end)) {
            self.published = Arc::new(self.paths.clone());
        }
    }

    /// The paths, as workers look them up.
    pub(super) fn paths(&self) -> Arc<HashMap<IpAddr, Arc<PathMtu>>> {
        self.published.clone()
    }
}

/// As workers know a kind of tunnel.
pub(super) fn encapsulation(kind: model::Tunnel) -> Encapsulation {
    match kind {
        model::Tunnel::Ipip => Encapsulation::Ipip,
        // Remote checksum offload is for segments whose checksum the sender left to its NIC: those that pass a director have
        // theirs, and need none of the tunnel's.
        model::Tunnel::Gue { port, checksum } => {
            Encapsulation::Gue { port: port.get(), checksum: checksum == model::Checksum::On }
        }
        model::Tunnel::Gre { checksum } => Encapsulation::Gre { checksum },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{compile::Compiler, read, slots::Moment},
        kernel::testing,
    };
    use pointsman_dataplane::time::Nanos;
    use std::path::Path;

    const SERVICE: &str =
        "[[service]]\naddress = \"10.0.0.100\"\nport = 80\n[[service.server]]\naddress = \"192.168.9.9\"\n";
    const END: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 9, 9));

    fn at(generation: u64) -> Moment {
        Moment { now: Nanos::from_secs(generation), generation, seen: generation - 1 }
    }

    #[test]
    fn a_tunnel_begins_at_the_address_in_the_subnet_of_the_way_and_keeps_what_it_learned() {
        let mut compiler = Compiler::default();
        // 10.0.0.1/24 and fd00::1/64, with a default route by 10.0.0.254.
        let network = testing::network();
        let with = |server: &str| read(Path::new("test.toml"), &format!("{SERVICE}{server}")).unwrap();
        let tunnelled =
            |kind: &str, weight: u32| with(&format!("method = \"tunnel\"\nweight = {weight}\n{kind}"));
        let gue = "tunnel = { kind = \"gue\", port = 6080, checksum = \"on\" }\n";
        let first = compiler.compile(&tunnelled("", 1), &network, at(1));
        let tunnel = first.destinations[0].tunnel.clone().unwrap();
        assert_eq!((tunnel.encapsulation, tunnel.source), (Encapsulation::Ipip, [10, 0, 0, 1].into()));
        assert!(Arc::ptr_eq(&first.paths[&END], &tunnel.path));
        let second = compiler.compile(&tunnelled("", 2), &network, at(2));
        assert!(Arc::ptr_eq(second.destinations[0].tunnel.as_ref().unwrap(), &tunnel));
        let third = compiler.compile(&tunnelled(gue, 2), &network, at(3));
        let other = third.destinations[0].tunnel.clone().unwrap();
        assert_eq!(other.encapsulation, Encapsulation::Gue { port: 6080, checksum: true });
        assert!(Arc::ptr_eq(&other.path, &tunnel.path), "it is the same path");
        // Kept for the connections that it has, and for those that workers make until they know of the change.
        let direct = compiler.compile(&with(""), &network, at(4));
        assert!(Arc::ptr_eq(direct.destinations[0].tunnel.as_ref().unwrap(), &other));
        direct.destinations[0].shared.connected(true);
        let later = compiler.compile(&with("weight = 2"), &network, at(5));
        assert!(Arc::ptr_eq(later.destinations[0].tunnel.as_ref().unwrap(), &other));
        assert!(later.paths.contains_key(&END));
        // A way that is lost for a while comes back.
        let mut cut = network.clone();
        cut.routes.clear();
        assert!(compiler.compile(&with("weight = 2"), &cut, at(6)).destinations[0].tunnel.is_none());
        let again = compiler.compile(&with("weight = 2"), &network, at(7));
        assert_eq!(again.destinations[0].tunnel.as_ref().unwrap().encapsulation, other.encapsulation);
        direct.destinations[0].shared.disconnected(true);
        let direct = compiler.compile(&with("weight = 3"), &network, at(8));
        assert!(direct.destinations[0].tunnel.is_none() && direct.paths.is_empty());
        // No address of its family on the way: no way.
        let mut without = network.clone();
        without.ports[0].addresses.retain(|(address, _)| address.is_ipv6());
        compiler.compile(&tunnelled("", 1), &without, at(9));
        let lost = compiler.compile(&tunnelled("", 2), &without, at(10));
        assert_eq!(
            (lost.destinations[0].tunnel.is_none(), lost.destinations[0].next_hop),
            (true, Destination::NO_ROUTE)
        );
    }
}
