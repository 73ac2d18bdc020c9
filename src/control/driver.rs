//! The I/O of the control thread: operations go in, completions come out.
//!
//! A [`Driver`] is a proactor: an [`Operation`] is started with everything it needs, *owned*; some
//! later [`Driver::wait`] hands it back with its outcome. While it runs its file descriptor and its
//! buffer belong to the driver, so nobody can close, reuse or reallocate what the kernel still looks at.
//!
//! | driver | over | when |
//! |---|---|---|
//! | [`Ring`] | io_uring | wherever the kernel lets us |
//! | [`Epoll`] | epoll and non-blocking calls | where it does not: seccomp profiles of container runtimes (EPERM), `kernel.io_uring_disabled`, old kernels |
//!
//! [`open`] probes, picks and says in the log which won and why. Both keep the same promises, and one
//! test suite holds them to it (`driver/tests.rs`):
//!
//! 1. Every operation that was started completes exactly once, also when it is cancelled.
//! 2. Its completion gives back the descriptor and the buffer that went in.
//! 3. A limit, if given, ends the operation with [`Failure::TimedOut`] and never before it has passed.
//! 4. `start` and `cancel` never block. `wait` returns at the latest after its timeout, and may return
//!    early with nothing.
//! 5. Dropping the driver gives the kernel no chance to write into freed memory.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;

use super::epoll::Epoll;
use super::ring::Ring;
pub(crate) use super::slab::Key as OperationId;

/// The environment variable that decides between the drivers: `auto` (the default), `io_uring` or
/// `epoll`. For tests and for hosts where one of them misbehaves.
pub(crate) const DRIVER_VARIABLE: &str = "RINGGATE_DRIVER";

/// Longer limits and timers are cut to this, so that no sum of instants can overflow. A year.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What a driver can do. Owns what the kernel needs until the completion gives it back.
#[derive(Debug)]
pub(crate) enum Operation {
    /// Connect this stream socket.
    Connect {
        /// Not connected yet.
        socket: OwnedFd,
        /// The peer.
        address: SocketAddr,
    },
    /// Receive once from a stream socket, as much as there is, into the buffer's spare capacity (what
    /// is in the buffer stays). A buffer without spare capacity is refused.
    Receive {
        /// A connected stream socket.
        fd: OwnedFd,
        /// Received bytes are appended, within its capacity.
        buffer: Vec<u8>,
    },
    /// Send `buffer[from..]` once. May send less: start again with a higher `from`.
    Send {
        /// A connected stream socket. A closed peer is EPIPE, never SIGPIPE.
        fd: OwnedFd,
        /// What to send.
        buffer: Vec<u8>,
        /// How much of it has been sent before; at or past its end is refused.
        from: usize,
    },
    /// Accept one connection, close-on-exec.
    Accept {
        /// A listening socket.
        listener: OwnedFd,
    },
    /// Wait until the descriptor is readable or in error. Nothing is consumed.
    Readable {
        /// Anything that can be polled: signalfd, netlink socket.
        fd: OwnedFd,
    },
    /// Wait this long.
    Timer {
        /// From the start of the operation.
        after: Duration,
    },
}

/// How an operation ended, with what it owned.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Of [`Operation::Connect`].
    Connected {
        /// Connected, if the result says so; else good for closing only.
        socket: OwnedFd,
        /// What became of it.
        result: Result<(), Failure>,
    },
    /// Of [`Operation::Receive`].
    Received {
        /// The socket.
        fd: OwnedFd,
        /// Longer by the result.
        buffer: Vec<u8>,
        /// Bytes appended; 0 is the end of the stream.
        result: Result<usize, Failure>,
    },
    /// Of [`Operation::Send`].
    Sent {
        /// The socket.
        fd: OwnedFd,
        /// Unchanged.
        buffer: Vec<u8>,
        /// Bytes sent, counted from `from`; at least 1.
        result: Result<usize, Failure>,
    },
    /// Of [`Operation::Accept`].
    Accepted {
        /// Ready to accept the next.
        listener: OwnedFd,
        /// The new connection.
        result: Result<OwnedFd, Failure>,
    },
    /// Of [`Operation::Readable`].
    Readable {
        /// The descriptor.
        fd: OwnedFd,
        /// Readable, or in error: reading tells.
        result: Result<(), Failure>,
    },
    /// Of [`Operation::Timer`].
    Elapsed {
        /// Err only when cancelled.
        #[cfg_attr(not(test), expect(dead_code, reason = "a pause is over either way"))]
        result: Result<(), Failure>,
    },
}

