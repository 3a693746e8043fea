//! The options of ipvsadm, and which of them each command takes.

use super::error::UsageError;
use super::popt::{Spec, Takes};

/// A command: the first option of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    AddService,
    EditService,
    DeleteService,
    Flush,
    List,
    AddServer,
    DeleteServer,
    EditServer,
    Set,
    StartDaemon,
    StopDaemon,
    Restore,
    Save,
    Zero,
    Help,
    Version,
}

impl Verb {
    /// As error messages name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AddService => "add-service",
            Self::EditService => "edit-service",
            Self::DeleteService => "delete-service",
            Self::Flush => "flush",
            Self::List => "list",
            Self::AddServer => "add-server",
            Self::DeleteServer => "delete-server",
            Self::EditServer => "edit-server",
            Self::Set => "set",
            Self::StartDaemon => "start-daemon",
            Self::StopDaemon => "stop-daemon",
            Self::Restore => "restore",
            Self::Save => "save",
            Self::Zero => "zero",
            Self::Help => "help",
            Self::Version => "version",
        }
    }
}

/// What an option means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Verb(Verb),
    Tcp,
    Udp,
    Sctp,
    Mark,
    Ipv6,
    Direct,
    Tunnel,
    Masquerade,
    /// Accepted, and does nothing: lists are sorted anyway.
    Sort,
    /// Everything else is the option of its name.
    Plain(Name),
}

/// The options as error messages name them, in the order in which they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Name {
    Numeric,
    Connection,
    Service,
    Scheduler,
    Persistent,
    Netmask,
    RealServer,
    ForwardingMethod,
    Weight,
    UpperThreshold,
    LowerThreshold,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    Nosort,
    SyncId,
    Exact,
    Ops,
    Engine,
    SchedFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxlen,
    TunInfo,
    TunType,
    TunPort,
    TunNocsum,
    TunCsum,
    TunRemcsum,
}

const NAMES: [(Name, &str); 34] = {
    use Name::*;
    [
        (Numeric, "numeric"),
        (Connection, "connection"),
        (Service, "service-address"),
        (Scheduler, "scheduler"),
        (Persistent, "persistent"),
        (Netmask, "netmask"),
        (RealServer, "real-server"),
        (ForwardingMethod, "forwarding-method"),
        (Weight, "weight"),
        (UpperThreshold, "u-threshold"),
        (LowerThreshold, "l-threshold"),
        (McastInterface, "mcast-interface"),
        (Timeout, "timeout"),
        (Daemon, "daemon"),
        (Stats, "stats"),
        (Rate, "rate"),
        (Thresholds, "thresholds"),
        (PersistentConn, "persistent-conn"),
        (Nosort, "nosort"),
        (SyncId, "syncid"),
        (Exact, "exact"),
        (Ops, "ops"),
        (Engine, "pe"),
        (SchedFlags, "sched-flags"),
        (McastGroup, "mcast-group"),
        (McastPort, "mcast-port"),
        (McastTtl, "mcast-ttl"),
        (SyncMaxlen, "sync-maxlen"),
        (TunInfo, "tun-info"),
        (TunType, "tun-type"),
        (TunPort, "tun-port"),
        (TunNocsum, "tun-nocsum"),
        (TunCsum, "tun-csum"),
        (TunRemcsum, "tun-remcsum"),
    ]
};

impl Name {
    /// As error messages have it.
    pub(super) fn text(self) -> &'static str {
        NAMES[self as usize].1
    }
}

const fn spec(long: &'static str, short: Option<char>, takes: Takes, id: Word) -> Spec<Word> {
    Spec { long, short, takes, id }
}

