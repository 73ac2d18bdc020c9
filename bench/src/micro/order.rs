//! In which order flows are met. Seeded, so that two runs meet them alike; made beforehand, so that
//! no dice are thrown while time is taken.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand_distr::{Distribution as _, Zipf};

/// Flows handed out together: a full batch.
pub const BURST: usize = 64;

/// Fewest places of an order, so that going round is rare even with one flow.
const SHORTEST: usize = 4096;

/// Most draws of a Zipf order.
const DRAWS: usize = 4_000_000;

/// The exponent of Zipf's law: the second most busy flow has half the packets of the first.
const EXPONENT: f64 = 1.0;

/// Flows `first .. first + count` in an order in which each comes once before any comes again.
#[must_use]
pub fn uniform(first: u32, count: u32, seed: u64) -> Vec<u32> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut order = Vec::new();
    let mut flows: Vec<u32> = (first..first + count.max(1)).collect();
    loop {
        flows.shuffle(&mut dice);
        order.extend_from_slice(&flows);
        if order.len() >= SHORTEST {
            break;
        }
    }
    // Whole bursts only, unless that would leave out a flow.
    let whole = order.len() / BURST * BURST;
    if whole >= flows.len() {
        order.truncate(whole);
    }
    order
}

/// Few of `count` flows have most of the packets.
///
/// # Errors
///
/// In words: a number of flows that the distribution does not take.
pub fn zipf(count: u32, seed: u64) -> Result<Vec<u32>, String> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut flows: Vec<u32> = (0..count.max(1)).collect();
    flows.shuffle(&mut dice);
    let ranks = Zipf::new(f64::from(count.max(1)), EXPONENT).map_err(|error| error.to_string())?;
    let draws = (0..DRAWS.min(SHORTEST.max(flows.len() * 4)) / BURST * BURST).map(|_| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank is a whole number from 1 to count"
        )]
        let rank = ranks.sample(&mut dice) as usize;
        flows.get(rank - 1).copied().unwrap_or(0)
    });
    Ok(draws.collect())
}

/// Goes through an order, and round again.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    order: &'a [u32],
    next: usize,
}

impl<'a> Walk<'a> {
    /// From the beginning.
    #[must_use]
    pub const fn new(order: &'a [u32]) -> Self {
        Self { order, next: 0 }
    }

    /// The next burst; shorter than [`BURST`] only at the end of the order.
    #[inline]
    pub fn burst(&mut self) -> &'a [u32] {
        if self.next >= self.order.len() {
            self.next = 0;
        }
        let end = (self.next + BURST).min(self.order.len());
        let burst = self.order.get(self.next..end).unwrap_or_default();
        self.next = end;
        burst
    }
}

/// The share of one of `shares` threads, from 0; the whole order when it is too short to share.
#[must_use]
pub fn share(order: &[u32], index: usize, shares: usize) -> &[u32] {
    let each = order.len() / shares.max(1) / BURST * BURST;
    order
        .get(index * each..(index + 1) * each)
        .filter(|share| !share.is_empty())
        .unwrap_or(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_meets_all_before_any_again_and_not_in_turn() {
        for (first, count) in [(0, 1), (7, 1_000), (0, 64_000)] {
            let order = uniform(first, count, 1);
            let mut once = order[..count as usize].to_vec();
            assert!(count == 1 || !once.is_sorted());
            once.sort_unstable();
            assert_eq!(once, (first..first + count).collect::<Vec<_>>());
            assert_eq!(order.len() % BURST, 0);
        }
        assert_eq!(uniform(0, 1_000, 1), uniform(0, 1_000, 1));
        assert_ne!(uniform(0, 1_000, 1), uniform(0, 1_000, 2));
    }

    #[test]
    fn zipf_prefers_few() {
        let order = zipf(10_000, 1).unwrap();
        let mut counts = vec![0u32; 10_000];
        order.iter().for_each(|flow| counts[*flow as usize] += 1);
        counts.sort_unstable();
        let busiest: u32 = counts.iter().rev().take(100).sum();
        // The first hundred of ten thousand have H(100) / H(10,000) = 0.53 of the packets.
        assert!((0.48..0.58).contains(&(f64::from(busiest) / order.len() as f64)));
    }

    #[test]
    fn a_walk_goes_round_and_shares_are_disjoint() {
        let order: Vec<u32> = (0..100).collect();
        let mut walk = Walk::new(&order);
        assert_eq!(walk.burst().len(), 64);
        assert_eq!(walk.burst(), &order[64..]);
        assert_eq!(walk.burst()[0], 0);
        let order: Vec<u32> = (0..256).collect();
        assert_eq!(share(&order, 0, 2), &order[..128]);
        assert_eq!(share(&order, 1, 2), &order[128..]);
        assert_eq!(share(&order[..64], 1, 2).len(), 64);
    }
}
