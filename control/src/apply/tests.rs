//! Changes over real workers.

use super::*;
use crate::{
    config::model::Weight,
    kernel::Elsewhere,
    testing::{Director, WEB, parsed},
};

fn replace(new: Configuration) -> impl FnOnce(&mut Configuration) -> Result<(), Error> {
    move |configuration| {
        *configuration = new;
        Ok(())
    }
}

fn codes(result: Result<Applied, Error>) -> Vec<Code> {
    match result {
        Err(Error::Refused(refusals)) => refusals.iter().map(|refusal| refusal.code).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_change_is_in_force_on_every_worker_when_it_is_answered() {
    let director = Director::start("", 2);
    for generation in 2..20 {
        let weight = u32::try_from(generation).unwrap();
        let change = move |configuration: &mut Configuration| {
            *configuration = parsed(WEB);
            Arc::make_mut(&mut configuration.services[0]).servers[0].weight = Weight::new(weight).unwrap();
            Ok(())
        };
        let applied = director.control.change(Terms::default(), change).await.unwrap();
        assert_eq!(applied.generation, generation);
        for worker in director.control.workers() {
            assert_eq!(worker.shared.stats.generation.get(), generation);
        }
    }
}

#[tokio::test]
async fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let director = Director::start("", 1);
    let terms = Terms { dry_run: true, ..Terms::default() };
    let applied = director.control.change(terms, replace(parsed(WEB))).await.unwrap();
    assert_eq!(
        applied.changes,
        ["+ service tcp 10.0.0.100:80 rr", "+ server 10.0.0.12:80 of tcp 10.0.0.100:80: direct weight 1"]
    );
    assert_eq!(applied.generation, 1);
    assert_eq!(director.control.watch().borrow().configuration.services.len(), 0);
    assert_eq!(director.control.workers()[0].shared.stats.generation.get(), 1);
}

#[tokio::test]
async fn what_changes_nothing_makes_no_generation() {
    let director = Director::start(WEB, 1);
    let applied = director.control.change(Terms::default(), replace(parsed(WEB))).await.unwrap();
    assert_eq!((applied.generation, applied.changes.len()), (1, 0));
}

#[tokio::test]
async fn a_change_of_another_generation_is_refused() {
    let director = Director::start(WEB, 1);
    let terms = |expected| Terms { expected_generation: Some(expected), ..Terms::default() };
    let refused = director.control.change(terms(2), replace(parsed(""))).await;
    assert_eq!(codes(refused), [Code::Generation]);
    assert_eq!(director.control.change(terms(1), replace(parsed(""))).await.unwrap().generation, 2);
}

#[tokio::test]
async fn what_is_fixed_at_start_is_refused_with_a_restart_as_the_remedy_unless_it_is_the_same() {
    let director = Director::start("[[port]]\ndevice = \"eth0\"\n[capacity]\nconnections_ipv4 = 8192\n", 1);
    let change = |text: &str| director.control.change(Terms::default(), replace(parsed(text)));
    let Err(Error::Refused(refusals)) =
        change("[[port]]\ndevice = \"eth1\"\n[capacity]\nconnections_ipv4 = 4096\n").await
    else {
        panic!("not refused");
    };
    assert_eq!(
        refusals.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "start.ports: this is not what runs, and the ports cannot change after start; leave them as they are, or restart pointsmand with this configuration",
            "start.connections_ipv4: this is not what runs, and the capacity for IPv4 connections cannot change after start; leave them as they are, or restart pointsmand with this configuration",
        ]
    );
    let same = "[[port]]\ndevice = \"eth0\"\n".to_owned() + WEB;
    assert_eq!(change(&same).await.unwrap().generation, 2);
    let start = director.control.watch().borrow().configuration.start.clone();
    assert_eq!(start.connections_ipv4.unwrap().get(), 8_192);
}

#[tokio::test]
async fn more_destinations_than_there_are_slots_are_refused() {
    let director = Director::start("", 1);
    let mut configuration = parsed(WEB);
    let server = configuration.services[0].servers[0].clone();
    let address = |n: u32| std::net::Ipv4Addr::from(0x0b00_0000 + n).into();
    Arc::make_mut(&mut configuration.services[0]).servers = (0..131_073)
        .map(|n| crate::config::model::Server { address: address(n), ..server.clone() })
        .collect();
    let refused = director.control.change(Terms::default(), replace(configuration)).await;
    assert_eq!(codes(refused), [Code::Capacity]);
}

#[tokio::test]
async fn a_worker_that_does_not_take_a_change_is_named_and_the_change_taken_back() {
    let (prepared, snapshot) = Prepared::new(parsed(WEB), crate::kernel::testing::network()).unwrap();
    let (publisher, readers) = pointsman_dataplane::publish::channel(1, snapshot, 1);
    // A worker whose thread never runs.
    let control = Control::new(prepared, publisher, vec![Handle::idle(3, 7)], Local::default());
    let late = control.change(Terms::default(), replace(parsed(""))).await.unwrap_err();
    assert!(late.to_string().starts_with("worker 3 on core 7 has not taken the change"), "{late}");
    assert_eq!(control.watch().borrow().configuration.services.len(), 1);
    // Once it runs again it finds the old configuration under a new number.
    let mut reader = readers.into_iter().next().unwrap();
    assert!(reader.refresh());
    assert_eq!((reader.generation(), reader.get().services.len()), (3, 1));
}

