//! What a text of another length does to a TCP connection: sequence numbers (RFC 9293 section 3.4), acknowledgements, and
//! selective ones (RFC 2018).
//!
//! A stream remembers the last text that was replaced in it, so that every segment of it, however the sender cuts it
//! when it sends it again, carries the part that is its own. What was replaced before that is no longer told apart: in an
//! FTP session a reply follows a command that follows the reply before, so that the receiver has all of that.

use super::ftp::{MAX_TEXT, Text};
use crate::wire::{
    checksum,
    tcp::{self, Tcp},
};

/// What one end of a connection sends. *Original* numbers are those of the end that sends it, *given* ones those that the
/// other end sees.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// The original number of the first byte of the text that was replaced.
    at: u32,
    /// Bytes of that text; 0: none was.
    len: u16,
    /// What has its place.
    text: Text,
    /// What is to be added to original numbers before the text, modulo 2^32.
    before: u32,
    /// The original number that follows all that was passed on so far.
    next: Option<u32>,
}

impl Stream {
    /// Whether numbers are given as they are.
    pub fn is_unchanged(&self) -> bool {
        self.len == 0
    }

    /// From now on `text`, of 1 to [`MAX_TEXT`] bytes, has the place of the `len` bytes at `at` of the payload of `segment`.
    /// False, and no change, if that cannot be: a part of them has been passed on as it was, or belongs to a text that was
    /// replaced.
    pub fn replace(&mut self, segment: &[u8], (at, len): (usize, usize), text: &[u8]) -> bool {
        let Some(view) = Tcp::new(segment).filter(Tcp::is_consistent) else { return false };
        let lies_within = at.checked_add(len).is_some_and(|end| end <= view.payload().len());
        let (Ok(len), 1..=MAX_TEXT) = (u16::try_from(len), text.len()) else { return false };
        let at = first_byte(&view).wrapping_add(at as u32);
        let is_new = self.next.is_none_or(|next| is_at_or_after(at, next))
            && (self.is_unchanged() || is_at_or_after(at, self.at.wrapping_add(u32::from(self.len))));
        if !lies_within || !is_new || len == 0 {
            return false;
        }
        let Ok(text) = Text::try_from(text) else { return false };
        *self = Self { at, len, text, before: self.after(), next: self.next };
        true
    }

    /// The given number of an original one.
    pub fn outgoing(&self, seq: u32) -> u32 {
        match self.offset(seq) {
            ..=0 => seq.wrapping_add(self.before),
            offset if offset >= i32::from(self.len) => seq.wrapping_add(self.after()),
            offset => self.at.wrapping_add(self.before).wrapping_add(self.in_text(offset) as u32),
        }
    }

    /// The original number that a given one acknowledges: of all that is given by then.
    pub fn acknowledged(&self, ack: u32) -> u32 {
        // Of a text that is shorter than its replacement the last byte is given when all of that is.
        self.original(ack, i32::from(self.len) - 1)
    }

    /// The original number of the first byte that is given wholly after this number.
    fn held_from(&self, seq: u32) -> u32 {
        self.original(seq, i32::from(self.len))
    }

    fn original(&self, given: u32, most: i32) -> u32 {
        match self.offset(given.wrapping_sub(self.before)) {
            ..=0 => given.wrapping_sub(self.before),
            offset if offset >= self.text.len() as i32 => given.wrapping_sub(self.after()),
            offset => self.at.wrapping_add(offset.min(most) as u32),
        }
    }

    /// Of a segment that the stream's sender sent, which lies in the first `len` bytes of `buffer`: puts the replaced text,
    /// or the part of it that is the segment's, in its place, and gives the sequence number. The checksum, of which the
    /// length in the pseudo-header is a part, is as right or wrong as it was. Returns the new length; `None`, and no
    /// change, if the header is not consistent or the buffer too short.
    pub fn rewrite(&mut self, buffer: &mut [u8], len: usize) -> Option<usize> {
        let view = Tcp::new(buffer.get(..len)?).filter(Tcp::is_consistent)?;
        let (seq, payload) = (view.seq(), view.header_len());
        let first = first_byte(&view);
        let end = first.wrapping_add((len - payload) as u32);
        let given = self.outgoing(seq);
        let edge = |number: u32| self.offset(number).clamp(0, i32::from(self.len));
        let (from, to) = (edge(first), edge(end));
        let new_len = if from < to {
            let start = payload + (from - self.offset(first)) as usize;
            self.splice(
                buffer,
                len,
                start..start + (to - from) as usize,
                self.in_text(from)..self.in_text(to),
            )?
        } else {
            len
        };
        set(buffer, SEQ, given);
        if self.next.is_none_or(|next| is_at_or_after(end, next)) {
            self.next = Some(end);
        }
        Some(new_len)
    }

