//! The frames that a bench offers: TCP segments without data in 60 bytes (64 with the check sequence), from clients in
//! 198.18.0.0/15, the range for benchmarks (RFC 2544 appendix C.2.2), to one virtual service.
//!
//! A flow is a number: 17 bits of it choose the client's address, the rest its port. A [`Pattern`] says whose turn it is.
//! Every frame is written anew, all of it, with right checksums of IPv4 and TCP.

use pointsman_dataplane::{
    port::{Frame, memory::Generator},
    wire::{checksum, tcp},
};
use std::net::Ipv4Addr;

/// Address of the director's port.
pub const DIRECTOR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// Address of the router that the frames come from.
pub const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xfe];
/// The virtual service's address.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
/// The virtual service's port.
pub const VPORT: u16 = 80;

/// Bytes of a frame without its check sequence.
pub const FRAME_LEN: usize = 60;

const CLIENTS: u32 = 0xc612_0000;
const CLIENT_BITS: u32 = 17;
const FIRST_PORT: u32 = 1024;
/// Flows there are: the last one has port 17407.
pub const FLOWS: u32 = 1 << 31;

const L3: usize = 14;
const L4: usize = 34;

/// The client of a flow.
#[inline]
pub fn client(flow: u32) -> (u32, u16) {
    let address = CLIENTS | (flow & ((1 << CLIENT_BITS) - 1));
    (address, (FIRST_PORT + (flow >> CLIENT_BITS)) as u16)
}

/// The flow of a client, if it is one of ours.
#[inline]
pub fn flow(address: u32, port: u16) -> Option<u32> {
    let host = address ^ CLIENTS;
    let turn = u32::from(port).checked_sub(FIRST_PORT)?;
    (host < 1 << CLIENT_BITS && turn < FLOWS >> CLIENT_BITS).then_some(turn << CLIENT_BITS | host)
}

/// Which flow sends the next segment, and with which TCP flags.
pub trait Pattern: Send {
    /// The next one.
    fn next(&mut self) -> (u32, u8);
}

/// The flows from 0 to n in the order f = (i x 0x9e3779b1) mod n, again and again. The factor is prime, so that the order
/// is a permutation; no flow comes twice before all others have come, and none lies near the one before it.
#[derive(Clone, Debug)]
pub struct Permuted {
    flows: u32,
    step: u32,
    flow: u32,
    /// The flags of all segments.
    pub flags: u8,
}

impl Permuted {
    /// Of `flows` flows, at least 1.
    pub fn new(flows: u32, flags: u8) -> Self {
        let flows = flows.clamp(1, FLOWS);
        Self { flows, step: (0x9e37_79b1_u64 % u64::from(flows)) as u32, flow: 0, flags }
    }
}

impl Pattern for Permuted {
    #[inline]
    fn next(&mut self) -> (u32, u8) {
        let flow = self.flow;
        // The multiplication a step at a time; both terms are below FLOWS, so that their sum does not overflow.
        let next = flow + self.step;
        self.flow = if next >= self.flows { next - self.flows } else { next };
        (flow, self.flags)
    }
}

/// A new flow each time: SYN after SYN.
#[derive(Clone, Debug)]
pub struct Fresh {
    flow: u32,
}

impl Fresh {
    /// From flow number `first` on.
    pub fn new(first: u32) -> Self {
        Self { flow: first }
    }
}

impl Pattern for Fresh {
    #[inline]
    fn next(&mut self) -> (u32, u8) {
        self.flow = if self.flow + 1 >= FLOWS { 0 } else { self.flow + 1 };
        (self.flow, tcp::SYN)
    }
}

/// A flood of SYNs, each of a new flow, in which every sixteenth segment is one of known flows. It begins with the known
/// flows alone, so that they can be made.
#[derive(Clone, Debug)]
pub struct Flood {
    /// The known flows, and the flags of their segments.
    pub known: Permuted,
    /// Whether the flood has begun.
    pub begun: bool,
    fresh: Fresh,
    turn: u32,
}

impl Flood {
    /// Segments of which one is of a known flow.
    pub const SHARE: u32 = 16;

    /// Of `known` flows, and of new ones behind them.
    pub fn new(known: u32) -> Self {
        Self { known: Permuted::new(known, tcp::SYN), begun: false, fresh: Fresh::new(known), turn: 0 }
    }
}

impl Pattern for Flood {
    #[inline]
    fn next(&mut self) -> (u32, u8) {
        self.turn = self.turn.wrapping_add(1);
        if !self.begun || self.turn.is_multiple_of(Self::SHARE) {
            self.known.next()
        } else {
            self.fresh.next()
        }
    }
}

/// Flows of a list, again and again: those that one worker owns.
#[derive(Clone, Debug)]
pub struct Listed {
    flows: Box<[u32]>,
    at: usize,
    /// The flags of all segments.
    pub flags: u8,
}

impl Listed {
    /// Of `flows`, of which there is at least one.
    pub fn new(flows: Vec<u32>, flags: u8) -> Self {
        Self { flows: flows.into(), at: 0, flags }
    }
}

impl Pattern for Listed {
    #[inline]
    fn next(&mut self) -> (u32, u8) {
        let flow = self.flows[self.at];
        self.at += 1;
        if self.at == self.flows.len() {
            self.at = 0;
        }
        (flow, self.flags)
    }
}

/// Writes the segments of a pattern.
#[derive(Clone, Debug)]
pub struct Traffic<P> {
    /// Whose turn it is.
    pub pattern: P,
    template: [u8; FRAME_LEN],
    /// Sums of what the checksums cover and no flow changes, as they are in memory.
    ip_sum: u16,
    tcp_sum: u16,
}

