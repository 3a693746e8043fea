//! The programs against a director that is real to them: gRPC over a unix socket, with answers of a small table.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use pointsman_proto::v1::lvs_server::{Lvs, LvsServer};
use pointsman_proto::v1::refusal::Code;
use pointsman_proto::v1::*;
use prost::Message as _;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::ipvsadm::{self, Program, Streams};
use super::{Arguments, CliError, Output, execute};
use crate::compat::ipvsadm::NoNames;
use clap::Parser as _;

/// Holds services by key, and what was asked of it.
#[derive(Default)]
struct Table {
    services: Vec<ServiceStatus>,
    asked: Vec<String>,
    /// How many verbs came in each batch.
    batches: Vec<usize>,
}

#[derive(Clone, Default)]
struct Small(Arc<Mutex<Table>>);

fn refused(code: Code) -> Status {
    let refusal = Refusal { code: code.into(), reason: "as told".into(), ..Refusal::default() };
    Status::with_details(tonic::Code::FailedPrecondition, "refused", refusal.encode_to_vec().into())
}

type Answer<T> = Result<Response<T>, Status>;

impl Small {
    fn ask(&self, what: &str) -> Answer<ChangeResponse> {
        self.0.lock().unwrap().asked.push(what.to_owned());
        Ok(Response::new(ChangeResponse { generation: 9, warnings: vec!["look at it".into()] }))
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.clone()
    }

    fn with<T>(
        &self,
        key: Option<ServiceKey>,
        missing: Code,
        then: impl FnOnce(&mut ServiceStatus) -> T,
    ) -> Result<T, Status> {
        let mut table = self.0.lock().unwrap();
        let of = |status: &&mut ServiceStatus| status.service.as_ref().and_then(|s| s.key.clone()) == key;
        table.services.iter_mut().find(of).map(then).ok_or_else(|| refused(missing))
    }
}

