//! The director as a server of its own (`-r` with one of its addresses), on ports that its kernel sees itself: real nginx on
//! the director and beside it. The tutorial's director may have the virtual address on an interface, or not.

use super::with_one_and_two_workers;
use pointsman_tests::{Director, Lab, Process, VIP, VIP6, wait_until};

/// The tutorial's segment with a server of the director's own at port 80, and web_1 beside it.
struct Cluster {
    lab: Lab,
    director: Director,
    _servers: [Process; 2],
}

impl Cluster {
    fn new(workers: usize) -> Self {
        let lab = Lab::segment();
        // As strict as distributions are.
        lab.ok("director", "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1");
        let servers = [lab.web_server("web1", "web_1"), lab.own_server(80)];
        let director = Director::with_workers(&lab, "director", &["eth0"], workers);
        Self { lab, director, _servers: servers }
    }

    fn add(&self, vip: &str, servers: &[&str]) {
        self.director.ipvsadm_all(&[&format!("-A -t {vip}:80 -s rr")]);
        for server in servers {
            let added = self.director.ipvsadm(&format!("-a -t {vip}:80 -r {server}:80 -g"));
            assert_eq!((added.code, added.text()), (0, String::new()));
        }
    }

    fn pages(&self, vip: &str, count: usize) -> Vec<String> {
        self.lab.requests("client", &format!("http://{vip}/"), count)
    }

    /// The interface that gives the kernel its packets, with its addresses; empty if it is not there.
    fn device(&self) -> String {
        self.lab.run("director", "ip -o address show dev pointsman0").stdout
    }

    /// The rules that keep the kernel's own copies from it.
    fn rules(&self) -> String {
        self.lab.ok("director", "nft list ruleset")
    }
}

const OWN: [&str; 2] = ["192.168.10.11", "[fd00:10::11]"];
const WEB1: [&str; 2] = ["192.168.10.12", "[fd00:10::12]"];

#[test]
fn the_director_itself_is_one_of_two_servers_and_an_upload_to_it_arrives_whole() {
    with_one_and_two_workers(|workers| {
        let cluster = Cluster::new(workers);
        let (lab, director) = (&cluster.lab, &cluster.director);
        assert_eq!((cluster.device(), cluster.rules()), (String::new(), String::new()));
        for (vip, (own, web1)) in [VIP, &format!("[{VIP6}]")].iter().zip(OWN.iter().zip(WEB1)) {
            cluster.add(vip, &[web1, own]);
            assert_eq!(cluster.pages(vip, 6), ["own", "web_1", "own", "web_1", "own", "web_1"]);
            director.ipvsadm_all(&[&format!("-e -t {vip}:80 -r {web1}:80 -g -w 0")]);
            lab.exchange_with_own_server("client", &format!("http://{vip}"));
            director.ipvsadm_all(&[&format!("-e -t {vip}:80 -r {web1}:80 -g -w 1")]);
        }
        let listed = director.ipvsadm("-Ln").stdout;
        for part in OWN.map(|own| format!("\n  -> {own}:80")) {
            let line = listed.split_once(&part).map(|(_, rest)| rest.trim_start()).unwrap_or_default();
            assert!(line.starts_with("Local   1 "), "`{part}` is no local server in:\n{listed}");
        }
        for address in [VIP, VIP6] {
            assert!(cluster.device().contains(address), "{}", cluster.device());
            assert!(cluster.rules().contains(address), "{}", cluster.rules());
        }
        let given = director.pointsman("ports --xstats").stdout;
        let count = |name: &str| {
            let value = given.split_once(&format!("{name} ")).map(|(_, rest)| rest.split_whitespace().next());
            value.flatten().unwrap_or_else(|| panic!("{name} is not in:\n{given}")).parse::<u64>().unwrap()
        };
        assert!(count("exception_to_host") > 1_000, "{given}");
        assert_eq!(count("exception_to_host_refused"), 0, "{given}");
        // Neighbours know one address, and the kernel is no machine with an address more.
        let log = director.process.log();
        assert!(!log.contains("also an address") && !log.contains("addresses or MTU have changed"), "{log}");
        let neighbors = lab.ok("client", &format!("ip neighbor show {VIP}"));
        assert!(neighbors.contains(&lab.mac("director", "eth0")), "{neighbors}");
        // They are there as long as there are such servers.
        director.ipvsadm_all(&["-d -t 192.168.10.100:80 -r 192.168.10.11:80"]);
        assert!(!cluster.device().contains(VIP) && cluster.device().contains(VIP6));
        assert!(!cluster.rules().contains(VIP) && cluster.rules().contains(VIP6));
        assert_eq!(cluster.pages(VIP, 2), ["web_1", "web_1"]);
        director.ipvsadm_all(&["-D -t [fd00:10::100]:80"]);
        assert_eq!((cluster.device(), cluster.rules()), (String::new(), String::new()));
    });
}

