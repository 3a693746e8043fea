//! Who the next hops are: ARP (RFC 826) and neighbour discovery (RFC 4861 section 7) for the addresses that workers send
//! to. A machine without I/O and without a clock.
//!
//! Contract: `now` never goes back. After each [`Neighbors::want`], [`Neighbors::handle_frame`] and
//! [`Neighbors::handle_timeout`] take frames from [`Neighbors::poll_transmit`] until there are none, then call
//! `handle_timeout` at the time that [`Neighbors::poll_timeout`] says, or at once if it has passed. Only
//! `handle_timeout` makes frames. Workers see the result in the cells of the next hops.
//!
//! | state | event | new state |
//! |---|---|---|
//! | incomplete | 3 probes to all, 1 s apart, without an answer | failed |
//! | reachable | 15 s later | stale: still used, asked at its MAC address to confirm itself |
//! | reachable | another MAC address is announced | stale, with that address |
//! | stale | 3 probes, 1 s apart, without an answer | failed: frames are dropped |
//! | failed | 1, 2, 3, 4, 5, 5 ... s later | failed: asked again, to all |
//! | incomplete, failed | it asks us, or announces itself | stale |
//! | any | it answers us | reachable |

use crate::kernel::near;
use pointsman_dataplane::{
    reply,
    snapshot::{NeighborCell, NeighborState, NextHop},
    time::Nanos,
    wire::{arp, checksum, ethernet, icmpv6, ipv6, protocol},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// Between two probes while no answer has come.
const RETRY: u64 = 1_000_000_000;
/// Probes without an answer after which a neighbour has failed.
const TRIES: u32 = 3;
/// How long an answer is good for.
const CONFIRM: u64 = 15_000_000_000;
/// The longest pause between two probes of a failed neighbour, in units of [`RETRY`].
const LONGEST_PAUSE: u32 = 5;
/// Probes that are sent at once at most: the queue of a worker must hold them.
const BURST: usize = 256;
/// Between two such bursts.
const BURST_PAUSE: u64 = 10_000_000;

/// What a port has to ask with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortAddresses {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its IP addresses and the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The port number.
    pub port: u16,
    /// From the Ethernet header on.
    pub frame: Box<[u8]>,
}

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Asked for, not answered yet.
    Incomplete,
    /// Has answered within the last 15 s.
    Reachable,
    /// Still used, while it is asked to confirm itself.
    Stale,
    /// Does not answer; asked again and again.
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Incomplete => "incomplete",
            State::Reachable => "reachable",
            State::Stale => "stale",
            State::Failed => "failed",
        })
    }
}

/// A neighbour as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborInfo {
    /// Its address.
    pub address: IpAddr,
    /// The number of the port that it is behind.
    pub port: u16,
    /// What is known of it.
    pub state: State,
    /// While it is reachable or stale.
    pub mac: Option<[u8; 6]>,
}

/// The neighbours that are wanted. See the module.
#[derive(Debug, Default)]
pub struct Neighbors {
    ports: Vec<PortAddresses>,
    table: BTreeMap<Key, Neighbor>,
    timers: BTreeSet<(Nanos, Key)>,
    transmits: VecDeque<Transmit>,
    /// No burst before.
    resume: Nanos,
}

/// Address and port number.
type Key = (IpAddr, u16);

#[derive(Debug)]
struct Neighbor {
    /// Where workers read of it: a server's, and a station's that packets are routed to, are two.
    cells: Vec<Arc<NeighborCell>>,
    state: State,
    mac: Option<[u8; 6]>,
    /// Probes since the last answer.
    unanswered: u32,
    /// When the timer runs out.
    due: Nanos,
}

/// What a frame says about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    address: IpAddr,
    mac: Option<[u8; 6]>,
    /// Answers a question of ours.
    solicited: bool,
    /// Replaces another MAC address.
    replaces: bool,
}

impl Neighbors {
    /// For ports in the order of their numbers.
    pub fn new(ports: Vec<PortAddresses>) -> Self {
        Self { ports, ..Self::default() }
    }

    /// The ports' addresses have changed.
    pub fn set_ports(&mut self, ports: Vec<PortAddresses>) {
        self.ports = ports;
    }

    /// From now on exactly these are wanted. What is known of those that were wanted before is kept.
    pub fn want(&mut self, now: Nanos, next_hops: &[NextHop]) {
        let wanted: HashSet<Key> = next_hops.iter().map(|hop| (hop.address, hop.port)).collect();
        self.table.retain(|key, _| wanted.contains(key));
        self.timers.retain(|(_, key)| wanted.contains(key));
        self.table.values_mut().for_each(|neighbor| neighbor.cells.clear());
        for hop in next_hops {
            let key = (hop.address, hop.port);
            let timers = &mut self.timers;
            let neighbor = self.table.entry(key).or_insert_with(|| {
                timers.insert((now, key));
                Neighbor { cells: Vec::new(), state: State::Incomplete, mac: None, unanswered: 0, due: now }
            });
            neighbor.cells.push(Arc::clone(&hop.cell));
            neighbor.publish();
        }
    }

