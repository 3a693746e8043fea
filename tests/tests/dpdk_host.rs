//! The director's own traffic on a port that the kernel does not see: real TCP both ways, and VRRP advertisements, by the
//! interface that `pointsmand` makes, beside requests that it balances.

use pointsman_tests::{Director, Lab, Process, VIP, wait_until};

const CONFIGURATION: &str = r#"
[[port]]
name = "d0"
driver = "dpdk"
device = "net_af_packet0,iface=eth0"
addresses = ["192.168.10.11/24", "fd00:10::11/64"]

[dpdk]
memory = "ordinary"

[capacity]
connections_ipv4 = 16384
connections_ipv6 = 4096
"#;

/// The tutorial's segment, in which the director's end of the cable belongs to DPDK.
struct Cluster {
    lab: Lab,
    director: Director,
    _servers: [Process; 2],
}

impl Cluster {
    fn new() -> Self {
        let cluster = Self::configured("");
        cluster.director.add_web_service("rr");
        cluster
    }

    /// With more in the file that the director starts with.
    fn configured(more: &str) -> Self {
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
        let servers = [lab.web_server("web1", "web_1"), lab.web_server("web2", "web_2")];
        lab.write("/run/lab/host.toml", &format!("{CONFIGURATION}{more}"));
        let director = Director::start(&lab, "director", "--config /run/lab/host.toml");
        Self { lab, director, _servers: servers }
    }
}

#[test]
fn large_transfers_to_and_from_the_directors_own_address_arrive_whole_beside_balanced_ones() {
    let cluster = Cluster::new();
    let _nginx = cluster.lab.own_server(8080);
    let lab = &cluster.lab;
    for address in ["192.168.10.11", "[fd00:10::11]"] {
        lab.exchange_with_own_server("client", &format!("http://{address}:8080"));
        assert_eq!(lab.requests("client", &format!("http://{VIP}/"), 2), ["web_2", "web_1"]);
    }
    // The other way round: the director is the client, as in a health check.
    assert_eq!(lab.requests("director", "http://192.168.10.12/", 1), ["web_1"]);
    assert_eq!(lab.requests("director", "http://[fd00:10::13]/", 1), ["web_2"]);
}

#[test]
fn the_director_itself_is_one_of_two_servers_and_an_upload_to_it_arrives_whole() {
    let cluster = Cluster::new();
    let (lab, director) = (&cluster.lab, &cluster.director);
    let _nginx = cluster.lab.own_server(80);
    let addresses = || lab.ok("director", "ip -o address show dev d0");
    let held = || ["192.168.10.100/32", "fd00:10::100/128"].map(|address| addresses().contains(address));
    assert_eq!(held(), [false, false]);
    director.ipvsadm_all(&[
        "-d -t 192.168.10.100:80 -r 192.168.10.13:80",
        "-A -t [fd00:10::100]:80 -s rr",
        "-a -t [fd00:10::100]:80 -r [fd00:10::12]:80 -g",
    ]);
    for (service, own) in
        [("192.168.10.100:80", "192.168.10.11:80"), ("[fd00:10::100]:80", "[fd00:10::11]:80")]
    {
        let added = director.ipvsadm(&format!("-a -t {service} -r {own} -g"));
        assert_eq!((added.code, added.text()), (0, String::new()));
    }
    assert_eq!(held(), [true, true]);
    for (address, web1) in [("192.168.10.100", "192.168.10.12"), ("[fd00:10::100]", "[fd00:10::12]")] {
        let url = format!("http://{address}");
        let pages = lab.requests("client", &format!("{url}/"), 8);
        assert_eq!(pages, ["own", "web_1", "own", "web_1", "own", "web_1", "own", "web_1"]);
        director.ipvsadm_all(&[&format!("-e -t {address}:80 -r {web1}:80 -g -w 0")]);
        lab.exchange_with_own_server("client", &url);
    }
    let listed = director.ipvsadm("-Ln").stdout;
    for part in
        ["\n  -> 192.168.10.11:80             Local   1 ", "\n  -> [fd00:10::11]:80             Local   1 "]
    {
        assert!(listed.contains(part), "`{part}` is not in:\n{listed}");
    }
    // Neighbours know one address, and the kernel is no machine with an address more.
    let log = cluster.director.process.log();
    assert!(!log.contains("also an address") && !log.contains("addresses or MTU have changed"), "{log}");
    let neighbors = lab.ok("client", "ip neighbor show 192.168.10.100");
    assert!(neighbors.contains(&lab.mac("director", "d0")), "{neighbors}");
    // It has the addresses as long as there are such servers.
    director.ipvsadm_all(&["-d -t 192.168.10.100:80 -r 192.168.10.11:80", "-D -t [fd00:10::100]:80"]);
    assert_eq!(held(), [false, false]);
}

