//! Instructions per packet do not grow unseen: see `gate` of the tool.

use std::process::Command;

#[test]
fn a_packet_takes_no_more_instructions_than_are_committed() {
    // The release build, whose code users run; `make demo` and `make bench` have the same one.
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--release", "--package", "pointsman-benches", "--bin", "pointsman-bench"])
        .args(["--", "gate"])
        .output()
        .expect("cargo runs");
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    println!("{said}");
    assert!(output.status.success(), "{said}");
}
