//! `pointsman service`: adds, changes and deletes virtual services.

use std::path::Path;

use clap::{Args, Subcommand};
use pointsman_proto::v1::{
    AddServiceRequest, DeleteServiceRequest, EditServiceRequest, ListRequest, Service, ServiceKey,
    ServiceStatus,
};

use super::client::Director;
use super::error::CliError;
use super::key::Key;
use super::output::{Change, Output};

/// Adds, changes and deletes virtual services
#[derive(Debug, Subcommand)]
#[command(
    after_help = "SERVICE is tcp:ADDRESS:PORT, udp:ADDRESS:PORT, sctp:ADDRESS:PORT, mark:N or mark6:N.\n\n\
                        Examples:\n  \
                        pointsman service add tcp:10.0.0.1:80 --scheduler rr\n  \
                        pointsman service add udp:[fd00::1]:53\n  \
                        pointsman service edit tcp:10.0.0.1:80 --persistence 300\n  \
                        pointsman service delete mark:5"
)]
pub(super) enum Verb {
    /// Adds a service without real servers; its address is up from then on
    Add {
        /// For example tcp:10.0.0.1:80
        service: Key,
        #[command(flatten)]
        options: Options,
    },
    /// Changes what is given, and leaves the rest as it is
    Edit {
        /// For example tcp:10.0.0.1:80
        service: Key,
        #[command(flatten)]
        options: Options,
    },
    /// Deletes a service, its servers and its connections
    Delete {
        /// For example tcp:10.0.0.1:80
        service: Key,
    },
}

#[derive(Debug, Default, Args)]
pub(super) struct Options {
    /// How real servers are chosen: rr, wrr, lc, wlc ... [default of add: wlc]
    #[arg(long, value_name = "NAME")]
    scheduler: Option<String>,
    /// sh-port, sh-fallback, mh-port, mh-fallback, flag-1, flag-2, flag-3, or none
    #[arg(long, value_name = "FLAGS", value_delimiter = ',')]
    scheduler_flags: Option<Vec<String>>,
    /// How long a client stays on its server; 0: not at all
    #[arg(long, value_name = "SECONDS")]
    persistence: Option<u32>,
    /// Clients of one network of this length share a server
    #[arg(long, value_name = "LENGTH")]
    persistence_prefix: Option<u32>,
    /// sip, or none
    #[arg(long, value_name = "NAME")]
    persistence_engine: Option<String>,
    /// Schedule each datagram by itself
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    one_packet: Option<bool>,
    /// How long its TCP connections live without a packet, as `ipvsadm --set`; 0: as all others'
    #[arg(long, value_name = "SECONDS")]
    timeout_tcp: Option<u32>,
    /// The same after a FIN
    #[arg(long, value_name = "SECONDS")]
    timeout_tcp_fin: Option<u32>,
    /// The same for UDP
    #[arg(long, value_name = "SECONDS")]
    timeout_udp: Option<u32>,
}

impl Options {
    fn merge_into(self, service: &mut Service) {
        if let Some(scheduler) = self.scheduler {
            if service.scheduler != scheduler {
                service.scheduler_flags.clear();
            }
            service.scheduler = scheduler;
        }
        if let Some(flags) = self.scheduler_flags {
            service.scheduler_flags =
                flags.into_iter().filter(|flag| flag != "none" && !flag.is_empty()).collect();
        }
        if let Some(seconds) = self.persistence {
            service.persistence_seconds = seconds;
            if seconds == 0 {
                service.persistence_prefix = None;
                service.persistence_engine.clear();
            }
        }
        service.persistence_prefix = self.persistence_prefix.or(service.persistence_prefix);
        match self.persistence_engine.as_deref() {
            Some("none") => service.persistence_engine.clear(),
            Some(engine) => service.persistence_engine = engine.to_owned(),
            None => {}
        }
        service.one_packet = self.one_packet.unwrap_or(service.one_packet);
        service.timeout_tcp = self.timeout_tcp.or(service.timeout_tcp);
        service.timeout_tcp_fin = self.timeout_tcp_fin.or(service.timeout_tcp_fin);
        service.timeout_udp = self.timeout_udp.or(service.timeout_udp);
    }
}

