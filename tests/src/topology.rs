//! Topologies of any shape: switches, nodes plugged into them, routers, and directors with several ports and workers.

use crate::{Director, Lab, two_cores};

impl Lab {
    /// Adds a node that is an Ethernet switch.
    pub fn add_switch(&self, switch: &str) {
        self.add_node(switch);
        self.ok(switch, "ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up");
        // Where the kernel's bridge netfilter is loaded, it would filter what is only switched here.
        self.run(
            switch,
            "sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0",
        );
    }

    /// Gives a node, which is added if it is not there, an interface with these addresses (`10.0.0.1/24`) on a switch.
    pub fn plug(&self, node: &str, interface: &str, switch: &str, addresses: &[&str]) {
        let peer = format!("{node}-{interface}");
        assert!(peer.len() < 16, "the kernel has no longer names of interfaces: {peer}");
        self.sh(&format!(
            "[ -e /run/netns/{node} ] || {{ ip netns add {node} && ip -n {node} link set lo up; }} \
             && ip link add {interface} netns {node} type veth peer name {peer} netns {switch}"
        ));
        self.ok(switch, &format!("ip link set {peer} master br0 up"));
        self.ok(node, &format!("ip link set {interface} up"));
        for address in addresses {
            // An IPv6 address counts at once: nobody else has it.
            let nodad = if address.contains(':') { "nodad" } else { "" };
            self.ok(node, &format!("ip addr add {address} dev {interface} {nodad}"));
        }
    }

    /// What a node does not reach itself goes to `gateway`.
    pub fn set_gateway(&self, node: &str, gateway: &str) {
        self.ok(node, &format!("ip route add default via {gateway}"));
    }

    /// Makes a node a router, which forwards what no route leads back for as well: answers of real servers come from
    /// the VIP, which is on another side.
    pub fn make_router(&self, node: &str) {
        self.ok(node, "sysctl -qw net.ipv4.ip_forward=1 && for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done");
    }

    /// Puts VIPs on a device of a real server, which stays silent about them: the files that the usual LVS tutorial edits.
    pub fn hold_quietly(&self, node: &str, device: &str, vips: &[&str]) {
        for vip in vips {
            self.ok(node, &format!("ip addr add {vip}/32 dev {device}"));
        }
        for scope in ["all", "default", "lo"] {
            let conf = format!("net.ipv4.conf.{scope}");
            self.ok(node, &format!("sysctl -qw {conf}.arp_ignore=1 {conf}.arp_announce=2"));
        }
    }
}

impl Director {
    /// Starts a director with these interfaces as its ports and one or two workers. The kernel beside it forwards
    /// nothing.
    pub fn with_workers(lab: &Lab, node: &str, ports: &[&str], workers: usize) -> Self {
        let forwards = lab.ok(node, "cat /proc/sys/net/ipv4/ip_forward");
        assert_eq!(forwards.trim(), "0", "the kernel of {node} must not forward");
        let mut text = String::new();
        for port in ports {
            text += &format!("[[port]]\ndevice = \"{port}\"\n\n");
        }
        text += &format!("[workers]\ncores = {:?}\n", &two_cores()[..workers]);
        let file = format!("/run/lab/{node}.toml");
        lab.write(&file, &text);
        Self::start(lab, node, &format!("--config {file}"))
    }
}
