//! Every state that a connection of direct routing can be in, and every combination of flags that can come then.

use crate::support::{
    Lab, Plan, Size, TCP,
    frames::{ACK, FIN, RST, SYN, tcp},
};
use pointsman_dataplane::scheduler::Kind;

const VIP: &str = "10.0.0.100:80";

/// The specification's rows for a director that sees the client's segments alone: states, then what each becomes.
const ROWS: &str = "
| IN-ONLY     | NO | ES | SS | SR | FW | TW | CL | CW | LA | LI | SA |
| IN-ONLY syn | SR | ES | ES | SR | SR | SR | SR | SR | SR | SR | SR |
| IN-ONLY fin | CL | FW | SS | TW | FW | TW | CL | CW | LA | LI | TW |
| IN-ONLY ack | ES | ES | SS | ES | FW | TW | CL | CW | CL | LI | ES |
| IN-ONLY rst | CL | CL | CL | SR | CL | CL | CL | CL | LA | LI | CL |";

/// Names of ipvsadm.
const NAMES: [(&str, &str); 5] =
    [("ES", "ESTABLISHED"), ("SR", "SYN_RECV"), ("FW", "FIN_WAIT"), ("TW", "TIME_WAIT"), ("CL", "CLOSE")];

/// The state after a segment with `flags`: RST before SYN before FIN before ACK; none of them closes.
pub(crate) fn after(state: &str, flags: u8) -> &'static str {
    let event = [(RST, "rst"), (SYN, "syn"), (FIN, "fin"), (ACK, "ack")];
    let Some((_, event)) = event.into_iter().find(|(flag, _)| flags & flag != 0) else { return "CL" };
    let cells = |line: &'static str| line.split('|').map(str::trim).collect::<Vec<_>>();
    let rows: Vec<Vec<&str>> = ROWS.lines().skip(1).map(cells).collect();
    let column = rows[0].iter().position(|cell| *cell == state).expect("a state");
    let row = rows.iter().find(|row| row[1].ends_with(event)).expect("an event");
    row[column]
}

pub(crate) fn name(state: &str) -> &'static str {
    NAMES.iter().find(|(short, _)| *short == state).expect("a state of direct routing").1
}

#[test]
fn every_combination_of_flags_in_every_state_leads_where_the_specification_says() {
    let ways: [(&str, &[u8]); 5] = [
        ("SR", &[SYN]),
        ("ES", &[SYN, ACK]),
        ("FW", &[SYN, ACK, FIN]),
        ("TW", &[SYN, FIN]),
        ("CL", &[SYN, ACK, RST]),
    ];
    // In one batch with the packets before it, and by itself: those ways through the lookup are not the same.
    for (apart, (state, way)) in [false, true].into_iter().flat_map(|apart| ways.map(|way| (apart, way))) {
        let size = Size { connections: 512, ..Size::default() };
        let mut lab = Lab::sized(Plan::new().service(VIP, TCP, Kind::Rr, 1), size);
        let segment =
            |flags: u8, sent| tcp(&format!("10.0.0.2:{}", 2_000 + u16::from(flags)), VIP, sent).frame();
        for flags in 0..=255 {
            let before: Vec<_> = way.iter().map(|sent| segment(flags, *sent)).collect();
            let last = vec![segment(flags, flags)];
            let sendings = if apart { vec![before, last] } else { vec![[before, last].concat()] };
            for frames in sendings {
                assert_eq!(lab.send(&frames).len(), frames.len());
            }
        }
        let listed = lab.list();
        assert_eq!(listed.len(), 256);
        let mut active = 0;
        for (flags, record) in (0..=255).zip(listed) {
            let next = after(state, flags);
            assert_eq!(record.state, name(next), "{state} with flags {flags:08b}");
            active += u32::from(matches!(next, "ES" | "SR"));
        }
        assert_eq!(lab.counts(0), (active, 256 - active), "{state}");
        let reused = matches!(state, "TW" | "CL");
        let anew = (0..=255_u8).filter(|flags| reused && flags & (SYN | RST) == SYN).count() as u64;
        assert_eq!(lab.lives().0, 256 + anew, "{state}: a SYN makes a new connection");
    }
}
