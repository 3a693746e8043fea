//! IPv4: RFC 791.

use super::{be16, chunk_mut};
use std::net::Ipv4Addr;

/// Bytes of the header without options.
pub const HEADER_LEN: usize = 20;
/// Flag "don't fragment" in the word of the fragment offset.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// Flag "more fragments" in that word.
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// A packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    fixed: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// `bytes` may be longer than the packet: Ethernet pads. `None` if it is shorter than the header without options.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { fixed: bytes.first_chunk()?, bytes })
    }

    /// Whether the version is 4 and header, packet and bytes are of lengths that can be.
    #[inline]
    pub fn is_consistent(&self) -> bool {
        let total = usize::from(self.total_len());
        self.fixed[0] >> 4 == 4
            && self.header_len() >= HEADER_LEN
            && self.header_len() <= total
            && total <= self.bytes.len()
    }

    /// With options, in bytes: 0..=60, of which those below 20 cannot be.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.fixed[0] & 0x0f) * 4
    }

    /// Differentiated services and ECN.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.fixed[1]
    }

    /// Of header and payload, in bytes.
    #[inline]
    pub fn total_len(&self) -> u16 {
        be16(self.fixed, 2)
    }

    /// Tells the fragments of one packet from those of another.
    #[inline]
    pub fn identification(&self) -> u16 {
        be16(self.fixed, 4)
    }

    /// Whether routers may not fragment it.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        be16(self.fixed, 6) & DONT_FRAGMENT != 0
    }

    /// Whether it is a part of a larger packet.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        be16(self.fixed, 6) & 0x3fff != 0
    }

    /// Whether it is such a part but not the first, so that no transport header follows.
    #[inline]
    pub fn is_later_fragment(&self) -> bool {
        be16(self.fixed, 6) & 0x1fff != 0
    }

    /// Where its data begins in the larger packet, in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> u16 {
        (be16(self.fixed, 6) & 0x1fff) * 8
    }

    /// Whether parts of the larger packet follow.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        be16(self.fixed, 6) & MORE_FRAGMENTS != 0
    }

    /// Routers that it may still pass.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.fixed[8]
    }

    /// See [`super::protocol`].
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.fixed[9]
    }

    /// Of the header.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.fixed, 10)
    }

    /// Who sent it.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        let b = self.fixed;
        Ipv4Addr::new(b[12], b[13], b[14], b[15])
    }

    /// Who is to get it.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        let b = self.fixed;
        Ipv4Addr::new(b[16], b[17], b[18], b[19])
    }

    /// The header with options, as far as there are bytes.
    #[inline]
    pub fn header(&self) -> &'a [u8] {
        &self.bytes[..self.header_len().min(self.bytes.len())]
    }

    /// Header and payload without padding, as far as there are bytes.
    #[inline]
    pub fn packet(&self) -> &'a [u8] {
        &self.bytes[..usize::from(self.total_len()).min(self.bytes.len())]
    }

    /// What follows the header, without padding; empty if the header is not consistent.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.packet().get(self.header_len()..).unwrap_or_default()
    }
}

/// Writes a header of 20 bytes with a right checksum at the front of `bytes`. False, and no change, if they are fewer.
/// `fragment` is the word of flags and offset, `total_len` counts the header.
#[inline]
pub fn write(bytes: &mut [u8], fields: &Fields) -> bool {
    let Some(h) = chunk_mut::<HEADER_LEN>(bytes, 0) else {
        return false;
    };
    h[0] = 0x45;
    h[1] = fields.tos;
    h[2..4].copy_from_slice(&fields.total_len.to_be_bytes());
    h[4..6].copy_from_slice(&fields.identification.to_be_bytes());
    h[6..8].copy_from_slice(&fields.fragment.to_be_bytes());
    h[8] = fields.ttl;
    h[9] = fields.protocol;
    h[10..12].copy_from_slice(&[0, 0]);
    h[12..16].copy_from_slice(&fields.source.octets());
    h[16..20].copy_from_slice(&fields.destination.octets());
    let checksum = super::checksum::of(h);
    h[10..12].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// What [`write()`] writes.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// Differentiated services and ECN.
    pub tos: u8,
    /// Of header and payload, in bytes.
    pub total_len: u16,
    /// See [`Ipv4::identification`].
    pub identification: u16,
    /// [`DONT_FRAGMENT`] or 0, most often.
    pub fragment: u16,
    /// Routers that it may pass.
    pub ttl: u8,
    /// See [`super::protocol`].
    pub protocol: u8,
    /// Who sends it.
    pub source: Ipv4Addr,
    /// Who is to get it.
    pub destination: Ipv4Addr,
}

