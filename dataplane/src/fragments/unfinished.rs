//! First fragments of SCTP datagrams that NAT has given another port: all is done with them but their checksum, which changes
//! by how long the whole datagram is. They wait for the last fragment, which tells it: a few, and not for long.

use super::tracker::{Datagram, Fragments};
use crate::{
    batch::Packet,
    limits::{HELD_MILLIS, MAX_UNFINISHED},
    port::Frame,
    time::Nanos,
    verdict::DropReason,
    wire::sctp::Change,
};

/// What the checksum of such a fragment still takes.
#[derive(Clone, Copy, Debug)]
pub struct Unsummed {
    /// As it came.
    pub(crate) datagram: Datagram,
    /// Where its data ends in the datagram.
    pub(crate) end: u16,
    /// As if nothing followed.
    pub(crate) change: Change,
}

impl Unsummed {
    /// Corrects the checksum of a segment of which this is the front, once the last fragment has said where all ends. False, and no
    /// change, if it has not.
    ///
    /// # Errors
    /// `FragmentMalformed` if that is before this one does.
    pub(crate) fn finish(
        &self,
        front: &mut [u8],
        fragments: &Fragments,
        now: Nanos,
    ) -> Result<bool, DropReason> {
        let Some(end) = fragments.take_end(&self.datagram, now) else { return Ok(false) };
        let rest = end.checked_sub(self.end).ok_or(DropReason::FragmentMalformed)?;
        if self.change.correct(front, usize::from(rest)) {
            Ok(true)
        } else {
            Err(DropReason::TransportHeader)
        }
    }
}

struct Waiting<F> {
    frame: F,
    packet: Packet,
    unsummed: Unsummed,
    since: Nanos,
}

/// See the module. They came in this order.
pub struct Unfinished<F> {
    waiting: Vec<Waiting<F>>,
    /// [`Fragments::ended`] when they were last looked at; none since another has come.
    ended: Option<u64>,
}

impl<F: Frame> Unfinished<F> {
    /// Empty, with all the memory that it will use.
    pub fn new() -> Self {
        Self { waiting: Vec::with_capacity(MAX_UNFINISHED), ended: None }
    }

    /// How many wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Holds a frame, with what is known of it and where it goes. Returns the oldest if there is no room for both: it is to be
    /// dropped.
    #[must_use]
    #[cold]
    pub fn hold(&mut self, frame: F, packet: Packet, unsummed: Unsummed, now: Nanos) -> Option<F> {
        let oldest = (self.waiting.len() == MAX_UNFINISHED).then(|| self.waiting.remove(0).frame);
        self.ended = None;
        self.waiting.push(Waiting { frame, packet, unsummed, since: now });
        oldest
    }

    /// Gives those that are ready, in order and at most `most`, with what was known of each, and those that never will be, to
    /// be dropped.
    #[cold]
    pub fn finish(
        &mut self,
        fragments: &Fragments,
        now: Nanos,
        most: usize,
        mut give: impl FnMut(F, Packet),
    ) {
        let is_late = |waiting: &Waiting<F>| now.0.saturating_sub(waiting.since.0) >= HELD_MILLIS * 1_000_000;
        let ended = fragments.ended();
        if self.ended == Some(ended) && !self.waiting.first().is_some_and(is_late) {
            return;
        }
        let mut left = most;
        let is_over = |waiting: &mut Waiting<F>| {
            if left == 0 {
                return false;
            }
            let segment = waiting.frame.data_mut().get_mut(usize::from(waiting.packet.layout.l4)..);
            let is_over = match waiting.unsummed.finish(segment.unwrap_or_default(), fragments, now) {
                Ok(is_finished) => {
                    if !is_finished && is_late(waiting) {
                        waiting.packet.drop(DropReason::FragmentUnmatched);
                    }
                    is_finished || is_late(waiting)
                }
                Err(reason) => {
                    waiting.packet.drop(reason);
                    true
                }
            };
            left -= usize::from(is_over);
            is_over
        };
        for waiting in self.waiting.extract_if(.., is_over) {
            give(waiting.frame, waiting.packet);
        }
        // If there may be more of them, the next call looks again.
        self.ended = (left > 0).then_some(ended);
    }
}

impl<F: Frame> Default for Unfinished<F> {
    fn default() -> Self {
        Self::new()
    }
}
