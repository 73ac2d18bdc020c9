//! When checks start and what follows from how they end: `health` of a service, and of the balancer
//! as the default of all.

use std::ops::Range;
use std::time::Duration;

use super::scope::Scope;
use crate::duration::Spelt;
use crate::error::Findings;
use crate::file::{self, Field};
use crate::limits::{
    FALL_DEFAULT, FLAP_CHANGES_DEFAULT, FLAP_CHANGES_MAX, FLAP_HOLD_DEFAULT, FLAP_MOST_DEFAULT,
    FLAP_SPAN, FLAP_WITHIN_DEFAULT, INTERVAL_DEFAULT, INTERVAL_MAX, INTERVAL_MIN, JITTER_PART,
    RISE_DEFAULT, STREAK_MAX, TIMEOUT_DEFAULT, TIMEOUT_MIN,
};
use crate::model::{Flap, Pace, Passive};

/// What one table says, each value by itself; what it leaves out is not there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    interval: Option<Duration>,
    jitter: Option<Duration>,
    fast_interval: Option<Duration>,
    timeout: Option<Duration>,
    rise: Option<u32>,
    fall: Option<u32>,
    /// There is a table `flap`, whatever is in it.
    flaps: bool,
    changes: Option<u32>,
    within: Option<Duration>,
    hold: Option<Duration>,
    most: Option<Duration>,
    passive: Option<Passive>,
}

impl Said {
    /// Reads the values, each within its bounds.
    pub(super) fn read(raw: &file::Pace<'_>, findings: &mut Findings<'_>) -> Option<Self> {
        let mut scope = scope(raw, findings);
        let mut duration = |key, field: &Field<&str>, least| {
            let read = scope.duration(key, field, least..=INTERVAL_MAX);
            read.map(|read| read.map(|(duration, _)| duration))
        };
        let interval = duration("interval", &raw.interval, INTERVAL_MIN);
        let jitter = duration("jitter", &raw.jitter, Duration::ZERO);
        let fast_interval = duration("fast-interval", &raw.fast_interval, INTERVAL_MIN);
        let timeout = duration("timeout", &raw.timeout, TIMEOUT_MIN);
        let rise = scope.number("rise", &raw.rise, 1..=STREAK_MAX);
        let fall = scope.number("fall", &raw.fall, 1..=STREAK_MAX);
        let passive = match raw.passive {
            Field::Absent => Some(None),
            _ => scope.word("passive", &raw.passive, None, &[]).map(Some),
        };
        let flap = match &raw.flap {
            Some(flap) => Self::read_flap(flap, scope.findings),
            None => Some(Self::default()),
        };
        Some(Self {
            interval: interval?,
            jitter: jitter?,
            fast_interval: fast_interval?,
            timeout: timeout?,
            rise: rise?,
            fall: fall?,
            passive: passive?,
            ..flap?
        })
    }

    /// The values of `flap` alone.
    fn read_flap(raw: &file::Flap<'_>, findings: &mut Findings<'_>) -> Option<Self> {
        let mut scope = Scope {
            path: &raw.path,
            head: &raw.head,
            findings,
        };
        let changes = scope.number("changes", &raw.changes, 0..=FLAP_CHANGES_MAX);
        let mut duration = |key, field: &Field<&str>| {
            let read = scope.duration(key, field, FLAP_SPAN);
            read.map(|read| read.map(|(duration, _)| duration))
        };
        let within = duration("within", &raw.within);
        let hold = duration("hold", &raw.hold);
        let most = duration("most", &raw.most);
        Some(Self {
            flaps: true,
            changes: changes?,
            within: within?,
            hold: hold?,
            most: most?,
            ..Self::default()
        })
    }

    /// This, and the rest from `inherited`.
    pub(super) fn or(self, inherited: &Self) -> Self {
        Self {
            interval: self.interval.or(inherited.interval),
            jitter: self.jitter.or(inherited.jitter),
            fast_interval: self.fast_interval.or(inherited.fast_interval),
            timeout: self.timeout.or(inherited.timeout),
            rise: self.rise.or(inherited.rise),
            fall: self.fall.or(inherited.fall),
            flaps: self.flaps || inherited.flaps,
            changes: self.changes.or(inherited.changes),
            within: self.within.or(inherited.within),
            hold: self.hold.or(inherited.hold),
            most: self.most.or(inherited.most),
            passive: self.passive.or(inherited.passive),
        }
    }

    /// The same of a service in whose traffic no signs can be seen. What it says itself is refused
    /// elsewhere.
    pub(super) fn without_signs(self) -> Self {
        Self {
            passive: None,
            ..self
        }
    }

