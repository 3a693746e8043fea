//! Servers that hash schedulers choose for the frames of clients, with one worker and with several.

use crate::support::{
    Lab, Plan, Size, TCP,
    frames::{SYN, tcp},
};
use pointsman_dataplane::scheduler::Kind;

/// Where the SYNs of clients go: `r1` to `r3`, or what the client is told.
fn goes(lab: &mut Lab, clients: &[&str], service: &str) -> Vec<String> {
    let servers = |client: &&str| {
        let said = lab.says(tcp(client, service, SYN).frame());
        assert_eq!(said.len(), 1, "{said:?}");
        if said[0].contains("icmp 3/3") { "unreachable".to_owned() } else { said[0][..2].to_owned() }
    };
    clients.iter().map(servers).collect()
}

/// The list is r3 r2 r1. With weights of 1 place 39 is r3's, 137 and 248 are r1's and 124 is r2's.
const MEASURED: [&str; 4] = ["10.0.0.1:7", "10.0.0.2:7", "192.168.1.10:7", "203.0.113.7:7"];

#[test]
fn sh_and_dh_send_frames_to_the_measured_places() {
    let mut lab = Lab::new(Plan::new().service("10.0.0.100:80", TCP, Kind::Sh, 3));
    assert_eq!(goes(&mut lab, &MEASURED, "10.0.0.100:80"), ["r3", "r1", "r1", "r2"]);
    for (service, server) in [("10.0.0.1:80", "r3"), ("10.0.0.2:80", "r1"), ("203.0.113.7:80", "r2")] {
        let mut lab = Lab::new(Plan::new().service(service, TCP, Kind::Dh, 3));
        assert_eq!(goes(&mut lab, &["10.9.0.1:1", "10.9.0.2:2"], service), [server; 2]);
    }
}

#[test]
fn a_client_whose_place_has_no_usable_server_is_answered_port_unreachable() {
    for kind in [Kind::Sh, Kind::Mh] {
        let mut lab = Lab::new(Plan::new().service("10.0.0.100:80", TCP, kind, 1));
        assert_eq!(goes(&mut lab, &MEASURED, "10.0.0.100:80"), ["r1"; 4]);
        lab.plan.services[0].servers[0].1 = 0;
        lab.publish();
        let clients = MEASURED.map(|client| client.replace(":7", ":8"));
        let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
        assert_eq!(goes(&mut lab, &clients, "10.0.0.100:80"), ["unreachable"; 4], "{kind:?}");
        lab.assert_accounted(0);
    }
}

#[test]
fn clients_meet_the_same_servers_with_one_worker_and_with_three() {
    // twos draws, and ovf has no server for so many.
    for kind in Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Twos | Kind::Ovf)) {
        let plan = || Plan::new().service("10.0.0.100:80", TCP, kind, 3);
        let mut one = Lab::new(plan());
        let mut three = Lab::sized(plan(), Size { workers: 3, ..Size::default() });
        for client in ["10.0.0.1", "10.0.0.2", "10.77.3.9"] {
            let clients: Vec<String> = (1_000..1_030).map(|port| format!("{client}:{port}")).collect();
            let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
            let with_one = goes(&mut one, &clients, "10.0.0.100:80");
            if matches!(kind, Kind::Sh | Kind::Dh | Kind::Mh) {
                assert_eq!(with_one, vec![with_one[0].clone(); 30], "{kind:?}");
            }
            assert_eq!(goes(&mut three, &clients, "10.0.0.100:80"), with_one, "{kind:?}");
        }
        let connections = |n: usize| three.stations[n].shared.stats.connections.get();
        assert!((0..3).all(|n| connections(n) > 10), "{kind:?}");
    }
}
