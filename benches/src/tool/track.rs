//! What came by a wire: how much, in which order, how late; and the answers to queries for the addresses of real servers.

use super::{
    load::{Stamp, read},
    order::Seen,
    ports::{Prefix, Wire},
};
use hdrhistogram::Histogram;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Longest latency that can be told, in nanoseconds: that of the stamp.
pub const LONGEST: u64 = u32::MAX as u64;

/// Streams that are remembered at a time; more than senders that anyone has.
const STREAMS: usize = 256;

/// Frames of one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stream {
    id: u16,
    first: u32,
    /// From the first to the last that came.
    reach: u32,
    came: u64,
}

/// Which frames came of each sender, wherever they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Streams(Vec<Stream>);

impl Streams {
    #[inline]
    fn take(&mut self, stamp: Stamp) {
        if let Some(stream) = self.0.iter_mut().find(|stream| stream.id == stamp.stream) {
            stream.widen(stamp.sequence, stamp.sequence, 1);
        } else if self.0.len() < STREAMS {
            self.0.push(Stream { id: stamp.stream, first: stamp.sequence, reach: 0, came: 1 });
        }
    }

    /// Adds what came elsewhere.
    pub fn add(&mut self, other: &Self) {
        for theirs in &other.0 {
            match self.0.iter_mut().find(|stream| stream.id == theirs.id) {
                Some(ours) => ours.widen(theirs.first, theirs.first.wrapping_add(theirs.reach), theirs.came),
                None => self.0.push(*theirs),
            }
        }
    }

    /// Numbers that never came between the first and the last of each sender.
    pub fn missing(&self) -> u64 {
        self.0.iter().map(|stream| (u64::from(stream.reach) + 1).saturating_sub(stream.came)).sum()
    }
}

impl Stream {
    #[inline]
    fn widen(&mut self, first: u32, last: u32, came: u64) {
        let back = self.first.wrapping_sub(first);
        if back < 1 << 31 {
            (self.first, self.reach) = (first, self.reach.saturating_add(back));
        }
        // Modulo 2^32, what is not behind the first is before it, and no last one.
        let ahead = last.wrapping_sub(self.first);
        if ahead < 1 << 31 {
            self.reach = self.reach.max(ahead);
        }
        self.came += came;
    }
}

/// Keeps account of the frames that one station receives.
pub struct Tracker {
    service: SocketAddrV4,
    /// Of each flow, the number of the last frame that came, never 0; those of other flows are not put in order.
    last: Vec<u32>,
    /// Which frames came of each sender.
    pub streams: Streams,
    /// Frames of this run that came for the first time.
    pub came: u64,
    /// The rest.
    pub seen: Seen,
    /// Latencies in nanoseconds, if they are wanted.
    pub latency: Option<Histogram<u64>>,
}

impl Tracker {
    /// Of the frames for this service; those of the first `flows` flows are looked at for their order.
    pub fn new(service: SocketAddrV4, flows: u32) -> Self {
        Self {
            service,
            last: vec![0; flows as usize],
            streams: Streams::default(),
            came: 0,
            seen: Seen::default(),
            latency: None,
        }
    }

    /// The service that frames are for.
    pub fn service(&self) -> SocketAddrV4 {
        self.service
    }

    /// Begins a new account. What is known of flows stays: numbers go on.
    pub fn begin(&mut self, latency: bool) {
        self.streams.0.clear();
        (self.came, self.seen) = (0, Seen::default());
        self.latency = if latency { Histogram::new_with_bounds(1, LONGEST, 3).ok() } else { None };
    }

    /// Takes account of a frame that came at `now`. Of `run` alone, if there is one. False if it is none of ours.
    #[inline]
    pub fn take(&mut self, frame: &[u8], now: u32, run: Option<u16>) -> bool {
        let ours = read(frame, *self.service.ip(), self.service.port());
        let Some((flow, stamp)) = ours else {
            return false;
        };
        if run.is_some_and(|run| run != run_of(stamp.stream)) {
            self.seen.foreign += 1;
            return true;
        }
        if let Some(last) = self.last.get_mut(flow as usize) {
            // How far behind the last one, modulo 2^32; half of the circle is behind, half before.
            let behind = last.wrapping_sub(stamp.sequence);
            if *last != 0 && behind == 0 {
                self.seen.duplicated += 1;
                return true;
            }
            if *last != 0 && behind < 1 << 31 {
                self.seen.reordered += 1;
            } else {
                *last = stamp.sequence;
            }
        }
        self.came += 1;
        self.streams.take(stamp);
        if let Some(latency) = &mut self.latency {
            latency.saturating_record(u64::from(now.wrapping_sub(stamp.time)));
        }
        true
    }
}

/// Bits of a stream's number that are its sender's; the others are the run's.
const SENDER_BITS: u16 = 6;

/// The number of a stream.
pub fn stream(run: u16, sender: u16) -> u16 {
    run << SENDER_BITS | (sender & ((1 << SENDER_BITS) - 1))
}

/// The run of a stream, as [`stream`] keeps it.
pub fn run_of(stream: u16) -> u16 {
    stream >> SENDER_BITS
}

/// The run after this one, of those that a stream's number can tell apart.
pub fn next_run(run: u16) -> u16 {
    (run + 1) % (1 << (16 - SENDER_BITS))
}

/// Answers ARP queries for the addresses of real servers, so that the director under test finds them.
#[derive(Clone, Debug)]
pub struct Responder {
    mac: [u8; 6],
    real_servers: Vec<Prefix>,
}

