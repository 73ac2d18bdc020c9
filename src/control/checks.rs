//! From the configuration to the checks: which backends are asked, and what their answers mean.

use std::net::SocketAddr;

use ringgate_config::{Backend, HealthKind, Model, Service};

use super::health::{Checker, Kind, Spec, State};

/// The check of a backend; `None` when it is not checked: its service has no `health`, or the
/// operator took it out.
pub(crate) fn spec_of(service: &Service, backend: &Backend) -> Option<Spec> {
    let health = service.health().filter(|_| !backend.disabled())?;
    let port = health.port().unwrap_or_else(|| backend.address().port());
    Some(Spec {
        address: SocketAddr::new(backend.address().ip(), port),
        kind: match health.kind() {
            HealthKind::Tcp => Kind::Tcp,
        },
        interval: health.interval(),
        timeout: health.timeout(),
        rise: health.rise(),
        fall: health.fall(),
    })
}

/// Every check that the configuration asks for. Backends of several services that are checked alike
/// share one.
pub(crate) fn specs(model: &Model) -> impl Iterator<Item = Spec> + '_ {
    model.services().iter().flat_map(|service| {
        service
            .backends()
            .iter()
            .filter_map(move |backend| spec_of(service, backend))
    })
}

/// Whether a backend may be sent packets as far as its check goes.
pub(crate) fn is_up(checker: &Checker, service: &Service, backend: &Backend) -> bool {
    spec_of(service, backend).is_none_or(|spec| {
        checker
            .report(&spec)
            .is_some_and(|report| report.state == State::Up)
    })
}
