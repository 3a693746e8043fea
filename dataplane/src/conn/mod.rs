//! Stage 2: connections, their states and their ends.
//!
//! [`Connections`] is what one worker keeps of one address family: the [`table`], and a wheel that ends connections.
//! A hit stores *last seen* and two counters and nothing else unless the state changes.

mod defence;
pub mod key;
mod lists;
pub mod lookup;
pub mod pair;
pub mod sctp;
pub mod state;
mod sweep;
pub mod table;
pub mod tcp;
pub mod template;
#[cfg(test)]
mod tests;
mod wheel;

use crate::{
    app::control::ControlConnections,
    limits::{EXPIRE_BUDGET, MAX_FTP_SESSIONS},
    policy::Policies,
    snapshot::{Destination, Method, Presence, Snapshot, Timeouts},
    stats::WorkerStats,
    time::Ticks,
    wire::protocol,
};
use arrayvec::ArrayVec;
use key::Key;
use pointsman_hugepages::{Error, Options};
use sctp::SctpState;
use table::{Entry, NONE, Role, Table, prefetch};
use tcp::{Direction, TcpState};
use template::Held;
use wheel::{HalfOpen, LANES, Wheel};

/// The connections of one worker and one address family.
pub struct Connections<K: Key> {
    /// Where they are found.
    pub table: Table<K>,
    /// The FTP sessions among them that have asked for passive data connections, by the session's own entry.
    pub(crate) sessions: ControlConnections<u32>,
    wheel: Wheel,
    /// The tick of the last look at the half-open queues.
    looked: Ticks,
    /// Which queue of half-open connections was looked at first.
    turn: usize,
    sweep: sweep::Sweep,
    /// Entries that are for the other direction of a connection.
    peers: usize,
    defences: defence::Defences,
}

/// Connections whose time has come, with the hashes of their keys.
type Due = ArrayVec<(u32, u64), EXPIRE_BUDGET>;

/// No room, and no half-open connection to give way.
#[derive(Debug, PartialEq, Eq)]
pub struct TableFull;

impl<K: Key> Connections<K> {
    /// With room for `capacity` connections.
    ///
    /// # Errors
    /// When the memory is not to be had.
    pub fn new(capacity: usize, seed: u64, memory: &Options) -> Result<Self, Error> {
        Ok(Self {
            table: Table::new(capacity, seed, memory)?,
            sessions: ControlConnections::new(MAX_FTP_SESSIONS),
            wheel: Wheel::new(),
            looked: Ticks(0),
            turn: 0,
            sweep: sweep::Sweep::default(),
            peers: 0,
            defences: defence::Defences::default(),
        })
    }

    /// Connections in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.table.len() - self.peers
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts to bring near what [`Connections::create`] will need for as many as `wanted` connections: where there is no
    /// room for them, the half-open connections that would give way, and where those are found.
    #[inline]
    pub fn make_ready(&self, wanted: usize) {
        if wanted > self.table.capacity() - self.table.len() {
            self.bring_half_open_near(wanted);
        }
    }

    fn bring_half_open_near(&self, wanted: usize) {
        for queue in HalfOpen::ALL {
            for head in self.wheel.half_open_heads(queue).take(wanted) {
                self.bring_end_near(head);
            }
        }
    }

    /// Starts to bring near what taking an entry from the head of its list and out of the table needs. Returns the hash of
    /// its key.
    #[inline]
    fn bring_end_near(&self, entry: u32) -> u64 {
        if let Some(next) = self.table.entries.get(self.table.get(entry).next as usize) {
            prefetch(next);
        }
        self.table.prefetch_remove(entry)
    }

    /// Makes a connection to the destination in `slot`, from its first packet. When the table is full the oldest half-open
    /// connection gives way; an established one never.
    #[inline(always)]
    pub fn create(
        &mut self,
        (key, hash): (&K, u64),
        (slot, template): (u32, Held),
        (event, bytes): (u8, u16),
        now: Ticks,
        (snapshot, stats): (&Snapshot, &WorkerStats),
    ) -> Result<u32, TableFull> {
        let Some(destination) = snapshot.destinations.get(slot as usize) else {
            debug_assert!(false, "a scheduler picks slots of its own snapshot");
            return Err(TableFull);
        };
        if destination.method == Method::Nat {
            self.make_room_for_two(now, (snapshot, stats))?;
        }
        let entry = self.take(hash, now, (snapshot, stats))?;
        let mut made = Entry::new(key);
        (made.destination, made.role) = (slot, destination.method.into());
        made.template = template;
        made.destination_generation = destination.generation;
        made.last_seen = now;
        made.count(bytes);
        let direction =
            if destination.method == Method::Nat { Direction::Input } else { Direction::InputOnly };
        made.state = state::first(key.protocol(), direction, event, self.is_secure(snapshot));
        destination.shared.connected(is_active(&made));
        self.put(entry, made, now, snapshot);
        if destination.method == Method::Nat {
            self.expect_answers(entry, destination, now, (snapshot, stats))?;
        }
        stats.connections_created.add(1);
        if let Some(counters) = stats.destinations.get(slot as usize) {
            counters.connections.add(1);
        }
        Ok(entry)
    }

