//! VLAN tags: IEEE 802.1Q-2018 clause 9.6, and two of them as in 802.1ad.

use super::{be16, chunk, ethernet};

/// Bytes of one tag.
pub const TAG_LEN: usize = 4;

/// Tags that are looked behind.
pub const MAX_TAGS: usize = 2;

/// A tag: the control word and the EtherType after it.
#[derive(Clone, Copy, Debug)]
pub struct Vlan<'a> {
    fixed: &'a [u8; TAG_LEN],
}

impl<'a> Vlan<'a> {
    /// The tag whose control word `bytes` begins with (what follows EtherType 0x8100 or 0x88a8). `None` if it is cut off.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { fixed: bytes.first_chunk()? })
    }

    /// 0..8.
    #[inline]
    pub fn priority(&self) -> u8 {
        self.fixed[0] >> 5
    }

    /// 0..4096; 0 is a tag that only gives the priority.
    #[inline]
    pub fn id(&self) -> u16 {
        be16(self.fixed, 0) & 0x0fff
    }

    /// What follows the tag.
    #[inline]
    pub fn ethertype(&self) -> u16 {
        be16(self.fixed, 2)
    }
}

/// The EtherType behind at most [`MAX_TAGS`] tags, and the offset in the frame of what it announces. With more tags, the
/// EtherType is that of the next tag. `None` if the frame ends before.
#[inline]
pub fn skip(frame: &[u8]) -> Option<(u16, usize)> {
    let mut ethertype = be16(chunk::<2>(frame, ethernet::HEADER_LEN - 2)?, 0);
    let mut at = ethernet::HEADER_LEN;
    for _ in 0..MAX_TAGS {
        if ethertype != ethernet::VLAN && ethertype != ethernet::QINQ {
            break;
        }
        ethertype = be16(chunk::<TAG_LEN>(frame, at)?, 2);
        at += TAG_LEN;
    }
    Some((ethertype, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_skipped_up_to_two() {
        let addresses = [0u8; 12];
        for (rest, expected) in [
            (&b"\x08\x00"[..], Some((0x0800, 14))),
            (b"\x81\x00\xa0\x64\x86\xdd", Some((0x86dd, 18))),
            (b"\x88\xa8\x00\x64\x81\x00\x00\x65\x08\x06", Some((0x0806, 22))),
            (b"\x81\x00\0\x01\x81\x00\0\x02\x81\x00\0\x03\x08\x00", Some((0x8100, 22))),
            (b"\x81\x00\xa0\x64\x86", None),
            (b"\x08", None),
        ] {
            assert_eq!(skip(&[&addresses, rest].concat()), expected);
        }
        let tag = Vlan::new(b"\xa0\x64\x86\xdd").expect("4 bytes");
        assert_eq!((tag.priority(), tag.id(), tag.ethertype()), (5, 100, 0x86dd));
    }
}
