//! `cargo ci`: everything that a change must pass, step by step; stops at the first failure.

use std::{
    process::{Command, ExitCode},
    time::Duration,
};

/// A step: what it is called, and the cargo command that is it.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    /// A cargo subcommand without which the step is left out, and said to be.
    needs: Option<&'static str>,
}

const fn step(name: &'static str, arguments: &'static [&'static str]) -> Step {
    Step { name, arguments, environment: &[], needs: None }
}

const STEPS: &[Step] = &[
    step("style", &["fmt", "--all", "--", "--check"]),
    step("lints", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    step("programs", &["build", "--quiet", "--workspace", "--bins"]),
    step("tests", &["test", "--workspace"]),
    step(
        "tables and rings under valgrind",
        &[
            "test",
            "--package",
            "pointsman-dataplane",
            "--lib",
            "--config",
            VALGRIND,
            "--",
            "conn::table",
            "port::",
            "handoff",
            "publish",
        ],
    ),
    step("benches run once", &["test", "--quiet", "--package", "pointsman-benches", "--benches"]),
    Step {
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
        ..step("documentation", &["doc", "--quiet", "--workspace", "--no-deps"])
    },
    Step { needs: Some("deny"), ..step("licenses and bans", &["deny", "check", "licenses", "bans"]) },
    Step {
        environment: &[("RUSTFLAGS", "--cfg loom")],
        ..step(
            "publish and handoff under loom",
            &[
                "test",
                "--package",
                "pointsman-dataplane",
                "--lib",
                "--target-dir",
                "target/loom",
                "--",
                "handoff",
                "publish",
            ],
        )
    },
];

/// What property tests draw their cases from.
const PROPTEST_SEED: &str = "PROPTEST_RNG_SEED";

/// Runs test programs under memcheck; anything it says is a failure.
const VALGRIND: &str = r#"target."cfg(unix)".runner = ["valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]"#;

fn main() -> ExitCode {
    let mut report = Vec::new();
    for step in STEPS {
        if step.needs.is_some_and(|name| !is_installed(name)) {
            report.push(format!("{:>8}  {}", "left out", step.name));
            println!("==> {}: left out, cargo {} is not installed", step.name, step.arguments[0]);
            continue;
        }
        println!("==> {}: cargo {}", step.name, step.arguments.join(" "));
        let (succeeded, took) = timed(|| run(step));
        report.push(format!("{:>6.0} s  {}", took.as_secs_f64(), step.name));
        if !succeeded {
            println!("{}\nfailed: {}", report.join("\n"), step.name);
            return ExitCode::FAILURE;
        }
    }
    println!("{}\nall steps passed", report.join("\n"));
    ExitCode::SUCCESS
}

fn run(step: &Step) -> bool {
    let mut command = Command::new("cargo");
    command.args(step.arguments).envs(step.environment.iter().copied());
    // The same cases in every run, so that what fails fails again; `cargo test` draws others each time.
    if std::env::var_os(PROPTEST_SEED).is_none() {
        command.env(PROPTEST_SEED, "20");
    }
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            println!("cargo cannot be started: {error}");
            false
        }
    }
}

fn is_installed(subcommand: &str) -> bool {
    Command::new("cargo").args([subcommand, "--version"]).output().is_ok_and(|output| output.status.success())
}

#[expect(clippy::disallowed_methods, reason = "how long a step of CI takes; no time of the director")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = std::time::Instant::now();
    let result = work();
    (result, start.elapsed())
}
