//! How long is measured, and in which time all has to be done.

use std::time::{Duration, Instant};

use crate::meter;
use crate::method::classify::Goal;
use crate::method::outcome::{Absence, Step};
use crate::method::search::Limits;

/// Lengths and numbers of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// Rounds in which contestants take turns.
    pub(crate) rounds: usize,
    /// Length of a window, seconds.
    pub(crate) window: f64,
    /// Before it, for flows to be there, seconds.
    pub(crate) warmup: f64,
    /// A trial of the search, seconds.
    pub(crate) trial: f64,
    /// How far a search's bounds may be apart.
    pub(crate) width: f64,
    /// Traffic of a disturbance, seconds.
    pub(crate) disturbed: f64,
    /// How many flows are compared unless flows are.
    pub(crate) flows: u32,
    /// Length of idling, seconds.
    pub(crate) idle: f64,
    /// Connections that are held at once.
    pub(crate) held: u32,
}

impl Plan {
    /// What fits into a few minutes.
    pub(crate) const fn full() -> Self {
        Self {
            rounds: 12,
            window: 1.0,
            warmup: 0.6,
            trial: 1.0,
            width: 0.05,
            disturbed: 4.0,
            flows: 100_000,
            idle: 5.0,
            held: 100_000,
        }
    }

    /// Whether everything works.
    pub(crate) const fn quick() -> Self {
        Self {
            rounds: 1,
            window: 0.5,
            warmup: 0.3,
            trial: 0.3,
            width: 0.2,
            disturbed: 3.0,
            flows: 100_000,
            idle: 1.0,
            held: 1_000,
        }
    }

    /// Rounds of what has many rows: fewer, but still a median.
    pub(crate) fn few_rounds(&self) -> usize {
        self.rounds.min(3)
    }

    /// Rounds of what is measured before all else, and again when there is time.
    pub(crate) fn first_rounds(&self) -> usize {
        self.rounds.min(2)
    }

    /// Without loss, and with half a per cent (the draft's section 4.6).
    pub(crate) fn goals(&self) -> [Goal; 2] {
        [("ndr", 0.0), ("pdr", 0.005)].map(|(name, loss_ratio)| Goal {
            name,
            loss_ratio,
            exceed_ratio: 0.5,
            final_trial: self.trial,
            initial_trial: self.trial / 2.0,
            duration_sum: self.trial * 3.0,
            width: self.width,
        })
    }

    /// Of a search. The highest load is more than a veth carries: the source says what it can.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            least: 1_000.0,
            most: 2_000_000.0,
            trials: 60,
            seconds: self.trial * 25.0,
        }
    }

    /// What a program of traffic takes beyond its traffic, seconds: to start, to open its sockets and
    /// load its programs, to see that nothing comes any more, to end.
    pub(crate) const SHOT: f64 = 0.3;

    /// What starting and ending a contestant takes, with its lane, seconds.
    pub(crate) const START: f64 = 0.8;
}

/// The time that there is, who got some, and who did not.
#[derive(Debug)]
pub(crate) struct Budget {
    start: Instant,
    limit: Duration,
    steps: usize,
    done: usize,
    pub(crate) taken: Vec<Step>,
    pub(crate) skipped: Vec<Absence>,
}

/// How much slower than planned a host may be found to be, for what comes next.
const SLOWEST: f64 = 3.0;

impl Budget {
    /// For so many steps.
    pub(crate) fn new(limit: Duration, steps: usize) -> Self {
        Self {
            start: meter::now(),
            limit,
            steps,
            done: 0,
            taken: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Seconds that have passed.
    pub(crate) fn passed(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Seconds that are left.
    fn left(&self) -> f64 {
        self.limit
            .saturating_sub(self.start.elapsed())
            .as_secs_f64()
    }

    /// By how much what was done took longer than it was expected to.
    fn slowness(&self) -> f64 {
        let took: f64 = self.taken.iter().map(|step| step.took).sum();
        let expected: f64 = self.taken.iter().map(|step| step.expected).sum();
        (took / expected.max(1.0)).clamp(1.0, SLOWEST)
    }

    /// Whether there is time for a step that needs so many seconds; if not it is noted.
    pub(crate) fn has_time_for(&mut self, what: &str, seconds: f64) -> bool {
        self.done += 1;
        let (left, seconds) = (self.left(), seconds * self.slowness());
        if seconds <= left {
            eprintln!(
                "[{}/{}] {what}: about {seconds:.0} s of {left:.0} s that are left",
                self.done, self.steps
            );
            return true;
        }
        let why = format!("no time: it takes about {seconds:.0} s, and {left:.0} s are left");
        eprintln!("[{}/{}] {what}: {why}", self.done, self.steps);
        self.skip(what, why);
        false
    }

    /// Notes how long a step took.
    pub(crate) fn took(&mut self, what: &str, expected: f64, took: Duration) {
        let took = took.as_secs_f64();
        eprintln!("  took {took:.1} s");
        let what = what.to_owned();
        self.taken.push(Step {
            what,
            expected,
            took,
        });
    }

    /// Notes what was not measured.
    pub(crate) fn skip(&mut self, what: &str, why: String) {
        let what = what.to_owned();
        let absence = Absence { what, why };
        if !self.skipped.contains(&absence) {
            self.skipped.push(absence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_and_said() {
        let mut budget = Budget::new(Duration::from_secs(100), 3);
        assert!(budget.has_time_for("rates", 60.0));
        assert!(!budget.has_time_for("much", 101.0));
        assert!(budget.has_time_for("little", 1.0));
        let [skipped] = budget.skipped.as_slice() else {
            panic!("{:?}", budget.skipped);
        };
        assert_eq!(skipped.what, "much");
        assert!(skipped.why.contains("101 s"), "{}", skipped.why);
    }

    #[test]
    fn a_host_that_is_slow_is_asked_for_less() {
        let mut budget = Budget::new(Duration::from_secs(100), 3);
        budget.took("rates", 10.0, Duration::from_secs(20));
        assert!(budget.has_time_for("half", 49.0));
        assert!(!budget.has_time_for("more than half", 51.0));
        assert_eq!(budget.taken[0].took, 20.0);
        // And a fast one not for more than was planned.
        budget.took("rates", 100.0, Duration::from_secs(1));
        assert!(!budget.has_time_for("all", 101.0));
    }

    #[test]
    fn a_search_is_within_its_trials() {
        for plan in [Plan::full(), Plan::quick()] {
            let longest = plan.limits().seconds;
            assert!(longest <= 25.0 * plan.trial);
            // Both goals and the highest load fit in it several times.
            assert!(
                plan.goals()
                    .iter()
                    .all(|goal| goal.duration_sum * 4.0 < longest)
            );
        }
    }
}
