//! The TCP states of a connection as the director sees them: it follows segments that it does not take part in, often
//! of one direction only.
//!
//! The table is that of the original. It has a row for each direction and event, a column for each state.

use crate::wire::tcp::{ACK, FIN, RST, SYN};

/// The state of a TCP connection. The numbers go over the wire to a peer and must not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// No segment yet.
    None,
    /// Both sides talk.
    Established,
    /// The server has asked for the connection.
    SynSent,
    /// The client has asked for the connection.
    SynReceived,
    /// The server, or with one direction seen the client, has no more to send.
    FinWait,
    /// Both sides have no more to send.
    TimeWait,
    /// Reset, or never opened.
    Close,
    /// The client has no more to send.
    CloseWait,
    /// The last acknowledgement is due.
    LastAck,
    /// Waits for a client.
    Listen,
    /// Answered for the server; unused while nothing answers SYN for it.
    SynAck,
}

impl TcpState {
    /// All of them, in the order of their numbers.
    pub const ALL: [TcpState; 11] = {
        use TcpState::*;
        [
            None,
            Established,
            SynSent,
            SynReceived,
            FinWait,
            TimeWait,
            Close,
            CloseWait,
            LastAck,
            Listen,
            SynAck,
        ]
    };

    /// The state with this number; [`TcpState::None`] if there is none.
    #[inline]
    pub const fn from_u8(number: u8) -> Self {
        if (number as usize) < Self::ALL.len() { Self::ALL[number as usize] } else { Self::None }
    }

    /// As ipvsadm prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::SynAck => "SYNACK",
        }
    }

    /// Whether the connection counts as active (`ActiveConn`), else as inactive.
    #[inline]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Established | Self::SynSent | Self::SynReceived | Self::SynAck)
    }
}

/// [`TcpState::is_active`] for the number of a state.
#[inline]
pub(super) const fn is_active(number: u8) -> bool {
    const ACTIVE: u32 = {
        let (mut bits, mut n) = (0, 0);
        while n < TcpState::ALL.len() {
            bits |= (TcpState::ALL[n].is_active() as u32) << n;
            n += 1;
        }
        bits
    };
    number < u32::BITS as u8 && ACTIVE >> number & 1 != 0
}

/// Where a segment comes from, and what else is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// From the client, where the server's segments are seen too (NAT).
    Input,
    /// From the server.
    Output,
    /// From the client, where the server's segments are not seen (direct routing, tunnel).
    InputOnly,
}

/// What a segment means to the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// Opens.
    Syn,
    /// Ends one direction.
    Fin,
    /// Acknowledges.
    Ack,
    /// Ends both at once.
    Rst,
    /// None of these flags: the state becomes [`TcpState::Close`].
    Nothing,
}

/// What the flags of a segment mean: the first of RST, SYN, FIN, ACK that is set.
#[inline]
pub const fn event_of(flags: u8) -> Event {
    if flags & RST != 0 {
        Event::Rst
    } else if flags & SYN != 0 {
        Event::Syn
    } else if flags & FIN != 0 {
        Event::Fin
    } else if flags & ACK != 0 {
        Event::Ack
    } else {
        Event::Nothing
    }
}

/// [`event_of`] the five flags that matter, so that a segment costs a load and not four branches.
static EVENTS: [Event; 32] = {
    let mut events = [Event::Nothing; 32];
    let mut flags = 0;
    while flags < 32 {
        events[flags] = event_of(flags as u8);
        flags += 1;
    }
    events
};

/// The state after a segment with `flags` from `direction`.
#[inline]
pub fn next(direction: Direction, state: TcpState, flags: u8) -> TcpState {
    NEXT[direction as usize][EVENTS[usize::from(flags & 0x1f)] as usize][state as usize]
}

/// [`next`] by the policy `secure_tcp`: what a client says alone does not make a half-open connection an established one.
pub fn next_secure(direction: Direction, state: TcpState, flags: u8) -> TcpState {
    let usual = next(direction, state, flags);
    match (direction, event_of(flags), state) {
        (Direction::Input, Event::Syn | Event::Fin | Event::Ack, SA) => SA,
        (Direction::Input, Event::Rst, SA) => CL,
        (Direction::Input, Event::Ack, SR) => SR,
        (Direction::Output, Event::Syn, SR | SA) => SA,
        (Direction::InputOnly, Event::Syn, NO | FW | TW | CL | CW | LA | LI | SA) => SA,
        _ => usual,
    }
}

/// The states that a segment with `flags` leaves as they are wherever it comes from, as bits by number. None for a SYN,
/// which may begin a new connection in any state, and never that of a half-open connection.
#[inline]
pub fn kept(flags: u8) -> u16 {
    KEPT[usize::from(flags)]
}