    /// Of a segment that the stream's receiver sent: gives the acknowledgements their original numbers. The checksum is as
    /// right or wrong as it was.
    pub fn restore(&self, segment: &mut [u8]) {
        let Some(view) = Tcp::new(segment).filter(Tcp::is_consistent) else { return };
        if self.is_unchanged() || view.flags() & tcp::ACK == 0 {
            return;
        }
        let (header, ack) = (view.header_len(), self.acknowledged(view.ack()));
        let Some(header) = segment.get_mut(..header) else { return };
        let sum = checksum::sum(header);
        put(header, ACK, ack);
        let mut at = tcp::HEADER_LEN;
        while let Some((kind, len)) = option(header, at) {
            if kind == SELECTIVE {
                let blocks = header.get_mut(at + 2..at + len).unwrap_or_default();
                blocks.as_chunks_mut::<8>().0.iter_mut().for_each(|block| self.restore_block(block));
            }
            at += len;
        }
        let now = checksum::sum(header);
        correct(header, sum, now);
    }

    fn restore_block(&self, block: &mut [u8; 8]) {
        let [a, b, c, d, e, f, g, h] = *block;
        let left = self.held_from(u32::from_be_bytes([a, b, c, d]));
        let right = self.acknowledged(u32::from_be_bytes([e, f, g, h]));
        // Not even one whole byte: an empty block, which says nothing, rather than one that ends before it begins.
        let right = if is_at_or_after(right, left) { right } else { left };
        *block = (u64::from(left) << 32 | u64::from(right)).to_be_bytes();
    }

    /// Puts the `part` of the text in the place of the bytes `old`, and corrects the checksum. Returns the new length.
    fn splice(
        &self,
        buffer: &mut [u8],
        len: usize,
        old: std::ops::Range<usize>,
        part: std::ops::Range<usize>,
    ) -> Option<usize> {
        let (part, old_len) = (self.text.get(part)?, old.len());
        let new_len = len - old_len + part.len();
        if new_len > buffer.len().min(usize::from(u16::MAX)) {
            return None;
        }
        let sum = checksum::sum(buffer.get(..len)?) + len as u32;
        buffer.copy_within(old.end..len, old.start + part.len());
        buffer.get_mut(old.start..old.start + part.len())?.copy_from_slice(part);
        let now = checksum::sum(buffer.get(..new_len)?) + new_len as u32;
        correct(buffer, sum, now);
        Some(new_len)
    }

    /// Bytes of the replacement that are given in place of the first `offset` bytes of the text.
    fn in_text(&self, offset: i32) -> usize {
        match offset {
            offset if offset >= i32::from(self.len) => self.text.len(),
            offset => (offset.max(0) as usize).min(self.text.len()),
        }
    }

    /// Where an original number lies, from the start of the text on.
    fn offset(&self, seq: u32) -> i32 {
        seq.wrapping_sub(self.at) as i32
    }

    /// What is to be added to original numbers after the text, modulo 2^32.
    fn after(&self) -> u32 {
        self.before.wrapping_add(self.text.len() as u32).wrapping_sub(u32::from(self.len))
    }
}

/// Offsets in the header, and the option of RFC 2018.
const SEQ: usize = 4;
const ACK: usize = 8;
const CHECKSUM: usize = 16;
const SELECTIVE: u8 = 5;

/// The number of the first byte of the payload: a SYN has one of its own.
fn first_byte(view: &Tcp<'_>) -> u32 {
    view.seq().wrapping_add(u32::from(view.flags() & tcp::SYN != 0))
}

fn is_at_or_after(seq: u32, other: u32) -> bool {
    seq.wrapping_sub(other) as i32 >= 0
}

/// The kind and the length of the option at that place of a header, padding included.
fn option(header: &[u8], at: usize) -> Option<(u8, usize)> {
    match header.get(at..)? {
        [] | [0, ..] => None,
        [1, ..] => Some((1, 1)),
        [kind, len, ..] if *len >= 2 => Some((*kind, usize::from(*len))),
        _ => None,
    }
}

/// Sets one of the numbers of a header, with the checksum.
fn set(segment: &mut [u8], at: usize, number: u32) {
    let Some(header) = segment.first_chunk::<{ tcp::HEADER_LEN }>() else { return };
    let old = u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if old == number {
        return;
    }
    let sum = u16::from_be_bytes([header[CHECKSUM], header[CHECKSUM + 1]]);
    let sum = checksum::update32(sum, old, number);
    put(segment, at, number);
    if let Some(place) = segment.get_mut(CHECKSUM..CHECKSUM + 2) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}

fn put(segment: &mut [u8], at: usize, number: u32) {
    if let Some(place) = segment.get_mut(at..at + 4) {
        place.copy_from_slice(&number.to_be_bytes());
    }
}

/// Corrects the checksum of a segment for a change of what it covers from one sum to another, in both of which the field
/// itself counts as it is.
fn correct(segment: &mut [u8], from: u32, to: u32) {
    let Some(place) = segment.get_mut(CHECKSUM..CHECKSUM + 2) else { return };
    let sum = u16::from_be_bytes([place[0], place[1]]);
    let sum = checksum::update16(sum, checksum::fold(from), checksum::fold(to));
    place.copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests;
