//! The admin client; called as `ipvsadm` it is ipvsadm.
fn main() {}
