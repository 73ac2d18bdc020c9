//! The `http` check: one request (RFC 9112), and what its answer is worth.
//!
//! The head is kept until it is whole, of the body no more than may hold the beginning of what is looked
//! for. Nothing is read beyond what decides.

use std::net::SocketAddr;
use std::sync::Arc;

use ringgate_config::{Check, HttpCheck};

use super::complaint::{Complaint, Cut, Heard};
use super::excerpt::Excerpt;
use super::search::Search;
use super::stream::{Dialogue, Turn};

/// Longest head, with those of informational answers before it.
const HEAD_MAX: usize = 16 << 10;

/// Most fields of a head.
const FIELDS_MAX: usize = 100;

/// Longest line with the size of a chunk.
const CHUNK_LINE_MAX: usize = 256;

/// What an answer begins with.
const PREFIX: &[u8] = b"HTTP/1.";

/// The dialogue.
#[derive(Debug)]
pub(super) struct Http {
    check: Arc<Check>,
    address: SocketAddr,
    heard: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// What has come of the head, and how much of informational heads before it.
    Head {
        head: Vec<u8>,
        before: usize,
    },
    Body {
        framing: Framing,
        search: Search,
    },
}

/// Where the body ends (RFC 9112 6.3).
#[derive(Debug)]
enum Framing {
    /// With the connection.
    Close,
    /// After so many bytes.
    Length(u64),
    /// With the chunk of no size.
    Chunks(Chunks),
}

/// Between or in chunks.
#[derive(Debug)]
enum Chunks {
    /// In the line that gives the size, or (with `after` still to be skipped) in the line end before it.
    Line { line: Vec<u8>, after_data: bool },
    /// So many bytes of data are to come.
    Data(u64),
}

impl Http {
    pub(super) fn new(check: &Arc<Check>, address: SocketAddr) -> Self {
        Self {
            check: Arc::clone(check),
            address,
            heard: 0,
            stage: Stage::Head {
                head: Vec::new(),
                before: 0,
            },
        }
    }

    fn asked(&self) -> Option<&HttpCheck> {
        match &*self.check {
            Check::Http(http) | Check::Https(http, _) => Some(http),
            _ => None,
        }
    }

    /// Goes on with the head. What has come of the body, when the head is whole and good.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Result<(), Complaint>> {
        let Stage::Head { head, before } = &mut self.stage else {
            return Ok(None);
        };
        // A line end may have come in two pieces.
        let mut searched = head.len().saturating_sub(3);
        head.extend_from_slice(bytes);
        loop {
            let length = head.len().min(PREFIX.len());
            if head.get(..length) != PREFIX.get(..length) {
                return Err(Err(Complaint::NotHttp(Excerpt::of(head))));
            }
            let Some(end) = end_of_head(head, searched) else {
                let is_long = *before + head.len() > HEAD_MAX;
                return if is_long {
                    Err(Err(Complaint::LongHead))
                } else {
                    Ok(None)
                };
            };
            if *before + end > HEAD_MAX {
                return Err(Err(Complaint::LongHead));
            }
            let body = head.split_off(end);
            let answer = Answer::read(head)?;
            // Informational, but for the switch to another protocol, which nobody asked for.
            if (100..200).contains(&answer.status) && answer.status != 101 {
                *before += end;
                *head = body;
                searched = 0;
                continue;
            }
            let http = match &*self.check {
                Check::Http(http) | Check::Https(http, _) => http,
                _ => return Ok(None),
            };
            if !http.status.contains(answer.status) {
                return Err(Err(Complaint::Status {
                    found: answer.status,
                    expected: Excerpt::print(&http.status),
                }));
            }
            let Some(needle) = &http.body else {
                return Err(Ok(()));
            };
            self.stage = Stage::Body {
                framing: answer.framing,
                search: Search::new(needle, u64::from(http.body_within)),
            };
            return Ok(Some(body));
        }
    }

    fn body(&mut self, mut bytes: &[u8]) -> Turn {
        let Stage::Body { framing, search } = &mut self.stage else {
            return Turn::Listen;
        };
        let result = loop {
            match framing {
                Framing::Close => break search.go_on(bytes),
                Framing::Length(left) => {
                    let part = split(&mut bytes, left);
                    let found = search.go_on(part);
                    if found.is_some() || *left > 0 {
                        break found;
                    }
                    break Some(Err(search.complaint()));
                }
                Framing::Chunks(Chunks::Data(left)) => {
                    let part = split(&mut bytes, left);
                    let found = search.go_on(part);
                    if found.is_some() || *left > 0 {
                        break found;
                    }
                    *framing = Framing::Chunks(Chunks::Line {
                        line: Vec::new(),
                        after_data: true,
                    });
                }
                Framing::Chunks(Chunks::Line { line, after_data }) => {
                    let Some((first, rest)) = bytes.split_first() else {
                        break None;
                    };
                    bytes = rest;
                    line.push(*first);
                    if *first != b'\n' {
                        if line.len() > CHUNK_LINE_MAX {
                            break Some(Err(Complaint::BadChunks));
                        }
                        continue;
                    }
                    if std::mem::take(after_data) {
                        if !matches!(&line[..], b"\r\n" | b"\n") {
                            break Some(Err(Complaint::BadChunks));
                        }
                        line.clear();
                        continue;
                    }
                    match httparse::parse_chunk_size(line) {
                        Ok(httparse::Status::Complete((_, 0))) => {
                            break Some(Err(search.complaint()));
                        }
                        Ok(httparse::Status::Complete((_, size))) => {
                            *framing = Framing::Chunks(Chunks::Data(size));
                        }
                        _ => break Some(Err(Complaint::BadChunks)),
                    }
                }
            }
        };
        result.map_or(Turn::Listen, Turn::Over)
    }
}

