//! Answers that stay open: what is pushed into one is sent as chunks (RFC 9112, 7.1), in order,
//! until it is finished or its client goes.
//!
//! A slow client costs nobody anything but the memory that its stream may take: what does not fit is
//! not taken, and whoever pushes counts it. A client that takes nothing for [`PATIENCE`] although
//! something waits for it is cut off.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::Shutdown;

use super::super::driver::{Failure, Operation};
use super::super::slab::Key;
use super::secure::Session;
use super::{AdminToken, Wanted, http, send};

/// Bytes of one stream that wait to be sent, beside as many on their way.
pub(super) const MOST_QUEUED: usize = 1 << 20;

/// How long a client may go without reading any of what there is.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client is not expected to send goes here.
const UNEXPECTED: usize = 64;

/// What became of a piece that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Push {
    /// It will be sent.
    Queued,
    /// The client is behind, and it was not taken: count it, and say so when there is room again.
    Lagging,
    /// There is no such stream any more.
    Gone,
}

#[derive(Debug)]
struct Stream {
    key: Key,
    /// While nothing is on its way; else it is with the driver.
    fd: Option<OwnedFd>,
    /// Chunks that wait.
    queued: Vec<u8>,
    /// Of those on their way.
    sent: usize,
    /// No more will be pushed.
    is_finished: bool,
    /// Its TLS, if it has one.
    session: Option<Session>,
}

/// All streams of the admin socket. Whatever gives back a `Break` asks for the connection to be
/// forgotten.
#[derive(Debug, Default)]
pub(super) struct Streams(Vec<Stream>);

impl Streams {
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&mut self, key: Key) -> Option<&mut Stream> {
        self.0.iter_mut().find(|stream| stream.key == key)
    }

    /// Begins an answer, and watches whether its client goes.
    pub(super) fn begin(
        &mut self,
        key: Key,
        (fd, session): (OwnedFd, Option<Session>),
        kind: &str,
        wanted: &mut Vec<Wanted>,
    ) -> std::io::Result<()> {
        // Of its own, since the first is with the driver while something is being sent.
        let watched = fd.try_clone()?;
        wanted.push(Wanted {
            operation: Operation::Receive {
                fd: watched,
                buffer: Vec::with_capacity(UNEXPECTED),
            },
            limit: None,
            token: AdminToken::Watch(key),
        });
        let mut stream = Stream {
            key,
            fd: Some(fd),
            queued: http::stream_head(kind),
            sent: 0,
            is_finished: false,
            session,
        };
        let _goes_on = stream.send_queued(wanted);
        self.0.push(stream);
        Ok(())
    }

    pub(super) fn push(&mut self, key: Key, bytes: &[u8], wanted: &mut Vec<Wanted>) -> Push {
        let Some(stream) = self.get(key).filter(|stream| !stream.is_finished) else {
            return Push::Gone;
        };
        let is_empty = stream.queued.is_empty();
        if !is_empty && stream.queued.len() + bytes.len() > MOST_QUEUED {
            return Push::Lagging;
        }
        http::chunk(bytes, &mut stream.queued);
        let _goes_on = stream.send_queued(wanted);
        Push::Queued
    }

    pub(super) fn finish(&mut self, key: Key, wanted: &mut Vec<Wanted>) -> ControlFlow<()> {
        match self.get(key) {
            Some(stream) if !stream.is_finished => {
                stream.queued.extend(http::LAST_CHUNK);
                stream.is_finished = true;
                stream.send_queued(wanted)
            }
            _ => ControlFlow::Continue(()),
        }
    }

    pub(super) fn is_open(&self, key: Key) -> bool {
        self.0.iter().any(|stream| stream.key == key)
    }

    /// Whether a stream is one by TLS.
    pub(super) fn is_secure(&self, key: Key) -> bool {
        let mut streams = self.0.iter();
        streams.any(|stream| stream.key == key && stream.session.is_some())
    }

    /// Some bytes have been sent, or none could be.
    pub(super) fn sent(
        &mut self,
        key: Key,
        (fd, buffer, result): (OwnedFd, Vec<u8>, Result<usize, Failure>),
        wanted: &mut Vec<Wanted>,
    ) -> ControlFlow<()> {
        let (Some(stream), Ok(count)) = (self.get(key), result) else {
            close(&fd);
            return ControlFlow::Break(());
        };
        stream.sent += count;
        if stream.sent < buffer.len() {
            wanted.push(send(key, fd, buffer, stream.sent, PATIENCE));
            return ControlFlow::Continue(());
        }
        stream.fd = Some(fd);
        stream.send_queued(wanted)
    }

    /// Forgets a stream. What is on its way ends by itself.
    pub(super) fn remove(&mut self, key: Key) {
        if let Some(at) = self.0.iter().position(|stream| stream.key == key) {
            let stream = self.0.swap_remove(at);
            if let Some(fd) = &stream.fd {
                close(fd);
            }
        }
    }
}

impl Stream {
    /// Sends what waits, if nothing is on its way; at the end of everything, breaks.
    fn send_queued(&mut self, wanted: &mut Vec<Wanted>) -> ControlFlow<()> {
        if self.queued.is_empty() {
            let is_over = self.is_finished && self.fd.is_some();
            return if is_over {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            };
        }
        if let Some(fd) = self.fd.take() {
            self.sent = 0;
            let plain = std::mem::take(&mut self.queued);
            let buffer = match &mut self.session {
                Some(session) => session.seal(&plain, self.is_finished),
                None => plain,
            };
            wanted.push(send(self.key, fd, buffer, 0, PATIENCE));
        }
        ControlFlow::Continue(())
    }
}

/// Ends a connection for all its descriptors: the one that is watched notices.
fn close(fd: &OwnedFd) {
    // It fails where the other side has ended the connection already.
    let _ended = rustix::net::shutdown(fd, Shutdown::Both);
}

/// Whether a client has gone, when something has come from it or nothing more will. One that has
/// only said all that it had to say still listens; one that says more than its request does not
/// speak like a client of ours.
pub(super) fn is_gone(fd: impl AsFd, result: Result<usize, Failure>) -> bool {
    if result != Ok(0) {
        return true;
    }
    let mut fds = [PollFd::new(&fd, PollFlags::empty())];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match rustix::event::poll(&mut fds, Some(&at_once)) {
        Ok(_) => fds[0].revents().contains(PollFlags::HUP),
        Err(_) => true,
    }
}
