//! The index of a table: its buckets, as many as a power of two.
//!
//! Invariant of the unsafe code: there are `mask + 1` buckets, so that every number has one once it is masked.
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
    mask: usize,
}

impl Buckets {
    /// At least so many, all free.
    pub(super) fn new(at_least: usize, memory: &Options) -> Result<Self, Error> {
        let count = at_least.next_power_of_two();
        Ok(Self { all: HugeSlice::zeroed("connection index", count, memory)?, mask: count - 1 })
    }

    /// One less than there are.
    #[inline(always)]
    pub(super) fn mask(&self) -> usize {
        self.mask
    }

    /// The bucket of a number, of which only as many bits count as there are buckets for.
    #[inline(always)]
    pub(super) fn at(&self, number: usize) -> &Bucket {
        debug_assert!(self.mask + 1 == self.all.len(), "see the head");
        // SAFETY: a masked number is at most `mask`, which is the last bucket's.
        unsafe { self.all.get_unchecked(number & self.mask) }
    }

    /// See [`Buckets::at`].
    #[inline(always)]
    pub(super) fn at_mut(&mut self, number: usize) -> &mut Bucket {
        let number = number & self.mask;
        // SAFETY: as in `at`.
        unsafe { self.all.get_unchecked_mut(number) }
    }

    pub(super) fn report(&self) -> &Report {
        self.all.report()
    }
}
