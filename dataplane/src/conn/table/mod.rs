//! The connection table of one worker: preallocated, never resized, no locks: one thread owns it.
//!
//! Two arrays on huge pages. The *index* is an array of buckets, one cache line each: eight 16-bit tags and eight entry
//! numbers. The *entries* are one cache line for an IPv4 connection, two for an IPv6 one, and hold the full key. A key has
//! two candidate buckets; it goes into the first unless that is full, so that nearly every lookup touches one bucket and
//! one entry; a bucket counts those of its keys that are in their second one, so that a key that is nowhere is seldom looked
//! for there. The second bucket follows from the first and the tag, so entries can be moved between their buckets without
//! reading them. At most nine sixteenths of the index are used, so that few keys are not in their first bucket; three quarters
//! leave room for every key (a test fills it).
//!
//! A lookup is three steps, each made for a whole batch before the next begins, so that the memory misses of a batch
//! overlap: [`Table::start`], [`Table::probe`], [`Table::confirm`].

mod buckets;
mod simd;

use super::{key::Key, template::Held};
use crate::{snapshot::Method, time::Ticks};
use buckets::Buckets;
use bytemuck::Zeroable;
use pointsman_hugepages::{Error, HugeSlice, Options, Report};
use simd::tag;
pub(crate) use simd::{alike, prefetch};

/// No entry.
pub const NONE: u32 = u32::MAX;

/// Connections for two buckets at most, on average.
const FILL: usize = 9;

/// Whose packets an entry is for, and how they go on: a connection keeps the method that its server had when it was made. One
/// whose both sides pass the director has two entries, which know each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Zeroable)]
#[repr(u8)]
pub enum Role {
    /// A client's, to a virtual service, by direct routing.
    #[default]
    Direct,
    /// The same through a tunnel.
    Tunnel,
    /// The same to the director itself.
    Local,
    /// The same to a NATed server.
    Nat,
    /// The answers of a NATed server to such a client.
    Server,
    /// Those of a station behind the director that leave from another address (source NAT).
    Outbound,
    /// The answers to those.
    Inbound,
    /// A client's FTP commands to a NATed server: what they say of data connections is heeded.
    Control,
    /// The server's replies to those.
    ControlAnswers,
    /// A client's, of a data connection that an FTP session spoke of: its server's port is its own, not its destination's.
    Data,
    /// The server's of such a one.
    DataAnswers,
}

impl Role {
    /// Whether the entry is a client's, to a virtual service, and nothing more is to be done with its packets.
    #[inline]
    pub fn is_client(self) -> bool {
        self <= Role::Nat
    }

    /// Whether the entry is the connection's own: its state, its time and its list are the connection's.
    #[inline]
    pub fn is_first(self) -> bool {
        self.is_client() || matches!(self, Role::Outbound | Role::Control | Role::Data)
    }

    /// How a client's packets go on, or what others are changed by.
    pub fn method(self) -> Method {
        match self {
            Role::Direct => Method::Direct,
            Role::Tunnel => Method::Tunnel,
            Role::Local => Method::Local,
            _ => Method::Nat,
        }
    }
}

// Where packets are many, roles are told apart by their order.
const _: () = assert!((Role::Tunnel as u8) < Role::Local as u8 && Role::Local as u8 + 1 == Role::Nat as u8);
const _: () = assert!(Role::Nat as u8 + 1 == Role::Server as u8);

impl From<Method> for Role {
    /// That of a client's packets.
    #[inline]
    fn from(method: Method) -> Self {
        match method {
            Method::Direct => Role::Direct,
            Method::Tunnel => Role::Tunnel,
            Method::Local => Role::Local,
            Method::Nat => Role::Nat,
        }
    }
}

