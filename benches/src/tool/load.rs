//! The frames that the tool offers: TCP segments of any size to one virtual service, each with a stamp.
//!
//! Headers are written anew for every frame, with right checksums; what is behind them is zeros that nobody changes. The
//! [`Stamp`] lies in fields of the TCP header that no director looks at and every forwarding method keeps, since a frame of
//! 64 bytes has no room behind it: the sequence number, the acknowledgement number, and the urgent pointer. The window has
//! a fixed value by which a sink knows the frames that are its own.

use super::sizes::{CHECK_SEQUENCE, Sizes};
use crate::traffic::{
    ANSWER, BothWays, DIRECTOR_MAC, FIRST_SERVER, FLOWS, FRAME_LEN, Fresh, Listed, Pattern, Permuted,
    ROUTER_MAC, SERVER_PORT, VIP, VPORT, client, flow, server,
};
use clap::ValueEnum;
use pointsman_dataplane::{
    port::Frame,
    steer,
    wire::{checksum, tcp},
};
use std::{fmt, net::Ipv4Addr};

const L3: usize = 14;
const L4: usize = 34;
const SEQUENCE: usize = L4 + 4;
const ACKNOWLEDGEMENT: usize = L4 + 8;
const FLAGS: usize = L4 + 13;
const WINDOW: usize = L4 + 14;
const CHECKSUM: usize = L4 + 16;
const URGENT: usize = L4 + 18;

/// The TCP window of all frames that the tool writes: "PM".
const MARK: [u8; 2] = *b"PM";

/// Whom the frames are for, and from which station they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// MAC address of the director's port.
    pub destination_mac: [u8; 6],
    /// MAC address that they come from.
    pub source_mac: [u8; 6],
    /// Address of the virtual service.
    pub vip: Ipv4Addr,
    /// Its TCP port.
    pub port: u16,
}

impl Default for Target {
    /// The director that runs in this process.
    fn default() -> Self {
        Self { destination_mac: DIRECTOR_MAC, source_mac: ROUTER_MAC, vip: VIP, port: VPORT }
    }
}

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// When it came or was sent, in nanoseconds modulo 2^32.
    pub time: u32,
    /// Its number among those of its stream, modulo 2^32.
    pub sequence: u32,
    /// Which sender wrote it, and for which run.
    pub stream: u16,
}

/// Which packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mix {
    /// Packets of established connections.
    Hit,
    /// SYNs of clients never seen; as many connections end as begin, the table is three quarters full.
    New,
    /// SYNs without end to a full table, and one packet in sixteen of an established connection.
    SynFlood,
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mix::Hit => "hit",
            Mix::New => "new",
            Mix::SynFlood => "syn-flood",
        })
    }
}

/// Where the next flow comes from.
enum Source {
    Permuted(Permuted),
    BothWays(BothWays),
    Fresh(Fresh, Share),
    Listed(Listed),
}

impl Source {
    fn next(&mut self) -> (u32, u8) {
        match self {
            Source::Permuted(flows) => flows.next(),
            Source::BothWays(flows) => flows.next(),
            // With several workers some are passed over. A list would begin again, and meet connections that still live.
            Source::Fresh(flows, share) => loop {
                let next = flows.next();
                if share.workers == 1 || share.owns(next.0) {
                    return next;
                }
            },
            Source::Listed(flows) => flows.next(),
        }
    }
}

/// The flows of one worker of several: only what it owns, as a NIC that steers would do it.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// The worker's number.
    pub index: u16,
    /// How many workers there are.
    pub workers: u16,
}

impl Share {
    fn owns(self, flow: u32) -> bool {
        let (address, port) = client(flow);
        steer::owner(address, port, self.workers) == self.index
    }

    /// Those of the flows below `flows` that are the worker's, in the order of [`Permuted`].
    fn of(self, flows: u32, flags: u8) -> Source {
        let mut all = Permuted::new(flows, flags);
        if self.workers == 1 {
            return Source::Permuted(all);
        }
        let own = (0..flows).map(|_| all.next().0).filter(|flow| self.owns(*flow)).collect::<Vec<_>>();
        // So few flows that none is the worker's: it gets one that is not.
        Source::Listed(Listed::new(if own.is_empty() { vec![0] } else { own }, flags))
    }

