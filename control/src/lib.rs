//! The daemon and the client of Pointsman.

pub mod announce;
pub mod apply;
pub mod claim;
pub mod cli;
pub mod clock;
pub mod compat;
pub mod config;
pub mod cores;
pub mod counters;
pub mod daemon;
pub mod exception;
pub mod grpc;
pub mod kernel;
pub mod local;
pub mod neighbor;
pub mod ports;
pub mod refusal;
pub mod resolver;
pub mod socket;
pub mod verbs;
pub mod workers;

#[cfg(test)]
mod testing;
