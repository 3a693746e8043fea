//! The receive ring, and what the kernel left undone about its frames: checksums, segmentation, VLAN tags.
//!
//! A frame that does not fit into its slot waits whole in the socket's queue (PACKET_COPY_THRESH): the slot says so, in
//! order, and it is fetched by a system call. These are the super-frames of segmentation offload, one call for up to 45
//! packets. Blocks have room for them.

use super::{
    Counters, Error, Settings, fanout, index,
    receive_ring::{About, Received, Ring, Source},
    slot_shift,
    transmit::grow,
};
use crate::port::{
    Frames,
    segment::{Plan, complete_checksum},
    sys::{abi::*, interface::Facts, socket::PacketSocket},
};
use pointsman_hugepages::{Buffer, Pool};
use std::{io, os::fd::RawFd};

/// Bytes of super-frames that may wait for the worker: a window of some hundred connections that have just begun, or of
/// some fast ones.
const RECEIVE_BUFFER_BYTES: i32 = 16 << 20;

/// Bytes of the largest super-frame with its [`VirtioHeader`]. The kernel makes larger ones only if the interface is
/// told so (BIG TCP).
const SUPER_FRAME_BYTES: usize = VIRTIO_HEADER + 14 + 65_535 + 2 * 4;

const ETH_P_ALL: u16 = 3;
const TAG_AT: usize = 12;
const TAG: usize = 4;

/// The receiving half of a port.
#[derive(Debug)]
pub(super) struct Receiver {
    ring: Ring,
    rest: Rest,
}

/// All of a receiver but its ring.
#[derive(Debug)]
struct Rest {
    super_frame: SuperFrame,
    counters: Counters,
    /// What the kernel has lost.
    lost: u64,
    socket: PacketSocket,
}

/// A frame larger than the MTU, and how much of it has been handed on.
#[derive(Debug)]
struct SuperFrame {
    /// A [`VirtioHeader`], then the frame.
    bytes: Box<[u8]>,
    len: usize,
    plan: Option<Plan>,
    /// The segment that is next.
    next: usize,
    tag: Option<[u8; TAG]>,
}

impl SuperFrame {
    fn frame(&self) -> &[u8] {
        &self.bytes[VIRTIO_HEADER..self.len]
    }
}

impl Receiver {
    pub(super) fn open(settings: &Settings, facts: &Facts) -> Result<Self, Error> {
        let device = &settings.device;
        let socket = PacketSocket::open().map_err(Error::socket(device, "open a packet socket"))?;
        let shift = slot_shift(facts, RX_DATA_OFFSET_MAX);
        let ring = Ring::open(&socket, settings, shift).map_err(|source| Error::Ring {
            device: device.clone(),
            which: "receive",
            bytes: Ring::bytes(settings, shift),
            source,
        })?;
        grow(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER_BYTES);
        let ignore = socket.set(PACKET_IGNORE_OUTGOING, &1_i32);
        ignore.map_err(Error::socket(device, "ignore frames that the host sends"))?;
        // Neighbour solicitations for virtual addresses go to multicast groups that the kernel knows nothing of.
        let all_multicast =
            Membership { interface: index(facts), kind: PACKET_MR_ALLMULTI, address_len: 0, address: [0; 8] };
        let member = socket.set(PACKET_ADD_MEMBERSHIP, &all_multicast);
        member.map_err(Error::socket(device, "receive all multicast frames"))?;
        join(settings, facts, &socket)?;
        let super_frame = SuperFrame {
            bytes: vec![0; SUPER_FRAME_BYTES].into_boxed_slice(),
            len: VIRTIO_HEADER,
            plan: None,
            next: 0,
            tag: None,
        };
        Ok(Self { ring, rest: Rest { super_frame, counters: Counters::default(), lost: 0, socket } })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.rest.socket.fd()
    }

    pub(super) fn clear_error(&self) {
        let _ = self.rest.socket.take_error();
    }

    pub(super) fn counters(&self) -> Counters {
        self.rest.counters
    }

