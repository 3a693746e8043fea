//! Benchmarks of Pointsman and what they share.
//!
//! [`packet_path`] measures the whole way of a packet; [`rig`] is the director that it runs, [`traffic`] the frames that it
//! is offered. Read [`timing`] for how a figure is taken, [`goals`] for what it is compared with, and
//! [`tool`] for the program that users run.

#[cfg(feature = "control")]
pub mod apply;
pub mod callgrind;
#[cfg(feature = "dpdk")]
pub mod dpdk_path;
pub mod goals;
pub mod lookup;
pub mod maglev;
pub mod packet_path;
pub mod rig;
pub mod testpmd;
pub mod timing;
pub mod tool;
pub mod traffic;
pub mod workers;

/// How much a bench does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// For figures.
    Full,
    /// Just enough to see that it runs.
    Smoke,
}

impl Extent {
    /// What the command line asks for: `cargo bench` passes `--bench`, unless `--test` follows that means figures.
    pub fn of_arguments() -> Self {
        let given = |flag: &str| std::env::args().any(|argument| argument == flag);
        if given("--bench") && !given("--test") { Extent::Full } else { Extent::Smoke }
    }

    /// `full`, or `smoke`.
    pub fn pick<T>(self, full: T, smoke: T) -> T {
        match self {
            Extent::Full => full,
            Extent::Smoke => smoke,
        }
    }
}

/// Keeps the calling thread on the machine's core number `n`, counted from the last one, where the least else runs. Left
/// where it is if there is no such core.
pub fn pin(n: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(core) = cores.iter().rev().nth(n) {
        core_affinity::set_for_current(*core);
    }
}
