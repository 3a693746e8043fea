//! A command line in, a [`Command`] out, or what is wrong with it. Pure: names are looked up by an argument.
//!
//! Options take effect in the order in which they stand, so that the first mistake is the one reported. Two things
//! are better than in the original: a mask or a server may stand before the service that it belongs to, and a mask
//! with holes is refused.

use pointsman_proto::v1::{ForwardingMethod, Protocol, Server, Service, Timeouts, Tunnel, tunnel};

use super::address::{Target, host_port, mask_length, number};
use super::command::{Columns, Command, Format, Listing};
use super::error::UsageError;
use super::flags::{self, FlagError};
use super::names::Names;
use super::options::{Name, SPECS, Set, Verb, Word, check};
use super::popt::{Given, Options};

/// Seconds; 31 days.
const TIMEOUT_MAX: i64 = 31 * 86400;
/// Seconds of `-p` without a value.
const PERSISTENCE_DEFAULT: u32 = 360;
/// Letters of a scheduler's or engine's name that count.
const NAME_MAX: usize = 15;
/// Weights and thresholds are C `int`s in the original.
const INT_MAX: i64 = i32::MAX as i64;

/// Reads a command line, without the program's name. No arguments list everything.
pub fn parse(args: &[String], names: &dyn Names) -> Result<Command, UsageError> {
    if args.is_empty() {
        return Ok(Command::List(Listing::Services, Format::default()));
    }
    let mut options = Options::new(&SPECS, args);
    let (verb, value) = match options.next() {
        Ok(Some(Given { id: Word::Verb(verb), value, .. })) => (verb, value.unwrap_or_default()),
        _ => return Err(UsageError::try_help()),
    };
    let mut draft = Draft::new(verb, names);
    match verb {
        Verb::Help => return Ok(Command::Help),
        Verb::Version => return Ok(Command::Version),
        Verb::StartDaemon => daemon_role(&value, "illegal start-daemon parameter specified")?,
        Verb::StopDaemon => daemon_role(&value, "illegal start_daemon specified")?,
        _ => {}
    }
    loop {
        match options.next() {
            Ok(Some(given)) => draft.take(given)?,
            Ok(None) => break,
            Err(mistake) => return Err(UsageError::parser(&mistake.typed, mistake.what)),
        }
    }
    let mut leftover = options.into_leftover().into_iter();
    if verb == Verb::Set {
        draft.timeouts = Some(timeouts(&mut leftover)?);
    }
    if let Some(argument) = leftover.next() {
        return Err(UsageError::usage(format!("unexpected argument {argument}")));
    }
    check(verb, draft.given)?;
    draft.finish()
}

fn daemon_role(value: &str, refusal: &str) -> Result<(), UsageError> {
    if matches!(value, "master" | "backup") { Ok(()) } else { Err(UsageError::usage(refusal)) }
}

fn timeout(text: &str, least: i64) -> Result<u32, UsageError> {
    number(text, least, TIMEOUT_MAX)
        .ok_or_else(|| UsageError::usage(format!("invalid timeout value `{text}' specified")))
}

fn timeouts(arguments: &mut impl Iterator<Item = String>) -> Result<Timeouts, UsageError> {
    let (Some(tcp), Some(fin), Some(udp)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err(UsageError::usage("--set option requires 3 timeout values"));
    };
    Ok(Timeouts {
        tcp_seconds: timeout(&tcp, 0)?,
        tcp_fin_seconds: timeout(&fin, 0)?,
        udp_seconds: timeout(&udp, 0)?,
    })
}

/// What has been read so far.
struct Draft<'a> {
    verb: Verb,
    names: &'a dyn Names,
    given: Set,
    target: Option<Target>,
    scheduler: String,
    scheduler_flags: String,
    persistence: u32,
    mask: Option<String>,
    engine: String,
    real: Option<(std::net::IpAddr, Option<u16>)>,
    method: ForwardingMethod,
    weight: u32,
    upper_threshold: u32,
    lower_threshold: u32,
    tunnel_kind: tunnel::Kind,
    tunnel_port: u32,
    timeouts: Option<Timeouts>,
}

impl<'a> Draft<'a> {
    fn new(verb: Verb, names: &'a dyn Names) -> Self {
        Self {
            verb,
            names,
            given: Set::default(),
            target: None,
            scheduler: String::new(),
            scheduler_flags: String::new(),
            persistence: 0,
            mask: None,
            engine: String::new(),
            real: None,
            method: ForwardingMethod::Direct,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel_kind: tunnel::Kind::Ipip,
            tunnel_port: 0,
            timeouts: None,
        }
    }

