//! The index of a table: its buckets, as many as are asked for, so that what a connection costs and how fast it is found do not
//! depend on how near the capacity is to a power of two.
//!
//! Invariant of the unsafe code: a hash is scaled to a number below that of the buckets (Lemire, "Fast random integer
//! generation in an interval", 2019), which does not change.
#![allow(unsafe_code)]

use super::simd::Tags;
use bytemuck::Zeroable;
use pointsman_hugepages::{Error, HugeSlice, Options, Report};

/// Tags and entry numbers of up to eight keys: one cache line.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    /// 0: free.
    pub(super) tags: Tags,
    pub(super) entries: [u32; 8],
    /// Keys that this is the first bucket of and that are in their second one: if there are none, a key that is not here
    /// is nowhere.
    pub(super) displaced: u32,
    /// Bit `n`: this is the second bucket of the key in place `n`.
    pub(super) guests: u32,
    _unused: [u32; 2],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// See the module.
pub(super) struct Buckets {
    all: HugeSlice<Bucket>,
    /// How many there are: an even number.
    count: u64,
}

impl Buckets {
    /// At least so many, fewer than 2^31, all free.
    pub(super) fn new(at_least: usize, memory: &Options) -> Result<Self, Error> {
        let count = at_least.clamp(1, (1 << 31) - 1).next_multiple_of(2);
        let all = HugeSlice::zeroed("connection index", count, memory)?;
        Ok(Self { all, count: count as u64 })
    }

    /// The number of the first bucket of a key with that hash.
    #[inline(always)]
    pub(super) fn first(&self, hash: u64) -> usize {
        self.scaled(hash)
    }

    /// The other bucket of a key with that tag that has this one. Its own inverse, and never the same: of the sum of both,
    /// which is odd, the tag alone decides.
    #[inline]
    pub(super) fn other(&self, number: usize, tag: u16) -> usize {
        let sum = self.scaled(u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1;
        if sum >= number { sum - number } else { sum + self.all.len() - number }
    }

    /// 64 bits, of which the upper ones count, scaled to the number of buckets.
    #[inline(always)]
    fn scaled(&self, bits: u64) -> usize {
        // The product of two words of 64 bits, divided by 2^64, is less than either.
        ((u128::from(bits) * u128::from(self.count)) >> 64) as usize
    }

    /// The first bucket of a key with that hash.
    #[inline(always)]
    pub(super) fn of(&self, hash: u64) -> &Bucket {
        debug_assert!(self.count as usize == self.all.len(), "see the head");
        // SAFETY: see `scaled` and the head.
        unsafe { self.all.get_unchecked(self.first(hash)) }
    }

    /// The bucket with that number.
    #[inline]
    pub(super) fn at(&self, number: usize) -> &Bucket {
        &self.all[number]
    }

    /// See [`Buckets::at`].
    #[inline]
    pub(super) fn at_mut(&mut self, number: usize) -> &mut Bucket {
        &mut self.all[number]
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn report(&self) -> &Report {
        self.all.report()
    }
}
