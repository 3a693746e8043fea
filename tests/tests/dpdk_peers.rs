//! `pointsmand` with a port of DPDK's on an interface of the kernel, by AF_XDP: end to end, with real nginx and real curl.
//!
//! AF_XDP takes frames by a program in the kernel, which the kernel takes from the machine's root only: so does this test.
//! Ports in memory that is shared with another process (`net_memif`) are in `dataplane/tests/dpdk_memif.rs`.

use pointsman_tests::{Director, Lab, Process, VIP, VIP6, wait_until};

/// The director's end of the cable as a device of DPDK's.
const PORT: &str = "[[port]]\nname = \"d0\"\ndriver = \"dpdk\"\ndevice = \"net_af_xdp0,iface=eth0\"\nidle = \"adaptive\"\n\
    addresses = [\"192.168.10.11/24\", \"fd00:10::11/64\"]\n\
    [dpdk]\nmemory = \"ordinary\"\n\
    [capacity]\nconnections_ipv4 = 16384\nconnections_ipv6 = 4096\n";

/// The tutorial's segment, in which the director's interface belongs to DPDK.
fn segment() -> (Lab, [Process; 2]) {
    let lab = Lab::of_root("AF_XDP loads a program into the kernel").with_segment();
    lab.ok("director", "ip addr flush dev eth0 && sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1");
    for node in ["client", "web1", "web2"] {
        // The driver does not complete checksums that a sender leaves to its interface.
        lab.ok(node, "ethtool -K eth0 tx off >/dev/null");
    }
    let servers = [lab.web_server("web1", "web_1"), lab.web_server("web2", "web_2")];
    lab.write("/run/lab/xdp.toml", PORT);
    (lab, servers)
}

fn add_services(director: &Director) {
    director.add_web_service("rr");
    director.ipvsadm_all(&[
        "-A -t [fd00:10::100]:80 -s rr",
        "-a -t [fd00:10::100]:80 -r [fd00:10::12]:80 -g",
        "-a -t [fd00:10::100]:80 -r [fd00:10::13]:80 -g",
    ]);
}

/// Requests that the servers answer in turn; the server added last is the first to be chosen.
fn requests_alternate(lab: &Lab, host: &str) {
    let turn = ["web_2", "web_1"].into_iter().cycle().take(8).collect::<Vec<_>>();
    assert_eq!(lab.requests("client", &format!("http://{host}/"), 8), turn);
}

/// Whether a program takes frames from the director's interface before the kernel.
fn has_program(lab: &Lab) -> bool {
    lab.ok("director", "ip link show eth0").contains("prog/xdp")
}

#[test]
fn requests_alternate_over_af_xdp_and_an_upload_arrives_whole() {
    let (lab, _servers) = segment();
    let mut director = Director::start(&lab, "director", "--config /run/lab/xdp.toml");
    assert!(director.process.log().contains("driver net_af_xdp"), "{}", director.process.log());
    assert!(has_program(&lab), "the kernel has no frames of the interface");
    add_services(&director);
    requests_alternate(&lab, VIP);
    requests_alternate(&lab, &format!("[{VIP6}]"));
    lab.ok("client", &format!("ping -c 3 -i 0.2 -W 5 {VIP}"));
    lab.sh("head -c 3000000 /dev/urandom >/run/lab/original");
    let put = format!("curl -sS --max-time 25 -w '%{{http_code}}' -T /run/lab/original http://{VIP}/copy");
    assert_eq!(lab.ok("client", &put), "201");
    lab.sh("cmp /run/lab/original /run/lab/web2/copy");
    director.process.signal("TERM");
    assert_eq!(director.process.wait(20), 0, "{}", director.process.log());
    assert!(!has_program(&lab), "the interface is the kernel's again");
}

#[test]
fn a_director_killed_on_af_xdp_is_started_again_and_serves() {
    let (lab, _servers) = segment();
    let mut director = Director::start(&lab, "director", "--config /run/lab/xdp.toml");
    director.process.signal("KILL");
    director.process.wait(20);
    wait_until("its interface is gone", 20, || lab.run("director", "ip link show d0").code != 0);
    let director = Director::start(&lab, "director", "--config /run/lab/xdp.toml");
    add_services(&director);
    requests_alternate(&lab, VIP);
    lab.ok("director", "ip link set eth0 down");
    lab.ok("director", "ip link set eth0 up");
    requests_alternate(&lab, VIP);
}
