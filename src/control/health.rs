//! Which backends answer: the rise and fall of checks, as a pure state machine.
//!
//! Time is an argument and I/O is a request: [`Checker::tick`] says which checks to start now, the loop
//! carries them out ([`super::probe`]) and tells how they ended. So a test plays a whole day in no time.
//!
//! # States
//! | state | new flows | leaves it |
//! |---|---|---|
//! | pending | no | to up or down with the very first result, whatever rise and fall say |
//! | up | yes | to down after `fall` failures in a row |
//! | down | no | to up after `rise` successes in a row |
//!
//! A backend is pending only until its first check has ended, so at most its timeout: at start, and when
//! a reload adds it. [`Checker::pending`] tells the loop how long to wait before it reports readiness.
//!
//! # The promise
//! **A backend that dies is down within `fall × interval + timeout`** of its death. Checks *start*
//! at a fixed pace, one per interval, however long the last one took; so the `fall`-th check after the
//! death starts within `fall × interval`, and ends a timeout later. That needs a timeout no longer than
//! the interval: a longer one is cut to it.
//!
//! The first check starts at once. The second follows after a part of the interval that depends on the
//! check's identity and a seed of this process, so that many checks, and many balancers, spread out.
//!
//! # Reloads
//! [`Checker::reconcile`] keeps a check whose [`Spec`] is unchanged as it is, mid-flight. One whose
//! parameters have changed keeps its state and starts anew within it; a new one is pending.
//!
//! # What does not count
//! A check that this host could not carry out (no descriptors, no ports, no memory) says nothing of
//! the backend: it is inconclusive, counted, and repeated an interval later. A backend that dies meanwhile
//! is not noticed; nothing could be.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringgate_config::Check;
use rustix::io::Errno;
use siphasher::sip::SipHasher13;

use super::probe::complaint::Complaint;

/// Intervals below this are raised to it: a checker that only checks does nothing else.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// When a check could not be started because the driver was full, it is tried again after this.
const RETRY: Duration = Duration::from_millis(10);

/// What is checked and how: the identity of a check.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Spec {
    /// Whom.
    pub(crate) address: SocketAddr,
    /// In which way.
    pub(crate) check: Arc<Check>,
    /// From the start of one check to the start of the next.
    pub(crate) interval: Duration,
    /// How long a check may take; counts as no longer than the interval.
    pub(crate) timeout: Duration,
    /// Successes in a row that bring a backend up; at least 1.
    pub(crate) rise: u32,
    /// Failures in a row that take a backend down; at least 1.
    pub(crate) fall: u32,
}

impl Spec {
    fn interval(&self) -> Duration {
        self.interval.max(SHORTEST_INTERVAL)
    }

    /// The timeout that is used.
    fn limit(&self) -> Duration {
        self.timeout.min(self.interval())
    }
}

/// Whether a backend gets new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not known yet.
    Pending,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// Why a check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    /// The host is there, nobody listens.
    #[error("connection refused: the host is up, nothing listens on this port")]
    Refused,
    /// No answer in time.
    #[error("no answer in time: the host is down, or drops, or its accept queue is full")]
    TimedOut,
    /// No way to the host.
    #[error("unreachable ({0}): check routes and neighbours (ip route get, ip neigh)")]
    Unreachable(Errno),
    /// It answered, but not as it should.
    #[error("{0}")]
    Answer(Complaint),
    /// Anything else.
    #[error("{0}")]
    Other(Errno),
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The backend answered.
    Success,
    /// It did not.
    Failure(Reason),
    /// This host could not ask.
    Inconclusive(Errno),
}

/// The name of a check; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CheckId(u64);

/// A check to be carried out now. It must be answered, once, by [`Checker::ended`] or
/// [`Checker::refused`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// To answer with.
    pub(crate) id: CheckId,
    /// Whom to ask.
    pub(crate) address: SocketAddr,
    /// In which way.
    pub(crate) check: Arc<Check>,
    /// For how long at most.
    pub(crate) timeout: Duration,
}

/// A backend has changed sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// Which check says so.
    pub(crate) spec: Spec,
    /// Up or down.
    pub(crate) state: State,
    /// Why, when down.
    pub(crate) reason: Option<Reason>,
}

/// What `status` shows of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Report {
    /// Where it is.
    pub(crate) state: State,
    /// Since when.
    pub(crate) since: Instant,
    /// Results in a row that speak for the other side.
    pub(crate) against: u32,
    /// How the last check ended.
    pub(crate) last: Option<Verdict>,
    /// Checks that succeeded.
    pub(crate) successes: u64,
    /// Checks that failed.
    pub(crate) failures: u64,
    /// Checks that this host could not carry out.
    pub(crate) inconclusive: u64,
}

#[derive(Debug)]
struct Watched {
    spec: Spec,
    report: Report,
    /// Started and not answered.
    running: bool,
    /// Whether one has been started before: the second comes sooner, to spread.
    begun: bool,
    /// When the next one is to start.
    due: Instant,
}

/// All checks.
#[derive(Debug)]
pub(crate) struct Checker {
    checks: BTreeMap<CheckId, Watched>,
    by_spec: HashMap<Spec, CheckId>,
    /// Those that are not running, by the time of their next start.
    due: BTreeSet<(Instant, CheckId)>,
    next_id: u64,
    seed: u64,
}

