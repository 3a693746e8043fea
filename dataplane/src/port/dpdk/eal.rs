//! What DPDK's environment is started with, and what is looked at before, since it says little of why it refuses.

use super::{Error, Settings};
use std::{fmt, fs, path::Path, str::FromStr};

/// A device as DPDK knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// By its PCI address, like "0000:00:05.0".
    Pci(String),
    /// A virtual device with its arguments, like `net_af_xdp0,iface=eth1`.
    Virtual(String),
}

impl Device {
    /// What DPDK calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Pci(address) => address,
            Self::Virtual(text) => text.split_once(',').map_or(text, |(name, _)| name),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(address) => f.write_str(address),
            Self::Virtual(text) => write!(f, "vdev:{text}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// "0000:00:05.0", "00:05.0", or "vdev:" and what `--vdev` takes.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = || Error::Device(text.to_owned());
        if let Some(device) = text.strip_prefix("vdev:") {
            let named = device.starts_with("net_") && device.len() > 4;
            let plain = device.bytes().all(|byte| byte.is_ascii_graphic());
            return if named && plain { Ok(Self::Virtual(device.to_owned())) } else { Err(refused()) };
        }
        let full = if text.len() == 7 { format!("0000:{text}") } else { text.to_owned() };
        let form = b"xxxx:xx:xx.x";
        let fits = full.len() == form.len()
            && full.bytes().zip(form).all(|(byte, form)| match form {
                b'x' => byte.is_ascii_hexdigit(),
                other => byte == *other,
            });
        if fits { Ok(Self::Pci(full.to_ascii_lowercase())) } else { Err(refused()) }
    }
}

/// Where packets lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// In huge pages, which every device can reach.
    HugePages,
    /// In ordinary pages: for virtual devices on a machine without huge pages.
    Ordinary,
}

/// The command line of DPDK's environment.
pub(super) fn arguments(settings: &Settings, cores: &str, process: u32) -> Vec<String> {
    let mut list = vec!["pointsman".to_owned()];
    let mut add = |text: String| list.push(text);
    match settings.memory {
        // No files anywhere, and nothing left behind when the program is killed.
        Memory::HugePages => add("--in-memory".to_owned()),
        Memory::Ordinary => {
            for text in ["--no-huge", "--no-shconf", "-m"] {
                add(text.to_owned());
            }
            // The pool may have to begin anew at half of it.
            add((2 * pool_mebibytes(settings) + 64).to_string());
        }
    }
    add(format!("--file-prefix=pointsman-{process}"));
    add("--no-telemetry".to_owned());
    // One thread of DPDK's, bound to nothing: the workers are threads of ours.
    add(format!("--lcores=0@({cores})"));
    let is_pci = |device: &&Device| matches!(device, Device::Pci(_));
    if !settings.devices.iter().any(|device| is_pci(&device)) {
        add("--no-pci".to_owned());
    }
    for device in &settings.devices {
        match device {
            Device::Pci(address) => add(format!("--allow={address}")),
            Device::Virtual(text) => add(format!("--vdev={text}")),
        }
    }
    settings.arguments.iter().cloned().for_each(add);
    list
}

/// MiB that the packets of one NUMA node take, with their headers.
fn pool_mebibytes(settings: &Settings) -> u64 {
    (u64::from(settings.buffers) * (u64::from(settings.frame_room) + 384)).div_ceil(1 << 20)
}

/// The cores that this process may use, as Linux lists them.
pub(super) fn allowed_cores(root: &Path) -> String {
    let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.map_or("0", str::trim).to_owned()
}

/// Drivers of the kernel that share a device with DPDK: it stays bound to them.
const SHARED_DRIVERS: [&str; 4] = ["mlx4_core", "mlx5_core", "mana", "hv_netvsc"];
/// Drivers that give a device to a program.
const USER_DRIVERS: [&str; 3] = ["vfio-pci", "igb_uio", "uio_pci_generic"];

