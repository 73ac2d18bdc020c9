//! What is shown and changes nothing.

use super::super::admin::http::{Request, Response};
use super::super::metrics::exposition::CONTENT_TYPE;
use super::super::metrics::render;
use super::super::status::Page;
use crate::explanation::{self, Question, Scene};

/// `GET /v1/status`.
pub(super) fn status(_: &Request<'_>, page: &Page<'_>) -> Response {
    Response::ok(page.to_json())
}

/// `GET /v1/metrics`, and `GET /metrics` of the listener for collectors.
pub(crate) fn metrics(_: &Request<'_>, page: &Page<'_>) -> Response {
    Response::text(CONTENT_TYPE, render(page))
}

/// `GET /v1/explain`.
pub(super) fn explain(request: &Request<'_>, page: &Page<'_>) -> Response {
    let names = page.plane.interfaces().iter().map(|one| one.name.clone());
    let scene = Scene {
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
