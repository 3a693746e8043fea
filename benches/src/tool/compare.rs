//! Two reports side by side: what got faster, what got slower.

use super::report::{Better, Report, Row, quantity};

/// What the comparison says.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// For people, a line a row.
    pub text: String,
    /// Rows that are worse by more than the tolerance.
    pub slower: usize,
}

/// Compares the rows of the same names. A row is slower, or faster, if it differs by more than `tolerance`, a share of
/// the old figure.
///
/// # Errors
/// When there is nothing to compare.
pub fn compare(old: &Report, new: &Report, tolerance: f64) -> Result<Comparison, String> {
    let mut lines = Vec::new();
    let mut slower = 0;
    let mut compared = 0;
    for row in &old.rows {
        let Some(now) = new.rows.iter().find(|other| other.name == row.name) else {
            lines.push(format!("missing    {}: only in the old file", row.name));
            continue;
        };
        if now.unit != row.unit || now.better != row.better {
            return Err(format!(
                "{}: one file counts it in {:?}, the other in {:?}",
                row.name, row.unit, now.unit
            ));
        }
        compared += 1;
        let change = worse(row, now);
        let verdict = if change > tolerance {
            slower += 1;
            "SLOWER"
        } else if change < -tolerance {
            "faster"
        } else {
            "same"
        };
        lines.push(format!(
            "{verdict:<10} {}: {} -> {} ({})",
            row.name,
            quantity(row.value, &row.unit),
            quantity(now.value, &now.unit),
            percent(row, now)
        ));
    }
    for row in new.rows.iter().filter(|row| old.rows.iter().all(|other| other.name != row.name)) {
        lines.push(format!("missing    {}: only in the new file", row.name));
    }
    if compared == 0 {
        return Err(format!("the files have no row in common:\n{}", lines.join("\n")));
    }
    lines.extend(doubts(old, new));
    lines.push(format!(
        "{slower} of {compared} rows got slower by more than {}",
        quantity(tolerance * 100.0, "%")
    ));
    Ok(Comparison { text: lines.join("\n"), slower })
}

/// How much worse the new figure is, as a share of the old one; below 0 if it is better.
fn worse(old: &Row, new: &Row) -> f64 {
    let (from, to) = (old.value, new.value);
    let difference = match old.better {
        Better::Less => to - from,
        Better::More => from - to,
    };
    match (from == 0.0, difference == 0.0) {
        (_, true) => 0.0,
        (true, false) => difference.signum() * f64::INFINITY,
        (false, false) => difference / from,
    }
}

fn percent(old: &Row, new: &Row) -> String {
    if old.value == 0.0 {
        return "from nothing".to_owned();
    }
    format!("{:+.1} %", (new.value / old.value - 1.0) * 100.0)
}

/// Why the figures may differ although the program did not get faster or slower.
fn doubts(old: &Report, new: &Report) -> Vec<String> {
    let mut doubts = Vec::new();
    let mut differ = |what: &str, from: &str, to: &str| {
        if from != to {
            doubts.push(format!("note       another {what}: {from} -> {to}"));
        }
    };
    differ("processor", &old.machine.cpu_model, &new.machine.cpu_model);
    differ("kernel", &old.machine.kernel, &new.machine.kernel);
    let pages = |report: &Report| if report.huge_pages_used { "huge pages" } else { "ordinary pages" };
    differ("kind of memory", pages(old), pages(new));
    doubts
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn it_says_row_by_row_what_got_faster_and_slower() {
        let old = report(&[
            ("rate", 10.0, Better::More),
            ("time", 20.0, Better::Less),
            ("steady", 30.0, Better::Less),
            ("gone", 1.0, Better::Less),
        ]);
        let mut new = report(&[
            ("rate", 9.0, Better::More),
            ("time", 18.0, Better::Less),
            ("steady", 30.6, Better::Less),
            ("fresh", 1.0, Better::Less),
        ]);
        new.machine.kernel = "6.12.0".to_owned();
        let comparison = compare(&old, &new, 0.03).unwrap();
        let expected = "SLOWER     rate: 10.00 Mpps -> 9.000 Mpps (-10.0 %)\n\
            faster     time: 20.00 ns -> 18.00 ns (-10.0 %)\n\
            same       steady: 30.00 ns -> 30.60 ns (+2.0 %)\n\
            missing    gone: only in the old file\n\
            missing    fresh: only in the new file\n\
            note       another kernel: 6.1.0 -> 6.12.0\n\
            1 of 3 rows got slower by more than 3.000 %";
        assert_eq!((comparison.text.as_str(), comparison.slower), (expected, 1));
    }

    #[test]
    fn the_tolerance_decides() {
        let (old, new) = (report(&[("t", 100.0, Better::Less)]), report(&[("t", 104.0, Better::Less)]));
        assert_eq!(compare(&old, &new, 0.03).unwrap().slower, 1);
        assert_eq!(compare(&old, &new, 0.05).unwrap().slower, 0);
        assert_eq!(compare(&new, &old, 0.03).unwrap().slower, 0);
    }

    #[test]
    fn something_from_nothing_is_a_change_beyond_any_tolerance() {
        let (none, some) = (report(&[("t", 0.0, Better::Less)]), report(&[("t", 1.0, Better::Less)]));
        assert_eq!(compare(&none, &some, 0.5).unwrap().slower, 1);
        assert_eq!(compare(&none, &none, 0.0).unwrap().slower, 0);
    }

    #[test]
    fn files_that_cannot_be_compared_are_refused() {
        let (one, other) = (report(&[("a", 1.0, Better::Less)]), report(&[("b", 1.0, Better::Less)]));
        let message = compare(&one, &other, 0.03).unwrap_err();
        assert!(
            message.starts_with("the files have no row in common:\nmissing    a: only in the old"),
            "{message}"
        );
        let rate = report(&[("a", 1.0, Better::More)]);
        assert_eq!(
            compare(&one, &rate, 0.03).unwrap_err(),
            "a: one file counts it in \"ns\", the other in \"Mpps\""
        );
    }
}
