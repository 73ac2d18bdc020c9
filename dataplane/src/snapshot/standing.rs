//! Where a backend stands, from one snapshot to the next: its state, and its slow start.

use ringgate_config::{Backend, Service};

use super::quorum::Quorum;
use crate::backend::{BackendState, Health};
use crate::clock::Millis;
use crate::slow_start;

/// What a backend is in one snapshot, and what the next one must know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// What workers see.
    pub(super) state: BackendState,
    /// The same, by itself: had its service not fallen open, and were suspicion always heeded.
    pub(super) known: BackendState,
    /// When its slow start began; `None`: it has its whole weight.
    begun: Option<Millis>,
    /// Its service is as new as itself, and its first check has not ended since.
    is_founder: bool,
}

impl Standing {
    /// What follows from what the operator and the check say, and from what was before.
    fn of(
        (backend, health): (&Backend, Health),
        past: Option<&Self>,
        service_is_new: bool,
        now: Millis,
    ) -> Self {
        use BackendState::{Disabled, Down, Draining, Pending, Suspect, Up};
        let known =
            match (backend.disabled(), health, past.map(|past| past.known)) {
                (true, ..) => Disabled,
                (false, Health::Down, _) | (false, Health::Pending, Some(Down)) => Down,
                (false, Health::Suspect, _) if backend.weight() > 0 => Suspect,
                // A reload that adds a check says nothing about a backend that serves.
                (false, Health::Up | Health::Suspect, _)
                | (false, Health::Pending, Some(Up | Draining | Suspect)) => {
                    if backend.weight() == 0 { Draining } else { Up }
                }
                (false, Health::Pending, Some(Pending | Disabled) | None) => Pending,
            };
        let is_founder = past.map_or(service_is_new, |past| past.is_founder);
        let begun = match past {
            // A suspicion comes and goes within a check: nothing has cooled down.
            Some(past) if known == Suspect && past.known != Down => past.begun,
            _ if known != Up => None,
            // Also one that was sent everything while the service had fallen open.
            Some(past) if past.state == Up || past.known == Suspect => past.begun,
            _ if is_founder => None,
            _ => Some(now),
        };
        Self {
            state: known,
            known,
            begun,
            is_founder: is_founder && known == Pending,
        }
    }

    /// In which step of its slow start it is, and when the next one begins.
    fn step(&self, service: &Service, now: Millis) -> (u32, Option<Millis>) {
        let Some(begun) = self.begun else {
            return (slow_start::STEPS, None);
        };
        let step = slow_start::step(begun, service.slow_start(), now);
        (step, slow_start::next(begun, service.slow_start(), step))
    }
}

/// Where the backends of a service stand, in file order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Standings {
    pub(super) each: Vec<Standing>,
    /// The effective weights: 0 for those that take no new flows.
    pub(super) weights: Vec<u32>,
    /// What the effective weights count in: so many to one of the configured weight.
    pub(super) scale: u32,
    /// Whether enough are up, and what follows if not.
    pub(super) quorum: Quorum,
    /// When the next step of a slow start begins.
    pub(super) next_step: Option<Millis>,
}

impl Standings {
    /// From what was before: `past` has it in file order, and nobody of a service that is new.
    pub(super) fn of(
        service: &Service,
        health: &impl Fn(&Service, usize) -> Health,
        past: impl Iterator<Item = Option<Standing>>,
        service_is_new: bool,
        now: Millis,
    ) -> Self {
        let mut each: Vec<Standing> = past
            .zip(service.backends())
            .enumerate()
            .map(|(at, (past, backend))| {
                let said = (backend, health(service, at));
                Standing::of(said, past.as_ref(), service_is_new, now)
            })
            .collect();
        let quorum = Quorum::settle(service, &mut each);
        let mut standings = Self {
            each,
            quorum,
            ..Self::default()
        };
        standings.weigh(service, now);
        standings
    }

    /// Sets the effective weights, and ends slow starts that are over.
    fn weigh(&mut self, service: &Service, now: Millis) {
        let steps: Vec<u32> = self
            .each
            .iter_mut()
            .map(|one| {
                let (step, next) = one.step(service, now);
                if next.is_none() {
                    one.begun = None;
                }
                self.next_step = [self.next_step, next].into_iter().flatten().min();
                step
            })
            .collect();
        let is_slow = self.each.iter().any(|one| one.begun.is_some());
        self.scale = if is_slow { slow_start::STEPS } else { 1 };
        self.weights = self
            .each
            .iter()
            .zip(service.backends())
            .zip(steps)
            .map(|((one, backend), step)| match one.state {
                BackendState::Up if !self.quorum.fallen_closed => {
                    backend.weight() * step.min(self.scale)
                }
                _ => 0,
            })
            .collect();
    }
}
