//! Rules of marks and source NAT, and what there is to choose about forwarding.

use super::{address, at_most, one_host, virtual_address};
use crate::{
    config::model::{
        Configuration,
        policies::{FORWARDING, SWITCHES, Switch},
        rules::{MAX_RULES, MarkRule, SourceNat},
    },
    kernel::Network,
    refusal::{Code, Refusal},
};
use pointsman_dataplane::{policy::Policies, prefix::Prefix, routing::Forwarding};
use pointsman_proto::v1;
use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroU32},
};

/// All rules of a kind.
fn all<Asked, Rule: PartialEq + ToString>(
    field: &str,
    asked: &[Asked],
    rule: impl Fn(&Asked, &str, &mut Vec<Refusal>) -> Option<Rule>,
    refusals: &mut Vec<Refusal>,
) -> Vec<Rule> {
    at_most(field, asked.len(), MAX_RULES, refusals);
    let mut rules: Vec<Rule> = Vec::new();
    for (index, asked) in asked.iter().take(MAX_RULES).enumerate() {
        let at = format!("{field}[{index}]");
        let Some(rule) = rule(asked, &at, refusals) else { continue };
        if rules.contains(&rule) {
            let reason = format!("the rule \"{}\" is there twice", rule.to_string());
            refusals.push(Refusal::new(Code::RuleExists, at, reason, "remove one of them"));
        }
        rules.push(rule);
    }
    rules
}

pub(super) fn marks(asked: &[v1::MarkRule], refusals: &mut Vec<Refusal>) -> Vec<MarkRule> {
    all("marks", asked, mark, refusals)
}

pub(super) fn source_nats(asked: &[v1::SourceNat], refusals: &mut Vec<Refusal>) -> Vec<SourceNat> {
    all("source_nat", asked, source_nat, refusals)
}

/// A rule of marks. `at` is its path.
pub fn mark(asked: &v1::MarkRule, at: &str, refusals: &mut Vec<Refusal>) -> Option<MarkRule> {
    let before = refusals.len();
    let protocol = match asked.protocol {
        0 => None,
        number => super::protocol(number, at, refusals).map(Some)?,
    };
    let mut network = |text: &str, name: &str| match text {
        "" => None,
        text => network(text, &format!("{at}.{name}"), refusals),
    };
    let source = network(&asked.source, "source");
    let destination = network(&asked.destination, "destination");
    if let Some(address) = destination.and_then(|destination| destination.single()) {
        one_host(address, &format!("{at}.destination"), "a virtual address", refusals);
    }
    if let (Some(source), Some(destination)) = (source, destination)
        && source.address().is_ipv6() != destination.address().is_ipv6()
    {
        refusals.push(Refusal::invalid(
            format!("{at}.source"),
            format!("no packet goes from {source} to {destination}: they are of different families"),
            "make one rule for each family",
        ));
    }
    let ports = ports(asked, at, refusals);
    let Some(mark) = NonZeroU32::new(asked.mark) else {
        refusals.push(Refusal::invalid(
            format!("{at}.mark"),
            "expected a firewall mark above 0, found 0",
            "choose the mark that a service has",
        ));
        return None;
    };
    let interface = named(&asked.interface);
    (refusals.len() == before).then_some(MarkRule { protocol, source, destination, ports, interface, mark })
}

fn ports(asked: &v1::MarkRule, at: &str, refusals: &mut Vec<Refusal>) -> Option<(NonZeroU16, NonZeroU16)> {
    let Some(first) = asked.port else {
        if asked.last_port.is_some() {
            let reason = "expected the first of several ports, found only the last";
            refusals.push(Refusal::invalid(format!("{at}.port"), reason, "give both, or none"));
        }
        return None;
    };
    let last = asked.last_port.unwrap_or(first);
    let port = |number: u32| u16::try_from(number).ok().and_then(NonZeroU16::new);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Some((first, last)),
        _ => {
            let found = if asked.last_port.is_some() { format!("{first}-{last}") } else { first.to_string() };
            refusals.push(Refusal::invalid(
                format!("{at}.port"),
                format!("expected a port from 1 to 65535, or two with the lower one first, found {found}"),
                "write it as 80 or \"80-90\", or leave it out for every port",
            ));
            None
        }
    }
}

/// A rule of source NAT. `at` is its path.
pub fn source_nat(asked: &v1::SourceNat, at: &str, refusals: &mut Vec<Refusal>) -> Option<SourceNat> {
    let source = network(&asked.source, &format!("{at}.source"), refusals);
    let to = virtual_address(&asked.to, &format!("{at}.to"), refusals);
    let (source, to) = (source?, to?);
    if source.address().is_ipv6() != to.is_ipv6() {
        refusals.push(Refusal::invalid(
            format!("{at}.to"),
            format!("packets of {source} cannot leave from {to}: they are of different families"),
            "choose an address of the family of the source",
        ));
        return None;
    }
    Some(SourceNat { source, interface: named(&asked.interface), to })
}

