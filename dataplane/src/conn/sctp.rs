//! The SCTP states of a connection as the director sees them: those of the server, worked out from packets that the
//! director does not take part in, often of one direction only.
//!
//! The table is that of the original: a row for each direction and event, a column for each state. Its states are those
//! of RFC 9260 section 4, in which CLOSED is taken apart by how far the opening has come (INIT1 to COOKIE_REPLIED where
//! the client opens, COOKIE where the server does), and REJECTED stands for an INIT that an ABORT has answered.

use super::tcp::Direction;
use crate::wire::sctp::{
    ABORT, COOKIE_ACK, COOKIE_ECHO, ERROR, INIT, INIT_ACK, SHUTDOWN, SHUTDOWN_ACK, SHUTDOWN_COMPLETE, Sctp,
};

/// The state of an SCTP association. The numbers go over the wire to a peer and must not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SctpState {
    /// No packet yet.
    None,
    /// The client has sent its first INIT.
    Init1,
    /// The client has sent INIT again.
    Init,
    /// The server has answered INIT.
    CookieSent,
    /// The client has returned the cookie.
    CookieReplied,
    /// The server has sent INIT.
    CookieWait,
    /// The client has answered the server's INIT.
    Cookie,
    /// The server has returned the cookie; or the client has answered INIT where the server is not seen.
    CookieEchoed,
    /// Both sides talk.
    Established,
    /// The server has no more to send.
    ShutdownSent,
    /// The client has no more to send.
    ShutdownReceived,
    /// The server has answered that both have no more to send.
    ShutdownAckSent,
    /// The server has refused the first INIT, or the client the server's.
    Rejected,
    /// Over, or never opened.
    Closed,
}

impl SctpState {
    /// All of them, in the order of their numbers.
    pub const ALL: [SctpState; 14] = [NO, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL];

    /// The state with this number; [`SctpState::None`] if there is none.
    #[inline]
    pub const fn from_u8(number: u8) -> Self {
        if (number as usize) < Self::ALL.len() { Self::ALL[number as usize] } else { Self::None }
    }

    /// As ipvsadm prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Init1 => "INIT1",
            Self::Init => "INIT",
            Self::CookieSent => "C-SENT",
            Self::CookieReplied => "C-REPLIED",
            Self::CookieWait => "C-WAIT",
            Self::Cookie => "COOKIE",
            Self::CookieEchoed => "C-ECHOED",
            Self::Established => "ESTABLISHED",
            Self::ShutdownSent => "S-SENT",
            Self::ShutdownReceived => "S-RECEIVED",
            Self::ShutdownAckSent => "S-ACK-SENT",
            Self::Rejected => "REJECTED",
            Self::Closed => "CLOSED",
        }
    }

    /// Whether the association counts as active (`ActiveConn`), else as inactive.
    #[inline]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Established)
    }

    /// Whether the client has not yet returned a cookie, which it can only if its address is its own: an association in
    /// such a state costs its sender one packet.
    #[inline]
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::Init1 | Self::Init | Self::CookieSent)
    }
}

/// What a packet means to the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// DATA, SACK, HEARTBEAT and its answer, ECNE, CWR, and the chunks of extensions.
    Data,
    /// Opens.
    Init,
    /// Answers INIT and hands out a cookie.
    InitAck,
    /// Returns the cookie.
    CookieEcho,
    /// Answers COOKIE ECHO: both sides talk.
    CookieAck,
    /// No more to send.
    Shutdown,
    /// Neither side has more to send.
    ShutdownAck,
    /// Over.
    ShutdownComplete,
    /// An error.
    Error,
    /// Ends the association at once.
    Abort,
    /// No whole chunk header: every state stays.
    Nothing,
}

impl Event {
    /// All of them, in the order of their numbers.
    pub const ALL: [Event; 11] = {
        use Event::*;
        [
            Data,
            Init,
            InitAck,
            CookieEcho,
            CookieAck,
            Shutdown,
            ShutdownAck,
            ShutdownComplete,
            Error,
            Abort,
            Nothing,
        ]
    };

    /// The event with this number; [`Event::Nothing`] if there is none.
    #[inline]
    pub const fn from_u8(number: u8) -> Self {
        if (number as usize) < Self::ALL.len() { Self::ALL[number as usize] } else { Self::Nothing }
    }

    /// Whether a packet that belongs to no connection opens one: INIT, or with `sloppy` (`sloppy_sctp`) any but ABORT.
    #[inline]
    pub const fn opens(self, sloppy: bool) -> bool {
        match self {
            Self::Init => true,
            Self::Abort | Self::Nothing => false,
            _ => sloppy,
        }
    }
}

