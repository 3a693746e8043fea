//! What a connection is known by: protocol, client and virtual address with their ports, laid out so that it is read from
//! a header with two or three loads and compared with as many.

use bytemuck::Zeroable;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A key of the connection table.
pub trait Key: Copy + Eq + Zeroable + Send + 'static {
    /// A hash that an attacker who does not know `secret` cannot steer.
    fn hash(&self, secret: &[u64; 2]) -> u64;
    /// CIP and its port.
    fn client(&self) -> SocketAddr;
    /// VIP and its port.
    fn virtual_service(&self) -> SocketAddr;
    /// IP protocol number.
    fn protocol(&self) -> u8;
    /// The key of packets the other way.
    fn turned(&self) -> Self;
    /// The same with this source address, and this port unless it is 0. `None` if the address is of the other family.
    fn with_source_address(&self, address: IpAddr, port: u16) -> Option<Self>;
}

/// Of an IPv4 connection. Addresses and ports are in the byte order of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable)]
#[repr(C)]
pub struct Key4 {
    /// Source address (CIP), then destination address (VIP): bytes 12..20 of an IPv4 header.
    addresses: u64,
    /// Source port, destination port: the first four bytes of a transport header; then the protocol.
    ports: u64,
}

/// Of an IPv6 connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable)]
#[repr(C)]
pub struct Key6 {
    client: [u64; 2],
    service: [u64; 2],
    ports: u64,
}

/// An odd word without structure: the fraction of the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Multiplies to 128 bits and folds. The halves of one product alone are not a hash: for one secret in a hundred the low
/// bits of both run in step over the ports of a client and cancel, so that hashes are products of products.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Key4 {
    /// The key of no packet.
    pub(crate) const ZERO: Key4 = Key4 { addresses: 0, ports: 0 };

    /// From bytes 12..20 of an IPv4 header and the first four of a transport header.
    #[inline]
    pub fn from_wire(addresses: [u8; 8], ports: [u8; 4], protocol: u8) -> Self {
        Self {
            addresses: u64::from_ne_bytes(addresses),
            ports: u64::from(u32::from_ne_bytes(ports)) | (u64::from(protocol) << 32),
        }
    }

    /// The same from words as they are read from memory in little-endian order.
    #[inline]
    pub(crate) fn from_words(addresses: u64, ports: u32, protocol: u8) -> Self {
        Self::from_wire(addresses.to_le_bytes(), ports.to_le_bytes(), protocol)
    }

    fn addresses(&self) -> [u8; 8] {
        self.addresses.to_ne_bytes()
    }

    /// CIP in the byte order of the wire.
    #[inline]
    pub fn client_address(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.addresses();
        [a, b, c, d]
    }

    /// VIP in the byte order of the wire.
    #[inline]
    pub fn virtual_address(&self) -> [u8; 4] {
        let [.., a, b, c, d] = self.addresses();
        [a, b, c, d]
    }

    /// Client port and virtual port.
    #[inline]
    pub fn ports(&self) -> (u16, u16) {
        ports_of(self.ports)
    }
}

#[inline]
fn ports_of(ports: u64) -> (u16, u16) {
    let [a, b, c, d] = (ports as u32).to_ne_bytes();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// Source and destination port changed round.
#[inline]
fn turned(ports: u64) -> u64 {
    ports & !0xffff_ffff | u64::from((ports as u32).rotate_left(16))
}

/// With another source port, unless that is 0.
#[inline]
fn with_source(ports: u64, port: u16) -> u64 {
    if port == 0 {
        return ports;
    }
    let ([a, b], [_, _, c, d]) = (port.to_be_bytes(), (ports as u32).to_ne_bytes());
    ports & !0xffff_ffff | u64::from(u32::from_ne_bytes([a, b, c, d]))
}

impl Key for Key4 {
    #[inline]
    fn hash(&self, secret: &[u64; 2]) -> u64 {
        mix(mix(self.addresses ^ secret[0], self.ports ^ secret[1]), SPREAD)
    }

    fn client(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(self.client_address())), self.ports().0)
    }

    fn virtual_service(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(self.virtual_address())), self.ports().1)
    }

    #[inline]
    fn protocol(&self) -> u8 {
        (self.ports >> 32) as u8
    }

    #[inline]
    fn turned(&self) -> Self {
        Self { addresses: self.addresses.rotate_left(32), ports: turned(self.ports) }
    }

    #[inline]
    fn with_source_address(&self, address: IpAddr, port: u16) -> Option<Self> {
        let IpAddr::V4(address) = address else { return None };
        let ([a, b, c, d], [.., e, f, g, h]) = (address.octets(), self.addresses());
        Some(Self {
            addresses: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            ports: with_source(self.ports, port),
        })
    }
}

