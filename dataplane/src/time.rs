//! Time as the packet path knows it: an argument, read once per poll by the caller.

/// Nanoseconds since an arbitrary start that never goes back: what a worker's caller reads from its clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The same moment in ticks.
    #[inline]
    pub fn ticks(self) -> Ticks {
        Ticks((self.0 / Ticks::NANOS) as u32)
    }

    /// A moment `seconds` after the start.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1_000_000_000)
    }

    /// A moment `millis` after the start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }
}

/// Moments and durations of connections: hundredths of a second, wrapping after 497 days.
///
/// Compare moments by [`Ticks::since`] only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Ticks(pub u32);

impl Ticks {
    /// Nanoseconds in one tick.
    pub const NANOS: u64 = 10_000_000;
    /// Ticks in one second.
    pub const PER_SECOND: u32 = 100;

    /// A duration of whole seconds; at most 2,678,400 s (31 days), the longest timeout of the originals.
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds * Self::PER_SECOND)
    }

    /// The time from `earlier` to `self`, across a wrap; 0 if `earlier` is the later one (by up to half the range).
    #[inline]
    pub fn since(self, earlier: Ticks) -> Ticks {
        let d = self.0.wrapping_sub(earlier.0);
        Ticks(if d > u32::MAX / 2 { 0 } else { d })
    }

    /// This moment moved on by a duration.
    #[inline]
    pub fn plus(self, duration: Ticks) -> Ticks {
        Ticks(self.0.wrapping_add(duration.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_a_hundred_ticks() {
        assert_eq!(Nanos::from_secs(7).ticks(), Ticks(700));
        assert_eq!(Ticks::from_secs(900), Ticks(90_000));
        assert_eq!(Nanos(9_999_999).ticks(), Ticks(0));
    }

    #[test]
    fn a_duration_is_right_across_the_wrap() {
        assert_eq!(Ticks(5).since(Ticks(u32::MAX - 4)), Ticks(10));
        assert_eq!(Ticks(5).since(Ticks(6)), Ticks(0));
    }
}
