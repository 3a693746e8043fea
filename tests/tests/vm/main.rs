//! The director on NICs: a virtual machine with Debian's kernel and an IOMMU, the NICs of which belong to vfio-pci, balances
//! HTTP between real servers on the segment of the lab. And what it says of machines and NICs that are not ready for it.
//!
//! `make test-vm` builds the director with DPDK, makes what the machine boots, and runs this; `guest.rs` is the machine.
//! The machine is emulated in software, so that this runs where there is no virtualisation; nothing here is about speed.

mod guest;

use guest::{Guest, Model, Nic};
use pointsman_tests::{Lab, Process, VIP, VIP6};

const TWO_QUEUES: Nic = Nic { model: Model::Virtio, slot: 5 };
const ONE_QUEUE: Nic = Nic { model: Model::E1000, slot: 6 };
/// Words for the kernel: an IOMMU, and huge pages of 2 MiB.
const READY: &str = "intel_iommu=on iommu=pt hugepages=200";

/// The segment of the usual LVS tutorial; the machine is its director.
struct Segment {
    lab: Lab,
    _servers: [Process; 2],
}

impl Segment {
    fn new() -> Self {
        let lab = Lab::segment();
        // Its addresses are the machine's.
        lab.ok("director", "ip link set eth0 down");
        let servers = [lab.web_server("web1", "web_1"), lab.web_server("web2", "web_2")];
        Self { lab, _servers: servers }
    }

    /// Sends requests one after the other; the two servers must answer in turn.
    fn requests_alternate(&self, host: &str, count: usize) {
        let pages = self.lab.requests("client", &format!("http://{host}/"), count);
        let turns = [["web_1", "web_2"], ["web_2", "web_1"]].map(|turn| {
            let pages: Vec<_> = turn.into_iter().cycle().take(count).collect();
            pages
        });
        assert!(turns.iter().any(|turn| *turn == pages), "not in turn: {pages:?}");
    }

    /// Puts a file of three million bytes on a server through the director, and finds it there as it was.
    fn upload(&self) {
        self.lab.sh("head -c 3000000 /dev/urandom >/run/lab/original");
        let put =
            format!("curl -sS --max-time 25 -w '%{{http_code}}' -T /run/lab/original http://{VIP}/copy");
        assert_eq!(self.lab.ok("client", &put), "201");
        self.lab.sh("cmp /run/lab/original /run/lab/web1/copy || cmp /run/lab/original /run/lab/web2/copy");
    }
}

/// A director with one port on a NIC, a worker on each of these cores, and the tutorial's services.
fn configuration(nic: &Nic, cores: &str) -> String {
    let mut text = format!(
        "[[port]]\nname = \"d0\"\ndriver = \"dpdk\"\ndevice = \"{}\"\nidle = \"adaptive\"\n\
         addresses = [\"192.168.10.11/24\", \"fd00:10::11/64\"]\n\
         [workers]\ncores = [{cores}]\n\
         [capacity]\nconnections_ipv4 = 16384\nconnections_ipv6 = 4096\n",
        nic.address()
    );
    for (address, servers) in [(VIP, "192.168.10."), (VIP6, "fd00:10::")] {
        text += &format!(
            "[[service]]\nprotocol = \"tcp\"\naddress = \"{address}\"\nport = 80\nscheduler = \"rr\"\n\
             [[service.server]]\naddress = \"{servers}12\"\n[[service.server]]\naddress = \"{servers}13\"\n"
        );
    }
    text
}

/// Starts the director in the machine and waits until it is ready; what it has said.
fn start(guest: &mut Guest, nic: &Nic, cores: &str) -> String {
    guest.write("/run/director.toml", &configuration(nic, cores));
    guest.ok("pointsmand --config /run/director.toml >/run/director.log 2>&1 & echo $! >/run/director.pid");
    let log = "cat /run/director.log; kill -0 $(cat /run/director.pid) || echo ended";
    let has = |log: &str, word: &str| log.lines().any(|line| line == word);
    let log = guest
        .wait_for("the director is ready or has ended", log, |log| has(log, "ready") || has(log, "ended"));
    assert!(has(&log, "ready"), "{log}\n{}", guest.console());
    log
}

/// Sends the director a signal, and waits until it has ended.
fn stop(guest: &mut Guest, signal: &str) {
    guest.ok(&format!("kill -{signal} $(cat /run/director.pid)"));
    let gone = "kill -0 $(cat /run/director.pid) || true";
    guest.wait_for("the director ends", gone, |text| text.contains("No such process"));
}

/// What the director says when it does not start.
fn refusal(guest: &mut Guest, nic: &Nic, cores: &str) -> String {
    guest.write("/run/director.toml", &configuration(nic, cores));
    let output = guest.run("pointsmand --config /run/director.toml");
    assert_eq!(output.code, 1, "{}", output.stdout);
    output.stdout.lines().last().unwrap_or_default().to_owned()
}

/// Frames received and sent by each worker's queue of its one port.
fn queues(guest: &mut Guest) -> Vec<(u64, u64)> {
    let text = guest.ok("pointsman workers --json");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let workers = value["workers"].as_array().expect("a list").iter();
    let count = |queue: &serde_json::Value, name: &str| queue[name].as_u64().expect("a number");
    workers
        .map(|worker| &worker["queues"][0])
        .map(|queue| (count(queue, "rx_packets"), count(queue, "tx_packets")))
        .collect()
}

