//! Headers as they are on the wire: one file per header.
//!
//! Each file has a *view*: a borrow of bytes whose `new` fails only when the fixed part of the header is cut off, so
//! that every accessor after it is a plain load. A view does not judge what the header says; where a header can
//! contradict itself, `is_consistent` says so. Setters are free functions over the bytes that follow the view. No
//! bytes whatever make anything here panic.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod sctp;
pub mod tcp;
pub mod udp;
pub mod vlan;

/// IP protocol numbers (IANA), which are the next header values of IPv6 too.
pub mod protocol {
    /// Hop-by-hop options of IPv6.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP of IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// Routing header of IPv6.
    pub const ROUTING: u8 = 43;
    /// Fragment header of IPv6.
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// Encapsulating security payload.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// ICMP of IPv6.
    pub const ICMPV6: u8 = 58;
    /// Nothing follows.
    pub const NO_NEXT_HEADER: u8 = 59;
    /// Destination options of IPv6.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// VRRP.
    pub const VRRP: u8 = 112;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// Mobility header of IPv6.
    pub const MOBILITY: u8 = 135;
    /// Host identity protocol.
    pub const HIP: u8 = 139;
    /// Shim6.
    pub const SHIM6: u8 = 140;
}

/// The 16-bit number at `at` of a header whose length the compiler knows.
#[inline(always)]
const fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The 32-bit number at `at` of a header whose length the compiler knows.
#[inline(always)]
const fn be32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The `N` bytes at `at`, if there are that many.
#[inline(always)]
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

/// The `N` bytes at `at`, to change, if there are that many.
#[inline(always)]
fn chunk_mut<const N: usize>(bytes: &mut [u8], at: usize) -> Option<&mut [u8; N]> {
    bytes.get_mut(at..)?.first_chunk_mut()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_a_view_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = ethernet::Ethernet::new(&bytes).map(|v| (v.destination(), v.source(), v.ethertype()));
            let _ = vlan::Vlan::new(&bytes).map(|v| (v.priority(), v.id(), v.ethertype()));
            let _ = vlan::skip(&bytes);
            let _ = arp::Arp::new(&bytes).map(|v| (v.is_ethernet_ipv4(), v.operation(), v.sender_ip(), v.target_mac()));
            let _ = ipv4::Ipv4::new(&bytes).map(|v| (v.is_consistent(), v.header(), v.packet(), v.payload(), v.tos()));
            let _ = ipv6::Ipv6::new(&bytes).map(|v| (v.is_consistent(), v.packet(), v.traffic_class(), v.flow_label()));
            for first in 0..=255 {
                let _ = ipv6::walk(&bytes, first);
            }
            let _ = tcp::Tcp::new(&bytes).map(|v| (v.is_consistent(), v.payload(), v.flags(), v.seq()));
            let _ = udp::Udp::new(&bytes).map(|v| (v.is_consistent(), v.checksum(), v.length()));
            let _ = sctp::Sctp::new(&bytes).map(|v| (v.first_chunk(), v.verification_tag()));
            let _ = icmp::Icmp::new(&bytes).map(|v| (v.kind(), v.code(), v.rest(), v.payload()));
            let _ = icmpv6::Icmpv6::new(&bytes).map(|v| (v.kind(), v.code(), v.target(), v.link_layer(1)));
            let mut bytes = bytes;
            checksum::decrement_ttl(&mut bytes);
            ethernet::set_addresses(&mut bytes, [1; 6], [2; 6]);
        }
    }
}
