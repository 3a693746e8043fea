//! The text formats of the originals: their commands and files in, Pointsman's interface out, and back.

pub mod ipvsadm;
