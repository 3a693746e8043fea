//! What `ipvsadm` prints, as numbers.

use crate::{Director, wait_until};

/// A real server in the table of `ipvsadm -Ln`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// `ADDRESS:PORT`.
    pub server: String,
    /// Its weight.
    pub weight: u64,
    /// Active connections.
    pub active: u64,
    /// Inactive connections.
    pub inactive: u64,
}

impl Director {
    /// The real servers of `ipvsadm -Ln`, of all services, in its order.
    pub fn servers(&self) -> Vec<Row> {
        let text = self.ipvsadm("-Ln").stdout;
        let row = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, server, _, weight, active, inactive] = words[..] else { panic!("not a row: {line}") };
            let number = |word: &str| word.parse().expect("a number");
            let (weight, active, inactive) = (number(weight), number(active), number(inactive));
            Row { server: server.to_owned(), weight, active, inactive }
        };
        let rows = |line: &&str| line.starts_with("  -> ") && !line.contains("RemoteAddress");
        text.lines().filter(rows).map(row).collect()
    }

    /// Waits until so many connections are active: those that have ended are noticed a moment later.
    pub fn wait_for_active(&self, count: u64) {
        wait_until(&format!("{count} connections are active"), 10, || {
            self.servers().iter().map(|row| row.active).sum::<u64>() == count
        });
    }

    /// `ipvsadm -Ln --stats --exact` of the first service: Conns InPkts OutPkts InBytes OutBytes.
    pub fn stats(&self) -> [u64; 5] {
        let text = self.ipvsadm("-Ln --stats --exact").stdout;
        let line = text
            .lines()
            .find(|line| line.starts_with("TCP"))
            .unwrap_or_else(|| panic!("no service:\n{text}"));
        let numbers = line.split_whitespace().skip(2).map(|word| word.parse().expect("a number"));
        numbers.collect::<Vec<u64>>().try_into().expect("five columns")
    }
}
