//! The clock that the data path is handed.

use std::time::Instant;

use ringgate_dataplane::clock::{Clock, Millis};

use crate::control;

/// Milliseconds since the process started. Copies agree, since they count from the same moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Monotonic {
    start: Instant,
}

impl Monotonic {
    /// A clock that starts now.
    pub(crate) fn new() -> Self {
        Self {
            start: control::clock::now(),
        }
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Millis {
        Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
