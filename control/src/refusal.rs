//! Why a change was refused: what is wrong, where, and what to do.

pub use pointsman_proto::v1::refusal::Code;

/// One reason for which a configuration or a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}; {remedy}")]
pub struct Refusal {
    /// The kind, which ipvsadm's messages follow.
    pub code: Code,
    /// The field, as a path: `services[2].servers[0].weight`.
    pub field: String,
    /// What is wrong: what was expected, and what was found.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl Refusal {
    /// A refusal of any kind.
    pub fn new(
        code: Code,
        field: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { code, field: field.into(), reason: reason.into(), remedy: remedy.into() }
    }

    /// A value that cannot be.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Code::Invalid, field, reason, remedy)
    }
}
