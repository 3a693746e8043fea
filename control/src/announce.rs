//! Tells the neighbours that a virtual address is here now: gratuitous ARP, unsolicited neighbour advertisement.

use crate::kernel::Network;
use pointsman_dataplane::{command::Command, reply};
use std::net::IpAddr;

/// The frames that announce an address, each by its port.
pub fn announcements(address: IpAddr, network: &Network) -> Vec<Command> {
    let frame = |mac: [u8; 6]| -> Box<[u8]> {
        match address {
            IpAddr::V4(address) => reply::gratuitous_arp(mac, address).into(),
            IpAddr::V6(address) => reply::unsolicited_na(mac, address).into(),
        }
    };
    let command = |number: u16| {
        let port = network.ports.get(usize::from(number))?;
        Some(Command::Transmit { port: number, frame: frame(port.mac) })
    };
    network.ports_towards(address).into_iter().filter_map(command).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing;

    #[test]
    fn a_virtual_address_is_announced_from_the_mac_of_its_port() {
        let commands = announcements("10.0.0.100".parse().unwrap(), &testing::network());
        let [Command::Transmit { port: 0, frame }] = &commands[..] else { panic!("{commands:?}") };
        // To all, from the port's MAC, ARP; the sender is the virtual address.
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6]);
        assert_eq!(frame[28..32], [10, 0, 0, 100]);
        let commands = announcements("fd00::100".parse().unwrap(), &testing::network());
        assert!(
            matches!(&commands[..], [Command::Transmit { port: 0, frame }] if frame[..6] == [0x33, 0x33, 0, 0, 0, 1])
        );
    }
}
