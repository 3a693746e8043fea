//! What a port is and does, as its device tells it: link, speed, queues, counters of the driver.

use crate::config::model::Driver;
#[cfg(feature = "dpdk")]
use pointsman_dataplane::port::dpdk::DeviceHandle;

/// Whom to ask about a port.
#[derive(Clone, Debug)]
pub enum Source {
    /// The kernel, about an interface.
    Kernel(String),
    /// DPDK, about a device.
    #[cfg(feature = "dpdk")]
    Dpdk(DeviceHandle),
}

impl Source {
    /// Its rings and its driver, for the log.
    pub fn words(&self, configured: &Driver) -> String {
        match (self, configured) {
            #[cfg(feature = "dpdk")]
            (Self::Dpdk(device), Driver::Dpdk(port)) => {
                let facts = device.facts();
                format!(
                    "driver {}, rings of {} and {} frames, {}",
                    facts.driver, port.rx_ring, port.tx_ring, facts.spread
                )
            }
            (_, Driver::AfPacket(ring)) => format!("receive ring of {}", ring.name()),
            (_, Driver::Dpdk(_)) => String::new(),
        }
    }
}
