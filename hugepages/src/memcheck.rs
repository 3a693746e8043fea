//! Runs every other unit test of this crate again under valgrind's memcheck: no read or write outside what is mapped
//! or allocated, no use after free, no decision on uninitialised bytes, nothing leaked.
//!
//! Only what memcheck calls definitely lost is a leak here: the standard library keeps its threads by pointers into
//! the middle of a block, which memcheck calls possibly lost in any Rust program.
//!
//! Memcheck takes hugetlb mappings as the kernel does, so the tests need no other choice of pages under it.

use std::process::Command;

/// Set for the run under memcheck: long tests take fewer rounds.
pub(crate) fn is_running() -> bool {
    std::env::var_os(MARK).is_some()
}

const MARK: &str = "POINTSMAN_MEMCHECK";

#[test]
fn the_unit_tests_are_clean_under_memcheck() {
    let this = std::env::current_exe().expect("the path of the test binary");
    let output = Command::new("valgrind")
        .args(["--quiet", "--error-exitcode=1", "--fair-sched=yes"])
        .args(["--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"])
        .arg(this)
        .args(["--skip", "memcheck", "--test-threads=2"])
        .env(MARK, "1")
        .env("PROPTEST_CASES", "12")
        .output()
        .expect("valgrind runs; if it is missing: apt-get install valgrind");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert!(out.contains("test result: ok.") && !out.contains("running 0 tests"), "{out}");
}
