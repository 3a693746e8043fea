//! What offloads leave undone about a received frame, done in software. Pure functions over bytes.
//!
//! A sender whose interface splits large segments (TSO) and fills in checksums leaves both to it. Over veth and virtio
//! there is no such interface: frames of up to 64 KiB arrive, with checksums that cover the pseudo-header alone. Receive
//! offload (GRO) makes the same frames out of small ones. The kernel says so beside the frame (`struct
//! virtio_net_hdr`), and what goes out by a raw socket must be split and whole.
//!
//! The segments are those of the kernel's own software (RFC 9293 section 3.8.3 says only that they may be cut anywhere):
//! equal payloads but the last, the IPv4 identification counts up, PSH and FIN are on the last, CWR (RFC 3168) on the
//! first.

use crate::wire::{checksum, ethernet, sctp, vlan};

const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_HEADER: usize = 40;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// How a super-frame is to be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    v6: bool,
    protocol: u8,
    l3: usize,
    l4: usize,
    /// Where the payload begins: each segment repeats all bytes in front of it.
    payload: usize,
    end: usize,
    /// Bytes of payload in each segment but the last.
    size: usize,
}

impl Plan {
    /// To split `frame`, from its Ethernet header on, into segments of `size` bytes of payload. `l4` is where the
    /// kernel says that the TCP or UDP header begins.
    ///
    /// `None` for what is not TCP or UDP directly in IP (a tunnel, extension headers), or cannot be.
    pub fn new(frame: &[u8], l4: usize, size: usize) -> Option<Plan> {
        let (ethertype, l3) = vlan::skip(frame)?;
        let ip = frame.get(l3..)?;
        let (v6, header, protocol, ip_len) = match ethertype {
            ethernet::IPV4 => {
                let ip: &[u8; 20] = ip.first_chunk()?;
                (false, usize::from(ip[0] & 0x0f) * 4, ip[9], be16(ip, 2)?)
            }
            ethernet::IPV6 => {
                let ip: &[u8; IPV6_HEADER] = ip.first_chunk()?;
                let len = be16(ip, 4)?;
                (true, IPV6_HEADER, ip[6], if len == 0 { 0 } else { len + IPV6_HEADER })
            }
            _ => return None,
        };
        let transport = match protocol {
            TCP => usize::from(*frame.get(l4 + 12)? >> 4) * 4,
            UDP => 8,
            _ => return None,
        };
        if header < 20 || l4 != l3 + header || (protocol == TCP && transport < 20) {
            return None;
        }
        // A length of 0 stands for one that 16 bits cannot hold.
        let end = if ip_len == 0 { frame.len() } else { frame.len().min(l3 + ip_len) };
        let payload = l4 + transport;
        (size > 0 && payload < end).then_some(Plan { v6, protocol, l3, l4, payload, end, size })
    }

    /// How many segments there are: at least one.
    pub fn segments(&self) -> usize {
        (self.end - self.payload).div_ceil(self.size)
    }

    /// Bytes of segment `n`, from 0, with its Ethernet header. 0 if there is none.
    pub fn len(&self, n: usize) -> usize {
        let before = n.saturating_mul(self.size);
        let left = (self.end - self.payload).saturating_sub(before).min(self.size);
        if left == 0 { 0 } else { self.payload + left }
    }

    /// Bytes of the longest segment.
    pub fn longest(&self) -> usize {
        self.len(0)
    }

    /// Writes segment `n` of `frame`, for which the plan was made, to `out`, which is [`Self::len`] bytes long.
    /// False if it is not, or the frame is another.
    pub fn write(&self, frame: &[u8], n: usize, out: &mut [u8]) -> bool {
        let len = self.len(n);
        let from = self.payload + n.saturating_mul(self.size);
        if len == 0 || out.len() != len || frame.len() < self.end {
            return false;
        }
        let (headers, payload) = out.split_at_mut(self.payload);
        headers.copy_from_slice(&frame[..self.payload]);
        payload.copy_from_slice(&frame[from..from + payload.len()]);
        self.write_ip(n, out);
        self.write_transport(n, out);
        true
    }

    fn write_ip(&self, n: usize, out: &mut [u8]) {
        let ip_len = out.len() - self.l3;
        let header = &mut out[self.l3..self.l4];
        if self.v6 {
            put16(header, 4, (ip_len - IPV6_HEADER) as u16);
            return;
        }
        put16(header, 2, ip_len as u16);
        let id = u16::from_be_bytes([header[4], header[5]]);
        put16(header, 4, id.wrapping_add(n as u16));
        put16(header, 10, 0);
        let checksum = checksum::of(header);
        put16(header, 10, checksum);
    }