    /// Both directions of those of the flows below `flows` that are the worker's, in the order of [`BothWays`].
    fn both_ways(self, flows: u32) -> Source {
        let mut all = BothWays::new(flows);
        all.begun = true;
        if self.workers == 1 {
            return Source::BothWays(all);
        }
        let own = (0..2 * flows).map(|_| all.next().0).filter(|flow| self.owns(flow & !ANSWER));
        let own = own.collect::<Vec<_>>();
        Source::Listed(Listed::new(if own.is_empty() { vec![0] } else { own }, tcp::ACK))
    }

    /// New flows behind `first`.
    fn fresh(self, first: u32) -> Source {
        Source::Fresh(Fresh::new(first), self)
    }

    /// How many of the flows below `flows` are the worker's.
    pub fn count(self, flows: u32) -> u32 {
        if self.workers == 1 {
            flows
        } else {
            (0..flows).filter(|flow| self.owns(*flow)).count().max(1) as u32
        }
    }
}

/// Flows, with or without known ones between them.
pub struct Flows {
    source: Source,
    known: Option<Source>,
    turn: u32,
    /// Whose turn it is before all others.
    again: Vec<(u32, u8)>,
}

impl Flows {
    /// In one packet of how many a flood has a known flow.
    pub const SHARE: u32 = 16;

    /// The flows below `flows`, all with these flags.
    pub fn known(share: Share, flows: u32, flags: u8) -> Self {
        Self { source: share.of(flows, flags), known: None, turn: 0, again: Vec::new() }
    }

    /// The flows below `flows` and the answers of their servers ([`ANSWER`]).
    pub fn both_ways(share: Share, flows: u32) -> Self {
        Self { source: share.both_ways(flows), known: None, turn: 0, again: Vec::new() }
    }

    /// SYNs of new flows.
    pub fn fresh(share: Share) -> Self {
        Self { source: share.fresh(0), known: None, turn: 0, again: Vec::new() }
    }

    /// SYNs of new flows, and every sixteenth packet of one below `known`.
    pub fn flood(share: Share, known: u32) -> Self {
        Self {
            source: share.fresh(known),
            known: Some(share.of(known, tcp::ACK)),
            turn: 0,
            again: Vec::new(),
        }
    }

    #[inline]
    fn next(&mut self) -> (u32, u8) {
        if let Some(next) = self.again.pop() {
            return next;
        }
        if let Some(known) = &mut self.known {
            self.turn = self.turn.wrapping_add(1);
            if self.turn.is_multiple_of(Self::SHARE) {
                return known.next();
            }
        }
        self.source.next()
    }
}

/// Headers for one size, and the sums of what no flow changes.
struct Template {
    bytes: [u8; FRAME_LEN],
    len: usize,
    ip_sum: u32,
    tcp_sum: u32,
}

impl Template {
    /// Of frames to the service, or of its servers' answers.
    fn new(size: u16, target: &Target, answers: bool) -> Self {
        let len = usize::from(size) - CHECK_SEQUENCE;
        // Frames of 64 bytes end with padding, all others are full.
        let ip_len = if len == FRAME_LEN { 40 } else { (len - L3) as u16 };
        let mut bytes = [0; FRAME_LEN];
        bytes[..6].copy_from_slice(&target.destination_mac);
        bytes[6..12].copy_from_slice(&target.source_mac);
        bytes[12..14].copy_from_slice(&[0x08, 0x00]);
        // Version and length of header, don't fragment, TTL 64, TCP.
        bytes[L3] = 0x45;
        bytes[L3 + 2..L3 + 4].copy_from_slice(&ip_len.to_be_bytes());
        bytes[L3 + 5..L3 + 10].copy_from_slice(&[1, 0x40, 0, 64, 6]);
        // The client's address and port are 0 here.
        let (address, port) = if answers { (FIRST_SERVER, SERVER_PORT) } else { (target.vip, target.port) };
        let (address_at, port_at) = if answers { (L3 + 12, L4) } else { (L3 + 16, L4 + 2) };
        bytes[address_at..address_at + 4].copy_from_slice(&address.octets());
        bytes[port_at..port_at + 2].copy_from_slice(&port.to_be_bytes());
        bytes[L4 + 12] = 5 << 4;
        bytes[WINDOW..CHECKSUM].copy_from_slice(&MARK);
        let pseudo = checksum::pseudo_v4(Ipv4Addr::UNSPECIFIED, address, 6, ip_len - 20);
        let (ip_sum, tcp_sum) = (checksum::sum(&bytes[L3..L4]), pseudo + checksum::sum(&bytes[L4..L4 + 20]));
        Self { bytes, len, ip_sum, tcp_sum }
    }
}

