//! The compiled configuration that workers run: dense arrays, immutable, one for each generation.
//!
//! The control plane compiles it; [`crate::publish`] hands it over. What must outlive a change (the connection counts of
//! a destination, the place of a scheduler, the address of a neighbour) hangs on it by `Arc` and is carried from one
//! snapshot into the next. Connections name destinations by slot and generation, never by pointer.

use crate::{
    app::expected::Expectations,
    conn::template::Templates,
    forward::{nat::Ends, tunnel::Template},
    fragments::tracker::Fragments,
    index,
    mark::Marks,
    on_link::OnLink,
    policy::Policies,
    routing::{Routing, Way},
    scheduler::Scheduler,
    stats::DestinationShared,
    time::{Nanos, Ticks},
    verdict::DropReason,
};
use hashbrown::HashMap;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
};

/// Everything that a worker needs to know about one generation of the configuration.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows by one with each change.
    pub generation: u64,
    /// By port number.
    pub ports: Box<[PortFacts]>,
    /// Addresses that the director answers for: those of services and those brought up alone.
    pub virtual_addresses: index::Addresses,
    /// The host's own addresses: packets to them are left to it.
    pub host_addresses: index::Addresses,
    /// Whether the host takes packets from the workers: then it may be a destination.
    pub exception_path: bool,
    /// Where what is not load-balanced goes.
    pub routing: Arc<Routing>,
    /// Which packets get which mark.
    pub marks: Marks,
    /// The switches of the original.
    pub policies: Policies,
    /// In no order that matters.
    pub services: Box<[Service]>,
    /// From protocol, address and port, or from a mark, to an index into `services`.
    pub service_index: index::Services,
    /// By slot. Slots are kept across generations for as long as a connection may name them.
    pub destinations: Arc<[Destination]>,
    /// By the index that destinations hold.
    pub next_hops: Arc<[NextHop]>,
    /// The stations on the links that packets are routed to: the same for all generations.
    pub on_link: Arc<OnLink>,
    /// Which server clients of persistent services stay with: the same for all generations.
    pub templates: Arc<Templates>,
    /// Which flows fragments are of: the same for all generations.
    pub fragments: Arc<Fragments>,
    /// The FTP data connections that were spoken of and are not there yet: the same for all generations.
    pub expectations: Arc<Expectations>,
    /// The paths of tunnels, by the address at their end.
    pub paths: Arc<HashMap<IpAddr, Arc<PathMtu>>>,
    /// Of connections, by state.
    pub timeouts: Timeouts,
}

/// What a worker knows of a port besides its rings.
#[derive(Clone, Debug, Default)]
pub struct PortFacts {
    /// As users name it.
    pub name: String,
    /// Its own address, the source of every frame that leaves by it.
    pub mac: [u8; 6],
    /// Bytes of the largest IP packet that may leave by it.
    pub mtu: u16,
    /// The director's own address on its link, from which it speaks of packets that it cannot route.
    pub ipv4: Option<Ipv4Addr>,
    /// The same of IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

/// A next hop as the last step of forwarding needs it.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The port number.
    pub port: u16,
    /// Bytes of the largest IP packet that the port sends.
    pub mtu: u16,
    /// The address that frames leave from: the port's own.
    pub source: [u8; 6],
    /// What is known of the neighbour.
    pub cell: &'a Arc<NeighborCell>,
}

/// In the number of a next hop: it is one of [`Snapshot::on_link`], else of [`Snapshot::next_hops`].
pub const ON_LINK: u32 = 1 << 31;

/// Whether a next hop is a station on a link, by its number; also said of [`Destination::NO_ROUTE`].
#[inline(always)]
pub(crate) fn is_on_link(number: u32) -> bool {
    on_link_bit(number) != 0
}

/// The same as 1 or 0.
#[inline(always)]
pub(crate) fn on_link_bit(number: u32) -> u32 {
    number >> ON_LINK.trailing_zeros()
}

