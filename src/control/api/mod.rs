//! What can be asked through the admin socket: the table of routes, and who may take which.
//!
//! A route's handler is a plain function. One that only looks is given the [`Page`] that `status`
//! is made from. One that acts is also given a [`Doing`]: what it may begin. It answers at once, or
//! keeps the connection's key in what it begins and answers by it later.
//!
//! | file | owns |
//! |---|---|
//! | [`change`] | `POST` of what an operator changes, and `save` |
//! | [`events`] | `GET /v1/events`: which of them, and for how long |
//! | [`flush`] | `POST /v1/flush`: whose flows are meant |
//! | [`flows`] | `GET /v1/flows`: which of them, a page at a time |
//! | [`look`] | what is shown and changes nothing |
//! | [`report`] | `POST /v1/report`: how an outside agent finds a backend |
//! | [`name`] | services and backends as those who ask call them |
//! | [`propose`] | another configuration |
//! | [`tap`] | `GET /v1/trace` and `GET /v1/capture`: of which packets, and how many |
//! | [`watch`] | `GET /v1/drain`: a backend while its flows end |

mod change;
mod events;
pub(crate) mod flows;
pub(crate) mod flush;
pub(crate) mod look;
mod name;
pub(crate) mod propose;
mod report;
mod tap;
pub(crate) mod watch;

use std::net::SocketAddr;

use ringgate_config::{Api, Change};

use super::admin::Answer;
use super::admin::access::Access;
use super::admin::http::{Request, Response};
use super::health::{Target, Told};
use super::slab::Key;
use super::status::Page;
use super::taps::Showing;
use flows::Listing;
use flush::Flushing;
use propose::Proposal;
use watch::Wait;

/// What takes the whole loop, and is done once the handler has returned. The key is that of the
/// connection that waits for an answer, or that has become a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Send events to a stream: so many that have happened, and those to come if it stays.
    Follow {
        /// The stream's.
        key: Key,
        /// Events that have happened.
        last: usize,
        /// Whether it stays.
        stays: bool,
    },
    /// Take what an agent says of a backend.
    Report {
        /// Of which.
        target: Target,
        /// What.
        told: Told,
    },
    /// Find a page of flows.
    List {
        /// Who waits for it.
        key: Key,
        /// Which.
        listing: Listing,
    },
    /// Tell a stream how many flows a backend still has.
    Wait(Wait),
    /// Change a backend.
    Change {
        /// Who waits until it is so.
        key: Key,
        /// The service's name.
        service: String,
        /// Which of its backends.
        backend: SocketAddr,
        /// How.
        change: Change,
    },
    /// Write what was changed into the configuration file.
    Save {
        /// Who waits for the outcome.
        key: Key,
    },
    /// Judge a configuration, and take it up if that is asked for.
    Propose(Key, Proposal),
}

/// What an acting handler may begin. The loop carries it out after the handler has returned, and
/// answers by the key when it is done.
pub(crate) struct Doing<'a> {
    /// What is left to the loop.
    pub(crate) errands: &'a mut Vec<Errand>,
    /// The flush that is under way; one at a time.
    pub(crate) flush: &'a mut Option<Flushing>,
    /// The tap that is open; one at a time.
    pub(crate) showing: &'a mut Option<Showing>,
}

impl std::fmt::Debug for Doing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doing").finish_non_exhaustive()
    }
}

/// What answers a request.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    /// It only looks.
    Look(fn(&Request<'_>, &Page<'_>) -> Response),
    /// It begins something. The key is the connection's.
    Act(fn(&Request<'_>, Key, &Page<'_>, &mut Doing<'_>) -> Answer),
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Look(_) => "Look",
            Self::Act(_) => "Act",
        })
    }
}

/// One thing that can be asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    /// `GET` or `POST`.
    pub(crate) method: &'static str,
    /// With the version of the API at its beginning.
    pub(crate) path: &'static str,
    /// What who asks must be allowed.
    pub(crate) access: Access,
    /// What answers.
    pub(crate) handler: Handler,
}

