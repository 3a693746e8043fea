//! The two kinds of receive ring, made for a socket, and what they have in common.

use super::{ReceiveRing, Settings, request_ring};
use crate::port::sys::{
    abi::*,
    blocks::{BlockFrame, BlockRing},
    ring::{RxRing, Slot},
    socket::PacketSocket,
};
use std::io;

/// Bytes of a block: several times the largest super-frame, which must fit, as it is cut off otherwise.
const BLOCK_SHIFT: u32 = 18;
/// With fewer, the kernel could wait for the worker although most of the ring is free.
const MIN_BLOCKS: u32 = 4;
/// Milliseconds until a block is handed over that is not full: the least there is.
const BLOCK_TIMEOUT_MILLIS: u32 = 1;

/// Slots that are fetched into the cache ahead of their turn.
const AHEAD: u32 = 4;

/// The receive ring of a socket.
#[derive(Debug)]
pub(super) enum Ring {
    Frames(RxRing),
    Blocks(BlockRing),
}

impl Ring {
    /// Makes the receive ring of `socket` for frames that, with all in front of them, have 2^`slot_shift` bytes at most.
    pub(super) fn open(socket: &PacketSocket, settings: &Settings, slot_shift: u32) -> io::Result<Self> {
        match settings.receive_ring {
            ReceiveRing::Frames => {
                request_ring(socket, PACKET_RX_RING, settings.rx_slots, slot_shift)?;
                // Frames that do not fit into a slot wait in the socket's queue, rather than being cut off.
                socket.set(PACKET_COPY_THRESH, &1_i32)?;
                RxRing::map(socket, settings.rx_slots, slot_shift).map(Ring::Frames)
            }
            ReceiveRing::Blocks => {
                let blocks = blocks(settings, slot_shift);
                request_blocks(socket, blocks)?;
                BlockRing::map(socket, blocks, BLOCK_SHIFT).map(Ring::Blocks)
            }
        }
    }

    /// Bytes of the ring that [`Self::open`] makes.
    pub(super) fn bytes(settings: &Settings, slot_shift: u32) -> u64 {
        match settings.receive_ring {
            ReceiveRing::Frames => u64::from(settings.rx_slots) << slot_shift,
            ReceiveRing::Blocks => u64::from(blocks(settings, slot_shift)) << BLOCK_SHIFT,
        }
    }

    /// What the kernel, and we, have lost since the last call, and how often that began.
    pub(super) fn losses(&self, socket: &PacketSocket) -> io::Result<Losses> {
        match self {
            Ring::Frames(_) => {
                let now = socket.get::<Statistics>(PACKET_STATISTICS)?;
                Ok(Losses { drops: now.drops, freezes: 0 })
            }
            Ring::Blocks(_) => {
                let now = socket.get::<BlockStatistics>(PACKET_STATISTICS)?;
                Ok(Losses { drops: now.drops, freezes: now.freezes })
            }
        }
    }

    /// Frames that could not be read since start.
    pub(super) fn unreadable(&self) -> u64 {
        match self {
            Ring::Frames(_) => 0,
            Ring::Blocks(ring) => ring.unreadable(),
        }
    }
}

/// Frames lost because the ring was full.
pub(super) struct Losses {
    pub(super) drops: u32,
    /// Times that the kernel found no free block.
    pub(super) freezes: u32,
}

/// What the kernel says about a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    pub(super) status: u32,
    /// Bytes of the frame.
    pub(super) len: u32,
    /// Bytes of it in the ring.
    pub(super) snaplen: u32,
    /// Where the Ethernet header is, for [`Received::bytes`].
    pub(super) mac: u16,
    pub(super) vlan_tci: u16,
    pub(super) vlan_tpid: u16,
}

/// A ring of either kind.
pub(super) trait Source {
    /// Its next frame.
    type Frame<'a>: Received
    where
        Self: 'a;

    /// The next frame, if there is one.
    fn take(&mut self) -> Option<Self::Frame<'_>>;
}

/// A frame in a ring. It stays the next one until it is given back.
pub(super) trait Received {
    fn about(&self) -> About;

    /// `len` bytes from `offset` on. `None` if what is the frame's does not reach that far.
    fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]>;

    /// Gives it back. The next one is next.
    fn give(self);
}

impl Source for RxRing {
    type Frame<'a> = Slot<'a, false>;

    #[inline]
    fn take(&mut self) -> Option<Slot<'_, false>> {
        self.prefetch(AHEAD);
        self.take()
    }
}

impl Received for Slot<'_, false> {
    #[inline]
    fn about(&self) -> About {
        let SlotHeader { status, len, snaplen, mac, vlan_tci, vlan_tpid, .. } = self.header();
        About { status, len, snaplen, mac, vlan_tci, vlan_tpid }
    }

    #[inline]
    fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        self.bytes(offset, len)
    }

    #[inline]
    fn give(self) {
        self.give(TP_STATUS_NONE);
    }
}

impl Source for BlockRing {
    type Frame<'a> = BlockFrame<'a>;

    // Frames lie one behind the other: the processor fetches them by itself.
    #[inline]
    fn take(&mut self) -> Option<BlockFrame<'_>> {
        self.take()
    }
}

impl Received for BlockFrame<'_> {
    #[inline]
    fn about(&self) -> About {
        let BlockFrameHeader { status, len, snaplen, mac, vlan_tci, vlan_tpid, .. } = *self.header();
        // A tag has 16 bits, whatever the room for it.
        About { status, len, snaplen, mac, vlan_tci: vlan_tci as u16, vlan_tpid }
    }

    #[inline]
    fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        self.bytes(offset, len)
    }

    #[inline]
    fn give(self) {
        self.give();
    }
}

/// As many bytes of blocks as the slots would have.
fn blocks(settings: &Settings, slot_shift: u32) -> u32 {
    let bytes = u64::from(settings.rx_slots) << slot_shift;
    u32::try_from(bytes >> BLOCK_SHIFT).unwrap_or(u32::MAX).max(MIN_BLOCKS)
}

/// Makes the one ring of a socket, of blocks.
fn request_blocks(socket: &PacketSocket, blocks: u32) -> io::Result<()> {
    // The kernel wants a size of slots, and a number of them that fits; it uses neither.
    const SLOT_SHIFT: u32 = 11;
    socket.set(PACKET_VERSION, &TPACKET_V3)?;
    // Each frame comes with what offloads left undone.
    socket.set(PACKET_VNET_HDR, &1_i32)?;
    socket.set(
        PACKET_RX_RING,
        &BlockRingRequest {
            blocks: RingRequest {
                block_size: 1 << BLOCK_SHIFT,
                blocks,
                slot_size: 1 << SLOT_SHIFT,
                slots: blocks << (BLOCK_SHIFT - SLOT_SHIFT),
            },
            timeout_millis: BLOCK_TIMEOUT_MILLIS,
            private_bytes: 0,
            features: 0,
        },
    )
}
