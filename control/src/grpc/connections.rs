//! `pointsman.v1.Connections`

use super::{Answers, Context, refused};
use crate::{
    config::{
        model::{self, ServiceKey},
        validate,
    },
    refusal::Refusal,
    verbs,
    workers::Handle,
};
use crossbeam::channel::{RecvTimeoutError, bounded};
use pointsman_dataplane::{
    command::{Command, ConnectionRecord, ConnectionsAnswer, ConnectionsQuery},
    snapshot::Method,
};
use pointsman_proto::v1::{
    Connection, ForwardingMethod, ListConnectionsRequest, ListConnectionsResponse, Protocol,
    connections_server::Connections,
};
use std::{collections::HashSet, net::IpAddr, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Connections in one answer.
const CHUNK: usize = 1_024;
/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Service(pub(super) Context);

type Chunk = Result<ListConnectionsResponse, Status>;

#[tonic::async_trait]
impl Connections for Service {
    type ListStream = Answers<ListConnectionsResponse>;

    async fn list(
        &self,
        request: Request<ListConnectionsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let mut filter = Filter::new(&request.into_inner()).map_err(refused)?;
        if let Some(mark @ ServiceKey::Mark { .. }) = filter.service {
            filter.slots = self.0.control.slots_of(mark).await;
        }
        let workers = self.0.control.workers().to_vec();
        let (sender, receiver) = mpsc::channel(4);
        // Workers answer by a channel that is waited on: not on the runtime's threads.
        tokio::task::spawn_blocking(move || {
            if let Err(status) = walk(&workers, filter, &sender) {
                // Nobody may be listening.
                let _ = sender.blocking_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Asks one worker after the other for all its connections.
fn walk(workers: &[Handle], mut filter: Filter, sender: &mpsc::Sender<Chunk>) -> Result<(), Status> {
    for worker in workers {
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let answer = ask(worker, from)?;
            cursor = answer.next;
            let connections: Vec<Connection> = answer
                .records
                .iter()
                .filter(|record| filter.lets_pass(record))
                .map(|record| encode(record, answer.worker))
                .collect();
            if !connections.is_empty()
                && sender.blocking_send(Ok(ListConnectionsResponse { connections })).is_err()
            {
                return Ok(());
            }
            if filter.left == 0 {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn ask(worker: &Handle, cursor: u64) -> Result<ConnectionsAnswer, Status> {
    let late = || {
        Status::deadline_exceeded(format!(
            "worker {} on core {} does not answer: that core is starved; see what else runs there (`ps -eLo psr,pid,comm`)",
            worker.shared.index, worker.core
        ))
    };
    let (answer, answered) = bounded(1);
    let query = ConnectionsQuery { cursor, records: Vec::with_capacity(CHUNK), answer };
    worker.command(Command::ListConnections(query)).map_err(|_| late())?;
    answered.recv_timeout(PATIENCE).map_err(|error| match error {
        RecvTimeoutError::Timeout => late(),
        RecvTimeoutError::Disconnected => Status::unavailable("the director is shutting down"),
    })
}

/// Which connections are asked for.
struct Filter {
    protocol: Option<u8>,
    client: Option<IpAddr>,
    service: Option<ServiceKey>,
    /// Those of the servers of `service`, if that is of a mark: its connections do not show it otherwise.
    slots: HashSet<u32>,
    server: Option<IpAddr>,
    /// How many more may pass.
    left: u64,
}

impl Filter {
    fn new(asked: &ListConnectionsRequest) -> Result<Self, Refusal> {
        let address = |text: &Option<String>, field: &str| {
            let Some(text) = text else { return Ok(None) };
            let mut refusals = Vec::new();
            let address = validate::address(text, field, &mut refusals);
            refusals.pop().map_or(Ok(address), Err)
        };
        let protocol = match asked.protocol.map(Protocol::try_from) {
            None => None,
            Some(Ok(protocol @ (Protocol::Tcp | Protocol::Udp | Protocol::Sctp))) => Some(protocol as u8),
            Some(_) => {
                let reason = format!(
                    "expected tcp (6), udp (17) or sctp (132), found {}",
                    asked.protocol.unwrap_or(0)
                );
                return Err(Refusal::invalid("protocol", reason, "leave it out to list every protocol"));
            }
        };
        Ok(Self {
            protocol,
            client: address(&asked.client, "client")?,
            service: asked.service.as_ref().map(|key| verbs::key(Some(key))).transpose()?,
            slots: HashSet::new(),
            server: address(&asked.server, "server")?,
            left: if asked.limit == 0 { u64::MAX } else { asked.limit },
        })
    }

    fn lets_pass(&mut self, record: &ConnectionRecord) -> bool {
        let passes = self.left > 0
            && self.protocol.is_none_or(|protocol| protocol == record.protocol)
            && self.client.is_none_or(|client| client == record.client.ip())
            && self.server.is_none_or(|server| server == record.destination.ip())
            && self.service.is_none_or(|service| !record.outbound && self.is_of(&service, record));
        self.left -= u64::from(passes);
        passes
    }

    fn is_of(&self, service: &ServiceKey, record: &ConnectionRecord) -> bool {
        match *service {
            ServiceKey::Address { protocol, address, port } => {
                protocol as u8 == record.protocol
                    && address == record.virtual_service.ip()
                    && (port == 0 || port == record.virtual_service.port())
            }
            ServiceKey::Mark { .. } => record.slot.is_some_and(|slot| self.slots.contains(&slot)),
        }
    }
}

fn encode(record: &ConnectionRecord, worker: u16) -> Connection {
    let method = match record.method {
        Method::Direct => model::Method::Direct.into(),
        Method::Nat => model::Method::Nat.into(),
        Method::Tunnel => ForwardingMethod::Tunnel,
        Method::Local => model::Method::Local.into(),
    };
    let call_id = record.call_id.as_ref();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Connection {
        protocol: record.protocol.into(),
        client_address: record.client.ip().to_string(),
        client_port: record.client.port().into(),
        virtual_address: record.virtual_service.ip().to_string(),
        virtual_port: record.virtual_service.port().into(),
        server_address: record.destination.ip().to_string(),
        server_port: record.destination.port().into(),
        state: record.state.into(),
        expires_milliseconds: record.expires_millis,
        packets_in: record.packets_in,
        bytes_in: record.bytes_in,
        worker: worker.into(),
        method: method.into(),
        packets_out: record.packets_out,
        bytes_out: record.bytes_out,
        outbound: record.outbound,
        persistence_engine: call_id.map_or("", |_| model::Engine::Sip.name()).into(),
        persistence_data: call_id.map_or(String::new(), |call_id| text(call_id.as_bytes())),
    }
}
