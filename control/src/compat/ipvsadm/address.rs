//! Services, servers, masks and numbers as they are typed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pointsman_proto::v1::{Protocol, ServiceKey, service_key};

use super::names::Names;

/// What selects a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Address { protocol: Protocol, address: IpAddr, port: u16 },
    Mark { mark: u32, ipv6: bool },
}

impl Target {
    pub(super) fn is_ipv6(self) -> bool {
        match self {
            Self::Address { address, .. } => address.is_ipv6(),
            Self::Mark { ipv6, .. } => ipv6,
        }
    }

    /// The port of the service; 0 for a mark, which has none.
    pub(super) fn port(self) -> u16 {
        match self {
            Self::Address { port, .. } => port,
            Self::Mark { .. } => 0,
        }
    }

    pub(super) fn key(self) -> ServiceKey {
        let key = match self {
            Self::Address { protocol, address, port } => service_key::Key::Address(service_key::Address {
                protocol: protocol.into(),
                address: address.to_string(),
                port: port.into(),
            }),
            Self::Mark { mark, ipv6 } => service_key::Key::Mark(service_key::Mark { mark, ipv6 }),
        };
        ServiceKey { key: Some(key) }
    }
}

/// Reads `host`, `host:port`, `[v6]` or `[v6]:port`. A host may be a name that has an IPv4 address, a port the name
/// of a service of the protocol. The port is `None` when it is left out.
pub(super) fn host_port(text: &str, protocol: Protocol, names: &dyn Names) -> Option<(IpAddr, Option<u16>)> {
    let (address, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let address = IpAddr::V6(host.parse::<Ipv6Addr>().ok()?);
        match rest {
            "" => (address, None),
            _ => (address, Some(rest.strip_prefix(':')?)),
        }
    } else {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        (IpAddr::V4(host_address(host, names)?), port)
    };
    let Some(port) = port else {
        return Some((address, None));
    };
    let number = number(port, 0, 65535).and_then(|port| u16::try_from(port).ok());
    Some((address, Some(number.or_else(|| names.service_to_port(port, protocol))?)))
}

fn host_address(host: &str, names: &dyn Names) -> Option<Ipv4Addr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    // A bare number would be read as an address by the resolver: it is a forgotten host.
    let no_name = host.contains(':') || host.bytes().all(|byte| byte.is_ascii_digit());
    if no_name { None } else { names.host_to_address(host) }
}

/// A decimal number in a range; leading blanks and a sign are allowed, anything after it is not.
pub(super) fn number(text: &str, least: i64, most: i64) -> Option<u32> {
    let value: i64 = text.trim_start().parse().ok()?;
    if (least..=most).contains(&value) { u32::try_from(value).ok() } else { None }
}

/// The length of a dotted mask; `None` if it is none, or has holes.
pub(super) fn mask_length(text: &str) -> Option<u32> {
    let bits = u32::from(text.parse::<Ipv4Addr>().ok()?);
    let length = bits.leading_ones();
    (bits.checked_shl(length).unwrap_or(0) == 0).then_some(length)
}

/// The dotted mask of a length, 0..32.
pub(super) fn mask_text(length: u32) -> String {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - length.min(32)).unwrap_or(0)).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::names::NoNames;
    use super::*;

    struct Some4;
    impl Names for Some4 {
        fn host_to_address(&self, host: &str) -> Option<Ipv4Addr> {
            (host == "www").then_some(Ipv4Addr::new(10, 0, 0, 7))
        }
        fn service_to_port(&self, service: &str, protocol: Protocol) -> Option<u16> {
            (service == "http" && protocol == Protocol::Tcp).then_some(80)
        }
        fn address_to_host(&self, _: IpAddr) -> Option<String> {
            None
        }
        fn port_to_service(&self, _: u16, _: Protocol) -> Option<String> {
            None
        }
    }

    #[test]
    fn hosts_and_ports_are_read_as_numbers_or_names() {
        let v4 = |last| IpAddr::from([10, 0, 0, last]);
        let v6 = "fd00:1::100".parse::<IpAddr>().unwrap();
        let table = [
            ("10.0.0.1", Some((v4(1), None))),
            ("10.0.0.1:80", Some((v4(1), Some(80)))),
            ("10.0.0.1:0", Some((v4(1), Some(0)))),
            ("10.0.0.1:65535", Some((v4(1), Some(65535)))),
            ("10.0.0.1:65536", None),
            ("10.0.0.1:-1", None),
            ("10.0.0.1:", None),
            ("10.0.0.1:http", Some((v4(1), Some(80)))),
            ("10.0.0.1:nosuch", None),
            ("www:http", Some((v4(7), Some(80)))),
            ("www", Some((v4(7), None))),
            ("nosuch:80", None),
            ("12345", None),
            ("12345:80", None),
            ("300.0.0.1:80", None),
            ("[fd00:1::100]", Some((v6, None))),
            ("[fd00:1::100]:80", Some((v6, Some(80)))),
            ("[fd00:1::100]80", None),
            ("[fd00:1::100", None),
            ("[10.0.0.1]:80", None),
            ("fd00:1::100", None),
            ("", None),
            (":80", None),
        ];
        for (text, expected) in table {
            assert_eq!(host_port(text, Protocol::Tcp, &Some4), expected, "{text}");
        }
        assert_eq!(host_port("10.0.0.1:http", Protocol::Udp, &Some4), None);
        assert_eq!(host_port("www", Protocol::Tcp, &NoNames), None);
    }

    #[test]
    fn numbers_are_decimal_and_within_their_range() {
        assert_eq!(number("0", 0, 5), Some(0));
        assert_eq!(number("+5", 0, 5), Some(5));
        assert_eq!(number(" 5", 0, 5), Some(5));
        for bad in ["6", "-1", "5x", "0x5", "", " ", "5 ", "99999999999999999999"] {
            assert_eq!(number(bad, 0, 5), None, "{bad:?}");
        }
    }

    #[test]
    fn masks_are_kept_by_their_length() {
        for (text, length) in
            [("255.255.255.255", 32), ("255.255.0.0", 16), ("255.255.254.0", 23), ("0.0.0.0", 0)]
        {
            assert_eq!(mask_length(text), Some(length));
            assert_eq!(mask_text(length), text);
        }
        for bad in ["255.0.255.0", "0.0.0.24", "24", "x", "255.255.255"] {
            assert_eq!(mask_length(bad), None, "{bad}");
        }
    }
}
