//! How a figure is taken: the thread's own CPU time, many runs, the best and the median, and beside each run the
//! time of a fixed loop, because machines change their speed under a bench.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::{fmt, hint::black_box};

/// Runs of each measurement: more than nine, because a machine that does other work too is quiet only now and then.
pub const RUNS: usize = 21;

/// Steps of the reference loop: some milliseconds. A debug build gives no figures, and has less patience.
const REFERENCE_STEPS: u64 = if cfg!(debug_assertions) { 100_000 } else { 4_000_000 };

/// CPU time that this thread has used, in nanoseconds. Time that others had the core for is not in it.
pub fn thread_nanos() -> u64 {
    let at = clock_gettime(ClockId::ThreadCPUTime);
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}

/// Nanoseconds for one step of a chain of multiplications and shifts that wait for each other: the speed of this core now,
/// whatever its caches and memory do.
pub fn reference_nanos() -> f64 {
    let from = thread_nanos();
    let mut x = black_box(1_u64);
    for _ in 0..REFERENCE_STEPS {
        // The shift keeps the compiler from making several steps one.
        x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    }
    black_box(x);
    (thread_nanos() - from) as f64 / REFERENCE_STEPS as f64
}

/// What several runs gave, in nanoseconds for one item.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Of the best run.
    pub min: f64,
    /// Of the run in the middle.
    pub median: f64,
    /// Of the runs, the least ratio of an item to a step of the reference loop timed beside it.
    pub ratio: f64,
}

impl Figure {
    /// Millions of items a second in the best run.
    pub fn millions(&self) -> f64 {
        1_000.0 / self.min
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "min {:6.2} ns  median {:6.2} ns  {:6.2} M/s  {:5.1} x reference",
            self.min,
            self.median,
            self.millions(),
            self.ratio
        )
    }
}

/// Measures `run`, which does some work and returns for how many items, [`RUNS`] times.
pub fn measure(mut run: impl FnMut() -> u64) -> Figure {
    let mut nanos = Vec::with_capacity(RUNS);
    let mut ratio = f64::INFINITY;
    for _ in 0..RUNS {
        let reference = reference_nanos();
        let from = thread_nanos();
        let items = run().max(1);
        let each = (thread_nanos() - from) as f64 / items as f64;
        nanos.push(each);
        ratio = ratio.min(each / reference);
    }
    figure(nanos, ratio)
}

/// The figure of runs that were timed elsewhere; its ratio is to the reference loop now.
pub fn figure_of(nanos: Vec<f64>) -> Figure {
    let best = nanos.iter().copied().fold(f64::INFINITY, f64::min);
    let ratio = best / reference_nanos();
    figure(nanos, ratio)
}

fn figure(mut nanos: Vec<f64>, ratio: f64) -> Figure {
    nanos.sort_by(f64::total_cmp);
    Figure {
        min: nanos.first().copied().unwrap_or(f64::NAN),
        median: nanos.get(nanos.len() / 2).copied().unwrap_or(f64::NAN),
        ratio,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_least_and_the_middle_of_its_runs() {
        let figure = figure(vec![30.0, 20.0, 90.0, 25.0, 40.0], 1.5);
        assert_eq!((figure.min, figure.median, figure.ratio), (20.0, 30.0, 1.5));
        assert_eq!(figure.millions(), 50.0);
    }
}
