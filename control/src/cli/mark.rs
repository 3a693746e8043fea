//! `pointsman mark`: which packets get which firewall mark.

use std::net::IpAddr;
use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use pointsman_proto::v1::{AddMarkRequest, DeleteMarkRequest, ListMarksRequest, MarkRule, Protocol};
use serde::Serialize;

use super::client::Director;
use super::error::CliError;
use super::key::protocol_name;
use super::output::{Change, Output, Table};

/// Adds, deletes and lists rules that give packets a firewall mark
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Of all rules that fit a packet the last one gives it its mark. A service of a mark takes its packets.\n\n\
                        Example: two ports as one service\n  \
                        pointsman mark add --protocol tcp --destination 10.0.0.100 --port 80 --mark 10\n  \
                        pointsman mark add --protocol tcp --destination 10.0.0.100 --port 443 --mark 10\n  \
                        pointsman service add mark:10 --persistence 300"
)]
pub(super) enum Mark {
    /// Adds a rule after those there are; a destination that is one address is up from then on
    Add(Rule),
    /// Deletes the rule that is exactly this one
    Delete(Rule),
    /// Lists the rules in their order
    List,
}

#[derive(Debug, Args)]
pub(super) struct Rule {
    /// Only of this protocol
    #[arg(long)]
    protocol: Option<Filter>,
    /// Only from there: an address or a network
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    source: Option<String>,
    /// Only to there: an address or a network
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    destination: Option<String>,
    /// Only to this port, or to these: 80 or 80-90
    #[arg(long, value_name = "PORT", value_parser = ports)]
    port: Option<(u16, Option<u16>)>,
    /// Only what comes in by this port of the director
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// What they get: 1 to 4294967295
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    mark: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Filter {
    Tcp,
    Udp,
    Sctp,
}

/// An address, or a network as ADDRESS/LENGTH; what is in it the director judges.
pub(super) fn network(text: &str) -> Result<String, String> {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    match address.parse::<IpAddr>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("expected an address or a network, for example 10.0.0.100 or 10.9.0.0/16".to_owned()),
    }
}

fn ports(text: &str) -> Result<(u16, Option<u16>), String> {
    let port = |text: &str| text.parse().map_err(|_| "expected a port, or two as 80-90".to_owned());
    match text.split_once('-') {
        Some((first, last)) => Ok((port(first)?, Some(port(last)?))),
        None => Ok((port(text)?, None)),
    }
}

impl Rule {
    fn to_proto(&self) -> MarkRule {
        let protocol = match self.protocol {
            None => Protocol::Unspecified,
            Some(Filter::Tcp) => Protocol::Tcp,
            Some(Filter::Udp) => Protocol::Udp,
            Some(Filter::Sctp) => Protocol::Sctp,
        };
        MarkRule {
            protocol: protocol.into(),
            source: self.source.clone().unwrap_or_default(),
            destination: self.destination.clone().unwrap_or_default(),
            port: self.port.map(|(first, _)| first.into()),
            last_port: self.port.and_then(|(_, last)| last).map(Into::into),
            interface: self.interface.clone().unwrap_or_default(),
            mark: self.mark,
        }
    }
}

/// A rule as programs read it: what is not said is absent.
#[derive(Serialize)]
struct View<'a> {
    mark: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    source: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    destination: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    interface: &'a str,
}

impl<'a> View<'a> {
    fn of(rule: &'a MarkRule) -> Self {
        let protocol = Some(rule.protocol()).filter(|protocol| *protocol != Protocol::Unspecified);
        let last = rule.last_port.map_or_else(String::new, |last| format!("-{last}"));
        View {
            mark: rule.mark,
            protocol: protocol.map(protocol_name),
            source: &rule.source,
            destination: &rule.destination,
            port: rule.port.map(|first| format!("{first}{last}")),
            interface: &rule.interface,
        }
    }

    /// As the changes of a configuration name it.
    fn said(&self) -> String {
        let mut text = format!("mark {}: {}", self.mark, self.protocol.unwrap_or("every protocol"));
        let port = self.port.as_deref().unwrap_or("");
        let parts = [("from", self.source), ("to", self.destination), ("port", port), ("by", self.interface)];
        for (word, part) in parts.into_iter().filter(|(_, part)| !part.is_empty()) {
            text += &format!(" {word} {part}");
        }
        text
    }
}

impl Mark {
    pub(super) async fn run(self, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
        let mut lvs = Director::connect(socket).await?.lvs();
        let (sign, rule, answer) = match self {
            Self::Add(rule) => {
                let rule = rule.to_proto();
                let request = AddMarkRequest { rule: Some(rule.clone()) };
                ('+', rule, lvs.add_mark(request).await?)
            }
            Self::Delete(rule) => {
                let rule = rule.to_proto();
                let request = DeleteMarkRequest { rule: Some(rule.clone()) };
                ('-', rule, lvs.delete_mark(request).await?)
            }
            Self::List => {
                let rules = lvs.list_marks(ListMarksRequest {}).await?.into_inner().rules;
                let views: Vec<View<'_>> = rules.iter().map(View::of).collect();
                return output.either(|| &views, || table(&views));
            }
        };
        let answer = answer.into_inner();
        output.change(&Change {
            generation: answer.generation,
            changes: vec![format!("{sign} {}", View::of(&rule).said())],
            warnings: answer.warnings,
        })
    }
}

fn table(rules: &[View<'_>]) -> String {
    if rules.is_empty() {
        return "no rules; `pointsman mark --help` says how to add one\n".to_owned();
    }
    let mut table = Table::new(0, &[0]);
    table.row(["MARK", "PROTOCOL", "SOURCE", "DESTINATION", "PORT", "INTERFACE"]);
    let any = |text: &str| if text.is_empty() { "any".to_owned() } else { text.to_owned() };
    for rule in rules {
        table.row([
            rule.mark.to_string(),
            any(rule.protocol.unwrap_or("")),
            any(rule.source),
            any(rule.destination),
            any(rule.port.as_deref().unwrap_or("")),
            any(rule.interface),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_listed_with_any_where_nothing_is_said() {
        let web = MarkRule {
            protocol: Protocol::Tcp.into(),
            destination: "10.0.0.100".into(),
            port: Some(80),
            last_port: Some(90),
            mark: 10,
            ..Default::default()
        };
        let all = MarkRule { mark: 7, interface: "eth0".into(), ..Default::default() };
        let views = [View::of(&web), View::of(&all)];
        let expected = "MARK  PROTOCOL  SOURCE  DESTINATION  PORT   INTERFACE\n  \
                        10  tcp       any     10.0.0.100   80-90  any\n   \
                        7  any       any     any          any    eth0\n";
        assert_eq!(table(&views), expected);
        assert_eq!(views[0].said(), "mark 10: tcp to 10.0.0.100 port 80-90");
        assert_eq!(views[1].said(), "mark 7: every protocol by eth0");
        assert_eq!(
            serde_json::to_string(&views[0]).unwrap(),
            r#"{"mark":10,"protocol":"tcp","destination":"10.0.0.100","port":"80-90"}"#
        );
    }
}
