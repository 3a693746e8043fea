//! Rules of marks and source NAT, and timeouts, compiled.

use super::super::model::{Configuration, ServiceTimeouts, Timeouts};
use crate::kernel::Network;
use pointsman_dataplane::{
    conn::tcp::TcpState,
    mark::{Marks, Rule},
    routing::SourceNat,
    snapshot,
    time::Ticks,
};
use std::sync::Arc;

/// The number of the port that a rule names, if it names one. Fails where there is none of that name.
fn port(interface: Option<&String>, network: &Network) -> Option<Option<u16>> {
    interface.map_or(Some(None), |name| network.number(name).map(Some))
}

/// The rules of marks. One that names a port that there is not fits nothing, and is left out.
pub(super) fn marks(configuration: &Configuration, network: &Network) -> Marks {
    Marks::new(configuration.marks.iter().filter_map(|rule| {
        Some(Rule {
            protocol: rule.protocol.map(|protocol| protocol as u8),
            source: rule.source,
            destination: rule.destination,
            ports: rule.ports.map(|(first, last)| first.get()..=last.get()),
            interface: port(rule.interface.as_ref(), network)?,
            mark: rule.mark,
        })
    }))
}

/// The rules of source NAT, in the same way.
pub(super) fn source_nat(configuration: &Configuration, network: &Network) -> Vec<SourceNat> {
    let rules = configuration.source_nat.iter().filter_map(|rule| {
        let port = port(rule.interface.as_ref(), network)?;
        Some(SourceNat { source: rule.source, port, address: rule.to })
    });
    rules.collect()
}

/// The timeouts of a service that has some of its own: those that are known, if they are the same.
pub(super) fn own_timeouts(
    all: &Timeouts,
    own: &ServiceTimeouts,
    known: Option<Arc<snapshot::Timeouts>>,
) -> Option<Arc<snapshot::Timeouts>> {
    if *own == ServiceTimeouts::default() {
        return None;
    }
    let mut compiled = timeouts(all);
    if let Some(seconds) = own.tcp {
        compiled.tcp[TcpState::Established as usize] = Ticks::from_secs(seconds.get());
    }
    if let Some(seconds) = own.tcp_fin {
        compiled.tcp[TcpState::FinWait as usize] = Ticks::from_secs(seconds.get());
    }
    if let Some(seconds) = own.udp {
        compiled.udp = Ticks::from_secs(seconds.get());
    }
    Some(known.filter(|known| **known == compiled).unwrap_or_else(|| Arc::new(compiled)))
}

/// The timeouts of all services.
pub(super) fn timeouts(from: &Timeouts) -> snapshot::Timeouts {
    // NONE is no timeout that a user sets.
    let none = snapshot::Timeouts::default().tcp[0];
    let seconds = Ticks::from_secs;
    snapshot::Timeouts {
        tcp: [
            none,
            seconds(from.tcp_established),
            seconds(from.tcp_syn_sent),
            seconds(from.tcp_syn_received),
            seconds(from.tcp_fin_wait),
            seconds(from.tcp_time_wait),
            seconds(from.tcp_close),
            seconds(from.tcp_close_wait),
            seconds(from.tcp_last_ack),
            seconds(from.tcp_listen),
            seconds(from.tcp_syn_ack),
        ],
        udp: seconds(from.udp),
        ..snapshot::Timeouts::default()
    }
}
