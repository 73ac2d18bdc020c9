//! The search for the highest rates at which loss stays below its goals: MLRsearch as a state
//! machine that names the next trial and is told its result.
//!
//! It knows no clock and starts nothing: [`Search::ask`] asks for a trial, [`Search::tell`] has
//! its result, [`run`] puts both around a closure. It ends after [`Limits::trials`] trials and
//! [`Limits::seconds`] of trial time, whatever it is told: every question costs one, and every
//! answer is made a number from 0 to 1.
//!
//! What is specified (draft-ietf-bmwg-mlrsearch-15, section 4) is what a load counts as
//! ([`crate::method::classify`]), which bounds are relevant (4.8.1, 4.8.2) and what is reported
//! (4.8.4). Which load is tried next is an implementation's choice (4.9.2). Here: the rate that
//! comes out of the highest load begins (1.1, RFC 2285 section 3.6.2); each goal is first met
//! coarsely, by short trials, then by final ones; a bound that is missing is looked for in growing
//! steps, an interval with both ends is halved.

use crate::method::classify::{Bound, Goal, Trial};

/// What a search may use, and where it looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Least load, frames per second.
    pub least: f64,
    /// Highest load, frames per second: what the source was calibrated to.
    pub most: f64,
    /// Most trials.
    pub trials: usize,
    /// Most trial time in sum, seconds.
    pub seconds: f64,
}

/// A trial that is to be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ask {
    /// Frames per second.
    pub load: f64,
    /// For how long.
    pub seconds: f64,
}

/// What a trial said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer {
    /// The load was offered; so much of it was lost, 0 to 1.
    Lost(f64),
    /// The source managed only so many frames per second, so this says nothing of the device. It is
    /// asked once more; then the search goes no higher than that, or than what it once managed.
    SourceLimited(f64),
}

/// Why a goal's search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The bounds are as near each other as the goal wants.
    Width,
    /// The goal is met at the highest load: the device may do more (4.8.4, an irregular result).
    MostOffered,
    /// It is met at the highest load that the source can make: the device may do more.
    Source,
    /// It is not met at the least load (irregular).
    NothingMeets,
    /// Trials or time were used up: the bounds are right, but wide, or one is missing.
    UsedUp,
}

impl End {
    /// As results have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Width => "width",
            Self::MostOffered => "most-offered",
            Self::Source => "source",
            Self::NothingMeets => "nothing-meets",
            Self::UsedUp => "used-up",
        }
    }
}

/// The result for a goal (4.8.4).
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What was searched for.
    pub goal: Goal,
    /// Highest load below the upper bound at which the goal is met (4.8.2), frames per second.
    pub lower: Option<f64>,
    /// Least load at which it is not (4.8.1).
    pub upper: Option<f64>,
    /// Frames per second that come out at the lower bound (4.8.3).
    pub throughput: Option<f64>,
    /// Why no further.
    pub end: End,
}

/// One goal, or its coarse forerunner.
#[derive(Debug, Clone)]
struct Target {
    goal: Goal,
    /// Steps taken to find a missing bound; each is twice the one before.
    steps: i32,
    /// Whether it is a forerunner.
    is_coarse: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Search {
    limits: Limits,
    goals: Vec<Goal>,
    targets: Vec<Target>,
    /// The target in focus.
    at: usize,
    trials: Vec<Trial>,
    /// The load that is measured until it is decided.
    open: Option<f64>,
    asked: Option<Ask>,
    /// The one before.
    last: Option<Ask>,
    count: usize,
    spent: f64,
    is_source_limited: bool,
    /// The load that the source did not manage at its last attempt.
    unmanaged: Option<f64>,
}

/// How many times wider a forerunner's interval may be.
const COARSE: f64 = 4.0;

/// How much below what it managed the source is asked for next.
const SOURCE_MARGIN: f64 = 0.98;

impl Search {
    /// A search for `goals` within `limits`. The goals are met in this order: the least tolerant
    /// first leaves the most known to the others.
    #[must_use]
    pub fn new(goals: &[Goal], limits: Limits) -> Self {
        let targets = goals
            .iter()
            .flat_map(|goal| {
                let coarse = Goal {
                    final_trial: goal.initial_trial,
                    duration_sum: goal.initial_trial,
                    width: (goal.width * COARSE).min(0.5),
                    ..goal.clone()
                };
                [(coarse, true), (goal.clone(), false)]
            })
            .map(|(goal, is_coarse)| Target {
                goal,
                steps: 0,
                is_coarse,
            })
            .collect();
        Self {
            limits,
            goals: goals.to_vec(),
            targets,
            at: 0,
            trials: Vec::new(),
            open: None,
            asked: None,
            last: None,
            count: 0,
            spent: 0.0,
            is_source_limited: false,
            unmanaged: None,
        }
    }

