//! Configuration as an operator does it: files, the client, and rules that are saved and restored.

use pointsman_tests::{Director, Lab, VIP};

const FILE: &str = "/run/lab/pointsman.toml";

/// A director of two web servers with a scheduler and the weight of the second.
fn text(scheduler: &str, weight: u32) -> String {
    format!(
        "[[port]]\ndevice = \"eth0\"\n\n\
         [[service]]\naddress = \"192.168.10.100\"\nport = 80\nscheduler = \"{scheduler}\"\n\n\
         [[service.server]]\naddress = \"192.168.10.12\"\n\n\
         [[service.server]]\naddress = \"192.168.10.13\"\nweight = {weight}\n"
    )
}

#[test]
fn a_file_starts_a_director_that_balances_and_another_changes_it_while_it_runs() {
    let lab = Lab::segment();
    let _servers = [lab.web_server("web1", "web_1"), lab.web_server("web2", "web_2")];
    lab.write(FILE, &text("rr", 1));
    let director = Director::start(&lab, "director", &format!("--config {FILE}"));
    let url = format!("http://{VIP}/");
    assert_eq!(lab.requests("client", &url, 4), ["web_2", "web_1", "web_2", "web_1"]);

    lab.write(FILE, &text("wrr", 3));
    let difference = director.pointsman(&format!("diff {FILE}"));
    assert!(
        difference.stdout.contains("wrr") && difference.stdout.contains("weight"),
        "{}",
        difference.text()
    );
    assert!(
        director.ipvsadm("-Ln").stdout.contains("TCP  192.168.10.100:80 rr\n"),
        "diff only says what would be"
    );
    let applied = director.pointsman(&format!("apply {FILE}"));
    assert_eq!(applied.code, 0, "{}", applied.text());
    let pages = lab.requests("client", &url, 40);
    assert_eq!(pages.iter().filter(|page| *page == "web_2").count(), 30, "{pages:?}");
    let nothing = director.pointsman(&format!("diff {FILE}"));
    assert_eq!(nothing.code, 0, "{}", nothing.text());
    assert!(!nothing.stdout.contains("192.168.10."), "there is no difference any more: {}", nothing.stdout);
}

#[test]
fn a_wrong_file_is_refused_whole_with_its_line_and_what_runs_goes_on() {
    let lab = Lab::segment();
    lab.write(FILE, &text("rr", 1));
    let director = Director::start(&lab, "director", &format!("--config {FILE}"));
    let before = director.ipvsadm("-Ln").stdout;
    lab.write(FILE, &text("wrr", 1).replace("192.168.10.13", "192.168.10.1333"));
    let refused = director.pointsman(&format!("apply {FILE}"));
    assert_ne!(refused.code, 0, "{}", refused.text());
    assert!(
        refused.stderr.contains(&format!("{FILE}:13: service[0].server[1].address")),
        "{}",
        refused.stderr
    );
    assert_eq!(director.ipvsadm("-Ln").stdout, before);
}

#[test]
fn what_ipvsadm_saves_it_restores() {
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    director.ipvsadm_all(&[
        "-A -t 192.168.10.100:80 -s wrr",
        "-a -t 192.168.10.100:80 -r 192.168.10.12:80 -g -w 3",
        "-a -t 192.168.10.100:80 -r 192.168.10.13:80 -g -w 2",
        "-A -u [fd00:10::100]:53 -s lc",
        "-a -u [fd00:10::100]:53 -r [fd00:10::12]:53 -g",
        "--save -n >/run/lab/rules",
    ]);
    let expected = "-A -t 192.168.10.100:80 -s wrr\n\
                    -a -t 192.168.10.100:80 -r 192.168.10.12:80 -g -w 3\n\
                    -a -t 192.168.10.100:80 -r 192.168.10.13:80 -g -w 2\n\
                    -A -u [fd00:10::100]:53 -s lc\n\
                    -a -u [fd00:10::100]:53 -r [fd00:10::12]:53 -g -w 1\n";
    assert_eq!(lab.read("/run/lab/rules"), expected);
    director.ipvsadm_all(&["-C"]);
    assert!(!director.ipvsadm("-Ln").stdout.contains("192.168.10.100"));
    director.ipvsadm_all(&["--restore </run/lab/rules"]);
    assert_eq!(director.ipvsadm("-Sn").stdout, expected);
}

