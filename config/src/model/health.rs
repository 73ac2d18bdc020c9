//! When a backend counts as up, and how many of them a service needs.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::{Check, Forward, Passive, Via};

/// How the backends of a service are checked: the key `health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub(crate) check: Option<Arc<Check>>,
    pub(crate) port: Option<NonZeroU16>,
    pub(crate) via: Via,
    pub(crate) pace: Pace,
    pub(crate) report_ttl: Option<Duration>,
}

impl Health {
    /// What a check does. `None`: there is none, its backends are only reported.
    pub const fn check(&self) -> Option<&Arc<Check>> {
        self.check.as_ref()
    }

    /// The port checked in place of the backend's; never 0.
    pub fn port(&self) -> Option<u16> {
        self.port.map(NonZeroU16::get)
    }

    /// By which way a backend with this mode is asked. Translated packets of clients go to the backend's own address and port,
    /// as any check does: there both ways are one.
    pub const fn via(&self, forward: Forward) -> Via {
        match forward {
            Forward::Nat | Forward::FullNat => Via::Backend,
            Forward::DsrL2 | Forward::Ipip | Forward::Gue | Forward::Gre => self.via,
        }
    }

    /// When checks start, and what follows from how they end.
    pub const fn pace(&self) -> &Pace {
        &self.pace
    }

    /// How long what an outside agent says of a backend counts. `None`: nothing is taken from one. Where
    /// there is no check there always is this.
    pub const fn report_ttl(&self) -> Option<Duration> {
        self.report_ttl
    }
}

/// When checks start, and what follows from how they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pace {
    /// From the start of one check to the start of the next, at most.
    pub interval: Duration,
    /// By up to so much sooner each check starts, at random. With the timeout no longer than the
    /// interval.
    pub jitter: Duration,
    /// The same as the interval from the first result that speaks against a backend's side until it
    /// has changed sides or not; no longer than the interval. Signs in the traffic bring a check
    /// forward once in this time at most.
    pub fast_interval: Duration,
    /// How long a check may take before it has failed; no longer than the interval.
    pub timeout: Duration,
    /// Good checks in a row that bring a backend up; at least 1.
    pub rise: u32,
    /// Failed checks in a row that take a backend down; at least 1.
    pub fall: u32,
    /// When changing sides is changing too often. `None`: never.
    pub flap: Option<Flap>,
    /// What signs in the traffic do; anything but off only of TCP services with a `nat` or `full-nat`
    /// backend, and with a fast interval that is shorter.
    pub passive: Passive,
}

/// When changing sides is too often, and what follows: a backend that goes down then is held down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flap {
    /// So many changes are too many; at least 1.
    pub changes: u32,
    /// In so much time.
    pub within: Duration,
    /// How long the first hold is. Each further one is twice as long as the one before.
    pub hold: Duration,
    /// But never longer than this.
    pub most: Duration,
}

/// How many of a service's backends must be healthy: the key `min-healthy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MinHealthy {
    /// So many; at least 1.
    Count(u32),
    /// So many of a hundred, 1 to 100.
    Percent(u8),
}

impl MinHealthy {
    /// How many that are of so many backends; a share is rounded up.
    pub fn of(self, backends: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Self::Percent(percent) => (backends * usize::from(percent)).div_ceil(100),
        }
    }
}

impl fmt::Display for MinHealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up() {
        let half = MinHealthy::Percent(50);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|n| half.of(n)), [0, 1, 1, 2, 2, 3]);
        assert_eq!(MinHealthy::Percent(1).of(10_000), 100);
        assert_eq!(MinHealthy::Percent(100).of(7), 7);
        assert_eq!(MinHealthy::Count(3).of(2), 3);
        assert_eq!(
            [half, MinHealthy::Count(3)].map(|least| least.to_string()),
            ["50%", "3"]
        );
    }
}
