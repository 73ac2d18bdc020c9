//! A clock that stands still until it is moved by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringgate_dataplane::clock::{Clock, Millis};

/// Time as the test says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hand(Arc<AtomicU64>);

impl Hand {
    /// Moves time on.
    pub(crate) fn advance(&self, millis: u64) {
        // Relaxed: one thread.
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> Millis {
        // Relaxed: one thread.
        Millis(self.0.load(Ordering::Relaxed))
    }
}
