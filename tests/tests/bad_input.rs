//! What goes wrong in the field: each with a message that names the thing and the remedy, and nothing else harmed.

use pointsman_proto::v1::{GetStatsRequest, GetStatsResponse, WorkerStats, stats_client::StatsClient};
use pointsman_tests::{Director, Lab, VIP, repository};
use std::time::Duration;

mod support;

/// Starts `pointsmand` on the director of a segment and returns its exit status and what it printed.
fn refused(lab: &Lab, arguments: &str) -> (i32, String) {
    let mut process = Director::spawn(lab, "director", arguments);
    let code = process.wait(20);
    (code, process.log())
}

/// Panics unless `message` has all of `parts`.
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in:\n{message}");
    }
}

#[test]
fn a_configuration_error_names_the_line_the_field_and_what_was_expected() {
    let lab = Lab::segment();
    let text = "[[port]]\ndevice = \"eth0\"\n\n[[service]]\nprotocol = \"tcp\"\naddress = \"192.168.10.300\"\nport = 80\n";
    lab.write("/run/lab/wrong.toml", text);
    let (code, message) = refused(&lab, "--config /run/lab/wrong.toml");
    assert_eq!(code, 1, "{message}");
    says(&message, &["/run/lab/wrong.toml:6: service[0].address: ", "192.168.10.300"]);
}

#[test]
fn a_configuration_file_that_is_not_there_is_named() {
    let lab = Lab::segment();
    let (code, message) = refused(&lab, "--config /run/lab/none.toml");
    assert_eq!(code, 1, "{message}");
    says(&message, &["/run/lab/none.toml"]);
}

#[test]
fn a_port_that_does_not_exist_is_named_with_those_that_do() {
    let lab = Lab::segment();
    let (code, message) = refused(&lab, "--port eth7");
    assert_eq!(code, 1, "{message}");
    says(&message, &["eth7", "eth0"]);
}

#[test]
fn a_port_that_another_director_has_is_refused_with_that_ones_process() {
    let lab = Lab::segment();
    let first = Director::start(&lab, "director", "--port eth0");
    let process = lab.ok("director", "pidof pointsmand").trim().to_owned();
    let (code, message) = refused(&lab, "--port eth0 --socket /run/lab/other.sock");
    assert_eq!(code, 1, "{message}");
    says(&message, &["port eth0: another pointsmand, process ", " has it", "other ports"]);
    says(&message, &[&format!("process {process},")]);
    drop(first);
}

#[test]
fn a_port_that_is_down_is_named_with_the_command_that_brings_it_up() {
    let lab = Lab::segment();
    lab.ok("director", "ip link set eth0 down");
    let (code, message) = refused(&lab, "--port eth0");
    assert_eq!(code, 1, "{message}");
    says(&message, &["eth0", "down", "ip link set eth0 up"]);
}

#[test]
fn without_permission_the_missing_capability_is_named() {
    let lab = Lab::segment();
    let line = "exec setpriv --bounding-set=-net_raw,-net_admin --inh-caps=-all pointsmand --port eth0";
    let mut process = lab.spawn("director", "pointsmand", line);
    let code = process.wait(20);
    assert_eq!(code, 1, "{}", process.log());
    says(&process.log(), &["CAP_NET_RAW", "root"]);
}

#[test]
fn without_huge_pages_it_runs_and_says_what_that_costs_and_how_to_reserve_them() {
    let lab = Lab::segment();
    // A table that does not fit in the huge pages that are free: the machine's reservation is left alone.
    let meminfo = std::fs::read_to_string("/proc/meminfo").expect("/proc/meminfo can be read");
    let free = meminfo.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    let pages: u64 = free.map_or(0, |number| number.trim().parse().expect("a number of pages"));
    let connections = pages * (2 << 20) / 64 + 100_000;
    let text = format!("[[port]]\ndevice = \"eth0\"\n\n[capacity]\nconnections_ipv4 = {connections}\n");
    lab.write("/run/lab/large.toml", &text);
    let director = Director::start(&lab, "director", "--config /run/lab/large.toml");
    says(&director.process.log(), &["huge pages", "/proc/sys/vm/nr_hugepages"]);
    director.ipvsadm_all(&["-A -t 192.168.10.100:80 -s rr"]);
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_and_the_first_goes_on() {
    let lab = Lab::segment();
    let first = Director::start(&lab, "director", "--port eth0");
    let (code, message) = refused(&lab, "--port eth0");
    assert_eq!(code, 1, "{message}");
    says(&message, &["/run/pointsman/pointsman.sock", "--socket"]);
    first.ipvsadm_all(&["-A -t 192.168.10.100:80 -s rr", "-Ln"]);
}

#[test]
fn without_a_daemon_the_clients_say_how_to_start_one() {
    let lab = Lab::segment();
    let output = lab.run("director", "pointsman show");
    assert_ne!(output.code, 0);
    says(&output.stderr, &["/run/pointsman/pointsman.sock", "pointsmand"]);
    let output = lab.run("director", "pointsman ipvsadm -Ln");
    assert_eq!(output.code, 2, "{}", output.text());
    says(&output.stderr, &["/run/pointsman/pointsman.sock", "pointsmand"]);
}

#[test]
fn an_unknown_option_of_ipvsadm_gets_the_words_and_the_status_of_the_original() {
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    let output = director.ipvsadm("-Q");
    let hint = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n";
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (255, "", hint));
}

#[test]
fn an_unknown_option_of_the_programs_is_named() {
    let lab = Lab::segment();
    for program in ["pointsmand", "pointsman"] {
        let output = lab.run("director", &format!("{program} --nonsense"));
        assert_eq!(output.code, 2, "{}", output.text());
        says(&output.stderr, &["--nonsense", "--help"]);
    }
}

