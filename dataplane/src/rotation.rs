//! Turns: whose the next new flow is, each backend as often as its weight says.
//!
//! With weights divided by what they have in common, let W be their sum: a cycle. The weights lie side
//! by side on a circle of W places, and turn *n* goes to whoever has place *n · s* mod W. The step *s*
//! has no divisor in common with W, so each place has its turn once in a cycle: **any W consecutive turns
//! give each backend exactly its weight**. The step is W over the golden ratio, whose multiples lie
//! as evenly as any step's (Knuth, TAOCP vol. 3, 6.4, theorem S), so a backend's turns are spread over the
//! cycle instead of coming in a row.
//!
//! That costs one addition to a counter that all workers share and a search of log2(backends) steps;
//! the smooth rotation of nginx and LVS keeps and changes a number for each backend with every turn.
//! The counter lives on through snapshots: a change of weights begins another cycle, not the same one again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

/// How many turns there have been. Shared by all workers and by all rotations of a service.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<CachePadded<AtomicU64>>);

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Rotation {
    turns: Turns,
    /// For each backend, where on the circle its places end.
    ends: Box<[u64]>,
    cycle: u64,
    step: u64,
}

impl Rotation {
    /// The rotation of backends with these weights, 0 for those that have no turn; `None` when all
    /// are 0.
    #[must_use]
    pub fn new(weights: &[u32], turns: Turns) -> Option<Self> {
        let common = weights.iter().fold(0, |a, b| gcd(a, u64::from(*b)));
        let mut cycle = 0;
        let ends = weights
            .iter()
            .map(|weight| {
                cycle += u64::from(*weight).checked_div(common).unwrap_or(0);
                cycle
            })
            .collect();
        // 2^64 over the golden ratio.
        let golden = (u128::from(cycle) * 0x9E37_79B9_7F4A_7C15) >> 64;
        let mut step = u64::try_from(golden).unwrap_or(0).max(1);
        while cycle > 0 && gcd(step, cycle) != 1 {
            step += 1;
        }
        (cycle > 0).then_some(Self {
            turns,
            ends,
            cycle,
            step,
        })
    }

    /// Takes a turn: the position of the backend whose it is.
    #[must_use]
    pub fn take(&self) -> usize {
        // Relaxed: each turn is taken once, which is all.
        self.at(self.turns.0.fetch_add(1, Ordering::Relaxed))
    }

    /// Whose turn is next, if nobody takes it before.
    #[must_use]
    pub fn peek(&self) -> usize {
        // Relaxed: see `take`.
        self.at(self.turns.0.load(Ordering::Relaxed))
    }

    /// The same, and from now on with turns of its own.
    #[must_use]
    pub(crate) fn apart(&self) -> Self {
        // Relaxed: see `take`.
        let turns = self.turns.0.load(Ordering::Relaxed);
        Self {
            turns: Turns(Arc::new(CachePadded::new(AtomicU64::new(turns)))),
            ..self.clone()
        }
    }

    fn at(&self, turn: u64) -> usize {
        let place = u128::from(turn) * u128::from(self.step) % u128::from(self.cycle);
        self.ends.partition_point(|end| u128::from(*end) <= place)
    }
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_apart_goes_on_from_the_same_turn_by_itself() {
        let rotation = Rotation::new(&[1, 1, 1], Turns::default()).unwrap();
        let _first = rotation.take();
        let apart = rotation.apart();
        assert_eq!(apart.take(), rotation.peek());
        assert_ne!(apart.peek(), rotation.peek());
    }

    const POOLS: &[&[u32]] = &[
        &[1],
        &[1, 1, 1],
        &[5, 1, 1],
        &[100, 100, 0, 50],
        &[7, 0, 3, 11, 2],
        &[65_535, 1],
        &[3; 100],
        &[0, 0, 9],
    ];

    #[test]
    fn any_cycle_gives_each_backend_its_weight_exactly() {
        for weights in POOLS {
            let rotation = Rotation::new(weights, Turns::default()).unwrap();
            let cycle = usize::try_from(rotation.cycle).unwrap();
            let common = weights.iter().fold(0, |a, b| gcd(a, u64::from(*b)));
            let turns: Vec<usize> = (0..cycle * 2).map(|_| rotation.take()).collect();
            for start in [0, 1, cycle / 3, cycle] {
                let mut counts = vec![0; weights.len()];
                for backend in &turns[start..start + cycle] {
                    counts[*backend] += 1;
                }
                let expected: Vec<u64> = weights.iter().map(|w| u64::from(*w) / common).collect();
                assert_eq!(counts, expected, "{weights:?} from {start}");
            }
        }
    }

    #[test]
    fn turns_are_spread_over_the_cycle() {
        for weights in POOLS {
            let rotation = Rotation::new(weights, Turns::default()).unwrap();
            let total: u32 = weights.iter().sum();
            let mut counts = vec![0_u32; weights.len()];
            for turn in 1..=u32::try_from(rotation.cycle).unwrap() {
                counts[rotation.take()] += 1;
                for (count, weight) in counts.iter().zip(*weights) {
                    let share = f64::from(turn) * f64::from(*weight) / f64::from(total);
                    let off = (f64::from(*count) - share).abs();
                    assert!(off < 2.0, "{weights:?} at {turn}: {counts:?}");
                }
            }
        }
    }

    #[test]
    fn without_a_weight_there_is_no_turn_and_a_look_takes_none() {
        assert!(Rotation::new(&[], Turns::default()).is_none());
        assert!(Rotation::new(&[0, 0], Turns::default()).is_none());
        let rotation = Rotation::new(&[2, 1], Turns::default()).unwrap();
        for _ in 0..6 {
            let next = rotation.peek();
            assert_eq!((rotation.peek(), rotation.take()), (next, next));
        }
    }

    #[test]
    fn workers_share_the_turns() {
        let turns = Turns::default();
        let rotation = Rotation::new(&[1, 2, 3], turns.clone()).unwrap();
        let taken: Vec<usize> = std::thread::scope(|scope| {
            let worker = || (0..3000).map(|_| rotation.take()).collect::<Vec<_>>();
            let threads = [scope.spawn(worker), scope.spawn(worker)];
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        let counts = [0, 1, 2].map(|backend| taken.iter().filter(|b| **b == backend).count());
        assert_eq!(counts, [1000, 2000, 3000]);
        // The next rotation of the service goes on where this one was.
        let next = Rotation::new(&[1; 7], turns).unwrap();
        assert_eq!(next.peek(), next.at(6000));
    }
}
