//! What looks into the payload: the helper of FTP and the persistence engine of SIP. Pure functions and plain data, but for
//! [`helper`], which makes and finds the connections that FTP sessions speak of.
//!
//! Of an FTP session by NAT, [`ftp::command`] is asked for what the client sends. [`ftp::Command::Active`] tells of a data
//! connection that the server will open; [`ftp::Command::Passive`] puts the session into [`control::ControlConnections`].
//! Of a session that is there and has asked, [`ftp::reply`] is asked for what the server sends: it tells of a data
//! connection that the client will open, and of the text that [`sequence::Stream::replace`] is to change. From then on
//! each segment of the session passes through its [`sequence::Stream`], which keeps both ends' numbers right.
//!
//! Of a service with the persistence engine of SIP, [`sip::call_id`] is asked for a datagram that opens a connection, and
//! [`crate::conn::template::Templates::follow_call`] for the server.

pub mod control;
pub mod expected;
pub mod ftp;
pub mod helper;
pub mod sequence;
pub mod sip;

#[cfg(test)]
mod tests {
    use super::{control::ControlConnections, ftp};
    use crate::wire::tcp::{self, Tcp};

    /// One end of a session.
    struct End {
        next: u32,
        heard: Vec<u8>,
    }

    impl End {
        /// A segment without a checksum: that it stays as right as it was is tested beside the stream.
        fn say(&mut self, ack: u32, line: &str) -> Vec<u8> {
            let mut bytes = [&[0, 21, 200, 1], &self.next.to_be_bytes()[..], &ack.to_be_bytes()].concat();
            bytes.extend([0x50, tcp::ACK | tcp::PSH, 0x20, 0, 0, 0, 0, 0]);
            bytes.extend_from_slice(line.as_bytes());
            self.next = self.next.wrapping_add(line.len() as u32);
            bytes
        }

        fn hear(&mut self, segment: &[u8], (expected, ack): (u32, u32)) {
            let view = Tcp::new(segment).unwrap();
            assert_eq!((view.seq(), view.ack()), (expected, ack));
            self.heard.extend_from_slice(view.payload());
        }
    }

    /// A session with vsftpd 3.0.3 as it is on the wire: `>` the client's lines, `<` the server's.
    const SESSION: [&str; 17] = [
        "<220 (vsFTPd 3.0.3)\r\n",
        ">USER anonymous\r\n",
        "<331 Please specify the password.\r\n",
        ">PASS a@b\r\n",
        "<230 Login successful.\r\n",
        ">PASV\r\n",
        "<227 Entering Passive Mode (192,168,50,11,175,200).\r\n",
        ">LIST\r\n",
        "<150 Here comes the directory listing.\r\n",
        "<226 Directory send OK.\r\n",
        ">EPSV\r\n",
        "<229 Entering Extended Passive Mode (|||40001|)\r\n",
        ">RETR 227 Entering Passive Mode (1,1,1,1,1,1).\r\n",
        "<550 Failed to open file.\r\n",
        ">PASV\r\n",
        "<227 Entering Passive Mode (192,168,50,11,78,33).\r\n",
        ">QUIT\r\n",
    ];

    #[test]
    fn a_session_is_the_same_to_both_ends_but_for_the_addresses() {
        let (start, from_client) = (u32::MAX - 100, 77);
        let mut server = End { next: start, heard: Vec::new() };
        let mut client = End { next: from_client, heard: Vec::new() };
        let mut sessions = ControlConnections::new(8);
        let mut waiting = Vec::new();
        for line in SESSION {
            let heard = start.wrapping_add(client.heard.len() as u32);
            if let Some(line) = line.strip_prefix('>') {
                let acknowledged = server.next;
                let mut segment = client.say(heard, line);
                if ftp::command(line.as_bytes()) == Some(ftp::Command::Passive) {
                    sessions.find_or_insert(1).unwrap().asked = true;
                }
                if let Some(control) = sessions.find(&1) {
                    control.server.restore(&mut segment);
                }
                server.hear(&segment, (client.next - line.len() as u32, acknowledged));
                continue;
            }
            let mut segment = server.say(client.next, &line[1..]);
            if let Some(control) = sessions.find(&1) {
                let payload = &segment[tcp::HEADER_LEN..];
                if let Some(found) = Some(payload).filter(|_| control.asked).and_then(ftp::reply) {
                    control.asked = false;
                    waiting.push(found.port);
                    if let Some(text) = found.text([10, 0, 0, 100].into(), found.port) {
                        assert!(control.server.replace(&segment, (found.at, found.len), &text));
                    }
                }
                let len = segment.len();
                segment.resize(len + ftp::MAX_TEXT, 0);
                let len = control.server.rewrite(&mut segment, len).unwrap();
                segment.truncate(len);
            }
            client.hear(&segment, (heard, client.next));
        }
        assert_eq!(waiting, [45_000, 40_001, 20_001]);
        let said = |mark| SESSION.iter().filter_map(|line| line.strip_prefix(mark)).collect::<String>();
        assert_eq!(server.heard, said('>').into_bytes());
        assert_eq!(client.heard, said('<').replace("192,168,50,11,", "10,0,0,100,").into_bytes());
    }
}
