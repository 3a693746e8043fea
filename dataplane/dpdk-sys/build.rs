//! Compiles the shim against the system's libdpdk, and says which of its libraries to link.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/shim.c");
    #[cfg(feature = "link")]
    link::shim();
}

#[cfg(feature = "link")]
mod link {
    use std::process::{Command, exit};

    /// What the shim calls. The drivers are loaded by DPDK itself, from its directory of plug-ins.
    const LIBRARIES: [&str; 6] = ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal", "rte_log"];

    pub(crate) fn shim() {
        println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
        pkg_config("--atleast-version=22.11");
        let mut build = cc::Build::new();
        // All of the flags: `-include rte_config.h` and `-march=` are part of the ABI that the headers describe.
        let flags = pkg_config("--cflags");
        let mut flags = flags.split_whitespace();
        while let Some(flag) = flags.next() {
            build.flag(flag);
            if flag == "-include"
                && let Some(file) = flags.next()
            {
                build.flag(file);
            }
        }
        // DPDK's inline functions are written for an optimiser.
        build.file("src/shim.c").opt_level(3).flag("-std=gnu11").warnings(true).compile("pointsman_dpdk");
        for flag in pkg_config("--libs").split_whitespace() {
            if let Some(path) = flag.strip_prefix("-L") {
                println!("cargo:rustc-link-search=native={path}");
            }
            if let Some(library) = flag.strip_prefix("-l").filter(|library| LIBRARIES.contains(library)) {
                println!("cargo:rustc-link-lib={library}");
            }
        }
    }

    /// What pkg-config says of libdpdk.
    fn pkg_config(question: &str) -> String {
        match Command::new("pkg-config").args([question, "libdpdk"]).output() {
            Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
            Ok(_) => refuse("libdpdk, version 22.11 or newer, is not installed"),
            Err(_) => refuse("pkg-config is not installed"),
        }
    }

    fn refuse(what: &str) -> ! {
        println!(
            "cargo:warning={what}: the feature `dpdk` needs it. apt-get install libdpdk-dev pkg-config gcc"
        );
        eprintln!("{what}: the feature `dpdk` needs it. apt-get install libdpdk-dev pkg-config gcc");
        exit(1)
    }
}
