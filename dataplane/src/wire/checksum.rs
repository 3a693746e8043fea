//! The Internet checksum: RFC 1071; its incremental update: RFC 1624; pseudo-headers: RFC 9293 section 3.1 and RFC 8200
//! section 8.1.
//!
//! A *sum* here is a one's complement sum of big-endian 16-bit words in a `u32`, folded or not; sums of parts are added
//! with `+` (parts but the last must be of even length), then [`fold`] and `!` give the checksum.

use super::{chunk, chunk_mut};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The sum of `bytes`, at most 0xffff. A last odd byte is the high half of a word.
#[inline]
pub fn sum(bytes: &[u8]) -> u32 {
    // The sum does not depend on byte order (RFC 1071 section 2.B), so that it is made of native words, eight bytes a
    // step: the carries of their halves gather in the upper half of the accumulators.
    let (mut low, mut high) = (0u64, 0u64);
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let word = u64::from_ne_bytes(*eight);
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    let mut total = low + high;
    let (twos, last) = rest.as_chunks::<2>();
    for two in twos {
        total += u64::from(u16::from_ne_bytes(*two));
    }
    if let [byte] = last {
        total += u64::from(u16::from_ne_bytes([*byte, 0]));
    }
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 32) + (total & 0xffff_ffff);
    u32::from(u16::from_be(fold(total as u32)))
}

/// Brings the carries of a sum back in.
#[inline]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    (sum + (sum >> 16)) as u16
}

/// The checksum of `bytes`, in which its own field must be 0.
#[inline]
pub fn of(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// Whether `header`, an IPv4 header with its options and nothing more, has the right checksum.
#[inline]
pub fn ipv4_header_ok(header: &[u8]) -> bool {
    if header.len() == 20 {
        // Nearly always: five words, no loop.
        let Some(h) = chunk::<20>(header, 0) else {
            return false;
        };
        let word = |at: usize| u64::from(u32::from_ne_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]));
        let total = word(0) + word(4) + word(8) + word(12) + word(16);
        let total = (total >> 32) + (total & 0xffff_ffff);
        let total = (total >> 32) + (total & 0xffff_ffff);
        return fold(total as u32) == 0xffff;
    }
    fold(sum(header)) == 0xffff
}

/// The sum of the pseudo-header of a transport packet of `len` bytes over IPv4.
#[inline]
pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u16) -> u32 {
    let [source, destination] = [source.to_bits(), destination.to_bits()];
    halves(source) + halves(destination) + u32::from(protocol) + u32::from(len)
}

/// The sum of the pseudo-header of a transport packet of `len` bytes over IPv6.
#[inline]
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: u32) -> u32 {
    sum(&source.octets()) + sum(&destination.octets()) + u32::from(protocol) + halves(len)
}

/// Whether a transport packet with this pseudo-header has the right checksum.
#[inline]
pub fn transport_ok(pseudo: u32, packet: &[u8]) -> bool {
    fold(pseudo + sum(packet)) == 0xffff
}

/// The checksum `old_sum` after one 16-bit word of what it covers has changed: `~(~HC + ~m + m')` (RFC 1624 equation 3).
#[inline]
pub const fn update16(old_sum: u16, old: u16, new: u16) -> u16 {
    !fold(!old_sum as u32 + !old as u32 + new as u32)
}

/// The same for a 32-bit word at an even offset.
#[inline]
pub const fn update32(old_sum: u16, old: u32, new: u32) -> u16 {
    !fold(!old_sum as u32 + halves(!old) + halves(new))
}

/// Takes one off the TTL of an IPv4 header and corrects the checksum. False, and no change, if the TTL is 0 or the
/// header is cut off.
#[inline]
pub fn decrement_ttl(header: &mut [u8]) -> bool {
    let Some(h) = chunk_mut::<12>(header, 0) else {
        return false;
    };
    if h[8] == 0 {
        return false;
    }
    lower_ttl(h);
    true
}

/// [`decrement_ttl`] of the start of a header whose TTL is not 0.
#[inline(always)]
pub fn lower_ttl(h: &mut [u8; 12]) {
    // Equation 3, the bytes swapped, in which order the TTL is the low half of its word: ~HC + 0xfffe folded, and its
    // complement. That is HC + 1 with the carry brought in, and with one more where it would be 0xffff.
    let sum = u32::from(u16::from_le_bytes([h[10], h[11]])) + 1;
    let sum = sum + u32::from(sum >= 0xffff);
    h[8] = h[8].wrapping_sub(1);
    [h[10], h[11]] = (sum as u16).to_le_bytes();
}

