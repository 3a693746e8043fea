//! What `pointsman-bench` can be asked, and its texts.

use super::{
    load::Mix,
    offer::Clock,
    ports::{self, Mac, PortSpec, Prefix},
    sizes::Sizes,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{net::SocketAddrV4, path::PathBuf};

/// Measures the director: rate, latency, bursts, new connections, scaling.
///
/// By default frames come from memory and go to memory: a worker's thread runs generator, worker and sink in turn, so that
/// what the generator costs is in every figure and given beside it. One virtual service, sixteen real servers, direct
/// routing. With `--port net_ring0` or `net_null0` it is the same over a virtual device of DPDK.
///
/// With NICs (--port 0000:03:00.0 --port 0000:03:00.1) no director runs here: the first port sends, the last receives, and
/// what is measured is the director, or the cable, between them.
///
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
    /// Sends frames at a rate by one NIC and tells what comes back by another: loss, order, duplicates, latency.
    ///
    /// The director is another machine, with the virtual service --vip, whose real servers are this machine's receiving
    /// port: --real-servers names their addresses, so that the director's ARP queries for them are answered. A frame carries
    /// its time and its number in its TCP header, which every forwarding method keeps.
    Generate(Generate),
    /// Only receives what `generate --one-way` of another machine sends: rate, gaps in the numbers, order.
    Sink(Sink),
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
    /// Where frames come from and go to: memory, a PCI address, or a virtual device of DPDK with its arguments. Given once
    /// or twice; the first sends, the last receives. Devices need a pointsman-bench that was built with DPDK.
    #[arg(long = "port", value_name = "PORT")]
    pub ports: Vec<PortSpec>,
    /// The director on the wire.
    #[command(flatten)]
    pub wire: WireOptions,
    /// How the director forwards.
    #[arg(long, value_enum, default_value_t)]
    pub method: ForwardBy,
    /// Established connections; with --mix new and syn-flood what the table holds. 1M and 64k are numbers too.
    #[arg(long, default_value = "1M", value_parser = count)]
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

/// What is at the other end of a wire.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "A director on the wire (--port of a NIC)")]
pub struct WireOptions {
    /// MAC address of the director's port, or of the router on the way to it.
    #[arg(long, value_name = "MAC")]
    pub destination_mac: Option<Mac>,
    /// The virtual service, of TCP; 10.0.0.100:80 if it is not said.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = ports::service)]
    pub vip: Option<SocketAddrV4>,
    /// Addresses of its real servers, for which the receiving port answers ARP: 10.0.1.0/28,10.0.2.7
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    pub real_servers: Vec<Prefix>,
}

impl WireOptions {
    /// The first that was given.
    pub fn given(&self) -> Option<&'static str> {
        let given = [
            ("--destination-mac", self.destination_mac.is_some()),
            ("--vip", self.vip.is_some()),
            ("--real-servers", !self.real_servers.is_empty()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }
}

/// How packets are forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ForwardBy {
    /// Direct routing.
    #[default]
    Dr,
    /// Address translation, half of the packets answers: of a director in this process.
    Nat,
    /// Tunnels, IP in IP: of a director in this process.
    Tun,
}

/// A rate of frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Frames a second.
    Frames(f64),
    /// Bits a second on the wire, with preamble and gap.
    Bits(f64),
    /// What the link carries.
    Line,
    /// As fast as the sender can.
    Most,
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

/// Options of `generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// What is sent.
    #[command(flatten)]
    pub offered: Offered,
    /// Which packets are sent.
    #[arg(long, value_enum, default_value_t = Mix::Hit)]
    pub mix: Mix,
    /// How fast: line (what the link carries), max (what the sender can), 10G (bits a second on the wire), or frames a
    /// second (14.88M, 500k, 1000).
    #[arg(long, default_value = "line", value_parser = rate)]
    pub rate: Rate,
    /// How long.
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub seconds: f64,
    /// What is sent is received by another machine: nothing is waited for, no loss counted.
    #[arg(long)]
    pub one_way: bool,
    /// Where it goes.
    #[command(flatten)]
    pub output: Output,
}

/// Options of `sink`.
#[derive(Debug, Args)]
pub struct Sink {
    /// What is to come.
    #[command(flatten)]
    pub offered: Offered,
    /// How long.
    #[arg(long, default_value = "10", value_parser = seconds)]
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

/// A number, also in thousands (64k) and millions (1M).
fn scaled(text: &str) -> Option<f64> {
    let (number, factor) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 1e3),
        b'M' => (&text[..text.len() - 1], 1e6),
        b'G' => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let number: f64 = number.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * factor)
}

fn count(text: &str) -> Result<u32, String> {
    let wrong = || "a whole number like 1000000, 64k or 1M".to_owned();
    let number = scaled(text).ok_or_else(wrong)?;
    if number.fract() != 0.0 || number > f64::from(u32::MAX) {
        return Err(wrong());
    }
    Ok(number as u32)
}

fn rate(text: &str) -> Result<Rate, String> {
    let wrong = || {
        "line, max, bits a second on the wire (10G, 2.5G), or frames a second (14.88M, 500k, 1000, 1000pps)"
            .to_owned()
    };
    let rate = match text {
        "line" => return Ok(Rate::Line),
        "max" => return Ok(Rate::Most),
        _ => {
            let frames = text.trim_end_matches("pps").trim_end();
            let number = scaled(frames).ok_or_else(wrong)?;
            if frames.ends_with('G') && frames == text { Rate::Bits(number) } else { Rate::Frames(number) }
        }
    };
    match rate {
        Rate::Frames(frames) if !(1.0..=1e10).contains(&frames) => Err(wrong()),
        Rate::Bits(bits) if !(1e3..=1e13).contains(&bits) => Err(wrong()),
        rate => Ok(rate),
    }
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
        assert_eq!(
            (count("64k"), count("1M"), count("1.5M"), count("7")),
            (Ok(64_000), Ok(1_000_000), Ok(1_500_000), Ok(7))
        );
        for wrong in ["", "M", "-1", "1.5", "5G", "1e400", "many"] {
            assert_eq!(count(wrong).unwrap_err(), "a whole number like 1000000, 64k or 1M", "{wrong}");
        }
    }

    #[test]
    fn rates_are_of_bits_or_of_frames() {
        assert_eq!((rate("line"), rate("max")), (Ok(Rate::Line), Ok(Rate::Most)));
        assert_eq!((rate("10G"), rate("2.5G")), (Ok(Rate::Bits(10e9)), Ok(Rate::Bits(2.5e9))));
        assert_eq!((rate("5M"), rate("1000pps")), (Ok(Rate::Frames(5e6)), Ok(Rate::Frames(1_000.0))));
        assert_eq!(rate("14.88Mpps"), Ok(Rate::Frames(14_880_000.0)));
        for wrong in ["", "0", "fast", "1T", "-5M", "nan", "99999G"] {
            assert!(rate(wrong).unwrap_err().starts_with("line, max, bits a second"), "{wrong}");
        }
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
