//! When frames may leave: tokens by the clock, in bounded bursts.
//!
//! At a rate of R, R tokens come each second, evenly. Whoever asks late gets what has come since,
//! but never more than a millisecond's worth (or one burst, if that is more): the rest is
//! forfeited, not made up for, because a source that catches up sends a rate that nobody asked for.
//! What was forfeited shows as a rate below the wanted one.

/// Most frames at once.
pub const BURST: u32 = 64;

/// See the module's documentation. Times are nanoseconds of one clock.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Frames per second; `None`: as many as can be.
    rate: Option<u64>,
    start: u64,
    /// Tokens used or forfeited since `start`.
    gone: u64,
}

impl Pace {
    /// Tokens come from `start` on.
    #[must_use]
    pub const fn new(rate: Option<u64>, start: u64) -> Self {
        Self {
            rate,
            start,
            gone: 0,
        }
    }

    /// How many may leave now, at most `most`.
    pub fn due(&mut self, now: u64, most: u32) -> u32 {
        let Some(rate) = self.rate else {
            return most;
        };
        let come = tokens(rate, now.saturating_sub(self.start));
        let keep = keep(rate);
        let there = come.saturating_sub(self.gone);
        self.gone += there.saturating_sub(keep);
        u32::try_from(there.min(keep)).unwrap_or(u32::MAX).min(most)
    }

    /// So many have left.
    pub fn took(&mut self, frames: u32) {
        self.gone += u64::from(frames);
    }
}

/// Tokens that do not expire at `rate`: a millisecond's, or a burst's.
#[must_use]
pub fn keep(rate: u64) -> u64 {
    (rate / 1_000).max(u64::from(BURST))
}

/// Tokens that `nanoseconds` bring: one at the very beginning, then one each period.
fn tokens(rate: u64, nanoseconds: u64) -> u64 {
    let whole = u128::from(nanoseconds) * u128::from(rate) / 1_000_000_000;
    u64::try_from(whole).unwrap_or(u64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt as _, SeedableRng as _};

    /// Frames that leave within a second when it is asked at `times`, and the largest burst.
    fn sent(rate: u64, times: impl Iterator<Item = u64>) -> (u64, u32) {
        let mut pace = Pace::new(Some(rate), 5_000);
        let (mut frames, mut largest) = (0, 0);
        for time in times {
            let due = pace.due(5_000 + time, BURST);
            pace.took(due);
            frames += u64::from(due);
            largest = largest.max(due);
        }
        (frames, largest)
    }

    #[test]
    fn the_rate_is_kept_exactly_whoever_often_asks() {
        for rate in [1, 7, 999, 10_000, 1_000_003] {
            let each_microsecond = (0..1_000_000u64).map(|n| n * 1_000);
            let (frames, largest) = sent(rate, each_microsecond);
            assert_eq!(frames, rate * 999_999 / 1_000_000 + 1, "rate {rate}");
            assert!(largest <= 2, "rate {rate}: bursts of {largest}");
        }
    }

    #[test]
    fn uneven_asking_changes_bursts_and_not_the_rate() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut time = 0;
        // Up to 100 microseconds apart at 500,000 a second: 50 frames at most have come.
        let times = std::iter::from_fn(|| {
            time += random.random_range(0..100_000u64);
            (time < 1_000_000_000).then_some(time)
        });
        let (frames, largest) = sent(500_000, times);
        assert!((499_940..=500_000).contains(&frames), "{frames}");
        assert!(largest <= 51, "{largest}");
    }

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let rate = 1_000_000;
        let mut pace = Pace::new(Some(rate), 0);
        pace.took(1);
        // Half a second of silence; then a millisecond's worth in bursts, and no more.
        let mut frames = 0;
        for _ in 0..100 {
            let due = pace.due(500_000_000, BURST);
            assert!(due <= BURST);
            pace.took(due);
            frames += due;
        }
        assert_eq!(frames, 1_000);
        assert_eq!(pace.due(500_001_000, BURST), 1);
    }

    #[test]
    fn without_a_rate_it_is_as_many_as_fit() {
        let mut pace = Pace::new(None, 0);
        assert_eq!(pace.due(0, 17), 17);
    }
}
