//! What a snapshot makes of services and backends, as events: what is otherwise than in the last.

use std::collections::HashMap;

use ringgate_dataplane::backend::Backend;
use ringgate_dataplane::snapshot::Snapshot;

use super::empty::{self, Fate};
use crate::control::events::Event;

/// The differences, in the order of the new configuration; what is gone first.
pub(super) fn between(old: &Snapshot, new: &Snapshot) -> Vec<Event> {
    let mut events = Vec::new();
    for (service, backend) in all(old) {
        if new.backend(backend.id).is_none() {
            events.push(event(service, backend, Some(backend), None));
        }
    }
    for (service, backend) in all(new) {
        let before = old.backend(backend.id);
        if before.map(|before| before.state) != Some(backend.state) {
            events.push(event(service, backend, before, Some(backend)));
        }
    }
    let changes: HashMap<&str, Fate> = empty::changes(old, new).into_iter().collect();
    for service in new.services() {
        if let Some(fate) = changes.get(&*service.name) {
            events.push(Event::Service {
                service: service.name.to_string(),
                new_flows: fate.as_str(),
            });
        }
    }
    events
}

fn all(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &Backend)> {
    snapshot.services().iter().flat_map(|service| {
        let members = service.members.iter();
        members.filter_map(|id| Some((&*service.name, snapshot.backend(*id)?)))
    })
}

fn event(
    service: &str,
    backend: &Backend,
    before: Option<&Backend>,
    now: Option<&Backend>,
) -> Event {
    Event::Backend {
        service: service.to_owned(),
        backend: backend.name(),
        before: before.map(|one| one.state.as_str()),
        state: now.map(|one| one.state.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ringgate_dataplane::backend::Health;
    use ringgate_dataplane::route::Fib;
    use ringgate_dataplane::snapshot::Builder;

    use super::*;

    const FILE: &str = r#"
        [[interface]]
        name = "eth0"
        [[service]]
        name = "web"
        listen = "10.100.0.1:80"
        protocol = "tcp"
        forward = "nat"
        backend = [{ address = "10.2.0.11:8080" }, { address = "10.2.0.12:8080" }]
    "#;

    #[test]
    fn what_changes_sides_comes_or_goes_is_told_once() {
        let mut builder = Builder::default();
        let fib = Arc::new(Fib::default());
        let mut build = |text: &str, health| {
            let model = ringgate_config::parse("test.toml", text).unwrap().model;
            builder.build(&model, |_, _| health, &fib, false).unwrap()
        };
        let told = |backend: &str, before, state| Event::Backend {
            service: "web".to_owned(),
            backend: backend.to_owned(),
            before,
            state,
        };
        let fate = |new_flows| Event::Service {
            service: "web".to_owned(),
            new_flows,
        };
        let up = build(FILE, Health::Up);
        let down = build(FILE, Health::Down);
        let (first, second) = ("10.2.0.11:8080", "10.2.0.12:8080");
        let expected = [
            told(first, Some("up"), Some("down")),
            told(second, Some("up"), Some("down")),
            fate("dropped"),
        ];
        assert_eq!(between(&up, &down), expected);
        assert_eq!(between(&down, &build(FILE, Health::Down)), []);
        let moved = FILE.replace("10.2.0.11:8080\" }", "10.2.0.13:8080\", weight = 0 }");
        let expected = [
            told(first, Some("up"), None),
            told("10.2.0.13:8080", None, Some("draining")),
        ];
        assert_eq!(between(&up, &build(&moved, Health::Up)), expected);
    }
}
