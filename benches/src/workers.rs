//! Two workers beside each other on two cores, with one configuration and the rings between them: whether they get in each
//! other's way. Each is offered the flows that it owns, as a NIC that steers would do it.

use crate::{
    Extent, pin,
    rig::{Plan, Rig, snapshot},
    timing::{RUNS, thread_nanos},
    traffic::{Listed, Pattern, Permuted, client},
};
use pointsman_dataplane::{
    handoff::{self, Endpoint},
    publish::{self, Reader},
    snapshot::{Snapshot, Timeouts},
    steer,
    wire::tcp,
};
use pointsman_hugepages::{Error, Options};
use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

/// What two workers did.
#[derive(Clone, Copy, Debug)]
pub struct Scaling {
    /// Millions of packets a second of CPU time that one worker forwards while the other core is left alone.
    pub one: f64,
    /// The sum of what two forward at the same time.
    pub two: f64,
    /// Whether they had huge pages.
    pub huge: bool,
}

impl Scaling {
    /// How many times one worker two are.
    pub fn ratio(&self) -> f64 {
        self.two / self.one
    }
}

/// Forwards packets of 1 M established connections, half of them each worker's.
///
/// # Errors
/// When the memory is not to be had.
pub fn scaling(extent: Extent) -> Result<Scaling, Error> {
    let (one, huge) = run(1, extent)?;
    let (two, two_huge) = run(2, extent)?;
    Ok(Scaling { one, two, huge: huge && two_huge })
}

/// Runs the first `running` of two workers, and returns the sum of their best rates.
fn run(running: usize, extent: Extent) -> Result<(f64, bool), Error> {
    let (_, readers) = publish::channel(1, snapshot(Timeouts::default()), 2);
    let parts: Vec<_> = readers.into_iter().zip(handoff::mesh(2)).enumerate().take(running).collect();
    let (start, failed) = (Barrier::new(running), AtomicBool::new(false));
    thread::scope(|scope| {
        let threads: Vec<_> = parts
            .into_iter()
            .map(|(index, (reader, end))| {
                let shared = (&start, &failed);
                scope.spawn(move || {
                    pin(index);
                    worker(index as u16, reader, end, shared, extent)
                })
            })
            .collect();
        let mut sum = (0.0, true);
        for thread in threads {
            let (rate, huge) = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            sum = (sum.0 + rate, sum.1 && huge);
        }
        Ok(sum)
    })
}

/// The best rate of one worker, in millions a second of CPU time.
fn worker(
    index: u16,
    reader: Reader<Snapshot>,
    end: Endpoint,
    (start, failed): (&Barrier, &AtomicBool),
    extent: Extent,
) -> Result<(f64, bool), Error> {
    let flows = extent.pick(1_000_000, 10_000);
    let mut all = Permuted::new(flows, tcp::ACK);
    let own: Vec<u32> = (0..flows)
        .map(|_| all.next().0)
        .filter(|flow| {
            let (address, port) = client(*flow);
            steer::owner(address, port, 2) == index
        })
        .collect();
    let packets = own.len() as u64;
    let plan = Plan { capacity: own.len(), memory: Options::default(), nanos_per_poll: 1_600 };
    let rig = Rig::one_of_several(plan, Listed::new(own, tcp::SYN), index, reader, end);
    // All wait here, whether or not there was memory; without it none goes on, so that none waits for another in vain.
    failed.fetch_or(rig.is_err(), Relaxed);
    start.wait();
    let mut rig = rig?;
    if failed.load(Relaxed) {
        return Ok((0.0, false));
    }
    rig.run(packets);
    rig.pattern().flags = tcp::ACK;
    rig.run(packets);
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        start.wait();
        let from = thread_nanos();
        let done = rig.run(extent.pick(4_000_000, 6_400));
        best = best.min((thread_nanos() - from) as f64 / done as f64);
    }
    let counts = rig.counts();
    assert_eq!(counts.packets, counts.forwarded, "packets were lost: {}", rig.losses());
    Ok((1_000.0 / best, rig.has_huge_pages()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_workers_forward_every_packet_of_their_flows() {
        let scaling = scaling(Extent::Smoke).unwrap();
        assert!(scaling.one > 0.0 && scaling.two > 0.0);
    }
}
