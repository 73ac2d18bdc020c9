//! Time as the data path knows it. It is handed in: nothing here asks the operating system.

use ringgate_conntrack::Seconds;

/// A moment on a clock that never goes back, in milliseconds since an arbitrary start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The moment in whole seconds, as the flow table keeps it: enough for 136 years.
    #[inline]
    #[must_use]
    pub fn seconds(self) -> Seconds {
        Seconds(u32::try_from(self.0 / 1000).unwrap_or(u32::MAX))
    }
}

/// A source of [`Millis`]. A worker asks once a turn.
///
/// Every worker of a process must be given clocks that agree, since they share the flow table.
pub trait Clock: Send {
    /// The moment now.
    fn now(&self) -> Millis;

    /// The same moment in nanoseconds, to measure short times with ([`residence`](crate::residence)), and
    /// once a batch while a [`tap`](crate::tap) is on. A
    /// clock that knows no better gives its milliseconds.
    fn nanoseconds(&self) -> u64 {
        self.now().0.saturating_mul(1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_become_whole_seconds() {
        assert_eq!(Millis(0).seconds(), Seconds(0));
        assert_eq!(Millis(1999).seconds(), Seconds(1));
        assert_eq!(Millis(u64::MAX).seconds(), Seconds(u32::MAX));
    }
}
