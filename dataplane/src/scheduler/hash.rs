//! How hash schedulers hash: the functions of the original, whose results decide which server a client meets.

use std::net::IpAddr;

/// An address as one word: IPv4 as the number that it is, IPv6 as the exclusive or of its four words.
#[inline]
pub(super) fn word(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32
        }
    }
}

/// One of 256 places: the top byte of the product with the golden ratio.
#[inline]
pub(super) fn place(word: u32) -> u32 {
    word.wrapping_mul(0x61c8_8647) >> 24
}

/// SipHash-1-3 of one word, little-endian, with a key of twice the same word; the low half of the result.
pub(super) fn sip(word: u32, key: u64) -> u32 {
    let mut v = Sip([
        key ^ 0x736f_6d65_7073_6575,
        key ^ 0x646f_7261_6e64_6f6d,
        key ^ 0x6c79_6765_6e65_7261,
        key ^ 0x7465_6462_7974_6573,
    ]);
    // The message is shorter than a block: the block ends with its length, 4.
    let block = 4 << 56 | u64::from(word);
    v.0[3] ^= block;
    v.round();
    v.0[0] ^= block;
    v.0[2] ^= 0xff;
    (0..3).for_each(|_| v.round());
    (v.0[0] ^ v.0[1] ^ v.0[2] ^ v.0[3]) as u32
}

struct Sip([u64; 4]);

impl Sip {
    #[inline(always)]
    fn round(&mut self) {
        let [a, b, c, d] = &mut self.0;
        *a = a.wrapping_add(*b);
        *c = c.wrapping_add(*d);
        *b = b.rotate_left(13) ^ *a;
        *d = d.rotate_left(16) ^ *c;
        *a = a.rotate_left(32).wrapping_add(*d);
        *c = c.wrapping_add(*b);
        *d = d.rotate_left(21) ^ *a;
        *b = b.rotate_left(17) ^ *c;
        *c = c.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hasher;

    #[test]
    fn addresses_have_the_places_that_were_measured() {
        let measured = [("10.0.0.1", 39), ("10.0.0.2", 137), ("192.168.1.10", 248), ("203.0.113.7", 124)];
        for (address, slot) in measured {
            assert_eq!(place(word(address.parse().unwrap())), slot, "{address}");
        }
    }

    #[test]
    fn an_ipv6_address_counts_as_the_exclusive_or_of_its_words() {
        assert_eq!(word("2001:db8::a:0:1".parse().unwrap()), 0x2001_0db8 ^ 0x000a ^ 0x0000_0001);
    }

    #[test]
    fn the_sip_hash_of_an_address_is_the_measured_one() {
        assert_eq!(sip(word("10.0.0.1".parse().unwrap()), 2_654_435_761), 0x0308_0ce4);
    }

    #[test]
    fn the_sip_hash_is_that_of_the_standard_library() {
        for n in [0u32, 1, 0x8000_0000, 0xdead_beef, u32::MAX] {
            // SipHash-1-3 with a key of zeros.
            let mut hasher = std::collections::hash_map::DefaultHasher::new();
            hasher.write(&n.to_le_bytes());
            assert_eq!(sip(n, 0), hasher.finish() as u32);
        }
    }
}
