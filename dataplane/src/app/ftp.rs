//! What an FTP session says of its data connections: RFC 959 section 4.1.2, RFC 1123 section 4.1.2.6, RFC 2428.
//!
//! As with the original, what counts lies in one segment, from the start of a line to its end.

use arrayvec::ArrayVec;
use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// The port of sessions.
pub const CONTROL_PORT: u16 = 21;

/// Bytes of the longest text that takes the place of another: `255,255,255,255,255,255`.
pub const MAX_TEXT: usize = 23;

/// What takes the place of a server's address and port.
pub type Text = ArrayVec<u8, MAX_TEXT>;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// PORT, EPRT: the server is to open the data connection, from the port below that of the session, to this address.
    /// It need not be the client's.
    Active(SocketAddr),
    /// PASV, EPSV: the server is to say where the client opens it to.
    Passive,
}

/// Where a server waits for a data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passive {
    /// The server's idea of its address, which need not be the one that it has. `None`: that of the session.
    pub address: Option<IpAddr>,
    /// The port; never 0.
    pub port: u16,
    /// Where in the payload the text stands that says so.
    pub at: usize,
    /// Bytes of that text.
    pub len: usize,
    /// Of a reply 229, the character between its fields.
    delimiter: Option<u8>,
}

impl Passive {
    /// What is to take the place of the text, so that the client comes to this virtual address and port. `None`: it does
    /// already, or it is an IPv6 address, of which a reply 227 cannot tell.
    pub fn text(&self, address: IpAddr, port: u16) -> Option<Text> {
        let mut text = Out(Text::new());
        match (self.delimiter, address) {
            (Some(_), _) if self.address.is_none() && self.port == port => return None,
            (Some(delimiter), _) => {
                let d = char::from(delimiter);
                write!(text, "{d}{d}{d}{port}{d}").ok()?;
            }
            (None, IpAddr::V4(_)) if self.address == Some(address) && self.port == port => return None,
            (None, IpAddr::V4(address)) => {
                let ([a, b, c, d], [high, low]) = (address.octets(), port.to_be_bytes());
                write!(text, "{a},{b},{c},{d},{high},{low}").ok()?;
            }
            (None, IpAddr::V6(_)) => return None,
        }
        Some(text.0)
    }
}

struct Out(Text);

impl Write for Out {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.try_extend_from_slice(text.as_bytes()).map_err(|_| std::fmt::Error)
    }
}

/// The first command about data connections in what a client sends.
pub fn command(payload: &[u8]) -> Option<Command> {
    lines(payload).find_map(|(_, line)| {
        let line = line.strip_suffix(b"\r")?.trim_ascii_end();
        let (verb, rest) = line.split_at_checked(4)?;
        let is = |name: &[u8]| verb.eq_ignore_ascii_case(name);
        let argument = rest.trim_ascii_start();
        if argument.len() == rest.len() && !rest.is_empty() {
            // Another verb that begins like this one.
            return None;
        }
        if is(b"PORT") {
            let (address, port, len) = six_numbers(argument)?;
            (len == argument.len()).then_some(Command::Active(SocketAddr::new(address.into(), port)))
        } else if is(b"EPRT") {
            let (address, port, len) = fields(argument)?;
            (len == argument.len()).then_some(Command::Active(SocketAddr::new(address?, port)))
        } else {
            // EPSV ALL opens nothing.
            let asks = is(b"PASV") || is(b"EPSV") && matches!(argument, b"" | b"1" | b"2");
            asks.then_some(Command::Passive)
        }
    })
}

/// The first reply in what a server sends that says where it waits for a data connection.
pub fn reply(payload: &[u8]) -> Option<Passive> {
    lines(payload).find_map(|(start, line)| {
        let (code, text) = line.split_at_checked(4)?;
        match code {
            b"227 " => {
                // Parentheses, `=`, or nothing: the first digit begins it.
                let skipped = text.iter().position(u8::is_ascii_digit)?;
                let (address, port, len) = six_numbers(text.get(skipped..)?)?;
                let at = start + code.len() + skipped;
                Some(Passive { address: Some(address.into()), port, at, len, delimiter: None })
            }
            b"229 " => {
                let skipped = text.iter().position(|byte| *byte == b'(')? + 1;
                let text = text.get(skipped..)?;
                let (address, port, len) = fields(text)?;
                let at = start + code.len() + skipped;
                Some(Passive { address, port, at, len, delimiter: text.first().copied() })
            }
            _ => None,
        }
    })
}

