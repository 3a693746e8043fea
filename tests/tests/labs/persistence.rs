//! T6, persistent connections: by client and by port. The tutorial's virtual address is 172.16.0.8.

use super::with_one_and_two_workers;
use pointsman_tests::{Director, Lab, Web};

pub(super) const CLIENTS: [&str; 3] = ["172.16.0.50", "172.16.0.51", "172.16.0.52"];

/// The tutorial's network 172.16.0.0/16 with a client of three addresses and two servers, which serve ports 80 and 443.
pub(super) struct Network {
    pub(super) lab: Lab,
    pub(super) director: Director,
    _servers: Vec<Web>,
}

impl Network {
    pub(super) fn new(workers: usize) -> Self {
        let lab = Lab::new();
        lab.add_switch("switch");
        lab.plug(
            "client",
            "eth0",
            "switch",
            &CLIENTS.map(|client| format!("{client}/16")).each_ref().map(String::as_str),
        );
        lab.plug("director", "eth0", "switch", &["172.16.0.11/16"]);
        let server = |number| {
            let node = format!("web{number}");
            lab.plug(&node, "eth0", "switch", &[&format!("172.16.0.{}/16", 11 + number)]);
            lab.hold_quietly(&node, "lo", &["172.16.0.8"]);
            lab.web(&node, &format!("web_{number}"), &[80, 443])
        };
        let servers = (1..=2).map(server).collect();
        let director = Director::with_workers(&lab, "director", &["eth0"], workers);
        Self { lab, director, _servers: servers }
    }

    /// Adds both servers to a service.
    pub(super) fn add_servers(&self, service: &str, port: &str) {
        for number in [12, 13] {
            self.director.ipvsadm_all(&[&format!("-a {service} -r 172.16.0.{number}{port} -g")]);
        }
    }

    pub(super) fn ask(&self, client: &str, port: u16) -> String {
        self.lab.request_from("client", client, &format!("http://172.16.0.8:{port}/"))
    }

    /// The lines of `ipvsadm -Lnc` that are templates, without the time.
    pub(super) fn templates(&self) -> Vec<String> {
        let text = self.director.ipvsadm("-Lnc").stdout;
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [protocol, expire, state, client, service, server] = words[..] else { return None };
            let minutes = expire.starts_with("01:") || expire == "02:00";
            let template = client.ends_with(":0");
            assert!(!template || minutes, "a template lives for 120 seconds: {line}");
            template.then(|| format!("{protocol} {state} {client} {service} {server}"))
        };
        let mut templates: Vec<String> = text.lines().filter_map(line).collect();
        templates.sort();
        templates
    }

    /// What `ipvsadm -Ln --persistent-conn` says of the servers: weight and templates.
    pub(super) fn persistent(&self) -> Vec<String> {
        let text = self.director.ipvsadm("-Ln --persistent-conn").stdout;
        let words = |line: &str| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
        text.lines().filter(|line| line.starts_with("  -> ")).skip(1).map(words).collect()
    }
}

#[test]
fn persistence_by_client_keeps_all_ports_of_a_client_at_one_server() {
    with_one_and_two_workers(|workers| {
        let network = Network::new(workers);
        network.director.ipvsadm_all(&["-A -t 172.16.0.8:0 -s wlc -p 120"]);
        network.add_servers("-t 172.16.0.8:0", "");
        let service = network.director.ipvsadm("-Ln").stdout;
        assert!(service.contains("\nTCP  172.16.0.8:0 wlc persistent 120\n"), "{service}");

        // The server added last is the first to be chosen; the next client goes to the one with fewer connections.
        for (client, page) in [(CLIENTS[0], "web_2"), (CLIENTS[1], "web_1")] {
            for port in [80, 443, 80, 443, 80] {
                assert_eq!(network.ask(client, port), page, "{client} to port {port}");
            }
        }
        // No turn of the other's changes that.
        for client in [CLIENTS[0], CLIENTS[1], CLIENTS[0]] {
            let page = if client == CLIENTS[0] { "web_2" } else { "web_1" };
            assert_eq!(network.ask(client, 443), page, "{client}");
        }
        assert_eq!(
            network.templates(),
            [
                "TCP NONE 172.16.0.50:0 172.16.0.8:0 172.16.0.13:0",
                "TCP NONE 172.16.0.51:0 172.16.0.8:0 172.16.0.12:0",
            ]
        );
        assert_eq!(network.persistent(), ["-> 172.16.0.12:0 1 1", "-> 172.16.0.13:0 1 1"]);
    });
}

#[test]
fn persistence_by_port_keeps_a_client_at_one_server_for_each_port() {
    with_one_and_two_workers(|workers| {
        let network = Network::new(workers);
        network
            .director
            .ipvsadm_all(&["-A -t 172.16.0.8:80 -s rr -p 120", "-A -t 172.16.0.8:443 -s rr -p 120"]);
        network.add_servers("-t 172.16.0.8:80", ":80");
        network.add_servers("-t 172.16.0.8:443", ":443");
        // Each service takes turns among new clients. They come to the one in this order, to the other in that.
        for (port, client, page) in [
            (80, CLIENTS[0], "web_2"),
            (80, CLIENTS[1], "web_1"),
            (80, CLIENTS[2], "web_2"),
            (443, CLIENTS[1], "web_2"),
            (443, CLIENTS[0], "web_1"),
        ] {
            assert_eq!(network.ask(client, port), page, "{client} to port {port}");
        }
        for _ in 0..3 {
            let pages =
                [(CLIENTS[0], 80), (CLIENTS[0], 443), (CLIENTS[1], 80), (CLIENTS[1], 443), (CLIENTS[2], 80)]
                    .map(|(client, port)| network.ask(client, port));
            assert_eq!(pages, ["web_2", "web_1", "web_1", "web_2", "web_2"]);
        }
        assert_eq!(
            network.templates(),
            [
                "TCP NONE 172.16.0.50:0 172.16.0.8:443 172.16.0.12:443",
                "TCP NONE 172.16.0.50:0 172.16.0.8:80 172.16.0.13:80",
                "TCP NONE 172.16.0.51:0 172.16.0.8:443 172.16.0.13:443",
                "TCP NONE 172.16.0.51:0 172.16.0.8:80 172.16.0.12:80",
                "TCP NONE 172.16.0.52:0 172.16.0.8:80 172.16.0.13:80",
            ]
        );
        assert_eq!(
            network.persistent(),
            [
                "-> 172.16.0.12:80 1 1",
                "-> 172.16.0.13:80 1 2",
                "-> 172.16.0.12:443 1 1",
                "-> 172.16.0.13:443 1 1",
            ]
        );
    });
}
