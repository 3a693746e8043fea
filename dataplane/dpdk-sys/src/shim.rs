//! Mirrors of the shim's structures, proved by assertions on both sides, and its functions.

use std::{
    ffi::{c_char, c_int, c_void},
    mem::offset_of,
};

/// Bytes in front of a fresh mbuf's data.
pub const HEADROOM: usize = 128;
/// The data is not in the mbuf's own buffer but in memory of the driver's.
pub const MBUF_EXTERNAL: u64 = 1 << 61;
/// The data is in another mbuf's buffer.
pub const MBUF_INDIRECT: u64 = 1 << 62;
/// The bits that say what the device found of the checksum of an IPv4 header.
pub const MBUF_IP_CHECKSUM: u64 = 1 << 7 | 1 << 4;
/// Of [`MBUF_IP_CHECKSUM`]: it is right.
pub const MBUF_IP_CHECKSUM_GOOD: u64 = 1 << 7;
/// TCP over IPv4 is hashed with its ports.
pub const RSS_TCP4: u64 = 1 << 4;
/// Entries of the largest table from hash to queue that is written.
pub const TABLE_MOST: usize = 4096;
/// Any NUMA node.
pub const SOCKET_ANY: i32 = -1;

/// A pool of mbufs.
#[repr(C)]
#[derive(Debug)]
pub struct Mempool {
    _opaque: [u8; 0],
}

/// The half of `struct rte_mbuf` that the packet path reads and writes itself.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Mbuf {
    /// Where the buffer begins.
    pub buf_addr: *mut c_void,
    iova: u64,
    /// Where the data begins in it.
    pub data_off: u16,
    /// Who shares it: 1 for one owner.
    pub refcnt: u16,
    /// Pieces that the frame lies in.
    pub nb_segs: u16,
    /// The device that it came by.
    pub port: u16,
    /// What the driver says of it, and is to do with it.
    pub ol_flags: u64,
    /// What the driver takes it for.
    pub packet_type: u32,
    /// Bytes of the frame in all pieces.
    pub pkt_len: u32,
    /// Bytes of the frame in this piece.
    pub data_len: u16,
    /// The VLAN tag that the driver took out.
    pub vlan_tci: u16,
    /// The hash that chose its queue.
    pub rss_hash: u32,
    hash_rest: u32,
    vlan_tci_outer: u16,
    /// Bytes of the buffer.
    pub buf_len: u16,
    /// Where it came from.
    pub pool: *mut Mempool,
    rest: [u64; 8],
}

const _: () = assert!(
    offset_of!(Mbuf, data_off) == 16
        && offset_of!(Mbuf, refcnt) == 18
        && offset_of!(Mbuf, nb_segs) == 20
        && offset_of!(Mbuf, port) == 22
        && offset_of!(Mbuf, ol_flags) == 24
        && offset_of!(Mbuf, packet_type) == 32
        && offset_of!(Mbuf, pkt_len) == 36
        && offset_of!(Mbuf, data_len) == 40
        && offset_of!(Mbuf, vlan_tci) == 42
        && offset_of!(Mbuf, rss_hash) == 44
        && offset_of!(Mbuf, buf_len) == 54
        && offset_of!(Mbuf, pool) == 56
        && size_of::<Mbuf>() == 128
);

/// What a device is and can do.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct DevInfo {
    /// The driver's name, with a zero behind it.
    pub driver: [u8; 32],
    /// What it can hash to choose a queue: `RTE_ETH_RSS_*`.
    pub rss_offloads: u64,
    /// `RTE_ETH_RX_OFFLOAD_*`.
    pub rx_offloads: u64,
    /// `RTE_ETH_TX_OFFLOAD_*`.
    pub tx_offloads: u64,
    /// Its NUMA node, or [`SOCKET_ANY`].
    pub socket: i32,
    /// Receive queues at most.
    pub max_rx_queues: u16,
    /// Transmit queues at most.
    pub max_tx_queues: u16,
    /// The least MTU; 0 if not known.
    pub min_mtu: u16,
    /// The largest MTU; 65535 if not known.
    pub max_mtu: u16,
    /// Entries of the table from hash to queue.
    pub reta_size: u16,
    /// Bytes of the key of the hash.
    pub hash_key_size: u16,
}

const _: () = assert!(size_of::<DevInfo>() == 72);

