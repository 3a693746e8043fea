use super::*;
use crate::{
    config::read,
    kernel::{Route, testing},
};
use pointsman_dataplane::{
    conn::key::Key4,
    mark,
    prefix::Prefix,
    routing::{Forwarding, SourceNat, Way},
    scheduler::Opening,
    snapshot::{NeighborState, Presence},
};
use std::path::Path;

fn parsed(text: &str) -> Configuration {
    read(Path::new("test.toml"), text).unwrap()
}

fn service(servers: &[&str]) -> String {
    let mut text = "[[service]]\naddress = \"10.0.0.100\"\nport = 80\nscheduler = \"rr\"\n".to_owned();
    for server in servers {
        text += &format!("[[service.server]]\naddress = \"{server}\"\n");
    }
    text
}

fn at(generation: u64) -> Moment {
    Moment { now: Nanos::from_secs(generation), generation, seen: generation - 1 }
}

#[test]
fn a_service_becomes_an_index_a_scheduler_and_destinations_with_next_hops() {
    let mut compiler = Compiler::default();
    // The port is 10.0.0.1/24 with a default route by 10.0.0.254.
    let network = testing::network();
    let configuration = parsed(&service(&["10.0.0.12", "192.168.9.9", "fd00::9"][..2]));
    let snapshot = compiler.compile(&configuration, &network, at(1));
    assert_eq!(snapshot.generation, 1);
    let key = snapshot::ServiceKey { protocol: 6, address: [10, 0, 0, 100].into(), port: 80 };
    assert_eq!(snapshot.service_index.get(&key), Some(0));
    assert!(snapshot.virtual_addresses.contains(&key.address));
    let hops: Vec<String> = snapshot.next_hops.iter().map(|hop| hop.address.to_string()).collect();
    assert_eq!(hops, ["10.0.0.12", "10.0.0.254", "fd00::fe"]);
    let next: Vec<u32> = snapshot.destinations.iter().map(|d| d.next_hop).collect();
    assert_eq!(next, [0, 1]);
    // Added first, chosen last.
    let client = Key4::from_wire([10, 0, 0, 2, 10, 0, 0, 100], [0x1f, 0x90, 0, 80], 6);
    let opening = Opening { key: &client, hash: 0, now: Ticks(0) };
    let picked: Vec<u32> = (0..4).filter_map(|_| snapshot.services[0].scheduler.pick(&opening)).collect();
    assert_eq!(picked, [1, 0, 1, 0]);
}

#[test]
fn a_removed_server_keeps_its_connections_and_gets_them_back() {
    let mut compiler = Compiler::default();
    let network = testing::network();
    let both = parsed(&service(&["10.0.0.12", "10.0.0.13"]));
    let first = compiler.compile(&both, &network, at(1));
    first.destinations[0].shared.connected(true);
    let second = compiler.compile(&parsed(&service(&["10.0.0.13"])), &network, at(2));
    assert_eq!(second.destinations[0].presence, Presence::Removed);
    let third = compiler.compile(&both, &network, at(3));
    assert_eq!((third.destinations[0].presence, third.destinations[0].generation), (Presence::Present, 1));
    assert_eq!(third.destinations[0].shared.active(), 1);
    let gone = compiler.compile(&Configuration::default(), &network, at(4));
    assert_eq!(gone.destinations[0].presence, Presence::ServiceGone);
    assert!(gone.service_index.is_empty() && gone.virtual_addresses.is_empty());
}

#[test]
fn what_is_known_of_a_neighbour_outlives_a_change() {
    let mut compiler = Compiler::default();
    let network = testing::network();
    let configuration = parsed(&service(&["10.0.0.12"]));
    let first = compiler.compile(&configuration, &network, at(1));
    first.next_hops[0].cell.set(NeighborState::Reachable([2; 6]));
    let second = compiler.compile(&configuration, &network, at(2));
    assert_eq!(second.next_hops[0].cell.get(), NeighborState::Reachable([2; 6]));
    // With the routers of the default routes.
    assert_eq!(compiler.next_hops().count(), 3);
    compiler.compile(&Configuration::default(), &network, at(3));
    assert_eq!(compiler.next_hops().count(), 2);
}

