//! Direct routing end to end: real nginx, real curl, the commands of the usual LVS tutorial.

use pointsman_tests::{Director, Lab, VIP, wait_until};

/// The tutorial's cluster: two web servers and a director with a service for them.
struct Cluster {
    lab: Lab,
    director: Director,
    _servers: [pointsman_tests::Process; 2],
}

impl Cluster {
    fn new(arguments: &str) -> Self {
        let lab = Lab::segment();
        let servers = [lab.web_server("web1", "web_1"), lab.web_server("web2", "web_2")];
        let director = Director::start(&lab, "director", arguments);
        Self { lab, director, _servers: servers }
    }
}

/// The server added last is the head of the list, so it is the first to be chosen.
const IN_TURN: [&str; 8] = ["web_2", "web_1", "web_2", "web_1", "web_2", "web_1", "web_2", "web_1"];

#[test]
fn http_requests_alternate_between_two_servers() {
    let cluster = Cluster::new("--port eth0");
    cluster.director.add_web_service("rr");
    assert_eq!(cluster.lab.requests("client", &format!("http://{VIP}/"), 8), IN_TURN);
}

#[test]
fn ipvsadm_prints_the_table_as_the_tutorial_shows_it() {
    let cluster = Cluster::new("--port eth0");
    cluster.director.add_web_service("rr");
    let table = cluster.director.ipvsadm("-Ln");
    let expected = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.168.10.100:80 rr
  -> 192.168.10.12:80             Route   1      0          0         \n  \
  -> 192.168.10.13:80             Route   1      0          0         \n";
    assert_eq!((table.code, table.stdout.as_str()), (0, expected), "{}", table.stderr);
}

#[test]
fn two_workers_share_one_rotation() {
    let lab = Lab::segment();
    let _servers = [lab.web_server("web1", "web_1"), lab.web_server("web2", "web_2")];
    lab.write("/run/lab/two.toml", "[[port]]\ndevice = \"eth0\"\n\n[workers]\ncores = [0, 1]\n");
    let director = Director::start(&lab, "director", "--config /run/lab/two.toml");
    director.add_web_service("rr");
    let pages = lab.requests("client", &format!("http://{VIP}/"), 40);
    let count = |page: &str| pages.iter().filter(|p| *p == page).count();
    assert_eq!((pages.len(), count("web_1"), count("web_2")), (40, 20, 20), "{pages:?}");
}

#[test]
fn ipv6_requests_alternate_too() {
    let cluster = Cluster::new("--port eth0");
    cluster.director.ipvsadm_all(&[
        "-A -t [fd00:10::100]:80 -s rr",
        "-a -t [fd00:10::100]:80 -r [fd00:10::12]:80 -g",
        "-a -t [fd00:10::100]:80 -r [fd00:10::13]:80 -g",
    ]);
    assert_eq!(cluster.lab.requests("client", "http://[fd00:10::100]/", 8), IN_TURN);
}

#[test]
fn wrr_gives_each_server_its_weight() {
    let cluster = Cluster::new("--port eth0");
    cluster.director.ipvsadm_all(&[
        "-A -t 192.168.10.100:80 -s wrr",
        "-a -t 192.168.10.100:80 -r 192.168.10.12:80 -g -w 3",
        "-a -t 192.168.10.100:80 -r 192.168.10.13:80 -g -w 1",
    ]);
    let pages = cluster.lab.requests("client", &format!("http://{VIP}/"), 40);
    assert_eq!(pages.iter().filter(|page| *page == "web_1").count(), 30, "{pages:?}");
}

#[test]
fn lc_and_wlc_balance_connections_that_have_ended_as_well() {
    // Each connection has ended when the next begins and counts as inactive: both rules then take turns.
    for scheduler in ["lc", "wlc"] {
        let cluster = Cluster::new("--port eth0");
        cluster.director.add_web_service(scheduler);
        let pages = cluster.lab.requests("client", &format!("http://{VIP}/"), 8);
        assert_eq!(pages, IN_TURN, "{scheduler}");
    }
}