impl Checker {
    /// No checks yet. The seed spreads them in time; it should differ between balancers.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            checks: BTreeMap::new(),
            by_spec: HashMap::new(),
            due: BTreeSet::new(),
            next_id: 0,
            seed,
        }
    }

    /// Makes the wanted checks the ones that are run. Naming one twice is naming it once.
    pub(crate) fn reconcile(&mut self, wanted: impl IntoIterator<Item = Spec>, now: Instant) {
        let mut old = std::mem::take(&mut self.by_spec);
        let mut new = Vec::new();
        for spec in wanted {
            if let Some(id) = old.remove(&spec) {
                self.by_spec.insert(spec, id);
            } else if !self.by_spec.contains_key(&spec) {
                new.push(spec);
            }
        }
        // What is left in `old` goes; its state is handed to its successor of the same address and way.
        // Where several know the backend, the one that learnt something last is believed.
        let mut heirs: HashMap<_, Report> = HashMap::new();
        let mut leave = |spec: &Spec, report: Report| {
            let heir = heirs
                .entry((spec.address, Arc::clone(&spec.check)))
                .or_insert(report);
            if heir.since < report.since {
                *heir = report;
            }
        };
        for (spec, id) in old {
            if let Some(check) = self.checks.remove(&id) {
                self.due.remove(&(check.due, id));
                leave(&spec, check.report);
            }
        }
        for check in self.checks.values() {
            leave(&check.spec, check.report);
        }
        for spec in new {
            if self.by_spec.contains_key(&spec) {
                continue;
            }
            let heir = heirs.get(&(spec.address, Arc::clone(&spec.check)));
            let report = match heir {
                Some(report) => Report {
                    against: 0,
                    ..*report
                },
                None => Report::new(now),
            };
            let id = CheckId(self.next_id);
            self.next_id += 1;
            self.due.insert((now, id));
            self.by_spec.insert(spec.clone(), id);
            let check = Watched {
                spec,
                report,
                running: false,
                begun: false,
                due: now,
            };
            self.checks.insert(id, check);
        }
    }

    /// Whether the backend of this check gets new flows; none if there is no such check.
    pub(crate) fn report(&self, spec: &Spec) -> Option<Report> {
        let id = self.by_spec.get(spec)?;
        self.checks.get(id).map(|check| check.report)
    }

    /// What a check asks; none if there is no such check any more.
    pub(crate) fn spec(&self, id: CheckId) -> Option<&Spec> {
        self.checks.get(&id).map(|check| &check.spec)
    }

    /// How many checks have not had a result yet.
    pub(crate) fn pending(&self) -> usize {
        let pending = |check: &&Watched| check.report.state == State::Pending;
        self.checks.values().filter(pending).count()
    }

    /// When to call [`Checker::tick`] next, at the latest; none: nothing to do before a result or a reload.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Appends the checks to be started now.
    pub(crate) fn tick(&mut self, now: Instant, start: &mut Vec<Start>) {
        while let Some(&(due, id)) = self.due.first()
            && due <= now
        {
            self.due.remove(&(due, id));
            let Some(check) = self.checks.get_mut(&id) else {
                continue;
            };
            let step = if check.begun {
                check.spec.interval()
            } else {
                spread(self.seed, &check.spec)
            };
            // From the planned start, not from now: lateness does not add up. But a host that slept
            // through many intervals does not make up for them.
            check.due = (due + step).max(now);
            check.begun = true;
            check.running = true;
            start.push(Start {
                id,
                address: check.spec.address,
                check: Arc::clone(&check.spec.check),
                timeout: check.spec.limit(),
            });
        }
    }

    /// A check could not even be begun, because too much else is going on: it is started again shortly.
    pub(crate) fn refused(&mut self, id: CheckId, now: Instant) {
        if let Some(check) = self.checks.get_mut(&id)
            && check.running
        {
            check.running = false;
            check.due = now + RETRY;
            self.due.insert((check.due, id));
        }
    }

    /// A check has ended. What it changed, if anything. The end of a check that a reload has taken away
    /// is ignored.
    pub(crate) fn ended(&mut self, id: CheckId, verdict: Verdict, now: Instant) -> Option<Change> {
        let check = self.checks.get_mut(&id)?;
        if !check.running {
            return None;
        }
        check.running = false;
        self.due.insert((check.due, id));

        let Watched { spec, report, .. } = check;
        report.last = Some(verdict);
        let (says, needed) = match verdict {
            Verdict::Success => {
                report.successes += 1;
                (State::Up, spec.rise)
            }
            Verdict::Failure(_) => {
                report.failures += 1;
                (State::Down, spec.fall)
            }
            Verdict::Inconclusive(_) => {
                report.inconclusive += 1;
                return None;
            }
        };
        if report.state == says {
            report.against = 0;
            return None;
        }
        report.against += 1;
        if report.state != State::Pending && report.against < needed {
            return None;
        }
        (report.state, report.since, report.against) = (says, now, 0);
        let reason = match verdict {
            Verdict::Failure(reason) => Some(reason),
            _ => None,
        };
        Some(Change {
            spec: spec.clone(),
            state: says,
            reason,
        })
    }
}

impl Report {
    fn new(now: Instant) -> Self {
        Self {
            state: State::Pending,
            since: now,
            against: 0,
            last: None,
            successes: 0,
            failures: 0,
            inconclusive: 0,
        }
    }
}

/// From the first check to the second: more than nothing, at most the interval.
fn spread(seed: u64, spec: &Spec) -> Duration {
    let mut hasher = SipHasher13::new_with_keys(seed, 0);
    spec.hash(&mut hasher);
    // 32 bits of the hash as a fraction of 2^32; one more, so that it is never nothing.
    let fraction = (hasher.finish() >> 32) + 1;
    let nanoseconds = (spec.interval().as_nanos() * u128::from(fraction)) >> 32;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
