//! `pointsman source-nat`: which packets leave from another address.

use std::net::IpAddr;
use std::path::Path;

use clap::{Args, Subcommand};
use pointsman_proto::v1::{AddSourceNatRequest, DeleteSourceNatRequest, ListSourceNatRequest, SourceNat};
use serde::Serialize;

use super::client::Director;
use super::error::CliError;
use super::mark::network;
use super::output::{Change, Output, Table};

/// Adds, deletes and lists rules of source NAT, for what servers send for themselves
#[derive(Debug, Subcommand)]
#[command(after_help = "Of all rules that fit a packet the first one counts.\n\n\
                        Example: pointsman source-nat add --source 10.10.10.0/24 --interface eth0 --to 20.20.20.11")]
pub(super) enum Verb {
    /// Adds a rule after those there are; its address is up from then on
    Add(Rule),
    /// Deletes the rule that is exactly this one
    Delete(Rule),
    /// Lists the rules in their order
    List,
}

#[derive(Debug, Args)]
pub(super) struct Rule {
    /// Whose packets: an address or a network
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    source: String,
    /// Only what leaves by this port of the director
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// The address that they leave from
    #[arg(long, value_name = "ADDRESS")]
    to: IpAddr,
}

/// A rule as programs read it.
#[derive(Serialize)]
struct View<'a> {
    source: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    interface: &'a str,
    to: &'a str,
}

impl<'a> View<'a> {
    fn of(rule: &'a SourceNat) -> Self {
        View { source: &rule.source, interface: &rule.interface, to: &rule.to }
    }

    /// As the changes of a configuration name it.
    fn said(&self) -> String {
        let by = if self.interface.is_empty() { String::new() } else { format!(" by {}", self.interface) };
        format!("source NAT of {}{by} to {}", self.source, self.to)
    }
}

impl Verb {
    pub(super) async fn run(self, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
        let mut lvs = Director::connect(socket).await?.lvs();
        let asked = |rule: Rule| SourceNat {
            source: rule.source,
            interface: rule.interface.unwrap_or_default(),
            to: rule.to.to_string(),
        };
        let (sign, rule, answer) = match self {
            Self::Add(rule) => {
                let rule = asked(rule);
                let request = AddSourceNatRequest { rule: Some(rule.clone()) };
                ('+', rule, lvs.add_source_nat(request).await?)
            }
            Self::Delete(rule) => {
                let rule = asked(rule);
                let request = DeleteSourceNatRequest { rule: Some(rule.clone()) };
                ('-', rule, lvs.delete_source_nat(request).await?)
            }
            Self::List => {
                let rules = lvs.list_source_nat(ListSourceNatRequest {}).await?.into_inner().rules;
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
        return "no rules; `pointsman source-nat --help` says how to add one\n".to_owned();
    }
    let mut table = Table::new(0, &[]);
    table.row(["SOURCE", "INTERFACE", "TO"]);
    for rule in rules {
        table.row([rule.source, if rule.interface.is_empty() { "any" } else { rule.interface }, rule.to]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_listed_in_their_order() {
        let rule = |source: &str, interface: &str| SourceNat {
            source: source.into(),
            interface: interface.into(),
            to: "20.20.20.11".into(),
        };
        let rules = [rule("10.10.10.0/24", "eth0"), rule("10.0.0.7", "")];
        let views: Vec<_> = rules.iter().map(View::of).collect();
        let expected = "SOURCE         INTERFACE  TO\n\
                        10.10.10.0/24  eth0       20.20.20.11\n\
                        10.0.0.7       any        20.20.20.11\n";
        assert_eq!(table(&views), expected);
        assert_eq!(views[0].said(), "source NAT of 10.10.10.0/24 by eth0 to 20.20.20.11");
        assert_eq!(serde_json::to_string(&views[1]).unwrap(), r#"{"source":"10.0.0.7","to":"20.20.20.11"}"#);
    }
}