impl Snapshot {
    /// The next hop of that number.
    #[inline]
    pub fn hop(&self, number: u32) -> Option<Hop<'_>> {
        match self.next_hops.get(number as usize) {
            Some(hop) => Some(Hop { port: hop.port, mtu: hop.mtu, source: hop.source, cell: &hop.cell }),
            None if is_on_link(number) && number != Destination::NO_ROUTE => {
                let (port, cell) = self.on_link.get(number & !ON_LINK)?;
                let facts = self.ports.get(usize::from(port))?;
                Some(Hop { port, mtu: facts.mtu, source: facts.mac, cell })
            }
            None => None,
        }
    }

    /// The number of the next hop to an address that is not a destination's.
    ///
    /// # Errors
    /// `NoRoute`, or `NeighborQueueFull` if too many stations of the links are spoken to.
    pub fn hop_towards(&self, address: IpAddr, now: Nanos) -> Result<u32, DropReason> {
        match self.routing.routes.find(address).ok_or(DropReason::NoRoute)? {
            Way::Router(number) => Ok(number),
            Way::Link(port) => {
                let place = self.on_link.place(port, address, now);
                place.map(|place| place | ON_LINK).ok_or(DropReason::NeighborQueueFull)
            }
        }
    }

    /// Whether a next hop that was found in this generation is still the address's.
    #[inline]
    pub fn is_hop_of(&self, number: u32, address: impl FnOnce() -> IpAddr) -> bool {
        !is_on_link(number) || self.on_link.is(number & !ON_LINK, address())
    }
}

/// What a packet to a virtual service is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// IP protocol number: 6, 17 or 132.
    pub protocol: u8,
    /// The virtual address.
    pub address: IpAddr,
    /// 0: every port.
    pub port: u16,
}

/// A virtual service.
#[derive(Debug)]
pub struct Service {
    /// `None` for a service of a firewall mark.
    pub key: Option<ServiceKey>,
    /// The firewall mark of its packets.
    pub mark: Option<NonZeroU32>,
    /// Whether and how its clients stay with their servers: such an FTP service takes their data connections too.
    pub persistence: Option<Persistence>,
    /// Each datagram of UDP is scheduled, and makes no connection.
    pub one_packet: bool,
    /// Picks a destination of this service.
    pub scheduler: Scheduler,
}

/// How clients of a service stay with their servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// For this long after the last new connection.
    pub timeout: Ticks,
    /// Bits of the client's address that count.
    pub prefix: u8,
    /// A client's calls are told apart by their Call-ID (the persistence engine of SIP).
    pub by_call: bool,
}

/// How packets reach a destination. In the order of [`crate::conn::table::Role`], so that one is the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Direct routing: only the MAC addresses change.
    Direct,
    /// IP tunnel.
    Tunnel,
    /// The director itself: packets are the host's as they came (see [`Snapshot::exception_path`]).
    Local,
    /// Network address translation.
    Nat,
}

/// Whether a slot has a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nothing here.
    Vacant,
    /// A configured destination.
    Present,
    /// Removed from its service: packets of its connections vanish until it is added again.
    Removed,
    /// Removed with its service: its connections are as if they had never been.
    ServiceGone,
}

/// A real server of one service.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Distinguishes this destination from others that had the slot before.
    pub generation: u32,
    /// Whether it is one.
    pub presence: Presence,
    /// The real server's address (RIP).
    pub address: IpAddr,
    /// Its transport port, 0 in a service of every port.
    pub port: u16,
    /// The virtual address and port of its service, the port 0 if that is of every port; `None` for a service of a mark.
    pub virtual_service: Option<(IpAddr, u16)>,
    /// The same and the server's, as NAT writes them.
    pub ends: Ends,
    /// How packets reach it.
    pub method: Method,
    /// Index into [`Snapshot::next_hops`]; [`Destination::NO_ROUTE`] if no route leads there, and if the address is the machine's
    /// own.
    pub next_hop: u32,
    /// Of a destination behind a tunnel, or of one that was and may have connections through it.
    pub tunnel: Option<Arc<Tunnel>>,
    /// How long its connections live, where its service has times of its own.
    pub timeouts: Option<Arc<Timeouts>>,
    /// Connection counts and overload, carried across generations.
    pub shared: Arc<DestinationShared>,
}

