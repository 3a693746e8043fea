//! The kernel's share of steering: a classic BPF program that computes [`crate::steer::owner`] for each frame.
//!
//! The program runs with the packet at its network header, behind VLAN tags that the kernel has taken out. Whatever it
//! cannot know (a frame cut off, a second VLAN tag, IPv6 extension headers) it gives to some worker, which hands it to
//! its owner: only the counter of handoffs depends on it.

use crate::{
    port::sys::abi::Instruction,
    steer::{BUCKETS, SCATTER},
};

/// A filter that lets no frame in.
pub(super) const NOTHING: [Instruction; 1] = [op(RET, 0)];

// Instruction codes of linux/bpf_common.h, as they are put together there.
const LD_W: u16 = 0x20;
const LD_H: u16 = 0x28;
const LD_B: u16 = 0x30;
/// A half word at X + k.
const LD_H_X: u16 = 0x48;
/// From and to scratch memory.
const LD_MEM: u16 = 0x60;
const ST: u16 = 0x02;
const LD_IMM: u16 = 0x00;
const LDX_IMM: u16 = 0x01;
const LDX_MEM: u16 = 0x61;
/// X = 4 * (byte at k & 0xf): the length of an IPv4 header.
const LDX_HEADER_LEN: u16 = 0xb1;
const TAX: u16 = 0x07;
const MUL: u16 = 0x24;
const RSH: u16 = 0x74;
const XOR_X: u16 = 0xac;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;
const RET_A: u16 = 0x16;

/// Where the program reads the EtherType, in place of bytes (`SKF_AD_OFF + SKF_AD_PROTOCOL`).
const ETHERTYPE: u32 = -0x1000_i32 as u32;
/// The cells of scratch memory: for the address, and for what is hashed like a port.
const ADDRESS: u32 = 0;
const PORT: u32 = 1;
/// Bits of the number of a bucket.
const BITS: u32 = BUCKETS.ilog2();

const fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, k }
}

const fn jump(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, k }
}

