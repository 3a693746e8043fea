//! Maglev hashing as its paper and the specification tell it: whole lists of wanted places, and SipHash-1-3 of one word.

use std::net::IpAddr;

const PLACES: u64 = 4093;
const FIRST: u64 = 2_654_435_761;
const SECOND: u64 = 2_654_446_892;

/// An address as one word: of IPv6 the exclusive or of its four.
pub(crate) fn word(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => u32::from_be_bytes(address.octets()),
        IpAddr::V6(address) => {
            let words = address.octets();
            words.chunks(4).fold(0, |all, w| all ^ u32::from_be_bytes([w[0], w[1], w[2], w[3]]))
        }
    }
}

/// One round of SipHash.
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// Four bytes under a key of twice the same word, the low half of the result.
fn sip(message: u32, key: u64) -> u64 {
    let text = b"somepseudorandomlygeneratedbytes";
    let mut v = [0_u64; 4];
    for (n, word) in text.chunks(8).enumerate() {
        v[n] = key ^ u64::from_be_bytes(word.try_into().expect("eight"));
    }
    // The only block: the message, zeroes, and its length in the last byte.
    let mut block = [0_u8; 8];
    block[..4].copy_from_slice(&message.to_le_bytes());
    block[7] = 4;
    let block = u64::from_le_bytes(block);
    v[3] ^= block;
    round(&mut v);
    v[0] ^= block;
    v[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut v);
    }
    (v[0] ^ v[1] ^ v[2] ^ v[3]) & 0xffff_ffff
}

/// The place of a client.
pub(crate) fn place(address: IpAddr) -> usize {
    (sip(word(address), FIRST) % PLACES) as usize
}

/// For each place the number of the server that has it. Servers are given as word (address and port) and last weight.
pub(crate) fn table(servers: &[(u32, u64)]) -> Vec<usize> {
    let heaviest = servers.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
    if heaviest == 0 {
        return Vec::new();
    }
    let divides = |d: &u64| servers.iter().all(|(_, weight)| weight % d == 0);
    let divisor = (1..=heaviest).rev().find(divides).expect("1 does");
    let mut shift = 0;
    while (heaviest / divisor) >> shift > 63 {
        shift += 1;
    }
    let mut table = vec![usize::MAX; PLACES as usize];
    let mut wanted: Vec<_> = servers
        .iter()
        .map(|(word, _)| {
            let (offset, skip) = (sip(*word, FIRST) % PLACES, sip(*word, SECOND) % (PLACES - 1) + 1);
            (0..PLACES).map(move |n| ((offset + n * skip) % PLACES) as usize)
        })
        .collect();
    loop {
        for (number, (_, weight)) in servers.iter().enumerate() {
            let turns = if *weight == 0 { 0 } else { ((weight / divisor) >> shift).max(1) };
            for _ in 0..turns {
                match wanted[number].find(|place| table[*place] == usize::MAX) {
                    Some(place) => table[place] = number,
                    // It has asked for every place: none is free.
                    None => return table,
                }
            }
        }
    }
}

#[test]
fn the_places_are_those_that_were_measured() {
    assert_eq!(place([10, 0, 0, 1].into()), 3711);
    assert_eq!(sip(word([10, 0, 0, 1].into()), FIRST), 0x0308_0ce4);
}
