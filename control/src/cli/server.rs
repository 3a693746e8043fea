//! `pointsman server`: adds, changes and deletes the real servers of a service.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use pointsman_proto::v1::{
    AddServerRequest, DeleteServerRequest, EditServerRequest, ForwardingMethod, Server, Tunnel, tunnel,
};

use super::client::Director;
use super::error::CliError;
use super::key::{Key, Real, endpoint};
use super::output::{Change, Output};
use super::service::{difference, present};

/// Adds, changes and deletes the real servers of a service
#[derive(Debug, Subcommand)]
#[command(
    after_help = "SERVICE is tcp:ADDRESS:PORT, udp:ADDRESS:PORT, sctp:ADDRESS:PORT, mark:N or mark6:N.\n\
                        SERVER is ADDRESS or ADDRESS:PORT; without a port it is the service's.\n\n\
                        Examples:\n  \
                        pointsman server add tcp:10.0.0.1:80 192.168.1.11\n  \
                        pointsman server add tcp:10.0.0.1:80 192.168.1.12:8080 --method nat --weight 2\n  \
                        pointsman server edit tcp:10.0.0.1:80 192.168.1.11 --weight 0    (quiesce)\n  \
                        pointsman server delete tcp:10.0.0.1:80 192.168.1.11"
)]
pub(super) enum Verb {
    /// Adds a real server
    Add {
        /// For example tcp:10.0.0.1:80
        service: Key,
        /// For example 192.168.1.11
        server: Real,
        #[command(flatten)]
        options: Options,
    },
    /// Changes what is given, and leaves the rest as it is
    Edit {
        /// For example tcp:10.0.0.1:80
        service: Key,
        /// For example 192.168.1.11
        server: Real,
        #[command(flatten)]
        options: Options,
    },
    /// Deletes a real server; to let its connections end first, edit it to --weight 0
    Delete {
        /// For example tcp:10.0.0.1:80
        service: Key,
        /// For example 192.168.1.11
        server: Real,
    },
}