#[test]
fn what_is_not_run_yet_is_said_in_a_sentence() {
    let text = "[[service]]\nmark = 7\nscheduler = \"sh\"\n[[service.server]]\naddress = \"10.0.0.12\"\nmethod = \"nat\"\n\
                [[service.server]]\naddress = \"10.0.0.1\"\n[[service.server]]\naddress = \"10.0.0.2\"\nmethod = \"local\"\n";
    let service = &parsed(text).services[0];
    let host = [[10, 0, 0, 1].into()].into_iter().collect();
    let sentence = |address: &str| {
        format!(
            "The server {address}:0 of mark 7 gets no packets: it is the director itself, and no device can be made."
        )
    };
    assert_eq!(
        pending(service, &[], &host, Some("no device can be made")),
        [sentence("10.0.0.1"), sentence("10.0.0.2")]
    );
    assert_eq!(pending(service, &[], &host, None), Vec::<String>::new());
}

#[test]
fn a_server_that_is_the_director_itself_listens_on_the_port_of_the_service() {
    let text = service(&["10.0.0.1", "10.0.0.12"]) + "port = 8080\nmethod = \"nat\"\n";
    let text = text.replacen("\"10.0.0.1\"", "\"10.0.0.1\"\nport = 8080\nmethod = \"nat\"", 1);
    let host = [[10, 0, 0, 1].into()].into_iter().collect();
    assert_eq!(
        pending(&parsed(&text).services[0], &[], &host, None),
        [
            "The server 10.0.0.1:8080 of tcp 10.0.0.100:80 gets its packets at port 80, not 8080: it is the director itself, whose packets stay as they are; let it listen on tcp 10.0.0.100:80."
        ]
    );
}

#[test]
fn the_kernel_has_the_virtual_addresses_of_servers_that_are_the_director_itself() {
    let text = "[[mark]]\nmark = 7\ndestination = \"10.0.0.101\"\n[[mark]]\nmark = 7\ndestination = \"10.1.0.0/24\"\n\
                [[mark]]\nmark = 8\ndestination = \"10.0.0.102\"\n";
    let marked = "[[service]]\nmark = 7\n[[service.server]]\naddress = \"10.0.0.1\"\n\
                  [[service]]\nmark = 8\n[[service.server]]\naddress = \"10.0.0.12\"\n";
    let configuration = parsed(&format!("{text}{}{marked}", service(&["10.0.0.1", "10.0.0.12"])));
    // The machine is 10.0.0.1.
    let (mut network, mut compiler) = (testing::network(), Compiler::default());
    let mut addresses = |network: &Network, generation| {
        compiler.compile(&configuration, network, at(generation));
        local_addresses(compiler.local_services(), &configuration.marks)
    };
    let expected = ["10.0.0.100", "10.0.0.101"].map(|address| address.parse().unwrap());
    assert_eq!(addresses(&network, 1), expected.into());
    assert_eq!(
        pending(
            &configuration.services[1],
            &configuration.marks,
            &[[10, 0, 0, 1].into()].into_iter().collect(),
            None
        ),
        [
            "The server 10.0.0.1:0 of mark 7 gets no packets by the rule \"mark 7: every protocol to 10.1.0.0/24\": it is the director itself, whose kernel has single addresses only; give each address a rule of its own."
        ]
    );
    network.host_addresses.clear();
    // A worker may still be making connections to it.
    assert_eq!(addresses(&network, 2), expected.into());
    assert_eq!(addresses(&network, 3), [].into());
    network.host_addresses.push([10, 0, 0, 12].into());
    let expected = ["10.0.0.100", "10.0.0.102"].map(|address| address.parse().unwrap());
    assert_eq!(addresses(&network, 4), expected.into());
}

/// The way of a packet, with the routers in text.
fn way(snapshot: &Snapshot, to: &str) -> Result<String, u16> {
    match snapshot.routing.routes.find(to.parse().unwrap()).unwrap() {
        Way::Router(number) => Ok(snapshot.next_hops[number as usize].address.to_string()),
        Way::Link(port) => Err(port),
    }
}

