//! The data connections that FTP sessions spoke of and that nobody has opened yet.
//!
//! A session and its data connection may be of two workers, so that all share them, and the times of the last packets of
//! sessions' data connections, which keep the sessions alive: in shards, each behind a lock that is
//! held for one question. Only a segment that would open a connection asks, and only while there are any. All memory is taken
//! at once. Without room the oldest of a shard gives way: its client is answered with a reset, and asks again.

use crate::{conn::pair::Opener, limits::MAX_EXPECTED, time::Ticks};
use arrayvec::ArrayVec;
use crossbeam::utils::CachePadded;
use hashbrown::DefaultHashBuilder;
use std::{
    hash::BuildHasher,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
};

/// A data connection that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Who opens it.
    pub opener: Opener,
    /// The client and its port; any port if it is the client who opens it.
    pub client: SocketAddr,
    /// The client's idea of the server.
    pub virtual_service: SocketAddr,
    /// The server and its port.
    pub server: SocketAddr,
    /// Slot of the session's destination.
    pub slot: u32,
    /// The generation of that slot.
    pub generation: u32,
    /// The session's number: see [`Expectations::session`].
    pub session: u32,
}

impl Expected {
    /// Where the segment that opens it comes from, whatever its port may be, and where it goes.
    fn ends(&self) -> (SocketAddr, SocketAddr) {
        match self.opener {
            Opener::Client => (SocketAddr::new(self.client.ip(), 0), self.virtual_service),
            Opener::Server => (self.server, self.client),
        }
    }

    fn is_opened_by(&self, source: SocketAddr, destination: SocketAddr) -> bool {
        let (from, to) = self.ends();
        from.ip() == source.ip()
            && to == destination
            && (self.opener == Opener::Client || from.port() == source.port())
    }
}

/// See the module.
pub struct Expectations {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    hasher: DefaultHashBuilder,
    /// How many there are, those whose time is over included.
    count: AtomicUsize,
    /// The shard that is looked at next for those whose time is over.
    turn: AtomicUsize,
    /// When the last packet of a data connection came, by the number of its session; 0 if none has for long.
    transfers: Box<[AtomicU32]>,
    /// The number that is looked at next for what is old.
    oldest: AtomicUsize,
}

/// Those of a shard, the oldest first, and until when they are expected.
type Shard = ArrayVec<(Expected, Ticks), { Expectations::IN_SHARD }>;

impl Default for Expectations {
    fn default() -> Self {
        Self {
            shards: (0..Self::SHARDS).map(|_| CachePadded::new(Mutex::new(Shard::new()))).collect(),
            hasher: DefaultHashBuilder::default(),
            count: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            transfers: (0..MAX_EXPECTED).map(|_| AtomicU32::new(0)).collect(),
            oldest: AtomicUsize::new(0),
        }
    }
}

impl std::fmt::Debug for Expectations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expectations({})", self.len())
    }
}

impl Expectations {
    const SHARDS: usize = 64;
    const IN_SHARD: usize = MAX_EXPECTED / Self::SHARDS;
    /// After which a transfer is forgotten: longer than any session lives on, and far from half the clock's range.
    const OLD: Ticks = Ticks::from_secs(31 * 86_400);

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Expects a connection for `lives` from now on, in place of another one that the same segment would open.
    pub fn add(&self, expected: Expected, (now, lives): (Ticks, Ticks)) {
        let (from, to) = expected.ends();
        let mut shard = self.lock(self.number(from, to));
        let before = shard.len();
        let same = |known: &Expected| known.opener == expected.opener && known.ends() == expected.ends();
        shard.retain(|(known, until)| !same(known) && is_live(*until, now));
        if shard.is_full() {
            shard.remove(0);
        }
        shard.push((expected, now.plus(lives)));
        self.changed(before, shard.len());
    }

    /// The one that a segment between these ends opens. It is expected no more.
    pub fn take(&self, source: SocketAddr, destination: SocketAddr, now: Ticks) -> Option<Expected> {
        let mut shard = self.lock(self.number(source, destination));
        let at = shard
            .iter()
            .position(|(known, until)| known.is_opened_by(source, destination) && is_live(*until, now))?;
        let (expected, _) = shard.remove(at);
        self.changed(1, 0);
        Some(expected)
    }

    /// Forgets those of one shard whose time is over, and an old transfer. Called once a tick.
    pub fn expire(&self, now: Ticks) {
        let number = self.oldest.fetch_add(1, Relaxed) % self.transfers.len();
        if self.last_transfer(number as u32).is_some_and(|last| now.since(last).0 > Self::OLD.0) {
            self.transfers[number].store(0, Relaxed);
        }
        if self.is_empty() {
            return;
        }
        let mut shard = self.lock(self.turn.fetch_add(1, Relaxed));
        let before = shard.len();
        shard.retain(|(_, until)| is_live(*until, now));
        self.changed(before, shard.len());
    }

    /// The number of a session, told by its client and its virtual service. Now and then two have the same, so that the
    /// transfers of one keep both alive.
    pub fn session(&self, client: SocketAddr, virtual_service: SocketAddr) -> u32 {
        // Of that many at most.
        (self.hasher.hash_one((client, virtual_service)) % self.transfers.len() as u64) as u32
    }

    /// Notes a packet of a data connection of the session with that number.
    pub fn transfers(&self, session: u32, now: Ticks) {
        let now = now.0.max(1);
        if let Some(last) = self.transfers.get(session as usize)
            && last.load(Relaxed) != now
        {
            last.store(now, Relaxed);
        }
    }

