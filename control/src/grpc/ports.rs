//! `pointsman.v1.Stats.Ports`: what the devices of the ports say.

use super::{Context, stats::port_stats};
use crate::{
    clock,
    kernel::{Network, PortNetwork},
    ports::{Counters, Link, Source, Told, remedy},
};
use pointsman_proto::v1::{DeviceCounters, DriverCounter, PortStatus, PortsResponse};

pub(super) async fn collect(context: &Context, driver_counters: bool) -> PortsResponse {
    let network = context.control.network().await;
    let asked = context.clone();
    // Drivers take their time, and nobody else is to wait for them.
    let statuses = tokio::task::spawn_blocking(move || statuses(&asked, &network, driver_counters));
    PortsResponse {
        ports: statuses.await.unwrap_or_default(),
        uptime_milliseconds: clock::now().0 / 1_000_000,
    }
}

fn statuses(context: &Context, network: &Network, driver_counters: bool) -> Vec<PortStatus> {
    let sources = context.ports.sources().iter().zip(context.ports.links());
    let ports = network.ports.iter().zip(sources).enumerate();
    ports.map(|(number, (port, of))| status(context, number, port, of, driver_counters)).collect()
}

fn status(
    context: &Context,
    number: usize,
    port: &PortNetwork,
    (source, link): (&Source, Link),
    driver_counters: bool,
) -> PortStatus {
    let Told { driver, speed_mbps, queues, spread, counters } = source.ask();
    let configured = context.control.watch().borrow().configuration.clone();
    let device = configured.start.ports.get(number).map(|port| port.device.clone());
    let all = if driver_counters { source.driver_counters() } else { Vec::new() };
    PortStatus {
        port: Some(port_stats(context, number, port)),
        device: device.unwrap_or_else(|| port.device.clone()),
        device_driver: driver,
        speed_mbps: speed_mbps.filter(|_| link.up),
        link_milliseconds: clock::now().0.saturating_sub(link.since.0) / 1_000_000,
        link_losses: link.losses,
        queues,
        spread: spread.name().into(),
        counters: Some(device_counters(&counters)),
        driver_counters: all.into_iter().map(|(name, value)| DriverCounter { name, value }).collect(),
        warnings: remedy(port, Some(source)).into_iter().collect(),
    }
}

fn device_counters(from: &Counters) -> DeviceCounters {
    DeviceCounters {
        rx_packets: from.rx_packets,
        rx_bytes: from.rx_bytes,
        rx_missed: from.rx_missed,
        rx_no_buffer: from.rx_no_buffer,
        rx_errors: from.rx_errors,
        tx_packets: from.tx_packets,
        tx_bytes: from.tx_bytes,
        tx_errors: from.tx_errors,
    }
}
