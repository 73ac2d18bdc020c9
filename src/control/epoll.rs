//! The driver over epoll, for hosts where io_uring is refused.
//!
//! It keeps the promises of [`Driver`] by waiting for readiness and then making
//! the call itself, without blocking. Every operation owns its descriptor, so a descriptor is registered
//! at most once. Deadlines (limits and timers) are an ordered set beside the epoll instance; the kernel
//! counts the wait in milliseconds, rounded up, so nothing ends before its time.
//!
//! Descriptors handed in for connect and accept are made non-blocking and stay so.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, sockopt};

use super::clock;
use super::driver::{
    Completion, Driver, DriverKind, Failure, LONGEST, Operation, OperationId, Refusal, Refused,
    Value,
};
use super::slab::Slab;

/// Events taken per system call. More come with the next one; a control thread sees a handful.
const EVENTS_PER_WAIT: usize = 64;

/// The longest single wait: the kernel's milliseconds are an int. Returning early is allowed.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// An epoll instance and the operations that wait on it.
#[derive(Debug)]
pub(crate) struct Epoll<T> {
    epoll: OwnedFd,
    slab: Slab<Pending<T>>,
    /// When limits and timers end, earliest first; the packed key makes each unique.
    deadlines: BTreeSet<(Instant, u64)>,
    /// Completed without waiting; handed back by the next wait.
    ready: Vec<Completion<T>>,
}

/// One operation that waits for readiness, its deadline, or both.
#[derive(Debug)]
struct Pending<T> {
    token: T,
    operation: Operation,
    deadline: Option<Instant>,
}

impl<T: Copy> Epoll<T> {
    /// An epoll instance for at most `capacity` operations at a time.
    pub(crate) fn open(capacity: usize) -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            slab: Slab::new(capacity),
            deadlines: BTreeSet::new(),
            ready: Vec::new(),
        })
    }

    /// Takes an operation out, with its registration and its deadline.
    fn take(&mut self, id: OperationId) -> Option<Pending<T>> {
        let pending = self.slab.take(id)?;
        if let Some(deadline) = pending.deadline {
            self.deadlines.remove(&(deadline, id.pack(0)));
        }
        if let Some(fd) = pending.operation.descriptor() {
            // ENOENT where registering had failed: nothing is there to remove.
            epoll::delete(&self.epoll, fd).ok();
        }
        Some(pending)
    }

    /// Ends an operation: the next wait hands it back.
    fn complete(&mut self, id: OperationId, result: Result<Value, Failure>) {
        if let Some(Pending {
            token, operation, ..
        }) = self.take(id)
        {
            let outcome = operation.outcome(result);
            self.ready.push(Completion { id, token, outcome });
        }
    }

    /// Ends every operation whose deadline has passed.
    fn expire(&mut self, now: Instant) {
        while let Some(&(deadline, word)) = self.deadlines.first()
            && deadline <= now
        {
            let (id, _) = OperationId::unpack(word);
            let result = match self.slab.get_mut(id).map(|pending| &pending.operation) {
                Some(Operation::Timer { .. }) => Ok(Value::Done),
                _ => Err(Failure::TimedOut),
            };
            self.complete(id, result);
            self.deadlines.remove(&(deadline, word));
        }
    }

    /// How long the kernel may keep us: until the caller's timeout or the next deadline.
    fn patience(&self, timeout: Option<Duration>, now: Instant) -> Duration {
        if !self.ready.is_empty() {
            return Duration::ZERO;
        }
        let next = self
            .deadlines
            .first()
            .map_or(LONGEST_WAIT, |(deadline, _)| {
                deadline.saturating_duration_since(now)
            });
        timeout.unwrap_or(LONGEST_WAIT).min(next).min(LONGEST_WAIT)
    }
}

impl<T: Copy + fmt::Debug> Driver<T> for Epoll<T> {
    fn kind(&self) -> DriverKind {
        DriverKind::Epoll
    }

    fn in_flight(&self) -> usize {
        self.slab.len() + self.ready.len()
    }

