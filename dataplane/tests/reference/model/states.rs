//! The TCP states as the specification's table has them, read from its text, and how long each lives.

use super::{ACK, FIN, RST, SYN};

/// Rows for what the client sends, what the server answers, and what the client sends where no answer is seen.
const TABLE: &str = "
| dir/event   | NO | ES | SS | SR | FW | TW | CL | CW | LA | LI | SA |
| IN syn      | SR | ES | ES | SR | SR | SR | SR | SR | SR | SR | SR |
| IN fin      | CL | CW | SS | TW | TW | TW | CL | CW | LA | LI | TW |
| IN ack      | ES | ES | SS | ES | FW | TW | CL | CW | CL | LI | ES |
| IN rst      | CL | CL | CL | SR | CL | CL | CL | CL | LA | LI | SR |
| OUT syn     | SS | ES | SS | SR | SS | SS | SS | SS | SS | LI | SR |
| OUT fin     | TW | FW | SS | TW | FW | TW | CL | TW | LA | LI | TW |
| OUT ack     | ES | ES | SS | ES | FW | TW | CL | CW | LA | ES | ES |
| OUT rst     | CL | CL | SS | CL | CL | TW | CL | CL | CL | CL | CL |
| IN-ONLY syn | SR | ES | ES | SR | SR | SR | SR | SR | SR | SR | SR |
| IN-ONLY fin | CL | FW | SS | TW | FW | TW | CL | CW | LA | LI | TW |
| IN-ONLY ack | ES | ES | SS | ES | FW | TW | CL | CW | CL | LI | ES |
| IN-ONLY rst | CL | CL | CL | SR | CL | CL | CL | CL | LA | LI | CL |";

/// Short names, those of ipvsadm, and seconds.
const STATES: [(&str, &str, u64); 12] = [
    ("NO", "NONE", 2),
    ("ES", "ESTABLISHED", 900),
    ("SS", "SYN_SENT", 120),
    ("SR", "SYN_RECV", 60),
    ("FW", "FIN_WAIT", 120),
    ("TW", "TIME_WAIT", 120),
    ("CL", "CLOSE", 10),
    ("CW", "CLOSE_WAIT", 60),
    ("LA", "LAST_ACK", 30),
    ("LI", "LISTEN", 120),
    ("SA", "SYNACK", 120),
    ("UDP", "UDP", 300),
];

/// The table as it is asked, and the times that `ipvsadm --set` changes.
pub(crate) struct States {
    rows: Vec<(&'static str, Vec<&'static str>)>,
    /// Of ESTABLISHED, FIN_WAIT and UDP, in seconds.
    pub(crate) set: (u64, u64, u64),
}

impl States {
    pub(crate) fn new(set: (u64, u64, u64)) -> Self {
        let cells = |line: &'static str| -> Vec<&'static str> { line.split('|').map(str::trim).collect() };
        let rows = TABLE.lines().skip(1).map(|line| {
            let cells = cells(line);
            (cells[1], cells[2..13].to_vec())
        });
        Self { rows: rows.collect(), set }
    }

    /// The state after a packet from `direction`; RST before SYN before FIN before ACK, none of them closes.
    pub(crate) fn after(&self, direction: &str, state: &str, tcp: bool, flags: u8) -> &'static str {
        if !tcp {
            return "UDP";
        }
        let events = [(RST, "rst"), (SYN, "syn"), (FIN, "fin"), (ACK, "ack")];
        let Some((_, event)) = events.into_iter().find(|(flag, _)| flags & flag != 0) else { return "CL" };
        let row = |name: &str| &self.rows.iter().find(|(row, _)| *row == name).expect("a row").1;
        let column = row("dir/event").iter().position(|name| *name == state).expect("a state");
        row(&format!("{direction} {event}"))[column]
    }

    /// Seconds without a packet after which a connection ends.
    pub(crate) fn lifetime(&self, state: &str) -> u64 {
        match state {
            "ES" => self.set.0,
            "FW" => self.set.1,
            "UDP" => self.set.2,
            _ => STATES.iter().find(|(short, ..)| *short == state).expect("a state").2,
        }
    }
}

pub(crate) fn is_active(state: &str) -> bool {
    matches!(state, "ES" | "SS" | "SR" | "SA")
}

/// As ipvsadm prints it.
pub(crate) fn name(state: &str) -> &'static str {
    STATES.iter().find(|(short, ..)| *short == state).expect("a state").1
}