impl Key6 {
    /// From bytes 8..40 of an IPv6 header and the first four of a transport header.
    #[inline]
    pub fn from_wire(client: [u8; 16], service: [u8; 16], ports: [u8; 4], protocol: u8) -> Self {
        Self {
            client: bytemuck::cast(client),
            service: bytemuck::cast(service),
            ports: u64::from(u32::from_ne_bytes(ports)) | (u64::from(protocol) << 32),
        }
    }

    /// CIP in the byte order of the wire.
    #[inline]
    pub fn client_address(&self) -> [u8; 16] {
        bytemuck::cast(self.client)
    }

    /// VIP in the byte order of the wire.
    #[inline]
    pub fn virtual_address(&self) -> [u8; 16] {
        bytemuck::cast(self.service)
    }

    /// Client port and virtual port.
    #[inline]
    pub fn ports(&self) -> (u16, u16) {
        ports_of(self.ports)
    }
}

impl Key for Key6 {
    #[inline]
    fn hash(&self, secret: &[u64; 2]) -> u64 {
        let client = mix(self.client[0] ^ secret[0], self.client[1] ^ secret[1]);
        let service = mix(self.service[0] ^ secret[1], self.service[1] ^ secret[0]);
        mix(mix(client ^ self.ports ^ secret[0], service ^ secret[1]), SPREAD)
    }

    fn client(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(Ipv6Addr::from(self.client_address())), self.ports().0)
    }

    fn virtual_service(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(Ipv6Addr::from(self.virtual_address())), self.ports().1)
    }

    #[inline]
    fn protocol(&self) -> u8 {
        (self.ports >> 32) as u8
    }

    #[inline]
    fn turned(&self) -> Self {
        Self { client: self.service, service: self.client, ports: turned(self.ports) }
    }

    #[inline]
    fn with_source_address(&self, address: IpAddr, port: u16) -> Option<Self> {
        let IpAddr::V6(address) = address else { return None };
        Some(Self { client: bytemuck::cast(address.octets()), ports: with_source(self.ports, port), ..*self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_key_gives_back_what_it_was_made_of() {
        let key = Key4::from_wire([10, 0, 0, 2, 10, 0, 0, 100], [0x1f, 0x90, 0, 80], 6);
        assert_eq!(key.client(), "10.0.0.2:8080".parse().unwrap());
        assert_eq!(key.virtual_service(), "10.0.0.100:80".parse().unwrap());
        assert_eq!(key.protocol(), 6);
    }

    #[test]
    fn an_ipv6_key_gives_back_what_it_was_made_of() {
        let client: Ipv6Addr = "fd00:1::2".parse().unwrap();
        let service: Ipv6Addr = "fd00:1::100".parse().unwrap();
        let key = Key6::from_wire(client.octets(), service.octets(), [0x1f, 0x90, 0, 80], 17);
        assert_eq!(key.client(), "[fd00:1::2]:8080".parse().unwrap());
        assert_eq!(key.virtual_service(), "[fd00:1::100]:80".parse().unwrap());
        assert_eq!(key.protocol(), 17);
    }

    #[test]
    fn a_key_turned_round_is_that_of_the_answers() {
        let key = Key4::from_wire([10, 0, 0, 2, 10, 0, 0, 100], [0x1f, 0x90, 0, 80], 6);
        let answer = key.turned().with_source_address([192, 168, 50, 11].into(), 8081).unwrap();
        let expected = Key4::from_wire([192, 168, 50, 11, 10, 0, 0, 2], [0x1f, 0x91, 0x1f, 0x90], 6);
        assert_eq!(answer, expected);
        assert_eq!(key.turned().with_source_address([10, 0, 0, 100].into(), 0), Some(key.turned()));
        assert_eq!(key.turned().with_source_address("fd00::1".parse().unwrap(), 1), None);
        let (client, service): (Ipv6Addr, Ipv6Addr) =
            ("fd00:1::2".parse().unwrap(), "fd00:1::100".parse().unwrap());
        let server: Ipv6Addr = "fd00:50::12".parse().unwrap();
        let key = Key6::from_wire(client.octets(), service.octets(), [0x1f, 0x90, 0, 80], 17);
        let expected = Key6::from_wire(server.octets(), client.octets(), [0x1f, 0x91, 0x1f, 0x90], 17);
        assert_eq!(key.turned().with_source_address(server.into(), 8081), Some(expected));
    }

    #[test]
    fn every_field_of_a_key_moves_its_hash() {
        let secret = [0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321];
        let base = Key4::from_wire([1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 12], 6);
        let others = [
            Key4::from_wire([1, 2, 3, 5, 5, 6, 7, 8], [9, 10, 11, 12], 6),
            Key4::from_wire([1, 2, 3, 4, 5, 6, 7, 9], [9, 10, 11, 12], 6),
            Key4::from_wire([1, 2, 3, 4, 5, 6, 7, 8], [9, 11, 11, 12], 6),
            Key4::from_wire([1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 13], 6),
            Key4::from_wire([1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 12], 17),
        ];
        for other in others {
            assert_ne!(base.hash(&secret), other.hash(&secret), "{other:?}");
        }
    }
}
