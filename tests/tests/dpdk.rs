//! `pointsmand` with ports of DPDK's, end to end: real nginx, real curl, a device that the kernel sees only by the
//! interface that the director makes for it. Packets lie in ordinary pages, so that it runs anywhere.

use pointsman_tests::{Director, Lab, VIP, two_cores};

/// The tutorial's segment, in which the director's end of the cable belongs to DPDK.
struct Cluster {
    lab: Lab,
    director: Director,
    _servers: [pointsman_tests::Process; 2],
}

/// The director's end of the cable as a device of DPDK's.
const DEVICE: &str = "net_af_packet0,iface=eth0";

/// What a director with one port on a device is told.
fn configuration(device: &str, more: &str) -> String {
    format!(
        "[[port]]\nname = \"d0\"\ndriver = \"dpdk\"\ndevice = \"{device}\"\n\
         addresses = [\"192.168.10.11/24\", \"fd00:10::11/64\"]\n{more}\n\
         [dpdk]\nmemory = \"ordinary\"\n\n\
         [capacity]\nconnections_ipv4 = 16384\nconnections_ipv6 = 4096\n"
    )
}

/// A segment whose director has given its interface away: the kernel has neither address nor traffic there.
fn segment() -> Lab {
    let lab = Lab::segment();
    lab.ok(
        "director",
        "ip addr flush dev eth0 && sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1 net.ipv4.conf.eth0.arp_ignore=8 \
         net.ipv4.conf.eth0.rp_filter=1",
    );
    for node in ["client", "web1", "web2"] {
        // The driver does not complete checksums that a sender leaves to its interface.
        lab.ok(node, "ethtool -K eth0 tx off >/dev/null");
    }
    lab
}

impl Cluster {
    fn new(device: &str, more: &str) -> Self {
        let lab = segment();
        let servers = [lab.web_server("web1", "web_1"), lab.web_server("web2", "web_2")];
        lab.write("/run/lab/dpdk.toml", &configuration(device, more));
        let director = Director::start(&lab, "director", "--config /run/lab/dpdk.toml");
        Self { lab, director, _servers: servers }
    }
}

/// The server added last is the head of the list, so it is the first to be chosen.
const IN_TURN: [&str; 8] = ["web_2", "web_1", "web_2", "web_1", "web_2", "web_1", "web_2", "web_1"];

#[test]
fn http_requests_alternate_between_two_servers_behind_a_dpdk_port() {
    let cluster = Cluster::new(DEVICE, "");
    cluster.director.add_web_service("rr");
    assert_eq!(cluster.lab.requests("client", &format!("http://{VIP}/"), 8), IN_TURN);
    cluster.director.ipvsadm_all(&[
        "-A -t [fd00:10::100]:80 -s rr",
        "-a -t [fd00:10::100]:80 -r [fd00:10::12]:80 -g",
        "-a -t [fd00:10::100]:80 -r [fd00:10::13]:80 -g",
    ]);
    assert_eq!(cluster.lab.requests("client", "http://[fd00:10::100]/", 8), IN_TURN);
}

#[test]
fn the_host_is_reached_by_the_interface_of_the_port_and_it_goes_with_the_director() {
    let mut cluster = Cluster::new(DEVICE, "gateways = [\"192.168.10.1\"]");
    let mac = cluster.lab.mac("director", "eth0");
    assert_eq!(cluster.lab.mac("director", "d0"), mac, "the interface has the MAC address of the device");
    let ping = cluster.lab.ok("client", "ping -c 3 -i 0.2 -W 2 192.168.10.11");
    assert!(!ping.contains("DUP"), "{ping}");
    cluster.lab.ok("client", "ping -c 3 -i 0.2 -W 2 fd00:10::11");
    cluster.lab.ok("director", "ping -c 3 -i 0.2 -W 2 192.168.10.12");
    let routes = cluster.lab.ok("director", "ip route show default");
    assert_eq!(routes.trim(), "default via 192.168.10.1 dev d0 proto static");
    cluster.director.process.signal("TERM");
    assert_eq!(cluster.director.process.wait(10), 0, "{}", cluster.director.process.log());
    let gone = cluster.lab.run("director", "ip link show d0");
    assert_ne!(gone.code, 0, "{}", gone.text());
}

#[test]
fn two_workers_share_a_device_of_two_queues() {
    let device = "net_af_packet0,iface=eth0,qpairs=2";
    let cluster = Cluster::new(device, &format!("[workers]\ncores = {:?}\n", two_cores()));
    cluster.director.add_web_service("rr");
    let pages = cluster.lab.requests("client", &format!("http://{VIP}/"), 40);
    let count = |page: &str| pages.iter().filter(|p| *p == page).count();
    assert_eq!((pages.len(), count("web_1"), count("web_2")), (40, 20, 20), "{pages:?}");
    let shown = cluster.director.pointsman("workers").stdout;
    assert!(shown.contains("\n     0  d0        0 ") && shown.contains("\n     1  d0        1 "), "{shown}");
}