/// Finds what would make DPDK refuse: huge pages and devices, in the files of the kernel below `root`.
pub(super) fn check(settings: &Settings, root: &Path) -> Result<(), Error> {
    if settings.memory == Memory::HugePages && free_huge_pages(root) == 0 {
        return Err(Error::NoHugePages { wanted: pool_mebibytes(settings).div_ceil(2) + 64 });
    }
    settings.devices.iter().try_for_each(|device| match device {
        Device::Pci(address) => check_pci(address, root),
        Device::Virtual(_) => Ok(()),
    })
}

fn check_pci(address: &str, root: &Path) -> Result<(), Error> {
    let address = address.to_owned();
    let device = root.join("sys/bus/pci/devices").join(&address);
    if !device.exists() {
        return Err(Error::NoSuchPciDevice { address });
    }
    let driver = fs::read_link(device.join("driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    match driver {
        // vfio-pci does not take it: the command that binds it would fail without saying why.
        None if !has_iommu(&device, root) => Err(Error::NoIommu { address }),
        None => Err(Error::Unbound { address }),
        Some(driver) if SHARED_DRIVERS.contains(&driver.as_str()) => Ok(()),
        Some(driver) if !USER_DRIVERS.contains(&driver.as_str()) => {
            Err(Error::KernelDriver { address, driver })
        }
        Some(driver) if driver == "vfio-pci" && !has_iommu(&device, root) => Err(Error::NoIommu { address }),
        Some(_) => Ok(()),
    }
}

/// Whether the device is in a group of the IOMMU, or vfio does without one.
fn has_iommu(device: &Path, root: &Path) -> bool {
    let without = root.join("sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
    device.join("iommu_group").exists()
        || fs::read_to_string(without).is_ok_and(|text| matches!(text.trim(), "Y" | "1"))
}

/// Free huge pages of all sizes.
fn free_huge_pages(root: &Path) -> u64 {
    let Ok(sizes) = fs::read_dir(root.join("sys/kernel/mm/hugepages")) else { return 0 };
    let free = |size: fs::DirEntry| fs::read_to_string(size.path().join("free_hugepages")).ok();
    sizes.flatten().filter_map(free).filter_map(|text| text.trim().parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::symlink, path::PathBuf};

    fn settings(devices: &[&str], memory: Memory) -> Settings {
        let devices = devices.iter().map(|text| text.parse().unwrap()).collect();
        Settings { memory, buffers: 2_047, ..Settings::new(devices, 1, 256) }
    }

    #[test]
    fn devices_are_read_and_written_the_same() {
        for text in ["0000:00:05.0", "vdev:net_ring0", "vdev:net_af_xdp0,iface=eth1,start_queue=0"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        assert_eq!("00:1F.6".parse::<Device>().unwrap(), Device::Pci("0000:00:1f.6".to_owned()));
        assert_eq!("vdev:net_memif0,id=1".parse::<Device>().unwrap().name(), "net_memif0");
        for text in ["eth0", "", "vdev:", "vdev:ring0", "0000:00:05", "0000-00-05.0", "vdev:net_x,a=b c"] {
            let message = text.parse::<Device>().unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("{text}: not a device of DPDK; write a PCI address")),
                "{message}"
            );
        }
    }

    #[test]
    fn the_arguments_say_memory_cores_and_devices() {
        let huge = settings(&["0000:00:05.0", "vdev:net_null0"], Memory::HugePages);
        assert_eq!(
            arguments(&huge, "0-1", 7),
            [
                "pointsman",
                "--in-memory",
                "--file-prefix=pointsman-7",
                "--no-telemetry",
                "--lcores=0@(0-1)",
                "--allow=0000:00:05.0",
                "--vdev=net_null0",
            ]
        );
        let mut ordinary = settings(&["vdev:net_ring0"], Memory::Ordinary);
        ordinary.arguments = vec!["--log-level=8".to_owned()];
        assert_eq!(
            arguments(&ordinary, "0,2", 8),
            [
                "pointsman",
                "--no-huge",
                "--no-shconf",
                "-m",
                "74",
                "--file-prefix=pointsman-8",
                "--no-telemetry",
                "--lcores=0@(0,2)",
                "--no-pci",
                "--vdev=net_ring0",
                "--log-level=8",
            ]
        );
    }

    /// A tree of the kernel's files that is removed with the value.
    struct Kernel(PathBuf);

    impl Kernel {
        fn new(name: &str, free_pages: u32) -> Self {
            let root = std::env::temp_dir().join(format!("pointsman-{}-{name}", std::process::id()));
            let pages = root.join("sys/kernel/mm/hugepages/hugepages-2048kB");
            fs::create_dir_all(&pages).unwrap();
            fs::create_dir_all(root.join("sys/bus/pci/devices")).unwrap();
            fs::write(pages.join("free_hugepages"), format!("{free_pages}\n")).unwrap();
            Self(root)
        }

        fn device(&self, address: &str, driver: Option<&str>, iommu: bool) {
            let device = self.0.join("sys/bus/pci/devices").join(address);
            fs::create_dir_all(&device).unwrap();
            if let Some(driver) = driver {
                symlink(format!("../../../bus/pci/drivers/{driver}"), device.join("driver")).unwrap();
            }
            if iommu {
                fs::create_dir(device.join("iommu_group")).unwrap();
            }
        }

        fn says(&self, device: &str) -> String {
            let settings = settings(&[device], Memory::HugePages);
            check(&settings, &self.0).map_or_else(|error| error.to_string(), |()| "good".to_owned())
        }
    }

    impl Drop for Kernel {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_would_be_refused_is_found_before_and_told_with_its_remedy() {
        let kernel = Kernel::new("devices", 512);
        kernel.device("0000:00:01.0", Some("vfio-pci"), true);
        kernel.device("0000:00:02.0", Some("mlx5_core"), true);
        kernel.device("0000:00:03.0", Some("e1000"), true);
        kernel.device("0000:00:04.0", None, true);
        kernel.device("0000:00:05.0", Some("vfio-pci"), false);
        kernel.device("0000:00:06.0", None, false);
        assert_eq!(kernel.says("00:01.0"), "good");
        assert_eq!(kernel.says("00:02.0"), "good");
        assert_eq!(kernel.says("vdev:net_null0"), "good");
        assert_eq!(
            kernel.says("00:03.0"),
            "0000:00:03.0: the device is bound to the kernel's driver e1000; give it to DPDK, which takes it away from the kernel: modprobe vfio-pci && dpdk-devbind.py -b vfio-pci 0000:00:03.0"
        );
        assert!(
            kernel.says("00:04.0").contains("bound to no driver; modprobe vfio-pci && dpdk-devbind.py -b")
        );
        assert!(kernel.says("00:05.0").contains("no IOMMU in use"));
        assert!(kernel.says("00:06.0").contains("no IOMMU in use"));
        assert!(
            kernel
                .says("00:09.0")
                .starts_with("0000:00:09.0: there is no PCI device at this address; `lspci")
        );
        let without = Kernel::new("pages", 0);
        assert!(without.says("vdev:net_null0").contains("no huge page is free"));
    }

    #[test]
    fn the_cores_are_those_that_the_process_may_use() {
        let kernel = Kernel::new("cores", 0);
        fs::create_dir_all(kernel.0.join("proc/self")).unwrap();
        fs::write(kernel.0.join("proc/self/status"), "Name:\tx\nCpus_allowed_list:\t2-3,6\n").unwrap();
        assert_eq!(allowed_cores(&kernel.0), "2-3,6");
        assert_eq!(allowed_cores(Path::new("/no/such/place")), "0");
    }
}
