//! What trials at one load say of it: a lower bound, an upper bound, or not yet.
//!
//! The logic is that of MLRsearch (draft-ietf-bmwg-mlrsearch-15, to be RFC 9971): section 4.7.2
//! and appendix A classify a load, section 4.8.3 and appendix B give what it forwarded. Section
//! numbers in this room are the draft's.

/// What is searched for (section 4.6.7).
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    /// What the result is called.
    pub name: &'static str,
    /// Loss that a trial may have and count as low-loss (section 4.6.3), 0 to below 1.
    pub loss_ratio: f64,
    /// Share of trial time at a load that may be high-loss all the same (section 4.6.4). One half
    /// makes it the median of the trials, which is what the draft recommends for noisy systems.
    pub exceed_ratio: f64,
    /// Trials of at least this length, seconds, count in full (section 4.6.1).
    pub final_trial: f64,
    /// Length of the first trials, seconds (section 4.6.6).
    pub initial_trial: f64,
    /// Trial time that decides about a load, seconds (section 4.6.2).
    pub duration_sum: f64,
    /// How far the bounds may be apart at the end, as a share of the upper (section 4.6.5).
    pub width: f64,
}

/// One trial's result (section 4.5.10).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Frames per second that were asked for and offered (section 4.5.2).
    pub load: f64,
    /// How long it was to last, seconds (section 4.5.1).
    pub seconds: f64,
    /// How long it counts, seconds (section 4.5.8): what it took from the time that there is.
    pub effective: f64,
    /// Share of the frames that did not come back (section 4.5.6).
    pub loss_ratio: f64,
}

/// What a load is for a goal (section 4.7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The goal is met here.
    Lower,
    /// It is not.
    Upper,
    /// More trials will tell.
    Undecided,
}

impl Goal {
    /// What these trials, all at one load, say of it (appendix A).
    #[must_use]
    pub fn classify(&self, trials: &[Trial]) -> Bound {
        let sums = Sums::of(self, trials);
        let balancing = sums.short_low * self.exceed_ratio / (1.0 - self.exceed_ratio);
        let high = sums.full_high + (sums.short_high - balancing).max(0.0);
        let whole = (sums.full_low + high).max(self.duration_sum);
        let tolerated = whole * self.exceed_ratio;
        // Pessimistic: what is missing of the time would be high-loss. Optimistic: low-loss.
        match (whole - sums.full_low <= tolerated, high <= tolerated) {
            (true, true) => Bound::Lower,
            (false, false) => Bound::Upper,
            _ => Bound::Undecided,
        }
    }

    /// Frames per second that the load forwards, by the trial at the exceed ratio's quantile
    /// (appendix B). Meaningful for a lower bound.
    #[must_use]
    pub fn conditional_throughput(&self, load: f64, trials: &[Trial]) -> f64 {
        let mut full: Vec<&Trial> = trials.iter().filter(|one| self.is_full(one)).collect();
        full.sort_by(|a, b| a.loss_ratio.total_cmp(&b.loss_ratio));
        let measured: f64 = full.iter().map(|one| one.effective).sum();
        let mut remaining = measured.max(self.duration_sum) * (1.0 - self.exceed_ratio);
        let mut quantile = None;
        for trial in full {
            if quantile.is_some() && remaining <= 0.0 {
                break;
            }
            quantile = Some(trial.loss_ratio);
            remaining -= trial.effective;
        }
        let loss = if remaining > 0.0 { Some(1.0) } else { quantile };
        load * (1.0 - loss.unwrap_or(1.0))
    }

    fn is_full(&self, trial: &Trial) -> bool {
        trial.seconds >= self.final_trial
    }
}

/// Effective seconds of a load's trials, by length and loss.
#[derive(Debug, Default)]
struct Sums {
    full_low: f64,
    full_high: f64,
    short_low: f64,
    short_high: f64,
}

impl Sums {
    fn of(goal: &Goal, trials: &[Trial]) -> Self {
        let mut sums = Self::default();
        for trial in trials {
            let is_low = trial.loss_ratio <= goal.loss_ratio;
            *match (goal.is_full(trial), is_low) {
                (true, true) => &mut sums.full_low,
                (true, false) => &mut sums.full_high,
                (false, true) => &mut sums.short_low,
                (false, false) => &mut sums.short_high,
            } += trial.effective;
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(final_trial: f64, duration_sum: f64, loss_ratio: f64, exceed_ratio: f64) -> Goal {
        Goal {
            name: "example",
            loss_ratio,
            exceed_ratio,
            final_trial,
            initial_trial: 1.0,
            duration_sum,
            width: 0.01,
        }
    }

    /// Appendix C.1.
    fn example_goals() -> [Goal; 4] {
        [
            goal(60.0, 60.0, 0.0, 0.0),
            goal(60.0, 120.0, 0.0, 0.5),
            goal(1.0, 120.0, 0.005, 0.5),
            goal(60.0, 60.0, 0.005, 0.2),
        ]
    }

    fn trials(of: &[(usize, f64, f64)]) -> Vec<Trial> {
        let one = |&(count, seconds, loss_ratio): &(usize, f64, f64)| {
            let trial = Trial {
                load: 1e6,
                seconds,
                effective: seconds,
                loss_ratio,
            };
            std::iter::repeat_n(trial, count)
        };
        of.iter().flat_map(one).collect()
    }

    #[test]
    fn the_drafts_example_is_classified_as_the_draft_has_it() {
        use Bound::{Lower, Undecided, Upper};
        // Appendix C.2: short trials without loss, then with; a long one with 0.1 %, one with 0.
        let all = [
            (59, 1.0, 0.0),
            (1, 1.0, 0.01),
            (59, 1.0, 0.01),
            (1, 1.0, 0.0),
            (1, 60.0, 0.001),
            (1, 60.0, 0.0),
        ];
        let expected = [
            [Undecided, Undecided, Undecided, Undecided],
            [Upper, Undecided, Undecided, Undecided],
            [Upper, Undecided, Undecided, Upper],
            [Upper, Undecided, Lower, Upper],
            [Upper, Undecided, Lower, Upper],
            [Upper, Lower, Lower, Upper],
        ];
        for (point, expected) in expected.iter().enumerate() {
            let known = trials(&all[..=point]);
            let found = example_goals().map(|goal| goal.classify(&known));
            assert_eq!(&found, expected, "point {}", point + 1);
        }
    }

    #[test]
    fn nothing_measured_is_undecided() {
        for goal in example_goals() {
            assert_eq!(goal.classify(&[]), Bound::Undecided);
        }
    }

    #[test]
    fn throughput_is_the_quantile_of_the_trials() {
        let median = goal(1.0, 4.0, 0.005, 0.5);
        let known = trials(&[(2, 1.0, 0.004), (2, 1.0, 0.3)]);
        assert_eq!(median.classify(&known), Bound::Lower);
        let forwarded = median.conditional_throughput(1e6, &known);
        assert!((forwarded - 996_000.0).abs() < 1e-6, "{forwarded}");
        // With too few trials the rest counts as lost.
        assert_eq!(median.conditional_throughput(1e6, &known[..1]), 0.0);
        // Short ones do not count.
        assert_eq!(
            median.conditional_throughput(1e6, &trials(&[(9, 0.5, 0.0)])),
            0.0
        );
    }
}
