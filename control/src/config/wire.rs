//! The model as gRPC messages. The way back is [`super::validate`].

use super::model::{
    policies::{SWITCHES, forwarding_name},
    rules::{MarkRule, SourceNat, written},
    *,
};
use pointsman_dataplane::policy::Policies;
use pointsman_proto::v1;
use std::num::NonZeroU32;

impl From<&Configuration> for v1::Configuration {
    fn from(from: &Configuration) -> Self {
        Self {
            start: Some((&from.start).into()),
            timeouts: Some((&from.timeouts).into()),
            services: from.services.iter().map(|service| (&**service).into()).collect(),
            virtual_addresses: from.virtual_addresses.iter().map(ToString::to_string).collect(),
            marks: from.marks.iter().map(Into::into).collect(),
            source_nat: from.source_nat.iter().map(Into::into).collect(),
            routing: Some(v1::Routing { forward: forwarding_name(from.forwarding).into() }),
            policies: SWITCHES.iter().map(|s| (s.name.to_owned(), s.of(&from.policies))).collect(),
        }
    }
}

impl From<&MarkRule> for v1::MarkRule {
    fn from(from: &MarkRule) -> Self {
        let protocol = from.protocol.map_or(v1::Protocol::Unspecified, Into::into);
        let last = |(first, last)| (first != last).then_some(last);
        Self {
            protocol: protocol.into(),
            source: from.source.as_ref().map(written).unwrap_or_default(),
            destination: from.destination.as_ref().map(written).unwrap_or_default(),
            port: from.ports.map(|(first, _)| first.get().into()),
            last_port: from.ports.and_then(last).map(|last| last.get().into()),
            interface: from.interface.clone().unwrap_or_default(),
            mark: from.mark.get(),
        }
    }
}

impl From<&SourceNat> for v1::SourceNat {
    fn from(from: &SourceNat) -> Self {
        Self {
            source: written(&from.source),
            interface: from.interface.clone().unwrap_or_default(),
            to: from.to.to_string(),
        }
    }
}

/// All switches, with what they do.
pub fn policies(policies: &Policies) -> Vec<v1::Policy> {
    let default = Policies::default();
    let policy = |switch: &super::model::policies::Switch| v1::Policy {
        name: switch.name.into(),
        value: switch.of(policies),
        default_value: switch.of(&default),
        explanation: switch.about.into(),
        lowest: *switch.range.start(),
        highest: *switch.range.end(),
    };
    SWITCHES.iter().map(policy).collect()
}

impl From<&Start> for v1::Start {
    fn from(from: &Start) -> Self {
        let memory = |memory: Memory| v1::Memory {
            pages: memory.pages.name().into(),
            numa_node: memory.numa_node,
            lock: Some(memory.lock),
        };
        let dpdk = |dpdk: &dpdk::Dpdk| v1::Dpdk {
            memory: dpdk.memory.name().into(),
            arguments: dpdk.arguments.clone(),
            buffers: dpdk.buffers.map_or(0, |n| n.get()),
        };
        Self {
            ports: from.ports.iter().map(Into::into).collect(),
            cores: from.cores.clone(),
            connections_ipv4: from.connections_ipv4.map_or(0, |n| n.get()),
            connections_ipv6: from.connections_ipv6.map_or(0, |n| n.get()),
            memory: from.memory.map(memory),
            dpdk: from.dpdk.as_ref().map(dpdk),
        }
    }
}

impl From<&Port> for v1::Port {
    fn from(from: &Port) -> Self {
        let port = v1::Port {
            name: from.name.clone(),
            driver: from.driver.name().into(),
            device: from.device.clone(),
            idle: from.idle.name().into(),
            ..Self::default()
        };
        match &from.driver {
            Driver::AfPacket(ring) => Self { receive_ring: ring.name().into(), ..port },
            Driver::Dpdk(dpdk) => Self {
                addresses: dpdk.addresses.iter().map(ToString::to_string).collect(),
                gateways: dpdk.gateways.iter().map(ToString::to_string).collect(),
                mtu: dpdk.mtu.into(),
                rx_ring: dpdk.rx_ring.into(),
                tx_ring: dpdk.tx_ring.into(),
                promiscuous: dpdk.promiscuous,
                ..port
            },
        }
    }
}