impl Destination {
    /// The next hop of a destination that no route leads to.
    pub const NO_ROUTE: u32 = u32::MAX;
}

/// How packets to a destination are wrapped. Carried across generations for as long as it stays the same.
#[derive(Debug)]
pub struct Tunnel {
    /// What the packet is put behind.
    pub encapsulation: Encapsulation,
    /// The outer source: the director's own address on the way there, of the family of the destination's.
    pub source: IpAddr,
    /// What is known of the path, which all tunnels to the same address share.
    pub path: Arc<PathMtu>,
    /// Of the next outer packet that may be fragmented.
    pub identification: AtomicU16,
    /// What its outer headers have in common, if they are those of IPv4 in IPv4.
    pub template: Option<Template>,
}

impl Tunnel {
    /// The tunnel from `source` to the server at `to`.
    pub fn new(encapsulation: Encapsulation, (source, to): (IpAddr, IpAddr), path: Arc<PathMtu>) -> Self {
        let template = match (encapsulation, source, to) {
            (Encapsulation::Ipip, IpAddr::V4(source), IpAddr::V4(to)) => Some(Template::new(source, to)),
            _ => None,
        };
        Self { encapsulation, source, path, identification: AtomicU16::new(0), template }
    }
}

/// The largest packet that a path is known to carry, learned from the errors of routers on it, by any worker. Forgotten
/// after ten minutes, as the original's: the path may have changed.
///
/// One word: the MTU in the lower 16 bits; above, 1 more than the second in which it was learned, or 0.
#[derive(Debug, Default)]
pub struct PathMtu(AtomicU64);

impl PathMtu {
    /// Seconds for which it is remembered.
    const KEPT: u64 = 600;

    /// Remembers that the path carries packets of `mtu` bytes and no larger ones.
    pub fn learn(&self, mtu: u16, now: Nanos) {
        // One word carries all of it, so no ordering with other memory is needed.
        self.0.store((Self::seconds(now) + 1) << 16 | u64::from(mtu), Ordering::Relaxed);
    }

    /// What is known now; `u16::MAX` if nothing is.
    #[inline]
    pub fn get(&self, now: Nanos) -> u16 {
        let word = self.0.load(Ordering::Relaxed);
        match (word >> 16).checked_sub(1) {
            Some(learned) if Self::seconds(now).saturating_sub(learned) < Self::KEPT => word as u16,
            _ => u16::MAX,
        }
    }

    fn seconds(now: Nanos) -> u64 {
        now.0 / 1_000_000_000
    }
}

/// What stands between the outer IP header and the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// Nothing.
    Ipip,
    /// A UDP and a GUE header.
    Gue {
        /// The destination's UDP port.
        port: u16,
        /// Whether the UDP checksum is there.
        checksum: bool,
    },
    /// A GRE header.
    Gre {
        /// Whether it has a checksum.
        checksum: bool,
    },
}

/// Where frames go on the link.
#[derive(Clone, Debug)]
pub struct NextHop {
    /// The address that is asked for by ARP or neighbour discovery.
    pub address: IpAddr,
    /// The port number.
    pub port: u16,
    /// Bytes of the largest IP packet that the port sends.
    pub mtu: u16,
    /// The address that frames leave from: the port's own.
    pub source: [u8; 6],
    /// Its MAC address, once known.
    pub cell: Arc<NeighborCell>,
}

/// What is known of a neighbour; written by the control thread, read by workers. One word: the MAC address above, whether
/// it is one below. No cache line of its own: it is written when a neighbour changes, and read for every packet, so that it
/// is better near others.
#[derive(Debug, Default)]
pub struct NeighborCell(AtomicU64);

