//! The memory that a packet socket shares with the kernel: a ring of blocks, each of which holds frames of any size one
//! behind the other (TPACKET_V3). Only for receiving.
//!
//! Invariant of the unsafe code: `mapping` has `blocks << block_shift` bytes, and a block has room for the two headers;
//! `head < blocks`. The status in a block's header says whose the block is. While `left > 0`, an Acquire load has read
//! there that block `head` is ours, no Release store has given it back since, and a whole [`BlockFrameHeader`] lies `at`
//! bytes behind its beginning. The kernel touches nothing of a block that is ours. A [`BlockFrame`] exists only while
//! `left > 0` and borrows the ring exclusively; [`BlockFrame::give`] alone gives a block back that has frames, after the
//! last of them.
//!
//! Whatever the kernel wrote as an offset or a length is checked against the block before it is used.
#![allow(unsafe_code)]

use super::{
    abi::{BlockFrameHeader, BlockHeader, TP_STATUS_NONE, TP_STATUS_USER},
    mapping::Mapping,
    socket::PacketSocket,
};
use std::{
    io,
    mem::offset_of,
    sync::atomic::{AtomicU32, Ordering},
};

const BLOCK_HEADER: usize = size_of::<BlockHeader>();
const FRAME_HEADER: usize = size_of::<BlockFrameHeader>();

/// A mapped ring.
#[derive(Debug)]
pub(crate) struct BlockRing {
    mapping: Mapping,
    block_shift: u32,
    blocks: u32,
    /// The block that is next, or ours.
    head: u32,
    /// Frames of that block that have not been given back: 0 if it has not been looked into.
    left: u32,
    /// Where the next frame's header is in that block.
    at: usize,
    /// See [`Self::unreadable`].
    unreadable: u64,
}

impl BlockRing {
    /// Maps the only ring of `socket`, which has that many blocks of 2^`block_shift` bytes.
    pub(crate) fn map(socket: &PacketSocket, blocks: u32, block_shift: u32) -> io::Result<Self> {
        if blocks == 0 || (1_usize << block_shift) < BLOCK_HEADER + FRAME_HEADER {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self::new(Mapping::new(socket, (blocks as usize) << block_shift)?, blocks, block_shift))
    }

    fn new(mapping: Mapping, blocks: u32, block_shift: u32) -> Self {
        Self { mapping, block_shift, blocks, head: 0, left: 0, at: 0, unreadable: 0 }
    }

    /// Frames that were skipped because the kernel's description of where they are led out of their block.
    pub(crate) fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// The next frame, if a block with one is ours. Skips blocks without frames, each at most once.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<BlockFrame<'_>> {
        if self.left == 0 {
            self.open_block()?;
        }
        // SAFETY: `left > 0`: the block is ours and the header lies in it. Any bytes are a header.
        let header = unsafe { self.start(self.at).cast::<BlockFrameHeader>().read_unaligned() };
        Some(BlockFrame { ring: self, header })
    }

    /// Looks into the next block that has frames, if it is ours: then `left > 0`.
    fn open_block(&mut self) -> Option<()> {
        for _ in 0..self.blocks {
            if self.status().load(Ordering::Acquire) & TP_STATUS_USER == 0 {
                return None;
            }
            // SAFETY: a block begins with its header, and this block is ours. Any bytes are a header.
            let header = unsafe { self.start(0).cast::<BlockHeader>().read_unaligned() };
            self.enter(header.first as usize, header.frames);
            if self.left > 0 {
                return Some(());
            }
        }
        None
    }

    /// Goes to the header `at` in the block that is ours, where `left` frames begin. Gives the block back if there are
    /// none, or no header can be there.
    #[inline]
    fn enter(&mut self, at: usize, left: u32) {
        let fits = at >= BLOCK_HEADER && at <= (1 << self.block_shift) - FRAME_HEADER;
        if left > 0 && fits {
            (self.at, self.left) = (at, left);
            return;
        }
        self.unreadable += u64::from(left);
        self.left = 0;
        self.status().store(TP_STATUS_NONE, Ordering::Release);
        self.head += 1;
        if self.head == self.blocks {
            self.head = 0;
        }
    }

    /// The status of block `head`.
    #[inline]
    fn status(&self) -> &AtomicU32 {
        // SAFETY: in the header of the block, aligned to its size as blocks are; both sides use it as an atomic only,
        // but for reading the header of a block that is ours, when nobody writes.
        unsafe { AtomicU32::from_ptr(self.start(offset_of!(BlockHeader, status)).cast()) }
    }

    /// The byte `offset`, less than the size of a block, of block `head`: inside the mapping, as `head < blocks`.
    #[inline]
    fn start(&self, offset: usize) -> *mut u8 {
        self.mapping.at(((self.head as usize) << self.block_shift) + offset)
    }
}

/// A frame that is ours until it is given back.
pub(crate) struct BlockFrame<'a> {
    ring: &'a mut BlockRing,
    header: BlockFrameHeader,
}

