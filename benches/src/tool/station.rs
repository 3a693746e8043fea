//! A station on a wire: sends frames by one port and receives by another, with a director between them that is not ours.
//!
//! What a director did is told by what comes back: how much, in which order, how late. A frame counts as offered when the
//! port has taken it, and as forwarded when it has come back for the first time. After the last frame, a run waits for
//! those that are still on their way until none has come for a while.
//!
//! Every station sends the flows that it owns. What it receives may have been sent by another: that is the NIC's choice.

use super::{
    crew::Obey,
    load::{Flows, Load, Mix, Share, Stamp},
    offer::Clock,
    order::{Order, Outcome, Plan},
    ports::Wire,
    track::{Responder, Tracker, next_run, stream},
};
use crate::timing::thread_nanos;
use arrayvec::ArrayVec;
use pointsman_dataplane::{
    limits::BATCH,
    port::{Frame, FramePool, Frames, PoolOf, Port},
    wire::tcp,
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// How long nothing may have come before the rest is given up.
const QUIET_NANOS: u64 = 200_000_000;
/// How long is waited for the rest at most.
const PATIENCE_NANOS: u64 = 2_000_000_000;
/// How much later than planned the last frame may leave before it is given up.
const SLACK_NANOS: u64 = 1_000_000_000;
/// At most so many connections a second are made before a run: any director keeps up.
const MAKING_RATE: f64 = 200_000.0;

/// What all stations did in this run, for who waits for them and for each other.
#[derive(Debug, Default)]
pub struct Live {
    /// Frames that left.
    pub sent: AtomicU64,
    /// Frames that came back.
    pub came: AtomicU64,
    /// Queries that were answered.
    pub answered: AtomicU64,
}

impl Live {
    /// Before a run.
    pub fn clear(&self) {
        for count in [&self.sent, &self.came, &self.answered] {
            count.store(0, Relaxed);
        }
    }

    #[inline]
    fn add(count: &AtomicU64, n: u64) {
        if n > 0 {
            count.fetch_add(n, Relaxed);
        }
    }
}

/// What a station is made of.
pub struct Parts<P: Port> {
    /// Sends. Of a batch it takes the first frames and refuses the last, as a ring does.
    pub send: P,
    /// Whether it receives too.
    pub sends_and_receives: bool,
    /// These receive.
    pub receive: Vec<P>,
    /// Where empty frames come from.
    pub pool: PoolOf<P>,
    /// Addresses of the ports that send and receive.
    pub macs: [[u8; 6]; 2],
    /// Whether frames lie in huge pages.
    pub huge_pages: bool,
}

impl<P: Port> Parts<P> {
    /// How many ports receive.
    fn ports(&self) -> usize {
        self.receive.len() + usize::from(self.sends_and_receives)
    }

    /// The one of this number that receives.
    #[inline]
    fn port(&mut self, number: usize) -> &mut P {
        self.receive.get_mut(number).unwrap_or(&mut self.send)
    }
}

/// A station.
pub struct Station<P: Port> {
    parts: Parts<P>,
    load: Load,
    tracker: Tracker,
    responder: Responder,
    clock: Clock,
    /// Never 0.
    sequence: u32,
    run: u16,
    sender: u16,
    frames: Frames<P::Frame>,
    one_way: bool,
    live: Arc<Live>,
}

/// When frames are to leave.
#[derive(Clone, Copy)]
struct Schedule {
    start: u64,
    /// 0 for as fast as possible.
    gap: f64,
    frames: u64,
    /// When it ends at the latest.
    until: u64,
}

impl Schedule {
    fn paced(start: u64, rate: f64, frames: u64) -> Self {
        let gap = 1e9 / rate.max(1e-3);
        let until = start + (gap * frames as f64) as u64 + SLACK_NANOS;
        Self { start, gap, frames, until }
    }

    fn due(&self, now: u64) -> u64 {
        if self.gap == 0.0 {
            return self.frames;
        }
        ((now.saturating_sub(self.start) as f64 / self.gap) as u64 + 1).min(self.frames)
    }
}

impl<P: Port> Station<P> {
    /// Number `index` of the plan's.
    pub fn new(plan: &Plan, wire: &Wire, index: u16, parts: Parts<P>, live: Arc<Live>) -> Self {
        let share = Share { index, workers: plan.workers };
        let known = match plan.mix {
            Mix::Hit => plan.flows,
            Mix::New => 0,
            Mix::SynFlood => plan.flows / 10,
        };
        let flows = if known > 0 { Flows::known(share, known, tcp::SYN) } else { Flows::fresh(share) };
        let receives_only = wire.receives_only;
        let mut station = Self {
            load: Load::new(flows, plan.sizes, &wire.target(parts.macs[0])),
            tracker: Tracker::new(wire.service, known),
            responder: Responder::new(parts.macs[1], wire),
            clock: plan.clock,
            sequence: 1,
            run: 0,
            sender: index,
            frames: Frames::new(),
            one_way: wire.one_way,
            parts,
            live,
        };
        if !receives_only {
            station.make_connections(plan.mix, share, known);
        }
        station
    }

    /// A SYN and an ACK of each known flow.
    fn make_connections(&mut self, mix: Mix, share: Share, known: u32) {
        if known > 0 {
            let rate = MAKING_RATE / f64::from(share.workers);
            let making = Order::Paced { rate, frames: u64::from(share.count(known)), latency: false };
            self.obey(making);
            self.load.flows = Flows::known(share, known, tcp::ACK);
            self.obey(making);
        }
        if mix == Mix::SynFlood {
            self.load.flows = Flows::flood(share, known);
        }
    }

    /// Sends a batch of what is due, and returns how many frames the port took.
    #[inline]
    fn send(&mut self, wanted: usize, now: u64) -> usize {
        let mut frames = Frames::new();
        let mut written = ArrayVec::<(u32, u8), BATCH>::new();
        let stream = stream(self.run, self.sender);
        for _ in 0..wanted.min(BATCH) {
            let Some(mut frame) = self.parts.pool.alloc() else {
                break;
            };
            let stamp = Stamp { time: now as u32, sequence: self.sequence, stream };
            written.push(self.load.fill(&mut frame, stamp));
            self.sequence = self.sequence.wrapping_add(1).max(1);
            frames.push(frame);
        }
        let count = frames.len();
        let taken = if count > 0 { self.parts.send.tx(&mut frames) } else { 0 };
        // What the ring had no room for goes again, with the numbers that it had.
        for (flow, flags) in written.drain(taken..).rev() {
            self.load.again(flow, flags);
            self.sequence = self.sequence.wrapping_sub(1);
            if self.sequence == 0 {
                self.sequence = u32::MAX;
            }
        }
        taken
    }

    /// Takes what has come, and returns whether anything has.
    #[inline]
    fn receive(&mut self, run: Option<u16>) -> bool {
        let mut any = false;
        for port in 0..self.parts.ports() {
            let parts = &mut self.parts;
            let source = parts.receive.get_mut(port).unwrap_or(&mut parts.send);
            if source.rx(&mut parts.pool, &mut self.frames) == 0 {
                continue;
            }
            any = true;
            let now = self.clock.nanos() as u32;
            let mut others = false;
            for frame in &self.frames {
                others |= !self.tracker.take(frame.data(), now, run);
            }
            if others {
                self.answer(port);
            }
            self.frames.clear();
        }
        any
    }

    /// Answers those queries among the frames that are to be answered, by the port that they came by.
    #[cold]
    fn answer(&mut self, port: usize) {
        let mut answers = Frames::new();
        let service = self.tracker.service();
        for mut frame in self.frames.drain(..) {
            if super::load::read(frame.data(), *service.ip(), service.port()).is_some() {
                continue;
            }
            if self.responder.answer(frame.data_mut()) {
                self.tracker.seen.answered += 1;
                answers.push(frame);
            } else {
                self.tracker.seen.foreign += 1;
            }
        }
        if !answers.is_empty() {
            Live::add(&self.live.answered, answers.len() as u64);
            self.parts.port(port).tx(&mut answers);
        }
    }

    /// Sends by a schedule and receives all the while. Returns frames that left, and how long that took.
    fn exchange(&mut self, schedule: Schedule) -> (u64, u64) {
        let (mut sent, mut came) = (0, self.tracker.came);
        let mut now = self.clock.nanos();
        while sent < schedule.frames && now < schedule.until {
            let wanted = schedule.due(now).saturating_sub(sent).min(BATCH as u64) as usize;
            let taken = if wanted > 0 { self.send(wanted, now) } else { 0 };
            sent += taken as u64;
            self.receive(Some(self.run));
            Live::add(&self.live.sent, taken as u64);
            Live::add(&self.live.came, self.tracker.came - came);
            came = self.tracker.came;
            now = self.clock.nanos();
        }
        (sent, now - schedule.start)
    }

    /// Receives what is still on its way.
    fn wait_for_the_rest(&mut self) {
        let start = self.clock.nanos();
        let (mut now, mut last) = (start, start);
        while now - last < QUIET_NANOS && now - start < PATIENCE_NANOS {
            let before = self.tracker.came;
            if self.receive(Some(self.run)) {
                last = now;
            }
            Live::add(&self.live.came, self.tracker.came - before);
            let all = self.live.came.load(Relaxed);
            // Others may still send; then it is not over before it is quiet.
            if all > 0 && all >= self.live.sent.load(Relaxed) && now - last > 1_000_000 {
                return;
            }
            now = self.clock.nanos();
        }
    }

    fn listen(&mut self, nanos: u64) {
        let until = self.clock.nanos() + nanos;
        while self.clock.nanos() < until {
            let before = self.tracker.came;
            self.receive(None);
            Live::add(&self.live.came, self.tracker.came - before);
        }
    }
}

impl<P: Port> Obey for Station<P> {
    fn has_huge_pages(&self) -> bool {
        self.parts.huge_pages
    }

    fn obey(&mut self, order: Order) -> Outcome {
        let latency =
            matches!(order, Order::BackToBack { latency: true, .. } | Order::Paced { latency: true, .. });
        self.run = next_run(self.run);
        self.tracker.begin(latency);
        let (start, cpu) = (self.clock.nanos(), thread_nanos());
        let (sent, took) = match order {
            Order::BackToBack { nanos, .. } => {
                let until = start + nanos;
                self.exchange(Schedule { start, gap: 0.0, frames: u64::MAX, until })
            }
            Order::Paced { rate, frames, .. } => self.exchange(Schedule::paced(start, rate, frames)),
            Order::Floor(_) => return Outcome::default(),
            Order::Listen(nanos) => {
                self.listen(nanos);
                (0, nanos)
            }
        };
        if sent > 0 && !self.one_way {
            self.wait_for_the_rest();
        }
        let came = self.tracker.came;
        let listening = matches!(order, Order::Listen(_));
        Outcome {
            offered: if listening { came } else { sent },
            forwarded: came,
            nanos: took,
            cpu_nanos: thread_nanos() - cpu,
            sent_a_second: (!listening).then_some(sent as f64 * 1e9 / took.max(1) as f64),
            seen: self.tracker.seen,
            streams: std::mem::take(&mut self.tracker.streams),
            latency: self.tracker.latency.take(),
            ..Outcome::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{order::Seen, ports::PortSpec, sizes::Sizes},
        *,
    };
    use crate::rig::ordinary;
    use pointsman_dataplane::{
        port::memory::{self, Wire as Cable, pair},
        snapshot::Method,
    };
    use pointsman_hugepages::{Buffer, Pool, PoolOptions};
    use std::{sync::atomic::AtomicBool, thread};

    fn plan(mix: Mix) -> Plan {
        Plan {
            flows: 100,
            sizes: Sizes::Imix,
            mix,
            method: Method::Direct,
            workers: 1,
            queues: 1,
            ring: 1_024,
            clock: Clock::Wall,
            memory: ordinary(),
            ports: vec![PortSpec::Device("vdev:net_memif0".to_owned())],
            wire: None,
        }
    }

    /// A port that takes the first frames of a batch and no more, as a ring does that is nearly full.
    struct Narrow {
        port: memory::Port,
        most: usize,
    }

    impl Port for Narrow {
        type Frame = Buffer;

        fn rx(&mut self, pool: &mut Pool, frames: &mut Frames) -> usize {
            self.port.rx(pool, frames)
        }

        fn tx(&mut self, frames: &mut Frames) -> usize {
            frames.truncate(self.most);
            self.port.tx(frames)
        }

        fn rx_ring_drops(&mut self) -> u64 {
            0
        }

        fn wait_fd(&self) -> Option<std::os::fd::RawFd> {
            None
        }
    }

    /// Runs `act` with a station whose frames go through `relay`, which may change them and says how often each comes back.
    fn with_station<T>(
        mix: Mix,
        mut relay: impl FnMut(u64, &mut [u8]) -> usize + Send,
        act: impl FnOnce(&mut Station<Narrow>) -> T,
    ) -> T {
        let (send, mut out) = pair(1_024, 1_856).unwrap();
        let (receive, mut back): (memory::Port, Cable) = pair(4_096, 1_856).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut n = 0;
                while !stop.load(Relaxed) {
                    while let Some(mut frame) = out.pop() {
                        n += 1;
                        for _ in 0..relay(n, frame.data_mut()) {
                            assert!(back.push(frame.data()));
                        }
                    }
                    thread::yield_now();
                }
            });
            let options = PoolOptions { buffers: 2_048, room: 1_856, memory: ordinary() };
            let parts = Parts {
                send: Narrow { port: send, most: BATCH },
                sends_and_receives: false,
                receive: vec![Narrow { port: receive, most: BATCH }],
                pool: Pool::new("test", options).unwrap(),
                macs: [[2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8]],
                huge_pages: true,
            };
            let live = Arc::new(Live::default());
            let mut station = Station::new(&plan(mix), &Wire::default(), 0, parts, live);
            let done = act(&mut station);
            stop.store(true, Relaxed);
            done
        })
    }

    const PACED: Order = Order::Paced { rate: 100_000.0, frames: 1_000, latency: true };

    #[test]
    fn what_a_director_loses_repeats_and_passes_is_told() {
        let relay = |n: u64, _: &mut [u8]| match n % 100 {
            1 => 0,
            2 => 2,
            _ => 1,
        };
        let (made, outcome) = with_station(Mix::Hit, relay, |station| {
            let made = station.live.sent.load(Relaxed);
            (made, station.obey(PACED))
        });
        assert_eq!(made, 200, "a SYN and an ACK for each flow");
        assert_eq!((outcome.offered, outcome.forwarded), (1_000, 990));
        assert_eq!((outcome.seen.duplicated, outcome.seen.reordered), (10, 0));
        assert_eq!(outcome.latency.unwrap().len(), 990);
        assert!(outcome.sent_a_second.unwrap() <= 105_000.0, "{:?}", outcome.sent_a_second);
    }

    #[test]
    fn new_flows_and_a_flood_go_out_as_they_are() {
        for mix in [Mix::New, Mix::SynFlood] {
            let mut syns = 0;
            let count = |_, frame: &mut [u8]| {
                syns += u64::from(frame[47] == tcp::SYN);
                1
            };
            let outcome = with_station(mix, count, |station| station.obey(PACED));
            assert_eq!((outcome.offered, outcome.forwarded), (1_000, 1_000));
            // A flood has a known flow in each sixteenth frame, and ten of them were made.
            assert_eq!(syns, if mix == Mix::New { 1_000 } else { 10 + 1_000 - 62 }, "{mix}");
        }
    }

    #[test]
    fn what_a_ring_has_no_room_for_goes_again_with_its_number() {
        let mut flows = std::collections::BTreeMap::new();
        let count = |_, frame: &mut [u8]| {
            let flow = super::super::load::read(frame, crate::traffic::VIP, crate::traffic::VPORT).unwrap().0;
            *flows.entry(flow).or_insert(0) += 1;
            1
        };
        let outcome = with_station(Mix::Hit, count, |station| {
            station.parts.send.most = 3;
            // So fast that whole batches are due.
            station.obey(Order::Paced { rate: 1e9, frames: 1_000, latency: false })
        });
        assert_eq!((outcome.offered, outcome.forwarded), (1_000, 1_000));
        assert_eq!((outcome.seen, outcome.streams.missing()), (Seen::default(), 0));
        // A SYN, an ACK, and each flow as often as the others.
        assert!(flows.len() == 100 && flows.values().all(|frames| *frames == 12), "{flows:?}");
    }
}
