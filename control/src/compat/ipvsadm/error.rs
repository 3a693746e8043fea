//! What ipvsadm says when it cannot do as told, and the status it ends with.

use pointsman_proto::v1::Refusal;
use pointsman_proto::v1::refusal::Code;
use prost::Message as _;
use thiserror::Error;

/// The status of a command line that is wrong in itself.
pub const EXIT_USAGE: u8 = 2;
/// The status of an option that cannot be read, and of a refusal by the director.
pub const EXIT_REFUSED: u8 = 255;
/// The status of a list of one service that is not there.
pub const EXIT_LIST: u8 = 1;

/// A command line that is refused without asking the director.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct UsageError {
    /// One line, or two where it takes a reason; for stderr.
    pub message: String,
    /// The status to end with.
    pub exit: u8,
}

impl UsageError {
    /// A mistake of usage: exit 2.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit: EXIT_USAGE }
    }

    /// A line whose first option is no command.
    pub(super) fn try_help() -> Self {
        let message = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.".to_owned();
        Self { message, exit: EXIT_REFUSED }
    }

    /// `-R` within a file that `-R` reads.
    pub fn nested_restore() -> Self {
        Self::try_help()
    }

    /// An argument that the option parser cannot read.
    pub(super) fn parser(typed: &str, what: &str) -> Self {
        Self { message: format!("{typed}: {what}"), exit: EXIT_REFUSED }
    }
}

/// What the director's refusal reads like in the words of ipvsadm.
///
/// Where the original has one sentence for many causes ("Invalid operation ..."), the director's own reason and
/// remedy follow on a second line.
pub fn refusal_text(status: &tonic::Status) -> String {
    match Refusal::decode(status.details()) {
        Ok(refusal) if refusal.code() != Code::Unspecified => refusal_sentence(&refusal),
        _ => status_text(status),
    }
}

/// The same for a refusal that did not come as a status.
pub fn refusal_sentence(refusal: &Refusal) -> String {
    match refusal.code() {
        Code::ServiceExists => "Service already exists".to_owned(),
        Code::NoSuchService => "No such service".to_owned(),
        Code::ServiceNotDefined => "Service not defined".to_owned(),
        Code::SchedulerNotFound => "Scheduler or persistence engine not found".to_owned(),
        Code::DestinationExists => "Destination already exists".to_owned(),
        Code::NoSuchDestination => "No such destination".to_owned(),
        Code::ThresholdRange => "Numerical result out of range".to_owned(),
        Code::Capacity => explained("Memory allocation problem", refusal),
        Code::Invalid | Code::Unspecified => {
            explained("Invalid operation.  Possibly wrong module version, address not unicast, ...", refusal)
        }
        Code::NoSuchAddress
        | Code::AddressExists
        | Code::NoSuchRule
        | Code::RuleExists
        | Code::Generation => explained("Invalid argument", refusal),
    }
}

fn explained(first: &str, refusal: &Refusal) -> String {
    let said: Vec<&str> = [refusal.reason.as_str(), refusal.remedy.as_str()]
        .into_iter()
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .collect();
    if said.is_empty() { first.to_owned() } else { format!("{first}\n{}", said.join("; ")) }
}

fn status_text(status: &tonic::Status) -> String {
    match status.code() {
        tonic::Code::PermissionDenied => "Permission denied (you must be root)".to_owned(),
        tonic::Code::ResourceExhausted => format!("Memory allocation problem\n{}", status.message()),
        tonic::Code::InvalidArgument => format!(
            "Invalid operation.  Possibly wrong module version, address not unicast, ...\n{}",
            status.message()
        ),
        tonic::Code::Unimplemented => format!(
            "Module is wrong version\npointsmand does not know this call ({}); \
             install pointsmand and ipvsadm of the same version",
            status.message()
        ),
        code => format!("{code}\n{}", status.message()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code, reason: &str, remedy: &str) -> tonic::Status {
        let refusal =
            Refusal { code: code.into(), field: String::new(), reason: reason.into(), remedy: remedy.into() };
        tonic::Status::with_details(
            tonic::Code::FailedPrecondition,
            "refused",
            refusal.encode_to_vec().into(),
        )
    }

    #[test]
    fn each_refusal_has_the_sentence_of_the_original() {
        let table = [
            (Code::ServiceExists, "Service already exists"),
            (Code::NoSuchService, "No such service"),
            (Code::ServiceNotDefined, "Service not defined"),
            (Code::SchedulerNotFound, "Scheduler or persistence engine not found"),
            (Code::DestinationExists, "Destination already exists"),
            (Code::NoSuchDestination, "No such destination"),
            (Code::ThresholdRange, "Numerical result out of range"),
            (Code::Capacity, "Memory allocation problem"),
            (Code::Invalid, "Invalid operation.  Possibly wrong module version, address not unicast, ..."),
        ];
        for (code, expected) in table {
            assert_eq!(refusal_text(&refused(code, "", "")), expected);
        }
    }

    #[test]
    fn a_vague_sentence_is_followed_by_the_directors_reason() {
        let status = refused(Code::Invalid, "224.0.0.1 is not unicast", "name an address of a host");
        assert_eq!(
            refusal_text(&status),
            "Invalid operation.  Possibly wrong module version, address not unicast, ...\n\
             224.0.0.1 is not unicast; name an address of a host"
        );
        let exact = refused(Code::NoSuchService, "tcp 10.0.0.1:80", "add it");
        assert_eq!(refusal_text(&exact), "No such service");
    }

    #[test]
    fn an_answer_without_details_is_still_told() {
        let status = tonic::Status::permission_denied("uid 1000");
        assert_eq!(refusal_text(&status), "Permission denied (you must be root)");
        let status = tonic::Status::internal("worker 1 is gone");
        assert_eq!(refusal_text(&status), "Internal error\nworker 1 is gone");
    }
}