impl Verb {
    pub(super) async fn run(self, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
        let director = Director::connect(socket).await?;
        let (changes, answer) = match self {
            Self::Add { service: key, options } => {
                let mut service =
                    Service { key: Some(key.to_proto()), scheduler: "wlc".to_owned(), ..Service::default() };
                options.merge_into(&mut service);
                let changes = vec![format!("+ service {key} {}", service.scheduler)];
                let request = AddServiceRequest { service: Some(service) };
                (changes, director.lvs().add_service(request).await?)
            }
            Self::Edit { service: key, options } => {
                let (generation, status) = present(&director, key.to_proto()).await?;
                let old = status.service.unwrap_or_default();
                let mut new = old.clone();
                options.merge_into(&mut new);
                let changes = changes(key, &old, &new);
                if changes.is_empty() {
                    return output.change(&Change { generation, ..Change::default() });
                }
                (changes, director.lvs().edit_service(EditServiceRequest { service: Some(new) }).await?)
            }
            Self::Delete { service: key } => {
                let request = DeleteServiceRequest { service: Some(key.to_proto()) };
                (vec![format!("- service {key}")], director.lvs().delete_service(request).await?)
            }
        };
        let answer = answer.into_inner();
        output.change(&Change { generation: answer.generation, changes, warnings: answer.warnings })
    }
}

/// A service as it is now, and the generation in force.
pub(super) async fn present(director: &Director, key: ServiceKey) -> Result<(u64, ServiceStatus), CliError> {
    let said = Key::said(Some(&key));
    let answer = director.lvs().list(ListRequest { service: Some(key), warnings: false }).await?.into_inner();
    let generation = answer.generation;
    let found = answer.services.into_iter().next().map(|status| (generation, status));
    found.ok_or_else(|| {
        CliError::new(format!("there is no service {said}"), "`pointsman show` lists those there are")
    })
}

fn changes(key: Key, old: &Service, new: &Service) -> Vec<String> {
    let prefix =
        |service: &Service| service.persistence_prefix.map_or("none".to_owned(), |n| format!("/{n}"));
    let pairs = [
        ("scheduler", old.scheduler.clone(), new.scheduler.clone()),
        ("flags", or_none(old.scheduler_flags.join(",")), or_none(new.scheduler_flags.join(","))),
        ("persistence", seconds(old.persistence_seconds), seconds(new.persistence_seconds)),
        ("persistence prefix", prefix(old), prefix(new)),
        ("engine", or_none(old.persistence_engine.clone()), or_none(new.persistence_engine.clone())),
        ("one-packet", old.one_packet.to_string(), new.one_packet.to_string()),
        ("timeout tcp", own(old.timeout_tcp), own(new.timeout_tcp)),
        ("timeout tcp-fin", own(old.timeout_tcp_fin), own(new.timeout_tcp_fin)),
        ("timeout udp", own(old.timeout_udp), own(new.timeout_udp)),
    ];
    difference(&format!("service {key}"), pairs)
}

/// A line for each value that is not as it was.
pub(super) fn difference<const N: usize>(what: &str, pairs: [(&str, String, String); N]) -> Vec<String> {
    let changed = pairs.into_iter().filter(|(_, old, new)| old != new);
    changed.map(|(name, old, new)| format!("~ {what}: {name} {old} -> {new}")).collect()
}

fn seconds(seconds: u32) -> String {
    if seconds == 0 { "none".to_owned() } else { format!("{seconds} s") }
}

/// A timeout of its own.
fn own(timeout: Option<u32>) -> String {
    seconds(timeout.unwrap_or(0))
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Service {
        Service {
            scheduler: "sh".into(),
            scheduler_flags: vec!["sh-port".into()],
            persistence_seconds: 300,
            persistence_prefix: Some(24),
            ..Service::default()
        }
    }

    #[test]
    fn an_edit_changes_only_what_is_given() {
        let key = "tcp:10.0.0.1:80".parse().unwrap();
        let edited = |options: Options| {
            let mut new = held();
            options.merge_into(&mut new);
            changes(key, &held(), &new)
        };
        assert!(edited(Options::default()).is_empty());
        assert_eq!(
            edited(Options { persistence: Some(60), ..Options::default() }),
            ["~ service tcp 10.0.0.1:80: persistence 300 s -> 60 s"]
        );
        assert_eq!(
            edited(Options { persistence: Some(0), ..Options::default() }),
            [
                "~ service tcp 10.0.0.1:80: persistence 300 s -> none",
                "~ service tcp 10.0.0.1:80: persistence prefix /24 -> none",
            ]
        );
        assert_eq!(
            edited(Options { timeout_tcp: Some(60), timeout_udp: Some(0), ..Options::default() }),
            ["~ service tcp 10.0.0.1:80: timeout tcp none -> 60 s"]
        );
    }

    #[test]
    fn another_scheduler_has_flags_of_its_own() {
        let mut service = held();
        Options { scheduler: Some("rr".into()), ..Options::default() }.merge_into(&mut service);
        assert_eq!((service.scheduler.as_str(), service.scheduler_flags.len()), ("rr", 0));
    }
}
