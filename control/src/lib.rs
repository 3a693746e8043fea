//! The daemon and the client of Pointsman.
