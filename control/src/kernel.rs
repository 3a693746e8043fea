//! What the kernel knows of the ports: their links, addresses and routes, read by rtnetlink. Nothing is ever changed but
//! what `setup.rs` does to the interfaces that the director makes itself.

pub mod ingress;
pub mod setup;

use pointsman_dataplane::snapshot::PortFacts;
use rtnetlink::packet_route::{
    address::AddressAttribute,
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia},
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;

/// The ports of the director as the kernel sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// By port number.
    pub ports: Vec<PortNetwork>,
    /// Routes out of these ports.
    pub routes: Vec<Route>,
    /// Routes out of other interfaces.
    pub elsewhere: Vec<Elsewhere>,
    /// Addresses of all interfaces, those that are no ports included.
    pub host_addresses: Vec<IpAddr>,
    /// Whether the kernel forwards IPv4 packets by itself.
    pub forwards_ipv4: bool,
    /// Whether it forwards IPv6 packets.
    pub forwards_ipv6: bool,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortNetwork {
    /// As users name it.
    pub name: String,
    /// The interface.
    pub device: String,
    /// Its number in the kernel.
    pub index: u32,
    /// Its address.
    pub mac: [u8; 6],
    /// Bytes of the largest IP packet.
    pub mtu: u16,
    /// Whether it is set up.
    pub up: bool,
    /// Whether it has a link.
    pub carrier: bool,
    /// Its addresses and the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl PortNetwork {
    /// What workers need to know.
    pub fn facts(&self) -> PortFacts {
        let own = || self.addresses.iter().map(|(address, _)| *address);
        PortFacts {
            name: self.name.clone(),
            mac: self.mac,
            mtu: self.mtu,
            ipv4: own().find_map(|address| match address {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            }),
            ipv6: own().find_map(|address| match address {
                IpAddr::V6(v6) if !v6.is_unicast_link_local() => Some(v6),
                _ => None,
            }),
        }
    }
}

/// A route out of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub network: IpAddr,
    /// Bits of `network` that count.
    pub prefix: u8,
    /// Through which router; `None`: straight.
    pub gateway: Option<IpAddr>,
    /// By which port.
    pub port: u16,
    /// The lower one goes first.
    pub metric: u32,
}

/// A route out of an interface that is no port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Where to.
    pub network: IpAddr,
    /// Bits of `network` that count.
    pub prefix: u8,
    /// The interface.
    pub device: String,
}

/// How a packet to an address leaves this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves<'a> {
    /// By a port, to an address on its link: its own, or a router's.
    Port(u16, IpAddr),
    /// By an interface that is no port.
    Elsewhere(&'a str),
    /// No route leads there.
    Nowhere,
}

/// Why the kernel could not be asked, or what it said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}; this kernel or its seccomp filter lacks NETLINK_ROUTE")]
    Socket(io::Error),
    /// The kernel refused.
    #[error("cannot read interfaces, addresses and routes by netlink: {0}")]
    Read(#[from] rtnetlink::Error),
    /// An interface that is not there.
    #[error(
        "no interface is named \"{device}\"; there are {there}: choose one of them, or create it (`ip link`)"
    )]
    NoDevice {
        /// As it was asked for.
        device: String,
        /// Those that are there.
        there: String,
    },
    /// An interface that carries no Ethernet frames.
    #[error("the interface {0} has no MAC address: choose an Ethernet interface")]
    NoMac(String),
    /// An interface that is set down.
    #[error("the interface {0} is down; bring it up with `ip link set {0} up`")]
    Down(String),
}

