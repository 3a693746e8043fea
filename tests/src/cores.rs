//! Cores for workers.

/// Two cores that this process may use, which need not be the machine's first. Panics if there are fewer.
pub fn two_cores() -> [usize; 2] {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let [first, second, ..] = cores[..] else {
        panic!(
            "this test needs two cores, and may use {}: see `taskset -p $$`, or the container's cpuset",
            cores.len()
        )
    };
    [first.id, second.id]
}
