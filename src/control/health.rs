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
//! | suspect | no, but it keeps those it has | to up with the next success, to down as from up |
//! | down | no | to up after `rise` successes in a row |
//! | held | no | as down, but not before its time is over |
//!
//! A backend is pending only until its first check has ended, so at most its timeout: at start, and when
//! a reload adds it. [`Checker::pending`] tells the loop how long to wait before it reports readiness.
//! [`course`] has the rest: reports of an agent outside, flaps, suspicion.
//!
//! # The promise
//! **A backend that dies is down within `interval + (fall - 1) × max(fast-interval, timeout) + timeout`**
//! of its death; without a faster interval that is `fall × interval + timeout` or less. From one start
//! to the next it takes an interval at most, however long the check took: jitter only shortens it. So the
//! first check after the death starts within an interval; each further one follows the failure before
//! it after the fast interval, or at once if that is over; and the last takes a timeout to fail. That
//! needs a timeout no longer than the interval: a longer one is cut to it.
//!
//! Likewise one that answers again is up within `interval + (rise - 1) × max(fast-interval, timeout) +
//! timeout`, if it is not held.
//!
//! The first check starts at once. The second follows after a part of the interval that depends on the
//! check's identity and a seed of this process, so that many checks, and many balancers, spread out; the
//! jitter, drawn from the same, keeps them from meeting again.
//!
//! # Signs
//! [`Checker::sign`] brings the next check of a backend that is up forward to now, but not nearer to the
//! last one's start than a fast interval: traffic, which anybody can send, makes no more checks than
//! that.
//!
//! # Reloads
//! [`Checker::exchange`] keeps a check whose [`Spec`] is unchanged as it is, mid-flight. One whose
//! parameters have changed keeps its state and starts anew within it; a new one is pending.
//!
//! # What does not count
//! A check that this host could not carry out (no descriptors, no ports, no memory) says nothing of
//! the backend: it is inconclusive, counted, and repeated an interval later. A backend that dies meanwhile
//! is not noticed; nothing could be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringgate_config::{Check, Pace, Passive};
use rustc_hash::FxHashMap;
use rustix::io::Errno;
use siphasher::sip::SipHasher13;

use super::probe::complaint::Complaint;
use super::truepath::Path;
pub(crate) use course::Told;
use course::{Course, Rules, Turn};

mod course;
mod succession;

/// Intervals below this are raised to it: a checker that only checks does nothing else.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// When a check could not be started because the driver was full, it is tried again after this.
const RETRY: Duration = Duration::from_millis(10);

/// What is checked and how: the identity of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    /// Whom.
    pub(crate) address: SocketAddr,
    /// In which way; `None`: it is only reported.
    pub(crate) check: Option<Arc<Check>>,
    /// By which path, if not to its own address.
    pub(crate) path: Option<Path>,
    /// When, and what follows. A timeout longer than the interval counts as the interval, rows of 0 as
    /// of 1.
    pub(crate) pace: Pace,
    /// Who else may say how it is. Then it is checked for one service alone.
    pub(crate) reports: Option<Reports>,
}

/// Whose reports are taken, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Reports {
    /// They are about this.
    pub(crate) target: Target,
    /// A report counts for so long.
    pub(crate) ttl: Duration,
}

/// A backend as reports name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// The service's name.
    pub(crate) service: Arc<str>,
    /// The backend's address in it, as the configuration has it.
    pub(crate) backend: SocketAddr,
}

/// Of what tells nearly all apart: ten thousand are looked up a few times in each reload.
impl Hash for Spec {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address.hash(state);
        self.pace.interval.hash(state);
        self.reports.hash(state);
    }
}

impl Spec {
    fn interval(&self) -> Duration {
        self.pace.interval.max(SHORTEST_INTERVAL)
    }

    /// The timeout that is used.
    pub(crate) fn limit(&self) -> Duration {
        self.pace.timeout.min(self.interval())
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            pace: &self.pace,
            is_asked: self.check.is_some(),
            report_ttl: self.reports.as_ref().map(|reports| reports.ttl),
        }
    }

    fn target(&self) -> Option<&Target> {
        self.reports.as_ref().map(|reports| &reports.target)
    }
}

/// Whether a backend gets new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not known yet.
    Pending,
    /// It answers.
    Up,
    /// It answers, but most flows that began of late have failed.
    Suspect,
    /// It does not answer.
    Down,
    /// It has changed sides too often, and is down for a while whatever it answers.
    Held,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Held => "held",
        })
    }
}

/// What the traffic of a backend's new flows shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Some fail.
    Trouble,
    /// Most fail.
    Failing,
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
    /// No answer in time, by the path of a client's packets.
    #[error(
        "no answer in time to what a client would send: the host is down, does not take the tunnel, or lacks the \
         service's address (docs/FAR-ENDS.md); compare with via = \"backend\""
    )]
    Unanswered,
    /// No way to the host.
    #[error("unreachable ({0}): check routes and neighbours (ip route get, ip neigh)")]
    Unreachable(Errno),
    /// It answered, but not as it should.
    #[error("{0}")]
    Answer(Complaint),
    /// Anything else.
    #[error("{0}")]
    Other(Errno),
    /// An agent says so.
    #[error("reported as down")]
    Reported,
    /// No agent has said anything for too long.
    #[error("no report within report-ttl: is the agent that reports it running?")]
    Unreported,
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
    /// Time was up while nobody looked for an answer.
    Unseen,
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
    /// By which path, if not to its own address.
    pub(crate) path: Option<Path>,
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
    /// What it is now.
    pub(crate) state: State,
    /// Why, when down.
    pub(crate) reason: Option<Reason>,
    /// For how long it is held down, at the least, when that begins.
    pub(crate) hold: Option<Duration>,
}

