//! The daemon and the client of Pointsman.

pub mod cli;
pub mod compat;
pub mod config;
pub mod kernel;
pub mod refusal;
