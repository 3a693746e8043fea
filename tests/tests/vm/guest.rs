//! A virtual machine on the segment of a lab: Debian's kernel under qemu, in software emulation, with an emulated IOMMU.
//!
//! `tests/vm/prepare.sh` has made what it boots. Its NICs are taps on the bridge of the lab. Its first process
//! (`tests/vm/init.sh`) runs what it is told over a serial line, one shell line at a time. The machine, its taps and its
//! files end with the lab.

use pointsman_tests::{Lab, Output, Process, repository, wait_until};
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

/// Limit of one shell line in the machine, in seconds; emulation is ten times as slow as the real thing.
const LINE_SECONDS: u32 = 90;
/// How long the machine may be silent: longer than any line may take.
const SILENCE: Duration = Duration::from_secs(LINE_SECONDS as u64 + 30);
/// How often the machine is asked for what must come; each time takes a quarter of a second at least.
const TRIES: u32 = 400;
/// How often a line is sent that did not come whole.
const REPEATS: u32 = 5;
/// Lines of the machine's console that a failure shows.
const CONSOLE_LINES: usize = 40;

/// A kind of NIC.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    /// virtio-net as a modern PCI device that uses the IOMMU: two queues each way, with a hash.
    Virtio,
    /// Intel 82540EM: one queue.
    E1000,
}

/// A NIC of the machine: its kind, and the number of its slot on the PCI bus.
pub(crate) struct Nic {
    /// What it is.
    pub(crate) model: Model,
    /// 3 to 30.
    pub(crate) slot: u8,
}

impl Nic {
    /// As the machine's kernel and DPDK call it.
    pub(crate) fn address(&self) -> String {
        format!("0000:00:{:02x}.0", self.slot)
    }

    /// Its hardware address.
    pub(crate) fn mac(&self) -> String {
        format!("02:00:00:00:01:{:02x}", self.slot)
    }

    fn tap(&self) -> String {
        format!("vm{}", self.slot)
    }

    /// The command that makes its tap on the bridge.
    fn wire(&self) -> String {
        let queues = if self.model == Model::Virtio { "multi_queue" } else { "" };
        let tap = self.tap();
        format!("ip tuntap add {tap} mode tap {queues} && ip link set {tap} master br0 up")
    }

    /// The arguments of qemu.
    fn arguments(&self) -> String {
        let (tap, mac, slot) = (self.tap(), self.mac(), self.slot);
        let (queues, device) = match self.model {
            Model::Virtio => (
                ",queues=2",
                // Two vectors for each pair of queues, one for configuration, one for control.
                "virtio-net-pci,disable-legacy=on,iommu_platform=on,ats=on,mq=on,vectors=6,rss=on,hash=on",
            ),
            Model::E1000 => ("", "e1000"),
        };
        format!(
            "-netdev tap,id={tap},ifname={tap},script=no,downscript=no,vhost=off{queues} \
             -device {device},netdev={tap},mac={mac},addr={slot:#x}"
        )
    }
}

/// A machine that runs; it ends with its lab.
pub(crate) struct Guest {
    lab: Lab,
    qemu: Process,
    input: UnixStream,
    output: BufReader<UnixStream>,
}

impl Guest {
    /// Boots a machine with three processors, these NICs, and words for the kernel's command line.
    pub(crate) fn boot(lab: &Lab, nics: &[Nic], words: &str) -> Self {
        let folder = prepared();
        for nic in nics {
            lab.ok("switch", &nic.wire());
        }
        let devices: Vec<String> = nics.iter().map(Nic::arguments).collect();
        let line = format!(
            "exec nice qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none \
             -accel tcg,thread=multi -cpu max -smp 3 -m 1024 \
             -machine q35,kernel-irqchip=split -device intel-iommu,intremap=on,device-iotlb=on \
             -kernel {folder}/linux -initrd {folder}/initramfs \
             -append 'console=ttyS0 quiet loglevel=4 panic=-1 {words}' \
             -serial file:/run/lab/console -serial unix:/run/lab/guest,server=on,wait=off \
             -monitor unix:/run/lab/monitor,server=on,wait=off {devices}",
            folder = folder.display(),
            devices = devices.join(" "),
        );
        let mut qemu = lab.spawn("switch", "qemu", &line);
        let socket = lab.path("/run/lab/guest");
        let mut input = None;
        wait_until("qemu opens the serial line", 30, || {
            assert!(qemu.is_running(), "qemu has ended:\n{}", qemu.log());
            input = UnixStream::connect(&socket).ok();
            input.is_some()
        });
        let input = input.expect("the loop ended with a connection");
        input.set_read_timeout(Some(SILENCE)).expect("a limit can be set");
        let output = BufReader::new(input.try_clone().expect("a socket has two ends"));
        let mut guest = Self { lab: lab.clone(), qemu, input, output };
        guest.until("ready");
        guest
    }

