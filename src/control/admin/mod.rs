//! The admin socket: JSON over HTTP/1.1 on a unix socket that only its owner may use.
//!
//! [`Admin`] does no I/O of its own. It says which operations it wants ([`Wanted`]), the loop starts them
//! and brings back how they ended; in between the loop does its other work, so no client can hold it up.
//!
//! One request per connection: it is read, answered by the loop's handler, and the connection closed.
//! That is all that the commands need; keep-alive would only keep slots. What takes more than a turn of
//! the loop is answered [later](Answer::Later), by [`Admin::answer`]. What goes on for as long as the
//! client listens is a [stream](Answer::Stream), fed by [`Admin::push`].
//!
//! # Bounds
//! | what | bound | beyond it |
//! |---|---|---|
//! | connections at once | [`MAX_CONNECTIONS`] | wait in the listen queue |
//! | streams among them | [`MAX_STREAMS`] | 503 |
//! | bytes of a request's head | [`http::MAX_HEAD`] | 431 |
//! | header lines | [`http::MAX_HEADERS`] | 431 |
//! | bytes of its body, whose length must be told | [`http::MAX_BODY`] | 413 |
//! | time until the request is complete, however it trickles | [`REQUEST_PATIENCE`] | 408, or closed where nothing came |
//! | time without taking a byte of the answer | [`ANSWER_PATIENCE`] | closed |
//! | bytes of a stream that wait to be sent | [`stream::MOST_QUEUED`] | not taken: [`Push::Lagging`] |
//!
//! | file | owns |
//! |---|---|
//! | [`socket`] | the socket's file: its mode, its directory, stale ones, its end |
//! | [`http`] | reading a request, writing an answer |
//! | [`access`] | who asks, and what they may do |
//! | [`peer_groups`] | the groups of the process that has connected |
//! | [`stream`] | answers that stay open |

pub(crate) mod access;
pub(crate) mod http;
mod peer_groups;
pub(crate) mod socket;
pub(crate) mod stream;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use ringgate_config::Api;

use self::access::{Access, Rules};
use self::http::{Lengths, MAX_HEAD, Measured, Request, Response};
use self::socket::Claimed;
pub(crate) use self::stream::Push;
use self::stream::Streams;
use super::driver::{Failure, Operation, Outcome};
use super::slab::{Key, Slab};

/// Connections served at once. The commands make one each, a metrics collector too; so many silent
/// clients delay the next by no more than [`REQUEST_PATIENCE`].
const MAX_CONNECTIONS: usize = 32;

/// Streams among them: they stay for as long as their clients do, and others must have room.
const MAX_STREAMS: usize = 16;

/// Operations that the admin socket has under way at most: the accept, one for each connection, and
/// a second for each stream.
pub(crate) const OPERATIONS_MOST: usize = 1 + MAX_CONNECTIONS + MAX_STREAMS;

/// A request's body is received into room that grows by at least so many bytes: a length that was
/// told takes no memory before what it tells of is there.
const BODY_STEP: usize = 64 << 10;

/// How long a client may take to send its request, from the moment it is accepted.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);

/// How long a client may go without reading any of its answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// After an accept that failed (no descriptors left), how long until the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an operation of the admin socket was for: part of the loop's own token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdminToken {
    /// The listening socket.
    Listener,
    /// The pause after a failed accept.
    Pause,
    /// One connection.
    Connection(Key),
    /// Whether the client of a stream is still there.
    Watch(Key),
}

/// An operation that the loop shall start.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// What to start.
    pub(crate) operation: Operation,
    /// Its limit.
    pub(crate) limit: Option<Duration>,
    /// To come back with.
    pub(crate) token: AdminToken,
}

/// What the loop's handler says to a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// This.
    Now(Response),
    /// It begins what was asked for, and keeps the connection's key for [`Admin::answer`].
    Later,
    /// An answer without an end: the handler keeps the connection's key for [`Admin::push`].
    Stream {
        /// The media type of what is pushed.
        kind: &'static str,
    },
}

/// Where a connection is. Its descriptor and buffer are with the driver, but while it waits.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Reading the request, until then. Its lengths, once its head is there.
    Reading {
        deadline: Instant,
        access: Access,
        lengths: Option<Lengths>,
    },
    /// For what was asked to be done.
    Waiting,
    /// So many bytes of the answer have been sent.
    Answering { sent: usize },
    /// The rest is with [`Streams`].
    Streaming,
}

