//! Measures direct routing from rx to tx, new connections, and a flood against a full table: see `packet_path` in the
//! library for what each is. Not criterion: what is asked for is the best and the median of several runs beside a reference.
//!
//! `cargo bench -p pointsman-benches --bench packet_path`, and behind `--`:
//! - `--instructions`: counts instructions per packet by callgrind instead.
//! - `--once MODE FLOWS PACKETS`: a fixed amount of work without timing, for a profiler; MODE is hit, floor, new or flood.
//! - `--test`: just enough to see that it runs.

use pointsman_benches::{Extent, callgrind, packet_path, pin};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("packet_path: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let given = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if let Some(at) = arguments.iter().position(|argument| argument == "--once") {
        return packet_path::once_of_arguments(&arguments[at + 1..]);
    }
    if given("--list") {
        return Ok(());
    }
    if given("--instructions") {
        for mode in ["floor", "hit", "new", "flood"] {
            println!("{mode}: {:.1} instructions per packet", callgrind::per_packet(mode, 1_000)?);
        }
        return Ok(());
    }
    pin(0);
    packet_path::print(Extent::of_arguments()).map_err(|error| error.to_string())
}