    /// The trial to make next, or none: then the search has ended.
    pub fn ask(&mut self) -> Option<Ask> {
        if self.count >= self.limits.trials || self.limits.most < self.limits.least {
            return None;
        }
        let ask = self.choose()?;
        if self.spent + ask.seconds > self.limits.seconds {
            return None;
        }
        self.asked = Some(ask);
        Some(ask)
    }

    /// What the trial that was asked for last has shown. Nothing without one.
    pub fn tell(&mut self, answer: Answer) {
        let Some(ask) = self.asked.take() else { return };
        self.last = Some(ask);
        self.count += 1;
        self.spent += ask.seconds;
        match answer {
            Answer::Lost(ratio) => {
                self.unmanaged = None;
                self.trials.push(Trial {
                    load: ask.load,
                    seconds: ask.seconds,
                    effective: ask.seconds,
                    // What is not a number lost everything; more out than in lost nothing.
                    loss_ratio: if ratio.is_nan() {
                        1.0
                    } else {
                        ratio.clamp(0.0, 1.0)
                    },
                });
            }
            Answer::SourceLimited(_) if self.unmanaged != Some(ask.load) => {
                self.unmanaged = Some(ask.load);
            }
            Answer::SourceLimited(managed) => self.lower_the_top(ask.load, managed),
        }
    }

    /// The source managed so much when it was asked for `load`, twice.
    fn lower_the_top(&mut self, load: f64, managed: f64) {
        self.is_source_limited = true;
        self.open = None;
        let managed = if managed.is_finite() { managed } else { 0.0 };
        // What it did manage before was no accident; what it did not now may be one.
        let before = self.trials.iter().map(|trial| trial.load);
        let before = before.filter(|&before| before < load).fold(0.0, f64::max);
        let top = (managed.min(load) * SOURCE_MARGIN).max(before);
        self.limits.most = self.limits.most.min(top);
    }

    /// What was found for each goal.
    #[must_use]
    pub fn results(&self) -> Vec<Found> {
        self.goals.iter().map(|goal| self.result(goal)).collect()
    }

    /// All trials, in the order in which they were made.
    #[must_use]
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    fn result(&self, goal: &Goal) -> Found {
        let (lower, upper) = self.bounds(goal);
        let end = match (lower, upper) {
            (Some(low), Some(high)) if is_narrow(low, high, goal.width) => End::Width,
            (Some(low), None) if self.is_top(low) && self.is_source_limited => End::Source,
            (Some(low), None) if self.is_top(low) => End::MostOffered,
            (None, Some(high)) if high <= self.limits.least => End::NothingMeets,
            _ => End::UsedUp,
        };
        Found {
            throughput: lower.map(|load| goal.conditional_throughput(load, &self.at_load(load))),
            goal: goal.clone(),
            lower,
            upper,
            end,
        }
    }

    fn choose(&mut self) -> Option<Ask> {
        if let (Some(ask), Some(load)) = (self.last, self.unmanaged)
            && load <= self.limits.most
        {
            return Some(ask);
        }
        // Each turn of this loop leaves a target behind or returns.
        while let Some(target) = self.targets.get(self.at).cloned() {
            if let Some(load) = self.load_for(&target) {
                self.open = Some(load);
                let seconds = if target.is_coarse {
                    target.goal.initial_trial
                } else {
                    target.goal.final_trial
                };
                return Some(Ask { load, seconds });
            }
            self.open = None;
            self.at += 1;
        }
        None
    }

