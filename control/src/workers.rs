//! The threads that workers run on: one a core, asleep when there is nothing to do, woken when there is.

mod idle;

use crate::{clock, config::model::Idle, cores};
use idle::{Meter, Patience, Rest, Spent};
use pointsman_dataplane::{
    command::{Command, WorkerShared},
    port::{Port, sys::poll},
    wake::{self, Sleeper, Waker},
    worker::{Setup, Worker},
};
use pointsman_hugepages::Report;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};
use tokio::sync::Notify;

/// A worker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its memory is not to be had.
    #[error("worker {index}: {source}")]
    Memory {
        /// The worker.
        index: u16,
        /// What is lacking, with the remedy.
        source: pointsman_hugepages::Error,
    },
    /// The system refuses a thread or a socket.
    #[error("worker {index}: cannot start its thread: {source}; check `ulimit -u` and `ulimit -n`")]
    Thread {
        /// The worker.
        index: u16,
        /// What the system said.
        source: io::Error,
    },
    /// Its thread ended before it ran.
    #[error("worker {0} ended while it started: see the log above")]
    Ended(u16),
}

/// A worker that is to be started.
pub struct Plan<P: Port> {
    /// The core to run on.
    pub core: u32,
    /// What it does when there is nothing to do.
    pub idle: Idle,
    /// What it is made of.
    pub setup: Setup<P>,
}

/// A running worker, as the control plane sees it.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The core that it runs on.
    pub core: u32,
    /// What it does when there is nothing to do.
    pub idle: Idle,
    /// What it shares.
    pub shared: Arc<WorkerShared>,
    sharing: Arc<[String]>,
    waker: Arc<Waker>,
    renewed: Arc<Notify>,
}

impl Handle {
    /// One without a thread.
    #[cfg(test)]
    pub(crate) fn idle(index: u16, core: u32) -> Self {
        let (waker, _) = wake::pair().unwrap();
        let shared = Arc::new(WorkerShared::new(index));
        Self { core, idle: Idle::Sleep, shared, sharing: [].into(), waker, renewed: Arc::default() }
    }

    /// Waits until the worker has taken another generation than when this was last called. For one caller at a time.
    pub async fn renewed(&self) {
        self.renewed.notified().await;
    }

    /// What keeps it from having its core for itself: a sentence each, with the remedy.
    pub fn warnings(&self) -> Vec<String> {
        let mut all = self.sharing.to_vec();
        if self.shared.stats.time.bound.get() == 0 {
            all.push(unbound(self.shared.index, self.core));
        }
        all
    }

    /// Makes it look at its commands and its configuration at once.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Gives it an order and wakes it. Returns the order if its queue is full: it does not poll.
    pub fn command(&self, command: Command) -> Result<(), Command> {
        self.shared.commands.push(command)?;
        self.wake();
        Ok(())
    }
}

/// A worker's thread has ended although nobody told it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended(pub u16);

/// The threads of all workers. Dropping it ends them.
#[derive(Debug)]
pub struct Crew {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Crew {
    /// Starts a thread for each worker and waits until all have their memory. `ended` is called when one ends abnormally.
    ///
    /// # Errors
    /// The first that occurs; the others are ended.
    pub fn start<P: Port + 'static>(
        plans: Vec<Plan<P>>,
        ended: impl Fn(Ended) + Clone + Send + 'static,
    ) -> Result<(Self, Vec<Report>), Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut wakers = Vec::new();
        let mut sleepers = Vec::new();
        for plan in &plans {
            let (waker, sleeper) =
                wake::pair().map_err(|source| Error::Thread { index: plan.setup.index, source })?;
            wakers.push(waker);
            sleepers.push(sleeper);
        }
        let cores: Vec<u32> = plans.iter().map(|plan| plan.core).collect();
        let mut crew = Self { handles: Vec::new(), threads: Vec::new(), stop };
        let mut waiting = Vec::new();
        for ((plan, sleeper), waker) in plans.into_iter().zip(sleepers).zip(&wakers) {
            let (core, index, shared) = (plan.core, plan.setup.index, plan.setup.shared.clone());
            let sharing: Arc<[String]> = cores::sharing(usize::from(index), &cores, cores::siblings).into();
            sharing.iter().for_each(|warning| tracing::warn!("{warning}"));
            let (waker, renewed) = (waker.clone(), Arc::new(Notify::new()));
            let handle = Handle { core, idle: plan.idle, shared, sharing, waker, renewed: renewed.clone() };
            crew.handles.push(handle);
            let (answer, started) = mpsc::channel();
            let body = Body { sleeper, renewed, wakers: wakers.clone(), stop: crew.stop.clone() };
            let ended = ended.clone();
            let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let notice = Notice { index, stop: body.stop.clone(), ended };
                body.run(plan, &answer);
                drop(notice);
            });
            crew.threads.push(thread.map_err(|source| Error::Thread { index, source })?);
            waiting.push((index, started));
        }
        let mut reports = Vec::new();
        for (index, started) in waiting {
            match started.recv() {
                Ok(Ok(got)) => reports.extend(got),
                Ok(Err(source)) => return Err(Error::Memory { index, source }),
                Err(mpsc::RecvError) => return Err(Error::Ended(index)),
            }
        }
        Ok((crew, reports))
    }

    /// The workers by number.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.handles.iter().for_each(Handle::wake);
        for thread in self.threads.drain(..) {
            // Its end was told when it came.
            let _ = thread.join();
        }
    }
}

