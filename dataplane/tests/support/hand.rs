//! A clock that stands still until it is moved by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringgate_dataplane::clock::{Clock, Millis};

/// Nanoseconds from one reading of the fine clock to the next.
const READING_NS: u64 = 5_000;

/// Time as the test says. Only the nanoseconds go on by themselves, with each reading.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hand(Arc<AtomicU64>, Arc<AtomicU64>);

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

    fn nanoseconds(&self) -> u64 {
        // Relaxed: one thread.
        self.1.fetch_add(READING_NS, Ordering::Relaxed)
    }
}
