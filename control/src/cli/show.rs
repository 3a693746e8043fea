//! `pointsman show`: the services with their servers, what they do, and what is not in force yet.

use std::path::Path;

use clap::Args;
use pointsman_proto::v1::{
    Counters, GetTimeoutsRequest, ListRequest, ListResponse, Rates, ServerStatus, Service, ServiceStatus,
    Timeouts,
};
use serde::Serialize;

use super::client::Director;
use super::error::CliError;
use super::key::{Key, endpoint};
use super::output::{Output, Table, duration};
use super::server::method_text;

/// Shows the virtual services with their servers
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Only this one, for example tcp:10.0.0.1:80
    service: Option<Key>,
}

impl Show {
    pub(super) async fn run(self, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
        let mut lvs = Director::connect(socket).await?.lvs();
        let service = self.service.map(Key::to_proto);
        let list = lvs.list(ListRequest { service, warnings: true }).await?.into_inner();
        let timeouts = lvs.get_timeouts(GetTimeoutsRequest {}).await?.into_inner();
        output.either(|| view(&list, &timeouts), || text(&list, &timeouts))
    }
}

/// Columns of numbers.
const RIGHT: &[usize] = &[2, 3, 4, 5, 6, 7, 8];

fn text(list: &ListResponse, timeouts: &Timeouts) -> String {
    let addresses = match list.virtual_addresses.as_slice() {
        [] => "none".to_owned(),
        addresses => addresses.join(", "),
    };
    let mut table = Table::new(2, RIGHT);
    table.line(format!("generation         {}", list.generation));
    table.line(format!("virtual addresses  {addresses}"));
    table.line(format!(
        "timeouts           tcp {}, tcp fin {}, udp {}",
        duration(timeouts.tcp_seconds.into()),
        duration(timeouts.tcp_fin_seconds.into()),
        duration(timeouts.udp_seconds.into())
    ));
    // Those of a service stand with it.
    let of_services: Vec<&String> = list.services.iter().flat_map(|status| &status.pending).collect();
    for warning in list.warnings.iter().filter(|warning| !of_services.contains(warning)) {
        table.line(format!("warning            {warning}"));
    }
    if list.services.is_empty() {
        table.line("\nno services; `pointsman service add --help` says how to add one");
        return table.text();
    }
    table.line("");
    table.row([
        "SERVER",
        "METHOD",
        "WEIGHT",
        "ACTIVE",
        "INACTIVE",
        "CONN/S",
        "PKT/S",
        "BYTE/S",
        "CONNECTIONS",
        "STATE",
    ]);
    for status in &list.services {
        let service = status.service.clone().unwrap_or_default();
        table.line(format!("{}  {}", Key::said(service.key.as_ref()), how(&service)));
        for server in &status.servers {
            table.row(server_row(server));
        }
        if status.servers.is_empty() {
            table.line("  no servers: clients are refused");
        } else if status.servers.iter().all(takes_none) {
            table.line("  no server takes new clients: they are refused");
        }
        for note in &status.pending {
            table.line(format!("  pending: {note}"));
        }
    }
    table.text()
}

fn server_row(status: &ServerStatus) -> [String; 10] {
    let server = status.server.clone().unwrap_or_default();
    let rates = status.rates.unwrap_or_default();
    [
        endpoint(&server.address, server.port),
        method_text(&server),
        server.weight.unwrap_or(1).to_string(),
        status.active_connections.to_string(),
        status.inactive_connections.to_string(),
        rates.connections.to_string(),
        rates.packets_in.to_string(),
        rates.bytes_in.to_string(),
        status.counters.unwrap_or_default().connections.to_string(),
        state(status).to_owned(),
    ]
}

/// Whether a scheduler passes it by.
fn takes_none(status: &ServerStatus) -> bool {
    status.overloaded || status.server.as_ref().is_some_and(|server| server.weight == Some(0))
}

fn state(status: &ServerStatus) -> &'static str {
    let weight = status.server.as_ref().map_or(1, |server| server.weight.unwrap_or(1));
    match (status.overloaded, weight) {
        _ if status.silent => "no answer on the link",
        (true, _) => "overloaded",
        (false, 0) => "quiesced",
        (false, _) => "",
    }
}

