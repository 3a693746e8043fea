//! A test that starts itself again where it may do all that root may.

use std::process::Command;

const INSIDE: &str = "POINTSMAN_TEST_INSIDE";

/// Runs the test of this name in a process, user and network namespace of its own. True if this is that run.
pub(crate) fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let own = std::env::current_exe().expect("this test is a program");
    let run = Command::new("unshare")
        .args(["-Urnm", "--"])
        .arg(own)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare (package util-linux) starts");
    let text = [run.stdout, run.stderr].concat();
    assert!(
        run.status.success(),
        "in its namespace (are user namespaces allowed? `sysctl kernel.unprivileged_userns_clone`):\n{}",
        String::from_utf8_lossy(&text)
    );
    false
}
