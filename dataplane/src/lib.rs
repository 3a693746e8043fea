//! The packet path of Pointsman: what a worker runs.
//!
//! Read [`worker`] first: its `poll` is the table of contents, one line a stage. Nothing here knows the async runtime, a
//! clock, or a configuration file; nothing allocates, locks, logs or makes a system call for a packet.

pub mod app;
pub mod batch;
pub mod command;
pub mod conn;
pub mod director;
pub mod egress;
pub mod exception;
pub mod forward;
pub mod fragments;
pub mod handoff;
pub mod index;
pub mod limits;
pub mod mark;
pub mod on_link;
pub mod parse;
pub mod policy;
pub mod port;
pub mod prefix;
pub mod publish;
pub mod rate;
pub mod reply;
pub mod routing;
pub mod scheduler;
pub mod snapshot;
pub mod stats;
pub mod steer;
pub mod time;
pub mod verdict;
pub mod wake;
pub mod wire;
pub mod worker;
