//! The instructions that the way to a connection needs and the language has no safe name for: compare eight tags, or the head
//! of a frame, at once, and start a memory access without waiting for it.
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

/// A bit for each of the eight tags that is free; bit `i` for tag `i`.
#[inline(always)]
pub(crate) fn free(tags: &Tags) -> u32 {
    tags.0.iter().enumerate().fold(0, |mask, (i, tag)| mask | u32::from(*tag == 0) << i)
}

/// The tag of a hash: its lower 16 bits, of which the first is set, so that it is never 0. The upper ones choose the bucket.
#[inline(always)]
pub(crate) fn tag(hash: u64) -> u16 {
    hash as u16 | 0x8000
}

/// A bit for each of the eight tags that is that of `hash`; bit `i` for tag `i`.
#[inline(always)]
pub(crate) fn matches(tags: &Tags, hash: u64) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_cvtsi64_si128, _mm_load_si128, _mm_movemask_epi8, _mm_or_si128,
            _mm_packs_epi16, _mm_set1_epi16, _mm_shufflelo_epi16, _mm_unpacklo_epi64,
        };
        // SAFETY: SSE2 is part of x86-64; the one load is of 16 bytes behind a reference, aligned to 16.
        let mask = unsafe {
            let tags = _mm_load_si128(std::ptr::from_ref(tags).cast());
            let lower = _mm_shufflelo_epi16::<0>(_mm_cvtsi64_si128(hash as i64));
            let tag = _mm_or_si128(_mm_unpacklo_epi64(lower, lower), _mm_set1_epi16(i16::MIN));
            let equal = _mm_cmpeq_epi16(tag, tags);
            _mm_movemask_epi8(_mm_packs_epi16(equal, equal))
        };
        (mask as u32) & 0xff
    }
    #[cfg(not(target_arch = "x86_64"))]
    tags.0.iter().enumerate().fold(0, |mask, (i, of)| mask | (u32::from(*of == tag(hash)) << i))
}

/// Whether `bytes` are those `wanted` where `mask` has bits; `wanted` has none where `mask` has none.
#[inline(always)]
pub(crate) fn alike(bytes: &[u8; 32], wanted: &[u8; 32], mask: &[u8; 32]) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8};
        let half = |of: &[u8; 32], at: usize| {
            // SAFETY: SSE2 is part of x86-64; `at` is 0 or 1, and the load is of 16 of the 32 bytes behind the reference.
            unsafe { _mm_loadu_si128(std::ptr::from_ref(of).cast::<__m128i>().add(at)) }
        };
        // SAFETY: SSE2 is part of x86-64; the operands are values.
        let same =
            |at| unsafe { _mm_cmpeq_epi8(_mm_and_si128(half(bytes, at), half(mask, at)), half(wanted, at)) };
        // SAFETY: as above.
        unsafe { _mm_movemask_epi8(_mm_and_si128(same(0), same(1))) == 0xffff }
    }
    #[cfg(not(target_arch = "x86_64"))]
    bytes.iter().zip(wanted).zip(mask).all(|((byte, wanted), mask)| byte & mask == *wanted)
}

#[cfg(test)]
mod tests {
    use super::{Tags, alike, free, matches, tag};

    #[test]
    fn bytes_are_alike_that_differ_only_outside_the_mask() {
        let wanted = std::array::from_fn(|i| if i % 3 == 0 { 0 } else { i as u8 });
        let mask = std::array::from_fn(|i| if i % 3 == 0 { 0 } else { 0x7f });
        assert!(alike(&wanted, &wanted, &mask));
        for i in 0..32 {
            for bit in 0..8 {
                let mut bytes = wanted;
                bytes[i] ^= 1 << bit;
                assert_eq!(alike(&bytes, &wanted, &mask), i % 3 == 0 || bit == 7, "bit {bit} of byte {i}");
            }
        }
    }

    #[test]
    fn every_equal_tag_sets_its_bit() {
        let matches = |tags, lower: u16| matches(&Tags(tags), 0x1234_5678_9abc << 16 | u64::from(lower));
        let tags = [0x8007, 1, 0x8007, 0x8002, 7, 0, 0xffff, 0x8007];
        assert_eq!(matches(tags, 0x8007), 0b1000_0101);
        assert_eq!(matches(tags, 7), 0b1000_0101, "the first bit of a tag is set");
        assert_eq!(matches(tags, 0xffff), 0b0100_0000);
        assert_eq!((matches(tags, 0), matches([0x8000; 8], 0)), (0, 0xff));
        assert_eq!((tag(7), tag(u64::MAX)), (0x8007, 0xffff));
        assert_eq!((free(&Tags(tags)), free(&Tags([0; 8]))), (0b0010_0000, 0xff));
    }
}