/// No check takes reports about this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no backend of that service takes reports: give its health a report-ttl")]
pub(crate) struct NotReported;

/// What `status` shows of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Report {
    /// Where it is.
    pub(crate) state: State,
    /// Since when.
    pub(crate) since: Instant,
    /// Results in a row that speak for the other side.
    pub(crate) against: u32,
    /// Until when it is held down.
    pub(crate) held_until: Option<Instant>,
    /// The last report and when it came, if it still counts.
    pub(crate) told: Option<(Told, Instant)>,
    /// How the last check ended.
    pub(crate) last: Option<Verdict>,
    /// How long it took.
    pub(crate) latency: Option<Duration>,
    /// Checks that succeeded.
    pub(crate) successes: u64,
    /// Checks that failed.
    pub(crate) failures: u64,
    /// Checks that this host could not carry out.
    pub(crate) inconclusive: u64,
}

/// What is counted of a check's results.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    last: Option<Verdict>,
    latency: Option<Duration>,
    successes: u64,
    failures: u64,
    inconclusive: u64,
}

#[derive(Debug)]
struct Watched {
    /// How many want it.
    users: usize,
    spec: Spec,
    course: Course,
    tally: Tally,
    /// Started and not answered.
    running: bool,
    /// Whether one has been started before: the second comes sooner, to spread.
    begun: bool,
    /// When the last one started.
    started: Instant,
    /// When the next one is to start.
    due: Instant,
    /// A sign came: the next one is not to wait for its time.
    is_urgent: bool,
    /// When a hold or a report is over.
    lapse: Option<Instant>,
    /// What its jitter is drawn from, anew each time.
    draw: u64,
}

/// All checks.
#[derive(Debug)]
pub(crate) struct Checker {
    checks: BTreeMap<CheckId, Watched>,
    /// Nobody but the operator chooses what is in it.
    by_spec: FxHashMap<Spec, CheckId>,
    by_target: FxHashMap<Target, CheckId>,
    /// Those that are asked and not running, by the time of their next start.
    due: BTreeSet<(Instant, CheckId)>,
    /// Those that time alone changes, by when.
    lapses: BTreeSet<(Instant, CheckId)>,
    next_id: u64,
    seed: u64,
}

