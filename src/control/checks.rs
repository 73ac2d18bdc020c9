//! From the configuration to the checks: which backends are asked, and what their answers mean.

use std::net::SocketAddr;
use std::sync::Arc;

use ringgate_config::{Backend, Model, Service};

use ringgate_dataplane::backend::Health;

use super::health::{Checker, Reports, Spec, State, Target};
use super::truepath::Path;

/// The check of a backend; `None` when it is not checked: its service has no `health`, or the
/// operator took it out.
pub(crate) fn spec_of(service: &Service, backend: &Backend) -> Option<Spec> {
    let health = service.health().filter(|_| !backend.disabled())?;
    let port = health.port().unwrap_or_else(|| backend.address().port());
    Some(Spec {
        address: SocketAddr::new(backend.address().ip(), port),
        check: health.check().cloned(),
        path: Path::of(service, backend, health),
        pace: *health.pace(),
        reports: health.report_ttl().map(|ttl| Reports {
            target: Target {
                service: Arc::from(service.name()),
                backend: backend.address(),
            },
            ttl,
        }),
    })
}

/// Every check that the configuration asks for, as often as backends do.
#[cfg(test)]
pub(crate) fn specs(model: &Model) -> impl Iterator<Item = Spec> + '_ {
    model.services().iter().flat_map(|service| {
        service
            .backends()
            .iter()
            .filter_map(move |backend| spec_of(service, backend))
    })
}

/// How the backends of a service are checked, as the file calls it.
pub(crate) fn kind_of(service: &Service) -> Option<&'static str> {
    service.health().map(|health| {
        health
            .check()
            .map_or("reported", |check| check.kind().as_str())
    })
}

/// How many backends are checked.
pub(crate) fn count(model: &Model) -> usize {
    let checked = model.services().iter().filter(|one| one.health().is_some());
    let backends = checked.flat_map(|service| service.backends());
    backends.filter(|backend| !backend.disabled()).count()
}

/// What is known of a backend of any configuration from its check. One without is up. Of those of the
/// configuration in force, [`Roster::health`](super::roster::Roster::health) knows it sooner.
pub(crate) fn health(checker: &Checker, service: &Service, backend: &Backend) -> Health {
    let Some(spec) = spec_of(service, backend) else {
        return Health::Up;
    };
    said(checker.report(&spec).map(|report| report.state))
}

/// What the state of a backend's check means.
pub(crate) const fn said(state: Option<State>) -> Health {
    match state {
        Some(State::Up) => Health::Up,
        Some(State::Suspect) => Health::Suspect,
        Some(State::Down | State::Held) => Health::Down,
        Some(State::Pending) | None => Health::Pending,
    }
}