impl Responder {
    /// With the port's address for all of them.
    pub fn new(mac: [u8; 6], wire: &Wire) -> Self {
        Self { mac, real_servers: wire.real_servers.clone() }
    }

    /// Makes the query in `frame` an answer. False, and no change, if it is none that is to be answered.
    pub fn answer(&self, frame: &mut [u8]) -> bool {
        // Ethernet; hardware Ethernet, protocol IPv4, their lengths, a query (RFC 826).
        const QUERY: [u8; 10] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1];
        let Some(arp) = frame.first_chunk_mut::<42>() else {
            return false;
        };
        let target = Ipv4Addr::new(arp[38], arp[39], arp[40], arp[41]);
        if arp[12..22] != QUERY || !self.real_servers.iter().any(|prefix| prefix.holds(target)) {
            return false;
        }
        // Who asked becomes who is answered.
        arp.copy_within(22..32, 32);
        arp.copy_within(32..38, 0);
        arp[6..12].copy_from_slice(&self.mac);
        arp[21] = 2;
        arp[22..28].copy_from_slice(&self.mac);
        arp[28..32].copy_from_slice(&target.octets());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            load::{Flows, Load, Share, Target},
            sizes::Sizes,
        },
        *,
    };
    use crate::{
        rig::ordinary,
        traffic::{VIP, VPORT},
    };
    use pointsman_dataplane::wire::tcp;
    use pointsman_hugepages::{Pool, PoolOptions};

    /// Frames with these numbers, all of them of one flow.
    fn frames(stream: u16, numbers: &[u32]) -> Vec<Vec<u8>> {
        let mut pool = Pool::new("test", PoolOptions { buffers: 1, room: 256, memory: ordinary() }).unwrap();
        let mut buffer = pool.alloc().unwrap();
        let share = Share { index: 0, workers: 1 };
        let mut load = Load::new(Flows::known(share, 1, tcp::ACK), Sizes::Fixed(64), &Target::default());
        let mut frame = |sequence: &u32| {
            load.fill(&mut buffer, Stamp { time: 1_000, sequence: *sequence, stream });
            buffer.data().to_vec()
        };
        numbers.iter().map(&mut frame).collect()
    }

    fn tracker() -> Tracker {
        let mut tracker = Tracker::new(SocketAddrV4::new(VIP, VPORT), 1);
        tracker.begin(true);
        tracker
    }

    #[test]
    fn what_is_late_twice_or_missing_is_told() {
        let mut tracker = tracker();
        for frame in frames(stream(7, 3), &[5, 6, 9, 8, 8, 9, 10]) {
            assert!(tracker.take(&frame, 3_500, Some(7)));
        }
        // 8 came behind 9, and again; 9 came again as the last one did; 7 never came.
        let seen = tracker.seen;
        assert_eq!((tracker.came, seen.reordered, seen.duplicated), (6, 2, 1));
        let latency = tracker.latency.as_ref().unwrap();
        assert_eq!((latency.len(), latency.max()), (6, 2_501), "a bucket of the histogram ends there");
        tracker.begin(false);
        for frame in frames(stream(7, 3), &[11, 13, 17]) {
            tracker.take(&frame, 0, Some(7));
        }
        assert_eq!((tracker.came, tracker.seen, tracker.streams.missing()), (3, Seen::default(), 4));
        // Another queue got some of them.
        let mut other = self::tracker();
        for frame in frames(stream(7, 3), &[16, 12]) {
            other.take(&frame, 0, Some(7));
        }
        tracker.streams.add(&other.streams);
        assert_eq!(tracker.streams.missing(), 2, "14 and 15");
    }

    #[test]
    fn numbers_go_on_behind_the_last_one_there_is() {
        let mut tracker = tracker();
        for frame in frames(0, &[u32::MAX - 1, u32::MAX, 1, 2]) {
            tracker.take(&frame, 0, None);
        }
        // No frame has number 0.
        assert_eq!((tracker.came, tracker.seen, tracker.streams.missing()), (4, Seen::default(), 1));
    }

    #[test]
    fn frames_of_an_earlier_run_and_of_others_are_not_counted() {
        let mut tracker = tracker();
        let late = frames(stream(1_022, 0), &[1]);
        assert!(tracker.take(&late[0], 0, Some(next_run(1_022))));
        assert_eq!((tracker.came, tracker.seen), (0, Seen { foreign: 1, ..Seen::default() }));
        assert!(!tracker.take(&[0; 60], 0, None));
        assert_eq!((next_run(1_023), run_of(stream(1_023, 63)), stream(1_023, 63)), (0, 1_023, u16::MAX));
    }

    #[test]
    fn queries_for_real_servers_are_answered() {
        let wire = Wire { real_servers: vec!["10.0.1.0/28".parse().unwrap()], ..Wire::default() };
        let responder = Responder::new([2, 0, 0, 0, 9, 9], &wire);
        let query = |target: u8| {
            let mut frame = vec![0xff; 6];
            frame.extend([2, 0, 0, 0, 0, 1, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
            frame.extend([2, 0, 0, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 1, target]);
            frame.resize(60, 0);
            frame
        };
        let mut frame = query(3);
        assert!(responder.answer(&mut frame));
        let mut expected = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 9, 9, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2];
        expected.extend([2, 0, 0, 0, 9, 9, 10, 0, 1, 3, 2, 0, 0, 0, 0, 1, 10, 0, 0, 2]);
        assert_eq!(frame[..42], expected);
        let mut other = query(16);
        assert!(!responder.answer(&mut other) && other == query(16), "not one of ours");
        assert!(!responder.answer(&mut frame), "an answer is not answered");
        assert!(!responder.answer(&mut query(3)[..41]));
    }
}
