//! `POST /v1/report`: how an outside agent finds a backend.

use ringgate_config::Model;
use serde_json::json;

use super::super::admin::Answer;
use super::super::admin::http::{Request, Response};
use super::super::checks::spec_of;
use super::super::health::{Target, Told};
use super::super::slab::Key;
use super::super::status::Page;
use super::{Doing, Errand, name};

/// Takes a report. What follows from it is in the next status.
pub(super) fn take(
    request: &Request<'_>,
    _: Key,
    page: &Page<'_>,
    doing: &mut Doing<'_>,
) -> Answer {
    Answer::Now(match read(request, page.model) {
        Ok((target, told)) => {
            doing.errands.push(Errand::Report { target, told });
            Response::ok(json!({ "taken": true }))
        }
        Err(refusal) => refusal,
    })
}

/// Reads `service=NAME&backend=ADDRESS&state=up|down`.
///
/// # Errors
///
/// The refusal: there is no such service or backend, none that takes reports, or too little was said.
fn read(request: &Request<'_>, model: &Model) -> Result<(Target, Told), Response> {
    let refuse = |status, message: &str| Err(Response::error(status, message));
    let told = match request.parameter("state").as_deref() {
        Some("up") => Told::Up,
        Some("down") => Told::Down,
        _ => return refuse(400, "state must be up or down"),
    };
    let (service, backend) = name::backend(request, model)?;
    let reports = spec_of(service, backend).and_then(|spec| spec.reports);
    let Some(reports) = reports else {
        let message = "reports of this backend are not taken: it is disabled, or its health has no report-ttl";
        return refuse(409, message);
    };
    Ok((reports.target, told))
}