    /// What follows from it all, if its values fit each other. `raw` is whose problem it is if not.
    pub(super) fn resolve(
        &self,
        raw: &file::Pace<'_>,
        findings: &mut Findings<'_>,
    ) -> Option<Pace> {
        let mut scope = scope(raw, findings);
        let interval = self.interval.unwrap_or(INTERVAL_DEFAULT);
        let timeout = self.timeout(raw, interval, &mut scope);
        let jitter = timeout.and_then(|timeout| self.jitter(raw, interval, timeout, &mut scope));
        let fast_interval = self.fast_interval.unwrap_or(interval);
        let passive = self.passive.unwrap_or(Passive::Off);
        let mut fits = true;
        if fast_interval > interval {
            let found = Spelt(fast_interval).to_string();
            let expected = format!("at most the interval, {}", Spelt(interval));
            let cure = "it is the interval while a backend changes: shorten it, or leave it out";
            let at = place(&raw.fast_interval, &raw.head);
            scope.misfit("fast-interval", &at, found, expected, cure);
            fits = false;
        } else if passive != Passive::Off && fast_interval == interval {
            let found = format!("{passive}, and no shorter fast-interval");
            let expected = format!(
                "a fast-interval of less than the interval, {}",
                Spelt(interval)
            );
            let cure = format!(
                "add fast-interval = \"{}\": signs bring a check forward once in that time at most",
                Spelt((interval / 4).max(INTERVAL_MIN))
            );
            let at = place(&raw.passive, &raw.head);
            scope.misfit("passive", &at, found, expected, cure);
            fits = false;
        }
        let flap = self.flap(raw, scope.findings);
        Some(Pace {
            interval,
            jitter: jitter?,
            fast_interval,
            timeout: timeout?,
            rise: self.rise.unwrap_or(RISE_DEFAULT),
            fall: self.fall.unwrap_or(FALL_DEFAULT),
            flap: flap?,
            passive,
        })
        .filter(|_| fits)
    }

    fn timeout(
        &self,
        raw: &file::Pace<'_>,
        interval: Duration,
        scope: &mut Scope<'_, '_, '_>,
    ) -> Option<Duration> {
        let timeout = self
            .timeout
            .unwrap_or_else(|| TIMEOUT_DEFAULT.min(interval));
        if timeout > interval {
            let found = Spelt(timeout).to_string();
            let expected = format!("at most the interval, {}", Spelt(interval));
            let cure = "one check ends before the next begins: shorten it or lengthen the interval";
            let at = place(&raw.timeout, &raw.head);
            scope.misfit("timeout", &at, found, expected, cure);
            return None;
        }
        Some(timeout)
    }

    fn jitter(
        &self,
        raw: &file::Pace<'_>,
        interval: Duration,
        timeout: Duration,
        scope: &mut Scope<'_, '_, '_>,
    ) -> Option<Duration> {
        let left = interval.saturating_sub(timeout);
        // In the file's own unit: whole milliseconds.
        let tenth = Duration::from_millis(
            u64::try_from(interval.as_millis()).unwrap_or(u64::MAX) / u64::from(JITTER_PART),
        );
        let jitter = self.jitter.unwrap_or_else(|| tenth.min(left));
        if jitter > left {
            let found = Spelt(jitter).to_string();
            let expected = format!(
                "at most the interval less the timeout, {} - {}",
                Spelt(interval),
                Spelt(timeout)
            );
            let cure = "one check ends before the next begins: shorten it or the timeout";
            let at = place(&raw.jitter, &raw.head);
            scope.misfit("jitter", &at, found, expected, cure);
            return None;
        }
        Some(jitter)
    }

    /// The outer `None` is a problem.
    fn flap(&self, raw: &file::Pace<'_>, findings: &mut Findings<'_>) -> Option<Option<Flap>> {
        let changes = self.changes.unwrap_or(FLAP_CHANGES_DEFAULT);
        if !self.flaps || changes == 0 {
            return Some(None);
        }
        let hold = self.hold.unwrap_or(FLAP_HOLD_DEFAULT);
        let most = self.most.unwrap_or_else(|| FLAP_MOST_DEFAULT.max(hold));
        if hold > most {
            let (path, at) = match &raw.flap {
                Some(flap) => (&flap.path, place(&flap.hold, &flap.head)),
                None => (&raw.path, raw.head.clone()),
            };
            let mut scope = Scope {
                path,
                head: &raw.head,
                findings,
            };
            let found = Spelt(hold).to_string();
            let expected = format!("at most the longest hold, {}", Spelt(most));
            let cure = "it is the first hold: shorten it, or lengthen most";
            scope.misfit("hold", &at, found, expected, cure);
            return None;
        }
        Some(Some(Flap {
            changes,
            within: self.within.unwrap_or(FLAP_WITHIN_DEFAULT),
            hold,
            most,
        }))
    }
}

fn scope<'s, 'f, 't>(raw: &'s file::Pace<'_>, findings: &'f mut Findings<'t>) -> Scope<'s, 'f, 't> {
    Scope {
        path: &raw.path,
        head: &raw.head,
        findings,
    }
}

/// Where a value stands, or the table that it is missing in.
fn place(field: &Field<&str>, head: &Range<usize>) -> Range<usize> {
    match field {
        Field::Given(text) => text.span(),
        _ => head.clone(),
    }
}