/// Why an operation did not do what it was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Its own limit passed first.
    TimedOut,
    /// [`Driver::cancel`] got it.
    Cancelled,
    /// The kernel said no.
    Os(Errno),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("timed out"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Os(errno) => write!(f, "{errno}"),
        }
    }
}

/// One finished operation.
#[derive(Debug)]
pub(crate) struct Completion<T> {
    /// The name under which it was started; spent now.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the token says enough to the loop")
    )]
    pub(crate) id: OperationId,
    /// What the caller gave with it.
    pub(crate) token: T,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

/// An operation that was not started, given back whole.
#[derive(Debug)]
pub(crate) struct Refused {
    /// What was to be started.
    pub(crate) operation: Operation,
    /// Why it was not.
    pub(crate) why: Refusal,
}

/// Why an operation was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As many operations are running as the driver was opened for: collect completions first.
    Full,
    /// Nothing to do: no spare capacity to receive into, or nothing left to send. Also more than
    /// 4 GiB at once, which the kernel's interface cannot say.
    BadLength,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.why {
            Refusal::Full => "too many operations are running on the control thread",
            Refusal::BadLength => "the buffer has no room to receive into or nothing to send",
        })
    }
}

impl Operation {
    /// The bytes that a send or receive would concern; none for other operations.
    ///
    /// `Err` when that is nothing or does not fit the 32 bits of the kernel's interface.
    pub(super) fn length(&self) -> Result<Option<u32>, Refusal> {
        let length = match self {
            Self::Receive { buffer, .. } => buffer.capacity() - buffer.len(),
            Self::Send { buffer, from, .. } => buffer.len().saturating_sub(*from),
            _ => return Ok(None),
        };
        match u32::try_from(length) {
            Ok(0) | Err(_) => Err(Refusal::BadLength),
            Ok(length) => Ok(Some(length)),
        }
    }

    /// The descriptor that it owns; a timer has none.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Connect { socket: fd, .. }
            | Self::Receive { fd, .. }
            | Self::Send { fd, .. }
            | Self::Accept { listener: fd }
            | Self::Readable { fd } => Some(fd.as_fd()),
            Self::Timer { .. } => None,
        }
    }

    /// The outcome of this operation, with what it owns.
    pub(super) fn outcome(self, result: Result<Value, Failure>) -> Outcome {
        match self {
            Self::Connect { socket, .. } => Outcome::Connected {
                socket,
                result: result.map(|_| ()),
            },
            Self::Receive { fd, buffer } => Outcome::Received {
                fd,
                buffer,
                result: result.map(Value::bytes),
            },
            Self::Send { fd, buffer, .. } => Outcome::Sent {
                fd,
                buffer,
                result: result.map(Value::bytes),
            },
            Self::Accept { listener } => {
                let result = result.and_then(|value| match value {
                    Value::Accepted(connection) => Ok(connection),
                    // No driver says so; it would be a success without a connection.
                    Value::Done | Value::Bytes(_) => Err(Failure::Os(Errno::IO)),
                });
                Outcome::Accepted { listener, result }
            }
            Self::Readable { fd } => Outcome::Readable {
                fd,
                result: result.map(|_| ()),
            },
            Self::Timer { .. } => Outcome::Elapsed {
                result: result.map(|_| ()),
            },
        }
    }
}

/// What a successful operation came to, before it is dressed as an [`Outcome`].
#[derive(Debug)]
pub(super) enum Value {
    /// It happened.
    Done,
    /// So many bytes moved.
    Bytes(usize),
    /// A new connection.
    Accepted(OwnedFd),
}

impl Value {
    fn bytes(self) -> usize {
        match self {
            Self::Bytes(count) => count,
            Self::Done | Self::Accepted(_) => 0,
        }
    }
}

/// The promises are in the module's documentation. `T` is whatever the caller wants back with the
/// completion, to know what it was for.
pub(crate) trait Driver<T: Copy>: fmt::Debug {
    /// Which driver this is.
    fn kind(&self) -> DriverKind;

    /// Operations started and not yet handed back.
    fn in_flight(&self) -> usize;