    /// Adds what has been lost since the last call.
    pub(super) fn update_counters(&mut self) -> Counters {
        let Rest { counters, lost, socket, .. } = &mut self.rest;
        if let Ok(now) = self.ring.losses(socket) {
            *lost += u64::from(now.drops);
            counters.ring_freezes += u64::from(now.freezes);
        }
        counters.ring_drops = *lost + self.ring.unreadable();
        *counters
    }

    #[inline]
    pub(super) fn receive(&mut self, pool: &mut Pool, frames: &mut Frames) -> usize {
        match &mut self.ring {
            Ring::Frames(ring) => self.rest.receive(ring, pool, frames),
            Ring::Blocks(ring) => self.rest.receive(ring, pool, frames),
        }
    }
}

impl Rest {
    #[inline]
    fn receive(&mut self, ring: &mut impl Source, pool: &mut Pool, frames: &mut Frames) -> usize {
        let before = frames.len();
        while !frames.is_full() {
            // First of all a buffer: without one, the frames stay in the ring.
            if self.super_frame.plan.is_some() {
                let Some(buffer) = pool.alloc() else { break };
                if let Some(buffer) = self.next_segment(buffer) {
                    frames.push(buffer);
                }
                continue;
            }
            let Some(frame) = ring.take() else { break };
            let Some(buffer) = pool.alloc() else { break };
            let taken = match usual(&frame, buffer) {
                Ok(buffer) => {
                    frame.give();
                    Some(buffer)
                }
                Err(buffer) => self.unusual(frame, buffer),
            };
            if let Some(buffer) = taken {
                frames.push(buffer);
            }
        }
        frames.len() - before
    }

    /// Writes the next segment of the super-frame into `buffer`.
    #[cold]
    fn next_segment(&mut self, mut buffer: Buffer) -> Option<Buffer> {
        let whole = &mut self.super_frame;
        let plan = whole.plan?;
        let n = whole.next;
        whole.next += 1;
        if whole.next >= plan.segments() {
            whole.plan = None;
        }
        let written = buffer.set_len(plan.len(n))
            && plan.write(whole.frame(), n, buffer.data_mut())
            && tag(&mut buffer, whole.tag);
        self.counters.segments += u64::from(written);
        written.then_some(buffer)
    }

    /// Any other frame. `None` if it is lost, or begins a super-frame.
    #[cold]
    fn unusual(&mut self, frame: impl Received, mut buffer: Buffer) -> Option<Buffer> {
        let Self { super_frame: whole, counters, socket, .. } = self;
        let about = frame.about();
        whole.tag = stripped_tag(&about);
        whole.len = VIRTIO_HEADER;
        let got = if about.status & TP_STATUS_COPY != 0 {
            fetch(socket, &mut whole.bytes)
        } else if about.snaplen == about.len {
            copy(&frame, &about, &mut whole.bytes)
        } else {
            None
        };
        frame.give();
        let Some(len) = got else {
            counters.oversize += 1;
            return None;
        };
        whole.len = len;
        let virtio: VirtioHeader = bytemuck::pod_read_unaligned(&whole.bytes[..VIRTIO_HEADER]);
        let (start, offset) = (usize::from(virtio.csum_start), usize::from(virtio.csum_offset));
        match virtio.gso_type & !VIRTIO_GSO_ECN {
            VIRTIO_GSO_NONE => {
                if !buffer.copy_from(whole.frame()) {
                    counters.oversize += 1;
                    return None;
                }
                let unfinished = virtio.flags & VIRTIO_NEEDS_CSUM != 0;
                if unfinished && complete_checksum(buffer.data_mut(), start, offset) {
                    counters.checksums_completed += 1;
                }
                tag(&mut buffer, whole.tag).then_some(buffer)
            }
            VIRTIO_GSO_TCPV4 | VIRTIO_GSO_TCPV6 | VIRTIO_GSO_UDP_L4 => {
                let room = buffer.tailroom();
                let plan = Plan::new(whole.frame(), start, usize::from(virtio.gso_size));
                whole.plan = plan.filter(|plan| plan.longest() <= room);
                whole.next = 0;
                let count =
                    if whole.plan.is_some() { &mut counters.super_frames } else { &mut counters.oversize };
                *count += 1;
                None
            }
            _ => {
                counters.oversize += 1;
                None
            }
        }
    }
}