#[test]
fn sigterm_ends_the_director_and_removes_its_socket() {
    let lab = Lab::segment();
    let mut director = Director::start(&lab, "director", "--port eth0");
    assert!(director.socket().exists());
    director.process.signal("TERM");
    assert_eq!(director.process.wait(10), 0, "{}", director.process.log());
    assert!(!director.socket().exists());
}

#[test]
fn kill_9_leaves_the_kernel_as_it_was_and_a_restart_serves_again() {
    let lab = Lab::segment();
    let _servers = [lab.web_server("web1", "web_1"), lab.web_server("web2", "web_2")];
    // Neighbours come and go by themselves; what is configured must not.
    let kernel = "ip -o addr; ip -o link; ip route show table all; ip -6 route show table all; ip rule; \
                  ip neigh show nud permanent; sysctl -a 2>/dev/null | grep -E 'net.ipv[46].(conf|ip_forward)'";
    let before = lab.ok("director", kernel);
    let mut first = Director::start(&lab, "director", "--port eth0");
    first.add_web_service("rr");
    assert_eq!(lab.requests("client", &format!("http://{VIP}/"), 2), ["web_2", "web_1"]);
    first.process.signal("KILL");
    assert_eq!(first.process.wait(10), 128 + 9);
    assert_eq!(lab.ok("director", kernel), before);

    // The socket of the first is still there, and nobody behind it.
    let second = Director::start(&lab, "director", "--port eth0");
    second.add_web_service("rr");
    assert_eq!(lab.requests("client", &format!("http://{VIP}/"), 2), ["web_2", "web_1"]);
}

#[tokio::test]
async fn hostile_frames_are_dropped_with_a_reason_and_service_goes_on() {
    let lab = Lab::segment();
    let _servers = [lab.web_server("web1", "web_1"), lab.web_server("web2", "web_2")];
    let mut director = Director::start(&lab, "director", "--port eth0");
    director.add_web_service("rr");
    director
        .ipvsadm_all(&["-A -t [fd00:10::100]:80 -s rr", "-a -t [fd00:10::100]:80 -r [fd00:10::12]:80 -g"]);
    let before = stats(&director).await;
    let received = lab.received("director", "eth0");
    let sent = send_hostile_frames(&lab);
    let arrived = lab.received("director", "eth0") - received;
    // The kernel of the switch keeps back what has not even a whole VLAN tag.
    assert!(arrived > sent / 10 * 9, "{arrived} of {sent} frames arrived");
    assert!(director.process.is_running(), "{}", director.process.log());
    let mut after = stats(&director).await;
    // Fragments wait for others of their datagram for a second.
    let is_decided = |worker: &WorkerStats| worker.packets == decided(worker);
    for _ in 0..100 {
        if seen(&after) - seen(&before) >= arrived && after.workers.iter().all(is_decided) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        after = stats(&director).await;
    }
    assert_all_counted(&before, &after, arrived);
    let pages = lab.requests("client", &format!("http://{VIP}/"), 4);
    assert!(
        pages == ["web_1", "web_2", "web_1", "web_2"] || pages == ["web_2", "web_1", "web_2", "web_1"],
        "{pages:?}"
    );
    assert_eq!(lab.requests("client", "http://[fd00:10::100]/", 2), ["web_1", "web_1"]);
}

/// Frames that came to the port, with those for which its ring had no room.
fn seen(stats: &GetStatsResponse) -> u64 {
    stats.ports[0].rx_packets + stats.ports[0].rx_ring_drops
}

/// Panics unless `arrived` frames were seen in between, and each of them was counted for what happened to it.
fn assert_all_counted(before: &GetStatsResponse, after: &GetStatsResponse, arrived: u64) {
    let counted = seen(after) - seen(before);
    assert!(counted >= arrived, "{counted} frames of {arrived} seen");
    let drops = |s: &GetStatsResponse| s.drops.iter().map(|drop| drop.packets).sum::<u64>();
    let dropped = drops(after) - drops(before);
    assert!(dropped > arrived / 4, "{dropped} frames of {arrived} dropped");
    let headers = [
        "frame_truncated",
        "ipv4_header",
        "ipv4_checksum",
        "ipv6_header",
        "ipv6_extensions",
        "transport_header",
    ];
    for reason in headers {
        let count = after.drops.iter().find(|drop| drop.reason == reason).map_or(0, |drop| drop.packets);
        assert!(count > 0, "no frame was dropped for {reason}");
    }
    for worker in &after.workers {
        assert_eq!(worker.packets, decided(worker), "worker {}", worker.index);
    }
}

/// Frames of which something has become.
fn decided(worker: &WorkerStats) -> u64 {
    worker.forwarded + worker.answered + worker.punted + worker.handed_off + worker.dropped
}

/// Sends hostile frames of every kind from the client to the director; how many.
fn send_hostile_frames(lab: &Lab) -> u64 {
    let mac = lab.mac("director", "eth0");
    let script = repository().join("tests/scripts/hostile.py");
    let send = |kind| {
        let line = format!("/usr/bin/python3 -B {} {kind} eth0 {mac} 20261122", script.display());
        lab.ok("client", &line).trim().parse::<u64>().expect("the number of frames sent")
    };
    ["truncated", "flipped", "random"].map(send).iter().sum()
}

async fn stats(director: &Director) -> GetStatsResponse {
    let mut client = StatsClient::new(support::connect(director).await);
    client.get(GetStatsRequest {}).await.expect("Stats.Get answers").into_inner()
}