/// The lines that end within the payload, without their LF, and where they start.
fn lines(payload: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut start = 0;
    payload.split_inclusive(|byte| *byte == b'\n').filter_map(move |line| {
        let at = start;
        start += line.len();
        Some((at, line.strip_suffix(b"\n")?))
    })
}

/// The address and the port that `h1,h2,h3,h4,p1,p2` says, and its length.
fn six_numbers(text: &[u8]) -> Option<(Ipv4Addr, u16, usize)> {
    let (mut numbers, mut at) = ([0u8; 6], 0);
    for (n, number) in numbers.iter_mut().enumerate() {
        if n > 0 {
            text.get(at).filter(|byte| **byte == b',')?;
            at += 1;
        }
        let (value, len) = decimal(text.get(at..)?, 3)?;
        *number = u8::try_from(value).ok()?;
        at += len;
    }
    let [a, b, c, d, high, low] = numbers;
    let port = u16::from_be_bytes([high, low]);
    (port != 0).then_some((Ipv4Addr::new(a, b, c, d), port, at))
}

/// The address and the port that `|1|132.235.1.2|6275|`, `|2|1080::8:800:200C:417A|5282|` or `|||6446|` says, with any
/// printable character but a digit in place of `|`, and its length.
fn fields(text: &[u8]) -> Option<(Option<IpAddr>, u16, usize)> {
    let (delimiter, rest) =
        text.split_first().filter(|(first, _)| first.is_ascii_graphic() && !first.is_ascii_digit())?;
    let mut fields = rest.splitn(4, |byte| byte == delimiter);
    let (family, address, port) = (fields.next()?, fields.next()?, fields.next()?);
    // The last delimiter is there.
    fields.next()?;
    let value = std::str::from_utf8(address).ok();
    let found = match family {
        b"" if address.is_empty() => None,
        b"1" => Some(IpAddr::V4(value?.parse().ok()?)),
        b"2" => Some(IpAddr::V6(value?.parse().ok()?)),
        _ => return None,
    };
    let (number, len) = decimal(port, 5)?;
    let number = u16::try_from(number).ok().filter(|number| *number != 0 && len == port.len())?;
    Some((found, number, 1 + family.len() + 1 + address.len() + 1 + port.len() + 1))
}

