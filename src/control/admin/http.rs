//! One request, one answer: the little of HTTP/1.1 (RFC 9112) that the admin socket speaks.

use std::borrow::Cow;

use ringgate_config::limits::FILE_BYTES_MAX;
use serde_json::{Value, json};

use super::access::Access;

/// Bytes of a request's head: its line and its header. `explain` with two IPv6 addresses takes less
/// than 300.
pub(super) const MAX_HEAD: usize = 8 << 10;

/// Bytes of a request's body: a configuration file is the longest that is sent.
pub(super) const MAX_BODY: usize = FILE_BYTES_MAX;

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
    /// Which media types are wanted, as it came; empty if it does not say.
    pub(crate) accept: &'a str,
    /// All of it; empty if there is none.
    pub(crate) body: &'a [u8],
    /// What who asks may do.
    pub(crate) access: Access,
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
    /// What is sent below the header.
    pub(crate) body: Body,
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// Sent with a line feed at its end.
    Json(Value),
    /// Sent as it is.
    Text {
        /// The media type, for `Content-Type`.
        kind: &'static str,
        /// What is sent.
        bytes: Vec<u8>,
    },
}

impl Response {
    /// 200 with this body.
    pub(crate) const fn ok(body: Value) -> Self {
        let body = Body::Json(body);
        Self { status: 200, body }
    }

    /// 200 with a body that is not JSON of ours.
    pub(crate) const fn text(kind: &'static str, bytes: Vec<u8>) -> Self {
        let body = Body::Text { kind, bytes };
        Self { status: 200, body }
    }

    /// A refusal: the message says what was found and what to do.
    pub(crate) fn error(status: u16, message: &str) -> Self {
        let body = Body::Json(json!({ "error": message }));
        Self { status, body }
    }

    /// The message of a refusal.
    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        match &self.body {
            Body::Json(body) => body["error"].as_str().unwrap_or_default(),
            Body::Text { .. } => "",
        }
    }

    /// The bytes on the wire.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        let (kind, body) = match self.body {
            Body::Json(value) => ("application/json", format!("{value}\n").into_bytes()),
            Body::Text { kind, bytes } => (kind, bytes),
        };
        let mut bytes = format!(
            "{}Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            status_line(self.status),
            body.len(),
        )
        .into_bytes();
        bytes.extend(body);
        bytes
    }
}

fn status_line(status: u16) -> String {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "", // RFC 9112, 4: the phrase may be absent, the space may not
    };
    format!("HTTP/1.1 {status} {reason}\r\n")
}

/// The beginning of an answer that stays open: what follows it are chunks (RFC 9112, 7.1).
pub(super) fn stream_head(kind: &str) -> Vec<u8> {
    let line = status_line(200);
    let head = "Transfer-Encoding: chunked\r\nConnection: close";
    format!("{line}Content-Type: {kind}\r\n{head}\r\n\r\n").into_bytes()
}

/// The end of such an answer.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends these bytes as one chunk. Nothing is no chunk: it would be the last.
pub(super) fn chunk(bytes: &[u8], to: &mut Vec<u8>) {
    if !bytes.is_empty() {
        to.extend(format!("{:x}\r\n", bytes.len()).as_bytes());
        to.extend(bytes);
        to.extend(b"\r\n");
    }
}

/// The lengths that the head of a request tells, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lengths {
    /// Of the head, with the empty line at its end.
    pub(super) head: usize,
    /// Of the body.
    pub(super) body: usize,
}

impl Lengths {
    /// Of the request.
    pub(super) const fn all(self) -> usize {
        self.head + self.body
    }

    /// Whether it has a body.
    pub(super) const fn has_body(self) -> bool {
        self.body > 0
    }
}

/// What the bytes so far are.
#[derive(Debug, PartialEq)]
pub(super) enum Measured {
    /// A head, and perhaps some of the body.
    Head(Lengths),
    /// The beginning of a head.
    Partial,
    /// None, and this is the answer to it.
    Refused(Response),
}

/// Reads how long the request is of which these bytes are the beginning.
pub(super) fn measure(bytes: &[u8]) -> Measured {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head)) if head <= MAX_HEAD => head,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Measured::Partial,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Measured::Refused(too_large()),
        Err(error) => {
            let message = format!("not an HTTP/1.1 request: {error}");
            return Measured::Refused(Response::error(400, &message));
        }
    };
    match body_length(request.headers) {
        Ok(body) => Measured::Head(Lengths { head, body }),
        Err(response) => Measured::Refused(response),
    }
}

/// The length of the body (RFC 9112, 6.3), where it is clear beyond doubt.
fn body_length(headers: &[httparse::Header<'_>]) -> Result<usize, Response> {
    let of = |name: &'static str| {
        let headers = headers.iter();
        headers.filter(move |header| header.name.eq_ignore_ascii_case(name))
    };
    if of("transfer-encoding").next().is_some() {
        let message = "a body comes with its Content-Length here, not in chunks: \
            send it without Transfer-Encoding";
        return Err(Response::error(411, message));
    }
    let mut lengths = of("content-length");
    let Some(first) = lengths.next() else {
        return Ok(0);
    };
    if lengths.next().is_some() {
        let message = "Content-Length came more than once: send it once";
        return Err(Response::error(400, message));
    }
    // No sign, no blanks, no list: only digits are what everybody reads alike.
    let digits = first.value;
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let Some(text) = std::str::from_utf8(digits).ok().filter(|_| is_number) else {
        let found = String::from_utf8_lossy(digits);
        let message = format!("Content-Length {found:?} is no number of bytes: write digits only");
        return Err(Response::error(400, &message));
    };
    // What does not fit the number's type is too long, too.
    match text.parse::<usize>() {
        Ok(length) if length <= MAX_BODY => Ok(length),
        Ok(_) | Err(_) => {
            let message = format!("a body of {text} bytes is longer than {MAX_BODY}");
            Err(Response::error(413, &message))
        }
    }
}

