//! The usual packet of NAT, to a server or from it: IPv4 without options or a VLAN tag, of TCP, or of UDP with a checksum.
//!
//! Nothing branches by the direction, which no processor can guess: what differs is selected.

use super::super::{Ports, Tables, each_usual, is_plain};
use crate::{
    batch::{Batch, Kind, Packet},
    conn::{lookup::Picked, table::Role},
    director::Context,
    port::Frame,
    snapshot::{Destination, NeighborCell},
    verdict::Verdict,
    wire::{ethernet, protocol},
};
use std::net::IpAddr;

/// What packets to a destination and its answers get, as their words are in memory read in little-endian order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends([NewEnd; 2]);

/// One of them. Half a destination's cache line would be too much: it is packed, and what cannot be is what is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NewEnd {
    /// 0: not of IPv4, or not the same for all packets.
    address: [u16; 2],
    /// 0: it stays what it is.
    port: u16,
    /// What the new end and a TTL of one less add to the complement of the header's checksum.
    header: u16,
    /// The same of the transport checksum; never 0, but if an end is not the same for all packets: then both are to be
    /// worked out.
    transport: u16,
}

impl Ends {
    /// Of a server, and of the virtual service that it answers as if that is one address.
    pub fn new(server: (IpAddr, u16), service: Option<(IpAddr, u16)>) -> Self {
        let service = service.map_or_else(NewEnd::default, NewEnd::new);
        let server = NewEnd::new(server);
        Self([server.in_place_of(service), service.in_place_of(server)])
    }
}

impl NewEnd {
    fn new((address, port): (IpAddr, u16)) -> Self {
        let IpAddr::V4(address) = address else { return Self::default() };
        let [a, b, c, d] = address.octets();
        let address = [[a, b], [c, d]].map(u16::from_le_bytes);
        Self { address, port: port.swap_bytes(), ..Self::default() }
    }

    /// With the sums of it in place of another.
    fn in_place_of(self, old: NewEnd) -> Self {
        let is_same_for_all = |end: NewEnd| end.address != [0, 0] && end.port != 0;
        if !is_same_for_all(self) || !is_same_for_all(old) {
            return self;
        }
        let readdressed = difference(old.address, self.address);
        // See `readdress`.
        let header = fold(readdressed + ONE_LESS);
        Self { header, transport: fold(readdressed + u32::from(!old.port) + u32::from(self.port)), ..self }
    }
}

/// Where the checksums of TCP and UDP are.
const TCP_SUM: usize = 50;
const UDP_SUM: usize = 40;

/// What a TTL of one less adds to the complement of the header's checksum: it is the low byte of its word.
const ONE_LESS: u32 = 0xfffe;

/// What another address adds to the complement of a checksum.
#[inline(always)]
fn difference(old: [u16; 2], new: [u16; 2]) -> u32 {
    let words = [!old[0], !old[1], new[0], new[1]];
    words.into_iter().map(u32::from).sum()
}

/// Translates the usual packets from the first on, up to the first that is anything else, whose number it returns.
#[inline(never)]
pub(crate) fn run<F: Frame>(batch: &mut Batch<F>, context: &Context<'_>, ports: &mut Ports) -> usize {
    let tables = Tables::of(context);
    super::super::run(batch, 0, ports, |frame, packet| usual(frame, packet, tables))
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
    each_usual(batch, (&unusual, rest), ports, |frame, packet| unusual_end(frame, packet, tables, context))
}

/// Translates what nearly every packet to a NATed destination or from it is, with a TTL and of a length that may pass, to a
/// neighbour that is known. Returns the number of the port that it leaves by; `None`, and no change, if it is anything else.
#[inline(always)]
fn usual(frame: &mut impl Frame, packet: &mut Packet, tables: Tables<'_>) -> Option<u16> {
    let (destination, hop) = towards(packet, tables)?;
    let hop = tables.hops.get(hop as usize)?;
    let way = Way { port: &hop.port, mtu: &hop.mtu, source: &hop.source, cell: &hop.cell };
    translate(frame, packet, (destination, tables), way, |bytes, new, at| {
        (new.transport != 0).then(|| replace(bytes, new, at))
    })
}

/// The same for an answer to a client on a link of ours, and for a service of every port or of a mark, whose end is not the
/// same for all packets.
#[inline(always)]
fn unusual_end(
    frame: &mut impl Frame,
    packet: &mut Packet,
    tables: Tables<'_>,
    context: &Context<'_>,
) -> Option<u16> {
    let (destination, hop) = towards(packet, tables)?;
    let hop = context.snapshot.hop(hop)?;
    let way = Way { port: &hop.port, mtu: &hop.mtu, source: &hop.source, cell: hop.cell };
    translate(frame, packet, (destination, tables), way, |bytes, new, at| {
        (new.address != [0, 0]).then(|| readdress(bytes, new, at))
    })
}

/// The destination of a packet, and the number of the next hop to it, or to its client.
#[inline(always)]
fn towards<'a>(packet: &Packet, tables: Tables<'a>) -> Option<(&'a Destination, u32)> {
    let destination = tables.destinations.get(packet.destination as usize)?;
    let is_answer = packet.role == Role::Server;
    Some((destination, if is_answer { packet.hop } else { destination.next_hop }))
}

