//! The transmit ring: frames are copied into slots, and one system call sends a batch.
//!
//! The kernel would attach a slot's memory to the packet, and copy it to a page of its own as soon as the packet goes to
//! another interface of this machine (veth), or is cloned. It copies less by being told that all of the frame is header
//! ([`VirtioHeader::hdr_len`]): that goes into the packet's own head.

use super::{Error, Settings, index, request_ring, slot_shift};
use crate::port::{
    Frames,
    sys::{
        abi::{
            PACKET_LOSS, PACKET_QDISC_BYPASS, PACKET_TX_RING, TP_STATUS_SEND_REQUEST, TX_DATA_OFFSET,
            VIRTIO_HEADER, VirtioHeader,
        },
        interface::Facts,
        ring::TxRing,
        socket::PacketSocket,
    },
};

/// Bytes of frames that may be on their way in the interface.
const SEND_BUFFER_BYTES: i32 = 8 << 20;

/// The sending half of a port.
#[derive(Debug)]
pub(super) struct Transmitter {
    ring: TxRing,
    socket: PacketSocket,
    /// Whether the kernel has left frames in the ring, because the interface had no room for more.
    waiting: bool,
}

impl Transmitter {
    pub(super) fn open(settings: &Settings, facts: &Facts) -> Result<Self, Error> {
        let device = &settings.device;
        let socket = PacketSocket::open().map_err(Error::socket(device, "open a packet socket"))?;
        // A frame that the kernel dislikes is lost, rather than stopping those behind it.
        socket.set(PACKET_LOSS, &1_i32).map_err(Error::socket(device, "prepare for sending"))?;
        // No queueing discipline: it would wait, and copy to those who listen.
        let bypass = socket.set(PACKET_QDISC_BYPASS, &1_i32);
        bypass.map_err(Error::socket(device, "send without a queueing discipline"))?;
        grow(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER_BYTES);
        let shift = slot_shift(facts, TX_DATA_OFFSET + VIRTIO_HEADER);
        let map = || {
            request_ring(&socket, PACKET_TX_RING, settings.tx_slots, shift)?;
            TxRing::map(&socket, settings.tx_slots, shift)
        };
        let ring = map().map_err(|source| Error::Ring {
            device: device.clone(),
            which: "transmit",
            bytes: u64::from(settings.tx_slots) << shift,
            source,
        })?;
        // Protocol 0: this socket receives nothing.
        socket.bind(index(facts), 0).map_err(Error::socket(device, "send to the interface"))?;
        Ok(Self { ring, socket, waiting: false })
    }

    /// Sends `frames` and returns how many the ring had room for.
    #[inline]
    pub(super) fn send(&mut self, frames: &mut Frames) -> usize {
        let mut accepted = 0;
        for frame in frames.drain(..) {
            accepted += usize::from(self.put(frame.data()));
        }
        if accepted > 0 || self.waiting {
            self.kick();
        }
        accepted
    }

    /// Sends again what the interface had no room for.
    #[inline]
    pub(super) fn retry(&mut self) {
        if self.waiting {
            self.kick();
        }
    }

    #[inline]
    fn put(&mut self, frame: &[u8]) -> bool {
        let Some(mut slot) = self.ring.take() else {
            return false;
        };
        let Ok(hdr_len) = u16::try_from(frame.len()) else {
            return false;
        };
        let len = VIRTIO_HEADER + frame.len();
        let Some(bytes) = slot.bytes_mut(TX_DATA_OFFSET, len) else {
            return false;
        };
        let (header, data) = bytes.split_at_mut(VIRTIO_HEADER);
        header.copy_from_slice(bytemuck::bytes_of(&VirtioHeader { hdr_len, ..VirtioHeader::default() }));
        data.copy_from_slice(frame);
        slot.set_len(len as u32);
        slot.give(TP_STATUS_SEND_REQUEST);
        true
    }

    fn kick(&mut self) {
        // Whatever the error (no room in the interface, or it is down), what is still in the ring is tried again.
        let _ = self.socket.send_ring();
        self.waiting = self.ring.status_behind() == TP_STATUS_SEND_REQUEST;
    }
}

/// Lets a socket hold more, beyond the machine's limit if we may.
pub(super) fn grow(socket: &PacketSocket, force: i32, ask: i32, bytes: i32) {
    if socket.set_generic(force, &bytes).is_err() {
        // Never refused: the kernel takes the largest that the limit allows.
        let _ = socket.set_generic(ask, &bytes);
    }
}
