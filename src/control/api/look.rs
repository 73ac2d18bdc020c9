//! What is shown and changes nothing.

use ringgate_config::Said;
use serde_json::{Value, json};

use super::super::admin::http::{Request, Response};
use super::super::metrics::exposition::Format;
use super::super::metrics::render;
use super::super::status::Page;
use super::name;
use crate::explanation::{self, Question, Scene};

/// The states of backends, as `status` writes them.
const STATES: [&str; 6] = ["up", "draining", "pending", "suspect", "down", "disabled"];

/// `GET /v1/status`.
pub(super) fn status(_: &Request<'_>, page: &Page<'_>) -> Response {
    Response::ok(page.to_json())
}

/// `GET /v1/metrics`, and `GET /metrics` of the listener for collectors.
pub(crate) fn metrics(request: &Request<'_>, page: &Page<'_>) -> Response {
    let format = Format::for_accept(request.accept);
    Response::text(format.content_type(), render(page, format))
}

/// `GET /v1/services`: those of `status`, or the one that is named.
pub(super) fn services(request: &Request<'_>, page: &Page<'_>) -> Response {
    match name::service(request, page.model) {
        Ok(service) => {
            let name = service.map(ringgate_config::Service::name);
            Response::ok(json!({ "services": page.services(name) }))
        }
        Err(refusal) => refusal,
    }
}

/// `GET /v1/backends`: those of all services in one list, or of the one that is named; in one state
/// where one is named.
pub(super) fn backends(request: &Request<'_>, page: &Page<'_>) -> Response {
    let name = match name::service(request, page.model) {
        Ok(service) => service.map(ringgate_config::Service::name),
        Err(refusal) => return refusal,
    };
    let state = request.parameter("state");
    if state
        .as_deref()
        .is_some_and(|state| !STATES.contains(&state))
    {
        let message = format!("state must be one of {}", STATES.join(", "));
        return Response::error(400, &message);
    }
    let mut all = Vec::new();
    if let Value::Array(services) = page.services(name) {
        for mut service in services {
            let Value::Array(backends) = service["backends"].take() else {
                continue;
            };
            for mut backend in backends {
                if state
                    .as_deref()
                    .is_none_or(|state| backend["state"] == state)
                {
                    backend["service"] = service["name"].clone();
                    all.push(backend);
                }
            }
        }
    }
    Response::ok(json!({ "backends": all }))
}

/// `GET /v1/counters`: what `status` counts, without services.
pub(super) fn counters(_: &Request<'_>, page: &Page<'_>) -> Response {
    Response::ok(page.counters())
}

/// `GET /v1/config`: where the configuration is, and what holds and is not in it.
pub(super) fn config(_: &Request<'_>, page: &Page<'_>) -> Response {
    let said = |said: Said| json!({ "weight": said.weight, "draining": said.draining, "disabled": said.disabled });
    let mut unsaved = Vec::new();
    for service in page.model.services() {
        for backend in service.backends() {
            if let Some(change) = page.overlay.of(service.name(), backend.address()) {
                unsaved.push(json!({
                    "service": service.name(),
                    "backend": backend.name(),
                    "file": said(change.file),
                    "now": said(change.now),
                }));
            }
        }
    }
    let model = page.model;
    let backends = model.services().iter().map(|one| one.backends().len());
    Response::ok(json!({
        "file": page.config,
        "in_force": page.in_force.to_json(),
        "services": model.services().len(),
        "backends": backends.sum::<usize>(),
        "interfaces": model.interfaces().iter().map(|one| one.name()).collect::<Vec<_>>(),
        "unsaved": unsaved,
    }))
}

/// `GET /v1/explain`.
pub(super) fn explain(request: &Request<'_>, page: &Page<'_>) -> Response {
    let names = page.plane.interfaces().iter().map(|one| one.name.clone());
    let scene = Scene {
        model: page.model,
        snapshot: page.snapshot,
        tables: page.plane.tables(),
        fragments: Some(page.plane.fragments()),
        interfaces: &names.collect::<Vec<_>>(),
        now: page.now,
    };
    let question = Question::read(|name| request.parameter(name));
    match question.and_then(|question| explanation::explain(&question, &scene)) {
        Ok(answer) => Response::ok(answer),
        Err(message) => Response::error(400, &message),
    }
}

/// `GET /v1/openapi`: the document that describes all of this.
pub(super) fn openapi(_: &Request<'_>, _: &Page<'_>) -> Response {
    let document = include_bytes!("../../../docs/openapi.json");
    Response::text("application/json", document.to_vec())
}
