//! The directors that the tool measures: workers on threads of their own, each between the ends of a [`Tester`], in memory
//! or over a device.
//!
//! One virtual service (TCP, rr) with sixteen real servers by direct routing, as in [`crate::rig`]. A worker's thread runs
//! generator, worker and sink in turn: the cost of writing and taking back frames is in every figure, and given beside them
//! as the *floor*. A packet counts as forwarded when the port has sent it. Each worker is offered the flows that it owns.
//!
//! The worker's own time, by which connections expire, goes on with the packets and not with the clock, so that a run is
//! the same on any machine: 25 ns a packet for established connections, and for new ones so that three quarters of the
//! table begin in a second, after which each of them ends.

use super::{
    crew::{Crew, Obey},
    load::{Flows, Load, Mix, Share, Target},
    offer::{Clock, Medium, Mode, Pacer, Plain, Tester},
    order::{Order, Outcome, Plan},
};
use crate::{rig, timing::thread_nanos};
use hdrhistogram::Histogram;
use pointsman_dataplane::{
    command::WorkerShared,
    conn::tcp::TcpState,
    handoff::{self, Endpoint},
    limits::{BATCH, FRAME_ROOM, MAX_WORKERS},
    port::{Frame, Frames, Port as _},
    publish::{self, Reader},
    snapshot::{Method, Snapshot, Timeouts},
    time::{Nanos, Ticks},
    verdict::{Answer, DropReason},
    wire::tcp,
    worker::{Setup, Worker},
};
use pointsman_hugepages::{Options, PageSize, Pool, PoolOptions};
use std::{collections::BTreeMap, sync::Arc};

/// Slices of a run whose speeds are told apart.
const SLICES: u64 = 50;
/// Longest latency that can be told, in nanoseconds: that of the stamp.
const LONGEST: u64 = u32::MAX as u64;

/// What a worker gets its frames from.
pub struct Parts<M: Medium> {
    /// Between generator and sink.
    pub medium: M,
    /// Of the worker.
    pub pool: PoolOf<M>,
    /// Of generator and sink when no worker is between them.
    pub floor_pool: PoolOf<M>,
}

type PoolOf<M> = <<M as Medium>::Frame as Frame>::Pool;

/// Workers on memory ports whose connections have been made.
///
/// # Errors
/// What is wrong with the plan, or that the memory is not to be had.
pub fn in_memory(plan: &Plan) -> Result<Crew, String> {
    let parts = (0..plan.workers).map(|_| {
        let memory = plan.memory.clone();
        move || {
            let pool = |count| buffers(&memory, count).map_err(|error| error.to_string());
            Ok(Parts { medium: Plain, pool: pool(4 * BATCH)?, floor_pool: pool(BATCH)? })
        }
    });
    directors(plan, parts.collect())
}

/// A worker for each of `parts`, which are made by the worker's thread.
///
/// # Errors
/// What is wrong with the plan, or that the memory is not to be had.
pub fn directors<M: Medium + 'static>(
    plan: &Plan,
    parts: Vec<impl FnOnce() -> Result<Parts<M>, String> + Send + 'static>,
) -> Result<Crew, String> {
    check(plan)?;
    let (_, readers) =
        publish::channel(1, rig::snapshot_by(plan.method, timeouts(plan.mix)), plan.workers.into());
    let ends = readers.into_iter().zip(handoff::mesh(plan.workers.into()));
    let makers = (0..).zip(parts).zip(ends).map(|((index, parts), (reader, end))| {
        let plan = plan.clone();
        move || Director::new(plan, index, parts()?, reader, end)
    });
    Crew::start(makers.collect())
}

/// Refuses what no worker can be offered.
///
/// # Errors
/// Which option is wrong.
pub fn check(plan: &Plan) -> Result<(), String> {
    let workers = usize::from(plan.workers);
    if workers == 0 || workers > MAX_WORKERS {
        return Err(format!("--workers is from 1 to {MAX_WORKERS}"));
    }
    // Few flows may all belong to one of several workers.
    let (least, most) = (if workers > 1 { 100 * workers as u32 } else { 1 }, crate::traffic::FLOWS / 8);
    if !(least..=most).contains(&plan.flows) {
        return Err(format!(
            "--flows is from {least} (with {workers} workers) to {most}; it was {}",
            plan.flows
        ));
    }
    if plan.mix != Mix::Hit && plan.flows / u32::from(plan.workers) < 1_000 {
        return Err("--flows is the size of the table with --mix new and syn-flood: 1000 a worker at least"
            .to_owned());
    }
    Ok(())
}

