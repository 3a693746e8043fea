//! The laboratory itself: it must be real, and leave nothing behind.

use pointsman_tests::{Lab, wait_until};

#[test]
fn a_client_reaches_the_servers_by_their_own_addresses() {
    let lab = Lab::segment();
    let _servers = [lab.web_server("web1", "web_1"), lab.web_server("web2", "web_2")];
    assert_eq!(lab.requests("client", "http://192.168.10.12/", 1), ["web_1"]);
    assert_eq!(lab.requests("client", "http://[fd00:10::13]/", 1), ["web_2"]);
}

#[test]
fn servers_are_silent_about_the_vips_that_they_hold() {
    let lab = Lab::segment();
    let _servers = [lab.web_server("web1", "web_1"), lab.web_server("web2", "web_2")];
    for url in ["http://192.168.10.100/", "http://[fd00:10::100]/"] {
        // 7 and 28: no connection, for no host on the segment answers ARP or neighbour discovery for the address.
        let output = lab.run("client", &format!("curl -gs --max-time 1 {url}"));
        assert!([7, 28].contains(&output.code), "{url}: {}", output.text());
    }
}

#[test]
fn everything_in_a_lab_ends_with_it() {
    let lab = Lab::segment();
    let name = format!("lab-test-{}", std::process::id());
    let left =
        || std::process::Command::new("pgrep").args(["-f", &name]).output().expect("pgrep (procps) starts");
    let sleeper = lab.spawn("web1", "sleeper", &format!("sh -c 'sleep 1000; true' {name}"));
    wait_until("the sleeper runs", 10, || left().status.success());
    drop(sleeper);
    drop(lab);
    wait_until("the sleeper has ended", 10, || !left().status.success());
}