/// Tells when a thread ends that was not told to.
struct Notice<F: Fn(Ended)> {
    index: u16,
    stop: Arc<AtomicBool>,
    ended: F,
}

impl<F: Fn(Ended)> Drop for Notice<F> {
    fn drop(&mut self) {
        if !self.stop.load(Ordering::Acquire) {
            (self.ended)(Ended(self.index));
        }
    }
}

/// What a worker's thread does.
struct Body {
    sleeper: Sleeper,
    renewed: Arc<Notify>,
    wakers: Vec<Arc<Waker>>,
    stop: Arc<AtomicBool>,
}

/// What a thread knows of its worker's last poll.
struct Seen {
    meter: Meter,
    handed_off: u64,
    generation: u64,
}

type Started = Result<Vec<Report>, pointsman_hugepages::Error>;

impl Body {
    fn run<P: Port>(mut self, plan: Plan<P>, answer: &mpsc::Sender<Started>) {
        let index = plan.setup.index;
        let core = core_affinity::CoreId { id: plan.core as usize };
        let shared = plan.setup.shared.clone();
        if core_affinity::set_for_current(core) {
            shared.stats.time.bound.set(1);
        } else {
            tracing::warn!("{}", unbound(index, plan.core));
        }
        // Made here, so that its memory is near the core that it runs on.
        let mut worker = match Worker::new(plan.setup) {
            Ok(worker) => worker,
            Err(error) => {
                // Told by the answer, not by the end of the thread.
                self.stop.store(true, Ordering::Release);
                let _ = answer.send(Err(error));
                return;
            }
        };
        let _ = answer.send(Ok(worker.memory_reports()));
        self.poll(&mut worker, &shared, plan.idle);
    }

    fn poll<P: Port>(&mut self, worker: &mut Worker<P>, shared: &WorkerShared, idle: Idle) {
        // The waker first: `wait` does not look at fds beyond the most ports.
        let mut fds = vec![self.sleeper.fd()];
        fds.extend_from_slice(worker.wait_fds());
        let time = &shared.stats.time;
        let mut patience = Patience::new(idle);
        let generation = shared.stats.generation.get();
        let mut seen = Seen { meter: Meter::new(clock::now()), handed_off: 0, generation };
        while !self.stop.load(Ordering::Relaxed) {
            let done = self.look(worker, shared, &mut seen);
            match patience.after(done) {
                Rest::No => {}
                Rest::Pause => std::hint::spin_loop(),
                Rest::Wait(longest) => {
                    self.sleeper.falls_asleep();
                    // What came before it was known to sleep.
                    let done = self.look(worker, shared, &mut seen);
                    if done > 0 {
                        patience.after(done);
                    } else if !self.stop.load(Ordering::Acquire) {
                        seen.meter.spends(Spent::Asleep);
                        time.sleeps.add(1);
                        time.woken.add(u64::from(poll::wait_for(&fds, longest)));
                    }
                    self.sleeper.wakes();
                }
            }
        }
    }

    /// One poll, with the one reading of the clock that it costs. Those who wait for what it did are woken.
    fn look<P: Port>(&self, worker: &mut Worker<P>, shared: &WorkerShared, seen: &mut Seen) -> usize {
        let (now, stats) = (clock::now(), &shared.stats);
        seen.meter.reads(now, &stats.time);
        let done = worker.poll(now);
        seen.meter.spends(if done > 0 { Spent::Busy } else { Spent::Empty });
        let (handed_off, generation) = (stats.handed_off.get(), stats.generation.get());
        if handed_off != seen.handed_off {
            seen.handed_off = handed_off;
            self.wake_others(shared.index);
        }
        if generation != seen.generation {
            seen.generation = generation;
            self.renewed.notify_one();
        }
        done
    }

    /// Frames were handed to other workers: they may sleep.
    fn wake_others(&self, own: u16) {
        for (index, waker) in self.wakers.iter().enumerate() {
            if index != usize::from(own) {
                waker.wake();
            }
        }
    }
}