/// Leaves the number of a frame's owner among `workers`.
pub(super) const fn owner_program(workers: u16) -> [Instruction; 55] {
    [
        op(LD_W, ETHERTYPE),
        jump(JEQ, 0x86dd, 11, 0), // to IPv6
        jump(JEQ, 0x0800, 1, 0),  // to IPv4
        op(RET, 0),               // neither: ARP
        // IPv4
        op(LD_IMM, 0),
        op(ST, PORT),
        op(LD_W, 12),
        op(ST, ADDRESS),
        op(LDX_HEADER_LEN, 0),
        op(LD_H, 6),
        jump(JSET, 0x3fff, 16, 0), // a fragment: no ports
        op(LD_B, 9),
        op(JA, 9), // to the protocol
        // IPv6: the first and the last word of the source address, and its fifth group
        op(LD_W, 8),
        op(TAX, 0),
        op(LD_W, 20),
        op(XOR_X, 0),
        op(ST, ADDRESS),
        op(LD_H, 16),
        op(ST, PORT),
        op(LDX_IMM, 40),
        op(LD_B, 6),
        // The protocol in A, the length of the header in X: TCP, UDP and SCTP begin with the source port
        jump(JEQ, 6, 2, 0),
        jump(JEQ, 17, 1, 0),
        jump(JEQ, 132, 0, 2), // else no ports
        op(LD_H_X, 0),
        op(JA, 1),
        op(LD_IMM, 0),
        // The port in A: its share of the bucket
        op(LDX_MEM, PORT),
        op(XOR_X, 0),
        op(TAX, 0),
        op(RSH, 1),
        op(XOR_X, 0),
        op(TAX, 0),
        op(RSH, 8),
        op(XOR_X, 0),
        op(ST, PORT),
        // The address's
        op(LD_MEM, ADDRESS),
        op(TAX, 0),
        op(RSH, 7),
        op(XOR_X, 0),
        op(TAX, 0),
        op(RSH, 14),
        op(XOR_X, 0),
        op(LDX_MEM, PORT),
        op(XOR_X, 0),
        op(TAX, 0),
        op(LD_MEM, ADDRESS),
        op(RSH, 25),
        op(XOR_X, 0),
        // The bucket and what is above it in A: the bucket's place, and the owner
        op(MUL, SCATTER << (32 - BITS)),
        op(RSH, 32 - BITS),
        op(MUL, workers as u32),
        op(RSH, BITS),
        op(RET_A, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steer;
    use proptest::prelude::*;

    /// What the kernel does with a program (Documentation/networking/filter.rst), as far as ours go. A read behind the
    /// end of the packet ends with 0.
    fn run(program: &[Instruction], ethertype: u16, packet: &[u8]) -> u32 {
        let load = |at: usize, len: usize| {
            Some(packet.get(at..at + len)?.iter().fold(0_u32, |value, byte| value << 8 | u32::from(*byte)))
        };
        let (mut a, mut x, mut memory, mut at) = (0_u32, 0_u32, [0_u32; 2], 0);
        loop {
            let Instruction { code, jump_true, jump_false, k } = program[at];
            at += 1;
            let loaded = match code {
                LD_W if k == ETHERTYPE => Some(u32::from(ethertype)),
                LD_W => load(k as usize, 4),
                LD_H => load(k as usize, 2),
                LD_H_X => load((x + k) as usize, 2),
                LD_B => load(k as usize, 1),
                LDX_HEADER_LEN => {
                    let Some(byte) = load(k as usize, 1) else { return 0 };
                    x = (byte & 0xf) * 4;
                    Some(a)
                }
                LD_MEM => Some(memory[k as usize]),
                LD_IMM => Some(k),
                MUL => Some(a.wrapping_mul(k)),
                RSH => Some(a >> k),
                XOR_X => Some(a ^ x),
                RET => return k,
                RET_A => return a,
                _ => Some(a),
            };
            let Some(loaded) = loaded else { return 0 };
            a = loaded;
            match code {
                ST => memory[k as usize] = a,
                TAX => x = a,
                LDX_IMM => x = k,
                LDX_MEM => x = memory[k as usize],
                JA => at += k as usize,
                JEQ => at += usize::from(if a == k { jump_true } else { jump_false }),
                JSET => at += usize::from(if a & k != 0 { jump_true } else { jump_false }),
                _ => {}
            }
        }
    }

    fn with_ports(protocol: u8) -> bool {
        [6, 17, 132].contains(&protocol)
    }

    proptest! {
        #[test]
        fn ipv4_goes_to_its_owner(source: [u8; 4], port: u16, protocol in prop_oneof![Just(6_u8), Just(17), Just(132), any::<u8>()],
            options in 0_usize..=10, fragment in prop_oneof![Just(0_u16), Just(0x4000), any::<u16>()], workers in 1_u16..=64) {
            let mut packet = vec![0; 24 + options * 4];
            packet[0] = 0x45 + options as u8;
            packet[6..8].copy_from_slice(&fragment.to_be_bytes());
            packet[9] = protocol;
            packet[12..16].copy_from_slice(&source);
            packet[20 + options * 4..][..2].copy_from_slice(&port.to_be_bytes());
            let port = if with_ports(protocol) && fragment & 0x3fff == 0 { port } else { 0 };
            let owner = steer::owner(u32::from_be_bytes(source), port, workers);
            prop_assert_eq!(run(&owner_program(workers), 0x0800, &packet), u32::from(owner));
        }

        #[test]
        fn ipv6_goes_to_its_owner(source: [u8; 16], port: u16, protocol in prop_oneof![Just(6_u8), Just(17), Just(132), any::<u8>()], workers in 1_u16..=64) {
            let mut packet = vec![0; 44];
            packet[0] = 0x60;
            packet[6] = protocol;
            packet[8..24].copy_from_slice(&source);
            packet[40..42].copy_from_slice(&port.to_be_bytes());
            let (address, port) = steer::fold(&source, if with_ports(protocol) { port } else { 0 });
            let owner = steer::owner(address, port, workers);
            prop_assert_eq!(run(&owner_program(workers), 0x86dd, &packet), u32::from(owner));
        }

        #[test]
        fn any_other_packet_goes_to_some_worker(ethertype: u16, packet in proptest::collection::vec(any::<u8>(), 0..60), workers in 1_u16..=64) {
            prop_assert!(run(&owner_program(workers), ethertype, &packet) < u32::from(workers));
        }
    }
}
