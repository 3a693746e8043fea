//! `pointsman ports`: the NIC ports, their links, and what their devices count.

use std::path::Path;

use clap::Args;
use pointsman_proto::v1::{PortStatus, PortsRequest, PortsResponse};
use serde::Serialize;

use super::client::Director;
use super::error::CliError;
use super::output::{Output, Table, duration};
use super::stats::view;

/// Shows the NIC ports: device, driver, link, speed, queues, and what the devices have counted
#[derive(Debug, Args)]
#[command(
    after_help = "SPREAD is how the device chooses the worker that receives a frame: by its owner (nothing is handed \
                  over), by a hash of its own, or not at all (the first worker hands over). MISSED are frames that \
                  found the device's ring full, NO BUFFER those for which no packet buffer was free.\n\n\
                  Example: pointsman ports --xstats d0"
)]
pub(super) struct Ports {
    /// Only this one
    port: Option<String>,
    /// Also every counter that the drivers have
    #[arg(long)]
    xstats: bool,
}

impl Ports {
    pub(super) async fn run(self, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
        let mut stats = Director::connect(socket).await?.stats();
        let mut answer = stats.ports(PortsRequest { driver_counters: self.xstats }).await?.into_inner();
        if let Some(wanted) = &self.port {
            let names: Vec<String> = answer.ports.iter().map(|status| name(status).to_owned()).collect();
            answer.ports.retain(|status| name(status) == wanted);
            if answer.ports.is_empty() {
                let there = names.join(", ");
                return Err(CliError::new(
                    format!("the director has no port \"{wanted}\""),
                    format!("its ports are {there}"),
                ));
            }
        }
        output.either(|| of(&answer), || text(&answer))
    }
}

fn name(status: &PortStatus) -> &str {
    status.port.as_ref().map_or("", |port| port.name.as_str())
}

fn text(answer: &PortsResponse) -> String {
    let mut text = format!("{}\n{}", devices(answer), counters(answer));
    for status in answer.ports.iter().filter(|status| !status.driver_counters.is_empty()) {
        let mut table = Table::new(0, &[1]);
        table.row([name(status), "VALUE"]);
        for counter in &status.driver_counters {
            table.row([counter.name.clone(), counter.value.to_string()]);
        }
        text += &format!("\n{}", table.text());
    }
    for warning in answer.ports.iter().flat_map(|status| &status.warnings) {
        text += &format!("\nwarning: {warning}\n");
    }
    text
}

fn devices(answer: &PortsResponse) -> String {
    let mut table = Table::new(0, &[5, 7, 9, 10]);
    table.row([
        "PORT",
        "DRIVER",
        "DEVICE",
        "DRIVEN BY",
        "LINK",
        "SPEED",
        "SINCE",
        "LOST",
        "MAC",
        "MTU",
        "QUEUES",
        "SPREAD",
        "ADDRESSES",
    ]);
    for status in &answer.ports {
        let port = status.port.clone().unwrap_or_default();
        table.row([
            port.name,
            port.driver,
            status.device.clone(),
            or_dash(&status.device_driver),
            if port.up { "up" } else { "down" }.to_owned(),
            status.speed_mbps.map_or("-".to_owned(), speed),
            duration(status.link_milliseconds / 1000),
            status.link_losses.to_string(),
            port.mac,
            port.mtu.to_string(),
            status.queues.to_string(),
            spread(&status.spread).to_owned(),
            or_dash(&port.addresses.join(" ")),
        ]);
    }
    table.text()
}