    fn start(
        &mut self,
        operation: Operation,
        limit: Option<Duration>,
        token: T,
    ) -> Result<OperationId, Refused> {
        if let Err(why) = operation.length() {
            return Err(Refused { operation, why });
        }
        let after = match &operation {
            Operation::Timer { after } => Some(*after),
            _ => limit,
        };
        let deadline = after.map(|after| clock::now() + after.min(LONGEST));
        let id = match self.slab.insert(Pending {
            token,
            operation,
            deadline,
        }) {
            Ok(id) => id,
            Err(Pending { operation, .. }) => {
                return Err(Refused {
                    operation,
                    why: Refusal::Full,
                });
            }
        };
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, id.pack(0)));
        }
        let Self { epoll, slab, .. } = self;
        if let Some(pending) = slab.get_mut(id)
            && let Err(errno) = register(epoll.as_fd(), id, &pending.operation)
        {
            self.complete(id, Err(Failure::Os(errno)));
        }
        Ok(id)
    }

    fn cancel(&mut self, id: OperationId) {
        self.complete(id, Err(Failure::Cancelled));
    }

    fn wait(&mut self, timeout: Option<Duration>, done: &mut Vec<Completion<T>>) -> io::Result<()> {
        let patience = self.patience(timeout, clock::now());
        let time = Timespec::try_from(patience).map_err(io::Error::other)?;
        let mut events = Vec::with_capacity(EVENTS_PER_WAIT);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in events {
            let (id, _) = OperationId::unpack(event.data.u64());
            // An event can be on its way when its operation is cancelled: then there is none.
            if let Some(pending) = self.slab.get_mut(id) {
                match attempt(&mut pending.operation) {
                    Ok(value) => self.complete(id, Ok(value)),
                    // Not ready after all: it stays registered.
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(errno) => self.complete(id, Err(Failure::Os(errno))),
                }
            }
        }
        self.expire(clock::now());
        done.append(&mut self.ready);
        Ok(())
    }
}

/// Begins what must be begun before readiness means anything, and registers for it.
fn register(epoll: BorrowedFd<'_>, id: OperationId, operation: &Operation) -> Result<(), Errno> {
    let Some(fd) = operation.descriptor() else {
        return Ok(());
    };
    let events = match operation {
        Operation::Connect { socket, address } => {
            set_nonblocking(socket.as_fd())?;
            match rustix::net::connect(socket, address) {
                // When it is connected at once it is writable at once.
                Ok(()) | Err(Errno::INPROGRESS) => {}
                Err(errno) => return Err(errno),
            }
            epoll::EventFlags::OUT
        }
        Operation::Accept { listener } => {
            set_nonblocking(listener.as_fd())?;
            epoll::EventFlags::IN
        }
        Operation::Send { .. } => epoll::EventFlags::OUT,
        Operation::Receive { .. } | Operation::Readable { .. } | Operation::Timer { .. } => {
            epoll::EventFlags::IN
        }
    };
    epoll::add(epoll, fd, epoll::EventData::new_u64(id.pack(0)), events)
}

/// Makes the call that the readiness was awaited for.
fn attempt(operation: &mut Operation) -> Result<Value, Errno> {
    match operation {
        Operation::Connect { socket, .. } => sockopt::socket_error(socket)?.map(|()| Value::Done),
        Operation::Receive { fd, buffer } => {
            let received = rustix::net::recv(fd, spare_capacity(buffer), RecvFlags::DONTWAIT);
            received.map(|(count, _)| Value::Bytes(count))
        }
        Operation::Send { fd, buffer, from } => {
            let rest = buffer.get(*from..).unwrap_or_default();
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            rustix::net::send(fd, rest, flags).map(Value::Bytes)
        }
        Operation::Accept { listener } => {
            rustix::net::accept_with(listener, SocketFlags::CLOEXEC).map(Value::Accepted)
        }
        Operation::Readable { .. } | Operation::Timer { .. } => Ok(Value::Done),
    }
}

/// Sets O_NONBLOCK on the open file description.
fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    if flags.contains(OFlags::NONBLOCK) {
        return Ok(());
    }
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)
}
