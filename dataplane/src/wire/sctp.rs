//! SCTP: RFC 9260 section 3; its checksum: section 6.8 and appendix A.

use super::{be16, be32, chunk, chunk_mut};

/// Bytes of the common header.
pub const HEADER_LEN: usize = 12;
/// Bytes of a chunk's header.
pub const CHUNK_HEADER_LEN: usize = 4;

/// Chunk of a user's bytes.
pub const DATA: u8 = 0;
/// Chunk that opens an association.
pub const INIT: u8 = 1;
/// Chunk that answers [`INIT`].
pub const INIT_ACK: u8 = 2;
/// Chunk that says which [`DATA`] has come.
pub const SACK: u8 = 3;
/// Chunk that asks whether the peer is there.
pub const HEARTBEAT: u8 = 4;
/// Chunk that answers [`HEARTBEAT`].
pub const HEARTBEAT_ACK: u8 = 5;
/// Chunk that ends an association at once.
pub const ABORT: u8 = 6;
/// Chunk of whoever has no more to send.
pub const SHUTDOWN: u8 = 7;
/// Chunk that answers [`SHUTDOWN`].
pub const SHUTDOWN_ACK: u8 = 8;
/// Chunk that tells of an error which need not end the association.
pub const ERROR: u8 = 9;
/// Chunk that returns the cookie of [`INIT_ACK`].
pub const COOKIE_ECHO: u8 = 10;
/// Chunk that answers [`COOKIE_ECHO`]: the association stands.
pub const COOKIE_ACK: u8 = 11;
/// Chunk that tells of congestion (RFC 4960 appendix A; reserved since RFC 9260).
pub const ECNE: u8 = 12;
/// Chunk that answers [`ECNE`].
pub const CWR: u8 = 13;
/// Chunk that answers [`SHUTDOWN_ACK`]: the association is over.
pub const SHUTDOWN_COMPLETE: u8 = 14;

/// Where the checksum is in the common header.
const CHECKSUM: usize = 8;

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

    /// Of the packet, as a number: it is sent least significant byte first. See [`checksum`].
    #[inline]
    pub fn checksum(&self) -> u32 {
        be32(self.fixed, CHECKSUM).swap_bytes()
    }

    /// The type of the first chunk, if its header is there.
    #[inline]
    pub fn first_chunk(&self) -> Option<u8> {
        self.chunks().next().map(|chunk| chunk.kind)
    }

    /// The chunks, in their order.
    #[inline]
    pub fn chunks(&self) -> Chunks<'a> {
        Chunks { rest: self.bytes.get(HEADER_LEN..).unwrap_or_default() }
    }
}

/// A chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// [`DATA`] to [`SHUTDOWN_COMPLETE`], or one of an extension.
    pub kind: u8,
    /// Their meaning is that of the type.
    pub flags: u8,
    /// Of header and value, without the padding, in bytes. Those below 4 cannot be.
    pub length: u16,
    /// What follows the header, as much of it as there is.
    pub value: &'a [u8],
}

/// The chunks of a packet: RFC 9260 section 3.2. They end with the first whose header is cut off, and after one whose
/// length cannot be or whose value is cut off. Each takes at least four bytes, so that the walk is bounded by the packet.
#[derive(Clone, Debug)]
pub struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    #[inline]
    fn next(&mut self) -> Option<Chunk<'a>> {
        let header: &[u8; CHUNK_HEADER_LEN] = chunk(self.rest, 0)?;
        let [kind, flags, ..] = *header;
        let length = be16(header, 2);
        let end = usize::from(length).max(CHUNK_HEADER_LEN).min(self.rest.len());
        let value = self.rest.get(CHUNK_HEADER_LEN..end).unwrap_or_default();
        let possible = usize::from(length) >= CHUNK_HEADER_LEN;
        let following = self.rest.get(usize::from(length).next_multiple_of(4)..);
        self.rest = if possible { following.unwrap_or_default() } else { &[] };
        Some(Chunk { kind, flags, length, value })
    }
}

/// The checksum of `packet`, from the common header to the end of the IP packet, as if its field were 0.
pub fn checksum(packet: &[u8]) -> u32 {
    let crc = update(u32::MAX, packet.get(..CHECKSUM).unwrap_or(packet));
    let crc = update(crc, &[0; HEADER_LEN - CHECKSUM]);
    !update(crc, packet.get(HEADER_LEN..).unwrap_or_default())
}

