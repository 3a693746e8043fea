//! `pointsman-bench`: measures the director. What it can be asked stands in `tool::cli`, or `pointsman-bench --help`.

use clap::Parser as _;
#[cfg(feature = "dpdk")]
use pointsman_benches::dpdk_path;
use pointsman_benches::{
    Extent, packet_path,
    tool::{
        cli::{Cli, Command, Compare, Gate, Output, Table},
        commands, compare, gate,
        load::Mix,
        prepare::{plan, plan_of_stations},
        report::Report,
        svg, table, wire,
    },
};
use std::{fs, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // What runs under callgrind takes no way round by the parser.
    let done = match arguments.first().map(String::as_str) {
        #[cfg(feature = "dpdk")]
        Some(dpdk_path::OPTION) => dpdk_path::answer(&arguments[1..]).map(|()| true),
        Some("--once") => packet_path::once_of_arguments(&arguments[1..]).map(|()| true),
        _ => obey(Cli::parse().command),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("pointsman-bench: {message}");
            ExitCode::from(2)
        }
    }
}

/// Does it, and returns whether nothing got slower.
fn obey(command: Option<Command>) -> Result<bool, String> {
    match command.unwrap_or(Command::Table(Table { quick: false, output: Output::default() })) {
        Command::Table(asked) => {
            writable(&asked.output)?;
            let (text, report) = table::table(if asked.quick { Extent::Smoke } else { Extent::Full })?;
            println!("{text}");
            write(&report, &asked.output)?;
        }
        Command::Run(asked) => {
            publish(&asked.output, || commands::run(&plan(&asked.offered, asked.mix)?, asked.seconds))?;
        }
        Command::Scaling(asked) => {
            publish(&asked.output, || commands::scaling(&plan(&asked.offered, asked.mix)?, asked.seconds))?;
        }
        Command::Search(asked) => {
            publish(&asked.output, || commands::search(&plan(&asked.offered, asked.mix)?, &asked))?;
        }
        Command::Latency(asked) => {
            publish(&asked.output, || commands::latency(&plan(&asked.offered, asked.mix)?, &asked))?;
        }
        Command::Bursts(asked) => {
            publish(&asked.output, || commands::bursts(&plan(&asked.offered, asked.mix)?, &asked))?;
        }
        Command::Connections(asked) => {
            let mix = if asked.syn_flood { Mix::SynFlood } else { Mix::New };
            publish(&asked.output, || commands::connections(&plan(&asked.offered, mix)?, asked.seconds))?;
        }
        Command::Generate(asked) => publish(&asked.output, || {
            wire::generate(&plan_of_stations(&asked.offered, asked.mix, asked.one_way, false)?, &asked)
        })?,
        Command::Sink(asked) => publish(&asked.output, || {
            wire::sink(&plan_of_stations(&asked.offered, Mix::Hit, true, true)?, &asked)
        })?,
        Command::Compare(asked) => return compare_files(&asked),
        Command::Gate(asked) => return count_instructions(&asked),
    }
    Ok(true)
}

fn compare_files(asked: &Compare) -> Result<bool, String> {
    let (old, new) = (Report::read(&asked.old)?, Report::read(&asked.new)?);
    let comparison = compare::compare(&old, &new, asked.tolerance)?;
    println!("{}", comparison.text);
    Ok(comparison.slower == 0)
}

fn count_instructions(asked: &Gate) -> Result<bool, String> {
    if asked.renew {
        print!("{}", gate::renew(&asked.baseline)?);
        return Ok(true);
    }
    let (text, good) = gate::check(&asked.baseline)?;
    print!("{text}");
    Ok(good)
}

/// Measures, and gives out the report.
fn publish(output: &Output, measure: impl FnOnce() -> Result<Report, String>) -> Result<(), String> {
    writable(output)?;
    let report = measure();
    #[cfg(feature = "dpdk")]
    pointsman_benches::tool::dpdk::end();
    let report = report?;
    print!("{}", report.to_markdown(None));
    write(&report, output)
}

/// That the folders of the files are there is better known before a measurement than after it.
fn writable(output: &Output) -> Result<(), String> {
    for path in [&output.json, &output.markdown, &output.svg].into_iter().flatten() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(format!("{}: there is no folder {}", path.display(), folder.display()));
        }
        if path.is_dir() {
            return Err(format!("{}: this is a folder, a file is to be written", path.display()));
        }
    }
    Ok(())
}

fn write(report: &Report, output: &Output) -> Result<(), String> {
    let put = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(path) = &output.json {
        put(path, &report.to_json()?)?;
    }
    let plots = !report.plots.is_empty();
    if let Some(path) = output.svg.as_deref().filter(|_| plots) {
        put(path, &svg::draw(&report.plots))?;
    }
    if let Some(path) = &output.markdown {
        // The picture is named as one that lies beside it.
        let picture = output.svg.as_deref().filter(|_| plots).map(|svg| {
            if svg.parent() == path.parent() { Path::new(svg.file_name().unwrap_or_default()) } else { svg }
        });
        put(path, &report.to_markdown(picture.map(|path| path.to_string_lossy()).as_deref()))?;
    }
    Ok(())
}
