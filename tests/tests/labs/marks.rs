//! T6, persistence by firewall mark: two ports are one service. `pointsman mark add` is the tutorial's iptables.

use super::{
    persistence::{CLIENTS, Network},
    with_one_and_two_workers,
};

#[test]
fn persistence_by_firewall_mark_makes_one_service_of_two_ports() {
    with_one_and_two_workers(|workers| {
        let network = Network::new(workers);
        for arguments in [
            "vip add 172.16.0.8",
            "mark add --protocol tcp --destination 172.16.0.8 --port 80 --mark 10",
            "mark add --protocol tcp --destination 172.16.0.8 --port 443 --mark 10",
        ] {
            let added = network.director.pointsman(arguments);
            assert_eq!(added.code, 0, "pointsman {arguments}: {}", added.text());
        }
        network.director.ipvsadm_all(&["-A -f 10 -s wlc -p 120"]);
        network.add_servers("-f 10", "");
        let expected = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
FWM  10 wlc persistent 120
  -> 172.16.0.12:0                Route   1      0          0         \n  \
  -> 172.16.0.13:0                Route   1      0          0         \n";
        assert_eq!(network.director.ipvsadm("-Ln").stdout, expected);

        for (client, page) in [(CLIENTS[0], "web_2"), (CLIENTS[1], "web_1")] {
            for port in [80, 443, 80, 443, 443] {
                assert_eq!(network.ask(client, port), page, "{client} to port {port}");
            }
        }
        assert_eq!(network.ask(CLIENTS[0], 443), "web_2");
        assert_eq!(
            network.templates(),
            [
                "IP NONE 172.16.0.50:0 0.0.0.10:0 172.16.0.13:0",
                "IP NONE 172.16.0.51:0 0.0.0.10:0 172.16.0.12:0",
            ]
        );
        assert_eq!(network.persistent(), ["-> 172.16.0.12:0 1 1", "-> 172.16.0.13:0 1 1"]);

        // The servers serve no other port by the VIP: that one has no mark. 7: curl could not connect.
        let refused = network.lab.run("client", "curl -sS --max-time 5 http://172.16.0.8:8080/");
        assert_eq!(refused.code, 7, "{}", refused.text());
        assert!(!refused.stderr.contains("timed out"), "{}", refused.stderr);
    });
}
