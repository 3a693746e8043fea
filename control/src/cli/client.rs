//! The way to the director: gRPC over its unix socket.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use pointsman_proto::v1::config_client::ConfigClient;
use pointsman_proto::v1::connections_client::ConnectionsClient;
use pointsman_proto::v1::lvs_client::LvsClient;
use pointsman_proto::v1::stats_client::StatsClient;
use thiserror::Error;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Where pointsmand listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/pointsman/pointsman.sock";
/// The environment variable that names another socket.
pub const SOCKET_VARIABLE: &str = "POINTSMAN_SOCKET";

/// A change is answered when every worker runs it, which takes milliseconds; this is a director that hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A list of a hundred thousand real servers has about 20 MB.
const MESSAGE_MAX: usize = 256 << 20;

/// Nobody answers at the socket.
#[derive(Debug, Error)]
#[error("no director answers at {}: {cause}", socket.display())]
pub struct Unreachable {
    socket: PathBuf,
    cause: String,
    kind: io::ErrorKind,
}

impl Unreachable {
    /// What to do about it, in one line.
    pub fn remedy(&self) -> String {
        match self.kind {
            io::ErrorKind::PermissionDenied => {
                "the socket is open to the user that pointsmand runs as: be root (sudo)".to_owned()
            }
            io::ErrorKind::NotFound => format!(
                "start it with `pointsmand --port eth0` or `pointsmand --config FILE`; \
                 if it listens elsewhere, name its socket in {SOCKET_VARIABLE}"
            ),
            _ => format!(
                "pointsmand has ended or hangs: look at its log and start it again; \
                 if it listens elsewhere, name its socket in {SOCKET_VARIABLE}"
            ),
        }
    }
}

/// An open way to a director.
#[derive(Clone, Debug)]
pub struct Director {
    channel: Channel,
}

impl Director {
    /// Connects to the director at a socket.
    pub async fn connect(socket: &Path) -> Result<Self, Unreachable> {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is not used: the connector knows the socket.
        let endpoint = Endpoint::from_static("http://director.invalid").timeout(ANSWER_TIMEOUT);
        match endpoint.connect_with_connector(connector).await {
            Ok(channel) => Ok(Self { channel }),
            Err(error) => Err(unreachable(socket, &error)),
        }
    }

    /// The verbs of ipvsadm.
    pub fn lvs(&self) -> LvsClient<Channel> {
        LvsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    /// The configuration as a whole.
    pub fn config(&self) -> ConfigClient<Channel> {
        ConfigClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    /// The counters.
    pub fn stats(&self) -> StatsClient<Channel> {
        StatsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    /// The connections.
    pub fn connections(&self) -> ConnectionsClient<Channel> {
        ConnectionsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
    }
}

fn unreachable(socket: &Path, error: &tonic::transport::Error) -> Unreachable {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return Unreachable { socket: socket.to_owned(), cause: plain(io), kind: io.kind() };
        }
        cause = inner.source();
    }
    Unreachable { socket: socket.to_owned(), cause: error.to_string(), kind: io::ErrorKind::Other }
}

/// "No such file or directory", without the number behind it.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_socket_is_named_with_how_to_start_the_director() {
        let error = Director::connect(Path::new("/nonexistent/p.sock")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "no director answers at /nonexistent/p.sock: No such file or directory"
        );
        assert!(error.remedy().starts_with("start it with `pointsmand --port eth0`"), "{}", error.remedy());
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on_is_told_apart() {
        let path = std::env::temp_dir().join(format!("pointsman-client-test-{}.sock", std::process::id()));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = Director::connect(&path).await.unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert!(
            error.to_string().ends_with("p.sock: Connection refused")
                || error.to_string().ends_with("Connection refused")
        );
        assert!(error.remedy().starts_with("pointsmand has ended or hangs"), "{}", error.remedy());
    }
}
