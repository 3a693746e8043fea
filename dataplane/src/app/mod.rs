//! What looks into the payload.

pub mod sip;
