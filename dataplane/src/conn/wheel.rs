//! When connections end.
//!
//! A packet only stores when it came. A wheel visits each connection when it could have ended at the earliest, and arms it
//! again if it has been used meanwhile. Half-open connections (TCP in SYN_RECV, SCTP up to COOKIE_SENT, UDP flows whose
//! client has sent one packet) stand in queues by the time of their last packet instead: all of one queue have the same
//! timeout, so the head ends first, and the head is also the one that gives way when the table is full.
//!
//! Every list is kept in several lanes that are walked side by side, so that the memory misses of the walk overlap: a
//! slot of the wheel in eight, a queue of half-open connections, which a flood goes through at full speed, in as many as
//! a batch has packets. They join its lanes in turn and leave them in turn, but for lanes whose first is younger than the
//! others' because some left in between.

use super::{
    lists::Lists,
    table::{Entry, NONE, prefetch},
};
use crate::time::Ticks;

/// Lanes of each slot.
pub(super) const LANES: u16 = 8;
/// Lanes of each queue of half-open connections: the bits of a word.
const QUEUE_LANES: u16 = u64::BITS as u16;
/// A slot of the wheel is 2^6 ticks: 0.64 s.
const SLOT_SHIFT: u32 = 6;
/// Ticks by which a connection that gives way may be younger than the oldest.
const NEARLY: u32 = 1;
/// Slots: 1,310 s in all. A longer wait is armed again on the way.
const SLOTS: u32 = 2048;
/// Slot numbers wrap where ticks do.
const SLOT_NUMBERS: u32 = 1 << (32 - SLOT_SHIFT);

/// The queues of half-open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HalfOpen {
    Tcp = 0,
    Udp = 1,
    Sctp = 2,
    TcpSynAck = 3,
    /// Whose client has not returned the cookie: INIT and COOKIE_SENT, which have the same time.
    SctpCookie = 4,
}

impl HalfOpen {
    pub(super) const ALL: [HalfOpen; 5] =
        [HalfOpen::Tcp, HalfOpen::Udp, HalfOpen::Sctp, HalfOpen::TcpSynAck, HalfOpen::SctpCookie];
}

/// Which lanes of a queue have connections, and whose turn it is.
#[derive(Clone, Copy, Default)]
struct Turns {
    /// Bit `n`: lane `n` has some.
    occupied: u64,
    /// The lane that the next connection joins.
    join: u32,
    /// The lane that the next one gives way in, or the first one after it that has some.
    leave: u32,
    /// The last packet of the oldest connection when all lanes were last looked at.
    oldest: Ticks,
}

/// A connection that would give way.
#[derive(Clone, Copy)]
struct Oldest {
    age: u32,
    entry: u32,
    queue: HalfOpen,
    lane: u32,
}

impl Turns {
    /// The occupied lanes, the one whose turn it is to leave first.
    fn lanes(self) -> impl Iterator<Item = u32> {
        let mut left = self.occupied.rotate_right(self.leave);
        std::iter::from_fn(move || {
            let ahead = (left != 0).then(|| left.trailing_zeros())?;
            left &= left - 1;
            Some((self.leave + ahead) % u64::BITS)
        })
    }
}

/// See the module.
pub(super) struct Wheel {
    lists: Lists,
    /// The slot that is visited next; `None` before the first visit.
    at: Option<u32>,
    /// By queue of half-open connections.
    turns: [Turns; HalfOpen::ALL.len()],
}

impl Wheel {
    /// Stands for the list of an entry that is in none because its peer is: see [`super::table::Role`].
    pub(super) const WITH_PEER: u16 = 1;
    const FIRST: u16 = 2;
    const QUEUES: u16 = Self::FIRST + SLOTS as u16 * LANES;

    pub(super) fn new() -> Self {
        let lists = Lists::new(usize::from(Self::QUEUES) + HalfOpen::ALL.len() * usize::from(QUEUE_LANES));
        Self { lists, at: None, turns: Default::default() }
    }

    /// Has `entry`, which is in no list, visited at `deadline` or soon after.
    pub(super) fn arm<K>(&mut self, entries: &mut [Entry<K>], entry: u32, deadline: Ticks, now: Ticks) {
        let at = self.at.unwrap_or(now.0 >> SLOT_SHIFT);
        let ahead = (deadline.0 >> SLOT_SHIFT).wrapping_sub(at) % SLOT_NUMBERS;
        // A deadline that has passed is visited next; one beyond the wheel when the wheel has turned.
        let ahead = if ahead > SLOT_NUMBERS / 2 { 1 } else { ahead.clamp(1, SLOTS - 1) };
        let list = Self::slot_list(at.wrapping_add(ahead), lane(entry));
        self.lists.append(entries, list, entry);
    }

    /// Whether the entry is armed for later than `deadline`, so that it must be armed anew.
    pub(super) fn is_armed_after<K>(&self, entry: &Entry<K>, deadline: Ticks) -> bool {
        let Some(at) = self.at else { return true };
        let armed = (u32::from(entry.list - Self::FIRST) / u32::from(LANES)).wrapping_sub(at) % SLOTS;
        let wanted = (deadline.0 >> SLOT_SHIFT).wrapping_sub(at) % SLOT_NUMBERS;
        // One that has passed is behind the wheel.
        wanted > SLOT_NUMBERS / 2 || armed > wanted
    }

    /// Puts an entry that is in no list at the end of a queue of half-open ones.
    pub(super) fn enqueue<K>(&mut self, entries: &mut [Entry<K>], queue: HalfOpen, entry: u32) {
        let list = self.join(queue);
        self.lists.append(entries, list, entry);
    }

