//! The kernel's side of servers that are the director itself: it has their virtual addresses as long as there are such
//! servers, and so takes the packets that the workers give it.
//!
//! Such an address is of no subnet and no source of the host's own connections (scope host; deprecated in IPv6), and
//! nobody is asked whether it is free. Neighbours hear of it from the workers only: no request for it reaches the kernel.
//!
//! Of ports that only the workers see, it is on the interface of the port. Of ports that the kernel sees itself, it is on a
//! TUN device, and the kernel's own copies of packets to it are kept off: it would answer those of every connection.

use crate::{
    exception::{self, Delivery, Tun},
    kernel::{Network, ingress::Ingress, setup},
};
use pointsman_dataplane::port::sys::interface::interface;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    net::IpAddr,
};

/// The addresses that the director has given to the kernel.
#[derive(Debug, Default)]
pub struct Local {
    /// With the number and the name of the interface that each is on.
    held: BTreeMap<IpAddr, (u32, String)>,
    /// All that ever were: what the kernel tells may be older than what was taken away.
    known: HashSet<IpAddr>,
    /// `None`: the kernel takes no packets.
    way: Option<Way>,
    /// Why the kernel takes no packets, if it was to and does not.
    refused: Option<String>,
}

/// How packets reach the kernel.
#[derive(Debug)]
enum Way {
    /// By the interface of each port, whose wire the workers are.
    Interfaces,
    /// By a device for all ports, which the kernel sees itself.
    Device(Delivery, Option<Device>),
}

/// A device that is in use. It goes before what is kept off is let through again.
#[derive(Debug)]
struct Device {
    index: u32,
    tun: Tun,
    ingress: Ingress,
}

/// Why the kernel takes no packets from the workers.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Device(#[from] exception::Error),
    #[error(
        "the kernel refuses `sysctl -w net.ipv4.conf.{device}.rp_filter={value}`: {source}; make /proc/sys writable, or turn net.ipv4.conf.all.rp_filter off"
    )]
    Filter { device: String, value: u8, source: io::Error },
    #[error(
        "the kernel's own copies of packets cannot be kept from it, as its nf_tables refuse the table {table}: {source}; load nf_tables (`modprobe nf_tables`), and see that pointsmand has CAP_NET_ADMIN"
    )]
    Ingress { table: String, source: io::Error },
}

impl Local {
    /// Of ports that only the workers see.
    pub fn by_interfaces() -> Self {
        Self { way: Some(Way::Interfaces), ..Self::default() }
    }

    /// Of ports that the kernel sees itself, whose packets take this way to it.
    pub fn by_device(delivery: Delivery) -> Self {
        Self { way: Some(Way::Device(delivery, None)), ..Self::default() }
    }

    /// Whether the kernel takes packets from the workers.
    pub fn takes_packets(&self) -> bool {
        match &self.way {
            Some(Way::Interfaces) => true,
            Some(Way::Device(_, device)) => device.is_some(),
            None => false,
        }
    }

    /// Why it takes none, if it was to and does not.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Gives the kernel those of the addresses that it does not have. What it refuses is returned, one sentence each.
    pub async fn add(&mut self, wanted: &BTreeSet<IpAddr>, network: &Network) -> Vec<String> {
        self.refused = None;
        if wanted.is_empty() || self.way.is_none() {
            return Vec::new();
        }
        let device = match self.open(wanted, network) {
            Ok(device) => device,
            Err(error) => {
                self.refused = Some(error.to_string());
                return vec![format!("The director itself gets no packets as a server: {error}.")];
            }
        };
        let mut refused = Vec::new();
        for address in wanted {
            let Some((index, name)) = device.clone().or_else(|| of_port(*address, network)) else { continue };
            if self.held.contains_key(address) {
                continue;
            }
            match setup::hold(index, &name, *address).await {
                Ok(()) => {
                    self.known.insert(*address);
                    self.held.insert(*address, (index, name));
                }
                Err(error) => refused
                    .push(format!("The director itself gets no packets as a server at {address}: {error}.")),
            }
        }
        refused
    }