#[test]
fn udp_datagrams_alternate_between_two_servers() {
    let lab = Lab::segment();
    let _servers = [lab.udp_server("web1", "one"), lab.udp_server("web2", "two")];
    let director = Director::start(&lab, "director", "--port eth0");
    director.ipvsadm_all(&[
        "-A -u 192.168.10.100:53 -s rr",
        "-a -u 192.168.10.100:53 -r 192.168.10.12:53 -g",
        "-a -u 192.168.10.100:53 -r 192.168.10.13:53 -g",
    ]);
    assert_eq!(lab.datagrams("client", 6), ["two", "one", "two", "one", "two", "one"]);
    // UDP is never active.
    let table = director.ipvsadm("-Ln").stdout;
    assert!(
        table.contains("  -> 192.168.10.12:53             Route   1      0          3         "),
        "{table}"
    );
    assert!(
        table.contains("  -> 192.168.10.13:53             Route   1      0          3         "),
        "{table}"
    );
}

#[test]
fn the_vip_answers_ping_and_a_closed_port_is_refused() {
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    let added = director.pointsman("vip add 192.168.10.100");
    assert_eq!(added.code, 0, "{}", added.text());
    lab.ok("client", "ping -c 3 -i 0.2 -W 2 192.168.10.100");
    let refused = lab.run("client", "curl -sS --max-time 5 http://192.168.10.100:81/");
    // 7: curl could not connect; the reason is in its words, for a timeout has the same status.
    assert_eq!(refused.code, 7, "{}", refused.text());
    assert!(!refused.stderr.contains("timed out"), "{}", refused.stderr);
    let deleted = director.pointsman("vip delete 192.168.10.100");
    assert_eq!(deleted.code, 0, "{}", deleted.text());
    let silent = lab.run("client", "ip neigh flush all; ping -c 1 -W 1 192.168.10.100");
    assert_eq!(silent.code, 1, "{}", silent.text());
}

#[test]
fn a_server_that_does_not_answer_on_the_link_is_shown_as_such() {
    let cluster = Cluster::new("--port eth0");
    let director = &cluster.director;
    director.add_web_service("rr");
    // Nobody has this address.
    director.ipvsadm_all(&["-a -t 192.168.10.100:80 -r 192.168.10.99:80 -g"]);
    let shown = || director.pointsman("show").stdout;
    let line = |server: &str| shown().lines().find(|line| line.contains(server)).map(str::to_owned);
    wait_until("the server has not answered", 20, || {
        line("192.168.10.99:80").is_some_and(|line| line.ends_with("no answer on the link"))
    });
    assert!(line("192.168.10.12:80").is_some_and(|line| !line.contains("no answer")), "{}", shown());
}

#[test]
fn a_large_upload_arrives_whole_and_the_answer_goes_straight_to_the_client() {
    let cluster = Cluster::new("--port eth0");
    for node in ["client", "director", "web1", "web2"] {
        cluster.lab.ok(node, "ethtool -K eth0 tx off rx off tso off gso off gro off >/dev/null 2>&1");
    }
    cluster.director.add_web_service("rr");
    upload(&cluster);
}

#[test]
fn frames_that_leave_checksums_and_segmentation_to_hardware_arrive_whole() {
    let cluster = Cluster::new("--port eth0");
    // As a veth does from the start: up to 64 KB in a frame, checksums not filled in.
    let offloads = cluster.lab.ok("client", "ethtool -k eth0");
    assert!(offloads.contains("tcp-segmentation-offload: on"), "{offloads}");
    cluster.director.add_web_service("rr");
    upload(&cluster);
}

/// Puts three million bytes on a server through the director, and checks them there.
fn upload(cluster: &Cluster) {
    let lab = &cluster.lab;
    lab.sh("head -c 3000000 /dev/urandom >/run/lab/original");
    let put = "curl -sS --max-time 20 -w '%{http_code}' -T /run/lab/original http://192.168.10.100/copy";
    assert_eq!(lab.ok("client", put), "201");
    // The server added last is the first to be chosen.
    lab.sh("cmp /run/lab/original /run/lab/web2/copy");
    let stats = cluster.director.ipvsadm("-Ln --stats --exact").stdout;
    let line = stats.lines().find(|line| line.starts_with("TCP")).expect("the service is listed");
    let numbers: Vec<u64> =
        line.split_whitespace().skip(2).map(|word| word.parse().expect("a number")).collect();
    assert_eq!(
        (numbers[0], numbers[2], numbers[4]),
        (1, 0, 0),
        "one connection, nothing passes back: {line}"
    );
    assert!(numbers[3] > 3_000_000, "all of the upload passed the director: {line}");
}
