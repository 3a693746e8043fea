//! A port is of one daemon only, whatever socket that answers at: of two, each would forward every packet.
//!
//! What says so is a UNIX socket with an abstract name (unix(7)): the kernel keeps it in the network namespace of the interface,
//! and forgets it when its process ends, however that ends.

use crate::kernel::PortNetwork;
use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
};

/// Ports that no other daemon has as long as this is there.
#[derive(Debug)]
pub struct Claims(#[expect(dead_code, reason = "held, not asked")] Vec<UnixListener>);

/// Why a port cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon has it.
    #[error(
        "port {port}: another pointsmand{} has it, and both would forward every packet; end that one, or give this one other ports",
        .process.map(|process| format!(", process {process},")).unwrap_or_default()
    )]
    Taken {
        /// As users name it.
        port: String,
        /// Which, if the kernel says.
        process: Option<i32>,
    },
    /// The kernel lets nobody claim it.
    #[error(
        "port {port}: cannot be claimed by a UNIX socket with an abstract name: {source}; this needs a Linux with unix(7)"
    )]
    Socket {
        /// As users name it.
        port: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Claims {
    /// Claims these ports, all or none.
    pub fn new(ports: &[PortNetwork]) -> Result<Self, Error> {
        ports.iter().map(claim).collect::<Result<_, _>>().map(Self)
    }
}

fn claim(port: &PortNetwork) -> Result<UnixListener, Error> {
    let error = |source| Error::Socket { port: port.name.clone(), source };
    let name = SocketAddr::from_abstract_name(format!("pointsman port {}", port.index)).map_err(error)?;
    match UnixListener::bind_addr(&name) {
        Ok(listener) => Ok(listener),
        Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
            let process = UnixStream::connect_addr(&name).ok().and_then(|stream| {
                let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
                Some(peer.pid.as_raw_nonzero().get())
            });
            Err(Error::Taken { port: port.name.clone(), process })
        }
        Err(source) => Err(error(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_had_by_one_and_free_again_after_it() {
        let port = |index| PortNetwork { name: "eth0".into(), index, ..PortNetwork::default() };
        // No interface has such numbers.
        let (ours, other) = (port(0x7fff_0001), port(0x7fff_0002));
        let first = Claims::new(std::slice::from_ref(&ours)).unwrap();
        let refused = Claims::new(&[other.clone(), ours.clone()]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "port eth0: another pointsmand, process {}, has it, and both would forward every packet; end that one, or give this one other ports",
                std::process::id()
            )
        );
        drop(first);
        Claims::new(&[other, ours]).unwrap();
    }
}
