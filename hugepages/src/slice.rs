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
        const { assert!(align_of::<T>() <= 4096, "a page is aligned to 4096 bytes, the type to more") };
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| Error::TooLarge {
            purpose: purpose.to_owned(),
            items: len,
            item_bytes: size_of::<T>(),
        })?;
        let region = Region::map(purpose, bytes, options)?;
        Ok(HugeSlice { region, len, items: PhantomData })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PageChoice, PageSize};

    fn ordinary() -> Options {
        Options { pages: PageChoice::Ordinary, ..Options::default() }
    }

    #[derive(Clone, Copy, Zeroable)]
    #[repr(C, align(4096))]
    struct Page([u8; 4096]);

    #[test]
    fn a_slice_starts_as_zeroes_and_keeps_what_is_written() {
        let mut slice = HugeSlice::<u64>::zeroed("test slice", 1000, &ordinary()).unwrap();
        assert!(slice.iter().all(|value| *value == 0));
        slice.iter_mut().enumerate().for_each(|(i, value)| *value = 3 * i as u64);
        assert_eq!((slice.len(), slice[0], slice[999]), (1000, 0, 2997));
        assert_eq!(slice.report().purpose, "test slice");
        assert_eq!((slice.report().bytes, slice.report().page_size), (8192, PageSize::Ordinary));
    }

    #[test]
    fn a_slice_of_nothing_is_empty() {
        assert!(HugeSlice::<u32>::zeroed("nothing", 0, &ordinary()).unwrap().is_empty());
        assert_eq!(HugeSlice::<()>::zeroed("units", 7, &ordinary()).unwrap().len(), 7);
    }

    #[test]
    fn a_type_aligned_to_a_page_is_aligned() {
        let slice = HugeSlice::<Page>::zeroed("pages", 3, &ordinary()).unwrap();
        assert_eq!(slice.as_ptr() as usize % 4096, 0);
        assert!(slice.iter().all(|page| page.0 == [0; 4096]));
    }

    #[test]
    fn a_size_that_overflows_is_an_error_that_names_it() {
        let error = HugeSlice::<u64>::zeroed("flows", usize::MAX / 4, &ordinary()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("flows: 4611686018427387903 items of 8 bytes"), "{text}");
    }

    #[test]
    fn a_slice_moves_between_threads_as_its_items_do() {
        fn is_send_and_sync<T: Send + Sync>(_: &T) {}
        let slice = HugeSlice::<u16>::zeroed("shared", 4, &ordinary()).unwrap();
        is_send_and_sync(&slice);
        assert_eq!(std::thread::spawn(move || slice.iter().sum::<u16>()).join().unwrap(), 0);
    }
}
