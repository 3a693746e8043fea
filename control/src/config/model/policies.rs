//! The switches of the original by name, as `sysctl net.ipv4.vs.*` has them.

use pointsman_dataplane::{
    policy::{Defence, Policies},
    routing::Forwarding,
};
use std::ops::RangeInclusive;

/// One of them.
#[derive(Debug)]
pub struct Switch {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What it can be; 0 to 1: false and true.
    pub range: RangeInclusive<u32>,
    get: fn(&Policies) -> u32,
    put: fn(&mut Policies, u32),
}

/// Without what `sysctl` writes before it.
fn short(name: &str) -> &str {
    let short = name.strip_prefix("net.ipv4.vs.").or_else(|| name.strip_prefix("net/ipv4/vs/"));
    short.unwrap_or(name)
}

impl Switch {
    /// The one of a name, with or without what `sysctl` writes before it.
    pub fn find(name: &str) -> Option<&'static Self> {
        let name = short(name);
        SWITCHES.iter().find(|switch| switch.name == name)
    }

    /// Why a switch of the original is not there, if it is one.
    pub fn why_not(name: &str) -> Option<&'static str> {
        let name = short(name);
        WITHOUT.iter().find(|(without, _)| *without == name).map(|(_, why)| *why)
    }

    /// Whether it is false or true.
    pub fn is_boolean(&self) -> bool {
        self.range == (0..=1)
    }

    /// Its value.
    pub fn of(&self, policies: &Policies) -> u32 {
        (self.get)(policies)
    }

    /// Gives it a value in its range.
    pub fn set(&self, policies: &mut Policies, value: u32) {
        (self.put)(policies, value.clamp(*self.range.start(), *self.range.end()));
    }
}

macro_rules! boolean {
    ($field:ident, $about:literal) => {
        Switch {
            name: stringify!($field),
            about: $about,
            range: 0..=1,
            get: |policies| policies.$field.into(),
            put: |policies, value| policies.$field = value != 0,
        }
    };
}

macro_rules! defence {
    ($field:ident, $about:literal) => {
        Switch {
            name: stringify!($field),
            about: $about,
            range: 0..=3,
            get: |policies| policies.$field.number().into(),
            put: |policies, value| {
                policies.$field = Defence::from_number(value as u8).unwrap_or_default();
            },
        }
    };
}

macro_rules! number {
    ($field:ident, $range:expr, $about:literal) => {
        Switch {
            name: stringify!($field),
            about: $about,
            range: $range,
            get: |policies| policies.$field.into(),
            put: |policies, value| policies.$field = value as _,
        }
    };
}

/// All of them.
pub static SWITCHES: [Switch; 15] = [
    boolean!(expire_nodest_conn, "connections of a removed server end, instead of vanishing"),
    boolean!(expire_quiescent_template, "persistent clients leave a server that is quiesced"),
    number!(
        conn_reuse_mode,
        0..=3,
        "1: a SYN of a connection that is closing begins a new one; 2: also in FIN_WAIT; 3: both; 0: never"
    ),
    boolean!(sloppy_tcp, "any TCP segment without RST may open a connection"),
    boolean!(sloppy_sctp, "any SCTP packet but ABORT may open a connection"),
    defence!(
        drop_entry,
        "ends half-open connections at random: 0 never, 1 and 2 when room is short, 3 always"
    ),
    defence!(
        drop_packet,
        "drops one of am_droprate new clients: 0 never, 1 and 2 when room is short, 3 always"
    ),
    defence!(
        secure_tcp,
        "TCP states that tell a flood from clients: 0 never, 1 and 2 when room is short, 3 always"
    ),
    number!(am_droprate, 1..=u32::MAX, "see drop_packet"),
    number!(
        amemthresh,
        0..=u32::MAX,
        "places of a worker's table below which room is short; 0: one in sixteen"
    ),
    boolean!(
        nat_icmp_send,
        "what a NATed server sends without a connection is answered with port unreachable"
    ),
    boolean!(pmtu_disc, "a tunnel keeps the \"don't fragment\" of what it carries"),
    boolean!(
        schedule_icmp,
        "an ICMP error about a flow that is not known is scheduled as that flow would be"
    ),
    boolean!(ignore_tunneled, "packets that arrive in IP in IP are not looked into"),
    boolean!(clamp_mss, "SYNs into a tunnel ask for segments that fit into it; not the original's"),
];

/// Switches of the original that there are not, and why nobody need set them.
pub const WITHOUT: [(&str, &str); 18] = [
    ("conntrack", "FTP and source NAT work without it"),
    ("snat_reroute", "answers always take the route to their client"),
    ("cache_bypass", "a client that no server takes hears port unreachable"),
    ("run_estimation", "rates are always estimated"),
    ("est_cpulist", "rates are estimated off the workers' cores"),
    ("est_nice", "rates are estimated off the workers' cores"),
    ("debug_level", "the environment's RUST_LOG says what pointsmand logs"),
    ("lblc_expiration", "it is the original's default of 24 hours"),
    ("lblcr_expiration", "it is the original's default of 24 hours"),
    ("backup_only", SYNC),
    ("sync_version", SYNC),
    ("sync_ports", SYNC),
    ("sync_threshold", SYNC),
    ("sync_refresh_period", SYNC),
    ("sync_retries", SYNC),
    ("sync_persist_mode", SYNC),
    ("sync_qlen_max", SYNC),
    ("sync_sock_size", SYNC),
];

const SYNC: &str = "connections are not synchronised yet";

/// How configurations name which packets are forwarded that no service takes.
pub const FORWARDING: [(&str, Forwarding); 3] =
    [("servers", Forwarding::Servers), ("all", Forwarding::All), ("off", Forwarding::Off)];

/// The name of one of them.
pub fn forwarding_name(forwarding: Forwarding) -> &'static str {
    FORWARDING.iter().find(|(_, known)| *known == forwarding).map_or("", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_switch_has_the_default_of_the_original_and_keeps_what_it_is_set_to() {
        let defaults: Vec<u32> = SWITCHES.iter().map(|switch| switch.of(&Policies::default())).collect();
        assert_eq!(defaults, [0, 0, 1, 0, 0, 0, 0, 0, 10, 0, 0, 1, 0, 0, 0]);
        let mut policies = Policies::default();
        for switch in &SWITCHES {
            for value in [*switch.range.start(), *switch.range.end()] {
                switch.set(&mut policies, value);
                assert_eq!(switch.of(&policies), value, "{}", switch.name);
            }
        }
        for switch in &SWITCHES {
            assert_eq!(switch.of(&policies), *switch.range.end(), "{} is no other's", switch.name);
        }
    }

    #[test]
    fn a_switch_is_found_by_the_name_that_sysctl_writes() {
        for name in ["sloppy_tcp", "net.ipv4.vs.sloppy_tcp", "net/ipv4/vs/sloppy_tcp"] {
            assert_eq!(Switch::find(name).map(|switch| switch.name), Some("sloppy_tcp"));
        }
        assert!(Switch::find("net.ipv4.sloppy_tcp").is_none());
    }
}
