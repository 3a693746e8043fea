//! What a command found: for people as Markdown, for programs as JSON.
//!
//! Names of fields and rows are stable within a schema version: what is added later has a default or a new version.

use super::machine::Machine;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

/// Version of the JSON.
pub const SCHEMA: u32 = 1;

/// Everything that a command found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of this program.
    pub version: String,
    /// The command and what is measured, in a sentence.
    pub title: String,
    /// What is in the figures and how they were taken.
    pub method: String,
    /// As it was given.
    pub command_line: Vec<String>,
    /// Where it was measured.
    pub machine: Machine,
    /// Whether tables and buffers lay in huge pages: figures without them are up to a fifth worse and stand for nothing.
    pub huge_pages_used: bool,
    /// The figures.
    pub rows: Vec<Row>,
    /// Packets that were not forwarded, by reason. Not there where loss is what is looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub losses: Option<BTreeMap<String, u64>>,
    /// What is worth a picture.
    pub plots: Vec<Plot>,
}

/// A figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What it is of, with all that it depends on: rows of two reports are compared if their names are the same.
    pub name: String,
    /// What it counts.
    pub value: f64,
    /// In what.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// What is to be said beside it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remark: String,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// A duration, a size.
    Less,
    /// A rate.
    More,
}

/// A picture: lines through points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// What is counted to the right.
    pub x: String,
    /// What is counted upwards.
    pub y: String,
    /// Each with its name.
    pub lines: Vec<Line>,
}

/// A line of a plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// What it is.
    pub name: String,
    /// From left to right.
    pub points: Vec<[f64; 2]>,
}

impl Report {
    /// An empty one of this machine and this command line.
    pub fn new(title: impl Into<String>, method: impl Into<String>) -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            title: title.into(),
            method: method.into(),
            command_line: std::env::args().collect(),
            machine: Machine::read(),
            huge_pages_used: true,
            rows: Vec::new(),
            losses: None,
            plots: Vec::new(),
        }
    }

    /// Adds a figure.
    pub fn row(&mut self, name: impl Into<String>, value: f64, unit: &str, better: Better) {
        let (name, unit) = (name.into(), unit.to_owned());
        self.rows.push(Row { name, value, unit, better, remark: String::new() });
    }

    /// Adds a picture of one line.
    pub fn plot(&mut self, title: &str, x: &str, y: &str, points: Vec<[f64; 2]>) {
        let lines = vec![Line { name: y.to_owned(), points }];
        self.plots.push(Plot { title: title.to_owned(), x: x.to_owned(), y: y.to_owned(), lines });
    }

    /// The JSON, with a line feed at the end.
    ///
    /// # Errors
    /// None that a report of ours can have.
    pub fn to_json(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n").map_err(|error| error.to_string())
    }

    /// From JSON.
    ///
    /// # Errors
    /// What is wrong, with the name of the field.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| format!("this is not JSON: {error}"))?;
        match value.get("schema").map(serde_json::Value::as_u64) {
            Some(Some(version)) if version == u64::from(SCHEMA) => {}
            Some(Some(version)) => {
                return Err(format!(
                    "schema: it has version {version}, this pointsman-bench reads {SCHEMA}; use the one that wrote it"
                ));
            }
            _ => {
                return Err(
                    "schema: there is no such number, so that pointsman-bench did not write it".to_owned()
                );
            }
        }
        let report: Self = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text))
            .map_err(|error| format!("{}: {}", error.path(), error.inner()))?;
        for (n, row) in report.rows.iter().enumerate() {
            if !row.value.is_finite() || row.value < 0.0 {
                return Err(format!("rows[{n}].value: {} is no figure", row.value));
            }
        }
        Ok(report)
    }

    /// From a file.
    ///
    /// # Errors
    /// What is wrong, with the names of file and field.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::from_json(&text).map_err(|message| format!("{}: {message}", path.display()))
    }

    /// Markdown. `picture` is the name of the SVG beside it, if there is one.
    pub fn to_markdown(&self, picture: Option<&str>) -> String {
        let mut text = format!("# {}\n\n{}\n\n", self.title, self.method);
        text += "| figure | value | |\n|---|---|---|\n";
        for row in &self.rows {
            let _ = writeln!(text, "| {} | {} | {} |", row.name, quantity(row.value, &row.unit), row.remark);
        }
        match &self.losses {
            None => {}
            Some(losses) if losses.is_empty() => text += "\nNo packet was lost.\n",
            Some(losses) => {
                text += "\n| packets not forwarded | |\n|---|---|\n";
                for (reason, n) in losses {
                    let _ = writeln!(text, "| `{reason}` | {n} |");
                }
            }
        }
        if let Some(picture) = picture {
            let _ = write!(text, "\n![{}]({picture})\n", self.title);
        }
        let machine = &self.machine;
        let _ = write!(
            text,
            "\n{}, {} cores, kernel {}, {} huge pages of {} KiB; load {}.\n",
            machine.cpu_model,
            machine.cpus,
            machine.kernel,
            machine.huge_pages_total,
            machine.huge_page_kib,
            machine.load
        );
        if !self.huge_pages_used {
            text += "\nWITHOUT HUGE PAGES: these figures are worse than they would be, and stand for nothing. As root: \
                     `echo 512 >/proc/sys/vm/nr_hugepages`\n";
        }
        let _ = write!(text, "\n    {}\n", self.command_line.join(" "));
        text
    }
}

