//! How checks are carried out: one small state machine for each, fed completions, asking for operations.
//!
//! A machine ([`Probe`]) never does I/O itself and never waits: [`Prober::start`] lets it begin, the loop
//! hands each completion to [`Prober::completed`], and the machine says what is to be done next or how the
//! check has ended. What it owns (socket, buffers) travels with its operations, and is dropped with them.
//!
//! # Promises
//! 1. A check that was begun is answered exactly once: ended, or refused by a driver that is full.
//! 2. It ends within its timeout: every operation is limited to what is left of it.
//! 3. It takes bounded memory and a bounded number of operations, whatever the backend sends.
//! 4. Nothing here blocks: no name is looked up and no file is read when a check begins.
//!
//! | file | carries out |
//! |---|---|
//! | [`tcp`] | `tcp`: a handshake |

use std::time::{Duration, Instant};

use ringgate_config::Check;

use super::driver::{Driver, Failure, Operation, OperationId, Outcome, Refused};
use super::health::{CheckId, Start, Verdict};
use super::slab::{Key, Slab};
use tcp::Tcp;

mod tcp;

/// How many operations a machine may have under way at once.
const LANES: usize = 2;

/// Whose completion it is: a run of a check, and which of its operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProbeToken {
    run: Key,
    lane: u8,
}

/// What a machine wants next.
#[derive(Debug)]
enum Step {
    /// This, in the lane of the operation that has just ended (the first one at the beginning).
    Go(Operation),
    /// The check is over.
    Over(Verdict),
}

/// A check that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Which.
    pub(crate) id: CheckId,
    /// How.
    pub(crate) verdict: Verdict,
    /// How long it took.
    pub(crate) latency: Duration,
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More completions are to come.
    Running,
    /// It is over.
    Ended(Ended),
    /// There was no room to carry it out: the driver is full. Nothing was learnt.
    Refused(CheckId),
}

/// The machines, by kind.
#[derive(Debug)]
enum Probe {
    Tcp(Tcp),
}

impl Probe {
    /// The machine of this check, and its first step.
    fn begin(start: &Start) -> (Self, Step) {
        match &*start.check {
            Check::Tcp => (Self::Tcp(Tcp), Tcp::begin(start.address)),
        }
    }

    /// What follows from the end of an operation.
    fn completed(&mut self, outcome: Outcome) -> Step {
        match self {
            Self::Tcp(tcp) => tcp.completed(&outcome),
        }
    }
}

/// A check under way.
#[derive(Debug)]
struct Run {
    id: CheckId,
    probe: Probe,
    begun: Instant,
    deadline: Instant,
    /// What the driver is doing for it.
    operations: [Option<OperationId>; LANES],
}

/// All checks under way.
#[derive(Debug)]
pub(crate) struct Prober {
    runs: Slab<Run>,
}

impl Prober {
    /// Room for so many checks at once.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            runs: Slab::new(capacity),
        }
    }

    /// Begins a check. With [`Progress::Running`], its operations' completions are to be handed to
    /// [`completed`](Self::completed).
    pub(crate) fn start<T: Copy + From<ProbeToken>>(
        &mut self,
        start: &Start,
        now: Instant,
        driver: &mut dyn Driver<T>,
    ) -> Progress {
        let (probe, step) = Probe::begin(start);
        let run = Run {
            id: start.id,
            probe,
            begun: now,
            deadline: now + start.timeout,
            operations: [None; LANES],
        };
        match self.runs.insert(run) {
            Ok(key) => self.follow(key, 0, step, now, driver),
            Err(run) => Progress::Refused(run.id),
        }
    }

    /// An operation of a check has ended.
    pub(crate) fn completed<T: Copy + From<ProbeToken>>(
        &mut self,
        token: ProbeToken,
        outcome: Outcome,
        now: Instant,
        driver: &mut dyn Driver<T>,
    ) -> Progress {
        let ProbeToken { run: key, lane } = token;
        let Some(run) = self.runs.get_mut(key) else {
            // Cancelled when its check ended; what it owned is dropped here.
            return Progress::Running;
        };
        if let Some(operation) = run.operations.get_mut(usize::from(lane)) {
            *operation = None;
        }
        let step = run.probe.completed(outcome);
        self.follow(key, lane, step, now, driver)
    }

    /// Does what a machine asks for.
    fn follow<T: Copy + From<ProbeToken>>(
        &mut self,
        key: Key,
        lane: u8,
        mut step: Step,
        now: Instant,
        driver: &mut dyn Driver<T>,
    ) -> Progress {
        let token = ProbeToken { run: key, lane };
        while let Some(run) = self.runs.get_mut(key) {
            match step {
                Step::Over(verdict) => {
                    let ended = Ended {
                        id: run.id,
                        verdict,
                        latency: now.saturating_duration_since(run.begun),
                    };
                    self.end(key, driver);
                    return Progress::Ended(ended);
                }
                Step::Go(operation) => {
                    let left = run.deadline.saturating_duration_since(now);
                    if left.is_zero() {
                        step = run
                            .probe
                            .completed(operation.outcome(Err(Failure::TimedOut)));
                        continue;
                    }
                    let id = run.id;
                    match driver.start(operation, Some(left), token.into()) {
                        Ok(operation) => {
                            if let Some(place) = run.operations.get_mut(usize::from(lane)) {
                                *place = Some(operation);
                            }
                            return Progress::Running;
                        }
                        Err(Refused { .. }) => {
                            self.end(key, driver);
                            return Progress::Refused(id);
                        }
                    }
                }
            }
        }
        Progress::Running
    }

    /// Forgets a check, with what is still under way for it.
    fn end<T: Copy>(&mut self, key: Key, driver: &mut dyn Driver<T>) {
        let run = self.runs.take(key);
        for operation in run.iter().flat_map(|run| run.operations).flatten() {
            driver.cancel(operation);
        }
    }
}

#[cfg(test)]
mod tests;
