//! T1, direct routing: the tutorial's commands, word for word.

use super::{Segment, with_one_and_two_workers};
use pointsman_tests::{Held, wait_until};

#[test]
fn the_direct_routing_lab_works_as_the_tutorial_shows_it() {
    with_one_and_two_workers(|workers| {
        let segment = Segment::new(workers, 2, &["192.168.10.100"]);
        let (lab, director) = (&segment.lab, &segment.director);
        lab.ok("director", "/run/bin/ipvsadm -A -t 192.168.10.100:80 -s rr");
        lab.ok("director", "/run/bin/ipvsadm -a -t 192.168.10.100:80 -r 192.168.10.12:80 -g");
        lab.ok("director", "/run/bin/ipvsadm -a -t 192.168.10.100:80 -r 192.168.10.13:80 -g");
        assert_eq!(director.ipvsadm("-Ln").stdout, table("0          0         "));

        let held: Vec<Held> =
            (0..4).map(|_| lab.hold_connection("client", "http://192.168.10.100")).collect();
        let pages: Vec<&str> = held.iter().map(|held| held.page.as_str()).collect();
        // The server added last is the first to be chosen.
        assert_eq!(pages, ["web_2", "web_1", "web_2", "web_1"]);
        // What the tutorial prints after the test.
        assert_eq!(director.ipvsadm("-Ln").stdout, table("2          0         "));

        let pages = lab.requests("client", "http://192.168.10.100/", 20);
        assert_eq!(pages, ["web_2", "web_1"].repeat(10));
        director.wait_for_active(4);
        assert_eq!(director.ipvsadm("-Ln").stdout, table("2          10        "));
        for server in &segment.servers {
            assert_eq!(
                server.log(10),
                ["192.168.10.50 80 GET /"; 10],
                "the servers see the client's address"
            );
        }
        let addresses = lab.ok("director", "ip -4 addr show");
        assert!(
            !addresses.contains("192.168.10.100"),
            "the VIP is Pointsman's, not the kernel's: {addresses}"
        );
    });
}

#[test]
fn two_hundred_connections_at_once_share_two_servers() {
    with_one_and_two_workers(|workers| {
        let segment = Segment::new(workers, 2, &["192.168.10.100"]);
        segment.director.add_web_service("rr");
        let (lab, file) = (&segment.lab, "/run/lab/original");
        lab.sh(&format!("head -c 50000 /dev/urandom >{file}"));
        for server in &segment.servers {
            lab.sh(&format!("cp {file} {}", server.path("part")));
        }
        let fetch = lab.fetch_at_once("client", 200, "http://192.168.10.100/part", file);
        wait_until("all have ended", 60, || fetch.log().ends_with("all ended\n"));
        let log = fetch.log();
        assert_eq!(log.lines().filter(|line| line.starts_with("whole ")).count(), 200, "{log}");
        for server in &segment.servers {
            assert_eq!(server.log(100), ["192.168.10.50 80 GET /part"; 100]);
        }
        assert_eq!(segment.director.stats()[0], 200);
    });
}

/// The table with these counts of connections for both servers.
fn table(counts: &str) -> String {
    let head = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.168.10.100:80 rr
";
    let row = |server| format!("  -> {server}             Route   1      {counts}\n");
    format!("{head}{}{}", row("192.168.10.12:80"), row("192.168.10.13:80"))
}
