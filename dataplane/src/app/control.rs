//! The FTP sessions of one worker that have asked for a passive data connection.

use super::sequence::Stream;
use hashbrown::HashMap;
use std::hash::Hash;

/// What is known of a session.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// The client has asked where to open a data connection to, and the server has not answered.
    pub asked: bool,
    /// What the server sends.
    pub server: Stream,
}

/// A bounded number of sessions, whose memory is taken at once. Without room the one that was silent for the longest gives
/// way: if a text of its server's was replaced by one of another length, it breaks.
#[derive(Debug)]
pub struct ControlConnections<K> {
    numbers: HashMap<K, u32>,
    /// All that ever were; those that are not linked are free.
    sessions: Vec<Session<K>>,
    free: Vec<u32>,
    capacity: usize,
    /// The ones that were silent for the longest and the shortest time.
    oldest: u32,
    youngest: u32,
}

#[derive(Debug)]
struct Session<K> {
    key: K,
    control: Control,
    older: u32,
    younger: u32,
}

const NONE: u32 = u32::MAX;

impl<K: Copy + Eq + Hash> ControlConnections<K> {
    /// With room for `capacity` sessions.
    pub fn new(capacity: usize) -> Self {
        Self {
            // Twice the room, so that the map never grows for what was removed from it.
            numbers: HashMap::with_capacity(2 * capacity),
            sessions: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            capacity,
            oldest: NONE,
            youngest: NONE,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The session of that key, which is silent no more.
    pub fn find(&mut self, key: &K) -> Option<&mut Control> {
        let number = self.numbers.get(key).copied()?;
        self.unlink(number);
        self.link(number);
        self.sessions.get_mut(number as usize).map(|session| &mut session.control)
    }

    /// The same; a new one if there is none. `None` without any room.
    pub fn find_or_insert(&mut self, key: K) -> Option<&mut Control> {
        if self.capacity == 0 {
            return None;
        }
        if !self.numbers.contains_key(&key) {
            self.insert(key);
        }
        self.find(&key)
    }

    /// Forgets a session that has ended. Says whether there was one.
    pub fn remove(&mut self, key: &K) -> bool {
        let Some(number) = self.numbers.remove(key) else { return false };
        self.unlink(number);
        self.free.push(number);
        true
    }

    fn insert(&mut self, key: K) {
        if self.numbers.len() == self.capacity
            && let Some(oldest) = self.sessions.get(self.oldest as usize)
        {
            let oldest = oldest.key;
            self.remove(&oldest);
        }
        let session = Session { key, control: Control::default(), older: NONE, younger: NONE };
        let number = match self.free.pop() {
            Some(number) => {
                self.sessions[number as usize] = session;
                number
            }
            None => {
                self.sessions.push(session);
                (self.sessions.len() - 1) as u32
            }
        };
        self.link(number);
        self.numbers.insert(key, number);
    }

    /// Makes one that is not linked the youngest.
    fn link(&mut self, number: u32) {
        let before = std::mem::replace(&mut self.youngest, number);
        match self.sessions.get_mut(before as usize) {
            Some(session) => session.younger = number,
            None => self.oldest = number,
        }
        let session = &mut self.sessions[number as usize];
        (session.older, session.younger) = (before, NONE);
    }

    fn unlink(&mut self, number: u32) {
        let session = &self.sessions[number as usize];
        let (older, younger) = (session.older, session.younger);
        match self.sessions.get_mut(older as usize) {
            Some(session) => session.younger = younger,
            None => self.oldest = younger,
        }
        match self.sessions.get_mut(younger as usize) {
            Some(session) => session.older = older,
            None => self.youngest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_one_silent_for_the_longest_gives_way() {
        let mut sessions = ControlConnections::new(3);
        for key in [1, 2, 3] {
            sessions.find_or_insert(key).unwrap().asked = true;
        }
        assert!(sessions.find(&1).is_some());
        assert!(!sessions.find_or_insert(4).unwrap().asked, "it begins anew");
        assert!(sessions.find(&2).is_none());
        assert!(sessions.remove(&3) && !sessions.remove(&3));
        assert!(!sessions.find_or_insert(5).unwrap().asked);
        assert!(sessions.find_or_insert(1).unwrap().asked);
        assert_eq!(sessions.len(), 3);
        assert!(ControlConnections::new(0).find_or_insert(1).is_none());
    }

    proptest! {
        #[test]
        fn it_is_a_list_in_the_order_of_use(steps in proptest::collection::vec((0u8..3, 0u8..12), 0..300)) {
            let mut sessions = ControlConnections::new(5);
            let mut model: Vec<u8> = Vec::new();
            for (what, key) in steps {
                let at = model.iter().position(|known| *known == key);
                match what {
                    0 => prop_assert_eq!(sessions.find(&key).is_some(), at.is_some()),
                    1 => prop_assert!(sessions.find_or_insert(key).is_some()),
                    _ => prop_assert_eq!(sessions.remove(&key), at.is_some()),
                }
                at.map(|at| model.remove(at));
                if what == 1 || what == 0 && at.is_some() {
                    model.push(key);
                }
                if model.len() > 5 {
                    model.remove(0);
                }
                prop_assert_eq!(sessions.len(), model.len());
            }
            for key in 0..12 {
                prop_assert_eq!(sessions.find(&key).is_some(), model.contains(&key));
            }
        }
    }

    #[test]
    fn it_takes_no_memory_after_its_start() {
        let mut sessions = ControlConnections::new(64);
        let measured = allocation_counter::measure(|| {
            for key in 0..10_000u32 {
                assert!(sessions.find_or_insert(key).is_some());
                if key % 3 == 0 {
                    sessions.remove(&(key / 2));
                }
            }
        });
        assert_eq!(measured.count_total, 0);
        assert!(!sessions.is_empty() && sessions.len() <= 64);
    }
}