    /// Where the addresses go that the kernel is to have of ports which it sees itself, with its own copies kept off.
    fn open(&mut self, wanted: &BTreeSet<IpAddr>, network: &Network) -> Result<Option<(u32, String)>, Error> {
        let Some(Way::Device(delivery, open)) = &mut self.way else { return Ok(None) };
        let mut device = match open.take() {
            Some(device) => device,
            None => Device::new(network)?,
        };
        // Those that go stay kept off until they have gone.
        let all = wanted.iter().chain(self.held.keys()).copied().collect();
        let kept = device.keep_off(&all);
        let place = (device.index, device.tun.name.clone());
        if kept.is_ok() || !self.held.is_empty() {
            delivery.set(device.tun.file.try_clone().ok());
            *open = Some(device);
        }
        kept.map(|()| Some(place))
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
        let Some(Way::Device(delivery, open)) = &mut self.way else { return };
        if wanted.is_empty() {
            delivery.set(None);
            *open = None;
        } else if let Some(device) = open
            && let Err(error) = device.keep_off(wanted)
        {
            tracing::warn!("{error}");
        }
    }

    /// Whether these are all addresses that the kernel was given, and more.
    pub fn stands(&self, addresses: &[IpAddr]) -> bool {
        self.held.keys().all(|address| addresses.contains(address))
    }

    /// Forgets what somebody has taken away from the kernel, whose addresses these are now, and says it: it is to be given
    /// again. Whether there is anything.
    pub fn forget_gone(&mut self, addresses: &[IpAddr]) -> bool {
        let before = self.held.len();
        self.held.retain(|address, (_, device)| {
            let is_there = addresses.contains(address);
            if !is_there {
                tracing::warn!(
                    "somebody has taken {address} away from the interface {device}: it is given again"
                );
            }
            is_there
        });
        if let Some(Way::Device(_, open)) = &mut self.way
            && open.as_ref().is_some_and(|device| !device.is_there())
        {
            self.held.clear();
            *open = None;
        }
        self.held.len() < before
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

impl Device {
    /// Makes one; nothing is kept off yet.
    fn new(network: &Network) -> Result<Self, Error> {
        let tun = Tun::create()?;
        prepare(&tun.name)?;
        let index = tun.set_up()?;
        let devices = network.ports.iter().map(|port| port.device.clone()).collect();
        let ingress = Ingress::new(&tun.name, devices)
            .map_err(|source| Error::Ingress { table: tun.name.clone(), source })?;
        Ok(Self { index, tun, ingress })
    }

    fn is_there(&self) -> bool {
        interface(&self.tun.name).is_ok_and(|facts| facts.index == self.index)
    }

    fn keep_off(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let refused = |source| Error::Ingress { table: self.tun.name.clone(), source };
        self.ingress.keep_off(addresses).map_err(refused)
    }
}

/// Has the kernel take packets by an interface that its routes do not lead to, and give it no address by itself.
fn prepare(device: &str) -> Result<(), Error> {
    let ipv4 = |of: &str| format!("/proc/sys/net/ipv4/conf/{of}/rp_filter");
    // The stricter of both counts; 2 takes whatever comes from where some route leads to.
    let all = fs::read_to_string(ipv4("all")).unwrap_or_default();
    let value = if all.trim() == "0" { 0 } else { 2 };
    let filter = ipv4(device);
    let is = fs::read_to_string(&filter).unwrap_or_default();
    if is.trim() != value.to_string() {
        fs::write(&filter, value.to_string()).map_err(|source| Error::Filter {
            device: device.to_owned(),
            value,
            source,
        })?;
    }
    // A link-local address would do no harm.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{device}/addr_gen_mode"), "1");
    Ok(())
}

/// Where an address goes that only the workers see packets to: the port in whose subnet it is. Nowhere, if somebody has
/// given it to the machine by hand.
fn of_port(address: IpAddr, network: &Network) -> Option<(u32, String)> {
    if network.host_addresses.contains(&address) {
        return None;
    }
    let number = *network.ports_towards(address).first()?;
    let port = network.ports.get(usize::from(number))?;
    Some((port.index, port.device.clone()))
}

/// The length of the prefix of one address.
fn full(address: &IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}