fn counters(answer: &PortsResponse) -> String {
    let mut table = Table::new(0, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    table.row([
        "PORT",
        "RX PACKETS",
        "RX BYTES",
        "MISSED",
        "NO BUFFER",
        "RX ERRORS",
        "TX PACKETS",
        "TX BYTES",
        "TX ERRORS",
        "TX RING FULL",
    ]);
    for status in &answer.ports {
        let device = status.counters.unwrap_or_default();
        let full = status.port.as_ref().map_or(0, |port| port.tx_ring_drops);
        let numbers = [
            device.rx_packets,
            device.rx_bytes,
            device.rx_missed,
            device.rx_no_buffer,
            device.rx_errors,
            device.tx_packets,
            device.tx_bytes,
            device.tx_errors,
            full,
        ];
        table.row([name(status).to_owned()].into_iter().chain(numbers.map(|number| number.to_string())));
    }
    table.text()
}

/// `10 Gbit/s`, `2.5 Gbit/s`, `100 Mbit/s`.
fn speed(mbps: u32) -> String {
    match mbps {
        0..1000 => format!("{mbps} Mbit/s"),
        _ if mbps.is_multiple_of(1000) => format!("{} Gbit/s", mbps / 1000),
        _ => format!("{}.{} Gbit/s", mbps / 1000, mbps % 1000 / 100),
    }
}

fn spread(name: &str) -> &str {
    match name {
        "one_queue" => "one queue",
        "owner" => "to owners",
        "device_hash" => "device's hash, handed over",
        "first_queue" => "first queue, handed over",
        other => other,
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// The answer as JSON: the names of the interface's fields.
#[derive(Serialize)]
struct View {
    uptime_milliseconds: u64,
    ports: Vec<Port>,
}

#[derive(Serialize)]
struct Port {
    #[serde(flatten)]
    port: Option<view::Port>,
    device: String,
    device_driver: String,
    speed_mbps: Option<u32>,
    link_milliseconds: u64,
    link_losses: u64,
    queues: u32,
    spread: String,
    counters: Counters,
    driver_counters: std::collections::BTreeMap<String, u64>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Counters {
    rx_packets: u64,
    rx_bytes: u64,
    rx_missed: u64,
    rx_no_buffer: u64,
    rx_errors: u64,
    tx_packets: u64,
    tx_bytes: u64,
    tx_errors: u64,
}

fn of(answer: &PortsResponse) -> View {
    let port = |status: &PortStatus| {
        let device = status.counters.unwrap_or_default();
        Port {
            port: status.port.as_ref().map(view::port),
            device: status.device.clone(),
            device_driver: status.device_driver.clone(),
            speed_mbps: status.speed_mbps,
            link_milliseconds: status.link_milliseconds,
            link_losses: status.link_losses,
            queues: status.queues,
            spread: status.spread.clone(),
            counters: Counters {
                rx_packets: device.rx_packets,
                rx_bytes: device.rx_bytes,
                rx_missed: device.rx_missed,
                rx_no_buffer: device.rx_no_buffer,
                rx_errors: device.rx_errors,
                tx_packets: device.tx_packets,
                tx_bytes: device.tx_bytes,
                tx_errors: device.tx_errors,
            },
            driver_counters: status
                .driver_counters
                .iter()
                .map(|counter| (counter.name.clone(), counter.value))
                .collect(),
            warnings: status.warnings.clone(),
        }
    };
    View { uptime_milliseconds: answer.uptime_milliseconds, ports: answer.ports.iter().map(port).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_proto::v1::{DeviceCounters, DriverCounter, PortStats};

    fn answer() -> PortsResponse {
        let port = PortStats {
            name: "d0".into(),
            driver: "dpdk".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            addresses: vec!["10.0.0.1/24".into()],
            tx_ring_drops: 9,
            ..PortStats::default()
        };
        let status = PortStatus {
            port: Some(port),
            device: "0000:00:05.0".into(),
            device_driver: "net_virtio".into(),
            link_milliseconds: 12_345,
            link_losses: 1,
            queues: 2,
            spread: "first_queue".into(),
            counters: Some(DeviceCounters { rx_packets: 1, rx_missed: 2, tx_bytes: 3, ..Default::default() }),
            driver_counters: vec![DriverCounter { name: "rx_q0_packets".into(), value: 77 }],
            warnings: vec!["port d0: no link: mend it".into()],
            ..PortStatus::default()
        };
        PortsResponse { ports: vec![status], uptime_milliseconds: 60_000 }
    }

    #[test]
    fn a_port_is_shown_with_its_device_link_counters_and_what_to_do() {
        let expected = "\
PORT  DRIVER  DEVICE        DRIVEN BY   LINK  SPEED  SINCE  LOST  MAC                 MTU  QUEUES  SPREAD                    ADDRESSES
d0    dpdk    0000:00:05.0  net_virtio  down      -  12s       1  02:00:00:00:00:01  1500       2  first queue, handed over  10.0.0.1/24

PORT  RX PACKETS  RX BYTES  MISSED  NO BUFFER  RX ERRORS  TX PACKETS  TX BYTES  TX ERRORS  TX RING FULL
d0             1         0       2          0          0           0         3          0             9

d0             VALUE
rx_q0_packets     77

warning: port d0: no link: mend it
";
        assert_eq!(text(&answer()), expected);
    }

    #[test]
    fn speeds_are_for_people() {
        for (mbps, expected) in
            [(10, "10 Mbit/s"), (1_000, "1 Gbit/s"), (2_500, "2.5 Gbit/s"), (100_000, "100 Gbit/s")]
        {
            assert_eq!(speed(mbps), expected);
        }
    }

    #[test]
    fn json_has_the_names_of_the_interface() {
        let value = serde_json::to_value(of(&answer())).unwrap();
        let port = &value["ports"][0];
        assert_eq!((&port["name"], &port["device_driver"]), (&"d0".into(), &"net_virtio".into()));
        assert_eq!((&port["counters"]["rx_missed"], &port["up"]), (&2.into(), &false.into()));
        assert_eq!(port["driver_counters"]["rx_q0_packets"], 77);
    }
}
