//! Frames as a sender makes them, byte by byte after the RFCs and with sums of its own: nothing here asks the code under
//! test for anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Of the stations in the recordings: client, director towards it, director towards the servers, three servers.
pub(crate) const C0: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const D0: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const D1: [u8; 6] = [2, 0, 0, 0, 0x50, 1];
pub(crate) const R1: [u8; 6] = [2, 0, 0, 0, 0x50, 0x11];
pub(crate) const R2: [u8; 6] = [2, 0, 0, 0, 0x50, 0x12];
pub(crate) const R3: [u8; 6] = [2, 0, 0, 0, 0x50, 0x13];

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// The Internet checksum, one 16-bit word after the other (RFC 1071).
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) * 256 + u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What stands before a transport header when its checksum is made.
pub(crate) fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = octets(source);
    bytes.extend(octets(destination));
    if source.is_ipv6() {
        bytes.extend((len as u32).to_be_bytes());
        bytes.extend([0, 0, 0, protocol]);
    } else {
        bytes.extend([0, protocol]);
        bytes.extend((len as u16).to_be_bytes());
    }
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Puts the checksum over pseudo-header and `bytes` at `at`.
fn fill_checksum(bytes: &mut [u8], at: usize, pseudo: &[u8]) {
    let sum = checksum(&[pseudo, bytes].concat());
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// What an IP header says besides addresses, protocol and length.
#[derive(Clone, Debug)]
pub(crate) struct Ip {
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) id: u16,
    /// The word of flags and offset; "don't fragment" as it stands.
    pub(crate) fragment: u16,
    /// IPv4 options, a multiple of four bytes.
    pub(crate) options: Vec<u8>,
}

impl Default for Ip {
    fn default() -> Self {
        Self { ttl: 64, tos: 0, id: 7, fragment: 0x4000, options: Vec::new() }
    }
}

impl Ip {
    /// The packet of that header and payload.
    pub(crate) fn packet(
        &self,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        if source.is_ipv6() {
            bytes.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
            bytes.extend((payload.len() as u16).to_be_bytes());
            bytes.extend([protocol, self.ttl]);
            bytes.extend(octets(source));
            bytes.extend(octets(destination));
        } else {
            let header = 20 + self.options.len();
            bytes.extend([0x40 | (header / 4) as u8, self.tos]);
            bytes.extend(((header + payload.len()) as u16).to_be_bytes());
            bytes.extend(self.id.to_be_bytes());
            bytes.extend(self.fragment.to_be_bytes());
            bytes.extend([self.ttl, protocol, 0, 0]);
            bytes.extend(octets(source));
            bytes.extend(octets(destination));
            bytes.extend(&self.options);
            fill_checksum(&mut bytes, 10, &[]);
        }
        bytes.extend(payload);
        bytes
    }
}

/// A TCP segment from a client.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) client: SocketAddr,
    pub(crate) service: SocketAddr,
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) len: usize,
    /// What stands behind the `len` bytes.
    pub(crate) text: String,
    pub(crate) ip: Ip,
}

/// The data of segments and datagrams: byte `i` is `7 i + 1`.
pub(crate) fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + 1) as u8).collect()
}

/// A segment with these flags; `client` and `service` as "10.0.0.2:1001".
pub(crate) fn tcp(client: &str, service: &str, flags: u8) -> Segment {
    Segment {
        client: client.parse().expect("an address and port"),
        service: service.parse().expect("an address and port"),
        flags,
        seq: 1000,
        ack: 0,
        len: 0,
        text: String::new(),
        ip: Ip::default(),
    }
}

impl Segment {
    pub(crate) fn seq(mut self, seq: u32, ack: u32) -> Self {
        (self.seq, self.ack) = (seq, ack);
        self
    }

    pub(crate) fn len(mut self, len: usize) -> Self {
        self.len = len;
        self
    }

    pub(crate) fn text(mut self, text: &str) -> Self {
        text.clone_into(&mut self.text);
        self
    }

    pub(crate) fn ip(mut self, change: impl FnOnce(&mut Ip)) -> Self {
        change(&mut self.ip);
        self
    }