/// A next hop, of which nothing is read before it is needed: registers are few here.
struct Way<'a> {
    port: &'a u16,
    mtu: &'a u16,
    source: &'a [u8; 6],
    cell: &'a NeighborCell,
}

/// Translates a packet by `write`, which gives it the new end, or says that it cannot.
#[inline(always)]
fn translate(
    frame: &mut impl Frame,
    packet: &mut Packet,
    (destination, tables): (&Destination, Tables<'_>),
    way: Way<'_>,
    write: impl FnOnce(&mut [u8; 54], &NewEnd, (bool, usize)) -> Option<()>,
) -> Option<u16> {
    // A transport header was found whole.
    let bytes = frame.data_mut().first_chunk_mut::<54>()?;
    if !is_plain(packet) || packet.layout.kind != Kind::Flow || bytes[22] <= 1 {
        return None;
    }
    if !matches!(packet.role, Role::Nat | Role::Server) {
        return None;
    }
    // Where the checksum is.
    let sum_at = match bytes[23] {
        protocol::TCP => TCP_SUM,
        protocol::UDP if half(bytes, UDP_SUM) != 0 => UDP_SUM,
        _ => return None,
    };
    let is_answer = packet.role == Role::Server;
    let new = &destination.ends.0[usize::from(is_answer)];
    let ip_len = packet.layout.end - ethernet::HEADER_LEN as u16;
    let counters = tables.counters.get(packet.destination as usize)?;
    if ip_len > *way.mtu {
        return None;
    }
    let mac = way.cell.mac_word()?;
    write(bytes, new, (is_answer, sum_at))?;
    ethernet::set_words(bytes.first_chunk_mut()?, mac, *way.source);
    counters.count(is_answer, ip_len);
    packet.verdict = Verdict::Forward(*way.port);
    Some(*way.port)
}

/// Writes the new end in place of the one that all packets have, and a TTL of one less, into a packet whose transport checksum
/// is at `sum_at`.
#[inline(always)]
fn replace(bytes: &mut [u8; 54], new: &NewEnd, (is_answer, sum_at): (bool, usize)) {
    let header = u32::from(!half(bytes, 24)) + u32::from(new.header);
    let transport = u32::from(!half(bytes, sum_at)) + u32::from(new.transport);
    write(bytes, (new.address, new.port), (fold(header), fold(transport)), (is_answer, sum_at));
}

/// The same in place of whatever end the packet has. Not inlined: it needs the registers.
#[inline(never)]
fn readdress(bytes: &mut [u8; 54], new: &NewEnd, (is_answer, sum_at): (bool, usize)) {
    let (address_at, port_at) = ends_at(is_answer);
    let old_port = half(bytes, port_at);
    let port = if new.port == 0 { old_port } else { new.port };
    // RFC 1624 equation 3: the complement of what was and what is. Sums do not mind the order of bytes (RFC 1071 section 2.B).
    let old = [half(bytes, address_at), half(bytes, address_at + 2)];
    let readdressed = difference(old, new.address);
    let header = u32::from(!half(bytes, 24)) + readdressed + ONE_LESS;
    let transport = u32::from(!half(bytes, sum_at)) + readdressed + u32::from(!old_port) + u32::from(port);
    write(bytes, (new.address, port), (fold(header), fold(transport)), (is_answer, sum_at));
}

/// Where the address and the port are that change.
#[inline(always)]
fn ends_at(is_answer: bool) -> (usize, usize) {
    let way = usize::from(is_answer);
    (30 - 4 * way, 36 - 2 * way)
}

/// Writes an end, a TTL of one less, and the complements of both checksums.
#[inline(always)]
fn write(
    bytes: &mut [u8; 54],
    ([front, back], port): ([u16; 2], u16),
    (header, transport): (u16, u16),
    (is_answer, sum_at): (bool, usize),
) {
    let (address_at, port_at) = ends_at(is_answer);
    let transport = match !transport {
        // It would say that there is no checksum.
        0 if sum_at == UDP_SUM => u16::MAX,
        sum => sum,
    };
    bytes[22] -= 1;
    bytes[24..26].copy_from_slice(&(!header).to_le_bytes());
    bytes[address_at..address_at + 2].copy_from_slice(&front.to_le_bytes());
    bytes[address_at + 2..address_at + 4].copy_from_slice(&back.to_le_bytes());
    bytes[port_at..port_at + 2].copy_from_slice(&port.to_le_bytes());
    bytes[sum_at..sum_at + 2].copy_from_slice(&transport.to_le_bytes());
}

#[inline(always)]
fn half(bytes: &[u8; 54], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// [`crate::wire::checksum::fold`] of the sum of a few words: here the carry is cheaper than a second shift.
#[inline(always)]
fn fold(sum: u32) -> u16 {
    let (low, carry) = (sum as u16).overflowing_add((sum >> 16) as u16);
    low.wrapping_add(u16::from(carry))
}

#[cfg(test)]
mod tests;
