//! A control thread that was held up: by a busy host, or by a call that took its time.
//!
//! While it is, time runs out for checks whose answers lie there unread. Such a check says nothing of the
//! backend: it is inconclusive once. If the next one comes to the same it counts, for a balancer that is
//! always late must still see who is dead.

use std::time::{Duration, Instant};

/// The part of a check's time that the thread must have been away for to be to blame, as a divisor.
const PART: u32 = 4;

/// When the loop last turned, and how long it was away when it last came late.
#[derive(Debug)]
pub(crate) struct Stall {
    turned: Instant,
    away: Duration,
    until: Instant,
}

impl Stall {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            turned: now,
            away: Duration::ZERO,
            until: now,
        }
    }

    /// The loop has come around. It does so each `period` at least, if nothing holds it up.
    pub(crate) fn turn(&mut self, period: Duration, now: Instant) {
        let away = now.saturating_duration_since(self.turned);
        self.turned = now;
        if away > 2 * period {
            (self.away, self.until) = (away, now);
        }
    }

    /// Whether a check that began then and had this long may have run out of time because nobody looked.
    pub(crate) fn is_to_blame(&self, began: Instant, limit: Duration) -> bool {
        began < self.until && self.away >= limit / PART
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(20);

    #[test]
    fn it_is_to_blame_for_what_ran_while_it_was_away_for_long() {
        let start = crate::control::clock::now();
        let at = |millis| start + Duration::from_millis(millis);
        let limit = |millis| Duration::from_millis(millis);
        let mut stall = Stall::new(start);
        for turn in 1..10 {
            stall.turn(PERIOD, at(turn * 20));
        }
        assert!(!stall.is_to_blame(at(100), limit(1)), "it was never away");
        stall.turn(PERIOD, at(480));
        assert!(stall.is_to_blame(at(100), limit(1000)));
        assert!(stall.is_to_blame(at(479), limit(1200)));
        assert!(
            !stall.is_to_blame(at(100), limit(1201)),
            "short beside its time"
        );
        assert!(
            !stall.is_to_blame(at(480), limit(400)),
            "it began after that"
        );
        stall.turn(PERIOD, at(500));
        assert!(
            stall.is_to_blame(at(100), limit(1000)),
            "an answer is read a turn later"
        );
    }
}
