//! The configuration of a director in types that cannot be wrong.
//!
//! Values are made by [`super::validate`] only from text or from a request; whoever changes one keeps its rules by going
//! through there again. Nothing here knows where it came from.

pub mod dpdk;
pub mod policies;
pub mod rules;
mod tunnel;

use pointsman_dataplane::{policy::Policies, routing::Forwarding, scheduler::Kind};
use rules::{MarkRule, SourceNat};
use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
};
pub use tunnel::{Checksum, Tunnel};

/// The longest timeout and persistence of the originals, in seconds: 31 days.
pub const MAX_SECONDS: u32 = 2_678_400;

/// Everything that a director is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// What is fixed at start.
    pub start: Start,
    /// How long connections live without a packet.
    pub timeouts: Timeouts,
    /// In the order in which they were added. What a change leaves alone is shared by both configurations.
    pub services: Vec<Arc<Service>>,
    /// Virtual addresses that are up without a service.
    pub virtual_addresses: BTreeSet<IpAddr>,
    /// In order: the last one that fits a packet gives it its mark.
    pub marks: Vec<MarkRule>,
    /// In order: the first one that fits a packet is the packet's.
    pub source_nat: Vec<SourceNat>,
    /// Which packets are forwarded that no service takes.
    pub forwarding: Forwarding,
    /// The switches of the original.
    pub policies: Policies,
}

impl Configuration {
    /// The place of a service.
    pub fn position(&self, key: &ServiceKey) -> Option<usize> {
        self.services.iter().position(|service| service.key == *key)
    }

    /// Every address that is up: those of services, of marks and of source NAT, and those brought up alone.
    pub fn addresses_up(&self) -> BTreeSet<IpAddr> {
        let services = self.services.iter().filter_map(|service| service.key.address());
        let marks = self.marks.iter().filter_map(|rule| rule.destination?.single());
        let rules = marks.chain(self.source_nat.iter().map(|rule| rule.to));
        services.chain(rules).chain(self.virtual_addresses.iter().copied()).collect()
    }

    /// Servers of all services.
    pub fn server_count(&self) -> usize {
        self.services.iter().map(|service| service.servers.len()).sum()
    }

    /// All real servers, of one service after the other.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.services.iter().flat_map(|service| &service.servers)
    }
}

/// What a running director cannot change. What is not said is left to the director: empty or `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The NIC ports.
    pub ports: Vec<Port>,
    /// The cores that workers run on, one worker a core.
    pub cores: Vec<u32>,
    /// IPv4 connections that each worker's table holds.
    pub connections_ipv4: Option<NonZeroU64>,
    /// IPv6 connections that each worker's table holds.
    pub connections_ipv6: Option<NonZeroU64>,
    /// Where tables and buffers live.
    pub memory: Option<Memory>,
    /// How DPDK is started.
    pub dpdk: Option<dpdk::Dpdk>,
}

impl Start {
    /// IPv4 connections of each worker where nothing is said: 16 MiB of table.
    pub const CONNECTIONS_IPV4: u64 = 262_144;
    /// IPv6 connections of each worker where nothing is said: 8 MiB of table.
    pub const CONNECTIONS_IPV6: u64 = 65_536;
}

/// A NIC port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// As users name it.
    pub name: String,
    /// What moves its frames. All ports of a director have the same.
    pub driver: Driver,
    /// The interface, or what DPDK calls the device.
    pub device: String,
    /// What its workers do when nothing arrives.
    pub idle: Idle,
}

impl Port {
    /// The interface by which the kernel knows the port.
    pub fn interface(&self) -> &str {
        match self.driver {
            Driver::AfPacket(_) => &self.device,
            Driver::Dpdk(_) => &self.name,
        }
    }
}

/// What moves the frames of a port, with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Memory-mapped packet sockets on a Linux interface.
    AfPacket(ReceiveRing),
    /// A device that DPDK drives, past the kernel.
    Dpdk(dpdk::DpdkPort),
}

impl Driver {
    /// As configurations name it.
    pub fn name(&self) -> &'static str {
        match self {
            Driver::AfPacket(_) => "af_packet",
            Driver::Dpdk(_) => "dpdk",
        }
    }
}

/// What a worker does when nothing arrives, from the longest delay to the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Idle {
    /// Waits in the kernel after some empty polls.
    #[default]
    Sleep,
    /// Goes on polling for a while, then waits a little, and longer the longer nothing comes.
    Adaptive,
    /// Goes on polling: the least delay, and a whole core.
    Poll,
}

impl Idle {
    /// As configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            Idle::Sleep => "sleep",
            Idle::Adaptive => "adaptive",
            Idle::Poll => "poll",
        }
    }
}

