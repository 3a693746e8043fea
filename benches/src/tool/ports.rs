//! What `--port` names, and what is at the other end of a wire.

use super::load::Target;
use crate::traffic::{VIP, VPORT};
use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    str::FromStr,
};

/// A port of the tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortSpec {
    /// Frames come from memory and go to memory.
    Memory,
    /// A device of DPDK, as DPDK's ports name it: a PCI address, or `vdev:` and a virtual device.
    Device(String),
}

impl PortSpec {
    /// Whether it is a virtual device without another end: it gives back what it is sent, or gives empty frames.
    pub fn is_loop(&self) -> bool {
        matches!(self, Self::Device(name) if ["vdev:net_null", "vdev:net_ring"].iter().any(|kind| name.starts_with(kind)))
    }

    /// Whether it gives back what it is sent.
    pub fn gives_back(&self) -> bool {
        matches!(self, Self::Device(name) if name.starts_with("vdev:net_ring"))
    }
}

impl FromStr for PortSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix("vdev:").unwrap_or(text);
        if text == "memory" {
            return Ok(Self::Memory);
        }
        if name.starts_with("net_") && name.len() > 4 && name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self::Device(format!("vdev:{name}")));
        }
        let pci = |text: &str| {
            let mut parts = text.split([':', '.']);
            let hex = |part: Option<&str>, len| {
                part.is_some_and(|part| part.len() == len && u32::from_str_radix(part, 16).is_ok())
            };
            [4, 2, 2, 1].into_iter().all(|len| hex(parts.next(), len)) && parts.next().is_none()
        };
        let full = if text.len() == 7 { format!("0000:{text}") } else { text.to_owned() };
        if pci(&full) {
            return Ok(Self::Device(full.to_ascii_lowercase()));
        }
        Err("memory, a PCI address as `lspci -D` writes it (0000:03:00.0), or a virtual device of DPDK with its \
             arguments (net_ring0, net_null0, net_af_packet0,iface=eth1)"
            .to_owned())
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Device(name) => f.write_str(name.strip_prefix("vdev:").unwrap_or(name)),
        }
    }
}

/// Where the director is that is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// In this process, on memory ports.
    InMemory,
    /// In this process, over a virtual device without another end.
    Inside(String),
    /// On the wire between two ports, or behind one: the first sends, the last receives.
    OnWire(Vec<String>),
}

/// Where these ports put the director. `stations` if it is never to be in this process.
///
/// # Errors
/// Why they do not go together.
pub fn arrange(ports: &[PortSpec], stations: bool) -> Result<Arrangement, String> {
    let devices: Vec<String> = (ports.iter())
        .filter_map(|port| match port {
            PortSpec::Memory => None,
            PortSpec::Device(name) => Some(name.clone()),
        })
        .collect();
    if stations && devices.iter().any(|device| device.starts_with("vdev:net_null")) {
        return Err(
            "--port: net_null gives empty frames whatever it is sent; take net_ring, or a NIC".to_owned()
        );
    }
    match (devices.len(), ports.len()) {
        (0, _) if stations => {
            Err("this needs a device: --port with a PCI address (0000:03:00.0) or a virtual device of DPDK"
                .to_owned())
        }
        (0, 0 | 1) => Ok(Arrangement::InMemory),
        (0, _) => Err("--port memory is given once: each worker has one of its own".to_owned()),
        (some, all) if some != all => {
            Err("--port: memory and devices do not go together; leave one kind out".to_owned())
        }
        (1, _) if ports[0].is_loop() && !stations => Ok(Arrangement::Inside(devices[0].clone())),
        (_, _) if ports.iter().any(PortSpec::is_loop) && !stations => Err(
            "--port: net_ring and net_null have no other end, so that the director runs in this process over one of them: \
             give one, alone"
                .to_owned(),
        ),
        (1 | 2, _) if devices.first() != devices.get(1) => Ok(Arrangement::OnWire(devices)),
        (2, _) => Err("--port: both are the same device; give it once to send and receive by it".to_owned()),
        _ => Err("--port is given once, to send and receive by it, or twice: the first sends, the second receives"
            .to_owned()),
    }
}

/// A MAC address on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a MAC address like 02:00:00:00:00:01".to_owned();
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        match parts.next() {
            Some(_) => Err(wrong()),
            None if bytes[0] & 1 == 1 => {
                Err("the MAC address of one station: this one is of a group".to_owned())
            }
            None => Ok(Self(bytes)),
        }
    }
}

/// The address and port of a virtual service; the port is 80 where it is left out.
///
/// # Errors
/// What was expected.
pub fn service(text: &str) -> Result<SocketAddrV4, String> {
    let address = text.parse().or_else(|_| text.parse::<Ipv4Addr>().map(|vip| SocketAddrV4::new(vip, VPORT)));
    let address = address.map_err(|_| "an IPv4 address and port like 10.0.0.100:80".to_owned())?;
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
        return Err("the address and port of a virtual service, like 10.0.0.100:80".to_owned());
    }
    Ok(address)
}

/// IPv4 addresses whose first bits are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    network: u32,
    mask: u32,
}

impl Prefix {
    /// Whether the address is one of them.
    pub fn holds(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask == self.network
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "an IPv4 address or prefix like 10.0.1.0/24".to_owned();
        let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let bits: u32 = bits.parse().ok().filter(|bits| (8..=32).contains(bits)).ok_or_else(wrong)?;
        let mask = u32::MAX << (32 - bits);
        Ok(Self { network: address.to_bits() & mask, mask })
    }
}

