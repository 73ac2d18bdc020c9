//! Services without a backend that is up: what the log says of them, once when it begins and once
//! when it is over.

use std::collections::HashMap;

use ringgate_dataplane::service::Service;
use ringgate_dataplane::snapshot::Snapshot;

/// What becomes of a service's new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// A backend that is up gets them.
    Served,
    /// No backend takes any: they are dropped as `no_backend`.
    Dropped,
    /// No backend is up, and those that may be down get them.
    FallenOpen,
}

impl Fate {
    /// As events call it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Dropped => "dropped",
            Self::FallenOpen => "fallen-open",
        }
    }

    fn of(service: &Service) -> Self {
        match (service.ring.is_some(), service.fallen_open) {
            (_, true) => Self::FallenOpen,
            (true, false) => Self::Served,
            (false, false) => Self::Dropped,
        }
    }
}

/// The services whose fate is another than in the last snapshot, by name. A service that is new
/// has been served, for all that anybody knows.
pub(super) fn changes<'a>(old: &Snapshot, new: &'a Snapshot) -> Vec<(&'a str, Fate)> {
    let before: HashMap<_, Fate> = old
        .services()
        .iter()
        .map(|service| ((service.listen, service.protocol), Fate::of(service)))
        .collect();
    let fates = new.services().iter().filter_map(|service| {
        let fate = Fate::of(service);
        let past = before.get(&(service.listen, service.protocol)).copied();
        (past.unwrap_or(Fate::Served) != fate).then_some((&*service.name, fate))
    });
    fates.collect()
}

/// Logs them.
pub(super) fn announce(changes: &[(&str, Fate)]) {
    for (service, fate) in changes {
        match fate {
            Fate::Served => tracing::info!(service, "new flows are served"),
            Fate::Dropped => {
                tracing::warn!(service, "no backend takes new flows: they are dropped");
            }
            Fate::FallenOpen => tracing::warn!(
                service,
                "no backend is up: flows go to those that are down, as when-empty says"
            ),
        }
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
          [[service.backend]]
          address = "10.2.0.11:8080"
        [[service]]
        name = "open"
        listen = "10.100.0.2:80"
        protocol = "tcp"
        forward = "nat"
        when-empty = "open"
          [[service.backend]]
          address = "10.2.0.11:8080"
    "#;

    #[test]
    fn a_change_is_told_once() {
        let model = ringgate_config::parse("test.toml", FILE).unwrap().model;
        let mut builder = Builder::default();
        let fib = Arc::new(Fib::default());
        let mut build = |health| builder.build(&model, |_, _| health, &fib, false).unwrap();
        let [up, down, still] = [Health::Up, Health::Down, Health::Down].map(&mut build);
        let gone = [("web", Fate::Dropped), ("open", Fate::FallenOpen)];
        assert_eq!(changes(&up, &down), gone);
        assert_eq!(changes(&down, &still), []);
        let back = [("web", Fate::Served), ("open", Fate::Served)];
        assert_eq!(changes(&down, &build(Health::Up)), back);
        // A service that comes with a reload and has nobody.
        let file = "[[interface]]\nname = \"eth0\"\n";
        let nothing = ringgate_config::parse("test.toml", file).unwrap().model;
        let before = Builder::default()
            .build(&nothing, |_, _| Health::Up, &fib, false)
            .unwrap();
        assert_eq!(changes(&before, &down), gone);
        assert_eq!(changes(&before, &up), []);
    }
}
