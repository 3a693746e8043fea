//! The director that the tool measures: workers on threads of their own, each between the ends of a [`Tester`].
//!
//! One virtual service (TCP, rr) with sixteen real servers by direct routing, as in [`crate::rig`]. A worker's thread runs
//! generator, worker and sink in turn: the cost of writing and taking back frames is in every figure, and given beside them
//! as the *floor*. A packet counts as forwarded when the port has sent it. Each worker is offered the flows that it owns.
//!
//! The worker's own time, by which connections expire, goes on with the packets and not with the clock, so that a run is
//! the same on any machine: 25 ns a packet for established connections, and for new ones so that three quarters of the
//! table begin in a second, after which each of them ends.

use super::{
    load::{Flows, Load, Mix, Share},
    offer::{Clock, Mode, Pacer, Tester},
    order::{Order, Outcome, Plan, Workers},
    search::{Device, Trial},
};
use crate::{pin, rig, timing::thread_nanos};
use hdrhistogram::Histogram;
use pointsman_dataplane::{
    command::WorkerShared,
    conn::tcp::TcpState,
    handoff::{self, Endpoint},
    limits::{BATCH, FRAME_ROOM, MAX_WORKERS},
    publish::{self, Reader},
    snapshot::{Snapshot, Timeouts},
    time::{Nanos, Ticks},
    verdict::{Answer, DropReason},
    wire::tcp,
    worker::{Setup, Worker},
};
use pointsman_hugepages::{Options, PageSize, Pool, PoolOptions};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
};

/// Slices of a run whose speeds are told apart.
const SLICES: u64 = 50;
/// Longest latency that can be told, in nanoseconds: that of the stamp.
const LONGEST: u64 = u32::MAX as u64;
/// Lead that the threads of several workers get to begin together.
const LEAD_NANOS: u64 = 200_000;

/// Workers on memory ports. They end with it.
pub struct Memory {
    workers: Vec<Handle>,
    huge_pages: bool,
}

struct Handle {
    orders: Option<SyncSender<(Order, u64)>>,
    outcomes: Receiver<Result<Outcome, String>>,
    thread: Option<JoinHandle<()>>,
}

impl Memory {
    /// Workers whose connections have been made.
    ///
    /// # Errors
    /// What is wrong with the plan, or that the memory is not to be had.
    pub fn new(plan: &Plan) -> Result<Self, String> {
        check(plan)?;
        let (_, readers) = publish::channel(1, rig::snapshot(timeouts(plan.mix)), plan.workers.into());
        let parts = readers.into_iter().zip(handoff::mesh(plan.workers.into())).enumerate();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut workers = Vec::new();
        for (index, (reader, end)) in parts {
            let (orders, take) = mpsc::sync_channel(1);
            let (give, outcomes) = mpsc::sync_channel(1);
            let plan = plan.clone();
            let thread = thread::spawn(move || {
                // More workers than cores share them as the kernel likes.
                if usize::from(plan.workers) <= cores {
                    pin(index);
                }
                serve(Director::new(&plan, index as u16, reader, end), &plan, &take, &give);
            });
            workers.push(Handle { orders: Some(orders), outcomes, thread: Some(thread) });
        }
        let mut memory = Self { workers, huge_pages: true };
        // The first thing that a worker says is whether it has its memory, and huge pages.
        let ready = memory.gather()?;
        memory.huge_pages = !ready.ordinary_pages;
        Ok(memory)
    }

    fn gather(&self) -> Result<Outcome, String> {
        let mut all = Vec::new();
        // All are heard before one is believed: a second worker may still be making its tables.
        for worker in &self.workers {
            all.push(worker.outcomes.recv().unwrap_or_else(|_| Err("a worker has ended".to_owned())));
        }
        let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(all.into_iter().reduce(Outcome::join).unwrap_or_default())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            drop(worker.orders.take());
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                // What it has to say it has said.
                let _ = thread.join();
            }
        }
    }
}

impl Workers for Memory {
    fn run(&mut self, order: Order) -> Result<Outcome, String> {
        let lead = if self.workers.len() > 1 { LEAD_NANOS } else { 0 };
        let start = Clock::Wall.nanos() + lead;
        let count = self.workers.len() as u64;
        for (n, worker) in self.workers.iter().enumerate() {
            let share = match order {
                Order::Paced { rate, frames, latency } => Order::Paced {
                    rate: rate / count as f64,
                    frames: frames / count + u64::from((n as u64) < frames % count),
                    latency,
                },
                all => all,
            };
            let sent = worker.orders.as_ref().is_some_and(|orders| orders.send((share, start)).is_ok());
            if !sent {
                return Err("a worker has ended".to_owned());
            }
        }
        self.gather()
    }

