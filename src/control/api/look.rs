//! What is shown and changes nothing.

use super::super::admin::http::{Request, Response};
use super::super::metrics::exposition::CONTENT_TYPE;
use super::super::metrics::render;
use super::super::status::Page;
use crate::explanation::{self, Question};

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
    match question(request) {
        Ok(question) => {
            let tables = page.plane.tables();
            Response::ok(explanation::explain(
                &question,
                page.snapshot,
                tables,
                page.now,
            ))
        }
        Err(message) => Response::error(400, message),
    }
}

/// `GET /v1/openapi`: the document that describes all of this.
pub(super) fn openapi(_: &Request<'_>, _: &Page<'_>) -> Response {
    let document = include_bytes!("../../../docs/openapi.json");
    Response::text("application/json", document.to_vec())
}

/// Reads the flow that `explain` asks about.
fn question(request: &Request<'_>) -> Result<Question, &'static str> {
    let protocol = match request.parameter("protocol").as_deref() {
        Some("tcp") => 6,
        Some("udp") => 17,
        _ => return Err("protocol must be tcp or udp"),
    };
    let socket = |name, message| {
        request
            .parameter(name)
            .and_then(|text| text.parse().ok())
            .ok_or(message)
    };
    Ok(Question {
        protocol,
        from: socket("from", "from must be the client's ADDRESS:PORT")?,
        to: socket("to", "to must be the service's ADDRESS:PORT")?,
    })
}
