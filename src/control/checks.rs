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

/// Whether two configurations ask for other checks, or say so in another order. Most reloads change weights
/// or what services do, and ten thousand checks need not be looked up for that.
pub(crate) fn is_checked_otherwise(old: &Model, new: &Model) -> bool {
    // Of a backend what its check is made of, beside what its service says of health.
    let asked = |service: &Service| {
        let backends = service.backends().iter().map(|backend| {
            let path = service.health();
            let path = path.and_then(|health| Path::of(service, backend, health));
            (backend.address(), backend.disabled(), path)
        });
        backends.collect::<Vec<_>>()
    };
    let is_same = |old: &Service, new: &Service| {
        old.name() == new.name() && old.health() == new.health() && asked(old) == asked(new)
    };
    let (old, new) = (old.services(), new.services());
    old.len() != new.len() || !old.iter().zip(new).all(|(old, new)| is_same(old, new))
}

/// What is known of a backend from its check. One without is up.
pub(crate) fn health(checker: &Checker, service: &Service, backend: &Backend) -> Health {
    let Some(spec) = spec_of(service, backend) else {
        return Health::Up;
    };
    match checker.report(&spec).map(|report| report.state) {
        Some(State::Up) => Health::Up,
        Some(State::Suspect) => Health::Suspect,
        Some(State::Down | State::Held) => Health::Down,
        Some(State::Pending) | None => Health::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "[[interface]]\nname = \"front\"\n[[service]]\nname = \"web\"\nlisten = \"10.100.0.1:80\"\n\
        protocol = \"tcp\"\nforward = \"nat\"\nhealth = { kind = \"tcp\", interval = \"1s\" }\n\
        [[service.backend]]\naddress = \"10.2.0.11:80\"\nweight = 7\n";

    fn model(from: &str, to: &str) -> Model {
        let text = PLAIN.replace(from, to);
        ringgate_config::parse("test", &text).unwrap().model
    }

    #[test]
    fn what_is_asked_for_otherwise_is_seen_and_nothing_else() {
        let plain = model("", "");
        for (from, to) in [
            ("kind = \"tcp\"", "kind = \"http\""),
            ("interval = \"1s\"", "interval = \"2s\""),
            ("\"web\"", "\"net\""),
            ("10.2.0.11:80", "10.2.0.12:80"),
            ("weight = 7", "disabled = true"),
            (
                "weight = 7\n",
                "[[service.backend]]\naddress = \"10.2.0.12:80\"\n",
            ),
            ("health", "#"),
        ] {
            let other = model(from, to);
            assert!(is_checked_otherwise(&plain, &other), "{to}");
            assert!(specs(&plain).ne(specs(&other)) || from == "\"web\"", "{to}");
        }
        let by_service = PLAIN.replace("\"1s\"", "\"1s\", via = \"service\"");
        let by_service = by_service
            .replace("\"nat\"", "\"dsr-l2\"")
            .replace(".11:80", ".11");
        let model_of = |text: &str| ringgate_config::parse("test", text).unwrap().model;
        let elsewhere = model_of(&by_service.replace(".1:80", ".2:80"));
        let by_service = model_of(&by_service);
        assert!(specs(&by_service).ne(specs(&elsewhere)));
        assert!(is_checked_otherwise(&by_service, &elsewhere));
        for (from, to) in [("", ""), ("weight = 7", "weight = 9"), (".1:80", ".2:80")] {
            assert!(!is_checked_otherwise(&plain, &model(from, to)), "{to}");
        }
    }
}