/// Every option. A name that is there twice has two short forms.
pub(super) static SPECS: [Spec<Word>; 58] = {
    use Takes::{Nothing, Optional, Value};
    use Word::{Plain, Verb as V};
    [
        spec("add-service", Some('A'), Nothing, V(Verb::AddService)),
        spec("edit-service", Some('E'), Nothing, V(Verb::EditService)),
        spec("delete-service", Some('D'), Nothing, V(Verb::DeleteService)),
        spec("clear", Some('C'), Nothing, V(Verb::Flush)),
        spec("list", Some('L'), Nothing, V(Verb::List)),
        spec("list", Some('l'), Nothing, V(Verb::List)),
        spec("zero", Some('Z'), Nothing, V(Verb::Zero)),
        spec("add-server", Some('a'), Nothing, V(Verb::AddServer)),
        spec("edit-server", Some('e'), Nothing, V(Verb::EditServer)),
        spec("delete-server", Some('d'), Nothing, V(Verb::DeleteServer)),
        spec("set", None, Nothing, V(Verb::Set)),
        spec("start-daemon", None, Value, V(Verb::StartDaemon)),
        spec("stop-daemon", None, Value, V(Verb::StopDaemon)),
        spec("restore", Some('R'), Nothing, V(Verb::Restore)),
        spec("save", Some('S'), Nothing, V(Verb::Save)),
        spec("help", Some('h'), Nothing, V(Verb::Help)),
        spec("version", Some('v'), Nothing, V(Verb::Version)),
        spec("tcp-service", Some('t'), Value, Word::Tcp),
        spec("udp-service", Some('u'), Value, Word::Udp),
        spec("sctp-service", None, Value, Word::Sctp),
        spec("fwmark-service", Some('f'), Value, Word::Mark),
        spec("ipv6", Some('6'), Nothing, Word::Ipv6),
        spec("scheduler", Some('s'), Value, Plain(Name::Scheduler)),
        spec("persistent", Some('p'), Optional, Plain(Name::Persistent)),
        spec("netmask", Some('M'), Value, Plain(Name::Netmask)),
        spec("real-server", Some('r'), Value, Plain(Name::RealServer)),
        spec("masquerading", Some('m'), Nothing, Word::Masquerade),
        spec("ipip", Some('i'), Nothing, Word::Tunnel),
        spec("gatewaying", Some('g'), Nothing, Word::Direct),
        spec("weight", Some('w'), Value, Plain(Name::Weight)),
        spec("u-threshold", Some('x'), Value, Plain(Name::UpperThreshold)),
        spec("l-threshold", Some('y'), Value, Plain(Name::LowerThreshold)),
        spec("numeric", Some('n'), Nothing, Plain(Name::Numeric)),
        spec("connection", Some('c'), Nothing, Plain(Name::Connection)),
        spec("mcast-interface", None, Value, Plain(Name::McastInterface)),
        spec("timeout", None, Nothing, Plain(Name::Timeout)),
        spec("daemon", None, Nothing, Plain(Name::Daemon)),
        spec("stats", None, Nothing, Plain(Name::Stats)),
        spec("rate", None, Nothing, Plain(Name::Rate)),
        spec("thresholds", None, Nothing, Plain(Name::Thresholds)),
        spec("persistent-conn", None, Nothing, Plain(Name::PersistentConn)),
        spec("nosort", None, Nothing, Plain(Name::Nosort)),
        spec("sort", None, Nothing, Word::Sort),
        spec("syncid", None, Value, Plain(Name::SyncId)),
        spec("exact", Some('X'), Nothing, Plain(Name::Exact)),
        spec("ops", Some('o'), Nothing, Plain(Name::Ops)),
        spec("pe", None, Value, Plain(Name::Engine)),
        spec("sched-flags", Some('b'), Value, Plain(Name::SchedFlags)),
        spec("mcast-group", None, Value, Plain(Name::McastGroup)),
        spec("mcast-port", None, Value, Plain(Name::McastPort)),
        spec("mcast-ttl", None, Value, Plain(Name::McastTtl)),
        spec("sync-maxlen", None, Value, Plain(Name::SyncMaxlen)),
        spec("tun-info", None, Nothing, Plain(Name::TunInfo)),
        spec("tun-type", None, Value, Plain(Name::TunType)),
        spec("tun-port", None, Value, Plain(Name::TunPort)),
        spec("tun-nocsum", None, Nothing, Plain(Name::TunNocsum)),
        spec("tun-csum", None, Nothing, Plain(Name::TunCsum)),
        spec("tun-remcsum", None, Nothing, Plain(Name::TunRemcsum)),
    ]
};

/// The options that were given, each at most once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(u64);

impl Set {
    /// Adds an option. Refused: it is there already.
    pub(super) fn add(&mut self, name: Name) -> Result<(), UsageError> {
        if self.has(name) {
            return Err(UsageError::usage(format!("multiple '{}' options specified", name.text())));
        }
        self.0 |= 1 << name as u8;
        Ok(())
    }

    pub(super) fn has(self, name: Name) -> bool {
        self.0 & (1 << name as u8) != 0
    }

    pub(super) fn has_any(self, names: &[Name]) -> bool {
        names.iter().any(|name| self.has(*name))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    Forbidden,
    Allowed,
    Required,
    /// Allowed, but only one of them.
    Exclusive,
}

fn rule(verb: Verb, name: Name) -> Rule {
    use Name::*;
    match (verb, name) {
        (Verb::AddService | Verb::EditService | Verb::DeleteService, Service) => Rule::Required,
        (Verb::AddServer | Verb::EditServer | Verb::DeleteServer, Service | RealServer) => Rule::Required,
        (
            Verb::AddService | Verb::EditService,
            Scheduler | Persistent | Netmask | Ops | Engine | SchedFlags,
        )
        | (
            Verb::AddServer | Verb::EditServer,
            ForwardingMethod | Weight | UpperThreshold | LowerThreshold | TunType | TunPort | TunNocsum
            | TunCsum | TunRemcsum,
        )
        | (
            Verb::List,
            Numeric | Stats | Rate | Thresholds | PersistentConn | Nosort | SyncId | Exact | TunInfo,
        )
        | (Verb::StartDaemon, McastInterface | SyncId | McastGroup | McastPort | McastTtl | SyncMaxlen)
        | (Verb::StopDaemon, SyncId)
        | (Verb::Save, Numeric)
        | (Verb::Zero, Service) => Rule::Allowed,
        (Verb::List, Connection | Service | Timeout | Daemon) => Rule::Exclusive,
        _ => Rule::Forbidden,
    }
}

/// Whether a command may be given with these options, and has all it needs.
pub(super) fn check(verb: Verb, given: Set) -> Result<(), UsageError> {
    let mut exclusive: Option<Name> = None;
    for (name, text) in NAMES {
        let fault = match (rule(verb, name), given.has(name)) {
            (Rule::Required, false) => {
                format!("You need to supply the '{text}' option for the '{}' command", verb.name())
            }
            (Rule::Forbidden, true) => format!("Illegal '{text}' option with the '{}' command", verb.name()),
            (Rule::Exclusive, true) => match exclusive.replace(name) {
                Some(other) => format!(
                    "The option '{text}' conflicts with the '{}' option in the '{}' command",
                    other.text(),
                    verb.name()
                ),
                None => continue,
            },
            _ => continue,
        };
        return Err(UsageError::usage(fault));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_at_its_own_place() {
        for (place, (name, _)) in NAMES.iter().enumerate() {
            assert_eq!(*name as usize, place, "{name:?}");
        }
    }

    #[test]
    fn no_short_form_is_there_twice() {
        for (place, spec) in SPECS.iter().enumerate() {
            let again =
                SPECS[place + 1..].iter().find(|other| other.short.is_some() && other.short == spec.short);
            assert!(again.is_none(), "{spec:?}");
        }
    }
}