    /// Learns from a frame without VLAN tags that came in by `port`. What is no ARP or neighbour discovery, or not about a
    /// wanted address, is ignored, and so is a MAC address that is ours or not that of one station.
    pub fn handle_frame(&mut self, now: Nanos, port: u16, frame: &[u8]) {
        let Some(asked_by) = self.ports.get(usize::from(port)).map(|port| port.mac) else {
            return;
        };
        let Some(claim) = claim(frame, asked_by) else {
            return;
        };
        let unusable =
            |mac| ethernet::is_multicast(mac) || mac == [0; 6] || self.ports.iter().any(|p| p.mac == mac);
        if claim.mac.is_some_and(unusable) {
            return;
        }
        let key = (claim.address, port);
        let Some(neighbor) = self.table.get_mut(&key) else {
            return;
        };
        let before = neighbor.due;
        neighbor.learn(now, claim);
        if neighbor.due != before {
            self.timers.remove(&(before, key));
            self.timers.insert((neighbor.due, key));
        }
    }

    /// Sends the probes that are due, and gives up those who have not answered in time.
    pub fn handle_timeout(&mut self, now: Nanos) {
        if now < self.resume {
            return;
        }
        for _ in 0..BURST {
            let Some(&(due, key)) = self.timers.first() else {
                return;
            };
            if due > now {
                return;
            }
            self.timers.pop_first();
            if let Some(neighbor) = self.table.get_mut(&key) {
                let unicast = neighbor.expire(now);
                self.timers.insert((neighbor.due, key));
                self.transmits.extend(probe(&self.ports, key, unicast));
            }
        }
        self.resume = after(now, BURST_PAUSE);
    }

    /// When to call [`Neighbors::handle_timeout`]; `None`: never.
    pub fn poll_timeout(&self) -> Option<Nanos> {
        self.timers.first().map(|(due, _)| (*due).max(self.resume))
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// All neighbours, by address.
    pub fn states(&self) -> impl Iterator<Item = NeighborInfo> + '_ {
        self.table.iter().map(|(&(address, port), neighbor)| NeighborInfo {
            address,
            port,
            state: neighbor.state,
            mac: neighbor.mac,
        })
    }
}

impl Neighbor {
    /// The timer has run out: the next probe is due. Returns the MAC address to send it to; `None`: to all.
    fn expire(&mut self, now: Nanos) -> Option<[u8; 6]> {
        match self.state {
            State::Incomplete | State::Stale if self.unanswered < TRIES => {
                self.unanswered += 1;
                self.due = after(now, RETRY);
            }
            State::Incomplete | State::Stale => {
                self.state = State::Failed;
                self.mac = None;
                self.unanswered = 1;
                self.due = after(now, RETRY);
                self.publish();
            }
            State::Reachable => {
                self.state = State::Stale;
                self.unanswered = 1;
                self.due = after(now, RETRY);
            }
            State::Failed => {
                self.unanswered = (self.unanswered + 1).min(LONGEST_PAUSE);
                self.due = after(now, RETRY * u64::from(self.unanswered));
            }
        }
        self.mac
    }

    /// RFC 4861 sections 7.2.3 and 7.2.5, for ARP as well: an answer confirms; what comes unasked may change the MAC
    /// address, which is then asked to confirm itself.
    fn learn(&mut self, now: Nanos, claim: Claim) {
        let known = self.mac;
        let Some(mac) = claim.mac.or(known) else {
            return;
        };
        let changes = known.is_some_and(|known| known != mac);
        if changes && !claim.replaces {
            // Somebody else says that it has the address too: ask the one we know.
            if self.state == State::Reachable {
                self.due = now;
            }
            return;
        }
        if claim.solicited {
            self.state = State::Reachable;
            self.due = after(now, CONFIRM);
        } else if known != Some(mac) {
            self.state = State::Stale;
            self.due = now;
        } else {
            return;
        }
        self.mac = Some(mac);
        self.unanswered = 0;
        self.publish();
    }

    /// Tells the workers.
    fn publish(&self) {
        let state = match (self.state, self.mac) {
            (State::Reachable | State::Stale, Some(mac)) => NeighborState::Reachable(mac),
            (State::Failed, _) => NeighborState::Failed,
            _ => NeighborState::Incomplete,
        };
        self.cells.iter().for_each(|cell| cell.set(state));
    }
}

