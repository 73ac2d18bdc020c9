//! Connections by TLS: the listener, and what comes between the bytes on the wire and the request.
//! Only they have a [`Session`]; for all others everything here is nothing.

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::super::driver::Failure;
use super::super::slab::Key;
use super::access::Access;
use super::secure::{self, Secure, Session};
use super::{
    ANSWER_PATIENCE, Admin, AdminToken, REQUEST_PATIENCE, Received, Stage, Wanted, pause, receive,
    send,
};
use crate::log::limited;

/// The listener for TLS.
#[derive(Debug)]
pub(super) struct RemoteDoor {
    /// While no accept is in flight.
    pub(super) idle: Option<OwnedFd>,
    /// After an accept that failed, until the pause is over.
    pub(super) paused: Option<OwnedFd>,
    secure: Secure,
}

impl Admin {
    /// Serves by TLS, too, on this listener.
    pub(crate) fn serve_remote(&mut self, listener: OwnedFd, secure: Secure) {
        self.remote = Some(RemoteDoor {
            idle: Some(listener),
            paused: None,
            secure,
        });
    }

    /// Takes other certificates and names for those who connect by TLS from now on.
    pub(crate) fn secure_by(&mut self, secure: Secure) {
        if let Some(remote) = &mut self.remote {
            remote.secure = secure;
        }
    }

    /// The pause of the listener for TLS is over.
    pub(super) fn resume_remote(&mut self) {
        if let Some(door) = &mut self.remote {
            door.idle = door.paused.take();
        }
    }

    /// The same for the listener for TLS.
    pub(super) fn accepted_remote(
        &mut self,
        listener: OwnedFd,
        result: Result<OwnedFd, Failure>,
        now: Instant,
        wanted: &mut Vec<Wanted>,
    ) {
        let Some(door) = &mut self.remote else {
            return;
        };
        let fd = match result {
            Ok(fd) => fd,
            Err(Failure::Cancelled) => {
                door.idle = Some(listener);
                return;
            }
            Err(failure) => {
                door.paused = Some(listener);
                return wanted.push(pause(AdminToken::RemotePause, failure));
            }
        };
        door.idle = Some(listener);
        let session = match door.secure.session() {
            Ok(session) => session,
            Err(error) => return limited!(warn, %error, "cannot begin TLS"),
        };
        let stage = Stage::Reading {
            deadline: now + REQUEST_PATIENCE,
            access: Access::Nothing,
            lengths: None,
        };
        // Both listeners may have asked for the last place; one of them is closed then.
        if let Ok(key) = self.connections.insert(stage) {
            self.sessions.push((key, session));
            let buffer = Vec::with_capacity(secure::RECEIVED_MOST);
            wanted.push(receive(key, fd, buffer, REQUEST_PATIENCE));
        }
    }

    pub(super) fn session(&mut self, key: Key) -> Option<&mut Session> {
        let mut sessions = self.sessions.iter_mut();
        sessions.find(|(of, _)| *of == key).map(|(_, one)| one)
    }

    /// A whole answer, as it is sent.
    pub(super) fn sealed(&mut self, key: Key, bytes: Vec<u8>) -> Vec<u8> {
        match self.session(key) {
            Some(session) => session.seal(&bytes, true),
            None => bytes,
        }
    }

    /// What has come by a connection, without the TLS that it may have. None: it is not the request's
    /// turn.
    pub(super) fn unsealed(
        &mut self,
        key: Key,
        (fd, raw, result): Received,
        wanted: &mut Vec<Wanted>,
    ) -> Option<Received> {
        let Some(session) = self.session(key) else {
            return Some((fd, raw, result));
        };
        let fed = session.feed(&raw);
        let (access, answer) = (session.access(), session.pending());
        if fed.is_err() {
            if answer.is_empty() {
                self.end(key);
                return None;
            }
            // Why, in TLS's own words; then it is over.
            if let Some(stage) = self.connections.get_mut(key) {
                *stage = Stage::Answering { sent: 0 };
                wanted.push(send(key, fd, answer, 0, ANSWER_PATIENCE));
            }
            return None;
        }
        if !answer.is_empty() && result.is_ok_and(|count| count > 0) {
            session.sent = 0;
            wanted.push(send(key, fd, answer, 0, ANSWER_PATIENCE));
            return None;
        }
        let plain = std::mem::take(&mut session.plain);
        if let Some(Stage::Reading { access: known, .. }) = self.connections.get_mut(key) {
            *known = access;
        }
        Some((fd, plain, result))
    }

    /// Some of a handshake's answer has been sent. When all of it has, what had come of the request.
    pub(super) fn shaken(
        &mut self,
        key: Key,
        (fd, buffer, result): Received,
        wanted: &mut Vec<Wanted>,
    ) -> Option<Received> {
        let (Some(session), Ok(count)) = (self.session(key), result) else {
            self.end(key);
            return None;
        };
        session.sent += count;
        if session.sent < buffer.len() {
            wanted.push(send(key, fd, buffer, session.sent, ANSWER_PATIENCE));
            return None;
        }
        let (access, plain) = (session.access(), std::mem::take(&mut session.plain));
        if let Some(Stage::Reading { access: known, .. }) = self.connections.get_mut(key) {
            *known = access;
        }
        // It counts as received just now, however much that is.
        Some((fd, plain, Ok(1)))
    }

    pub(super) fn begin_stream(
        &mut self,
        key: Key,
        fd: OwnedFd,
        kind: &str,
        wanted: &mut Vec<Wanted>,
    ) {
        let at = self.sessions.iter().position(|(of, _)| *of == key);
        let session = at.map(|at| self.sessions.swap_remove(at).1);
        if let Err(error) = self.streams.begin(key, (fd, session), kind, wanted) {
            limited!(warn, %error, "the admin socket could not begin a stream");
            self.end(key);
        }
    }
}
