//! `pointsman policy`: the switches that the original leaves to `sysctl net.ipv4.vs.*`, and which packets are forwarded.

use std::path::Path;

use clap::Subcommand;
use pointsman_proto::v1::{GetPoliciesRequest, GetPoliciesResponse, SetPoliciesRequest};
use serde::Serialize;

use super::client::Director;
use super::error::CliError;
use super::output::{Change, Output, Table};

/// Shows and sets what `sysctl net.ipv4.vs.*` is for the original
#[derive(Debug, Subcommand)]
#[command(after_help = "Names may be written as sysctl does (net.ipv4.vs.NAME).\n\n\
                        Examples:\n  \
                        pointsman policy set expire_nodest_conn true\n  \
                        pointsman policy set net.ipv4.vs.conn_reuse_mode 0\n  \
                        pointsman policy set forward all")]
pub(super) enum Policy {
    /// Lists all with their values and defaults
    List,
    /// Sets one
    Set {
        /// For example sloppy_tcp; `pointsman policy list` lists them
        name: String,
        /// A number, true or false; for forward: servers, all or off
        value: String,
    },
}

/// What the packets are called that no service takes.
const FORWARD: &str = "forward";
const FORWARD_ABOUT: &str = "what is routed: \"servers\" what NATed servers and networks with source NAT send and get, \"all\", or \"off\"";

#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Value {
    Boolean(bool),
    Number(u32),
    Word(String),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Word(value) => value.fmt(f),
        }
    }
}

/// A switch as programs read it.
#[derive(Serialize)]
struct View {
    name: String,
    value: Value,
    default: Value,
    explanation: String,
}

fn views(answer: GetPoliciesResponse) -> Vec<View> {
    let word = |word: &str| Value::Word(word.to_owned());
    let forward = View {
        name: FORWARD.to_owned(),
        value: word(&answer.forward),
        default: word("servers"),
        explanation: FORWARD_ABOUT.to_owned(),
    };
    let switch = |policy: pointsman_proto::v1::Policy| {
        let value = |number: u32| match (policy.lowest, policy.highest) {
            (0, 1) => Value::Boolean(number != 0),
            _ => Value::Number(number),
        };
        let (value, default) = (value(policy.value), value(policy.default_value));
        View { name: policy.name, value, default, explanation: policy.explanation }
    };
    std::iter::once(forward).chain(answer.policies.into_iter().map(switch)).collect()
}

fn table(views: &[View]) -> String {
    let mut table = Table::new(0, &[]);
    table.row(["NAME", "VALUE", "DEFAULT", "WHAT IT DOES"]);
    for view in views {
        let (value, default) = (view.value.to_string(), view.default.to_string());
        table.row([view.name.as_str(), &value, &default, &view.explanation]);
    }
    table.text()
}

/// What is asked of the director.
fn request(name: &str, value: &str) -> Result<SetPoliciesRequest, CliError> {
    if name == FORWARD {
        return Ok(SetPoliciesRequest { forward: value.to_owned(), ..Default::default() });
    }
    let number = match value {
        "true" => 1,
        "false" => 0,
        number => number.parse().map_err(|_| {
            CliError::new(
                format!("`{value}` is no value of {name}: expected a number, true or false"),
                "`pointsman policy list` lists the policies with their values",
            )
        })?,
    };
    Ok(SetPoliciesRequest { policies: [(name.to_owned(), number)].into(), ..Default::default() })
}

impl Policy {
    pub(super) async fn run(self, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
        let request = match self {
            Self::List => {
                let mut lvs = Director::connect(socket).await?.lvs();
                let views = views(lvs.get_policies(GetPoliciesRequest {}).await?.into_inner());
                return output.either(|| &views, || table(&views));
            }
            Self::Set { name, value } => request(&name, &value)?,
        };
        let mut lvs = Director::connect(socket).await?.lvs();
        let before = views(lvs.get_policies(GetPoliciesRequest {}).await?.into_inner());
        let answer = lvs.set_policies(request).await?.into_inner();
        let after = views(lvs.get_policies(GetPoliciesRequest {}).await?.into_inner());
        let changed = before.iter().zip(&after).filter(|(before, after)| before.value != after.value);
        let changes = changed
            .map(|(before, after)| format!("~ policy {}: {} -> {}", before.name, before.value, after.value))
            .collect();
        output.change(&Change { generation: answer.generation, changes, warnings: answer.warnings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_shown_as_words_and_taken_as_numbers_too() {
        let policy = |name: &str, value, highest| pointsman_proto::v1::Policy {
            name: name.into(),
            value,
            highest,
            explanation: "why".into(),
            ..Default::default()
        };
        let policies = vec![policy("sloppy_tcp", 1, 1), policy("drop_entry", 1, 3)];
        let views = views(GetPoliciesResponse { generation: 1, policies, forward: "all".into() });
        let text = table(&views);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("forward     all    servers  what is routed"), "{text}");
        assert_eq!(lines[2..], ["sloppy_tcp  true   false    why", "drop_entry  1      0        why"]);
        for (value, number) in [("true", 1), ("1", 1), ("false", 0), ("0", 0), ("3", 3)] {
            let request = request("net.ipv4.vs.x", value).unwrap();
            assert_eq!(request.policies, [("net.ipv4.vs.x".to_owned(), number)].into());
        }
        assert_eq!(request("forward", "off").unwrap().forward, "off");
        let error = request("sloppy_tcp", "yes").unwrap_err().to_string();
        assert!(error.starts_with("`yes` is no value of sloppy_tcp"), "{error}");
    }
}
