//! Host and service names: what ipvsadm asks the resolver for.
//!
//! Host names on the command line are resolved by the system. Addresses and ports of a listing without `-n` are
//! named from `/etc/hosts` and `/etc/services` alone: the standard library has no reverse lookup, and a listing
//! that waits for a name server is of no use to somebody who repairs one.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};

use pointsman_proto::v1::Protocol;

/// Looks names up. The parser and the printers take it as an argument, so that they do no I/O themselves.
pub trait Names {
    /// The IPv4 address of a host; `None` if it has none.
    fn host_to_address(&self, host: &str) -> Option<Ipv4Addr>;
    /// The port of a service; an unspecified protocol stands for any.
    fn service_to_port(&self, service: &str, protocol: Protocol) -> Option<u16>;
    /// The name of an address.
    fn address_to_host(&self, address: IpAddr) -> Option<String>;
    /// The name of a port; an unspecified protocol stands for any.
    fn port_to_service(&self, port: u16, protocol: Protocol) -> Option<String>;
}

/// Knows no names: every address and port stays a number.
#[derive(Clone, Copy, Debug)]
pub struct NoNames;

impl Names for NoNames {
    fn host_to_address(&self, _: &str) -> Option<Ipv4Addr> {
        None
    }
    fn service_to_port(&self, _: &str, _: Protocol) -> Option<u16> {
        None
    }
    fn address_to_host(&self, _: IpAddr) -> Option<String> {
        None
    }
    fn port_to_service(&self, _: u16, _: Protocol) -> Option<String> {
        None
    }
}

/// The names of this host.
#[derive(Clone, Debug, Default)]
pub struct SystemNames {
    hosts: HashMap<IpAddr, String>,
    /// Name (or alias), protocol as the file writes it, port; in the order of the file.
    services: Vec<(Vec<String>, String, u16)>,
}

impl SystemNames {
    /// Reads `/etc/hosts` and `/etc/services`; a file that cannot be read names nothing.
    pub fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::from_texts(&read("/etc/hosts"), &read("/etc/services"))
    }

    fn from_texts(hosts: &str, services: &str) -> Self {
        let mut names = Self::default();
        for mut words in lines(hosts) {
            if let (Some(Ok(address)), Some(name)) = (words.next().map(str::parse), words.next()) {
                names.hosts.entry(address).or_insert_with(|| name.to_owned());
            }
        }
        for mut words in lines(services) {
            let (Some(name), Some((port, protocol))) =
                (words.next(), words.next().and_then(|w| w.split_once('/')))
            else {
                continue;
            };
            let Ok(port) = port.parse() else { continue };
            let all = std::iter::once(name).chain(words).map(str::to_owned).collect();
            names.services.push((all, protocol.to_owned(), port));
        }
        names
    }
}

impl Names for SystemNames {
    fn host_to_address(&self, host: &str) -> Option<Ipv4Addr> {
        // A number that is no address must not become a question to a name server.
        if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return None;
        }
        let addresses = (host, 0).to_socket_addrs().ok()?;
        addresses.into_iter().find_map(|address| match address.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    fn service_to_port(&self, service: &str, protocol: Protocol) -> Option<u16> {
        let fits = |(names, of, _): &&(Vec<String>, String, u16)| {
            is_of(of, protocol) && names.iter().any(|name| name == service)
        };
        self.services.iter().find(fits).map(|(_, _, port)| *port)
    }

    fn address_to_host(&self, address: IpAddr) -> Option<String> {
        self.hosts.get(&address).cloned()
    }

    fn port_to_service(&self, port: u16, protocol: Protocol) -> Option<String> {
        let fits = |(_, of, at): &&(Vec<String>, String, u16)| *at == port && is_of(of, protocol);
        self.services.iter().find(fits).and_then(|(names, _, _)| names.first().cloned())
    }
}

/// The words of each line, without comments.
fn lines(text: &str) -> impl Iterator<Item = std::str::SplitWhitespace<'_>> {
    text.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
}

fn is_of(name: &str, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Unspecified => true,
        Protocol::Tcp => name == "tcp",
        Protocol::Udp => name == "udp",
        Protocol::Sctp => name == "sctp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> SystemNames {
        SystemNames::from_texts(
            "127.0.0.1\tlocalhost\n# comment\n10.0.0.100 www.example.net www # the VIP\n10.0.0.100 later\n::1 ip6\nbad\n",
            "http\t\t80/tcp\t\twww\t# WorldWideWeb HTTP\ndomain 53/tcp\ndomain 53/udp\nsyslog 514/udp\nshell 514/tcp cmd\nbad x/tcp\n",
        )
    }

    #[test]
    fn the_first_name_of_the_first_line_names_an_address() {
        let names = names();
        assert_eq!(names.address_to_host([10, 0, 0, 100].into()).as_deref(), Some("www.example.net"));
        assert_eq!(names.address_to_host([10, 0, 0, 101].into()), None);
    }

    #[test]
    fn services_are_looked_up_by_name_alias_and_protocol() {
        let names = names();
        assert_eq!(names.service_to_port("http", Protocol::Tcp), Some(80));
        assert_eq!(names.service_to_port("www", Protocol::Tcp), Some(80));
        assert_eq!(names.service_to_port("http", Protocol::Udp), None);
        assert_eq!(names.service_to_port("domain", Protocol::Unspecified), Some(53));
        assert_eq!(names.port_to_service(514, Protocol::Udp).as_deref(), Some("syslog"));
        assert_eq!(names.port_to_service(514, Protocol::Tcp).as_deref(), Some("shell"));
        assert_eq!(names.port_to_service(80, Protocol::Sctp), None);
    }

    #[test]
    fn a_number_that_is_no_address_is_not_resolved() {
        assert_eq!(names().host_to_address("300.0.0.1"), None);
        assert_eq!(names().host_to_address("10.1"), None);
    }
}
