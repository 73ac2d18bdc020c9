//! What is known of one backend, and which side that puts it on: a pure state machine, asked and told
//! by [`Checker`](super::Checker), which knows when.
//!
//! Three things speak of a backend: **checks** (a row of failures or successes), **reports** of an
//! agent outside, and **signs** in the traffic. Two sides come out of it, up and down.
//!
//! | it is checked | it is reported | it is up while |
//! |---|---|---|
//! | yes | no | its checks say so |
//! | no | yes | the last report says so, and is no older than its time to live; none yet: pending |
//! | yes | yes | its checks say so, and no report that still counts says that it is down |
//!
//! So where both speak, an agent can take a backend out and take that back, but not bring up what does
//! not answer, and an agent that is gone changes nothing. Where only the agent speaks, one that is gone
//! takes its backends down, as no answer to a check does.
//!
//! # Flaps
//! A backend that goes down with its nth change of side within a window is held down for a while. Checks
//! go on meanwhile; once the hold is over it is up if they say so by then. If it goes down again before
//! it has stayed up for a whole window, it is held again, twice as long each time, up to a bound; else
//! it begins anew.
//! (RFC 2439 does this to routes, with a penalty that decays; HAProxy and Envoy hold outliers out
//! for longer each time. Counting is easier to foretell.)
//!
//! # Suspicion
//! Signs make a backend suspect, never down: it keeps its flows and gets no new ones. A successful
//! check that started after the sign brings it back, and only that. Then it cannot be suspect again
//! for an interval.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ringgate_config::{Flap, Pace};

use super::{Reason, State, Verdict};

/// What a backend's course goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) pace: &'a Pace,
    /// It is checked.
    pub(super) is_asked: bool,
    /// It is reported, and a report counts for so long.
    pub(super) report_ttl: Option<Duration>,
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) struct Course {
    /// What is shown; up or suspect is one side, down or held the other.
    pub(super) state: State,
    /// Since when.
    pub(super) since: Instant,
    /// Results in a row that speak against what checks have said so far.
    pub(super) against: u32,
    /// Until when it is held down.
    pub(super) held_until: Option<Instant>,
    /// The last report, and when it came.
    pub(super) told: Option<(Told, Instant)>,
    /// That is too long ago, or one has been waited for too long.
    pub(super) is_stale: bool,
    /// Since when it is followed.
    begun: Instant,
    /// What checks alone say.
    asked: State,
    /// When it last began to be up.
    up_since: Instant,
    /// The last changes of side, the oldest first; no more than `flap.changes`.
    changes: VecDeque<Instant>,
    /// Holds so far, one after the other.
    holds: u32,
    /// When signs made it suspect.
    suspect_since: Option<Instant>,
    /// Until then it is not suspected again.
    trusted_until: Option<Instant>,
}

/// What an agent says of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It can serve.
    Up,
    /// It cannot.
    Down,
}

/// A change that is worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) reason: Option<Reason>,
    /// For how long it is held down.
    pub(super) hold: Option<Duration>,
}