impl Network {
    /// Reads what the kernel knows of ports, given as name and device.
    pub async fn read(ports: &[(String, String)]) -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
        let task = Abort(tokio::spawn(connection));
        let network = Self::read_with(&handle, ports).await;
        drop(task);
        network
    }

    async fn read_with(handle: &Handle, ports: &[(String, String)]) -> Result<Self, Error> {
        let links = collect(handle.link().get().execute()).await?;
        let mut network = Network {
            forwards_ipv4: is_set("/proc/sys/net/ipv4/ip_forward"),
            forwards_ipv6: is_set("/proc/sys/net/ipv6/conf/all/forwarding"),
            ..Default::default()
        };
        for (name, device) in ports {
            network.ports.push(port(name, device, &links)?);
        }
        for message in collect(handle.address().get().execute()).await? {
            let Some(address) = address(&message.attributes) else {
                continue;
            };
            network.host_addresses.push(address);
            let owner = network.ports.iter_mut().find(|port| port.index == message.header.index);
            if let Some(port) = owner {
                port.addresses.push((address, message.header.prefix_len));
            }
        }
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for family in [v4, v6] {
            let messages = collect(handle.route().get(family).execute()).await?;
            for message in &messages {
                match route(message, &network.ports) {
                    Some((route, Some(port))) => network.routes.push(Route { port, ..route }),
                    Some((Route { network: to, prefix, .. }, None)) => {
                        let device = out(message).and_then(|index| {
                            links.iter().find(|link| link.header.index == index).and_then(link_name)
                        });
                        let device = device.unwrap_or_default().to_owned();
                        network.elsewhere.push(Elsewhere { network: to, prefix, device });
                    }
                    None => {}
                }
            }
        }
        Ok(network)
    }

    /// The same without some of its ports, whose interfaces are gone.
    pub fn without(&self, gone: impl Fn(&PortNetwork) -> bool) -> Self {
        let mut network = self.clone();
        for (number, port) in (0u16..).zip(&mut network.ports) {
            if gone(port) {
                (port.up, port.carrier) = (false, false);
                port.addresses.clear();
                network.routes.retain(|route| route.port != number);
            }
        }
        network
    }

    /// The number of the port that users name so.
    pub fn number(&self, name: &str) -> Option<u16> {
        (0..).zip(&self.ports).find(|(_, port)| port.name == name).map(|(number, _)| number)
    }

    /// By which port, and to which address on its link, a packet to `address` goes; `None` if it leaves by none.
    pub fn route(&self, address: IpAddr) -> Option<(u16, IpAddr)> {
        match self.leaves(address) {
            Leaves::Port(port, next) => Some((port, next)),
            Leaves::Elsewhere(_) | Leaves::Nowhere => None,
        }
    }

    /// Whether it differs from another one in nothing but routes out of other interfaces, and packets to these addresses leave
    /// as they did.
    pub fn leads_alike(&self, other: &Self, addresses: impl Iterator<Item = IpAddr>) -> bool {
        let routes =
            (&self.routes, &self.ports, &self.host_addresses, self.forwards_ipv4, self.forwards_ipv6);
        let others =
            (&other.routes, &other.ports, &other.host_addresses, other.forwards_ipv4, other.forwards_ipv6);
        let mut addresses = addresses;
        routes == others && addresses.all(|address| self.leaves(address) == other.leaves(address))
    }

    /// How a packet to `address` leaves. The longest prefix wins, then a port, then the lowest metric.
    pub fn leaves(&self, address: IpAddr) -> Leaves<'_> {
        let fits = |network, prefix| contains(network, prefix, address);
        let best = |route: &&Route| (route.prefix, std::cmp::Reverse(route.metric));
        let route = self.routes.iter().filter(|route| fits(route.network, route.prefix)).max_by_key(best);
        let other = self.elsewhere.iter().filter(|other| fits(other.network, other.prefix));
        // A default route of another interface says nothing about the address.
        let other = other.max_by_key(|other| other.prefix).filter(|other| other.prefix > 0);
        match (route, other) {
            (route, Some(other)) if route.is_none_or(|route| route.prefix < other.prefix) => {
                Leaves::Elsewhere(&other.device)
            }
            (Some(route), _) => Leaves::Port(route.port, route.gateway.unwrap_or(address)),
            (None, _) => Leaves::Nowhere,
        }
    }

    /// The address of ours that a packet has which leaves by a port towards `next`, a neighbour there: the one in its
    /// subnet, else the port's first that is not link-local.
    pub fn source(&self, port: u16, next: IpAddr) -> Option<IpAddr> {
        let own = &self.ports.get(usize::from(port))?.addresses;
        let local = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let usable = |address: &IpAddr| address.is_ipv6() == next.is_ipv6() && !local(address);
        let first = || own.iter().map(|(address, _)| *address).find(usable);
        near(own, next).filter(usable).or_else(first)
    }

    /// The ports whose subnets contain an address; all ports if none does.
    pub fn ports_towards(&self, address: IpAddr) -> Vec<u16> {
        let on = |port: &PortNetwork| near(&port.addresses, address).is_some();
        let numbered = || (0u16..).zip(&self.ports);
        let some: Vec<u16> = numbered().filter(|(_, port)| on(port)).map(|(number, _)| number).collect();
        if some.is_empty() { numbered().map(|(number, _)| number).collect() } else { some }
    }
}

/// The names of all interfaces that there are.
pub async fn interfaces() -> Result<Vec<String>, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
    let _task = Abort(tokio::spawn(connection));
    let links = collect(handle.link().get().execute()).await?;
    Ok(links.iter().filter_map(link_name).map(str::to_owned).collect())
}

