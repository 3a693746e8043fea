//! IPv6 and its extension headers: RFC 8200; their order and formats: RFC 8200 section 4, RFC 6564.

use super::{be16, be32, chunk, chunk_mut, protocol};
use crate::limits::MAX_EXTENSION_HEADERS;
use std::net::Ipv6Addr;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

/// A packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    fixed: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
}

impl<'a> Ipv6<'a> {
    /// `bytes` may be longer than the packet: Ethernet pads. `None` if it is shorter than the fixed header.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { fixed: bytes.first_chunk()?, bytes })
    }

    /// Whether the version is 6 and the packet is no longer than the bytes.
    #[inline]
    pub fn is_consistent(&self) -> bool {
        self.fixed[0] >> 4 == 6 && HEADER_LEN + usize::from(self.payload_len()) <= self.bytes.len()
    }

    /// Differentiated services and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (be16(self.fixed, 0) >> 4) as u8
    }

    /// 20 bits.
    #[inline]
    pub fn flow_label(&self) -> u32 {
        be32(self.fixed, 0) & 0x000f_ffff
    }

    /// Of all that follows the fixed header, in bytes.
    #[inline]
    pub fn payload_len(&self) -> u16 {
        be16(self.fixed, 4)
    }

    /// What follows the fixed header; see [`super::protocol`].
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.fixed[6]
    }

    /// Routers that it may still pass.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.fixed[7]
    }

    /// Who sent it.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        self.address(8)
    }

    /// Who is to get it.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        self.address(24)
    }

    /// Header and payload without padding, as far as there are bytes.
    #[inline]
    pub fn packet(&self) -> &'a [u8] {
        &self.bytes[..(HEADER_LEN + usize::from(self.payload_len())).min(self.bytes.len())]
    }

    /// The transport header behind the extension headers; see [`walk`].
    #[inline]
    pub fn upper_layer(&self) -> Result<UpperLayer, BrokenExtensions> {
        walk(self.packet(), self.next_header())
    }

    #[inline(always)]
    fn address(&self, at: usize) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.fixed[at..at + 16]);
        Ipv6Addr::from(octets)
    }
}

/// What the chain of extension headers leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperLayer {
    /// The first next header value that is no extension header that can be walked: a transport protocol, ESP, or 59 (none).
    pub protocol: u8,
    /// Its offset from the start of the fixed header. Of no use in a fragment that is not the first.
    pub offset: usize,
    /// The offset of the byte that names the protocol.
    pub named_at: usize,
    /// The fragment header, if there is one. In a fragment that is not the first, the walk ends there.
    pub fragment: Option<Fragment>,
}

/// A fragment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Of this part in the whole, in bytes.
    pub offset: u16,
    /// Whether more parts follow.
    pub more: bool,
    /// Tells the fragments of one packet from those of another.
    pub identification: u32,
    /// Offset of what follows the fragment header, from the start of the fixed header.
    pub data: usize,
}

