//! SCTP: RFC 9260 section 3.

use super::{be16, be32};

/// Bytes of the common header.
pub const HEADER_LEN: usize = 12;

/// Chunk that opens an association.
pub const INIT: u8 = 1;
/// Chunk that ends an association at once.
pub const ABORT: u8 = 6;

/// A packet.
#[derive(Clone, Copy, Debug)]
pub struct Sctp<'a> {
    fixed: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
}

impl<'a> Sctp<'a> {
    /// `None` if the common header is cut off.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { fixed: bytes.first_chunk()?, bytes })
    }

    /// Of the sender.
    #[inline]
    pub fn source_port(&self) -> u16 {
        be16(self.fixed, 0)
    }

    /// Of the receiver.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        be16(self.fixed, 2)
    }

    /// Of the association.
    #[inline]
    pub fn verification_tag(&self) -> u32 {
        be32(self.fixed, 4)
    }

    /// The type of the first chunk, if there is one.
    #[inline]
    pub fn first_chunk(&self) -> Option<u8> {
        self.bytes.get(HEADER_LEN).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_as_written() {
        let bytes = b"\x0b\x59\x0b\x5a\0\0\0\x07\xde\xad\xbe\xef\x01";
        let view = Sctp::new(bytes).expect("12 bytes");
        assert_eq!((view.source_port(), view.destination_port()), (2905, 2906));
        assert_eq!((view.verification_tag(), view.first_chunk()), (7, Some(INIT)));
        assert_eq!(Sctp::new(&bytes[..12]).expect("12 bytes").first_chunk(), None);
    }
}
