//! A zeroed slice in a region of its own: what a table is made of.
//!
//! Invariant of the unsafe code: the region holds `len` values of `T`, aligned and initialised, and only this slice
//! knows its address.
#![allow(unsafe_code)]

use crate::{Error, Options, Region, Report};
use bytemuck::Zeroable;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Like a `Box<[T]>` that starts as zeroes, in huge pages. `T` may be aligned to at most 4096 bytes.
#[derive(Debug)]
pub struct HugeSlice<T: Zeroable + Copy + 'static> {
    region: Region,
    len: usize,
    items: PhantomData<T>,
}

// `Region` is Send and Sync, and `PhantomData<T>` adds what `T` is: the slice is Send and Sync as `[T]` is.

impl<T: Zeroable + Copy + 'static> HugeSlice<T> {
    /// Maps `len` zeroed values for `purpose`.
    ///
    /// # Errors
    /// Those of [`Region::map`], and [`Error::TooLarge`] where the size overflows.
    pub fn zeroed(purpose: &str, len: usize, options: &Options) -> Result<Self, Error> {
        const {
            assert!(
                align_of::<T>() <= 4096,
                "a page is aligned to 4096 bytes, the type to more"
            )
        };
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| Error::TooLarge {
            purpose: purpose.to_owned(),
            items: len,
            item_bytes: size_of::<T>(),
        })?;
        let region = Region::map(purpose, bytes, options)?;
        Ok(HugeSlice {
            region,
            len,
            items: PhantomData,
        })
    }

    /// What the mapping became.
    pub fn report(&self) -> &Report {
        self.region.report()
    }
}

impl<T: Zeroable + Copy + 'static> Deref for HugeSlice<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the region holds `len` values, page-aligned; its bytes began as zeroes, which `Zeroable` makes
        // values of `T`, and only values of `T` were written since. The borrow of `self` keeps writers away.
        unsafe { std::slice::from_raw_parts(self.region.as_ptr().cast::<T>(), self.len) }
    }
}

impl<T: Zeroable + Copy + 'static> DerefMut for HugeSlice<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the exclusive borrow of `self` keeps readers away too.
        unsafe { std::slice::from_raw_parts_mut(self.region.as_ptr().cast::<T>(), self.len) }
    }
}