/// The other end of a wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// MAC address of the director's port; known from the start where the device gives back what it is sent.
    pub destination_mac: Option<[u8; 6]>,
    /// The virtual service.
    pub service: SocketAddrV4,
    /// Addresses whose ARP queries the sink answers.
    pub real_servers: Vec<Prefix>,
    /// That no director is to run in this process, whatever the ports are.
    pub stations: bool,
    /// That what is sent does not come back here.
    pub one_way: bool,
    /// That nothing is sent.
    pub receives_only: bool,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            destination_mac: None,
            service: SocketAddrV4::new(VIP, VPORT),
            real_servers: Vec::new(),
            stations: false,
            one_way: false,
            receives_only: false,
        }
    }
}

impl Wire {
    /// Whom frames that leave by a port of this address are for.
    pub fn target(&self, source_mac: [u8; 6]) -> Target {
        let destination_mac = self.destination_mac.unwrap_or(Target::default().destination_mac);
        Target { destination_mac, source_mac, vip: *self.service.ip(), port: self.service.port() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Vec<PortSpec> {
        text.split_whitespace().map(|port| port.parse().unwrap()).collect()
    }

    #[test]
    fn a_port_is_memory_a_pci_address_or_a_virtual_device() {
        assert_eq!("memory".parse(), Ok(PortSpec::Memory));
        for (text, name, shown) in [
            ("03:00.1", "0000:03:00.1", "0000:03:00.1"),
            ("0000:AF:00.0", "0000:af:00.0", "0000:af:00.0"),
            ("net_ring0", "vdev:net_ring0", "net_ring0"),
            ("vdev:net_memif0,role=client", "vdev:net_memif0,role=client", "net_memif0,role=client"),
        ] {
            let port: PortSpec = text.parse().unwrap();
            assert_eq!((&port, port.to_string().as_str()), (&PortSpec::Device(name.to_owned()), shown));
        }
        for wrong in ["eth0", "", "net_", "vdev:ring0", "0000:03:00", "03:00.0.1", "0000:0g:00.0", "net_x y"]
        {
            let message = wrong.parse::<PortSpec>().unwrap_err();
            assert!(message.starts_with("memory, a PCI address as"), "{wrong}: {message}");
        }
    }

    #[test]
    fn the_ports_say_where_the_director_is() {
        let name = |text: &str| format!("vdev:{text}");
        assert_eq!(arrange(&[], false), Ok(Arrangement::InMemory));
        assert_eq!(arrange(&ports("memory"), false), Ok(Arrangement::InMemory));
        assert_eq!(arrange(&ports("net_null0"), false), Ok(Arrangement::Inside(name("net_null0"))));
        assert_eq!(arrange(&ports("net_ring0"), true), Ok(Arrangement::OnWire(vec![name("net_ring0")])));
        let two = ["0000:03:00.0".to_owned(), "0000:03:00.1".to_owned()];
        assert_eq!(arrange(&ports("03:00.0 03:00.1"), false), Ok(Arrangement::OnWire(two.into())));
        for (text, said) in [
            ("memory memory", "--port memory is given once"),
            ("memory net_ring0", "memory and devices do not go together"),
            ("net_ring0 net_ring1", "net_ring and net_null have no other end"),
            ("net_ring0 03:00.0", "net_ring and net_null have no other end"),
            ("03:00.0 03:00.0", "both are the same device"),
            ("03:00.0 03:00.1 03:00.2", "is given once, to send and receive by it, or twice"),
        ] {
            let message = arrange(&ports(text), false).unwrap_err();
            assert!(message.contains(said), "{text}: {message}");
        }
        assert!(arrange(&ports("net_null0"), true).unwrap_err().contains("net_null gives empty frames"));
        assert!(arrange(&[], true).unwrap_err().starts_with("this needs a device"));
        assert!(arrange(&ports("memory"), true).unwrap_err().starts_with("this needs a device"));
    }

    #[test]
    fn addresses_are_read_as_they_are_written_and_others_are_refused() {
        assert_eq!("02:00:5E:00:00:01".parse(), Ok(Mac([2, 0, 0x5e, 0, 0, 1])));
        assert!("ff:ff:ff:ff:ff:ff".parse::<Mac>().unwrap_err().contains("of a group"));
        for wrong in ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "0200.0000.0001", "02:00:00:00:00:xx"] {
            assert_eq!(wrong.parse::<Mac>().unwrap_err(), "a MAC address like 02:00:00:00:00:01");
        }
        assert_eq!(service("192.0.2.1").unwrap().to_string(), "192.0.2.1:80");
        assert_eq!(service("192.0.2.1:443").unwrap().to_string(), "192.0.2.1:443");
        assert!(
            service("fd00::1").is_err() && service("192.0.2.1:0").is_err() && service("0.0.0.0").is_err()
        );
        let prefix: Prefix = "10.0.1.77/24".parse().unwrap();
        assert!(prefix.holds(Ipv4Addr::new(10, 0, 1, 255)) && !prefix.holds(Ipv4Addr::new(10, 0, 2, 0)));
        assert!("10.0.1.7".parse::<Prefix>().unwrap().holds(Ipv4Addr::new(10, 0, 1, 7)));
        assert!("10.0.1.0/33".parse::<Prefix>().is_err() && "0.0.0.0/0".parse::<Prefix>().is_err());
    }
}
