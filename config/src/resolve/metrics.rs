//! `[metrics]`: what is told to whoever collects.

use std::net::SocketAddr;

use super::scope::Scope;
use crate::address;
use crate::error::{Findings, Kind};
use crate::file::{self, Field};
use crate::limits::{RESIDENCE_SAMPLE_DEFAULT, RESIDENCE_SAMPLE_MAX};
use crate::model::Metrics;

/// What the table says; with the defaults where there is none. `None` when a problem was reported.
pub(super) fn resolve(
    raw: Option<&file::Metrics<'_>>,
    findings: &mut Findings<'_>,
) -> Option<Metrics> {
    let Some(raw) = raw else {
        return Some(Metrics::default());
    };
    let mut scope = Scope {
        path: "metrics",
        head: &raw.head,
        findings,
    };
    let listen = listen(&mut scope, &raw.listen);
    let sample = 0..=RESIDENCE_SAMPLE_MAX;
    let sample = scope.number("residence-sample", &raw.residence_sample, sample);
    let backends = Scope::flag(&raw.backends, true);
    Some(Metrics {
        listen: listen?,
        residence_sample: sample?.unwrap_or(RESIDENCE_SAMPLE_DEFAULT),
        backends: backends?,
    })
}

fn listen(scope: &mut Scope<'_, '_, '_>, field: &Field<&str>) -> Option<Option<SocketAddr>> {
    let text = match field {
        Field::Given(text) => text,
        Field::Bad => return None,
        Field::Absent => return Some(None),
    };
    match address::own_listener(text.get_ref()) {
        Ok(socket) => Some(Some(socket)),
        Err(refusal) => {
            scope.object(Kind::Value, "listen", &text.span(), refusal);
            None
        }
    }
}
