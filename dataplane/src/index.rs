//! What is looked up by address when a connection is made: the virtual addresses, and the services at them.
//!
//! IPv4 has tables of its own: one word says address, port and protocol, a multiplication spreads the words, and at most
//! half of the places are taken, so that most look-ups see one place. Nobody but the operator chooses what is in them, so
//! that the spread needs no secret.

use crate::{
    conn::key::{Key, Key4, Key6},
    snapshot::ServiceKey,
    steer,
};
use hashbrown::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};

/// The addresses that the director answers for.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    v4: Words,
    v6: HashSet<[u8; 16]>,
}

impl Addresses {
    /// Whether the address is one of them.
    #[inline]
    pub fn contains(&self, address: &IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.get(address_word(address.octets())).is_some(),
            IpAddr::V6(address) => self.v6.contains(&address.octets()),
        }
    }

    /// Adds an address.
    pub fn insert(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.v4.insert(address_word(address.octets()), 0),
            IpAddr::V6(address) => {
                self.v6.insert(address.octets());
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.v4.taken == 0 && self.v6.is_empty()
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut all = Self::default();
        addresses.into_iter().for_each(|address| all.insert(address));
        all
    }
}

/// From protocol, address and port, or from a mark, to the number of a service.
#[derive(Clone, Debug, Default)]
pub struct Services {
    v4: Words,
    v6: HashMap<ServiceKey, u32>,
    /// By mark, and whether its packets are IPv6 ones.
    marks: HashMap<(u32, bool), u32>,
}

impl Services {
    /// The number of the service with that key.
    #[inline]
    pub fn get(&self, key: &ServiceKey) -> Option<u32> {
        match key.address {
            IpAddr::V4(address) => self.v4.get(service_word(address.octets(), key.port, key.protocol)),
            IpAddr::V6(_) => self.v6.get(key).copied(),
        }
    }

    /// Gives a service its number, in place of one that it had.
    pub fn insert(&mut self, key: ServiceKey, number: u32) {
        match key.address {
            IpAddr::V4(address) => {
                self.v4.insert(service_word(address.octets(), key.port, key.protocol), number);
            }
            IpAddr::V6(_) => {
                self.v6.insert(key, number);
            }
        }
    }

    /// The number of the service of packets with that mark; `v6`: of IPv6 ones.
    pub fn of_mark(&self, mark: u32, v6: bool) -> Option<u32> {
        self.marks.get(&(mark, v6)).copied()
    }

    /// Gives the service of a mark its number.
    pub fn insert_mark(&mut self, (mark, v6): (u32, bool), number: u32) {
        self.marks.insert((mark, v6), number);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.v4.taken == 0 && self.v6.is_empty() && self.marks.is_empty()
    }
}

impl FromIterator<(ServiceKey, u32)> for Services {
    fn from_iter<I: IntoIterator<Item = (ServiceKey, u32)>>(services: I) -> Self {
        let mut all = Self::default();
        services.into_iter().for_each(|(key, number)| all.insert(key, number));
        all
    }
}

/// What a key of connections is asked when a connection is made.
pub(crate) trait Asked: Key {
    /// The client's port and the virtual one.
    fn ports(&self) -> (u16, u16);

    /// The client as [`crate::steer`] takes it.
    fn far_end(&self) -> (u32, u16);

    /// Whether the other one is to the same virtual address and port by the same protocol.
    fn asks_as(&self, other: &Self) -> bool;

    /// Whether its virtual address is one of ours.
    fn is_ours(&self, addresses: &Addresses) -> bool;

    /// Whether no client can have its client address: it is ours, or none that a single station has.
    fn has_no_client(&self, addresses: &Addresses) -> bool;

    /// The service at its virtual address, for its protocol and `port`.
    fn service(&self, services: &Services, port: u16) -> Option<u32>;
}

impl Asked for Key4 {
    #[inline(always)]
    fn ports(&self) -> (u16, u16) {
        Key4::ports(self)
    }