#[tonic::async_trait]
impl Lvs for Small {
    async fn add_service(&self, request: Request<AddServiceRequest>) -> Answer<ChangeResponse> {
        let service = request.into_inner().service;
        let key = service.as_ref().and_then(|service| service.key.clone());
        if self.with(key, Code::NoSuchService, |_| ()).is_ok() {
            return Err(refused(Code::ServiceExists));
        }
        self.0.lock().unwrap().services.push(ServiceStatus { service, ..ServiceStatus::default() });
        self.ask("add service")
    }
    async fn edit_service(&self, request: Request<EditServiceRequest>) -> Answer<ChangeResponse> {
        let service = request.into_inner().service;
        let key = service.as_ref().and_then(|service| service.key.clone());
        self.with(key, Code::NoSuchService, |status| status.service = service)?;
        self.ask("edit service")
    }
    async fn delete_service(&self, request: Request<DeleteServiceRequest>) -> Answer<ChangeResponse> {
        self.with(request.into_inner().service, Code::NoSuchService, |_| ())?;
        self.ask("delete service")
    }
    async fn flush(&self, _: Request<FlushRequest>) -> Answer<ChangeResponse> {
        self.0.lock().unwrap().services.clear();
        self.ask("flush")
    }
    async fn add_server(&self, request: Request<AddServerRequest>) -> Answer<ChangeResponse> {
        let AddServerRequest { service, server } = request.into_inner();
        let status = ServerStatus { server, ..ServerStatus::default() };
        self.with(service, Code::ServiceNotDefined, |of| of.servers.push(status))?;
        self.ask("add server")
    }
    async fn edit_server(&self, request: Request<EditServerRequest>) -> Answer<ChangeResponse> {
        let EditServerRequest { service, server } = request.into_inner();
        self.with(service, Code::ServiceNotDefined, |of| of.servers[0].server = server)?;
        self.ask("edit server")
    }
    async fn delete_server(&self, request: Request<DeleteServerRequest>) -> Answer<ChangeResponse> {
        self.with(request.into_inner().service, Code::ServiceNotDefined, |_| ())?;
        Err(refused(Code::NoSuchDestination))
    }
    async fn list(&self, request: Request<ListRequest>) -> Answer<ListResponse> {
        let services = match request.into_inner().service {
            None => self.0.lock().unwrap().services.clone(),
            key => vec![self.with(key, Code::NoSuchService, |status| status.clone())?],
        };
        Ok(Response::new(ListResponse { generation: 8, services, ..ListResponse::default() }))
    }
    async fn zero(&self, request: Request<ZeroRequest>) -> Answer<ZeroResponse> {
        self.ask(&format!("zero {}", super::key::Key::said(request.into_inner().service.as_ref())))?;
        Ok(Response::new(ZeroResponse {}))
    }
    async fn set_timeouts(&self, request: Request<SetTimeoutsRequest>) -> Answer<ChangeResponse> {
        let timeouts = request.into_inner().timeouts.unwrap_or_default();
        self.ask(&format!(
            "timeouts {} {} {}",
            timeouts.tcp_seconds, timeouts.tcp_fin_seconds, timeouts.udp_seconds
        ))
    }
    async fn get_timeouts(&self, _: Request<GetTimeoutsRequest>) -> Answer<Timeouts> {
        Ok(Response::new(Timeouts { tcp_seconds: 900, tcp_fin_seconds: 120, udp_seconds: 300 }))
    }
    async fn batch(&self, request: Request<BatchRequest>) -> Answer<BatchResponse> {
        use verb::Verb as Kind;
        let mut results = Vec::new();
        for verb in request.into_inner().verbs {
            let done = match verb.verb.unwrap() {
                Kind::AddService(request) => self.add_service(Request::new(request)).await,
                Kind::EditService(request) => self.edit_service(Request::new(request)).await,
                Kind::DeleteService(request) => self.delete_service(Request::new(request)).await,
                Kind::Flush(request) => self.flush(Request::new(request)).await,
                Kind::AddServer(request) => self.add_server(Request::new(request)).await,
                Kind::EditServer(request) => self.edit_server(Request::new(request)).await,
                Kind::DeleteServer(request) => self.delete_server(Request::new(request)).await,
                Kind::SetTimeouts(request) => self.set_timeouts(Request::new(request)).await,
                Kind::AddVirtualAddress(request) => self.add_virtual_address(Request::new(request)).await,
                Kind::DeleteVirtualAddress(request) => {
                    self.delete_virtual_address(Request::new(request)).await
                }
                // `ipvsadm -R` has no words for them.
                other => panic!("{other:?}"),
            };
            let refusal = done.err().map(|status| Refusal::decode(status.details()).unwrap());
            results.push(VerbResult { refusal });
        }
        self.0.lock().unwrap().batches.push(results.len());
        Ok(Response::new(BatchResponse { generation: 9, results, warnings: vec![] }))
    }
    async fn add_virtual_address(
        &self,
        request: Request<AddVirtualAddressRequest>,
    ) -> Answer<ChangeResponse> {
        self.ask(&format!("up {}", request.into_inner().address))
    }
    async fn add_mark(&self, request: Request<AddMarkRequest>) -> Answer<ChangeResponse> {
        self.ask(&format!("mark {}", request.into_inner().rule.unwrap().mark))
    }
    async fn delete_mark(&self, _: Request<DeleteMarkRequest>) -> Answer<ChangeResponse> {
        Err(refused(Code::NoSuchRule))
    }
    async fn list_marks(&self, _: Request<ListMarksRequest>) -> Answer<ListMarksResponse> {
        let rules = vec![MarkRule { mark: 7, ..MarkRule::default() }];
        Ok(Response::new(ListMarksResponse { generation: 8, rules }))
    }
    async fn add_source_nat(&self, request: Request<AddSourceNatRequest>) -> Answer<ChangeResponse> {
        let rule = request.into_inner().rule.unwrap();
        self.ask(&format!("nat {} {} {}", rule.source, rule.interface, rule.to))
    }
    async fn delete_source_nat(&self, _: Request<DeleteSourceNatRequest>) -> Answer<ChangeResponse> {
        Err(refused(Code::NoSuchRule))
    }
    async fn list_source_nat(&self, _: Request<ListSourceNatRequest>) -> Answer<ListSourceNatResponse> {
        Ok(Response::new(ListSourceNatResponse { generation: 8, rules: vec![] }))
    }
    async fn set_policies(&self, request: Request<SetPoliciesRequest>) -> Answer<ChangeResponse> {
        let SetPoliciesRequest { policies, forward } = request.into_inner();
        self.ask(&format!("policies {policies:?} {forward}"))
    }
    async fn get_policies(&self, _: Request<GetPoliciesRequest>) -> Answer<GetPoliciesResponse> {
        let forward = if self.asked().is_empty() { "servers" } else { "all" };
        Ok(Response::new(GetPoliciesResponse { generation: 8, policies: vec![], forward: forward.into() }))
    }
    async fn delete_virtual_address(
        &self,
        _: Request<DeleteVirtualAddressRequest>,
    ) -> Answer<ChangeResponse> {
        Err(refused(Code::NoSuchAddress))
    }
}

