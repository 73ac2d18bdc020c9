//! `GET /v1/events`: what has happened, and what happens.

use super::super::admin::Answer;
use super::super::admin::http::{Request, Response};
use super::super::events::{KEPT, KIND};
use super::super::slab::Key;
use super::super::status::Page;
use super::{Doing, Errand};

/// Begins a stream: `last` events that have happened (all that are kept, where it does not say), and
/// with `follow=true` those that are to come.
pub(super) fn begin(
    request: &Request<'_>,
    key: Key,
    _: &Page<'_>,
    doing: &mut Doing<'_>,
) -> Answer {
    match wish(request) {
        Ok((last, stays)) => {
            doing.errands.push(Errand::Follow { key, last, stays });
            Answer::Stream { kind: KIND }
        }
        Err(message) => Answer::Now(Response::error(400, message)),
    }
}

fn wish(request: &Request<'_>) -> Result<(usize, bool), &'static str> {
    let last = match request.parameter("last").map(|text| text.parse()) {
        None => KEPT,
        Some(Ok(last)) => last,
        Some(Err(_)) => return Err("last must be a number of events, such as 10"),
    };
    let stays = match request.parameter("follow").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err("follow must be true or false"),
    };
    Ok((last, stays))
}
