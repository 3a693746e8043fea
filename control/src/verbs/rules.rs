//! Rules of marks and source NAT, and the switches.

use super::first;
use crate::{
    config::{
        model::{Configuration, rules::MAX_RULES},
        validate,
    },
    refusal::{Code, Refusal},
};
use pointsman_proto::v1;

/// A rule comes after those there are.
pub fn add_mark(config: &mut Configuration, asked: &v1::MarkRule) -> Result<(), Refusal> {
    let rule = first(|refusals| validate::mark(asked, "rule", refusals))?;
    add(&mut config.marks, rule)
}

/// The rule that is exactly this one.
pub fn delete_mark(config: &mut Configuration, asked: &v1::MarkRule) -> Result<(), Refusal> {
    let rule = first(|refusals| validate::mark(asked, "rule", refusals))?;
    delete(&mut config.marks, &rule, "`pointsman mark list` lists those there are")
}

/// A rule comes after those there are.
pub fn add_source_nat(config: &mut Configuration, asked: &v1::SourceNat) -> Result<(), Refusal> {
    let rule = first(|refusals| validate::source_nat(asked, "rule", refusals))?;
    add(&mut config.source_nat, rule)
}

/// The rule that is exactly this one.
pub fn delete_source_nat(config: &mut Configuration, asked: &v1::SourceNat) -> Result<(), Refusal> {
    let rule = first(|refusals| validate::source_nat(asked, "rule", refusals))?;
    delete(&mut config.source_nat, &rule, "`pointsman source-nat list` lists those there are")
}

/// Sets the switches that are named, all or none.
pub fn set_policies(config: &mut Configuration, asked: &v1::SetPoliciesRequest) -> Result<(), Refusal> {
    let (mut policies, mut forwarding) = (config.policies, config.forwarding);
    first(|refusals| {
        validate::policies(&asked.policies, "policies", &mut policies, refusals);
        if !asked.forward.is_empty() {
            forwarding = validate::forwarding(&asked.forward, "forward", refusals)?;
        }
        Some(())
    })?;
    (config.policies, config.forwarding) = (policies, forwarding);
    Ok(())
}

fn add<Rule: PartialEq + ToString>(rules: &mut Vec<Rule>, rule: Rule) -> Result<(), Refusal> {
    if rules.contains(&rule) {
        let reason = format!("the rule \"{}\" is there already", rule.to_string());
        return Err(Refusal::new(Code::RuleExists, "rule", reason, "nothing is left to do"));
    }
    if rules.len() >= MAX_RULES {
        return Err(super::capacity("rule", "such rules", MAX_RULES));
    }
    rules.push(rule);
    Ok(())
}

fn delete<Rule: PartialEq + ToString>(
    rules: &mut Vec<Rule>,
    rule: &Rule,
    remedy: &str,
) -> Result<(), Refusal> {
    let Some(place) = rules.iter().position(|known| known == rule) else {
        let reason = format!("there is no rule \"{}\"", rule.to_string());
        return Err(Refusal::new(Code::NoSuchRule, "rule", reason, remedy));
    };
    rules.remove(place);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<(), Refusal>) -> Code {
        result.unwrap_err().code
    }

    #[test]
    fn rules_are_added_at_the_end_and_deleted_by_all_that_they_say() {
        let mut config = Configuration::default();
        let web = v1::MarkRule {
            protocol: v1::Protocol::Tcp.into(),
            destination: "10.0.0.100".into(),
            port: Some(80),
            mark: 10,
            ..Default::default()
        };
        let secure = v1::MarkRule { port: Some(443), ..web.clone() };
        add_mark(&mut config, &web).unwrap();
        add_mark(&mut config, &secure).unwrap();
        assert_eq!(code(add_mark(&mut config, &web)), Code::RuleExists);
        assert_eq!(
            config.marks.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["mark 10: tcp to 10.0.0.100 port 80", "mark 10: tcp to 10.0.0.100 port 443"]
        );
        assert_eq!(config.addresses_up(), [[10, 0, 0, 100].into()].into());
        let other = v1::MarkRule { mark: 11, ..web.clone() };
        assert_eq!(code(delete_mark(&mut config, &other)), Code::NoSuchRule);
        // The same in other words.
        let same = v1::MarkRule { destination: "10.0.0.100/32".into(), last_port: Some(80), ..web };
        delete_mark(&mut config, &same).unwrap();
        delete_mark(&mut config, &secure).unwrap();
        assert!(config.addresses_up().is_empty());
        let most = (1..=256).map(|mark| v1::MarkRule { mark, ..secure.clone() });
        most.for_each(|rule| add_mark(&mut config, &rule).unwrap());
        assert_eq!(code(add_mark(&mut config, &v1::MarkRule { mark: 257, ..secure })), Code::Capacity);
    }

    #[test]
    fn the_address_of_source_nat_is_up_for_as_long_as_the_rule_is_there() {
        let mut config = Configuration::default();
        let rule = v1::SourceNat {
            source: "10.10.10.7/24".into(),
            interface: "eth0".into(),
            to: "20.20.20.11".into(),
        };
        add_source_nat(&mut config, &rule).unwrap();
        assert_eq!(config.source_nat[0].to_string(), "source NAT of 10.10.10.0/24 by eth0 to 20.20.20.11");
        assert_eq!(config.addresses_up(), [[20, 20, 20, 11].into()].into());
        let refusal = super::super::delete_virtual_address(&mut config, "20.20.20.11").unwrap_err();
        assert_eq!(refusal.reason, "20.20.20.11 is up because of a service, a mark or source NAT");
        delete_source_nat(&mut config, &rule).unwrap();
        assert_eq!(code(delete_source_nat(&mut config, &rule)), Code::NoSuchRule);
        assert!(config.addresses_up().is_empty());
    }

    #[test]
    fn switches_are_set_all_or_none() {
        let mut config = Configuration::default();
        let asked = |policies: &[(&str, u32)], forward: &str| v1::SetPoliciesRequest {
            policies: policies.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            forward: forward.into(),
        };
        set_policies(&mut config, &asked(&[("net.ipv4.vs.sloppy_tcp", 1), ("conn_reuse_mode", 0)], ""))
            .unwrap();
        assert_eq!((config.policies.sloppy_tcp, config.policies.conn_reuse_mode), (true, 0));
        let wrong = asked(&[("sloppy_sctp", 1), ("sloppy_tcp", 2)], "all");
        assert_eq!(code(set_policies(&mut config, &wrong)), Code::Invalid);
        assert_eq!(code(set_policies(&mut config, &asked(&[("sloppy_sctp", 1)], "some"))), Code::Invalid);
        assert!(!config.policies.sloppy_sctp);
        set_policies(&mut config, &asked(&[], "all")).unwrap();
        assert_eq!(config.forwarding, pointsman_dataplane::routing::Forwarding::All);
        assert!(config.policies.sloppy_tcp);
    }
}
