//! The persistence engine of SIP: the call that a datagram belongs to (RFC 3261 sections 7.3 and 20.8).
//!
//! It accepts what the original's does: any datagram with a Call-ID header, whatever its first line says; header names in
//! any case; lines that end in CR LF, LF, or CR (RFC 2543); a value on a continuation line. The first header that has a
//! value counts, and that value must fill its line. As with the original the headers are not told from the body.

use crate::{
    batch::Layout,
    wire::{protocol, udp},
};

/// Bytes of the longest Call-ID that counts; a datagram with a longer one has none.
pub const MAX_CALL_ID: usize = 255;

/// A Call-ID, owned.
#[derive(Clone, Copy)]
pub struct CallId {
    len: u8,
    bytes: [u8; MAX_CALL_ID],
}

impl CallId {
    /// A copy of the first [`MAX_CALL_ID`] bytes.
    pub fn new(call_id: &[u8]) -> Self {
        let mut bytes = [0; MAX_CALL_ID];
        let kept = call_id.get(..MAX_CALL_ID).unwrap_or(call_id);
        bytes[..kept.len()].copy_from_slice(kept);
        Self { len: kept.len() as u8, bytes }
    }

    /// As it was sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl PartialEq for CallId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for CallId {}

impl std::fmt::Debug for CallId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// The Call-ID of a datagram's `payload`; never empty, nor longer than [`MAX_CALL_ID`]. `None`: the original drops such a
/// datagram where it would open a connection.
pub fn call_id(payload: &[u8]) -> Option<&[u8]> {
    let mut rest = payload;
    // The first line is no header.
    while let Some(line) = next_line(rest) {
        rest = line;
        let Some(value) = after_name(line) else { continue };
        // What is left must be a colon and a value: the original gives up where it is not.
        let value = skip_blanks(skip_blanks(value)?.strip_prefix(b":")?)?;
        let len = value_len(value);
        if len == 0 {
            continue;
        }
        let ends_line = matches!(value.get(len), Some(b'\r' | b'\n'));
        return value.get(..len).filter(|_| ends_line && len <= MAX_CALL_ID);
    }
    None
}

/// The same of a packet: its frame, and its layout. The engine knows UDP alone.
pub fn call_id_of<'a>((frame, layout): (&'a [u8], &Layout), number: u8) -> Option<&'a [u8]> {
    let payload = usize::from(layout.l4) + udp::HEADER_LEN..usize::from(layout.end);
    frame.get(payload).filter(|_| number == protocol::UDP).and_then(call_id)
}

/// What follows the next end of a line; `None` if nothing does.
fn next_line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    after_line_end(bytes.get(end..)?).filter(|rest| !rest.is_empty())
}

/// What follows the CR LF, CR or LF that `bytes` begin with.
fn after_line_end(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(b"\r\n").or_else(|| bytes.get(1..))
}

/// What follows the name of the header, if the line begins with it: `Call-ID`, or `i` with no letter behind it.
fn after_name(line: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"call-id";
    if let Some((name, rest)) = line.split_at_checked(NAME.len())
        && name.eq_ignore_ascii_case(NAME)
    {
        return Some(rest);
    }
    let (b'i' | b'I', rest) = line.split_first()? else { return None };
    rest.first().is_some_and(|next| !next.is_ascii_alphabetic()).then_some(rest)
}

/// What follows spaces, and line ends that a continuation line follows. `None` if a line ends without one.
fn skip_blanks(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        match bytes.first()? {
            b' ' | b'\t' => bytes = bytes.get(1..)?,
            b'\r' | b'\n' => {
                bytes = after_line_end(bytes)?;
                if !matches!(bytes.first()?, b' ' | b'\t') {
                    return None;
                }
            }
            _ => return Some(bytes),
        }
    }
}

/// Bytes of `word [ "@" word ]` (RFC 3261 section 25.1); 0 if it is none.
fn value_len(bytes: &[u8]) -> usize {
    let word = |bytes: &[u8]| bytes.iter().take_while(|byte| is_word(**byte)).count();
    let local = word(bytes);
    match bytes.get(local..) {
        Some([b'@', host @ ..]) if local > 0 => match word(host) {
            0 => 0,
            host => local + 1 + host,
        },
        _ => local,
    }
}

