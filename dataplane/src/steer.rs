//! Which worker owns a flow: a function of the client's address and port alone.
//!
//! A packet to a VIP has the client as its source, a reply of a NATed server has it as its destination: both sides find
//! the same worker without a shared table. A NIC, or the kernel's fanout (`port/af_packet/fanout.rs`), computes the same
//! function to deliver a packet to its owner at once; the worker asks it again and hands over what came astray.
//!
//! So the function is one that NICs have. They choose a queue by Toeplitz's hash of addresses and ports (Microsoft,
//! "Introduction to Receive Side Scaling"), by a key and a table from the hash's low bits to queues, both of which a
//! driver may write. Each bit of the key lets the hash see 32 bits of the packet, shifted: bit `n` of the key puts bit
//! `n - 31 + w` of the packet to weight `w` of the hash. A key of few bits ([`key`]) is therefore an exclusive or of a few
//! shifted words, of the client alone though the NIC hashes the server too; [`bucket`] writes the same down. What such a
//! sum lacks in mixing, the table ([`table`]) has: consecutive buckets are not of one worker.
//!
//! There is no secret in it, as there is none in the keys that NICs come with: who knows it can choose clients that are
//! all of one worker, and so overload that worker first. He cannot choose them to meet in its table of connections, which
//! has a secret of its own (`conn/key.rs`).

/// What the hash chooses among: as many as the smallest table that NICs commonly have.
pub const BUCKETS: usize = 128;

/// Scatters neighbouring buckets over the workers: odd, so that each bucket has a place of its own, and far from simple
/// fractions of [`BUCKETS`], so that neither the clients of a small network nor those in large steps fall to few workers.
pub(crate) const SCATTER: u32 = 49;

/// The bucket of a client's address (IPv4 as a number; IPv6 by [`fold`]) and port (0 for protocols without ports, and for
/// fragments). Any seven bits in a row of the port, and of the last 25 of the address, decide it alone.
#[inline]
pub const fn bucket(address: u32, port: u16) -> u32 {
    sum(address, port) % BUCKETS as u32
}

/// [`bucket`], with any bits above.
#[inline]
const fn sum(address: u32, port: u16) -> u32 {
    let (first, second) = (address ^ (address >> 7), port as u32 ^ (port as u32 >> 1));
    first ^ (first >> 14) ^ (address >> 25) ^ second ^ (second >> 8)
}

/// The worker, from 0, that owns the flows of this client. `workers` is at least 1 and at most
/// [`crate::limits::MAX_WORKERS`].
///
/// Each has the whole part of [`BUCKETS`] / `workers` buckets or one more: shares differ by 3 % with three workers, by
/// nothing with 2, 4, 8 or 16, by a half with 48.
#[inline]
pub const fn owner(address: u32, port: u16, workers: u16) -> u16 {
    // The bucket's place as a fraction of 2^32, whatever is above the bucket being lost.
    let place = sum(address, port).wrapping_mul(SCATTER << (32 - BUCKETS.ilog2()));
    ((place as u64 * workers as u64) >> 32) as u16
}

/// An IPv6 address and a port as [`bucket`] takes them: the first and the last word of the address, and its fifth group
/// with the port. What lies between a NIC could not leave out of IPv4's hash, of which it is server or server's port.
#[inline]
pub const fn fold(address: &[u8; 16], port: u16) -> (u32, u16) {
    let all = u128::from_be_bytes(*address);
    ((all >> 96) as u32 ^ all as u32, (all >> 48) as u16 ^ port)
}

/// On which side of the director a device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// The client is the source of what it receives.
    #[default]
    Outside,
    /// It is the destination: replies of NATed servers.
    Inside,
}

/// Bytes of [`key`].
pub const KEY_LEN: usize = 40;

/// The key by which a NIC's Toeplitz hash of source address, destination address, source port and destination port has
/// [`bucket`] in its low bits, backwards ([`table`]).
///
/// [`Side::Inside`] the hash of IPv6 has bits of the servers' addresses too (from the third, the fourth and the sixth
/// group): where these are not 0, replies are handed to their owners.
pub const fn key(side: Side) -> [u8; KEY_LEN] {
    // Where the shifted words of `sum` begin in the client's address and in its port.
    const ADDRESS: [usize; 5] = [25, 18, 11, 4, 0];
    const PORT: [usize; 4] = [9, 8, 1, 0];
    let (address4, port4, address6, port6) = match side {
        Side::Outside => (0, 64, 0, 256),
        Side::Inside => (32, 80, 128, 272),
    };
    let words = [(true, address4), (true, address6), (true, address6 + 96)];
    let halves = [(false, port4), (false, port6), (false, address6 + 64)];
    let mut key = [0; KEY_LEN];
    let mut i = 0;
    while i < 6 {
        let (is_word, start) = if i < 3 { words[i] } else { halves[i - 3] };
        let mut j = 0;
        while j < if is_word { ADDRESS.len() } else { PORT.len() } {
            let bit = start + 31 + if is_word { ADDRESS[j] } else { PORT[j] };
            key[bit / 8] |= 0x80 >> (bit % 8);
            j += 1;
        }
        i += 1;
    }
    key
}

