//! What an operator is told when the daemon does not start.

use super::*;
use clap::Parser as _;

fn options(arguments: &[&str]) -> Options {
    Options::try_parse_from(["pointsmand"].iter().chain(arguments)).unwrap()
}

fn message(arguments: &[&str]) -> String {
    run(&options(arguments)).unwrap_err().to_string()
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pointsman-daemon-{name}-{}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn either_a_configuration_or_ports_are_to_be_given() {
    for arguments in [&[][..], &["--config", "x", "--port", "eth0"], &["--check", "--port", "eth0"]] {
        assert!(Options::try_parse_from(["pointsmand"].iter().chain(arguments)).is_err(), "{arguments:?}");
    }
    assert_eq!(options(&["--port", "a", "--port", "b"]).port, ["a", "b"]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    assert_eq!(
        message(&["--config", "/nonexistent.toml"]),
        "cannot read the configuration /nonexistent.toml: No such file or directory (os error 2); check --config"
    );
}

#[test]
fn a_configuration_without_a_port_can_be_applied_but_not_started() {
    let path = file("no-port", "virtual_addresses = [\"10.0.0.1\"]\n");
    let message = message(&["--config", &path.display().to_string()]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        message,
        format!("{}: no [[port]] is configured; add one with `device = \"eth0\"`", path.display())
    );
}

#[test]
fn a_configuration_is_checked_without_touching_anything() {
    let path = file("check", "[[port]]\ndevice = \"nosuch0\"\n[workers]\ncores = [4000]\n");
    let result = run(&options(&["--check", "--config", &path.display().to_string()]));
    std::fs::remove_file(&path).unwrap();
    assert!(result.is_ok(), "{result:?}");
}

#[test]
fn a_core_that_is_not_there_is_named_with_those_that_are() {
    let mut start = model::Start { cores: vec![4_000], ..Default::default() };
    let error = resolve_start(&mut start).unwrap_err().to_string();
    assert!(
        error.starts_with("core 4000 is not there for a worker: this process may use the cores "),
        "{error}"
    );
}

#[test]
fn what_is_not_said_about_the_start_is_filled_in() {
    let mut start = model::Start::default();
    resolve_start(&mut start).unwrap();
    assert_eq!(start.cores.len(), 1);
    assert_eq!(start.connections_ipv4.map(NonZeroU64::get), Some(262_144));
    assert_eq!(start.connections_ipv6.map(NonZeroU64::get), Some(65_536));
    assert_eq!(start.memory, Some(model::Memory::default()));
}

#[test]
fn a_name_that_no_interface_can_have_is_refused_like_in_a_file() {
    let message = message(&["--port", "an/interface"]);
    assert!(
        message.starts_with("start.ports[0].device: expected the name of a network interface"),
        "{message}"
    );
}

#[cfg(not(feature = "dpdk"))]
#[test]
fn a_build_without_dpdk_refuses_its_ports_and_says_how_to_get_one() {
    let path = file("absent", "[[port]]\nname = \"d0\"\ndriver = \"dpdk\"\ndevice = \"net_null0\"\n");
    let path_text = path.display().to_string();
    for arguments in [&["--config", &path_text][..], &["--check", "--config", &path_text]] {
        assert_eq!(
            message(arguments),
            "port d0: driver = \"dpdk\" needs a pointsmand that is built with DPDK, and this one is not; get one with `make release-dpdk`, or `cargo build --release --package pointsman-control --features dpdk` (on Debian: apt-get install libdpdk-dev), or use driver = \"af_packet\""
        );
    }
    std::fs::remove_file(&path).unwrap();
}
