//! Any bytes at the admin socket: a request, the beginning of one, or a refusal, and never a panic.
//! What is read does not depend on how the bytes were cut on their way, and every refusal says
//! something.
#![no_main]
#![expect(
    dead_code,
    reason = "the answers' half of the room is not looked at here"
)]

use libfuzzer_sys::fuzz_target;

/// The room itself: the daemon is a binary, which nothing can depend on.
#[path = "../../../src/control/admin/http.rs"]
mod http;

/// What stands beside that room.
mod access {
    /// As there.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) enum Access {
        /// Look.
        Read,
    }
}

use access::Access;
use http::{Body, MAX_BODY, MAX_HEAD, Measured, Request, Response, measure, read};

fn told(response: &Response) {
    let Body::Json(body) = &response.body else {
        panic!("a refusal that is no JSON")
    };
    assert!((400..600).contains(&response.status), "{response:?}");
    assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()));
}

/// What handlers do with a request.
fn ask(request: &Request<'_>) {
    assert!(!request.path.contains('?'));
    for name in ["service", "backend", "from", "cursor", "timeout"] {
        let _read = request.parameter(name).map(|text| text.parse::<u64>());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let whole = measure(bytes);
    // Cut anywhere: what was known is not unlearnt.
    let mut known = None;
    for cut in 0..bytes.len().min(256) {
        match measure(&bytes[..cut]) {
            Measured::Partial => assert!(known.is_none()),
            Measured::Head(lengths) => {
                assert_eq!(*known.get_or_insert(lengths), lengths);
                assert_eq!(whole, Measured::Head(lengths));
            }
            Measured::Refused(response) => {
                told(&response);
                return;
            }
        }
    }
    match whole {
        Measured::Partial => assert!(bytes.len() < MAX_HEAD),
        Measured::Refused(response) => told(&response),
        Measured::Head(lengths) => {
            assert!(lengths.head <= MAX_HEAD && lengths.body <= MAX_BODY);
            assert!(lengths.head <= bytes.len());
            if bytes.len() >= lengths.all() {
                match read(bytes, lengths, Access::Read) {
                    Ok(request) => {
                        assert_eq!(request.body.len(), lengths.body);
                        ask(&request);
                    }
                    Err(response) => told(&response),
                }
            }
        }
    }
});
