//! The admin client; called as `ipvsadm` it is ipvsadm.

use std::process::ExitCode;

fn main() -> ExitCode {
    pointsman_control::cli::main(std::env::args_os().collect())
}
