//! The packet path as a whole: frames in, frames and counters out, through a worker between wires in memory.

mod answers;
mod bad_input;
mod changes;
mod direct_routing;
mod drops;
mod exception;
mod expiry;
mod flood;
mod fragments;
mod ftp;
mod ipsec;
mod local;
mod nat;
mod neighbors;
mod persistence;
mod policies;
mod properties;
mod schedulers;
mod sctp;
mod sip;
mod source_nat;
mod states;
#[path = "../support/mod.rs"]
mod support;
mod tunnel_errors;
mod tunnels;
mod workers;
