//! Instructions per packet against those that are committed: what no noise of a machine can excuse.
//!
//! It counts in the release build, which is what users run and what the table of figures shows: a debug build compiles the
//! packet path, which is generic over the port, without optimisation.

use crate::callgrind;
use serde::Deserialize;
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, process::Command};

/// The committed figures.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// The compiler that made the program that was counted.
    pub rustc: String,
    /// By mode: see [`crate::packet_path::once`].
    pub instructions_per_packet: BTreeMap<String, f64>,
}

/// How much more than the committed figure is too much.
pub const TOLERANCE: f64 = 0.03;
/// The same where another compiler made the program: its own doing is not ours.
const OTHER_COMPILER: f64 = 0.2;
const FLOWS: u32 = 1_000;
const RENEW: &str = "cargo run --release -p pointsman-benches --bin pointsman-bench -- gate --renew";

/// What it says, and whether all modes are within the tolerance.
///
/// # Errors
/// When it cannot count, or the file cannot be used.
pub fn check(path: &Path) -> Result<(String, bool), String> {
    let baseline = read(path)?;
    let counted = count(baseline.instructions_per_packet.keys())?;
    Ok(judge(&baseline, &counted, &compiler()))
}

/// Counts again and writes the file.
///
/// # Errors
/// When it cannot count, or the file cannot be used.
pub fn renew(path: &Path) -> Result<String, String> {
    let modes = read(path)
        .map_or_else(|_| vec!["hit".to_owned()], |old| old.instructions_per_packet.into_keys().collect());
    let counted = count(modes.iter())?;
    let text = render(&Baseline { rustc: compiler(), instructions_per_packet: counted });
    fs::write(path, &text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text)
}

fn read(path: &Path) -> Result<Baseline, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn render(baseline: &Baseline) -> String {
    let mut text = format!(
        "# Instructions per packet of the release build, counted by callgrind: `pointsman-bench gate` fails when one is more\n\
         # than 3 % above its figure here (20 % with another compiler). Renew them when that is meant:\n# {RENEW}\n\nrustc = {:?}\n\n\
         [instructions_per_packet]\n",
        baseline.rustc
    );
    for (mode, figure) in &baseline.instructions_per_packet {
        let _ = writeln!(text, "{mode} = {figure:.1}");
    }
    text
}

fn count<'a>(modes: impl Iterator<Item = &'a String>) -> Result<BTreeMap<String, f64>, String> {
    if cfg!(debug_assertions) {
        return Err("this is a debug build, whose instructions say nothing: cargo run --release -p pointsman-benches \
                    --bin pointsman-bench -- gate"
            .to_owned());
    }
    modes.map(|mode| Ok((mode.clone(), callgrind::per_packet(mode, FLOWS)?))).collect()
}

fn compiler() -> String {
    let said =
        Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    match String::from_utf8_lossy(&said).trim() {
        "" => "unknown".to_owned(),
        version => version.to_owned(),
    }
}

fn judge(baseline: &Baseline, counted: &BTreeMap<String, f64>, rustc: &str) -> (String, bool) {
    let mut text = String::new();
    let (mut good, mut changed) = (true, false);
    let tolerance = if rustc == baseline.rustc { TOLERANCE } else { OTHER_COMPILER };
    for (mode, expected) in &baseline.instructions_per_packet {
        let Some(figure) = counted.get(mode) else {
            continue;
        };
        let change = figure / expected - 1.0;
        let verdict = match change {
            change if change > tolerance => "TOO MANY",
            change if change < -tolerance => "fewer",
            _ => "good",
        };
        good &= change <= tolerance;
        changed |= change.abs() > tolerance;
        let _ = writeln!(
            text,
            "{mode}: {figure:.1} instructions per packet, {expected:.1} are committed ({:+.1} %): {verdict}",
            change * 100.0
        );
    }
    if changed && rustc != baseline.rustc {
        let _ = writeln!(text, "the compiler is another: {} here, {} there", rustc, baseline.rustc);
    }
    if changed {
        let _ = writeln!(text, "if that is meant, renew benches/baseline.toml and commit it: {RENEW}");
    }
    (text, good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(hit: f64) -> Baseline {
        let instructions_per_packet = [("hit".to_owned(), hit)].into();
        Baseline { rustc: "rustc 1.90.0".to_owned(), instructions_per_packet }
    }

    fn judged(counted: f64, rustc: &str) -> (String, bool) {
        judge(&baseline(200.0), &[("hit".to_owned(), counted)].into(), rustc)
    }

    #[test]
    fn more_than_three_percent_above_the_committed_figure_is_too_many() {
        let (text, good) = judged(205.0, "rustc 1.90.0");
        assert!(good);
        assert_eq!(text, "hit: 205.0 instructions per packet, 200.0 are committed (+2.5 %): good\n");
        let (text, good) = judged(206.1, "rustc 1.90.0");
        assert!(!good);
        assert_eq!(
            text,
            "hit: 206.1 instructions per packet, 200.0 are committed (+3.0 %): TOO MANY\n\
             if that is meant, renew benches/baseline.toml and commit it: cargo run --release -p pointsman-benches --bin \
             pointsman-bench -- gate --renew\n"
        );
    }

    #[test]
    fn another_compiler_may_need_a_fifth_more() {
        let (text, good) = judged(239.9, "rustc 1.91.0");
        assert!(good, "{text}");
        let (text, good) = judged(240.1, "rustc 1.91.0");
        assert!(
            !good && text.contains("the compiler is another: rustc 1.91.0 here, rustc 1.90.0 there"),
            "{text}"
        );
    }

    #[test]
    fn fewer_are_good_and_worth_renewing() {
        let (text, good) = judged(150.0, "rustc 1.90.0");
        assert!(good && text.contains("(-25.0 %): fewer\nif that is meant, renew"), "{text}");
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        assert_eq!(toml::from_str(&render(&baseline(181.3))), Ok(baseline(181.3)));
        let error = toml::from_str::<Baseline>("rustc = 1").unwrap_err().to_string();
        assert!(error.contains("rustc"), "{error}");
    }
}
