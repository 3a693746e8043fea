//! Where packets go that are not load-balanced: the director's routes, compiled, and who may use them.
//!
//! NAT needs the director as the servers' gateway: their answers pass it, and so does what they send for themselves.

use crate::{
    index::{Addresses, Services},
    prefix::Prefix,
};
use hashbrown::HashMap;
use std::net::IpAddr;

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To a router: the next hop of that number in [`crate::snapshot::Snapshot::next_hops`].
    Router(u32),
    /// To stations on the link of the port of that number.
    Link(u16),
}

/// Routes, of which the longest that contains an address is the address's.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// By length of the prefix, the longest first; then by the prefix.
    lengths: Vec<(u8, HashMap<Prefix, Way>)>,
}

impl Routes {
    /// Of these routes; of two with the same prefix the first counts.
    pub fn new(routes: impl IntoIterator<Item = (Prefix, Way)>) -> Self {
        let mut all = Self::default();
        for (prefix, way) in routes {
            let at = all.lengths.iter().position(|(len, _)| *len == prefix.len());
            let at = at.unwrap_or_else(|| {
                all.lengths.push((prefix.len(), HashMap::new()));
                all.lengths.len() - 1
            });
            all.lengths[at].1.entry(prefix).or_insert(way);
        }
        all.lengths.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
        all
    }

    /// The way to an address; `None` if no route leads there.
    pub fn find(&self, address: IpAddr) -> Option<Way> {
        let most = if address.is_ipv6() { 128 } else { 32 };
        let fitting = self.lengths.iter().filter(|(len, _)| *len <= most);
        fitting.filter_map(|(len, routes)| routes.get(&Prefix::new(address, *len))).copied().next()
    }
}

/// Which packets are routed that no service takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// None: all are left to the host.
    Off,
    /// Those from and to NATed servers, and those of networks with source NAT.
    #[default]
    Servers,
    /// All, as a router does.
    All,
}

/// Which packets leave from another address than their sender's (the `SNAT` of iptables).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceNat {
    /// Whose.
    pub source: Prefix,
    /// Only those that leave by the port of this number.
    pub port: Option<u16>,
    /// The address that they leave from: the director's alone, which answers for it.
    pub address: IpAddr,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// By address.
    pub routes: Routes,
    /// Which packets may use them.
    pub forwarding: Forwarding,
    /// The addresses of NATed servers, and of those that were and may have connections by NAT.
    pub servers: Addresses,
    /// Protocol, address and port of them; the protocol of those of marks is 0.
    pub real_services: Services,
    /// In order: the first that fits a packet is the packet's.
    pub source_nat: Box<[SourceNat]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str, len: u8) -> Prefix {
        Prefix::new(text.parse().unwrap(), len)
    }

    #[test]
    fn the_longest_prefix_wins_in_each_family() {
        let routes = Routes::new([
            (prefix("0.0.0.0", 0), Way::Router(0)),
            (prefix("10.0.0.0", 8), Way::Router(1)),
            (prefix("10.0.0.0", 24), Way::Link(0)),
            (prefix("10.0.0.0", 24), Way::Link(9)),
            (prefix("fd00::", 8), Way::Router(2)),
            (prefix("fd00:50::", 64), Way::Link(1)),
        ]);
        let find = |text: &str| routes.find(text.parse().unwrap());
        assert_eq!(find("10.0.0.7"), Some(Way::Link(0)));
        assert_eq!(find("10.0.1.7"), Some(Way::Router(1)));
        assert_eq!(find("192.0.2.1"), Some(Way::Router(0)));
        assert_eq!(find("fd00:50::9"), Some(Way::Link(1)));
        assert_eq!(find("fd00:51::9"), Some(Way::Router(2)));
        assert_eq!(find("2001:db8::1"), None);
    }
}
