//! What machine a figure was taken on: without that it says nothing.

use serde::{Deserialize, Serialize};
use std::fs;

/// Facts about the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor.
    pub cpu_model: String,
    /// Cores that this program may use.
    pub cpus: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Huge pages of the ordinary size that there are.
    pub huge_pages_total: u64,
    /// Of them, those that were free when the program started.
    pub huge_pages_free: u64,
    /// Size of such a page in KiB.
    pub huge_page_kib: u64,
    /// Processes that wanted to run in the last minute, in the mean: more than `cpus` is a busy machine.
    pub load: f64,
}

impl Machine {
    /// This one. What cannot be read is empty or 0.
    pub fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self::of(
            &text("/proc/cpuinfo"),
            &text("/proc/sys/kernel/osrelease"),
            &text("/proc/meminfo"),
            &text("/proc/loadavg"),
            cpus,
        )
    }

    fn of(cpuinfo: &str, osrelease: &str, meminfo: &str, loadavg: &str, cpus: usize) -> Self {
        let number =
            |name| field(meminfo, name).and_then(|text| text.split_whitespace().next()?.parse().ok());
        Self {
            cpu_model: field(cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cpus,
            kernel: osrelease.trim().to_owned(),
            huge_pages_total: number("HugePages_Total").unwrap_or(0),
            huge_pages_free: number("HugePages_Free").unwrap_or(0),
            huge_page_kib: number("Hugepagesize").unwrap_or(0),
            load: loadavg.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0),
        }
    }
}

/// What stands behind the first "name:" at the start of a line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    values.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_are_read_from_proc() {
        let machine = Machine::of(
            "processor\t: 0\nmodel name\t: AMD EPYC 9B14\nprocessor\t: 1\nmodel name\t: other\n",
            "6.1.0-28-amd64\n",
            "MemTotal: 1 kB\nHugePages_Total:    1000\nHugePages_Free:      998\nHugepagesize:       2048 kB\n",
            "0.52 0.58 0.59 1/467 12345\n",
            4,
        );
        let expected = Machine {
            cpu_model: "AMD EPYC 9B14".to_owned(),
            cpus: 4,
            kernel: "6.1.0-28-amd64".to_owned(),
            huge_pages_total: 1000,
            huge_pages_free: 998,
            huge_page_kib: 2048,
            load: 0.52,
        };
        assert_eq!(machine, expected);
    }

    #[test]
    fn what_proc_does_not_say_is_nothing() {
        let machine = Machine::of("", "", "", "", 1);
        assert_eq!((machine.cpu_model.as_str(), machine.huge_pages_total, machine.load), ("unknown", 0, 0.0));
    }
}
