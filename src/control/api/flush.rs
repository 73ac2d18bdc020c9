//! `POST /v1/flush`: whose flows are meant. The loop searches for them, a part of the table each turn.

use std::net::{IpAddr, SocketAddr};

use ringgate_conntrack::Seconds;
use ringgate_dataplane::flush::{Flush, Scope};
use ringgate_dataplane::service::Service;
use ringgate_dataplane::snapshot::Snapshot;
use serde_json::{Value, json};

use super::super::admin::Answer;
use super::super::admin::http::{Request, Response};
use super::super::slab::Key;
use super::super::status::Page;
use super::Doing;
use super::name::missing;

/// A flush under way, and who asked for it.
#[derive(Debug)]
pub(crate) struct Flushing {
    /// The search.
    pub(crate) flush: Flush,
    /// The connection that waits for the answer.
    pub(crate) asked_by: Key,
    target: Target,
}

/// Whose flows, and how the log and the answer name them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    scope: Scope,
    service: Option<String>,
    backend: Option<String>,
}

/// Begins a flush, unless one is under way.
pub(super) fn begin(
    request: &Request<'_>,
    key: Key,
    page: &Page<'_>,
    doing: &mut Doing<'_>,
) -> Answer {
    if doing.flush.is_some() {
        let message = "another flush is under way: ask again when it has ended";
        return Answer::Now(Response::error(409, message));
    }
    match Flushing::begin(request, key, page.snapshot, page.now.seconds()) {
        Ok(begun) => {
            *doing.flush = Some(begun);
            Answer::Later
        }
        Err(refusal) => Answer::Now(refusal),
    }
}

impl Flushing {
    /// Begins what a request asks for.
    ///
    /// # Errors
    ///
    /// The refusal: there is no such service or backend, or too little was said.
    fn begin(
        request: &Request<'_>,
        asked_by: Key,
        snapshot: &Snapshot,
        now: Seconds,
    ) -> Result<Self, Response> {
        let target = Target::of(request, snapshot)?;
        Ok(Self {
            flush: Flush::new(target.scope, now),
            asked_by,
            target,
        })
    }

    /// The service whose flows are meant; none: all.
    pub(crate) fn service(&self) -> Option<&str> {
        self.target.service.as_deref()
    }

    /// The backend whose flows are meant; none: all.
    pub(crate) fn backend(&self) -> Option<&str> {
        self.target.backend.as_deref()
    }

    /// The answer when the search is over.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "service": self.service(),
            "backend": self.backend(),
            "flows": self.flush.flows(),
            "entries": self.flush.entries(),
        })
    }
}

impl Target {
    fn of(request: &Request<'_>, snapshot: &Snapshot) -> Result<Self, Response> {
        let (name, address) = (request.parameter("service"), request.parameter("backend"));
        let Some(name) = name else {
            if request.parameter("all").as_deref() == Some("true") && address.is_none() {
                return Ok(Self {
                    scope: Scope::All,
                    service: None,
                    backend: None,
                });
            }
            let message =
                "say whose flows: service=NAME, service=NAME and backend=ADDRESS, or all=true";
            return Err(Response::error(400, message));
        };
        let mut services = snapshot.services().iter();
        let Some(service) = services.find(|service| *service.name == *name) else {
            let names = snapshot.services().iter().map(|s| s.name.to_string());
            return Err(missing(&format!("service {name:?}"), "services", names));
        };
        let (scope, backend) = match address {
            None => (Scope::Service(service.listen, service.protocol), None),
            Some(address) => backend(&address, service, snapshot)?,
        };
        Ok(Self {
            scope,
            service: Some(service.name.to_string()),
            backend,
        })
    }
}

/// The backend of `service` that an operator calls `text`: by address and port, or by the address
/// alone where that is enough.
fn backend(
    text: &str,
    service: &Service,
    snapshot: &Snapshot,
) -> Result<(Scope, Option<String>), Response> {
    let all = || {
        let backends = service
            .members
            .iter()
            .filter_map(|id| snapshot.backend(*id));
        backends.map(|backend| (backend, backend.endpoint.to_socket()))
    };
    let is_meant = |address: SocketAddr| match text.parse::<SocketAddr>() {
        Ok(whole) => whole == address,
        Err(_) => text.parse::<IpAddr>() == Ok(address.ip()),
    };
    let mut meant = all().filter(|(_, address)| is_meant(*address));
    match (meant.next(), meant.next()) {
        (Some((backend, _)), None) => Ok((Scope::Backend(backend.id), Some(backend.name()))),
        (Some(_), Some(_)) => {
            let message = format!("several backends have the address {text}: add the port");
            Err(Response::error(400, &message))
        }
        (None, _) => {
            let addresses = all().map(|(backend, _)| backend.name());
            let what = format!("backend {text:?} in service {:?}", &*service.name);
            Err(missing(&what, "backends", addresses))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ringgate_dataplane::backend::Health;
    use ringgate_dataplane::route::Fib;
    use ringgate_dataplane::snapshot::Builder;

    use super::super::super::admin::access::Access;
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
          [[service.backend]]
          address = "10.2.0.12:8080"
          [[service.backend]]
          address = "10.2.0.12:8081"
    "#;

    fn snapshot() -> Snapshot {
        let model = ringgate_config::parse("test.toml", FILE).unwrap().model;
        Builder::default()
            .build(&model, |_, _| Health::Up, &Arc::new(Fib::default()), false)
            .unwrap()
    }

    fn target(query: &str) -> Result<Target, Response> {
        let request = Request {
            method: "POST",
            path: "/v1/flush",
            query,
            accept: "",
            body: b"",
            access: Access::Write,
        };
        Target::of(&request, &snapshot())
    }

    #[test]
    fn all_a_service_or_a_backend_are_what_can_be_named() {
        let snapshot = snapshot();
        let web = &snapshot.services()[0];
        assert_eq!(target("all=true").unwrap().scope, Scope::All);
        assert_eq!(
            target("service=web").unwrap().scope,
            Scope::Service(web.listen, 6)
        );
        for query in ["10.2.0.11:8080", "10.2.0.11"] {
            let found = target(&format!("service=web&backend={query}")).unwrap();
            assert_eq!(found.scope, Scope::Backend(web.members[0]));
            assert_eq!(found.backend.as_deref(), Some("10.2.0.11:8080"));
        }
    }

    #[test]
    fn what_is_not_there_or_not_clear_is_refused_with_what_there_is() {
        for (query, status, words) in [
            ("", 400, "say whose flows"),
            ("all=yes", 400, "say whose flows"),
            ("all=true&backend=10.2.0.11", 400, "say whose flows"),
            (
                "service=wep",
                404,
                "there is no service \"wep\"; services: web",
            ),
            (
                "service=web&backend=10.2.0.13",
                404,
                "backends: 10.2.0.11:8080, 10.2.0.12:8080, 10.2.0.12:8081",
            ),
            (
                "service=web&backend=b1",
                404,
                "no backend \"b1\" in service \"web\"",
            ),
            ("service=web&backend=10.2.0.12", 400, "add the port"),
        ] {
            let refusal = target(query).unwrap_err();
            assert_eq!(refusal.status, status, "{query}");
            let message = refusal.message();
            assert!(message.contains(words), "{query}: {message}");
        }
    }
}
