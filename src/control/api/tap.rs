//! `GET /v1/trace` and `GET /v1/capture`: a tap is opened, and its stream begins.

use std::time::Duration;

use ringgate_dataplane::clock::Clock as _;
use ringgate_dataplane::xsk::CHUNK_BYTES;

use super::super::admin::Answer;
use super::super::admin::http::{Request, Response};
use super::super::clock;
use super::super::events::KIND as LINES;
use super::super::slab::Key;
use super::super::status::Page;
use super::super::taps::capture::KIND as PCAPNG;
use super::super::taps::expression::{Names, compile};
use super::super::taps::{Bounds, Showing};
use super::Doing;
use crate::clock::Monotonic;

/// Packets, time and bytes, at most: a tap that nobody remembers ends.
const PACKETS_MOST: u64 = 1_000_000;
const SECONDS_MOST: u64 = 3600;
const BYTES_MOST: u64 = 1 << 30;

/// What is taken unless something else is asked for.
const OF_TRACE: Bounds = Bounds {
    packets: 10,
    time: Duration::from_secs(60),
    bytes: 64 << 20,
    snap: 128,
};
const OF_CAPTURE: Bounds = Bounds {
    packets: 10_000,
    time: Duration::from_secs(60),
    bytes: 100 << 20,
    snap: CHUNK_BYTES,
};

/// Begins a stream of packets' ways in words.
pub(super) fn trace(
    request: &Request<'_>,
    key: Key,
    page: &Page<'_>,
    doing: &mut Doing<'_>,
) -> Answer {
    begin(request, (key, false), page, doing)
}

/// Begins a stream that is a capture file.
pub(super) fn capture(
    request: &Request<'_>,
    key: Key,
    page: &Page<'_>,
    doing: &mut Doing<'_>,
) -> Answer {
    begin(request, (key, true), page, doing)
}

fn begin(
    request: &Request<'_>,
    whose: (Key, bool),
    page: &Page<'_>,
    doing: &mut Doing<'_>,
) -> Answer {
    if doing.showing.is_some() {
        let message =
            "another trace or capture is open: one at a time; ask again when it has ended";
        return Answer::Now(Response::error(409, message));
    }
    let (_, is_capture) = whose;
    match open(request, whose, page) {
        Ok(showing) => {
            let filter = request.parameter("filter").unwrap_or_default();
            tracing::info!(%filter, is_capture, "a tap was opened");
            page.plane.post_tap(Some(showing.tap()));
            *doing.showing = Some(showing);
            let kind = if is_capture { PCAPNG } else { LINES };
            Answer::Stream { kind }
        }
        Err(message) => Answer::Now(Response::error(400, &message)),
    }
}

fn open(request: &Request<'_>, whose: (Key, bool), page: &Page<'_>) -> Result<Showing, String> {
    let names = page.plane.interfaces().iter();
    let interfaces: Vec<String> = names.map(|one| one.name.clone()).collect();
    let names = Names {
        snapshot: page.snapshot,
        interfaces: &interfaces,
    };
    let text = request.parameter("filter").unwrap_or_default();
    let filter = compile(&text, &names)?;
    let usual = if whose.1 { &OF_CAPTURE } else { &OF_TRACE };
    let bounds = bounds(request, usual)?;
    let now = (clock::now(), Monotonic.nanoseconds(), clock::wall());
    Showing::open(whose, filter, &bounds, interfaces, now)
}

/// What the request limits it to.
fn bounds(request: &Request<'_>, usual: &Bounds) -> Result<Bounds, String> {
    let number = |name: &str, usual: u64, most: u64| match request.parameter(name) {
        None => Ok(usual),
        Some(text) => match text.parse() {
            Ok(number) if (1..=most).contains(&number) => Ok(number),
            _ => Err(format!(
                "{name} must be a number from 1 to {most}, not {text:?}"
            )),
        },
    };
    let snap = u64::try_from(usual.snap).unwrap_or(0);
    let longest = u64::try_from(CHUNK_BYTES).unwrap_or(0);
    Ok(Bounds {
        packets: number("packets", usual.packets, PACKETS_MOST)?,
        time: Duration::from_secs(number("seconds", usual.time.as_secs(), SECONDS_MOST)?),
        bytes: number("bytes", usual.bytes, BYTES_MOST)?,
        snap: usize::try_from(number("snap", snap, longest)?).unwrap_or(CHUNK_BYTES),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::admin::access::Access;

    fn asked(query: &str) -> Result<Bounds, String> {
        let request = Request {
            method: "GET",
            path: "/v1/trace",
            query,
            accept: "",
            body: b"",
            access: Access::Read,
        };
        bounds(&request, &OF_TRACE)
    }

    #[test]
    fn bounds_are_the_usual_ones_unless_others_are_asked_for() {
        assert_eq!(asked("filter=tcp"), Ok(OF_TRACE));
        let all = Bounds {
            packets: 7,
            time: Duration::from_secs(5),
            bytes: 1000,
            snap: 64,
        };
        assert_eq!(asked("packets=7&seconds=5&bytes=1000&snap=64"), Ok(all));
        for query in [
            "packets=0",
            "packets=x",
            "seconds=3601",
            "snap=2049",
            "bytes=-1",
        ] {
            let error = asked(query).unwrap_err();
            assert!(error.contains("must be a number from 1 to"), "{error}");
        }
    }
}