/// The addresses of all interfaces.
pub async fn addresses() -> Result<Vec<IpAddr>, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
    let _task = Abort(tokio::spawn(connection));
    let messages = collect(handle.address().get().execute()).await?;
    Ok(messages.iter().filter_map(|message| address(&message.attributes)).collect())
}

/// The first of our addresses, given with the lengths of their prefixes, in whose subnet `address` is.
pub fn near(own: &[(IpAddr, u8)], address: IpAddr) -> Option<IpAddr> {
    own.iter().find(|(own, len)| contains(*own, *len, address)).map(|(own, _)| *own)
}

/// Whether the first `len` bits of two addresses are the same.
pub fn contains(network: IpAddr, len: u8, address: IpAddr) -> bool {
    let differing = match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    differing >= u32::from(len)
}

/// Tells when links, addresses or routes have changed.
pub struct Monitor {
    messages: Box<dyn tokio_stream::Stream<Item = ()> + Send + Unpin>,
    _connection: Abort,
}

impl Monitor {
    /// Begins to listen.
    pub fn new() -> Result<Self, Error> {
        use MulticastGroup::{Ipv4Ifaddr, Ipv4Route, Ipv6Ifaddr, Ipv6Route, Link};
        let groups = [Link, Ipv4Ifaddr, Ipv4Route, Ipv6Ifaddr, Ipv6Route];
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(Error::Socket)?;
        let connection = Abort(tokio::spawn(connection));
        Ok(Self { messages: Box::new(messages.map(|_| ())), _connection: connection })
    }

    /// Waits for the next change; false if there will be none.
    pub async fn changed(&mut self) -> bool {
        self.messages.next().await.is_some()
    }
}

/// Ends a task when it is dropped.
#[derive(Debug)]
struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn collect<T>(
    messages: impl tokio_stream::Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, Error> {
    let mut messages = std::pin::pin!(messages);
    let mut all = Vec::new();
    while let Some(message) = messages.next().await {
        all.push(message?);
    }
    Ok(all)
}

fn link_name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn port(name: &str, device: &str, links: &[LinkMessage]) -> Result<PortNetwork, Error> {
    let Some(link) = links.iter().find(|link| link_name(link) == Some(device)) else {
        let there: Vec<&str> = links.iter().filter_map(link_name).collect();
        return Err(Error::NoDevice { device: device.to_owned(), there: there.join(", ") });
    };
    let mut port = PortNetwork {
        name: name.to_owned(),
        device: device.to_owned(),
        index: link.header.index,
        up: link.header.flags.contains(LinkFlags::Up),
        carrier: link.header.flags.contains(LinkFlags::LowerUp),
        ..Default::default()
    };
    let mut mac = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            // What is larger than a packet can be counts as the largest packet.
            LinkAttribute::Mtu(mtu) => port.mtu = u16::try_from(*mtu).unwrap_or(u16::MAX),
            _ => {}
        }
    }
    port.mac = mac.ok_or_else(|| Error::NoMac(device.to_owned()))?;
    Ok(port)
}

fn address(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    // On a point-to-point link `Address` is the other side; `Local`, where there is one, is ours.
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// The interface that a route leads out of; of several the first.
fn out(message: &RouteMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        RouteAttribute::MultiPath(ways) => ways.first().map(|way| way.interface_index),
        _ => None,
    })
}

