//! Signs of trouble in the traffic of a backend's new connections: how many of them failed of late.
//!
//! Workers count, for each backend whose replies return through the balancer, the SYNs to it, its
//! SYN-ACKs, and its resets of connections that were not in use yet. Control looks at the totals ten times
//! a second and keeps what each look has brought, for less than a second. A connection has failed if it
//! was refused, or if its SYN is older than [`GRACE`] looks and there are not as many answers as such SYNs.
//!
//! # What a client can make of it
//! A SYN with a wrong checksum is counted and never answered, and needs no true source; so anybody can make
//! any backend look bad. What that buys is bounded elsewhere, and by nothing that depends on the traffic:
//!
//! | what it does | bound | where |
//! |---|---|---|
//! | checks come sooner | one in a `fast-interval` | [`Checker::sign`](super::health::Checker::sign) |
//! | a backend gets no new flows | until a check has succeeded, which starts at once; then not again for an interval | [`Checker`](super::health::Checker) |
//! | several get none | no more than half of a service's, and `min-healthy` stay; else none is suspect | the snapshot's quorum |
//! | a backend is down | never: only its own checks do that | |
//!
//! A single failure among ten is no sign, and suspicion takes three and half of all.

use std::time::{Duration, Instant};

use ringgate_dataplane::backend::BackendId;
use ringgate_dataplane::counters::WorkerCounters;
use ringgate_dataplane::snapshot::Snapshot;
use rustc_hash::FxHashMap;

use super::health::Sign;

/// How often the counters are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How many looks are kept.
const LOOKS: usize = 8;

/// In how many looks, this one included, an answer may still be on its way: 200 ms, many times what a
/// round trip to a backend takes.
const GRACE: usize = 2;

/// Trouble is one failure in so many connections.
const TROUBLE: u64 = 10;

/// Most fail if it is one in so many.
const FAILING: u64 = 2;

/// And if there are so many of them at least.
const FAILING_LEAST: u64 = 3;

/// How connections to a backend began: totals, or what a look has brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Openings {
    pub(crate) syns: u64,
    pub(crate) syn_acks: u64,
    pub(crate) refusals: u64,
}

impl Openings {
    /// The totals of a backend over all workers.
    pub(crate) fn of(id: BackendId, workers: &[&WorkerCounters]) -> Self {
        let mut totals = Self::default();
        for counters in workers.iter().filter_map(|worker| worker.backend(id)) {
            totals.syns += counters.syns.get();
            totals.syn_acks += counters.syn_acks.get();
            totals.refusals += counters.refusals.get();
        }
        totals
    }

    /// Both together.
    pub(crate) const fn and(self, more: Self) -> Self {
        Self {
            syns: self.syns.wrapping_add(more.syns),
            syn_acks: self.syn_acks.wrapping_add(more.syn_acks),
            refusals: self.refusals.wrapping_add(more.refusals),
        }
    }

    /// What has come since then.
    pub(crate) const fn since(self, before: Self) -> Self {
        Self {
            syns: self.syns.wrapping_sub(before.syns),
            syn_acks: self.syn_acks.wrapping_sub(before.syn_acks),
            refusals: self.refusals.wrapping_sub(before.refusals),
        }
    }
}

/// The looks at one backend.
#[derive(Debug, Clone, Default)]
struct Watch {
    last: Openings,
    /// What looks have brought, the newest first.
    looks: [Openings; LOOKS],
}

impl Watch {
    fn look(&mut self, totals: Openings) -> Option<Sign> {
        self.looks.rotate_right(1);
        self.looks[0] = totals.since(std::mem::replace(&mut self.last, totals));
        let sum = |of: fn(&Openings) -> u64| self.looks.iter().map(of).sum::<u64>();
        let (answered, refused) = (sum(|look| look.syn_acks), sum(|look| look.refusals));
        let begun: u64 = self.looks.iter().skip(GRACE).map(|look| look.syns).sum();
        let failed = refused + begun.saturating_sub(answered + refused);
        let all = sum(|look| look.syns).max(failed);
        if failed >= FAILING_LEAST && failed * FAILING >= all {
            // What was told is not told again: it takes new failures.
            self.looks = Default::default();
            return Some(Sign::Failing);
        }
        (failed > 0 && failed * TROUBLE >= all).then_some(Sign::Trouble)
    }
}

/// The looks at all backends whose services want that.
#[derive(Debug)]
pub(crate) struct Signs {
    watches: FxHashMap<BackendId, Watch>,
    next: Instant,
    generation: u64,
}