/// What changes of a packet's checksum by what has changed in front of it, as if nothing followed what is there. A CRC is linear:
/// its change hangs on what changed and on how much follows, not on what that is. So what was damaged stays damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change(u32);

impl Change {
    /// Corrects the checksum of the packet that begins with `front`, where `rest` bytes follow what was there. False, and no
    /// change, if the common header is cut off.
    pub fn correct(self, front: &mut [u8], rest: usize) -> bool {
        let Some(header) = chunk_mut::<HEADER_LEN>(front, 0) else { return false };
        for (byte, change) in header[CHECKSUM..].iter_mut().zip(followed_by(self.0, rest).to_le_bytes()) {
            *byte ^= change;
        }
        true
    }
}

/// Writes two bytes of the ports of a packet, of which `front` is all or the front. `None`, and no change, if the common header is
/// cut off or `at` is no place of the ports.
pub fn replace(front: &mut [u8], (at, new): (usize, [u8; 2])) -> Option<Change> {
    let follow = front.len().checked_sub(at.checked_add(2)?)?;
    let port = chunk_mut::<HEADER_LEN>(front, 0)?[..4].get_mut(at..)?.first_chunk_mut::<2>()?;
    let changed = [port[0] ^ new[0], port[1] ^ new[1]];
    *port = new;
    Some(Change(followed_by(update(0, &changed), follow)))
}

/// Writes the checksum of `packet`, for which see [`checksum`]. False, and no change, if the common header is cut off.
pub fn refresh(packet: &mut [u8]) -> bool {
    let crc = checksum(packet);
    let Some(header) = chunk_mut::<HEADER_LEN>(packet, 0) else {
        return false;
    };
    header[CHECKSUM..].copy_from_slice(&crc.to_le_bytes());
    true
}

/// The polynomial of CRC32c, its bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What a byte adds to the remainder when 0 to 7 bytes follow it within a step of eight.
static TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut following = 0;
        while following < 8 {
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
                bit += 1;
            }
            tables[following][byte] = crc;
            following += 1;
        }
        byte += 1;
    }
    tables
};

/// What 64, 128, 256 bytes and so on do to the remainder of what stands before them: they multiply it by `x` to the power of
/// their bits.
static POWERS: [u32; 10] = {
    let mut powers = [0; 10];
    // The highest bit is that of 1: this is `x` to the power of 8.
    let (mut power, mut n) = (1 << 23, 0);
    while n < 6 + powers.len() {
        if n >= 6 {
            powers[n - 6] = power;
        }
        power = multiplied(power, power);
        n += 1;
    }
    powers
};

/// The product of two remainders, whose highest bits are those of 1.
const fn multiplied(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = (b >> 1) ^ if b & 1 == 1 { POLYNOMIAL } else { 0 };
        bit >>= 1;
    }
    product
}

/// The remainder `crc` after that many bytes of 0 more, of which there are no more than a datagram has.
fn followed_by(crc: u32, zeros: usize) -> u32 {
    let (crc, zeros) = (update(crc, &[0; 64][..zeros % 64]), zeros / 64);
    POWERS.iter().enumerate().fold(
        crc,
        |crc, (n, power)| {
            if zeros >> n & 1 == 1 { multiplied(crc, *power) } else { crc }
        },
    )
}