impl Fragment {
    /// Whether the one part is the whole packet (RFC 6946).
    pub fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// The chain of extension headers is cut off, too long, or not in an order that can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chain of IPv6 extension headers is broken or longer than {MAX_EXTENSION_HEADERS}")]
pub struct BrokenExtensions;

/// Walks the extension headers of `packet` (from the fixed header on), the first of which is `next`; at most
/// [`MAX_EXTENSION_HEADERS`].
#[inline]
pub fn walk(packet: &[u8], next: u8) -> Result<UpperLayer, BrokenExtensions> {
    let end = UpperLayer { protocol: next, offset: HEADER_LEN, named_at: 6, fragment: None };
    if matches!(next, protocol::TCP | protocol::UDP | protocol::ICMPV6) {
        return Ok(end);
    }
    walk_extensions(packet, end)
}

fn walk_extensions(packet: &[u8], mut end: UpperLayer) -> Result<UpperLayer, BrokenExtensions> {
    for walked in 0..=MAX_EXTENSION_HEADERS {
        let length = match end.protocol {
            // Hop-by-hop options may only come first (RFC 8200 section 4.1).
            protocol::HOP_BY_HOP if walked > 0 => return Err(BrokenExtensions),
            protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6 => |field: u8| (usize::from(field) + 1) * 8,
            protocol::AH => |field: u8| (usize::from(field) + 2) * 4,
            protocol::FRAGMENT => |_: u8| 8,
            _ => return Ok(end),
        };
        if walked == MAX_EXTENSION_HEADERS {
            break;
        }
        let header = chunk::<8>(packet, end.offset).ok_or(BrokenExtensions)?;
        end.named_at = end.offset;
        if end.protocol == protocol::FRAGMENT {
            let fragment = Fragment {
                offset: be16(header, 2) & 0xfff8,
                more: header[3] & 1 != 0,
                identification: be32(header, 4),
                data: end.offset + 8,
            };
            end.fragment = Some(fragment);
            if fragment.offset != 0 {
                end.protocol = header[0];
                end.offset += 8;
                return Ok(end);
            }
        }
        end.offset += length(header[1]);
        end.protocol = header[0];
        if end.offset > packet.len() {
            return Err(BrokenExtensions);
        }
    }
    Err(BrokenExtensions)
}

/// Writes a fixed header (flow label 0) at the front of `bytes`. False, and no change, if they are fewer than 40.
#[inline]
pub fn write(bytes: &mut [u8], fields: &Fields) -> bool {
    let Some(h) = chunk_mut::<HEADER_LEN>(bytes, 0) else {
        return false;
    };
    h[0] = 0x60 | fields.traffic_class >> 4;
    h[1] = fields.traffic_class << 4;
    h[2..4].copy_from_slice(&[0, 0]);
    h[4..6].copy_from_slice(&fields.payload_len.to_be_bytes());
    h[6] = fields.next_header;
    h[7] = fields.hop_limit;
    h[8..24].copy_from_slice(&fields.source.octets());
    h[24..40].copy_from_slice(&fields.destination.octets());
    true
}

/// What [`write()`] writes.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// Differentiated services and ECN.
    pub traffic_class: u8,
    /// Of what follows the header, in bytes.
    pub payload_len: u16,
    /// See [`super::protocol`].
    pub next_header: u8,
    /// Routers that it may pass.
    pub hop_limit: u8,
    /// Who sends it.
    pub source: Ipv6Addr,
    /// Who is to get it.
    pub destination: Ipv6Addr,
}

/// Takes one off the hop limit. False, and no change, if it is 0 or the header is cut off.
#[inline]
pub fn decrement_hop_limit(bytes: &mut [u8]) -> bool {
    match bytes.get_mut(7) {
        Some(limit) if *limit > 0 => {
            *limit -= 1;
            true
        }
        _ => false,
    }
}