impl BlockFrame<'_> {
    /// What the kernel says about the frame.
    #[inline]
    pub(crate) fn header(&self) -> &BlockFrameHeader {
        &self.header
    }

    /// `len` bytes from `offset` behind the frame's header on. `None` if the block does not reach that far.
    #[inline]
    pub(crate) fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        let from = self.ring.at.checked_add(offset)?;
        let end = from.checked_add(len)?;
        if offset < FRAME_HEADER || end > 1 << self.ring.block_shift || len == 0 {
            return None;
        }
        // SAFETY: inside the block, which is ours, behind its header with the status.
        Some(unsafe { std::slice::from_raw_parts(self.ring.start(from), len) })
    }

    /// Goes on to the next frame; with the last one, the block is the kernel's again.
    #[inline]
    pub(crate) fn give(self) {
        let (ring, next) = (self.ring, self.header.next as usize);
        // Each step goes forward by a header at least, so that a block is left after a bounded number of them. A step
        // that does not is one out of the block.
        let at = if next < FRAME_HEADER { 0 } else { ring.at.saturating_add(next) };
        ring.enter(at, ring.left - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: usize = 4_096;

    /// A ring of two blocks of 4 KiB that are ours, with these words of their headers written by a kernel that may be
    /// wrong: (block, offset of the word, value).
    fn ring(words: &[(usize, usize, u32)]) -> BlockRing {
        let ring = BlockRing::new(Mapping::anonymous(2 * BLOCK), 2, 12);
        for (block, offset, value) in words {
            assert!(*block < 2 && offset + 4 <= BLOCK);
            // SAFETY: inside the mapping, which nobody else uses.
            unsafe { ring.mapping.at(block * BLOCK + offset).cast::<u32>().write_unaligned(*value) };
        }
        ring
    }

    /// Status, number of frames, and the first one's header, of a block.
    fn block(number: usize, frames: u32, first: u32) -> [(usize, usize, u32); 3] {
        [(number, 8, 1), (number, 12, frames), (number, 16, first)]
    }

    /// Takes frames until there is none, but never more than this.
    fn take_all(ring: &mut BlockRing, bound: usize) -> Vec<u32> {
        let mut lens = Vec::new();
        while let Some(frame) = ring.take() {
            lens.push(frame.header().len);
            frame.give();
            assert!(lens.len() <= bound, "a ring that does not end");
        }
        lens
    }

    fn statuses(ring: &BlockRing) -> [u32; 2] {
        // SAFETY: inside the mapping, which nobody else uses.
        [0, 1].map(|block| unsafe { ring.mapping.at(block * BLOCK + 8).cast::<u32>().read() })
    }

    #[test]
    fn a_block_is_given_back_after_its_last_frame_and_not_before() {
        let frames = [(0, 48, 200), (0, 64, 7), (0, 248, 0), (0, 264, 8)];
        let mut ring = ring(&[&block(0, 2, 48)[..], &frames].concat());
        assert_eq!(ring.take().unwrap().header().len, 7);
        let again = ring.take().unwrap();
        assert_eq!(again.header().len, 7, "a frame that is not given back stays the next");
        again.give();
        assert_eq!(statuses(&ring), [1, 0], "one frame is left");
        let last = ring.take().unwrap();
        assert_eq!(last.header().len, 8);
        last.give();
        assert_eq!((statuses(&ring), ring.unreadable()), ([0, 0], 0));
        assert!(ring.take().is_none(), "the second block is the kernel's");
    }

    #[test]
    fn a_block_without_frames_is_skipped() {
        let frame = [(1, 48, 0), (1, 64, 9)];
        let mut ring = ring(&[&block(0, 0, 48)[..], &block(1, 1, 48), &frame].concat());
        assert_eq!(take_all(&mut ring, 1), [9]);
        assert_eq!((statuses(&ring), ring.unreadable()), ([0, 0], 0));
    }

    #[test]
    fn offsets_that_lead_out_of_the_block_cost_the_rest_of_it() {
        // A first header inside the block's own, one that does not fit in, and one far away.
        for first in [0, 40, 4_049, 4_096, u32::MAX] {
            let mut ring = ring(&block(0, 5, first));
            assert_eq!((take_all(&mut ring, 0), ring.unreadable()), (vec![], 5), "{first}");
            assert_eq!(statuses(&ring), [0, 0]);
        }
        // Steps that stay, end inside of the header, or lead behind the block.
        for next in [0, 1, 47, 4_096, u32::MAX] {
            let mut ring = ring(&[&block(0, 3, 48)[..], &[(0, 48, next), (0, 64, 7)]].concat());
            assert_eq!((take_all(&mut ring, 1), ring.unreadable()), (vec![7], 2), "{next}");
            assert_eq!(statuses(&ring), [0, 0]);
        }
    }

    #[test]
    fn no_bytes_are_read_from_outside_of_the_block_or_from_headers() {
        let mut ring = ring(&block(0, 1, 4_000));
        let frame = ring.take().unwrap();
        assert_eq!(frame.bytes(48, 48).map(<[u8]>::len), Some(48));
        for (offset, len) in [(48, 49), (47, 1), (96, 1), (97, 0), (0, 4), (usize::MAX, 2), (48, usize::MAX)]
        {
            assert!(frame.bytes(offset, len).is_none(), "{len} bytes at {offset}");
        }
    }

    proptest! {
        #[test]
        fn a_ring_with_anything_in_it_ends(words in proptest::collection::vec((0_usize..2, 0_usize..1_023, prop_oneof![any::<u32>(), 0_u32..5_000]), 0..200), frames: [u32; 2]) {
            let words = words.into_iter().map(|(block, word, value)| (block, word * 4, value));
            let heads = frames.iter().zip(0..).flat_map(|(frames, number)| block(number, *frames, 48));
            let mut ring = ring(&words.chain(heads).collect::<Vec<_>>());
            // A header has 48 bytes, and frames only go forward.
            let taken = take_all(&mut ring, 2 * BLOCK / 48).len() as u64;
            prop_assert_eq!(taken + ring.unreadable(), frames.iter().map(|n| u64::from(*n)).sum::<u64>());
            prop_assert_eq!(statuses(&ring), [0, 0]);
        }
    }
}