fn unbound(index: u16, core: u32) -> String {
    format!(
        "worker {index} cannot be bound to core {core}: the kernel moves it as it likes; check the daemon's cpuset"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Director, WEB};
    use pointsman_dataplane::stats::Counter;
    use std::time::Duration;

    /// Its driver has a mistake.
    struct Broken;

    impl Port for Broken {
        type Frame = pointsman_hugepages::Buffer;

        fn rx(
            &mut self,
            _: &mut pointsman_hugepages::Pool,
            _: &mut pointsman_dataplane::port::Frames,
        ) -> usize {
            panic!("a mistake")
        }
        fn tx(&mut self, _: &mut pointsman_dataplane::port::Frames) -> usize {
            0
        }
        fn rx_ring_drops(&mut self) -> u64 {
            0
        }
        fn wait_fd(&self) -> Option<std::os::fd::RawFd> {
            None
        }
    }

    #[test]
    fn a_worker_that_ends_abnormally_is_told_and_one_that_is_ended_is_not() {
        use pointsman_dataplane::{handoff, port::memory, publish, snapshot::Snapshot};
        let start = |notice: mpsc::Sender<Ended>, broken: bool| {
            let (_, mut readers) = publish::channel(1, Snapshot::default(), 1);
            let (reader, end) = (readers.remove(0), handoff::mesh(1).remove(0));
            let ended = move |ended| notice.send(ended).unwrap();
            if broken {
                Crew::start(vec![crate::testing::plan(0, Broken, reader, end)], ended).unwrap().0
            } else {
                let (port, _) = memory::pair(8, 2_048).unwrap();
                Crew::start(vec![crate::testing::plan(0, port, reader, end)], ended).unwrap().0
            }
        };
        let (notice, told) = mpsc::channel();
        let crew = start(notice, true);
        assert_eq!(told.recv_timeout(std::time::Duration::from_secs(5)), Ok(Ended(0)));
        drop(crew);
        let (notice, told) = mpsc::channel();
        drop(start(notice, false));
        assert!(told.recv().is_err());
    }

    /// Waits until `done`, 5 seconds at most.
    async fn until(mut done: impl FnMut() -> bool) {
        for _ in 0..1_000 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it is not so after 5 seconds");
    }

    #[tokio::test]
    async fn a_worker_that_sleeps_accounts_for_its_time_and_counts_what_woke_it() {
        let before = clock::now();
        let mut director = Director::start(WEB, 1);
        let handle = director.control.workers()[0].clone();
        let (stats, time) = (&handle.shared.stats, &handle.shared.stats.time);
        until(|| time.sleeps.get() > 20).await;
        let woken = time.woken.get();
        until(|| {
            handle.wake();
            time.woken.get() > woken
        })
        .await;
        assert!(director.wires[0].push(&[0; 64]));
        until(|| stats.packets.get() == 1 && time.busy.get() > 0).await;
        assert!(time.asleep.get() > 50_000_000, "{time:?}");
        let all = time.busy.get() + time.empty.get() + time.asleep.get();
        assert!(all <= clock::now().0 - before.0, "no moment is counted twice: {time:?}");
        assert_eq!((time.bound.get(), handle.warnings()), (1, vec![]));
    }

    #[tokio::test]
    async fn a_worker_that_polls_never_sleeps_and_is_busy_with_frames_only() {
        let mut director = Director::start_idle(WEB, 1, Idle::Poll);
        let handle = director.control.workers()[0].clone();
        let (stats, time) = (&handle.shared.stats, &handle.shared.stats.time);
        until(|| time.empty.get() > 10_000_000).await;
        let busy = time.busy.get();
        for packets in 1..=5 {
            assert!(director.wires[0].push(&[0; 64]));
            until(|| stats.packets.get() == packets).await;
        }
        until(|| time.busy.get() > busy).await;
        assert_eq!(stats.batches.each_ref().map(Counter::get), [5, 0, 0, 0, 0, 0, 0]);
        assert_eq!((time.sleeps.get(), time.asleep.get()), (0, 0));
    }

    #[tokio::test]
    async fn an_adaptive_worker_falls_asleep_when_nothing_comes_and_takes_frames_all_the_same() {
        let mut director = Director::start_idle(WEB, 1, Idle::Adaptive);
        let handle = director.control.workers()[0].clone();
        let (stats, time) = (&handle.shared.stats, &handle.shared.stats.time);
        until(|| time.sleeps.get() > 10).await;
        let empty = stats.empty_polls.get();
        assert!(director.wires[0].push(&[0; 64]));
        until(|| stats.packets.get() == 1).await;
        let sleeps = time.sleeps.get();
        until(|| time.sleeps.get() > sleeps + 10).await;
        assert!(stats.empty_polls.get() > empty + 8_000, "it polls on for a while after a frame");
    }

    #[tokio::test]
    async fn workers_on_one_core_say_so() {
        let director = Director::start(WEB, 2);
        let warnings = director.control.workers().iter().map(Handle::warnings).collect::<Vec<_>>();
        let says = |one, other| {
            format!("worker {one} shares core 0 with worker {other}: give each its own in workers.cores")
        };
        assert_eq!(warnings, [[says(0, 1)], [says(1, 0)]]);
    }
}
