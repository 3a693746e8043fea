//! ARP for IPv4 over Ethernet: RFC 826; announcements: RFC 5227.

use super::be16;
use std::net::Ipv4Addr;

/// Bytes of a message.
pub const LEN: usize = 28;
/// Operation: who has the target address?
pub const REQUEST: u16 = 1;
/// Operation: I have the sender address.
pub const REPLY: u16 = 2;

/// Hardware type Ethernet, protocol IPv4, lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// A message.
#[derive(Clone, Copy, Debug)]
pub struct Arp<'a> {
    fixed: &'a [u8; LEN],
}

impl<'a> Arp<'a> {
    /// The message behind the Ethernet header and tags. `None` if it is cut off.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { fixed: bytes.first_chunk()? })
    }

    /// Whether it is about IPv4 over Ethernet; else the addresses below mean nothing.
    #[inline]
    pub fn is_ethernet_ipv4(&self) -> bool {
        self.fixed.starts_with(&ETHERNET_IPV4)
    }

    /// [`REQUEST`], [`REPLY`] or another.
    #[inline]
    pub fn operation(&self) -> u16 {
        be16(self.fixed, 6)
    }

    /// Of the one who sent the message.
    #[inline]
    pub fn sender_mac(&self) -> [u8; 6] {
        self.mac(8)
    }

    /// 0.0.0.0 when the sender only probes (RFC 5227).
    #[inline]
    pub fn sender_ip(&self) -> Ipv4Addr {
        self.ip(14)
    }

    /// Of no meaning in a request.
    #[inline]
    pub fn target_mac(&self) -> [u8; 6] {
        self.mac(18)
    }

    /// The address that is asked for, or answered to.
    #[inline]
    pub fn target_ip(&self) -> Ipv4Addr {
        self.ip(24)
    }

    #[inline(always)]
    fn mac(&self, at: usize) -> [u8; 6] {
        let b = self.fixed;
        [b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4], b[at + 5]]
    }

    #[inline(always)]
    fn ip(&self, at: usize) -> Ipv4Addr {
        let b = self.fixed;
        Ipv4Addr::new(b[at], b[at + 1], b[at + 2], b[at + 3])
    }
}

/// A message about IPv4 over Ethernet. `sender` and `target` are a MAC and an IP address each.
#[inline]
pub fn message(operation: u16, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> [u8; LEN] {
    let mut m = [0; LEN];
    m[..6].copy_from_slice(&ETHERNET_IPV4);
    m[6..8].copy_from_slice(&operation.to_be_bytes());
    m[8..14].copy_from_slice(&sender.0);
    m[14..18].copy_from_slice(&sender.1.octets());
    m[18..24].copy_from_slice(&target.0);
    m[24..28].copy_from_slice(&target.1.octets());
    m
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_as_written() {
        let sender = ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 0, 0, 2));
        let bytes = message(REQUEST, sender, ([0; 6], Ipv4Addr::new(10, 0, 0, 100)));
        assert_eq!(&bytes, b"\0\x01\x08\0\x06\x04\0\x01\x02\0\0\0\0\x01\x0a\0\0\x02\0\0\0\0\0\0\x0a\0\0\x64");
        let view = Arp::new(&bytes).expect("28 bytes");
        assert!(view.is_ethernet_ipv4());
        assert_eq!((view.operation(), view.sender_mac(), view.sender_ip()), (1, sender.0, sender.1));
        assert_eq!((view.target_mac(), view.target_ip()), ([0; 6], Ipv4Addr::new(10, 0, 0, 100)));
        assert!(Arp::new(&bytes[..27]).is_none());
    }
}
