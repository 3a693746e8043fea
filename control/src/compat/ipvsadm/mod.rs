//! ipvsadm: its command line in, a [`Command`] out; the director's answers in, its text out.
//!
//! Nothing here does I/O but [`SystemNames::read`]: `cli::ipvsadm` talks to the director. The facts are those of
//! ipvsadm 1.31 as recorded in `tests/oracle`. Differences, each meant:
//! - help and usage errors need no director; the original first asks the kernel for IPVS;
//! - names without `-n` come from `/etc/hosts` and `/etc/services` alone (see [`names`]);
//! - a mask with holes is refused; `-M` and `-r` may stand before the service;
//! - after a vague sentence of the original comes a second line on stderr with the director's own reason;
//! - `-S` leaves out thresholds as the original does; `pointsman save` keeps them, and `-R` reads both.

mod address;
mod command;
mod error;
mod flags;
mod help;
pub mod names;
mod options;
mod output;
mod parse;
mod popt;
mod restore;
#[cfg(test)]
mod tests;

pub use command::{Columns, Command, Format, Listing};
pub use error::{EXIT_LIST, EXIT_REFUSED, EXIT_USAGE, UsageError, refusal_sentence, refusal_text};
pub use help::{HELP, VERSION};
pub use names::{Names, NoNames, SystemNames};
pub use output::{connection_line, connections_title, rules_text, services_text, timeouts_text};
pub use parse::parse;
pub use restore::arguments;