/// [`kept`], worked out from the table.
static KEPT: [u16; 256] = {
    let mut kept = [0; 256];
    let mut flags = 0;
    while flags < kept.len() {
        let event = event_of(flags as u8) as usize;
        let mut state = 0;
        while state < TcpState::ALL.len() {
            let [input, output, input_only] =
                [NEXT[0][event][state], NEXT[1][event][state], NEXT[2][event][state]];
            let stays = input as usize == state && output as usize == state && input_only as usize == state;
            if stays && flags as u8 & SYN == 0 && state != SR as usize && state != SA as usize {
                kept[flags] |= 1 << state;
            }
            state += 1;
        }
        flags += 1;
    }
    kept
};

const NO: TcpState = TcpState::None;
const ES: TcpState = TcpState::Established;
const SS: TcpState = TcpState::SynSent;
const SR: TcpState = TcpState::SynReceived;
const FW: TcpState = TcpState::FinWait;
const TW: TcpState = TcpState::TimeWait;
const CL: TcpState = TcpState::Close;
const CW: TcpState = TcpState::CloseWait;
const LA: TcpState = TcpState::LastAck;
const LI: TcpState = TcpState::Listen;
const SA: TcpState = TcpState::SynAck;

const _: () = assert!(NO as u8 == 0 && SA as u8 == 10);

/// By direction, event and state.
#[rustfmt::skip]
static NEXT: [[[TcpState; 11]; 5]; 3] = [
    [ // input
    //   NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR], // syn
        [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW], // fin
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES], // ack
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR], // rst
        [CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL], // nothing
    ],
    [ // output
        [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR], // syn
        [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW], // fin
        [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES], // ack
        [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL], // rst
        [CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL], // nothing
    ],
    [ // input only
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR], // syn
        [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW], // fin
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES], // ack
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL], // rst
        [CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL], // nothing
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's table as it stands there: its header, then a row for each direction and event.
    const TABLE: &str = "
