//! Checks: which are due, how they end, and what follows from that.

use std::time::{Duration, Instant};

use super::{Steward, Token};
use crate::control::driver::Outcome;
use crate::control::health::{Reason, Verdict};
use crate::control::probe::complaint::Complaint;
use crate::control::probe::trust::{Trust, said};
use crate::control::probe::{Ended, ProbeToken, Progress};
use crate::descriptors;

impl From<ProbeToken> for Token {
    fn from(token: ProbeToken) -> Self {
        Self::Check(token)
    }
}

impl Steward {
    /// Makes room for the checks of a new configuration, and reads what they need for TLS. They were there a moment ago, when it was
    /// judged; should one have vanished since, the old ones stay.
    pub(super) fn renew_trust(&mut self) {
        descriptors::raise(&self.model);
        match Trust::load(&self.model) {
            Ok(trust) => self.prober.renew(trust),
            Err(wrong) => tracing::error!("checks over TLS stay as they were: {}", said(wrong)),
        }
    }

    pub(super) fn start_checks(&mut self, now: Instant) {
        // What ended checks have left behind goes first: their ports may be the next ones'.
        self.carry_checks(now);
        let mut starts = Vec::new();
        self.checker.tick(now, &mut starts);
        self.prober.queue(starts);
        for start in self.prober.begun_now() {
            self.begun += 1;
            let progress = match self.door(&start) {
                Ok(door) => self.prober.start(&start, door, now, &mut *self.driver),
                Err(errno) => Progress::Ended(Ended {
                    id: start.id,
                    verdict: Verdict::Inconclusive(errno),
                    latency: Duration::ZERO,
                }),
            };
            self.follow_check(progress, now);
        }
    }

    pub(super) fn go_on_checking(&mut self, token: ProbeToken, outcome: Outcome, now: Instant) {
        let progress = self
            .prober
            .completed(token, outcome, now, &mut *self.driver);
        self.follow_check(progress, now);
    }

    fn follow_check(&mut self, progress: Progress, now: Instant) {
        match progress {
            Progress::Running => {}
            Progress::Ended(ended) => self.end_check(&ended, now),
            Progress::Refused(id) => self.checker.refused(id, now),
        }
    }

    fn end_check(&mut self, ended: &Ended, now: Instant) {
        let Ended {
            id,
            verdict,
            latency,
        } = *ended;
        let mut verdict = verdict;
        if let Some(spec) = self.checker.spec(id) {
            self.latencies.record(spec, latency);
            let is_late = matches!(verdict, Verdict::Failure(_)) && latency >= spec.limit();
            if is_late
                && self.stall.is_to_blame(now - latency, spec.limit())
                && self.checker.report(spec).and_then(|report| report.last) != Some(Verdict::Unseen)
            {
                verdict = Verdict::Unseen;
            } else if spec.path.is_some() && is_silence(&verdict) {
                verdict = Verdict::Failure(Reason::Unanswered);
            }
        }
        if let Some(change) = self.checker.ended(id, verdict, latency, now) {
            self.changed(&change);
        }
    }
}

/// Whether nothing at all was heard.
const fn is_silence(verdict: &Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Failure(Reason::TimedOut | Reason::Answer(Complaint::NoAnswer))
    )
}