/// How the kernel hands over received frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceiveRing {
    /// Each at once (TPACKET_V2).
    #[default]
    Frames,
    /// Many together, when a block is full or a millisecond has passed (TPACKET_V3).
    Blocks,
}

impl ReceiveRing {
    /// As configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            ReceiveRing::Frames => "frames",
            ReceiveRing::Blocks => "blocks",
        }
    }
}

/// Where tables and buffers live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Which pages.
    pub pages: Pages,
    /// The NUMA node; `None`: the worker's own, as the kernel sees it.
    pub numa_node: Option<u32>,
    /// Whether it must not be swapped out.
    pub lock: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self { pages: Pages::Auto, numa_node: None, lock: true }
    }
}

/// Which pages memory is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pages {
    /// Huge pages if there are any, else ordinary ones with a warning.
    #[default]
    Auto,
    /// 2 MiB pages or none.
    Huge2M,
    /// 1 GiB pages or none.
    Huge1G,
    /// Ordinary pages.
    Ordinary,
}

impl Pages {
    /// As configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            Pages::Auto => "auto",
            Pages::Huge2M => "2M",
            Pages::Huge1G => "1G",
            Pages::Ordinary => "ordinary",
        }
    }
}

/// Seconds that a connection lives without a packet, by its state: 1..=[`MAX_SECONDS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// ESTABLISHED, and one of `ipvsadm --set`.
    pub tcp_established: u32,
    /// SYN_SENT.
    pub tcp_syn_sent: u32,
    /// SYN_RECV.
    pub tcp_syn_received: u32,
    /// FIN_WAIT, and one of `ipvsadm --set`.
    pub tcp_fin_wait: u32,
    /// TIME_WAIT.
    pub tcp_time_wait: u32,
    /// CLOSE.
    pub tcp_close: u32,
    /// CLOSE_WAIT.
    pub tcp_close_wait: u32,
    /// LAST_ACK.
    pub tcp_last_ack: u32,
    /// LISTEN.
    pub tcp_listen: u32,
    /// SYNACK.
    pub tcp_syn_ack: u32,
    /// A UDP flow, and one of `ipvsadm --set`.
    pub udp: u32,
}

impl Default for Timeouts {
    /// Those of the original.
    fn default() -> Self {
        Self {
            tcp_established: 900,
            tcp_syn_sent: 120,
            tcp_syn_received: 60,
            tcp_fin_wait: 120,
            tcp_time_wait: 120,
            tcp_close: 10,
            tcp_close_wait: 60,
            tcp_last_ack: 30,
            tcp_listen: 120,
            tcp_syn_ack: 120,
            udp: 300,
        }
    }
}

/// A transport protocol of virtual services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// SCTP.
    Sctp = 132,
}

impl Protocol {
    /// As configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// What a virtual service is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceKey {
    /// Packets to an address.
    Address {
        /// Their protocol.
        protocol: Protocol,
        /// The virtual address.
        address: IpAddr,
        /// 0: every port.
        port: u16,
    },
    /// Packets with a firewall mark.
    Mark {
        /// The mark.
        mark: NonZeroU32,
        /// Whether it counts IPv6 packets instead of IPv4.
        ipv6: bool,
    },
}

impl ServiceKey {
    /// The virtual address; none for a mark.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            ServiceKey::Address { address, .. } => Some(*address),
            ServiceKey::Mark { .. } => None,
        }
    }

    /// Whether its clients use IPv6.
    pub fn is_ipv6(&self) -> bool {
        match self {
            ServiceKey::Address { address, .. } => address.is_ipv6(),
            ServiceKey::Mark { ipv6, .. } => *ipv6,
        }
    }

    /// The virtual port; 0 for every port and for a mark.
    pub fn port(&self) -> u16 {
        match self {
            ServiceKey::Address { port, .. } => *port,
            ServiceKey::Mark { .. } => 0,
        }
    }

    /// The order of `ipvsadm -L`: by mark (none first), family, protocol, address, port.
    pub fn listing_order(&self) -> impl Ord + use<> {
        match *self {
            ServiceKey::Address { protocol, address, port } => {
                (0, address.is_ipv6(), protocol as u8, Some(address), port)
            }
            ServiceKey::Mark { mark, ipv6 } => (mark.get(), ipv6, 0, None, 0),
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServiceKey::Address { protocol, address, port } => {
                write!(f, "{} {}", protocol.name(), SocketAddr::new(*address, *port))
            }
            ServiceKey::Mark { mark, ipv6 } => write!(f, "mark {mark}{}", if *ipv6 { " ipv6" } else { "" }),
        }
    }
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What it is known by.
    pub key: ServiceKey,
    /// How it picks servers.
    pub scheduler: Kind,
    /// How that is modified.
    pub flags: SchedulerFlags,
    /// Whether a client stays with its server.
    pub persistence: Option<Persistence>,
    /// What tells clients apart besides their address.
    pub engine: Option<Engine>,
    /// Whether each datagram is scheduled.
    pub one_packet: bool,
    /// How long its connections live, where that is not as all others'.
    pub timeouts: ServiceTimeouts,
    /// In the order in which they were added.
    pub servers: Vec<Server>,
}

