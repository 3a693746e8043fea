//! An IPv4 packet that is larger than the way out carries, and says that it may be, is cut into fragments: RFC 791
//! sections 3.1 and 3.2. A fragment can be cut further.

mod outer;

pub use outer::CutOuter;

use crate::wire::{checksum, ipv4};
use arrayvec::ArrayVec;

/// Bytes of the smallest packet that every link carries (RFC 791 section 3.2).
const LEAST_MTU: u16 = 68;
/// Bytes of the longest header.
const MAX_HEADER: usize = 60;
/// In an option's type: it stands in every fragment.
const COPIED: u8 = 0x80;
/// The option types without a length: end of the list, no operation.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;

/// What a packet is cut into. Its fragments are numbered from 0.
pub trait Pieces {
    /// How many fragments there are.
    fn pieces(&self) -> usize;

    /// Bytes of fragment `n`, header included.
    fn len_of(&self, n: usize) -> usize;

    /// Writes fragment `n` to `out`, which has its length. False, and nothing of use in `out`, if it has not, or the
    /// fragment would reach beyond what an offset can say.
    fn write(&self, n: usize, out: &mut [u8]) -> bool;
}

/// How an IPv4 packet is cut.
#[derive(Clone, Debug)]
pub struct Cut<'a> {
    packet: ipv4::Ipv4<'a>,
    /// The header of all fragments but the first.
    later: ArrayVec<u8, MAX_HEADER>,
    /// Bytes of data in the first of several fragments, and in those behind it but the last.
    data: [usize; 2],
    pieces: usize,
}

impl<'a> Cut<'a> {
    /// The packet at the front of `bytes` as fragments of at most `mtu` bytes each, header included; one, if it fits as it
    /// is. `None` if it is no IPv4 packet, or the MTU is below 68, which is less than IPv4 asks of a link.
    pub fn new(bytes: &'a [u8], mtu: u16) -> Option<Self> {
        let packet = ipv4::Ipv4::new(bytes).filter(ipv4::Ipv4::is_consistent)?;
        if mtu < LEAST_MTU {
            return None;
        }
        let later = later_header(packet.header());
        let room = [packet.header_len(), later.len()].map(|header| usize::from(mtu) - header);
        let data = room.map(|room| room / 8 * 8);
        let len = packet.payload().len();
        let pieces = if len <= room[0] {
            1
        } else {
            // The last may have up to all the room.
            2 + (len - data[0]).saturating_sub(room[1]).div_ceil(data[1])
        };
        Some(Self { packet, later, data, pieces })
    }

    fn header(&self, n: usize) -> &[u8] {
        if n == 0 { self.packet.header() } else { &self.later }
    }

    /// The data of fragment `n`, and where in the packet's it begins.
    fn part(&self, n: usize) -> (usize, &'a [u8]) {
        let payload = self.packet.payload();
        let begin = |n: usize| if n == 0 { 0 } else { self.data[0] + (n - 1) * self.data[1] };
        let end = if n + 1 < self.pieces { begin(n + 1) } else { payload.len() };
        (begin(n), payload.get(begin(n)..end).unwrap_or_default())
    }
}

impl Pieces for Cut<'_> {
    fn pieces(&self) -> usize {
        self.pieces
    }

    fn len_of(&self, n: usize) -> usize {
        self.header(n).len() + self.part(n).1.len()
    }

    fn write(&self, n: usize, out: &mut [u8]) -> bool {
        let (header, (at, part)) = (self.header(n), self.part(n));
        let offset = usize::from(self.packet.fragment_offset()) + at;
        let Ok(offset) = u16::try_from(offset) else { return false };
        let Some((front, back)) = out.split_at_mut_checked(header.len()) else { return false };
        if back.len() != part.len() {
            return false;
        }
        front.copy_from_slice(header);
        back.copy_from_slice(part);
        let more = n + 1 < self.pieces || self.packet.more_fragments();
        let word = (offset / 8) | if more { ipv4::MORE_FRAGMENTS } else { 0 };
        front[2..4].copy_from_slice(&((header.len() + part.len()) as u16).to_be_bytes());
        front[6..8].copy_from_slice(&word.to_be_bytes());
        front[10..12].copy_from_slice(&[0, 0]);
        let sum = checksum::of(front);
        front[10..12].copy_from_slice(&sum.to_be_bytes());
        true
    }
}

