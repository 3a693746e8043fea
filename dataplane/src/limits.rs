//! Every bound of the packet path in one place. All memory is taken at start; nothing grows with traffic.

/// Frames in one batch: enough to hide a memory miss behind the others, few enough to stay in the first-level cache.
pub const BATCH: usize = 64;

/// Ports of one director.
pub const MAX_PORTS: usize = 16;

/// Workers of one director.
pub const MAX_WORKERS: usize = 64;

/// Bytes of the largest frame without its check sequence: Ethernet, two VLAN tags and an MTU of 1500, rounded up.
/// Jumbo frames come with the buffers of the port that has them.
pub const FRAME_ROOM: usize = 1856;

/// Destinations of all services together, including removed ones that still have connections.
pub const MAX_DESTINATIONS: usize = 131_072;

/// Virtual services of one director.
pub const MAX_SERVICES: usize = 16_384;

/// Stations on the links of the ports that packets are routed to at a time.
pub const MAX_ON_LINK: usize = 8_192;

/// Frames that wait for the neighbour of their next hop to answer, for each worker.
pub const MAX_WAITING: usize = 256;

/// How long a frame waits for that answer.
pub const WAITING_MILLIS: u64 = 1_000;

/// Datagrams whose fragments are followed at once, by all workers together.
pub const MAX_FRAGMENTED: usize = 4_096;

/// Seconds from the first fragment on for which they are followed: what the kernel grants (`ipfrag_time`).
pub const FRAGMENTS_SECONDS: u64 = 30;

/// Fragments that wait for the first of their datagram, for each worker.
pub const MAX_HELD: usize = 64;

/// First fragments that wait for the last, for each worker: as many as two batches have, so that none gives way whose last is in
/// the batch that the newest are of.
pub const MAX_UNFINISHED: usize = 2 * BATCH;

/// How long a fragment waits.
pub const HELD_MILLIS: u64 = 1_000;

/// Fragments that one poll releases at most, so that there is room in the batch for others.
pub const RELEASE_BUDGET: usize = BATCH / 4;

/// Frames in the ring from one worker to another.
pub const HANDOFF_RING: usize = 1_024;

/// Frames that wait for the control thread to learn neighbours from.
pub const PUNT_QUEUE: usize = 256;

/// Bytes of such a frame that are kept: an ARP or neighbour discovery message in full.
pub const PUNT_BYTES: usize = 128;

/// Frames of one worker that wait for the host to take them: about as many as a kernel keeps that has no time for them.
pub const EXCEPTION_RING: usize = 1_024;

/// Frames of the host that wait for a worker to send them; the others wait in the kernel.
pub const EXCEPTION_BUFFERS: usize = 256;

/// Frames of the host that a worker sends at most in one poll, so that they never fill more than half a batch.
pub const EXCEPTION_BUDGET: usize = 32;

/// Commands that wait for a worker.
pub const COMMAND_QUEUE: usize = 1_024;

/// Connections that one poll visits at most to see whether they have expired: more than one poll can make, so that a flood
/// ends as fast as it comes and others end beside it.
pub const EXPIRE_BUDGET: usize = BATCH + 16;

/// ICMP errors that one worker sends a second at most, and how many at once: what the kernel grants
/// (`icmp_msgs_per_sec`, `icmp_msgs_burst`).
pub const ICMP_ERRORS_PER_SECOND: u32 = 1_000;
/// See [`ICMP_ERRORS_PER_SECOND`].
pub const ICMP_ERROR_BURST: u32 = 50;

/// IPv6 extension headers that are walked before the packet is given up.
pub const MAX_EXTENSION_HEADERS: usize = 8;

const _: () = assert!(BATCH <= 128, "the design bounds a batch to 128");
const _: () = assert!(EXCEPTION_BUDGET <= BATCH / 2, "the host leaves room for those it is there for");
const _: () = assert!(PUNT_BYTES >= 14 + 8 + 40 + 32, "a neighbour advertisement behind two VLAN tags fits");

/// FTP sessions by NAT that ask for passive data connections at a time, of each worker and address family.
pub const MAX_FTP_SESSIONS: usize = 1_024;

/// FTP data connections that were spoken of and have not been opened yet, of all workers together.
pub const MAX_EXPECTED: usize = 4_096;

/// Templates of persistent clients, of all services together.
pub const MAX_TEMPLATES: usize = 1 << 17;

/// Templates that are looked at in one tick for those whose time has come.
pub const TEMPLATE_BUDGET: usize = 512;
