//! The client: `pointsman` and, called by that name, `ipvsadm`. One file per command.

mod apply;
mod client;
mod completion;
mod connections;
mod error;
pub mod ipvsadm;
mod key;
mod mark;
mod output;
mod policy;
mod ports;
mod save;
mod server;
mod service;
mod show;
mod source_nat;
mod stats;
#[cfg(test)]
mod tests;
mod vip;
mod workers;

use std::ffi::OsString;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use client::{DEFAULT_SOCKET, Director, SOCKET_VARIABLE, Unreachable};
pub use error::CliError;
pub use output::Output;

use crate::compat::ipvsadm::SystemNames;

/// The exit status when the reader of the output is gone: that of a program that SIGPIPE ended.
pub const EXIT_PIPE_CLOSED: u8 = 141;
/// The exit status of a command that could not do what it was told. A wrong command line ends with 2.
const EXIT_FAILED: u8 = 1;

/// Administers a Pointsman director.
///
/// Called by the name ipvsadm, ipvsadm-save or ipvsadm-restore (a link) it is that program.
#[derive(Debug, Parser)]
#[command(
    name = "pointsman",
    version,
    after_help = "The director is pointsmand. Its socket is named by --socket, else by POINTSMAN_SOCKET, else it is \
                  /run/pointsman/pointsman.sock."
)]
struct Arguments {
    /// The unix socket of the director
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Apply(apply::Apply),
    Diff(apply::Diff),
    Show(show::Show),
    #[command(subcommand)]
    Service(service::Verb),
    #[command(subcommand)]
    Server(server::Verb),
    #[command(subcommand)]
    Vip(vip::Vip),
    #[command(subcommand)]
    Mark(mark::Mark),
    #[command(subcommand)]
    SourceNat(source_nat::Verb),
    #[command(subcommand)]
    Policy(policy::Policy),
    Connections(connections::Connections),
    Stats(stats::Stats),
    Workers(workers::Workers),
    Ports(ports::Ports),
    Save(save::Save),
    Completion(completion::Completion),
    /// Is ipvsadm: its options, output and exit status
    #[command(disable_help_flag = true)]
    Ipvsadm {
        /// What ipvsadm takes; -h lists it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// The client, with the arguments of its process, the program's name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}\n  raise the limit of open files (ulimit -n)"));
            return ExitCode::FAILURE;
        }
    };
    ExitCode::from(runtime.block_on(run(args)))
}

async fn run(args: Vec<OsString>) -> u8 {
    let program = args.first().and_then(|name| Path::new(name).file_name()).and_then(|name| name.to_str());
    let program = match program {
        Some("ipvsadm") => Some(ipvsadm::Program::Ipvsadm),
        Some("ipvsadm-save") => Some(ipvsadm::Program::Save),
        Some("ipvsadm-restore") => Some(ipvsadm::Program::Restore),
        _ => None,
    };
    if let Some(program) = program {
        return run_ipvsadm(program, &args[1..], &default_socket()).await;
    }
    let Arguments { socket, json, command } = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are "errors" too, for stdout, whose reader may be gone.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(EXIT_FAILED);
        }
    };
    let socket = socket.unwrap_or_else(default_socket);
    if let Command::Ipvsadm { arguments } = command {
        return run_ipvsadm(ipvsadm::Program::Ipvsadm, &arguments, &socket).await;
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let done =
        execute(command, &socket, &mut Output { out: &mut out, err: &mut io::stderr().lock(), json }).await;
    match done.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => 0,
        Err(CliError::PipeClosed) => EXIT_PIPE_CLOSED,
        Err(error) => {
            complain(&error.to_string());
            EXIT_FAILED
        }
    }
}

async fn execute(command: Command, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
    match command {
        Command::Apply(apply) => apply.run(socket, output).await,
        Command::Diff(diff) => diff.run(socket, output).await,
        Command::Show(show) => show.run(socket, output).await,
        Command::Service(verb) => verb.run(socket, output).await,
        Command::Server(verb) => verb.run(socket, output).await,
        Command::Vip(vip) => vip.run(socket, output).await,
        Command::Mark(mark) => mark.run(socket, output).await,
        Command::SourceNat(verb) => verb.run(socket, output).await,
        Command::Policy(policy) => policy.run(socket, output).await,
        Command::Connections(connections) => connections.run(socket, output).await,
        Command::Stats(stats) => stats.run(socket, output).await,
        Command::Workers(workers) => workers.run(socket, output).await,
        Command::Ports(ports) => ports.run(socket, output).await,
        Command::Save(save) => save.run(socket, output).await,
        Command::Completion(completion) => completion.run(output),
        // It has streams of its own, and was run before these were made.
        Command::Ipvsadm { .. } => Ok(()),
    }
}

/// For stderr; `eprintln!` would panic where nobody reads it.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "pointsman: {message}");
}

fn default_socket() -> PathBuf {
    std::env::var_os(SOCKET_VARIABLE).map_or_else(|| PathBuf::from(DEFAULT_SOCKET), PathBuf::from)
}

async fn run_ipvsadm(program: ipvsadm::Program, args: &[OsString], socket: &Path) -> u8 {
    let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let streams = ipvsadm::Streams {
        input: &mut io::stdin().lock(),
        out: &mut BufWriter::new(io::stdout().lock()),
        err: &mut io::stderr().lock(),
    };
    ipvsadm::run(program, &args, socket, &SystemNames::read(), streams).await
}

#[cfg(test)]
mod command_line {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_arguments_of_ipvsadm_pass_untouched() {
        for line in ["-Ln", "-h", "-A -t 10.0.0.1:80 -s rr", "--set 1 2 3", "-L --timeout", "-v", ""] {
            let args = ["pointsman", "--socket", "/x", "ipvsadm"].into_iter().chain(line.split_whitespace());
            let parsed = Arguments::try_parse_from(args).unwrap();
            let Command::Ipvsadm { arguments } = parsed.command else { panic!("{line}") };
            assert_eq!(arguments, line.split_whitespace().collect::<Vec<_>>(), "{line}");
            assert_eq!(parsed.socket.as_deref(), Some(Path::new("/x")));
        }
    }

    #[test]
    fn every_command_has_help() {
        let root = Arguments::command();
        for command in root.get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }
}
