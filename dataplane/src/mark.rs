//! Firewall marks: rules that say which packets belong together, since no iptables stands before the director.
//!
//! As with `iptables -t mangle -A PREROUTING ... -j MARK --set-mark`: every rule is looked at in order, and the last one
//! that fits a packet gives it its mark. 0 is no mark.

use crate::prefix::Prefix;
use std::{net::IpAddr, num::NonZeroU32, ops::RangeInclusive};

/// Which packets get a mark. What is `None` fits every packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Where they come from.
    pub source: Option<Prefix>,
    /// Where they go.
    pub destination: Option<Prefix>,
    /// Their destination ports; fits only protocols with ports.
    pub ports: Option<RangeInclusive<u16>>,
    /// The number of the port that they come in by.
    pub interface: Option<u16>,
    /// What they get.
    pub mark: NonZeroU32,
}

/// What rules ask of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// IP protocol number.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port; 0 without ports.
    pub port: u16,
    /// The number of the port that it came in by.
    pub interface: u16,
}

impl Rule {
    fn fits(&self, packet: &Packet) -> bool {
        self.protocol.is_none_or(|protocol| protocol == packet.protocol)
            && self.source.is_none_or(|source| source.contains(packet.source))
            && self.destination.is_none_or(|destination| destination.contains(packet.destination))
            && self.ports.as_ref().is_none_or(|ports| ports.contains(&packet.port))
            && self.interface.is_none_or(|interface| interface == packet.interface)
    }
}

/// All rules, in order.
#[derive(Clone, Debug, Default)]
pub struct Marks(Box<[Rule]>);

impl Marks {
    /// Of these rules.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self(rules.into_iter().collect())
    }

    /// Whether there is no rule.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mark of a packet; 0: none.
    pub fn of(&self, packet: &Packet) -> u32 {
        self.0.iter().rev().find(|rule| rule.fits(packet)).map_or(0, |rule| rule.mark.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(mark: u32) -> Rule {
        Rule {
            protocol: None,
            source: None,
            destination: None,
            ports: None,
            interface: None,
            mark: NonZeroU32::new(mark).unwrap(),
        }
    }

    #[test]
    fn the_last_rule_that_fits_in_every_field_gives_the_mark() {
        let vip = Prefix::host([10, 0, 0, 100].into());
        let marks = Marks::new([
            Rule { protocol: Some(6), destination: Some(vip), ports: Some(80..=80), ..rule(10) },
            Rule { protocol: Some(6), destination: Some(vip), ports: Some(443..=445), ..rule(11) },
            Rule { source: Some(Prefix::new([10, 9, 0, 0].into(), 16)), interface: Some(1), ..rule(12) },
        ]);
        let packet = Packet {
            protocol: 6,
            source: [10, 0, 0, 2].into(),
            destination: [10, 0, 0, 100].into(),
            port: 80,
            interface: 0,
        };
        assert_eq!(marks.of(&packet), 10);
        assert_eq!(marks.of(&Packet { port: 444, ..packet }), 11);
        assert_eq!(marks.of(&Packet { port: 446, ..packet }), 0);
        assert_eq!(marks.of(&Packet { protocol: 17, ..packet }), 0);
        assert_eq!(marks.of(&Packet { destination: [10, 0, 0, 101].into(), ..packet }), 0);
        let from = Packet { source: [10, 9, 3, 4].into(), ..packet };
        assert_eq!((marks.of(&from), marks.of(&Packet { interface: 1, ..from })), (10, 12));
        assert_eq!(Marks::default().of(&packet), 0);
    }
}