fn after(now: Nanos, nanos: u64) -> Nanos {
    Nanos(now.0.saturating_add(nanos))
}

/// The question for a neighbour, or nothing if its port is gone.
fn probe(ports: &[PortAddresses], (address, number): Key, unicast: Option<[u8; 6]>) -> Option<Transmit> {
    let port = ports.get(usize::from(number))?;
    let frame: Box<[u8]> = match address {
        IpAddr::V4(target) => {
            Box::new(reply::arp_request(port.mac, sender_v4(port, target), target, unicast))
        }
        IpAddr::V6(target) => {
            Box::new(reply::neighbor_solicitation(port.mac, sender_v6(port, target), target, unicast))
        }
    };
    Some(Transmit { port: number, frame })
}

/// The port's address in the subnet of the target, else its first one, else 0.0.0.0: a probe of RFC 5227, which is
/// answered like any request.
fn sender_v4(port: &PortAddresses, target: Ipv4Addr) -> Ipv4Addr {
    let v4 = |address| match address {
        IpAddr::V4(own) => Some(own),
        IpAddr::V6(_) => None,
    };
    let near = near(&port.addresses, target.into()).and_then(v4);
    let first = || port.addresses.iter().find_map(|(address, _)| v4(*address));
    near.or_else(first).unwrap_or(Ipv4Addr::UNSPECIFIED)
}

/// The port's address in the subnet of the target, else a link-local one, else the link-local one that its MAC address
/// makes (RFC 4291 appendix A): a solicitation must have a source to be answered to.
fn sender_v6(port: &PortAddresses, target: Ipv6Addr) -> Ipv6Addr {
    let v6 = |address| match address {
        IpAddr::V6(own) => Some(own),
        IpAddr::V4(_) => None,
    };
    let near = near(&port.addresses, target.into()).and_then(v6);
    let own = || port.addresses.iter().filter_map(|(address, _)| v6(*address));
    near.or_else(|| own().find(Ipv6Addr::is_unicast_link_local)).unwrap_or_else(|| link_local(port.mac))
}

fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let identifier = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(identifier))
}

/// What the frame says about who has which address, heard by a port with address `own`.
fn claim(frame: &[u8], own: [u8; 6]) -> Option<Claim> {
    let header = ethernet::Ethernet::new(frame)?;
    let rest = &frame[ethernet::HEADER_LEN..];
    match header.ethertype() {
        ethernet::ARP => arp_claim(&arp::Arp::new(rest)?, own),
        ethernet::IPV6 => discovery_claim(&ipv6::Ipv6::new(rest)?),
        _ => None,
    }
}

fn arp_claim(message: &arp::Arp<'_>, own: [u8; 6]) -> Option<Claim> {
    let operation = message.operation();
    let known = operation == arp::REQUEST || operation == arp::REPLY;
    (known && message.is_ethernet_ipv4()).then(|| Claim {
        address: message.sender_ip().into(),
        mac: Some(message.sender_mac()),
        solicited: operation == arp::REPLY && message.target_mac() == own,
        replaces: true,
    })
}

/// Valid solicitations and advertisements only (RFC 4861 sections 7.1.1 and 7.1.2).
fn discovery_claim(packet: &ipv6::Ipv6<'_>) -> Option<Claim> {
    let upper = packet.upper_layer().ok()?;
    let bytes = packet.packet().get(upper.offset..)?;
    let len = bytes.len() as u32;
    let pseudo = checksum::pseudo_v6(packet.source(), packet.destination(), protocol::ICMPV6, len);
    let valid = upper.protocol == protocol::ICMPV6
        && upper.fragment.is_none()
        && packet.is_consistent()
        && packet.hop_limit() == icmpv6::NEIGHBOR_HOP_LIMIT
        && checksum::transport_ok(pseudo, bytes);
    let message = icmpv6::Icmpv6::new(bytes).filter(|message| valid && message.code() == 0)?;
    let target = message.target().filter(|target| !target.is_multicast())?;
    let [flags, ..] = message.rest().to_be_bytes();
    match message.kind() {
        icmpv6::NEIGHBOR_SOLICITATION if !packet.source().is_unspecified() => Some(Claim {
            address: packet.source().into(),
            mac: Some(message.link_layer(icmpv6::SOURCE_LINK_LAYER)?),
            solicited: false,
            replaces: true,
        }),
        icmpv6::NEIGHBOR_ADVERTISEMENT => {
            let solicited = flags & icmpv6::SOLICITED != 0;
            (!solicited || !packet.destination().is_multicast()).then(|| Claim {
                address: target.into(),
                mac: message.link_layer(icmpv6::TARGET_LINK_LAYER),
                solicited,
                replaces: flags & icmpv6::OVERRIDE != 0,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