#[test]
fn routes_lead_to_routers_that_are_next_hops_and_to_links() {
    let mut compiler = Compiler::default();
    let mut network = testing::network();
    let route = |gateway: &str, metric| Route {
        network: [172, 16, 0, 0].into(),
        prefix: 12,
        gateway: Some(gateway.parse().unwrap()),
        port: 0,
        metric,
    };
    network.routes.extend([route("10.0.0.7", 20), route("10.0.0.8", 10)]);
    let configuration = parsed(&service(&["192.168.9.9"]));
    let first = compiler.compile(&configuration, &network, at(1));
    assert_eq!(way(&first, "10.0.0.9"), Err(0));
    assert_eq!(way(&first, "8.8.8.8"), Ok("10.0.0.254".into()));
    assert_eq!(way(&first, "2001:db8::1"), Ok("fd00::fe".into()));
    assert_eq!(way(&first, "172.17.0.1"), Ok("10.0.0.8".into()), "the lower metric");
    assert_eq!(compiler.next_hops().count(), 3, "the server's is the default route's");
    let second = compiler.compile(&Configuration::default(), &network, at(2));
    assert!(Arc::ptr_eq(&first.routing, &second.routing), "no route has changed");
    assert_eq!(compiler.next_hops().count(), 3, "routes hold them without servers");
    network.routes.truncate(2);
    let third = compiler.compile(&Configuration::default(), &network, at(3));
    assert_eq!(way(&third, "172.17.0.1"), Ok("10.0.0.254".into()));
    let held: Vec<String> = compiler.next_hops().map(|hop| hop.address.to_string()).collect();
    assert_eq!(held, ["10.0.0.254"]);
}

#[test]
fn the_servers_of_nat_are_known_for_as_long_as_one_service_has_them() {
    let mut compiler = Compiler::default();
    let network = testing::network();
    let text = |port: u16, servers: &[(&str, u32)]| {
        let mut text = format!("[[service]]\naddress = \"10.0.0.100\"\nport = {port}\n");
        for (server, weight) in servers {
            text +=
                &format!("[[service.server]]\naddress = \"{server}\"\nmethod = \"nat\"\nweight = {weight}\n");
        }
        text
    };
    let (a, b) = ("10.0.0.12", "10.0.0.13");
    let mut generation = 0;
    let mut routing = |text: String| {
        generation += 1;
        let routing = compiler.compile(&parsed(&text), &network, at(generation)).routing;
        let has = |address: &str| routing.servers.contains(&address.parse().unwrap());
        ((has(a), has(b)), routing.clone())
    };
    let (has, first) = routing(text(80, &[(a, 1)]));
    assert_eq!((has, first.forwarding), ((true, false), Forwarding::Servers));
    let (_, same) = routing(text(80, &[(a, 5)]));
    assert!(Arc::ptr_eq(&first, &same), "a weight makes no difference");
    assert_eq!(routing(text(80, &[(a, 5), (b, 1)])).0, (true, true));
    assert_eq!(routing(text(80, &[(b, 1)]) + &text(81, &[(a, 1), (b, 1)])).0, (true, true));
    assert_eq!(routing(text(81, &[(b, 1)])).0, (false, true));
    assert_eq!(routing(service(&[b])).0, (false, false), "direct routing");
}