#[inline(always)]
const fn halves(word: u32) -> u32 {
    (word >> 16) + (word & 0xffff)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wire::be16;
    use proptest::prelude::*;

    /// RFC 1071 section 4.1, a word at a time: what everything else is compared with.
    pub(crate) fn slow(bytes: &[u8]) -> u16 {
        let mut total: u64 = 0;
        for pair in bytes.chunks(2) {
            total += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while total > 0xffff {
            total = (total >> 16) + (total & 0xffff);
        }
        total as u16
    }

    #[test]
    fn the_sum_of_the_example_of_rfc_1071_is_ddf2() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
        assert_eq!(fold(sum(&[])), 0);
        assert_eq!(fold(sum(&[0xab])), 0xab00);
    }

    #[test]
    fn the_update_of_the_example_of_rfc_1624_is_zero() {
        // RFC 1624 section 4: 0xDD2F with 0x5555 replaced by 0x3285 gives 0x0000 by equation 3, where equation 2 gives
        // 0xffff.
        assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
        assert_eq!(update32(0xdd2f, 0x5555_0000, 0x3285_0000), 0x0000);
    }

    #[test]
    fn pseudo_headers_sum_as_their_bytes() {
        let source = Ipv4Addr::new(10, 0, 0, 2);
        let destination = Ipv4Addr::new(203, 0, 113, 255);
        let bytes = [10, 0, 0, 2, 203, 0, 113, 255, 0, 17, 0x12, 0x34];
        assert_eq!(fold(pseudo_v4(source, destination, 17, 0x1234)), slow(&bytes));
        let (source, destination): (Ipv6Addr, Ipv6Addr) =
            ("fd00:1::2".parse().unwrap(), "ff02::1".parse().unwrap());
        let mut bytes = [source.octets(), destination.octets()].concat();
        bytes.extend([0, 1, 0x23, 0x45, 0, 0, 0, 58]);
        assert_eq!(fold(pseudo_v6(source, destination, 58, 0x12345)), slow(&bytes));
    }

    #[test]
    fn a_ttl_of_zero_is_left_alone() {
        let mut header = *b"\x45\0\0\x73\0\0\x40\0\0\x11\xb8\x61\xc0\xa8\0\x01\xc0\xa8\0\xc7";
        let before = header;
        assert!(!decrement_ttl(&mut header) && header == before);
        assert!(!decrement_ttl(&mut [64; 11]));
    }

    proptest! {
        #[test]
        fn the_fast_sum_is_the_slow_sum(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(fold(sum(&bytes)), slow(&bytes));
        }

        #[test]
        fn an_update_is_a_recomputation(mut bytes in proptest::collection::vec(any::<u8>(), 20..60), at in 0usize..9, new: u16) {
            bytes.truncate(bytes.len() & !1);
            // All words zero is the one case in which 0 and 0xffff differ; no header is all zero.
            bytes[18] = 1;
            let before = !slow(&bytes);
            let old = u16::from_be_bytes([bytes[2 * at], bytes[2 * at + 1]]);
            bytes[2 * at..2 * at + 2].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update16(before, old, new), !slow(&bytes));
        }

        #[test]
        fn a_wide_update_is_two_narrow_ones(sum: u16, old: u32, new: u32) {
            let narrow = update16(update16(sum, (old >> 16) as u16, (new >> 16) as u16), old as u16, new as u16);
            // 0 and 0xffff are the same number to whoever verifies.
            prop_assert_eq!(u32::from(update32(sum, old, new)) % 0xffff, u32::from(narrow) % 0xffff);
        }

        #[test]
        fn a_decremented_ttl_is_a_recomputation(mut header: [u8; 20], ttl in 1u8..=255) {
            header[0] = 0x45;
            header[8] = ttl;
            header[10..12].copy_from_slice(&[0, 0]);
            let before = !slow(&header);
            header[10..12].copy_from_slice(&before.to_be_bytes());
            prop_assert!(ipv4_header_ok(&header));
            let equation3 = update16(before, be16(&header, 8), be16(&header, 8) - 0x100);
            prop_assert!(decrement_ttl(&mut header));
            prop_assert_eq!(header[8], ttl - 1);
            prop_assert_eq!(be16(&header, 10), equation3);
            prop_assert_eq!(slow(&header), 0xffff);
            prop_assert!(ipv4_header_ok(&header));
        }

        #[test]
        fn a_damaged_header_is_found(mut header: [u8; 20], byte in 0usize..20, bit in 0u8..8) {
            header[10..12].copy_from_slice(&[0, 0]);
            let checksum = of(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            header[byte] ^= 1 << bit;
            prop_assert!(!ipv4_header_ok(&header));
            let options = [&header[..], &[0; 4]].concat();
            prop_assert!(!ipv4_header_ok(&options));
        }
    }
}
