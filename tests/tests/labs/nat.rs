//! T2, address translation, with the director between the client and the servers, whose gateway it is. The tutorial's
//! addresses; its line of iptables is `pointsman source-nat add` here.
//!
//! ```text
//! client 20.20.20.50 ──┬── director 20.20.20.1 (eth0), 10.10.10.1 (eth1) ──┬── server 10.10.10.12
//! elsewhere .99 ───────┘   VIP 20.20.20.11, Pointsman's alone              └── other  10.10.10.13
//! ```

use super::with_one_and_two_workers;
use pointsman_tests::{Director, Held, Lab, Web, wait_until};

/// `iptables -t nat -A POSTROUTING -s 10.10.10.0/24 -o eth0 -j SNAT --to-source 20.20.20.11`
const SOURCE_NAT: &str = "source-nat add --source 10.10.10.0/24 --interface eth0 --to 20.20.20.11";
const SERVICE: &str = "-A -t 20.20.20.11:80 -s rr";

struct Network {
    lab: Lab,
    director: Director,
    server: Web,
    other: Web,
    elsewhere: Web,
}

impl Network {
    /// The director has one interface outside and one inside.
    fn new(workers: usize) -> Self {
        let lab = outside();
        lab.add_switch("inside");
        lab.plug("director", "eth0", "outside", &["20.20.20.1/24"]);
        lab.plug("director", "eth1", "inside", &["10.10.10.1/24"]);
        Self::with_servers(lab, "inside", &["eth0", "eth1"], workers)
    }

    /// All are on one segment, and the director's only interface has an address of each network.
    fn one_armed(workers: usize) -> Self {
        let lab = outside();
        lab.plug("director", "eth0", "outside", &["20.20.20.1/24", "10.10.10.1/24"]);
        Self::with_servers(lab, "outside", &["eth0"], workers)
    }

    fn with_servers(lab: Lab, switch: &str, ports: &[&str], workers: usize) -> Self {
        let server = |node: &str, address: &str| {
            lab.plug(node, "eth0", switch, &[address]);
            lab.set_gateway(node, "10.10.10.1");
            lab.web(node, node, &[80, 8080])
        };
        let (server, other) = (server("server", "10.10.10.12/24"), server("other", "10.10.10.13/24"));
        let elsewhere = lab.web("elsewhere", "elsewhere", &[80]);
        let director = Director::with_workers(&lab, "director", ports, workers);
        Self { lab, director, server, other, elsewhere }
    }

    /// The tutorial's rule and its service with its one server.
    fn with_the_rule_and_one_server(self) -> Self {
        let added = self.director.pointsman(SOURCE_NAT);
        assert_eq!(added.code, 0, "{}", added.text());
        self.director.ipvsadm_all(&[SERVICE, "-a -t 20.20.20.11:80 -r 10.10.10.12:80 -m"]);
        self
    }

    /// The same with the second server.
    fn with_both_servers(self) -> Self {
        self.director.ipvsadm_all(&[
            SERVICE,
            "-a -t 20.20.20.11:80 -r 10.10.10.12:80 -m",
            "-a -t 20.20.20.11:80 -r 10.10.10.13:80 -m",
        ]);
        self
    }
}

/// The outer network: the client, and a host that the servers ask.
fn outside() -> Lab {
    let lab = Lab::new();
    lab.add_switch("outside");
    lab.plug("client", "eth0", "outside", &["20.20.20.50/24"]);
    lab.plug("elsewhere", "eth0", "outside", &["20.20.20.99/24"]);
    lab
}

#[test]
fn the_nat_lab_works_and_the_server_sees_the_clients_address() {
    with_one_and_two_workers(|workers| {
        let network = Network::new(workers);
        network.director.ipvsadm_all(&[SERVICE, "-a -t 20.20.20.11:80 -r 10.10.10.12:80 -m"]);
        let expected = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  20.20.20.11:80 rr
  -> 10.10.10.12:80               Masq    1      0          0         \n";
        assert_eq!(network.director.ipvsadm("-Ln").stdout, expected);
        assert_eq!(network.lab.requests("client", "http://20.20.20.11/", 10), ["server"; 10]);
        assert_eq!(network.server.log(10), ["20.20.20.50 80 GET /"; 10]);
        let [connections, _, packets_out, _, bytes_out] = network.director.stats();
        assert_eq!(connections, 10);
        assert!(packets_out >= 40 && bytes_out > 2000, "{packets_out} packets, {bytes_out} bytes out");
    });
}

