//! First fragments of SCTP datagrams that NAT has given another port: all is done with them but their checksum, which changes
//! by how long the whole datagram is. They wait for the last fragment, which tells it.

use super::{
    tracker::{Datagram, Fragments},
    waiting::Waiting,
};
use crate::{
    batch::Packet, limits::MAX_UNFINISHED, port::Frame, time::Nanos, verdict::DropReason, wire::sctp::Change,
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

/// A frame, with what is known of it and where it goes.
pub struct First<F> {
    frame: F,
    packet: Packet,
    unsummed: Unsummed,
}

/// See the module.
pub type Unfinished<F> = Waiting<First<F>>;

impl<F: Frame> Unfinished<F> {
    /// Empty, with all the memory that it will use.
    pub(crate) fn new() -> Self {
        Self::with_room(MAX_UNFINISHED)
    }

    /// Holds a frame. Returns the oldest if there is no room for both: it is to be dropped.
    #[must_use]
    #[cold]
    pub fn hold(&mut self, frame: F, packet: Packet, unsummed: Unsummed, now: Nanos) -> Option<F> {
        self.push(First { frame, packet, unsummed }, now).map(|oldest| oldest.frame)
    }

    /// Gives those that are ready, in order, with what was known of each, and those that never will be, to be dropped: at most
    /// `most`.
    #[cold]
    pub fn finish(
        &mut self,
        fragments: &Fragments,
        now: Nanos,
        most: usize,
        mut give: impl FnMut(F, Packet),
    ) {
        let mut left = most;
        let is_over = |first: &mut First<F>| {
            let segment = first.frame.data_mut().get_mut(usize::from(first.packet.layout.l4)..);
            let finished = first.unsummed.finish(segment.unwrap_or_default(), fragments, now);
            finished.unwrap_or_else(|reason| {
                first.packet.drop(reason);
                true
            })
        };
        self.release(fragments.ended(), most, is_over, |first| {
            left -= 1;
            give(first.frame, first.packet);
        });
        for mut first in self.expire(now, left) {
            first.packet.drop(DropReason::FragmentUnmatched);
            give(first.frame, first.packet);
        }
    }
}
