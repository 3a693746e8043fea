//! The services over a real socket, with real clients, of a director whose workers run.

use super::*;
use crate::{
    ports::Source,
    socket::Socket,
    testing::{Director, WEB},
};
use hyper_util::rt::TokioIo;
use pointsman_dataplane::wire::checksum;
use pointsman_proto::v1::{
    ApplyRequest, GetConfigRequest, GetStatsRequest, ListConnectionsRequest, ListRequest, PortsRequest,
    WatchConfigRequest, WatchStatsRequest, ZeroRequest, config_client::ConfigClient,
    connections_client::ConnectionsClient, lvs_client::LvsClient, stats_client::StatsClient,
};
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};
use tonic::transport::{Channel, Endpoint};

struct Served {
    director: Director,
    channel: Channel,
    folder: PathBuf,
    _socket: Socket,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn connect(path: &Path) -> Channel {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://director").connect_with_connector(connector).await.unwrap()
}

async fn serve_it(name: &str, text: &str, workers: usize) -> Served {
    let director = Director::start(text, workers);
    let folder = std::env::temp_dir().join(format!("pointsman-grpc-{name}-{}", std::process::id()));
    let path = folder.join("p.sock");
    let (socket, listener) = Socket::listen(&path).unwrap();
    let resolver = Arc::new(Resolver::default());
    let (driver, control) = (resolver.clone(), director.control.clone());
    tokio::spawn(async move { driver.run(control).await });
    let source = Source::Kernel { interface: "lo".into(), workers: workers as u32, host: Arc::default() };
    let network = director.control.network().await;
    let ports = Arc::new(Ports::new([source].into(), &network, crate::clock::now()));
    let context = Context { control: director.control.clone(), resolver, ports, memory: Arc::new([]) };
    let listener = UnixListener::from_std(listener).unwrap();
    tokio::spawn(
        async move { serve(context, listener, std::future::pending()).await.map_err(|e| e.to_string()) },
    );
    Served { channel: connect(&path).await, director, folder, _socket: socket }
}

const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 0x50];
const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 0x12];
const DIRECTOR: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A SYN from 10.0.0.50 to 10.0.0.100:80.
fn syn(port: u16) -> Vec<u8> {
    let (client, vip) = (Ipv4Addr::new(10, 0, 0, 50), Ipv4Addr::new(10, 0, 0, 100));
    let mut ip = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    ip.extend(client.octets());
    ip.extend(vip.octets());
    let sum = checksum::of(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut tcp = port.to_be_bytes().to_vec();
    tcp.extend([0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    [&DIRECTOR[..], &CLIENT, &[8, 0], &ip, &tcp].concat()
}

/// 10.0.0.12 answers the director's ARP request.
fn arp_reply() -> Vec<u8> {
    let mut frame = [&DIRECTOR[..], &SERVER, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]].concat();
    frame.extend(SERVER);
    frame.extend([10, 0, 0, 12]);
    frame.extend(DIRECTOR);
    frame.extend([10, 0, 0, 1]);
    frame
}

#[tokio::test]
async fn a_connection_is_resolved_forwarded_listed_and_counted() {
    let mut served = serve_it("packet", WEB, 1).await;
    let asked = served.director.sent().await;
    // The next hop is asked for before any packet needs it: ARP request, who has 10.0.0.12.
    assert_eq!(
        (&asked[12..14], &asked[20..22], &asked[38..42]),
        (&[8, 6][..], &[0, 1][..], &[10, 0, 0, 12][..])
    );
    served.director.wires[0].push(&syn(5_000));
    served.director.wires[0].push(&arp_reply());
    let forwarded = served.director.forwarded().await;
    assert_eq!((&forwarded[..6], &forwarded[6..12]), (&SERVER[..], &DIRECTOR[..]));
    assert_eq!(forwarded[30..34], [10, 0, 0, 100]);

    let list = |request| {
        let mut client = ConnectionsClient::new(served.channel.clone());
        async move {
            let mut stream = client.list(request).await.unwrap().into_inner();
            let mut all = Vec::new();
            while let Some(part) = stream.message().await.unwrap() {
                all.extend(part.connections);
            }
            all
        }
    };
    let all = list(ListConnectionsRequest::default()).await;
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].client_address.as_str(), all[0].client_port), ("10.0.0.50", 5_000));
    assert_eq!((all[0].server_address.as_str(), all[0].server_port), ("10.0.0.12", 80));
    assert_eq!((all[0].state.as_str(), all[0].packets_in, all[0].bytes_in), ("SYN_RECV", 1, 40));
    let other = ListConnectionsRequest { client: Some("10.0.0.51".into()), ..Default::default() };
    assert_eq!(list(other).await, []);

    let mut lvs = LvsClient::new(served.channel.clone());
    let status = lvs.list(ListRequest::default()).await.unwrap().into_inner().services.remove(0);
    assert_eq!((status.servers[0].active_connections, status.servers[0].inactive_connections), (1, 0));
    let counters =
        |counters: Option<v1::Counters>| counters.map(|c| (c.connections, c.packets_in, c.bytes_in));
    assert_eq!(counters(status.counters), Some((1, 1, 40)));
    assert_eq!(counters(status.servers[0].counters), Some((1, 1, 40)));
    lvs.zero(ZeroRequest::default()).await.unwrap();
    let status = lvs.list(ListRequest::default()).await.unwrap().into_inner().services.remove(0);
    assert_eq!(counters(status.counters), Some((0, 0, 0)));

    let stats = StatsClient::new(served.channel.clone()).get(GetStatsRequest {}).await.unwrap().into_inner();
    assert_eq!((stats.workers[0].forwarded, stats.workers[0].connections), (1, 1));
    assert_eq!(
        (stats.neighbors[0].address.as_str(), stats.neighbors[0].state.as_str()),
        ("10.0.0.12", "reachable")
    );
    assert_eq!(stats.neighbors[0].mac, "02:00:00:00:00:12");
    assert_eq!(stats.drops.len(), pointsman_dataplane::verdict::DropReason::COUNT);
}

