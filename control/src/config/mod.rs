//! The configuration: one model, whatever it was read from.
//!
//! [`toml`] and gRPC give a request, [`validate`] makes a [`Configuration`] of it or says all that is wrong, [`diff`]
//! says what would change, and [`compile`] builds what workers run.

pub mod compile;
pub mod diff;
pub mod model;
mod next_hops;
mod published;
pub mod slots;
pub mod toml;
mod tunnels;
pub mod validate;
pub mod wire;

pub use self::toml::{ConfigError, ConfigErrors, read};
pub use model::Configuration;