/// Sets the destination and corrects the header's checksum. False, and no change, if the header is cut off.
#[inline]
pub fn set_destination(bytes: &mut [u8], destination: Ipv4Addr) -> bool {
    set_address(bytes, 16, destination)
}

/// Sets the source and corrects the header's checksum. False, and no change, if the header is cut off.
#[inline]
pub fn set_source(bytes: &mut [u8], source: Ipv4Addr) -> bool {
    set_address(bytes, 12, source)
}

#[inline(always)]
fn set_address(bytes: &mut [u8], at: usize, address: Ipv4Addr) -> bool {
    let Some(h) = chunk_mut::<HEADER_LEN>(bytes, 0) else {
        return false;
    };
    let sum = super::checksum::update32(be16(h, 10), super::be32(h, at), address.to_bits());
    h[at..at + 4].copy_from_slice(&address.octets());
    h[10..12].copy_from_slice(&sum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The well-known worked example: 192.168.0.1 to 192.168.0.199, UDP, checksum 0xb861.
    const EXAMPLE: &[u8; 20] = b"\x45\0\0\x73\0\0\x40\0\x40\x11\xb8\x61\xc0\xa8\0\x01\xc0\xa8\0\xc7";

    #[test]
    fn a_header_reads_and_writes_as_the_example() {
        let padded = [&EXAMPLE[..], &[7; 100]].concat();
        let view = Ipv4::new(&padded).expect("20 bytes");
        assert!(view.is_consistent() && view.dont_fragment() && !view.is_fragment());
        assert_eq!((view.header_len(), view.total_len(), view.ttl(), view.protocol()), (20, 115, 64, 17));
        assert_eq!((view.packet().len(), view.payload().len(), view.header()), (115, 95, &EXAMPLE[..]));
        assert_eq!(view.checksum(), 0xb861);
        let mut written = [0xee; 20];
        let fields = Fields {
            tos: 0,
            total_len: 115,
            identification: 0,
            fragment: DONT_FRAGMENT,
            ttl: 64,
            protocol: 17,
            source: Ipv4Addr::new(192, 168, 0, 1),
            destination: Ipv4Addr::new(192, 168, 0, 199),
        };
        assert!(write(&mut written, &fields));
        assert_eq!(&written, EXAMPLE);
        assert!(!write(&mut written[..19], &fields));
    }

    #[test]
    fn lengths_and_versions_that_cannot_be_are_inconsistent() {
        for (at, value, what) in [
            (0, 0x65, "version 6"),
            (0, 0x44, "a header of 16 bytes"),
            (0, 0x4f, "a header longer than the packet"),
            (3, 19, "a packet shorter than its header"),
            (3, 21, "a packet longer than the bytes"),
        ] {
            let mut bytes = *EXAMPLE;
            bytes[3] = 20;
            assert!(Ipv4::new(&bytes).expect("20 bytes").is_consistent());
            bytes[at] = value;
            assert!(!Ipv4::new(&bytes).expect("20 bytes").is_consistent(), "{what}");
        }
    }

    #[test]
    fn fragments_are_told_by_offset_and_flag() {
        for (word, fragment, later, offset, more) in [
            (0x4000u16, false, false, 0, false),
            (0x2000, true, false, 0, true),
            (0x0001, true, true, 8, false),
            (0x2007, true, true, 56, true),
            (0x1fff, true, true, 65_528, false),
        ] {
            let mut bytes = *EXAMPLE;
            bytes[6..8].copy_from_slice(&word.to_be_bytes());
            let view = Ipv4::new(&bytes).expect("20 bytes");
            assert_eq!((view.is_fragment(), view.is_later_fragment()), (fragment, later), "{word:04x}");
            assert_eq!((view.fragment_offset(), view.more_fragments()), (offset, more), "{word:04x}");
        }
    }

    #[test]
    fn a_changed_address_keeps_the_checksum_right() {
        let mut bytes = *EXAMPLE;
        assert!(set_destination(&mut bytes, Ipv4Addr::new(10, 1, 2, 3)));
        assert!(set_source(&mut bytes, Ipv4Addr::new(203, 0, 113, 9)));
        assert!(super::super::checksum::ipv4_header_ok(&bytes));
        let view = Ipv4::new(&bytes).expect("20 bytes");
        assert_eq!(view.destination(), Ipv4Addr::new(10, 1, 2, 3));
        assert_eq!(view.source(), Ipv4Addr::new(203, 0, 113, 9));
    }
}