/// Who is served.
#[derive(Debug)]
enum Served {
    /// Whoever may open the socket's file, which goes when this is dropped, as far as the rules allow.
    Claimed(Claimed, Rules),
    /// Whoever reaches a port: they may look, and send no body.
    Anybody,
}

/// The admin socket and its connections; or another listener's, where everybody may look.
#[derive(Debug)]
pub(crate) struct Admin {
    served: Served,
    /// Connections at once.
    most: usize,
    /// The listener while no accept is in flight.
    idle: Option<OwnedFd>,
    /// The listener after an accept that failed, until the pause is over.
    paused: Option<OwnedFd>,
    connections: Slab<Stage>,
    /// Those in [`Stage::Waiting`].
    waiting: Vec<(Key, OwnedFd)>,
    /// Those in [`Stage::Streaming`].
    streams: Streams,
}

impl Admin {
    /// Serves on a claimed socket, from the next [`Admin::pump`] on.
    pub(crate) fn new(mut claimed: Claimed, api: &Api) -> Self {
        let idle = claimed.take_listener();
        Self::over(
            Served::Claimed(claimed, Rules::of(api)),
            idle,
            MAX_CONNECTIONS,
        )
    }

    /// Serves `most` connections at once of whoever reaches this listener, from the next [`Admin::pump`] on.
    /// Without one it does nothing.
    pub(crate) fn open_to_all(listener: Option<OwnedFd>, most: usize) -> Self {
        Self::over(Served::Anybody, listener, most)
    }

    fn over(served: Served, idle: Option<OwnedFd>, most: usize) -> Self {
        Self {
            served,
            most,
            idle,
            paused: None,
            connections: Slab::new(most),
            waiting: Vec::new(),
            streams: Streams::default(),
        }
    }

    /// Takes other rules for those who connect from now on.
    pub(crate) fn admit(&mut self, api: &Api) {
        if let Served::Claimed(claimed, rules) = &mut self.served {
            *rules = Rules::of(api);
            if let Err(error) = claimed.set_mode(api.socket_mode()) {
                tracing::warn!(%error, "cannot change the mode of the admin socket");
            }
        }
    }

    /// The socket's file; empty where there is none.
    pub(crate) fn path(&self) -> &Path {
        match &self.served {
            Served::Claimed(claimed, _) => claimed.path(),
            Served::Anybody => Path::new(""),
        }
    }

    /// What who asks by this connection may do.
    fn access(&self, connection: &OwnedFd) -> Access {
        match self.served {
            Served::Claimed(_, ref rules) => rules.of_peer(connection),
            Served::Anybody => Access::Read,
        }
    }

    /// Asks for the next connection, if there is room for one and nothing is asked for yet. To be called
    /// once at the start and after every [`Admin::completed`] and [`Admin::refused`].
    pub(crate) fn pump(&mut self, wanted: &mut Vec<Wanted>) {
        if self.connections.len() < self.most
            && let Some(listener) = self.idle.take()
        {
            wanted.push(Wanted {
                operation: Operation::Accept { listener },
                limit: None,
                token: AdminToken::Listener,
            });
        }
    }

    /// One of its operations could not be started; the connection is closed. A listener is tried again
    /// with the next [`Admin::pump`].
    pub(crate) fn refused(&mut self, token: AdminToken, operation: Operation) {
        match (token, operation) {
            (AdminToken::Listener, Operation::Accept { listener }) => self.idle = Some(listener),
            (AdminToken::Pause, _) => self.idle = self.paused.take(),
            (AdminToken::Connection(key), _) => self.end(key),
            _ => {}
        }
    }

