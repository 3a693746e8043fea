//! Ethernet II: IEEE 802.3 clause 3, RFC 894; multicast addresses of IPv6: RFC 2464 section 7.

use super::be16;
use std::net::Ipv6Addr;

/// Bytes of the header without tags.
pub const HEADER_LEN: usize = 14;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of a VLAN tag (IEEE 802.1Q).
pub const VLAN: u16 = 0x8100;
/// EtherType of the outer of two VLAN tags (IEEE 802.1ad).
pub const QINQ: u16 = 0x88a8;

/// To every station on the link.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// A frame.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<'a> {
    fixed: &'a [u8; HEADER_LEN],
}

impl<'a> Ethernet<'a> {
    /// `None` if the frame is shorter than the header.
    #[inline]
    pub fn new(frame: &'a [u8]) -> Option<Self> {
        Some(Self { fixed: frame.first_chunk()? })
    }

    /// Who is to take the frame.
    #[inline]
    pub fn destination(&self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = *self.fixed;
        [a, b, c, d, e, f]
    }

    /// Who sent it.
    #[inline]
    pub fn source(&self) -> [u8; 6] {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.fixed;
        [a, b, c, d, e, f]
    }

    /// What follows: a protocol, or a VLAN tag.
    #[inline]
    pub fn ethertype(&self) -> u16 {
        be16(self.fixed, 12)
    }
}

/// Whether a frame to this address is for more than one station; true of the broadcast address too.
#[inline]
pub const fn is_multicast(mac: [u8; 6]) -> bool {
    mac[0] & 1 != 0
}

/// Where frames to an IPv6 multicast address go: 33:33 and its last four bytes.
#[inline]
pub const fn ipv6_multicast(address: Ipv6Addr) -> [u8; 6] {
    let o = address.octets();
    [0x33, 0x33, o[12], o[13], o[14], o[15]]
}

/// Sets both addresses. False, and no change, if the frame is shorter than them.
#[inline]
pub fn set_addresses(frame: &mut [u8], destination: [u8; 6], source: [u8; 6]) -> bool {
    let Some(both) = frame.first_chunk_mut::<12>() else {
        return false;
    };
    set_words(both, word(destination), source);
    true
}

/// Sets both addresses, the destination given as [`word`] has it: two stores instead of twelve.
#[inline(always)]
pub fn set_words(both: &mut [u8; 12], destination: u64, source: [u8; 6]) {
    let [a, b, rest @ ..] = source;
    let first = destination | u64::from(u16::from_le_bytes([a, b])) << 48;
    both[..8].copy_from_slice(&first.to_le_bytes());
    both[8..].copy_from_slice(&rest);
}

/// An address as a number: its first byte is the lowest.
#[inline]
pub const fn word(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_as_written() {
        let mut frame = *b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\x06";
        let view = Ethernet::new(&frame).expect("14 bytes");
        assert_eq!(view.destination(), [2, 0, 0, 0, 0, 1]);
        assert_eq!(view.source(), [2, 0, 0, 0, 0, 2]);
        assert_eq!(view.ethertype(), ARP);
        assert!(set_addresses(&mut frame, BROADCAST, [2, 0, 0, 0, 0, 9]));
        assert_eq!(&frame, b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x09\x08\x06");
        assert!(Ethernet::new(&frame[..13]).is_none());
    }

    #[test]
    fn the_multicast_address_of_ipv6_keeps_the_last_four_bytes() {
        // RFC 2464: the low 32 bits of the group.
        let group: Ipv6Addr = "ff02::1:ff12:3456".parse().expect("literal");
        assert_eq!(ipv6_multicast(group), [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert!(is_multicast(ipv6_multicast(group)) && is_multicast(BROADCAST) && !is_multicast([2; 6]));
    }
}
