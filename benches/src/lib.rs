//! Benchmarks of Pointsman and what they share.