impl Route {
    const fn look(path: &'static str, look: fn(&Request<'_>, &Page<'_>) -> Response) -> Self {
        Self {
            method: "GET",
            path,
            access: Access::Read,
            handler: Handler::Look(look),
        }
    }

    /// One that takes more than a turn, and changes nothing.
    const fn follow(
        path: &'static str,
        act: fn(&Request<'_>, Key, &Page<'_>, &mut Doing<'_>) -> Answer,
    ) -> Self {
        Self {
            method: "GET",
            path,
            access: Access::Read,
            handler: Handler::Act(act),
        }
    }

    /// The same, for those who may change what runs.
    const fn for_writers(self) -> Self {
        Self {
            access: Access::Write,
            ..self
        }
    }

    const fn act(
        path: &'static str,
        act: fn(&Request<'_>, Key, &Page<'_>, &mut Doing<'_>) -> Answer,
    ) -> Self {
        Self {
            method: "POST",
            path,
            access: Access::Write,
            handler: Handler::Act(act),
        }
    }
}

/// Everything that can be asked.
pub(crate) const ROUTES: &[Route] = &[
    Route::look("/v1/status", look::status),
    Route::look("/v1/services", look::services),
    Route::look("/v1/backends", look::backends),
    Route::look("/v1/counters", look::counters),
    Route::look("/v1/config", look::config),
    Route::look("/v1/explain", look::explain),
    Route::follow("/v1/trace", tap::trace),
    // What clients and servers tell each other is not for everybody who may see how they are served.
    Route::follow("/v1/capture", tap::capture).for_writers(),
    Route::look("/v1/metrics", look::metrics),
    Route::look("/v1/openapi", look::openapi),
    Route::follow("/v1/flows", flows::begin),
    Route::follow("/v1/events", events::begin),
    Route::follow("/v1/drain", watch::begin),
    Route::act("/v1/drain", change::drain),
    Route::act("/v1/weight", change::weight),
    Route::act("/v1/disable", change::disable),
    Route::act("/v1/enable", change::enable),
    Route::act("/v1/flush", flush::begin),
    Route::act("/v1/report", report::take),
    Route::act("/v1/save", change::save),
    Route::act("/v1/reload", propose::reload),
    Route::act("/v1/apply", propose::apply),
    // It changes nothing; but judging a large file holds the loop up, which is not for everybody.
    Route::act("/v1/diff", propose::look),
];

/// Answers a request.
pub(crate) fn answer(
    request: &Request<'_>,
    key: Key,
    page: &Page<'_>,
    doing: &mut Doing<'_>,
) -> Answer {
    match route(ROUTES, request) {
        Ok(Handler::Look(look)) => Answer::Now(look(request, page)),
        Ok(Handler::Act(act)) => act(request, key, page, doing),
        Err(refusal) if refusal.status == 403 => {
            Answer::Now(Response::error(403, &needed(request, page.model.api())))
        }
        Err(refusal) => Answer::Now(refusal),
    }
}

/// What it takes to be allowed what was asked for.
fn needed(request: &Request<'_>, api: &Api) -> String {
    let (method, path) = (request.method, request.path);
    let is_write = request.access >= Access::Read;
    let read = api.read_group().filter(|_| !is_write);
    let groups: Vec<&str> = read.into_iter().chain(api.write_group()).collect();
    let may = if is_write {
        "you may only look"
    } else {
        "you may not ask anything"
    };
    let cure = match (groups.as_slice(), is_write) {
        ([], true) => "set write-group in [api] of its configuration".to_owned(),
        ([], false) => "set read-group or write-group in [api] of its configuration".to_owned(),
        (groups, _) => format!("be a member of the group {}", groups.join(" or ")),
    };
    format!(
        "{method} {path}: {may}; ask as root or as the user that the balancer runs as, or {cure}"
    )
}

/// What answers a request, if it is one of those that are answered and who asks may ask it.
fn route(routes: &[Route], request: &Request<'_>) -> Result<Handler, Response> {
    let (method, path) = (request.method, request.path);
    let mut here = routes.iter().filter(|route| route.path == path).peekable();
    if here.peek().is_none() {
        let paths: Vec<&str> = routes.iter().map(|route| route.path).collect();
        let message = format!("there is no {path:?}; there are {}", paths.join(", "));
        return Err(Response::error(404, &message));
    }
    let methods = || routes.iter().filter(|route| route.path == path);
    let Some(route) = here.find(|route| route.method == method) else {
        let methods: Vec<&str> = methods().map(|route| route.method).collect();
        let message = format!(
            "{path} is asked by {}, not {method:?}",
            methods.join(" or ")
        );
        return Err(Response::error(405, &message));
    };
    if request.access < route.access {
        return Err(Response::error(403, path));
    }
    Ok(route.handler)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(method: &str, path: &str, access: Access) -> Response {
        let request = Request {
            method,
            path,
            query: "",
            accept: "",
            body: b"",
            access,
        };
        route(ROUTES, &request).unwrap_err()
    }

    #[test]
    fn what_is_not_in_the_table_is_refused_with_what_is() {
        let unknown = refusal("GET", "/v1/staus", Access::Write);
        assert_eq!(unknown.status, 404);
        let message = unknown.message();
        assert!(message.contains("\"/v1/staus\"") && message.contains("/v1/status"));
        for method in ["DELETE", "get", "POST"] {
            let wrong = refusal(method, "/v1/status", Access::Write);
            assert_eq!(wrong.status, 405);
            let message = wrong.message();
            assert!(message.contains("by GET, not") && message.contains(method));
        }
    }

    #[test]
    fn who_may_only_look_changes_nothing() {
        for route in ROUTES {
            let is_closed = route.access == Access::Write;
            if route.method == "POST" {
                assert!(is_closed, "{}", route.path);
            }
            if is_closed {
                let refusal = refusal(route.method, route.path, Access::Read);
                assert_eq!(refusal.status, 403, "{}", route.path);
                assert!(refusal.message().contains(route.path));
            }
        }
    }

    #[test]
    fn a_refusal_names_what_would_be_allowed() {
        let needs = |access, keys: &str| {
            let text = format!("[[interface]]\nname = \"eth0\"\n[api]\n{keys}");
            let parsed = ringgate_config::parse("test.toml", &text).unwrap();
            let request = Request {
                method: "POST",
                path: "/v1/save",
                query: "",
                accept: "",
                body: b"",
                access,
            };
            needed(&request, parsed.model.api())
        };
        let both = "read-group = \"watch\"\nwrite-group = \"ops\"";
        assert!(needs(Access::Read, both).ends_with("member of the group ops"));
        assert!(needs(Access::Nothing, both).ends_with("member of the group watch or ops"));
        assert!(needs(Access::Read, "").contains("set write-group in [api]"));
        assert!(needs(Access::Nothing, "").contains("may not ask anything"));
    }

    /// The document and the table name the same routes, and the same rights.
    #[test]
    fn the_document_has_every_route_and_no_other() {
        let text = include_str!("../../../docs/openapi.json");
        let document: serde_json::Value = serde_json::from_str(text).unwrap();
        let mut documented = Vec::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let access = operation["x-access"].as_str().unwrap_or("-").to_owned();
                documented.push((path.clone(), method.to_uppercase(), access));
            }
        }
        let access = |route: &Route| match route.access {
            Access::Write => "write".to_owned(),
            Access::Read | Access::Nothing => "read".to_owned(),
        };
        let mut served: Vec<_> = ROUTES
            .iter()
            .map(|route| {
                (
                    route.path.to_owned(),
                    route.method.to_owned(),
                    access(route),
                )
            })
            .collect();
        documented.sort();
        served.sort();
        assert_eq!(documented, served);
    }

    #[test]
    fn no_route_is_there_twice() {
        let mut names: Vec<_> = ROUTES.iter().map(|r| (r.path, r.method)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROUTES.len());
    }
}
