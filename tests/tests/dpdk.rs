//! `pointsmand` with ports of DPDK's, end to end: real nginx, real curl, a device that the kernel sees only by the
//! interface that the director makes for it. Packets lie in ordinary pages, so that it runs anywhere.

use pointsman_tests::{Director, Lab, VIP};

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
