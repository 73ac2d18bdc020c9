//! Timers of many connections: a wheel of buckets, looked at in turn.
//!
//! A timer is not taken out when it is no longer needed: whoever gets it asks the connection.

/// Nanoseconds of one bucket.
const TICK: u64 = 8_000_000;

/// Buckets: eight seconds and more. Later timers come early, and are put in again.
const BUCKETS: usize = 1_024;

/// See the module's documentation. Times are nanoseconds of one clock.
#[derive(Debug)]
pub struct Wheel {
    buckets: Vec<Vec<u64>>,
    /// The next tick to look at.
    next: u64,
    due: Vec<u64>,
}

impl Wheel {
    /// Without timers, from `now` on.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self {
            buckets: vec![Vec::new(); BUCKETS],
            next: now / TICK,
            due: Vec::new(),
        }
    }

    /// Puts `what` in for `deadline`.
    pub fn put(&mut self, deadline: u64, what: u64) {
        // Never in the bucket that is being looked at; and no further than around once.
        let furthest = self.next + BUCKETS as u64 - 1;
        let tick = (deadline / TICK + 1).clamp(self.next, furthest);
        self.buckets[bucket(tick)].push(what);
    }

    /// What is due at `now`, in the order of its ticks: not before its deadline, if that was no
    /// further away than the wheel is large, and at most two ticks after it.
    pub fn due(&mut self, now: u64) -> &[u64] {
        self.due.clear();
        let last = now / TICK;
        // After a long pause each bucket is looked at once.
        let first = self.next.max((last + 1).saturating_sub(BUCKETS as u64));
        for tick in first..=last {
            self.due.append(&mut self.buckets[bucket(tick)]);
        }
        self.next = self.next.max(last + 1);
        &self.due
    }
}

fn bucket(tick: u64) -> usize {
    // Below BUCKETS.
    usize::try_from(tick % BUCKETS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_due_once_and_in_time() {
        let start = 123_456_789;
        let mut wheel = Wheel::new(start);
        let deadlines: Vec<u64> = (0..500u64).map(|n| start + n * 7_777_777).collect();
        for (number, deadline) in (0..).zip(&deadlines) {
            wheel.put(*deadline, number);
        }
        let mut seen = vec![0; deadlines.len()];
        for now in (start..start + 4_000_000_000).step_by(1_000_003) {
            for number in wheel.due(now) {
                let number = usize::try_from(*number).unwrap();
                seen[number] += 1;
                assert!(deadlines[number] <= now, "{number} is early");
                assert!(
                    now - deadlines[number] <= 2 * TICK + 1_000_003,
                    "{number} is late"
                );
            }
        }
        assert_eq!(seen, vec![1; deadlines.len()]);
    }

    #[test]
    fn a_long_pause_loses_none_and_one_too_far_away_comes_early() {
        let mut wheel = Wheel::new(0);
        wheel.put(1_000_000_000, 1);
        wheel.put(1_000_000_000_000, 2);
        let due = wheel.due(50_000_000_000).to_vec();
        assert_eq!(due, [1, 2]);
        wheel.put(50_000_000_000, 3);
        assert_eq!(wheel.due(50_100_000_000), [3]);
    }
}