/// What a device has counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes of the frames received.
    pub rx_bytes: u64,
    /// Bytes of the frames sent.
    pub tx_bytes: u64,
    /// Frames lost because the receive ring was full.
    pub rx_missed: u64,
    /// Frames received damaged.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Frames lost because the pool was empty.
    pub rx_no_mbuf: u64,
}

// SAFETY: the declarations are those of shim.c, which is compiled with this crate, and the assertions on both sides prove
// that the structures are the same.
#[allow(missing_docs, reason = "shim.c says what each does")]
unsafe extern "C" {
    pub fn dpdk_log_keep() -> c_int;
    pub fn dpdk_log_tail(out: *mut c_char, room: usize, forget: c_int) -> usize;
    pub fn dpdk_log_level(level: u32);
    pub fn dpdk_version() -> *const c_char;
    pub fn dpdk_errno() -> c_int;
    pub fn dpdk_errno_text(number: c_int) -> *const c_char;
    pub fn dpdk_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int;
    pub fn dpdk_eal_cleanup() -> c_int;
    pub fn dpdk_thread_register() -> c_int;
    pub fn dpdk_thread_unregister();
    pub fn dpdk_dev_count() -> u16;
    pub fn dpdk_dev_by_name(name: *const c_char) -> c_int;
    pub fn dpdk_dev_name(port: u16, name: *mut c_char) -> c_int;
    pub fn dpdk_dev_info(port: u16, out: *mut DevInfo) -> c_int;
    pub fn dpdk_dev_configure(
        port: u16,
        queues: u16,
        mtu: u16,
        rss: u64,
        key: *const u8,
        key_len: u8,
    ) -> c_int;
    pub fn dpdk_rss_flows() -> u64;
    pub fn dpdk_rss_key_get(port: u16, key: *mut u8, key_len: u8) -> c_int;
    pub fn dpdk_rss_key_set(port: u16, rss: u64, key: *const u8, key_len: u8) -> c_int;
    pub fn dpdk_rss_table_set(port: u16, queues: *const u16, size: u16) -> c_int;
    pub fn dpdk_rss_table_get(port: u16, queues: *mut u16, size: u16) -> c_int;
    pub fn dpdk_dev_adjust_slots(port: u16, rx: *mut u16, tx: *mut u16) -> c_int;
    pub fn dpdk_rx_queue_setup(port: u16, queue: u16, slots: u16, socket: i32, pool: *mut Mempool) -> c_int;
    pub fn dpdk_tx_queue_setup(port: u16, queue: u16, slots: u16, socket: i32) -> c_int;
    pub fn dpdk_dev_start(port: u16) -> c_int;
    pub fn dpdk_dev_stop(port: u16) -> c_int;
    pub fn dpdk_dev_close(port: u16) -> c_int;
    pub fn dpdk_link(port: u16, mbps: *mut u32) -> c_int;
    pub fn dpdk_stats(port: u16, out: *mut Stats) -> c_int;
    pub fn dpdk_stats_reset(port: u16) -> c_int;
    pub fn dpdk_xstats(port: u16, names: *mut [c_char; 64], values: *mut u64, room: u32) -> c_int;
    pub fn dpdk_mac(port: u16, mac: *mut u8) -> c_int;
    pub fn dpdk_mtu(port: u16, mtu: *mut u16) -> c_int;
    pub fn dpdk_mtu_set(port: u16, mtu: u16) -> c_int;
    pub fn dpdk_promiscuous(port: u16, on: c_int) -> c_int;
    pub fn dpdk_all_multicast(port: u16, on: c_int) -> c_int;
    pub fn dpdk_rx_burst(port: u16, queue: u16, frames: *mut *mut Mbuf, room: u16) -> u16;
    pub fn dpdk_tx_burst(port: u16, queue: u16, frames: *mut *mut Mbuf, count: u16) -> u16;
    pub fn dpdk_drain(port: u16, queue: u16, bursts: u16);
    pub fn dpdk_pool_create(
        name: *const c_char,
        mbufs: u32,
        cache: u32,
        room: u16,
        socket: i32,
    ) -> *mut Mempool;
    pub fn dpdk_pool_free(pool: *mut Mempool);
    pub fn dpdk_pool_available(pool: *const Mempool) -> u32;
    pub fn dpdk_alloc_bulk(pool: *mut Mempool, frames: *mut *mut Mbuf, count: u32) -> c_int;
    pub fn dpdk_free_bulk(frames: *mut *mut Mbuf, count: u32);
    pub fn dpdk_free(frame: *mut Mbuf);
}
