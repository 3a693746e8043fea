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

    /// What `static` puts into the program, of what DPDK has: drivers, their buses and stores, and what all of these call.
    const STATIC: &str = "net_af_packet net_af_xdp net_bond net_e1000 net_ena net_i40e net_iavf net_ice net_ixgbe net_memif \
        net_mlx5 net_null net_ring net_tap net_virtio net_vmxnet3 common_iavf common_mlx5 bus_auxiliary bus_pci bus_vdev \
        mempool_ring argparse cryptodev eal ethdev gso hash ip_frag kvargs log mbuf mempool meter net pci rcu ring sched \
        security telemetry timer";
    /// Libraries of the system that these call.
    const SYSTEM: [&str; 7] = ["numa", "bsd", "ibverbs", "mlx5", "xdp", "bpf", "elf"];

    pub(crate) fn shim() {
        println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
        pkg_config(&["--atleast-version=22.11"]);
        let mut build = cc::Build::new();
        // All of the flags: `-include rte_config.h` and `-march=` are part of the ABI that the headers describe.
        let flags = pkg_config(&["--cflags"]);
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
        if cfg!(feature = "static") {
            link_static();
        } else {
            link_shared();
        }
    }

    fn link_shared() {
        for flag in pkg_config(&["--libs"]).split_whitespace() {
            if let Some(path) = flag.strip_prefix("-L") {
                println!("cargo:rustc-link-search=native={path}");
            }
            if let Some(library) = flag.strip_prefix("-l").filter(|library| LIBRARIES.contains(library)) {
                println!("cargo:rustc-link-lib={library}");
            }
        }
    }

    /// Whole archives: a driver makes itself known by a function that runs at the start, and that nobody calls.
    fn link_static() {
        println!("cargo:rustc-link-search=native={}", pkg_config(&["--variable=libdir"]).trim());
        for flag in pkg_config(&["--static", "--libs"]).split_whitespace() {
            let library = flag.strip_prefix("-l:librte_").and_then(|file| file.strip_suffix(".a"));
            if let Some(library) =
                library.filter(|library| STATIC.split_whitespace().any(|own| own == *library))
            {
                println!("cargo:rustc-link-lib=static:+whole-archive,-bundle=rte_{library}");
            }
        }
        for library in SYSTEM {
            println!("cargo:rustc-link-lib={library}");
        }
    }

    /// What pkg-config says of libdpdk.
    fn pkg_config(question: &[&str]) -> String {
        match Command::new("pkg-config").args(question).arg("libdpdk").output() {
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
