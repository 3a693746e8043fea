//! Why a command of `pointsman` ended without doing what it was told.

use std::io;

use pointsman_proto::v1::Refusal;
use prost::Message as _;
use thiserror::Error;

use super::client::Unreachable;

/// The end of a command that did not succeed.
#[derive(Debug, Error)]
pub enum CliError {
    /// Whoever read the output has stopped reading (`| head`): not worth a word.
    #[error("the reader of the output is gone")]
    PipeClosed,
    /// What is wrong, and what to do about it.
    #[error("{what}\n  {remedy}")]
    Failed {
        /// One line, naming the thing that is wrong.
        what: String,
        /// One line.
        remedy: String,
    },
}

impl CliError {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), remedy: remedy.into() }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::PipeClosed,
            _ => Self::new(
                format!("cannot write the output: {error}"),
                "check the terminal, the pipe or the disk that the output goes to",
            ),
        }
    }
}

impl From<Unreachable> for CliError {
    fn from(error: Unreachable) -> Self {
        Self::new(error.to_string(), error.remedy())
    }
}

impl From<tonic::Status> for CliError {
    fn from(status: tonic::Status) -> Self {
        match Refusal::decode(status.details()) {
            Ok(refusal) if !refusal.reason.is_empty() => {
                // "service: the service ..." says nothing that the reason does not.
                let is_path = refusal.field.contains(['.', '[']);
                let at = if is_path { format!("{}: ", refusal.field) } else { String::new() };
                let remedy = match refusal.remedy.as_str() {
                    "" => "nothing was changed; correct this and try again",
                    remedy => remedy,
                };
                Self::new(format!("{at}{}", refusal.reason), remedy)
            }
            _ => Self::new(
                format!("the director did not do it: {} ({})", status.message(), status.code()),
                status_remedy(status.code()),
            ),
        }
    }
}

fn status_remedy(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Unimplemented => "pointsmand and pointsman differ; install both of the same version",
        tonic::Code::PermissionDenied => "run it as root, or as the user that pointsmand runs as",
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => {
            "see whether pointsmand still runs and what its log says; ask `pointsman show` what is in force"
        }
        tonic::Code::Internal | tonic::Code::Unknown => "pointsmand's log says more; this should not happen",
        _ => "nothing was changed; correct this and try again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_proto::v1::refusal::Code;

    #[test]
    fn a_refusal_names_the_field_the_reason_and_the_remedy() {
        let refusal = Refusal {
            code: Code::Invalid.into(),
            field: "services[2].servers[0].weight".into(),
            reason: "weight 70000 is above 65535".into(),
            remedy: "give a weight of 0..65535".into(),
        };
        let status = tonic::Status::with_details(
            tonic::Code::InvalidArgument,
            "refused",
            refusal.encode_to_vec().into(),
        );
        assert_eq!(
            CliError::from(status).to_string(),
            "services[2].servers[0].weight: weight 70000 is above 65535\n  give a weight of 0..65535"
        );
    }

    #[test]
    fn a_field_that_is_no_path_is_left_to_the_reason() {
        let refusal = Refusal {
            code: Code::NoSuchAddress.into(),
            field: "address".into(),
            reason: "192.168.10.201 is not up".into(),
            remedy: "`pointsman show` lists those that are".into(),
        };
        let status = tonic::Status::with_details(tonic::Code::NotFound, "", refusal.encode_to_vec().into());
        let expected = "192.168.10.201 is not up\n  `pointsman show` lists those that are";
        assert_eq!(CliError::from(status).to_string(), expected);
    }

    #[test]
    fn a_status_without_details_is_told_with_its_code() {
        let error = CliError::from(tonic::Status::unavailable("connection lost"));
        let text = error.to_string();
        assert!(text.starts_with("the director did not do it: connection lost ("), "{text}");
        assert!(text.contains("\n  see whether pointsmand still runs"), "{text}");
    }

    #[test]
    fn a_closed_pipe_is_not_an_error_to_speak_of() {
        let error = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(matches!(error, CliError::PipeClosed));
    }
}
