//! The gRPC services, one file each: decode, call, encode. What they do is elsewhere.

mod config;
mod connections;
mod lvs;
mod ports;
mod stats;

use crate::{
    apply::{Control, Error},
    ports::Ports,
    refusal::{Code, Refusal},
    resolver::Resolver,
};
use pointsman_hugepages::Report;
use pointsman_proto::v1::{
    self, config_server::ConfigServer, connections_server::ConnectionsServer, lvs_server::LvsServer,
    stats_server::StatsServer,
};
use prost::Message as _;
use std::{future::Future, sync::Arc};
use tokio::{net::UnixListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Status, transport::Server};

/// Bytes of the largest request: a configuration of as many servers as the director can have.
const MOST_BYTES: usize = 64 << 20;

/// What the services work with.
#[derive(Clone)]
pub struct Context {
    /// The configuration and the workers.
    pub control: Arc<Control>,
    /// The neighbours.
    pub resolver: Arc<Resolver>,
    /// The ports.
    pub ports: Arc<Ports>,
    /// The memory that workers got.
    pub memory: Arc<[Report]>,
}

/// A stream of answers.
type Answers<T> = ReceiverStream<Result<T, Status>>;

/// Serves until `end` is done.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    context: Context,
    listener: UnixListener,
    end: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ConfigServer<config::Service>>().await;
    health.set_serving::<LvsServer<lvs::Service>>().await;
    health.set_serving::<StatsServer<stats::Service>>().await;
    health.set_serving::<ConnectionsServer<connections::Service>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let config = ConfigServer::new(config::Service(context.clone()));
    let lvs = LvsServer::new(lvs::Service(context.clone()));
    let stats = StatsServer::new(stats::Service(context.clone()));
    let connections = ConnectionsServer::new(connections::Service(context));
    Server::builder()
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(config.max_decoding_message_size(MOST_BYTES))
        .add_service(lvs)
        .add_service(stats)
        .add_service(connections)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), end)
        .await?;
    Ok(())
}

/// A refused change as gRPC says it: a sentence, with the refusal as details.
fn status(error: Error) -> Status {
    match error {
        Error::Refused(refusals) => {
            let Some(first) = refusals.first() else { return Status::unknown("the change was refused") };
            let status = refused(first.clone());
            match refusals.len() - 1 {
                0 => status,
                more => {
                    let message = format!("{} (and {more} more)", status.message());
                    Status::with_details(status.code(), message, status.details().to_vec().into())
                }
            }
        }
        late @ Error::Late { .. } => Status::deadline_exceeded(late.to_string()),
        ending @ Error::Ending => Status::unavailable(ending.to_string()),
    }
}

/// One refusal.
fn refused(refusal: Refusal) -> Status {
    let code = match refusal.code {
        Code::ServiceExists | Code::DestinationExists | Code::AddressExists | Code::RuleExists => {
            tonic::Code::AlreadyExists
        }
        Code::NoSuchService
        | Code::ServiceNotDefined
        | Code::SchedulerNotFound
        | Code::NoSuchDestination
        | Code::NoSuchAddress
        | Code::NoSuchRule => tonic::Code::NotFound,
        Code::ThresholdRange => tonic::Code::OutOfRange,
        Code::Generation => tonic::Code::Aborted,
        Code::Capacity => tonic::Code::ResourceExhausted,
        Code::Invalid | Code::Unspecified => tonic::Code::InvalidArgument,
    };
    let message = refusal.to_string();
    Status::with_details(code, message, encode_refusal(refusal).encode_to_vec().into())
}

fn encode_refusal(refusal: Refusal) -> v1::Refusal {
    let Refusal { code, field, reason, remedy } = refusal;
    v1::Refusal { code: code.into(), field, reason, remedy }
}

/// A part of a request that must be there.
fn required<T>(part: Option<T>, field: &str) -> Result<T, Status> {
    part.ok_or_else(|| {
        refused(Refusal::invalid(
            field,
            format!("the request has no {field}"),
            "fill it in; `pointsman` does",
        ))
    })
}

/// A stream that ends when its task does, or when nobody listens any more.
fn stream<T: Send + 'static, F>(task: impl FnOnce(mpsc::Sender<Result<T, Status>>) -> F) -> Answers<T>
where
    F: Future<Output = ()> + Send + 'static,
{
    // A slow client holds up its own task only.
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(task(sender));
    ReceiverStream::new(receiver)
}

#[cfg(test)]
mod tests;
