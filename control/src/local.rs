//! The kernel's side of servers that are the director itself: it has their virtual addresses as long as there are such
//! servers, on the interface of the port, and so takes the packets that the workers give it.
//!
//! Such an address is of no subnet and no source of the host's own connections (scope host; deprecated in IPv6), and
//! nobody is asked whether it is free. Neighbours hear of it from the workers only: no request for it reaches the kernel.

use crate::kernel::{Network, setup};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

/// The addresses that the director has given to the kernel.
#[derive(Debug, Default)]
pub struct Local {
    /// With the number and the name of the interface that each is on.
    held: BTreeMap<IpAddr, (u32, String)>,
    /// All that ever were: what the kernel tells may be older than what was taken away.
    known: HashSet<IpAddr>,
}

impl Local {
    /// Gives the kernel those of the addresses that it does not have. What it refuses is returned, one sentence each.
    pub async fn add(&mut self, wanted: &BTreeSet<IpAddr>, network: &Network) -> Vec<String> {
        let mut refused = Vec::new();
        for address in wanted {
            // Somebody may have given it to the machine by hand.
            if self.held.contains_key(address) || network.host_addresses.contains(address) {
                continue;
            }
            let port = network
                .ports_towards(*address)
                .first()
                .and_then(|port| network.ports.get(usize::from(*port)));
            let Some(port) = port else { continue };
            match setup::hold(port.index, &port.device, *address).await {
                Ok(()) => {
                    self.known.insert(*address);
                    self.held.insert(*address, (port.index, port.device.clone()));
                }
                Err(error) => refused
                    .push(format!("The director itself gets no packets as a server at {address}: {error}.")),
            }
        }
        refused
    }

    /// Takes all but the wanted addresses away from it.
    pub async fn keep(&mut self, wanted: &BTreeSet<IpAddr>) {
        let gone: Vec<IpAddr> =
            self.held.keys().filter(|address| !wanted.contains(address)).copied().collect();
        for address in gone {
            if let Some((index, device)) = self.held.remove(&address)
                && let Err(error) = setup::release(index, &device, address).await
            {
                tracing::warn!("{address} was not taken away from the interface {device}: {error}");
            }
        }
    }

    /// What the kernel knows without what it has from here: these are no addresses of the machine.
    pub fn without(&self, mut network: Network) -> Network {
        let ours = |address: &IpAddr| self.known.contains(address);
        network.host_addresses.retain(|address| !ours(address));
        for port in &mut network.ports {
            port.addresses.retain(|(address, len)| !(ours(address) && *len == full(address)));
        }
        network
    }
}

/// The length of the prefix of one address.
fn full(address: &IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}