#[test]
fn nat_takes_turns_and_maps_ports() {
    with_one_and_two_workers(|workers| {
        let network = Network::new(workers);
        network.director.ipvsadm_all(&[
            SERVICE,
            "-a -t 20.20.20.11:80 -r 10.10.10.12:8080 -m",
            "-a -t 20.20.20.11:80 -r 10.10.10.13:80 -m",
        ]);
        // The server added last is the first to be chosen.
        let pages = network.lab.requests("client", "http://20.20.20.11/", 20);
        assert_eq!(pages, ["other", "server"].repeat(10));
        assert_eq!(network.server.log(10), ["20.20.20.50 8080 GET /"; 10]);
        assert_eq!(network.other.log(10), ["20.20.20.50 80 GET /"; 10]);

        network.lab.hold_connection("client", "http://20.20.20.11");
        let held = network.lab.hold_connection("client", "http://20.20.20.11");
        assert_eq!(held.page, "server");
        let connections = network.director.ipvsadm("-Lnc").stdout;
        let mine = |line: &&str| line.contains(" ESTABLISHED ") && line.contains(":8080");
        let line = connections.lines().find(mine).unwrap_or_else(|| panic!("{connections}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let [protocol, _, _, client, service, server] = words[..] else { panic!("{line}") };
        assert!(client.starts_with("20.20.20.50:"), "{line}");
        assert_eq!([protocol, service, server], ["TCP", "20.20.20.11:80", "10.10.10.12:8080"], "{line}");
    });
}

#[test]
fn large_transfers_pass_address_translation_both_ways() {
    with_one_and_two_workers(|workers| {
        let network = Network::new(workers);
        network.director.ipvsadm_all(&[SERVICE, "-a -t 20.20.20.11:80 -r 10.10.10.12:8080 -m"]);
        transfer(&network);
    });
}

/// Five million bytes there and back, compared byte by byte.
fn transfer(network: &Network) {
    let lab = &network.lab;
    lab.sh("head -c 5000000 /dev/urandom >/run/lab/original");
    let put = "curl -sS --max-time 25 -w '%{http_code}' -T /run/lab/original http://20.20.20.11/copy";
    assert_eq!(lab.ok("client", put), "201");
    lab.sh(&format!("cmp /run/lab/original {}", network.server.path("copy")));
    lab.ok("client", "curl -sS --max-time 25 http://20.20.20.11/copy | cmp - /run/lab/original");
    let [connections, _, _, bytes_in, bytes_out] = network.director.stats();
    assert_eq!(connections, 2);
    assert!(bytes_in > 5_000_000 && bytes_out > 5_000_000, "{bytes_in} bytes in, {bytes_out} out");
}

#[test]
fn a_director_with_one_interface_translates_for_servers_on_the_clients_segment() {
    with_one_and_two_workers(|workers| {
        let network = Network::one_armed(workers).with_both_servers();
        let pages = network.lab.requests("client", "http://20.20.20.11/", 10);
        assert_eq!(pages, ["other", "server"].repeat(5));
        assert_eq!(network.server.log(5), ["20.20.20.50 80 GET /"; 5]);
        drop(network);

        let network = Network::one_armed(workers);
        network.director.ipvsadm_all(&[SERVICE, "-a -t 20.20.20.11:80 -r 10.10.10.12:8080 -m"]);
        transfer(&network);
    });
}

#[test]
fn connections_keep_their_method_when_ipvsadm_gives_their_server_another() {
    with_one_and_two_workers(|workers| {
        let network = Network::one_armed(workers);
        let (lab, director) = (&network.lab, &network.director);
        // By direct routing the server answers from the VIP, straight to the client; for itself it goes by the director.
        lab.hold_quietly("server", "lo", &["20.20.20.11"]);
        lab.ok(
            "server",
            "ip route add 20.20.20.0/24 dev eth0 table 7 && ip rule add from 20.20.20.11 table 7",
        );
        director.ipvsadm_all(&[SERVICE, "-a -t 20.20.20.11:80 -r 10.10.10.12:80 -m"]);
        let mut held = vec![lab.hold_connection("client", "http://20.20.20.11")];
        for method in ["-g", "-m"] {
            director.ipvsadm_all(&[&format!("-e -t 20.20.20.11:80 -r 10.10.10.12:80 {method}")]);
            let out_before = director.stats()[2];
            assert_eq!(lab.requests("client", "http://20.20.20.11/", 5), ["server"; 5], "{method}");
            held.push(lab.hold_connection("client", "http://20.20.20.11"));
            assert!(held.iter().all(|held| held.page == "server"));
            held.iter().for_each(Held::goes_on);
            assert!(director.stats()[2] > out_before, "answers to the first pass the director still");
        }
        let listed = director.pointsman("connections").stdout;
        let held = listed.lines().filter(|line| line.contains(" ESTABLISHED "));
        let mut methods: Vec<&str> = held.filter_map(|line| line.split_whitespace().last()).collect();
        methods.sort_unstable();
        assert_eq!(methods, ["direct", "nat", "nat"], "{listed}");
    });
}

/// Answers each datagram to port 53 with the address that it came from.
const MIRROR: &str = "import socket\n\
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
    s.bind(('0.0.0.0', 53))\n\
    print('listening', flush=True)\n\
    while True:\n    \
        peer = s.recvfrom(2000)[1]\n    \
        s.sendto(peer[0].encode(), peer)\n";

/// Asks the mirror three times from one port.
const ASK: &str = "import socket\n\
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
    s.settimeout(5)\n\
    s.connect(('20.20.20.99', 53))\n\
    for i in range(3):\n    \
        s.send(b'who?')\n    \
        print(s.recv(100).decode())\n";

#[test]
fn what_the_server_sends_out_by_itself_comes_from_the_address_of_the_rule() {
    with_one_and_two_workers(|workers| {
        let network = Network::new(workers).with_the_rule_and_one_server();
        let lab = &network.lab;
        assert_eq!(lab.requests("server", "http://20.20.20.99/", 5), ["elsewhere"; 5]);
        assert_eq!(network.elsewhere.log(5), ["20.20.20.11 80 GET /"; 5]);

        lab.write("/run/lab/mirror.py", MIRROR);
        let mut mirror = lab.spawn("elsewhere", "mirror", "exec /usr/bin/python3 /run/lab/mirror.py");
        mirror.wait_for_line("listening", 10);
        lab.write("/run/lab/ask.py", ASK);
        assert_eq!(lab.ok("server", "/usr/bin/python3 /run/lab/ask.py"), "20.20.20.11\n".repeat(3));

        lab.ok("server", "ping -c 3 -i 0.2 -W 2 20.20.20.99");
        // The host cannot have answered the server's own address: it has no route to it.
        let route = lab.run("elsewhere", "ip route get 10.10.10.12");
        assert_ne!(route.code, 0, "{}", route.text());
        // The service is served beside.
        assert_eq!(lab.requests("client", "http://20.20.20.11/", 5), ["server"; 5]);
    });
}

#[test]
fn a_large_answer_comes_in_through_source_nat_whole() {
    with_one_and_two_workers(|workers| {
        let network = Network::new(workers).with_the_rule_and_one_server();
        let lab = &network.lab;
        lab.sh(&format!("head -c 5000000 /dev/urandom >{}", network.elsewhere.path("large")));
        lab.ok(
            "server",
            &format!(
                "curl -sS --max-time 25 http://20.20.20.99/large | cmp - {}",
                network.elsewhere.path("large")
            ),
        );
    });
}

#[test]
fn two_hundred_connections_from_each_side_at_once_arrive_whole() {
    with_one_and_two_workers(|workers| {
        let network = Network::new(workers).with_the_rule_and_one_server();
        network.director.ipvsadm_all(&["-a -t 20.20.20.11:80 -r 10.10.10.13:80 -m"]);
        let (lab, file) = (&network.lab, "/run/lab/original");
        lab.sh(&format!("head -c 50000 /dev/urandom >{file}"));
        for web in [&network.server, &network.other, &network.elsewhere] {
            lab.sh(&format!("cp {file} {}", web.path("part")));
        }
        let fetches = [
            lab.fetch_at_once("client", 200, "http://20.20.20.11/part", file),
            lab.fetch_at_once("server", 200, "http://20.20.20.99/part", file),
        ];
        for fetch in fetches {
            wait_until("all have ended", 60, || fetch.log().ends_with("all ended\n"));
            let log = fetch.log();
            let whole = log.lines().filter(|line| line.starts_with("whole ")).count();
            assert_eq!(whole, 200, "{log}");
        }
        assert_eq!(network.server.log(100), ["20.20.20.50 80 GET /part"; 100]);
        assert_eq!(network.other.log(100), ["20.20.20.50 80 GET /part"; 100]);
        assert_eq!(network.elsewhere.log(200), ["20.20.20.11 80 GET /part"; 200]);
        assert_eq!(network.director.stats()[0], 200);
    });
}
