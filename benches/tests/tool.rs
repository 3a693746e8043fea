//! Each command of `pointsman-bench` with tiny parameters: that it runs, and what it writes. The figures mean nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use pointsman_benches::tool::report::Report;
use std::{fs, path::Path, process::Command};
use support::{Folder, bench, measured, names, text};

#[test]
fn run_measures_every_mix_and_size() {
    let (report, markdown) = measured("run", "run --flows 2000 --frame-size imix --seconds 0.05");
    let expected = [
        "hit, 2000 flows, imix, 1 worker: throughput",
        "hit, 2000 flows, imix, 1 worker: on the wire",
        "hit, 2000 flows, imix, 1 worker: CPU time a packet",
        "hit, 2000 flows, imix, 1 worker: CPU time a packet, best slice",
    ];
    assert_eq!(names(&report), expected);
    assert!(
        markdown.contains("No packet was lost.") && markdown.contains("WITHOUT HUGE PAGES"),
        "{markdown}"
    );
    // Bits of a frame in the mean, with 20 bytes around it: 8 x 381.83.
    assert!((report.rows[1].value / report.rows[0].value - 3.0547).abs() < 0.001);
    for line in [
        "run --mix new --workers 2",
        "run --method tun --frame-size imix",
        "run --method nat --frame-size imix --workers 2",
        "run --mix syn-flood --frame-size 1518",
    ] {
        let (report, _) = measured("mixes", &format!("{line} --flows 4000 --seconds 0.05"));
        assert!(report.losses.as_ref().unwrap().is_empty() && report.rows[0].value > 0.0, "{report:?}");
    }
}

#[test]
fn search_finds_a_rate_and_shows_its_trials() {
    let (report, _) = measured("search", "search --flows 2000 --seconds 0.05 --loss 5% --resolution 10%");
    assert_eq!(report.rows[0].name, "hit, 2000 flows, 64 B, 1 worker: throughput at 5 % loss");
    assert_eq!(report.losses, None, "losses are what it looks for");
    assert!(report.plots[0].lines[0].points.len() > 2 || !report.rows[0].remark.is_empty());
}

#[test]
fn latency_is_a_histogram_paced_and_back_to_back() {
    for (rate, named) in [("--rate 0.02", "0.02 Mpps"), ("", "back to back")] {
        let (report, _) = measured("latency", &format!("latency --flows 2000 --seconds 0.1 {rate}"));
        let values: Vec<f64> = report.rows.iter().map(|row| row.value).collect();
        assert_eq!(values.len(), 6);
        assert!(values.is_sorted() && values[0] > 0.0, "{values:?}");
        assert_eq!(report.rows[4].name, format!("hit, 2000 flows, 64 B, 1 worker, {named}: p99.99"));
    }
}

#[test]
fn bursts_are_at_least_what_the_ring_holds() {
    let (report, _) =
        measured("bursts", "bursts --flows 2000 --link 100 --seconds 0.01 --repeats 2 --ring 256");
    // No worker keeps up with the link, so that the ring decides.
    assert!(report.rows.iter().all(|row| row.value >= 256.0), "{:?}", report.rows);
}

#[test]
fn connections_are_counted_while_others_end_and_in_a_flood() {
    for flood in ["", "--syn-flood"] {
        let (report, _) =
            measured("connections", &format!("connections --flows 4000 --seconds 0.05 {flood}"));
        assert!(report.rows[0].name.ends_with(": connections") && report.rows[0].value > 0.0);
        assert!(report.losses.as_ref().unwrap().is_empty(), "{:?}", report.losses);
    }
}

#[test]
fn scaling_goes_from_one_worker_to_all() {
    let (report, _) = measured("scaling", "scaling --flows 2000 --seconds 0.05 --workers 2");
    assert!(names(&report).contains(&"hit, 2000 flows, 64 B, 2 workers: times one worker"), "{report:?}");
    assert_eq!(report.plots[0].lines[0].points.len(), 2);
}

