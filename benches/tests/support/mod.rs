//! Running the tool as a user does.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]
#![allow(dead_code, reason = "each test program uses some of it")]
#![allow(unreachable_pub, reason = "a module of each test program")]

use pointsman_benches::tool::report::Report;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A folder that vanishes.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pointsman-bench-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

pub fn bench(line: &str, files: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman-bench"));
    command.args(line.split_whitespace());
    for (option, file) in files {
        command.arg(option).arg(file);
    }
    command.output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that measures, and returns what it wrote as JSON and Markdown.
pub fn measured(name: &str, line: &str) -> (Report, String) {
    let folder = Folder::new(name);
    let [json, markdown, svg] = ["a.json", "a.md", "a.svg"].map(|file| folder.file(file));
    let on_a_wire = line.starts_with("generate") || line.starts_with("sink");
    let line = format!("{line} --pages ordinary --clock {}", if on_a_wire { "wall" } else { "cpu" });
    let output = bench(&line, &[("--json", &json), ("--markdown", &markdown), ("--svg", &svg)]);
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "no progress where nobody looks: {}", text(&output.stderr));
    let report = Report::read(&json).unwrap();
    assert!(report.rows.iter().all(|row| row.value.is_finite()), "{:?}", report.rows);
    assert!(!report.huge_pages_used && report.command_line.len() > 5 && !report.machine.kernel.is_empty());
    let markdown = fs::read_to_string(markdown).unwrap();
    assert!(markdown.contains("](a.svg)") && text(&output.stdout).starts_with("# "), "{markdown}");
    let svg = fs::read_to_string(svg).unwrap();
    assert!(svg.contains("<polyline points=\"") && svg.ends_with("</svg>\n"));
    (report, markdown)
}

pub fn names(report: &Report) -> Vec<&str> {
    report.rows.iter().map(|row| row.name.as_str()).collect()
}
