//! An outer IPv6 packet of a tunnel that is larger than the path carries, and whose inner packet may be fragmented, is cut by
//! us, its source: RFC 2473 section 7.2, RFC 8200 section 4.5.

use super::Pieces;
use crate::wire::{ipv6, protocol};

/// Bytes of the smallest packet that every link carries (RFC 8200 section 5).
const LEAST_MTU: u16 = 1_280;
/// Bytes of the fragment header.
const FRAGMENT_HEADER: usize = 8;
/// In the word of the offset: more fragments follow.
const MORE: u16 = 1;

/// How such a packet, which has no extension header, is cut.
#[derive(Clone, Debug)]
pub struct CutOuter<'a> {
    header: &'a [u8; ipv6::HEADER_LEN],
    payload: &'a [u8],
    /// Bytes of data in each fragment but the last.
    data: usize,
    /// What tells its fragments from those of others.
    identification: u32,
}

impl<'a> CutOuter<'a> {
    /// The packet at the front of `bytes` as fragments of at most `mtu` bytes each. `None` if it is no IPv6 packet, or the MTU is
    /// below 1280, which is less than IPv6 asks of a link.
    pub fn new(bytes: &'a [u8], mtu: u16, identification: u32) -> Option<Self> {
        let packet = ipv6::Ipv6::new(bytes).filter(ipv6::Ipv6::is_consistent)?;
        let (header, rest) = bytes.split_first_chunk()?;
        let payload = rest.get(..usize::from(packet.payload_len()))?;
        let data =
            (usize::from(mtu) - ipv6::HEADER_LEN.min(mtu.into())).checked_sub(FRAGMENT_HEADER)? / 8 * 8;
        (mtu >= LEAST_MTU).then_some(Self { header, payload, data, identification })
    }

    fn part(&self, n: usize) -> &'a [u8] {
        let end = ((n + 1) * self.data).min(self.payload.len());
        self.payload.get(n * self.data..end).unwrap_or_default()
    }
}

impl Pieces for CutOuter<'_> {
    fn pieces(&self) -> usize {
        self.payload.len().div_ceil(self.data)
    }

    fn len_of(&self, n: usize) -> usize {
        ipv6::HEADER_LEN + FRAGMENT_HEADER + self.part(n).len()
    }

    fn write(&self, n: usize, out: &mut [u8]) -> bool {
        let part = self.part(n);
        let Some((header, rest)) = out.split_first_chunk_mut::<{ ipv6::HEADER_LEN }>() else { return false };
        let Some((fragment, data)) = rest.split_first_chunk_mut::<FRAGMENT_HEADER>() else { return false };
        if data.len() != part.len() {
            return false;
        }
        *header = *self.header;
        header[4..6].copy_from_slice(&((FRAGMENT_HEADER + part.len()) as u16).to_be_bytes());
        header[6] = protocol::FRAGMENT;
        let more = if n + 1 < self.pieces() { MORE } else { 0 };
        // A multiple of eight, and less than a packet has bytes.
        let word = (n * self.data) as u16 | more;
        fragment[..2].copy_from_slice(&[self.header[6], 0]);
        fragment[2..4].copy_from_slice(&word.to_be_bytes());
        fragment[4..].copy_from_slice(&self.identification.to_be_bytes());
        data.copy_from_slice(part);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(len: usize) -> Vec<u8> {
        let mut packet = vec![0x60; ipv6::HEADER_LEN];
        packet[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        (packet[6], packet[7]) = (protocol::IPIP, 63);
        packet.extend((0..len).map(|n| (n / 8) as u8));
        packet
    }

    #[test]
    fn what_cannot_be_cut_is_not() {
        assert!(CutOuter::new(&packet(1_300), 1_279, 1).is_none());
        assert!(CutOuter::new(&packet(1_300), 0, 1).is_none());
        assert!(CutOuter::new(&packet(1_300)[..1_339], 1_280, 1).is_none());
        assert!(CutOuter::new(&[], 1_280, 1).is_none());
        let (bytes, mut out) = (packet(1_300), vec![0; 1_280]);
        let cut = CutOuter::new(&bytes, 1_280, 1).expect("it can be cut");
        assert!(cut.write(0, &mut out) && !cut.write(1, &mut out), "another length");
    }

    proptest! {
        #[test]
        fn put_together_again_the_fragments_are_the_packet(
            len in 1usize..9_000, mtu in 1_280u16..9_001, id: u32, padding in 0usize..4
        ) {
            let mut bytes = packet(len);
            bytes.resize(bytes.len() + padding, 0xff);
            let cut = CutOuter::new(&bytes, mtu, id).unwrap();
            let mut data: Vec<u8> = Vec::new();
            for n in 0..cut.pieces() {
                let mut piece = vec![0; cut.len_of(n)];
                prop_assert!(cut.write(n, &mut piece));
                let is_last = n + 1 == cut.pieces();
                prop_assert!(piece.len() <= usize::from(mtu) && (is_last || piece.len() + 8 > usize::from(mtu)));
                prop_assert_eq!(usize::from(u16::from_be_bytes([piece[4], piece[5]])) + 40, piece.len());
                prop_assert_eq!((&piece[..4], piece[6], &piece[7..40]), (&bytes[..4], 44, &bytes[7..40]));
                prop_assert_eq!((piece[40], piece[41], &piece[44..48]), (4, 0, &id.to_be_bytes()[..]));
                let word = u16::from_be_bytes([piece[42], piece[43]]);
                prop_assert_eq!((usize::from(word & !7), word & 7), (data.len(), u16::from(!is_last)));
                data.extend(&piece[48..]);
            }
            prop_assert_eq!(&data, &bytes[40..40 + len]);
        }
    }
}