#[derive(Debug, Default, Args)]
pub(super) struct Options {
    /// How packets get there [default of add: direct]
    #[arg(long)]
    method: Option<Method>,
    /// The share of new connections; 0: none [default of add: 1]
    #[arg(long, value_name = "N")]
    weight: Option<u32>,
    /// Connections at which it gets no new ones; 0: never
    #[arg(long, value_name = "N")]
    upper_threshold: Option<u32>,
    /// Connections below which it gets new ones again; 0: three quarters of the upper threshold
    #[arg(long, value_name = "N")]
    lower_threshold: Option<u32>,
    /// The kind of a tunnel [default of a tunnel: ipip]
    #[arg(long)]
    tunnel: Option<TunnelKind>,
    /// The UDP port of a gue tunnel
    #[arg(long, value_name = "PORT")]
    tunnel_port: Option<u16>,
    /// The checksum of a gue or gre tunnel
    #[arg(long)]
    tunnel_checksum: Option<Checksum>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    /// Direct routing: only the MAC address is changed
    Direct,
    /// The destination is translated; answers must pass the director
    Nat,
    /// The packet is wrapped
    Tunnel,
    /// The service runs on the director itself
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TunnelKind {
    Ipip,
    Gue,
    Gre,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Checksum {
    None,
    On,
    Remote,
}

impl Options {
    fn merge_into(self, server: &mut Server) {
        if let Some(method) = self.method {
            server.set_method(match method {
                Method::Direct => ForwardingMethod::Direct,
                Method::Nat => ForwardingMethod::Nat,
                Method::Tunnel => ForwardingMethod::Tunnel,
                Method::Local => ForwardingMethod::Local,
            });
        }
        server.weight = self.weight.or(server.weight);
        server.upper_threshold = self.upper_threshold.unwrap_or(server.upper_threshold);
        server.lower_threshold = self.lower_threshold.unwrap_or(server.lower_threshold);
        let asked = self.tunnel.is_some() || self.tunnel_port.is_some() || self.tunnel_checksum.is_some();
        if !asked && server.method() != ForwardingMethod::Tunnel {
            server.tunnel = None;
            return;
        }
        let mut tunnel = server.tunnel.unwrap_or_default();
        if let Some(kind) = self.tunnel {
            let kind = match kind {
                TunnelKind::Ipip => tunnel::Kind::Ipip,
                TunnelKind::Gue => tunnel::Kind::Gue,
                TunnelKind::Gre => tunnel::Kind::Gre,
            };
            if tunnel.kind() != kind {
                tunnel = Tunnel { kind: kind.into(), ..Tunnel::default() };
            }
        }
        tunnel.port = self.tunnel_port.map_or(tunnel.port, u32::from);
        if let Some(checksum) = self.tunnel_checksum {
            tunnel.set_checksum(match checksum {
                Checksum::None => tunnel::Checksum::None,
                Checksum::On => tunnel::Checksum::On,
                Checksum::Remote => tunnel::Checksum::Remote,
            });
        }
        server.tunnel = Some(tunnel);
    }
}

impl Verb {
    pub(super) async fn run(self, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
        let (changes, answer) = match self {
            Self::Add { service: key, server: real, options } => {
                let server = added(key, real, options)?;
                let changes = vec![format!(
                    "+ server {} of {key}: {} weight {}",
                    endpoint(&server.address, server.port),
                    method_text(&server),
                    server.weight.unwrap_or(1)
                )];
                let request = AddServerRequest { service: Some(key.to_proto()), server: Some(server) };
                (changes, Director::connect(socket).await?.lvs().add_server(request).await?)
            }
            Self::Edit { service: key, server: real, options } => {
                let director = Director::connect(socket).await?;
                let (generation, old) = present_server(&director, key, real).await?;
                let mut new = old.clone();
                options.merge_into(&mut new);
                check_port(key, &new)?;
                let changes = changes(key, &old, &new);
                if changes.is_empty() {
                    return output.change(&Change { generation, ..Change::default() });
                }
                let request = EditServerRequest { service: Some(key.to_proto()), server: Some(new) };
                (changes, director.lvs().edit_server(request).await?)
            }
            Self::Delete { service: key, server: real } => {
                let (address, port) = (real.address.to_string(), real.port.unwrap_or(key.port()).into());
                let changes = vec![format!("- server {} of {key}", endpoint(&address, port))];
                let request = DeleteServerRequest { service: Some(key.to_proto()), address, port };
                (changes, Director::connect(socket).await?.lvs().delete_server(request).await?)
            }
        };
        let answer = answer.into_inner();
        output.change(&Change { generation: answer.generation, changes, warnings: answer.warnings })
    }
}

fn added(key: Key, real: Real, options: Options) -> Result<Server, CliError> {
    let mut server = Server {
        address: real.address.to_string(),
        port: real.port.unwrap_or(key.port()).into(),
        weight: Some(1),
        ..Server::default()
    };
    options.merge_into(&mut server);
    check_port(key, &server)?;
    Ok(server)
}

/// ipvsadm changes such a port in silence.
fn check_port(key: Key, server: &Server) -> Result<(), CliError> {
    let keeps_port = matches!(server.method(), ForwardingMethod::Direct | ForwardingMethod::Tunnel);
    match key {
        Key::Address(..) if keeps_port && server.port != u32::from(key.port()) => Err(CliError::new(
            format!(
                "port {}: {} cannot change the port {} of the service",
                server.port,
                if server.method() == ForwardingMethod::Direct { "direct routing" } else { "a tunnel" },
                key.port()
            ),
            "leave the port out, or use --method nat",
        )),
        _ => Ok(()),
    }
}

async fn present_server(director: &Director, key: Key, real: Real) -> Result<(u64, Server), CliError> {
    let (generation, status) = present(director, key.to_proto()).await?;
    let (address, port) = (real.address.to_string(), u32::from(real.port.unwrap_or(key.port())));
    let mut servers = status.servers.into_iter().filter_map(|status| status.server);
    let found = servers.find(|server| server.address == address && server.port == port);
    found.map(|server| (generation, server)).ok_or_else(|| {
        CliError::new(
            format!("there is no server {} of {key}", endpoint(&address, port)),
            "`pointsman show` lists those there are",
        )
    })
}

fn changes(key: Key, old: &Server, new: &Server) -> Vec<String> {
    let what = format!("server {} of {key}", endpoint(&new.address, new.port));
    let weight = |server: &Server| server.weight.unwrap_or(1).to_string();
    let pairs = [
        ("method", method_text(old), method_text(new)),
        ("weight", weight(old), weight(new)),
        ("upper threshold", old.upper_threshold.to_string(), new.upper_threshold.to_string()),
        ("lower threshold", old.lower_threshold.to_string(), new.lower_threshold.to_string()),
    ];
    difference(&what, pairs)
}

/// `direct`, `nat`, `local`, `tunnel ipip`, `tunnel gue 6080 checksum remote`.
pub(super) fn method_text(server: &Server) -> String {
    match server.method() {
        ForwardingMethod::Direct => "direct".to_owned(),
        ForwardingMethod::Nat => "nat".to_owned(),
        ForwardingMethod::Local => "local".to_owned(),
        ForwardingMethod::Tunnel => {
            let tunnel = server.tunnel.unwrap_or_default();
            let checksum = match tunnel.checksum() {
                tunnel::Checksum::None => "",
                tunnel::Checksum::On => " checksum on",
                tunnel::Checksum::Remote => " checksum remote",
            };
            match tunnel.kind() {
                tunnel::Kind::Ipip => "tunnel ipip".to_owned(),
                tunnel::Kind::Gue => format!("tunnel gue {}{checksum}", tunnel.port),
                tunnel::Kind::Gre => format!("tunnel gre{checksum}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        "tcp:10.0.0.1:80".parse().unwrap()
    }

    #[test]
    fn a_server_gets_the_port_of_its_service() {
        let server = added(key(), "192.168.1.11".parse().unwrap(), Options::default()).unwrap();
        assert_eq!((server.port, server.weight, server.method()), (80, Some(1), ForwardingMethod::Direct));
    }

    #[test]
    fn direct_routing_to_another_port_is_refused_with_the_remedy() {
        let real = || "192.168.1.11:8080".parse().unwrap();
        let error = added(key(), real(), Options::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "port 8080: direct routing cannot change the port 80 of the service\n  \
             leave the port out, or use --method nat"
        );
        let nat = Options { method: Some(Method::Nat), ..Options::default() };
        assert_eq!(added(key(), real(), nat).unwrap().port, 8080);
    }

    #[test]
    fn an_edit_says_what_it_changes() {
        let old = added(key(), "192.168.1.11".parse().unwrap(), Options::default()).unwrap();
        let mut new = old.clone();
        let options = Options {
            method: Some(Method::Tunnel),
            tunnel: Some(TunnelKind::Gue),
            tunnel_port: Some(6080),
            weight: Some(0),
            ..Options::default()
        };
        options.merge_into(&mut new);
        assert_eq!(
            changes(key(), &old, &new),
            [
                "~ server 192.168.1.11:80 of tcp 10.0.0.1:80: method direct -> tunnel gue 6080",
                "~ server 192.168.1.11:80 of tcp 10.0.0.1:80: weight 1 -> 0",
            ]
        );
    }
}