    fn take(&mut self, given: Given<Word>) -> Result<(), UsageError> {
        let value = given.value.as_deref();
        let text = value.unwrap_or_default();
        match given.id {
            Word::Verb(_) => Err(UsageError::usage(format!("invalid option `{}'", given.typed))),
            Word::Tcp => self.take_service(Protocol::Tcp, text),
            Word::Udp => self.take_service(Protocol::Udp, text),
            Word::Sctp => self.take_service(Protocol::Sctp, text),
            Word::Mark => self.take_mark(text),
            Word::Ipv6 => match &mut self.target {
                Some(Target::Mark { ipv6, .. }) => {
                    *ipv6 = true;
                    Ok(())
                }
                _ => Err(UsageError::usage("-6 used before -f")),
            },
            Word::Direct => self.take_method(ForwardingMethod::Direct),
            Word::Tunnel => self.take_method(ForwardingMethod::Tunnel),
            Word::Masquerade => self.take_method(ForwardingMethod::Nat),
            Word::Sort => Ok(()),
            Word::Plain(name) => {
                self.given.add(name)?;
                self.take_plain(name, value)
            }
        }
    }

    fn take_service(&mut self, protocol: Protocol, text: &str) -> Result<(), UsageError> {
        self.given.add(Name::Service)?;
        let (address, port) = host_port(text, protocol, self.names)
            .ok_or_else(|| UsageError::usage("illegal virtual server address[:port] specified"))?;
        self.target = Some(Target::Address { protocol, address, port: port.unwrap_or(0) });
        Ok(())
    }

    fn take_mark(&mut self, text: &str) -> Result<(), UsageError> {
        self.given.add(Name::Service)?;
        let mark = number(text, 1, u32::MAX.into())
            .ok_or_else(|| UsageError::usage(format!("invalid fwmark value `{text}' specified")))?;
        self.target = Some(Target::Mark { mark, ipv6: false });
        Ok(())
    }

    fn take_method(&mut self, method: ForwardingMethod) -> Result<(), UsageError> {
        self.given.add(Name::ForwardingMethod)?;
        self.method = method;
        Ok(())
    }

