//! The other end of the admin socket: what `ringgate status` and its like ask a running balancer with.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use serde_json::Value;

/// How long each step may take: connecting, sending, and each read. The loop answers in a turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same where the loop needs many turns: the largest flow table is searched in some seconds.
const PATIENCE_TO_ACT: Duration = Duration::from_secs(120);

/// The longest answer that is read, bytes. A thousand services with a hundred backends each are ~30 MB.
const LONGEST_ANSWER: u64 = 256 << 20;

/// Header lines of an answer; ours have three.
const MAX_HEADERS: usize = 16;

/// The longest head of an answer, bytes.
const LONGEST_HEAD: usize = 8 << 10;

/// The longest piece of a stream, bytes.
const LONGEST_PIECE: usize = 16 << 20;

/// The longest line before a piece, bytes: its length in hexadecimal digits.
const LONGEST_LENGTH: u64 = 18;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// There is no socket.
    #[error(
        "no ringgate is running here: there is no {0}; start it with `ringgate run`, or name the socket that it uses"
    )]
    Missing(PathBuf),
    /// There is one, and nobody behind it.
    #[error("no ringgate is running here: nobody answers on {0}, which an earlier one left behind")]
    Dead(PathBuf),
    /// It belongs to somebody else.
    #[error("no permission to use {0}; only its owner may: run this as root (sudo)")]
    Permission(PathBuf),
    /// It takes the connection, and no more.
    #[error("ringgate did not answer on {0} within {1:?}; its log may say why")]
    Silent(PathBuf, Duration),
    /// What came is not an answer.
    #[error("what answered on {0} does not speak like ringgate: {1}")]
    Garbled(PathBuf, String),
    /// It answered that it will not.
    #[error("{message} (status {status})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// Anything else.
    #[error("cannot talk to ringgate on {0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// Asks the balancer behind this socket for a target such as `/status`, or one made by [`target`], and
/// waits for its answer.
///
/// # Errors
/// Says what was found and what to do.
pub(crate) fn get(path: &Path, target: &str) -> Result<Value, ClientError> {
    ask(path, "GET", target, b"", PATIENCE)
}

/// As [`get`], to have something done: the answer comes when it is, which may take a while.
///
/// # Errors
/// Says what was found and what to do.
pub(crate) fn post(path: &Path, target: &str, body: &[u8]) -> Result<Value, ClientError> {
    ask(path, "POST", target, body, PATIENCE_TO_ACT)
}

/// As [`get`], for an answer that goes on: its pieces, as they were pushed, until the other side ends
/// it. Between them it may be silent for ever.
///
/// # Errors
/// Says what was found and what to do. A piece is an error when the connection ends in mid-sentence.
pub(crate) fn follow(path: &Path, target: &str) -> Result<Pieces, ClientError> {
    let failed = |error| failed(path, PATIENCE, error);
    let stream = send(path, "GET", target, b"", PATIENCE)?;
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < LONGEST_HEAD {
        let mut byte = [0];
        match stream.read(&mut byte).map_err(failed)? {
            0 => break,
            _ => head.extend(byte),
        }
    }
    if !is_chunked(&head) {
        // A refusal, whole.
        stream
            .take(LONGEST_ANSWER)
            .read_to_end(&mut head)
            .map_err(failed)?;
        let garbled = |what: &str| ClientError::Garbled(path.to_owned(), what.to_owned());
        return match parse(&head) {
            Ok(_) => Err(garbled("its answer is no stream")),
            Err(what) => Err(what.at(path)),
        };
    }
    let patience = None;
    sockopt::set_socket_timeout(stream.get_ref(), sockopt::Timeout::Recv, patience)
        .map_err(|errno| failed(errno.into()))?;
    Ok(Pieces(Some(stream)))
}

/// Why a connection is of no use.
fn failed(path: &Path, patience: Duration, error: io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::NotFound => ClientError::Missing(path.to_owned()),
        io::ErrorKind::ConnectionRefused => ClientError::Dead(path.to_owned()),
        io::ErrorKind::PermissionDenied => ClientError::Permission(path.to_owned()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            ClientError::Silent(path.to_owned(), patience)
        }
        _ => ClientError::Io(path.to_owned(), error),
    }
}

/// Connects, and sends a request.
fn send(
    path: &Path,
    method: &str,
    target: &str,
    body: &[u8],
    patience: Duration,
) -> Result<UnixStream, ClientError> {
    let mut stream = connect(path, patience).map_err(|error| failed(path, patience, error))?;
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: ringgate\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // The other side may answer and close without having read everything, which resets the connection:
    // what it said counts, and where it said nothing reading fails too.
    let _what_it_says_counts = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body));
    Ok(stream)
}

fn ask(
    path: &Path,
    method: &str,
    target: &str,
    body: &[u8],
    patience: Duration,
) -> Result<Value, ClientError> {
    let stream = send(path, method, target, body, patience)?;
    let mut answer = Vec::new();
    let received = stream.take(LONGEST_ANSWER).read_to_end(&mut answer);
    if answer.is_empty() {
        received.map_err(|error| failed(path, patience, error))?;
    }
    parse(&answer).map_err(|what| what.at(path))
}

/// The pieces of an answer that goes on.
#[derive(Debug)]
pub(crate) struct Pieces(Option<BufReader<UnixStream>>);

