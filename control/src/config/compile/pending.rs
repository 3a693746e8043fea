//! What is accepted but not run yet.

use super::super::model::{Method, Service};
use pointsman_dataplane::index::Addresses;

/// What of a service is accepted but not in force yet on a machine of these addresses, one sentence each.
pub fn pending(service: &Service, host_addresses: &Addresses) -> Vec<String> {
    let local = service
        .servers
        .iter()
        .filter(|server| server.method == Method::Local || host_addresses.contains(&server.address));
    let sentence = |server: &super::Server| {
        format!(
            "The server {} of {} gets no packets: the method local is accepted but not run yet; use another machine.",
            server.socket(),
            service.key
        )
    };
    local.map(sentence).collect()
}
