//! The gRPC interface of a running director, spoken by a client of its own.

use pointsman_proto::v1::{
    self as api, ApplyRequest, Configuration, GetConfigRequest, config_client::ConfigClient,
    connections_client::ConnectionsClient, lvs_client::LvsClient, service_key, stats_client::StatsClient,
};
use pointsman_tests::{Director, Lab, VIP};
use prost::Message;
use std::collections::HashMap;
use tonic::{Code, Status, transport::Channel};

mod support;
use support::connect;

fn key(port: u32) -> api::ServiceKey {
    let address = service_key::Address { protocol: api::Protocol::Tcp as i32, address: VIP.to_owned(), port };
    api::ServiceKey { key: Some(service_key::Key::Address(address)) }
}

fn service(port: u32, scheduler: &str) -> api::Service {
    api::Service { key: Some(key(port)), scheduler: scheduler.to_owned(), ..Default::default() }
}

fn server(address: &str, port: u32) -> api::Server {
    api::Server { address: address.to_owned(), port, weight: Some(1), ..Default::default() }
}

fn with_server(port: u32, address: &str) -> api::ServiceConfiguration {
    api::ServiceConfiguration { service: Some(service(port, "rr")), servers: vec![server(address, port)] }
}

/// The refusal that an error carries: behind the `google.rpc.Status` of its details, or as the details themselves.
fn refusal(status: &Status) -> api::Refusal {
    api::Refusal::decode(status.details()).expect("the details of the error are a Refusal")
}

async fn generation_in_force(config: &mut ConfigClient<Channel>) -> (u64, Configuration) {
    let answer = config.get(GetConfigRequest {}).await.expect("Config.Get answers").into_inner();
    (answer.generation, answer.configuration.expect("there is a configuration"))
}

#[tokio::test]
async fn apply_puts_a_configuration_in_force_and_a_dry_run_does_not() {
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    let mut config = ConfigClient::new(connect(&director).await);
    let (before, mut wanted) = generation_in_force(&mut config).await;
    wanted.services = vec![with_server(80, "192.168.10.12")];

    let dry = ApplyRequest { configuration: Some(wanted.clone()), dry_run: true, expected_generation: None };
    let answer = config.apply(dry).await.expect("a dry run answers").into_inner();
    assert_eq!(answer.generation, before);
    assert!(!answer.changes.is_empty(), "a dry run says what would change");
    assert_eq!(generation_in_force(&mut config).await.1.services, []);

    let apply = ApplyRequest {
        configuration: Some(wanted.clone()),
        dry_run: false,
        expected_generation: Some(before),
    };
    let answer = config.apply(apply).await.expect("Apply answers").into_inner();
    assert!(answer.generation > before, "{} > {before}", answer.generation);
    let (now, in_force) = generation_in_force(&mut config).await;
    assert_eq!(now, answer.generation);
    assert_eq!(in_force.services.len(), 1);
    assert_eq!(in_force.services[0].servers[0].address, "192.168.10.12");
    assert!(director.ipvsadm("-Ln").stdout.contains("TCP  192.168.10.100:80 rr\n"));
}

#[tokio::test]
async fn apply_is_refused_when_the_configuration_moved_on() {
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    let mut config = ConfigClient::new(connect(&director).await);
    let (seen, mut wanted) = generation_in_force(&mut config).await;
    director.ipvsadm_all(&["-A -t 192.168.10.100:81 -s rr"]);

    wanted.services = vec![with_server(80, "192.168.10.12")];
    let apply = ApplyRequest { configuration: Some(wanted), dry_run: false, expected_generation: Some(seen) };
    let error = config.apply(apply).await.expect_err("the generation seen is not in force any more");
    assert_eq!(refusal(&error).code(), api::refusal::Code::Generation, "{error}");
    let (_, in_force) = generation_in_force(&mut config).await;
    assert_eq!(in_force.services.len(), 1);
    assert_eq!(in_force.services[0].service, Some(service(81, "rr")));
}

