//! A network: an address and how many of its first bits count.

use std::{fmt, net::IpAddr};

/// A network of either family. The bits beyond the length are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// The network that `address` is in: its first `len` bits, at most 32 or 128 of them.
    pub fn new(address: IpAddr, len: u8) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let len = len.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                Self { address: IpAddr::V4((v4.to_bits() & mask).into()), len }
            }
            IpAddr::V6(v6) => {
                let len = len.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                Self { address: IpAddr::V6((v6.to_bits() & mask).into()), len }
            }
        }
    }

    /// The network of one address.
    pub fn host(address: IpAddr) -> Self {
        Self::new(address, if address.is_ipv6() { 128 } else { 32 })
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many of its bits count.
    #[allow(clippy::len_without_is_empty, reason = "the length of a prefix, which may be 0")]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// The address, if it is a network of one.
    pub fn single(&self) -> Option<IpAddr> {
        (*self == Self::host(self.address)).then_some(self.address)
    }

    /// Whether the address is in it. None is in a network of the other family.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return false,
        };
        same >= u32::from(self.len)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, len) = text.split_once('/').unwrap();
        Prefix::new(address.parse().unwrap(), len.parse().unwrap())
    }

    #[test]
    fn an_address_is_in_a_network_if_its_first_bits_are_the_networks() {
        for (network, address, inside) in [
            ("10.9.7.1/24", "10.9.7.255", true),
            ("10.9.7.1/24", "10.9.8.0", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("10.0.0.1/32", "10.0.0.1", true),
            ("10.0.0.1/32", "10.0.0.0", false),
            ("fd00:1::7/64", "fd00:1::ffff:0:0:1", true),
            ("fd00:1::7/64", "fd00:1:0:1::", false),
            ("::/0", "fd00::1", true),
        ] {
            assert_eq!(prefix(network).contains(address.parse().unwrap()), inside, "{address} in {network}");
        }
    }

    #[test]
    fn bits_beyond_the_length_do_not_count() {
        assert_eq!(prefix("10.9.7.129/24"), prefix("10.9.7.0/24"));
        assert_eq!(prefix("fd00:1::7/48").to_string(), "fd00:1::/48");
        assert_eq!(prefix("10.0.0.1/200").single(), Some([10, 0, 0, 1].into()));
        assert_eq!(prefix("10.0.0.0/31").single(), None);
    }
}