/// The multicast group that is asked for the MAC address of `address` (RFC 4291 section 2.7.1).
#[inline]
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let o = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | o[13] as u16, (o[14] as u16) << 8 | o[15] as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        let fields = Fields {
            traffic_class: 0xb8,
            payload_len: rest.len() as u16,
            next_header: next,
            hop_limit: 64,
            source: "fd00:1::2".parse().expect("literal"),
            destination: "fd00:1::100".parse().expect("literal"),
        };
        assert!(write(&mut bytes, &fields));
        bytes.extend_from_slice(rest);
        bytes
    }

    fn walked(next: u8, rest: &[u8]) -> Result<(u8, usize), BrokenExtensions> {
        let bytes = packet(next, rest);
        let view = Ipv6::new(&bytes).expect("40 bytes");
        view.upper_layer().map(|u| (u.protocol, u.offset))
    }

    #[test]
    fn a_header_reads_as_written() {
        let mut bytes = packet(6, &[1, 2, 3]);
        assert_eq!(bytes[..8], [0x6b, 0x80, 0, 0, 0, 3, 6, 64]);
        bytes.push(0xff);
        let view = Ipv6::new(&bytes).expect("40 bytes");
        assert!(view.is_consistent());
        assert_eq!((view.traffic_class(), view.flow_label(), view.hop_limit()), (0xb8, 0, 64));
        assert_eq!((view.payload_len(), view.next_header(), view.packet().len()), (3, 6, 43));
        assert_eq!(view.destination(), "fd00:1::100".parse::<Ipv6Addr>().expect("literal"));
        assert!(!Ipv6::new(&bytes[..42]).expect("40 bytes").is_consistent());
        assert!(decrement_hop_limit(&mut bytes));
        assert_eq!(bytes[7], 63);
    }

    #[test]
    fn extension_headers_are_walked_to_the_transport_header() {
        assert_eq!(walked(6, &[]), Ok((6, 40)));
        // Hop-by-hop of 8 bytes, destination options of 16, routing of 8, then TCP.
        let chain =
            [[60, 0, 1, 4, 0, 0, 0, 0], [43, 1, 1, 4, 0, 0, 0, 0], [0; 8], [6, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(walked(0, &chain), Ok((6, 72)));
        // An authentication header of (4 + 2) * 4 = 24 bytes, then UDP.
        assert_eq!(walked(51, &[&[17, 4][..], &[0; 22]].concat()), Ok((17, 64)));
        assert_eq!(walked(59, &[]), Ok((59, 40)));
        assert_eq!(walked(50, &[1, 2, 3]), Ok((50, 40)));
    }

    #[test]
    fn a_broken_chain_is_refused() {
        assert_eq!(walked(60, &[6, 0, 0, 0, 0, 0, 0]), Err(BrokenExtensions), "cut off");
        assert_eq!(walked(60, &[6, 1, 0, 0, 0, 0, 0, 0]), Err(BrokenExtensions), "longer than the packet");
        assert_eq!(
            walked(60, &[0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]),
            Err(BrokenExtensions),
            "hop-by-hop late"
        );
        let eight = [60, 0, 0, 0, 0, 0, 0, 0].repeat(7);
        assert_eq!(walked(60, &[&eight[..], &[6, 0, 0, 0, 0, 0, 0, 0]].concat()), Ok((6, 104)));
        let nine = [60, 0, 0, 0, 0, 0, 0, 0].repeat(8);
        assert_eq!(
            walked(60, &[&nine[..], &[6, 0, 0, 0, 0, 0, 0, 0]].concat()),
            Err(BrokenExtensions),
            "nine of them"
        );
    }

    #[test]
    fn the_walk_ends_at_a_later_fragment() {
        let first = packet(44, &[60, 0, 0, 1, 0, 0, 0, 9, 6, 0, 0, 0, 0, 0, 0, 0]);
        let upper = Ipv6::new(&first).expect("40 bytes").upper_layer().expect("whole");
        assert_eq!((upper.protocol, upper.offset), (6, 56));
        assert_eq!(upper.fragment, Some(Fragment { offset: 0, more: true, identification: 9, data: 48 }));
        let later = packet(44, &[60, 0, 0x05, 0xa8, 0, 0, 0, 9, 6, 0xff, 0, 0, 0, 0, 0, 0]);
        let upper = Ipv6::new(&later).expect("40 bytes").upper_layer().expect("whole");
        assert_eq!((upper.protocol, upper.offset), (60, 48));
        assert_eq!(upper.fragment, Some(Fragment { offset: 1448, more: false, identification: 9, data: 48 }));
    }

    #[test]
    fn the_solicited_node_group_ends_as_the_address_does() {
        // The example of RFC 4291 section 2.7.1.
        let address: Ipv6Addr = "4037::1:800:200e:8c6c".parse().expect("literal");
        assert_eq!(solicited_node(address), "ff02::1:ff0e:8c6c".parse::<Ipv6Addr>().expect("literal"));
    }
}