/// A NIC's table from the low bits of its hash to the worker, for [`key`].
pub fn table(workers: u16) -> [u16; BUCKETS] {
    std::array::from_fn(|index| {
        // The low bits are the bucket's backwards. A client of this bucket: that of port 0 and of the address alike.
        let bucket = (index as u32).reverse_bits() >> (32 - BUCKETS.ilog2());
        owner(bucket, 0, workers)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Toeplitz's hash as Microsoft's documentation has it: for each bit of the input that is 1, the 32 bits of the key
    /// that begin at its place.
    fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
        let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (7 - at % 8) & 1 == 1;
        let window = |at: usize| (at..at + 32).fold(0_u32, |word, at| word << 1 | u32::from(bit(key, at)));
        (0..input.len() * 8).filter(|at| bit(input, *at)).fold(0, |hash, at| hash ^ window(at))
    }

    /// What a NIC hashes.
    fn input(source: &[u8], destination: &[u8], ports: Option<(u16, u16)>) -> Vec<u8> {
        let ports = ports.map(|(source, destination)| [source.to_be_bytes(), destination.to_be_bytes()]);
        [
            source,
            destination,
            ports.unwrap_or_default().concat().get(..if ports.is_some() { 4 } else { 0 }).unwrap(),
        ]
        .concat()
    }

    #[test]
    fn the_textbook_hash_is_that_of_microsofts_documentation() {
        // "Verifying the RSS hash calculation": the key, and for each pair the hash with and without ports.
        let key: [u8; 40] = [
            0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
            0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
            0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
        ];
        for (destination, source, with, without) in [
            ("161.142.100.80:1766", "66.9.149.187:2794", 0x51cc_c178, 0x323e_8fc2),
            ("65.69.140.83:4739", "199.92.111.2:14230", 0xc626_b0ea, 0xd718_262a),
            ("12.22.207.184:38024", "24.19.198.95:12898", 0x5c2b_394a, 0xd2d0_a5de),
            ("209.142.163.6:2217", "38.27.205.30:48228", 0xafc7_327f, 0x8298_9176),
            ("202.188.127.2:1303", "153.39.163.191:44251", 0x10e8_28a2, 0x5d18_09c5),
        ] {
            let (destination, source): (std::net::SocketAddrV4, std::net::SocketAddrV4) =
                (destination.parse().unwrap(), source.parse().unwrap());
            let ports = Some((source.port(), destination.port()));
            let (source, destination) = (source.ip().octets(), destination.ip().octets());
            assert_eq!(toeplitz(&key, &input(&source, &destination, ports)), with);
            assert_eq!(toeplitz(&key, &input(&source, &destination, None)), without);
        }
        let (destination, source): (std::net::Ipv6Addr, std::net::Ipv6Addr) =
            ("3ffe:2501:200:3::1".parse().unwrap(), "3ffe:2501:200:1fff::7".parse().unwrap());
        let (destination, source) = (destination.octets(), source.octets());
        assert_eq!(toeplitz(&key, &input(&source, &destination, Some((2794, 1766)))), 0x4020_7d3d);
        assert_eq!(toeplitz(&key, &input(&source, &destination, None)), 0x2cc1_8cd5);
    }

    proptest! {
        #[test]
        fn a_nic_with_the_key_and_the_table_finds_the_owner_of_ipv4(client: [u8; 4], port: u16, server: [u8; 4], service: u16, workers in 1_u16..=64) {
            let (outside, inside) = (key(Side::Outside), key(Side::Inside));
            let queue = |hash: u32| table(workers)[hash as usize % BUCKETS];
            let address = u32::from_be_bytes(client);
            let there = toeplitz(&outside, &input(&client, &server, Some((port, service))));
            let back = toeplitz(&inside, &input(&server, &client, Some((service, port))));
            prop_assert_eq!([queue(there), queue(back)], [owner(address, port, workers); 2]);
            // Fragments and ICMP have no ports.
            let there = toeplitz(&outside, &input(&client, &server, None));
            let back = toeplitz(&inside, &input(&server, &client, None));
            prop_assert_eq!([queue(there), queue(back)], [owner(address, 0, workers); 2]);
        }

        #[test]
        fn a_nic_with_the_key_and_the_table_finds_the_owner_of_ipv6(client: [u8; 16], port: u16, server: [u8; 16], service: u16, workers in 1_u16..=64) {
            let queue = |hash: u32| table(workers)[hash as usize % BUCKETS];
            let owner = |port| { let (address, port) = fold(&client, port); owner(address, port, workers) };
            let outside = key(Side::Outside);
            let there = toeplitz(&outside, &input(&client, &server, Some((port, service))));
            prop_assert_eq!(queue(there), owner(port));
            prop_assert_eq!(queue(toeplitz(&outside, &input(&client, &server, None))), owner(0));
            // The other way if the server's third, fourth and sixth group are 0.
            let inside = key(Side::Inside);
            let mut server = server;
            server[4..8].fill(0);
            server[10..12].fill(0);
            let back = toeplitz(&inside, &input(&server, &client, Some((service, port))));
            prop_assert_eq!(queue(back), owner(port));
            prop_assert_eq!(queue(toeplitz(&inside, &input(&server, &client, None))), owner(0));
        }
    }

    /// The largest and the smallest share of a worker, in percent of an even one.
    fn shares(workers: u16, clients: impl Iterator<Item = (u32, u16)>) -> (usize, usize) {
        let mut counts = vec![0_usize; usize::from(workers)];
        for (address, port) in clients {
            counts[usize::from(owner(address, port, workers))] += 1;
        }
        let all = counts.iter().sum::<usize>();
        let percent = |count: &usize| count * 100 * counts.len() / all;
        (percent(counts.iter().min().unwrap()), percent(counts.iter().max().unwrap()))
    }

    #[test]
    fn owners_are_workers() {
        for workers in [1, 2, 3, 7, 64] {
            for port in 0..=u16::MAX {
                assert!(owner(u32::from(port).wrapping_mul(0x1234_5679), port, workers) < workers);
            }
        }
    }

    #[test]
    fn clients_as_they_come_are_shared_evenly() {
        // Of 128 buckets: 42 and 43 for each of 3 workers, 25 and 26 for each of 5.
        for (workers, least, most) in
            [(2, 99, 101), (3, 97, 102), (4, 99, 101), (5, 97, 102), (8, 99, 101), (16, 98, 101)]
        {
            let one_host = (32_768..61_000).map(|port| (0x0a00_0001, port));
            let one_host_even_ports = (32_768..61_000).step_by(2).map(|port| (0x0a00_0001, port));
            let a_network = (0..65_536).map(|host| (0xc0a8_0000 | host, 40_000));
            let addresses_alone = (0..65_536).map(|host| (0x0a00_0000 | host, 0));
            let small_networks_alone = (0..256).map(|host| (0xcb00_7100 | host, 0));
            let first_of_each_network = (0..1_024).map(|net| (0x0a00_0001 | net << 8, 40_000));
            let address_and_port_in_step = (0..4_096).map(|n| (0x0a00_0100 + n, 2_000 + n as u16));
            for (low, high) in [
                shares(workers, one_host),
                shares(workers, one_host_even_ports),
                shares(workers, a_network),
                shares(workers, addresses_alone),
                shares(workers, small_networks_alone),
                shares(workers, first_of_each_network),
                shares(workers, address_and_port_in_step),
            ] {
                assert!(low >= least && high <= most, "{workers} workers: {low} to {high} percent");
            }
        }
    }

    #[test]
    fn sixteen_neighbours_are_not_of_one_worker() {
        for workers in [2, 4, 8, 16] {
            assert_eq!(shares(workers, (0..16).map(|host| (0x0a00_0100 | host, 40_000))), (100, 100));
            assert_eq!(shares(workers, (0..16).map(|host| (0x0a00_0001 | host << 8, 40_000))), (100, 100));
        }
    }

    #[test]
    fn seven_bits_in_a_row_decide_the_bucket_alone() {
        let all = |buckets: &mut dyn Iterator<Item = u32>| {
            buckets.fold(0_u128, |seen, bucket| seen | 1 << bucket) == u128::MAX
        };
        for shift in 0..=18 {
            assert!(all(&mut (0..128).map(|bits| bucket(0x0a00_0000 ^ bits << shift, 40_000))), "{shift}");
        }
        for shift in 0..=9 {
            assert!(all(&mut (0..128).map(|bits| bucket(0x0a00_0001, bits << shift))), "{shift}");
        }
    }

    #[test]
    fn an_ipv6_address_folds_with_the_port() {
        let address = [0x20, 0x01, 0x0d, 0xb8, 0, 7, 0, 1, 0xff, 0, 0, 9, 0, 0, 0x12, 0x34];
        // 20010db8 ^ 00001234; ff00 ^ 01bb
        assert_eq!(fold(&address, 443), (0x2001_1f8c, 0xfebb));
    }

    #[test]
    fn the_function_does_not_change() {
        // From the formula in Python's whole numbers.
        assert_eq!((bucket(0xc000_0201, 40_000), owner(0xc000_0201, 40_000, 4)), (87, 1));
        assert_eq!((bucket(0x2001_1f8c, 0xfebb), owner(0x2001_1f8c, 0xfebb, 3)), (64, 1));
        assert_eq!((bucket(0x0a00_0001, 1_024), owner(0x0a00_0001, 1_024, 8)), (82, 3));
    }
}