    /// One of its operations has ended. A request that is complete by it is answered by `handler`, which is
    /// told the connection's key.
    pub(crate) fn completed(
        &mut self,
        token: AdminToken,
        outcome: Outcome,
        now: Instant,
        handler: &mut dyn FnMut(&Request<'_>, Key) -> Answer,
        wanted: &mut Vec<Wanted>,
    ) {
        match (token, outcome) {
            (AdminToken::Listener, Outcome::Accepted { listener, result }) => {
                self.accepted(listener, result, now, wanted);
            }
            (AdminToken::Pause, _) => self.idle = self.paused.take(),
            (AdminToken::Watch(key), Outcome::Received { fd, result, .. })
                if stream::is_gone(&fd, result) =>
            {
                self.end(key);
            }
            (AdminToken::Connection(key), outcome) => self.step(key, outcome, now, handler, wanted),
            _ => {}
        }
    }

    /// A connection is over; what is under way for it ends by itself and finds nobody.
    fn end(&mut self, key: Key) {
        self.streams.remove(key);
        self.connections.take(key);
    }

    /// Answers a request that was to be answered later. To be followed by [`Admin::pump`].
    pub(crate) fn answer(&mut self, key: Key, response: Response, wanted: &mut Vec<Wanted>) {
        let Some(at) = self.waiting.iter().position(|(waits, _)| *waits == key) else {
            return;
        };
        let (_, fd) = self.waiting.swap_remove(at);
        if let Some(stage) = self.connections.get_mut(key) {
            *stage = Stage::Answering { sent: 0 };
            wanted.push(send(key, fd, response.into_bytes(), 0, ANSWER_PATIENCE));
        }
    }

    /// Sends more of a stream, as one piece.
    pub(crate) fn push(&mut self, key: Key, bytes: &[u8], wanted: &mut Vec<Wanted>) -> Push {
        self.streams.push(key, bytes, wanted)
    }

    /// Ends a stream when all that was pushed has been sent.
    pub(crate) fn finish(&mut self, key: Key, wanted: &mut Vec<Wanted>) {
        if self.streams.finish(key, wanted).is_break() {
            self.end(key);
        }
    }

    /// Whether a stream's client is still there, as far as is known.
    pub(crate) fn is_open(&self, key: Key) -> bool {
        self.streams.is_open(key)
    }

    fn accepted(
        &mut self,
        listener: OwnedFd,
        result: Result<OwnedFd, Failure>,
        now: Instant,
        wanted: &mut Vec<Wanted>,
    ) {
        match result {
            Ok(fd) => {
                self.idle = Some(listener);
                let stage = Stage::Reading {
                    deadline: now + REQUEST_PATIENCE,
                    access: self.access(&fd),
                    lengths: None,
                };
                // There is room: nothing is accepted otherwise (`pump`).
                if let Ok(key) = self.connections.insert(stage) {
                    let buffer = Vec::with_capacity(MAX_HEAD);
                    wanted.push(receive(key, fd, buffer, REQUEST_PATIENCE));
                }
            }
            Err(Failure::Cancelled) => self.idle = Some(listener),
            Err(failure) => {
                tracing::warn!(%failure, "the admin socket could not accept a connection");
                // Not at once again: what is missing (descriptors) is missing still.
                self.paused = Some(listener);
                wanted.push(Wanted {
                    operation: Operation::Timer {
                        after: ACCEPT_PAUSE,
                    },
                    limit: None,
                    token: AdminToken::Pause,
                });
            }
        }
    }

    /// What becomes of a connection next.
    fn step(
        &mut self,
        key: Key,
        outcome: Outcome,
        now: Instant,
        handler: &mut dyn FnMut(&Request<'_>, Key) -> Answer,
        wanted: &mut Vec<Wanted>,
    ) {
        let Some(stage) = self.connections.get_mut(key) else {
            return;
        };
        match (*stage, outcome) {
            (Stage::Reading { .. }, Outcome::Received { fd, buffer, result }) => {
                self.read_on(key, (fd, buffer, result), now, handler, wanted);
            }
            (
                Stage::Answering { sent },
                Outcome::Sent {
                    fd,
                    buffer,
                    result: Ok(count),
                },
            ) if sent + count < buffer.len() => {
                let sent = sent + count;
                *stage = Stage::Answering { sent };
                wanted.push(send(key, fd, buffer, sent, ANSWER_PATIENCE));
            }
            (Stage::Streaming, Outcome::Sent { fd, buffer, result }) => {
                if self
                    .streams
                    .sent(key, (fd, buffer, result), wanted)
                    .is_break()
                {
                    self.end(key);
                }
            }
            // The descriptor was in the outcome: it is closed by now.
            _ => self.end(key),
        }
    }

    /// Some more of a request has come, or no more will.
    fn read_on(
        &mut self,
        key: Key,
        (fd, mut buffer, result): (OwnedFd, Vec<u8>, Result<usize, Failure>),
        now: Instant,
        handler: &mut dyn FnMut(&Request<'_>, Key) -> Answer,
        wanted: &mut Vec<Wanted>,
    ) {
        let is_open = matches!(self.served, Served::Anybody);
        let Some(Stage::Reading {
            deadline,
            access,
            lengths,
        }) = self.connections.get_mut(key)
        else {
            return;
        };
        let refusal = match result {
            Ok(0) if buffer.is_empty() => None,
            Ok(0) => Some(Response::error(
                400,
                "the request ends before it is complete",
            )),
            Ok(_) => match measured(&buffer, lengths) {
                Err(refusal) => Some(refusal),
                Ok(Some(lengths)) if is_open && lengths.has_body() => Some(no_body()),
                Ok(Some(lengths)) if buffer.len() >= lengths.all() => {
                    let answer = match http::read(&buffer, lengths, *access) {
                        Ok(request) => handler(&request, key),
                        Err(refusal) => Answer::Now(refusal),
                    };
                    return self.begin_answer(key, fd, answer, wanted);
                }
                Ok(known) => match deadline.checked_duration_since(now) {
                    Some(left) => {
                        make_room(&mut buffer, known);
                        return wanted.push(receive(key, fd, buffer, left));
                    }
                    None => Some(too_slow()),
                },
            },
            Err(Failure::TimedOut) if !buffer.is_empty() => Some(too_slow()),
            Err(_) => None,
        };
        match refusal {
            Some(refusal) => self.begin_answer(key, fd, Answer::Now(refusal), wanted),
            None => self.end(key), // nobody is there to read an answer
        }
    }

    fn begin_answer(&mut self, key: Key, fd: OwnedFd, answer: Answer, wanted: &mut Vec<Wanted>) {
        let Some(stage) = self.connections.get_mut(key) else {
            return;
        };
        let response = match answer {
            Answer::Now(response) => response,
            Answer::Later => {
                *stage = Stage::Waiting;
                return self.waiting.push((key, fd));
            }
            Answer::Stream { .. } if self.streams.len() >= MAX_STREAMS => too_many_streams(),
            Answer::Stream { kind } => match self.streams.begin(key, fd, kind, wanted) {
                Ok(()) => {
                    *stage = Stage::Streaming;
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin socket could not begin a stream");
                    return self.end(key);
                }
            },
        };
        *stage = Stage::Answering { sent: 0 };
        wanted.push(send(key, fd, response.into_bytes(), 0, ANSWER_PATIENCE));
    }
}

/// The lengths of the request that is in the buffer, if its head is complete; they are
/// remembered, so that a long body does not have its head read again for every piece.
fn measured(buffer: &[u8], known: &mut Option<Lengths>) -> Result<Option<Lengths>, Response> {
    if known.is_none() {
        *known = match http::measure(buffer) {
            Measured::Head(lengths) => Some(lengths),
            Measured::Partial => None,
            Measured::Refused(refusal) => return Err(refusal),
        };
    }
    Ok(*known)
}

/// Room for some more of the body. A head has its room from the start.
fn make_room(buffer: &mut Vec<u8>, lengths: Option<Lengths>) {
    if let Some(lengths) = lengths {
        let missing = lengths.all().saturating_sub(buffer.len());
        buffer.reserve_exact(missing.min(buffer.len().max(BODY_STEP)));
    }
}

fn too_slow() -> Response {
    let message = format!("the request was not complete within {REQUEST_PATIENCE:?}");
    Response::error(408, &message)
}

fn no_body() -> Response {
    Response::error(413, "nothing that can be asked here has a body")
}

fn too_many_streams() -> Response {
    let message = format!("{MAX_STREAMS} streams are open already: end one of them first");
    Response::error(503, &message)
}

fn receive(key: Key, fd: OwnedFd, buffer: Vec<u8>, limit: Duration) -> Wanted {
    Wanted {
        operation: Operation::Receive { fd, buffer },
        limit: Some(limit),
        token: AdminToken::Connection(key),
    }
}

fn send(key: Key, fd: OwnedFd, buffer: Vec<u8>, from: usize, limit: Duration) -> Wanted {
    Wanted {
        operation: Operation::Send { fd, buffer, from },
        limit: Some(limit),
        token: AdminToken::Connection(key),
    }
}

#[cfg(test)]
mod tests;
