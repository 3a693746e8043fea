//! What is printed: text in columns for people, JSON for programs.

use std::io::Write;

use serde::Serialize;

use super::error::CliError;

/// Where a command prints.
pub struct Output<'a> {
    /// What was asked for.
    pub out: &'a mut dyn Write,
    /// Warnings.
    pub err: &'a mut dyn Write,
    /// Whether programs read it.
    pub json: bool,
}

/// What a command changed.
#[derive(Debug, Default, Serialize)]
pub(super) struct Change {
    /// The one in force now.
    pub(super) generation: u64,
    /// One line each: `+` added, `-` removed, `~` changed.
    pub(super) changes: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Output<'_> {
    pub(super) fn text(&mut self, text: &str) -> Result<(), CliError> {
        Ok(self.out.write_all(text.as_bytes())?)
    }

    /// One value, indented.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value).map_err(not_json)?;
        Ok(writeln!(self.out, "{text}")?)
    }

    /// One value for programs, or text for people: what is asked for.
    pub(super) fn either<T: Serialize>(
        &mut self,
        value: impl FnOnce() -> T,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.json { self.json(&value()) } else { self.text(&text()) }
    }

    /// One value on one line, of many; at once, for whoever reads line by line.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(not_json)?;
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }

    /// The change is made: nobody reading its warnings is no reason to call it failed.
    pub(super) fn warnings(&mut self, warnings: &[String]) {
        for warning in warnings {
            let _ = writeln!(self.err, "warning: {warning}");
        }
    }

    /// What a change changed, and in which generation it is in force.
    pub(super) fn change(&mut self, change: &Change) -> Result<(), CliError> {
        self.warnings(&change.warnings);
        if self.json {
            return self.json(change);
        }
        for line in &change.changes {
            writeln!(self.out, "{line}")?;
        }
        let end = if change.changes.is_empty() { "nothing to change; in force is" } else { "in force as" };
        Ok(writeln!(self.out, "{end} generation {}", change.generation)?)
    }
}

fn not_json(error: serde_json::Error) -> CliError {
    CliError::new(format!("cannot write JSON: {error}"), "report it; without --json it prints a table")
}

/// Rows in columns that are as wide as they must be.
pub(super) struct Table {
    rows: Vec<Row>,
    indent: usize,
    /// Columns aligned to the right.
    right: &'static [usize],
}

enum Row {
    Cells(Vec<String>),
    Line(String),
}

impl Table {
    /// A table that starts `indent` blanks from the left; the columns `right` are aligned to the right.
    pub(super) fn new(indent: usize, right: &'static [usize]) -> Self {
        Self { rows: Vec::new(), indent, right }
    }

    pub(super) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(Row::Cells(cells.into_iter().map(Into::into).collect()));
    }

    /// A line across the columns, not indented.
    pub(super) fn line(&mut self, text: impl Into<String>) {
        self.rows.push(Row::Line(text.into()));
    }

    pub(super) fn text(&self) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            let Row::Cells(cells) = row else { continue };
            widths.resize(widths.len().max(cells.len()), 0);
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            match row {
                Row::Line(line) => text.push_str(line),
                Row::Cells(cells) => {
                    text.push_str(&" ".repeat(self.indent));
                    let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                        if self.right.contains(&column) {
                            format!("{cell:>width$}")
                        } else {
                            format!("{cell:<width$}")
                        }
                    });
                    text.push_str(&padded.collect::<Vec<_>>().join("  "));
                }
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text
    }
}

/// `45s`, `6m`, `1h 02m`, `3d 04h`.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// `512 B`, `1.5 KiB`, `64.0 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let unit = (bytes.ilog2() / 10) as usize;
    // Tenths, in integers: a float would round 2^64 wrongly.
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(2, &[1]);
        table.row(["NAME", "COUNT", "NOTE"]);
        table.line("a line across everything that is wider than all of it");
        table.row(["a", "7", ""]);
        table.row(["longer", "12345", "x"]);
        let expected = "  NAME    COUNT  NOTE\n\
                        a line across everything that is wider than all of it\n  \
                        a           7\n  \
                        longer  12345  x\n";
        assert_eq!(table.text(), expected);
    }

    #[test]
    fn durations_are_for_people() {
        let table = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 01s"),
            (360, "6m"),
            (3600, "1h 00m"),
            (86_399, "23h 59m"),
            (90_000, "1d 01h"),
        ];
        for (seconds, expected) in table {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn sizes_are_for_people() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (67_108_864, "64.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (size, expected) in table {
            assert_eq!(bytes(size), expected);
        }
    }

    #[test]
    fn a_change_is_told_with_its_generation_and_warnings_on_stderr() {
        let change = Change {
            generation: 7,
            changes: vec!["+ x".into()],
            warnings: vec!["NAT does not run yet".into()],
        };
        let print = |json, change: &Change| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            Output { out: &mut out, err: &mut err, json }.change(change).unwrap();
            (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
        };
        let (out, err) = print(false, &change);
        assert_eq!(out, "+ x\nin force as generation 7\n");
        assert_eq!(err, "warning: NAT does not run yet\n");
        let (out, _) = print(true, &change);
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value["generation"], 7);
        assert_eq!(value["changes"][0], "+ x");
        assert_eq!(value["warnings"][0], "NAT does not run yet");
        let (out, _) = print(false, &Change { generation: 7, ..Change::default() });
        assert_eq!(out, "nothing to change; in force is generation 7\n");
    }
}