#[tokio::test]
async fn a_virtual_address_that_comes_up_is_announced_once() {
    let mut director = Director::start("", 1);
    director.control.change(Terms::default(), replace(parsed(WEB))).await.unwrap();
    let frame = director.sent().await;
    // ARP from and about 10.0.0.100, to all.
    assert_eq!(
        (&frame[..6], &frame[12..14], &frame[28..32]),
        (&[255; 6][..], &[8, 6][..], &[10, 0, 0, 100][..])
    );
    let change = |configuration: &mut Configuration| {
        Arc::make_mut(&mut configuration.services[0]).servers.clear();
        Ok(())
    };
    director.control.change(Terms::default(), change).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(director.wires[0].pop_all(), Vec::<Vec<u8>>::new());
}

#[tokio::test]
async fn what_needs_the_operators_eye_is_said_once_for_each_change_that_brings_it() {
    let director = Director::start("", 1);
    let own = WEB.replace("10.0.0.100", "10.0.0.1");
    let applied = director.control.change(Terms::default(), replace(parsed(&own))).await.unwrap();
    assert_eq!(
        applied.warnings,
        [
            "10.0.0.1 is also an address of this machine: the kernel answers for it too and resets connections; remove it with `ip addr del 10.0.0.1/24 dev eth0`, or choose another virtual address if the machine needs it."
        ]
    );
    let more = own.clone() + "[[service.server]]\naddress = \"10.0.0.13\"\n";
    let applied = director.control.change(Terms::default(), replace(parsed(&more))).await.unwrap();
    assert_eq!(applied.warnings, Vec::<String>::new());
    let terms = Terms { all_warnings: true, ..Terms::default() };
    let applied = director.control.change(terms, replace(parsed(&own))).await.unwrap();
    assert_eq!(applied.warnings.len(), 1);
}

#[tokio::test]
async fn routes_that_change_reach_the_workers_without_a_new_generation() {
    let director = Director::start(WEB, 1);
    let mut network = crate::kernel::testing::network();
    assert!(!director.control.renew_network(network.clone()).await.unwrap());
    network.routes.clear();
    assert!(director.control.renew_network(network).await.unwrap());
    assert_eq!(director.control.watch().borrow().generation, 1);
    assert_eq!(director.control.workers()[0].shared.stats.generation.get(), 2);
    let warnings = director.control.warnings().await;
    assert!(
        warnings[0].starts_with("No route leads to the server 10.0.0.12:80 of tcp 10.0.0.100:80"),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn more_addresses_than_a_queue_holds_are_all_announced() {
    let director = Director::start("", 1);
    let change = |configuration: &mut Configuration| {
        configuration.virtual_addresses =
            (0..3_000).map(|n| IpAddr::from((0x0a00_0200_u32 + n).to_be_bytes())).collect();
        Ok(())
    };
    director.control.change(Terms::default(), change).await.unwrap();
    let counters = &director.control.workers()[0].shared.stats.ports[0];
    // The wire holds few: what finds it full is lost, as on a real one.
    let sent = || counters.tx_packets.get() + counters.tx_ring_drops.get();
    for _ in 0..500 {
        if sent() == 3_000 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} of 3000 were announced", sent());
}

#[test]
fn servers_that_get_nothing_are_warned_of_with_why_and_what_to_do() {
    let mut network = crate::kernel::testing::network();
    network.elsewhere =
        vec![Elsewhere { network: [10, 10, 10, 0].into(), prefix: 24, device: "eth1".into() }];
    let service = |key: &str, server: &str| {
        warnings(&parsed(&format!("[[service]]\n{key}\n[[service.server]]\n{server}\n")), &network)
    };
    let vip = "address = \"10.0.0.100\"\nport = 80";
    for (key, server, begins, remedy) in [
        (
            vip,
            "address = \"10.10.10.12\"",
            "The server 10.10.10.12:80 of tcp 10.0.0.100:80 is reached by eth1, which is no port",
            "(`--port eth1`,",
        ),
        (
            vip,
            "address = \"192.0.2.1\"",
            "The server 192.0.2.1:80 of tcp 10.0.0.100:80 is behind the router 10.0.0.254,",
            "use a tunnel or NAT",
        ),
        (
            vip,
            "address = \"10.0.0.100\"\nmethod = \"nat\"",
            "The server 10.0.0.100:80 of tcp 10.0.0.100:80 is a virtual address of this director",
            "127.0.0.1",
        ),
        (
            "mark = 7",
            "address = \"10.0.0.12\"",
            "No rule gives packets the mark 7: the service of mark 7 gets none",
            "`pointsman mark add --mark 7`",
        ),
    ] {
        let said = service(key, server);
        assert!(said.len() == 1 && said[0].starts_with(begins) && said[0].contains(remedy), "{said:#?}");
    }
    assert_eq!(service(vip, "address = \"192.0.2.1\"\nmethod = \"nat\""), Vec::<String>::new());
}

#[tokio::test]
async fn a_kernel_that_forwards_is_warned_of_by_family() {
    let mut network = crate::kernel::testing::network();
    (network.forwards_ipv4, network.forwards_ipv6) = (true, true);
    assert_eq!(warnings(&parsed(""), &network), Vec::<String>::new());
    let v6 = parsed("virtual_addresses = [\"fd00::100\"]");
    assert_eq!(
        warnings(&v6, &network),
        [
            "The kernel forwards IPv6 packets by itself, so that a server may get them twice; turn it off with `sysctl -w net.ipv6.conf.all.forwarding=0`."
        ]
    );
}