/// A frame about which nothing was left undone: nearly all are so on a NIC. Else the buffer comes back.
#[inline]
fn usual(frame: &impl Received, mut buffer: Buffer) -> Result<Buffer, Buffer> {
    const LEFT_UNDONE: u32 = TP_STATUS_COPY | TP_STATUS_VLAN_VALID;
    let about = frame.about();
    let (mac, len) = (usize::from(about.mac), about.snaplen as usize);
    if about.status & LEFT_UNDONE != 0 || about.snaplen != about.len || mac < VIRTIO_HEADER {
        return Err(buffer);
    }
    let Some((virtio, data)) = frame
        .bytes(mac - VIRTIO_HEADER, VIRTIO_HEADER + len)
        .and_then(<[u8]>::split_first_chunk::<VIRTIO_HEADER>)
    else {
        return Err(buffer);
    };
    // The flags and the kind of segmentation.
    if virtio[0] & VIRTIO_NEEDS_CSUM != 0 || virtio[1] != VIRTIO_GSO_NONE || !buffer.copy_from(data) {
        return Err(buffer);
    }
    Ok(buffer)
}

/// Copies a frame from its ring, with what is said about it, to `bytes`. Returns how many there are.
fn copy(frame: &impl Received, about: &About, bytes: &mut [u8]) -> Option<usize> {
    let len = VIRTIO_HEADER + about.snaplen as usize;
    let from = frame.bytes(usize::from(about.mac).checked_sub(VIRTIO_HEADER)?, len)?;
    bytes.get_mut(..len)?.copy_from_slice(from);
    Some(len)
}

/// Takes a frame that did not fit into its slot from the socket's queue.
fn fetch(socket: &PacketSocket, bytes: &mut [u8]) -> Option<usize> {
    let len = match socket.receive(bytes) {
        // An error that waited at the socket (the interface went down) is told once, instead of the frame.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => socket.receive(bytes),
        result => result,
    };
    len.ok().filter(|len| (VIRTIO_HEADER..=bytes.len()).contains(len))
}

/// The VLAN tag that the kernel took out of the frame.
fn stripped_tag(about: &About) -> Option<[u8; TAG]> {
    const VLAN: u16 = 0x8100;
    let kind = if about.status & TP_STATUS_VLAN_TPID_VALID != 0 { about.vlan_tpid } else { VLAN };
    let ([a, b], [c, d]) = (kind.to_be_bytes(), about.vlan_tci.to_be_bytes());
    (about.status & TP_STATUS_VLAN_VALID != 0).then_some([a, b, c, d])
}

/// Puts a VLAN tag behind the Ethernet addresses. False if it does not fit.
fn tag(buffer: &mut Buffer, tag: Option<[u8; TAG]>) -> bool {
    let Some(tag) = tag else { return true };
    if buffer.len() < TAG_AT || buffer.prepend(TAG).is_none() {
        return false;
    }
    let data = buffer.data_mut();
    data.copy_within(TAG..TAG + TAG_AT, 0);
    data[TAG_AT..TAG_AT + TAG].copy_from_slice(&tag);
    true
}

/// Binds the socket, and makes it one of the group of workers before it receives the first frame.
fn join(settings: &Settings, facts: &Facts, socket: &PacketSocket) -> Result<(), Error> {
    let device = &settings.device;
    socket.set_filter(&fanout::NOTHING).map_err(Error::socket(device, "filter frames"))?;
    socket.bind(index(facts), ETH_P_ALL).map_err(Error::socket(device, "receive from the interface"))?;
    if settings.workers > 1 {
        let group = settings.fanout_group;
        let join = || {
            socket.set(PACKET_FANOUT, &(i32::from(group) | PACKET_FANOUT_CBPF << 16))?;
            socket.set_fanout_program(&fanout::owner_program(settings.workers))
        };
        join().map_err(|source| Error::Fanout { device: device.clone(), group, source })?;
    }
    socket.set_generic(libc::SO_DETACH_FILTER, &0_i32).map_err(Error::socket(device, "filter frames no more"))
}
