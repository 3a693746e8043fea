//! The threads that workers run on: one a core, asleep when there is nothing to do, woken when there is.

use crate::{clock, config::model::Idle};
use pointsman_dataplane::{
    command::{Command, WorkerShared},
    port::{Port, sys::poll},
    worker::{Setup, Worker},
};
use pointsman_hugepages::Report;
use std::{
    io::{self, Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
        mpsc,
    },
    thread::{self, JoinHandle},
};
use tokio::sync::Notify;

/// Polls that find nothing before a worker waits in the kernel.
const EMPTY_POLLS: u32 = 64;
/// How long it waits at most, so that connections expire in time.
const WAIT_MILLIS: u32 = 10;

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
    /// What it shares.
    pub shared: Arc<WorkerShared>,
    waker: Arc<Waker>,
    renewed: Arc<Notify>,
}

impl Handle {
    /// One without a thread.
    #[cfg(test)]
    pub(crate) fn idle(index: u16, core: u32) -> Self {
        let (waker, _) = pair().unwrap();
        Self { core, shared: Arc::new(WorkerShared::new(index)), waker, renewed: Arc::default() }
    }

    /// Waits until the worker has taken another generation than when this was last called. For one caller at a time.
    pub async fn renewed(&self) {
        self.renewed.notified().await;
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
                pair().map_err(|source| Error::Thread { index: plan.setup.index, source })?;
            wakers.push(waker);
            sleepers.push(sleeper);
        }
        let mut crew = Self { handles: Vec::new(), threads: Vec::new(), stop };
        let mut waiting = Vec::new();
        for ((plan, sleeper), waker) in plans.into_iter().zip(sleepers).zip(&wakers) {
            let (core, index, shared) = (plan.core, plan.setup.index, plan.setup.shared.clone());
            let renewed = Arc::new(Notify::new());
            crew.handles.push(Handle { core, shared, waker: waker.clone(), renewed: renewed.clone() });
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

type Started = Result<Vec<Report>, pointsman_hugepages::Error>;

impl Body {
    fn run<P: Port>(mut self, plan: Plan<P>, answer: &mpsc::Sender<Started>) {
        let index = plan.setup.index;
        let core = core_affinity::CoreId { id: plan.core as usize };
        if !core_affinity::set_for_current(core) {
            tracing::warn!(
                "worker {index} cannot be bound to core {}: the kernel moves it as it likes; check the daemon's cpuset",
                plan.core
            );
        }
        // Made here, so that its memory is near the core that it runs on.
        let shared = plan.setup.shared.clone();
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
        let mut fds = vec![self.sleeper.stream.as_raw_fd()];
        fds.extend_from_slice(worker.wait_fds());
        let mut empty = 0;
        let mut handed_off = 0;
        let mut generation = shared.stats.generation.get();
        while !self.stop.load(Ordering::Relaxed) {
            let done = worker.poll(clock::now());
            let handed = shared.stats.handed_off.get();
            if handed != handed_off {
                handed_off = handed;
                self.wake_others(shared.index);
            }
            let runs = shared.stats.generation.get();
            if runs != generation {
                generation = runs;
                self.renewed.notify_one();
            }
            if done > 0 {
                empty = 0;
            } else if idle == Idle::Poll || empty < EMPTY_POLLS {
                empty = empty.saturating_add(1);
                std::hint::spin_loop();
            } else {
                self.sleeper.falls_asleep();
                // What came before it was known to sleep.
                if worker.poll(clock::now()) > 0 {
                    empty = 0;
                } else if !self.stop.load(Ordering::Acquire) {
                    poll::wait(&fds, WAIT_MILLIS);
                }
                self.sleeper.wakes();
            }
        }
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

/// Wakes one worker.
#[derive(Debug)]
struct Waker {
    asleep: AtomicBool,
    stream: UnixStream,
}

/// The worker's side of it.
#[derive(Debug)]
struct Sleeper {
    waker: Arc<Waker>,
    stream: UnixStream,
}

fn pair() -> io::Result<(Arc<Waker>, Sleeper)> {
    let (near, far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let waker = Arc::new(Waker { asleep: AtomicBool::new(false), stream: near });
    Ok((waker.clone(), Sleeper { waker, stream: far }))
}

impl Waker {
    /// To be called after what the worker is to see was made visible.
    fn wake(&self) {
        // With the fence in `falls_asleep`: either the worker sees what was written before, or we see it asleep.
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            // A full socket has bytes enough to wake it.
            let _ = (&self.stream).write(&[1]);
        }
    }
}

impl Sleeper {
    /// To be called before the last look at what there is to do.
    fn falls_asleep(&self) {
        self.waker.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    fn wakes(&mut self) {
        if !self.waker.asleep.swap(false, Ordering::SeqCst) {
            // Somebody wrote, or is about to: a byte that comes later costs one look too many.
            let mut bytes = [0; 16];
            while matches!(self.stream.read(&mut bytes), Ok(n) if n == bytes.len()) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_sleeps_is_woken_and_one_that_does_not_is_left_alone() {
        let (waker, mut sleeper) = pair().unwrap();
        let fds = [sleeper.stream.as_raw_fd()];
        waker.wake();
        assert!(!poll::wait(&fds, 0), "it does not sleep");
        sleeper.falls_asleep();
        waker.wake();
        assert!(poll::wait(&fds, 1_000));
        sleeper.wakes();
        assert!(!poll::wait(&fds, 0), "the byte was taken");
    }

    /// Its driver has a mistake.
    struct Broken;

    impl Port for Broken {
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
}