#[test]
fn the_table_has_its_rows_and_is_written_as_json() {
    let folder = Folder::new("table");
    let json = folder.file("table.json");
    let output = bench("table --quick", &[("--json", &json)]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("| row | figure | goal | stretch | met or missed |"));
    assert!(names(&Report::read(&json).unwrap()).contains(&"DR, 1 M random flows"));
}

#[test]
fn compare_says_what_got_slower_by_its_exit_status() {
    let folder = Folder::new("compare");
    let [old, new] = ["old.json", "new.json"].map(|file| folder.file(file));
    let line = "run --flows 1000 --seconds 0.01 --pages ordinary";
    assert!(bench(line, &[("--json", &old)]).status.success());
    let mut report = Report::read(&old).unwrap();
    report.rows[0].value /= 2.0;
    fs::write(&new, report.to_json().unwrap()).unwrap();
    let compare = |from: &Path, to: &Path, tolerance: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman-bench"));
        command.arg("compare").args([from, to]).arg(format!("--tolerance={tolerance}")).output().unwrap()
    };
    let slower = compare(&old, &new, "3%");
    assert_eq!(slower.status.code(), Some(1));
    assert!(text(&slower.stdout).contains("SLOWER     hit, 1000 flows, 64 B, 1 worker: throughput"));
    assert_eq!(compare(&new, &old, "3%").status.code(), Some(0));
    assert_eq!(compare(&old, &new, "60%").status.code(), Some(0));

    fs::write(&new, report.to_json().unwrap().replace("\"unit\": \"Mpps\"", "\"unit\": 7")).unwrap();
    let bad = compare(&old, &new, "3%");
    assert_eq!(bad.status.code(), Some(2));
    let missing = text(&compare(&old, &folder.file("none.json"), "3%").stderr);
    assert!(missing.contains("none.json: No such file"), "{missing}");
    let said = text(&bad.stderr);
    let other = report.to_json().unwrap().replace("\"schema\": 1", "\"schema\": 7");
    fs::write(&new, other).unwrap();
    let version = text(&compare(&old, &new, "3%").stderr);
    assert!(
        version.contains("new.json: schema: it has version 7, this pointsman-bench reads 1"),
        "{version}"
    );
    assert!(said.contains("new.json: rows[0].unit: invalid type: integer `7`"), "{said}");
}

#[cfg(not(feature = "dpdk"))]
#[test]
fn without_dpdk_a_device_is_refused_with_the_command_that_builds_it() {
    for line in ["run --port net_ring0", "sink --port 0000:03:00.0"] {
        let output = bench(line, &[]);
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stderr);
        assert!(
            said.contains("was built without DPDK; install libdpdk-dev and build it anew: cargo build"),
            "{said}"
        );
    }
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_option() {
    let refused = |line: &str| {
        let output = bench(line, &[]);
        assert_eq!(output.status.code(), Some(2), "{line}");
        text(&output.stderr)
    };
    assert!(refused("run --frame-size 63").contains("--frame-size"));
    assert!(refused("run --workers 65").contains("--workers is from 1 to 64"));
    assert!(refused("run --mix new --flows 10").contains("--flows is the size of the table"));
    assert!(refused("run --flows 1.5").contains("a whole number like 1000000, 64k or 1M"));
    assert!(refused("run --port eth0").contains("memory, a PCI address as `lspci -D` writes it"));
    assert!(refused("run --port memory --port net_ring0").contains("memory and devices do not go together"));
    assert!(
        refused("run --vip 192.0.2.1").contains("--vip is for a director on a wire; name the NICs by --port")
    );
    assert!(refused("generate").contains("this needs a device: --port with a PCI address"));
    assert!(refused("generate --port net_ring0 --rate fast").contains("line, max, bits a second"));
    assert!(refused("run --json no/such/folder/a.json").contains("there is no folder no/such/folder"));
    assert!(refused("faster").contains("unrecognized subcommand 'faster'"));
}
