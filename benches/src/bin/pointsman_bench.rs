//! `pointsman-bench`: the performance figures, each with its goal, as the table that `make bench` ends with. Five minutes.
//!
//! What each row measures stands in `packet_path`, `lookup` and `workers` of the library. Nothing fails because a figure
//! misses its goal; packets that are lost do fail it.

use pointsman_benches::{
    Extent, callgrind,
    goals::{self, Row},
    lookup::Lookup,
    packet_path, pin,
    timing::{measure, reference_nanos},
    workers,
};
use pointsman_dataplane::limits::BATCH;
use pointsman_hugepages::{Error, Options};
use std::process::{Command, ExitCode};

const NO_HUGE_PAGES: &str = "WITHOUT HUGE PAGES";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some("--once") => packet_path::once_of_arguments(&arguments[1..]),
        Some(other) => Err(format!("\"{other}\" is not understood: it is run without arguments")),
        None => rows().map(|rows| println!("{rows}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("pointsman-bench: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The table.
fn rows() -> Result<String, String> {
    let text = |error: Error| error.to_string();
    pin(0);
    println!("reference loop: {:.2} ns a step; load of the machine: {}", reference_nanos(), load());
    println!("floor, generator and port alone: {}", packet_path::floor(1_000, Extent::Full).map_err(text)?);
    let mut table = Table::default();
    table.packet_path().map_err(text)?;
    table.instructions();
    table.lookup().map_err(text)?;
    table.new_connections().map_err(text)?;
    table.af_packet();
    // Last, because it leaves this thread's core to others.
    table.workers().map_err(text)?;
    if !table.huge {
        println!(
            "\nTHERE WERE NOT ENOUGH HUGE PAGES: the marked figures are up to a fifth slower than they would be and stand \
             for nothing. As root: echo 700 >/proc/sys/vm/nr_hugepages"
        );
    }
    table
        .lines
        .insert(0, "| row | figure | goal | stretch | met or missed |\n|---|---|---|---|---|".to_owned());
    Ok(format!("\n{}", table.lines.join("\n")))
}

struct Table {
    lines: Vec<String>,
    huge: bool,
}

impl Default for Table {
    fn default() -> Self {
        Self { lines: Vec::new(), huge: true }
    }
}

impl Table {
    fn add(&mut self, row: &Row, figure: f64, huge: bool) {
        self.huge &= huge;
        self.lines.push(row.line(Some(figure), if huge { "" } else { NO_HUGE_PAGES }));
    }

    /// The rows of packets of established connections; memory is that of the table of 1 M.
    fn packet_path(&mut self) -> Result<(), Error> {
        let mut memory = None;
        for (row, flows) in [(goals::DR_1K, 1_000), (goals::DR_1M, 1_000_000), (goals::DR_10M, 10_000_000)] {
            let (measured, bytes) = packet_path::hit(flows, Extent::Full)?;
            println!("{}: {}", row.name, measured.figure);
            self.add(&row, measured.figure.min, measured.huge);
            if flows == 1_000_000 {
                memory = Some((bytes, measured.huge));
            }
        }
        if let Some((bytes, huge)) = memory {
            self.add(&goals::MEMORY, bytes, huge);
        }
        Ok(())
    }

    fn instructions(&mut self) {
        let counted = callgrind::per_packet("hit", 1_000)
            .and_then(|hit| callgrind::per_packet("floor", 1_000).map(|floor| (hit, floor)));
        let row = goals::INSTRUCTIONS;
        match counted {
            Ok((hit, floor)) => {
                println!("{}: {hit:.1}, of which generator and port {floor:.1}", row.name);
                self.lines.push(row.line(Some(hit), &format!("of which generator and port {floor:.0}")));
            }
            Err(message) => self.lines.push(row.line(None, &message)),
        }
    }

    fn lookup(&mut self) -> Result<(), Error> {
        let mut lookup = Lookup::new(1_000_000, &Options::default())?;
        let batches = 4_000_000 / BATCH as u64;
        let figure = measure(|| (0..batches).map(|_| u64::from(lookup.hit())).sum());
        println!("{}: {figure}", goals::LOOKUP.name);
        self.add(&goals::LOOKUP, figure.min, lookup.has_huge_pages());
        Ok(())
    }

    fn new_connections(&mut self) -> Result<(), Error> {
        for (row, measured) in [
            (goals::NEW, packet_path::new_connections(Extent::Full)?),
            (goals::FLOOD, packet_path::flood(Extent::Full)?),
        ] {
            println!("{}: {}", row.name, measured.figure);
            self.add(&row, measured.figure.millions(), measured.huge);
        }
        Ok(())
    }

    fn workers(&mut self) -> Result<(), Error> {
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            self.lines.push(goals::WORKERS.line(None, "this machine has one core"));
            return Ok(());
        }
        let scaling = workers::scaling(Extent::Full)?;
        println!("{}: one {:.1} M/s, two {:.1} M/s", goals::WORKERS.name, scaling.one, scaling.two);
        self.add(&goals::WORKERS, scaling.ratio(), scaling.huge);
        Ok(())
    }

    /// Runs the bench of `af_packet`, which needs network namespaces, as a program of its own.
    fn af_packet(&mut self) {
        let row = goals::AF_PACKET;
        match af_packet_mpps() {
            Ok(figure) => {
                println!("{}: {figure:.2} Mpps of CPU time", row.name);
                self.lines.push(row.line(Some(figure), ""));
            }
            Err(message) => self.lines.push(row.line(None, &message)),
        }
    }
}

/// What the program `af_packet_veth` ends with.
fn af_packet_mpps() -> Result<f64, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--package", "pointsman-benches", "--bin", "af_packet_veth"])
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.lines().last().unwrap_or("af_packet_veth failed without a word").to_owned());
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().last().unwrap_or_default();
    first_number(line)
        .ok_or_else(|| format!("af_packet_veth ends with \"{line}\", in which there is no figure"))
}

fn first_number(line: &str) -> Option<f64> {
    line.split_whitespace().find_map(|word| word.parse().ok())
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_the_first_number_of_a_line() {
        assert_eq!(first_number("af_packet over veth: 0.71 Mpps of 1 core"), Some(0.71));
        assert_eq!(first_number("nothing"), None);
    }
}