#[test]
fn a_director_starts_as_a_server_of_its_own_and_a_reload_ends_that() {
    let service = "[[service]]\naddress = \"192.168.10.100\"\nport = 80\nscheduler = \"rr\"\n\
                   [[service.server]]\naddress = \"192.168.10.11\"\n";
    let cluster = Cluster::configured(service);
    let _nginx = cluster.lab.own_server(80);
    assert_eq!(cluster.lab.requests("client", &format!("http://{VIP}/"), 2), ["own", "own"]);
    let held =
        |lab: &Lab| lab.ok("director", "ip address show dev d0").contains("192.168.10.100/32 scope host d0");
    assert!(held(&cluster.lab));
    let other = service.replace("192.168.10.11", "192.168.10.12");
    cluster.lab.write("/run/lab/host.toml", &format!("{CONFIGURATION}{other}"));
    cluster.director.process.signal("HUP");
    wait_until("the file is in force", 10, || {
        cluster.director.process.log().contains("is in force as generation 2, 2 changes")
    });
    assert_eq!(cluster.lab.requests("client", &format!("http://{VIP}/"), 2), ["web_1", "web_1"]);
    assert!(!held(&cluster.lab));
}

/// Waits for another's advertisement to the group on an interface, then says from whom it is.
const LISTEN: &str = "import socket, struct, sys\n\
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)\n\
    group = socket.inet_aton('224.0.0.18')\n\
    s.setsockopt(0, socket.IP_ADD_MEMBERSHIP, group + socket.inet_aton(sys.argv[1]))\n\
    s.settimeout(20)\n\
    print('listening', flush=True)\n\
    address = sys.argv[1:]\n\
    while address[0] == sys.argv[1]: data, address = s.recvfrom(100)\n\
    print(address[0], 'ttl', data[8], data[20:].hex(), flush=True)\n";

/// Sends an advertisement of VRRP version 3 twice a second.
const ADVERTISE: &str = "import socket, sys, time\n\
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)\n\
    s.setsockopt(0, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))\n\
    s.setsockopt(0, socket.IP_MULTICAST_TTL, 255)\n\
    for i in range(40):\n    \
        s.sendto(bytes.fromhex('3107c80100640000c0a80a64'), ('224.0.0.18', 0))\n    \
        time.sleep(0.5)\n";

#[test]
fn vrrp_advertisements_of_other_programs_pass_both_ways() {
    let cluster = Cluster::new();
    let lab = &cluster.lab;
    lab.write("/run/lab/listen.py", LISTEN);
    lab.write("/run/lab/advertise.py", ADVERTISE);
    let of = |node: &str| if node == "director" { "192.168.10.11" } else { "192.168.10.50" };
    for (from, to) in [("client", "director"), ("director", "client")] {
        let listen = format!("exec /usr/bin/python3 /run/lab/listen.py {}", of(to));
        let mut listener = lab.spawn(to, "listen", &listen);
        listener.wait_for_line("listening", 10);
        let advertise = format!("exec /usr/bin/python3 /run/lab/advertise.py {}", of(from));
        let _advertiser = lab.spawn(from, "advertise", &advertise);
        listener.wait_for_line(&format!("{} ttl 255 3107c80100640000c0a80a64", of(from)), 20);
    }
}
