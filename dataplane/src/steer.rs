//! Which worker owns a flow: a function of the client's address and port alone.
//!
//! A packet to a VIP has the client as its source, a reply of a NATed server has it as its destination: both sides find
//! the same worker without a shared table. A NIC, or the kernel's fanout (`port/af_packet/fanout.rs`), computes the same
//! function to deliver a packet to its owner at once; the worker asks it again and hands over what came astray.
//!
//! So the function is made of what a classic BPF program has: 32-bit multiplication, exclusive or, shifts.

/// Multipliers, odd, with well-mixed bits: the golden ratio, and the two of MurmurHash3's 32-bit finalizer.
pub(crate) const PORT_FACTOR: u32 = 0x9e37_79b1;
/// See [`PORT_FACTOR`].
pub(crate) const FIRST_FACTOR: u32 = 0x85eb_ca6b;
/// See [`PORT_FACTOR`].
pub(crate) const SECOND_FACTOR: u32 = 0xc2b2_ae35;
/// Bits to shift by between the multiplications.
pub(crate) const SHIFT: u32 = 15;

/// Mixes a client's address (IPv4 as a number; IPv6 by [`fold`]) and port (0 for protocols without ports, and for
/// fragments). The upper bits are the better ones.
#[inline]
pub const fn hash(address: u32, port: u16) -> u32 {
    let mixed = (address ^ (port as u32).wrapping_mul(PORT_FACTOR)).wrapping_mul(FIRST_FACTOR);
    (mixed ^ (mixed >> SHIFT)).wrapping_mul(SECOND_FACTOR)
}

/// The worker, from 0, that owns the flows of this client. `workers` is at least 1 and at most
/// [`crate::limits::MAX_WORKERS`].
#[inline]
pub const fn owner(address: u32, port: u16, workers: u16) -> u16 {
    // The upper half of the hash as a fraction of `workers`: no division, and no overflow.
    (((hash(address, port) >> 16) * workers as u32) >> 16) as u16
}

/// An IPv6 address as [`hash`] takes it: the exclusive or of its four words.
#[inline]
pub const fn fold(address: &[u8; 16]) -> u32 {
    let all = u128::from_be_bytes(*address);
    (all >> 96) as u32 ^ (all >> 64) as u32 ^ (all >> 32) as u32 ^ all as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest and the smallest share of a worker, in percent of an even one.
    fn shares(workers: u16, clients: impl Iterator<Item = (u32, u16)>) -> (usize, usize) {
        let mut counts = vec![0_usize; usize::from(workers)];
        for (address, port) in clients {
            counts[usize::from(owner(address, port, workers))] += 1;
        }
        let even = counts.iter().sum::<usize>() / counts.len();
        (counts.iter().min().unwrap() * 100 / even, counts.iter().max().unwrap() * 100 / even)
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
        for workers in [2, 3, 4, 8] {
            let one_host = (32_768..61_000).map(|port| (0x0a00_0001, port));
            let one_host_even_ports = (32_768..61_000).step_by(2).map(|port| (0x0a00_0001, port));
            let a_network = (0..65_536).map(|host| (0xc0a8_0000 | host, 40_000));
            let addresses_alone = (0..65_536).map(|host| (0x0a00_0000 | host, 0));
            for (low, high) in [
                shares(workers, one_host),
                shares(workers, one_host_even_ports),
                shares(workers, a_network),
                shares(workers, addresses_alone),
            ] {
                assert!(low >= 90 && high <= 110, "{workers} workers: {low} to {high} percent");
            }
        }
    }

    #[test]
    fn an_ipv6_address_folds_to_the_exclusive_or_of_its_words() {
        let address = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 1, 0xff, 0, 0, 0, 0, 0, 0x12, 0x34];
        // 20010db8 ^ 00000001 ^ ff000000 ^ 00001234
        assert_eq!(fold(&address), 0xdf01_1f8d);
    }

    #[test]
    fn the_hash_does_not_change() {
        // From the formula in Python's whole numbers.
        assert_eq!(hash(0xc000_0201, 40_000), 0x1b76_fb11);
        assert_eq!(owner(0xc000_0201, 40_000, 4), 0);
        assert_eq!(hash(0xdf01_1f8d, 443), 0x752a_d066);
        assert_eq!(owner(0xdf01_1f8d, 443, 3), 1);
    }
}
