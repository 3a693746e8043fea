//! An interface of the kernel is a port of one daemon only, whatever socket that answers at: of two, each would forward every
//! packet. Devices that are bound to DPDK are had by one process anyway.
//!
//! What says so is a UNIX socket with an abstract name (unix(7)): the kernel keeps it in the network namespace of the interface,
//! and forgets it when its process ends, however that ends.

use crate::kernel::PortNetwork;
use rustix::{
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, UCred, sockopt},
    process::geteuid,
};
use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

/// Ports that no other daemon has as long as this is there.
#[derive(Debug)]
pub struct Claims(#[expect(dead_code, reason = "held, not asked")] Vec<Option<UnixListener>>);

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
    pub fn new<'a>(ports: impl IntoIterator<Item = &'a PortNetwork>) -> Result<Self, Error> {
        ports.into_iter().map(claim).collect::<Result<_, _>>().map(Self)
    }
}

/// `None` if somebody who runs no director has the name, which anybody may take.
fn claim(port: &PortNetwork) -> Result<Option<UnixListener>, Error> {
    let error = |source| Error::Socket { port: port.name.clone(), source };
    let name = format!("pointsman port {}", port.index);
    let address = SocketAddr::from_abstract_name(&name).map_err(error)?;
    match UnixListener::bind_addr(&address) {
        Ok(listener) => Ok(Some(listener)),
        Err(source) if source.kind() == io::ErrorKind::AddrInUse => match owner(name.as_bytes()) {
            Some(owner) if !owner.uid.is_root() && owner.uid != geteuid() => {
                tracing::warn!(
                    "port {}: process {} of user {} has the name by which directors know that a port is taken; nothing keeps \
                     another one from it",
                    port.name,
                    owner.pid.as_raw_nonzero(),
                    owner.uid.as_raw()
                );
                Ok(None)
            }
            owner => {
                let process = owner.map(|owner| owner.pid.as_raw_nonzero().get());
                Err(Error::Taken { port: port.name.clone(), process })
            }
        },
        Err(source) => Err(error(source)),
    }
}

/// Who has an abstract name, if the kernel says so at once.
fn owner(name: &[u8]) -> Option<UCred> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new_abstract_name(name).ok()?).ok()?;
    sockopt::socket_peercred(&socket).ok()
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
