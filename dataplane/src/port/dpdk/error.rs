//! Why DPDK or a device cannot be had, and what mends it.

use super::Errno;

/// Each message names what is wrong and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a name of a device.
    #[error(
        "{0}: not a device of DPDK; write a PCI address as `lspci -D` does (0000:00:05.0), or `vdev:` and a virtual device with its arguments (vdev:net_af_xdp0,iface=eth1)"
    )]
    Device(String),
    /// Two times.
    #[error("DPDK was started in this process before, and cannot be again; restart the program")]
    StartedBefore,
    /// No memory for packets.
    #[error(
        "no huge page is free, and DPDK keeps its packets in them; as root: echo {wanted} >/proc/sys/vm/nr_hugepages (2 MiB each; to keep it: sysctl vm.nr_hugepages={wanted} in /etc/sysctl.d)"
    )]
    NoHugePages {
        /// Pages that are needed.
        wanted: u64,
    },
    /// The wrong address.
    #[error(
        "{address}: there is no PCI device at this address; `lspci -D | grep -i ethernet` lists those there are"
    )]
    NoSuchPciDevice {
        /// The address.
        address: String,
    },
    /// The kernel has it.
    #[error(
        "{address}: the device is bound to the kernel's driver {driver}; give it to DPDK, which takes it away from the kernel: modprobe vfio-pci && dpdk-devbind.py -b vfio-pci {address}"
    )]
    KernelDriver {
        /// The address.
        address: String,
        /// The driver.
        driver: String,
    },
    /// Nobody has it.
    #[error(
        "{address}: the device is bound to no driver; modprobe vfio-pci && dpdk-devbind.py -b vfio-pci {address}"
    )]
    Unbound {
        /// The address.
        address: String,
    },
    /// No protection of memory.
    #[error(
        "{address}: the machine has no IOMMU in use, without which vfio-pci refuses the device; switch VT-d or AMD-Vi on in the firmware and boot Linux with intel_iommu=on iommu=pt, or, where memory need not be protected from the device: echo 1 >/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
    )]
    NoIommu {
        /// The address.
        address: String,
    },
    /// DPDK's environment does not start.
    #[error("DPDK does not start: {errno}; it says: {log}")]
    Refused {
        /// What it returned.
        errno: Errno,
        /// The last line that it logged.
        log: String,
    },
    /// Nothing drives the device.
    #[error(
        "{device}: DPDK has no driver for it, or the driver refuses it; it says: {log}; Debian has each driver in a package of its own: `apt-cache search librte-net`"
    )]
    NoDriver {
        /// The device.
        device: String,
        /// The last line that DPDK logged.
        log: String,
    },
    /// A number of workers that cannot be.
    #[error("{device}: a device is shared by 1 to 64 workers, not {workers}")]
    Workers {
        /// The device.
        device: String,
        /// How many.
        workers: u16,
    },
    /// Too many workers.
    #[error(
        "{device}: the device ({driver}) has too few queues for {workers} workers; configure at most {queues} (workers.cores), or give it more queues (ethtool -L before it is bound; queues= of a virtual device)"
    )]
    Queues {
        /// The device.
        device: String,
        /// Its driver.
        driver: String,
        /// Queues that it has each way.
        queues: u16,
        /// Workers that there are.
        workers: u16,
    },
    /// Frames that do not fit.
    #[error(
        "{device}: an MTU of {mtu} is not possible: the device ({driver}) takes {least} to {largest}; set `mtu` of the port to one of these"
    )]
    Mtu {
        /// The device.
        device: String,
        /// Its driver.
        driver: String,
        /// The MTU wanted.
        mtu: u16,
        /// The least possible.
        least: u16,
        /// The largest possible.
        largest: u16,
    },
    /// Frames that do not fit into packet buffers.
    #[error(
        "{device}: an MTU of {mtu} is not possible: packet buffers hold frames of an MTU up to {largest}, and are made when DPDK starts; set the `mtu` of the port back, or restart with this one"
    )]
    Room {
        /// The device.
        device: String,
        /// The MTU wanted.
        mtu: u16,
        /// The largest possible.
        largest: usize,
    },
    /// No memory for packets.
    #[error(
        "no {mebibytes} MiB for packets on NUMA node {numa_node} (-1: any): {errno}; DPDK says: {log}; reserve more huge pages: echo N >/sys/devices/system/node/nodeK/hugepages/hugepages-2048kB/nr_hugepages"
    )]
    Pool {
        /// What is needed.
        mebibytes: u64,
        /// Where.
        numa_node: i32,
        /// What DPDK returned.
        errno: Errno,
        /// The last line that it logged.
        log: String,
    },
    /// Some other step failed.
    #[error("{device}: cannot {step}: {errno}; DPDK says: {log}")]
    Step {
        /// The device.
        device: String,
        /// What was to be done.
        step: &'static str,
        /// What the driver returned.
        errno: Errno,
        /// The last line that DPDK logged.
        log: String,
    },
}

impl Error {
    /// That DPDK's environment does not start, by what it logged.
    pub(super) fn refused(errno: Errno, log: &str) -> Self {
        Self::Refused { errno, log: last_line(log) }
    }
}

/// The last line of a log that says something.
pub(super) fn last_line(log: &str) -> String {
    let last = log.lines().rev().map(str::trim).find(|line| !line.is_empty());
    last.unwrap_or("nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_says_something_is_told() {
        assert_eq!(
            last_line("EAL: Detected NUMA nodes: 1\nEAL: Cannot init memory\n\n"),
            "EAL: Cannot init memory"
        );
        assert_eq!(last_line(" \n"), "nothing");
    }

    #[test]
    fn messages_name_the_device_and_the_command_that_mends_it() {
        let address = "0000:00:05.0".to_owned();
        let driver = "virtio-pci".to_owned();
        for (error, remedy) in [
            (Error::NoHugePages { wanted: 512 }, "echo 512 >/proc/sys/vm/nr_hugepages"),
            (Error::NoSuchPciDevice { address: address.clone() }, "lspci -D | grep -i ethernet"),
            (
                Error::KernelDriver { address: address.clone(), driver },
                "kernel's driver virtio-pci; give it to DPDK, which takes it away from the kernel: modprobe vfio-pci && dpdk-devbind.py -b vfio-pci 0000:00:05.0",
            ),
            (Error::NoIommu { address }, "intel_iommu=on iommu=pt"),
        ] {
            assert!(error.to_string().contains(remedy), "{error}");
        }
    }
}
