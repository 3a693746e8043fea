//! Sizes of frames, as everybody counts them: with the check sequence of four bytes, from 64 to 1518 (RFC 2544 section 9.1).

use std::{fmt, str::FromStr};

/// Bytes of the check sequence, which no port of ours sees.
pub const CHECK_SEQUENCE: usize = 4;
/// Bytes that a frame takes on the wire beside its own: preamble and start delimiter (8), gap to the next frame (12).
pub const OVERHEAD: usize = 20;

const LEAST: u16 = 64;
const MOST: u16 = 1518;

/// The mix of the Internet that testers agree on: IP packets of 40, 576 and 1500 bytes as 7 to 4 to 1, in an order that
/// spreads them.
const IMIX: [u16; 12] = [64, 594, 64, 64, 1518, 64, 594, 64, 594, 64, 594, 64];

/// Which sizes frames have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// All of one.
    Fixed(u16),
    /// IMIX: 64, 594 and 1518 bytes as 7 to 4 to 1.
    Imix,
}

impl Sizes {
    /// Sizes in the order in which frames have them, again and again.
    pub fn cycle(&self) -> &[u16] {
        match self {
            Sizes::Fixed(size) => std::slice::from_ref(size),
            Sizes::Imix => &IMIX,
        }
    }

    /// The mean, in bytes.
    pub fn mean(&self) -> f64 {
        let cycle = self.cycle();
        cycle.iter().map(|size| f64::from(*size)).sum::<f64>() / cycle.len() as f64
    }

    /// Bits that a frame takes on the wire in the mean, with preamble and gap.
    pub fn wire_bits(&self) -> f64 {
        (self.mean() + OVERHEAD as f64) * 8.0
    }

    /// Frames a second that a link of this many bits a second carries.
    pub fn line_rate(&self, bits_per_second: f64) -> f64 {
        bits_per_second / self.wire_bits()
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "imix" {
            return Ok(Sizes::Imix);
        }
        match text.parse() {
            Ok(size) if (LEAST..=MOST).contains(&size) => Ok(Sizes::Fixed(size)),
            _ => Err(format!("a number from {LEAST} to {MOST} (with the check sequence), or imix")),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sizes::Fixed(size) => write!(f, "{size} B"),
            Sizes::Imix => f.write_str("imix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imix_is_seven_small_four_middle_and_one_large_frame() {
        let count = |size| Sizes::Imix.cycle().iter().filter(|have| **have == size).count();
        assert_eq!((count(64), count(594), count(1518)), (7, 4, 1));
        assert_eq!(Sizes::Imix.cycle().len(), 12);
        // (7 x 64 + 4 x 594 + 1518) / 12
        assert!((Sizes::Imix.mean() - 361.833).abs() < 0.001);
    }

    #[test]
    fn line_rates_are_those_that_everybody_knows() {
        // RFC 2544 does not list them; 14.88 Mpps at 10 Gbit/s is the textbook's figure for 64 bytes.
        assert_eq!(Sizes::Fixed(64).line_rate(10e9).round(), 14_880_952.0);
        assert_eq!(Sizes::Fixed(1518).line_rate(10e9).round(), 812_744.0);
    }

    #[test]
    fn a_size_is_a_number_in_range_or_imix() {
        assert_eq!("64".parse(), Ok(Sizes::Fixed(64)));
        assert_eq!("1518".parse(), Ok(Sizes::Fixed(1518)));
        assert_eq!("imix".parse(), Ok(Sizes::Imix));
        for wrong in ["63", "1519", "", "IMIX mix", "-64"] {
            assert_eq!(
                wrong.parse::<Sizes>().unwrap_err(),
                "a number from 64 to 1518 (with the check sequence), or imix"
            );
        }
    }
}