impl Course {
    /// Of a backend that nobody has said anything of.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Pending,
            since: now,
            against: 0,
            held_until: None,
            told: None,
            is_stale: false,
            begun: now,
            asked: State::Pending,
            up_since: now,
            changes: VecDeque::new(),
            holds: 0,
            suspect_since: None,
            trusted_until: None,
        }
    }

    /// The same for the next check of the same backend: rows begin anew. What was reported of it stays
    /// said only of the same backend of the same service.
    pub(super) fn inherited(&self, is_same_target: bool) -> Self {
        let mut heir = Self {
            against: 0,
            ..self.clone()
        };
        if !is_same_target && heir.told.take().is_some() {
            (heir.state, heir.held_until) = (self.asked, None);
        }
        heir.is_stale &= is_same_target;
        heir
    }

    /// Whether it gets flows.
    pub(super) const fn is_up(&self) -> bool {
        matches!(self.state, State::Up | State::Suspect)
    }

    /// Whether the next result may change something: then it is not waited for long.
    pub(super) const fn is_changing(&self) -> bool {
        self.against > 0 || self.suspect_since.is_some()
    }

    /// A check that began at `started` has ended.
    pub(super) fn ended(
        &mut self,
        rules: Rules<'_>,
        verdict: Verdict,
        started: Instant,
        now: Instant,
    ) -> Option<Turn> {
        let (says, needed, reason) = match verdict {
            Verdict::Success => (State::Up, rules.pace.rise, None),
            Verdict::Failure(reason) => (State::Down, rules.pace.fall, Some(reason)),
            Verdict::Inconclusive(_) | Verdict::Unseen => return None,
        };
        if says == State::Up && self.suspect_since.is_some_and(|since| started >= since) {
            self.suspect_since = None;
            self.trusted_until = Some(now + rules.pace.interval);
        }
        if self.asked == says {
            self.against = 0;
        } else {
            self.against += 1;
            if self.asked == State::Pending || self.against >= needed {
                self.asked = says;
                self.against = 0;
            }
        }
        self.settle(rules, reason, now)
    }

    /// An agent has said something.
    pub(super) fn told(&mut self, rules: Rules<'_>, told: Told, now: Instant) -> Option<Turn> {
        (self.told, self.is_stale) = (Some((told, now)), false);
        self.settle(rules, Some(Reason::Reported), now)
    }

    /// Most flows that began of late have failed.
    pub(super) fn suspect(&mut self, rules: Rules<'_>, now: Instant) -> Option<Turn> {
        let is_trusted = self.trusted_until.is_some_and(|until| now < until);
        if self.state != State::Up || is_trusted {
            return None;
        }
        self.suspect_since = Some(now);
        self.settle(rules, None, now)
    }

    /// Time has passed: a hold or a report may be over.
    pub(super) fn lapse(&mut self, rules: Rules<'_>, now: Instant) -> Option<Turn> {
        self.settle(rules, Some(Reason::Unreported), now)
    }

    /// When to call [`Course::lapse`].
    pub(super) fn next_lapse(&self, rules: Rules<'_>) -> Option<Instant> {
        let stale = self.stale_from(rules).filter(|_| !self.is_stale);
        [self.held_until, stale].into_iter().flatten().min()
    }

    /// When the last report, or the patience for the first, is over.
    fn stale_from(&self, rules: Rules<'_>) -> Option<Instant> {
        let since = self.told.map_or(self.begun, |(_, at)| at);
        Some(since + rules.report_ttl?)
    }

    /// What all that speak of it say together.
    fn wanted(&self, rules: Rules<'_>) -> State {
        if rules.report_ttl.is_none() {
            return self.asked;
        }
        let told = self.told.filter(|_| !self.is_stale);
        match (told.map(|(told, _)| told), rules.is_asked) {
            (Some(Told::Down), _) => State::Down,
            (_, true) => self.asked,
            (Some(Told::Up), false) => State::Up,
            (None, false) if self.is_stale => State::Down,
            (None, false) => State::Pending,
        }
    }

    /// Puts it where it belongs.
    fn settle(&mut self, rules: Rules<'_>, reason: Option<Reason>, now: Instant) -> Option<Turn> {
        if self.held_until.is_some_and(|until| now >= until) {
            self.held_until = None;
        }
        if self.stale_from(rules).is_some_and(|from| now >= from) {
            self.is_stale = true;
        }
        let wanted = match self.wanted(rules) {
            State::Up if self.held_until.is_some() => State::Held,
            State::Up if self.suspect_since.is_some() => State::Suspect,
            State::Down if self.held_until.is_some() => State::Held,
            other => other,
        };
        if wanted == self.state {
            return None;
        }
        let before = std::mem::replace(&mut self.state, wanted);
        self.since = now;
        if self.is_up() == matches!(before, State::Up | State::Suspect) && before != State::Pending
        {
            // A suspicion, or the end of a hold of one that is down by itself as well.
            let is_shown = before != State::Held;
            return is_shown.then_some(Turn {
                reason: None,
                hold: None,
            });
        }
        let hold = if before == State::Pending {
            self.up_since = now;
            None
        } else {
            self.cross(rules.pace.flap.as_ref(), now)
        };
        if !self.is_up() {
            self.suspect_since = None;
        }
        let reason = reason.filter(|_| !self.is_up());
        Some(Turn { reason, hold })
    }

    /// Notes a change of side, and begins a hold if there were too many.
    fn cross(&mut self, flap: Option<&Flap>, now: Instant) -> Option<Duration> {
        let Some(flap) = flap else {
            self.changes.clear();
            return None;
        };
        let limit = usize::try_from(flap.changes).unwrap_or(usize::MAX);
        self.changes.push_back(now);
        while self.changes.len() > limit {
            self.changes.pop_front();
        }
        if self.is_up() {
            self.up_since = now;
            return None;
        }
        if now.saturating_duration_since(self.up_since) >= flap.within {
            self.holds = 0;
        }
        let oldest = *self.changes.front()?;
        let is_too_often = self.changes.len() == limit && now - oldest < flap.within;
        // A hold may be longer than the window, and then nothing in it tells of before.
        if !is_too_often && self.holds == 0 {
            return None;
        }
        let hold = flap
            .hold
            .saturating_mul(1 << self.holds.min(31))
            .min(flap.most);
        self.holds = self.holds.saturating_add(1);
        self.held_until = Some(now + hold);
        self.state = State::Held;
        Some(hold)
    }
}
