//! `pointsman vip`: virtual addresses that are up without a service.

use std::net::IpAddr;
use std::path::Path;

use clap::Subcommand;
use pointsman_proto::v1::{AddVirtualAddressRequest, DeleteVirtualAddressRequest};

use super::client::Director;
use super::error::CliError;
use super::output::{Change, Output};

/// Brings virtual addresses up and takes them down
#[derive(Debug, Subcommand)]
pub(super) enum Vip {
    /// Answers ARP, ND and ping for an address from now on
    Add {
        /// IPv4 or IPv6
        address: IpAddr,
    },
    /// Ends that; a service on the address keeps it up
    Delete {
        /// IPv4 or IPv6
        address: IpAddr,
    },
}

impl Vip {
    pub(super) async fn run(self, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
        let mut lvs = Director::connect(socket).await?.lvs();
        let (sign, address, answer) = match self {
            Self::Add { address } => {
                let request = AddVirtualAddressRequest { address: address.to_string() };
                ('+', address, lvs.add_virtual_address(request).await?)
            }
            Self::Delete { address } => {
                let request = DeleteVirtualAddressRequest { address: address.to_string() };
                ('-', address, lvs.delete_virtual_address(request).await?)
            }
        };
        let answer = answer.into_inner();
        output.change(&Change {
            generation: answer.generation,
            changes: vec![format!("{sign} virtual address {address}")],
            warnings: answer.warnings,
        })
    }
}