/// A unicast route of the main table, and the port that it leads out of, if it does.
fn route(message: &RouteMessage, ports: &[PortNetwork]) -> Option<(Route, Option<u16>)> {
    let mut table = u32::from(message.header.table);
    let mut network = None;
    let mut gateway = None;
    let mut metric = 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => network = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(via) => gateway = via_ip(via),
            RouteAttribute::Priority(number) => metric = *number,
            // Of several ways the first.
            RouteAttribute::MultiPath(ways) => {
                let way = ways.first()?;
                gateway = way.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Gateway(address) => ip(address),
                    RouteAttribute::Via(via) => via_ip(via),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    if message.header.kind != RouteType::Unicast || table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let any = match message.header.address_family {
        rtnetlink::packet_route::AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let device = out(message)?;
    let port = (0u16..).zip(ports).find(|(_, port)| port.index == device).map(|(number, _)| number);
    let network = network.unwrap_or(any);
    let prefix = message.header.destination_prefix_length;
    Some((Route { network, prefix, gateway, port: port.unwrap_or_default(), metric }, port))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn via_ip(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(address) => Some((*address).into()),
        RouteVia::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Whether a switch of the kernel is on; where it cannot be read the kernel lacks what it switches.
fn is_set(path: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}

/// A network for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// One port, `eth0`, 10.0.0.1/24 and fd00::1/64, with default routes by 10.0.0.254 and fd00::fe.
    pub(crate) fn network() -> Network {
        let route = |network: &str, prefix, gateway: Option<&str>| Route {
            network: network.parse().unwrap(),
            prefix,
            gateway: gateway.map(|text| text.parse().unwrap()),
            port: 0,
            metric: 0,
        };
        let addresses = vec![("10.0.0.1".parse().unwrap(), 24), ("fd00::1".parse().unwrap(), 64)];
        let port = PortNetwork {
            name: "eth0".into(),
            device: "eth0".into(),
            index: 2,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1_500,
            up: true,
            carrier: true,
            addresses: addresses.clone(),
        };
        Network {
            ports: vec![port],
            routes: vec![
                route("0.0.0.0", 0, Some("10.0.0.254")),
                route("10.0.0.0", 24, None),
                route("::", 0, Some("fd00::fe")),
                route("fd00::", 64, None),
            ],
            host_addresses: addresses.into_iter().map(|(address, _)| address).collect(),
            ..Network::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_prefix_out_of_another_interface_is_no_way_of_a_port() {
        let mut network = testing::network();
        let elsewhere =
            |to: &str, prefix| Elsewhere { network: to.parse().unwrap(), prefix, device: "eth1".into() };
        network.elsewhere =
            vec![elsewhere("10.10.0.0", 16), elsewhere("10.0.0.0", 24), elsewhere("0.0.0.0", 0)];
        let leaves = |address: &str| network.leaves(address.parse().unwrap());
        assert_eq!(leaves("10.10.10.12"), Leaves::Elsewhere("eth1"));
        assert_eq!(way(&network, "10.10.10.12"), None);
        // Of two that are alike the port's is taken.
        assert_eq!(leaves("10.0.0.12"), Leaves::Port(0, [10, 0, 0, 12].into()));
        assert_eq!(leaves("192.0.2.1"), Leaves::Port(0, [10, 0, 0, 254].into()));
        network.routes.clear();
        let leaves = |address: &str| network.leaves(address.parse().unwrap());
        assert_eq!((leaves("192.0.2.1"), leaves("fd00::9")), (Leaves::Nowhere, Leaves::Nowhere));
    }

    fn way(network: &Network, address: &str) -> Option<(u16, String)> {
        network.route(address.parse().unwrap()).map(|(port, hop)| (port, hop.to_string()))
    }

    #[test]
    fn the_longest_prefix_wins_then_the_lowest_metric() {
        let mut network = testing::network();
        assert_eq!(way(&network, "10.0.0.9"), Some((0, "10.0.0.9".into())));
        assert_eq!(way(&network, "10.0.1.9"), Some((0, "10.0.0.254".into())));
        assert_eq!(way(&network, "fd00::9"), Some((0, "fd00::9".into())));
        assert_eq!(way(&network, "fd01::9"), Some((0, "fd00::fe".into())));
        let gateway = |text: &str| Some(text.parse().unwrap());
        let to = "10.0.1.0".parse().unwrap();
        network.routes.push(Route {
            network: to,
            prefix: 24,
            gateway: gateway("10.0.0.7"),
            port: 1,
            metric: 9,
        });
        network.routes.push(Route {
            network: to,
            prefix: 24,
            gateway: gateway("10.0.0.8"),
            port: 2,
            metric: 8,
        });
        assert_eq!(way(&network, "10.0.1.9"), Some((2, "10.0.0.8".into())));
        network.routes.clear();
        assert_eq!(way(&network, "10.0.0.9"), None);
    }

    #[test]
    fn a_virtual_address_is_announced_where_its_subnet_is_or_everywhere() {
        let mut network = testing::network();
        let other =
            PortNetwork { addresses: vec![("172.16.0.1".parse().unwrap(), 16)], ..network.ports[0].clone() };
        network.ports.push(other);
        let ports = |text: &str| network.ports_towards(text.parse().unwrap());
        assert_eq!(ports("10.0.0.100"), [0]);
        assert_eq!(ports("172.16.9.9"), [1]);
        assert_eq!(ports("8.8.8.8"), [0, 1]);
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_is_named_with_those_that_are() {
        let error = Network::read(&[("p".into(), "nosuch0".into())]).await.unwrap_err().to_string();
        assert!(error.starts_with("no interface is named \"nosuch0\"; there are lo"), "{error}");
    }

    #[tokio::test]
    async fn the_addresses_of_the_host_are_read() {
        let network = Network::read(&[("lo".into(), "lo".into())]).await.unwrap();
        assert_eq!(network.ports[0].index, 1);
        assert!(network.host_addresses.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