    /// The same for an entry that is yet to be written. Returns its list and the entry that comes before it there.
    #[inline]
    pub(super) fn enqueue_new<K>(
        &mut self,
        entries: &mut [Entry<K>],
        queue: HalfOpen,
        entry: u32,
    ) -> (u16, u32) {
        let list = self.join(queue);
        (list, self.lists.push(entries, list, entry))
    }

    /// The list that the next connection joins.
    #[inline]
    fn join(&mut self, queue: HalfOpen) -> u16 {
        let turns = &mut self.turns[queue as usize];
        let lane = turns.join % u64::BITS;
        turns.join = lane + 1;
        turns.occupied |= 1 << lane;
        Self::queue_list(queue, lane)
    }

    /// Whether the entry stands in a queue of half-open ones.
    #[inline]
    pub(super) fn is_half_open<K>(entry: &Entry<K>) -> bool {
        entry.list >= Self::QUEUES
    }

    /// Takes an entry out of the list that it is in.
    #[inline]
    pub(super) fn unlink<K>(&mut self, entries: &mut [Entry<K>], entry: u32) {
        let list = self.lists.unlink(entries, entry);
        if list >= Self::QUEUES && self.lists.head(list) == NONE {
            let (queue, lane) = ((list - Self::QUEUES) / QUEUE_LANES, (list - Self::QUEUES) % QUEUE_LANES);
            self.turns[usize::from(queue)].occupied &= !(1 << lane);
        }
    }

    /// The half-open connection whose last packet is the longest ago, to [`NEARLY`]. Its lane has had its turn then.
    #[inline]
    pub(super) fn oldest_half_open<K>(&mut self, entries: &[Entry<K>], now: Ticks) -> Option<u32> {
        let heads = HalfOpen::ALL.map(|queue| self.oldest_of(queue, entries, now));
        let best =
            heads.into_iter().flatten().reduce(|best, head| if head.age > best.age { head } else { best })?;
        self.turns[best.queue as usize].leave = (best.lane + 1) % u64::BITS;
        Some(best.entry)
    }

    /// The same of one queue. Lanes have different lengths where some left in between, and so heads of different age: one
    /// that is too young is passed over. All are looked at only when the oldest of the last such look have gone.
    #[inline]
    fn oldest_of<K>(&mut self, queue: HalfOpen, entries: &[Entry<K>], now: Ticks) -> Option<Oldest> {
        let turns = self.turns[queue as usize];
        // A mark of months ago says nothing: it is too old for any to be as old.
        let enough = now.0.wrapping_sub(turns.oldest.0);
        let mut oldest: Option<Oldest> = None;
        for lane in turns.lanes() {
            let entry = self.lists.head(Self::queue_list(queue, lane));
            let age = now.since(entries.get(entry as usize)?.last_seen).0;
            let head = Oldest { age, entry, queue, lane };
            if age.saturating_add(NEARLY) >= enough {
                return Some(head);
            }
            if oldest.is_none_or(|oldest| age > oldest.age) {
                oldest = Some(head);
            }
        }
        self.turns[queue as usize].oldest = entries.get(oldest?.entry as usize)?.last_seen;
        oldest
    }

    /// The heads of the lanes of a queue, in the order in which they would give way.
    #[inline]
    pub(super) fn half_open_heads(&self, queue: HalfOpen) -> impl Iterator<Item = u32> {
        self.turns[queue as usize].lanes().map(move |lane| self.lists.head(Self::queue_list(queue, lane)))
    }

    /// Takes up to one entry a lane out of the slots whose time has passed by `now` into `due`. Returns whether there may
    /// be more.
    pub(super) fn take_due<K>(
        &mut self,
        entries: &mut [Entry<K>],
        now: Ticks,
        due: &mut impl FnMut(u32),
    ) -> bool {
        let end = now.0 >> SLOT_SHIFT;
        let mut at = self.at.unwrap_or(end);
        let behind = end.wrapping_sub(at) % SLOT_NUMBERS;
        if behind > SLOT_NUMBERS / 2 {
            return false;
        }
        if behind > SLOTS {
            // No visit for longer than a turn: each slot need be visited only once.
            at = end.wrapping_sub(SLOTS) % SLOT_NUMBERS;
        }
        // An empty slot costs little: up to 64 of them are passed in one call.
        for _ in 0..64 {
            if at == end {
                break;
            }
            let heads: [u32; LANES as usize] =
                std::array::from_fn(|lane| self.lists.head(Self::slot_list(at, lane as u16)));
            if heads.iter().any(|head| *head != NONE) {
                self.at = Some(at);
                for head in heads {
                    if let Some(entry) = entries.get(head as usize) {
                        prefetch(entry);
                    }
                }
                for head in heads.into_iter().filter(|head| *head != NONE) {
                    self.lists.unlink(entries, head);
                    due(head);
                }
                return true;
            }
            at = at.wrapping_add(1) % SLOT_NUMBERS;
        }
        self.at = Some(at);
        at != end
    }

    fn slot_list(slot: u32, lane: u16) -> u16 {
        Self::FIRST + (slot % SLOTS) as u16 * LANES + lane
    }

    #[inline]
    fn queue_list(queue: HalfOpen, lane: u32) -> u16 {
        Self::QUEUES + queue as u16 * QUEUE_LANES + lane as u16
    }
}

fn lane(entry: u32) -> u16 {
    (entry % u32::from(LANES)) as u16
}