    /// Starts an operation; with a limit, it ends no later than that (a timer takes no heed of it).
    ///
    /// The kernel may first hear of it in the next [`Driver::wait`].
    fn start(
        &mut self,
        operation: Operation,
        limit: Option<Duration>,
        token: T,
    ) -> Result<OperationId, Refused>;

    /// Asks an operation to end. It still completes, with [`Failure::Cancelled`] or with whatever it
    /// had come to first. A spent id is ignored.
    fn cancel(&mut self, id: OperationId);

    /// Submits what was started, waits until something has completed or the timeout has passed (none:
    /// for ever), and appends what completed.
    ///
    /// # Errors
    /// Only when the driver itself is broken; the caller cannot go on with it.
    fn wait(&mut self, timeout: Option<Duration>, done: &mut Vec<Completion<T>>) -> io::Result<()>;
}

/// Which driver runs; shown in `status` and exported as a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DriverKind {
    /// [`Ring`].
    IoUring,
    /// [`Epoll`].
    Epoll,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// Which driver is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Prefer {
    /// io_uring where it works, else epoll.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// epoll.
    Epoll,
}

impl Prefer {
    /// Reads the value of [`DRIVER_VARIABLE`]; `None` (unset) is [`Prefer::Auto`].
    ///
    /// # Errors
    /// For any word but the three.
    pub(crate) fn from_variable(value: Option<&str>) -> Result<Self, OpenError> {
        match value {
            None | Some("" | "auto") => Ok(Self::Auto),
            Some("io_uring") => Ok(Self::IoUring),
            Some("epoll") => Ok(Self::Epoll),
            Some(other) => Err(OpenError::Word(other.to_owned())),
        }
    }
}

/// Why there is no driver.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Not a known word.
    #[error("{DRIVER_VARIABLE} is {0:?}; set it to auto, io_uring or epoll, or unset it")]
    Word(String),
    /// io_uring was demanded.
    #[error("io_uring was asked for by {DRIVER_VARIABLE} and does not work: {0}")]
    IoUring(#[source] Unusable),
    /// Not even epoll.
    #[error("cannot create an epoll instance: {0}; raise the limit on open files (ulimit -n)")]
    Epoll(#[source] io::Error),
}

/// Why io_uring cannot be used here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// The system call failed.
    #[error("{0} ({cure})", cure = cure(.0))]
    Setup(io::Error),
    /// The kernel has io_uring, but an older one than we need.
    #[error("the kernel's io_uring lacks {0}: Linux 5.11 or newer is needed")]
    Lacks(&'static str),
    /// A NOP went in and did not come out.
    #[error("a no-op did not complete: {0}")]
    Probe(io::Error),
}

/// What an operator can do about a failed `io_uring_setup`.
fn cure(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            "refused by sysctl kernel.io_uring_disabled or by the container runtime's seccomp profile"
        }
        Some(Errno::NOSYS) => "the kernel is built without it, or a sandbox hides it",
        Some(Errno::NOMEM) => "raise the limit on locked memory (ulimit -l)",
        Some(Errno::MFILE | Errno::NFILE) => "raise the limit on open files (ulimit -n)",
        _ => "unexpected here",
    }
}

/// Opens a driver for at most `capacity` operations at a time, and logs which and why.
///
/// Must be called on the thread that will use it: io_uring binds the ring to its first user.
///
/// # Errors
/// When io_uring was demanded and does not work, or when there are no descriptors left for epoll.
pub(crate) fn open<T: Copy + fmt::Debug + 'static>(
    prefer: Prefer,
    capacity: usize,
) -> Result<(Box<dyn Driver<T>>, DriverKind), OpenError> {
    let reason = match prefer {
        Prefer::Epoll => format!("{DRIVER_VARIABLE} asks for it"),
        Prefer::Auto | Prefer::IoUring => match Ring::open(capacity) {
            Ok(ring) => {
                tracing::info!(driver = %DriverKind::IoUring, setup = %ring.setup(), "control I/O");
                return Ok((Box::new(ring), DriverKind::IoUring));
            }
            Err(unusable) if prefer == Prefer::IoUring => return Err(OpenError::IoUring(unusable)),
            Err(unusable) => format!("io_uring does not work: {unusable}"),
        },
    };
    let epoll = Epoll::open(capacity).map_err(OpenError::Epoll)?;
    tracing::info!(driver = %DriverKind::Epoll, reason, "control I/O");
    Ok((Box::new(epoll), DriverKind::Epoll))
}

#[cfg(test)]
mod tests;