    /// Has a connection that was just made wait for its first packet: what made it was none.
    pub fn has_no_packet(&mut self, entry: u32, now: Ticks, snapshot: &Snapshot) {
        // UDP has no such state: its flow stays one of those that give way.
        if matches!(self.table.get(entry).key.protocol(), protocol::TCP | protocol::SCTP) {
            self.changed(entry, state::NONE, now, snapshot);
        }
    }

    /// Writes an entry that was taken, and puts it into the list that its state asks for.
    #[inline(always)]
    fn put(&mut self, entry: u32, mut made: Entry<K>, now: Ticks, snapshot: &Snapshot) {
        // In one piece: the entry is written once.
        if let Some(queue) = half_open_queue(&made, snapshot) {
            (made.list, made.prev) = self.wheel.enqueue_new(&mut self.table.entries, queue, entry);
            *self.table.get_mut(entry) = made;
        } else {
            *self.table.get_mut(entry) = made;
            self.list(entry, now, snapshot);
        }
    }

    /// Takes an entry for the key with that hash; when there is no room, that of the oldest half-open connection.
    #[inline(always)]
    fn take(
        &mut self,
        hash: u64,
        now: Ticks,
        surroundings: (&Snapshot, &WorkerStats),
    ) -> Result<u32, TableFull> {
        self.table.take(hash).or_else(|table::Full| self.take_from_another(hash, now, surroundings))
    }

    /// Ends the oldest half-open connection and takes an entry in its place.
    #[inline(never)]
    fn take_from_another(
        &mut self,
        hash: u64,
        now: Ticks,
        (snapshot, stats): (&Snapshot, &WorkerStats),
    ) -> Result<u32, TableFull> {
        self.evict(now, (snapshot, stats))?;
        self.table.take(hash).map_err(|_| TableFull)
    }

    /// Ends the oldest half-open connection.
    fn evict(&mut self, now: Ticks, (snapshot, stats): (&Snapshot, &WorkerStats)) -> Result<(), TableFull> {
        let oldest = self.wheel.oldest_half_open(&self.table.entries, now).ok_or(TableFull)?;
        self.end(oldest, now, snapshot);
        stats.connections_evicted.add(1);
        Ok(())
    }

    /// Counts a packet of an entry: the state of its connection, its time and its bytes.
    #[inline]
    pub fn touch(&mut self, entry: u32, event: u8, bytes: u16, now: Ticks, snapshot: &Snapshot) {
        let touched = self.table.get_mut(entry);
        touched.count(bytes);
        let (is_first, peer, old) = (touched.role.is_first(), touched.peer, touched.state);
        let direction = match (is_first, peer) {
            (true, NONE) => Direction::InputOnly,
            (true, _) => Direction::Input,
            (false, _) => Direction::Output,
        };
        let protocol = touched.key.protocol();
        let state = state::next(protocol, direction, old, event, self.is_secure(snapshot));
        let first = if is_first { entry } else { peer };
        if state == old && !Wheel::is_half_open(self.table.get(first)) {
            self.table.get_mut(entry).last_seen = now;
            return;
        }
        self.changed(first, state, now, snapshot);
    }

    /// The rare part of [`Connections::touch`]: the state changes, or the connection is half-open and moves in its queue.
    /// `entry` is the connection's own.
    #[cold]
    fn changed(&mut self, entry: u32, state: u8, now: Ticks, snapshot: &Snapshot) {
        let touched = self.table.get_mut(entry);
        let was_active = is_active(touched);
        touched.state = state;
        touched.last_seen = now;
        let active = is_active(touched);
        let (slot, peer) = (touched.destination as usize, touched.peer);
        if let Some(peer) = self.table.entries.get_mut(peer as usize) {
            peer.state = state;
        }
        if active != was_active
            && let Some(destination) = snapshot.destinations.get(slot)
        {
            destination.shared.changed(active);
        }
        let touched = self.table.get(entry);
        let deadline = now.plus(timeout(touched, snapshot));
        let stays = !Wheel::is_half_open(touched)
            && half_open_queue(touched, snapshot).is_none()
            && !self.wheel.is_armed_after(touched, deadline);
        if !stays {
            self.wheel.unlink(&mut self.table.entries, entry);
            self.list(entry, now, snapshot);
        }
    }