#[tokio::test]
async fn watch_tells_the_present_configuration_and_each_change() {
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    let mut config = ConfigClient::new(connect(&director).await);
    let mut changes = config.watch(api::WatchConfigRequest {}).await.expect("Watch answers").into_inner();
    let first = changes.message().await.expect("the stream goes on").expect("the present configuration");
    assert_eq!(first.configuration.expect("a configuration").services, []);
    director.ipvsadm_all(&["-A -t 192.168.10.100:80 -s wrr"]);
    let second = changes.message().await.expect("the stream goes on").expect("the change");
    assert!(second.generation > first.generation);
    let services = second.configuration.expect("a configuration").services;
    assert_eq!(services.len(), 1);
    assert_eq!(services[0].service, Some(service(80, "wrr")));
}

#[tokio::test]
async fn the_verbs_of_ipvsadm_are_refused_with_a_code_and_a_remedy() {
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    let mut lvs = LvsClient::new(connect(&director).await);
    let add = api::AddServiceRequest { service: Some(service(80, "rr")) };
    lvs.add_service(add.clone()).await.expect("the service is added");

    let exists = lvs.add_service(add).await.expect_err("it is there already");
    let unknown = api::AddServiceRequest { service: Some(service(82, "nosuch")) };
    let unknown = lvs.add_service(unknown).await.expect_err("there is no such scheduler");
    let missing = api::DeleteServiceRequest { service: Some(key(83)) };
    let missing = lvs.delete_service(missing).await.expect_err("there is no such service");
    let stray = api::AddServerRequest { service: Some(key(83)), server: Some(server("192.168.10.12", 83)) };
    let stray = lvs.add_server(stray).await.expect_err("the service is not defined");
    let codes = [&exists, &unknown, &missing, &stray].map(|error| refusal(error).code());
    use api::refusal::Code::{NoSuchService, SchedulerNotFound, ServiceExists, ServiceNotDefined};
    assert_eq!(codes, [ServiceExists, SchedulerNotFound, NoSuchService, ServiceNotDefined]);
    for error in [exists, unknown, missing, stray] {
        let refusal = refusal(&error);
        assert!(!refusal.reason.is_empty() && !refusal.remedy.is_empty(), "{refusal:?}");
    }
}

#[tokio::test]
async fn nonsense_is_refused_with_the_field_and_changes_nothing() {
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    let channel = connect(&director).await;
    let mut config = ConfigClient::new(channel.clone());
    let mut lvs = LvsClient::new(channel.clone());
    let before = generation_in_force(&mut config).await;

    let mut wanted = before.1.clone();
    wanted.services = vec![with_server(80, "192.168.10.12"), with_server(81, "not an address")];
    let apply = ApplyRequest { configuration: Some(wanted), dry_run: false, expected_generation: None };
    let error = config.apply(apply).await.expect_err("an address that is none");
    assert_eq!(
        (error.code(), refusal(&error).field.as_str()),
        (Code::InvalidArgument, "services[1].servers[0].address")
    );

    let nothing = ApplyRequest { configuration: None, dry_run: false, expected_generation: None };
    let error = config.apply(nothing).await.expect_err("no configuration at all");
    assert_eq!(error.code(), Code::InvalidArgument);
    let error =
        lvs.add_service(api::AddServiceRequest { service: None }).await.expect_err("no service at all");
    assert_eq!(error.code(), Code::InvalidArgument);
    let mut port = service(70_000, "rr");
    let error = lvs.add_service(api::AddServiceRequest { service: Some(port.clone()) }).await;
    assert_eq!(error.expect_err("a port above 65535").code(), Code::InvalidArgument);
    port.key = Some(api::ServiceKey { key: None });
    let error = lvs.add_service(api::AddServiceRequest { service: Some(port) }).await;
    assert_eq!(error.expect_err("a key that is none").code(), Code::InvalidArgument);

    assert_eq!(generation_in_force(&mut config).await, before);
}