/// Reads a whole request, whose lengths were [measured](measure).
///
/// # Errors
///
/// The refusal: there is more than one request.
pub(super) fn read(
    bytes: &[u8],
    lengths: Lengths,
    access: Access,
) -> Result<Request<'_>, Response> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let body = bytes.get(lengths.head..lengths.all());
    let (Ok(httparse::Status::Complete(_)), Some(body)) = (request.parse(bytes), body) else {
        return Err(Response::error(400, "not an HTTP/1.1 request"));
    };
    // Blank lines between requests are tolerated (RFC 9112, 2.2).
    let rest = bytes.get(lengths.all()..).unwrap_or_default();
    if !rest.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
        let message = "more came than one request: send one for each connection, \
            and its body as long as Content-Length says";
        return Err(Response::error(400, message));
    }
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = request.headers.iter();
    let accept = headers.find(|header| header.name.eq_ignore_ascii_case("accept"));
    Ok(Request {
        method: request.method.unwrap_or_default(),
        path,
        query,
        accept: accept.map_or("", |header| {
            str::from_utf8(header.value).unwrap_or_default()
        }),
        body,
        access,
    })
}

/// The answer to a head beyond the bounds.
pub(super) fn too_large() -> Response {
    let message =
        format!("the request's head has more than {MAX_HEAD} bytes or {MAX_HEADERS} header lines");
    Response::error(431, &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(bytes: &[u8]) -> Lengths {
        match measure(bytes) {
            Measured::Head(lengths) => lengths,
            other => panic!("{other:?}"),
        }
    }

    fn refused(bytes: &[u8]) -> Response {
        match measure(bytes) {
            Measured::Refused(response) => response,
            Measured::Head(lengths) => read(bytes, lengths, Access::Read).unwrap_err(),
            Measured::Partial => panic!("{bytes:?} may go on"),
        }
    }

    #[test]
    fn a_request_is_its_method_path_query_and_body() {
        let bytes = b"POST /explain?from=%5Bfd00::1%5D:9&protocol=tcp HTTP/1.1\r\n\
            Content-Length: 3\r\n\r\nabc";
        for cut in 0..bytes.len() - 3 {
            assert_eq!(measure(&bytes[..cut]), Measured::Partial, "cut at {cut}");
        }
        let lengths = lengths(bytes);
        assert_eq!((lengths.all(), lengths.body), (bytes.len(), 3));
        let request = read(bytes, lengths, Access::Write).unwrap();
        assert_eq!((request.method, request.path), ("POST", "/explain"));
        assert_eq!(request.parameter("from").as_deref(), Some("[fd00::1]:9"));
        assert_eq!(request.parameter("protocol").as_deref(), Some("tcp"));
        assert_eq!(request.parameter("to"), None);
        assert_eq!((request.body, request.access), (&b"abc"[..], Access::Write));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let with = |header: &str| format!("POST / HTTP/1.1\r\n{header}\r\n\r\n").into_bytes();
        let long = format!("a: {}", "b".repeat(MAX_HEAD));
        for (bytes, status, words) in [
            (b"\x16\x03\x01\x02".to_vec(), 400, "not an HTTP/1.1 request"),
            (b"GET  / HTTP/1.1\r\n\r\n".to_vec(), 400, "not an HTTP"),
            (b"GET / FTP/1\r\n".to_vec(), 400, "not an HTTP/1.1 request"),
            (
                with(&"A: b\r\n".repeat(MAX_HEADERS + 1)),
                431,
                "header lines",
            ),
            (with(&long), 431, "8192 bytes"),
            (with(&long)[..MAX_HEAD].to_vec(), 431, "8192 bytes"),
            (with("Transfer-Encoding: chunked"), 411, "Content-Length"),
            (with("Content-Length: +1"), 400, "\"+1\""),
            (with("Content-Length: 1, 1"), 400, "no number"),
            (with("Content-Length:"), 400, "no number"),
            (with("Content-Length: 1\r\ncontent-length: 1"), 400, "once"),
            (
                with("Content-Length: 16777217"),
                413,
                "longer than 16777216",
            ),
            (
                with(&format!("Content-Length: {}", "9".repeat(40))),
                413,
                "longer",
            ),
            (
                [with("Content-Length: 1"), b"ab".to_vec()].concat(),
                400,
                "more came",
            ),
            (
                [with("A: b"), with("A: b")].concat(),
                400,
                "one for each connection",
            ),
        ] {
            let response = refused(&bytes);
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
            assert_eq!(response.status, status, "{shown:?}");
            assert!(
                response.message().contains(words),
                "{shown:?}: {response:?}"
            );
        }
    }

    #[test]
    fn blank_lines_behind_a_request_do_no_harm() {
        let bytes = b"GET / HTTP/1.1\r\n\r\n\r\n\n";
        assert!(read(bytes, lengths(bytes), Access::Read).is_ok());
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
        let text = Response::text("text/plain", b"up 1".to_vec()).into_bytes();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("Content-Type: text/plain\r\nContent-Length: 4\r\n"));
        assert!(text.ends_with("\r\n\r\nup 1"));
    }

    #[test]
    fn a_chunk_says_its_length_and_nothing_is_none() {
        let mut bytes = Vec::new();
        chunk(b"", &mut bytes);
        chunk(&[b'x'; 26], &mut bytes);
        assert_eq!(bytes, b"1a\r\nxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n");
    }
}
