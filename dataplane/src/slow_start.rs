//! Slow start: a backend that comes back gets its share of new flows step by step.
//!
//! In step *n* of [`STEPS`] it has *n* / [`STEPS`] of its configured weight: an eighth at once, the
//! whole when the time is up. Only ratios count, so backends that come back together share the
//! flows as their weights say, and one that is alone gets them all.
//!
//! Every step makes a new ring, and moves to the backend what the step adds to its share: all
//! steps together move what one change would have moved, and a little more each time (what a ring
//! moves without need, `docs/MAGLEV.md`). So there are few steps.

use std::time::Duration;

use ringgate_config::limits::WEIGHT_MAX;

use crate::clock::Millis;

/// How many steps there are. A power of two: a ring of weights that are all multiplied by one is
/// the same ring, so that nothing moves when a slow start begins or ends but the backend's share.
pub const STEPS: u32 = 8;

const _: () = assert!(STEPS.is_power_of_two() && WEIGHT_MAX <= u32::MAX / STEPS);

/// Which step a slow start is in, from 1 to [`STEPS`], when it began at `begun` and takes
/// `duration`.
#[must_use]
pub fn step(begun: Millis, duration: Duration, now: Millis) -> u32 {
    let passed = u128::from(now.0.saturating_sub(begun.0));
    (passed * u128::from(STEPS - 1))
        .checked_div(duration.as_millis())
        .and_then(|steps| u32::try_from(steps).ok())
        .map_or(STEPS, |steps| steps.saturating_add(1).min(STEPS))
}

/// When the step after `step` begins; `None` after the last.
#[must_use]
pub fn next(begun: Millis, duration: Duration, step: u32) -> Option<Millis> {
    if step >= STEPS {
        return None;
    }
    let passed = (duration.as_millis() * u128::from(step)).div_ceil(u128::from(STEPS - 1));
    let passed = u64::try_from(passed).unwrap_or(u64::MAX);
    Some(Millis(begun.0.saturating_add(passed)))
}

#[cfg(test)]
mod tests {
    use ringgate_conntrack::Endpoint;

    use super::*;
    use crate::maglev::{Member, Ring};

    #[test]
    fn it_begins_with_the_first_step_and_is_over_when_its_time_is() {
        let (begun, duration) = (Millis(500), Duration::from_secs(30));
        assert_eq!(step(begun, duration, Millis(500)), 1);
        assert_eq!(step(begun, duration, Millis(30_499)), STEPS - 1);
        assert_eq!(step(begun, duration, Millis(30_500)), STEPS);
        assert_eq!(step(begun, duration, Millis(u64::MAX)), STEPS);
        // A clock that is behind.
        assert_eq!(step(begun, duration, Millis(0)), 1);
        assert_eq!(step(begun, Duration::ZERO, Millis(500)), STEPS);
    }

    #[test]
    fn a_ring_of_weights_in_steps_is_the_ring_of_the_weights() {
        let ring = |factor: u32| {
            let member = |host: u8, weight: u32| Member {
                identity: Endpoint::from_socket(([10, 2, 0, host], 8080).into()),
                weight: weight * factor,
            };
            let weights = [1, 2, 3, 100, 100, 101, 999, WEIGHT_MAX];
            let members = (0..)
                .zip(weights)
                .map(|(host, weight)| member(host, weight));
            Ring::build(65_537, &members.collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(ring(1).moved(&ring(STEPS)), 0);
        assert_ne!(
            ring(1).moved(&ring(STEPS - 1)),
            0,
            "or it need not be a power of two"
        );
    }

    #[test]
    fn every_step_begins_when_it_is_said_to() {
        for millis in [1, 6, 7, 8, 1000, 30_000, 3_600_000] {
            let (begun, duration) = (Millis(77), Duration::from_millis(millis));
            let mut now = begun;
            let mut seen = step(begun, duration, now);
            while let Some(due) = next(begun, duration, seen) {
                assert!(due > now, "{millis} ms, step {seen}");
                assert_eq!(step(begun, duration, Millis(due.0 - 1)), seen);
                now = due;
                assert!(step(begun, duration, now) > seen);
                seen = step(begun, duration, now);
            }
            assert_eq!((seen, now.0), (STEPS, 77 + millis));
        }
    }
}