    fn write_transport(&self, n: usize, out: &mut [u8]) {
        let len = out.len() - self.l4;
        let addresses = if self.v6 { self.l3 + 8..self.l3 + 40 } else { self.l3 + 12..self.l3 + 20 };
        let pseudo = checksum::sum(&out[addresses]) + u32::from(self.protocol) + len as u32;
        let segment = &mut out[self.l4..];
        let field = if self.protocol == TCP {
            let first = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
            let sequence = first.wrapping_add((n * self.size) as u32);
            segment[4..8].copy_from_slice(&sequence.to_be_bytes());
            if n + 1 < self.segments() {
                segment[13] &= !(FIN | PSH);
            }
            if n > 0 {
                segment[13] &= !CWR;
            }
            16
        } else {
            put16(segment, 4, len as u16);
            6
        };
        put16(segment, field, 0);
        let checksum = !checksum::fold(pseudo + checksum::sum(segment));
        // 0 would say that there is none (RFC 768); to TCP both are the same.
        put16(segment, field, if checksum == 0 { 0xffff } else { checksum });
    }
}

/// Completes the checksum at `start + offset` of `frame`, which covers everything from `start` on and holds the sum of
/// the pseudo-header. False if the frame ends before.
pub fn complete_checksum(frame: &mut [u8], start: usize, offset: usize) -> bool {
    let Some(covered) = frame.get_mut(start..) else {
        return false;
    };
    if offset == SCTP_CHECKSUM {
        return sctp::refresh(covered);
    }
    if covered.len() < offset + 2 {
        return false;
    }
    let checksum = !checksum::fold(checksum::sum(covered));
    put16(covered, offset, if checksum == 0 { 0xffff } else { checksum });
    true
}

