//! The daemon and the client of Pointsman.

pub mod cli;
pub mod compat;
