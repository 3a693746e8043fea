//! The frames that a bench offers: TCP segments without data in 60 bytes (64 with the check sequence), from clients in
//! 198.18.0.0/15, the range for benchmarks (RFC 2544 appendix C.2.2), to one virtual service.
//!
//! A flow is a number: 17 bits of it choose the client's address, the rest its port. A [`Pattern`] says whose turn it is.
//! With NAT half of the segments are the answers of its real servers. Every frame is written anew, all of it, with right
//! checksums of IPv4 and TCP.

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
/// The address of the first real server; those of the others follow it.
pub const FIRST_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 0);
/// The port of the real servers where addresses are translated.
pub const SERVER_PORT: u16 = 8080;
/// Real servers of the service.
pub const SERVERS: u8 = 16;

/// Bytes of a frame without its check sequence.
pub const FRAME_LEN: usize = 60;

const CLIENTS: u32 = 0xc612_0000;
const CLIENT_BITS: u32 = 17;
const FIRST_PORT: u32 = 1024;
/// Flows there are: the last one has port 17407.
pub const FLOWS: u32 = 1 << 31;
/// In a flow's number: the segment is its server's answer.
pub const ANSWER: u32 = 1 << 31;

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

/// Which of the real servers source hashing chooses for a client: its place of 256 (see
/// [`pointsman_dataplane::scheduler`]), which the servers have in turn, the one added last first.
#[inline]
pub fn server(client: u32) -> u8 {
    SERVERS - 1 - (client.wrapping_mul(0x61c8_8647) >> 24) as u8 % SERVERS
}

/// Which flow sends the next segment, and with which TCP flags.
pub trait Pattern: Send {
    /// Whether there are answers of servers among them, which say so by [`ANSWER`].
    const ANSWERS: bool = false;

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

/// Flows whose both directions pass the director. They begin with their clients' segments alone, so that they can be made.
#[derive(Clone, Debug)]
pub struct BothWays {
    /// The flows, and the flags of their first segments.
    pub opening: Permuted,
    /// Whether servers answer by now.
    pub begun: bool,
    ways: Permuted,
}

impl BothWays {
    /// Of `flows` flows, at most half of [`FLOWS`], which open with SYNs.
    pub fn new(flows: u32) -> Self {
        let ways = Permuted::new(flows.saturating_mul(2), tcp::ACK);
        Self { opening: Permuted::new(flows, tcp::SYN), begun: false, ways }
    }

    /// The flow and its direction, [`ANSWER`] or not, that have this number among the two directions of all flows.
    #[inline(always)]
    pub fn way(number: u32) -> u32 {
        // The lowest bit tells the two apart. Which of them it means differs from flow to flow: in their order it alternates,
        // and directions should come like chance.
        let mixed = (number >> 1).wrapping_mul(0x7feb_352d);
        let mixed = (mixed ^ mixed >> 15).wrapping_mul(0x846c_a68b);
        number.rotate_right(1) ^ mixed & ANSWER
    }
}

impl Pattern for BothWays {
    const ANSWERS: bool = true;

