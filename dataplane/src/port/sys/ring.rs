//! The memory that a packet socket shares with the kernel: a ring of slots, one frame each (TPACKET_V2).
//!
//! Invariant of the unsafe code: `mapping` has `slots << slot_shift` bytes; `head < slots`. The status at a slot's
//! beginning says whose the slot is. A [`Slot`] exists only after an Acquire load has read there that the slot is ours;
//! until [`Slot::give`] stores with Release that it is the kernel's, the kernel touches nothing of it, and it borrows the
//! ring exclusively, so there is no other reference.
#![allow(unsafe_code)]

use super::{
    abi::{SlotHeader, TP_STATUS_SEND_REQUEST, TP_STATUS_SENDING, TP_STATUS_USER},
    mapping::Mapping,
    socket::PacketSocket,
};
use std::{
    io,
    sync::atomic::{AtomicU32, Ordering},
};

/// A ring into which the kernel receives.
pub(crate) type RxRing = Ring<false>;
/// A ring from which the kernel sends.
pub(crate) type TxRing = Ring<true>;

/// A mapped ring.
#[derive(Debug)]
pub(crate) struct Ring<const TRANSMIT: bool> {
    mapping: Mapping,
    slot_shift: u32,
    slots: u32,
    /// The slot that is next.
    head: u32,
}

impl<const TRANSMIT: bool> Ring<TRANSMIT> {
    /// Maps the only ring of `socket`, which has that many slots of 2^`slot_shift` bytes.
    pub(crate) fn map(socket: &PacketSocket, slots: u32, slot_shift: u32) -> io::Result<Self> {
        if slots == 0 || (1_usize << slot_shift) < size_of::<SlotHeader>() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mapping = Mapping::new(socket, (slots as usize) << slot_shift)?;
        Ok(Self { mapping, slot_shift, slots, head: 0 })
    }

    /// The next slot, if it is ours.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Slot<'_, TRANSMIT>> {
        let status = self.status(self.head);
        let ours = if TRANSMIT {
            status & (TP_STATUS_SEND_REQUEST | TP_STATUS_SENDING) == 0
        } else {
            status & TP_STATUS_USER != 0
        };
        ours.then_some(Slot { ring: self, status })
    }

    /// The status of the slot before the next.
    #[inline]
    pub(crate) fn status_behind(&self) -> u32 {
        self.status(if self.head == 0 { self.slots - 1 } else { self.head - 1 })
    }

    /// Fetches the slot `ahead` of the next (less than the number of slots) into the cache: its header and the first
    /// bytes of its frame.
    #[inline]
    pub(crate) fn prefetch(&self, ahead: u32) {
        let slot = self.head + ahead;
        let slot = if slot >= self.slots { slot - self.slots } else { slot };
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let start = self.start(slot).cast_const().cast::<i8>();
            // SAFETY: a prefetch of any address has no effect that is seen.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(start);
                _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(64));
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = slot;
    }

    #[inline]
    fn status(&self, slot: u32) -> u32 {
        self.status_cell(slot).load(Ordering::Acquire)
    }

    #[inline]
    fn status_cell(&self, slot: u32) -> &AtomicU32 {
        // SAFETY: a slot begins with its status, aligned to its size; both sides use it as an atomic only.
        unsafe { AtomicU32::from_ptr(self.start(slot).cast()) }
    }

    #[inline]
    fn start(&self, slot: u32) -> *mut u8 {
        debug_assert!(slot < self.slots, "a slot of this ring");
        // Inside the mapping, as `slot < slots`.
        self.mapping.at((slot as usize) << self.slot_shift)
    }
}

/// A slot that is ours until it is given back.
pub(crate) struct Slot<'a, const TRANSMIT: bool> {
    ring: &'a mut Ring<TRANSMIT>,
    status: u32,
}

impl<const TRANSMIT: bool> Slot<'_, TRANSMIT> {
    /// What the kernel says about the frame.
    #[inline]
    pub(crate) fn header(&self) -> SlotHeader {
        // SAFETY: a slot has room for the header, it is aligned, any bytes are a header, and the slot is ours.
        let header = unsafe { self.start().cast::<SlotHeader>().read() };
        SlotHeader { status: self.status, ..header }
    }

    /// Says how many bytes the frame has that is to be sent.
    #[inline]
    pub(crate) fn set_len(&mut self, len: u32) {
        // SAFETY: as in `header`; the status in front of the length is left alone.
        unsafe { (&raw mut (*self.start().cast::<SlotHeader>()).len).write(len) };
    }

    /// `len` bytes from `offset` on. `None` if the slot does not reach that far.
    #[inline]
    pub(crate) fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        self.check(offset, len)?;
        // SAFETY: inside the slot, which is ours, and behind the status.
        Some(unsafe { std::slice::from_raw_parts(self.start().add(offset), len) })
    }

    /// As [`Self::bytes`], to write.
    #[inline]
    pub(crate) fn bytes_mut(&mut self, offset: usize, len: usize) -> Option<&mut [u8]> {
        self.check(offset, len)?;
        // SAFETY: inside the slot, which is ours, behind the status, and `self` is borrowed exclusively.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start().add(offset), len) })
    }

    /// Gives the slot to the kernel. The next one is next.
    #[inline]
    pub(crate) fn give(self, status: u32) {
        let ring = self.ring;
        ring.status_cell(ring.head).store(status, Ordering::Release);
        ring.head += 1;
        if ring.head == ring.slots {
            ring.head = 0;
        }
    }

    #[inline]
    fn check(&self, offset: usize, len: usize) -> Option<()> {
        let end = offset.checked_add(len)?;
        (offset >= size_of::<SlotHeader>() && end <= 1 << self.ring.slot_shift).then_some(())
    }

    #[inline]
    fn start(&self) -> *mut u8 {
        self.ring.start(self.ring.head)
    }
}