    /// When the last one came, if one did in the last month.
    pub fn last_transfer(&self, session: u32) -> Option<Ticks> {
        let last = self.transfers.get(session as usize)?.load(Relaxed);
        (last != 0).then_some(Ticks(last))
    }

    fn changed(&self, before: usize, after: usize) {
        if after > before {
            self.count.fetch_add(after - before, Relaxed);
        } else {
            self.count.fetch_sub(before - after, Relaxed);
        }
    }

    /// The shard of a connection, whatever the port of who opens it.
    fn number(&self, source: SocketAddr, destination: SocketAddr) -> usize {
        self.hasher.hash_one((source.ip(), destination)) as usize
    }

    fn lock(&self, number: usize) -> MutexGuard<'_, Shard> {
        // What a panicking holder left is whole: every change of a shard is made by one call that does not panic.
        self.shards[number % Self::SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_live(until: Ticks, now: Ticks) -> bool {
    until.since(now).0 > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Ticks = Ticks::from_secs(100);
    const LIVES: Ticks = Ticks::from_secs(120);

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// By the client 10.0.0.2 at this port of the virtual address.
    fn passive(port: u16) -> Expected {
        Expected {
            opener: Opener::Client,
            client: at("10.0.0.2:0"),
            virtual_service: SocketAddr::new([10, 0, 0, 100].into(), port),
            server: SocketAddr::new([192, 168, 50, 11].into(), port),
            slot: 3,
            generation: 4,
            session: 5,
        }
    }

    #[test]
    fn an_old_transfer_is_forgotten_before_the_clock_takes_it_for_a_new_one() {
        let all = Expectations::default();
        assert_eq!(all.last_transfer(7), None);
        all.transfers(7, Ticks(0));
        assert_eq!(all.last_transfer(7), Some(Ticks(1)));
        let look_at_all = |now| (0..MAX_EXPECTED).for_each(|_| all.expire(now));
        look_at_all(Ticks::from_secs(86_400));
        assert_eq!(all.last_transfer(7), Some(Ticks(1)));
        look_at_all(Ticks::from_secs(40 * 86_400));
        assert_eq!(all.last_transfer(7), None);
    }

    #[test]
    fn a_client_opens_it_from_any_port_once() {
        let all = Expectations::default();
        all.add(passive(40_000), (NOW, LIVES));
        for (source, destination) in [
            ("10.0.0.3:5000", "10.0.0.100:40000"),
            ("10.0.0.2:5000", "10.0.0.100:40001"),
            ("10.0.0.2:5000", "10.0.0.101:40000"),
        ] {
            assert_eq!(all.take(at(source), at(destination), NOW), None, "{source} to {destination}");
        }
        let taken = all.take(at("10.0.0.2:5000"), at("10.0.0.100:40000"), NOW);
        assert_eq!(taken, Some(passive(40_000)));
        assert_eq!(all.take(at("10.0.0.2:5000"), at("10.0.0.100:40000"), NOW), None);
        assert!(all.is_empty());
    }

    #[test]
    fn a_server_opens_it_from_its_data_port_alone() {
        let all = Expectations::default();
        let active = Expected {
            opener: Opener::Server,
            client: at("10.0.0.2:50000"),
            virtual_service: at("10.0.0.100:20"),
            server: at("192.168.50.11:20"),
            slot: 3,
            generation: 4,
            session: 5,
        };
        all.add(active, (NOW, LIVES));
        assert_eq!(all.take(at("192.168.50.11:2020"), at("10.0.0.2:50000"), NOW), None);
        assert_eq!(all.take(at("192.168.50.12:20"), at("10.0.0.2:50000"), NOW), None);
        assert_eq!(all.take(at("192.168.50.11:20"), at("10.0.0.2:50000"), NOW), Some(active));
    }

    #[test]
    fn one_that_nobody_opens_is_forgotten() {
        let all = Expectations::default();
        all.add(passive(40_000), (NOW, LIVES));
        let before = NOW.plus(Ticks::from_secs(119));
        let over = NOW.plus(LIVES);
        for _ in 0..64 {
            all.expire(before);
        }
        assert_eq!(all.len(), 1);
        assert_eq!(all.take(at("10.0.0.2:1"), at("10.0.0.100:40000"), over), None);
        for _ in 0..64 {
            all.expire(over);
        }
        assert!(all.is_empty());
    }

    #[test]
    fn the_latest_word_counts_and_a_full_shard_forgets_its_oldest() {
        let all = Expectations::default();
        all.add(passive(40_000), (NOW, LIVES));
        all.add(Expected { slot: 9, ..passive(40_000) }, (NOW, LIVES));
        assert_eq!(all.len(), 1);
        assert_eq!(all.take(at("10.0.0.2:1"), at("10.0.0.100:40000"), NOW).unwrap().slot, 9);
        let measured = allocation_counter::measure(|| {
            for port in 1..=u16::MAX {
                all.add(passive(port), (NOW, LIVES));
            }
        });
        assert_eq!((measured.count_total, all.len()), (0, 4096));
        let opens = |port| all.take(at("10.0.0.2:1"), SocketAddr::new([10, 0, 0, 100].into(), port), NOW);
        assert_eq!((opens(1), opens(u16::MAX)), (None, Some(passive(u16::MAX))));
    }
}
