//! The packet path of Pointsman.