impl From<&Timeouts> for v1::ConnectionTimeouts {
    fn from(from: &Timeouts) -> Self {
        Self {
            tcp_established: from.tcp_established,
            tcp_syn_sent: from.tcp_syn_sent,
            tcp_syn_received: from.tcp_syn_received,
            tcp_fin_wait: from.tcp_fin_wait,
            tcp_time_wait: from.tcp_time_wait,
            tcp_close: from.tcp_close,
            tcp_close_wait: from.tcp_close_wait,
            tcp_last_ack: from.tcp_last_ack,
            tcp_listen: from.tcp_listen,
            tcp_syn_ack: from.tcp_syn_ack,
            udp: from.udp,
        }
    }
}

impl From<&Service> for v1::ServiceConfiguration {
    fn from(from: &Service) -> Self {
        Self { service: Some(from.into()), servers: from.servers.iter().map(Into::into).collect() }
    }
}

impl From<Protocol> for v1::Protocol {
    fn from(from: Protocol) -> Self {
        match from {
            Protocol::Tcp => v1::Protocol::Tcp,
            Protocol::Udp => v1::Protocol::Udp,
            Protocol::Sctp => v1::Protocol::Sctp,
        }
    }
}

impl From<&ServiceKey> for v1::ServiceKey {
    fn from(from: &ServiceKey) -> Self {
        use v1::service_key::{Address, Key, Mark};
        let key = match *from {
            ServiceKey::Address { protocol, address, port } => Key::Address(Address {
                protocol: v1::Protocol::from(protocol).into(),
                address: address.to_string(),
                port: port.into(),
            }),
            ServiceKey::Mark { mark, ipv6 } => Key::Mark(Mark { mark: mark.get(), ipv6 }),
        };
        Self { key: Some(key) }
    }
}

impl From<&Service> for v1::Service {
    fn from(from: &Service) -> Self {
        let whole = if from.key.is_ipv6() { 128 } else { 32 };
        Self {
            key: Some((&from.key).into()),
            scheduler: from.scheduler.name().into(),
            scheduler_flags: from.flag_names().into_iter().map(Into::into).collect(),
            persistence_seconds: from.persistence.map_or(0, |p| p.seconds.get()),
            persistence_prefix: from.persistence.map(|p| p.prefix).filter(|p| *p != whole).map(Into::into),
            persistence_engine: from.engine.map_or("", Engine::name).into(),
            one_packet: from.one_packet,
            timeout_tcp: from.timeouts.tcp.map(NonZeroU32::get),
            timeout_tcp_fin: from.timeouts.tcp_fin.map(NonZeroU32::get),
            timeout_udp: from.timeouts.udp.map(NonZeroU32::get),
        }
    }
}

impl From<Method> for v1::ForwardingMethod {
    fn from(from: Method) -> Self {
        match from {
            Method::Direct => v1::ForwardingMethod::Direct,
            Method::Nat => v1::ForwardingMethod::Nat,
            Method::Tunnel(_) => v1::ForwardingMethod::Tunnel,
            Method::Local => v1::ForwardingMethod::Local,
        }
    }
}

impl From<&Server> for v1::Server {
    fn from(from: &Server) -> Self {
        Self {
            address: from.address.to_string(),
            port: from.port.into(),
            method: v1::ForwardingMethod::from(from.method).into(),
            weight: Some(from.weight.get()),
            upper_threshold: from.upper_threshold,
            lower_threshold: from.lower_threshold,
            tunnel: match from.method {
                Method::Tunnel(tunnel) => Some(tunnel.into()),
                _ => None,
            },
        }
    }
}

impl From<Tunnel> for v1::Tunnel {
    fn from(from: Tunnel) -> Self {
        use v1::tunnel::{Checksum as Sum, Kind};
        let (kind, port, checksum) = match from {
            Tunnel::Ipip => (Kind::Ipip, 0, Sum::None),
            Tunnel::Gre { checksum } => (Kind::Gre, 0, if checksum { Sum::On } else { Sum::None }),
            Tunnel::Gue { port, checksum } => {
                let checksum = match checksum {
                    Checksum::None => Sum::None,
                    Checksum::On => Sum::On,
                    Checksum::Remote => Sum::Remote,
                };
                (Kind::Gue, port.get(), checksum)
            }
        };
        Self { kind: kind.into(), port: port.into(), checksum: checksum.into() }
    }
}
