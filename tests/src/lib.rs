//! End-to-end tests of Pointsman and what they share.
