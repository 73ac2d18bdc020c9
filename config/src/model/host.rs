//! How the process lives on its host: the tables `[log]` and `[process]`.

use super::words::{LogFormat, LogLevel};

/// The log: the table `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub(crate) format: LogFormat,
    pub(crate) level: LogLevel,
    pub(crate) flows: Option<u32>,
}

impl Log {
    /// For whom it is written.
    pub const fn format(&self) -> LogFormat {
        self.format
    }

    /// The least weighty that is written.
    pub const fn level(&self) -> LogLevel {
        self.level
    }

    /// Of how many flows one is logged, with its beginning, its end and its bytes; at least 1. `None`: none is.
    pub const fn flows(&self) -> Option<u32> {
        self.flows
    }
}

/// What the process is allowed once it is up: the table `[process]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) seccomp: bool,
}

impl Process {
    /// The user to become, by name. `None`: the one that it was started as.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The group to become, by name. `None`: the user's. There is none without a user.
    pub fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// Whether system calls are confined to what a running balancer uses.
    pub const fn seccomp(&self) -> bool {
        self.seccomp
    }
}
