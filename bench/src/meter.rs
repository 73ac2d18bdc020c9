//! CPU time and packet counts of a window, and memory.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// CPU time that the calling thread has used, in user and kernel mode together.
#[must_use]
pub fn thread_cpu() -> Duration {
    reading(ClockId::ThreadCPUTime)
}

/// Time that has passed for everybody, since some moment.
#[must_use]
pub fn elapsed() -> Duration {
    reading(ClockId::Monotonic)
}

fn reading(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The current instant.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures time: this is where it asks"
)]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// One of the kernel's counters of an interface of this namespace, such as `rx_packets`.
///
/// # Errors
///
/// When there is no such interface or counter.
pub fn interface_counter(interface: &str, counter: &str) -> std::io::Result<u64> {
    let path = Path::new("/sys/class/net")
        .join(interface)
        .join("statistics")
        .join(counter);
    let text = std::fs::read_to_string(path)?;
    text.trim().parse().map_err(std::io::Error::other)
}
