//! A reading as JSON: the names of the interface's fields.

use pointsman_proto::v1::GetStatsResponse;
use serde::Serialize;

#[derive(Serialize)]
pub(in crate::cli) struct View {
    generation: u64,
    uptime_milliseconds: u64,
    workers: Vec<Worker>,
    ports: Vec<Port>,
    drops: Vec<Drop>,
    neighbors: Vec<Neighbor>,
    memory: Vec<Memory>,
}

#[derive(Serialize)]
struct Worker {
    index: u32,
    core: u32,
    polls: u64,
    empty_polls: u64,
    packets: u64,
    bytes: u64,
    forwarded: u64,
    answered: u64,
    punted: u64,
    handed_off: u64,
    dropped: u64,
    connections: u64,
    connections_created: u64,
    connections_expired: u64,
    connections_evicted: u64,
    connection_capacity: u64,
    idle: String,
    busy_nanoseconds: u64,
    empty_nanoseconds: u64,
    asleep_nanoseconds: u64,
    sleeps: u64,
    woken: u64,
    batches: Vec<u64>,
    handed_in: u64,
    handoff_fill: u64,
    handoff_fill_highest: u64,
    handoff_room: u64,
    queues: Vec<Queue>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Queue {
    port: String,
    queue: u32,
    rx_packets: u64,
    rx_bytes: u64,
    tx_packets: u64,
    tx_bytes: u64,
    rx_ring_drops: u64,
    tx_ring_drops: u64,
}

#[derive(Serialize)]
pub(in crate::cli) struct Port {
    name: String,
    driver: String,
    mac: String,
    mtu: u32,
    up: bool,
    addresses: Vec<String>,
    rx_packets: u64,
    rx_bytes: u64,
    tx_packets: u64,
    tx_bytes: u64,
    rx_ring_drops: u64,
    tx_ring_drops: u64,
}

#[derive(Serialize)]
struct Drop {
    reason: String,
    packets: u64,
    explanation: String,
}

#[derive(Serialize)]
struct Neighbor {
    address: String,
    port: String,
    state: String,
    mac: String,
}

#[derive(Serialize)]
struct Memory {
    purpose: String,
    bytes: u64,
    page_bytes: u64,
    numa_node: Option<u32>,
    locked: bool,
    warnings: Vec<String>,
}

/// Only what `pointsman workers` tells.
#[derive(Serialize)]
pub(in crate::cli) struct Workers {
    uptime_milliseconds: u64,
    workers: Vec<Worker>,
}

pub(in crate::cli) fn workers(reading: &GetStatsResponse) -> Workers {
    Workers {
        uptime_milliseconds: reading.uptime_milliseconds,
        workers: reading.workers.iter().map(worker).collect(),
    }
}

pub(in crate::cli) fn of(reading: &GetStatsResponse) -> View {
    let drop = |from: &pointsman_proto::v1::DropCount| Drop {
        reason: from.reason.clone(),
        packets: from.packets,
        explanation: from.explanation.clone(),
    };
    let neighbor = |from: &pointsman_proto::v1::Neighbor| Neighbor {
        address: from.address.clone(),
        port: from.port.clone(),
        state: from.state.clone(),
        mac: from.mac.clone(),
    };
    let memory = |from: &pointsman_proto::v1::MemoryReport| Memory {
        purpose: from.purpose.clone(),
        bytes: from.bytes,
        page_bytes: from.page_bytes,
        numa_node: from.numa_node,
        locked: from.locked,
        warnings: from.warnings.clone(),
    };
    View {
        generation: reading.generation,
        uptime_milliseconds: reading.uptime_milliseconds,
        workers: reading.workers.iter().map(worker).collect(),
        ports: reading.ports.iter().map(port).collect(),
        drops: reading.drops.iter().map(drop).collect(),
        neighbors: reading.neighbors.iter().map(neighbor).collect(),
        memory: reading.memory.iter().map(memory).collect(),
    }
}

fn worker(from: &pointsman_proto::v1::WorkerStats) -> Worker {
    Worker {
        index: from.index,
        core: from.core,
        polls: from.polls,
        empty_polls: from.empty_polls,
        packets: from.packets,
        bytes: from.bytes,
        forwarded: from.forwarded,
        answered: from.answered,
        punted: from.punted,
        handed_off: from.handed_off,
        dropped: from.dropped,
        connections: from.connections,
        connections_created: from.connections_created,
        connections_expired: from.connections_expired,
        connections_evicted: from.connections_evicted,
        connection_capacity: from.connection_capacity,
        idle: from.idle.clone(),
        busy_nanoseconds: from.busy_nanoseconds,
        empty_nanoseconds: from.empty_nanoseconds,
        asleep_nanoseconds: from.asleep_nanoseconds,
        sleeps: from.sleeps,
        woken: from.woken,
        batches: from.batches.clone(),
        handed_in: from.handed_in,
        handoff_fill: from.handoff_fill,
        handoff_fill_highest: from.handoff_fill_highest,
        handoff_room: from.handoff_room,
        queues: from.queues.iter().map(queue).collect(),
        warnings: from.warnings.clone(),
    }
}

fn queue(from: &pointsman_proto::v1::WorkerQueue) -> Queue {
    Queue {
        port: from.port.clone(),
        queue: from.queue,
        rx_packets: from.rx_packets,
        rx_bytes: from.rx_bytes,
        tx_packets: from.tx_packets,
        tx_bytes: from.tx_bytes,
        rx_ring_drops: from.rx_ring_drops,
        tx_ring_drops: from.tx_ring_drops,
    }
}

pub(in crate::cli) fn port(from: &pointsman_proto::v1::PortStats) -> Port {
    Port {
        name: from.name.clone(),
        driver: from.driver.clone(),
        mac: from.mac.clone(),
        mtu: from.mtu,
        up: from.up,
        addresses: from.addresses.clone(),
        rx_packets: from.rx_packets,
        rx_bytes: from.rx_bytes,
        tx_packets: from.tx_packets,
        tx_bytes: from.tx_bytes,
        rx_ring_drops: from.rx_ring_drops,
        tx_ring_drops: from.tx_ring_drops,
    }
}
