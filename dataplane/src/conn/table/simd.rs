//! The two instructions that a lookup needs and the language has no safe name for: compare eight tags at once, and start a
//! memory access without waiting for it.
//!
//! Invariant: nothing here reads memory through a pointer. The comparison takes its operand by value; a prefetch is a hint
//! that cannot fault and changes nothing but the caches, whatever address it is given.
#![allow(unsafe_code)]

/// Starts to bring the cache line of `value` near.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint and cannot fault; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// A bit for each of the eight tags that equals `tag`; bit `i` for tag `i`.
#[inline(always)]
pub(crate) fn matches(tags: &[u16; 8], tag: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            __m128i, _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
        };
        // SAFETY: both types are 16 bytes of plain integers.
        let tags: __m128i = unsafe { std::mem::transmute(*tags) };
        // SAFETY: SSE2 is part of x86-64; the operands are values.
        let mask = unsafe {
            let equal = _mm_cmpeq_epi16(tags, _mm_set1_epi16(tag as i16));
            _mm_movemask_epi8(_mm_packs_epi16(equal, equal))
        };
        (mask as u32) & 0xff
    }
    #[cfg(not(target_arch = "x86_64"))]
    tags.iter().enumerate().fold(0, |mask, (i, t)| mask | (u32::from(*t == tag) << i))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn every_equal_tag_sets_its_bit() {
        assert_eq!(matches(&[7, 1, 7, 2, 3, 4, 5, 7], 7), 0b1000_0101);
        assert_eq!(matches(&[0; 8], 0), 0xff);
        assert_eq!(matches(&[1, 2, 3, 4, 5, 6, 0x8000, 0xffff], 0xffff), 0b1000_0000);
        assert_eq!(matches(&[1; 8], 2), 0);
    }
}
