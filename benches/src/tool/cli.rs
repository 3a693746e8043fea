//! What `pointsman-bench` can be asked, and its texts.

use super::{load::Mix, offer::Clock, sizes::Sizes};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Measures the director: rate, latency, bursts, new connections, scaling.
///
/// Frames come from memory and go to memory: a worker's thread runs generator, worker and sink in turn, so that what the
/// generator costs is in every figure and given beside it. One virtual service, sixteen real servers, direct routing.
/// Exit status: 0; 1 if something got slower (compare, gate); 2 if it could not be measured.
#[derive(Debug, Parser)]
#[command(name = "pointsman-bench", version)]
pub struct Cli {
    /// Without one: table.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The figures that the project promises, each with its goal: what `make bench` ends with. A minute or two.
    Table(Table),
    /// Back to back for some seconds: packets a second, bits on the wire, CPU time a packet, losses by reason.
    Run(Run),
    /// The fastest rate at which no more than a given share is lost: throughput as in RFC 2544 section 26.1.
    ///
    /// A binary search over offered rates. Frames arrive by the clock, whether or not the worker is there to take them, in a
    /// receive ring of --ring frames; what finds it full is lost. On a machine that does other work too, --clock cpu counts
    /// only time that the worker had its core. The RFC asks for trials of 60 s: --seconds 60.
    Search(Search),
    /// The time from the arrival of a frame to its transmission: a histogram (HDR), p50 to p99.99.
    ///
    /// At --rate, a frame's time begins when it was due, so that waiting for a late worker counts. Without --rate, back to
    /// back: the time from the batch's receipt to its transmission.
    Latency(Latency),
    /// The longest burst at the speed of a link that is forwarded whole: back-to-back frames, RFC 2544 section 26.4.
    ///
    /// The RFC asks for 50 repetitions of up to 2 s; where the worker keeps up with the link, each is as long as --seconds.
    Bursts(Bursts),
    /// New connections a second: each packet is the SYN of another client.
    Connections(Connections),
    /// The same run with 1, 2 ... up to --workers workers.
    Scaling(Run),
    /// Compares two files of --json row by row; exit status 1 if something got slower.
    Compare(Compare),
    /// Counts instructions per packet by callgrind; exit status 1 if they are more than 3 % above the committed figure.
    Gate(Gate),
}

/// Options of `table`.
#[derive(Debug, Args)]
pub struct Table {
    /// Just to see that it runs: the figures mean nothing.
    #[arg(long)]
    pub quick: bool,
    /// Where it goes.
    #[command(flatten)]
    pub output: Output,
}

/// What is offered to what.
#[derive(Clone, Debug, Args)]
pub struct Offered {
    /// Established connections; with --mix new and syn-flood what the table holds.
    #[arg(long, default_value_t = 1_000_000)]
    pub flows: u32,
    /// 64 to 1518 with the check sequence, or imix (64, 594 and 1518 as 7:4:1).
    #[arg(long, default_value = "64", value_name = "BYTES")]
    pub frame_size: Sizes,
    /// Threads that run workers.
    #[arg(long, default_value_t = 1)]
    pub workers: u16,
    /// Frames that a worker's receive ring holds.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=65536))]
    pub ring: u32,
    /// What rates and latencies are counted by.
    #[arg(long, value_enum, default_value_t)]
    pub clock: Clock,
    /// Where tables and buffers lie. Figures on ordinary pages are worse and stand for nothing.
    #[arg(long, value_enum, default_value_t)]
    pub pages: Pages,
}

/// Where memory comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Pages {
    /// Huge pages if there are enough free ones, else ordinary ones.
    #[default]
    Huge,
    /// Ordinary pages.
    Ordinary,
}

