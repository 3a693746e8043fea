//! What iptables is asked for beside the originals: firewall marks and source NAT.

use super::Protocol;
use pointsman_dataplane::prefix::Prefix;
use std::{
    fmt,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
};

/// The most rules of each kind: packets are held against them one after the other.
pub const MAX_RULES: usize = 256;

/// Which packets get a firewall mark. What is `None` fits every packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRule {
    /// Their protocol.
    pub protocol: Option<Protocol>,
    /// Where they come from.
    pub source: Option<Prefix>,
    /// Where they go: a single address is up like that of a service.
    pub destination: Option<Prefix>,
    /// The first and the last of their destination ports, in order.
    pub ports: Option<(NonZeroU16, NonZeroU16)>,
    /// The name of the port that they come in by.
    pub interface: Option<String>,
    /// What they get.
    pub mark: NonZeroU32,
}

/// Which packets leave from another address than their sender's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceNat {
    /// Whose.
    pub source: Prefix,
    /// The name of the port that they leave by; `None`: any.
    pub interface: Option<String>,
    /// The address that they leave from, of the same family; it is up like that of a service.
    pub to: IpAddr,
}

/// A network as it is written: an address alone if it is of one.
pub fn written(network: &Prefix) -> String {
    network.single().map_or_else(|| network.to_string(), |address| address.to_string())
}

impl fmt::Display for MarkRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mark {}: {}", self.mark, self.protocol.map_or("every protocol", Protocol::name))?;
        if let Some(source) = &self.source {
            write!(f, " from {}", written(source))?;
        }
        if let Some(destination) = &self.destination {
            write!(f, " to {}", written(destination))?;
        }
        match self.ports {
            Some((first, last)) if first == last => write!(f, " port {first}")?,
            Some((first, last)) => write!(f, " port {first}-{last}")?,
            None => {}
        }
        self.interface.iter().try_for_each(|interface| write!(f, " by {interface}"))
    }
}

impl fmt::Display for SourceNat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "source NAT of {}", written(&self.source))?;
        self.interface.iter().try_for_each(|interface| write!(f, " by {interface}"))?;
        write!(f, " to {}", self.to)
    }
}
