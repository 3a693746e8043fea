//! A program that runs in a lab beside the test.

use crate::{Lab, wait_until};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

/// A running program; it ends with its lab at the latest.
pub struct Process {
    lab: Lab,
    child: Child,
    stem: String,
}

impl Process {
    pub(crate) fn start(lab: Lab, mut command: Command, stem: String) -> Self {
        let child = command.spawn().expect("nsenter (util-linux) starts");
        Self { lab, child, stem }
    }

    /// What it has printed so far, to standard output and standard error.
    pub fn log(&self) -> String {
        self.lab.read(&format!("{}.log", self.stem))
    }

    /// Its process number inside the lab.
    pub fn pid(&self) -> String {
        let file = format!("{}.pid", self.stem);
        wait_until("the process has started", 10, || self.lab.read(&file).ends_with('\n'));
        self.lab.read(&file).trim().to_owned()
    }

    /// Sends a signal, named as `kill` names it: "TERM", "KILL".
    pub fn signal(&self, name: &str) {
        self.lab.sh(&format!("kill -{name} {}", self.pid()));
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked for its state").is_none()
    }

    /// Waits for its end. The exit status, or 128 plus the signal that ended it.
    pub fn wait(&mut self, seconds: u32) -> i32 {
        let mut status = None;
        wait_until("the process ends", seconds, || {
            status = self.child.try_wait().expect("a child can be asked for its state");
            status.is_some()
        });
        status.map_or(-1, code_of)
    }

    /// Waits until a line of its output is exactly `line`; panics with the output if it ends before.
    pub fn wait_for_line(&mut self, line: &str, seconds: u32) {
        let mut ended = false;
        for _ in 0..seconds * 20 {
            if self.log().lines().any(|l| l == line) {
                return;
            }
            assert!(!ended, "ended before it printed `{line}`:\n{}", self.log());
            ended = !self.is_running();
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("did not print `{line}` within {seconds} s:\n{}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // This ends nsenter only; what it started ends with the lab.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
