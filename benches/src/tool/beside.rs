//! What a packet costs over virtual devices of DPDK: our direct routing and `dpdk-testpmd`, side by side.
//!
//! Both run on one core, by batches of the same size, over `net_null` and `net_ring`; every figure is CPU time of the thread
//! that forwards, the best and the median of several runs. Pointsman's frames are written anew by a generator, which is in
//! its figures and given alone; testpmd looks at nothing (io) or exchanges MAC addresses (macswap), and makes no frames.

use super::report::{Better, Row};
use crate::{Extent, testpmd, timing::Figure};
use std::fmt::Write as _;

/// The table, for people and for a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beside {
    /// Markdown.
    pub text: String,
    /// The same figures.
    pub rows: Vec<Row>,
}

/// Virtual devices of DPDK that need nothing of the machine.
const DEVICES: [&str; 2] = ["net_null0", "net_ring0"];
const MODES: [&str; 2] = ["io", "macswap"];

/// A line of the table: what it is, and the figure over each device or why there is none.
type Line = (String, Vec<Result<Figure, String>>);

/// Measures all of it; what cannot be measured says why. Of testpmd only where figures are wanted.
pub fn measure(extent: Extent) -> Beside {
    let huge = free_huge_pages() >= 128;
    let mut lines = Vec::new();
    if extent == Extent::Full {
        println!("over virtual devices of DPDK, with dpdk-testpmd beside: a minute and a half");
        for mode in MODES {
            let each = DEVICES.map(|device| testpmd::measure(device, mode, huge));
            lines.push(told((format!("dpdk-testpmd, {mode}"), each.into())));
        }
    }
    lines.extend(ours(extent).into_iter().map(told));
    render(&lines, huge)
}

/// Prints a line as soon as it is there.
fn told(line: Line) -> Line {
    for (device, figure) in DEVICES.iter().zip(&line.1) {
        match figure {
            Ok(figure) => println!("{}, {device}: {figure}", line.0),
            Err(message) => println!("{}, {device}: {message}", line.0),
        }
    }
    line
}

fn free_huge_pages() -> u32 {
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    free.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(feature = "dpdk")]
fn ours(extent: Extent) -> Vec<Line> {
    let measured = DEVICES.map(|device| crate::dpdk_path::in_a_process(device, extent));
    let line = |name: String, of: &dyn Fn(&crate::dpdk_path::Measured) -> Option<Figure>| {
        let each = measured.iter().map(|measured| match measured {
            Ok(measured) => of(measured).ok_or_else(|| "not measured".to_owned()),
            Err(message) => Err(message.clone()),
        });
        (name, each.collect())
    };
    let mut lines = vec![line("Pointsman, generator and device alone".to_owned(), &|all| Some(all.floor))];
    let flows =
        measured.iter().flatten().next().map_or(vec![1_000, 1_000_000], |measured| {
            measured.hits.iter().map(|(flows, _)| *flows).collect()
        });
    for (n, flows) in flows.into_iter().enumerate() {
        lines.push(line(format!("Pointsman, DR, {flows} flows"), &|all| {
            all.hits.get(n).map(|(_, figure)| *figure)
        }));
    }
    lines
}

#[cfg(not(feature = "dpdk"))]
fn ours(_: Extent) -> Vec<Line> {
    let message = "this pointsman-bench was built without DPDK: --features dpdk (make bench does it)";
    vec![("Pointsman, DR".to_owned(), DEVICES.map(|_| Err(message.to_owned())).into())]
}

fn render(lines: &[Line], huge: bool) -> Beside {
    let mut beside = Beside::default();
    let pages = if huge { "huge pages" } else { "WITHOUT HUGE PAGES" };
    let _ = write!(beside.text, "| ns a packet over DPDK, best (median), {pages} |");
    for device in DEVICES {
        let _ = write!(beside.text, " {} |", device.trim_end_matches('0'));
    }
    beside.text += "\n|---|---|---|";
    for (name, figures) in lines {
        let _ = write!(beside.text, "\n| {name} |");
        for (device, figure) in DEVICES.iter().zip(figures) {
            let device = device.trim_end_matches('0');
            match figure {
                Ok(figure) => {
                    let _ = write!(beside.text, " {:.1} ({:.1}) |", figure.min, figure.median);
                    beside.rows.push(row(&format!("{name}, {device}"), *figure, huge));
                }
                Err(message) => {
                    let _ = write!(beside.text, " {} |", message.replace('|', "/"));
                }
            }
        }
    }
    beside
}

fn row(name: &str, figure: Figure, huge: bool) -> Row {
    let pages = if huge { "" } else { ", WITHOUT HUGE PAGES" };
    Row {
        name: name.to_owned(),
        value: figure.min,
        unit: "ns".to_owned(),
        better: Better::Less,
        remark: format!("median {:.1}, {:.1} x reference{pages}", figure.median, figure.ratio),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_devices_stand_side_by_side_and_what_is_missing_says_why() {
        let figure = Figure { min: 6.21, median: 6.48, ratio: 2.5 };
        let lines = vec![
            ("dpdk-testpmd, io".to_owned(), vec![Ok(figure), Err("it is | not there".to_owned())]),
            ("Pointsman, DR, 1000 flows".to_owned(), vec![Ok(figure), Ok(figure)]),
        ];
        let beside = render(&lines, true);
        let expected = "| ns a packet over DPDK, best (median), huge pages | net_null | net_ring |\n|---|---|---|\n\
            | dpdk-testpmd, io | 6.2 (6.5) | it is / not there |\n\
            | Pointsman, DR, 1000 flows | 6.2 (6.5) | 6.2 (6.5) |";
        assert_eq!(beside.text, expected);
        let names: Vec<&str> = beside.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "dpdk-testpmd, io, net_null",
                "Pointsman, DR, 1000 flows, net_null",
                "Pointsman, DR, 1000 flows, net_ring"
            ]
        );
        assert_eq!(beside.rows[0].remark, "median 6.5, 2.5 x reference");
    }
}
