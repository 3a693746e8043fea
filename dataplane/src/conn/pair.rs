//! Connections whose both sides pass the director: the entry for the answers beside the connection's own.
//!
//! The entry for answers is found by what is on the wire, has counters and a time of its own, and knows the state, so that
//! a usual answer touches no other line. It is in no list: it ends with its peer.

use super::{
    Connections, TableFull, destination_of, is_active,
    key::Key,
    state,
    table::{Entry, NONE, Role},
    tcp::Direction,
    template::Held,
    wheel::Wheel,
};
use crate::{
    app::ftp,
    snapshot::{Destination, Snapshot},
    stats::WorkerStats,
    time::Ticks,
    wire::protocol,
};

/// Which side opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// The client.
    Client,
    /// The server.
    Server,
}

impl<K: Key> Connections<K> {
    /// Has the answers of a NATed server found. Where two connections of one client come out at the same server by the same
    /// ports, which no server can tell apart, the answers are the younger one's. Without room there is no connection.
    #[inline(never)]
    pub(super) fn expect_answers(
        &mut self,
        entry: u32,
        destination: &Destination,
        now: Ticks,
        surroundings: (&Snapshot, &WorkerStats),
    ) -> Result<(), TableFull> {
        let made = *self.table.get(entry);
        let (protocol, port) = (made.key.protocol(), made.key.virtual_service().port());
        // A persistent FTP service takes its clients' data connections, whose port stays what it is.
        let is_data =
            destination.virtual_service.is_some_and(|(_, of)| of == ftp::CONTROL_PORT && of != port);
        let (role, of_answers, server_port) = match (protocol, port) {
            (protocol::TCP, ftp::CONTROL_PORT) => (Role::Control, Role::ControlAnswers, destination.port),
            (protocol::TCP, _) if is_data => (Role::Data, Role::DataAnswers, 0),
            _ => (Role::Nat, Role::Server, destination.port),
        };
        let answers = made.key.turned().with_source_address(destination.address, server_port);
        let added = answers.is_some_and(|answers| self.add_peer((entry, made), &answers, of_answers, now));
        self.table.get_mut(entry).role = role;
        if added {
            return Ok(());
        }
        // The caller gives back what the connection would hold.
        self.table.get_mut(entry).template = Held::default();
        self.end(entry, now, surroundings.0);
        Err(TableFull)
    }

    /// Makes room for both entries of a connection, before the first of them stands among those that would give way.
    #[inline]
    pub(super) fn make_room_for_two(
        &mut self,
        now: Ticks,
        surroundings: (&Snapshot, &WorkerStats),
    ) -> Result<(), TableFull> {
        while self.table.capacity() - self.table.len() < 2 {
            self.evict(now, surroundings)?;
        }
        Ok(())
    }

    /// Adds the entry for answers that are known by `key`; false if it could not be.
    fn add_peer(&mut self, (entry, made): (u32, Entry<K>), key: &K, role: Role, now: Ticks) -> bool {
        let hash = self.table.hash(key);
        if let Some(known) = self.table.find(key, hash) {
            if self.table.get(known).role.is_first() {
                return false;
            }
            self.unpair(known);
        }
        let Ok(taken) = self.table.take(hash) else { return false };
        let mut peer = Entry::new(key);
        (peer.role, peer.peer, peer.list) = (role, entry, Wheel::WITH_PEER);
        (peer.destination, peer.destination_generation) = (made.destination, made.destination_generation);
        (peer.state, peer.last_seen) = (made.state, now);
        *self.table.get_mut(taken) = peer;
        self.table.get_mut(entry).peer = taken;
        self.peers += 1;
        true
    }

    /// Takes the entry for answers away from the connection that has it.
    fn unpair(&mut self, peer: u32) {
        let first = self.table.get(peer).peer;
        if let Some(first) = self.table.entries.get_mut(first as usize) {
            first.peer = NONE;
        }
        self.end_peer(peer);
    }

    /// Ends an entry for answers, whose connection has ended.
    pub(super) fn end_peer(&mut self, peer: u32) {
        self.table.remove(peer);
        self.peers -= 1;
    }

