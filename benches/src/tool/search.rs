//! The searches of RFC 2544, for any device: the fastest rate without loss (section 26.1), and the longest burst that is
//! forwarded whole (section 26.4).

/// What is tested: the workers of a [`super::crew::Crew`], whatever their ports are.
pub trait Device {
    /// Offers `frames` frames, `rate` a second, and counts what comes back.
    ///
    /// # Errors
    /// Why it cannot be tested any more.
    fn trial(&mut self, rate: f64, frames: u64) -> Result<Trial, String>;
}

/// What a trial gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Frames a second that were to be offered.
    pub rate: f64,
    /// Frames offered.
    pub offered: u64,
    /// Frames that came back.
    pub forwarded: u64,
}

impl Trial {
    /// The share of the frames that did not come back.
    pub fn loss(&self) -> f64 {
        self.offered.saturating_sub(self.forwarded) as f64 / self.offered.max(1) as f64
    }
}

/// What a search for a rate is to do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The rate to begin with, which is also the greatest, in frames a second.
    pub most: f64,
    /// The share of frames that may be lost: 0 for what RFC 2544 calls throughput.
    pub loss: f64,
    /// How long a trial is, in seconds.
    pub seconds: f64,
    /// How near to each other a rate that passed and one that failed must be, as a share of `most`.
    pub resolution: f64,
}

/// The fastest trial that passed, if one did, and all trials in order.
#[derive(Clone, Debug)]
pub struct Throughput {
    /// The fastest that passed.
    pub best: Option<Trial>,
    /// All of them.
    pub trials: Vec<Trial>,
}

/// The fastest rate at which no more than the given share is lost, by halving. `seen` is told of each trial.
///
/// # Errors
/// Those of the device.
pub fn throughput(
    device: &mut dyn Device,
    limits: Limits,
    mut seen: impl FnMut(&Trial),
) -> Result<Throughput, String> {
    let mut found = Throughput { best: None, trials: Vec::new() };
    let (mut low, mut high) = (0.0, limits.most);
    let mut rate = limits.most;
    let nearest = limits.most * limits.resolution.clamp(1e-4, 0.5);
    loop {
        let trial = device.trial(rate, ((rate * limits.seconds) as u64).max(1))?;
        seen(&trial);
        found.trials.push(trial);
        if trial.loss() <= limits.loss {
            low = rate;
            found.best = Some(trial);
        } else {
            high = rate;
        }
        if high - low <= nearest {
            return Ok(found);
        }
        rate = (low + high) / 2.0;
    }
}

/// The longest burst of at most `most` frames, `rate` a second, that comes back whole, and how many bursts it took to
/// find it; 0 if not even one frame does.
///
/// # Errors
/// Those of the device.
pub fn burst(device: &mut dyn Device, rate: f64, most: u64) -> Result<(u64, u32), String> {
    let (mut low, mut high, mut trials) = (0, most + 1, 0);
    // Doubling first: near the answer bursts are short, and far above it they only cost time.
    let mut frames = 64.min(most);
    while high - low > 1 {
        let trial = device.trial(rate, frames)?;
        trials += 1;
        if trial.forwarded >= frames {
            low = frames;
        } else {
            high = frames;
        }
        frames = if high == most + 1 { (2 * low).clamp(1, most) } else { low + (high - low) / 2 };
        if frames <= low || frames >= high {
            break;
        }
    }
    Ok((low, trials))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forwards so many frames a second, and keeps so many that it cannot forward yet.
    struct Model {
        rate: f64,
        ring: u64,
        trials: u32,
    }

    impl Device for Model {
        fn trial(&mut self, rate: f64, frames: u64) -> Result<Trial, String> {
            self.trials += 1;
            let seconds = frames as f64 / rate;
            let forwarded = frames.min((self.rate * seconds) as u64 + self.ring);
            Ok(Trial { rate, offered: frames, forwarded })
        }
    }

    fn model(rate: f64, ring: u64) -> Model {
        Model { rate, ring, trials: 0 }
    }

    fn limits(most: f64, loss: f64) -> Limits {
        Limits { most, loss, seconds: 1.0, resolution: 0.001 }
    }

    #[test]
    fn the_search_finds_the_limit_of_a_device() {
        let mut device = model(7_340_000.0, 0);
        let found = throughput(&mut device, limits(20e6, 0.0), |_| {}).unwrap();
        let best = found.best.unwrap();
        assert!((7_320_000.0..=7_340_000.0).contains(&best.rate), "{}", best.rate);
        assert_eq!(best.loss(), 0.0);
        // Halves from 20 M to within 20 k: 1 + 10.
        assert_eq!((device.trials, found.trials.len()), (11, 11));
    }

    #[test]
    fn loss_that_is_allowed_makes_the_rate_higher() {
        // At 10 % loss a device of 9 M passes 10 M.
        let found = throughput(&mut model(9e6, 0), limits(16e6, 0.1), |_| {}).unwrap();
        let rate = found.best.unwrap().rate;
        assert!((9_980_000.0..=10_000_001.0).contains(&rate), "{rate}");
    }

    #[test]
    fn a_device_that_is_faster_than_the_link_takes_one_trial() {
        let mut device = model(50e6, 0);
        let found = throughput(&mut device, limits(14e6, 0.0), |_| {}).unwrap();
        assert_eq!((found.best.unwrap().rate, device.trials), (14e6, 1));
    }

    #[test]
    fn a_device_that_forwards_nothing_has_no_throughput() {
        let found = throughput(&mut model(0.0, 0), limits(1e6, 0.0), |_| {}).unwrap();
        assert_eq!(found.best, None);
        assert!(found.trials.len() < 20);
    }

    #[test]
    fn the_longest_burst_fills_the_ring_while_it_is_emptied() {
        // Filled at 4 M a second and emptied at 3 M, a ring of 1024 takes 4096 frames.
        let (frames, trials) = burst(&mut model(3e6, 1_024), 4e6, 1_000_000).unwrap();
        assert!((4_093..=4_096).contains(&frames), "{frames}");
        assert!(trials < 25, "{trials}");
    }

    #[test]
    fn bursts_end_at_the_greatest_length_and_at_nothing() {
        assert_eq!(burst(&mut model(5e6, 0), 4e6, 10_000).unwrap().0, 10_000);
        assert_eq!(burst(&mut model(0.0, 0), 4e6, 10_000).unwrap().0, 0);
        assert_eq!(burst(&mut model(0.0, 1), 4e6, 10_000).unwrap().0, 1);
        assert_eq!(burst(&mut model(0.0, 700), 4e6, 10_000).unwrap().0, 700);
    }
}