/// The state of a neighbour as a worker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighborState {
    /// Asked for, not answered yet: frames wait.
    Incomplete,
    /// Frames go to this MAC address.
    Reachable([u8; 6]),
    /// Did not answer: frames are dropped.
    Failed,
}

impl NeighborCell {
    const REACHABLE: u64 = 1;
    const FAILED: u64 = 2;

    /// What is known now.
    #[inline]
    pub fn get(&self) -> NeighborState {
        // One word carries all that is read, so no ordering with other memory is needed.
        let word = self.0.load(Ordering::Relaxed);
        if word & Self::REACHABLE != 0 {
            let [_, _, a, b, c, d, e, f] = word.to_le_bytes();
            NeighborState::Reachable([a, b, c, d, e, f])
        } else if word == Self::FAILED {
            NeighborState::Failed
        } else {
            NeighborState::Incomplete
        }
    }

    /// The MAC address as [`crate::wire::ethernet::word`] has it, if it is known.
    #[inline(always)]
    pub fn mac_word(&self) -> Option<u64> {
        let word = self.0.load(Ordering::Relaxed);
        (word & Self::REACHABLE != 0).then_some(word >> 16)
    }

    /// Tells the workers.
    pub fn set(&self, state: NeighborState) {
        let word = match state {
            NeighborState::Incomplete => 0,
            NeighborState::Reachable([a, b, c, d, e, f]) => {
                u64::from_le_bytes([0, 0, a, b, c, d, e, f]) | Self::REACHABLE
            }
            NeighborState::Failed => Self::FAILED,
        };
        self.0.store(word, Ordering::Relaxed);
    }
}

/// How long a connection lives without a packet, by its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// By [`crate::conn::tcp::TcpState`] number.
    pub tcp: [Ticks; 11],
    /// Of a UDP flow.
    pub udp: Ticks,
    /// By the number of the original's SCTP states: NONE, INIT1, INIT, COOKIE_SENT, COOKIE_REPLIED, COOKIE_WAIT, COOKIE,
    /// COOKIE_ECHOED, ESTABLISHED, SHUTDOWN_SENT, SHUTDOWN_RECEIVED, SHUTDOWN_ACK_SENT, REJECTED, CLOSED.
    pub sctp: [Ticks; 14],
}

impl Default for Timeouts {
    /// Those of the original: seconds 2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120 in the order NONE, ESTABLISHED,
    /// SYN_SENT, SYN_RECV, FIN_WAIT, TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, SYNACK; UDP 300; SCTP 2 in NONE, 4 in
    /// INIT1 and REJECTED, 900 in ESTABLISHED and 61 in all others.
    fn default() -> Self {
        Self {
            tcp: [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120].map(Ticks::from_secs),
            udp: Ticks::from_secs(300),
            sctp: [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61].map(Ticks::from_secs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mtu_of_a_path_is_known_for_ten_minutes_and_never_again() {
        let path = PathMtu::default();
        assert_eq!(path.get(Nanos(0)), u16::MAX);
        path.learn(1400, Nanos::from_secs(5));
        assert_eq!((path.get(Nanos::from_secs(5)), path.get(Nanos::from_secs(604))), (1400, 1400));
        // Also not when ticks have wrapped.
        for later in [605, 21_474_841, 42_949_700, 1 << 31] {
            assert_eq!(path.get(Nanos::from_secs(later)), u16::MAX, "after {later} s");
        }
    }

    #[test]
    fn a_neighbour_cell_gives_back_what_was_set() {
        let cell = NeighborCell::default();
        assert_eq!(cell.get(), NeighborState::Incomplete);
        for state in [
            NeighborState::Reachable([0, 1, 2, 3, 4, 0xff]),
            NeighborState::Failed,
            NeighborState::Reachable([0; 6]),
            NeighborState::Incomplete,
        ] {
            cell.set(state);
            assert_eq!(cell.get(), state);
        }
    }
}
