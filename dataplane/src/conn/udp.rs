//! The state of a UDP flow: there is one, and it is never active, so that schedulers weigh such flows as inactive.

/// As ipvsadm prints it.
pub const NAME: &str = "UDP";

/// Whether a UDP flow counts as active (`ActiveConn`): never.
pub const IS_ACTIVE: bool = false;