#[test]
fn a_director_that_has_the_address_already_keeps_it_and_what_ends_it_leaves_nothing_else() {
    with_one_and_two_workers(|workers| {
        let mut cluster = Cluster::new(workers);
        let (lab, by_hand) = (cluster.lab.clone(), format!("{VIP}/32"));
        lab.ok("director", &format!("ip address add {by_hand} dev eth0"));
        cluster.add(VIP, &[WEB1[0], OWN[0]]);
        assert_eq!(cluster.pages(VIP, 4), ["own", "web_1", "own", "web_1"]);
        // The rules are not for others to remove.
        lab.ok("director", "nft flush ruleset");
        assert_eq!(cluster.pages(VIP, 4), ["own", "web_1", "own", "web_1"]);
        cluster.director.process.signal("KILL");
        wait_until("it has ended", 10, || !cluster.director.process.is_running());
        wait_until("the kernel has cleared up", 10, || cluster.device().is_empty());
        assert_eq!(cluster.rules(), "");
        assert!(lab.ok("director", "ip -o address show dev eth0").contains(&by_hand));
        // What it kept off the kernel reaches it again.
        assert_eq!(cluster.pages(VIP, 2), ["own", "own"]);
    });
}

#[test]
fn a_director_without_the_rights_for_it_says_so_serves_others_and_counts_what_it_drops() {
    let lab = Lab::segment();
    let _servers = [lab.web_server("web1", "web_1"), lab.own_server(80)];
    lab.write(
        "/run/lab/director.toml",
        "[[port]]\ndevice = \"eth0\"\n[[service]]\naddress = \"192.168.10.100\"\nport = 80\nscheduler = \"rr\"\n\
         [[service.server]]\naddress = \"192.168.10.11\"\n[[service.server]]\naddress = \"192.168.10.12\"\n",
    );
    lab.write(
        "/run/lab/weak",
        "exec setpriv --bounding-set -net_admin pointsmand --config /run/lab/director.toml\n",
    );
    let mut process = lab.spawn("director", "pointsmand", "exec sh /run/lab/weak");
    process.wait_for_line("ready", 120);
    let pointsman = |arguments: &str| lab.run("director", &format!("pointsman {arguments}")).stdout;
    let why =
        "the capability CAP_NET_ADMIN is missing, or /dev/net/tun may not be opened; run pointsmand as root";
    let log = process.log();
    assert!(log.contains("The director itself gets no packets as a server: ") && log.contains(why), "{log}");
    let shown = pointsman("show");
    let sentence = "The server 192.168.10.11:80 of tcp 192.168.10.100:80 gets no packets: it is the director itself, and ";
    assert!(shown.contains(sentence) && shown.contains(why), "{shown}");
    // A SYN that was dropped comes again, and it is the other's turn.
    assert_eq!(lab.requests("client", &format!("http://{VIP}/"), 4), ["web_1"; 4]);
    let stats = pointsman("stats");
    assert!(stats.contains("method_pending"), "{stats}");
}

#[test]
fn what_somebody_takes_away_from_the_kernel_is_given_again() {
    let cluster = Cluster::new(1);
    let lab = &cluster.lab;
    cluster.add(VIP, &[WEB1[0], OWN[0]]);
    assert_eq!(cluster.pages(VIP, 4), ["own", "web_1", "own", "web_1"]);
    for (taken, line) in [
        ("the address", format!("ip address del {VIP}/32 dev pointsman0")),
        ("the interface", "ip link del pointsman0".to_owned()),
    ] {
        let before = lab.ok("director", "ip -o link show pointsman0");
        lab.ok("director", &line);
        wait_until(&format!("{taken} is there again"), 10, || cluster.device().contains(VIP));
        assert_eq!(lab.ok("director", "ip -o link show pointsman0") == before, taken == "the address");
        assert_eq!(cluster.pages(VIP, 4), ["own", "web_1", "own", "web_1"], "without {taken}");
        assert!(cluster.rules().contains(VIP), "{}", cluster.rules());
    }
    let log = cluster.director.process.log();
    assert_eq!(
        log.matches("has taken 192.168.10.100 away from the interface pointsman0").count(),
        2,
        "{log}"
    );
}