#[tokio::test]
async fn workers_tell_their_idle_mode_time_batches_queues_and_warnings() {
    let mut served = serve_it("workers", WEB, 2).await;
    let mut client = StatsClient::new(served.channel.clone());
    // The ARP request for the server is an order to worker 0.
    served.director.sent().await;
    served.director.wires[0].push(&syn(5_000));
    let mut workers = Vec::new();
    for _ in 0..500 {
        workers = client.get(GetStatsRequest {}).await.unwrap().into_inner().workers;
        let taken = workers[0].batches.iter().sum::<u64>() > 0;
        let given = workers[0].handed_off == workers[1].handed_in;
        if taken && given && workers.iter().all(|worker| worker.sleeps > 0 && worker.woken > 0) {
            break;
        }
        served.director.control.workers().iter().for_each(crate::workers::Handle::wake);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(workers.len(), 2);
    for (number, worker) in workers.iter().enumerate() {
        assert_eq!((worker.core, worker.idle.as_str(), worker.batches.len()), (0, "sleep", 7));
        assert!(worker.empty_nanoseconds > 0 && worker.asleep_nanoseconds > 0, "{worker:?}");
        assert!(worker.sleeps > 0 && worker.woken > 0, "{worker:?}");
        let queues: Vec<_> =
            worker.queues.iter().map(|queue| (queue.port.as_str(), queue.queue as usize)).collect();
        assert_eq!(queues, [("eth0", number)]);
        let other = 1 - number;
        let shares =
            format!("worker {number} shares core 0 with worker {other}: give each its own in workers.cores");
        assert_eq!((worker.handoff_room, &worker.warnings[..]), (1_024, &[shares][..]));
    }
    assert_eq!((workers[0].batches[0], workers[0].queues[0].rx_packets), (1, 1));
    assert_eq!(workers[0].queues[0].rx_bytes, 54);
    assert!(workers[0].busy_nanoseconds > 0);
    assert_eq!(workers[0].handed_off, workers[1].handed_in);
}

#[tokio::test]
async fn a_refusal_has_a_code_a_sentence_and_details() {
    let served = serve_it("refusal", WEB, 1).await;
    let mut config = ConfigClient::new(served.channel.clone());
    let before = config.get(GetConfigRequest {}).await.unwrap().into_inner();
    let mut wrong = before.configuration.clone().unwrap();
    wrong.services[0].servers[0].address = "10.0.0.300".into();
    wrong.services[0].servers[0].port = 70_000;
    let request = ApplyRequest { configuration: Some(wrong), ..Default::default() };
    let status = config.apply(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "services[0].servers[0].address: expected an IPv4 or IPv6 address, found \"10.0.0.300\"; write it as 10.0.0.100 or fd00::100 (and 1 more)"
    );
    let refusal = v1::Refusal::decode(status.details()).unwrap();
    assert_eq!((refusal.code(), refusal.field.as_str()), (Code::Invalid, "services[0].servers[0].address"));
    assert_eq!(refusal.remedy, "write it as 10.0.0.100 or fd00::100");
    assert_eq!(config.get(GetConfigRequest {}).await.unwrap().into_inner(), before);
}

#[tokio::test]
async fn requests_without_their_parts_are_refused_and_name_the_part() {
    let served = serve_it("parts", "", 1).await;
    let mut lvs = LvsClient::new(served.channel.clone());
    let nothing = lvs.add_server(v1::AddServerRequest::default()).await.unwrap_err();
    assert_eq!(
        (nothing.code(), v1::Refusal::decode(nothing.details()).unwrap().field),
        (tonic::Code::InvalidArgument, "server".into())
    );
    let list = ListRequest { service: Some(v1::ServiceKey { key: None }), warnings: false };
    assert_eq!(lvs.list(list).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let mut connections = ConnectionsClient::new(served.channel.clone());
    let bad = ListConnectionsRequest { protocol: Some(99), ..Default::default() };
    assert_eq!(connections.list(bad).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let mut stats = StatsClient::new(served.channel.clone());
    let often = WatchStatsRequest { interval_milliseconds: 1 };
    assert_eq!(stats.watch(often).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn connections_of_a_mark_are_listed_by_it() {
    let text = "[[mark]]\nprotocol = \"tcp\"\ndestination = \"10.0.0.100\"\nport = 80\nmark = 10\n\
                [[service]]\nmark = 10\n[[service.server]]\naddress = \"10.0.0.12\"\n\
                [[service]]\nmark = 11\n[[service.server]]\naddress = \"10.0.0.12\"\n";
    let mut served = serve_it("mark", text, 1).await;
    served.director.sent().await;
    served.director.wires[0].push(&syn(5_000));
    served.director.wires[0].push(&arp_reply());
    served.director.forwarded().await;
    let mut found = Vec::new();
    for mark in [10, 11] {
        let key = v1::service_key::Key::Mark(v1::service_key::Mark { mark, ipv6: false });
        let service = Some(v1::ServiceKey { key: Some(key) });
        let request = ListConnectionsRequest { service, ..Default::default() };
        let mut client = ConnectionsClient::new(served.channel.clone());
        let mut stream = client.list(request).await.unwrap().into_inner();
        while let Some(part) = stream.message().await.unwrap() {
            let of = |connection: v1::Connection| {
                (mark, connection.virtual_address, connection.virtual_port, connection.server_address)
            };
            found.extend(part.connections.into_iter().map(of));
        }
    }
    assert_eq!(found, [(10, "10.0.0.100".to_owned(), 80, "10.0.0.12".to_owned())]);
}

#[tokio::test]
async fn watchers_see_each_change_and_pending_features_are_said() {
    let served = serve_it("watch", "", 2).await;
    let mut config = ConfigClient::new(served.channel.clone());
    let mut watch = config.watch(WatchConfigRequest {}).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().generation, 1);
    let mut lvs = LvsClient::new(served.channel.clone());
    let service = v1::Service { key: address(100), ..Default::default() };
    let answer =
        lvs.add_service(v1::AddServiceRequest { service: Some(service) }).await.unwrap().into_inner();
    assert_eq!((answer.generation, answer.warnings), (2, vec![]));
    // The address of the machine itself.
    let server = v1::Server {
        method: v1::ForwardingMethod::Nat.into(),
        address: "10.0.0.1".into(),
        port: 8080,
        ..Default::default()
    };
    let request = v1::AddServerRequest { service: address(100), server: Some(server) };
    let answer = lvs.add_server(request).await.unwrap().into_inner();
    let pending = "The server 10.0.0.1:8080 of tcp 10.0.0.100:80 gets its packets at port 80, not 8080: it is the director itself, whose packets stay as they are; let it listen on tcp 10.0.0.100:80.";
    assert_eq!((answer.generation, answer.warnings), (3, vec![pending.to_owned()]));
    let seen = watch.message().await.unwrap().unwrap();
    assert_eq!((seen.generation, seen.configuration.unwrap().services.len()), (2, 1));
    let list = lvs.list(ListRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.services[0].pending, [pending]);
    let listed = list.services[0].servers[0].server.as_ref().map(v1::Server::method);
    assert_eq!(listed, Some(v1::ForwardingMethod::Local), "though NAT was asked for");
}

fn address(last: u8) -> Option<v1::ServiceKey> {
    let address = format!("10.0.0.{last}");
    let key = v1::service_key::Address { protocol: v1::Protocol::Tcp.into(), address, port: 80 };
    Some(v1::ServiceKey { key: Some(v1::service_key::Key::Address(key)) })
}

fn add_service(last: u8) -> v1::verb::Verb {
    let service = v1::Service { key: address(last), scheduler: "rr".into(), ..Default::default() };
    v1::verb::Verb::AddService(v1::AddServiceRequest { service: Some(service) })
}

fn add_server(last: u8, server: &str) -> v1::verb::Verb {
    let server = Some(v1::Server { address: server.into(), ..Default::default() });
    v1::verb::Verb::AddServer(v1::AddServerRequest { service: address(last), server })
}

fn batch(verbs: Vec<v1::verb::Verb>) -> v1::BatchRequest {
    v1::BatchRequest { verbs: verbs.into_iter().map(|verb| v1::Verb { verb: Some(verb) }).collect() }
}

#[tokio::test]
async fn a_batch_is_one_generation_with_an_answer_for_each_verb_in_order() {
    let served = serve_it("batch", "", 2).await;
    let mut lvs = LvsClient::new(served.channel.clone());
    let mut request = batch(vec![
        add_service(1),
        add_service(1),
        add_server(1, "10.0.0.12"),
        add_server(2, "10.0.0.12"),
        add_service(2),
        add_server(2, "10.0.0.12"),
        v1::verb::Verb::DeleteService(v1::DeleteServiceRequest { service: address(1) }),
    ]);
    request.verbs.push(v1::Verb::default());
    let answer = lvs.batch(request).await.unwrap().into_inner();
    let codes: Vec<Option<Code>> =
        answer.results.iter().map(|result| result.refusal.as_ref().map(v1::Refusal::code)).collect();
    assert_eq!(
        codes,
        [
            None,
            Some(Code::ServiceExists),
            None,
            Some(Code::ServiceNotDefined),
            None,
            None,
            None,
            Some(Code::Invalid)
        ]
    );
    assert_eq!(answer.generation, 2);
    for worker in served.director.control.workers() {
        assert_eq!(worker.shared.stats.generation.get(), 2);
    }
    let listed = lvs.list(ListRequest::default()).await.unwrap().into_inner();
    assert_eq!((listed.generation, listed.services.len()), (2, 1));
    assert_eq!(listed.services[0].service.as_ref().unwrap().key, address(2));
    // All of it refused: nothing has changed.
    let answer = lvs.batch(batch(vec![add_service(2)])).await.unwrap().into_inner();
    assert_eq!((answer.generation, answer.results.len()), (2, 1));
}

#[tokio::test]
async fn a_service_that_a_batch_deletes_and_adds_again_counts_from_0() {
    let mut served = serve_it("reborn", WEB, 1).await;
    served.director.sent().await;
    served.director.wires[0].push(&syn(5_000));
    served.director.wires[0].push(&arp_reply());
    served.director.forwarded().await;
    let mut lvs = LvsClient::new(served.channel.clone());
    let flush = v1::verb::Verb::Flush(v1::FlushRequest {});
    let request = batch(vec![flush, add_service(100), add_server(100, "10.0.0.12")]);
    assert_eq!(lvs.batch(request).await.unwrap().into_inner().generation, 2);
    let status = lvs.list(ListRequest::default()).await.unwrap().into_inner().services.remove(0);
    assert_eq!((status.counters.unwrap().connections, status.servers[0].active_connections), (0, 0));
}

#[tokio::test]
async fn a_batch_of_too_many_verbs_is_refused_as_a_whole() {
    let served = serve_it("many", "", 1).await;
    let request = batch((0..4_097).map(|_| add_service(1)).collect());
    let refused = LvsClient::new(served.channel.clone()).batch(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert_eq!(served.director.control.watch().borrow().generation, 1);
}

#[tokio::test]
async fn ports_tell_what_their_devices_are_and_count() {
    let served = serve_it("ports", WEB, 2).await;
    let mut client = StatsClient::new(served.channel.clone());
    let plain = client.ports(PortsRequest { driver_counters: false }).await.unwrap().into_inner();
    let [status] = &plain.ports[..] else { panic!("{plain:?}") };
    let port = status.port.clone().unwrap();
    assert_eq!((port.name.as_str(), port.up, port.mtu), ("eth0", true, 1_500));
    assert_eq!((status.queues, status.spread.as_str(), status.link_losses), (2, "owner", 0));
    assert!(status.driver_counters.is_empty() && status.warnings.is_empty(), "{status:?}");
    let all = client.ports(PortsRequest { driver_counters: true }).await.unwrap().into_inner();
    let counters = &all.ports[0].driver_counters;
    assert!(counters.iter().any(|counter| counter.name == "rx_bytes"), "{counters:?}");
}
