//! Waiting for a condition instead of for a while.

use std::{thread, time::Duration};

const STEP: Duration = Duration::from_millis(50);

/// Returns when `condition` holds; panics with `what` if it does not within `seconds` (time spent in `condition`
/// itself comes on top).
pub fn wait_until(what: &str, seconds: u32, mut condition: impl FnMut() -> bool) {
    for _ in 0..seconds * 20 {
        if condition() {
            return;
        }
        thread::sleep(STEP);
    }
    panic!("not within {seconds} s: {what}");
}