    fn has_huge_pages(&self) -> bool {
        self.huge_pages
    }
}

impl Device for Memory {
    fn trial(&mut self, rate: f64, frames: u64) -> Result<Trial, String> {
        let outcome = self.run(Order::Paced { rate, frames, latency: false })?;
        Ok(Trial { rate, offered: outcome.offered, forwarded: outcome.forwarded })
    }
}

fn check(plan: &Plan) -> Result<(), String> {
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

/// What a worker's thread does until nobody gives orders any more.
fn serve(
    director: Result<Director, String>,
    plan: &Plan,
    orders: &Receiver<(Order, u64)>,
    outcomes: &SyncSender<Result<Outcome, String>>,
) {
    let mut director = match director {
        Ok(director) => director,
        Err(message) => {
            // Who made us waits for it.
            let _ = outcomes.send(Err(message));
            return;
        }
    };
    let ready = Outcome { ordinary_pages: !director.has_huge_pages(), ..Outcome::default() };
    let mut said = outcomes.send(Ok(ready));
    while let (Ok(()), Ok((order, start))) = (&said, orders.recv()) {
        while Clock::Wall.nanos() < start {
            std::hint::spin_loop();
        }
        said = outcomes.send(Ok(director.obey(order, plan)));
    }
}

/// One worker and its time.
struct Director {
    worker: Worker<Tester>,
    shared: Arc<WorkerShared>,
    floor_pool: Pool,
    now: Nanos,
    nanos_per_packet: u64,
}

impl Director {
    fn new(plan: &Plan, index: u16, snapshot: Reader<Snapshot>, handoff: Endpoint) -> Result<Self, String> {
        let share = Share { index, workers: plan.workers };
        let table = plan.flows / u32::from(plan.workers);
        let (capacity, known) = match plan.mix {
            Mix::Hit => (share.count(plan.flows), plan.flows),
            Mix::New => (table, 0),
            Mix::SynFlood => (table, plan.flows / 10),
        };
        let first = if known > 0 { Flows::known(share, known, tcp::SYN) } else { Flows::fresh(share) };
        let shared = Arc::new(WorkerShared::new(index));
        let said = |error: pointsman_hugepages::Error| error.to_string();
        let worker = Worker::new(Setup {
            index,
            ports: vec![Tester::new(Load::new(first, plan.sizes))],
            pool: pool(&plan.memory, 4 * BATCH).map_err(said)?,
            connections_ipv4: capacity as usize,
            connections_ipv6: 1,
            memory: plan.memory.clone(),
            snapshot,
            handoff,
            exception: None,
            shared: Arc::clone(&shared),
            seed: 0x5eed,
        })
        .map_err(said)?;
        let nanos_per_packet = match plan.mix {
            Mix::Hit => 25,
            Mix::New => 1_000_000_000 / (u64::from(table) * 3 / 4),
            Mix::SynFlood => 156,
        };
        let floor_pool = pool(&plan.memory, BATCH).map_err(said)?;
        let mut director =
            Self { worker, shared, floor_pool, now: Nanos::from_secs(1_000), nanos_per_packet };
        director.make_connections(plan.mix, share, known, table);
        Ok(director)
    }

    /// Brings the table to the state that the mix is about.
    fn make_connections(&mut self, mix: Mix, share: Share, known: u32, table: u32) {
        if known > 0 {
            let own = u64::from(share.count(known));
            self.take(own);
            self.tester().load.flows = Flows::known(share, known, tcp::ACK);
            self.take(own);
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

    fn tester(&mut self) -> &mut Tester {
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

    fn has_huge_pages(&self) -> bool {
        self.worker.memory_reports().iter().all(|report| report.page_size != PageSize::Ordinary)
    }

    fn obey(&mut self, order: Order, plan: &Plan) -> Outcome {
        let before = self.counts();
        let latency = match order {
            Order::BackToBack { latency, .. } | Order::Paced { latency, .. } => latency,
            Order::Floor(_) => false,
        };
        self.tester().latency = if latency { Histogram::new_with_bounds(1, LONGEST, 3).ok() } else { None };
        let (from, cpu_from) = (Clock::Wall.nanos(), thread_nanos());
        let mut outcome = match order {
            Order::BackToBack { nanos, latency } => {
                self.tester().mode = if latency { Mode::Stamped(plan.clock) } else { Mode::BackToBack };
                self.back_to_back(nanos)
            }
            Order::Paced { rate, frames, .. } => {
                let pacer = Pacer::new(plan.clock.nanos(), rate, frames, plan.ring);
                self.tester().mode = Mode::Paced(plan.clock, pacer);
                self.paced()
            }
            Order::Floor(frames) => self.floor(frames),
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
        use pointsman_dataplane::port::{Frames, Port as _};
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

struct Counts {
    packets: u64,
    forwarded: u64,
    created: u64,
    losses: BTreeMap<String, u64>,
}

fn pool(memory: &Options, buffers: usize) -> Result<Pool, pointsman_hugepages::Error> {
    Pool::new("packet buffers", PoolOptions { buffers, room: FRAME_ROOM, memory: memory.clone() })
}

#[cfg(test)]
mod tests {
    use super::{super::sizes::Sizes, *};

    fn plan(mix: Mix, workers: u16) -> Plan {
        Plan {
            flows: 10_000,
            sizes: Sizes::Imix,
            mix,
            workers,
            ring: 1_024,
            clock: Clock::Cpu,
            memory: rig::ordinary(),
        }
    }

    const SHORT: Order = Order::BackToBack { nanos: 20_000_000, latency: true };

    #[test]
    fn established_flows_are_forwarded_without_loss_by_any_number_of_workers() {
        for workers in [1, 2] {
            let outcome = Memory::new(&plan(Mix::Hit, workers)).unwrap().run(SHORT).unwrap();
            assert!(outcome.offered > 0 && outcome.offered == outcome.forwarded, "{outcome:?}");
            assert_eq!((outcome.created, outcome.losses.len(), outcome.slices.len()), (0, 0, 50));
            assert_eq!(outcome.latency.unwrap().len(), outcome.forwarded);
        }
    }

    #[test]
    fn every_packet_of_new_clients_makes_a_connection() {
        for workers in [1, 2] {
            let outcome = Memory::new(&plan(Mix::New, workers)).unwrap().run(SHORT).unwrap();
            assert_eq!((outcome.created, outcome.losses.len()), (outcome.offered, 0), "{outcome:?}");
        }
    }

    #[test]
    fn a_flood_loses_no_established_connection() {
        for workers in [1, 2] {
            let outcome = Memory::new(&plan(Mix::SynFlood, workers)).unwrap().run(SHORT).unwrap();
            assert_eq!((outcome.forwarded, outcome.losses.len()), (outcome.offered, 0), "{outcome:?}");
            let share = outcome.created as f64 / outcome.offered as f64;
            assert!((0.93..0.945).contains(&share), "fifteen of sixteen, {workers} workers: {share}");
        }
    }

    #[test]
    fn a_paced_trial_offers_exactly_what_it_is_told() {
        let mut memory = Memory::new(&plan(Mix::Hit, 2)).unwrap();
        let trial = memory.trial(50_000.0, 1_001).unwrap();
        assert_eq!(trial.offered, 1_001);
        // Far faster than any worker: the rings take what they hold, and the rest is counted as lost.
        let outcome = memory.run(Order::Paced { rate: 1e12, frames: 100_000, latency: false }).unwrap();
        assert_eq!(outcome.offered, 100_000);
        assert_eq!(outcome.forwarded + outcome.losses["receive_ring_full"], 100_000);
    }

    #[test]
    fn a_plan_that_cannot_be_is_refused_by_its_option() {
        let refused = |plan: Plan| Memory::new(&plan).err().unwrap();
        assert_eq!(refused(plan(Mix::Hit, 0)), "--workers is from 1 to 64");
        assert!(refused(Plan { flows: 0, ..plan(Mix::Hit, 1) }).starts_with("--flows is from 1 (with"));
        assert!(refused(Plan { flows: 199, ..plan(Mix::Hit, 2) }).starts_with("--flows is from 200 (with 2"));
        assert!(refused(Plan { flows: 999, ..plan(Mix::New, 1) }).contains("1000 a worker"));
    }
}
