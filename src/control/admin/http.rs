//! One request, one answer: the little of HTTP/1.1 that the admin socket speaks.

use std::borrow::Cow;

use serde_json::{Value, json};

/// Bytes of a request, all of it. `explain` with two IPv6 addresses takes less than 300.
pub(super) const MAX_REQUEST: usize = 8 << 10;

/// Header lines of a request; curl sends four.
pub(super) const MAX_HEADERS: usize = 32;

/// What is asked. Any method and target come through: the handler knows which exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// In capitals: `GET`.
    pub(crate) method: &'a str,
    /// Up to the question mark, as it came: `/status`.
    pub(crate) path: &'a str,
    /// After the question mark, as it came; empty if there is none.
    pub(crate) query: &'a str,
}

impl<'a> Request<'a> {
    /// The value of a query parameter, decoded; the first, if there are several.
    pub(crate) fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Response {
    /// The HTTP status.
    pub(crate) status: u16,
    /// Sent as JSON, with a line feed at its end.
    pub(crate) body: Value,
}

impl Response {
    /// 200 with this body.
    pub(crate) fn ok(body: Value) -> Self {
        Self { status: 200, body }
    }

    /// A refusal: the message says what was found and what to do.
    pub(crate) fn error(status: u16, message: &str) -> Self {
        Self {
            status,
            body: json!({ "error": message }),
        }
    }

    /// The bytes on the wire.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        let body = format!("{}\n", self.body);
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            409 => "Conflict",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            _ => "", // RFC 9112, 4: the phrase may be absent, the space may not
        };
        let mut bytes = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.status,
            body.len(),
        )
        .into_bytes();
        bytes.extend(body.into_bytes());
        bytes
    }
}

/// What the bytes so far are.
#[derive(Debug, PartialEq)]
pub(super) enum Parsed<'a> {
    /// A request.
    Request(Request<'a>),
    /// The beginning of one.
    Partial,
    /// None, and this is the answer to it.
    Refused(Response),
}

/// Reads what has come so far.
pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => return Parsed::Refused(too_large()),
        Err(error) => {
            let message = format!("not an HTTP/1.1 request: {error}");
            return Parsed::Refused(Response::error(400, &message));
        }
    }
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Parsed::Request(Request {
        method,
        path,
        query,
    })
}

/// The answer to a request beyond the bounds.
pub(super) fn too_large() -> Response {
    let message =
        format!("the request has more than {MAX_REQUEST} bytes or {MAX_HEADERS} header lines");
    Response::error(431, &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_its_method_path_and_query() {
        let bytes = b"GET /explain?from=%5Bfd00::1%5D:9&protocol=tcp HTTP/1.1\r\nHost: x\r\n\r\n";
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Parsed::Partial, "cut at {cut}");
        }
        let Parsed::Request(request) = parse(bytes) else {
            panic!()
        };
        assert_eq!((request.method, request.path), ("GET", "/explain"));
        assert_eq!(request.parameter("from").as_deref(), Some("[fd00::1]:9"));
        assert_eq!(request.parameter("protocol").as_deref(), Some("tcp"));
        assert_eq!(request.parameter("to"), None);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for bytes in [
            b"\x16\x03\x01\x02".as_slice(),
            b"GET  / HTTP/1.1\r\n\r\n",
            b"GET / FTP/1\r\n",
        ] {
            let Parsed::Refused(response) = parse(bytes) else {
                panic!("{bytes:?}")
            };
            assert_eq!(response.status, 400);
        }
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "A: b\r\n".repeat(MAX_HEADERS + 1)
        );
        assert_eq!(parse(many.as_bytes()), Parsed::Refused(too_large()));
    }

    #[test]
    fn an_answer_is_as_long_as_it_says() {
        let text = String::from_utf8(Response::ok(json!({ "ä": 1 })).into_bytes()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{head}"
        );
        assert_eq!(body, "{\"ä\":1}\n");
        let unknown = String::from_utf8(Response::error(599, "x").into_bytes()).unwrap();
        assert!(unknown.starts_with("HTTP/1.1 599 \r\n"), "{unknown}");
    }
}