impl Dialogue for Http {
    fn begin(&mut self) -> Turn {
        let Some(http) = self.asked() else {
            return Turn::Listen;
        };
        let host = http
            .host
            .clone()
            .unwrap_or_else(|| self.address.to_string());
        let request = format!(
            "{} {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ringgate/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            http.method,
            http.path,
            env!("CARGO_PKG_VERSION"),
        );
        Turn::Say(request.into_bytes())
    }

    fn heard(&mut self, bytes: &[u8]) -> Turn {
        self.heard += bytes.len() as u64;
        if matches!(self.stage, Stage::Body { .. }) {
            return self.body(bytes);
        }
        match self.head(bytes) {
            Ok(Some(body)) => self.body(&body),
            Ok(None) => Turn::Listen,
            Err(result) => Turn::Over(result),
        }
    }

    fn closed(&mut self) -> Result<(), Complaint> {
        match &self.stage {
            Stage::Body {
                framing: Framing::Close,
                search,
            } => Err(search.complaint()),
            _ => Err(Complaint::Cut(Cut::Closed, self.progress())),
        }
    }

    fn progress(&self) -> Heard {
        match self.heard {
            0 => Heard::Nothing,
            bytes => Heard::Bytes(bytes),
        }
    }
}

/// What a head says.
struct Answer {
    status: u16,
    framing: Framing,
}

impl Answer {
    fn read(head: &[u8]) -> Result<Self, Result<(), Complaint>> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Err(Complaint::LongHead)),
            Ok(httparse::Status::Partial) | Err(_) => {
                return Err(Err(Complaint::NotHttp(Excerpt::of(head))));
            }
        }
        let status = response.code.unwrap_or_default();
        let mut framing = Framing::Close;
        for field in response.headers.iter() {
            if field.name.eq_ignore_ascii_case("transfer-encoding") {
                // It goes before a length (RFC 9112 6.3); chunked is always its last word.
                let last = field.value.rsplit(|b| *b == b',').next();
                if last.is_some_and(|one| one.trim_ascii().eq_ignore_ascii_case(b"chunked")) {
                    let (line, after_data) = (Vec::new(), false);
                    framing = Framing::Chunks(Chunks::Line { line, after_data });
                }
            } else if field.name.eq_ignore_ascii_case("content-length")
                && matches!(framing, Framing::Close)
                && let Ok(text) = std::str::from_utf8(field.value)
                && let Ok(length) = text.trim().parse()
            {
                framing = Framing::Length(length);
            }
        }
        if matches!(status, 204 | 304) {
            framing = Framing::Length(0);
        }
        Ok(Self { status, framing })
    }
}

/// Just after the empty line that ends a head, looked for from `from` on.
fn end_of_head(head: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(newline) = head.get(at..)?.iter().position(|b| *b == b'\n') {
        at += newline + 1;
        match head.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// Takes off what belongs to a part of which `left` bytes are to come.
fn split<'b>(bytes: &mut &'b [u8], left: &mut u64) -> &'b [u8] {
    let length = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    let (part, rest) = bytes.split_at(length);
    *bytes = rest;
    *left -= length as u64;
    part
}

#[cfg(test)]
mod tests;