#[test]
fn marks_and_source_nat_bring_their_addresses_up_and_are_listed_and_deleted() {
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    let ok = |line: &str| {
        let done = director.pointsman(line);
        assert_eq!(done.code, 0, "{line}: {}", done.text());
        done.stdout
    };
    let answers = |address: &str| lab.run("client", &format!("ping -c 1 -W 1 {address}")).code == 0;
    let mark = "--protocol tcp --destination 192.168.10.120 --port 80-90 --interface eth0 --mark 10";
    let nat = "--source 10.10.10.0/24 --interface eth0 --to 192.168.10.121";
    assert!(!answers("192.168.10.120") && !answers("192.168.10.121"));
    let added = ok(&format!("mark add {mark}"));
    assert!(added.starts_with("+ mark 10: tcp to 192.168.10.120 port 80-90 by eth0\n"), "{added}");
    ok(&format!("source-nat add {nat}"));
    assert!(answers("192.168.10.120") && answers("192.168.10.121"));
    assert!(ok("mark list").contains("10  tcp       any     192.168.10.120  80-90  eth0\n"));
    assert!(ok("source-nat list").contains("10.10.10.0/24  eth0       192.168.10.121\n"));
    director.ipvsadm_all(&["-A -f 10 -s rr", "-a -f 10 -r 192.168.10.12:80 -m"]);
    let listed = director.ipvsadm("-Ln").stdout;
    assert!(listed.contains("FWM  10 rr\n  -> 192.168.10.12:80             Masq    1 "), "{listed}");

    let stray = director.pointsman("mark add --interface eth7 --mark 11");
    assert_ne!(stray.code, 0);
    assert!(stray.stderr.contains("no port of the director is named \"eth7\""), "{}", stray.stderr);
    assert!(director.pointsman(&format!("mark add {mark}")).stderr.contains("is there already"));
    ok(&format!("mark delete {mark}"));
    ok(&format!("source-nat delete {nat}"));
    assert!(!answers("192.168.10.120") && !answers("192.168.10.121"));
    assert!(director.pointsman(&format!("mark delete {mark}")).stderr.contains("there is no rule"));
}

#[test]
fn policies_are_set_by_the_names_of_sysctl_and_by_the_file() {
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    let set = director.pointsman("policy set net.ipv4.vs.expire_nodest_conn 1");
    assert_eq!(set.stdout, "~ policy expire_nodest_conn: false -> true\nin force as generation 2\n");
    let set = director.pointsman("policy set forward off");
    assert_eq!(set.stdout, "~ policy forward: servers -> off\nin force as generation 3\n");
    let wrong = director.pointsman("policy set conn_reuse_mode 4");
    assert!(wrong.stderr.contains("expected 0 to 3, found 4"), "{}", wrong.stderr);
    let listed = director.pointsman("policy list").stdout;
    let line = |name: &str| -> Vec<String> {
        let line = listed.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().take(3).map(str::to_owned).collect()
    };
    assert_eq!(line("expire_nodest_conn"), ["expire_nodest_conn", "true", "false"]);
    assert_eq!(line("am_droprate"), ["am_droprate", "10", "10"]);
    lab.write(FILE, "[policy]\nam_droprate = 4\n");
    let difference = director.pointsman(&format!("diff {FILE}")).stdout;
    let lines: Vec<&str> = difference.lines().take(3).collect();
    assert_eq!(
        lines,
        [
            "~ policy forward: off -> servers",
            "~ policy expire_nodest_conn: 1 -> 0",
            "~ policy am_droprate: 10 -> 4",
        ]
    );
}

#[test]
fn a_service_has_timeouts_of_its_own_that_ipvsadm_leaves_alone() {
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    director.add_web_service("rr");
    let edited =
        director.pointsman("service edit tcp:192.168.10.100:80 --timeout-tcp 100 --timeout-tcp-fin 7");
    assert!(edited.stdout.contains("timeout tcp none -> 100 s"), "{}", edited.text());
    director.ipvsadm_all(&["-E -t 192.168.10.100:80 -s wrr", "--set 200 0 0"]);
    let shown = director.pointsman("show").stdout;
    assert!(shown.contains("tcp 192.168.10.100:80  wrr, tcp 1m 40s, tcp fin 7s\n"), "{shown}");
    assert!(shown.contains("tcp 3m 20s, tcp fin 2m, udp 5m\n"), "{shown}");
}

#[test]
fn the_socket_is_open_to_its_owner_alone() {
    let lab = Lab::segment();
    let _director = Director::start(&lab, "director", "--port eth0");
    assert_eq!(lab.ok("director", "stat -c '%a %F' /run/pointsman/pointsman.sock"), "600 socket\n");
}

#[test]
fn another_socket_is_named_by_an_option_or_the_environment() {
    let lab = Lab::segment();
    let _director = Director::start(&lab, "director", "--port eth0 --socket /run/lab/other.sock");
    lab.ok("director", "pointsman --socket /run/lab/other.sock show");
    lab.ok("director", "POINTSMAN_SOCKET=/run/lab/other.sock /run/bin/ipvsadm -Ln");
    assert_ne!(lab.run("director", "pointsman show").code, 0);
}