/// One connection, or one direction of it.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub struct Entry<K> {
    /// Who talks to what.
    pub key: K,
    /// Packets of the entry's direction.
    pub packets: u64,
    /// Slot of its destination in the snapshot.
    pub destination: u32,
    /// The generation of that slot when the connection was made.
    pub destination_generation: u32,
    /// When its last packet came.
    pub last_seen: Ticks,
    /// Neighbours in the list that it is in; `next` also links free entries. Of an entry for answers, which is in no list:
    /// the next hop of the last one and the generation of the snapshot that said so; of the answers of an FTP data connection,
    /// in `prev`, the number of its session.
    pub(super) prev: u32,
    pub(super) next: u32,
    /// The list that it is in; 0: free.
    pub(super) list: u16,
    /// State of its protocol, the same in both entries of a connection.
    pub state: u8,
    /// Whose packets it is for.
    pub role: Role,
    // Not beside the packets: the two are then one vector, which takes more instructions than two words.
    /// Bytes of the packets, from the IP header on.
    pub bytes: u64,
    /// The template that it was made by.
    pub template: Held,
    /// The entry for the other direction, or [`NONE`].
    pub peer: u32,
}

impl<K: Key> Entry<K> {
    /// With a key and nothing else.
    #[inline(always)]
    pub(super) fn new(key: &K) -> Self {
        Entry { key: *key, prev: NONE, next: NONE, peer: NONE, ..Self::zeroed() }
    }
}

impl<K> Entry<K> {
    /// Counts a packet of `bytes` bytes.
    #[inline]
    pub fn count(&mut self, bytes: u16) {
        self.packets += 1;
        self.bytes += u64::from(bytes);
    }
}

const _: () = assert!(size_of::<Entry<super::key::Key4>>() == 64);
const _: () = assert!(size_of::<Entry<super::key::Key6>>() == 128);

/// All entries are taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// See the module.
pub struct Table<K: Key> {
    buckets: Buckets,
    pub(super) entries: HugeSlice<Entry<K>>,
    secret: [u64; 2],
    /// Head of the list of entries that were freed.
    free: u32,
    /// Entries from here on have never been used.
    fresh: u32,
    len: usize,
}

impl<K: Key> Table<K> {
    /// A table for `capacity` connections (1 to 2^31). `seed` keeps clients from choosing which of them collide.
    ///
    /// # Errors
    /// When the memory is not to be had.
    pub fn new(capacity: usize, seed: u64, memory: &Options) -> Result<Self, Error> {
        let capacity = capacity.clamp(1, 1 << 31);
        // Two odd words with no simple relation, so that neither factor of a key's hash is known.
        let secret = [splitmix(seed) | 1, splitmix(seed ^ 0x5851_f42d_4c95_7f2d) | 1];
        Ok(Self {
            buckets: Buckets::new((2 * capacity).div_ceil(FILL), memory)?,
            entries: HugeSlice::zeroed("connection entries", capacity, memory)?,
            secret,
            free: NONE,
            fresh: 0,
            len: 0,
        })
    }

    /// Connections in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Connections that it has room for.
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// Entries that have been used so far, from number 0 on.
    pub fn used(&self) -> u32 {
        self.fresh
    }

    /// What memory it got.
    pub fn reports(&self) -> [Report; 2] {
        [self.buckets.report().clone(), self.entries.report().clone()]
    }

    /// The hash that the other functions ask for.
    #[inline]
    pub fn hash(&self, key: &K) -> u64 {
        key.hash(&self.secret)
    }

    /// Step 1: hashes a key, which the other steps ask for, and starts to bring its bucket near.
    #[inline]
    pub fn start(&self, key: &K) -> u64 {
        let hash = self.hash(key);
        self.prefetch(hash);
        hash
    }