/// The remainder after `bytes`, where `crc` was that before them. Eight bytes a step: their eight loads do not wait for
/// each other.
fn update(mut crc: u32, bytes: &[u8]) -> u32 {
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let word = u64::from_le_bytes(*eight) ^ u64::from(crc);
        let [a, b, c, d, e, f, g, h] = word.to_le_bytes().map(usize::from);
        crc = TABLES[7][a]
            ^ TABLES[6][b]
            ^ TABLES[5][c]
            ^ TABLES[4][d]
            ^ TABLES[3][e]
            ^ TABLES[2][f]
            ^ TABLES[1][g]
            ^ TABLES[0][h];
    }
    for byte in rest {
        crc = (crc >> 8) ^ TABLES[0][usize::from(crc as u8 ^ byte)];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// INIT from 40000 to 9899, made by scapy 2.5.
    const SCAPY_INIT: &[u8] = b"\x9c\x40\x26\xab\0\0\0\0\x0a\x2f\xf6\x57\
        \x01\0\0\x14\x1a\x2b\x3c\x4d\0\x01\xa0\0\0\x0a\xff\xff\x5e\x6f\x70\x81";
    /// DATA of nine bytes and three of padding from 40000 to 9899, made by scapy 2.5.
    const SCAPY_DATA: &[u8] = b"\x9c\x40\x26\xab\xca\xfe\xf0\x0d\x6c\x86\x1c\xcc\
        \0\0\0\x19\x5e\x6f\x70\x81\0\x01\0\x02\0\0\0\x2epointsman\0\0\0";
    /// The same to 2905.
    const SCAPY_DATA_TO_2905: &[u8] = b"\x9c\x40\x0b\x59\xca\xfe\xf0\x0d\xa3\x28\x7e\x67\
        \0\0\0\x19\x5e\x6f\x70\x81\0\x01\0\x02\0\0\0\x2epointsman\0\0\0";

    /// CRC32c a bit at a time: what the tables are compared with.
    fn slow(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(
                crc ^ u32::from(*byte),
                |crc, _| {
                    if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 }
                },
            )
        })
    }

    fn checksum_ok(packet: &[u8]) -> bool {
        Sctp::new(packet).is_some_and(|view| view.checksum() == checksum(packet))
    }

    fn kinds(packet: &[u8]) -> Vec<u8> {
        Sctp::new(packet).expect("12 bytes").chunks().map(|chunk| chunk.kind).collect()
    }

    #[test]
    fn a_header_reads_as_written() {
        let bytes = b"\x0b\x59\x0b\x5a\0\0\0\x07\xde\xad\xbe\xef\x01\0\0\x04";
        let view = Sctp::new(bytes).expect("12 bytes");
        assert_eq!((view.source_port(), view.destination_port()), (2905, 2906));
        assert_eq!((view.verification_tag(), view.first_chunk()), (7, Some(INIT)));
        assert_eq!(view.checksum(), 0xefbe_adde);
        assert_eq!(Sctp::new(&bytes[..15]).expect("12 bytes").first_chunk(), None);
        assert!(Sctp::new(&bytes[..11]).is_none());
    }

    #[test]
    fn chunks_begin_at_multiples_of_four() {
        let packet = [&[0; 12][..], b"\x0a\x01\0\x07abc\0", b"\x03\0\0\x04", b"\0\x03\0\x06hi"].concat();
        let chunks: Vec<Chunk<'_>> = Sctp::new(&packet).expect("12 bytes").chunks().collect();
        let chunk = |kind, flags, length, value| Chunk { kind, flags, length, value };
        let expected =
            [chunk(10, 1, 7, &b"abc"[..]), chunk(3, 0, 4, &b""[..]), chunk(DATA, 3, 6, &b"hi"[..])];
        assert_eq!(chunks, expected);
    }

    #[test]
    fn chunks_end_where_they_cannot_go_on() {
        let after = |chunks: &[u8]| kinds(&[&[0; 12], chunks].concat());
        assert_eq!(after(b""), []);
        assert_eq!(after(b"\x01\0\0"), []);
        // Lengths of 0 and 3 lead nowhere; the type stands all the same.
        assert_eq!(after(b"\x0b\0\0\0\x06\0\0\x04"), [COOKIE_ACK]);
        assert_eq!(after(b"\x0b\0\0\x03\x06\0\0\x04"), [COOKIE_ACK]);
        // Cut off within the value, and at its end.
        assert_eq!(after(b"\x0a\0\0\x0cabcd"), [COOKIE_ECHO]);
        assert_eq!(after(b"\x0a\0\xff\xffabcd\x06\0\0\x04"), [COOKIE_ECHO]);
        assert_eq!(after(b"\x0a\0\0\x08abcd\x06\0\0"), [COOKIE_ECHO]);
        assert_eq!(after(&[0, 0, 0, 4].repeat(16_000)).len(), 16_000);
    }

    #[test]
    fn crc32c_is_that_of_the_examples_of_rfc_3720() {
        // RFC 3720 appendix B.4.
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (bytes, crc) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&descending, 0x113f_db5c),
        ] {
            assert_eq!(!update(u32::MAX, bytes), crc, "{bytes:?}");
        }
    }

    #[test]
    fn the_checksum_is_that_which_scapy_writes() {
        for packet in [SCAPY_INIT, SCAPY_DATA, SCAPY_DATA_TO_2905] {
            assert_eq!(Sctp::new(packet).expect("12 bytes").checksum(), checksum(packet));
            let mut spoilt = packet.to_vec();
            spoilt[8..12].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
            assert!(refresh(&mut spoilt));
            assert_eq!(spoilt, packet);
            assert!(checksum_ok(packet));
        }
    }

    #[test]
    fn a_new_port_takes_a_new_checksum() {
        let mut packet = SCAPY_DATA.to_vec();
        packet[2..4].copy_from_slice(&2905_u16.to_be_bytes());
        assert!(!checksum_ok(&packet));
        assert!(refresh(&mut packet));
        assert_eq!(packet, SCAPY_DATA_TO_2905);
        // Of the whole packet, and of its first fragment.
        for len in [40, 24] {
            let mut front = SCAPY_DATA[..len].to_vec();
            let change = replace(&mut front, (2, 2905_u16.to_be_bytes())).expect("a header");
            assert!(change.correct(&mut front, 40 - len));
            assert_eq!(front, SCAPY_DATA_TO_2905[..len]);
        }
    }

    #[test]
    fn the_largest_datagrams_have_a_port_replaced_too() {
        for len in [32_768, 65_515, 65_535] {
            let mut packet: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            assert!(refresh(&mut packet));
            let change = replace(&mut packet[..1_480], (0, [9, 9])).expect("a header");
            assert!(change.correct(&mut packet, len - 1_480));
            assert!(packet[..2] == [9, 9] && checksum_ok(&packet), "{len}");
        }
    }

    #[test]
    fn what_is_no_port_of_a_packet_is_not_replaced() {
        let mut packet = SCAPY_DATA.to_vec();
        for at in [3, 4, 39, 40, usize::MAX] {
            assert_eq!(replace(&mut packet, (at, [1, 2])), None, "{at}");
        }
        assert_eq!(replace(&mut packet[..11], (0, [1, 2])), None);
        assert!(!Change(1).correct(&mut packet[..11], 0));
        assert_eq!(packet, SCAPY_DATA);
    }

    #[test]
    fn a_damaged_packet_is_found() {
        for at in 0..SCAPY_DATA.len() {
            let mut packet = SCAPY_DATA.to_vec();
            packet[at] ^= 0x40;
            assert!(!checksum_ok(&packet), "byte {at}");
        }
        assert!(!checksum_ok(&SCAPY_DATA[..39]) && checksum_ok(SCAPY_DATA));
    }

    #[test]
    fn a_header_cut_off_is_left_alone() {
        let mut short = [7; 11];
        assert!(!refresh(&mut short) && !checksum_ok(&short));
        assert_eq!(short, [7; 11]);
    }

    proptest! {
        #[test]
        fn the_tables_give_what_a_bit_at_a_time_gives(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
            let (front, rear) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(!update(update(u32::MAX, front), rear), slow(&bytes));
        }

        #[test]
        fn a_port_replaced_in_the_front_is_one_replaced_in_the_whole(
            mut bytes in proptest::collection::vec(any::<u8>(), 12..2_000),
            front in 12usize..100, at in 0usize..2, new: [u8; 2], damage: u32,
        ) {
            refresh(&mut bytes);
            let (at, len, mut whole) = (2 * at, bytes.len(), bytes.clone());
            whole[at..at + 2].copy_from_slice(&new);
            refresh(&mut whole);
            // As wrong as it was.
            for packet in [&mut bytes, &mut whole] {
                packet[8..12].iter_mut().zip(damage.to_be_bytes()).for_each(|(byte, damage)| *byte ^= damage);
            }
            let front = front.min(len);
            let change = replace(&mut bytes[..front], (at, new)).expect("a header");
            prop_assert!(change.correct(&mut bytes, len - front));
            prop_assert_eq!(bytes, whole);
        }

        #[test]
        fn no_bytes_make_a_walk_or_a_checksum_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Sctp::new(&bytes).map(|view| view.chunks().count());
            let _ = checksum(&bytes);
            let whole = bytes.len() >= 12;
            prop_assert_eq!(refresh(&mut bytes), whole);
            prop_assert_eq!(checksum_ok(&bytes), whole);
        }
    }
}
