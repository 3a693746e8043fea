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
