//! The gRPC interface of Pointsman: what the files under `pointsman/v1` say, and the code generated from them.
//!
//! The `.proto` files are the documentation; this crate adds nothing to them.

/// Package `pointsman.v1`.
pub mod v1 {
    #![allow(missing_docs, clippy::all, unreachable_pub, rust_2018_idioms)]
    tonic::include_proto!("pointsman.v1");

    /// The encoded `FileDescriptorSet`, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pointsman_v1.bin"));
}
