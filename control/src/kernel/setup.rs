//! What the director changes in the kernel: the addresses and default routes of the interfaces that it makes itself.

use super::{Abort, collect, link_name};
use crate::config::model::dpdk::Subnet;
use rtnetlink::{
    AddressMessageBuilder, LinkUnspec, RouteMessageBuilder,
    packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What the kernel refuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}; this kernel or its seccomp filter lacks NETLINK_ROUTE")]
    Socket(io::Error),
    /// Interfaces cannot be listed.
    #[error(transparent)]
    Read(#[from] super::Error),
    /// The interface is not there any more.
    #[error("the interface {0} is gone: somebody has deleted it; start pointsmand again")]
    Gone(String),
    /// One step.
    #[error(
        "the kernel refuses `{command}`: {source}; try it by hand to see why, and correct the port's {key}"
    )]
    Refused {
        /// The command that does the same.
        command: String,
        /// The key of the configuration.
        key: &'static str,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// An address that is there for a while.
    #[error("the kernel refuses `{command}`: {source}; try it by hand to see why")]
    Held {
        /// The command that does the same.
        command: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// There is a default route.
    #[error(
        "the kernel refuses `{command}`: {source}; there is a default route already (`ip route show default`, `ip -6 route show default`): leave out the port's gateways or remove it"
    )]
    Routed {
        /// The command that does the same.
        command: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
}

/// What the kernel says of a route that is there.
const EEXIST: i32 = 17;

/// Sets an interface up and gives it addresses and default routes.
///
/// # Errors
/// What the kernel refuses, as the command that does the same.
pub async fn interface(name: &str, addresses: &[Subnet], gateways: &[IpAddr]) -> Result<(), Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
    let _task = Abort(tokio::spawn(connection));
    let refused = |command: String, key| move |source| Error::Refused { command, key, source };
    let links = collect(handle.link().get().execute()).await?;
    let link = links.iter().find(|link| link_name(link) == Some(name));
    let index = link.map(|link| link.header.index).ok_or_else(|| Error::Gone(name.to_owned()))?;
    for subnet in addresses {
        handle
            .address()
            .add(index, subnet.address, subnet.prefix)
            .execute()
            .await
            .map_err(refused(format!("ip address add {subnet} dev {name}"), "addresses"))?;
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    let command = format!("ip link set {name} up");
    handle.link().set(up).execute().await.map_err(refused(command, "name"))?;
    for gateway in gateways {
        let route = match gateway {
            IpAddr::V4(v4) => {
                RouteMessageBuilder::<Ipv4Addr>::new().gateway(*v4).output_interface(index).build()
            }
            IpAddr::V6(v6) => {
                RouteMessageBuilder::<Ipv6Addr>::new().gateway(*v6).output_interface(index).build()
            }
        };
        let command = format!("ip route add default via {gateway} dev {name}");
        handle.route().add(route).execute().await.map_err(|source| match &source {
            rtnetlink::Error::NetlinkError(message) if message.raw_code() == -EEXIST => {
                Error::Routed { command, source }
            }
            _ => Error::Refused { command, key: "gateways", source },
        })?;
    }
    Ok(())
}

/// Gives an interface, by number and name, an address of no subnet that the host chooses for nothing by itself. It is there
/// at once, and nobody is asked whether it is free.
///
/// # Errors
/// What the kernel refuses, as the command that does the same.
pub async fn hold(index: u32, name: &str, address: IpAddr) -> Result<(), Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
    let _task = Abort(tokio::spawn(connection));
    let mut request = handle.address().add(index, address, 0);
    let (message, more) = alone(index, address);
    *request.message_mut() = message;
    let command = format!("ip address add {address} dev {name} {more}");
    match request.execute().await {
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -EEXIST => Ok(()),
        result => result.map_err(|source| Error::Held { command, source }),
    }
}

/// Takes such an address away.
///
/// # Errors
/// What the kernel refuses, as the command that does the same.
pub async fn release(index: u32, name: &str, address: IpAddr) -> Result<(), Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
    let _task = Abort(tokio::spawn(connection));
    let command = format!("ip address del {address} dev {name}");
    let request = handle.address().del(alone(index, address).0);
    request.execute().await.map_err(|source| Error::Held { command, source })
}

/// An address without a subnet, and the words for it.
fn alone(index: u32, address: IpAddr) -> (AddressMessage, &'static str) {
    match address {
        IpAddr::V4(v4) => {
            let mut message = AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(v4, 32).build();
            message.header.scope = AddressScope::Host;
            (message, "scope host")
        }
        IpAddr::V6(v6) => {
            let mut message = AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(v6, 128).build();
            let mut lifetime = CacheInfo::default();
            (lifetime.ifa_preferred, lifetime.ifa_valid) = (0, u32::MAX);
            let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
            message
                .attributes
                .extend([AddressAttribute::Flags(flags), AddressAttribute::CacheInfo(lifetime)]);
            (message, "preferred_lft 0 nodad noprefixroute")
        }
    }
}
