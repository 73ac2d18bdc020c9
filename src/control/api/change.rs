//! `POST /v1/weight`, `drain`, `disable`, `enable`: one change of one backend; and `POST /v1/save`,
//! which writes what was changed into the file.

use ringgate_config::Change;
use ringgate_config::limits::WEIGHT_MAX;

use super::super::admin::Answer;
use super::super::admin::http::{Request, Response};
use super::super::slab::Key;
use super::super::status::Page;
use super::{Doing, Errand, name};

/// `POST /v1/weight`.
pub(super) fn weight(
    request: &Request<'_>,
    key: Key,
    page: &Page<'_>,
    doing: &mut Doing<'_>,
) -> Answer {
    let text = request.parameter("weight");
    let number = text.and_then(|text| text.parse().ok());
    match number.filter(|weight| *weight <= WEIGHT_MAX) {
        Some(weight) => begin(request, key, page, doing, Change::Weight(weight)),
        None => {
            let message = format!("weight must be a number of 0 to {WEIGHT_MAX}");
            Answer::Now(Response::error(400, &message))
        }
    }
}

/// `POST /v1/drain`.
pub(super) fn drain(
    request: &Request<'_>,
    key: Key,
    page: &Page<'_>,
    doing: &mut Doing<'_>,
) -> Answer {
    begin(request, key, page, doing, Change::Drain)
}

/// `POST /v1/disable`.
pub(super) fn disable(
    request: &Request<'_>,
    key: Key,
    page: &Page<'_>,
    doing: &mut Doing<'_>,
) -> Answer {
    begin(request, key, page, doing, Change::Disable)
}

/// `POST /v1/enable`.
pub(super) fn enable(
    request: &Request<'_>,
    key: Key,
    page: &Page<'_>,
    doing: &mut Doing<'_>,
) -> Answer {
    begin(request, key, page, doing, Change::Enable)
}

/// `POST /v1/save`.
pub(super) fn save(_: &Request<'_>, key: Key, _: &Page<'_>, doing: &mut Doing<'_>) -> Answer {
    doing.errands.push(Errand::Save { key });
    Answer::Later
}

fn begin(
    request: &Request<'_>,
    key: Key,
    page: &Page<'_>,
    doing: &mut Doing<'_>,
    change: Change,
) -> Answer {
    match name::backend(request, page.model) {
        Ok((service, backend)) => {
            doing.errands.push(Errand::Change {
                key,
                service: service.name().to_owned(),
                backend: backend.address(),
                change,
            });
            Answer::Later
        }
        Err(refusal) => Answer::Now(refusal),
    }
}