/// What `packet`, which begins at the common header, means: its first chunk counts, and for COOKIE ECHO and COOKIE ACK
/// an ABORT right behind it.
#[inline]
pub fn event_of(packet: &[u8]) -> Event {
    let Some(mut chunks) = Sctp::new(packet).map(|view| view.chunks()) else {
        return Event::Nothing;
    };
    let Some(first) = chunks.next() else {
        return Event::Nothing;
    };
    match first.kind {
        INIT => Event::Init,
        INIT_ACK => Event::InitAck,
        ABORT => Event::Abort,
        SHUTDOWN => Event::Shutdown,
        SHUTDOWN_ACK => Event::ShutdownAck,
        ERROR => Event::Error,
        COOKIE_ECHO | COOKIE_ACK if chunks.next().is_some_and(|second| second.kind == ABORT) => Event::Abort,
        COOKIE_ECHO => Event::CookieEcho,
        COOKIE_ACK => Event::CookieAck,
        SHUTDOWN_COMPLETE => Event::ShutdownComplete,
        _ => Event::Data,
    }
}

/// The state after a packet of this `event` from `direction`.
#[inline]
pub fn next(direction: Direction, state: SctpState, event: Event) -> SctpState {
    NEXT[direction as usize][event as usize][state as usize]
}

/// The states that a packet of this `event` leaves as they are wherever it comes from, as bits by number. None for an
/// INIT, which may begin a new association in any state, and never that of a half-open one.
#[inline]
pub fn keeps(event: Event) -> u16 {
    KEPT[event as usize]
}

/// [`keeps`], worked out from the table.
static KEPT: [u16; 11] = {
    let mut kept = [0; 11];
    let mut event = 0;
    while event < kept.len() {
        let mut state = 0;
        while state < SctpState::ALL.len() {
            let mut stays = event != Event::Init as usize && !SctpState::ALL[state].is_half_open();
            let mut direction = 0;
            while direction < NEXT.len() {
                stays &= NEXT[direction][event][state] as usize == state;
                direction += 1;
            }
            kept[event] |= (stays as u16) << state;
            state += 1;
        }
        event += 1;
    }
    kept
};

const NO: SctpState = SctpState::None;
const I1: SctpState = SctpState::Init1;
const IN: SctpState = SctpState::Init;
const CS: SctpState = SctpState::CookieSent;
const CR: SctpState = SctpState::CookieReplied;
const CW: SctpState = SctpState::CookieWait;
const CO: SctpState = SctpState::Cookie;
const CE: SctpState = SctpState::CookieEchoed;
const ES: SctpState = SctpState::Established;
const SS: SctpState = SctpState::ShutdownSent;
const SR: SctpState = SctpState::ShutdownReceived;
const SA: SctpState = SctpState::ShutdownAckSent;
const RJ: SctpState = SctpState::Rejected;
const CL: SctpState = SctpState::Closed;

const _: () = assert!(NO as u8 == 0 && CL as u8 == 13 && Event::Nothing as u8 == 10);

