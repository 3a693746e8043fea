//! The performance figures, each with its goal, as the table that `make bench` ends with.
//!
//! What each row measures stands in `packet_path`, `lookup` and `workers` of the library. Nothing fails because a figure
//! misses its goal; packets that are lost do fail it.

use super::{
    beside,
    report::{Better, Report, Row as Figure},
};
use crate::{
    Extent, callgrind,
    goals::{self, Bound, Row},
    lookup::Lookup,
    maglev, packet_path, pin,
    timing::{measure, reference_nanos},
    workers,
};
use pointsman_dataplane::{limits::BATCH, snapshot::Method};
use pointsman_hugepages::{Error, Options};
use std::{process::Command, thread};

const NO_HUGE_PAGES: &str = "WITHOUT HUGE PAGES";
const METHOD: &str =
    "64-byte frames on memory ports, one worker, direct routing: the best of several runs, by CPU time.";

/// The table as it is printed, and as a report. What is measured on the way is printed as it comes.
///
/// # Errors
/// When the memory is not to be had.
pub fn table(extent: Extent) -> Result<(String, Report), String> {
    let beside = beside::measure(extent);
    // On a thread of its own, because what a pinned thread starts stays on its core.
    let one_core = thread::spawn(move || {
        pin(0);
        one_core(extent).map_err(|error| error.to_string())
    });
    let mut table = one_core.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    if extent == Extent::Full {
        table.af_packet();
    }
    table.workers(extent).map_err(|error| error.to_string())?;
    table.apply(extent);
    if !table.report.huge_pages_used {
        println!(
            "\nTHERE WERE NOT ENOUGH HUGE PAGES: the marked figures are up to a fifth slower than they would be and stand \
             for nothing. As root: echo 512 >/proc/sys/vm/nr_hugepages"
        );
    }
    table
        .lines
        .insert(0, "| row | figure | goal | stretch | met or missed |\n|---|---|---|---|---|".to_owned());
    table.report.rows.extend(beside.rows);
    Ok((format!("\n{}\n\n{}", beside.text, table.lines.join("\n")), table.report))
}

/// The rows of one worker.
fn one_core(extent: Extent) -> Result<Table, Error> {
    println!("reference loop: {:.2} ns a step; load of the machine: {}", reference_nanos(), load());
    println!("floor, generator and port alone: {}", packet_path::floor(1_000, extent)?);
    let mut table = Table { lines: Vec::new(), report: Report::new("table", METHOD) };
    table.packet_path(extent)?;
    if extent == Extent::Full {
        table.instructions();
    }
    table.lookup(extent)?;
    table.new_connections(extent)?;
    table.maglev(extent);
    Ok(table)
}

struct Table {
    lines: Vec<String>,
    report: Report,
}

impl Table {
    fn add(&mut self, row: &Row, figure: f64, huge: bool) {
        self.report.huge_pages_used &= huge;
        self.add_remarked(row, figure, if huge { "" } else { NO_HUGE_PAGES });
    }

    fn add_remarked(&mut self, row: &Row, figure: f64, remark: &str) {
        self.lines.push(row.line(Some(figure), remark));
        self.report.rows.push(Figure {
            name: row.name.to_owned(),
            value: figure,
            unit: row.unit.to_owned(),
            better: match row.goal {
                Bound::AtMost(_) => Better::Less,
                Bound::AtLeast(_) => Better::More,
            },
            remark: remark.to_owned(),
        });
    }

    /// The rows of packets of established connections; memory is that of the table of 1 M.
    fn packet_path(&mut self, extent: Extent) -> Result<(), Error> {
        let mut memory = None;
        for (row, flows) in [(goals::DR_1K, 1_000), (goals::DR_1M, 1_000_000), (goals::DR_10M, 10_000_000)] {
            let (measured, bytes) = packet_path::hit(extent.pick(flows, flows / 1_000), extent)?;
            println!("{}: {}", row.name, measured.figure);
            self.add(&row, measured.figure.min, measured.huge);
            if flows == 1_000_000 {
                memory = Some((bytes, measured.huge));
            }
        }
        let flows = extent.pick(1_000_000, 1_000);
        let (tunnel, _) = packet_path::hit_by(Method::Tunnel, flows, extent)?;
        println!("{}: {}", goals::TUN_1M.name, tunnel.figure);
        self.add(&goals::TUN_1M, tunnel.figure.min, tunnel.huge);
        let (nat, nat_bytes) = packet_path::hit_nat(flows, extent)?;
        println!("{}: {}", goals::NAT_1M.name, nat.figure);
        self.add(&goals::NAT_1M, nat.figure.min, nat.huge);
        if let Some((bytes, huge)) = memory {
            self.add(&goals::MEMORY, bytes, huge);
        }
        self.add(&goals::MEMORY_NAT, nat_bytes, nat.huge);
        let (bytes, huge) = packet_path::memory_ipv6(extent.pick(1_000_000, 1_000))?;
        self.add(&goals::MEMORY_IPV6, bytes, huge);
        Ok(())
    }