    #[inline(always)]
    fn far_end(&self) -> (u32, u16) {
        (u32::from_be_bytes(self.client_address()), Key4::ports(self).0)
    }

    #[inline(always)]
    fn asks_as(&self, other: &Self) -> bool {
        let asked = |key: &Self| (key.virtual_address(), key.ports().1, key.protocol());
        asked(self) == asked(other)
    }

    #[inline(always)]
    fn is_ours(&self, addresses: &Addresses) -> bool {
        addresses.v4.get(address_word(self.virtual_address())).is_some()
    }

    #[inline(always)]
    fn has_no_client(&self, addresses: &Addresses) -> bool {
        let octets @ [first, ..] = self.client_address();
        // This network, loopback, multicast, broadcast (RFC 6890).
        (first == 0)
            | (first == 127)
            | (first & 0xf0 == 0xe0)
            | (octets == [0xff; 4])
            | addresses.v4.get(address_word(octets)).is_some()
    }

    #[inline(always)]
    fn service(&self, services: &Services, port: u16) -> Option<u32> {
        services.v4.get(service_word(self.virtual_address(), port, self.protocol()))
    }
}

impl Asked for Key6 {
    fn ports(&self) -> (u16, u16) {
        Key6::ports(self)
    }

    fn far_end(&self) -> (u32, u16) {
        steer::fold(&self.client_address(), Key6::ports(self).0)
    }

    fn asks_as(&self, other: &Self) -> bool {
        let asked = |key: &Self| (key.virtual_address(), key.ports().1, key.protocol());
        asked(self) == asked(other)
    }

    fn is_ours(&self, addresses: &Addresses) -> bool {
        addresses.v6.contains(&self.virtual_address())
    }

    fn has_no_client(&self, addresses: &Addresses) -> bool {
        let octets = self.client_address();
        let client = Ipv6Addr::from(octets);
        client.is_multicast()
            || client.is_loopback()
            || client.is_unspecified()
            || addresses.v6.contains(&octets)
    }

    fn service(&self, services: &Services, port: u16) -> Option<u32> {
        let key = ServiceKey { protocol: self.protocol(), address: self.virtual_service().ip(), port };
        services.v6.get(&key).copied()
    }
}

/// Never [`Words::FREE`].
#[inline(always)]
fn address_word(address: [u8; 4]) -> u64 {
    u64::from(u32::from_ne_bytes(address)) | 1 << 32
}

/// Never [`Words::FREE`]: no service has protocol 0.
#[inline(always)]
fn service_word(address: [u8; 4], port: u16, protocol: u8) -> u64 {
    u64::from(u32::from_ne_bytes(address)) << 32 | u64::from(port) << 8 | u64::from(protocol)
}

/// A map from words to numbers, probed place after place.
#[derive(Clone, Debug)]
struct Words {
    /// A power of two of them, of which at least half are free.
    places: Box<[(u64, u32)]>,
    taken: usize,
}

impl Default for Words {
    fn default() -> Self {
        Self { places: [(Self::FREE, 0); 2].into(), taken: 0 }
    }
}

impl Words {
    const FREE: u64 = 0;

    #[inline(always)]
    fn get(&self, word: u64) -> Option<u32> {
        let mask = self.places.len() - 1;
        let start = Self::start(word);
        // A table that is half free ends every search; the bound is for the reader.
        for at in start..start + self.places.len() {
            let (there, number) = self.places[at & mask];
            if there == word {
                return Some(number);
            }
            if there == Self::FREE {
                break;
            }
        }
        None
    }

    fn insert(&mut self, word: u64, number: u32) {
        if 2 * (self.taken + 1) > self.places.len() {
            let larger = vec![(Self::FREE, 0); 2 * self.places.len()].into();
            let smaller = std::mem::replace(self, Self { places: larger, taken: 0 });
            smaller
                .places
                .iter()
                .filter(|(word, _)| *word != Self::FREE)
                .for_each(|(word, number)| self.put(*word, *number));
        }
        self.put(word, number);
    }