impl Iterator for Pieces {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = chunk(self.0.as_mut()?).transpose();
        if !matches!(piece, Some(Ok(_))) {
            self.0 = None;
        }
        piece
    }
}

/// The next chunk of a body (RFC 9112, 7.1); none at its end.
fn chunk(stream: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let garbled = || io::Error::new(io::ErrorKind::InvalidData, "the stream is garbled");
    let mut line = Vec::new();
    stream
        .by_ref()
        .take(LONGEST_LENGTH)
        .read_until(b'\n', &mut line)?;
    if line.is_empty() {
        let message = "ringgate has ended the connection";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    let text = std::str::from_utf8(&line).ok();
    let digits = text.and_then(|line| line.strip_suffix("\r\n"));
    let length = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
    let length = length
        .filter(|length| *length <= LONGEST_PIECE)
        .ok_or_else(garbled)?;
    let mut piece = vec![0; length + 2];
    stream.read_exact(&mut piece)?;
    if !piece.ends_with(b"\r\n") {
        return Err(garbled());
    }
    piece.truncate(length);
    Ok((length > 0).then_some(piece))
}

/// Whether a head is that of an answer that goes on.
fn is_chunked(head: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let is_whole = matches!(response.parse(head), Ok(httparse::Status::Complete(_)));
    let mut headers = response.headers.iter();
    is_whole
        && response.code == Some(200)
        && headers.any(|header| {
            header.name.eq_ignore_ascii_case("transfer-encoding") && header.value == b"chunked"
        })
}

/// A target with its parameters, encoded.
pub(crate) fn target(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    format!("{path}?{}", query.finish())
}

/// Connects with the patience of every other step: a full backlog would block for ever.
fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    for direction in [sockopt::Timeout::Send, sockopt::Timeout::Recv] {
        sockopt::set_socket_timeout(&socket, direction, Some(patience))?;
    }
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(socket.into()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Why an answer is of no use.
#[derive(Debug, PartialEq)]
enum Unusable {
    Refused { status: u16, message: String },
    Garbled(String),
}

impl Unusable {
    fn at(self, path: &Path) -> ClientError {
        match self {
            Self::Refused { status, message } => ClientError::Refused { status, message },
            Self::Garbled(what) => ClientError::Garbled(path.to_owned(), what),
        }
    }
}

/// Reads a whole answer.
fn parse(answer: &[u8]) -> Result<Value, Unusable> {
    let garbled = |what: &dyn ToString| Unusable::Garbled(what.to_string());
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) =
        response.parse(answer).map_err(|error| garbled(&error))?
    else {
        return Err(garbled(&"the answer ends within its header"));
    };
    let body = answer.get(head..).unwrap_or_default();
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| {
            std::str::from_utf8(header.value)
                .ok()?
                .trim()
                .parse::<usize>()
                .ok()
        });
    if length != Some(body.len()) {
        return Err(garbled(&"the answer is not as long as it says"));
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| garbled(&error))?;
    match response.code {
        Some(200) => Ok(value),
        status => Err(Unusable::Refused {
            status: status.unwrap_or(0),
            message: message(&value),
        }),
    }
}

/// What a refusal says: its message, and everything that is wrong, a line each.
fn message(value: &Value) -> String {
    let Some(message) = value.get("error").and_then(Value::as_str) else {
        return value.to_string();
    };
    let problems = value.get("problems").and_then(Value::as_array);
    let lines = problems.into_iter().flatten().filter_map(Value::as_str);
    lines.fold(message.to_owned(), |all, line| all + "\n" + line)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// Answers one connection with these bytes, then closes it.
    fn answered(bytes: &'static [u8]) -> Result<Value, ClientError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let length = connection.read(&mut request).unwrap();
            connection.write_all(bytes).unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let answer = get(&path, "/status?x=1");
        assert!(
            server
                .join()
                .unwrap()
                .starts_with("GET /status?x=1 HTTP/1.1\r\n")
        );
        answer
    }

    #[test]
    fn a_good_answer_is_its_json() {
        let value = answered(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}").unwrap();
        assert_eq!(value, serde_json::json!({ "a": 1 }));
    }

    #[test]
    fn a_refusal_says_what_the_balancer_said() {
        let error = answered(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 26\r\n\r\n{\"error\":\"no such thing\"}\n",
        )
        .unwrap_err();
        assert!(
            matches!(error, ClientError::Refused { status: 404, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("no such thing"), "{error}");
    }

    #[test]
    fn anything_else_is_garbled() {
        for bytes in [
            b"".as_slice(),
            b"SSH-2.0-OpenSSH\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhey",
        ] {
            let error = answered(bytes).unwrap_err();
            assert!(matches!(error, ClientError::Garbled(..)), "{error}");
        }
    }

    #[test]
    fn every_way_to_have_no_balancer_says_which() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let missing = get(&path, "/").unwrap_err();
        assert!(matches!(missing, ClientError::Missing(_)), "{missing}");
        drop(UnixListener::bind(&path).unwrap());
        let dead = get(&path, "/").unwrap_err();
        assert!(matches!(dead, ClientError::Dead(_)), "{dead}");
        assert!(dead.to_string().contains(path.to_str().unwrap()), "{dead}");
        let too_long = directory.path().join("x".repeat(120));
        assert!(matches!(
            get(&too_long, "/").unwrap_err(),
            ClientError::Io(..)
        ));
    }
}
