#![no_main]
//! See `pointsman_fuzz::pipeline`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| pointsman_fuzz::pipeline(data));
