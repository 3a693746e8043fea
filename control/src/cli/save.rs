//! `pointsman save`: the services as commands of ipvsadm, complete.

use std::path::Path;

use clap::Args;
use pointsman_proto::v1::ListRequest;

use super::client::Director;
use super::error::CliError;
use super::output::Output;
use crate::compat::ipvsadm::{Format, NoNames, rules_text};

/// Prints the services as rules that `ipvsadm -R` reads
#[derive(Debug, Args)]
#[command(
    after_help = "Unlike `ipvsadm -Sn` it keeps thresholds (-x, -y) and the order of the real servers,\n\
                        which schedulers walk.\n\n\
                        Example: pointsman save > rules; ipvsadm-restore < rules"
)]
pub(super) struct Save {}

impl Save {
    pub(super) async fn run(self, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
        let mut lvs = Director::connect(socket).await?.lvs();
        let answer = lvs.list(ListRequest::default()).await?.into_inner();
        let format = Format { numeric: true, unsorted: true, ..Format::default() };
        let rules = rules_text(&answer.services, format, true, &NoNames);
        if output.json {
            return output.json(&rules.lines().collect::<Vec<_>>());
        }
        output.text(&rules)
    }
}