| dir/event | NO | ES | SS | SR | FW | TW | CL | CW | LA | LI | SA |
| IN syn | SR | ES | ES | SR | SR | SR | SR | SR | SR | SR | SR |
| IN fin | CL | CW | SS | TW | TW | TW | CL | CW | LA | LI | TW |
| IN ack | ES | ES | SS | ES | FW | TW | CL | CW | CL | LI | ES |
| IN rst | CL | CL | CL | SR | CL | CL | CL | CL | LA | LI | SR |
| OUT syn | SS | ES | SS | SR | SS | SS | SS | SS | SS | LI | SR |
| OUT fin | TW | FW | SS | TW | FW | TW | CL | TW | LA | LI | TW |
| OUT ack | ES | ES | SS | ES | FW | TW | CL | CW | LA | ES | ES |
| OUT rst | CL | CL | SS | CL | CL | TW | CL | CL | CL | CL | CL |
| IN-ONLY syn | SR | ES | ES | SR | SR | SR | SR | SR | SR | SR | SR |
| IN-ONLY fin | CL | FW | SS | TW | FW | TW | CL | CW | LA | LI | TW |
| IN-ONLY ack | ES | ES | SS | ES | FW | TW | CL | CW | CL | LI | ES |
| IN-ONLY rst | CL | CL | CL | SR | CL | CL | CL | CL | LA | LI | CL |
";

    fn state(short: &str) -> TcpState {
        match short {
            "NO" => TcpState::None,
            "ES" => TcpState::Established,
            "SS" => TcpState::SynSent,
            "SR" => TcpState::SynReceived,
            "FW" => TcpState::FinWait,
            "TW" => TcpState::TimeWait,
            "CL" => TcpState::Close,
            "CW" => TcpState::CloseWait,
            "LA" => TcpState::LastAck,
            "LI" => TcpState::Listen,
            "SA" => TcpState::SynAck,
            other => panic!("no state {other}"),
        }
    }

    #[test]
    fn every_transition_is_that_of_the_specification() {
        let mut rows =
            TABLE.trim().lines().map(|line| line.trim_matches(['|', ' ']).split('|').map(str::trim));
        let columns: Vec<TcpState> = rows.next().expect("header").skip(1).map(state).collect();
        let mut checked = 0;
        for mut row in rows {
            let (direction, event) = row.next().expect("a name").split_once(' ').expect("two words");
            let direction = match direction {
                "IN" => Direction::Input,
                "OUT" => Direction::Output,
                _ => Direction::InputOnly,
            };
            let flags = match event {
                "syn" => 0x02,
                "fin" => 0x01,
                "ack" => 0x10,
                _ => 0x04,
            };
            for (from, to) in columns.iter().zip(row.map(state)) {
                assert_eq!(next(direction, *from, flags), to, "{direction:?} {event} in {from:?}");
                checked += 1;
            }
        }
        assert_eq!(checked, 3 * 4 * 11);
    }

    #[test]
    fn secure_tcp_differs_where_the_specification_says() {
        // "IN: SA stays SA on syn/fin/ack, SA rst->CL, SR ack->SR. OUT: SR/SA syn->SA. IN-ONLY syn: NO,FW,TW,CL,CW,LA,LI,SA->SA."
        let mut different = Vec::new();
        for direction in [Direction::Input, Direction::Output, Direction::InputOnly] {
            for (event, flags) in [("syn", 2), ("fin", 1), ("ack", 16), ("rst", 4)] {
                for state in TcpState::ALL {
                    let secure = next_secure(direction, state, flags);
                    if secure != next(direction, state, flags) {
                        different.push(format!("{direction:?} {event} {} {}", state.name(), secure.name()));
                    }
                }
            }
        }
        let expected = "\
Input syn SYNACK SYNACK,Input fin SYNACK SYNACK,Input ack SYN_RECV SYN_RECV,Input ack SYNACK SYNACK,Input rst SYNACK CLOSE,\
Output syn SYN_RECV SYNACK,Output syn SYNACK SYNACK,\
InputOnly syn NONE SYNACK,InputOnly syn FIN_WAIT SYNACK,InputOnly syn TIME_WAIT SYNACK,InputOnly syn CLOSE SYNACK,\
InputOnly syn CLOSE_WAIT SYNACK,InputOnly syn LAST_ACK SYNACK,InputOnly syn LISTEN SYNACK,InputOnly syn SYNACK SYNACK";
        assert_eq!(different, expected.split(',').collect::<Vec<_>>());
    }

    #[test]
    fn a_segment_without_flags_closes() {
        for direction in [Direction::Input, Direction::Output, Direction::InputOnly] {
            for from in TcpState::ALL {
                for flags in [0x00, 0x08, 0x20, 0x28, 0xc0] {
                    assert_eq!(next(direction, from, flags), TcpState::Close);
                }
            }
        }
    }

    #[test]
    fn a_segment_keeps_the_states_that_it_leads_back_to() {
        for flags in 0..=u8::MAX {
            for state in TcpState::ALL {
                let directions = [Direction::Input, Direction::Output, Direction::InputOnly];
                let stays = directions.iter().all(|direction| next(*direction, state, flags) == state)
                    && flags & SYN == 0
                    && !matches!(state, TcpState::SynReceived | TcpState::SynAck);
                assert_eq!(kept(flags) >> state as u8 & 1 == 1, stays, "{flags:02x} in {state:?}");
            }
        }
        // ACK: ESTABLISHED, SYN_SENT, FIN_WAIT, TIME_WAIT, CLOSE and CLOSE_WAIT of the specification's three rows.
        assert_eq!(kept(0x10), 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7);
    }

    #[test]
    fn of_several_flags_reset_counts_before_syn_before_fin_before_ack() {
        for flags in 0..64u8 {
            // RST is bit 2, SYN bit 1, FIN bit 0, ACK bit 4.
            let set: Vec<bool> = [2, 1, 0, 4].iter().map(|bit| flags >> bit & 1 == 1).collect();
            let expected = match set[..] {
                [true, ..] => Event::Rst,
                [false, true, ..] => Event::Syn,
                [false, false, true, _] => Event::Fin,
                [false, false, false, true] => Event::Ack,
                _ => Event::Nothing,
            };
            assert_eq!(event_of(flags), expected, "{flags:06b}");
        }
    }

    #[test]
    fn numbers_names_and_activity_are_those_of_the_original() {
        let expected = [
            (0, "NONE", false),
            (1, "ESTABLISHED", true),
            (2, "SYN_SENT", true),
            (3, "SYN_RECV", true),
            (4, "FIN_WAIT", false),
            (5, "TIME_WAIT", false),
            (6, "CLOSE", false),
            (7, "CLOSE_WAIT", false),
            (8, "LAST_ACK", false),
            (9, "LISTEN", false),
            (10, "SYNACK", true),
        ];
        for (number, name, active) in expected {
            let state = TcpState::from_u8(number);
            assert_eq!((state as u8, state.name(), state.is_active()), (number, name, active));
            assert_eq!(is_active(number), active);
        }
        assert_eq!(TcpState::from_u8(11), TcpState::None);
        assert_eq!(TcpState::from_u8(255), TcpState::None);
    }
}
