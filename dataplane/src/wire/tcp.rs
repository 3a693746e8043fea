//! TCP: RFC 9293 section 3.1.

use super::{be16, be32};

/// Bytes of the header without options.
pub const HEADER_LEN: usize = 20;

/// The sender has no more to send.
pub const FIN: u8 = 0x01;
/// Opens a connection.
pub const SYN: u8 = 0x02;
/// Ends a connection at once.
pub const RST: u8 = 0x04;
/// Deliver what there is.
pub const PSH: u8 = 0x08;
/// The acknowledgement number counts.
pub const ACK: u8 = 0x10;
/// The urgent pointer counts.
pub const URG: u8 = 0x20;

/// A segment.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a> {
    fixed: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// `bytes` is the whole segment, or as much of it as there is. `None` without a whole header (options aside).
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { fixed: bytes.first_chunk()?, bytes })
    }

    /// Whether the header is of a length that can be and lies within the bytes.
    #[inline]
    pub fn is_consistent(&self) -> bool {
        (HEADER_LEN..=self.bytes.len()).contains(&self.header_len())
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

    /// Of the first byte (or the SYN).
    #[inline]
    pub fn seq(&self) -> u32 {
        be32(self.fixed, 4)
    }

    /// The next one expected; of meaning with [`ACK`] only.
    #[inline]
    pub fn ack(&self) -> u32 {
        be32(self.fixed, 8)
    }

    /// With options, in bytes: 0..=60, of which those below 20 cannot be.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.fixed[12] >> 4) * 4
    }

    /// [`FIN`] to [`URG`] and the two ECN flags above.
    #[inline]
    pub fn flags(&self) -> u8 {
        self.fixed[13]
    }

    /// As sent, before scaling.
    #[inline]
    pub fn window(&self) -> u16 {
        be16(self.fixed, 14)
    }

    /// Of pseudo-header and segment.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.fixed, 16)
    }

    /// What follows the header; empty if the header is not consistent.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.header_len()..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_as_written() {
        let bytes = b"\x03\xe9\0\x50\0\0\x03\xe8\0\0\0\x05\x60\x12\x20\0\xab\xcd\0\0\x02\x04\x05\xb4hi";
        let view = Tcp::new(bytes).expect("20 bytes");
        assert!(view.is_consistent());
        assert_eq!(
            (view.source_port(), view.destination_port(), view.seq(), view.ack()),
            (1001, 80, 1000, 5)
        );
        assert_eq!(
            (view.header_len(), view.flags(), view.window(), view.checksum()),
            (24, SYN | ACK, 8192, 0xabcd)
        );
        assert_eq!(view.payload(), b"hi");
        let mut short = *bytes;
        short[12] = 0x40;
        assert!(!Tcp::new(&short).expect("20 bytes").is_consistent());
        short[12] = 0x70;
        assert!(!Tcp::new(&short).expect("20 bytes").is_consistent());
    }
}
