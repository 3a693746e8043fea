//! Direct routing over virtual devices of DPDK: see `dpdk_path` in the library for what is measured. `--smoke` for a short
//! run; names of devices for some of them.

use pointsman_benches::{
    Extent,
    dpdk_path::{DEVICES, measure_devices},
};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let extent = if arguments.iter().any(|one| one == "--smoke") { Extent::Smoke } else { Extent::Full };
    let asked = |device: &&str| arguments.iter().any(|one| one == device);
    let mut devices: Vec<&str> = DEVICES.into_iter().filter(asked).collect();
    if devices.is_empty() {
        devices = DEVICES.into();
    }
    let all = match measure_devices(&devices, extent) {
        Ok(all) => all,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for (device, measured) in devices.iter().zip(all) {
        let pages = if measured.huge { "huge" } else { "ordinary" };
        println!("{device}, floor ({}, {pages} pages): {}", measured.version, measured.floor);
        for (flows, figure) in measured.hits {
            println!("{device}, DR hit, {flows} connections: {figure}");
        }
    }
    ExitCode::SUCCESS
}