    /// Starts to bring the bucket of a key near.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(self.buckets.of(hash));
    }

    /// Step 2: the entry that is probably the key's, on its way near; [`NONE`] if it can only be in the second bucket, which
    /// is on its way then, or nowhere.
    #[inline]
    pub fn probe(&self, hash: u64) -> u32 {
        let bucket = self.buckets.of(hash);
        let found = simd::matches(&bucket.tags, hash);
        if found == 0 {
            if bucket.displaced != 0 {
                prefetch(self.buckets.at(self.buckets.other(self.buckets.first(hash), tag(hash))));
            }
            return NONE;
        }
        let entry = bucket.entries[found.trailing_zeros() as usize];
        prefetch(self.entries.as_ptr().wrapping_add(entry as usize));
        entry
    }

    /// Step 3: the key's entry, given what step 2 said.
    #[inline]
    pub fn confirm(&self, key: &K, hash: u64, probed: u32) -> Option<u32> {
        match self.entries.get(probed as usize) {
            Some(entry) if entry.key == *key => Some(probed),
            // The tag was another key's, or the key is in its second bucket.
            Some(_) => self.find(key, hash),
            None => self.find_displaced(key, hash),
        }
    }

    /// All three steps for one key.
    pub fn find(&self, key: &K, hash: u64) -> Option<u32> {
        self.find_in(self.buckets.first(hash), key, hash).or_else(|| self.find_displaced(key, hash))
    }

    /// The entry with that number.
    #[inline]
    pub fn get(&self, entry: u32) -> &Entry<K> {
        &self.entries[entry as usize]
    }

    /// The entry with that number.
    #[inline]
    pub fn get_mut(&mut self, entry: u32) -> &mut Entry<K> {
        &mut self.entries[entry as usize]
    }

    /// Takes an entry for a key that is not in the table. All its other fields are zero.
    pub fn insert(&mut self, key: &K, hash: u64) -> Result<u32, Full> {
        let entry = self.take(hash)?;
        self.entries[entry as usize] = Entry::new(key);
        Ok(entry)
    }

    /// Takes an entry for the key with that hash, which is not in the table. The caller writes the entry.
    #[inline]
    pub(super) fn take(&mut self, hash: u64) -> Result<u32, Full> {
        let entry = if self.free != NONE { self.free } else { self.fresh };
        if entry as usize >= self.entries.len() {
            return Err(Full);
        }
        let (bucket, place) = self.place(hash).ok_or(Full)?;
        let bucket = self.buckets.at_mut(bucket);
        bucket.tags.0[place] = tag(hash);
        bucket.entries[place] = entry;
        if entry == self.free {
            self.free = self.entries[entry as usize].next;
            // The next one that is taken, and this is the only thing that says which it is.
            if let Some(next) = self.entries.get(self.free as usize) {
                prefetch(next);
            }
        } else {
            self.fresh += 1;
        }
        self.len += 1;
        Ok(entry)
    }

    /// Starts to bring near what [`Table::remove_hashed`] of this entry needs, and returns the hash that it asks for.
    #[inline]
    pub fn prefetch_remove(&self, entry: u32) -> u64 {
        let hash = self.hash(&self.entries[entry as usize].key);
        self.prefetch(hash);
        hash
    }

    /// Gives an entry back. It must be in the table.
    pub fn remove(&mut self, entry: u32) {
        let hash = self.hash(&self.entries[entry as usize].key);
        self.remove_hashed(entry, hash);
    }

    /// The same, given the hash of the entry's key.
    #[inline]
    pub fn remove_hashed(&mut self, entry: u32, hash: u64) {
        let first = self.buckets.first(hash);
        let removed = self.clear(first, entry, hash).is_some() || self.clear_displaced(first, entry, hash);
        debug_assert!(removed, "an entry is in one of its two buckets");
        if removed {
            let freed = &mut self.entries[entry as usize];
            // No packet has the zero key, so that a lookup that is under way does not take this for a connection.
            freed.key = K::zeroed();
            freed.list = 0;
            freed.next = self.free;
            self.free = entry;
            self.len -= 1;
        }
    }

    /// The key's entry, if the key is in its second bucket.
    #[inline]
    fn find_displaced(&self, key: &K, hash: u64) -> Option<u32> {
        let first = self.buckets.first(hash);
        if self.buckets.at(first).displaced == 0 {
            return None;
        }
        self.find_in(self.buckets.other(first, tag(hash)), key, hash)
    }

    fn find_in(&self, bucket: usize, key: &K, hash: u64) -> Option<u32> {
        let bucket = self.buckets.at(bucket);
        let mut found = simd::matches(&bucket.tags, hash);
        while found != 0 {
            let entry = bucket.entries[found.trailing_zeros() as usize];
            if self.entries[entry as usize].key == *key {
                return Some(entry);
            }
            found &= found - 1;
        }
        None
    }

    /// A free place for a new key; makes one by moving an entry to its other bucket if both are full.
    #[inline]
    fn place(&mut self, hash: u64) -> Option<(usize, usize)> {
        let first = self.buckets.first(hash);
        match self.room(first) {
            Some(place) => Some((first, place)),
            None => self.place_elsewhere(first, self.buckets.other(first, tag(hash))),
        }
    }

    #[cold]
    fn place_elsewhere(&mut self, first: usize, second: usize) -> Option<(usize, usize)> {
        let (bucket, place) = match self.room(second) {
            Some(place) => (second, place),
            None => self.make_room(first).or_else(|| self.make_room(second))?,
        };
        if bucket != first {
            self.buckets.at_mut(bucket).guests |= 1 << place;
            self.buckets.at_mut(first).displaced += 1;
        }
        Some((bucket, place))
    }

    /// Moves an entry of a full bucket to its other one, if one of them has room there. Returns what it left.
    fn make_room(&mut self, bucket: usize) -> Option<(usize, usize)> {
        for place in 0..8 {
            let from = self.buckets.at(bucket);
            let (moved_tag, moved, is_guest) =
                (from.tags.0[place], from.entries[place], from.guests >> place & 1 != 0);
            let other = self.buckets.other(bucket, moved_tag);
            let Some(free) = self.room(other) else { continue };
            let to = self.buckets.at_mut(other);
            (to.tags.0[free], to.entries[free]) = (moved_tag, moved);
            if is_guest {
                to.displaced -= 1;
                self.buckets.at_mut(bucket).guests &= !(1 << place);
            } else {
                to.guests |= 1 << free;
                self.buckets.at_mut(bucket).displaced += 1;
            }
            return Some((bucket, place));
        }
        None
    }

    #[inline]
    fn room(&self, bucket: usize) -> Option<usize> {
        let free = simd::free(&self.buckets.at(bucket).tags);
        (free != 0).then(|| free.trailing_zeros() as usize)
    }

    /// Frees the place of an entry in a bucket, if it is there.
    #[inline]
    fn clear(&mut self, bucket: usize, entry: u32, hash: u64) -> Option<usize> {
        let bucket = self.buckets.at_mut(bucket);
        let mut found = simd::matches(&bucket.tags, hash);
        while found != 0 {
            let place = found.trailing_zeros() as usize % 8;
            if bucket.entries[place] == entry {
                bucket.tags.0[place] = 0;
                return Some(place);
            }
            found &= found - 1;
        }
        None
    }

    /// The same in the second bucket of a key whose first one is given.
    #[cold]
    fn clear_displaced(&mut self, first: usize, entry: u32, hash: u64) -> bool {
        let second = self.buckets.other(first, tag(hash));
        let Some(place) = self.clear(second, entry, hash) else { return false };
        self.buckets.at_mut(second).guests &= !(1 << place);
        self.buckets.at_mut(first).displaced -= 1;
        true
    }
}

