//! The admin socket: JSON over HTTP/1.1 on a unix socket that only its owner may use.
//!
//! [`Admin`] does no I/O of its own. It says which operations it wants ([`Wanted`]), the loop starts them
//! and brings back how they ended; in between the loop does its other work, so no client can hold it up.
//!
//! One request per connection: it is read, answered by the loop's handler, and the connection closed.
//! That is all that the commands need; keep-alive would only keep slots. What takes more than a turn of
//! the loop is answered [later](Answer::Later), by [`Admin::answer`].
//!
//! # Bounds
//! | what | bound | beyond it |
//! |---|---|---|
//! | connections at once | [`MAX_CONNECTIONS`] | wait in the listen queue |
//! | bytes of a request | [`MAX_REQUEST`] | 431 |
//! | header lines | [`http::MAX_HEADERS`] | 431 |
//! | time until the request is complete, however it trickles | [`REQUEST_PATIENCE`] | closed |
//! | time without taking a byte of the answer | [`ANSWER_PATIENCE`] | closed |
//!
//! A request body is not read: no target has one.
//!
//! | file | owns |
//! |---|---|
//! | [`socket`] | the socket's file: its mode, its directory, stale ones, its end |
//! | [`http`] | reading a request, writing an answer |

pub(crate) mod http;
pub(crate) mod socket;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use self::http::{MAX_REQUEST, Parsed, Request, Response};
use self::socket::Claimed;
use super::driver::{Failure, Operation, Outcome};
use super::slab::{Key, Slab};

/// Connections served at once. The commands make one each, a metrics collector too; sixteen silent
/// clients delay the next by no more than [`REQUEST_PATIENCE`].
const MAX_CONNECTIONS: usize = 16;

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
}

/// Where a connection is. Its descriptor and buffer are with the driver, but while it waits.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Reading the request, until then.
    Reading { deadline: Instant },
    /// For what was asked to be done.
    Waiting,
    /// So many bytes of the answer have been sent.
    Answering { sent: usize },
}

/// The admin socket and its connections.
#[derive(Debug)]
pub(crate) struct Admin {
    /// Removes the socket's file when dropped.
    claimed: Claimed,
    /// The listener while no accept is in flight.
    idle: Option<OwnedFd>,
    /// The listener after an accept that failed, until the pause is over.
    paused: Option<OwnedFd>,
    connections: Slab<Stage>,
    /// Those in [`Stage::Waiting`].
    waiting: Vec<(Key, OwnedFd)>,
}

impl Admin {
    /// Serves on a claimed socket, from the next [`Admin::pump`] on.
    pub(crate) fn new(mut claimed: Claimed) -> Self {
        let idle = claimed.take_listener();
        Self {
            claimed,
            idle,
            paused: None,
            connections: Slab::new(MAX_CONNECTIONS),
            waiting: Vec::new(),
        }
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        self.claimed.path()
    }

    /// Asks for the next connection, if there is room for one and nothing is asked for yet. To be called
    /// once at the start and after every [`Admin::completed`] and [`Admin::refused`].
    pub(crate) fn pump(&mut self, wanted: &mut Vec<Wanted>) {
        if self.connections.len() < MAX_CONNECTIONS
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
            (AdminToken::Connection(key), _) => drop(self.connections.take(key)),
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
            (AdminToken::Connection(key), outcome) => {
                match self.step(key, outcome, now, handler) {
                    Step::Next(next) => wanted.push(next),
                    Step::Wait(fd) => self.waiting.push((key, fd)),
                    // The descriptor was in the outcome: it is closed by now.
                    Step::Over => drop(self.connections.take(key)),
                }
            }
            _ => {}
        }
    }

    /// Answers a request that was to be answered later. To be followed by [`Admin::pump`].
    pub(crate) fn answer(&mut self, key: Key, response: Response, wanted: &mut Vec<Wanted>) {
        let Some(at) = self.waiting.iter().position(|(waits, _)| *waits == key) else {
            return;
        };
        let (_, fd) = self.waiting.swap_remove(at);
        if let Some(stage) = self.connections.get_mut(key) {
            *stage = Stage::Answering { sent: 0 };
            wanted.push(send(key, fd, response.into_bytes(), 0));
        }
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
                let deadline = now + REQUEST_PATIENCE;
                // There is room: nothing is accepted otherwise (`pump`).
                if let Ok(key) = self.connections.insert(Stage::Reading { deadline }) {
                    wanted.push(receive(
                        key,
                        fd,
                        Vec::with_capacity(MAX_REQUEST),
                        REQUEST_PATIENCE,
                    ));
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
    ) -> Step {
        let Some(stage) = self.connections.get_mut(key) else {
            return Step::Over;
        };
        match (*stage, outcome) {
            (
                Stage::Reading { deadline },
                Outcome::Received {
                    fd,
                    buffer,
                    result: Ok(count),
                },
            ) => {
                let response = match http::parse(&buffer) {
                    Parsed::Request(request) => match handler(&request, key) {
                        Answer::Now(response) => response,
                        Answer::Later => {
                            *stage = Stage::Waiting;
                            return Step::Wait(fd);
                        }
                    },
                    Parsed::Refused(response) => response,
                    Parsed::Partial if count == 0 => return Step::Over, // gone in mid-sentence
                    Parsed::Partial if buffer.len() >= MAX_REQUEST => http::too_large(),
                    Parsed::Partial => {
                        return match deadline.checked_duration_since(now) {
                            Some(left) => Step::Next(receive(key, fd, buffer, left)),
                            None => Step::Over,
                        };
                    }
                };
                *stage = Stage::Answering { sent: 0 };
                Step::Next(send(key, fd, response.into_bytes(), 0))
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
                Step::Next(send(key, fd, buffer, sent))
            }
            _ => Step::Over,
        }
    }
}

/// What becomes of a connection.
enum Step {
    /// It wants this done.
    Next(Wanted),
    /// It waits for [`Admin::answer`].
    Wait(OwnedFd),
    Over,
}

fn receive(key: Key, fd: OwnedFd, buffer: Vec<u8>, limit: Duration) -> Wanted {
    Wanted {
        operation: Operation::Receive { fd, buffer },
        limit: Some(limit),
        token: AdminToken::Connection(key),
    }
}

fn send(key: Key, fd: OwnedFd, buffer: Vec<u8>, from: usize) -> Wanted {
    Wanted {
        operation: Operation::Send { fd, buffer, from },
        limit: Some(ANSWER_PATIENCE),
        token: AdminToken::Connection(key),
    }
}

#[cfg(test)]
mod tests;