/// Frames that workers have handed to one another.
fn handed_off(guest: &mut Guest) -> u64 {
    let text = guest.ok("pointsman workers --json");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let workers = value["workers"].as_array().expect("a list").iter();
    workers.map(|worker| worker["handed_off"].as_u64().expect("a number")).sum()
}

#[test]
fn two_workers_balance_over_two_queues_of_a_virtio_nic_behind_an_iommu() {
    let segment = Segment::new();
    let mut guest = Guest::boot(&segment.lab, &[TWO_QUEUES], READY);
    guest.bind(&[TWO_QUEUES]);
    let log = start(&mut guest, &TWO_QUEUES, "1, 2");
    assert!(log.contains("port d0: dpdk on 0000:00:05.0"), "{log}");
    assert!(log.contains("driver net_virtio") && log.contains("to owners"), "{log}");
    // The device is in a group of its own, by which the director has it; what it may reach lies in huge pages.
    let group = guest.ok("readlink /sys/bus/pci/devices/0000:00:05.0/iommu_group");
    let group = group.rsplit('/').next().expect("the last part");
    let files = guest.ok("ls -l /proc/$(cat /run/director.pid)/fd");
    assert!(files.lines().any(|file| file.ends_with(&format!(" /dev/vfio/{group}"))), "{files}");

    segment.requests_alternate(VIP, 16);
    segment.requests_alternate(&format!("[{VIP6}]"), 16);
    segment.upload();
    // The director answers for the one, the machine's kernel for the other.
    for address in [VIP, "192.168.10.11"] {
        segment.lab.ok("client", &format!("ping -c 3 -i 0.2 -W 5 {address}"));
    }
    let queues = queues(&mut guest);
    assert_eq!(queues.len(), 2, "a queue for each worker");
    let used = |&(received, sent): &(u64, u64)| received > 20 && sent > 20;
    assert!(queues.iter().all(used), "both queues, both ways: {queues:?}");
    assert_eq!(
        handed_off(&mut guest),
        0,
        "the device gives each frame to the worker that owns it: {queues:?}"
    );

    // The device starts again behind a director that has ended.
    stop(&mut guest, "TERM");
    start(&mut guest, &TWO_QUEUES, "1, 2");
    segment.requests_alternate(VIP, 4);
}

#[test]
fn an_e1000_nic_that_is_not_ready_is_named_with_the_remedy_and_then_balances() {
    let segment = Segment::new();
    let mut guest = Guest::boot(&segment.lab, &[ONE_QUEUE], READY);
    let remedy = "modprobe vfio-pci && dpdk-devbind.py -b vfio-pci 0000:00:06.0";
    assert_eq!(
        refusal(&mut guest, &ONE_QUEUE, "1"),
        format!("pointsmand: 0000:00:06.0: the device is bound to no driver; {remedy}")
    );
    guest.ok("modprobe e1000");
    guest.bind_to("e1000", &ONE_QUEUE);
    assert_eq!(
        refusal(&mut guest, &ONE_QUEUE, "1"),
        format!(
            "pointsmand: 0000:00:06.0: the device is bound to the kernel's driver e1000; give it to DPDK, which takes it away from the kernel: {remedy}"
        )
    );
    let absent = Nic { slot: 9, ..ONE_QUEUE };
    assert_eq!(
        refusal(&mut guest, &absent, "1"),
        "pointsmand: 0000:00:09.0: there is no PCI device at this address; `lspci -D | grep -i ethernet` lists those there are"
    );
    guest.bind(&[ONE_QUEUE]);
    let queues = refusal(&mut guest, &ONE_QUEUE, "1, 2");
    assert!(
        queues.starts_with(
            "pointsmand: port d0: 0000:00:06.0: the device (net_e1000_em) has too few queues for 2 workers; configure at most 1 (workers.cores)"
        ),
        "{queues}"
    );
    guest.ok("echo 0 >/proc/sys/vm/nr_hugepages");
    let pages = refusal(&mut guest, &ONE_QUEUE, "1");
    assert!(pages.starts_with("pointsmand: no huge page is free"), "{pages}");
    guest.ok("echo 200 >/proc/sys/vm/nr_hugepages");

    start(&mut guest, &ONE_QUEUE, "1");
    segment.requests_alternate(VIP, 8);
    segment.upload();
    // The cable is pulled, and put back.
    let link = |word: &'static str| {
        move |text: &str| text.lines().any(|line| line.starts_with("d0 ") && line.contains(word))
    };
    guest.cable(&ONE_QUEUE, false);
    guest.wait_for("the link is down", "pointsman stats", link(" down "));
    guest.cable(&ONE_QUEUE, true);
    guest.wait_for("the link is up again", "pointsman stats", link(" up "));
    segment.requests_alternate(VIP, 4);
    // Nothing had time to put the device in order; vfio does that.
    stop(&mut guest, "KILL");
    start(&mut guest, &ONE_QUEUE, "1");
    segment.requests_alternate(&format!("[{VIP6}]"), 4);
}

#[test]
fn without_an_iommu_the_device_is_refused_with_the_words_that_switch_it_on() {
    let lab = Lab::segment();
    let mut guest = Guest::boot(&lab, &[ONE_QUEUE], "intel_iommu=off hugepages=64");
    assert_eq!(guest.ok("ls /sys/kernel/iommu_groups"), "");
    let refused = refusal(&mut guest, &ONE_QUEUE, "1");
    assert!(
        refused.starts_with("pointsmand: 0000:00:06.0: the machine has no IOMMU in use, without which vfio-pci refuses the device")
            && refused.contains("boot Linux with intel_iommu=on iommu=pt"),
        "{refused}"
    );
}