#[test]
fn ports_shows_the_device_its_driver_its_queues_and_its_counters() {
    let cluster = Cluster::new(DEVICE, "");
    cluster.lab.ok("client", "ping -c 3 -i 0.2 -W 2 192.168.10.11");
    let shown = cluster.director.pointsman("ports --xstats");
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""), "{}", shown.stdout);
    for part in [
        "d0    dpdk    net_af_packet0,iface=eth0  net_af_packet  up ",
        " 1500       1  one queue  192.168.10.11/24 ",
        "\nrx_good_packets ",
        "\nexception_to_host_refused ",
    ] {
        assert!(shown.stdout.contains(part), "`{part}` is not in:\n{}", shown.stdout);
    }
    let json = cluster.director.pointsman("ports --json d0").stdout;
    let received = json.lines().find_map(|line| line.trim().strip_prefix("\"rx_packets\": "));
    let received: u64 = received.and_then(|number| number.trim_end_matches(',').parse().ok()).unwrap_or(0);
    assert!(received >= 3, "{json}");
    let absent = cluster.director.pointsman("ports d7");
    assert_eq!(absent.code, 1);
    assert!(absent.stderr.contains("d7") && absent.stderr.contains("its ports are d0"), "{}", absent.stderr);
}

#[test]
fn a_device_whose_driver_sees_the_link_tells_it_and_traffic_resumes_when_it_is_back() {
    let lab = segment();
    let _servers = [lab.web_server("web1", "web_1"), lab.web_server("web2", "web_2")];
    lab.write("/run/lab/dpdk.toml", &configuration("net_tap0,iface=cable0", ""));
    let director = Director::start(&lab, "director", "--config /run/lab/dpdk.toml");
    // What the device sends comes out of the interface cable0, and goes over a bridge to the segment. Its own address is
    // the device's: the bridge would keep what is sent to it.
    lab.ok(
        "director",
        "ip link add br1 type bridge mcast_snooping 0 && ip link set br1 up && ip link set eth0 master br1 && \
         ip link set cable0 down && ip link set cable0 address 02:00:00:00:00:77 master br1 up && \
         ethtool -K cable0 tx off gro off >/dev/null",
    );
    director.add_web_service("rr");
    let page = format!("http://{VIP}/");
    assert_eq!(lab.requests("client", &page, 2), ["web_2", "web_1"]);
    lab.ok("director", "ip link set cable0 down");
    let lost =
        "port d0: the device vdev:net_tap0,iface=cable0 has no link: check its cable, or the other side";
    says(&director, lost);
    lab.ok("director", "ip link set cable0 up");
    says(&director, "port d0: has a link again, after ");
    assert_eq!(lab.requests("client", &page, 2), ["web_2", "web_1"]);
}

/// Waits until the log of the director has a text.
fn says(director: &Director, text: &str) {
    for _ in 0..200 {
        if director.process.log().contains(text) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the log does not say `{text}`:\n{}", director.process.log());
}

#[test]
fn traffic_resumes_after_a_link_was_lost_and_the_log_and_ports_say_so() {
    let cluster = Cluster::new(DEVICE, "");
    cluster.director.add_web_service("rr");
    let page = format!("http://{VIP}/");
    assert_eq!(cluster.lab.requests("client", &page, 2), ["web_2", "web_1"]);
    // The other end of the director's cable.
    cluster.lab.ok("switch", "ip link set director down");
    let lost =
        "port d0: the device vdev:net_af_packet0,iface=eth0 has no link: check its cable, or the other side";
    says(&cluster.director, lost);
    let shown = cluster.director.pointsman("ports").stdout;
    assert!(shown.contains("net_af_packet  down ") && shown.contains(lost), "{shown}");
    let carrier = cluster.lab.run("director", "cat /sys/class/net/d0/carrier").stdout;
    assert_eq!(carrier.trim(), "0", "the kernel knows it too");
    cluster.lab.ok("switch", "ip link set director up");
    says(&cluster.director, "port d0: has a link again, after ");
    assert_eq!(cluster.lab.requests("client", &page, 2), ["web_2", "web_1"]);
    cluster.lab.ok("client", "ping -c 1 -W 5 192.168.10.11");
    let shown = cluster.director.pointsman("ports").stdout;
    assert!(shown.contains("net_af_packet  up ") && !shown.contains("warning"), "{shown}");
}

#[test]
fn the_threads_of_dpdk_stay_off_the_cores_of_the_workers() {
    let [core, _] = two_cores();
    let cluster = Cluster::new("net_null0", &format!("[workers]\ncores = [{core}]\n"));
    let line = format!(
        "for task in /proc/{}/task/*; do echo \"$(cat $task/comm):$(grep Cpus_allowed_list $task/status)\"; done",
        cluster.director.process.pid()
    );
    let text = cluster.lab.sh(&line);
    let thread = |line: &str| {
        let (name, list) = line.split_once(":Cpus_allowed_list:").expect("a name and its cores");
        (name.to_owned(), list.trim().to_owned())
    };
    let threads: Vec<_> = text.lines().map(thread).collect();
    for wanted in ["worker-0", "exception", "eal-intr-thread"] {
        assert!(threads.iter().any(|(name, _)| name == wanted), "{wanted}: {threads:?}");
    }
    for (name, cores) in &threads {
        assert_eq!(has(cores, core), name == "worker-0", "{name} may use {cores}: {threads:?}");
    }
}

/// Whether a list of the kernel's, like `0-3,7`, has a core.
fn has(list: &str, core: usize) -> bool {
    list.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<usize>().expect("the number of a core");
        (number(first)..=number(last)).contains(&core)
    })
}