/// Where the checksum is in an SCTP header. No other protocol that the kernel offloads has one there.
const SCTP_CHECKSUM: usize = 8;

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at + 2).map(|two| usize::from(u16::from_be_bytes([two[0], two[1]])))
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ethernet, IPv4 with identification 0xfffe, TCP with sequence number 0xffff_fff0, CWR, ACK, PSH and FIN, and twelve bytes of
    /// timestamps.
    fn tcp4(payload: usize) -> Vec<u8> {
        let mut frame = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0".to_vec();
        let len = (52 + payload) as u16;
        frame.extend([0x45, 0, (len >> 8) as u8, len as u8, 0xff, 0xfe, 0x40, 0, 64, 6, 0, 0]);
        frame.extend([192, 0, 2, 1, 198, 51, 100, 7]);
        frame.extend(*b"\x9c\x40\x00\x50\xff\xff\xff\xf0\x01\x02\x03\x04\x80\x99\xff\xff\0\0\0\0");
        frame.extend(*b"\x01\x01\x08\x0a\0\0\0\x01\0\0\0\x02");
        frame.extend((0..payload).map(|n| n as u8));
        frame
    }

    /// Ethernet with a VLAN tag, IPv6, UDP.
    fn udp6(payload: usize) -> Vec<u8> {
        let mut frame = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x81\0\0\x05\x86\xdd".to_vec();
        let len = (8 + payload) as u16;
        frame.extend([0x60, 0, 0, 0, (len >> 8) as u8, len as u8, 17, 64]);
        frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        frame.extend([0x9c, 0x40, 0x01, 0xbb, (len >> 8) as u8, len as u8, 0, 0]);
        frame.extend((0..payload).map(|n| n as u8));
        frame
    }

    fn split(frame: &[u8], l4: usize, size: usize) -> Vec<Vec<u8>> {
        let plan = Plan::new(frame, l4, size).unwrap();
        let write = |n| {
            let mut out = vec![0xaa; plan.len(n)];
            assert!(plan.write(frame, n, &mut out));
            out
        };
        assert_eq!(plan.len(plan.segments()), 0);
        (0..plan.segments()).map(write).collect()
    }

    /// RFC 1071 section 4.1, a word at a time.
    fn slow_sum(bytes: &[u8]) -> u32 {
        let mut total = 0;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        total
    }

    #[test]
    fn tcp_is_split_as_the_kernel_does() {
        let segments = split(&tcp4(25), 34, 10);
        assert_eq!(segments.iter().map(Vec::len).collect::<Vec<_>>(), [76, 76, 71]);
        let field =
            |at: usize, len: usize| segments.iter().map(|s| s[at..at + len].to_vec()).collect::<Vec<_>>();
        assert_eq!(field(16, 2), [[0, 62], [0, 62], [0, 57]], "total length");
        assert_eq!(field(18, 2), [[0xff, 0xfe], [0xff, 0xff], [0, 0]], "identification");
        let sequence = [[0xff, 0xff, 0xff, 0xf0], [0xff, 0xff, 0xff, 0xfa], [0, 0, 0, 4]];
        assert_eq!(field(38, 4), sequence);
        assert_eq!(field(47, 1), [[0x90], [0x10], [0x19]], "CWR and ACK, ACK, ACK and PSH and FIN");
        assert_eq!(field(54, 12), [*b"\x01\x01\x08\x0a\0\0\0\x01\0\0\0\x02"; 3], "options");
        assert_eq!(segments[2][66..], [20, 21, 22, 23, 24]);
        for segment in &segments {
            assert_eq!(slow_sum(&segment[14..34]), 0xffff);
            let pseudo = slow_sum(&segment[26..34]) + 6 + (segment.len() - 34) as u32;
            assert_eq!(slow_sum(&[&(pseudo as u16).to_be_bytes()[..], &segment[34..]].concat()), 0xffff);
        }
    }

    #[test]
    fn udp_over_ipv6_behind_a_vlan_tag_is_split_into_datagrams() {
        let segments = split(&udp6(2_500), 58, 1_200);
        assert_eq!(segments.iter().map(Vec::len).collect::<Vec<_>>(), [1_266, 1_266, 166]);
        for (segment, len) in segments.iter().zip([1_208_u16, 1_208, 108]) {
            assert_eq!(segment[22..24], len.to_be_bytes(), "payload length");
            assert_eq!(segment[62..64], len.to_be_bytes(), "datagram length");
            let pseudo = slow_sum(&segment[26..58]) + 17 + u32::from(len);
            assert_eq!(
                slow_sum(&[&slow_sum(&pseudo.to_be_bytes()).to_be_bytes()[..], &segment[58..]].concat()),
                0xffff
            );
        }
    }

    #[test]
    fn what_is_not_tcp_or_udp_directly_in_ip_is_refused() {
        let frame = tcp4(100);
        let with = |at: usize, value: u8| {
            let mut frame = frame.clone();
            frame[at] = value;
            frame
        };
        for (frame, l4, size, why) in [
            (frame.clone(), 34, 0, "no size"),
            (frame.clone(), 54, 10, "the transport header is further in: a tunnel"),
            (with(23, 47), 34, 10, "GRE"),
            (with(12, 0x88), 34, 10, "another EtherType"),
            (with(46, 0x40), 34, 10, "a TCP header of 16 bytes"),
            (with(14, 0x44), 30, 10, "an IPv4 header of 16 bytes"),
            (frame[..66].to_vec(), 34, 10, "no payload"),
            (frame[..40].to_vec(), 34, 10, "no TCP header"),
        ] {
            assert_eq!(Plan::new(&frame, l4, size), None, "{why}");
        }
    }

    #[test]
    fn checksums_are_completed_in_place() {
        // Ethernet; UDP from 1 to 2 with payload "ab" between 192.0.2.1 and 192.0.2.2: pseudo-header 0x841c.
        let mut frame = [vec![0; 34], b"\0\x01\0\x02\0\x0a\x84\x1cab".to_vec()].concat();
        assert!(complete_checksum(&mut frame, 34, 6));
        // 0x841c + 1 + 2 + 0xa + 0x6162 = 0xe58b
        assert_eq!(frame[40..42], [0x1a, 0x74]);
        assert!(!complete_checksum(&mut frame, 40, 6));
        assert!(!complete_checksum(&mut frame, 45, 0));
    }

    #[test]
    fn an_sctp_checksum_is_a_crc32c() {
        // RFC 3720 B.4: 32 bytes of zeroes have the CRC32c 0x8a9136aa, sent as aa 36 91 8a.
        let mut packet = [0; 32];
        assert!(complete_checksum(&mut packet, 0, 8));
        assert_eq!(packet[8..12], [0xaa, 0x36, 0x91, 0x8a]);
        assert!(!complete_checksum(&mut [0; 11], 0, 8));
    }

    proptest! {
        #[test]
        fn the_segments_payloads_are_the_payload(payload in 1_usize..5_000, size in 1_usize..2_000) {
            let frame = tcp4(payload);
            let together: Vec<u8> = split(&frame, 34, size).iter().flat_map(|s| s[66..].to_vec()).collect();
            prop_assert_eq!(&together[..], &frame[66..]);
        }

        #[test]
        fn no_frame_panics(mut frame in proptest::collection::vec(any::<u8>(), 0..200), l4 in 0_usize..300, size in 0_usize..300, v6: bool, tcp: bool) {
            if frame.len() > 40 {
                let (ethertype, version) = if v6 { ([0x86, 0xdd], 0x60) } else { ([8, 0], 0x45) };
                frame[12..14].copy_from_slice(&ethertype);
                frame[14] = version;
                frame[if v6 { 20 } else { 23 }] = if tcp { 6 } else { 17 };
            }
            for l4 in [l4, 34, 54] {
                if let Some(plan) = Plan::new(&frame, l4, size) {
                    let mut out = vec![0; plan.longest()];
                    prop_assert!(plan.write(&frame, 0, &mut out));
                }
            }
            complete_checksum(&mut frame, l4, size);
        }
    }
}
