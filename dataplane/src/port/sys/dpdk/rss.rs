//! The hash by which a device chooses the queue of a frame.
#![allow(unsafe_code)]

use super::{DevInfo, checked};
use crate::steer::{self, BUCKETS, KEY_LEN, Side};
use dpdk_sys as raw;

/// Bytes of the longest key that drivers take.
const LONGEST: usize = 64;

/// The keys as drivers take them, with zeros behind. They read them again whenever the device is started.
static OUTSIDE: [u8; LONGEST] = longest(steer::key(Side::Outside));
static INSIDE: [u8; LONGEST] = longest(steer::key(Side::Inside));

const fn longest(key: [u8; KEY_LEN]) -> [u8; LONGEST] {
    let mut all = [0; LONGEST];
    let mut i = 0;
    while i < KEY_LEN {
        all[i] = key[i];
        i += 1;
    }
    all
}

/// What a device is to hash, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hash {
    /// `RTE_ETH_RSS_*`; 0 if it cannot choose.
    pub(super) flows: u64,
    /// Of so many bytes; none if the device has a hash of its own only.
    pub(super) key: Option<(&'static [u8; LONGEST], u8)>,
    /// From the low bits of the hash to the queue: as many entries as the device has.
    pub(super) table: Vec<u16>,
}

impl Hash {
    /// No choice: one queue.
    pub(crate) const NONE: Self = Self { flows: 0, key: None, table: Vec::new() };

    /// As a device of this kind can do it: to owners ([`steer::key`]) if it takes a key and a table, whose entries are a
    /// power of two of [`BUCKETS`] or more.
    pub(crate) fn of(info: &DevInfo, side: Side, workers: u16) -> Self {
        // SAFETY: it returns a constant.
        let flows = info.rss_offloads & unsafe { raw::dpdk_rss_flows() };
        // Drivers that do not say take the usual length.
        let key_len = if info.hash_key_size == 0 { KEY_LEN } else { info.hash_key_size.into() };
        let entries = usize::from(info.reta_size);
        let tabled = entries.is_power_of_two() && (BUCKETS..=raw::TABLE_MOST).contains(&entries);
        let keyed = (KEY_LEN..=LONGEST).contains(&key_len);
        if !tabled || !keyed || flows & raw::RSS_TCP4 == 0 {
            return Self { flows, key: None, table: Vec::new() };
        }
        let key = match side {
            Side::Outside => &OUTSIDE,
            Side::Inside => &INSIDE,
        };
        let table = steer::table(workers).into_iter().cycle().take(entries).collect();
        Self { flows, key: Some((key, key_len as u8)), table }
    }

    /// Whether the device chooses at all.
    pub(crate) fn chooses(&self) -> bool {
        self.flows != 0
    }

    /// Gives the table to a device that has been started with the key. False if it does not do as it was told.
    ///
    /// # Safety
    /// The device runs, and nobody else asks it.
    pub(super) unsafe fn apply(&self, port: u16) -> bool {
        let Some((key, key_len)) = self.key else { return false };
        let size = self.table.len() as u16;
        let mut had = vec![0; self.table.len()];
        // What a driver does not tell, it is believed: the counter of handoffs shows it.
        let has_key = || {
            let mut had = [0; LONGEST];
            // SAFETY: as the caller says, and room for a key of this length.
            let told = checked(unsafe { raw::dpdk_rss_key_get(port, had.as_mut_ptr(), key_len) });
            told.is_err() || had == *key
        };
        // SAFETY: as the caller says, and arrays of the lengths that are told.
        unsafe {
            // Some take no key when they are configured, but do when they run.
            let keyed = has_key()
                || checked(raw::dpdk_rss_key_set(port, self.flows, key.as_ptr(), key_len)).is_ok()
                    && has_key();
            keyed
                && checked(raw::dpdk_rss_table_set(port, self.table.as_ptr(), size)).is_ok()
                && (checked(raw::dpdk_rss_table_get(port, had.as_mut_ptr(), size)).is_err()
                    || had == self.table)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(rss_offloads: u64, reta_size: u16, hash_key_size: u16) -> DevInfo {
        DevInfo { rss_offloads, reta_size, hash_key_size, ..DevInfo::default() }
    }

    #[test]
    fn a_device_with_a_key_and_a_table_is_told_who_owns_what() {
        let hash = Hash::of(&info(u64::MAX, 512, 52), Side::Outside, 3);
        let (key, len) = hash.key.unwrap();
        assert_eq!((&key[..40], &key[40..], len), (&steer::key(Side::Outside)[..], &[0; 24][..], 52));
        assert_eq!(hash.table.len(), 512);
        assert_eq!((&hash.table[..128], &hash.table[384..]), (&steer::table(3)[..], &steer::table(3)[..]));
        assert_ne!(Hash::of(&info(u64::MAX, 128, 40), Side::Inside, 3).key.unwrap().0, key);
        assert_eq!(Hash::of(&info(u64::MAX, 128, 0), Side::Outside, 3).key.unwrap(), (key, 40));
    }

    #[test]
    fn a_device_without_one_of_them_keeps_its_own_hash() {
        for info in [
            info(u64::MAX, 64, 40),
            info(u64::MAX, 0, 40),
            info(u64::MAX, 192, 40),
            info(u64::MAX, 8_192, 40),
            info(u64::MAX, 128, 39),
            info(u64::MAX, 128, 65),
            // Addresses alone.
            info(1 << 2, 128, 40),
        ] {
            let hash = Hash::of(&info, Side::Outside, 2);
            assert!(hash.chooses() && hash.key.is_none() && hash.table.is_empty(), "{info:?}");
        }
        assert!(!Hash::of(&info(0, 128, 40), Side::Outside, 2).chooses());
    }
}
