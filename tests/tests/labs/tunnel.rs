//! T3, tunnels: the servers are across a router, and answer the client by it, past the director.
//!
//! ```text
//! client 10.1.0.50 ──── router ──── director 192.168.10.11, VIP 192.168.10.100
//!                         │
//!                         └──────── web1 172.20.0.12, web2 172.20.0.13, the VIP on their tunnel devices
//! ```
//!
//! Not every kernel has tunnel devices (that of a small virtual machine may not): a program on a TUN device is the end of
//! the tunnel here, everywhere.

use super::with_one_and_two_workers;
use pointsman_tests::{Director, Lab, Process, Web, repository};

const VIP: &str = "192.168.10.100";

struct Network {
    lab: Lab,
    director: Director,
    servers: Vec<Web>,
    _ends: Vec<Process>,
}

impl Network {
    /// With servers that are the ends of tunnels of that kind, as `tunnel_end.py` knows it.
    fn new(workers: usize, kind: &str) -> Self {
        let lab = Lab::new();
        for switch in ["near", "middle", "far"] {
            lab.add_switch(switch);
        }
        lab.plug("router", "eth0", "near", &["10.1.0.1/24"]);
        lab.plug("router", "eth1", "middle", &["192.168.10.1/24"]);
        lab.plug("router", "eth2", "far", &["172.20.0.1/24"]);
        lab.make_router("router");
        lab.plug("client", "eth0", "near", &["10.1.0.50/24"]);
        lab.set_gateway("client", "10.1.0.1");
        lab.plug("director", "eth0", "middle", &["192.168.10.11/24"]);
        lab.set_gateway("director", "192.168.10.1");
        let (servers, ends) = [12, 13].map(|number| server(&lab, number, kind)).into_iter().unzip();
        let director = Director::with_workers(&lab, "director", &["eth0"], workers);
        Self { lab, director, servers, _ends: ends }
    }

    /// Adds the service and the servers, with these options of the tunnels.
    fn add_service(&self, options: &str) {
        self.director.ipvsadm_all(&[
            &format!("-A -t {VIP}:80 -s rr"),
            &format!("-a -t {VIP}:80 -r 172.20.0.12:80 -i {options}"),
            &format!("-a -t {VIP}:80 -r 172.20.0.13:80 -i {options}"),
        ]);
    }

    /// Bytes that the router has had from the director.
    fn bytes_of_director(&self) -> u64 {
        let text = self.lab.ok("router", "cat /sys/class/net/eth1/statistics/rx_bytes");
        text.trim().parse().expect("the kernel counts in numbers")
    }
}

/// A web server in the far network, with the VIP on its tunnel device.
fn server(lab: &Lab, number: u8, kind: &str) -> (Web, Process) {
    let (node, address) = (format!("web{}", number - 11), format!("172.20.0.{number}"));
    lab.plug(&node, "eth0", "far", &[&format!("{address}/24")]);
    lab.set_gateway(&node, "172.20.0.1");
    lab.ok(&node, "ip tuntap add dev vip0 mode tun && ip link set vip0 up");
    lab.ok(&node, "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done");
    lab.hold_quietly(&node, "vip0", &[VIP]);
    let script = repository().join("tests/scripts/tunnel_end.py");
    let mut end = lab.spawn(
        &node,
        "tunnel",
        &format!("exec /usr/bin/python3 {} vip0 {address} {kind}", script.display()),
    );
    end.wait_for_line("listening", 10);
    (lab.web(&node, &format!("web_{}", number - 11), &[80]), end)
}

#[test]
fn the_tunnel_lab_works_with_servers_across_a_router() {
    with_one_and_two_workers(|workers| {
        let network = Network::new(workers, "ipip");
        network.add_service("");
        let table = network.director.ipvsadm("-Ln").stdout;
        assert!(
            table.contains("  -> 172.20.0.12:80               Tunnel  1      0          0         \n"),
            "{table}"
        );
        assert_eq!(
            network.lab.requests("client", &format!("http://{VIP}/"), 20),
            ["web_2", "web_1"].repeat(10)
        );
        for server in &network.servers {
            assert_eq!(server.log(10), ["10.1.0.50 80 GET /"; 10], "the servers see the client's address");
        }
    });
}

#[test]
fn gue_and_gre_tunnels_work_as_well() {
    for (kind, options) in [
        ("gue:6080", "--tun-type gue --tun-port 6080 --tun-nocsum"),
        ("gre", "--tun-type gre --tun-nocsum"),
        ("gre", "--tun-type gre --tun-csum"),
    ] {
        let network = Network::new(2, kind);
        network.add_service(options);
        let pages = network.lab.requests("client", &format!("http://{VIP}/"), 6);
        assert_eq!(pages, ["web_2", "web_1"].repeat(3), "{options}");
    }
}

#[test]
fn large_transfers_fit_into_a_tunnel_and_answers_go_straight_to_the_client() {
    with_one_and_two_workers(|workers| {
        let network = Network::new(workers, "ipip");
        network.add_service("");
        let lab = &network.lab;
        lab.sh("head -c 5000000 /dev/urandom >/run/lab/original");
        for server in &network.servers {
            lab.sh(&format!("cp /run/lab/original {}", server.path("large")));
        }
        let before = network.bytes_of_director();
        lab.ok("client", &format!("curl -sS --max-time 20 http://{VIP}/large | cmp - /run/lab/original"));
        let download = network.bytes_of_director() - before;
        // Requests and acknowledgements pass the director, and no answer does.
        assert!(download < 1_000_000, "{download} bytes came from the director");
        assert_eq!(network.director.stats()[2], 0, "packets that went back through the director");

        // Full frames of the client do not fit behind another header: it hears of that, and sends smaller ones.
        let put =
            format!("curl -sS --max-time 20 -w '%{{http_code}}' -T /run/lab/original http://{VIP}/copy");
        assert_eq!(lab.ok("client", &put), "201");
        lab.sh(&format!("cmp /run/lab/original {}", network.servers[0].path("copy")));
        let way = lab.ok("client", &format!("ip route get {VIP}"));
        assert!(way.contains(" mtu 1480"), "the client has learned the MTU of the tunnel: {way}");
    });
}