impl Service {
    /// The place of a server.
    pub fn position(&self, address: IpAddr, port: u16) -> Option<usize> {
        self.servers.iter().position(|server| (server.address, server.port) == (address, port))
    }

    /// The names of its scheduler's flags, as `ipvsadm -b` takes them.
    pub fn flag_names(&self) -> Vec<&'static str> {
        self.flags.names(self.scheduler)
    }
}

/// Seconds that the connections of one service live without a packet: 1..=[`MAX_SECONDS`]; `None`: as all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTimeouts {
    /// ESTABLISHED.
    pub tcp: Option<NonZeroU32>,
    /// FIN_WAIT.
    pub tcp_fin: Option<NonZeroU32>,
    /// A UDP flow.
    pub udp: Option<NonZeroU32>,
}

/// Flags of a scheduler: three bits, whose meaning is the scheduler's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerFlags(u8);

impl SchedulerFlags {
    const NAMES: [(&'static str, Option<&'static str>, u8); 7] = [
        ("sh-fallback", Some("sh"), 1),
        ("sh-port", Some("sh"), 2),
        ("mh-fallback", Some("mh"), 1),
        ("mh-port", Some("mh"), 2),
        ("flag-1", None, 1),
        ("flag-2", None, 2),
        ("flag-3", None, 4),
    ];

    /// Adds a flag by its name; false if `scheduler` has none of that name.
    pub fn set(&mut self, scheduler: Kind, name: &str) -> bool {
        let known = |(flag, of, _): &&(&str, Option<&str>, u8)| {
            *flag == name && of.is_none_or(|of| of == scheduler.name())
        };
        match Self::NAMES.iter().find(known) {
            Some((_, _, bit)) => self.0 |= bit,
            None => return false,
        }
        true
    }

    /// The names of the flags that are set, the scheduler's own where it has some.
    pub fn names(self, scheduler: Kind) -> Vec<&'static str> {
        let name = |bit: u8| {
            let fits = |(_, of, b): &&(&str, Option<&str>, u8)| {
                *b == bit && of.is_none_or(|of| of == scheduler.name())
            };
            Self::NAMES.iter().find(fits).map(|(name, _, _)| *name)
        };
        [1, 2, 4].into_iter().filter(|bit| self.0 & bit != 0).filter_map(name).collect()
    }

    /// Whether `sh-fallback` or `mh-fallback` is set.
    pub fn fallback(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether `sh-port` or `mh-port` is set.
    pub fn port(self) -> bool {
        self.0 & 2 != 0
    }

    /// Whether none is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A client stays with its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// For this long after its last new connection: 1..=[`MAX_SECONDS`].
    pub seconds: NonZeroU32,
    /// Bits of the address that make a client: 0..=32, or 1..=128.
    pub prefix: u8,
}

/// What tells clients apart besides their address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The Call-ID of SIP.
    Sip,
}

impl Engine {
    /// As configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Sip => "sip",
        }
    }
}

/// A real server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// RIP.
    pub address: IpAddr,
    /// Its transport port: the service's for direct routing and tunnels.
    pub port: u16,
    /// How packets reach it.
    pub method: Method,
    /// Its share; 0 quiesces it.
    pub weight: Weight,
    /// Connections at which it gets no new ones; 0: never.
    pub upper_threshold: u32,
    /// Connections below which it gets new ones again; at most `upper_threshold`.
    pub lower_threshold: u32,
}

impl Server {
    /// Address and port in one word.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// A server's share: 0..=2³¹-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight(u32);

impl Weight {
    /// The largest.
    pub const MAX: u32 = i32::MAX as u32;

    /// `None` above [`Weight::MAX`].
    pub fn new(weight: u32) -> Option<Self> {
        (weight <= Self::MAX).then_some(Self(weight))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// How packets reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Direct routing.
    Direct,
    /// Network address translation.
    Nat,
    /// A tunnel.
    Tunnel(Tunnel),
    /// The director itself.
    Local,
}

impl Method {
    /// As configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Direct => "direct",
            Method::Nat => "nat",
            Method::Tunnel(_) => "tunnel",
            Method::Local => "local",
        }
    }
}