/// Writes frames.
pub struct Load {
    /// Whose turn it is.
    pub flows: Flows,
    /// By size, each to the service and of the answers to that.
    templates: Vec<[Template; 2]>,
    at: usize,
}

impl Load {
    /// Of these flows and sizes, for this target.
    pub fn new(flows: Flows, sizes: Sizes, target: &Target) -> Self {
        let templates = sizes
            .cycle()
            .iter()
            .map(|size| [false, true].map(|answers| Template::new(*size, target, answers)));
        let templates = templates.collect();
        Self { flows, templates, at: 0 }
    }

    /// Puts a flow before all others, the last one first.
    pub fn again(&mut self, flow: u32, flags: u8) {
        self.flows.again.push((flow, flags));
    }

    /// Makes `frame` the next one, and returns its flow and flags.
    #[inline]
    pub fn fill(&mut self, frame: &mut impl Frame, stamp: Stamp) -> (u32, u8) {
        let (flow, flags) = self.flows.next();
        let template = &self.templates[self.at][usize::from(flow & ANSWER != 0)];
        self.at += 1;
        if self.at == self.templates.len() {
            self.at = 0;
        }
        frame.copy_from(&template.bytes);
        if let Some(bytes) = frame.data_mut().first_chunk_mut() {
            write(bytes, template, (flow, flags), stamp);
        }
        // Buffers have room for a frame of 1518 bytes.
        frame.set_len(template.len);
        (flow, flags)
    }
}

#[inline]
fn write(frame: &mut [u8; FRAME_LEN], template: &Template, (flow, flags): (u32, u8), stamp: Stamp) {
    // Nothing branches by the direction: which comes next no processor should guess here.
    let way = usize::from(flow & ANSWER != 0);
    let (address, port) = client(flow & !ANSWER);
    let server = server(address) * way as u8;
    let halves = |word: u32| (word >> 16) + (word & 0xffff);
    let ip = !checksum::fold(template.ip_sum + halves(address) + u32::from(server));
    let stamped = halves(stamp.time) + halves(stamp.sequence) + u32::from(stamp.stream);
    let tcp_sum =
        template.tcp_sum + halves(address) + u32::from(server) + stamped + u32::from(port) + u32::from(flags);
    let tcp = !checksum::fold(tcp_sum);
    frame[L3 + 10..L3 + 12].copy_from_slice(&ip.to_be_bytes());
    let (address_at, port_at) = (L3 + 12 + 4 * way, L4 + 2 * way);
    // The source's last byte: of a client, it is written next.
    frame[L3 + 15] = server;
    frame[address_at..address_at + 4].copy_from_slice(&address.to_be_bytes());
    frame[port_at..port_at + 2].copy_from_slice(&port.to_be_bytes());
    frame[SEQUENCE..ACKNOWLEDGEMENT].copy_from_slice(&stamp.time.to_be_bytes());
    frame[ACKNOWLEDGEMENT..ACKNOWLEDGEMENT + 4].copy_from_slice(&stamp.sequence.to_be_bytes());
    frame[FLAGS] = flags;
    frame[CHECKSUM..URGENT].copy_from_slice(&tcp.to_be_bytes());
    frame[URGENT..L4 + 20].copy_from_slice(&stamp.stream.to_be_bytes());
}