#[tokio::test]
async fn bytes_that_are_no_message_get_an_error_and_the_director_goes_on() {
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    let socket = director.socket();
    // Not HTTP/2 at all, then an HTTP/2 preface with rubbish behind it.
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let stream = tokio::net::UnixStream::connect(&socket).await.expect("the socket takes a connection");
        stream.writable().await.expect("the socket takes bytes");
        stream.try_write(bytes).expect("the socket takes bytes");
    }
    let mut config = ConfigClient::new(connect(&director).await);
    assert_eq!(generation_in_force(&mut config).await.1.services, []);
}

#[tokio::test]
async fn connections_are_listed_as_a_stream_with_a_filter() {
    let lab = Lab::segment();
    let _servers = [lab.web_server("web1", "web_1"), lab.web_server("web2", "web_2")];
    let director = Director::start(&lab, "director", "--port eth0");
    director.add_web_service("rr");
    lab.requests("client", "http://192.168.10.100/", 6);
    let mut connections = ConnectionsClient::new(connect(&director).await);
    let mut count = HashMap::new();
    for filter in [None, Some("192.168.10.12")] {
        let request = api::ListConnectionsRequest { server: filter.map(str::to_owned), ..Default::default() };
        let mut list = connections.list(request).await.expect("List answers").into_inner();
        while let Some(part) = list.message().await.expect("the stream goes on") {
            for connection in part.connections {
                assert_eq!(
                    (connection.client_address.as_str(), connection.virtual_port),
                    ("192.168.10.50", 80)
                );
                *count.entry((filter, connection.server_address)).or_insert(0) += 1;
            }
        }
    }
    let expected = [
        ((None, "192.168.10.12"), 3),
        ((None, "192.168.10.13"), 3),
        ((Some("192.168.10.12"), "192.168.10.12"), 3),
    ];
    assert_eq!(count, expected.map(|((filter, server), n)| ((filter, server.to_owned()), n)).into());
}

#[tokio::test]
async fn health_and_reflection_are_served() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    use tonic_reflection::pb::v1 as reflection;
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    let channel = connect(&director).await;
    let check = HealthCheckRequest { service: String::new() };
    let health =
        HealthClient::new(channel.clone()).check(check).await.expect("health is served").into_inner();
    assert_eq!(health.status(), ServingStatus::Serving);

    let request = reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(reflection::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client = reflection::server_reflection_client::ServerReflectionClient::new(channel);
    let answer =
        client.server_reflection_info(tokio_stream::once(request)).await.expect("reflection is served");
    let answer = answer.into_inner().message().await.expect("the stream goes on").expect("an answer");
    let Some(reflection::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.message_response
    else {
        panic!("not a list of services: {answer:?}")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["Config", "Connections", "Lvs", "Stats"] {
        assert!(names.contains(&format!("pointsman.v1.{name}")), "{name} in {names:?}");
    }
}

#[tokio::test]
async fn stats_name_every_drop_reason_and_watch_repeats_them() {
    let lab = Lab::segment();
    let director = Director::start(&lab, "director", "--port eth0");
    let mut stats = StatsClient::new(connect(&director).await);
    let now = stats.get(api::GetStatsRequest {}).await.expect("Stats.Get answers").into_inner();
    let names: Vec<&str> = now.drops.iter().map(|drop| drop.reason.as_str()).collect();
    let expected: Vec<&str> =
        pointsman_dataplane::verdict::DropReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names, expected);
    assert_eq!(now.ports.len(), 1);
    assert_eq!((now.ports[0].name.as_str(), now.ports[0].mac.clone()), ("eth0", lab.mac("director", "eth0")));
    let mut watch = stats
        .watch(api::WatchStatsRequest { interval_milliseconds: 100 })
        .await
        .expect("Watch answers")
        .into_inner();
    let mut last = 0;
    for _ in 0..3 {
        let next = watch.message().await.expect("the stream goes on").expect("a report");
        assert!(next.uptime_milliseconds > last, "{} > {last}", next.uptime_milliseconds);
        last = next.uptime_milliseconds;
    }
}
