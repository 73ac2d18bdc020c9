//! `GET /v1/drain`: how many flows a backend that takes no new ones still has, as a stream that
//! ends when there is none.

use std::time::{Duration, Instant};

use ringgate_conntrack::{Direction, FlowTable, Seconds, State};
use ringgate_dataplane::backend::{BackendId, BackendState};
use ringgate_dataplane::snapshot::{Snapshot, identities_of};
use serde_json::{Value, json};

use super::super::admin::Answer;
use super::super::admin::http::{Request, Response};
use super::super::events::KIND;
use super::super::slab::Key;
use super::super::status::Page;
use super::{Doing, Errand, name};

/// From the end of one count to the beginning of the next.
const PAUSE: Duration = Duration::from_millis(250);

/// The longest time that is waited for, seconds: a week, as long as a flow may be kept.
const LONGEST: u64 = 7 * 24 * 3600;

/// Somebody who waits for a backend to be drained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wait {
    /// The stream that progress is sent to.
    pub(crate) key: Key,
    service: String,
    backend: String,
    id: BackendId,
    /// For how long at most.
    patience: Option<Duration>,
    deadline: Option<Instant>,
    counted: u64,
}

/// Begins to wait.
pub(super) fn begin(
    request: &Request<'_>,
    key: Key,
    page: &Page<'_>,
    doing: &mut Doing<'_>,
) -> Answer {
    match wait(request, key, page) {
        Ok(wait) => {
            doing.errands.push(Errand::Wait(wait));
            Answer::Stream { kind: KIND }
        }
        Err(refusal) => Answer::Now(refusal),
    }
}

fn wait(request: &Request<'_>, key: Key, page: &Page<'_>) -> Result<Wait, Response> {
    let (service, backend) = name::backend(request, page.model)?;
    let patience = match request.parameter("timeout") {
        None => None,
        Some(text) => match text.parse() {
            Ok(seconds @ 0..=LONGEST) => Some(Duration::from_secs(seconds)),
            _ => {
                let message = format!("timeout must be a number of seconds, at most {LONGEST}");
                return Err(Response::error(400, &message));
            }
        },
    };
    let at = service.backends().iter().position(|one| one == backend);
    let built = page.snapshot.services().iter();
    let id = identities_of(service)
        .nth(at.unwrap_or_default())
        .zip(built.clone().find(|built| *built.name == *service.name()))
        .and_then(|(identity, built)| {
            let mut members = built.members.iter();
            members.find(|id| {
                let member = page.snapshot.backend(**id);
                member.is_some_and(|member| member.endpoint == identity.address)
            })
        });
    let Some((id, member)) = id.and_then(|id| Some((*id, page.snapshot.backend(*id)?))) else {
        return Err(Response::error(
            503,
            "the change is not in force yet: ask again",
        ));
    };
    if !matches!(
        member.state,
        BackendState::Draining | BackendState::Disabled | BackendState::Down
    ) && backend.weight() > 0
    {
        let message = format!(
            "{} in {:?} takes new flows, so it would never be drained: drain it first",
            backend.name(),
            service.name()
        );
        return Err(Response::error(409, &message));
    }
    Ok(Wait {
        key,
        service: service.name().to_owned(),
        backend: backend.name(),
        id,
        patience,
        deadline: None,
        counted: 0,
    })
}

/// All who wait. The table is searched once for all of them, a part each turn.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    waits: Vec<Wait>,
    /// The bucket that is searched next; none between two searches.
    next: Option<u32>,
    /// When the next search begins.
    due: Option<Instant>,
}

/// What somebody who waits is told.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    /// The stream.
    pub(crate) key: Key,
    /// The line, as JSON.
    pub(crate) line: Value,
    /// The service and the backend, if there is nothing more to wait for because it is drained.
    pub(crate) drained: Option<(String, String)>,
    /// It is the last line.
    pub(crate) is_last: bool,
}

impl Waits {
    /// Adds one.
    pub(crate) fn add(&mut self, mut wait: Wait, now: Instant) {
        wait.deadline = wait.patience.and_then(|patience| now.checked_add(patience));
        self.waits.push(wait);
        // Who comes while a search is under way has not seen its beginning.
        self.next = None;
        self.due = Some(now);
    }

    /// Whether the loop must not sleep.
    pub(crate) const fn is_busy(&self) -> bool {
        self.next.is_some()
    }

    /// Forgets those whose streams are not open.
    pub(crate) fn retain(&mut self, is_open: impl Fn(Key) -> bool) {
        self.waits.retain(|wait| is_open(wait.key));
    }

    /// Searches so many buckets at most; at the end of a search, what to tell.
    pub(crate) fn go_on(
        &mut self,
        table: &FlowTable,
        snapshot: &Snapshot,
        budget: u32,
        (now, seconds): (Instant, Seconds),
    ) -> Vec<Told> {
        let is_due = self.due.is_some_and(|due| now >= due);
        if self.waits.is_empty() || (self.next.is_none() && !is_due) {
            return Vec::new();
        }
        let from = match self.next {
            Some(next) => next,
            None => {
                self.waits.iter_mut().for_each(|wait| wait.counted = 0);
                0
            }
        };
        let to = from.saturating_add(budget).min(table.buckets());
        let waits = &mut self.waits;
        table.for_each_in(from..to, seconds, |_, flow| {
            if flow.direction == Direction::FromClient && flow.state != State::Closed {
                let id = BackendId(flow.owner);
                let whose = waits.iter_mut().filter(|wait| wait.id == id);
                whose.for_each(|wait| wait.counted += 1);
            }
        });
        if to < table.buckets() {
            self.next = Some(to);
            return Vec::new();
        }
        (self.next, self.due) = (None, Some(now + PAUSE));
        let mut told = Vec::new();
        self.waits.retain(|wait| {
            let one = wait.told(snapshot, now);
            let stays = !one.is_last;
            told.push(one);
            stays
        });
        told
    }
}

impl Wait {
    fn told(&self, snapshot: &Snapshot, now: Instant) -> Told {
        let is_gone = snapshot.backend(self.id).is_none();
        let is_drained = self.counted == 0;
        let is_late = self.deadline.is_some_and(|deadline| now >= deadline);
        let outcome = match (is_drained, is_gone, is_late) {
            (true, ..) => Some("drained"),
            (false, true, _) => Some("gone"),
            (false, false, true) => Some("timed-out"),
            (false, false, false) => None,
        };
        let line = json!({
            "service": self.service,
            "backend": self.backend,
            "flows": self.counted,
            "outcome": outcome,
        });
        Told {
            key: self.key,
            line,
            drained: is_drained.then(|| (self.service.clone(), self.backend.clone())),
            is_last: outcome.is_some(),
        }
    }
}
