//! The rules of the house that a compiler does not check.

use pointsman_dataplane::verdict::DropReason;
use pointsman_tests::repository;
use std::{
    fs,
    path::{Path, PathBuf},
};

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;

/// Written in halves, so that this file does not trip over itself.
const FORBIDDEN_WORDS: [&str; 5] = [
    concat!("back", "end"),
    concat!("front", "end"),
    concat!("sti", "cky"),
    concat!("up", "stream"),
    concat!("l", "core"),
];
const UNFINISHED: [&str; 6] = [
    concat!("todo", "!("),
    concat!("unimple", "mented!("),
    concat!("#[ig", "nore"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("TO", "DO"),
];
const MACHINE_PATHS: [&str; 3] = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/")];
/// Where `unsafe` is allowed: memory, rings, the SIMD of the connection table, and the shim of DPDK.
const UNSAFE_PLACES: [&str; 4] =
    ["hugepages/", "dataplane/src/port/sys/", "dataplane/src/conn/table", "dataplane/dpdk-sys/"];

/// A text file of the repository: its path from the root, and its content.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is(&self, extensions: &[&str]) -> bool {
        Path::new(&self.path).extension().is_some_and(|have| extensions.iter().any(|want| have == *want))
    }
}

/// All text files but those that cargo and git made, and recordings.
fn sources() -> Vec<Source> {
    let root = repository();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository can be read") {
            let path = entry.expect("an entry can be read").path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() {
                if !["target", ".git", "golden", "__pycache__"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if name != "Cargo.lock"
                && let Ok(text) = fs::read_to_string(&path)
            {
                found.push(Source { path: relative(&root, &path), text });
            }
        }
    }
    assert!(found.len() > 30, "the repository was not found: only {} files", found.len());
    found
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).map(PathBuf::from).unwrap_or_default().to_string_lossy().into_owned()
}

/// Panics with all offences at once.
fn none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let long = |s: &Source| s.is(&["rs", "proto", "sh", "py"]) && s.text.lines().count() >= FILE_LINES;
    let offences: Vec<String> = sources()
        .iter()
        .filter(|s| long(s))
        .map(|s| format!("{}: {}", s.path, s.text.lines().count()))
        .collect();
    none("files stay below 600 lines", &offences);
}

#[test]
fn no_function_is_longer_than_70_lines() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|s| s.is(&["rs"])) {
        for (line, name, length) in functions(&source.text) {
            if length >= FUNCTION_LINES {
                offences.push(format!("{}:{line}: {name} has {length} lines", source.path));
            }
        }
    }
    none("functions stay below 70 lines", &offences);
}

/// The functions of a text as rustfmt leaves it: line, name, lines from the signature to the closing brace.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        if line.ends_with(';') || line.ends_with('}') {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let closing = format!("{indent}}}");
        let declaration = format!("{indent})");
        for (offset, end) in lines[start + 1..].iter().enumerate() {
            if *end == closing {
                found.push((start + 1, name, offset + 2));
                break;
            }
            if end.starts_with(&declaration) && end.ends_with(';') {
                break;
            }
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let code = line.trim_start();
    let at = if code.starts_with("fn ") { 0 } else { code.find(" fn ")? + 1 };
    let words = code[..at].split_whitespace();
    let qualifiers = ["const", "async", "unsafe", "extern"];
    for word in words {
        if !(word.starts_with("pub") || word.starts_with('"') || word == "in" || qualifiers.contains(&word)) {
            return None;
        }
    }
    let rest = &code[at + 3..];
    Some(rest[..rest.find(['(', '<'])?].to_owned())
}

#[test]
fn functions_are_measured_by_their_braces() {
    let text = "fn one() {\n    a();\n}\n\npub(crate) const fn two(\n    a: u8,\n) -> u8 {\n    a\n}\n\
                trait T {\n    fn three(\n        a: u8,\n    );\n    fn four();\n    fn five() {}\n}\n";
    let expected = [(1, "one".to_owned(), 3), (5, "two".to_owned(), 5)];
    assert_eq!(functions(text), expected);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|s| s.is(&["rs", "proto", "sh", "py", "toml", "md"])) {
        offences.extend(lines_with(source, &UNFINISHED, |line, word| line.contains(word)));
    }
    none("no stub, no test that is skipped, no note to self", &offences);
}