/// SplitMix64: spreads a seed over a word (Steele, Lea, Flood 2014).
pub(crate) fn splitmix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::key::{Key4, Key6};
    use hashbrown::HashMap;
    use pointsman_hugepages::PageChoice;
    use proptest::prelude::*;

    fn ordinary() -> Options {
        Options { pages: PageChoice::Ordinary, numa_node: None, lock: false }
    }

    fn key(n: u32) -> Key4 {
        let [a, b, c, d] = n.to_be_bytes();
        Key4::from_wire([10, a, b, c, 10, 0, 0, 100], [d, 1, 0, 80], 6)
    }

    fn find_in_steps(table: &Table<Key4>, key: &Key4) -> Option<u32> {
        let hash = table.hash(key);
        table.prefetch(hash);
        let probed = table.probe(hash);
        table.confirm(key, hash, probed)
    }

    #[test]
    fn every_entry_can_be_used_at_the_highest_fill() {
        // 6 of 8 places of each bucket: more than a table ever uses.
        let capacity = 6 * 4096;
        for seed in 0..4 {
            let mut table = Table::<Key4>::new(capacity, seed, &ordinary()).unwrap();
            table.buckets = Buckets::new(4096, &ordinary()).unwrap();
            for n in 0..capacity as u32 {
                assert!(table.insert(&key(n), table.hash(&key(n))).is_ok(), "number {n} with seed {seed}");
            }
            assert_eq!(table.insert(&key(u32::MAX), table.hash(&key(u32::MAX))), Err(Full));
            for n in 0..capacity as u32 {
                let entry = find_in_steps(&table, &key(n)).expect("what was inserted is found");
                assert!(table.get(entry).key == key(n));
            }
            assert_eq!(table.len(), capacity);
            let displaced = |table: &Table<Key4>| -> (u32, u32) {
                let buckets = (0..table.buckets.len()).map(|number| table.buckets.at(number));
                buckets.fold((0, 0), |(n, m), b| (n + b.displaced, m + b.guests.count_ones()))
            };
            let (away, guests) = displaced(&table);
            assert!(
                away == guests && away > 0,
                "{away} keys are in their second bucket, {guests} places say so"
            );
            for n in 0..capacity as u32 {
                let entry = table.find(&key(n), table.hash(&key(n))).expect("what was inserted is found");
                table.remove(entry);
            }
            assert_eq!((table.len(), displaced(&table)), (0, (0, 0)));
        }
    }

    #[test]
    fn the_other_bucket_of_the_other_bucket_is_the_first_and_every_size_has_two() {
        for count in [1, 2, 3, 6, 86, 4096, 233_018] {
            let buckets = Buckets::new(count, &ordinary()).unwrap();
            assert!(buckets.len() >= count && buckets.len() <= count + 1);
            let last = buckets.len() - 1;
            assert_eq!((buckets.first(0), buckets.first(u64::MAX)), (0, last), "all of them are used");
            for tag in (0..=u16::MAX).step_by(7) {
                for number in [0, last / 3, last / 2, last] {
                    let other = buckets.other(number, tag);
                    assert!(other <= last && other != number, "{number} of {count} with tag {tag}: {other}");
                    assert_eq!(buckets.other(other, tag), number, "{number} of {count} with tag {tag}");
                }
            }
        }
    }

    /// Fills a table with the keys of consecutive ports of one client, the least random traffic there is.
    fn fills_with_ports_of_one_client<K: Key>(seed: u64, key: impl Fn(u16) -> K) {
        let mut table = Table::<K>::new(384, seed, &ordinary()).unwrap();
        for port in 0..384 {
            let key = key(port);
            assert!(table.insert(&key, table.hash(&key)).is_ok(), "port {port} with seed {seed}");
        }
    }

    #[test]
    fn every_seed_spreads_the_ports_of_one_client() {
        for seed in 0..4000 {
            fills_with_ports_of_one_client(seed, |port| {
                let [a, b] = port.to_be_bytes();
                Key4::from_wire([10, 0, 0, 2, 10, 0, 0, 100], [a, b, 0, 80], 6)
            });
            fills_with_ports_of_one_client(seed, |port| {
                let [a, b] = port.to_be_bytes();
                Key6::from_wire([0xfd; 16], [0xfc; 16], [a, b, 0, 80], 6)
            });
        }
    }

    proptest! {
        #[test]
        fn it_answers_as_a_map_does(operations in prop::collection::vec((any::<bool>(), 0u32..600), 1..2000), seed: u64) {
            let mut table = Table::<Key4>::new(384, seed, &ordinary()).unwrap();
            let mut model: HashMap<u32, u32> = HashMap::new();
            for (insert, n) in operations {
                let key = key(n);
                let hash = table.hash(&key);
                prop_assert_eq!(find_in_steps(&table, &key), model.get(&n).copied());
                prop_assert_eq!(table.find(&key, hash), model.get(&n).copied());
                match (insert, model.get(&n).copied()) {
                    (true, None) => match table.insert(&key, hash) {
                        Ok(entry) => {
                            prop_assert!(!model.values().any(|taken| *taken == entry));
                            model.insert(n, entry);
                        }
                        Err(Full) => prop_assert_eq!(model.len(), 384),
                    },
                    (false, Some(entry)) => {
                        table.remove(entry);
                        model.remove(&n);
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), model.len());
            }
        }
    }
}
