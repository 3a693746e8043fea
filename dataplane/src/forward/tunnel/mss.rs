//! The maximum segment size that a SYN asks for (RFC 9293 section 3.7.1), lowered to what fits into a tunnel.

use crate::{
    batch::Layout,
    wire::{checksum, ipv4, ipv6, tcp},
};

const END: u8 = 0;
const NOTHING: u8 = 1;
const MAXIMUM_SEGMENT: u8 = 2;

/// Lowers the option MSS of the segment in a frame so that segments of that size are IP packets of `mtu` bytes at most. It is
/// never raised nor added, and options that are broken stay as they are.
#[cold]
pub(super) fn clamp(frame: &mut [u8], layout: &Layout, mtu: u16) {
    let headers = if layout.v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN } + tcp::HEADER_LEN;
    let most = mtu.saturating_sub(headers as u16);
    let Some(segment) = frame.get_mut(usize::from(layout.l4)..usize::from(layout.end)) else {
        return;
    };
    let Some(header) = tcp::Tcp::new(segment).filter(tcp::Tcp::is_consistent).map(|tcp| tcp.header_len())
    else {
        return;
    };
    let Some((at, asked)) = maximum_segment(&segment[..header]).filter(|(_, asked)| *asked > most) else {
        return;
    };
    segment[at..at + 2].copy_from_slice(&most.to_be_bytes());
    // At an odd place its bytes are in the other halves of two words of the sum.
    let (old, new) = if at % 2 == 0 { (asked, most) } else { (asked.swap_bytes(), most.swap_bytes()) };
    let sum = checksum::update16(u16::from_be_bytes([segment[16], segment[17]]), old, new);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
}

/// Where in the header the value of the option is, and the value.
fn maximum_segment(header: &[u8]) -> Option<(usize, u16)> {
    let mut at = tcp::HEADER_LEN;
    loop {
        match *header.get(at..)? {
            [NOTHING, ..] => at += 1,
            [MAXIMUM_SEGMENT, 4, high, low, ..] => return Some((at + 2, u16::from_be_bytes([high, low]))),
            [END | MAXIMUM_SEGMENT, ..] => return None,
            [_, len, ..] if len >= 2 => at += usize::from(len),
            _ => return None,
        }
    }
}
