//! UDP: RFC 768; over IPv6: RFC 8200 section 8.1.

use super::be16;

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

/// A datagram.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a> {
    fixed: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
}

impl<'a> Udp<'a> {
    /// `bytes` is the whole datagram, or as much of it as there is. `None` if the header is cut off.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { fixed: bytes.first_chunk()?, bytes })
    }

    /// Whether the length field counts the header and lies within the bytes.
    #[inline]
    pub fn is_consistent(&self) -> bool {
        (HEADER_LEN..=self.bytes.len()).contains(&usize::from(self.length()))
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

    /// Of header and payload, in bytes.
    #[inline]
    pub fn length(&self) -> u16 {
        be16(self.fixed, 4)
    }

    /// Of pseudo-header and datagram; 0: none was made.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.fixed, 6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_as_written() {
        let bytes = b"\x13\x89\0\x35\0\x0c\xbe\xef\x70\x69\x6e\x67";
        let view = Udp::new(bytes).expect("8 bytes");
        assert_eq!((view.source_port(), view.destination_port()), (5001, 53));
        assert_eq!((view.length(), view.checksum(), view.is_consistent()), (12, 0xbeef, true));
        assert!(!Udp::new(&bytes[..11]).expect("8 bytes").is_consistent());
        assert!(!Udp::new(b"\0\0\0\0\0\x07\0\0").expect("8 bytes").is_consistent());
    }
}