fn timeouts(mix: Mix) -> Timeouts {
    let mut timeouts = Timeouts::default();
    if mix == Mix::New {
        timeouts.tcp[TcpState::SynReceived as usize] = Ticks::from_secs(1);
    }
    timeouts
}

/// One worker and its time.
struct Director<M: Medium> {
    plan: Plan,
    worker: Worker<Tester<M>>,
    shared: Arc<WorkerShared>,
    floor_pool: PoolOf<M>,
    now: Nanos,
    nanos_per_packet: u64,
}

impl<M: Medium> Director<M> {
    fn new(
        plan: Plan,
        index: u16,
        parts: Parts<M>,
        snapshot: Reader<Snapshot>,
        handoff: Endpoint<M::Frame>,
    ) -> Result<Self, String> {
        let share = Share { index, workers: plan.workers };
        let table = plan.flows / u32::from(plan.workers);
        let (capacity, known) = match plan.mix {
            Mix::Hit => (share.count(plan.flows), plan.flows),
            Mix::New => (table, 0),
            Mix::SynFlood => (table, plan.flows / 10),
        };
        // With NAT there is a second entry for answers.
        let capacity = capacity * if plan.method == Method::Nat { 2 } else { 1 };
        let first = if known > 0 { Flows::known(share, known, tcp::SYN) } else { Flows::fresh(share) };
        let shared = Arc::new(WorkerShared::new(index));
        let load = Load::new(first, plan.sizes, &Target::default());
        let worker = Worker::new(Setup {
            index,
            ports: vec![Tester::new(load, parts.medium)],
            pool: parts.pool,
            connections_ipv4: capacity as usize,
            connections_ipv6: 1,
            memory: plan.memory.clone(),
            snapshot,
            handoff,
            exception: None,
            shared: Arc::clone(&shared),
            seed: 0x5eed,
        })
        .map_err(|error| error.to_string())?;
        let nanos_per_packet = match plan.mix {
            Mix::Hit => 25,
            Mix::New => 1_000_000_000 / (u64::from(table) * 3 / 4),
            Mix::SynFlood => 156,
        };
        let (floor_pool, now) = (parts.floor_pool, Nanos::from_secs(1_000));
        let mix = plan.mix;
        let mut director = Self { plan, worker, shared, floor_pool, now, nanos_per_packet };
        director.make_connections(mix, share, known, table);
        Ok(director)
    }

    /// Brings the table to the state that the mix is about.
    fn make_connections(&mut self, mix: Mix, share: Share, known: u32, table: u32) {
        if known > 0 {
            let own = u64::from(share.count(known));
            self.take(own);
            self.tester().load.flows = Flows::known(share, known, tcp::ACK);
            self.take(own);
            if self.plan.method == Method::Nat && mix == Mix::Hit {
                self.tester().load.flows = Flows::both_ways(share, known);
                self.take(2 * own);
            }
        }
        if mix == Mix::SynFlood {
            self.tester().load.flows = Flows::flood(share, known);
        }
        if mix != Mix::Hit {
            self.take(2 * u64::from(table));
        }
    }

    /// Has the worker take at least so many packets, back to back.
    fn take(&mut self, packets: u64) {
        for _ in 0..packets.div_ceil(BATCH as u64) {
            self.poll();
        }
    }

    fn tester(&mut self) -> &mut Tester<M> {
        &mut self.worker.ports_mut()[0]
    }

    #[inline]
    fn poll(&mut self) {
        let before = self.shared.stats.packets.get();
        self.worker.poll(self.now);
        let taken = self.shared.stats.packets.get() - before;
        // A poll that finds nothing takes time too.
        self.now.0 += (taken * self.nanos_per_packet).max(20);
    }