    fn take_plain(&mut self, name: Name, value: Option<&str>) -> Result<(), UsageError> {
        let text = value.unwrap_or_default();
        let in_range =
            |least, most, refusal: &str| number(text, least, most).ok_or_else(|| UsageError::usage(refusal));
        match name {
            Name::Scheduler => self.scheduler = text.chars().take(NAME_MAX).collect(),
            Name::SchedFlags => self.scheduler_flags = text.to_owned(),
            Name::Engine => self.engine = text.chars().take(NAME_MAX).collect(),
            Name::Persistent => {
                self.persistence = value.map_or(Ok(PERSISTENCE_DEFAULT), |text| timeout(text, 1))?;
            }
            Name::Netmask => {
                if let Some(target) = self.target {
                    prefix(target, text)?;
                }
                self.mask = Some(text.to_owned());
            }
            Name::RealServer => {
                let protocol = match self.target {
                    Some(Target::Address { protocol, .. }) => protocol,
                    _ => Protocol::Unspecified,
                };
                let real = host_port(text, protocol, self.names);
                let refusal = "illegal real server address[:port] specified";
                self.real = Some(real.ok_or_else(|| UsageError::usage(refusal))?);
            }
            Name::Weight => self.weight = in_range(0, INT_MAX, "illegal weight specified")?,
            Name::UpperThreshold => {
                self.upper_threshold = in_range(0, INT_MAX, "illegal u_threshold specified")?;
            }
            Name::LowerThreshold => {
                self.lower_threshold = in_range(0, INT_MAX, "illegal l_threshold specified")?;
            }
            Name::SyncId => drop(in_range(0, 255, "illegal syncid specified")?),
            Name::McastPort => drop(in_range(1, 65535, "illegal mcast-port specified")?),
            Name::McastTtl => drop(in_range(1, 255, "illegal mcast-ttl specified")?),
            Name::SyncMaxlen => drop(in_range(1, 65507, "illegal sync-maxlen specified")?),
            Name::McastGroup => multicast_group(text)?,
            Name::TunType => self.tunnel_kind = tunnel_kind(text)?,
            Name::TunPort => self.tunnel_port = in_range(1, 65535, "illegal tunnel port specified")?,
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Command, UsageError> {
        // `check` has seen to it that a command which needs a service or a server has one.
        let target = self.target;
        let key = || target.map(Target::key).unwrap_or_default();
        Ok(match self.verb {
            Verb::Help => Command::Help,
            Verb::Version => Command::Version,
            Verb::AddService => Command::AddService(self.service()?),
            Verb::EditService => Command::EditService(self.service()?),
            Verb::DeleteService => Command::DeleteService(key()),
            Verb::Flush => Command::Clear,
            Verb::List => self.list()?,
            Verb::AddServer => Command::AddServer(key(), self.server()?),
            Verb::EditServer => Command::EditServer(key(), self.server()?),
            Verb::DeleteServer => {
                let server = self.server()?;
                let (_, port) = self.real_address();
                Command::DeleteServer(key(), server.address, port)
            }
            Verb::Set => Command::SetTimeouts(self.timeouts.unwrap_or_default()),
            Verb::StartDaemon => Command::StartDaemon,
            Verb::StopDaemon => Command::StopDaemon,
            Verb::Restore => Command::Restore,
            Verb::Save => {
                Command::Save(Format { numeric: self.given.has(Name::Numeric), ..Format::default() })
            }
            Verb::Zero => Command::Zero(target.map(Target::key)),
        })
    }

    fn service(&self) -> Result<Service, UsageError> {
        let one_packet = self.given.has(Name::Ops);
        if let Some(Target::Address { protocol, port, .. }) = self.target {
            if port == 0 && self.persistence == 0 {
                return Err(UsageError::usage("Zero port specified for non-persistent service"));
            }
            if one_packet && protocol != Protocol::Udp {
                return Err(UsageError::usage("One-Packet Scheduling is only for UDP virtual services"));
            }
        }
        let scheduler = if self.scheduler.is_empty() { "wlc".to_owned() } else { self.scheduler.clone() };
        let scheduler_flags = flags::parse(&scheduler, &self.scheduler_flags).map_err(|error| {
            UsageError::usage(match error {
                FlagError::Incompatible(flag) => format!("incompatible scheduler flag `{flag}'"),
                FlagError::Invalid(flag) => format!("invalid scheduler flag `{flag}'"),
            })
        })?;
        let persistence_prefix = match (self.target, &self.mask) {
            (Some(target), Some(mask)) => prefix(target, mask)?.filter(|_| self.persistence > 0),
            _ => None,
        };
        Ok(Service {
            key: self.target.map(Target::key),
            scheduler,
            scheduler_flags,
            persistence_seconds: self.persistence,
            persistence_prefix,
            persistence_engine: self.engine.clone(),
            one_packet,
            ..Service::default()
        })
    }

    /// The server's address and port. The port is the service's if none was typed.
    fn real_address(&self) -> (std::net::IpAddr, u16) {
        let service_port = self.target.map_or(0, Target::port);
        match self.real {
            Some((address, port)) => (address, port.unwrap_or(service_port)),
            None => (std::net::Ipv4Addr::UNSPECIFIED.into(), service_port),
        }
    }

    fn server(&self) -> Result<Server, UsageError> {
        let (address, mut port) = self.real_address();
        let tunnelled = self.method == ForwardingMethod::Tunnel;
        if self.verb != Verb::DeleteServer {
            // Only NAT can change a port. A mark has no port to keep.
            if let (Some(Target::Address { port: of_service, .. }), true) =
                (self.target, self.method != ForwardingMethod::Nat)
            {
                port = of_service;
            }
            let same_family = self.target.is_none_or(|target| target.is_ipv6() == address.is_ipv6());
            if !same_family && !tunnelled {
                return Err(UsageError::usage(
                    "Different address family is allowed only for tunneling servers",
                ));
            }
        }
        Ok(Server {
            address: address.to_string(),
            port: port.into(),
            method: self.method.into(),
            weight: Some(self.weight),
            upper_threshold: self.upper_threshold,
            lower_threshold: self.lower_threshold,
            tunnel: self.tunnel()?,
        })
    }

    fn tunnel(&self) -> Result<Option<Tunnel>, UsageError> {
        use Name::{TunCsum, TunNocsum, TunPort, TunRemcsum, TunType};
        const CHECKSUMS: [Name; 3] = [TunNocsum, TunCsum, TunRemcsum];
        if self.method != ForwardingMethod::Tunnel {
            if self.given.has_any(&[TunType, TunPort, TunNocsum, TunCsum, TunRemcsum]) {
                return Err(UsageError::usage("Tunnel options conflict with forward method"));
            }
            return Ok(None);
        }
        let (kind, takes, needs_port): (&str, &[Name], bool) = match self.tunnel_kind {
            tunnel::Kind::Ipip => ("ipip", &[], false),
            tunnel::Kind::Gue => ("gue", &[TunPort, TunNocsum, TunCsum, TunRemcsum], true),
            tunnel::Kind::Gre => ("gre", &[TunNocsum, TunCsum], false),
        };
        if needs_port && !self.given.has(TunPort) {
            return Err(UsageError::usage(format!(
                "You need to supply the 'tun-port' option for the '{kind}' tunnel type"
            )));
        }
        for name in [TunPort, TunNocsum, TunCsum, TunRemcsum] {
            if self.given.has(name) && !takes.contains(&name) {
                let name = name.text();
                return Err(UsageError::usage(format!(
                    "Illegal '{name}' option with the '{kind}' tunnel type"
                )));
            }
        }
        let mut checksums = CHECKSUMS.into_iter().filter(|name| self.given.has(*name));
        let (first, second) = (checksums.next(), checksums.next());
        if let (Some(first), Some(second)) = (first, second) {
            return Err(UsageError::usage(format!(
                "The option '{}' conflicts with the '{}' option in the '{kind}' tunnel type",
                second.text(),
                first.text()
            )));
        }
        let checksum = match first {
            Some(TunCsum) => tunnel::Checksum::On,
            Some(TunRemcsum) => tunnel::Checksum::Remote,
            _ => tunnel::Checksum::None,
        };
        Ok(Some(Tunnel { kind: self.tunnel_kind.into(), port: self.tunnel_port, checksum: checksum.into() }))
    }

    fn list(self) -> Result<Command, UsageError> {
        use Name::{Connection, Daemon, PersistentConn, Rate, Stats, Thresholds, Timeout, TunInfo};
        let given = self.given;
        let of_services = [Stats, Rate, Thresholds, TunInfo];
        if given.has_any(&[Connection, Timeout, Daemon]) && given.has_any(&of_services)
            || given.has_any(&[Timeout, Daemon]) && given.has(PersistentConn)
        {
            return Err(UsageError::usage("options conflicts in the list command"));
        }
        let columns = [
            (Stats, Columns::Stats),
            (Rate, Columns::Rate),
            (Thresholds, Columns::Thresholds),
            (PersistentConn, Columns::PersistentConn),
            (TunInfo, Columns::TunInfo),
        ];
        let format = Format {
            columns: columns.iter().find(|(name, _)| given.has(*name)).map_or(Columns::Default, |(_, c)| *c),
            numeric: given.has(Name::Numeric),
            exact: given.has(Name::Exact),
            unsorted: given.has(Name::Nosort),
        };
        let listing = match self.target {
            Some(target) => Listing::Service(target.key()),
            None if given.has(Connection) => Listing::Connections,
            None if given.has(Timeout) => Listing::Timeouts,
            None if given.has(Daemon) => Listing::Daemon,
            None => Listing::Services,
        };
        Ok(Command::List(listing, format))
    }
}

/// The length of a mask for the family of a service; `None` for the whole address.
fn prefix(target: Target, text: &str) -> Result<Option<u32>, UsageError> {
    if target.is_ipv6() {
        let length =
            number(text, 1, 128).ok_or_else(|| UsageError::usage("illegal ipv6 netmask specified"))?;
        return Ok((length != 128).then_some(length));
    }
    let length = mask_length(text)
        .ok_or_else(|| UsageError::usage("illegal virtual server persistent mask specified"))?;
    Ok((length != 32).then_some(length))
}

fn multicast_group(text: &str) -> Result<(), UsageError> {
    let (family, is_group) = if text.contains(':') {
        ("IPv6", text.parse::<std::net::Ipv6Addr>().is_ok_and(|address| address.is_multicast()))
    } else {
        ("IPv4", text.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_multicast()))
    };
    if is_group { Ok(()) } else { Err(UsageError::usage(format!("invalid {family} mcast-group `{text}'"))) }
}

fn tunnel_kind(text: &str) -> Result<tunnel::Kind, UsageError> {
    match text {
        "ipip" => Ok(tunnel::Kind::Ipip),
        "gue" => Ok(tunnel::Kind::Gue),
        "gre" => Ok(tunnel::Kind::Gre),
        _ => Err(UsageError::usage("illegal tunnel type specified")),
    }
}
