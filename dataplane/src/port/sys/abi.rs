//! The kernel's numbers and structures that the `libc` crate lacks.

use bytemuck::{Pod, Zeroable};

/// `setsockopt` names at `SOL_PACKET`.
pub(crate) const PACKET_ADD_MEMBERSHIP: i32 = 1;
pub(crate) const PACKET_RX_RING: i32 = 5;
pub(crate) const PACKET_STATISTICS: i32 = 6;
pub(crate) const PACKET_COPY_THRESH: i32 = 7;
pub(crate) const PACKET_VERSION: i32 = 10;
pub(crate) const PACKET_TX_RING: i32 = 13;
pub(crate) const PACKET_LOSS: i32 = 14;
pub(crate) const PACKET_VNET_HDR: i32 = 15;
pub(crate) const PACKET_FANOUT: i32 = 18;
pub(crate) const PACKET_QDISC_BYPASS: i32 = 20;
pub(crate) const PACKET_FANOUT_DATA: i32 = 22;
pub(crate) const PACKET_IGNORE_OUTGOING: i32 = 23;

pub(crate) const PACKET_FANOUT_CBPF: i32 = 6;
pub(crate) const PACKET_MR_ALLMULTI: u16 = 2;
pub(crate) const TPACKET_V2: i32 = 1;
pub(crate) const TPACKET_V3: i32 = 2;

/// Bits of [`SlotHeader::status`] in a receive ring, of [`BlockFrameHeader::status`] and of [`BlockHeader::status`].
pub(crate) const TP_STATUS_USER: u32 = 1;
pub(crate) const TP_STATUS_COPY: u32 = 1 << 1;
pub(crate) const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
pub(crate) const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
/// The slot or block is the kernel's (receive), or the slot is free (transmit).
pub(crate) const TP_STATUS_NONE: u32 = 0;
/// Values of [`SlotHeader::status`] in a transmit ring: ready to be sent, and on its way. Else the slot is free.
pub(crate) const TP_STATUS_SEND_REQUEST: u32 = 1;
pub(crate) const TP_STATUS_SENDING: u32 = 1 << 1;

/// `struct tpacket2_hdr`, at the beginning of each slot of a ring.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct SlotHeader {
    pub(crate) status: u32,
    /// Bytes of the frame.
    pub(crate) len: u32,
    /// Bytes of it in the slot.
    pub(crate) snaplen: u32,
    /// Where the Ethernet header is in the slot.
    pub(crate) mac: u16,
    pub(crate) net: u16,
    pub(crate) sec: u32,
    pub(crate) nsec: u32,
    pub(crate) vlan_tci: u16,
    pub(crate) vlan_tpid: u16,
    pub(crate) padding: [u8; 4],
}

const _: () = assert!(size_of::<SlotHeader>() == 32);

/// Where data begin in a slot of a transmit ring: behind the header, aligned to 16 bytes.
pub(crate) const TX_DATA_OFFSET: usize = 32;

/// Bytes in front of the Ethernet header in a slot of a receive ring, at most: the header and a `sockaddr_ll` (52), room
/// for a link header aligned to 16, and the [`VirtioHeader`].
pub(crate) const RX_DATA_OFFSET_MAX: usize = 96;

/// `struct tpacket_block_desc` with its `struct tpacket_hdr_v1`, at the beginning of each block of a ring.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct BlockHeader {
    pub(crate) version: u32,
    pub(crate) private_offset: u32,
    /// Whose the block is.
    pub(crate) status: u32,
    /// Frames in the block.
    pub(crate) frames: u32,
    /// Where the first one's [`BlockFrameHeader`] is in the block.
    pub(crate) first: u32,
    /// Bytes of the block that are used.
    pub(crate) len: u32,
    pub(crate) sequence: u64,
    /// Seconds and nanoseconds of the first and of the last frame.
    pub(crate) times: [u32; 4],
}

const _: () = assert!(size_of::<BlockHeader>() == 48 && std::mem::offset_of!(BlockHeader, status) == 8);

/// `struct tpacket3_hdr`, in front of each frame in a block.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct BlockFrameHeader {
    /// From here to the next header. 0: this is the last frame of the block.
    pub(crate) next: u32,
    pub(crate) sec: u32,
    pub(crate) nsec: u32,
    /// Bytes of the frame in the block.
    pub(crate) snaplen: u32,
    /// Bytes of the frame.
    pub(crate) len: u32,
    pub(crate) status: u32,
    /// Where the Ethernet header is, from this header on.
    pub(crate) mac: u16,
    pub(crate) net: u16,
    pub(crate) rxhash: u32,
    pub(crate) vlan_tci: u32,
    pub(crate) vlan_tpid: u16,
    pub(crate) padding: [u8; 10],
}

const _: () = assert!(size_of::<BlockFrameHeader>() == 48);

/// `struct tpacket_req`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct RingRequest {
    pub(crate) block_size: u32,
    pub(crate) blocks: u32,
    pub(crate) slot_size: u32,
    pub(crate) slots: u32,
}

/// `struct tpacket_req3`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct BlockRingRequest {
    pub(crate) blocks: RingRequest,
    /// Milliseconds after which a block is handed over that is not full.
    pub(crate) timeout_millis: u32,
    pub(crate) private_bytes: u32,
    pub(crate) features: u32,
}

/// `struct tpacket_stats`. Reading it resets it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Statistics {
    pub(crate) packets: u32,
    pub(crate) drops: u32,
}

/// `struct tpacket_stats_v3`. Reading it resets it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct BlockStatistics {
    pub(crate) packets: u32,
    pub(crate) drops: u32,
    /// Times that no block was free.
    pub(crate) freezes: u32,
}

/// `struct packet_mreq`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Membership {
    pub(crate) interface: i32,
    pub(crate) kind: u16,
    pub(crate) address_len: u16,
    pub(crate) address: [u8; 8],
}

/// `struct virtio_net_hdr`, in the byte order of the machine: what offloads left to do about a frame. It is in front of
/// the Ethernet header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct VirtioHeader {
    pub(crate) flags: u8,
    pub(crate) gso_type: u8,
    /// Sending: bytes that the kernel copies into the packet's head.
    pub(crate) hdr_len: u16,
    pub(crate) gso_size: u16,
    pub(crate) csum_start: u16,
    pub(crate) csum_offset: u16,
}

pub(crate) const VIRTIO_HEADER: usize = size_of::<VirtioHeader>();
const _: () = assert!(VIRTIO_HEADER == 10);

/// A bit of [`VirtioHeader::flags`].
pub(crate) const VIRTIO_NEEDS_CSUM: u8 = 1;
/// Values of [`VirtioHeader::gso_type`] without [`VIRTIO_GSO_ECN`].
pub(crate) const VIRTIO_GSO_NONE: u8 = 0;
pub(crate) const VIRTIO_GSO_TCPV4: u8 = 1;
pub(crate) const VIRTIO_GSO_TCPV6: u8 = 4;
pub(crate) const VIRTIO_GSO_UDP_L4: u8 = 5;
pub(crate) const VIRTIO_GSO_ECN: u8 = 0x80;

/// `struct sock_filter`: an instruction of a classic BPF program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    /// Instructions to skip if a jump's condition holds, and if not.
    pub(crate) jump_true: u8,
    pub(crate) jump_false: u8,
    pub(crate) k: u32,
}