/// `sh (sh-port), persistent 6m, mask /24, engine sip, one-packet`.
fn how(service: &Service) -> String {
    let mut text = service.scheduler.clone();
    if !service.scheduler_flags.is_empty() {
        text += &format!(" ({})", service.scheduler_flags.join(","));
    }
    if service.persistence_seconds > 0 {
        text += &format!(", persistent {}", duration(service.persistence_seconds.into()));
        if let Some(prefix) = service.persistence_prefix {
            text += &format!(", mask /{prefix}");
        }
    }
    if !service.persistence_engine.is_empty() {
        text += &format!(", engine {}", service.persistence_engine);
    }
    if service.one_packet {
        text += ", one-packet";
    }
    let own =
        [("tcp", service.timeout_tcp), ("tcp fin", service.timeout_tcp_fin), ("udp", service.timeout_udp)];
    for (name, seconds) in own {
        if let Some(seconds) = seconds.filter(|seconds| *seconds > 0) {
            text += &format!(", {name} {}", duration(seconds.into()));
        }
    }
    text
}

#[derive(Serialize)]
struct View {
    generation: u64,
    virtual_addresses: Vec<String>,
    /// Sentences; those of a service are also its own, as `pending`.
    warnings: Vec<String>,
    timeouts: TimeoutsView,
    services: Vec<ServiceView>,
}

#[derive(Serialize)]
struct TimeoutsView {
    tcp_seconds: u32,
    tcp_fin_seconds: u32,
    udp_seconds: u32,
}

#[derive(Serialize)]
struct ServiceView {
    /// As the commands take it.
    service: String,
    scheduler: String,
    scheduler_flags: Vec<String>,
    persistence_seconds: u32,
    persistence_prefix: Option<u32>,
    persistence_engine: String,
    one_packet: bool,
    /// Seconds; absent: as all services.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_tcp: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_tcp_fin: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_udp: Option<u32>,
    counters: NumbersView,
    rates_per_second: NumbersView,
    pending: Vec<String>,
    servers: Vec<ServerView>,
}

#[derive(Serialize)]
struct ServerView {
    address: String,
    port: u32,
    /// `direct`, `nat`, `local`, or a tunnel with its kind.
    method: String,
    weight: u32,
    upper_threshold: u32,
    lower_threshold: u32,
    active_connections: u32,
    inactive_connections: u32,
    persistent_connections: u32,
    overloaded: bool,
    silent: bool,
    counters: NumbersView,
    rates_per_second: NumbersView,
}

