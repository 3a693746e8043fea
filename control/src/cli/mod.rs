//! The client: `pointsman` and, called by that name, `ipvsadm`. One file per command.

mod client;
mod error;
pub mod ipvsadm;

use std::ffi::OsString;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use client::{DEFAULT_SOCKET, Director, SOCKET_VARIABLE, Unreachable};
pub use error::CliError;

use crate::compat::ipvsadm::SystemNames;

/// The exit status when the reader of the output is gone: that of a program that SIGPIPE ended.
pub const EXIT_PIPE_CLOSED: u8 = 141;

/// The client, with the arguments of its process, the program's name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("pointsman: cannot start: {error}\n  raise the limit of open files (ulimit -n)");
            return ExitCode::FAILURE;
        }
    };
    ExitCode::from(runtime.block_on(run(args)))
}

async fn run(args: Vec<OsString>) -> u8 {
    let program = args
        .first()
        .and_then(|name| Path::new(name).file_name())
        .and_then(|name| name.to_str());
    let program = match program {
        Some("ipvsadm") => Some(ipvsadm::Program::Ipvsadm),
        Some("ipvsadm-save") => Some(ipvsadm::Program::Save),
        Some("ipvsadm-restore") => Some(ipvsadm::Program::Restore),
        _ => None,
    };
    match program {
        Some(program) => run_ipvsadm(program, &args[1..], &default_socket()).await,
        None => 0,
    }
}

fn default_socket() -> PathBuf {
    std::env::var_os(SOCKET_VARIABLE).map_or_else(|| PathBuf::from(DEFAULT_SOCKET), PathBuf::from)
}

async fn run_ipvsadm(program: ipvsadm::Program, args: &[OsString], socket: &Path) -> u8 {
    let args: Vec<String> = args
        .iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let streams = ipvsadm::Streams {
        input: &mut io::stdin().lock(),
        out: &mut BufWriter::new(io::stdout().lock()),
        err: &mut io::stderr().lock(),
    };
    ipvsadm::run(program, &args, socket, &SystemNames::read(), streams).await
}
