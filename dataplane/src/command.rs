//! What passes between a worker and the control plane besides snapshots: commands in, learned frames and answers out.
//!
//! Queues are bounded and lock-free; the worker looks at them once a poll and never waits on them.

use crate::{
    app::sip::CallId,
    limits::{COMMAND_QUEUE, PUNT_BYTES, PUNT_QUEUE},
    snapshot::Method,
    stats::WorkerStats,
};
use crossbeam::{channel::Sender, queue::ArrayQueue};
use std::net::SocketAddr;

/// What one worker shares with the control plane.
#[derive(Debug)]
pub struct WorkerShared {
    /// The worker's number, from 0.
    pub index: u16,
    /// Written by the worker.
    pub stats: WorkerStats,
    /// Read by the worker. A full queue means that the worker does not poll.
    pub commands: ArrayQueue<Command>,
    /// Written by the worker: ARP and neighbour discovery frames to learn from. When it is full, new ones are lost.
    pub punts: ArrayQueue<PuntedFrame>,
}

impl WorkerShared {
    /// Of worker number `index`.
    pub fn new(index: u16) -> Self {
        Self {
            index,
            stats: WorkerStats::default(),
            commands: ArrayQueue::new(COMMAND_QUEUE),
            punts: ArrayQueue::new(PUNT_QUEUE),
        }
    }
}

/// An order to a worker.
#[derive(Debug)]
pub enum Command {
    /// Send a frame (Ethernet header on) out of a port: how the control plane asks for neighbours and announces addresses.
    Transmit {
        /// The port number.
        port: u16,
        /// At most [`crate::limits::FRAME_ROOM`] bytes.
        frame: Box<[u8]>,
    },
    /// Copy connections out of the table.
    ListConnections(ConnectionsQuery),
}

/// One step of a walk through a worker's connections.
#[derive(Debug)]
pub struct ConnectionsQuery {
    /// 0 to begin; then what the last answer gave.
    pub cursor: u64,
    /// Empty, with room for at least one record: the worker fills it without growing it.
    pub records: Vec<ConnectionRecord>,
    /// Where the answer goes. Must have room; the worker does not wait.
    pub answer: Sender<ConnectionsAnswer>,
}

/// The answer to a [`ConnectionsQuery`].
#[derive(Debug)]
pub struct ConnectionsAnswer {
    /// The worker's number.
    pub worker: u16,
    /// Where to go on; `None` at the end of the table.
    pub next: Option<u64>,
    /// Some of the connections.
    pub records: Vec<ConnectionRecord>,
}

/// A connection as `ipvsadm -Lc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// IP protocol number.
    pub protocol: u8,
    /// CIP and its port.
    pub client: SocketAddr,
    /// VIP and its port.
    pub virtual_service: SocketAddr,
    /// RIP and its port.
    pub destination: SocketAddr,
    /// As ipvsadm names it: "ESTABLISHED".
    pub state: &'static str,
    /// Until the connection ends if no packet comes.
    pub expires_millis: u32,
    /// Packets from the client.
    pub packets_in: u64,
    /// Bytes of them, from the IP header on.
    pub bytes_in: u64,
    /// Packets to the client, where they pass the director.
    pub packets_out: u64,
    /// Bytes of them, from the IP header on.
    pub bytes_out: u64,
    /// Of source NAT: the client is a station behind the director, the virtual service where its packets leave from, the
    /// destination whom it speaks to.
    pub outbound: bool,
    /// How packets reach the destination.
    pub method: Method,
    /// The slot of the destination; `None` of source NAT, which has none.
    pub slot: Option<u32>,
    /// Of a template of the persistence engine of SIP: the call that it is of.
    pub call_id: Option<CallId>,
}

/// A frame that the control plane may learn a neighbour from.
#[derive(Clone, Debug)]
pub struct PuntedFrame {
    /// The port that it came in by.
    pub port: u16,
    /// How many of `bytes` are the frame's.
    pub len: u8,
    /// The frame, from its Ethernet header on, without VLAN tags.
    pub bytes: [u8; PUNT_BYTES],
}

impl PuntedFrame {
    /// The frame's bytes.
    pub fn data(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(PUNT_BYTES)]
    }
}
