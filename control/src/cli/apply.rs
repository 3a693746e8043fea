//! `pointsman apply FILE` and `pointsman diff FILE`: a configuration file put in force, or only compared.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use pointsman_proto::v1::{ApplyRequest, Configuration};
use serde::Serialize;

use super::client::Director;
use super::error::CliError;
use super::output::{Change, Output};

/// Puts a configuration file in force
#[derive(Debug, Args)]
#[command(
    after_help = "The change is in force on every worker when the command ends, or nothing is changed.\n\
                        What is fixed at start (ports, workers, capacity, memory) must be as it is or left out.\n\n\
                        Example: pointsman apply /etc/pointsman/pointsman.toml --expect-generation 7"
)]
pub(super) struct Apply {
    /// The TOML file
    file: PathBuf,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Refuse unless this is the generation in force
    #[arg(long, value_name = "N")]
    expect_generation: Option<u64>,
}

/// Says what applying a configuration file would change
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The TOML file
    file: PathBuf,
}

#[derive(Serialize)]
struct Difference<'a> {
    /// The one in force, which stays so.
    generation: u64,
    changes: &'a [String],
    warnings: &'a [String],
}

impl Apply {
    pub(super) async fn run(self, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
        let change = apply(&self.file, socket, self.dry_run, self.expect_generation).await?;
        if self.dry_run { compared(&change, output) } else { output.change(&change) }
    }
}

impl Diff {
    pub(super) async fn run(self, socket: &Path, output: &mut Output<'_>) -> Result<(), CliError> {
        compared(&apply(&self.file, socket, true, None).await?, output)
    }
}

async fn apply(
    file: &Path,
    socket: &Path,
    dry_run: bool,
    expected_generation: Option<u64>,
) -> Result<Change, CliError> {
    let configuration = Some(read(file)?);
    let request = ApplyRequest { configuration, dry_run, expected_generation };
    let answer = Director::connect(socket).await?.config().apply(request).await?.into_inner();
    Ok(Change { generation: answer.generation, changes: answer.changes, warnings: answer.warnings })
}

fn read(file: &Path) -> Result<Configuration, CliError> {
    let text = fs::read_to_string(file).map_err(|error| {
        CliError::new(
            format!("cannot read {}: {error}", file.display()),
            "name a TOML file that is there and that you may read",
        )
    })?;
    let configuration = crate::config::read(file, &text).map_err(|errors| {
        CliError::new(
            errors.to_string(),
            format!("correct {} and try again; nothing was changed", file.display()),
        )
    })?;
    Ok(Configuration::from(&configuration))
}

fn compared(change: &Change, output: &mut Output<'_>) -> Result<(), CliError> {
    output.warnings(&change.warnings);
    let Change { generation, changes, warnings } = change;
    if output.json {
        return output.json(&Difference { generation: *generation, changes, warnings });
    }
    for line in changes {
        output.text(&format!("{line}\n"))?;
    }
    if changes.is_empty() {
        return output.text(&format!("no difference to generation {generation}\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read(Path::new("/nonexistent/p.toml")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read /nonexistent/p.toml: No such file or directory"), "{error}");
        assert!(error.contains("\n  name a TOML file"), "{error}");
    }

    #[test]
    fn the_example_that_is_installed_is_read() {
        let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/pointsman.toml"));
        let configuration = read(file).unwrap();
        let [service] = configuration.services.as_slice() else { panic!("{configuration:?}") };
        assert_eq!(service.servers.len(), 2);
        assert_eq!(service.servers[0].address, "192.168.10.12");
    }

    #[test]
    fn a_mistake_is_told_with_file_line_and_field() {
        let file = std::env::temp_dir().join(format!("pointsman-apply-{}.toml", std::process::id()));
        fs::write(&file, "[[service]]\naddress = \"10.0.0.1\"\nport = 80\nscheduler = \"nosuch\"\n").unwrap();
        let error = read(&file).unwrap_err().to_string();
        fs::remove_file(&file).unwrap();
        assert!(error.starts_with(&format!("{}:4: service[0].scheduler: ", file.display())), "{error}");
        assert!(error.ends_with(" and try again; nothing was changed"), "{error}");
    }
}
