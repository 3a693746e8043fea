//! The usual packet of a tunnel: IPv4 in IPv4 and nothing between, without a VLAN tag.

use super::{
    super::{Ports, Tables, each_usual, is_plain},
    LEAST_V4, outer_class,
};
use crate::{
    batch::{Batch, Packet},
    conn::{lookup::Picked, table::Role},
    director::Context,
    port::Frame,
    snapshot::{NextHop, Tunnel},
    verdict::Verdict,
    wire::{checksum, ethernet, ipv4, protocol, tcp},
};
use std::net::Ipv4Addr;

/// Bytes of the outer header.
const ADDED: u16 = ipv4::HEADER_LEN as u16;

/// What the outer headers of a tunnel have in common, in IPv4 without another header behind: words in the order of the wire
/// as they are read from memory in little-endian order.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// The addresses: bytes 12..20.
    addresses: u64,
    /// The sum of all words that are always the same. That its bytes are swapped does not matter (RFC 1071 section 2.B).
    sum: u32,
}

impl Template {
    /// Of packets between these.
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (source.octets(), destination.octets());
        let words = [[0x45, 0], [0, protocol::IPIP], [a, b], [c, d], [e, f], [g, h]];
        Self {
            addresses: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            sum: words.map(|word| u32::from(u16::from_le_bytes(word))).iter().sum(),
        }
    }

    /// The header, as bytes 0..8, 8..12 and 12..20.
    #[inline(always)]
    fn header(&self, tos: u8, len: u16, (identification, fragment): (u16, u16), ttl: u8) -> (u64, u32, u64) {
        let [len, identification, fragment] = [len, identification, fragment].map(u16::swap_bytes);
        let sum = self.sum
            + (u32::from(tos) << 8)
            + u32::from(len)
            + u32::from(identification)
            + u32::from(fragment)
            + u32::from(ttl);
        // Eleven words of 16 bits, so that there is at most one carry after the first fold.
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + sum;
        let first = 0x45
            | u64::from(tos) << 8
            | u64::from(len) << 16
            | u64::from(identification) << 32
            | u64::from(fragment) << 48;
        let second = u32::from(ttl) | u32::from(protocol::IPIP) << 8 | !sum << 16;
        (first, second, self.addresses)
    }
}

/// Wraps the usual packets from the first on, up to the first that is anything else, whose number it returns.
#[inline(never)]
pub(crate) fn run<F: Frame>(batch: &mut Batch<F>, context: &Context<'_>, ports: &mut Ports) -> usize {
    let tables = Tables::of(context);
    super::super::run(batch, 0, ports, |frame, packet| usual(frame, packet, tables, context))
}

/// Wraps the usual ones of the picked packets, and adds the others to the second list.
#[inline(never)]
pub(crate) fn batch<F: Frame>(
    batch: &mut Batch<F>,
    picked: (&Picked, &mut Picked),
    ports: Ports,
    context: &Context<'_>,
) -> Ports {
    let tables = Tables::of(context);
    each_usual(batch, picked, ports, |frame, packet| usual(frame, packet, tables, context))
}

/// Wraps what nearly every packet of a tunnel is: IPv4 in IPv4, with a TTL and of a length that may pass, to a neighbour that
/// is known. Returns the number of the port that it leaves by; `None`, and no change, if it is anything else.
#[inline(always)]
fn usual(
    frame: &mut impl Frame,
    packet: &mut Packet,
    tables: Tables<'_>,
    context: &Context<'_>,
) -> Option<u16> {
    let policies = &context.snapshot.policies;
    if !is_plain(packet)
        || packet.role != Role::Tunnel
        || (policies.clamp_mss && packet.layout.event & tcp::SYN != 0)
    {
        return None;
    }
    let destination = tables.destinations.get(packet.destination as usize)?;
    let tunnel = destination.tunnel.as_deref()?;
    let hop = tables.hops.get(destination.next_hop as usize)?;
    let (ip_len, mtu) = (packet.layout.ip_len(), tunnel.outer_mtu(hop.mtu, context.now));
    if mtu < LEAST_V4 + ADDED || ip_len > mtu - ADDED {
        return None;
    }
    let counters = tables.counters.get(packet.destination as usize)?;
    if !wrap(frame, (tunnel, hop), packet.layout.end, policies.pmtu_disc) {
        return None;
    }
    counters.count(false, ip_len);
    packet.verdict = Verdict::Forward(hop.port);
    Some(hop.port)
}

/// Puts the outer header in front of a packet that ends at `end`, and the addresses of the hop before it; false, and no
/// change, if it must not live on, there is no room, or the neighbour is not known. Not inlined: it needs the registers.
#[inline(never)]
fn wrap(frame: &mut impl Frame, (tunnel, hop): (&Tunnel, &NextHop), end: u16, pmtu_disc: bool) -> bool {
    // Ethernet header, IPv4 header up to its addresses.
    let Some(bytes) = frame.data().first_chunk::<26>() else { return false };
    let (tos, flags, ttl) = (bytes[15], bytes[20], bytes[22]);
    let (Some(template), Some(mac)) = (tunnel.template.as_ref(), hop.cell.mac_word()) else { return false };
    if ttl <= 1 || frame.headroom() < usize::from(ADDED) {
        return false;
    }
    frame.truncate(usize::from(end));
    frame.prepend(usize::from(ADDED));
    // Another IPv4 header between.
    let Some(bytes) = frame.data_mut().first_chunk_mut::<46>() else { return false };
    let dont_fragment = pmtu_disc && flags & (ipv4::DONT_FRAGMENT >> 8) as u8 != 0;
    let outer_len = end - ethernet::HEADER_LEN as u16 + ADDED;
    let (first, second, third) =
        template.header(outer_class(tos), outer_len, tunnel.marks(dont_fragment), ttl - 1);
    let (head, inner) = bytes.split_at_mut(34);
    if let Some(inner) = inner.first_chunk_mut() {
        checksum::lower_ttl(inner);
    }
    if let Some(addresses) = head.first_chunk_mut() {
        ethernet::set_words(addresses, mac, hop.source);
    }
    head[12..14].copy_from_slice(&ethernet::IPV4.to_be_bytes());
    head[14..22].copy_from_slice(&first.to_le_bytes());
    head[22..26].copy_from_slice(&second.to_le_bytes());
    head[26..34].copy_from_slice(&third.to_le_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_of_words_is_that_written_field_by_field(
            (source, destination) in (any::<u32>(), any::<u32>()),
            (tos, total_len, ttl) in (any::<u8>(), any::<u16>(), any::<u8>()),
            (identification, fragment) in (any::<u16>(), any::<u16>()),
        ) {
            let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
            let mut expected = [0; 20];
            let protocol = protocol::IPIP;
            let fields = ipv4::Fields {
                tos, total_len, identification, fragment, ttl, protocol, source, destination,
            };
            ipv4::write(&mut expected, &fields);
            let template = Template::new(source, destination);
            let (first, second, third) = template.header(tos, total_len, (identification, fragment), ttl);
            let header = [&first.to_le_bytes()[..], &second.to_le_bytes(), &third.to_le_bytes()].concat();
            prop_assert_eq!(&header, &expected);
        }
    }
}
