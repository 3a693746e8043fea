use super::*;
use crate::wire::checksum::tests::slow;
use proptest::prelude::*;

const PORTS: [u8; 4] = [0, 21, 200, 1];

/// The sum of addresses and protocol, which the stream does not know.
const PSEUDO: [u8; 10] = [10, 0, 0, 11, 10, 9, 1, 1, 0, 6];

/// A segment with the right checksum.
fn segment((seq, ack, flags): (u32, u32, u8), options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&PORTS[..], &seq.to_be_bytes(), &ack.to_be_bytes()].concat();
    bytes.extend([((20 + options.len()) as u8) << 2, flags, 0x20, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(options);
    bytes.extend_from_slice(payload);
    let sum = !checksum_of(&bytes);
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// As [`slow`], over pseudo-header, length and segment: 0xffff if the checksum in it is right.
fn checksum_of(segment: &[u8]) -> u16 {
    slow(&[&PSEUDO[..], &(segment.len() as u16).to_be_bytes(), segment].concat())
}

/// What becomes of a segment of the server.
fn passed(stream: &mut Stream, sent: &[u8]) -> (u32, Vec<u8>) {
    let mut buffer = sent.to_vec();
    buffer.resize(sent.len() + MAX_TEXT, 0xee);
    let len = stream.rewrite(&mut buffer, sent.len()).expect("there is room");
    buffer.truncate(len);
    assert_eq!(checksum_of(&buffer), 0xffff, "the checksum stays right");
    let view = Tcp::new(&buffer).unwrap();
    (view.seq(), view.payload().to_vec())
}

/// The acknowledgement and the blocks that the server gets.
fn restored(stream: &Stream, ack: u32, blocks: &[(u32, u32)]) -> (u32, Vec<(u32, u32)>) {
    let mut options = vec![1, 5, 2 + 8 * blocks.len() as u8];
    blocks.iter().for_each(|(left, right)| {
        options.extend(left.to_be_bytes());
        options.extend(right.to_be_bytes());
    });
    options.resize(options.len().next_multiple_of(4), 0);
    let mut bytes = segment((7, ack, tcp::ACK), &options, b"NOOP\r\n");
    stream.restore(&mut bytes);
    assert_eq!(checksum_of(&bytes), 0xffff, "the checksum stays right");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let blocks = (0..blocks.len()).map(|n| (number(23 + 8 * n), number(27 + 8 * n))).collect();
    (Tcp::new(&bytes).unwrap().ack(), blocks)
}

#[test]
fn a_reply_that_grows_moves_all_that_follows_it() {
    // 10,0,0,1,4,1 (12 bytes) becomes 10,0,0,100,4,1 (14).
    let line = b"227 Entering Passive Mode (10,0,0,1,4,1).\r\n";
    let sent = segment((1000, 50, tcp::ACK | tcp::PSH), &[], line);
    let mut stream = Stream::default();
    assert_eq!(passed(&mut stream, &segment((980, 50, tcp::ACK), &[], b"200 Switching ok..\r\n")).0, 980);
    assert!(stream.replace(&sent, (27, 12), b"10,0,0,100,4,1"));
    let expected = b"227 Entering Passive Mode (10,0,0,100,4,1).\r\n".to_vec();
    assert_eq!(passed(&mut stream, &sent), (1000, expected.clone()));
    // Sent again it is rewritten again, and known.
    assert!(!stream.replace(&sent, (27, 12), b"10,0,0,100,4,1"));
    assert_eq!(passed(&mut stream, &sent), (1000, expected));
    assert_eq!(passed(&mut stream, &segment((1043, 60, tcp::ACK), &[], b"150 Here\r\n")).0, 1045);
    assert_eq!((stream.outgoing(1027), stream.outgoing(1039), stream.outgoing(1043)), (1027, 1041, 1045));
    assert_eq!(
        (stream.acknowledged(1027), stream.acknowledged(1045), stream.acknowledged(1055)),
        (1027, 1043, 1053)
    );
    assert_eq!(
        stream.acknowledged(1040),
        1038,
        "the last byte is not acknowledged before all that has its place"
    );
    assert_eq!(restored(&stream, 1000, &[(1045, 1055)]), (1000, vec![(1043, 1053)]));
    // A FIN, without a payload.
    assert_eq!(passed(&mut stream, &segment((1053, 60, tcp::ACK | tcp::FIN), &[], b"")), (1055, vec![]));
}

#[test]
fn a_second_reply_adds_to_the_first() {
    let mut stream = Stream::default();
    let start = u32::MAX - 20;
    let first = segment((start, 1, tcp::ACK), &[], b"227 (192,168,150,110,4,1)\r\n");
    assert!(stream.replace(&first, (5, 19), b"10,0,0,9,4,1"));
    assert_eq!(passed(&mut stream, &first), (start, b"227 (10,0,0,9,4,1)\r\n".to_vec()));
    // 27 bytes became 20: the numbers have gone round to 6, and are given as one below.
    let second = segment((6, 1, tcp::ACK), &[], b"227 (192,168,150,110,4,2)\r\n");
    assert!(stream.replace(&second, (5, 19), b"10,0,0,9,4,2"));
    assert_eq!(passed(&mut stream, &second), (u32::MAX, b"227 (10,0,0,9,4,2)\r\n".to_vec()));
    assert_eq!((stream.outgoing(33), stream.acknowledged(19)), (19, 33));
    assert_eq!(restored(&stream, 19, &[(19, 29), (40, 41)]), (33, vec![(33, 43), (54, 55)]));
}

#[test]
fn what_was_passed_on_as_it_was_stays_so() {
    let mut stream = Stream::default();
    // The line came in two, and is now sent again in one.
    passed(&mut stream, &segment((100, 1, tcp::ACK), &[], b"227 (10,0,"));
    let whole = segment((100, 1, tcp::ACK), &[], b"227 (10,0,0,1,4,1)\r\n");
    assert!(!stream.replace(&whole, (5, 12), b"10,0,0,100,4,1"));
    assert!(stream.is_unchanged());
    assert_eq!(passed(&mut stream, &whole).1, b"227 (10,0,0,1,4,1)\r\n");
    // Nothing, nothing that is there, nothing to put, and too much.
    let next = segment((120, 1, tcp::ACK), &[], b"227 (10,0,0,1,4,1)\r\n");
    for (range, text) in [((5, 0), &b"1"[..]), ((5, 16), b"1"), ((5, 12), b""), ((5, 12), &[b'1'; 24])] {
        assert!(!stream.replace(&next, range, text));
    }
    assert!(stream.replace(&next, (5, 12), &[b'1'; 23]));
}

#[test]
fn without_room_nothing_is_changed() {
    let mut stream = Stream::default();
    let sent = segment((100, 1, tcp::ACK), &[], b"227 (1,1,1,1,4,1)\r\n");
    assert!(stream.replace(&sent, (5, 11), b"10,0,0,100,4,1"));
    let mut buffer = sent.clone();
    buffer.extend([0xee; 2]);
    let before = buffer.clone();
    assert_eq!(stream.rewrite(&mut buffer, sent.len()), None);
    assert_eq!(buffer, before);
    buffer.push(0xee);
    assert_eq!(stream.rewrite(&mut buffer, sent.len()), Some(sent.len() + 3));
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    let mut stream = Stream::default();
    let mut sent = segment((100, 1, tcp::ACK), &[], b"227 (1,1,1,1,4,1)\r\n");
    assert!(stream.replace(&sent, (5, 11), b"10,0,0,100,4,1"));
    sent[16] ^= 0x40;
    sent.extend([0; 3]);
    assert_eq!(stream.rewrite(&mut sent, 39), Some(42));
    assert_ne!(checksum_of(&sent), 0xffff);
    let mut acknowledgement = segment((1, 1000, tcp::ACK), &[], b"");
    acknowledgement[17] ^= 1;
    stream.restore(&mut acknowledgement);
    assert_eq!(Tcp::new(&acknowledgement).unwrap().ack(), 997);
    assert_ne!(checksum_of(&acknowledgement), 0xffff);
    // Without the flag there is no acknowledgement.
    let mut reset = segment((1, 1000, tcp::RST), &[], b"");
    let before = reset.clone();
    stream.restore(&mut reset);
    assert_eq!(reset, before);
}

/// What the receiver should see: bytes one by one, no arithmetic.
struct Model {
    original: Vec<u8>,
    given: Vec<u8>,
    /// How many given bytes the first n original ones are.
    map: Vec<usize>,
}

impl Model {
    fn new(original: Vec<u8>, (at, len): (usize, usize), text: &[u8]) -> Self {
        let (mut given, mut map) = (Vec::new(), vec![0]);
        for (n, byte) in original.iter().enumerate() {
            if !(at..at + len).contains(&n) {
                given.push(*byte);
            } else if n == at + len - 1 {
                // The last one of the text gives all that is left.
                let rest = text.get(n - at..).unwrap_or_default();
                given.extend_from_slice(rest);
            } else if let Some(byte) = text.get(n - at) {
                given.push(*byte);
            }
            map.push(given.len());
        }
        Self { original, given, map }
    }

    /// The most original bytes that so many given ones are.
    fn whole(&self, given: usize) -> usize {
        (0..self.map.len()).rfind(|n| self.map[*n] <= given).unwrap()
    }
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(b'0'..=b'9', 1..24)
}

proptest! {
    #[test]
    fn any_segments_in_any_order_give_the_changed_stream(
        original in proptest::collection::vec(b'a'..=b'z', 60..200),
        start: u32,
        near_wrap: bool,
        (at, len) in (1usize..30, 1usize..24),
        text in text(),
        cuts in proptest::collection::vec((0usize..200, 0usize..80), 0..40),
        acks in proptest::collection::vec(0usize..230, 1..20),
    ) {
        let start = if near_wrap { 0u32.wrapping_sub(start % 200) } else { start };
        let model = Model::new(original, (at, len), &text);
        let send = |from: usize, to: usize| {
            segment((start.wrapping_add(from as u32), 1, tcp::ACK), &[1, 1, 1, 1], &model.original[from..to])
        };
        let mut stream = Stream::default();
        // What comes first is in order, up to the segment in which the text lies.
        passed(&mut stream, &send(0, at / 2));
        prop_assert!(stream.replace(&send(at / 2, at + len + 1), (at - at / 2, len), &text));
        let mut seen = vec![None; model.given.len()];
        let all = [(0, at / 2), (at / 2, at + len + 1), (at + len + 1, model.original.len())];
        let again = cuts.iter().map(|(from, len)| {
            let from = from % model.original.len();
            (from, (from + len).min(model.original.len()))
        });
        for (from, to) in again.chain(all) {
            let (seq, payload) = passed(&mut stream, &send(from, to));
            let place = seq.wrapping_sub(start) as usize;
            prop_assert_eq!((place, place + payload.len()), (model.map[from], model.map[to]));
            for (n, byte) in payload.into_iter().enumerate() {
                seen[place + n] = Some(byte);
            }
        }
        let seen: Option<Vec<u8>> = seen.into_iter().collect();
        prop_assert_eq!(seen.as_ref(), Some(&model.given));
        for ack in acks {
            let ack = ack.min(model.given.len());
            let whole = model.whole(ack);
            let given = |n: usize| start.wrapping_add(n as u32);
            prop_assert_eq!(stream.acknowledged(given(ack)), given(whole));
            let (_, blocks) = restored(&stream, start, &[(given(ack), given(model.given.len()))]);
            let left = blocks[0].0.wrapping_sub(start) as usize;
            prop_assert!(model.map[left] >= ack, "nothing is said to be held that is not");
            prop_assert!(left == 0 || model.map[left - 1] < ack || model.map[left] == ack);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
        range in (0usize..200, 0usize..200),
        text in text(),
        len in 0usize..130,
        sensible: bool,
    ) {
        if sensible && let Some(place) = bytes.get_mut(12) {
            *place = 0x50 + (*place & 0xa0);
        }
        let mut stream = Stream::default();
        stream.replace(&bytes, range, &text);
        stream.rewrite(&mut bytes, len);
        stream.restore(&mut bytes);
        stream.replace(&bytes, range, &text);
        stream.restore(&mut bytes);
    }
}
