//! A gRPC connection to a director in a lab, for the tests that speak its interface themselves.

use hyper_util::rt::TokioIo;
use pointsman_tests::Director;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Connects to the director's socket.
pub(crate) async fn connect(director: &Director) -> Channel {
    let socket = director.socket();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://director");
    endpoint.connect_with_connector(connector).await.expect("the director's socket takes a connection")
}