fn named(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// An address, or a network as address and length.
fn network(text: &str, field: &str, refusals: &mut Vec<Refusal>) -> Option<Prefix> {
    let Some((first, length)) = text.split_once('/') else {
        return address(text, field, refusals).map(Prefix::host);
    };
    let first = address(first, field, refusals)?;
    let most = if first.is_ipv6() { 128 } else { 32 };
    match length.parse() {
        Ok(length) if length <= most => Some(Prefix::new(first, length)),
        _ => {
            refusals.push(Refusal::invalid(
                field,
                format!("expected 0 to {most} bits after the slash, found \"{length}\""),
                "write it as 10.9.0.0/16 or fd00:9::/64",
            ));
            None
        }
    }
}

/// Which packets are forwarded, by name; the default if there is none.
pub fn forwarding(text: &str, field: &str, refusals: &mut Vec<Refusal>) -> Option<Forwarding> {
    if text.is_empty() {
        return Some(Forwarding::default());
    }
    let known = FORWARDING.iter().find(|(name, _)| *name == text).map(|(_, forwarding)| *forwarding);
    if known.is_none() {
        refusals.push(Refusal::invalid(
            field,
            format!("expected \"servers\", \"all\" or \"off\", found \"{text}\""),
            "\"servers\" is the default",
        ));
    }
    known
}

/// Gives switches the values that are asked for, by name.
pub fn policies(
    asked: &BTreeMap<String, u32>,
    at: &str,
    policies: &mut Policies,
    refusals: &mut Vec<Refusal>,
) {
    for (name, value) in asked {
        let Some(switch) = Switch::find(name) else {
            if let Some(why) = Switch::why_not(name) {
                let remedy = format!("leave it out: {why}");
                let what = format!("the original's \"{name}\" is no policy here");
                refusals.push(Refusal::invalid(format!("{at}.{name}"), what, remedy));
                continue;
            }
            let known: Vec<&str> = SWITCHES.iter().map(|switch| switch.name).collect();
            refusals.push(Refusal::invalid(
                format!("{at}.{name}"),
                format!("no policy is named \"{name}\""),
                format!("choose one of {}", known.join(", ")),
            ));
            continue;
        };
        if !switch.range.contains(value) {
            let (lowest, highest) = (switch.range.start(), switch.range.end());
            refusals.push(Refusal::invalid(
                format!("{at}.{}", switch.name),
                format!("expected {lowest} to {highest}, found {value}"),
                format!("the default is {}", switch.of(&Policies::default())),
            ));
            continue;
        }
        switch.set(policies, *value);
    }
}

/// Whether rules name ports that there are.
pub fn interfaces(configuration: &Configuration, network: &Network) -> Vec<Refusal> {
    let marks = configuration.marks.iter().enumerate().map(|(n, rule)| ("marks", n, &rule.interface));
    let nats = configuration.source_nat.iter().enumerate();
    let all = marks.chain(nats.map(|(n, rule)| ("source_nat", n, &rule.interface)));
    let refusal = |(field, index, interface): (&str, usize, &Option<String>)| {
        let name = interface.as_ref()?;
        if network.number(name).is_some() {
            return None;
        }
        let there: Vec<&str> = network.ports.iter().map(|port| port.name.as_str()).collect();
        Some(Refusal::invalid(
            format!("{field}[{index}].interface"),
            format!("no port of the director is named \"{name}\""),
            format!("choose one of {}, or leave it out", there.join(", ")),
        ))
    };
    all.filter_map(refusal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing;

    fn refused<T: std::fmt::Debug>(check: impl FnOnce(&mut Vec<Refusal>) -> Option<T>) -> Vec<String> {
        let mut refusals = Vec::new();
        let found = check(&mut refusals);
        assert_eq!(found.is_none(), !refusals.is_empty(), "{found:?}");
        refusals.iter().map(ToString::to_string).collect()
    }

    fn asked() -> v1::MarkRule {
        v1::MarkRule { destination: "10.0.0.100".into(), mark: 10, ..Default::default() }
    }

    #[test]
    fn a_rule_of_marks_is_refused_for_each_of_its_fields() {
        let of = |rule: v1::MarkRule| refused(|refusals| mark(&rule, "marks[0]", refusals));
        let fine: [String; 0] = [];
        assert_eq!(of(asked()), fine);
        assert_eq!(of(v1::MarkRule { port: Some(80), last_port: Some(90), ..asked() }), fine);
        assert_eq!(of(v1::MarkRule { destination: "10.0.0.0/24".into(), ..asked() }), fine);
        for (rule, field) in [
            (
                v1::MarkRule { mark: 0, ..asked() },
                "marks[0].mark: expected a firewall mark above 0, found 0;",
            ),
            (v1::MarkRule { protocol: 1, ..asked() }, "marks[0].protocol: expected tcp (6)"),
            (
                v1::MarkRule { source: "10.0.0.0/33".into(), ..asked() },
                "marks[0].source: expected 0 to 32 bits",
            ),
            (v1::MarkRule { source: "fd00::/8".into(), ..asked() }, "marks[0].source: no packet goes from"),
            (
                v1::MarkRule { destination: "eth0".into(), ..asked() },
                "marks[0].destination: expected an IPv4",
            ),
            (
                v1::MarkRule { destination: "224.0.0.1".into(), ..asked() },
                "marks[0].destination: expected the",
            ),
            (v1::MarkRule { port: Some(0), ..asked() }, "marks[0].port: expected a port from 1 to 65535"),
            (v1::MarkRule { port: Some(9), last_port: Some(8), ..asked() }, "marks[0].port: expected a port"),
            (v1::MarkRule { last_port: Some(8), ..asked() }, "marks[0].port: expected the first"),
        ] {
            let found = of(rule);
            assert!(found.len() == 1 && found[0].starts_with(field), "{found:?}, expected {field}");
        }
    }

    #[test]
    fn source_nat_keeps_to_one_family_and_to_an_address_that_can_be_ours() {
        let of = |source: &str, to: &str| {
            let rule = v1::SourceNat { source: source.into(), to: to.into(), ..Default::default() };
            refused(|refusals| source_nat(&rule, "source_nat[0]", refusals)).concat()
        };
        assert_eq!(of("10.10.10.0/24", "20.20.20.11"), "");
        assert!(of("", "20.20.20.11").starts_with("source_nat[0].source: expected an IPv4 or IPv6 address"));
        assert!(
            of("10.10.10.0/24", "0.0.0.0").starts_with("source_nat[0].to: expected the address of one host")
        );
        assert!(
            of("10.10.10.0/24", "fd00::1").starts_with("source_nat[0].to: packets of 10.10.10.0/24 cannot")
        );
    }

    #[test]
    fn the_same_rule_twice_and_more_than_there_may_be_are_refused() {
        let mut refusals = Vec::new();
        marks(&[asked(), asked()], &mut refusals);
        assert_eq!((refusals[0].code, refusals[0].field.as_str()), (Code::RuleExists, "marks[1]"));
        let many: Vec<_> = (1..=257).map(|mark| v1::MarkRule { mark, ..asked() }).collect();
        let mut refusals = Vec::new();
        marks(&many, &mut refusals);
        assert_eq!((refusals.len(), refusals[0].code), (1, Code::Capacity));
    }

    #[test]
    fn switches_are_refused_by_name_and_range() {
        let of = |name: &str, value: u32| {
            let (mut found, mut refusals) = (Policies::default(), Vec::new());
            policies(&[(name.to_owned(), value)].into(), "policies", &mut found, &mut refusals);
            (found, refusals.first().map(ToString::to_string).unwrap_or_default())
        };
        let (found, refusal) = of("net.ipv4.vs.conn_reuse_mode", 3);
        assert_eq!((found.conn_reuse_mode, refusal.as_str()), (3, ""));
        assert_eq!(
            of("conn_reuse_mode", 4).1,
            "policies.conn_reuse_mode: expected 0 to 3, found 4; the default is 1"
        );
        assert!(
            of("am_droprate", 0).1.starts_with("policies.am_droprate: expected 1 to 4294967295, found 0")
        );
        assert!(of("sync_period", 4).1.starts_with("policies.sync_period: no policy is named"));
        assert_eq!(
            of("net.ipv4.vs.conntrack", 1).1,
            "policies.net.ipv4.vs.conntrack: the original's \"net.ipv4.vs.conntrack\" is no policy here; leave it out: FTP and source NAT work without it"
        );
    }

    #[test]
    fn a_rule_names_a_port_that_there_is() {
        let network = testing::network();
        let mut configuration = Configuration::default();
        let rule = |interface: &str| {
            let rule = v1::MarkRule { interface: interface.into(), ..asked() };
            mark(&rule, "", &mut Vec::new()).unwrap()
        };
        configuration.marks = vec![rule(""), rule("eth0"), rule("eth9")];
        let refusals = interfaces(&configuration, &network);
        assert_eq!(
            refusals.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "marks[2].interface: no port of the director is named \"eth9\"; choose one of eth0, or leave it out"
            ]
        );
    }
}