    /// The IP packet. A SYN has the option MSS 1460.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let options: &[u8] = if self.flags & SYN != 0 { &[2, 4, 5, 0xb4] } else { &[] };
        let mut bytes = Vec::new();
        bytes.extend(self.client.port().to_be_bytes());
        bytes.extend(self.service.port().to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([(((20 + options.len()) / 4) << 4) as u8, self.flags]);
        bytes.extend(8192_u16.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(options);
        bytes.extend(data(self.len));
        bytes.extend(self.text.as_bytes());
        let (source, destination) = (self.client.ip(), self.service.ip());
        let pseudo = pseudo_header(source, destination, 6, bytes.len());
        fill_checksum(&mut bytes, 16, &pseudo);
        self.ip.packet(source, destination, 6, &bytes)
    }

    /// From the client's station to the director's.
    pub(crate) fn frame(&self) -> Vec<u8> {
        ethernet(D0, C0, &self.packet())
    }
}

/// A UDP datagram with this header.
pub(crate) fn udp_packet(client: &str, service: &str, payload: &[u8], ip: &Ip) -> Vec<u8> {
    let (client, service): (SocketAddr, SocketAddr) =
        (client.parse().expect("an address and port"), service.parse().expect("an address and port"));
    let mut bytes = Vec::new();
    bytes.extend(client.port().to_be_bytes());
    bytes.extend(service.port().to_be_bytes());
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend(payload);
    let pseudo = pseudo_header(client.ip(), service.ip(), 17, bytes.len());
    fill_checksum(&mut bytes, 6, &pseudo);
    if bytes[6..8] == [0, 0] {
        bytes[6..8].fill(0xff);
    }
    ip.packet(client.ip(), service.ip(), 17, &bytes)
}

/// CRC32c, a bit at a time (RFC 9260 appendix A).
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

/// An SCTP packet of chunks of these types, each without a value.
pub(crate) fn sctp_packet(client: &str, service: &str, kinds: &[u8], ip: &Ip) -> Vec<u8> {
    let (client, service): (SocketAddr, SocketAddr) =
        (client.parse().expect("an address and port"), service.parse().expect("an address and port"));
    let mut bytes = [client.port().to_be_bytes(), service.port().to_be_bytes()].concat();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0]);
    bytes.extend(kinds.iter().flat_map(|kind| [*kind, 0, 0, 4]));
    let sum = crc32c(&bytes);
    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    ip.packet(client.ip(), service.ip(), 132, &bytes)
}

/// A frame with the datagram "ping".
pub(crate) fn udp(client: &str, service: &str) -> Vec<u8> {
    ethernet(D0, C0, &udp_packet(client, service, b"ping", &Ip::default()))
}

/// An ICMP message of either family; `message` with two bytes for the checksum at 2.
pub(crate) fn icmp_packet(source: IpAddr, destination: IpAddr, message: &[u8], ip: &Ip) -> Vec<u8> {
    let mut bytes = message.to_vec();
    let protocol = if source.is_ipv6() { 58 } else { 1 };
    let pseudo =
        if source.is_ipv6() { pseudo_header(source, destination, protocol, bytes.len()) } else { Vec::new() };
    fill_checksum(&mut bytes, 2, &pseudo);
    ip.packet(source, destination, protocol, &bytes)
}

/// A frame with an ICMP message from the client's station.
pub(crate) fn icmp(source: &str, destination: &str, message: &[u8], ip: &Ip) -> Vec<u8> {
    let source = source.parse().expect("an address");
    let destination = destination.parse().expect("an address");
    ethernet(D0, C0, &icmp_packet(source, destination, message, ip))
}

/// An echo request with identifier 5, sequence number 1 and "abcdefgh".
pub(crate) fn echo(source: &str, destination: &str) -> Vec<u8> {
    let kind = if source.contains(':') { 128 } else { 8 };
    let message = [&[kind, 0, 0, 0, 0, 5, 0, 1][..], b"abcdefgh"].concat();
    let ip = Ip { id: 7, ..Ip::default() };
    icmp(source, destination, &message, &ip)
}

/// A neighbour solicitation for `target` with the asker's address as an option.
pub(crate) fn solicitation(source: &str, target: &str) -> Vec<u8> {
    let target: Ipv6Addr = target.parse().expect("an IPv6 address");
    let t = target.octets();
    let group: IpAddr =
        format!("ff02::1:ff{:02x}:{:02x}{:02x}", t[13], t[14], t[15]).parse().expect("an IPv6 address");
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(t);
    message.extend([1, 1]);
    message.extend(C0);
    let ip = Ip { ttl: 255, ..Ip::default() };
    let packet = icmp_packet(source.parse().expect("an IPv6 address"), group, &message, &ip);
    ethernet([0x33, 0x33, 0xff, t[13], t[14], t[15]], C0, &packet)
}

/// An ARP request from the client's station to all.
pub(crate) fn arp_request(sender: &str, target: &str) -> Vec<u8> {
    let (sender, target): (Ipv4Addr, Ipv4Addr) =
        (sender.parse().expect("an address"), target.parse().expect("an address"));
    let mut message = vec![0, 1, 8, 0, 6, 4, 0, 1];
    message.extend(C0);
    message.extend(sender.octets());
    message.extend([0; 6]);
    message.extend(target.octets());
    frame([0xff; 6], C0, 0x0806, &message)
}

/// The frame around an IP packet.
pub(crate) fn ethernet(destination: [u8; 6], source: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
    frame(destination, source, ethertype, packet)
}

/// A frame of any EtherType.
pub(crate) fn frame(destination: [u8; 6], source: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&destination[..], &source, &ethertype.to_be_bytes(), payload].concat()
}

/// The frame with a VLAN tag put behind its addresses.
pub(crate) fn tagged(frame: &[u8], tpid: u16, control: u16) -> Vec<u8> {
    [&frame[..12], &tpid.to_be_bytes(), &control.to_be_bytes(), &frame[12..]].concat()
}
