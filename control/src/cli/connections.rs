//! `pointsman connections`: the connections that the director keeps, as a stream.

use std::net::IpAddr;
use std::path::Path;

use clap::{Args, ValueEnum};
use pointsman_proto::v1::{Connection, ForwardingMethod, ListConnectionsRequest, Protocol};
use serde::Serialize;

use super::client::Director;
use super::error::CliError;
use super::key::{Key, endpoint, protocol_name};
use super::output::Output;

/// Lists connections
#[derive(Debug, Args)]
#[command(after_help = "Filters narrow each other down. With --json each line is one connection.\n\n\
                        Example: pointsman connections --service tcp:10.0.0.1:80 --server 192.168.1.11 --limit 20")]
pub(super) struct Connections {
    /// Only of this protocol
    #[arg(long)]
    protocol: Option<Filter>,
    /// Only of this client address
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Only of this service, for example tcp:10.0.0.1:80
    #[arg(long)]
    service: Option<Key>,
    /// Only to this real server address
    #[arg(long, value_name = "ADDRESS")]
    server: Option<IpAddr>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Filter {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Serialize)]
struct View<'a> {
    protocol: &'static str,
    client_address: &'a str,
    client_port: u32,
    virtual_address: &'a str,
    virtual_port: u32,
    server_address: &'a str,
    server_port: u32,
    state: &'a str,
    expires_milliseconds: u32,
    packets_in: u64,
    bytes_in: u64,
    packets_out: u64,
    bytes_out: u64,
    worker: u32,
    method: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    persistence_engine: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    persistence_data: &'a str,
}

impl Connections {
    pub(super) async fn run(self, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
        let request = ListConnectionsRequest {
            protocol: self.protocol.map(|protocol| match protocol {
                Filter::Tcp => Protocol::Tcp.into(),
                Filter::Udp => Protocol::Udp.into(),
                Filter::Sctp => Protocol::Sctp.into(),
            }),
            client: self.client.map(|address| address.to_string()),
            service: self.service.map(Key::to_proto),
            server: self.server.map(|address| address.to_string()),
            limit: self.limit.unwrap_or(0),
        };
        let mut stream = Director::connect(socket).await?.connections().list(request).await?.into_inner();
        if !output.json {
            output.text(&row([
                "PROTO", "CLIENT", "VIRTUAL", "SERVER", "STATE", "EXPIRES", "PACKETS", "BYTES", "WORKER",
                "METHOD",
            ]))?;
        }
        let mut count = 0_u64;
        while let Some(batch) = stream.message().await? {
            for connection in &batch.connections {
                count += 1;
                match output.json {
                    true => output.json_line(&view(connection))?,
                    false => output.text(&line(connection))?,
                }
            }
        }
        if output.json { Ok(()) } else { Ok(writeln!(output.out, "{count} connections")?) }
    }
}

/// The list may be endless, so columns cannot be as wide as what is in them: they are wide enough for IPv4.
fn row(cells: [&str; 10]) -> String {
    let [protocol, client, virtual_end, server, state, expires, packets, bytes, worker, method] = cells;
    format!(
        "{protocol:<5}  {client:<21}  {virtual_end:<21}  {server:<21}  {state:<11}  {expires:>7}  {packets:>9}  \
         {bytes:>12}  {worker:>6}  {method}\n"
    )
}

fn line(connection: &Connection) -> String {
    let seconds = connection.expires_milliseconds / 1000;
    row([
        protocol_name(connection.protocol()),
        &endpoint(&connection.client_address, connection.client_port),
        &endpoint(&connection.virtual_address, connection.virtual_port),
        &endpoint(&connection.server_address, connection.server_port),
        &connection.state,
        &format!("{}:{:02}", seconds / 60, seconds % 60),
        &connection.packets_in.to_string(),
        &connection.bytes_in.to_string(),
        &connection.worker.to_string(),
        method_name(connection),
    ])
}

fn view(connection: &Connection) -> View<'_> {
    View {
        protocol: protocol_name(connection.protocol()),
        client_address: &connection.client_address,
        client_port: connection.client_port,
        virtual_address: &connection.virtual_address,
        virtual_port: connection.virtual_port,
        server_address: &connection.server_address,
        server_port: connection.server_port,
        state: &connection.state,
        expires_milliseconds: connection.expires_milliseconds,
        packets_in: connection.packets_in,
        bytes_in: connection.bytes_in,
        packets_out: connection.packets_out,
        bytes_out: connection.bytes_out,
        worker: connection.worker,
        method: method_name(connection),
        persistence_engine: &connection.persistence_engine,
        persistence_data: &connection.persistence_data,
    }
}

fn method_name(connection: &Connection) -> &'static str {
    match connection.method() {
        _ if connection.outbound => "source-nat",
        ForwardingMethod::Direct => "direct",
        ForwardingMethod::Nat => "nat",
        ForwardingMethod::Tunnel => "tunnel",
        ForwardingMethod::Local => "local",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Connection {
        Connection {
            protocol: Protocol::Tcp.into(),
            client_address: "fd00::2".into(),
            client_port: 9101,
            virtual_address: "10.0.0.100".into(),
            virtual_port: 80,
            server_address: "192.168.50.11".into(),
            server_port: 80,
            state: "ESTABLISHED".into(),
            expires_milliseconds: 899_500,
            packets_in: 7,
            bytes_in: 316,
            worker: 1,
            method: ForwardingMethod::Direct.into(),
            ..Connection::default()
        }
    }

    #[test]
    fn a_connection_is_one_line() {
        let expected =
            "tcp    [fd00::2]:9101         10.0.0.100:80          192.168.50.11:80       ESTABLISHED  "
                .to_owned()
                + "  14:59          7           316       1  direct\n";
        assert_eq!(line(&sample()), expected);
    }

    #[test]
    fn json_has_stable_names() {
        let value = serde_json::to_value(view(&sample())).unwrap();
        assert_eq!(value["client_address"], "fd00::2");
        assert_eq!(value["expires_milliseconds"], 899_500);
        assert_eq!(value["method"], "direct");
        assert_eq!(value.as_object().unwrap().len(), 15);
        let outbound = Connection { outbound: true, ..sample() };
        assert_eq!(serde_json::to_value(view(&outbound)).unwrap()["method"], "source-nat");
        let call = Connection {
            persistence_engine: "sip".into(),
            persistence_data: "a84b4c76e66710".into(),
            ..sample()
        };
        let value = serde_json::to_value(view(&call)).unwrap();
        assert_eq!(
            (&value["persistence_engine"], &value["persistence_data"]),
            (&"sip".into(), &"a84b4c76e66710".into())
        );
    }
}