#[test]
fn only_the_words_of_the_field_are_used() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|s| s.is(&["rs", "md", "proto"])) {
        offences.extend(lines_with(source, &FORBIDDEN_WORDS, |line, word| {
            // The name of DPDK's own option is not ours to choose.
            line.replace("--lcores=", "")
                .to_lowercase()
                .split(|c: char| !c.is_ascii_alphanumeric())
                .any(|w| w.trim_end_matches('s') == word)
        }));
    }
    none("these words are not used here", &offences);
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let mut offences = Vec::new();
    for source in sources() {
        offences.extend(lines_with(&source, &MACHINE_PATHS, |line, path| line.contains(path)));
    }
    none("a path of one machine", &offences);
}

fn lines_with(source: &Source, words: &[&str], has: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let hit = |line: &str| words.iter().any(|word| has(line, word));
    let lines = source.text.lines().enumerate().filter(|(_, line)| hit(line));
    lines.map(|(number, line)| format!("{}:{}: {}", source.path, number + 1, line.trim())).collect()
}

#[test]
fn unsafe_code_stays_in_its_places_and_gives_its_reasons() {
    let mut offences = Vec::new();
    let starts = ["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe extern "];
    for source in sources().iter().filter(|s| s.is(&["rs"]) && s.path != "tests/tests/tidy.rs") {
        let is_code =
            |line: &&str| !line.trim_start().starts_with("//") && starts.iter().any(|s| line.contains(s));
        if source.text.lines().any(|line| is_code(&line)) {
            if !UNSAFE_PLACES.iter().any(|place| source.path.starts_with(place)) {
                offences.push(format!("{}: unsafe code outside of its places", source.path));
            }
            if !source.text.contains("SAFETY:") {
                offences.push(format!("{}: no SAFETY comment", source.path));
            }
        }
    }
    none("unsafe", &offences);
}

#[test]
fn only_one_file_of_the_director_reads_a_clock() {
    let calls = [concat!("Instant::", "now("), concat!("SystemTime::", "now(")];
    let mut offences = Vec::new();
    let director = ["hugepages/src", "dataplane/src", "control/src"];
    for source in sources().iter().filter(|s| s.is(&["rs"]) && director.iter().any(|d| s.path.starts_with(d)))
    {
        if source.path != "control/src/clock.rs" {
            offences.extend(lines_with(source, &calls, |line, call| line.contains(call)));
        }
    }
    none("only control/src/clock.rs reads clocks", &offences);
}

#[test]
fn versions_of_dependencies_stand_in_one_table() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|s| s.path.ends_with("/Cargo.toml")) {
        let mut in_dependencies = false;
        for (number, line) in source.text.lines().enumerate() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies
                && !line.is_empty()
                && !line.starts_with('#')
                && !line.contains("workspace = true")
            {
                offences.push(format!("{}:{}: {line}", source.path, number + 1));
            }
        }
    }
    none("members say `name.workspace = true`", &offences);
}

#[test]
fn every_drop_reason_has_its_row_in_the_readme() {
    let readme = fs::read_to_string(repository().join("README.md")).expect("README.md is there");
    let row = |reason: &DropReason| format!("| `{}` | {} |", reason.name(), reason.explanation());
    let missing: Vec<String> = DropReason::ALL.iter().map(row).filter(|row| !readme.contains(row)).collect();
    none("rows missing in the table of drop reasons in README.md", &missing);
    let rows = readme.lines().skip_while(|line| !line.starts_with("| drop reason")).skip(2);
    let count = rows.take_while(|line| line.starts_with("| `")).count();
    assert_eq!(count, DropReason::COUNT, "the table has rows for reasons that there are not");
}

/// A row of the table of promises: `| promise | works | test_name, file.rs |`.
#[test]
fn every_promise_that_works_names_a_test_that_exists() {
    let readme = fs::read_to_string(repository().join("README.md")).expect("README.md is there");
    let sources = sources();
    let mut offences = Vec::new();
    let mut promises = 0;
    let rows = readme.lines().skip_while(|line| !line.starts_with("| promise")).skip(2);
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        match cells[..] {
            [_, "works", tests] => {
                promises += 1;
                let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
                let exists = |name: &&&str| sources.iter().any(|s| s.is(&["rs"]) && has_test(&s.text, name));
                if names.is_empty() || names.iter().filter(exists).count() != names.len() {
                    offences.push(row.to_owned());
                }
            }
            [_, "pending", _] => {}
            _ => offences.push(row.to_owned()),
        }
    }
    assert!(promises > 10, "the table of promises was not found");
    none("each row is `| promise | works | tests |` with tests that exist, or pending", &offences);
}

fn has_test(text: &str, name: &str) -> bool {
    text.contains(&format!("fn {name}("))
}
