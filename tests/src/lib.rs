//! What the end-to-end tests share: a `Lab` of network namespaces, the real programs in it, and hostile frames.
//!
//! Read `lab.rs` first. Each test makes a lab of its own, which ends with it: user, network, mount and process
//! namespaces, so that nothing reaches the machine and tests run beside each other. What a machine cannot give
//! (namespaces, nginx, scapy) fails a test with the remedy; nothing is skipped.

mod cores;
mod director;
mod lab;
mod process;
mod segment;
mod table;
mod topology;
mod wait;
mod web;

pub use cores::two_cores;
pub use director::Director;
pub use lab::{Lab, Output, repository};
pub use process::Process;
pub use segment::{VIP, VIP6};
pub use table::Row;
pub use wait::wait_until;
pub use web::{Held, Web};