/// The time of the stamp of a frame that the tool wrote.
#[inline]
pub fn time_of(frame: &[u8]) -> Option<u32> {
    frame.get(SEQUENCE..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// The flow and the stamp of a frame that came by a wire; `None` if it is not one that the tool wrote for this address and
/// port.
#[inline]
pub fn read(bytes: &[u8], vip: Ipv4Addr, port: u16) -> Option<(u32, Stamp)> {
    let frame: &[u8; L4 + 20] = bytes.first_chunk()?;
    let ours = frame[12..14] == [0x08, 0x00]
        && frame[L3] == 0x45
        && frame[L3 + 9] == 6
        && frame[L3 + 16..L4] == vip.octets()
        && frame[L4 + 2..L4 + 4] == port.to_be_bytes()
        && frame[WINDOW..CHECKSUM] == MARK;
    if !ours {
        return None;
    }
    let half = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
    let stamp = Stamp { time: word(SEQUENCE), sequence: word(ACKNOWLEDGEMENT), stream: half(URGENT) };
    let flow = flow(word(L3 + 12), half(L4)).filter(|flow| *flow < FLOWS)?;
    Some((flow, stamp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::ordinary;
    use pointsman_hugepages::{Pool, PoolOptions};

    const ALONE: Share = Share { index: 0, workers: 1 };

    #[test]
    fn frames_of_every_size_have_right_lengths_checksums_and_stamps() {
        let mut pool = Pool::new("test", PoolOptions { buffers: 1, room: 1856, memory: ordinary() }).unwrap();
        let mut load = Load::new(Flows::known(ALONE, 1_000, tcp::ACK), Sizes::Imix, &Target::default());
        let (mut buffer, mut sizes) = (pool.alloc().unwrap(), Vec::new());
        for n in 0..24_u32 {
            let stamp = Stamp { time: 0xffff_fff0 + (n & 7), sequence: 0xfffe_0000 + n, stream: 0xfff0 };
            load.fill(&mut buffer, stamp);
            let frame = buffer.data();
            sizes.push(frame.len() + 4);
            assert_eq!(time_of(frame), Some(0xffff_fff0 + (n & 7)));
            let (flow, read) = read(frame, VIP, VPORT).unwrap();
            assert_eq!((u64::from(flow), read), (u64::from(n) * 0x9e37_79b1 % 1_000, stamp));
            assert!(checksum::ipv4_header_ok(&frame[14..34]));
            let ip_len = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            assert_eq!(ip_len, if frame.len() == 60 { 40 } else { frame.len() - 14 });
            let source = Ipv4Addr::from_bits(u32::from_be_bytes(frame[26..30].try_into().unwrap()));
            let pseudo = checksum::pseudo_v4(source, VIP, 6, ip_len as u16 - 20);
            assert!(checksum::transport_ok(pseudo, &frame[34..14 + ip_len]), "frame {n}");
        }
        assert_eq!(sizes[..12], [64, 594, 64, 64, 1518, 64, 594, 64, 594, 64, 594, 64]);
        assert_eq!(sizes[12..], sizes[..12]);
    }

    #[test]
    fn every_flow_belongs_to_one_worker() {
        let counts: Vec<u32> = (0..3).map(|index| Share { index, workers: 3 }.count(10_000)).collect();
        assert_eq!(counts.iter().sum::<u32>(), 10_000);
        assert!(counts.iter().all(|count| (3_000..3_700).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_flood_has_a_known_flow_in_every_sixteenth_packet() {
        let mut flows = Flows::flood(ALONE, 100);
        let packets: Vec<(u32, u8)> = (0..1_600).map(|_| flows.next()).collect();
        assert_eq!(packets.iter().filter(|(flow, flags)| *flow < 100 && *flags == tcp::ACK).count(), 100);
        assert_eq!(packets.iter().filter(|(flow, flags)| *flow > 100 && *flags == tcp::SYN).count(), 1_500);
    }

    #[test]
    fn frames_of_others_are_not_taken_for_ours() {
        let mut pool = Pool::new("test", PoolOptions { buffers: 1, room: 1856, memory: ordinary() }).unwrap();
        let (vip, mut buffer) = (Ipv4Addr::new(192, 0, 2, 1), pool.alloc().unwrap());
        let target = Target { vip, port: 443, ..Target::default() };
        let mut load = Load::new(Flows::known(ALONE, 9, tcp::ACK), Sizes::Fixed(64), &target);
        load.fill(&mut buffer, Stamp::default());
        let frame = buffer.data().to_vec();
        assert_eq!(read(&frame, vip, 443), Some((0, Stamp::default())));
        assert_eq!(read(&frame, VIP, 443), None);
        assert_eq!(read(&frame, vip, 80), None);
        assert_eq!(read(&frame[..53], vip, 443), None);
        // EtherType, protocol, the client's address, its port, the window.
        for at in [12, 23, 26, 34, 48] {
            let mut other = frame.clone();
            other[at] ^= 0x80;
            if at == 34 {
                other[34..36].copy_from_slice(&1_023_u16.to_be_bytes());
            }
            assert_eq!(read(&other, vip, 443), None, "byte {at}");
        }
    }
}
