//! The rows of the table that `make bench` ends with: how fast it must be, and how fast it is.

use std::fmt;

/// A figure that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What is measured.
    pub name: &'static str,
    /// What its figure is counted in.
    pub unit: &'static str,
    /// Met if the figure is at most, or at least, this.
    pub goal: Bound,
    /// What would be better still.
    pub stretch: Option<f64>,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Less is better.
    AtMost(f64),
    /// More is better.
    AtLeast(f64),
}

impl Bound {
    fn met(self, figure: f64) -> bool {
        match self {
            Bound::AtMost(bound) => figure <= bound,
            Bound::AtLeast(bound) => figure >= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtMost(bound) => write!(f, "<= {bound}"),
            Bound::AtLeast(bound) => write!(f, ">= {bound}"),
        }
    }
}

macro_rules! rows {
    ($($(#[$doc:meta])* $constant:ident: $name:literal, $unit:literal, $goal:expr, $stretch:expr;)*) => {
        $($(#[$doc])* pub const $constant: Row = Row { name: $name, unit: $unit, goal: $goal, stretch: $stretch };)*
    };
}

rows! {
    /// Nanoseconds a packet.
    DR_1K: "DR, 1 flow (1 k flows)", "ns", Bound::AtMost(22.0), Some(16.0);
    /// Nanoseconds a packet.
    DR_1M: "DR, 1 M random flows", "ns", Bound::AtMost(32.0), Some(25.0);
    /// Nanoseconds a packet.
    DR_10M: "DR, 10 M random flows", "ns", Bound::AtMost(38.0), Some(30.0);
    /// Nanoseconds a packet.
    TUN_1M: "TUN (ipip), 1 M flows", "ns", Bound::AtMost(42.0), Some(34.0);
    /// Nanoseconds a packet.
    NAT_1M: "NAT both directions, 1 M flows", "ns", Bound::AtMost(55.0), Some(44.0);
    /// Instructions a packet, generator and port included.
    INSTRUCTIONS: "instructions per packet, DR hit", "", Bound::AtMost(200.0), Some(150.0);
    /// Nanoseconds a lookup.
    LOOKUP: "table lookup, hit, 1 M, batch 64", "ns", Bound::AtMost(12.0), Some(9.0);
    /// Millions a second.
    NEW: "new connections (miss, schedule, insert; sustained with expiry)", "M/s", Bound::AtLeast(8.0), Some(12.0);
    /// Millions a second.
    FLOOD: "same, table full, SYN flood", "M/s", Bound::AtLeast(6.0), None;
    /// Bytes for each connection that the table holds.
    MEMORY: "memory per connection", "B", Bound::AtMost(88.0), None;
    /// Bytes for each connection that the table holds, with the entry for its answers.
    MEMORY_NAT: "memory per connection, NAT", "B", Bound::AtMost(160.0), None;
    /// Bytes for each connection that the table holds.
    MEMORY_IPV6: "memory per connection, IPv6", "B", Bound::AtMost(160.0), None;
    /// Milliseconds.
    MAGLEV: "Maglev table 65537 x 1000", "ms", Bound::AtMost(1.0), Some(0.5);
    /// Millions of packets a second of CPU time.
    AF_PACKET: "AF_PACKET over veth, one core", "Mpps", Bound::AtLeast(0.9), Some(1.2);
    /// Times one worker.
    WORKERS: "two workers", "x one worker", Bound::AtLeast(1.9), None;
    /// Milliseconds.
    APPLY: "apply 1000 services x 100 servers", "ms", Bound::AtMost(1_000.0), None;
    /// Milliseconds.
    APPLY_ONE: "apply 1000 services x 100 servers: one server", "ms", Bound::AtMost(2.0), None;
}

impl Row {
    /// The line of the table. `remark` says what the figure lacks.
    pub fn line(&self, figure: Option<f64>, remark: &str) -> String {
        let Some(figure) = figure else {
            return format!(
                "| {} | not measured: {remark} | {} | {} | |",
                self.name,
                self.goal,
                self.stretch_text()
            );
        };
        let places = if figure < 10.0 { 2 } else { 1 };
        let verdict = match (self.goal.met(figure), self.stretch_met(figure)) {
            (_, true) => "met, stretch too",
            (true, false) => "met",
            (false, _) => "missed",
        };
        let remark = if remark.is_empty() { String::new() } else { format!(" ({remark})") };
        let figure = format!("{figure:.places$} {}", self.unit);
        format!(
            "| {} | {}{remark} | {} | {} | {verdict} |",
            self.name,
            figure.trim(),
            self.goal,
            self.stretch_text()
        )
    }

    fn stretch_met(&self, figure: f64) -> bool {
        self.stretch.is_some_and(|stretch| match self.goal {
            Bound::AtMost(_) => figure <= stretch,
            Bound::AtLeast(_) => figure >= stretch,
        })
    }

    fn stretch_text(&self) -> String {
        self.stretch.map_or_else(String::new, |stretch| stretch.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_whether_the_goal_is_met() {
        assert_eq!(DR_1M.line(Some(31.96), ""), "| DR, 1 M random flows | 32.0 ns | <= 32 | 25 | met |");
        assert_eq!(
            DR_1M.line(Some(24.0), ""),
            "| DR, 1 M random flows | 24.0 ns | <= 32 | 25 | met, stretch too |"
        );
        assert_eq!(WORKERS.line(Some(1.89), ""), "| two workers | 1.89 x one worker | >= 1.9 |  | missed |");
        assert_eq!(
            MEMORY.line(Some(77.4), "no huge pages"),
            "| memory per connection | 77.4 B (no huge pages) | <= 88 |  | met |"
        );
        assert_eq!(
            AF_PACKET.line(None, "no veth"),
            "| AF_PACKET over veth, one core | not measured: no veth | >= 0.9 | 1.2 | |"
        );
    }
}