/// By direction, event and state.
#[rustfmt::skip]
static NEXT: [[[SctpState; 14]; 11]; 3] = [
    [ // input
    //   NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
        [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // data
        [I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN], // init
        [CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL], // init ack
        [CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // cookie echo
        [ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL], // cookie ack
        [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL], // shutdown
        [CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL], // shutdown ack
        [CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL], // shutdown complete
        [CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL], // error
        [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL], // abort
        [NO, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // nothing
    ],
    [ // output
        [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // data
        [CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW], // init
        [CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // init ack
        [CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL], // cookie echo
        [ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL], // cookie ack
        [SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL], // shutdown
        [SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL], // shutdown ack
        [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // shutdown complete
        [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // error
        [CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL], // abort
        [NO, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // nothing
    ],
    [ // input only
        [ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL], // data
        [I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN], // init
        [CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL], // init ack
        [ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL], // cookie echo
        [ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL], // cookie ack
        [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL], // shutdown
        [CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL], // shutdown ack
        [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL], // shutdown complete
        [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // error
        [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL], // abort
        [NO, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // nothing
    ],
];

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Input, InputOnly, Output};

    /// The original's table: a header, then a row for each direction and event.
    const TABLE: &str = "
| dir/event | NO | I1 | IN | CS | CR | CW | CO | CE | ES | SS | SR | SA | RJ | CL |
| IN data | ES | I1 | IN | CS | CR | CW | CO | CE | ES | SS | SR | SA | RJ | CL |
| IN init | I1 | IN | IN | CS | CR | CW | CO | CE | ES | SS | SR | SA | IN | IN |
| IN init ack | CW | CW | CW | CS | CR | CO | CO | CE | ES | SS | SR | SA | RJ | CL |
| IN cookie echo | CR | IN | IN | CR | CR | CW | CO | CE | ES | SS | SR | SA | RJ | CL |
| IN cookie ack | ES | I1 | IN | CS | CR | CW | CO | ES | ES | SS | SR | SA | RJ | CL |
| IN shutdown | SR | I1 | IN | CS | CR | CW | CO | CE | SR | SS | SR | SA | RJ | CL |
| IN shutdown ack | CL | IN | IN | CS | CR | CW | CO | CE | ES | CL | SR | CL | RJ | CL |
| IN shutdown complete | CL | CL | CL | CS | CR | CW | CO | CE | ES | SS | SR | CL | RJ | CL |
| IN error | CL | I1 | IN | CS | CR | CW | CO | CL | ES | SS | SR | SA | RJ | CL |
| IN abort | CL | CL | CL | CL | CL | RJ | CL | CL | CL | CL | CL | CL | CL | CL |
| OUT data | ES | I1 | IN | CS | CR | CW | CO | CE | ES | SS | SR | SA | RJ | CL |
| OUT init | CW | CW | CW | CW | CW | CW | CW | CW | ES | CW | CW | CW | CW | CW |
| OUT init ack | CS | CS | CS | CS | CR | CW | CO | CE | ES | SS | SR | SA | RJ | CL |
| OUT cookie echo | CE | CE | CE | CE | CE | CE | CE | CE | ES | SS | SR | SA | RJ | CL |
| OUT cookie ack | ES | ES | ES | ES | ES | ES | ES | ES | ES | SS | SR | SA | RJ | CL |
| OUT shutdown | SS | SS | SS | SS | SS | SS | SS | SS | SS | SS | SR | SA | RJ | CL |
| OUT shutdown ack | SA | SA | SA | SA | SA | CW | CO | CE | ES | SA | SA | SA | RJ | CL |
| OUT shutdown complete | CL | I1 | IN | CS | CR | CW | CO | CE | ES | SS | SR | SA | RJ | CL |
| OUT error | CL | CL | CL | CL | CL | CW | CO | CE | ES | SS | SR | SA | RJ | CL |
| OUT abort | CL | RJ | CL | CL | CL | CL | CL | CL | CL | CL | CL | CL | CL | CL |
| IN-ONLY data | ES | I1 | IN | CS | CR | ES | CO | CE | ES | SS | SR | SA | RJ | CL |
| IN-ONLY init | I1 | IN | IN | IN | IN | IN | CO | CE | ES | SS | SR | SA | IN | IN |
| IN-ONLY init ack | CE | CE | CE | CE | CE | CE | CO | CE | ES | SS | SR | SA | RJ | CL |
| IN-ONLY cookie echo | ES | ES | ES | ES | ES | ES | CO | CE | ES | SS | SR | SA | RJ | CL |
| IN-ONLY cookie ack | ES | I1 | IN | ES | ES | CW | ES | ES | ES | SS | SR | SA | RJ | CL |
| IN-ONLY shutdown | SR | I1 | IN | CS | CR | CW | CO | CE | SR | SS | SR | SA | RJ | CL |
| IN-ONLY shutdown ack | CL | IN | IN | CS | CR | CW | CO | CE | CL | CL | SR | CL | RJ | CL |
| IN-ONLY shutdown complete | CL | CL | CL | CL | CL | CW | CO | CE | ES | SS | CL | CL | RJ | CL |
| IN-ONLY error | CL | I1 | IN | CS | CR | CW | CO | CE | ES | SS | SR | SA | RJ | CL |
| IN-ONLY abort | CL | CL | CL | CL | CL | RJ | CL | CL | CL | CL | CL | CL | CL | CL |
";

    /// A packet of chunks of these types, each of no value.
    fn packet(kinds: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x9c\x40\x26\xab\0\0\0\x01\0\0\0\0".to_vec();
        for kind in kinds {
            bytes.extend([*kind, 0, 0, 4]);
        }
        bytes
    }

    fn state(short: &str) -> SctpState {
        let order = ["NO", "I1", "IN", "CS", "CR", "CW", "CO", "CE", "ES", "SS", "SR", "SA", "RJ", "CL"];
        let number = order.iter().position(|name| *name == short).expect("a state");
        SctpState::from_u8(number as u8)
    }

    fn event(name: &str) -> Event {
        match name {
            "data" => Event::Data,
            "init" => Event::Init,
            "init ack" => Event::InitAck,
            "cookie echo" => Event::CookieEcho,
            "cookie ack" => Event::CookieAck,
            "shutdown" => Event::Shutdown,
            "shutdown ack" => Event::ShutdownAck,
            "shutdown complete" => Event::ShutdownComplete,
            "error" => Event::Error,
            "abort" => Event::Abort,
            other => panic!("no event {other}"),
        }
    }

    /// Follows packets of one chunk each from a new connection on.
    fn follow(steps: &[(Direction, u8, SctpState)]) {
        let mut state = SctpState::None;
        for (n, (direction, kind, expected)) in steps.iter().enumerate() {
            state = next(*direction, state, event_of(&packet(&[*kind])));
            assert_eq!(state, *expected, "step {n}: chunk {kind} from {direction:?}");
        }
    }

    #[test]
    fn every_transition_is_that_of_the_original() {
        let mut rows =
            TABLE.trim().lines().map(|line| line.trim_matches(['|', ' ']).split('|').map(str::trim));
        let columns: Vec<SctpState> = rows.next().expect("header").skip(1).map(state).collect();
        let mut checked = 0;
        for mut row in rows {
            let (direction, event_name) = row.next().expect("a name").split_once(' ').expect("two words");
            let direction = match direction {
                "IN" => Input,
                "OUT" => Output,
                _ => InputOnly,
            };
            for (from, to) in columns.iter().zip(row.map(state)) {
                let after = next(direction, *from, event(event_name));
                assert_eq!(after, to, "{direction:?} {event_name} in {from:?}");
                checked += 1;
            }
        }
        assert_eq!(checked, 3 * 10 * 14);
    }

    #[test]
    fn an_association_by_nat_is_followed_from_both_sides() {
        follow(&[
            (Input, 1, SctpState::Init1),
            (Input, 1, SctpState::Init),
            (Output, 2, SctpState::CookieSent),
            (Input, 10, SctpState::CookieReplied),
            (Output, 11, SctpState::Established),
            (Input, 0, SctpState::Established),
            (Output, 3, SctpState::Established),
            (Input, 7, SctpState::ShutdownReceived),
            (Output, 8, SctpState::ShutdownAckSent),
            (Input, 14, SctpState::Closed),
            (Input, 1, SctpState::Init),
        ]);
        // The server ends it.
        follow(&[
            (Input, 1, SctpState::Init1),
            (Output, 2, SctpState::CookieSent),
            (Input, 10, SctpState::CookieReplied),
            (Output, 11, SctpState::Established),
            (Output, 7, SctpState::ShutdownSent),
            (Input, 8, SctpState::Closed),
            (Output, 14, SctpState::Closed),
        ]);
        // The server opens it.
        follow(&[
            (Output, 1, SctpState::CookieWait),
            (Input, 2, SctpState::Cookie),
            (Output, 10, SctpState::CookieEchoed),
            (Input, 11, SctpState::Established),
        ]);
    }

    #[test]
    fn an_association_by_direct_routing_is_followed_from_the_clients_side() {
        follow(&[
            (InputOnly, 1, SctpState::Init1),
            (InputOnly, 10, SctpState::Established),
            (InputOnly, 0, SctpState::Established),
            (InputOnly, 7, SctpState::ShutdownReceived),
            (InputOnly, 14, SctpState::Closed),
        ]);
        // The server ends it, and the client answers.
        follow(&[
            (InputOnly, 1, SctpState::Init1),
            (InputOnly, 1, SctpState::Init),
            (InputOnly, 10, SctpState::Established),
            (InputOnly, 8, SctpState::Closed),
        ]);
    }

    #[test]
    fn an_abort_rejects_the_first_init_and_closes_what_stands() {
        follow(&[
            (Input, 1, SctpState::Init1),
            (Output, 6, SctpState::Rejected),
            (Input, 1, SctpState::Init),
            (Output, 6, SctpState::Closed),
        ]);
        for direction in [Input, Output, InputOnly] {
            assert_eq!(next(direction, SctpState::Established, Event::Abort), SctpState::Closed);
        }
    }

    #[test]
    fn the_first_chunk_counts() {
        let expected = [
            (0, Event::Data),
            (1, Event::Init),
            (2, Event::InitAck),
            (3, Event::Data),
            (4, Event::Data),
            (5, Event::Data),
            (6, Event::Abort),
            (7, Event::Shutdown),
            (8, Event::ShutdownAck),
            (9, Event::Error),
            (10, Event::CookieEcho),
            (11, Event::CookieAck),
            (12, Event::Data),
            (13, Event::Data),
            (14, Event::ShutdownComplete),
        ];
        for (kind, event) in expected {
            assert_eq!(event_of(&packet(&[kind])), event, "chunk {kind}");
            assert_eq!(event_of(&packet(&[kind, 0])), event, "chunk {kind} and DATA");
        }
        for kind in 15..=u8::MAX {
            assert_eq!(event_of(&packet(&[kind])), Event::Data, "chunk {kind}");
        }
    }

    #[test]
    fn an_abort_counts_right_behind_a_cookie_and_nowhere_else() {
        assert_eq!(event_of(&packet(&[10, 6])), Event::Abort);
        assert_eq!(event_of(&packet(&[11, 6])), Event::Abort);
        assert_eq!(event_of(&packet(&[11, 0, 6])), Event::CookieAck);
        assert_eq!(event_of(&packet(&[3, 6])), Event::Data);
        assert_eq!(event_of(&packet(&[9, 6])), Event::Error);
        // A cookie of five bytes, padded by three.
        let padded = [&packet(&[])[..], b"\x0a\0\0\x09abcde\0\0\0\x06\0\0\x04"].concat();
        assert_eq!(event_of(&padded), Event::Abort);
        // The length of the cookie cannot be.
        let short = [&packet(&[])[..], b"\x0a\0\0\x03\x06\0\0\x04"].concat();
        assert_eq!(event_of(&short), Event::CookieEcho);
    }

    #[test]
    fn without_a_chunk_every_state_stays() {
        for cut in [0, 11, 12, 15] {
            assert_eq!(event_of(&packet(&[1])[..cut]), Event::Nothing, "{cut} bytes");
        }
        for direction in [Input, Output, InputOnly] {
            for state in SctpState::ALL {
                assert_eq!(next(direction, state, Event::Nothing), state);
            }
        }
    }

    #[test]
    fn an_event_keeps_the_states_that_it_leads_back_to_from_every_side() {
        // Read off the table above, but for INIT and for INIT1, INIT and COOKIE_SENT.
        let expected = [
            (Event::Data, "CR CO CE ES SS SR SA RJ CL"),
            (Event::Init, ""),
            (Event::InitAck, "CO CE ES SS SR SA RJ CL"),
            (Event::CookieEcho, "CE ES SS SR SA RJ CL"),
            (Event::CookieAck, "ES SS SR SA RJ CL"),
            (Event::Shutdown, "SS SR SA RJ CL"),
            (Event::ShutdownAck, "CW CO CE RJ CL"),
            (Event::ShutdownComplete, "CW CO CE ES SS RJ CL"),
            (Event::Error, "CW CO ES SS SR SA RJ CL"),
            (Event::Abort, "CL"),
            (Event::Nothing, "NO CR CW CO CE ES SS SR SA RJ CL"),
        ];
        for (event, states) in expected {
            let bits = states.split_whitespace().fold(0, |bits, short| bits | 1 << state(short) as u8);
            assert_eq!(keeps(event), bits, "{event:?}");
        }
    }

    #[test]
    fn init_opens_and_a_sloppy_director_takes_any_but_abort() {
        for event in Event::ALL {
            assert_eq!(event.opens(false), event == Event::Init, "{event:?}");
            assert_eq!(event.opens(true), ![Event::Abort, Event::Nothing].contains(&event), "{event:?}");
        }
    }

    #[test]
    fn numbers_names_and_activity_are_those_of_the_original() {
        let expected = [
            "NONE",
            "INIT1",
            "INIT",
            "C-SENT",
            "C-REPLIED",
            "C-WAIT",
            "COOKIE",
            "C-ECHOED",
            "ESTABLISHED",
            "S-SENT",
            "S-RECEIVED",
            "S-ACK-SENT",
            "REJECTED",
            "CLOSED",
        ];
        for (number, name) in expected.into_iter().enumerate() {
            let state = SctpState::from_u8(number as u8);
            assert_eq!((state as usize, state.name(), state.is_active()), (number, name, number == 8));
            assert_eq!(state.is_half_open(), (1..=3).contains(&number), "{name}");
        }
        assert_eq!(SctpState::from_u8(14), SctpState::None);
        assert_eq!(SctpState::from_u8(255), SctpState::None);
        for (number, event) in Event::ALL.into_iter().enumerate() {
            assert_eq!((event as usize, Event::from_u8(number as u8)), (number, event));
        }
        assert_eq!(Event::from_u8(11), Event::Nothing);
    }
}