/// The number of one to `most` digits at the start of `text` that no digit follows, and its length.
fn decimal(text: &[u8], most: usize) -> Option<(u32, usize)> {
    let len = text.iter().take(most + 1).take_while(|byte| byte.is_ascii_digit()).count();
    let digits = text.get(..len)?;
    let value = digits.iter().fold(0, |value, digit| 10 * value + u32::from(digit - b'0'));
    (1..=most).contains(&len).then_some((value, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));

    fn active(payload: &[u8]) -> Option<String> {
        match command(payload) {
            Some(Command::Active(target)) => Some(target.to_string()),
            _ => None,
        }
    }

    /// Address, port, and the text that says so.
    fn waits(payload: &str) -> Option<(String, u16, &str)> {
        let found = reply(payload.as_bytes())?;
        let address = found.address.map_or("-".into(), |address| address.to_string());
        Some((address, found.port, &payload[found.at..found.at + found.len]))
    }

    /// The payload with the text in its place that leads to the virtual address.
    fn rewritten(payload: &str, port: u16) -> Option<String> {
        let found = reply(payload.as_bytes())?;
        let text = found.text(VIP, port)?;
        let text = std::str::from_utf8(&text).unwrap();
        Some([&payload[..found.at], text, &payload[found.at + found.len..]].concat())
    }

    #[test]
    fn port_and_eprt_say_where_the_server_connects_to() {
        assert_eq!(active(b"PORT 192,168,1,20,195,80\r\n").as_deref(), Some("192.168.1.20:50000"));
        assert_eq!(active(b"port  10,0,0,1,0,20 \r\n").as_deref(), Some("10.0.0.1:20"));
        assert_eq!(active(b"TYPE I\r\nPORT 10,9,1,1,4,1\r\nRETR f\r\n").as_deref(), Some("10.9.1.1:1025"));
        // The examples of RFC 2428 section 2.
        assert_eq!(active(b"EPRT |1|132.235.1.2|6275|\r\n").as_deref(), Some("132.235.1.2:6275"));
        let v6 = Some("[1080::8:800:200c:417a]:5282");
        assert_eq!(active(b"EPRT |2|1080::8:800:200C:417A|5282|\r\n").as_deref(), v6);
        assert_eq!(active(b"eprt !2!1080::8:800:200C:417A!5282!\r\n").as_deref(), v6);
    }

    #[test]
    fn pasv_and_epsv_ask_the_server_to_wait() {
        for asks in ["PASV\r\n", "pasv \r\n", "EPSV\r\n", "EPSV 1\r\n", "EPSV 2\r\n", "NOOP\r\nPASV\r\n"] {
            assert_eq!(command(asks.as_bytes()), Some(Command::Passive), "{asks:?}");
        }
        for other in [
            "EPSV ALL\r\n",
            "PASVX\r\n",
            "XPASV\r\n",
            " PASV\r\n",
            "PASV",
            "PASV\r",
            "PASV\n",
            "RETR PASV\r\n",
        ] {
            assert_eq!(command(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn what_is_no_whole_command_is_none() {
        for other in [
            "PORT 192,168,1,20,195,80",
            "PORT 192,168,1,20,195,80\n",
            "PORT192,168,1,20,195,80\r\n",
            "PORT 192,168,1,20,195\r\n",
            "PORT 192,168,1,20,195,80,1\r\n",
            "PORT 192,168,1,256,195,80\r\n",
            "PORT 192,168,1,0020,195,80\r\n",
            "PORT 192,168,1,20,0,0\r\n",
            "PORT 192,168,1,,195,80\r\n",
            "PORT 192.168.1.20,195,80\r\n",
            "SITE PORT 192,168,1,20,195,80\r\n",
            "EPRT |1|132.235.1.2|6275\r\n",
            "EPRT |1|132.235.1.2|65536|\r\n",
            "EPRT |1|132.235.1.2|0|\r\n",
            "EPRT |1|1080::8|6275|\r\n",
            "EPRT |2|132.235.1.2|6275|\r\n",
            "EPRT |3|132.235.1.2|6275|\r\n",
            "EPRT |||6275|\r\n",
            "EPRT |1|132.235.1.2|6275|x\r\n",
            "EPRT\r\n",
            "\r\n",
            "",
        ] {
            assert_eq!(command(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn replies_of_servers_in_the_wild_say_where_they_wait() {
        let server = |numbers| Some(("192.168.50.11".to_owned(), 45_000, numbers));
        let numbers = "192,168,50,11,175,200";
        // vsftpd and proftpd; pure-ftpd; older ones without parentheses; after another reply.
        assert_eq!(waits("227 Entering Passive Mode (192,168,50,11,175,200).\r\n"), server(numbers));
        assert_eq!(waits("227 Entering Passive Mode (192,168,50,11,175,200)\r\n"), server(numbers));
        assert_eq!(waits("227 Entering Passive Mode. 192,168,50,11,175,200\r\n"), server(numbers));
        assert_eq!(waits("227 =192,168,50,11,175,200\r\n"), server(numbers));
        assert_eq!(waits("200 Type set to I\r\n227 ok (192,168,50,11,175,200)\r\n"), server(numbers));
        // RFC 2428 section 3; vsftpd's has a full stop.
        let extended = |text| Some(("-".to_owned(), 6446, text));
        assert_eq!(waits("229 Entering Extended Passive Mode (|||6446|)\r\n"), extended("|||6446|"));
        assert_eq!(waits("229 Extended Passive mode OK (!!!6446!).\r\n"), extended("!!!6446!"));
        let with_address = waits("229 Entering Extended Passive Mode (|1|10.0.0.1|6446|)\r\n");
        assert_eq!(with_address, Some(("10.0.0.1".to_owned(), 6446, "|1|10.0.0.1|6446|")));
    }

    #[test]
    fn what_is_no_whole_reply_is_none() {
        for other in [
            "227 Entering Passive Mode (192,168,50,11,175,20",
            "227 Entering Passive Mode (192,168,50,11,175,200)",
            "227-Entering Passive Mode (192,168,50,11,175,200)\r\n",
            "227 Entering Passive Mode 2 (192,168,50,11,175,200)\r\n",
            "227 Entering Passive Mode (192,168,50,11,0,0)\r\n",
            "230-227 Entering Passive Mode (192,168,50,11,175,200)\r\n",
            "229 Entering Extended Passive Mode (|||64460|",
            "229 Entering Extended Passive Mode (|||64460)\r\n",
            "229 Entering Extended Passive Mode (|||644600|)\r\n",
            "229 Entering Extended Passive Mode |||6446|\r\n",
            "220 (vsFTPd 3.0.3)\r\n",
            "227 \r\n",
            "229 (\r\n",
            "227",
        ] {
            assert_eq!(waits(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_reply_is_rewritten_to_the_virtual_address() {
        let longer = "227 Entering Passive Mode (10,0,0,1,4,1).\r\n";
        assert_eq!(
            rewritten(longer, 1025).as_deref(),
            Some("227 Entering Passive Mode (10,0,0,100,4,1).\r\n")
        );
        let shorter = "200 ok\r\n227 =192,168,150,110,175,200\r\n";
        assert_eq!(rewritten(shorter, 45_000).as_deref(), Some("200 ok\r\n227 =10,0,0,100,175,200\r\n"));
        assert_eq!(rewritten("227 (10,0,0,100,4,1)\r\n", 1025), None, "it says so already");
        assert_eq!(rewritten("229 Mode (|||1025|)\r\n", 50_000).as_deref(), Some("229 Mode (|||50000|)\r\n"));
        assert_eq!(rewritten("229 Mode (|||1025|)\r\n", 1025), None, "there is no address to change");
        assert_eq!(rewritten("229 (|1|1.2.3.4|1025|)\r\n", 1025).as_deref(), Some("229 (|||1025|)\r\n"));
        let found = reply(b"227 (1,1,1,1,1,1)\r\n").unwrap();
        assert_eq!(found.text("fd00::1".parse().unwrap(), 257), None);
        let widest = found.text([255, 255, 255, 255].into(), 65_535).unwrap();
        assert_eq!(&widest[..], b"255,255,255,255,255,255");
        assert_eq!(widest.len(), MAX_TEXT);
    }

    const LINES: [&str; 7] = [
        "227 Entering Passive Mode (192,168,50,11,175,200).\r\n",
        "229 Entering Extended Passive Mode (|||6446|)\r\n",
        "229 Entering Extended Passive Mode (|2|fe80::1|6446|)\r\n",
        "PORT 192,168,1,20,195,80\r\n",
        "EPRT |2|1080::8:800:200C:417A|5282|\r\n",
        "EPSV 1\r\n",
        "220-Welcome\r\n220 ready\r\n",
    ];

    proptest! {
        #[test]
        fn what_is_said_is_understood(address: Ipv4Addr, v6: std::net::Ipv6Addr, port in 1u16..) {
            let numbers = format!("{},{},{}", address.to_string().replace('.', ","), port / 256, port % 256);
            let (v4, v6) = (SocketAddr::new(address.into(), port), SocketAddr::new(v6.into(), port));
            prop_assert_eq!(command(format!("PORT {numbers}\r\n").as_bytes()), Some(Command::Active(v4)));
            for target in [v4, v6] {
                let family = if target.is_ipv4() { 1 } else { 2 };
                let text = format!("EPRT |{family}|{}|{port}|\r\n", target.ip());
                prop_assert_eq!(command(text.as_bytes()), Some(Command::Active(target)));
            }
            let text = format!("227 Entering Passive Mode ({numbers})\r\n");
            prop_assert_eq!(waits(&text), Some((address.to_string(), port, &numbers[..])));
        }

        #[test]
        fn no_bytes_and_no_damage_make_it_panic_or_point_outside(
            first in 0usize..7,
            second in 0usize..7,
            changes in proptest::collection::vec((0usize..120, any::<u8>(), 0u8..4), 0..6),
            noise in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut payload = [LINES[first], LINES[second]].concat().into_bytes();
            for (at, byte, kind) in changes {
                let at = at % (payload.len() + 1);
                match kind {
                    0 => payload.insert(at, byte),
                    1 => payload.truncate(at),
                    2 if at < payload.len() => drop(payload.remove(at)),
                    _ => payload.iter_mut().skip(at).take(1).for_each(|place| *place = byte),
                }
            }
            for payload in [payload, noise] {
                let _ = command(&payload);
                let Some(found) = reply(&payload) else { continue };
                prop_assert!(found.port != 0 && found.at + found.len < payload.len());
                let Some(text) = found.text(VIP, 54_321) else { continue };
                let mut changed = payload.clone();
                changed.splice(found.at..found.at + found.len, text);
                let now = reply(&changed).expect("it is still a reply");
                let address = found.delimiter.is_none().then_some(VIP);
                prop_assert_eq!((now.at, now.address, now.port), (found.at, address, 54_321));
            }
        }
    }
}
