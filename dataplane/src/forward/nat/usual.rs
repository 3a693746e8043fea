//! The usual packet of NAT, to a server or from it: IPv4 without options or a VLAN tag, of TCP, or of UDP with a checksum.
//!
//! Nothing branches by the direction, which no processor can guess: what differs is selected.

use super::super::{Ports, Tables, each_usual, is_plain};
use crate::{
    batch::{Batch, Kind, Packet},
    conn::{lookup::Picked, table::Role},
    director::Context,
    port::Frame,
    snapshot::{Destination, NeighborCell, ON_LINK},
    verdict::Verdict,
    wire::{ethernet, protocol},
};
use std::net::IpAddr;

/// What packets to a destination and its answers get, as their words are in memory read in little-endian order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends([NewEnd; 2]);

/// One of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
struct NewEnd {
    address: u32,
    /// 0: it stays what it is.
    port: u16,
    /// Whether it is one: of IPv4, and the same for all packets.
    is_known: bool,
}

impl Ends {
    /// Of a server, and of the virtual service that it answers as if that is one address.
    pub fn new(server: (IpAddr, u16), service: Option<(IpAddr, u16)>) -> Self {
        let end = |(address, port): (IpAddr, u16)| match address {
            IpAddr::V4(address) => {
                let address = u32::from_le_bytes(address.octets());
                NewEnd { address, port: port.swap_bytes(), is_known: true }
            }
            IpAddr::V6(_) => NewEnd::default(),
        };
        Self([end(server), service.map_or_else(NewEnd::default, end)])
    }
}

/// Translates the usual ones of the picked packets, and adds the others to the second list.
#[inline(never)]
pub(crate) fn batch<F: Frame>(
    batch: &mut Batch<F>,
    (picked, rest): (&Picked, &mut Picked),
    ports: Ports,
    context: &Context<'_>,
) -> Ports {
    let tables = Tables::of(context);
    let mut unusual = Picked::new();
    let ports =
        each_usual(batch, (picked, &mut unusual), ports, |frame, packet| usual(frame, packet, tables));
    if unusual.is_empty() {
        return ports;
    }
    let tables = Tables::of(context);
    each_usual(batch, (&unusual, rest), ports, |frame, packet| on_link(frame, packet, tables, context))
}

/// Translates what nearly every packet to a NATed destination or from it is, with a TTL and of a length that may pass, to a
/// neighbour that is known. Returns the number of the port that it leaves by; `None`, and no change, if it is anything else.
#[inline(always)]
fn usual(frame: &mut impl Frame, packet: &mut Packet, tables: Tables<'_>) -> Option<u16> {
    let destination = tables.destinations.get(packet.destination as usize)?;
    let hop = if packet.role == Role::Server { packet.hop } else { destination.next_hop };
    let hop = tables.hops.get(hop as usize)?;
    let way = Way { port: &hop.port, mtu: &hop.mtu, source: &hop.source, cell: &hop.cell };
    translate(frame, packet, (destination, tables), way)
}

/// The same for an answer to a client on a link of ours.
#[inline(always)]
fn on_link(
    frame: &mut impl Frame,
    packet: &mut Packet,
    tables: Tables<'_>,
    context: &Context<'_>,
) -> Option<u16> {
    if packet.role != Role::Server || packet.hop & ON_LINK == 0 {
        return None;
    }
    let destination = tables.destinations.get(packet.destination as usize)?;
    let hop = context.snapshot.hop(packet.hop)?;
    let way = Way { port: &hop.port, mtu: &hop.mtu, source: &hop.source, cell: hop.cell };
    translate(frame, packet, (destination, tables), way)
}

/// A next hop, of which nothing is read before it is needed: registers are few here.
struct Way<'a> {
    port: &'a u16,
    mtu: &'a u16,
    source: &'a [u8; 6],
    cell: &'a NeighborCell,
}

#[inline(always)]
fn translate(
    frame: &mut impl Frame,
    packet: &mut Packet,
    (destination, tables): (&Destination, Tables<'_>),
    way: Way<'_>,
) -> Option<u16> {
    // A transport header was found whole.
    let bytes = frame.data_mut().first_chunk_mut::<54>()?;
    if !is_plain(packet) || packet.layout.kind != Kind::Flow || bytes[22] <= 1 {
        return None;
    }
    // Where the checksum is.
    let sum_at = match bytes[23] {
        protocol::TCP => 50,
        protocol::UDP if half(bytes, 40) != 0 => 40,
        _ => return None,
    };
    let is_answer = packet.role == Role::Server;
    let new = &destination.ends.0[usize::from(is_answer)];
    let ip_len = packet.layout.end - ethernet::HEADER_LEN as u16;
    let counters = tables.counters.get(packet.destination as usize)?;
    if !new.is_known || ip_len > *way.mtu {
        return None;
    }
    ethernet::set_words(bytes.first_chunk_mut()?, way.cell.mac_word()?, *way.source);
    counters.count(is_answer, ip_len);
    packet.verdict = Verdict::Forward(*way.port);
    readdress(bytes, new, (is_answer, sum_at));
    Some(*way.port)
}

/// Writes the new end, and a TTL of one less, into a packet whose transport checksum is at `sum_at`. Not inlined: it needs the
/// registers.
#[inline(never)]
fn readdress(bytes: &mut [u8; 54], new: &NewEnd, (is_answer, sum_at): (bool, usize)) {
    let way = usize::from(is_answer);
    let (address_at, port_at) = (30 - 4 * way, 36 - 2 * way);
    let old_port = half(bytes, port_at);
    let port = if new.port == 0 { old_port } else { new.port };
    let old = u32::from(half(bytes, address_at)) | u32::from(half(bytes, address_at + 2)) << 16;
    // RFC 1624 equation 3: the complement of what was and what is; the TTL is the low byte of its word, and 1 less. Sums do
    // not mind the order of bytes (RFC 1071 section 2.B).
    let readdressed = halves(!old) + halves(new.address);
    let ip_sum = !fold(u32::from(!half(bytes, 24)) + readdressed + 0xfffe);
    let sum_at = if sum_at == 40 { 40 } else { 50 };
    let sum = u32::from(!half(bytes, sum_at)) + readdressed + u32::from(!old_port) + u32::from(port);
    let sum = match !fold(sum) {
        // It would say that there is no checksum.
        0 if sum_at == 40 => u16::MAX,
        sum => sum,
    };
    bytes[22] -= 1;
    bytes[24..26].copy_from_slice(&ip_sum.to_le_bytes());
    bytes[address_at..address_at + 4].copy_from_slice(&new.address.to_le_bytes());
    bytes[port_at..port_at + 2].copy_from_slice(&port.to_le_bytes());
    bytes[sum_at..sum_at + 2].copy_from_slice(&sum.to_le_bytes());
}

#[inline(always)]
fn half(bytes: &[u8; 54], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn halves(word: u32) -> u32 {
    (word >> 16) + (word & 0xffff)
}

/// [`crate::wire::checksum::fold`] of the sum of a few words: here the carry is cheaper than a second shift.
#[inline(always)]
fn fold(sum: u32) -> u16 {
    let (low, carry) = (sum as u16).overflowing_add((sum >> 16) as u16);
    low.wrapping_add(u16::from(carry))
}

#[cfg(test)]
mod tests;
