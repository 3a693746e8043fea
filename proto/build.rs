//! Compiles the `.proto` files with a compiler written in Rust, so that no `protoc` need be installed.

use prost::Message as _;
use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 4] = [
    "pointsman/v1/lvs.proto",
    "pointsman/v1/config.proto",
    "pointsman/v1/stats.proto",
    "pointsman/v1/connections.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("pointsman_v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
