//! Where real time enters the control thread, and the only place where it does.
//!
//! Everything that decides (health, admin, netlink state) takes the time as an argument; the loop
//! reads it once a turn through [`now`] and hands it on. The epoll driver reads it too, because a
//! deadline is relative to the moment an operation starts.

use std::time::{Instant, SystemTime};

/// The current instant of the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the control thread reads a clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time of day, for people and records; nothing is decided by it.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the control thread reads this clock"
)]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
