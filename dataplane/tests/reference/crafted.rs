//! Packets as they are sent, and what they should have become, each made from nothing.

use crate::{
    model::{ACK, FIN, Flow, RST, SYN},
    support::frames::{Ip, Segment, checksum, data, icmp_packet, pseudo_header, udp_packet},
};
use std::net::{IpAddr, SocketAddr};

/// A TCP segment or a datagram.
#[derive(Clone, Debug)]
pub(crate) struct Crafted {
    pub(crate) flow: Flow,
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) len: usize,
    pub(crate) ip: Ip,
}

impl Crafted {
    pub(crate) fn packet(&self) -> Vec<u8> {
        let Flow { tcp, client, service } = self.flow;
        let ip = self.ip.clone();
        if tcp {
            let Self { flags, seq, ack, len, .. } = *self;
            let text = String::new();
            return Segment { client, service, flags, seq, ack, len, text, ip }.packet();
        }
        udp_packet(&client.to_string(), &service.to_string(), &data(self.len), &ip)
    }

    /// The same from and to these, with a lower TTL.
    pub(crate) fn forwarded(&self, client: SocketAddr, service: SocketAddr) -> Vec<u8> {
        let mut changed = self.clone();
        changed.flow = Flow { client, service, ..self.flow };
        changed.ip.ttl -= 1;
        changed.packet()
    }

    /// The packet with a lower TTL.
    pub(crate) fn lowered(&self) -> Vec<u8> {
        self.forwarded(self.flow.client, self.flow.service)
    }

    /// The packet in which a station without such a connection refuses this one (RFC 9293 section 3.10.7.1).
    pub(crate) fn reset(&self) -> Vec<u8> {
        let (from, to) = (self.flow.service, self.flow.client);
        let took = self.len as u32 + u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        let (seq, ack, flags) = match self.flags & ACK {
            0 => (0, self.seq.wrapping_add(took), RST | ACK),
            _ => (self.ack, 0, RST),
        };
        let mut bytes = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        bytes.extend(seq.to_be_bytes());
        bytes.extend(ack.to_be_bytes());
        bytes.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
        let pseudo = pseudo_header(from.ip(), to.ip(), 6, bytes.len());
        let sum = checksum(&[pseudo, bytes.clone()].concat());
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        let ip = Ip { ttl: 64, tos: self.ip.tos & 0xfc, id: 0, fragment: 0x4000, options: Vec::new() };
        ip.packet(from.ip(), to.ip(), 6, &bytes)
    }

    /// The ICMP error of `from` that quotes `quoted`, which is this packet in some form.
    fn error(&self, from: IpAddr, quoted: &[u8], v4: (u8, u8), v6: (u8, u8), rest: u32) -> Vec<u8> {
        let is_v6 = from.is_ipv6();
        let (kind, code) = if is_v6 { v6 } else { v4 };
        let most = if is_v6 { 1280 - 48 } else { 576 - 28 };
        let head = [&[kind, code, 0, 0][..], &rest.to_be_bytes()].concat();
        let message = [&head[..], &quoted[..quoted.len().min(most)]].concat();
        let tos = if is_v6 { 0 } else { self.ip.tos & 0x1e | 0xc0 };
        let ip = Ip { ttl: 64, tos, id: self.ip.id, fragment: 0, options: Vec::new() };
        icmp_packet(from, self.flow.client.ip(), &message, &ip)
    }

    pub(crate) fn unreachable(&self) -> Vec<u8> {
        self.error(self.flow.service.ip(), &self.packet(), (3, 3), (1, 4), 0)
    }

    /// TTL over, as `from` says it.
    pub(crate) fn expired(&self, from: IpAddr) -> Vec<u8> {
        self.error(from, &self.packet(), (11, 0), (3, 0), 0)
    }

    /// Larger than `mtu`.
    pub(crate) fn too_big(&self, from: IpAddr, quoted: &[u8], mtu: u32) -> Vec<u8> {
        self.error(from, quoted, (3, 4), (2, 0), mtu)
    }
}

/// The packet behind an outer header of its own family; `number` is that of the outer packet if it may be fragmented.
pub(crate) fn in_tunnel(packet: &[u8], to: IpAddr, number: u16) -> Vec<u8> {
    let v6 = packet[0] >> 4 == 6;
    let (from, class, ttl): (IpAddr, u8, u8) = if v6 {
        ("fd00:50::1".parse().expect("an address"), packet[0] << 4 | packet[1] >> 4, packet[7])
    } else {
        ([192, 168, 50, 1].into(), packet[1], packet[8])
    };
    // "Congestion experienced" travels as ECT(0).
    let tos = if class & 3 == 3 { class & 0xfc | 2 } else { class };
    let df = !v6 && packet[6] & 0x40 != 0;
    let (id, fragment) = if df { (0, 0x4000) } else { (number, 0) };
    let ip = Ip { ttl, tos, id, fragment, options: Vec::new() };
    ip.packet(from, to, if v6 { 41 } else { 4 }, packet)
}

/// An ICMP error that is sent on: its first eight bytes, what it quotes, of which the first `kept` bytes are there.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) head: [u8; 8],
    pub(crate) about: Crafted,
    pub(crate) kept: usize,
    pub(crate) ip: Ip,
}

impl Report {
    fn quoting(&self, quoted: &[u8], from: IpAddr, to: IpAddr, ttl: u8) -> Vec<u8> {
        let message = [&self.head[..], &quoted[..self.kept.min(quoted.len())]].concat();
        icmp_packet(from, to, &message, &Ip { ttl, ..self.ip.clone() })
    }

    pub(crate) fn packet(&self) -> Vec<u8> {
        self.quoting(&self.about.packet(), self.from, self.to, self.ip.ttl)
    }

    pub(crate) fn lowered(&self) -> Vec<u8> {
        self.quoting(&self.about.packet(), self.from, self.to, self.ip.ttl - 1)
    }

    /// The same with other addresses, and one about a packet of another flow; the checksum of the quoted transport header
    /// stays.
    pub(crate) fn translated(&self, from: IpAddr, to: IpAddr, flow: Flow) -> Vec<u8> {
        let mut about = self.about.clone();
        about.flow = flow;
        let (mut quoted, was) = (about.packet(), self.about.packet());
        let at = if from.is_ipv6() { 40 } else { 20 } + if flow.tcp { 16 } else { 6 };
        quoted[at..at + 2].copy_from_slice(&was[at..at + 2]);
        self.quoting(&quoted, from, to, self.ip.ttl - 1)
    }
}
