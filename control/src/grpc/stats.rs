//! `pointsman.v1.Stats`

use super::{Answers, Context, ports, refused, stream};
use crate::{clock, kernel::PortNetwork, refusal::Refusal};
use pointsman_dataplane::{
    limits::HANDOFF_RING,
    stats::{Counter, PortCounters},
    verdict::DropReason,
};
use pointsman_hugepages::Report;
use pointsman_proto::v1::{
    DropCount, GetStatsRequest, GetStatsResponse, MemoryReport, Neighbor, PortStats, PortsRequest,
    PortsResponse, WatchStatsRequest, WorkerQueue, WorkerStats, stats_server::Stats,
};
use std::time::Duration;
use tonic::{Request, Response, Status};

pub(super) struct Service(pub(super) Context);

#[tonic::async_trait]
impl Stats for Service {
    async fn get(&self, _: Request<GetStatsRequest>) -> Result<Response<GetStatsResponse>, Status> {
        Ok(Response::new(collect(&self.0).await))
    }

    async fn ports(&self, request: Request<PortsRequest>) -> Result<Response<PortsResponse>, Status> {
        Ok(Response::new(ports::collect(&self.0, request.into_inner().driver_counters).await))
    }

    type WatchStream = Answers<GetStatsResponse>;

    async fn watch(
        &self,
        request: Request<WatchStatsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let interval = match request.into_inner().interval_milliseconds {
            0 => 1_000,
            millis @ 100..=3_600_000 => millis,
            millis => {
                return Err(refused(Refusal::invalid(
                    "interval_milliseconds",
                    format!("expected 100 to 3600000, found {millis}"),
                    "0 stands for a second",
                )));
            }
        };
        let context = self.0.clone();
        Ok(Response::new(stream(move |sender| async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(interval.into()));
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = sender.closed() => return,
                }
                if sender.send(Ok(collect(&context).await)).await.is_err() {
                    return;
                }
            }
        })))
    }
}

async fn collect(context: &Context) -> GetStatsResponse {
    let in_force = context.control.watch().borrow().clone();
    let network = context.control.network().await;
    let ports = network.ports.iter().enumerate();
    let names: Vec<String> = network.ports.iter().map(|port| port.name.clone()).collect();
    let neighbor = |neighbor: crate::neighbor::NeighborInfo| Neighbor {
        address: neighbor.address.to_string(),
        port: names.get(usize::from(neighbor.port)).cloned().unwrap_or_default(),
        state: neighbor.state.to_string(),
        mac: neighbor.mac.map(mac).unwrap_or_default(),
    };
    let start = &in_force.configuration.start;
    let capacity =
        start.connections_ipv4.map_or(0, |n| n.get()) + start.connections_ipv6.map_or(0, |n| n.get());
    GetStatsResponse {
        generation: in_force.generation,
        workers: workers(context, capacity, &names),
        ports: ports.map(|(number, port)| port_stats(context, number, port)).collect(),
        drops: DropReason::ALL.iter().map(|reason| drops(context, *reason)).collect(),
        memory: context.memory.iter().map(memory).collect(),
        neighbors: context.resolver.states().into_iter().map(neighbor).collect(),
        uptime_milliseconds: clock::now().0 / 1_000_000,
    }
}

fn workers(context: &Context, connection_capacity: u64, ports: &[String]) -> Vec<WorkerStats> {
    let worker = |handle: &crate::workers::Handle| {
        let stats = &handle.shared.stats;
        WorkerStats {
            index: handle.shared.index.into(),
            core: handle.core,
            polls: stats.polls.get(),
            empty_polls: stats.empty_polls.get(),
            packets: stats.packets.get(),
            bytes: stats.ports.iter().map(|port| port.rx_bytes.get()).sum(),
            forwarded: stats.forwarded.get(),
            answered: stats.answers.iter().map(Counter::get).sum(),
            punted: stats.punted.get(),
            handed_off: stats.handed_off.get(),
            dropped: stats.drops.iter().map(Counter::get).sum(),
            connections: stats.connections.get(),
            connections_created: stats.connections_created.get(),
            connections_expired: stats.connections_expired.get(),
            connections_evicted: stats.connections_evicted.get(),
            connection_capacity,
            idle: handle.idle.name().into(),
            busy_nanoseconds: stats.time.busy.get(),
            empty_nanoseconds: stats.time.empty.get(),
            asleep_nanoseconds: stats.time.asleep.get(),
            sleeps: stats.time.sleeps.get(),
            woken: stats.time.woken.get(),
            batches: stats.batches.iter().map(Counter::get).collect(),
            handed_in: stats.handed_in.get(),
            handoff_fill: stats.handoff_fill.get(),
            handoff_fill_highest: stats.handoff_fill_highest.get(),
            handoff_room: HANDOFF_RING as u64,
            queues: ports
                .iter()
                .zip(&stats.ports)
                .map(|(port, counted)| queue(port, handle, counted))
                .collect(),
            warnings: handle.warnings(),
        }
    };
    context.control.workers().iter().map(worker).collect()
}

/// A worker's queue of a port has the worker's number.
fn queue(port: &str, handle: &crate::workers::Handle, counted: &PortCounters) -> WorkerQueue {
    WorkerQueue {
        port: port.to_owned(),
        queue: handle.shared.index.into(),
        rx_packets: counted.rx_packets.get(),
        rx_bytes: counted.rx_bytes.get(),
        tx_packets: counted.tx_packets.get(),
        tx_bytes: counted.tx_bytes.get(),
        rx_ring_drops: counted.rx_ring_drops.get(),
        tx_ring_drops: counted.tx_ring_drops.get(),
    }
}

pub(super) fn port_stats(context: &Context, number: usize, port: &PortNetwork) -> PortStats {
    let sum = |counter: fn(&PortCounters) -> &Counter| -> u64 {
        let workers = context.control.workers().iter();
        workers
            .filter_map(|worker| worker.shared.stats.ports.get(number))
            .map(|port| counter(port).get())
            .sum()
    };
    let in_force = context.control.watch().borrow().clone();
    let driver = in_force.configuration.start.ports.get(number).map_or("", |port| port.driver.name());
    PortStats {
        name: port.name.clone(),
        driver: driver.into(),
        mac: mac(port.mac),
        mtu: port.mtu.into(),
        up: port.up && port.carrier,
        addresses: port.addresses.iter().map(|(address, len)| format!("{address}/{len}")).collect(),
        rx_packets: sum(|port| &port.rx_packets),
        rx_bytes: sum(|port| &port.rx_bytes),
        tx_packets: sum(|port| &port.tx_packets),
        tx_bytes: sum(|port| &port.tx_bytes),
        rx_ring_drops: sum(|port| &port.rx_ring_drops),
        tx_ring_drops: sum(|port| &port.tx_ring_drops),
    }
}

fn drops(context: &Context, reason: DropReason) -> DropCount {
    let workers = context.control.workers().iter();
    DropCount {
        reason: reason.name().into(),
        packets: workers.map(|worker| worker.shared.stats.drops[reason as usize].get()).sum(),
        explanation: reason.explanation().into(),
    }
}

fn memory(report: &Report) -> MemoryReport {
    MemoryReport {
        purpose: report.purpose.clone(),
        bytes: report.bytes as u64,
        page_bytes: report.page_size.bytes() as u64,
        numa_node: report.numa_node,
        locked: report.locked,
        warnings: report.warnings.clone(),
    }
}

fn mac([a, b, c, d, e, f]: [u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
