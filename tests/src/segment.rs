//! One Ethernet segment with hosts on it, real servers as the usual LVS tutorial sets them up, and clients.

use crate::{Lab, Process, wait_until};

/// The virtual address of the segment, IPv4.
pub const VIP: &str = "192.168.10.100";
/// The virtual address of the segment, IPv6.
pub const VIP6: &str = "fd00:10::100";

/// The hosts of the tutorial and the last part of their addresses.
const HOSTS: [(&str, u8); 4] = [("client", 50), ("director", 11), ("web1", 12), ("web2", 13)];

impl Lab {
    /// A lab with one segment: client .50, director .11, web1 .12 and web2 .13 of 192.168.10.0/24 and fd00:10::/64,
    /// each with its interface `eth0`, joined by a bridge in the node `switch`.
    pub fn segment() -> Self {
        Self::new().with_segment()
    }

    /// The same in a lab that is there.
    pub fn with_segment(self) -> Self {
        let lab = self;
        lab.add_node("switch");
        lab.ok("switch", "ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up");
        // Where the kernel's bridge netfilter is loaded, it would take broken packets out that are meant to arrive.
        let no_filter =
            "sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0";
        lab.run("switch", no_filter);
        for (host, number) in HOSTS {
            lab.add_node(host);
            lab.sh(&format!("ip link add eth0 netns {host} type veth peer name {host} netns switch"));
            lab.ok("switch", &format!("ip link set {host} master br0 up"));
            // Duplicate address detection would only delay the tests.
            lab.ok(
                host,
                &format!(
                    "sysctl -qw net.ipv6.conf.eth0.accept_dad=0 net.ipv6.conf.eth0.router_solicitations=0 \
                     && ip addr add 192.168.10.{number}/24 dev eth0 \
                     && ip link set eth0 up && ip addr add fd00:10::{number}/64 dev eth0 nodad"
                ),
            );
        }
        lab
    }

    /// Puts the VIPs on the loopback of a server and keeps it silent about them, as the tutorial does.
    pub fn hold_vips(&self, node: &str) {
        let mut line = format!(
            "ip addr add {VIP}/32 dev lo label lo:0 && ip route add {VIP}/32 dev lo && ip addr add {VIP6}/128 dev lo nodad"
        );
        for scope in ["all", "default", "lo"] {
            line += &format!(
                " && sysctl -qw net.ipv4.conf.{scope}.arp_ignore=1 net.ipv4.conf.{scope}.arp_announce=2"
            );
        }
        self.ok(node, &line);
    }

    /// A real server with the VIPs and a real nginx on port 80 whose page is `page`.
    pub fn web_server(&self, node: &str, page: &str) -> Process {
        self.hold_vips(node);
        let home = format!("/run/lab/{node}");
        self.write(&format!("{home}/index.html"), &format!("{page}\n"));
        self.write(&format!("{home}/nginx.conf"), &nginx_configuration(&home));
        let nginx =
            self.spawn(node, "nginx", &format!("exec nginx -e {home}/error.log -c {home}/nginx.conf"));
        wait_until(&format!("nginx on {node} answers"), 10, || {
            self.run(node, "curl -s --max-time 2 http://127.0.0.1/").stdout.trim() == page
        });
        nginx
    }

    /// A real server with the VIPs that answers each datagram to port 53 with `name`.
    pub fn udp_server(&self, node: &str, name: &str) -> Process {
        self.hold_vips(node);
        let program = "import socket, sys\n\
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
            s.bind((sys.argv[1], 53))\n\
            print('listening', flush=True)\n\
            while True:\n    \
                s.sendto(sys.argv[2].encode(), s.recvfrom(2000)[1])\n";
        self.write("/run/lab/udp_server.py", program);
        let line = format!("exec /usr/bin/python3 /run/lab/udp_server.py {VIP} {name}");
        let mut server = self.spawn(node, "udp", &line);
        server.wait_for_line("listening", 10);
        server
    }

    /// Sends `count` HTTP requests one after the other; the pages that came back.
    pub fn requests(&self, node: &str, url: &str, count: usize) -> Vec<String> {
        let line = format!("for i in $(seq {count}); do curl -gsS --max-time 5 {url} || exit 1; done");
        self.ok(node, &line).lines().map(str::to_owned).collect()
    }

    /// Sends `count` datagrams to port 53 of the VIP, each from a port of its own; the answers, `-` for none.
    pub fn datagrams(&self, node: &str, count: usize) -> Vec<String> {
        let program = "import socket, sys\n\
            for i in range(int(sys.argv[2])):\n    \
                s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
                s.settimeout(5)\n    \
                s.connect((sys.argv[1], 53))\n    \
                s.send(b'who?')\n    \
                try: print(s.recv(100).decode())\n    \
                except OSError: print('-')\n";
        self.write("/run/lab/udp_client.py", program);
        let answers = self.ok(node, &format!("/usr/bin/python3 /run/lab/udp_client.py {VIP} {count}"));
        answers.lines().map(str::to_owned).collect()
    }

    /// Frames that the kernel has received on a node's interface.
    pub fn received(&self, node: &str, interface: &str) -> u64 {
        let number = self.ok(node, &format!("cat /sys/class/net/{interface}/statistics/rx_packets"));
        number.trim().parse().expect("the kernel counts in numbers")
    }

    /// The hardware address of a node's interface.
    pub fn mac(&self, node: &str, interface: &str) -> String {
        self.ok(node, &format!("cat /sys/class/net/{interface}/address")).trim().to_owned()
    }
}

fn nginx_configuration(home: &str) -> String {
    let mut text = format!(
        "user root;\ndaemon off;\nmaster_process off;\npid {home}/nginx.pid;\n\
         events {{ worker_connections 256; }}\nhttp {{\n    access_log off;\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        text += &format!("    {kind}_temp_path {home}/{kind};\n");
    }
    text + &format!(
        "    server {{ listen 80; listen [::]:80; client_max_body_size 0; root {home}; dav_methods PUT; }}\n}}\n"
    )
}
