//! How long packets stay with a worker: from before they are taken from the RX ring until after the
//! devices were told to send. Measured of one turn in so many.
//!
//! All packets of a turn come after its begin and have left by its end, so each stayed no longer
//! than the turn took: that is what is counted for each of them. What a packet waited in the RX ring
//! before its turn is not in it; nothing that a worker can read tells that.
//!
//! Who does not measure pays one comparison a turn ([`Sampler::is_due`]). Who does reads a clock twice
//! in each turn that is chosen, and writes two or three words.

use crate::counters::Counter;

/// Upper ends of the classes, nanoseconds, each inclusive. Above the last there is one more. From a
/// turn with one packet (about a microsecond) to a worker that lost its CPU for a while.
pub const BOUNDS_NS: [u64; 22] = [
    1_000, 2_000, 3_000, 5_000, 7_000, 10_000, 15_000, 20_000, 30_000, 50_000, 70_000, 100_000,
    150_000, 200_000, 300_000, 500_000, 700_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
    50_000_000,
];

/// How many classes there are.
pub const CLASSES: usize = BOUNDS_NS.len() + 1;

/// What one worker has measured. It alone writes; anybody may read.
#[derive(Debug)]
pub struct Residence {
    classes: [Counter; CLASSES],
    nanoseconds: Counter,
}

// By hand: the array's length is no literal to everybody.
impl Default for Residence {
    fn default() -> Self {
        Self {
            classes: std::array::from_fn(|_| Counter::default()),
            nanoseconds: Counter::default(),
        }
    }
}

impl Residence {
    /// Counts so many packets that stayed so long; only the owning worker may call this.
    pub fn record(&self, packets: u64, nanoseconds: u64) {
        let class = BOUNDS_NS.partition_point(|bound| *bound < nanoseconds);
        if let Some(counter) = self.classes.get(class) {
            counter.add(packets);
        }
        self.nanoseconds.add(packets.saturating_mul(nanoseconds));
    }

    /// Adds what has been measured so far to `sum`.
    pub fn add_to(&self, sum: &mut Measured) {
        for (sum, class) in sum.classes.iter_mut().zip(&self.classes) {
            *sum += class.get();
        }
        sum.nanoseconds = sum.nanoseconds.wrapping_add(self.nanoseconds.get());
    }
}

/// Readings of one worker, or sums of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// Packets by class, those of [`BOUNDS_NS`] first.
    pub classes: [u64; CLASSES],
    /// The time of all of them together, modulo 2^64.
    pub nanoseconds: u64,
}

impl Measured {
    /// How many packets were measured.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// The time in nanoseconds within which `per_mille` of 1,000 packets left, as if those of one class
    /// were spread evenly in it. `None` if nothing was measured. What stayed longer than the last bound
    /// counts as the bound.
    #[must_use]
    pub fn quantile(&self, per_mille: u64) -> Option<u64> {
        let all = self.packets();
        let rank = all.saturating_mul(per_mille).div_ceil(1000).max(1);
        let mut before = 0;
        let mut low = 0;
        for (count, high) in self.classes.iter().zip(BOUNDS_NS) {
            if before + count >= rank {
                let within = u128::from(high - low) * u128::from(rank - before);
                let within = within.div_ceil(u128::from(*count));
                return Some(low + u64::try_from(within).unwrap_or(0));
            }
            before += count;
            low = high;
        }
        (all > 0).then_some(low)
    }
}

/// Chooses the turns that are measured: one in so many, at a fixed pace, whether or not they bring packets.
#[derive(Debug)]
pub struct Sampler {
    every: u32,
    left: u32,
}

impl Sampler {
    /// One turn in `every`; 0: none.
    #[must_use]
    pub const fn new(every: u32) -> Self {
        Self { every, left: every }
    }

    /// Whether this turn is to be measured. Once a turn.
    #[inline]
    pub const fn is_due(&mut self) -> bool {
        // Without measuring it counts down from 2^32 again and again.
        self.left = self.left.wrapping_sub(1);
        self.left == 0 && self.rewind()
    }

    #[cold]
    #[inline(never)]
    const fn rewind(&mut self) -> bool {
        self.left = self.every;
        self.every > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(packets: &[(u64, u64)]) -> Measured {
        let residence = Residence::default();
        for (packets, nanoseconds) in packets {
            residence.record(*packets, *nanoseconds);
        }
        let mut sum = Measured::default();
        residence.add_to(&mut sum);
        sum
    }

    #[test]
    fn a_bound_belongs_to_the_class_that_it_ends() {
        let below = measured(&[(3, 1_000)]);
        assert_eq!((below.classes[0], below.packets()), (3, 3));
        let above = measured(&[(3, 1_001)]);
        assert_eq!((above.classes[1], above.nanoseconds), (3, 3_003));
        let beyond = measured(&[(2, u64::MAX)]);
        assert_eq!(beyond.classes[CLASSES - 1], 2);
        assert!(BOUNDS_NS.is_sorted());
    }

    #[test]
    fn workers_add_up() {
        let mut sum = measured(&[(1, 900)]);
        let other = Residence::default();
        other.record(2, 900);
        other.record(5, 40_000);
        other.add_to(&mut sum);
        assert_eq!(sum, measured(&[(3, 900), (5, 40_000)]));
    }

    #[test]
    fn quantiles_stand_within_the_class_of_their_rank() {
        assert_eq!(measured(&[]).quantile(500), None);
        // 100 packets below a microsecond, 100 between 5 and 7.
        let two = measured(&[(100, 800), (100, 6_000)]);
        assert_eq!(two.quantile(500), Some(1_000));
        assert_eq!(two.quantile(250), Some(500));
        assert_eq!(two.quantile(750), Some(6_000));
        assert_eq!(two.quantile(1000), Some(7_000));
        assert_eq!(measured(&[(1, u64::MAX)]).quantile(990), Some(50_000_000));
    }

    #[test]
    fn one_turn_in_so_many_is_due() {
        let due = |every, turns| {
            let mut sampler = Sampler::new(every);
            (0..turns).filter(|_| sampler.is_due()).count()
        };
        assert_eq!((due(64, 640), due(64, 63), due(1, 5)), (10, 0, 5));
        let mut never = Sampler { every: 0, left: 2 };
        assert!(!never.is_due() && !never.is_due() && !never.is_due());
    }
}
