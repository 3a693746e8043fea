//! Threads that obey orders, all of them at the same time: those of the directors and those of the stations on a wire.

use super::{
    offer::Clock,
    order::{Order, Outcome, Workers},
    search::{Device, Trial},
};
use crate::pin;
use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Lead that several threads get to begin together.
const LEAD_NANOS: u64 = 200_000;
/// How often who waits for a run is told that it goes on.
const TICK: Duration = Duration::from_millis(500);

/// What a thread of a crew does.
pub trait Obey {
    /// Does it, and tells what came of it.
    fn obey(&mut self, order: Order) -> Outcome;

    /// Whether its tables and buffers lie in huge pages.
    fn has_huge_pages(&self) -> bool;
}

/// The threads. They end with it.
pub struct Crew {
    workers: Vec<Handle>,
    huge_pages: bool,
}

struct Handle {
    orders: Option<SyncSender<(Order, u64)>>,
    outcomes: Receiver<Result<Outcome, String>>,
    thread: Option<JoinHandle<()>>,
}

const ENDED: &str = "a worker has ended";

impl Crew {
    /// A thread for each maker, on a core of its own if there are as many. What a maker makes stays on its thread.
    ///
    /// # Errors
    /// The first of those that the makers give.
    pub fn start<O: Obey>(
        makers: Vec<impl FnOnce() -> Result<O, String> + Send + 'static>,
    ) -> Result<Self, String> {
        let (count, cores) = (makers.len(), thread::available_parallelism().map_or(1, usize::from));
        let mut workers = Vec::new();
        for (index, maker) in makers.into_iter().enumerate() {
            let (orders, take) = mpsc::sync_channel(1);
            let (give, outcomes) = mpsc::sync_channel(1);
            let thread = thread::spawn(move || {
                // More threads than cores share them as the kernel likes.
                if count <= cores {
                    pin(index);
                }
                serve(maker(), &take, &give);
            });
            workers.push(Handle { orders: Some(orders), outcomes, thread: Some(thread) });
        }
        let mut crew = Self { workers, huge_pages: true };
        // The first thing that each says is whether it has its memory, and huge pages.
        let ready = crew.gather(&mut || {})?;
        crew.huge_pages = !ready.ordinary_pages;
        Ok(crew)
    }

    /// Has all do the same at the same time. `tick` is called now and then while they do.
    ///
    /// # Errors
    /// When a thread has ended.
    pub fn run_watched(&mut self, order: Order, tick: &mut dyn FnMut()) -> Result<Outcome, String> {
        let lead = if self.workers.len() > 1 { LEAD_NANOS } else { 0 };
        let start = Clock::Wall.nanos() + lead;
        let count = self.workers.len() as u64;
        for (n, worker) in (0..).zip(&self.workers) {
            let order = (order.share(n, count), start);
            let sent = worker.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok());
            if !sent {
                return Err(ENDED.to_owned());
            }
        }
        self.gather(tick)
    }

    fn gather(&self, tick: &mut dyn FnMut()) -> Result<Outcome, String> {
        let mut all = Vec::new();
        // All are heard before one is believed: a second worker may still be making its tables.
        for worker in &self.workers {
            let said = loop {
                match worker.outcomes.recv_timeout(TICK) {
                    Ok(said) => break said,
                    Err(RecvTimeoutError::Timeout) => tick(),
                    Err(RecvTimeoutError::Disconnected) => break Err(ENDED.to_owned()),
                }
            };
            all.push(said);
        }
        let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(all.into_iter().reduce(Outcome::join).unwrap_or_default())
    }
}

impl Drop for Crew {
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

impl Workers for Crew {
    fn run(&mut self, order: Order) -> Result<Outcome, String> {
        self.run_watched(order, &mut || {})
    }

    fn has_huge_pages(&self) -> bool {
        self.huge_pages
    }
}

impl Device for Crew {
    fn trial(&mut self, rate: f64, frames: u64) -> Result<Trial, String> {
        let outcome = self.run(Order::Paced { rate, frames, latency: false })?;
        // A sender on a wire may be slower than it was told to be.
        let rate = outcome.sent_a_second.unwrap_or(rate);
        Ok(Trial { rate, offered: outcome.offered, forwarded: outcome.forwarded })
    }
}

/// What a thread does until nobody gives orders any more.
fn serve<O: Obey>(
    made: Result<O, String>,
    orders: &Receiver<(Order, u64)>,
    outcomes: &SyncSender<Result<Outcome, String>>,
) {
    let mut made = match made {
        Ok(made) => made,
        Err(message) => {
            // Who made us waits for it.
            let _ = outcomes.send(Err(message));
            return;
        }
    };
    let ready = Outcome { ordinary_pages: !made.has_huge_pages(), ..Outcome::default() };
    let mut said = outcomes.send(Ok(ready));
    while let (Ok(()), Ok((order, start))) = (&said, orders.recv()) {
        while Clock::Wall.nanos() < start {
            std::hint::spin_loop();
        }
        said = outcomes.send(Ok(made.obey(order)));
    }
}