/// Where a report goes beside the terminal.
#[derive(Clone, Debug, Default, Args)]
pub struct Output {
    /// Write it as JSON, for `compare` and for programs.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write it as Markdown.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Draw it.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Options of `run` and `scaling`.
#[derive(Debug, Args)]
pub struct Run {
    /// What comes.
    #[command(flatten)]
    pub offered: Offered,
    /// Which packets come.
    #[arg(long, value_enum, default_value_t = Mix::Hit)]
    pub mix: Mix,
    /// How long.
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub seconds: f64,
    /// Where it goes.
    #[command(flatten)]
    pub output: Output,
}

/// Options of `search`.
#[derive(Debug, Args)]
pub struct Search {
    /// What comes.
    #[command(flatten)]
    pub offered: Offered,
    /// Which packets come.
    #[arg(long, value_enum, default_value_t = Mix::Hit)]
    pub mix: Mix,
    /// How long each trial is.
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub seconds: f64,
    /// The share of frames that may be lost, in percent.
    #[arg(long, default_value = "0%", value_parser = percent)]
    pub loss: f64,
    /// How near to the answer to stop, in percent of the first rate.
    #[arg(long, default_value = "1%", value_parser = percent)]
    pub resolution: f64,
    /// The first and greatest rate, in Mpps; else a quarter more than the workers take back to back.
    #[arg(long, value_name = "MPPS", value_parser = positive)]
    pub max: Option<f64>,
    /// Where it goes.
    #[command(flatten)]
    pub output: Output,
}

/// Options of `latency`.
#[derive(Debug, Args)]
pub struct Latency {
    /// What comes.
    #[command(flatten)]
    pub offered: Offered,
    /// Which packets come.
    #[arg(long, value_enum, default_value_t = Mix::Hit)]
    pub mix: Mix,
    /// How long.
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub seconds: f64,
    /// The offered rate in Mpps; else back to back.
    #[arg(long, value_name = "MPPS", value_parser = positive)]
    pub rate: Option<f64>,
    /// Where it goes.
    #[command(flatten)]
    pub output: Output,
}

/// Options of `bursts`.
#[derive(Debug, Args)]
pub struct Bursts {
    /// What comes.
    #[command(flatten)]
    pub offered: Offered,
    /// Which packets come.
    #[arg(long, value_enum, default_value_t = Mix::Hit)]
    pub mix: Mix,
    /// Bits of the link whose frames have the least gap between them, in Gbit/s.
    #[arg(long, default_value = "100", value_name = "GBITS", value_parser = positive)]
    pub link: f64,
    /// The longest burst.
    #[arg(long, default_value = "0.1", value_parser = seconds)]
    pub seconds: f64,
    /// How often the longest burst is looked for.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub repeats: u32,
    /// Where it goes.
    #[command(flatten)]
    pub output: Output,
}

/// Options of `connections`.
#[derive(Debug, Args)]
pub struct Connections {
    /// What comes.
    #[command(flatten)]
    pub offered: Offered,
    /// A full table instead, with packets of established connections between the SYNs.
    #[arg(long)]
    pub syn_flood: bool,
    /// How long.
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub seconds: f64,
    /// Where it goes.
    #[command(flatten)]
    pub output: Output,
}

/// Options of `compare`.
#[derive(Debug, Args)]
pub struct Compare {
    /// The file of before.
    pub old: PathBuf,
    /// The file of now.
    pub new: PathBuf,
    /// How much slower is no news, in percent.
    #[arg(long, default_value = "3%", value_parser = percent)]
    pub tolerance: f64,
}

/// Options of `gate`.
#[derive(Debug, Args)]
pub struct Gate {
    /// The committed figures.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.toml"))]
    pub baseline: PathBuf,
    /// Write them anew.
    #[arg(long)]
    pub renew: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.001 to 86400".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.000_001..=10_000.0).contains(&number) => Ok(number),
        _ => Err("a number from 0.000001 to 10000".to_owned()),
    }
}

/// A share, given in percent with or without the sign.
fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse::<f64>() {
        Ok(number) if (0.0..=100.0).contains(&number) => Ok(number / 100.0),
        _ => Err("a number of percent from 0 to 100, for example 3%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_is_the_table() {
        assert!(Cli::parse_from(["pointsman-bench"]).command.is_none());
    }

    #[test]
    fn percents_are_shares() {
        assert_eq!(percent("3%"), Ok(0.03));
        assert_eq!(percent("0.5"), Ok(0.005));
        assert_eq!(percent("-1%").unwrap_err(), "a number of percent from 0 to 100, for example 3%");
        assert!(percent("NaN").is_err() && percent("").is_err());
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        assert!(seconds("0").is_err() && seconds("nan").is_err() && seconds("1e9").is_err());
        assert!(positive("0").is_err() && positive("inf").is_err());
        assert_eq!(seconds("0.5"), Ok(0.5));
    }

    #[test]
    fn a_command_line_means_what_it_says() {
        let line = "pointsman-bench run --flows 5000 --frame-size imix --mix syn-flood --seconds 2.5 --workers 3 \
                    --json a.json";
        let Some(Command::Run(run)) = Cli::parse_from(line.split_whitespace()).command else {
            panic!("it is run");
        };
        assert_eq!((run.offered.flows, run.offered.frame_size, run.mix), (5_000, Sizes::Imix, Mix::SynFlood));
        assert_eq!((run.seconds, run.offered.workers), (2.5, 3));
        assert_eq!((run.offered.ring, run.output.json), (1_024, Some(PathBuf::from("a.json"))));
    }
}
