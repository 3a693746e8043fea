//! ICMP: RFC 792; which messages are errors: RFC 1122 section 3.2.2.

use super::{be16, be32};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

/// Type: answer to an echo request.
pub const ECHO_REPLY: u8 = 0;
/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Type: source quench (obsolete, RFC 6633).
pub const SOURCE_QUENCH: u8 = 4;
/// Type: redirect.
pub const REDIRECT: u8 = 5;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;

/// Code of [`UNREACHABLE`]: protocol.
pub const PROTOCOL_UNREACHABLE: u8 = 2;
/// Code of [`UNREACHABLE`]: port.
pub const PORT_UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: fragmentation needed and DF set.
pub const FRAGMENTATION_NEEDED: u8 = 4;

/// A message of ICMP or, with the additions of [`super::icmpv6`], of ICMPv6.
#[derive(Clone, Copy, Debug)]
pub struct Icmp<'a> {
    fixed: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
}

impl<'a> Icmp<'a> {
    /// `None` if the header is cut off.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { fixed: bytes.first_chunk()?, bytes })
    }

    /// The type.
    #[inline]
    pub fn kind(&self) -> u8 {
        self.fixed[0]
    }

    /// What the type leaves open.
    #[inline]
    pub fn code(&self) -> u8 {
        self.fixed[1]
    }

    /// Of the message; in ICMPv6 of a pseudo-header before it too.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.fixed, 2)
    }

    /// The second word: identifier and sequence number of an echo, the MTU of "fragmentation needed" in its low half,
    /// of "packet too big" in the whole.
    #[inline]
    pub fn rest(&self) -> u32 {
        be32(self.fixed, 4)
    }

    /// What follows the header: in errors, the packet that they are about.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN..]
    }
}

/// Whether a message of this type is an error, which no error may answer.
#[inline]
pub const fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_as_written() {
        let view = Icmp::new(b"\x03\x04\x12\x34\0\0\x05\xc8E").expect("8 bytes");
        assert_eq!((view.kind(), view.code(), view.checksum()), (3, 4, 0x1234));
        assert_eq!((view.rest(), view.payload()), (1480, &b"E"[..]));
    }

    #[test]
    fn five_types_are_errors() {
        let errors: Vec<u8> = (0..=255).filter(|k| is_error(*k)).collect();
        assert_eq!(errors, [3, 4, 5, 11, 12]);
    }
}
