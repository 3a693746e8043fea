//! ICMPv6: RFC 4443; neighbour discovery: RFC 4861.

use super::chunk;
use std::net::Ipv6Addr;

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// Bytes of a neighbour solicitation or advertisement without options.
pub const NEIGHBOR_LEN: usize = 24;

/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 1;
/// Type: packet too big.
pub const PACKET_TOO_BIG: u8 = 2;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 3;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Type: answer to an echo request.
pub const ECHO_REPLY: u8 = 129;
/// Type: router solicitation.
pub const ROUTER_SOLICITATION: u8 = 133;
/// Type: router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Type: neighbour solicitation.
pub const NEIGHBOR_SOLICITATION: u8 = 135;
/// Type: neighbour advertisement.
pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// Type: redirect.
pub const REDIRECT: u8 = 137;

/// Code of [`PARAMETER_PROBLEM`]: the protocol is not known.
pub const UNKNOWN_NEXT_HEADER: u8 = 1;
/// Code of [`UNREACHABLE`]: port.
pub const PORT_UNREACHABLE: u8 = 4;

/// Flag of an advertisement, in the first byte of the second word: answers a solicitation.
pub const SOLICITED: u8 = 0x40;
/// Flag of an advertisement: replaces what is known.
pub const OVERRIDE: u8 = 0x20;

/// Option: the link-layer address of the sender.
pub const SOURCE_LINK_LAYER: u8 = 1;
/// Option: the link-layer address of the target.
pub const TARGET_LINK_LAYER: u8 = 2;

/// Neighbour discovery is valid with this hop limit only: it has passed no router (RFC 4861 section 7.1).
pub const NEIGHBOR_HOP_LIMIT: u8 = 255;

/// A message: its header is that of ICMP, but its checksum counts a pseudo-header in.
pub use super::icmp::Icmp as Icmpv6;

impl Icmpv6<'_> {
    /// The address that a neighbour solicitation or advertisement is about, if the message is long enough.
    #[inline]
    pub fn target(&self) -> Option<Ipv6Addr> {
        chunk::<16>(self.payload(), 0).map(|octets| Ipv6Addr::from(*octets))
    }

    /// The MAC address in the first option `kind` of a neighbour solicitation or advertisement. `None` without it or if
    /// the options are broken.
    pub fn link_layer(&self, kind: u8) -> Option<[u8; 6]> {
        let mut options = self.payload().get(NEIGHBOR_LEN - HEADER_LEN..)?;
        while let [option, words, rest @ ..] = options {
            let length = usize::from(*words) * 8;
            if length == 0 || length > options.len() {
                return None;
            }
            if *option == kind && length == 8 {
                return rest.first_chunk().copied();
            }
            options = &options[length..];
        }
        None
    }
}

/// Whether a message of this type is an error, which no error may answer (RFC 4443 section 2.1).
#[inline]
pub const fn is_error(kind: u8) -> bool {
    kind < 128
}

/// A neighbour solicitation or advertisement of 32 bytes with one link-layer option; the checksum is 0, to be set.
/// `flags` goes into the first byte of the second word.
#[inline]
pub fn neighbor_message(
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    option: u8,
    mac: [u8; 6],
) -> [u8; NEIGHBOR_LEN + 8] {
    let mut m = [0; NEIGHBOR_LEN + 8];
    m[0] = kind;
    m[4] = flags;
    m[8..24].copy_from_slice(&target.octets());
    m[24] = option;
    m[25] = 1;
    m[26..32].copy_from_slice(&mac);
    m
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solicitation_reads_as_written() {
        let target: Ipv6Addr = "fd00:1::100".parse().expect("literal");
        let bytes = neighbor_message(NEIGHBOR_SOLICITATION, 0, target, SOURCE_LINK_LAYER, [2, 0, 0, 0, 0, 7]);
        let view = Icmpv6::new(&bytes).expect("8 bytes");
        assert_eq!((view.kind(), view.code(), view.rest()), (135, 0, 0));
        assert_eq!(view.target(), Some(target));
        assert_eq!(view.link_layer(SOURCE_LINK_LAYER), Some([2, 0, 0, 0, 0, 7]));
        assert_eq!(view.link_layer(TARGET_LINK_LAYER), None);
    }

    #[test]
    fn broken_options_are_no_address() {
        let target: Ipv6Addr = "fd00:1::100".parse().expect("literal");
        let good = neighbor_message(136, SOLICITED | OVERRIDE, target, TARGET_LINK_LAYER, [2, 0, 0, 0, 0, 7]);
        let mut zero = good;
        zero[25] = 0;
        let mut long = good;
        long[25] = 2;
        for bytes in [&zero[..], &long, &good[..31], &good[..24]] {
            assert_eq!(Icmpv6::new(bytes).expect("8 bytes").link_layer(TARGET_LINK_LAYER), None);
        }
        // An option of another kind first.
        let after = [&good[..24], &[14, 1, 0, 0, 0, 0, 0, 0], &good[24..]].concat();
        assert_eq!(Icmpv6::new(&after).expect("8 bytes").link_layer(2), Some([2, 0, 0, 0, 0, 7]));
    }
}