    /// Polls for so long, a slice at a time.
    fn back_to_back(&mut self, nanos: u64) -> Outcome {
        let mut outcome = Outcome { best_nanos: f64::INFINITY, ..Outcome::default() };
        let start = Clock::Wall.nanos();
        for slice in 1..=SLICES {
            let (from, cpu_from) = (Clock::Wall.nanos(), thread_nanos());
            let before = self.shared.stats.packets.get();
            let until = start + nanos * slice / SLICES;
            loop {
                self.take(16 * BATCH as u64);
                if Clock::Wall.nanos() >= until {
                    break;
                }
            }
            let packets = self.shared.stats.packets.get() - before;
            let (now, cpu) = (Clock::Wall.nanos(), thread_nanos() - cpu_from);
            outcome.best_nanos = outcome.best_nanos.min(cpu as f64 / packets as f64);
            outcome
                .slices
                .push([(now - start) as f64 / 1e9, packets as f64 * 1e3 / (now - from).max(1) as f64]);
        }
        outcome
    }

    /// Polls until all frames have come and been taken.
    fn paced(&mut self) -> Outcome {
        loop {
            self.poll();
            if let Mode::Paced(_, pacer) = &self.tester().mode
                && pacer.is_done()
            {
                // What the worker took it has sent within the same poll.
                return Outcome::default();
            }
        }
    }

    /// Generator and sink with no worker between them.
    fn floor(&mut self, frames: u64) -> Outcome {
        let (mut batch, mut moved) = (Frames::new(), 0);
        let tester = &mut self.worker.ports_mut()[0];
        while moved < frames {
            tester.rx(&mut self.floor_pool, &mut batch);
            moved += tester.tx(&mut batch) as u64;
        }
        Outcome { offered: moved, forwarded: moved, ..Outcome::default() }
    }

    fn counts(&mut self) -> Counts {
        let stats = &self.shared.stats;
        let drops =
            DropReason::ALL.iter().zip(&stats.drops).map(|(reason, n)| (reason.name().to_owned(), n.get()));
        let answers =
            Answer::ALL.iter().zip(&stats.answers).map(|(kind, n)| (format!("answered_{kind}"), n.get()));
        let losses = drops.chain(answers).filter(|(_, n)| *n > 0).collect();
        Counts {
            packets: stats.packets.get(),
            created: stats.connections_created.get(),
            losses,
            forwarded: stats.forwarded.get(),
        }
    }
}

impl<M: Medium> Obey for Director<M> {
    fn has_huge_pages(&self) -> bool {
        self.worker.memory_reports().iter().all(|report| report.page_size != PageSize::Ordinary)
    }

    fn obey(&mut self, order: Order) -> Outcome {
        let before = self.counts();
        let latency = match order {
            Order::BackToBack { latency, .. } | Order::Paced { latency, .. } => latency,
            Order::Floor(_) | Order::Listen(_) => false,
        };
        self.tester().latency = if latency { Histogram::new_with_bounds(1, LONGEST, 3).ok() } else { None };
        let (from, cpu_from) = (Clock::Wall.nanos(), thread_nanos());
        let mut outcome = match order {
            Order::BackToBack { nanos, latency } => {
                self.tester().mode = if latency { Mode::Stamped(self.plan.clock) } else { Mode::BackToBack };
                self.back_to_back(nanos)
            }
            Order::Paced { rate, frames, .. } => {
                let clock = self.plan.clock;
                let pacer = Pacer::new(clock.nanos(), rate, frames, self.plan.ring);
                self.tester().mode = Mode::Paced(clock, pacer);
                self.paced()
            }
            Order::Floor(frames) => self.floor(frames),
            // A director sends what it receives: there is nothing to listen to.
            Order::Listen(_) => Outcome::default(),
        };
        outcome.nanos = Clock::Wall.nanos() - from;
        outcome.cpu_nanos = thread_nanos() - cpu_from;
        let after = self.counts();
        outcome.latency = self.tester().latency.take();
        let tester = self.tester();
        let lost = match &tester.mode {
            Mode::Paced(_, pacer) => pacer.lost(),
            _ => 0,
        };
        tester.mode = Mode::BackToBack;
        outcome.created = after.created - before.created;
        if !matches!(order, Order::Floor(_)) {
            outcome.offered = after.packets - before.packets + lost;
            outcome.forwarded = after.forwarded - before.forwarded;
        }
        for (reason, n) in after.losses {
            let n = n - before.losses.get(&reason).copied().unwrap_or(0);
            if n > 0 {
                outcome.losses.insert(reason, n);
            }
        }
        if lost > 0 {
            outcome.losses.insert("receive_ring_full".to_owned(), lost);
        }
        outcome
    }
}

struct Counts {
    packets: u64,
    forwarded: u64,
    created: u64,
    losses: BTreeMap<String, u64>,
}