    /// Whether a packet that opens a connection begins a new one in the place of this one (`conn_reuse_mode`): TCP's state
    /// is TIME_WAIT or CLOSE, by bit 1 also FIN_WAIT where only the client is seen, SCTP's is CLOSED, and it is of no
    /// template and no FTP data connection; with `expire_nodest_conn` also if its server is `quiesced`, whatever that mode is.
    pub fn is_reused(&self, entry: u32, quiesced: bool, policies: &Policies) -> bool {
        let entry = self.table.get(entry);
        let over = match entry.key.protocol() {
            protocol::TCP => match TcpState::from_u8(entry.state) {
                TcpState::TimeWait | TcpState::Close => true,
                TcpState::FinWait => policies.conn_reuse_mode & 2 != 0 && entry.peer == NONE,
                _ => false,
            },
            protocol::SCTP => SctpState::from_u8(entry.state) == SctpState::Closed,
            _ => false,
        };
        let is_free = !entry.template.is_some() && entry.role != Role::Data;
        (policies.expire_nodest_conn && quiesced) || (policies.conn_reuse_mode != 0 && over && is_free)
    }

    /// Ends a connection now.
    pub fn end(&mut self, entry: u32, now: Ticks, snapshot: &Snapshot) {
        let hash = self.table.hash(&self.table.get(entry).key);
        self.end_hashed((entry, hash), now, snapshot);
    }

    /// The same, given the hash of the entry's key.
    #[inline]
    fn end_hashed(&mut self, (entry, hash): (u32, u64), now: Ticks, snapshot: &Snapshot) {
        debug_assert!(self.table.get(entry).role.is_first(), "an entry for answers ends with its peer");
        if self.table.get(entry).list != 0 {
            self.wheel.unlink(&mut self.table.entries, entry);
        }
        let ended = self.table.get(entry);
        let peer = ended.peer;
        if ended.role == Role::Control {
            self.sessions.remove(&entry);
        }
        if ended.template.is_some() {
            let server = (ended.destination, ended.destination_generation);
            snapshot.templates.release(ended.template, server, now);
        }
        // The slot may be another destination's by now, which never counted this connection.
        if let Some(destination) = snapshot.destinations.get(ended.destination as usize)
            && destination.generation == ended.destination_generation
        {
            destination.shared.disconnected(is_active(ended));
        }
        self.table.remove_hashed(entry, hash);
        if peer != NONE {
            self.end_peer(peer);
        }
    }

    /// Ends the connections whose time has come, visiting at most [`EXPIRE_BUDGET`] of them. Returns how many were visited.
    pub fn expire(&mut self, now: Ticks, snapshot: &Snapshot, stats: &WorkerStats) -> usize {
        let mut due = Due::new();
        let mut visited = 0;
        if now != self.looked {
            self.looked = now;
            self.find_half_open(&mut due, now, snapshot);
            if !due.is_empty() {
                // More of them may be due: look again at the next poll, not at the next tick.
                self.looked = Ticks(now.0.wrapping_sub(1));
            }
        }
        visited += due.len();
        while due.len() + usize::from(LANES) <= EXPIRE_BUDGET
            && visited + usize::from(LANES) <= 2 * EXPIRE_BUDGET
        {
            let mut taken = ArrayVec::<u32, { LANES as usize }>::new();
            let more = self.wheel.take_due(&mut self.table.entries, now, &mut |entry| taken.push(entry));
            visited += taken.len();
            for entry in taken {
                if self.remaining(entry, now, snapshot) == Ticks(0) {
                    due.push((entry, self.table.prefetch_remove(entry)));
                } else {
                    self.list(entry, now, snapshot);
                }
            }
            if !more {
                break;
            }
        }
        if !due.is_empty() {
            stats.connections_expired.add(due.len() as u64);
        }
        for (entry, hash) in due {
            self.end_hashed((entry, hash), now, snapshot);
        }
        visited
    }

    /// How long a connection lives on if no packet comes. `entry` is its own.
    pub fn remaining(&self, entry: u32, now: Ticks, snapshot: &Snapshot) -> Ticks {
        let seen = self.last_seen(entry, now, snapshot);
        Ticks(timeout(self.table.get(entry), snapshot).0.saturating_sub(now.since(seen).0))
    }