    /// Of n flows there are 2n directions, of which none comes twice before all others.
    #[inline]
    fn next(&mut self) -> (u32, u8) {
        if !self.begun {
            return self.opening.next();
        }
        let (number, flags) = self.ways.next();
        (Self::way(number), flags)
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

/// Headers of one direction.
#[derive(Clone, Copy, Debug)]
struct Template {
    bytes: [u8; FRAME_LEN],
    /// Sums of what the checksums cover and no flow changes, as they are in memory.
    ip_sum: u16,
    tcp_sum: u16,
}

impl Template {
    /// From a port of one address, or of a client in place of 0, to that of another.
    fn new((source, from): (Ipv4Addr, u16), (destination, to): (Ipv4Addr, u16)) -> Self {
        let mut bytes = [0; FRAME_LEN];
        bytes[..6].copy_from_slice(&DIRECTOR_MAC);
        bytes[6..12].copy_from_slice(&ROUTER_MAC);
        bytes[12..14].copy_from_slice(&[0x08, 0x00]);
        // Version and length of header, 40 bytes in all, don't fragment, TTL 64, TCP.
        bytes[L3..L3 + 12].copy_from_slice(&[0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0]);
        bytes[L3 + 12..L3 + 16].copy_from_slice(&source.octets());
        bytes[L3 + 16..L4].copy_from_slice(&destination.octets());
        bytes[L4..L4 + 2].copy_from_slice(&from.to_be_bytes());
        bytes[L4 + 2..L4 + 4].copy_from_slice(&to.to_be_bytes());
        bytes[L4 + 12] = 5 << 4;
        bytes[L4 + 14..L4 + 16].copy_from_slice(&[0xff, 0xff]);
        let pseudo = checksum::pseudo_v4(source, destination, 6, 20);
        Self {
            ip_sum: checksum::fold(checksum::sum(&bytes[L3..L4])).to_be(),
            tcp_sum: checksum::fold(pseudo + checksum::sum(&bytes[L4..L4 + 20])).to_be(),
            bytes,
        }
    }
}

/// Writes the segments of a pattern.
#[derive(Clone, Debug)]
pub struct Traffic<P> {
    /// Whose turn it is.
    pub pattern: P,
    /// To the service, and the answers to that.
    templates: [Template; 2],
}

impl<P: Pattern> Traffic<P> {
    /// Of this pattern.
    pub fn new(pattern: P) -> Self {
        let (client, service) = ((Ipv4Addr::UNSPECIFIED, 0), (VIP, VPORT));
        let answers = Template::new((FIRST_SERVER, SERVER_PORT), client);
        Self { pattern, templates: [Template::new(client, service), answers] }
    }

    /// The next frame.
    pub fn frame(&mut self) -> [u8; FRAME_LEN] {
        let next = self.pattern.next();
        let mut frame = self.template(next.0).bytes;
        self.write(&mut frame, next);
        frame
    }

    /// 1 for an answer, else 0. Nothing branches by it: whose turn it is no processor should guess here.
    #[inline(always)]
    fn way(flow: u32) -> usize {
        if P::ANSWERS { usize::from(flow & ANSWER != 0) } else { 0 }
    }

    #[inline(always)]
    fn template(&self, flow: u32) -> &Template {
        &self.templates[Self::way(flow)]
    }

    /// Writes what differs from the template.
    #[inline]
    fn write(&self, frame: &mut [u8; FRAME_LEN], (flow, flags): (u32, u8)) {
        let (template, way) = (self.template(flow), Self::way(flow));
        let (address, port) = client(if P::ANSWERS { flow & !ANSWER } else { flow });
        let server = server(address) * way as u8;
        // Words as they are in memory, whose sums are too (RFC 1071 section 2.B).
        let (address, port) = (address.to_be(), port.to_be());
        let mut addresses = add((address >> 16) as u16, address as u16);
        if P::ANSWERS {
            addresses = add(addresses, u16::from_ne_bytes([0, server]));
            // The source's last byte: of a client, it is written next.
            frame[L3 + 15] = server;
        }
        let segment = add(port, u16::from_ne_bytes([0, flags]));
        let ip = !add(template.ip_sum, addresses);
        let tcp = !add(add(template.tcp_sum, addresses), segment);
        let (address_at, port_at) = (L3 + 12 + 4 * way, L4 + 2 * way);
        frame[L3 + 10..L3 + 12].copy_from_slice(&ip.to_ne_bytes());
        frame[address_at..address_at + 4].copy_from_slice(&address.to_ne_bytes());
        frame[port_at..port_at + 2].copy_from_slice(&port.to_ne_bytes());
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
        buffer.copy_from(&self.template(next.0).bytes);
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
    fn each_direction_of_a_flow_comes_once_and_half_are_answers() {
        let mut pattern = BothWays::new(1_000);
        assert_eq!((pattern.next(), pattern.next().1), ((0, tcp::SYN), tcp::SYN));
        pattern.begun = true;
        let numbers: Vec<u32> = (0..2_000).map(|_| pattern.next().0).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        let expected: Vec<u32> = (0..1_000).chain((0..1_000).map(|flow| ANSWER | flow)).collect();
        assert_eq!(sorted, expected);
        // Of a coin as many.
        let changes = numbers.windows(2).filter(|pair| (pair[0] ^ pair[1]) & ANSWER != 0).count();
        assert!((900..1_100).contains(&changes), "{changes}");
    }

    #[test]
    fn answers_come_from_the_servers_of_their_clients() {
        let mut traffic = Traffic::new(BothWays::new(10_000));
        traffic.pattern.begun = true;
        let mut seen = [0; 16];
        for _ in 0..2_000 {
            let frame = traffic.frame();
            assert!(checksum::ipv4_header_ok(&frame[14..34]));
            let address =
                |at: usize| Ipv4Addr::from(u32::from_be_bytes(frame[at..at + 4].try_into().unwrap()));
            let (source, destination) = (address(26), address(30));
            let pseudo = checksum::pseudo_v4(source, destination, 6, 20);
            assert!(checksum::transport_ok(pseudo, &frame[34..54]));
            if destination == VIP {
                assert_eq!((source.octets()[0], &frame[36..38]), (198, &[0, 80][..]));
            } else {
                let [a, b, c, server] = source.octets();
                assert_eq!(([a, b, c], &frame[34..36]), ([10, 0, 1], &[0x1f, 0x90][..]));
                assert_eq!(destination.octets()[0], 198);
                seen[usize::from(server)] += 1;
            }
        }
        assert!(seen.iter().all(|answers| (20..120).contains(answers)), "{seen:?}");
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
