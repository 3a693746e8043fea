//! Reads a TOML document key by key and collects everything that is wrong with it, each with its line and its path.

use super::ConfigError;
use std::{collections::HashMap, ops::Range, path::PathBuf};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What is known while a file is read: where each field stands, and what was wrong.
pub(super) struct Report {
    file: PathBuf,
    /// Where its lines end. A file may have hundreds of thousands, and as many fields are looked up.
    ends: Vec<usize>,
    lines: HashMap<String, usize>,
    pub(super) errors: Vec<ConfigError>,
}

impl Report {
    pub(super) fn new(file: PathBuf, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        Self { file, ends, lines: HashMap::new(), errors: Vec::new() }
    }

    /// The line of an offset, from 1.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        1 + self.ends.partition_point(|end| *end < offset)
    }

    /// The line of a field or, if it is not there, of the nearest thing around it.
    pub(super) fn line_of(&self, field: &str) -> usize {
        let mut path = field;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return 1,
            }
        }
    }

    fn note(&mut self, field: &str, span: Range<usize>) {
        let line = self.line_at(span.start);
        self.lines.insert(field.to_owned(), line);
    }

    pub(super) fn error(&mut self, line: usize, field: &str, message: String, remedy: impl Into<String>) {
        let (file, field, remedy) = (self.file.clone(), field.to_owned(), remedy.into());
        self.errors.push(ConfigError { file, line, field, message, remedy });
    }
}

/// One table of the document.
pub(super) struct Section<'a, 'i> {
    path: String,
    table: &'a DeTable<'i>,
    known: Vec<&'static str>,
}

impl<'a, 'i> Section<'a, 'i> {
    pub(super) fn root(table: &'a DeTable<'i>) -> Self {
        Self { path: String::new(), table, known: Vec::new() }
    }

    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether the key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn value(&mut self, key: &'static str, report: &mut Report) -> Option<&'a Spanned<DeValue<'i>>> {
        self.known.push(key);
        let value = self.table.get(key)?;
        report.note(&self.path(key), value.span());
        Some(value)
    }

