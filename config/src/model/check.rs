//! What a health check asks of a backend, by kind.

use super::HealthKind;

/// One way to ask a backend whether it works: what `health` says besides when to ask.
///
/// Plain data that is equal where it asks the same: backends of several services that are asked alike
/// are asked once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Check {
    /// Opens a TCP connection and closes it again.
    Tcp,
}

impl Check {
    /// How the file calls its kind.
    pub const fn kind(&self) -> HealthKind {
        match self {
            Self::Tcp => HealthKind::Tcp,
        }
    }
}