/// A served table, and its socket, which is removed at the end.
struct Served {
    table: Small,
    socket: PathBuf,
}

impl Served {
    async fn start() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("pointsman-cli-{}-{number}.sock", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        let table = Small::default();
        let listener = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let server = tonic::transport::Server::builder().add_service(LvsServer::new(table.clone()));
        tokio::spawn(server.serve_with_incoming(listener));
        Self { table, socket }
    }

    /// Status, stdout and stderr of a command line.
    async fn ipvsadm(&self, program: Program, line: &str, mut input: &[u8]) -> (u8, String, String) {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let streams = Streams { input: &mut input, out: &mut out, err: &mut err };
        let status = ipvsadm::run(program, &args, &self.socket, &NoNames, streams).await;
        (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    async fn line(&self, line: &str) -> (u8, String, String) {
        self.ipvsadm(Program::Ipvsadm, line, b"").await
    }

    async fn pointsman(&self, line: &str) -> Result<(String, String), CliError> {
        let parsed =
            Arguments::try_parse_from(std::iter::once("pointsman").chain(line.split_whitespace())).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut output = Output { out: &mut out, err: &mut err, json: parsed.json };
        execute(parsed.command, &self.socket, &mut output).await?;
        Ok((String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap()))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn says(status: u8, out: &str, err: &str) -> (u8, String, String) {
    (status, out.to_owned(), err.to_owned())
}

#[tokio::test]
async fn ipvsadm_answers_with_the_words_and_the_status_of_the_original() {
    let served = Served::start().await;
    let table = [
        ("-A -t 10.0.0.1:80 -s rr", 0, ""),
        ("-A -t 10.0.0.1:80 -s rr", 255, "Service already exists\n"),
        ("-a -t 10.0.0.1:80 -r 10.0.1.2", 0, ""),
        ("-a -t 10.0.0.9:80 -r 10.0.1.2", 255, "Service not defined\n"),
        ("-e -t 10.0.0.1:80 -r 10.0.1.2 -w 3", 0, ""),
        ("-d -t 10.0.0.1:80 -r 10.0.1.3", 255, "No such destination\n"),
        ("-D -t 10.0.0.9:80", 255, "No such service\n"),
        ("-L -t 10.0.0.9:80", 1, "No such service\n"),
        ("-Z", 0, ""),
        ("--set 1 2 3", 0, ""),
        ("-A -t 10.0.0.1", 2, "Zero port specified for non-persistent service\n"),
        ("--stop-daemon master", 255, "No daemon is running\n"),
        ("-C", 0, ""),
    ];
    for (line, status, err) in table {
        assert_eq!(served.line(line).await, says(status, "", err), "{line}");
    }
    let asked = ["add service", "add server", "edit server", "zero ?", "timeouts 1 2 3", "flush"];
    assert_eq!(served.table.asked(), asked);
}

#[tokio::test]
async fn ipvsadm_lists_and_saves() {
    let served = Served::start().await;
    served.line("-A -t 10.0.0.1:80 -s rr").await;
    served.line("-a -t 10.0.0.1:80 -r 10.0.1.2 -g -x 9").await;
    let listed = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
                  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\nTCP  10.0.0.1:80 rr\n  \
                  -> 10.0.1.2:80                  Route   1      0          0         \n";
    assert_eq!(served.line("-Ln").await, says(0, listed, ""));
    assert_eq!(served.line("").await, says(0, listed, ""));
    let rules = "-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.0.1.2:80 -g -w 1\n";
    assert_eq!(served.line("-Sn").await, says(0, rules, ""));
    assert_eq!(served.ipvsadm(Program::Save, "-n", b"").await, says(0, rules, ""));
    assert_eq!(served.line("-L --timeout").await, says(0, "Timeout (tcp tcpfin udp): 900 120 300\n", ""));
    assert_eq!(served.line("-L --daemon").await, says(0, "", ""));
    let (kept, _) = served.pointsman("save").await.unwrap();
    assert_eq!(kept, "-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.0.1.2:80 -g -w 1 -x 9\n");
}

#[tokio::test]
async fn a_restore_goes_on_after_a_refusal_and_ends_at_a_mistake() {
    let served = Served::start().await;
    let restore = |text: &'static str| served.ipvsadm(Program::Ipvsadm, "-R", text.as_bytes());
    // The status is that of the last line.
    let (status, _, err) = restore("-D -t 10.0.0.9:80\n\nipvsadm -A -t 10.0.0.1:80\n").await;
    assert_eq!((status, err.as_str()), (0, "No such service\n"));
    let (status, _, err) = restore("-C\n-D -t 10.0.0.9:80").await;
    assert_eq!((status, err.as_str()), (255, "No such service\n"));
    let (status, _, err) = restore("-A -t nonsense\n-A -t 10.0.0.2:80\n").await;
    assert_eq!((status, err.as_str()), (2, "illegal virtual server address[:port] specified\n"));
    let (status, _, err) = restore("-R\n").await;
    assert_eq!((status, err.as_str()), (255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n"));
    assert_eq!(served.table.asked(), ["add service", "flush"]);
}

#[tokio::test]
async fn a_restore_sends_a_thousand_changes_at_a_time_and_all_that_came_before_another_command_first() {
    let served = Served::start().await;
    let mut rules: Vec<String> =
        (0..1_100).map(|n| format!("-A -t 10.0.{}.{}:80", n / 250, n % 250 + 1)).collect();
    rules[1_050] = "-D -t 10.9.9.9:80".into();
    rules.push("-L --timeout".into());
    rules.push("-A -t 10.0.0.1:80".into());
    rules.push("-Z".into());
    let answer = served.ipvsadm(Program::Ipvsadm, "-R", rules.join("\n").as_bytes()).await;
    let timeouts = "Timeout (tcp tcpfin udp): 900 120 300\n";
    assert_eq!(answer, says(0, timeouts, "No such service\nService already exists\n"));
    assert_eq!(served.table.0.lock().unwrap().batches, [1_000, 100, 1]);
}

#[tokio::test]
async fn the_lines_before_a_mistake_are_in_force() {
    let served = Served::start().await;
    let rules = b"-A -t 10.0.0.1:80\n-D -t 10.0.0.9:80\n-A -t nonsense\n-A -t 10.0.0.2:80\n";
    let expected = "No such service\nillegal virtual server address[:port] specified\n";
    assert_eq!(served.ipvsadm(Program::Ipvsadm, "-R", rules).await, says(2, "", expected));
    assert_eq!(served.table.asked(), ["add service"]);
}

#[tokio::test]
async fn ipvsadm_restore_clears_first_and_skips_comments() {
    let served = Served::start().await;
    let rules = b"# saved\n-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.0.1.2:80 -g -w 1\n";
    assert_eq!(served.ipvsadm(Program::Restore, "", rules).await, says(0, "", ""));
    assert_eq!(served.table.asked(), ["flush", "add service", "add server"]);
}

#[tokio::test]
async fn without_a_director_ipvsadm_names_the_socket_and_ends_with_2() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let streams = Streams { input: &mut &b""[..], out: &mut out, err: &mut err };
    let socket = PathBuf::from("/nonexistent/p.sock");
    let status = ipvsadm::run(Program::Ipvsadm, &["-Ln".to_owned()], &socket, &NoNames, streams).await;
    let err = String::from_utf8(err).unwrap();
    assert_eq!((status, out.len()), (2, 0));
    assert!(err.starts_with("Can't initialize ipvs: no director answers at /nonexistent/p.sock: "), "{err}");
    assert!(err.contains("\nstart it with `pointsmand "), "{err}");
}

#[tokio::test]
async fn pointsman_says_what_it_changed_and_the_generation() {
    let served = Served::start().await;
    let table = [
        (
            "service add tcp:10.0.0.1:80 --scheduler rr",
            "+ service tcp 10.0.0.1:80 rr\nin force as generation 9\n",
        ),
        (
            "service edit tcp:10.0.0.1:80 --persistence 60",
            "~ service tcp 10.0.0.1:80: persistence none -> 60 s\nin force as generation 9\n",
        ),
        (
            "server add tcp:10.0.0.1:80 10.0.1.2 --weight 2",
            "+ server 10.0.1.2:80 of tcp 10.0.0.1:80: direct weight 2\nin force as generation 9\n",
        ),
        (
            "server edit tcp:10.0.0.1:80 10.0.1.2 --weight 0",
            "~ server 10.0.1.2:80 of tcp 10.0.0.1:80: weight 2 -> 0\nin force as generation 9\n",
        ),
        ("vip add fd00::1", "+ virtual address fd00::1\nin force as generation 9\n"),
        ("service delete tcp:10.0.0.1:80", "- service tcp 10.0.0.1:80\nin force as generation 9\n"),
    ];
    for (line, expected) in table {
        let (out, err) = served.pointsman(line).await.unwrap();
        assert_eq!((out.as_str(), err.as_str()), (expected, "warning: look at it\n"), "{line}");
    }
    let (out, _) = served.pointsman("server edit tcp:10.0.0.1:80 10.0.1.2 --weight 0").await.unwrap();
    assert_eq!(out, "nothing to change; in force is generation 8\n");
    let (out, _) = served.pointsman("show --json").await.unwrap();
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["services"][0]["servers"][0]["weight"], 0);
}

#[tokio::test]
async fn pointsman_tells_refusals_with_what_to_do() {
    let served = Served::start().await;
    let table = [
        ("vip delete 10.0.0.1", "as told\n  nothing was changed; correct this and try again"),
        ("service edit tcp:10.0.0.1:80", "as told\n  nothing was changed; correct this and try again"),
    ];
    for (line, expected) in table {
        assert_eq!(served.pointsman(line).await.unwrap_err().to_string(), expected, "{line}");
    }
    let error = served.pointsman("stats").await.unwrap_err().to_string();
    assert!(
        error.contains("\n  pointsmand and pointsman differ; install both of the same version"),
        "{error}"
    );
}

/// A reader that has gone away.
struct Gone;

impl std::io::Write for Gone {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_that_has_gone_away_ends_the_programs_quietly() {
    let served = Served::start().await;
    let mut err = Vec::new();
    let streams = Streams { input: &mut &b""[..], out: &mut Gone, err: &mut err };
    let status = ipvsadm::run(Program::Ipvsadm, &["-Ln".to_owned()], &served.socket, &NoNames, streams).await;
    assert_eq!((status, err.len()), (super::EXIT_PIPE_CLOSED, 0));
    let mut output = Output { out: &mut Gone, err: &mut err, json: false };
    let show = Arguments::try_parse_from(["pointsman", "show"]).unwrap().command;
    let done = execute(show, &served.socket, &mut output).await;
    assert!(matches!(done, Err(CliError::PipeClosed)));
}

#[tokio::test]
async fn rules_and_policies_are_asked_for_as_they_are_typed() {
    let served = Served::start().await;
    let (out, _) = served.pointsman("policy set forward all").await.unwrap();
    assert_eq!(out, "~ policy forward: servers -> all\nin force as generation 9\n");
    let mark = "--protocol tcp --destination 10.0.0.100 --port 80-90 --mark 10";
    let (out, err) = served.pointsman(&format!("mark add {mark}")).await.unwrap();
    assert_eq!(out, "+ mark 10: tcp to 10.0.0.100 port 80-90\nin force as generation 9\n");
    assert_eq!(err, "warning: look at it\n");
    assert!(served.pointsman(&format!("mark delete {mark}")).await.is_err());
    let (out, _) = served.pointsman("mark list --json").await.unwrap();
    assert_eq!(out, "[\n  {\n    \"mark\": 7\n  }\n]\n");
    let nat = "--source 10.10.10.0/24 --interface eth0 --to 20.20.20.11";
    served.pointsman(&format!("source-nat add {nat}")).await.unwrap();
    assert!(served.pointsman(&format!("source-nat delete {nat}")).await.is_err());
    let (out, _) = served.pointsman("source-nat list").await.unwrap();
    assert!(out.starts_with("no rules;"), "{out}");
    assert_eq!(served.table.asked(), ["policies {} all", "mark 10", "nat 10.10.10.0/24 eth0 20.20.20.11"]);
}
