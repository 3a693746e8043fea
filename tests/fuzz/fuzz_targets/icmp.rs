#![no_main]
//! See `pointsman_fuzz::icmp`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| pointsman_fuzz::icmp(data));
