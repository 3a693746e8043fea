//! Services and servers as they are typed: `tcp:10.0.0.1:80`, `udp:[fd00::1]:53`, `mark:5`, `192.168.1.11:8080`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use pointsman_proto::v1::{Protocol, ServiceKey, service_key};

/// What a virtual service is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Address(Protocol, SocketAddr),
    Mark { mark: u32, ipv6: bool },
}

impl Key {
    /// 0 for a mark, whose servers get the port that the client asked for.
    pub(super) fn port(self) -> u16 {
        match self {
            Self::Address(_, address) => address.port(),
            Self::Mark { .. } => 0,
        }
    }

    pub(super) fn to_proto(self) -> ServiceKey {
        let key = match self {
            Self::Address(protocol, address) => service_key::Key::Address(service_key::Address {
                protocol: protocol.into(),
                address: address.ip().to_string(),
                port: address.port().into(),
            }),
            Self::Mark { mark, ipv6 } => service_key::Key::Mark(service_key::Mark { mark, ipv6 }),
        };
        ServiceKey { key: Some(key) }
    }

    /// As it is typed, for programs.
    pub(super) fn typed(key: Option<&ServiceKey>) -> String {
        text(key, ':')
    }

    /// For people, as the changes of a configuration name it.
    pub(super) fn said(key: Option<&ServiceKey>) -> String {
        text(key, ' ')
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Self::said(Some(&self.to_proto())))
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "`{text}` is no service: expected tcp:ADDRESS:PORT, udp:..., sctp:..., mark:N or mark6:N, \
                     for example tcp:10.0.0.1:80 or tcp:[fd00::1]:80"
            )
        };
        let (kind, rest) = text.split_once([':', ' ']).ok_or_else(expected)?;
        let protocol = match kind {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            "mark" | "mark6" => {
                return match rest.parse() {
                    Ok(mark) if mark > 0 => Ok(Self::Mark { mark, ipv6: kind == "mark6" }),
                    _ => Err(format!("`{rest}` is no firewall mark: expected 1..4294967295")),
                };
            }
            _ => return Err(expected()),
        };
        Ok(Self::Address(protocol, rest.parse().map_err(|_| expected())?))
    }
}

/// A real server: an address, and the service's port unless one is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Real {
    pub(super) address: IpAddr,
    pub(super) port: Option<u16>,
}

impl FromStr for Real {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { address: address.ip(), port: Some(address.port()) });
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        match bare.parse() {
            Ok(address) => Ok(Self { address, port: None }),
            Err(_) => Err(format!(
                "`{text}` is no server: expected ADDRESS or ADDRESS:PORT, for example 192.168.1.11 or [fd00::11]:8080"
            )),
        }
    }
}

/// `10.0.0.1:80` or `[fd00::1]:80`.
pub(super) fn endpoint(address: &str, port: u32) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// `tcp`, `udp`, `sctp`; `ip` for what has no protocol of its own.
pub(super) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Unspecified => "ip",
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn text(key: Option<&ServiceKey>, between: char) -> String {
    match key.and_then(|key| key.key.as_ref()) {
        Some(service_key::Key::Address(address)) => {
            let end = endpoint(&address.address, address.port);
            format!("{}{between}{end}", protocol_name(address.protocol()))
        }
        Some(service_key::Key::Mark(mark)) if between == ' ' => {
            format!("mark {}{}", mark.mark, if mark.ipv6 { " ipv6" } else { "" })
        }
        Some(service_key::Key::Mark(mark)) => {
            format!("mark{}:{}", if mark.ipv6 { "6" } else { "" }, mark.mark)
        }
        None => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_typed_and_said_the_same_way_back() {
        let table = [
            ("tcp:10.0.0.1:80", "tcp 10.0.0.1:80"),
            ("udp:[fd00::1]:53", "udp [fd00::1]:53"),
            ("sctp:10.0.0.1:0", "sctp 10.0.0.1:0"),
            ("mark:5", "mark 5"),
            ("mark6:5", "mark 5 ipv6"),
        ];
        for (typed, said) in table {
            let key: Key = typed.parse().unwrap();
            assert_eq!(Key::typed(Some(&key.to_proto())), typed);
            assert_eq!(key.to_string(), said);
        }
        assert_eq!("tcp 10.0.0.1:80".parse::<Key>(), "tcp:10.0.0.1:80".parse::<Key>());
    }

    #[test]
    fn what_is_no_service_is_named_with_an_example() {
        for text in
            ["", "tcp", "10.0.0.1:80", "tcp:10.0.0.1", "icmp:10.0.0.1:80", "tcp:www:80", "tcp:fd00::1:80"]
        {
            let error = text.parse::<Key>().unwrap_err();
            assert!(error.starts_with(&format!("`{text}` is no service")), "{error}");
            assert!(error.contains("for example tcp:10.0.0.1:80"), "{error}");
        }
        assert!("mark:0".parse::<Key>().unwrap_err().contains("expected 1..4294967295"));
    }

    #[test]
    fn a_server_needs_no_port() {
        let real = |text: &str| text.parse::<Real>().unwrap();
        let v6: IpAddr = "fd00::11".parse().unwrap();
        assert_eq!(real("192.168.1.11"), Real { address: [192, 168, 1, 11].into(), port: None });
        assert_eq!(real("192.168.1.11:80"), Real { address: [192, 168, 1, 11].into(), port: Some(80) });
        assert_eq!(real("fd00::11"), Real { address: v6, port: None });
        assert_eq!(real("[fd00::11]"), Real { address: v6, port: None });
        assert_eq!(real("[fd00::11]:80"), Real { address: v6, port: Some(80) });
        assert!("web1".parse::<Real>().unwrap_err().contains("for example 192.168.1.11"));
    }
}
