//! The only place that reads clocks. Everywhere else time is an argument.
#![allow(clippy::disallowed_methods)]

use pointsman_dataplane::time::Nanos;
use std::{
    sync::OnceLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

static START: OnceLock<Instant> = OnceLock::new();

/// Time since the first call in this process; never goes back. All threads see the same time.
pub fn now() -> Nanos {
    let elapsed = START.get_or_init(Instant::now).elapsed();
    // 584 years.
    Nanos(elapsed.as_nanos() as u64)
}

/// A number that differs from start to start, for hashing: not for secrets.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The keys of `RandomState` come from the kernel's random numbers.
    RandomState::new().hash_one(since.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back() {
        let before = now();
        assert!(now() >= before);
    }
}