    /// Runs a shell line and returns what it left, standard error within standard output; stopped at its limit.
    pub(crate) fn run(&mut self, line: &str) -> Output {
        let quoted = line.replace('\'', "'\\''");
        assert!(!quoted.contains('\n'), "the machine takes one line at a time: {quoted}");
        let line = format!("timeout -k 2 {LINE_SECONDS} sh -c '{quoted}'");
        let (stdout, end) = (0..REPEATS)
            .map(|_| self.told(&line))
            .find(|(_, end)| end != "again")
            .unwrap_or_else(|| panic!("the machine never got this line whole: {line}"));
        let code = end.parse().expect("the status is a number");
        Output { code, stdout, stderr: String::new() }
    }

    /// Sends the machine a line: what came back, and how it ended.
    fn told(&mut self, line: &str) -> (String, String) {
        let message = format!("{} {line}\n", line.len());
        self.input.write_all(message.as_bytes()).expect("the machine takes a line");
        self.until("<<<");
        self.until(">>> ")
    }

    /// Runs a shell line; panics unless it succeeds. Returns what it printed.
    pub(crate) fn ok(&mut self, line: &str) -> String {
        let output = self.run(line);
        assert!(
            output.code == 0,
            "[guest]# {line}\nexit {}\n{}{}",
            output.code,
            output.stdout,
            self.console()
        );
        output.stdout
    }

    /// Gives the NICs to vfio-pci, which is what makes them DPDK's.
    pub(crate) fn bind(&mut self, nics: &[Nic]) {
        self.ok("modprobe -a vfio-pci vfio_iommu_type1 tun");
        for nic in nics {
            self.bind_to("vfio-pci", nic);
        }
    }

    /// Takes a NIC from its driver, if it has one, and gives it to another, which is loaded.
    pub(crate) fn bind_to(&mut self, driver: &str, nic: &Nic) {
        let address = nic.address();
        self.ok(&format!(
            "cd /sys/bus/pci/devices/{address}; [ ! -e driver ] || echo {address} >driver/unbind; \
             echo {driver} >driver_override; echo {address} >/sys/bus/pci/drivers_probe; \
             readlink driver | grep -q '/{driver}$'"
        ));
    }

    /// Puts the cable into a NIC, or pulls it out.
    pub(crate) fn cable(&mut self, nic: &Nic, plugged: bool) {
        let monitor = UnixStream::connect(self.lab.path("/run/lab/monitor"));
        let mut monitor = monitor.expect("qemu listens to its monitor");
        monitor.set_read_timeout(Some(SILENCE)).expect("a limit can be set");
        let line = format!("set_link {} {}\n", nic.tap(), if plugged { "on" } else { "off" });
        monitor.write_all(line.as_bytes()).expect("the monitor takes a line");
        // It answers with what it was told and a prompt; what it has not read is lost with the connection.
        let mut answer = BufReader::new(monitor);
        for _ in 0..2 {
            answer.read_until(b'\n', &mut Vec::new()).expect("the monitor answers");
        }
    }

    /// Writes a file of the machine.
    pub(crate) fn write(&mut self, path: &str, content: &str) {
        let lines: Vec<String> = content.lines().map(|line| format!("\"{}\"", shell(line))).collect();
        self.ok(&format!("printf '%s\\n' {} >{path}", lines.join(" ")));
    }

    /// Runs a shell line again and again until `good` likes what it prints; panics with the last if it does not.
    pub(crate) fn wait_for(&mut self, what: &str, line: &str, good: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        for _ in 0..TRIES {
            last = self.run(line).stdout;
            if good(&last) {
                return last;
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        panic!("not so: {what}\n[guest]# {line}\n{last}\n{}", self.console());
    }

    /// The last lines of the machine's console, and what qemu said.
    pub(crate) fn console(&self) -> String {
        let text = self.lab.read("/run/lab/console");
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(CONSOLE_LINES)..];
        format!("the console of the machine:\n{}\nqemu:\n{}", last.join("\n"), self.qemu.log())
    }

    /// Reads lines until one begins with `mark`: those before, and what stands behind the mark.
    fn until(&mut self, mark: &str) -> (String, String) {
        let mut before = String::new();
        loop {
            let mut line = Vec::new();
            match self.output.read_until(b'\n', &mut line) {
                Ok(count) if count > 0 => {}
                end => panic!(
                    "the machine is silent ({end:?}); it said:\n{before}{}\n{}",
                    String::from_utf8_lossy(&line),
                    self.console()
                ),
            }
            let line = String::from_utf8_lossy(&line);
            if let Some(rest) = line.strip_prefix(mark) {
                // The newline before the mark is the machine's, not the program's.
                return (before.trim_end_matches('\n').to_owned(), rest.trim_end().to_owned());
            }
            before += &line;
        }
    }
}

/// Characters that mean something within the double quotes of a shell.
fn shell(line: &str) -> String {
    line.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('`', "\\`")
}

/// Where `tests/vm/prepare.sh` left the kernel and the initramfs.
fn prepared() -> PathBuf {
    let folder = repository().join("target/vm");
    assert!(
        folder.join("initramfs").is_file(),
        "{} has no initramfs: `make test-vm` makes it before it runs this test",
        folder.display()
    );
    folder
}