#[test]
fn what_connections_need_that_were_made_by_another_method_stays_as_long_as_there_may_be_some() {
    let (mut compiler, network) = (Compiler::default(), testing::network());
    let mut generation = 0;
    let mut compile = |servers: &[(&str, &str)]| {
        generation += 1;
        let server =
            |(address, rest): &(&str, &str)| format!("[[service.server]]\naddress = \"{address}\"\n{rest}\n");
        let servers: String = servers.iter().map(server).collect();
        let text = format!("[[service]]\naddress = \"10.0.0.100\"\nport = 80\n{servers}");
        let snapshot = compiler.compile(&parsed(&text), &network, at(generation));
        (snapshot, compiler.local_services().count(), compiler.kept_in_vain().count())
    };
    let (a, b) = ("10.0.0.12", "10.0.0.13");
    let natted = |snapshot: &Snapshot| {
        [a, b].map(|address| snapshot.routing.servers.contains(&address.parse().unwrap()))
    };
    let (first, local, _) = compile(&[(a, "method = \"nat\""), (b, "method = \"local\"")]);
    assert_eq!((natted(&first), local), ([true, false], 1));
    first.destinations.iter().for_each(|destination| destination.shared.connected(true));
    for weight in ["weight = 1", "weight = 2"] {
        let (changed, local, in_vain) = compile(&[(a, weight), (b, weight)]);
        assert_eq!((natted(&changed), local, in_vain), ([true, false], 1, 0), "{weight}");
    }
    // Removed and added again, it has its connections again.
    assert_eq!(compile(&[(a, "weight = 2")]).1, 0);
    let servers = [(a, "weight = 2"), (b, "")];
    assert_eq!(compile(&servers).1, 1);
    first.destinations.iter().for_each(|destination| destination.shared.disconnected(true));
    // Without another change; what is given up is not looked for again, and of a removed server nothing is.
    let (last, local, in_vain) = compile(&servers);
    assert_eq!((natted(&last), local, in_vain), ([false, false], 0, 0));
    compile(&[(a, "method = \"nat\""), (b, "")]);
    assert_eq!(compile(&servers).2, 1, "a worker may still be making connections");
    assert_eq!(compile(&[(b, "")]).2, 0);
}

#[test]
fn a_server_at_an_address_of_this_machine_is_local_whatever_was_asked_for() {
    let mut compiler = Compiler::default();
    let text = service(&["10.0.0.1", "10.0.0.12"]) + "method = \"nat\"\n";
    let configuration = parsed(&text.replacen("\"10.0.0.1\"", "\"10.0.0.1\"\nmethod = \"nat\"", 1));
    let snapshot = compiler.compile(&configuration, &testing::network(), at(1));
    let [local, other] = &snapshot.destinations[..] else { panic!("two") };
    assert_eq!((local.method, local.next_hop), (snapshot::Method::Local, Destination::NO_ROUTE));
    assert_eq!((other.method, other.next_hop), (snapshot::Method::Nat, 0));
    assert!(!snapshot.routing.servers.contains(&local.address));
    assert!(snapshot.routing.servers.contains(&other.address));
    // The address has moved to another machine.
    let mut network = testing::network();
    network.host_addresses.retain(|address| *address != local.address);
    let snapshot = compiler.compile(&configuration, &network, at(2));
    assert_eq!(snapshot.destinations[0].method, snapshot::Method::Nat);
    assert!(snapshot.routing.servers.contains(&local.address));
}

#[test]
fn a_persistent_service_of_every_port_leaves_packets_their_port() {
    let service = |rest: &str| {
        format!(
            "[[service]]\nmark = 7\n{rest}\n[[service.server]]\naddress = \"10.0.0.12\"\nport = 8080\nmethod = \"nat\"\n"
        )
    };
    let mut compiler = Compiler::default();
    let mut generation = 0;
    let mut destination = |rest: &str| {
        generation += 1;
        let snapshot = compiler.compile(&parsed(&service(rest)), &testing::network(), at(generation));
        let destination = snapshot.destinations[0].clone();
        assert_eq!(destination.ends, Ends::new((destination.address, destination.port), None));
        (destination, compiler.kept_in_vain().count())
    };
    let persistent = "persistence_seconds = 300";
    assert_eq!(
        [destination("").0.port, destination(persistent).0.port, destination("").0.port],
        [8080, 0, 8080]
    );
    // Connections keep the port by which their server knows them.
    let shared = destination("").0.shared;
    shared.connected(true);
    assert_eq!((destination(persistent).0.port, destination(persistent).1), (8080, 0));
    shared.disconnected(true);
    assert_eq!(destination(persistent).0.port, 0);
    // Also those of a server that is removed and comes back.
    shared.connected(true);
    let gone = compiler.compile(
        &parsed(&format!("[[service]]\nmark = 7\n{persistent}\n")),
        &testing::network(),
        at(90),
    );
    assert_eq!((gone.destinations[0].presence, gone.destinations[0].port), (snapshot::Presence::Removed, 0));
    let back = compiler.compile(&parsed(&service("")), &testing::network(), at(91));
    assert_eq!(back.destinations[0].port, 0);
}

