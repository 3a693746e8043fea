//! The connection table alone: a full one, and batches of keys looked up as the packet path does it, each of the three steps
//! for all of a batch before the next.

use crate::traffic::{Pattern, Permuted, VIP, VPORT, client};
use arrayvec::ArrayVec;
use pointsman_dataplane::{
    conn::{key::Key4, table::Table},
    limits::BATCH,
    wire::{protocol, tcp},
};
use pointsman_hugepages::{Error, Options, PageSize};

/// A table that holds a connection for each flow below its capacity, but for some free places.
pub struct Lookup {
    table: Table<Key4>,
    pattern: Permuted,
    flows: u32,
}

/// The key of a flow.
#[inline]
pub fn key(flow: u32) -> Key4 {
    let (address, port) = client(flow);
    let addresses = u64::from(address) << 32 | u64::from(VIP.to_bits());
    let ports = u32::from(port) << 16 | u32::from(VPORT);
    Key4::from_wire(addresses.to_be_bytes(), ports.to_be_bytes(), protocol::TCP)
}

impl Lookup {
    /// With `flows` connections and room for one batch more.
    ///
    /// # Errors
    /// When the memory is not to be had.
    pub fn new(flows: u32, memory: &Options) -> Result<Self, Error> {
        let mut table = Table::new(flows as usize + BATCH, 0x5eed, memory)?;
        for flow in 0..flows {
            let key = key(flow);
            let inserted = table.insert(&key, table.hash(&key));
            assert!(inserted.is_ok(), "there is room for every flow");
        }
        Ok(Self { table, pattern: Permuted::new(flows, tcp::ACK), flows })
    }

    /// Looks up a batch of flows of the table and returns how many were found: all.
    #[inline]
    pub fn hit(&mut self) -> u32 {
        self.batch(0)
    }

    /// Looks up a batch of flows that are not in the table and returns how many were found: none.
    #[inline]
    pub fn miss(&mut self) -> u32 {
        self.batch(self.flows)
    }

    /// Inserts a batch of flows that are not in the table, and removes them again.
    #[inline]
    pub fn insert_and_remove(&mut self) -> usize {
        let mut keys = ArrayVec::<(Key4, u64), BATCH>::new();
        for _ in 0..BATCH {
            let key = key(self.flows + self.pattern.next().0);
            let hash = self.table.start(&key);
            keys.push((key, hash));
        }
        let mut inserted = ArrayVec::<u32, BATCH>::new();
        for (key, hash) in &keys {
            inserted.extend(self.table.insert(key, *hash));
        }
        for entry in &inserted {
            self.table.remove(*entry);
        }
        inserted.len()
    }

    #[inline]
    fn batch(&mut self, offset: u32) -> u32 {
        let mut keys = [Key4::default(); BATCH];
        let mut hashes = [0; BATCH];
        for (slot, hash) in keys.iter_mut().zip(&mut hashes) {
            *slot = key(offset + self.pattern.next().0);
            *hash = self.table.start(slot);
        }
        let probed = hashes.map(|hash| self.table.probe(hash));
        let mut found = 0;
        for ((key, hash), probed) in keys.iter().zip(hashes).zip(probed) {
            found += u32::from(self.table.confirm(key, hash, probed).is_some());
        }
        found
    }

    /// Whether the table lies in huge pages.
    pub fn has_huge_pages(&self) -> bool {
        self.table.reports().iter().all(|report| report.page_size != PageSize::Ordinary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::ordinary;

    #[test]
    fn hits_hit_and_misses_miss() {
        let mut lookup = Lookup::new(10_000, &ordinary()).unwrap();
        for _ in 0..200 {
            assert_eq!((lookup.hit(), lookup.miss()), (64, 0));
            assert_eq!(lookup.insert_and_remove(), 64);
        }
    }

    #[test]
    fn a_key_is_that_of_the_frames() {
        let key = key(1 << 17 | 3);
        use pointsman_dataplane::conn::key::Key as _;
        assert_eq!(key.client(), "198.18.0.3:1025".parse().unwrap());
        assert_eq!(key.virtual_service(), "10.0.0.100:80".parse().unwrap());
        assert_eq!(key.protocol(), 6);
    }
}