impl Signs {
    /// Nothing seen yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            watches: FxHashMap::default(),
            next: now,
            generation: 0,
        }
    }

    /// Whether it is time to look.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.next;
        if is_due {
            self.next += LOOK;
            if self.next <= now {
                self.next = now + LOOK; // what was missed is not made up for
            }
        }
        is_due
    }

    /// Forgets backends that are gone.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        if std::mem::replace(&mut self.generation, snapshot.generation) != snapshot.generation {
            self.watches.retain(|id, _| snapshot.backend(*id).is_some());
        }
    }

    /// What the totals of a backend show, by what they were before. The first look shows nothing.
    pub(crate) fn look(&mut self, id: BackendId, totals: Openings) -> Option<Sign> {
        if let Some(watch) = self.watches.get_mut(&id) {
            return watch.look(totals);
        }
        let watch = Watch {
            last: totals,
            ..Watch::default()
        };
        self.watches.insert(id, watch);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at a backend of which this becomes known, step by step.
    fn looks(steps: impl IntoIterator<Item = (u64, u64, u64)>) -> Vec<Option<Sign>> {
        let (mut signs, mut totals) = (
            Signs::new(super::super::clock::now()),
            Openings {
                syns: u64::MAX - 3, // they wrap
                syn_acks: 7,
                refusals: 9,
            },
        );
        let id = BackendId(1);
        assert_eq!(signs.look(id, totals), None, "what was before is nobody's");
        let mut look = |(syns, syn_acks, refusals): (u64, u64, u64)| {
            totals.syns = totals.syns.wrapping_add(syns);
            totals.syn_acks += syn_acks;
            totals.refusals += refusals;
            signs.look(id, totals)
        };
        steps.into_iter().map(&mut look).collect()
    }

    #[test]
    fn a_backend_that_answers_shows_nothing() {
        assert!(looks([(5, 5, 0); 30]).iter().all(Option::is_none));
        assert!(looks([(0, 0, 0); 30]).iter().all(Option::is_none));
        // Answers that come a look later, and bursts.
        assert!(
            looks([(9, 0, 0), (0, 9, 0), (0, 0, 0), (50, 0, 0), (0, 50, 0)])
                .iter()
                .all(Option::is_none)
        );
        // SYN-ACKs sent again to clients that do not answer, as in a flood.
        assert!(looks([(5, 20, 0); 30]).iter().all(Option::is_none));
    }

    #[test]
    fn refusals_show_at_the_next_look() {
        assert_eq!(looks([(1, 0, 1)]), [Some(Sign::Trouble)]);
        assert_eq!(looks([(3, 0, 3)]), [Some(Sign::Failing)]);
        assert_eq!(
            looks([(10, 0, 10), (0, 0, 0)]),
            [Some(Sign::Failing), None],
            "told once"
        );
    }

    #[test]
    fn silence_shows_when_an_answer_is_overdue() {
        let silent = looks([(4, 0, 0); 4]);
        let (trouble, failing) = (Some(Sign::Trouble), Some(Sign::Failing));
        assert_eq!(silent, [None, None, trouble, failing]);
        assert_eq!(
            looks([(1, 0, 0), (0, 0, 0), (0, 0, 0)])[2],
            Some(Sign::Trouble)
        );
        // In the midst of traffic: it dies after ten looks.
        let mut dies = vec![(5, 5, 0); 10];
        dies.extend([(5, 0, 0); 7]);
        let shown = looks(dies);
        assert!(shown[..12].iter().all(Option::is_none));
        assert_eq!(
            shown[12],
            Some(Sign::Trouble),
            "a third look without an answer"
        );
        assert_eq!(shown[15], failing, "half of what began");
    }

    #[test]
    fn a_few_failures_among_many_are_no_sign() {
        assert!(looks([(21, 20, 1); 30])[3..].iter().all(Option::is_none));
        let some = looks([(20, 16, 4); 30]);
        assert!(
            some[8..].iter().all(|sign| *sign == Some(Sign::Trouble)),
            "{some:?}"
        );
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let mut steps = vec![(1, 0, 1)];
        steps.extend([(0, 0, 0); 10]);
        let shown = looks(steps);
        assert!(
            shown[..LOOKS]
                .iter()
                .all(|sign| *sign == Some(Sign::Trouble))
        );
        assert!(shown[LOOKS..].iter().all(Option::is_none));
    }
}
