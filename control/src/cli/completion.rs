//! `pointsman completion SHELL`: what a shell needs to complete command lines.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Arguments;
use super::error::CliError;
use super::output::Output;

/// Prints the completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example: pointsman completion bash > /etc/bash_completion.d/pointsman")]
pub(super) struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub(super) fn run(&self, output: &mut Output<'_>) -> Result<(), CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "pointsman", &mut script);
        Ok(output.out.write_all(&script)?)
    }
}