    /// Makes a connection of a station behind the director, whose packets leave as those that `answers` answer. When the
    /// table is full the oldest half-open connection gives way; an established one never.
    pub fn create_outbound(
        &mut self,
        (key, hash): (&K, u64),
        answers: &K,
        (event, bytes): (u8, u16),
        now: Ticks,
        (snapshot, stats): (&Snapshot, &WorkerStats),
    ) -> Result<u32, TableFull> {
        self.make_room_for_two(now, (snapshot, stats))?;
        let entry = self.take(hash, now, (snapshot, stats))?;
        let mut made = Entry::new(key);
        (made.role, made.last_seen, made.destination) = (Role::Outbound, now, NONE);
        made.count(bytes);
        made.state = state::first(key.protocol(), Direction::Input, event, self.is_secure(snapshot));
        self.put(entry, made, now, snapshot);
        if !self.add_peer((entry, made), answers, Role::Inbound, now) {
            self.end(entry, now, snapshot);
            return Err(TableFull);
        }
        stats.connections_created.add(1);
        Ok(entry)
    }

    /// Makes the data connection of an FTP session of that number, with the answers `answers`, to the destination in `slot`: the
    /// one that its session has. As with the original it counts as a connection of its destination, and not as one that was scheduled.
    pub fn create_data(
        &mut self,
        (key, answers): (&K, &K),
        (slot, opener, session): (u32, Opener, u32),
        (event, bytes): (u8, u16),
        now: Ticks,
        (snapshot, stats): (&Snapshot, &WorkerStats),
    ) -> Result<u32, TableFull> {
        let destination = snapshot.destinations.get(slot as usize).ok_or(TableFull)?;
        let hash = self.table.hash(key);
        // The client's port may be that of an earlier one, with another server.
        if let Some(known) = self.table.find(key, hash) {
            if !self.table.get(known).role.is_first() {
                return Err(TableFull);
            }
            self.end(known, now, snapshot);
        }
        self.make_room_for_two(now, (snapshot, stats))?;
        let entry = self.take(hash, now, (snapshot, stats))?;
        let mut made = Entry::new(key);
        (made.role, made.last_seen) = (Role::Data, now);
        (made.destination, made.destination_generation) = (slot, destination.generation);
        let direction = match opener {
            Opener::Client => Direction::Input,
            Opener::Server => Direction::Output,
        };
        made.state = state::first(key.protocol(), direction, event, self.is_secure(snapshot));
        destination.shared.connected(is_active(&made));
        self.put(entry, made, now, snapshot);
        if !self.add_peer((entry, made), answers, Role::DataAnswers, now) {
            self.end(entry, now, snapshot);
            return Err(TableFull);
        }
        let peer = self.table.get(entry).peer;
        self.table.get_mut(peer).prev = session;
        let from = if opener == Opener::Client { entry } else { peer };
        self.table.get_mut(from).count(bytes);
        stats.connections_created.add(1);
        Ok(from)
    }

    /// The number of the session that a data connection is of, of whose entries this is one; [`NONE`] if none spoke of it.
    pub fn session_of(&self, entry: u32) -> u32 {
        let found = self.table.get(entry);
        let answers = if found.role == Role::Data { self.table.get(found.peer) } else { found };
        answers.prev
    }

    /// The key of the packets that the peer of an entry is for, turned round: what a packet of the entry becomes.
    pub fn becomes(&self, entry: u32) -> Option<K> {
        let peer = self.table.get(entry).peer;
        self.table.entries.get(peer as usize).map(|peer| peer.key.turned())
    }

    /// The entry for the answers of a connection, if they pass the director.
    pub fn answers(&self, entry: u32) -> Option<&Entry<K>> {
        self.table.entries.get(self.table.get(entry).peer as usize)
    }

    /// The next hop of the last answer of an entry for answers, and whether it was found in this generation. Of any other
    /// entry it means nothing.
    #[inline]
    pub(super) fn last_hop(entry: &Entry<K>, generation: u64) -> (u32, bool) {
        (entry.prev, entry.next == generation as u32)
    }

    /// Remembers the next hop of an answer.
    pub(super) fn remember_hop(&mut self, entry: u32, hop: u32, generation: u64) {
        let entry = self.table.get_mut(entry);
        debug_assert!(!entry.role.is_first(), "it is in no list");
        (entry.prev, entry.next) = (hop, generation as u32);
    }
}

/// Whether there is still what a connection is for: its service, or the rule that gave it its address.
pub(super) fn is_valid<K: Key>(entry: &Entry<K>, snapshot: &Snapshot) -> bool {
    match entry.role {
        Role::Outbound | Role::Inbound => {
            let inside = match entry.role {
                Role::Outbound => entry.key.client().ip(),
                _ => return true,
            };
            snapshot.routing.source_nat.iter().any(|rule| rule.source.contains(inside))
        }
        _ => destination_of(entry, snapshot).is_some(),
    }
}