    /// When the last packet of either direction came; of an FTP session, also of its data connections: the original keeps it
    /// as long as it has some.
    fn last_seen(&self, entry: u32, now: Ticks, snapshot: &Snapshot) -> Ticks {
        let entry = self.table.get(entry);
        let later = |a: Ticks, b: Ticks| if now.since(b).0 < now.since(a).0 { b } else { a };
        let peer = self.table.entries.get(entry.peer as usize);
        let seen = peer.map_or(entry.last_seen, |peer| later(entry.last_seen, peer.last_seen));
        if entry.role != Role::Control {
            return seen;
        }
        let number = snapshot.expectations.session(entry.key.client(), entry.key.virtual_service());
        snapshot.expectations.last_transfer(number).map_or(seen, |last| later(seen, last))
    }

    /// The connection whose own entry has that number, if it is one.
    pub fn live(&self, entry: u32) -> Option<&Entry<K>> {
        self.table.entries.get(entry as usize).filter(|entry| entry.list != 0 && entry.role.is_first())
    }

    /// Finds half-open connections whose time has come, one a lane at most, and leaves them in their queues. There is room
    /// for others behind them, which a flood must not keep from ending.
    fn find_half_open(&mut self, due: &mut Due, now: Ticks, snapshot: &Snapshot) {
        // Which queue is looked at first changes, so that none fills the budget for long.
        let timeouts = &snapshot.timeouts;
        let mut queues = [
            (HalfOpen::Tcp, timeouts.tcp[TcpState::SynReceived as usize]),
            (HalfOpen::TcpSynAck, timeouts.tcp[TcpState::SynAck as usize]),
            (HalfOpen::Udp, timeouts.udp),
            (HalfOpen::Sctp, timeouts.sctp[SctpState::Init1 as usize]),
            (HalfOpen::SctpCookie, timeouts.sctp[SctpState::CookieSent as usize]),
        ];
        self.turn = (self.turn + 1) % queues.len();
        queues.rotate_left(self.turn);
        for (queue, timeout) in queues {
            for head in self.wheel.half_open_heads(queue).take(due.remaining_capacity() - usize::from(LANES))
            {
                if now.since(self.table.get(head).last_seen).0 >= timeout.0 {
                    due.push((head, self.bring_end_near(head)));
                }
            }
        }
    }

    /// Puts an entry that is in no list into the one that its state asks for.
    fn list(&mut self, entry: u32, now: Ticks, snapshot: &Snapshot) {
        let listed = self.table.get(entry);
        match half_open_queue(listed, snapshot) {
            Some(queue) => self.wheel.enqueue(&mut self.table.entries, queue, entry),
            None => {
                let deadline = self.last_seen(entry, now, snapshot).plus(timeout(listed, snapshot));
                self.wheel.arm(&mut self.table.entries, entry, deadline, now);
            }
        }
    }
}

/// The destination of a connection, if the slot is still that destination's and its service is there.
#[inline]
pub fn destination_of<'a, K>(entry: &Entry<K>, snapshot: &'a Snapshot) -> Option<&'a Destination> {
    snapshot.destinations.get(entry.destination as usize).filter(|destination| {
        destination.generation == entry.destination_generation
            && matches!(destination.presence, Presence::Present | Presence::Removed)
    })
}

/// The state's name as ipvsadm prints it.
pub fn state_name<K: Key>(entry: &Entry<K>) -> &'static str {
    state::name(entry.key.protocol(), entry.state)
}

/// Whether the connection counts as active.
fn is_active<K: Key>(entry: &Entry<K>) -> bool {
    state::is_active(entry.key.protocol(), entry.state)
}

fn timeout<K: Key>(entry: &Entry<K>, snapshot: &Snapshot) -> Ticks {
    state::timeout(
        entry.key.protocol(),
        entry.state,
        timeouts_of(entry, snapshot).unwrap_or(&snapshot.timeouts),
    )
}

/// The times of its service, where that has some of its own.
fn timeouts_of<'a, K>(entry: &Entry<K>, snapshot: &'a Snapshot) -> Option<&'a Timeouts> {
    snapshot.destinations.get(entry.destination as usize)?.timeouts.as_deref()
}

/// The queue that it stands in, if it is half-open: all of one queue have the same time, so that one whose service has
/// times of its own is in none.
fn half_open_queue<K: Key>(entry: &Entry<K>, snapshot: &Snapshot) -> Option<HalfOpen> {
    let queue = state::half_open_queue(entry.key.protocol(), entry.state)?;
    timeouts_of(entry, snapshot).is_none().then_some(queue)
}
