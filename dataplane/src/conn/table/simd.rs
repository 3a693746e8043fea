//! The two instructions that a lookup needs and the language has no safe name for: compare eight tags at once, and start a
//! memory access without waiting for it.
//!
//! Invariant: memory is read only through references. A prefetch is a hint that cannot fault and changes nothing but the
//! caches, whatever address it is given.
#![allow(unsafe_code)]

use bytemuck::Zeroable;

/// The tags of a bucket.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(16))]
pub(crate) struct Tags(pub(crate) [u16; 8]);

/// Starts to bring the cache line at this address near: into the second-level cache, because so many lines can be on their
/// way there at once as a batch asks for, but only a few into the first one, and the rest would wait. Any address will do.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch is a hint and cannot fault; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// A bit for each of the eight tags that equals the upper 16 bits of `hash`; bit `i` for tag `i`.
#[inline(always)]
pub(crate) fn matches(tags: &Tags, hash: u64) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_cvtsi64_si128, _mm_load_si128, _mm_movemask_epi8, _mm_packs_epi16,
            _mm_shufflelo_epi16, _mm_unpacklo_epi64,
        };
        // SAFETY: SSE2 is part of x86-64; the one load is of 16 bytes behind a reference, aligned to 16.
        let mask = unsafe {
            let tags = _mm_load_si128(std::ptr::from_ref(tags).cast());
            let upper = _mm_shufflelo_epi16::<0xff>(_mm_cvtsi64_si128(hash as i64));
            let equal = _mm_cmpeq_epi16(_mm_unpacklo_epi64(upper, upper), tags);
            _mm_movemask_epi8(_mm_packs_epi16(equal, equal))
        };
        (mask as u32) & 0xff
    }
    #[cfg(not(target_arch = "x86_64"))]
    tags.0.iter().enumerate().fold(0, |mask, (i, tag)| mask | (u32::from(u64::from(*tag) == hash >> 48) << i))
}

#[cfg(test)]
mod tests {
    use super::{Tags, matches};

    #[test]
    fn every_equal_tag_sets_its_bit() {
        let matches = |tags, tag: u16| matches(&Tags(tags), u64::from(tag) << 48 | 0x1234_5678_9abc);
        assert_eq!(matches([7, 1, 7, 2, 3, 4, 5, 7], 7), 0b1000_0101);
        assert_eq!(matches([0; 8], 0), 0xff);
        assert_eq!(matches([1, 2, 3, 4, 5, 6, 0x8000, 0xffff], 0xffff), 0b1000_0000);
        assert_eq!(matches([1; 8], 2), 0);
    }
}
