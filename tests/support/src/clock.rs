//! The tests' clock: for bounds that operators were promised and for giving up, nothing else.

use std::time::{Duration, Instant};

/// How often [`until`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The time.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the tests read a clock"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets time pass where the passing of time is itself the condition.
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Looks again and again until there is something to see, and returns it.
///
/// # Panics
///
/// When nothing was seen in `within`; `what` says what was waited for.
pub fn until<T>(within: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + within;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(now() < deadline, "waited {within:?} in vain until {what}");
        pause(LOOK_EVERY);
    }
}
