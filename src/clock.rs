//! The clock that the data path is handed.

use ringgate_dataplane::clock::{Clock, Millis};
use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of the system's monotonic clock (`CLOCK_MONOTONIC`), which starts with the kernel.
///
/// Not the process's own age: times in the flow table are this clock's, and whoever else reads the
/// table has to tell how old a flow is. Another process has the same clock, unless it is in another
/// time namespace; a BPF program has it as `bpf_ktime_get_ns`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Monotonic;

impl Clock for Monotonic {
    fn now(&self) -> Millis {
        let [seconds, nanoseconds] = read();
        Millis(seconds * 1000 + nanoseconds / 1_000_000)
    }

    fn nanoseconds(&self) -> u64 {
        let [seconds, nanoseconds] = read();
        seconds * 1_000_000_000 + nanoseconds
    }
}

/// The clock's seconds, and the nanoseconds of the current one.
fn read() -> [u64; 2] {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither is negative: the clock starts at 0.
    [now.tv_sec, now.tv_nsec].map(|number| u64::try_from(number).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_time_since_boot_for_every_copy() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let (one, two) = (Monotonic, Monotonic);
        let (earlier, later) = (one.now(), two.now());
        assert!(earlier <= later);
        // Uptime is CLOCK_BOOTTIME: the same, but for the time that a machine was suspended.
        assert!(earlier.seconds().0 as f64 <= seconds + 60.0);
        assert!(later > Millis(0));
        // Finer, and the same clock.
        let fine = one.nanoseconds();
        assert!(later.0 <= fine / 1_000_000 && fine / 1_000_000 <= two.now().0);
    }
}
