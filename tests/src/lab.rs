//! Namespaces of their own for one test, and commands run in them.

use crate::process::Process;
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    sync::atomic::{AtomicU32, Ordering},
};

/// Limit of one command, in seconds.
const COMMAND_SECONDS: u32 = 30;

/// The first process of a lab: says by which number the outside knows it, makes `/run` private, and lives until the
/// test ends (its standard input closes then). All else in the lab dies with it.
const ANCHOR: &str = "read pid rest </proc/self/stat && mount -t proc proc /proc && mount -t tmpfs tmpfs /run \
    && mkdir -p /run/netns /run/lab && echo $pid && read forever";

/// A private world: user, network, mount and process namespaces that end when the last handle goes.
#[derive(Clone)]
pub struct Lab {
    inner: Arc<Inner>,
}

struct Inner {
    anchor: Child,
    pid: String,
    in_user_namespace: bool,
    processes: AtomicU32,
}

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 124 when the command was stopped at its limit, -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests crate lies in the repository").to_path_buf()
}

impl Lab {
    /// Makes the namespaces. There is nothing in them but `/run`, which is empty.
    pub fn new() -> Self {
        Self::isolated(isolation())
    }

    /// A lab without a user namespace of its own, for what the kernel gives to the machine's root alone; panics with the
    /// remedy if this is not root. Everything else is as private as in any lab.
    pub fn of_root(reason: &str) -> Self {
        let works = Command::new("unshare").args(["-nm", "true"]).output();
        let root = works.is_ok_and(|output| output.status.success());
        assert!(root, "this test needs root ({reason}): run it as root, or with `sudo env PATH=$PATH make`");
        Self::isolated(false)
    }

    fn isolated(in_user_namespace: bool) -> Self {
        let flags = if in_user_namespace { "-Urnm" } else { "-nm" };
        let mut anchor = Command::new("unshare")
            .args([flags, "--pid", "--fork", "--kill-child", "--", "sh", "-c", ANCHOR])
            .env("PATH", search_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux) starts");
        let mut pid = String::new();
        let output = anchor.stdout.take().expect("the output of the anchor is a pipe");
        BufReader::new(output).read_line(&mut pid).expect("the anchor says its number");
        let pid = pid.trim().to_owned();
        assert!(
            !pid.is_empty(),
            "the namespaces of a lab could not be set up: see the message of unshare or mount"
        );
        Self { inner: Arc::new(Inner { anchor, pid, in_user_namespace, processes: AtomicU32::new(0) }) }
    }

    /// Adds a network namespace with its loopback up.
    pub fn add_node(&self, name: &str) {
        self.sh(&format!("ip netns add {name} && ip -n {name} link set lo up"));
    }

    /// Runs a shell line in a node and returns what it left; stopped after half a minute.
    pub fn run(&self, node: &str, line: &str) -> Output {
        let output =
            self.command(COMMAND_SECONDS).args(["ip", "netns", "exec", node, "sh", "-c", line]).output();
        Output::from(output.expect("nsenter (util-linux) starts"))
    }

    /// Runs a shell line in a node; panics unless it succeeds. Returns its standard output.
    pub fn ok(&self, node: &str, line: &str) -> String {
        self.run(node, line).expect_success(node, line)
    }

    /// Runs a shell line in the lab but in no node (where `ip netns` and the like belong); panics unless it succeeds.
    pub fn sh(&self, line: &str) -> String {
        self.sh_within(COMMAND_SECONDS, line).expect_success("lab", line)
    }

    /// Runs a shell line in the lab but in no node, with a limit of its own.
    pub fn sh_within(&self, seconds: u32, line: &str) -> Output {
        let output = self.command(seconds).args(["sh", "-c", line]).output();
        Output::from(output.expect("nsenter (util-linux) starts"))
    }

    /// Starts a shell line in a node and leaves it running. `name` is for its log.
    pub fn spawn(&self, node: &str, name: &str, line: &str) -> Process {
        let number = self.inner.processes.fetch_add(1, Ordering::Relaxed);
        let stem = format!("/run/lab/{name}-{number}");
        let line = format!("echo $$ >{stem}.pid; exec >{stem}.log 2>&1; {line}");
        let mut command = self.enter();
        command.args(["ip", "netns", "exec", node, "sh", "-c", &line]);
        Process::start(self.clone(), command, stem)
    }

    /// Where a file of the lab is found from outside of it: `/run` is private to the lab.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.inner.pid))
    }

    /// Writes a file of the lab.
    pub fn write(&self, inside: &str, content: &str) {
        let path = self.path(inside);
        let folder = path.parent().expect("a file lies in a folder");
        std::fs::create_dir_all(folder).expect("the folder in the lab can be made");
        std::fs::write(&path, content).expect("the file in the lab can be written");
    }

    /// Reads a file of the lab; nothing if it is not there.
    pub fn read(&self, inside: &str) -> String {
        std::fs::read_to_string(self.path(inside)).unwrap_or_default()
    }

    fn command(&self, seconds: u32) -> Command {
        let mut command = self.enter();
        command.args(["timeout", "--kill-after=2", &seconds.to_string()]);
        command
    }

    /// A command that starts inside the namespaces of the lab.
    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.inner.pid, "--mount", "--net", "--pid"]);
        if self.inner.in_user_namespace {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").env("PATH", search_path()).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.anchor.stdin.take());
        // The anchor has read the end of its input and ends; the kernel ends everything else in the lab with it.
        let _ = self.anchor.wait();
    }
}

impl Output {
    /// Standard output and standard error, one after the other.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    fn expect_success(self, node: &str, line: &str) -> String {
        assert!(self.code == 0, "[{node}]# {line}\nexit {}\n{}", self.code, self.text());
        self.stdout
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Whether user namespaces can be had; without them root does as well.
fn isolation() -> bool {
    let works =
        |flags| Command::new("unshare").args([flags, "true"]).output().is_ok_and(|o| o.status.success());
    if works("-Urnm") {
        return true;
    }
    assert!(
        works("-nm"),
        "this test needs network namespaces: run it as root, or allow user namespaces \
         (sysctl -w user.max_user_namespaces=10000; on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0)"
    );
    false
}

/// The programs just built come first; the system's own (ip, nginx, ethtool) are not in every user's path.
fn search_path() -> String {
    let built = crate::director::built_programs();
    let usual = std::env::var("PATH").unwrap_or_default();
    format!("{}:{usual}:/usr/local/sbin:/usr/sbin:/sbin", built.display())
}