#[derive(Serialize)]
struct NumbersView {
    connections: u64,
    packets_in: u64,
    packets_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl From<Option<Counters>> for NumbersView {
    fn from(counters: Option<Counters>) -> Self {
        let Counters { connections, packets_in, packets_out, bytes_in, bytes_out } =
            counters.unwrap_or_default();
        Self { connections, packets_in, packets_out, bytes_in, bytes_out }
    }
}

impl From<Option<Rates>> for NumbersView {
    fn from(rates: Option<Rates>) -> Self {
        let Rates { connections, packets_in, packets_out, bytes_in, bytes_out } = rates.unwrap_or_default();
        Self { connections, packets_in, packets_out, bytes_in, bytes_out }
    }
}

fn view(list: &ListResponse, timeouts: &Timeouts) -> View {
    let Timeouts { tcp_seconds, tcp_fin_seconds, udp_seconds } = *timeouts;
    View {
        generation: list.generation,
        virtual_addresses: list.virtual_addresses.clone(),
        warnings: list.warnings.clone(),
        timeouts: TimeoutsView { tcp_seconds, tcp_fin_seconds, udp_seconds },
        services: list.services.iter().map(service_view).collect(),
    }
}

fn service_view(status: &ServiceStatus) -> ServiceView {
    let service = status.service.clone().unwrap_or_default();
    ServiceView {
        service: Key::typed(service.key.as_ref()),
        scheduler: service.scheduler,
        scheduler_flags: service.scheduler_flags,
        persistence_seconds: service.persistence_seconds,
        persistence_prefix: service.persistence_prefix,
        persistence_engine: service.persistence_engine,
        one_packet: service.one_packet,
        timeout_tcp: service.timeout_tcp,
        timeout_tcp_fin: service.timeout_tcp_fin,
        timeout_udp: service.timeout_udp,
        counters: status.counters.into(),
        rates_per_second: status.rates.into(),
        pending: status.pending.clone(),
        servers: status.servers.iter().map(server_view).collect(),
    }
}

fn server_view(status: &ServerStatus) -> ServerView {
    let server = status.server.clone().unwrap_or_default();
    ServerView {
        method: method_text(&server),
        weight: server.weight.unwrap_or(1),
        upper_threshold: server.upper_threshold,
        lower_threshold: server.lower_threshold,
        address: server.address,
        port: server.port,
        active_connections: status.active_connections,
        inactive_connections: status.inactive_connections,
        persistent_connections: status.persistent_connections,
        overloaded: status.overloaded,
        silent: status.silent,
        counters: status.counters.into(),
        rates_per_second: status.rates.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_proto::v1::Server;

    fn sample() -> (ListResponse, Timeouts) {
        let key: Key = "tcp:10.0.0.100:80".parse().unwrap();
        let server = |address: &str, weight| ServerStatus {
            server: Some(Server {
                address: address.into(),
                port: 80,
                weight: Some(weight),
                ..Server::default()
            }),
            ..ServerStatus::default()
        };
        let service = Service {
            key: Some(key.to_proto()),
            scheduler: "rr".into(),
            persistence_seconds: 360,
            persistence_prefix: Some(24),
            ..Service::default()
        };
        let status = ServiceStatus {
            service: Some(service),
            servers: vec![
                ServerStatus { active_connections: 12, ..server("10.0.1.11", 1) },
                server("10.0.1.12", 0),
                ServerStatus { silent: true, ..server("10.0.1.13", 1) },
            ],
            pending: vec!["persistence does not run yet".into()],
            ..ServiceStatus::default()
        };
        let list = ListResponse {
            generation: 7,
            services: vec![status],
            virtual_addresses: vec!["10.0.0.100".into()],
            warnings: vec!["The kernel answers too.".into(), "persistence does not run yet".into()],
        };
        (list, Timeouts { tcp_seconds: 900, tcp_fin_seconds: 120, udp_seconds: 300 })
    }

    #[test]
    fn services_are_shown_with_servers_addresses_and_what_is_pending() {
        let (list, timeouts) = sample();
        let expected = "\
generation         7
virtual addresses  10.0.0.100
timeouts           tcp 15m, tcp fin 2m, udp 5m
warning            The kernel answers too.

  SERVER        METHOD  WEIGHT  ACTIVE  INACTIVE  CONN/S  PKT/S  BYTE/S  CONNECTIONS  STATE
tcp 10.0.0.100:80  rr, persistent 6m, mask /24
  10.0.1.11:80  direct       1      12         0       0      0       0            0
  10.0.1.12:80  direct       0       0         0       0      0       0            0  quiesced
  10.0.1.13:80  direct       1       0         0       0      0       0            0  no answer on the link
  pending: persistence does not run yet
";
        assert_eq!(text(&list, &timeouts), expected);
    }

    #[test]
    fn a_service_whose_servers_are_all_quiesced_or_overloaded_says_so() {
        let (mut list, timeouts) = sample();
        list.services[0].servers[0].overloaded = true;
        assert!(!text(&list, &timeouts).contains("they are refused"), "one may come back");
        list.services[0].servers.pop();
        let shown = text(&list, &timeouts);
        assert!(shown.contains("\n  no server takes new clients: they are refused\n"), "{shown}");
    }

    #[test]
    fn json_has_stable_names() {
        let (list, timeouts) = sample();
        let value = serde_json::to_value(view(&list, &timeouts)).unwrap();
        assert_eq!(value["generation"], 7);
        assert_eq!(value["virtual_addresses"][0], "10.0.0.100");
        assert_eq!(value["timeouts"]["tcp_fin_seconds"], 120);
        let service = &value["services"][0];
        assert_eq!(service["service"], "tcp:10.0.0.100:80");
        assert_eq!(service["persistence_prefix"], 24);
        assert_eq!(service["servers"][0]["active_connections"], 12);
        assert_eq!(service["servers"][1]["weight"], 0);
        assert_eq!(service["servers"][1]["rates_per_second"]["bytes_in"], 0);
    }

    #[test]
    fn an_empty_director_says_how_to_go_on() {
        let (list, timeouts) = (ListResponse::default(), Timeouts::default());
        assert!(
            text(&list, &timeouts)
                .ends_with("\nno services; `pointsman service add --help` says how to add one\n")
        );
    }
}
