//! Stage 4: what a packet needs to reach its destination, one file per method.

pub mod direct;
pub mod tunnel;
