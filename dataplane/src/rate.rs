//! A token bucket, for what the director says on its own account.

use crate::time::Nanos;

/// Grants so many a second, and so many at once after a rest.
#[derive(Debug)]
pub struct TokenBucket {
    per_second: u64,
    burst: u64,
    /// In billionths of a token.
    tokens: u64,
    filled: Nanos,
}

impl TokenBucket {
    const TOKEN: u64 = 1_000_000_000;

    /// A full bucket of `burst` tokens that refills with `per_second` of them.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let burst = u64::from(burst) * Self::TOKEN;
        Self { per_second: u64::from(per_second), burst, tokens: burst, filled: Nanos(0) }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Nanos) -> bool {
        let elapsed = now.0.saturating_sub(self.filled.0);
        self.filled = now;
        self.tokens = self.tokens.saturating_add(elapsed.saturating_mul(self.per_second)).min(self.burst);
        if self.tokens < Self::TOKEN {
            return false;
        }
        self.tokens -= Self::TOKEN;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_granted_at_once_and_then_the_rate() {
        let mut bucket = TokenBucket::new(1000, 50);
        let granted = |bucket: &mut TokenBucket, now, tries| (0..tries).filter(|_| bucket.take(now)).count();
        assert_eq!(granted(&mut bucket, Nanos::from_secs(1), 100), 50);
        assert_eq!(granted(&mut bucket, Nanos::from_millis(1_010), 100), 10);
        assert_eq!(granted(&mut bucket, Nanos::from_secs(9), 100), 50);
    }
}
