//! A question in one datagram, and the wait for one that answers it.
//!
//! The socket is connected, so only the backend's datagrams come in by it, and errors that the backend's
//! host or a router tells by ICMP come out of it: a port that nobody listens on is known at once.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::super::driver::{Failure, Operation, Outcome};
use super::super::health::Verdict;
use super::complaint::Complaint;
use super::stream::over;
use super::tcp::of_connect;
use super::{Dial, Step};

/// Longest answer that is looked at, bytes; more is cut off.
const LONGEST: usize = 4_096;

/// Most datagrams that are looked at: a backend that floods us with others costs no more than this.
const MOST: u32 = 64;

/// A question, without the socket.
pub(super) trait Inquiry: fmt::Debug {
    /// A socket of the right kind, not connected.
    fn socket(&mut self, address: SocketAddr) -> Result<OwnedFd, Errno>;

    /// What is to be sent; not empty.
    fn question(&self) -> Vec<u8>;

    /// What this datagram decides; `None` if it is no answer to the question.
    fn judge(&self, answer: &[u8]) -> Option<Result<(), Complaint>>;

    /// What it means that none came in time.
    fn late(&self) -> Result<(), Complaint> {
        Err(Complaint::NoAnswer)
    }
}

/// The machine.
#[derive(Debug)]
pub(super) struct Datagram {
    inquiry: Box<dyn Inquiry>,
    received: u32,
}

impl Datagram {
    pub(super) fn begin(dial: Dial, mut inquiry: Box<dyn Inquiry>) -> (Self, Step) {
        let Dial { address, ready } = dial;
        let socket = ready.map_or_else(|| inquiry.socket(address), Ok);
        let datagram = Self {
            inquiry,
            received: 0,
        };
        let step = match socket {
            Ok(socket) => Step::Go(Operation::Connect { socket, address }),
            Err(errno) => Step::Over(Verdict::Inconclusive(errno)),
        };
        (datagram, step)
    }

    pub(super) fn completed(&mut self, outcome: Outcome) -> Step {
        match outcome {
            Outcome::Connected {
                socket: fd,
                result: Ok(()),
            } => Step::Go(Operation::Send {
                fd,
                buffer: self.inquiry.question(),
                from: 0,
            }),
            Outcome::Sent {
                fd,
                buffer,
                result: Ok(_),
            } => listen(fd, buffer),
            Outcome::Received {
                fd,
                buffer,
                result: Ok(_),
            } => {
                self.received += 1;
                match self.inquiry.judge(&buffer) {
                    Some(result) => over(result),
                    None if self.received < MOST => listen(fd, buffer),
                    None => over(Err(Complaint::Endless(u64::from(self.received)))),
                }
            }
            Outcome::Connected {
                result: Err(failure),
                ..
            }
            | Outcome::Sent {
                result: Err(failure),
                ..
            }
            | Outcome::Received {
                result: Err(failure),
                ..
            } => match failure {
                Failure::TimedOut => over(self.inquiry.late()),
                other => Step::Over(of_connect(other)),
            },
            // Not an answer to what was asked for.
            _ => Step::Over(Verdict::Inconclusive(Errno::PROTO)),
        }
    }
}

fn listen(fd: OwnedFd, mut buffer: Vec<u8>) -> Step {
    buffer.clear();
    buffer.reserve_exact(LONGEST);
    Step::Go(Operation::Receive { fd, buffer })
}
