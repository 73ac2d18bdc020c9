//! A conversation over a TCP connection: connect, say, listen, until the dialogue has made up its mind.
//!
//! The connection ends with a reset, as that of a `tcp` check does and for its reasons: what matters of
//! the answer has been read by then.

use std::fmt;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::super::driver::{Failure, Operation, Outcome};
use super::super::health::{Reason, Verdict};
use super::complaint::{Complaint, Cut, Heard};
use super::tcp::{connect, of_connect};
use super::{Dial, Step};

/// Received at once, bytes.
const PIECE: usize = 4_096;

/// Most bytes that are listened to: twice what the longest body searched needs. Beyond, nothing is decided
/// any more.
const MOST_BYTES: u64 = 2 << 20;

/// Most pieces in which they may come: a backend that sends byte by byte, as fast as it can, costs no more
/// turns of the loop than this.
const MOST_PIECES: u32 = 4_096;

/// What two sides say to each other, without the connection: bytes in, bytes out.
pub(super) trait Dialogue: fmt::Debug {
    /// The connection is there.
    fn begin(&mut self) -> Turn;

    /// This was received; never empty.
    fn heard(&mut self, bytes: &[u8]) -> Turn;

    /// The other side will say no more.
    fn closed(&mut self) -> Result<(), Complaint>;

    /// How much of an answer there is.
    fn progress(&self) -> Heard;
}

/// Whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Ours: this is to be sent, then listened.
    Say(Vec<u8>),
    /// Theirs.
    Listen,
    /// It is decided.
    Over(Result<(), Complaint>),
}

/// The machine.
#[derive(Debug)]
pub(super) struct Stream {
    dialogue: Box<dyn Dialogue>,
    /// Of what is being said.
    sent: usize,
    bytes: u64,
    pieces: u32,
}

impl Stream {
    pub(super) fn begin(dial: Dial, dialogue: Box<dyn Dialogue>) -> (Self, Step) {
        let stream = Self {
            dialogue,
            sent: 0,
            bytes: 0,
            pieces: 0,
        };
        let step =
            connect(dial).map_or_else(|errno| Step::Over(Verdict::Inconclusive(errno)), Step::Go);
        (stream, step)
    }

    pub(super) fn completed(&mut self, outcome: Outcome) -> Step {
        match outcome {
            Outcome::Connected {
                socket,
                result: Ok(()),
            } => {
                let turn = self.dialogue.begin();
                self.take(turn, socket, Vec::new())
            }
            // Connected, and reset before anybody looked; a refusal has another number.
            Outcome::Connected {
                result: Err(failure @ Failure::Os(Errno::CONNRESET)),
                ..
            } => self.cut(failure),
            Outcome::Connected {
                result: Err(failure),
                ..
            } => Step::Over(of_connect(failure)),
            Outcome::Sent {
                fd,
                buffer,
                result: Ok(sent),
            } => {
                self.sent += sent;
                if self.sent >= buffer.len() {
                    return listen(fd, buffer);
                }
                let from = self.sent;
                Step::Go(Operation::Send { fd, buffer, from })
            }
            Outcome::Received { result: Ok(0), .. } => over(self.dialogue.closed()),
            Outcome::Received {
                fd,
                buffer,
                result: Ok(_),
            } => self.hear(fd, buffer),
            Outcome::Sent {
                result: Err(failure),
                ..
            }
            | Outcome::Received {
                result: Err(failure),
                ..
            } => self.cut(failure),
            // Not an answer to what was asked for.
            _ => Step::Over(Verdict::Inconclusive(Errno::PROTO)),
        }
    }

    fn hear(&mut self, fd: OwnedFd, buffer: Vec<u8>) -> Step {
        self.bytes += buffer.len() as u64;
        self.pieces += 1;
        let turn = self.dialogue.heard(&buffer);
        let is_over = matches!(turn, Turn::Over(_));
        if !is_over && (self.bytes > MOST_BYTES || self.pieces > MOST_PIECES) {
            return over(Err(Complaint::Endless(self.bytes)));
        }
        self.take(turn, fd, buffer)
    }

    fn take(&mut self, turn: Turn, fd: OwnedFd, buffer: Vec<u8>) -> Step {
        match turn {
            Turn::Say(buffer) if !buffer.is_empty() => {
                self.sent = 0;
                let from = 0;
                Step::Go(Operation::Send { fd, buffer, from })
            }
            Turn::Say(_) | Turn::Listen => listen(fd, buffer),
            Turn::Over(result) => over(result),
        }
    }

    /// The connection is of no more use.
    fn cut(&self, failure: Failure) -> Step {
        let cut = match failure {
            Failure::TimedOut | Failure::Os(Errno::TIMEDOUT) => Cut::Late,
            Failure::Os(Errno::CONNRESET | Errno::PIPE) => Cut::Reset,
            other => return Step::Over(of_connect(other)),
        };
        over(Err(Complaint::Cut(cut, self.dialogue.progress())))
    }
}

/// Receives into the buffer, from its beginning.
fn listen(fd: OwnedFd, mut buffer: Vec<u8>) -> Step {
    buffer.clear();
    buffer.reserve_exact(PIECE);
    Step::Go(Operation::Receive { fd, buffer })
}

pub(super) fn over(result: Result<(), Complaint>) -> Step {
    Step::Over(match result {
        Ok(()) => Verdict::Success,
        Err(complaint) => Verdict::Failure(Reason::Answer(complaint)),
    })
}
