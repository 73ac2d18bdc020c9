//! What memory costs on this machine, taken in the same run as what is compared with it.
//!
//! Three figures: a random DRAM access that the next one waits for, one of many that are under
//! way together since their addresses are known beforehand, and copying one cache line to another,
//! both in the cache. No table of many flows can be cheaper than the second, no packet can be
//! moved for less than the third.
//!
//! The pages are ordinary ones, as the flow table's are: a random access includes its TLB miss.

use std::hint::black_box;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::micro::order::Walk;
use crate::micro::sample::{median, nanoseconds, on_cores};

/// Addresses known beforehand, and lines copied: a worker's batch.
const BATCH: usize = 64;

/// How many batches are drawn: far more lines than any cache of today holds.
const BATCHES: usize = 64 * 1024;

/// Multiplier and increment of a full-period congruential sequence modulo a power of two (Hull and
/// Dobell, 1962); the multiplier is Knuth's for MMIX.
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const INCREMENT: u64 = 1_442_695_040_888_963_407;

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MachineLimits {
    /// A random DRAM access whose address comes from the one before, nanoseconds.
    pub dependent_ns: f64,
    /// A random DRAM access among others, nanoseconds.
    pub prefetched_ns: f64,
    /// 64 bytes from cache to cache, nanoseconds.
    pub copy_ns: f64,
    /// Bytes that the random accesses are spread over.
    pub region_bytes: u64,
}

/// A cache line that is copied.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Bytes(#[expect(dead_code, reason = "only moved, never looked at")] [u8; 64]);

/// A cache line that names the next one to look at.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line(u64);

/// Measures on one CPU, over a region of `1 << log2_bytes` bytes.
///
/// # Errors
///
/// In words: there is no CPU to be had.
pub fn measure(log2_bytes: u32, accesses: u64, samples: usize) -> Result<MachineLimits, String> {
    let region_bytes = 1u64 << log2_bytes.max(16);
    let mask = region_bytes / 64 - 1;
    let lines: Vec<Line> = (0..=mask).map(|line| Line(next(line, mask))).collect();
    let far = draw(mask);
    let figures = on_cores(&mut [()], |(), _| {
        let mut taken: [Vec<f64>; 3] = Default::default();
        let (mut position, mut walk) = (0, Walk::new(&far));
        for _ in 0..samples {
            let [dependent, prefetched, copy] = &mut taken;
            dependent.push(chase(&lines, accesses, &mut position));
            prefetched.push(scatter(&lines, &mut walk, accesses));
            copy.push(copy_lines(accesses));
        }
        taken.map(median)
    })?;
    let Some([dependent_ns, prefetched_ns, copy_ns]) = figures.first().copied() else {
        return Err("nothing was measured".to_owned());
    };
    Ok(MachineLimits {
        dependent_ns,
        prefetched_ns,
        copy_ns,
        region_bytes,
    })
}

/// All lines in turn, each once, in an order that no prefetcher follows.
const fn next(line: u64, mask: u64) -> u64 {
    // The low bits of such a sequence have short periods: they go to the low bits of the line
    // number, which only choose within a page; the page is chosen by the high ones.
    line.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT) & mask
}

fn at(lines: &[Line], line: u64) -> u64 {
    let index = usize::try_from(line).unwrap_or(usize::MAX);
    lines.get(index).map_or(0, |line| line.0)
}

fn chase(lines: &[Line], accesses: u64, position: &mut u64) -> f64 {
    nanoseconds(accesses, || {
        for _ in 0..accesses {
            *position = at(lines, *position);
        }
    })
}

/// Lines in random order.
fn draw(mask: u64) -> Vec<u32> {
    let mut dice = StdRng::seed_from_u64(1);
    let mask = u32::try_from(mask).unwrap_or(u32::MAX);
    (0..BATCH * BATCHES)
        .map(|_| dice.next_u32() & mask)
        .collect()
}

/// Such accesses with their addresses known beforehand: plain loads that nothing waits for, as
/// many under way as the CPU can have.
fn scatter(lines: &[Line], walk: &mut Walk<'_>, accesses: u64) -> f64 {
    let mut sum = 0u64;
    let figure = nanoseconds(accesses, || {
        for _ in 0..accesses / BATCH as u64 {
            for line in walk.burst() {
                sum = sum.wrapping_add(at(lines, u64::from(*line)));
            }
        }
    });
    black_box(sum);
    figure
}

/// Between places that stay in the first-level cache.
fn copy_lines(count: u64) -> f64 {
    let from = [Bytes([1; 64]); BATCH];
    let mut to = [Bytes([0; 64]); BATCH];
    // Which goes where is not known to the compiler, or it would copy all of them as one.
    let places: [usize; BATCH] = std::array::from_fn(|place| place * 37 % BATCH);
    nanoseconds(count, || {
        for _ in 0..count / BATCH as u64 {
            let (from, places) = (black_box(&from), black_box(&places));
            for (to, place) in to.iter_mut().zip(places) {
                *to = from.get(*place % BATCH).copied().unwrap_or(Bytes([0; 64]));
            }
            black_box(&mut to);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chase_meets_every_line_once() {
        let mask = (1 << 12) - 1;
        let (mut line, mut seen) = (0, std::collections::HashSet::new());
        while seen.insert(line) {
            line = next(line, mask);
        }
        assert_eq!((seen.len(), line), (1 << 12, 0));
    }

    #[test]
    fn all_three_are_measured() {
        let limits = measure(20, 6_400, 3).unwrap();
        assert!(limits.dependent_ns > 0.0 && limits.prefetched_ns > 0.0);
        assert!(limits.copy_ns > 0.0);
        assert_eq!(limits.region_bytes, 1 << 20);
    }
}