fn buffers(memory: &Options, buffers: usize) -> Result<Pool, pointsman_hugepages::Error> {
    Pool::new("packet buffers", PoolOptions { buffers, room: FRAME_ROOM, memory: memory.clone() })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{order::Workers as _, search::Device as _, sizes::Sizes},
        *,
    };
    fn plan(mix: Mix, workers: u16) -> Plan {
        Plan {
            flows: 10_000,
            sizes: Sizes::Imix,
            mix,
            method: Method::Direct,
            workers,
            ring: 1_024,
            clock: Clock::Cpu,
            memory: rig::ordinary(),
            queues: 0,
            ports: Vec::new(),
            wire: None,
        }
    }

    const SHORT: Order = Order::BackToBack { nanos: 20_000_000, latency: true };

    #[test]
    fn established_flows_are_forwarded_without_loss_by_any_number_of_workers() {
        for workers in [1, 2] {
            let outcome = in_memory(&plan(Mix::Hit, workers)).unwrap().run(SHORT).unwrap();
            assert!(outcome.offered > 0 && outcome.offered == outcome.forwarded, "{outcome:?}");
            assert_eq!((outcome.created, outcome.losses.len(), outcome.slices.len()), (0, 0, 50));
            assert_eq!(outcome.latency.unwrap().len(), outcome.forwarded);
        }
    }

    #[test]
    fn nat_translates_every_size_both_ways() {
        for workers in [1, 2] {
            let plan = Plan { method: Method::Nat, ..plan(Mix::Hit, workers) };
            let outcome = in_memory(&plan).unwrap().run(SHORT).unwrap();
            assert!(outcome.forwarded > 0 && outcome.forwarded == outcome.offered, "{outcome:?}");
            assert_eq!((outcome.created, outcome.losses.len()), (0, 0));
        }
    }

    #[test]
    fn tunnels_carry_every_size() {
        let plan = Plan { method: Method::Tunnel, ..plan(Mix::Hit, 1) };
        let outcome = in_memory(&plan).unwrap().run(SHORT).unwrap();
        assert!(outcome.forwarded > 0 && outcome.forwarded == outcome.offered, "{outcome:?}");
    }

    #[test]
    fn every_packet_of_new_clients_makes_a_connection() {
        for workers in [1, 2] {
            let outcome = in_memory(&plan(Mix::New, workers)).unwrap().run(SHORT).unwrap();
            assert_eq!((outcome.created, outcome.losses.len()), (outcome.offered, 0), "{outcome:?}");
        }
    }

    #[test]
    fn a_flood_loses_no_established_connection() {
        for workers in [1, 2] {
            let outcome = in_memory(&plan(Mix::SynFlood, workers)).unwrap().run(SHORT).unwrap();
            assert_eq!((outcome.forwarded, outcome.losses.len()), (outcome.offered, 0), "{outcome:?}");
            let share = outcome.created as f64 / outcome.offered as f64;
            assert!((0.93..0.945).contains(&share), "fifteen of sixteen, {workers} workers: {share}");
        }
    }

    #[test]
    fn a_paced_trial_offers_exactly_what_it_is_told() {
        let mut directors = in_memory(&plan(Mix::Hit, 2)).unwrap();
        let trial = directors.trial(50_000.0, 1_001).unwrap();
        assert_eq!(trial.offered, 1_001);
        // Far faster than any worker: the rings take what they hold, and the rest is counted as lost.
        let outcome = directors.run(Order::Paced { rate: 1e12, frames: 100_000, latency: false }).unwrap();
        assert_eq!(outcome.offered, 100_000);
        assert_eq!(outcome.forwarded + outcome.losses["receive_ring_full"], 100_000);
    }

    #[test]
    fn a_plan_that_cannot_be_is_refused_by_its_option() {
        let refused = |plan: Plan| in_memory(&plan).err().unwrap();
        assert_eq!(refused(plan(Mix::Hit, 0)), "--workers is from 1 to 64");
        assert!(refused(Plan { flows: 0, ..plan(Mix::Hit, 1) }).starts_with("--flows is from 1 (with"));
        assert!(refused(Plan { flows: 199, ..plan(Mix::Hit, 2) }).starts_with("--flows is from 200 (with 2"));
        assert!(refused(Plan { flows: 999, ..plan(Mix::New, 1) }).contains("1000 a worker"));
    }
}
