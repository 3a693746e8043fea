//! A `pointsmand` that was built without DPDK says so, and how to get one that has it.
#![cfg(not(feature = "dpdk"))]

use pointsman_tests::{Director, Lab};

#[test]
fn a_build_without_dpdk_refuses_its_ports_and_says_how_to_get_one() {
    let lab = Lab::segment();
    let text = "[[port]]\nname = \"d0\"\ndriver = \"dpdk\"\ndevice = \"net_null0\"\n";
    lab.write("/run/lab/dpdk.toml", text);
    for arguments in ["--config /run/lab/dpdk.toml", "--check --config /run/lab/dpdk.toml"] {
        let mut process = Director::spawn(&lab, "director", arguments);
        assert_eq!(process.wait(20), 1, "{}", process.log());
        let message = process.log();
        assert!(
            message.contains("port d0: driver = \"dpdk\" needs a pointsmand that is built with DPDK"),
            "{message}"
        );
        assert!(message.contains("cargo build --release --features dpdk"), "{message}");
        assert!(message.contains("apt-get install libdpdk-dev"), "{message}");
    }
}
