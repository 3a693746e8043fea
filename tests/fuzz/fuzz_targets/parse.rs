#![no_main]
//! See `pointsman_fuzz::parse`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| pointsman_fuzz::parse(data));