/// A value with its unit and as many places as mean something.
pub fn quantity(value: f64, unit: &str) -> String {
    let places = match value.abs() {
        0.0 => 0,
        ..10.0 => 3,
        ..100.0 => 2,
        ..1000.0 => 1,
        _ => 0,
    };
    format!("{value:.places$} {unit}").trim_end().to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn report(rows: &[(&str, f64, Better)]) -> Report {
        let mut report = Report::new("run: hit", "How it was done.");
        report.command_line = vec!["pointsman-bench".to_owned(), "run".to_owned()];
        report.machine = Machine {
            cpu_model: "Some CPU".to_owned(),
            cpus: 2,
            kernel: "6.1.0".to_owned(),
            huge_pages_total: 512,
            huge_pages_free: 512,
            huge_page_kib: 2048,
            load: 0.5,
        };
        for (name, value, better) in rows {
            report.row(*name, *value, if *better == Better::Less { "ns" } else { "Mpps" }, *better);
        }
        report
    }

    #[test]
    fn a_report_is_read_back_as_it_was_written() {
        let mut report = report(&[("a: throughput", 31.25, Better::More), ("a: packet", 32.0, Better::Less)]);
        report.losses = Some([("table_full".to_owned(), 3)].into());
        report.plot("over time", "s", "Mpps", vec![[0.1, 30.0], [0.2, 31.5]]);
        report.rows[1].remark = "floor 9.1 ns".to_owned();
        assert_eq!(Report::from_json(&report.to_json().unwrap()), Ok(report));
    }

    #[test]
    fn the_json_has_these_names() {
        let json = report(&[("a: throughput", 31.25, Better::More)]).to_json().unwrap();
        for expected in [
            "\"schema\": 1",
            "\"version\": \"",
            "\"command_line\": [\n    \"pointsman-bench\",\n    \"run\"\n  ]",
            "\"cpu_model\": \"Some CPU\"",
            "\"kernel\": \"6.1.0\"",
            "\"huge_pages_total\": 512",
            "\"huge_pages_used\": true",
            "\"name\": \"a: throughput\",\n      \"value\": 31.25,\n      \"unit\": \"Mpps\",\n      \"better\": \"more\"\n",
        ] {
            assert!(json.contains(expected), "{expected} is not in {json}");
        }
    }

    #[test]
    fn a_bad_report_is_refused_by_the_field() {
        let good = report(&[("a", 1.0, Better::More)]).to_json().unwrap();
        let refused = |from: &str, to: &str| Report::from_json(&good.replace(from, to)).unwrap_err();
        assert!(Report::from_json("{").unwrap_err().starts_with("this is not JSON: "));
        assert!(Report::from_json("{}").unwrap_err().starts_with("schema: there is no such number"));
        assert!(refused("\"schema\": 1", "\"schema\": 2").starts_with("schema: it has version 2, this"));
        assert!(
            refused("\"value\": 1.0", "\"value\": \"x\"").starts_with("rows[0].value: invalid type: string")
        );
        assert!(refused("\"value\": 1.0,", "").starts_with("rows[0]: missing field `value`"));
        assert_eq!(refused("\"value\": 1.0", "\"value\": -1.0"), "rows[0].value: -1 is no figure");
        assert!(refused("\"more\"", "\"most\"").starts_with("rows[0].better: unknown variant `most`"));
        let missing = Report::read(Path::new("no/such.json")).unwrap_err();
        assert!(missing.starts_with("no/such.json: No such file"), "{missing}");
    }

    #[test]
    fn markdown_tells_figures_losses_machine_and_command() {
        let mut report =
            report(&[("a: throughput", 31.254, Better::More), ("a: packet", 9.1234, Better::Less)]);
        report.rows[1].remark = "of which 3 are the generator's".to_owned();
        report.losses = Some([("receive_ring_full".to_owned(), 12)].into());
        report.huge_pages_used = false;
        let expected = "# run: hit\n\nHow it was done.\n\n\
            | figure | value | |\n|---|---|---|\n\
            | a: throughput | 31.25 Mpps |  |\n\
            | a: packet | 9.123 ns | of which 3 are the generator's |\n\n\
            | packets not forwarded | |\n|---|---|\n| `receive_ring_full` | 12 |\n\n\
            ![run: hit](run.svg)\n\n\
            Some CPU, 2 cores, kernel 6.1.0, 512 huge pages of 2048 KiB; load 0.5.\n\n\
            WITHOUT HUGE PAGES: these figures are worse than they would be, and stand for nothing. As root: \
            `echo 512 >/proc/sys/vm/nr_hugepages`\n\n    pointsman-bench run\n";
        assert_eq!(report.to_markdown(Some("run.svg")), expected);
    }

    #[test]
    fn quantities_have_as_many_places_as_mean_something() {
        assert_eq!(quantity(0.0, "%"), "0 %");
        assert_eq!(quantity(1.23456, "x"), "1.235 x");
        assert_eq!(quantity(31.254, "Mpps"), "31.25 Mpps");
        assert_eq!(quantity(131.26, ""), "131.3");
        assert_eq!(quantity(10_452.0, "frames"), "10452 frames");
    }
}