#[test]
fn the_service_of_a_mark_is_found_by_its_mark_and_family() {
    let text = service(&["10.0.0.12"]) + "[[service]]\nmark = 7\n[[service]]\nmark = 7\nipv6 = true\n";
    let snapshot = Compiler::default().compile(&parsed(&text), &testing::network(), at(1));
    let of = |mark, v6| snapshot.service_index.of_mark(mark, v6);
    assert_eq!((of(7, false), of(7, true), of(8, false)), (Some(1), Some(2), None));
}

#[test]
fn rules_of_marks_and_source_nat_reach_the_workers_with_the_numbers_of_ports() {
    let text = "[routing]\nforward = \"all\"\n[policy]\nsloppy_tcp = true\n\
        [[mark]]\nprotocol = \"tcp\"\ndestination = \"10.0.0.100\"\nport = \"80-90\"\nmark = 10\n\
        [[mark]]\nsource = \"10.9.0.0/16\"\ninterface = \"eth0\"\nmark = 11\n\
        [[source_nat]]\nsource = \"10.10.10.0/24\"\ninterface = \"eth0\"\nto = \"20.20.20.11\"\n";
    let configuration = parsed(text);
    let mut compiler = Compiler::default();
    let snapshot = compiler.compile(&configuration, &testing::network(), at(1));
    let packet = |source: [u8; 4], port| mark::Packet {
        protocol: 6,
        source: source.into(),
        destination: [10, 0, 0, 100].into(),
        port,
        interface: 0,
    };
    let of = |source, port| snapshot.marks.of(&packet(source, port));
    assert_eq!((of([8, 8, 8, 8], 90), of([8, 8, 8, 8], 91), of([10, 9, 1, 1], 90)), (10, 0, 11));
    let rule = SourceNat {
        source: Prefix::new([10, 10, 10, 0].into(), 24),
        port: Some(0),
        address: [20, 20, 20, 11].into(),
    };
    assert_eq!(*snapshot.routing.source_nat, [rule]);
    assert_eq!(snapshot.routing.forwarding, Forwarding::All);
    assert!(snapshot.policies.sloppy_tcp);
    for up in [[10, 0, 0, 100], [20, 20, 20, 11]] {
        assert!(snapshot.virtual_addresses.contains(&up.into()));
    }
    let again = compiler.compile(&configuration, &testing::network(), at(2));
    assert!(Arc::ptr_eq(&snapshot.routing, &again.routing));
    // The port is gone: its rules fit nothing, and not everything.
    let gone = compiler.compile(&configuration, &Network::default(), at(3));
    assert_eq!(gone.marks.of(&packet([10, 9, 1, 1], 91)), 0);
    assert!(gone.routing.source_nat.is_empty());
}

#[test]
fn a_service_has_timeouts_of_its_own_and_the_rest_of_all() {
    let mut compiler = Compiler::default();
    let network = testing::network();
    let text = |all: &str, own: &str| {
        let one = service(&["10.0.0.12"]).replace("scheduler", &format!("{own}scheduler"));
        parsed(&format!("[timeouts]\n{all}\n{one}"))
    };
    let mut compiled = |generation, configuration: &Configuration| {
        compiler.compile(configuration, &network, at(generation)).destinations[0].timeouts.clone()
    };
    assert_eq!(compiled(1, &text("", "")), None);
    let mut own = text("", "timeout_tcp = 100\ntimeout_udp = 7\n");
    let second = compiled(2, &own).unwrap();
    let seconds = |timeouts: &snapshot::Timeouts| {
        (timeouts.tcp[1], timeouts.tcp[4], timeouts.udp) // ESTABLISHED, FIN_WAIT
    };
    assert_eq!(seconds(&second), (Ticks::from_secs(100), Ticks::from_secs(120), Ticks::from_secs(7)));
    // `--set` for all services, of which this one has its FIN_WAIT.
    own.timeouts.tcp_fin_wait = 30;
    own.timeouts.udp = 60;
    let third = compiled(3, &own).unwrap();
    assert_eq!(seconds(&third), (Ticks::from_secs(100), Ticks::from_secs(30), Ticks::from_secs(7)));
    let fourth = compiled(4, &own).unwrap();
    assert!(Arc::ptr_eq(&third, &fourth));
    assert_eq!(compiled(5, &text("", "")), None);
}