/// The header with the options that stand in every fragment, filled up to a multiple of four bytes.
fn later_header(header: &[u8]) -> ArrayVec<u8, MAX_HEADER> {
    let (fixed, mut options) = header.split_at(ipv4::HEADER_LEN.min(header.len()));
    let mut later = ArrayVec::new();
    // Neither is longer than the header, which is no longer than this.
    later.extend(fixed.iter().copied());
    while let [kind, rest @ ..] = options {
        let len = match (*kind, rest) {
            (END, _) => break,
            (NO_OPERATION, _) => 1,
            (_, [len, ..]) if *len >= 2 => usize::from(*len),
            // What is broken ends the list.
            _ => break,
        };
        let Some((option, behind)) = options.split_at_checked(len) else { break };
        if kind & COPIED != 0 {
            later.extend(option.iter().copied());
        }
        options = behind;
    }
    while !later.len().is_multiple_of(4) {
        later.push(END);
    }
    let words = (later.len() / 4) as u8;
    if let Some(first) = later.first_mut() {
        *first = 0x40 | words;
    }
    later
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A packet from 10.0.0.2 to 10.0.0.100 with this word of flags and offset; its data counts up.
    fn packet(word: u16, options: &[u8], len: usize) -> Vec<u8> {
        let mut bytes = vec![0x45 + (options.len() / 4) as u8, 0x14];
        bytes.extend(((20 + options.len() + len) as u16).to_be_bytes());
        bytes.extend([0x12, 0x34]);
        bytes.extend(word.to_be_bytes());
        bytes.extend([63, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 100]);
        bytes.extend(options);
        let sum = slow_sum(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend((0..len).map(|n| (n / 8) as u8));
        bytes
    }

    /// The checksum of RFC 1071, one word after the other.
    fn slow_sum(header: &[u8]) -> u16 {
        let mut sum: u32 = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn cut(bytes: &[u8], mtu: u16) -> Vec<Vec<u8>> {
        let cut = Cut::new(bytes, mtu).unwrap();
        let piece = |n| {
            let mut out = vec![0xee; cut.len_of(n)];
            assert!(cut.write(n, &mut out));
            out
        };
        (0..cut.pieces()).map(piece).collect()
    }

    #[test]
    fn a_packet_is_cut_as_the_rfc_says() {
        // The example of RFC 791, page 46: 472 bytes, and 280 that pass; the second part begins with octet 256.
        let pieces = cut(&packet(0, &[], 452), 280);
        let facts = |piece: &Vec<u8>| {
            (u16::from_be_bytes([piece[2], piece[3]]), u16::from_be_bytes([piece[6], piece[7]]), piece.len())
        };
        assert_eq!(pieces.iter().map(facts).collect::<Vec<_>>(), [(276, 0x2000, 276), (216, 32, 216)]);
        // Of a middle fragment at byte 80.
        let pieces = cut(&packet(0x200a, &[], 64), 68);
        assert_eq!(pieces.iter().map(facts).collect::<Vec<_>>(), [(68, 0x200a, 68), (36, 0x2010, 36)]);
        // One that fits stays as it is.
        assert_eq!(cut(&packet(0, &[], 48), 68), [packet(0, &[], 48)]);
    }

    #[test]
    fn options_stand_where_their_copy_bit_says() {
        // No operation, record route (7) of 7 bytes, security (130) of 4, end of list.
        let options = [1, 7, 7, 4, 0, 0, 0, 0, 130, 4, 0xab, 0xcd, 0, 0, 0, 0];
        let pieces = cut(&packet(0, &options, 100), 68);
        assert_eq!(pieces[0][20..36], options);
        for later in &pieces[1..] {
            assert_eq!((later[0], &later[20..24]), (0x46, &[130, 4, 0xab, 0xcd][..]));
        }
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [68, 64, 52]);
        // A list that is broken behind what is right.
        let broken = cut(&packet(0, &[131, 3, 4, 0x88, 9, 0, 0, 0], 100), 68);
        assert_eq!(broken[1][..1], [0x46]);
        assert_eq!(broken[1][20..24], [131, 3, 4, 0]);
    }

    #[test]
    fn what_is_no_packet_or_no_link_is_not_cut() {
        assert!(Cut::new(&packet(0, &[], 100), 67).is_none());
        assert!(Cut::new(&packet(0, &[], 100)[..119], 68).is_none());
        assert!(Cut::new(&[], 68).is_none());
        let at_the_end = packet(0x1fff, &[], 100);
        let cut = Cut::new(&at_the_end, 68).unwrap();
        assert!(cut.write(0, &mut vec![0; cut.len_of(0)]));
        assert!(!cut.write(1, &mut vec![0; cut.len_of(1)]), "65,576 is no offset");
        assert!(!cut.write(0, &mut vec![0; cut.len_of(0) - 1]));
    }

    /// The data of a datagram whose fragments these are, byte by byte; they begin at byte `base`.
    fn reassembled(pieces: &[Vec<u8>], base: usize) -> Vec<u8> {
        let mut whole: Vec<Option<u8>> = Vec::new();
        for piece in pieces {
            let header = usize::from(piece[0] & 15) * 4;
            let at = usize::from(u16::from_be_bytes([piece[6], piece[7]]) & 0x1fff) * 8 - base;
            for (n, byte) in piece[header..].iter().enumerate() {
                whole.resize(whole.len().max(at + n + 1), None);
                assert_eq!(whole[at + n].replace(*byte), None, "no byte comes twice");
            }
        }
        whole.into_iter().map(|byte| byte.expect("no byte is missing")).collect()
    }

    proptest! {
        #[test]
        fn put_together_again_the_fragments_are_the_packet(
            len in 0usize..2_000, mtu in 68u16..1_600, offset in 0u16..1_000, more: bool,
            options in prop::collection::vec(any::<u8>(), 0..10)
        ) {
            let options: Vec<u8> = options.iter().flat_map(|kind| [*kind, 4, 1, 2]).collect();
            let len = if more { len / 8 * 8 } else { len };
            let word = offset | if more { 0x2000 } else { 0 };
            let bytes = packet(word, &options, len);
            let pieces = cut(&bytes, mtu);
            for (n, piece) in pieces.iter().enumerate() {
                let header = usize::from(piece[0] & 15) * 4;
                prop_assert!(piece.len() <= usize::from(mtu));
                prop_assert_eq!(usize::from(u16::from_be_bytes([piece[2], piece[3]])), piece.len());
                prop_assert_eq!(slow_sum(&piece[..header]), 0);
                prop_assert_eq!((&piece[4..6], &piece[8..10], &piece[12..20]), (&bytes[4..6], &bytes[8..10], &bytes[12..20]));
                let is_last = n + 1 == pieces.len();
                prop_assert_eq!(piece[6] & 0xe0, if is_last && !more { 0 } else { 0x20 });
                prop_assert!(is_last || (piece.len() - header).is_multiple_of(8));
                // No larger one would have been.
                prop_assert!(is_last || piece.len() + 8 > usize::from(mtu));
            }
            let header = 20 + options.len();
            prop_assert_eq!(&pieces[0][20..header], &options[..]);
            prop_assert_eq!(reassembled(&pieces, usize::from(offset) * 8), &bytes[header..]);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), mtu: u16, right: bool) {
            let mut bytes = bytes;
            if right && bytes.len() > 4 {
                bytes[0] = 0x40 | bytes[0] & 15;
                let len = bytes.len() as u16;
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
            }
            if let Some(cut) = Cut::new(&bytes, mtu) {
                for n in 0..cut.pieces() {
                    cut.write(n, &mut vec![0; cut.len_of(n)]);
                }
            }
        }
    }
}