impl<P: Pattern> Traffic<P> {
    /// Of this pattern.
    pub fn new(pattern: P) -> Self {
        let mut template = [0; FRAME_LEN];
        template[..6].copy_from_slice(&DIRECTOR_MAC);
        template[6..12].copy_from_slice(&ROUTER_MAC);
        template[12..14].copy_from_slice(&[0x08, 0x00]);
        // Version and length of header, 40 bytes in all, don't fragment, TTL 64, TCP.
        let ip = [0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0];
        template[L3..L3 + 16].copy_from_slice(&ip);
        template[L3 + 16..L4].copy_from_slice(&VIP.octets());
        template[L4 + 2..L4 + 4].copy_from_slice(&VPORT.to_be_bytes());
        template[L4 + 12] = 5 << 4;
        template[L4 + 14..L4 + 16].copy_from_slice(&[0xff, 0xff]);
        let pseudo = checksum::pseudo_v4(Ipv4Addr::UNSPECIFIED, VIP, 6, 20);
        Self {
            pattern,
            ip_sum: checksum::fold(checksum::sum(&template[L3..L4])).to_be(),
            tcp_sum: checksum::fold(pseudo + checksum::sum(&template[L4..L4 + 20])).to_be(),
            template,
        }
    }

    /// The next frame.
    pub fn frame(&mut self) -> [u8; FRAME_LEN] {
        let mut frame = self.template;
        let next = self.pattern.next();
        self.write(&mut frame, next);
        frame
    }

    /// Writes what differs from the template.
    #[inline]
    fn write(&self, frame: &mut [u8; FRAME_LEN], (flow, flags): (u32, u8)) {
        let (address, port) = client(flow);
        // Words as they are in memory, whose sums are too (RFC 1071 section 2.B).
        let (address, port) = (address.to_be(), port.to_be());
        let client = add((address >> 16) as u16, address as u16);
        let segment = add(port, u16::from_ne_bytes([0, flags]));
        let ip = !add(self.ip_sum, client);
        let tcp = !add(add(self.tcp_sum, client), segment);
        frame[L3 + 10..L3 + 12].copy_from_slice(&ip.to_ne_bytes());
        frame[L3 + 12..L3 + 16].copy_from_slice(&address.to_ne_bytes());
        frame[L4..L4 + 2].copy_from_slice(&port.to_ne_bytes());
        frame[L4 + 13] = flags;
        frame[L4 + 16..L4 + 18].copy_from_slice(&tcp.to_ne_bytes());
    }
}

/// The one's complement sum of two words.
#[inline(always)]
fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    // After a carry the sum is not 0xffff.
    sum.wrapping_add(u16::from(carry))
}

impl<P: Pattern> Generator for Traffic<P> {
    #[inline]
    fn fill(&mut self, buffer: &mut impl Frame) {
        let next = self.pattern.next();
        // Buffers have room for a frame of 1500 bytes.
        buffer.copy_from(&self.template);
        if let Some(frame) = buffer.data_mut().first_chunk_mut() {
            self.write(frame, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_hugepages::{Options, PageChoice, Pool, PoolOptions};

    fn pool() -> Pool {
        let memory = Options { pages: PageChoice::Ordinary, ..Options::default() };
        let options = PoolOptions { buffers: 1, room: 256, memory };
        Pool::new("test", options).unwrap()
    }

    #[test]
    fn the_order_of_flows_is_a_permutation() {
        for flows in [1, 2, 64, 1_000, 65_536, 1_000_000] {
            let mut pattern = Permuted::new(flows, tcp::ACK);
            let mut seen = vec![false; flows as usize];
            for i in 0..u64::from(flows) {
                let (flow, _) = pattern.next();
                assert_eq!(u64::from(flow), i * 0x9e37_79b1 % u64::from(flows));
                assert!(!std::mem::replace(&mut seen[flow as usize], true));
            }
        }
    }

    #[test]
    fn every_frame_has_right_checksums() {
        let mut pool = pool();
        let mut buffer = pool.alloc().unwrap();
        let mut traffic = Traffic::new(Permuted::new(10_000_000, tcp::ACK));
        for n in 0..1_000 {
            traffic.pattern.flags = if n % 2 == 0 { tcp::SYN } else { tcp::ACK };
            traffic.fill(&mut buffer);
            let frame = buffer.data();
            assert_eq!(frame.len(), 60);
            assert!(checksum::ipv4_header_ok(&frame[14..34]));
            let source = Ipv4Addr::from_bits(u32::from_be_bytes(frame[26..30].try_into().unwrap()));
            assert!(source.octets()[0] == 198 && source.octets()[1] & 0xfe == 18);
            let pseudo = checksum::pseudo_v4(source, VIP, 6, 20);
            assert!(checksum::transport_ok(pseudo, &frame[34..54]));
        }
    }

    #[test]
    fn no_two_flows_have_one_client() {
        assert_eq!(client(0), (0xc612_0000, 1024));
        assert_eq!(client((1 << 17) - 1), (0xc613_ffff, 1024));
        assert_eq!(client(1 << 17), (0xc612_0000, 1025));
        for number in [0, 1, (1 << 17) - 1, 1 << 17, 10_000_000, FLOWS - 1] {
            let (address, port) = client(number);
            assert_eq!(flow(address, port), Some(number));
        }
        for (address, port) in
            [(0xc611_ffff, 1024), (0xc614_0000, 1024), (0xc612_0000, 1023), (0xc612_0000, 17408)]
        {
            assert_eq!(flow(address, port), None);
        }
    }
}