    fn instructions(&mut self) {
        let counted = callgrind::per_packet("hit", 1_000)
            .and_then(|hit| callgrind::per_packet("floor", 1_000).map(|floor| (hit, floor)));
        let row = goals::INSTRUCTIONS;
        match counted {
            Ok((hit, floor)) => {
                println!("{}: {hit:.1}, of which generator and port {floor:.1}", row.name);
                self.add_remarked(&row, hit, &format!("of which generator and port {floor:.0}"));
            }
            Err(message) => self.lines.push(row.line(None, &message)),
        }
    }

    fn lookup(&mut self, extent: Extent) -> Result<(), Error> {
        let mut lookup = Lookup::new(extent.pick(1_000_000, 10_000), &Options::default())?;
        let batches = extent.pick(4_000_000, 6_400) / BATCH as u64;
        let figure = measure(|| (0..batches).map(|_| u64::from(lookup.hit())).sum());
        println!("{}: {figure}", goals::LOOKUP.name);
        self.add(&goals::LOOKUP, figure.min, lookup.has_huge_pages());
        Ok(())
    }

    fn new_connections(&mut self, extent: Extent) -> Result<(), Error> {
        for (row, measured) in
            [(goals::NEW, packet_path::new_connections(extent)?), (goals::FLOOD, packet_path::flood(extent)?)]
        {
            println!("{}: {}", row.name, measured.figure);
            self.add(&row, measured.figure.millions(), measured.huge);
        }
        Ok(())
    }

    fn maglev(&mut self, extent: Extent) {
        let figure = maglev::table(extent);
        let (min, median) = (figure.min / 1e6, figure.median / 1e6);
        println!("{}: min {min:.3} ms  median {median:.3} ms", goals::MAGLEV.name);
        self.add_remarked(&goals::MAGLEV, min, "");
    }

    fn workers(&mut self, extent: Extent) -> Result<(), Error> {
        if thread::available_parallelism().map_or(1, usize::from) < 2 {
            self.lines.push(goals::WORKERS.line(None, "this machine has one core"));
            return Ok(());
        }
        let scaling = workers::scaling(extent)?;
        println!("{}: one {:.1} M/s, two {:.1} M/s", goals::WORKERS.name, scaling.one, scaling.two);
        self.add(&goals::WORKERS, scaling.ratio(), scaling.huge);
        Ok(())
    }

    /// Changes of the configuration, with the control plane.
    #[cfg(feature = "control")]
    fn apply(&mut self, extent: Extent) {
        match crate::apply::measure(extent) {
            Ok(measured) => {
                for (row, times) in [(goals::APPLY, measured.all), (goals::APPLY_ONE, measured.one)] {
                    println!("{}: min {:.2} ms  median {:.2} ms", row.name, times.min, times.median);
                }
                println!(
                    "reading the file {:.0} ms; {} packets passed",
                    measured.reading, measured.forwarded
                );
                let remark = format!("reading the file {:.0} more; no packet lost", measured.reading);
                self.add_remarked(&goals::APPLY, measured.all.min, &remark);
                self.add_remarked(&goals::APPLY_ONE, measured.one.min, "no packet lost");
            }
            Err(message) => {
                for row in [goals::APPLY, goals::APPLY_ONE] {
                    self.lines.push(row.line(None, &message));
                }
            }
        }
    }

    #[cfg(not(feature = "control"))]
    fn apply(&mut self, _: Extent) {
        for row in [goals::APPLY, goals::APPLY_ONE] {
            self.lines.push(row.line(None, "built without the control plane: --features control"));
        }
    }

    /// Runs the bench of `af_packet`, which makes a network namespace, as a program of its own.
    fn af_packet(&mut self) {
        let row = goals::AF_PACKET;
        match af_packet_mpps() {
            Ok((full_ring, flood)) => {
                self.add_remarked(&row, full_ring, &format!("{flood:.2} while frames keep coming"));
            }
            Err(message) => self.lines.push(row.line(None, &message)),
        }
    }
}

/// What the program `af_packet_veth` says of a director whose receive ring is full, and of one whose ring is being filled,
/// in millions of frames a second of CPU time.
fn af_packet_mpps() -> Result<(f64, f64), String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    // Built with this program, and beside it.
    let program = program.with_file_name("af_packet_veth");
    let output = Command::new(&program).output().map_err(|error| {
        format!(
            "cannot run {} ({error}): cargo build --release -p pointsman-benches --bins",
            program.display()
        )
    })?;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(errors.lines().last().unwrap_or("af_packet_veth failed without a word").to_owned());
    }
    print!("{said}");
    let of_director = |line: &&str| line.starts_with("director");
    let millions = |name| {
        said.lines().filter(of_director).find(|line| line.contains(name)).and_then(frames_a_cpu_second)
    };
    match (millions("full ring"), millions("flood")) {
        (Some(full_ring), Some(flood)) => Ok((full_ring, flood)),
        _ => Err("af_packet_veth does not say how many frames it moved".to_owned()),
    }
}

/// The number before "M frames a CPU second".
fn frames_a_cpu_second(line: &str) -> Option<f64> {
    line.split_once(" M frames a CPU second")?.0.split_whitespace().last()?.parse().ok()
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_of_af_packet_is_read_from_its_line() {
        let line =
            "full ring    926 ns of CPU time a frame (median 974), 1.08 M frames a CPU second; goal 0.9";
        assert_eq!(frames_a_cpu_second(line), Some(1.08));
        assert_eq!(frames_a_cpu_second("alone      there and back: median 13 us"), None);
    }
}