/// Whether a word may have the byte; the original takes a comma too.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~()<>:\\\"/[]?{},".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 3261 section 24.2, F1 of the session set-up.
    const INVITE: &[u8] = b"INVITE sip:bob@biloxi.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP pc33.atlanta.com;branch=z9hG4bKnashds8\r\n\
        Max-Forwards: 70\r\n\
        To: Bob <sip:bob@biloxi.com>\r\n\
        From: Alice <sip:alice@atlanta.com>;tag=1928301774\r\n\
        Call-ID: a84b4c76e66710\r\n\
        CSeq: 314159 INVITE\r\n\
        Contact: <sip:alice@pc33.atlanta.com>\r\n\
        Content-Type: application/sdp\r\n\
        Content-Length: 0\r\n\r\n";

    /// RFC 3261 section 24.1, F1 and F2 of the registration.
    const REGISTER: &[u8] = b"REGISTER sip:registrar.biloxi.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP bobspc.biloxi.com:5060;branch=z9hG4bKnashds7\r\n\
        Max-Forwards: 70\r\n\
        To: Bob <sip:bob@biloxi.com>\r\n\
        From: Bob <sip:bob@biloxi.com>;tag=456248\r\n\
        Call-ID: 843817637684230@998sdasdh09\r\n\
        CSeq: 1826 REGISTER\r\n\
        Contact: <sip:bob@192.0.2.4>\r\n\
        Expires: 7200\r\n\
        Content-Length: 0\r\n\r\n";
    const OK: &[u8] = b"SIP/2.0 200 OK\r\n\
        Via: SIP/2.0/UDP bobspc.biloxi.com:5060;branch=z9hG4bKnashds7;received=192.0.2.4\r\n\
        To: Bob <sip:bob@biloxi.com>;tag=2493k59kd\r\n\
        From: Bob <sip:bob@biloxi.com>;tag=456248\r\n\
        Call-ID: 843817637684230@998sdasdh09\r\n\
        CSeq: 1826 REGISTER\r\n\
        Contact: <sip:bob@192.0.2.4>\r\n\
        Expires: 7200\r\n\
        Content-Length: 0\r\n\r\n";

    fn found(payload: &[u8]) -> Option<&str> {
        call_id(payload).map(|call_id| std::str::from_utf8(call_id).unwrap())
    }

    fn of_value(value: &str) -> Option<String> {
        found(format!("BYE sip:a@b SIP/2.0\r\nCall-ID: {value}").as_bytes()).map(str::to_owned)
    }

    #[test]
    fn requests_and_answers_of_one_dialog_have_one_call_id() {
        assert_eq!(found(INVITE), Some("a84b4c76e66710"));
        assert_eq!(found(REGISTER), Some("843817637684230@998sdasdh09"));
        assert_eq!(found(OK), found(REGISTER));
        let compact =
            b"OPTIONS sip:b SIP/2.0\r\nv: SIP/2.0/UDP h\r\ni:f81d4fae-7dec@host.example\r\nl: 0\r\n\r\n";
        assert_eq!(found(compact), Some("f81d4fae-7dec@host.example"));
    }

    #[test]
    fn names_of_headers_stand_at_the_start_of_a_line_in_any_case() {
        assert_eq!(found(b"x\r\nCALL-ID : one@two\r\n"), Some("one@two"));
        assert_eq!(found(b"x\ncall-id:\t[::1]\n"), Some("[::1]"));
        assert_eq!(found(b"x\rI: old\r"), Some("old"));
        assert_eq!(found(b"x\r\nCall-ID:\r\n  folded\r\n"), Some("folded"));
        assert_eq!(found(b"Call-ID: first-line\r\n\r\n"), None);
        assert_eq!(found(b"x\r\nSubject: Call-ID: no\r\n Call-ID: no\r\n\r\n"), None);
        assert_eq!(found(b"x\r\nIn-Reply-To: no\r\ni: yes\r\n"), Some("yes"));
    }

    #[test]
    fn a_value_fills_its_line() {
        assert_eq!(of_value("a,b<c>@\"d\"/e\r\n").as_deref(), Some("a,b<c>@\"d\"/e"));
        for refused in
            ["two words\r\n", "blank \r\n", "a@b@c\r\n", "cut-off", "", "\r\n", "\r\nCSeq: 1\r\n", "=\r\n"]
        {
            assert_eq!(of_value(refused), None, "{refused:?}");
        }
        // One without a value is passed over.
        assert_eq!(of_value("local@\r\nCall-ID: second\r\n").as_deref(), Some("second"));
        assert_eq!(of_value("@host\r\nCall-ID: second\r\n").as_deref(), Some("second"));
    }

    #[test]
    fn a_call_id_has_at_most_255_bytes() {
        let longest = "c".repeat(255);
        assert_eq!(of_value(&format!("{longest}\r\n")), Some(longest));
        assert_eq!(of_value(&format!("{}\r\n", "c".repeat(256))), None);
        let kept = CallId::new(&[b'c'; 300]);
        assert_eq!((kept.as_bytes().len(), CallId::new(b"a\"b").as_bytes()), (255, &b"a\"b"[..]));
        assert_eq!(format!("{:?}", CallId::new(b"a\"\x01")), "\"a\\\"\\x01\"");
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic_or_find_what_no_call_id_is(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'i'), Just(b':'), Just(b'@')], 0..300),
            cut in 0usize..500,
            at in 0usize..500,
            byte: u8,
        ) {
            let mut damaged = INVITE[..cut.min(INVITE.len())].to_vec();
            if let Some(place) = damaged.get_mut(at) {
                *place = byte;
            }
            for payload in [&bytes[..], &damaged] {
                if let Some(found) = call_id(payload) {
                    prop_assert!((1..=255).contains(&found.len()));
                    prop_assert!(!found.iter().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()));
                }
            }
        }
    }
}