impl Checker {
    /// No checks yet. The seed spreads them in time; it should differ between balancers.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            checks: BTreeMap::new(),
            by_spec: FxHashMap::default(),
            by_target: FxHashMap::default(),
            due: BTreeSet::new(),
            lapses: BTreeSet::new(),
            next_id: 0,
            seed,
        }
    }

    /// Sets the time at which time alone changes this check, as it is now.
    fn time(&mut self, id: CheckId) {
        let Some(check) = self.checks.get_mut(&id) else {
            return;
        };
        let next = check.course.next_lapse(check.spec.rules());
        if next != check.lapse {
            if let Some(old) = check.lapse {
                self.lapses.remove(&(old, id));
            }
            self.lapses.extend(next.map(|next| (next, id)));
            check.lapse = next;
        }
    }

    /// What is known of the backend of this check; none if there is no such check.
    pub(crate) fn report(&self, spec: &Spec) -> Option<Report> {
        let check = self.checks.get(self.by_spec.get(spec)?)?;
        let Watched { course, tally, .. } = check;
        Some(Report {
            state: course.state,
            since: course.since,
            against: course.against,
            held_until: course.held_until,
            told: course.told.filter(|_| !course.is_stale),
            last: tally.last,
            latency: tally.latency,
            successes: tally.successes,
            failures: tally.failures,
            inconclusive: tally.inconclusive,
        })
    }

    /// Where the backend of this check is; none if there is no such check any more.
    pub(crate) fn state(&self, id: CheckId) -> Option<State> {
        self.checks.get(&id).map(|check| check.course.state)
    }

    /// What a check asks; none if there is no such check any more.
    pub(crate) fn spec(&self, id: CheckId) -> Option<&Spec> {
        self.checks.get(&id).map(|check| &check.spec)
    }

    /// How many checks have not had a result yet.
    pub(crate) fn pending(&self) -> usize {
        let pending = |check: &&Watched| check.course.state == State::Pending;
        self.checks.values().filter(pending).count()
    }

    /// When to call [`Checker::tick`] and [`Checker::lapse`] next, at the latest; none: nothing to do
    /// before a result or a reload.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, CheckId)>| set.first().map(|(at, _)| *at);
        [first(&self.due), first(&self.lapses)]
            .into_iter()
            .flatten()
            .min()
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
            let Some(way) = check.spec.check.clone() else {
                continue;
            };
            let step = if check.begun {
                check.step()
            } else {
                spread(self.seed, &check.spec)
            };
            // From the planned start, not from now: lateness does not add up. But a host that slept
            // through many intervals does not make up for them.
            check.due = (due + step).max(now);
            check.begun = true;
            check.running = true;
            check.is_urgent = false;
            check.started = now;
            start.push(Start {
                id,
                address: check.spec.address,
                path: check.spec.path,
                check: way,
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

    /// A check has ended, after so long. What it changed, if anything. The end of a check that a reload has
    /// taken away is ignored.
    pub(crate) fn ended(
        &mut self,
        id: CheckId,
        verdict: Verdict,
        latency: Duration,
        now: Instant,
    ) -> Option<Change> {
        let check = self.checks.get_mut(&id)?;
        if !check.running {
            return None;
        }
        check.running = false;
        check.tally.count(verdict, latency);
        let rules = check.spec.rules();
        let turn = check.course.ended(rules, verdict, check.started, now);
        if check.is_urgent || check.course.is_changing() {
            check.due = check.due.min(check.soonest());
        }
        check.due = check.due.max(now);
        self.due.insert((check.due, id));
        self.turned(id, turn)
    }

    /// The traffic of a backend's new flows shows something.
    pub(crate) fn sign(&mut self, spec: &Spec, sign: Sign, now: Instant) -> Option<Change> {
        let id = *self.by_spec.get(spec)?;
        let check = self.checks.get_mut(&id)?;
        if check.spec.pace.passive == Passive::Off
            || check.spec.check.is_none()
            || !check.course.is_up()
        {
            return None;
        }
        check.is_urgent = true;
        if !check.running {
            let due = check.due.min(check.soonest().max(now));
            self.due.remove(&(check.due, id));
            self.due.insert((due, id));
            check.due = due;
        }
        let suspects = check.spec.pace.passive == Passive::Suspect && sign == Sign::Failing;
        let turn = suspects.then(|| check.course.suspect(check.spec.rules(), now));
        self.turned(id, turn.flatten())
    }

    /// An agent says how a backend is. What that changed, if anything.
    ///
    /// # Errors
    /// [`NotReported`] if nobody wants to know.
    pub(crate) fn reported(
        &mut self,
        target: &Target,
        told: Told,
        now: Instant,
    ) -> Result<Option<Change>, NotReported> {
        let id = *self.by_target.get(target).ok_or(NotReported)?;
        let check = self.checks.get_mut(&id).ok_or(NotReported)?;
        let turn = check.course.told(check.spec.rules(), told, now);
        Ok(self.turned(id, turn))
    }

    /// Appends what has changed because time has passed.
    pub(crate) fn lapse(&mut self, now: Instant, changes: &mut Vec<Change>) {
        while let Some(&(at, id)) = self.lapses.first()
            && at <= now
        {
            self.lapses.remove(&(at, id));
            let Some(check) = self.checks.get_mut(&id) else {
                continue;
            };
            check.lapse = None;
            let turn = check.course.lapse(check.spec.rules(), now);
            changes.extend(self.turned(id, turn));
        }
    }

    /// After anything that may have changed this check.
    fn turned(&mut self, id: CheckId, turn: Option<Turn>) -> Option<Change> {
        self.time(id);
        let Turn { reason, hold } = turn?;
        let check = self.checks.get(&id)?;
        Some(Change {
            spec: check.spec.clone(),
            state: check.course.state,
            reason,
            hold,
        })
    }
}

impl Watched {
    /// From one start to the next: the interval, or up to the jitter less.
    fn step(&mut self) -> Duration {
        // The step and the finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
        self.draw = self.draw.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.draw;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let less = part(self.spec.pace.jitter, mixed ^ (mixed >> 31));
        self.spec.interval().saturating_sub(less)
    }

    /// When the next one may start while something changes.
    fn soonest(&self) -> Instant {
        self.started + self.spec.pace.fast_interval.max(SHORTEST_INTERVAL)
    }
}

impl Tally {
    fn count(&mut self, verdict: Verdict, latency: Duration) {
        self.last = Some(verdict);
        match verdict {
            Verdict::Success => self.successes += 1,
            Verdict::Failure(_) => self.failures += 1,
            Verdict::Inconclusive(_) | Verdict::Unseen => {
                self.inconclusive += 1;
                return;
            }
        }
        self.latency = Some(latency);
    }
}

/// From the first check to the second: more than nothing, at most the interval.
fn spread(seed: u64, spec: &Spec) -> Duration {
    part(spec.interval(), hash(seed, spec))
}

fn hash(seed: u64, spec: &Spec) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, 0);
    spec.hash(&mut hasher);
    hasher.finish()
}

/// A part of a span that is more than nothing, at most all of it, by the upper half of `random`.
fn part(span: Duration, random: u64) -> Duration {
    // 32 bits as a fraction of 2^32; one more, so that it is never nothing.
    let fraction = (random >> 32) + 1;
    let nanoseconds = (span.as_nanos() * u128::from(fraction)) >> 32;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