    /// Needs a free place.
    fn put(&mut self, word: u64, number: u32) {
        let mask = self.places.len() - 1;
        let mut at = Self::start(word);
        while !matches!(self.places[at & mask].0, there if there == word || there == Self::FREE) {
            at += 1;
        }
        let place = &mut self.places[at & mask];
        self.taken += usize::from(place.0 == Self::FREE);
        *place = (word, number);
    }

    /// The place that a word is looked for first, but for the mask.
    #[inline(always)]
    fn start(word: u64) -> usize {
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::protocol;
    use proptest::prelude::*;

    fn key(protocol: u8, address: &str, port: u16) -> ServiceKey {
        ServiceKey { protocol, address: address.parse().unwrap(), port }
    }

    #[test]
    fn a_service_is_found_by_protocol_address_and_port_and_by_nothing_less() {
        let all = [
            key(protocol::TCP, "10.0.0.100", 80),
            key(protocol::UDP, "10.0.0.100", 80),
            key(protocol::TCP, "10.0.0.100", 0),
            key(protocol::TCP, "10.0.0.101", 80),
            key(protocol::TCP, "fd00::100", 80),
            key(protocol::SCTP, "fd00::100", 0),
        ];
        for left_out in 0..all.len() {
            let numbered = all.iter().enumerate().filter(|(n, _)| *n != left_out);
            let services: Services = numbered.map(|(n, key)| (*key, n as u32)).collect();
            for (n, key) in all.iter().enumerate() {
                assert_eq!(services.get(key), (n != left_out).then_some(n as u32), "{key:?}");
            }
        }
    }

    #[test]
    fn a_packet_asks_for_what_its_key_says() {
        let web = key(protocol::TCP, "10.0.0.100", 80);
        let services: Services = [(web, 7)].into_iter().collect();
        let addresses: Addresses = [web.address].into_iter().collect();
        let asks = |client: [u8; 4], service: [u8; 4], port: u16, protocol| {
            let [a, b] = port.to_be_bytes();
            let ([c0, c1, c2, c3], [s0, s1, s2, s3]) = (client, service);
            let key = Key4::from_wire([c0, c1, c2, c3, s0, s1, s2, s3], [4, 0, a, b], protocol);
            let port = key.virtual_service().port();
            (key.is_ours(&addresses), key.has_no_client(&addresses), key.service(&services, port))
        };
        assert_eq!(asks([10, 0, 0, 2], [10, 0, 0, 100], 80, 6), (true, false, Some(7)));
        assert_eq!(asks([10, 0, 0, 2], [10, 0, 0, 100], 81, 6), (true, false, None));
        assert_eq!(asks([10, 0, 0, 2], [10, 0, 0, 100], 80, 17), (true, false, None));
        assert_eq!(asks([10, 0, 0, 2], [10, 0, 0, 101], 80, 6), (false, false, None));
        for nobody in
            [[0, 0, 0, 1], [127, 0, 0, 1], [224, 0, 0, 1], [239, 1, 1, 1], [255; 4], [10, 0, 0, 100]]
        {
            assert_eq!(asks(nobody, [10, 0, 0, 100], 80, 6), (true, true, Some(7)), "{nobody:?}");
        }
        for somebody in [[1, 0, 0, 0], [126, 9, 9, 9], [128, 0, 0, 1], [223, 1, 1, 1], [240, 0, 0, 1]] {
            assert_eq!(asks(somebody, [10, 0, 0, 100], 80, 6), (true, false, Some(7)), "{somebody:?}");
        }
    }

    proptest! {
        #[test]
        fn words_are_found_as_in_a_map(inserted in prop::collection::vec((1u64..400, any::<u32>()), 0..300)) {
            let (mut words, mut model) = (Words::default(), HashMap::new());
            for (word, number) in inserted {
                words.insert(word, number);
                model.insert(word, number);
                prop_assert!(2 * words.taken <= words.places.len());
            }
            prop_assert_eq!(words.taken, model.len());
            for word in 1..400 {
                prop_assert_eq!(words.get(word), model.get(&word).copied());
            }
        }
    }
}
