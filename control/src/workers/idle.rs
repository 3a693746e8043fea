//! What a worker's thread does when a poll found nothing, and where its time goes.

use crate::config::model::Idle;
use pointsman_dataplane::{stats::TimeCounters, time::Nanos};
use std::time::Duration;

/// Polls that find nothing before a worker with `sleep` waits in the kernel.
const EMPTY_POLLS: u32 = 64;
/// The same with `adaptive`: about a millisecond.
const ADAPTIVE_EMPTY_POLLS: u32 = 8_192;
/// The first wait with `adaptive`; each one is twice the one before.
const SHORTEST_WAIT: Duration = Duration::from_micros(50);
/// The longest wait, so that connections expire in time.
const LONGEST_WAIT: Duration = Duration::from_millis(10);

/// What to do before the next poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing.
    No,
    /// Tell the core that this is a loop that waits.
    Pause,
    /// Wait in the kernel, this long at most.
    Wait(Duration),
}

/// How long a worker goes on polling for nothing.
#[derive(Debug)]
pub(super) struct Patience {
    idle: Idle,
    empty: u32,
    wait: Duration,
}

impl Patience {
    pub(super) fn new(idle: Idle) -> Self {
        Self { idle, empty: 0, wait: SHORTEST_WAIT }
    }

    /// What to do after a poll that did `done` things.
    pub(super) fn after(&mut self, done: usize) -> Rest {
        if done > 0 {
            self.empty = 0;
            self.wait = SHORTEST_WAIT;
            return Rest::No;
        }
        let patience = match self.idle {
            Idle::Poll => return Rest::Pause,
            Idle::Sleep => EMPTY_POLLS,
            Idle::Adaptive => ADAPTIVE_EMPTY_POLLS,
        };
        if self.empty < patience {
            self.empty += 1;
            return Rest::Pause;
        }
        if self.idle == Idle::Sleep {
            return Rest::Wait(LONGEST_WAIT);
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST_WAIT);
        Rest::Wait(wait)
    }
}

/// What the time since the last reading of the clock was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spent {
    /// A poll that did something.
    Busy,
    /// A poll that found nothing.
    Empty,
    /// The kernel.
    Asleep,
}

/// Shares the time out between the readings of the clock that polls need anyway.
#[derive(Debug)]
pub(super) struct Meter {
    read: Nanos,
    spent: Spent,
}

impl Meter {
    pub(super) fn new(now: Nanos) -> Self {
        Self { read: now, spent: Spent::Empty }
    }

    /// The clock was read: what has passed since the last time goes where it was spent.
    pub(super) fn reads(&mut self, now: Nanos, time: &TimeCounters) {
        let nanos = now.0.saturating_sub(self.read.0);
        self.read = now;
        match self.spent {
            Spent::Busy => time.busy.add(nanos),
            Spent::Empty => time.empty.add(nanos),
            Spent::Asleep => time.asleep.add(nanos),
        }
    }

    /// What the time from the last reading to the next is spent on.
    pub(super) fn spends(&mut self, spent: Spent) {
        self.spent = spent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses until the first wait, and the waits in microseconds, of a worker that finds nothing.
    fn waits<const N: usize>(patience: &mut Patience) -> (u32, [u128; N]) {
        let mut pauses = 0;
        let mut next = patience.after(0);
        while next == Rest::Pause {
            pauses += 1;
            assert!(pauses < 100_000, "it waits at some time");
            next = patience.after(0);
        }
        let waits = std::array::from_fn(|_| {
            let Rest::Wait(longest) = next else { panic!("{next:?} after a wait") };
            next = patience.after(0);
            longest.as_micros()
        });
        (pauses, waits)
    }

    #[test]
    fn sleep_waits_ten_milliseconds_after_64_empty_polls() {
        let mut patience = Patience::new(Idle::Sleep);
        assert_eq!(waits(&mut patience), (64, [10_000, 10_000]));
        assert_eq!(patience.after(1), Rest::No);
        assert_eq!(waits(&mut patience), (64, [10_000, 10_000]));
    }

    #[test]
    fn adaptive_polls_on_and_then_waits_longer_and_longer() {
        let mut patience = Patience::new(Idle::Adaptive);
        let grows = [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000];
        assert_eq!(waits(&mut patience), (8_192, grows));
        // A frame, and it begins anew.
        assert_eq!(patience.after(64), Rest::No);
        assert_eq!(waits(&mut patience), (8_192, [50, 100, 200]));
    }

    #[test]
    fn poll_never_waits() {
        let mut patience = Patience::new(Idle::Poll);
        assert!((0..1_000_000).all(|_| patience.after(0) == Rest::Pause));
        assert_eq!(patience.after(1), Rest::No);
    }

    #[test]
    fn every_nanosecond_goes_where_it_was_spent() {
        let (mut meter, time) = (Meter::new(Nanos(1_000)), TimeCounters::default());
        for (spent, until) in [
            (Spent::Busy, 1_500),
            (Spent::Empty, 1_600),
            (Spent::Asleep, 9_600),
            (Spent::Busy, 9_601),
            // The clocks of two cores may differ: time that goes back is no time.
            (Spent::Busy, 9_000),
            (Spent::Empty, 9_010),
        ] {
            meter.spends(spent);
            meter.reads(Nanos(until), &time);
        }
        assert_eq!((time.busy.get(), time.empty.get(), time.asleep.get()), (501, 110, 8_000));
    }
}