    /// The load that tells most about a target; none when it is met.
    fn load_for(&mut self, target: &Target) -> Option<f64> {
        let Limits { least, most, .. } = self.limits;
        if self.trials.is_empty() {
            return Some(most);
        }
        let goal = &target.goal;
        if let Some(open) = self.open
            && goal.classify(&self.at_load(open)) == Bound::Undecided
            && open <= most
        {
            return Some(open);
        }
        let hint = self.hint();
        match self.bounds(goal) {
            (Some(low), Some(high)) if is_narrow(low, high, goal.width) => None,
            (Some(low), Some(high)) => self.between(low, high, target, hint),
            (Some(low), None) if self.is_top(low) => None,
            (Some(low), None) => {
                let further = low * (1.0 + self.step(goal));
                let hinted = hint.1.filter(|&hint| hint > low);
                Some(hinted.unwrap_or(further).min(most))
            }
            (None, Some(high)) if high <= least => None,
            (None, Some(high)) => {
                let further = high * (1.0 - self.step(goal).min(0.9));
                let hinted = hint.0.filter(|&hint| hint < high);
                Some(hinted.unwrap_or(further).max(least))
            }
            (None, None) => Some(hint.0.unwrap_or(most).clamp(least, most)),
        }
    }

    /// A load within an interval: what the coarse search found, if it lies inside, so that
    /// nothing is halved that is known; else the middle.
    fn between(
        &self,
        low: f64,
        high: f64,
        target: &Target,
        hint: (Option<f64>, Option<f64>),
    ) -> Option<f64> {
        let inside = |load: &f64| *load > low * 1.000_1 && *load < high * 0.999_9;
        let hinted = [hint.0, hint.1].into_iter().flatten().find(inside);
        let middle = (low * high).sqrt();
        let load = hinted.filter(|_| !target.is_coarse).unwrap_or(middle);
        // An interval that floating point cannot divide is met.
        inside(&load).then_some(load)
    }

    /// Where to look first: the bounds of the target before; for the first one what comes out of
    /// the highest load (RFC 2285, section 3.6.2), if not all of it.
    fn hint(&self) -> (Option<f64>, Option<f64>) {
        if let Some(before) = self.at.checked_sub(1).and_then(|at| self.targets.get(at)) {
            return self.bounds(&before.goal);
        }
        let first = self.trials.first();
        let forwarded = first.map(|trial| trial.load * (1.0 - trial.loss_ratio));
        (forwarded.filter(|&rate| rate > self.limits.least), None)
    }

    /// The next step towards a missing bound, as a share of the load: twice the one before.
    fn step(&mut self, goal: &Goal) -> f64 {
        let Some(target) = self.targets.get_mut(self.at) else {
            return goal.width;
        };
        target.steps += 1;
        goal.width * 2f64.powi(target.steps.min(16))
    }

    /// Relevant bounds (4.8.1, 4.8.2): the least upper bound, and the highest lower one below it.
    fn bounds(&self, goal: &Goal) -> (Option<f64>, Option<f64>) {
        let mut loads: Vec<f64> = self.trials.iter().map(|trial| trial.load).collect();
        loads.sort_by(f64::total_cmp);
        loads.dedup();
        let classes = loads
            .iter()
            .map(|&load| (load, goal.classify(&self.at_load(load))));
        let mut lower = None;
        for (load, bound) in classes {
            match bound {
                Bound::Lower => lower = Some(load),
                Bound::Upper => return (lower, Some(load)),
                Bound::Undecided => {}
            }
        }
        (lower, None)
    }

    fn at_load(&self, load: f64) -> Vec<Trial> {
        let same = |trial: &&Trial| trial.load == load;
        self.trials.iter().filter(same).copied().collect()
    }

    fn is_top(&self, load: f64) -> bool {
        load >= self.limits.most * 0.999_9
    }
}

fn is_narrow(low: f64, high: f64, width: f64) -> bool {
    high - low <= width * high
}

/// Searches with `trial` as the measurer (4.9.1).
///
/// # Errors
///
/// The first of `trial`'s.
pub fn run<E>(
    search: &mut Search,
    mut trial: impl FnMut(Ask) -> Result<Answer, E>,
) -> Result<Vec<Found>, E> {
    while let Some(ask) = search.ask() {
        let answer = trial(ask)?;
        search.tell(answer);
    }
    Ok(search.results())
}

#[cfg(test)]
mod tests;