    /// A value of one type; anything else is an error that says what was expected.
    fn typed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        remedy: &str,
        report: &mut Report,
        read: impl Fn(&'a DeValue<'i>) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key, report)?;
        let read = read(value.get_ref());
        if read.is_none() {
            wrong(value, &self.path(key), expected, remedy, report);
        }
        read
    }

    pub(super) fn string(&mut self, key: &'static str, remedy: &str, report: &mut Report) -> Option<&'a str> {
        self.typed(key, "text in quotes", remedy, report, DeValue::as_str)
    }

    pub(super) fn boolean(&mut self, key: &'static str, report: &mut Report) -> Option<bool> {
        let remedy = self.unless_quoted(key, "write one of these words");
        self.typed(key, "true or false", remedy, report, DeValue::as_bool)
    }

    /// What to do about a value that is none, which may be one in quotes.
    fn unless_quoted(&self, key: &'static str, remedy: &'static str) -> &'static str {
        let is_quoted = self.table.get(key).is_some_and(|value| value.get_ref().as_str().is_some());
        if is_quoted { "write it without quotes" } else { remedy }
    }

    /// A whole number in `range`.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: Range<u64>,
        report: &mut Report,
    ) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", range.start, range.end - 1);
        let remedy = self.unless_quoted(key, "choose a number in that range");
        self.typed(key, &expected, remedy, report, |value| {
            whole(value).filter(|number| range.contains(number))
        })
    }

    /// A whole number in `range` that fits 32 bits.
    pub(super) fn number32(
        &mut self,
        key: &'static str,
        range: Range<u64>,
        report: &mut Report,
    ) -> Option<u32> {
        self.number(key, range, report).and_then(|number| u32::try_from(number).ok())
    }

    /// A port, or the first and the last of several in quotes. Which ports there are is not looked at.
    pub(super) fn ports(&mut self, key: &'static str, report: &mut Report) -> Option<(u32, Option<u32>)> {
        let expected = "a port, or two in quotes";
        self.typed(key, expected, "write it as 80 or \"80-90\"", report, |value| match value.as_str() {
            None => Some((u32::try_from(whole(value)?).ok()?, None)),
            Some(text) => match text.split_once('-') {
                None => Some((text.parse().ok()?, None)),
                Some((first, last)) => Some((first.trim().parse().ok()?, Some(last.trim().parse().ok()?))),
            },
        })
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
        report: &mut Report,
    ) -> Option<T> {
        let names: Vec<String> = words.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let expected = match names.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        };
        self.typed(key, &expected, "choose one of them", report, |value| {
            let text = value.as_str()?;
            words.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
        })
    }

    /// A list whose elements `read` understands.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        report: &mut Report,
        read: impl Fn(&'a DeValue<'i>) -> Option<T>,
    ) -> Vec<T> {
        let remedy = "write them in square brackets, with commas between them";
        let path = self.path(key);
        let Some(list) = self.typed(key, &format!("a list of {expected}"), remedy, report, DeValue::as_array)
        else {
            return Vec::new();
        };
        let mut values = Vec::new();
        for (index, element) in list.iter().enumerate() {
            let path = format!("{path}[{index}]");
            report.note(&path, element.span());
            match read(element.get_ref()) {
                Some(value) => values.push(value),
                None => wrong(element, &path, expected, "correct or remove it", report),
            }
        }
        values
    }

    /// A table written as `[key]`, or inline.
    pub(super) fn section(&mut self, key: &'static str, report: &mut Report) -> Option<Section<'a, 'i>> {
        let path = self.path(key);
        let remedy = format!("begin it with [{}]", unnumbered(&path));
        let table = self.typed(key, "a table", &remedy, report, DeValue::as_table)?;
        Some(Section { path, table, known: Vec::new() })
    }

    /// Tables written as `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str, report: &mut Report) -> Vec<Section<'a, 'i>> {
        let path = self.path(key);
        let remedy = format!("begin each with [[{}]]", unnumbered(&path));
        let Some(list) = self.typed(key, "a list of tables", &remedy, report, DeValue::as_array) else {
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, element) in list.iter().enumerate() {
            let path = format!("{path}[{index}]");
            report.note(&path, element.span());
            match element.get_ref().as_table() {
                Some(table) => sections.push(Section { path, table, known: Vec::new() }),
                None => wrong(element, &path, "a table", &remedy, report),
            }
        }
        sections
    }

    /// Says that a key is missing.
    pub(super) fn missing(&self, key: &str, what: &str, report: &mut Report) {
        let line = report.line_of(&self.path);
        report.error(
            line,
            &self.path(key),
            format!("expected {what}, found nothing"),
            format!("add `{key} = ...`"),
        );
    }

    /// Reports every key that was not asked for. To be called last.
    pub(super) fn finish(self, report: &mut Report) {
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let remedy = match nearest(name, &self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys known here are {}", self.known.join(", ")),
            };
            let line = report.line_at(key.span().start);
            report.error(line, &self.path(name), "unknown key".into(), remedy);
        }
    }
}

/// A path as it is written in the file: without numbers.
fn unnumbered(path: &str) -> String {
    let mut inside = false;
    let keep = |c: &char| {
        inside = (inside || *c == '[') && *c != ']';
        !inside && *c != ']'
    };
    path.chars().filter(keep).collect()
}

/// A whole number of at least 0.
pub(super) fn whole(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str().trim_start_matches('+'), integer.radix()).ok()
}

fn wrong(value: &Spanned<DeValue<'_>>, path: &str, expected: &str, remedy: &str, report: &mut Report) {
    let found = match value.get_ref() {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        other => format!("a value of type {}", other.type_str()),
    };
    let line = report.line_at(value.span().start);
    report.error(line, path, format!("expected {expected}, found {found}"), remedy);
}

/// The known key that a user may have meant: at most half of its letters are different.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known.iter().map(|key| (distance(name, key), *key)).min()?;
    (near.0 * 2 <= near.1.len().max(name.len())).then_some(near.1)
}

/// Letters to insert, delete or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_key_that_was_meant() {
        let known = ["address", "port", "weight", "method"];
        assert_eq!(nearest("adress", &known), Some("address"));
        assert_eq!(nearest("wieght", &known), Some("weight"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn a_path_is_shown_as_it_is_written_in_the_file() {
        assert_eq!(unnumbered("service[1].server"), "service.server");
    }
}
