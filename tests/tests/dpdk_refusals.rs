//! What keeps a director from starting on ports of DPDK's: each with a message that says which, and the command that
//! mends it. Where the machine would have to lack something, the daemon sees files of the kernel that say so.

use pointsman_tests::{Director, Lab, two_cores};
use std::path::Path;

/// A port on `device`, and further lines of its table and of the file.
fn port(device: &str, more: &str) -> String {
    format!("[[port]]\nname = \"d0\"\ndriver = \"dpdk\"\ndevice = \"{device}\"\n{more}\n")
}

const ORDINARY: &str = "[dpdk]\nmemory = \"ordinary\"\n";

/// Files of the kernel in which two huge pages are free.
const HUGE_PAGES: &str = "mount -t tmpfs none /sys/kernel/mm/hugepages && mkdir /sys/kernel/mm/hugepages/hugepages-2048kB \
     && echo 2 >/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

/// The same with a PCI device at 0000:00:05.0 that `driver` has; further lines may make more of it.
fn pci(driver: &str, more: &str) -> String {
    format!(
        "{HUGE_PAGES} && mount -t tmpfs none /sys/bus/pci/devices && mkdir /sys/bus/pci/devices/0000:00:05.0 \
         && ln -s ../../drivers/{driver} /sys/bus/pci/devices/0000:00:05.0/driver {more}"
    )
}

/// Starts `pointsmand` with a configuration, after `before` was done to what it sees. Panics unless it ends with exit
/// status 1 and a message with all of `parts`.
fn refused(configuration: &str, before: &str, parts: &[&str]) {
    for folder in ["/sys/kernel/mm/hugepages", "/sys/bus/pci/devices"] {
        let here = !before.contains(folder) || Path::new(folder).is_dir();
        assert!(
            here,
            "{folder} is not here: this test needs a kernel with huge pages and PCI, and its /sys mounted"
        );
    }
    let lab = Lab::segment();
    let _ = Director::programs();
    lab.write("/run/lab/dpdk.toml", configuration);
    let line = format!("{before} pointsmand --config /run/lab/dpdk.toml");
    let mut process = lab.spawn("director", "pointsmand", &line);
    let code = process.wait(30);
    let message = process.log();
    assert_eq!(code, 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in:\n{message}");
    }
}

#[test]
fn without_huge_pages_the_command_that_reserves_them_is_told() {
    let none = "mount -t tmpfs none /sys/kernel/mm/hugepages &&";
    refused(&port("net_null0", ""), none, &["no huge page is free", ">/proc/sys/vm/nr_hugepages"]);
}

#[test]
fn without_permission_for_dpdk_the_missing_capability_is_told() {
    let without = "setpriv --bounding-set=-net_raw,-net_admin --inh-caps=-all";
    let message = [
        "the capability CAP_NET_ADMIN is missing; run pointsmand as root",
        "setcap cap_net_raw,cap_net_admin",
    ];
    refused(&port("net_null0", ORDINARY), without, &message);
}

#[test]
fn a_pci_address_without_a_device_is_told() {
    let before = format!("{} &&", pci("vfio-pci", ""));
    refused(
        &port("0000:00:06.0", ""),
        &before,
        &["0000:00:06.0: there is no PCI device at this address", "lspci -D | grep -i ethernet"],
    );
}

#[test]
fn a_device_of_the_kernel_is_told_with_the_command_that_takes_it() {
    let before = format!("{} &&", pci("virtio-pci", ""));
    refused(
        &port("0000:00:05.0", ""),
        &before,
        &[
            "0000:00:05.0: the device is bound to the kernel's driver virtio-pci",
            "modprobe vfio-pci && dpdk-devbind.py -b vfio-pci 0000:00:05.0",
        ],
    );
}

#[test]
fn a_machine_without_an_iommu_is_told_with_what_switches_it_on() {
    let before = format!("{} &&", pci("vfio-pci", ""));
    refused(&port("0000:00:05.0", ""), &before, &["no IOMMU", "intel_iommu=on iommu=pt"]);
}

#[test]
fn a_virtual_device_that_no_driver_knows_is_told() {
    refused(
        &port("net_nonsense0", ORDINARY),
        "",
        &["Unable to parse device 'net_nonsense0'", "of port d0", "apt-cache search librte-net"],
    );
}

#[test]
fn an_interface_that_a_virtual_device_names_and_is_not_there_is_told() {
    refused(
        &port("net_af_packet0,iface=eth7", ORDINARY),
        "",
        &["port d0: no interface is named \"eth7\"", "there are lo, eth0: choose one of them"],
    );
}

#[test]
fn more_workers_than_queues_are_told_with_both_numbers() {
    let file =
        port("net_af_packet0,iface=eth0", &format!("{ORDINARY}[workers]\ncores = {:?}\n", two_cores()));
    refused(&file, "", &["port d0: ", "for 2 workers; configure at most 1 (workers.cores)"]);
}

#[test]
fn an_argument_that_dpdk_refuses_is_told() {
    let file = port("net_null0", &format!("{ORDINARY}arguments = [\"--nonsense\"]\n"));
    refused(&file, "", &["DPDK does not start", "correct or remove what dpdk.arguments adds: --nonsense"]);
}

#[test]
fn ports_of_two_kinds_are_refused_by_line_and_field() {
    let file = port("net_null0", "[[port]]\ndevice = \"eth0\"\n");
    refused(&file, "", &["dpdk.toml:5: port[1].driver: ", "give all ports the same driver"]);
}

#[test]
fn an_interface_that_has_the_name_of_a_port_is_told() {
    let file = port("net_null0", ORDINARY).replace("\"d0\"", "\"eth0\"");
    refused(&file, "", &["port eth0: another interface is named eth0", "change the name of the port"]);
}

#[test]
fn a_gateway_that_the_kernel_refuses_is_told_as_the_command_that_does_the_same() {
    let file = port("net_null0", &format!("gateways = [\"fe80::1\"]\n{ORDINARY}"));
    let before = "ip route add default dev lo && ip -6 route add default via fe80::1 dev eth0 &&";
    refused(
        &file,
        before,
        &[
            "port d0: the kernel refuses `ip route add default via fe80::1 dev d0`",
            "File exists",
            "there is a default route already",
            "leave out the port's gateways or remove it",
        ],
    );
}
