//! The driver over io_uring. Unsafe room 2 of two (the other is the data plane's `xsk/`).
#![expect(
    unsafe_code,
    reason = "submission entries carry raw addresses and accepted descriptors come back as integers"
)]
//!
//! # Who owns what
//!
//! | thing | owner | until |
//! |---|---|---|
//! | descriptor, buffer | the operation's [`Flight`] in the slab | all of its completion entries have been reaped |
//! | socket address, time limit | the same flight, in the slot where it was inserted | likewise (the kernel copies them at submission; we do not depend on it) |
//! | accepted descriptor | nobody: an integer in a completion entry | [`finish`] wraps it, exactly once |
//!
//! A flight is inserted before its entries are pushed and taken out after the last of its completions
//! has been reaped; in between nothing moves or reads its buffer. The slab never reallocates.
//!
//! # Words
//!
//! The `user_data` of an entry is the flight's key and a role ([`ROLE_OPERATION`], [`ROLE_LIMIT`],
//! [`ROLE_CANCEL`]). An operation with a limit is a chain of two entries, itself and a LINK_TIMEOUT, and
//! two completions; it is handed back when both have come, so that its slot cannot be reused under the
//! limit. The completion of a cancel tells nothing that the operation's own does not: it is dropped.
//!
//! # The end
//!
//! Dropping the ring cancels everything, and reaps. What the kernel has not given back after
//! [`DROP_PATIENCE`] is leaked, slab and all: a leak at the end of the process is harmless, a kernel
//! writing into freed memory is not. The ring is closed first in any case.
//!
//! # Not supported
//! Multishot operations, registered buffers and files, SQPOLL: a control thread has no use for them.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use super::driver::{
    Completion, Driver, DriverKind, Failure, LONGEST, Operation, OperationId, Outcome, Refusal,
    Refused, Unusable, Value,
};
use super::slab::Slab;

/// Entry of the operation itself.
const ROLE_OPERATION: u8 = 0;
/// Entry of its linked timeout.
const ROLE_LIMIT: u8 = 1;
/// Entry of a request to cancel it.
const ROLE_CANCEL: u8 = 2;
/// Entry of the probe's no-op.
const ROLE_PROBE: u8 = 3;

/// Submission entries that one operation can need between two waits: itself, its limit, its cancel. So
/// a queue of this many times the capacity has room for everything the slab has room for.
const ENTRIES_PER_OPERATION: u32 = 3;

/// How often a dropped ring asks for what is still out, and for how long each time. Cancelled socket
/// operations come back at the next enter; this is for a kernel that is out of order, and bounds the
/// end of the process to two seconds.
const DROP_PATIENCE: (u32, Duration) = (20, Duration::from_millis(100));

/// The operations that must exist, with the names that an error can show. All but the first two came
/// with Linux 5.5 and 5.6.
const NEEDED: [(u8, &str); 8] = [
    (opcode::Nop::CODE, "NOP"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::Timeout::CODE, "TIMEOUT"),
    (opcode::LinkTimeout::CODE, "LINK_TIMEOUT"),
    (opcode::Connect::CODE, "CONNECT"),
    (opcode::Accept::CODE, "ACCEPT"),
    (opcode::Send::CODE, "SEND"),
    (opcode::Recv::CODE, "RECV"),
];

/// An io_uring and the operations that it runs.
pub(crate) struct Ring<T> {
    /// Closed before the slab is dropped: fields drop in this order.
    ring: IoUring,
    slab: Slab<Flight<T>>,
    /// Cancels that found the submission queue full; pushed by the next wait.
    postponed: Vec<OperationId>,
    setup: Setup,
    /// Not `Send`: with IORING_SETUP_SINGLE_ISSUER only the creating thread may submit.
    _thread: PhantomData<*const ()>,
}

/// How the ring was set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setup {
    /// SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1): completions are worked off in `wait` only.
    Deferred,
    /// No flags: older kernels.
    Plain,
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deferred => "single issuer, deferred task work",
            Self::Plain => "plain",
        })
    }
}

/// One running operation.
struct Flight<T> {
    token: T,
    operation: Operation,
    /// Of a connect, in the kernel's form.
    address: Option<SocketAddrAny>,
    /// Of the timer, or of the linked limit.
    time: types::Timespec,
    /// Completion entries still to come.
    outstanding: u8,
    /// The result of the operation's own completion entry, once it is there.
    result: Option<i32>,
    /// [`Driver::cancel`] was called: ECANCELED is the caller's wish, not the limit's doing.
    cancelled: bool,
}

impl<T> Ring<T> {
    /// Sets up a ring for at most `capacity` operations at a time, and proves that it works.
    pub(crate) fn open(capacity: usize) -> Result<Self, Unusable> {
        let entries = u32::try_from(capacity)
            .unwrap_or(u32::MAX)
            .saturating_mul(ENTRIES_PER_OPERATION)
            .clamp(8, 1 << 15); // the kernel's IORING_MAX_ENTRIES
        let (ring, setup) = match IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_clamp()
            .build(entries)
        {
            Ok(ring) => (ring, Setup::Deferred),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let ring = IoUring::builder().setup_clamp().build(entries);
                (ring.map_err(Unusable::Setup)?, Setup::Plain)
            }
            Err(error) => return Err(Unusable::Setup(error)),
        };
        let mut this = Self {
            ring,
            slab: Slab::new(capacity),
            postponed: Vec::new(),
            setup,
            _thread: PhantomData,
        };
        this.probe()?;
        Ok(this)
    }

    /// How the ring was set up.
    pub(crate) fn setup(&self) -> Setup {
        self.setup
    }

    /// Asks the kernel for what we need, then sends a no-op through.
    fn probe(&mut self) -> Result<(), Unusable> {
        let params = self.ring.params();
        if !params.is_feature_nodrop() {
            return Err(Unusable::Lacks(
                "completions that are never dropped (FEAT_NODROP)",
            ));
        }
        if !params.is_feature_ext_arg() {
            return Err(Unusable::Lacks("waiting with a timeout (FEAT_EXT_ARG)"));
        }
        let mut probe = Probe::new();
        self.ring
            .submitter()
            .register_probe(&mut probe)
            .map_err(Unusable::Setup)?;
        if let Some((_, name)) = NEEDED.iter().find(|(code, _)| !probe.is_supported(*code)) {
            return Err(Unusable::Lacks(name));
        }

        let nop = opcode::Nop::new()
            .build()
            .user_data(u64::from(ROLE_PROBE) << 24);
        // SAFETY: a no-op refers to no memory.
        let pushed = unsafe { self.ring.submission().push(&nop) };
        pushed
            .map_err(|_| Unusable::Probe(io::Error::other("the submission queue has no room")))?;
        self.enter(Duration::from_secs(1))
            .map_err(Unusable::Probe)?;
        match self.ring.completion().next() {
            Some(entry) if entry.result() == 0 => Ok(()),
            Some(entry) => Err(Unusable::Probe(io::Error::from_raw_os_error(
                -entry.result(),
            ))),
            None => Err(Unusable::Probe(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Submits what is in the submission queue and waits for a completion entry, or for the timeout.
    fn enter(&self, timeout: Duration) -> io::Result<()> {
        let time = types::Timespec::from(timeout.min(LONGEST));
        let arguments = types::SubmitArgs::new().timespec(&time);
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // ETIME: nothing came. EINTR: a signal came. EBUSY, EAGAIN: completions have to be
                // reaped first, and the caller is about to; the rest is submitted next time.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Takes every completion entry out of the ring; appends the operations that are complete by it.
    fn reap(&mut self, done: &mut Vec<Completion<T>>) {
        let Self { ring, slab, .. } = self;
        for entry in ring.completion() {
            let (id, role) = OperationId::unpack(entry.user_data());
            if role != ROLE_OPERATION && role != ROLE_LIMIT {
                continue;
            }
            let Some(flight) = slab.get_mut(id) else {
                debug_assert!(false, "a completion for an operation that is not running");
                continue;
            };
            if role == ROLE_OPERATION {
                flight.result = Some(entry.result());
            }
            flight.outstanding -= 1;
            if flight.outstanding == 0
                && let Some(flight) = slab.take(id)
            {
                let (token, outcome) = finish(flight);
                done.push(Completion { id, token, outcome });
            }
        }
    }

    /// Pushes the request to cancel an operation; false when the queue is full.
    fn push_cancel(&mut self, id: OperationId) -> bool {
        let entry = opcode::AsyncCancel::new(id.pack(ROLE_OPERATION))
            .build()
            .user_data(id.pack(ROLE_CANCEL));
        // SAFETY: a cancel refers to no memory; it names its target by number.
        unsafe { self.ring.submission().push(&entry) }.is_ok()
    }
}

impl<T: Copy> Driver<T> for Ring<T> {
    fn kind(&self) -> DriverKind {
        DriverKind::IoUring
    }

    fn in_flight(&self) -> usize {
        self.slab.len()
    }

    fn start(
        &mut self,
        operation: Operation,
        limit: Option<Duration>,
        token: T,
    ) -> Result<OperationId, Refused> {
        let length = match operation.length() {
            Ok(length) => length.unwrap_or(0),
            Err(why) => return Err(Refused { operation, why }),
        };
        let address = match &operation {
            Operation::Connect { address, .. } => Some(SocketAddrAny::from(*address)),
            _ => None,
        };
        let (time, limited) = match (&operation, limit) {
            (Operation::Timer { after }, _) => (*after, false),
            (_, Some(limit)) => (limit, true),
            (_, None) => (Duration::ZERO, false),
        };
        let flight = Flight {
            token,
            operation,
            address,
            time: types::Timespec::from(time.min(LONGEST)),
            outstanding: 1 + u8::from(limited),
            result: None,
            cancelled: false,
        };
        let id = match self.slab.insert(flight) {
            Ok(id) => id,
            Err(flight) => {
                return Err(Refused {
                    operation: flight.operation,
                    why: Refusal::Full,
                });
            }
        };
        let Self { ring, slab, .. } = self;
        let Some(flight) = slab.get_mut(id) else {
            unreachable!("inserted above");
        };
        let entry = flight.entry(length).user_data(id.pack(ROLE_OPERATION));
        let pushed = if limited {
            let entry = entry.flags(squeue::Flags::IO_LINK);
            let timeout = opcode::LinkTimeout::new(&raw const flight.time)
                .build()
                .user_data(id.pack(ROLE_LIMIT));
            // SAFETY: both entries refer to this flight's own memory (see `Flight::entry`) and to its
            // `time`; the flight stays in its slot until both completions have been reaped (`reap`).
            // Pushing both or none keeps the chain in one submission.
            unsafe { ring.submission().push_multiple(&[entry, timeout]) }
        } else {
            // SAFETY: as above, with one entry.
            unsafe { ring.submission().push(&entry) }
        };
        if pushed.is_err() {
            // Only after waits that could not submit. Nothing was pushed: the kernel knows nothing of it.
            if let Some(flight) = self.slab.take(id) {
                return Err(Refused {
                    operation: flight.operation,
                    why: Refusal::Full,
                });
            }
        }
        Ok(id)
    }

    fn cancel(&mut self, id: OperationId) {
        match self.slab.get_mut(id) {
            Some(flight) if !flight.cancelled => flight.cancelled = true,
            _ => return,
        }
        if !self.push_cancel(id) {
            self.postponed.push(id);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, done: &mut Vec<Completion<T>>) -> io::Result<()> {
        for id in mem::take(&mut self.postponed) {
            if !self.push_cancel(id) {
                self.postponed.push(id);
            }
        }
        self.enter(timeout.unwrap_or(LONGEST))?;
        self.reap(done);
        Ok(())
    }
}

impl<T> Flight<T> {
    /// The submission entry of this operation, `length` bytes where it has any.
    ///
    /// It refers to the flight's `address` and `time` where they are, and to its buffer's heap memory:
    /// the caller must have put the flight where it will stay.
    fn entry(&mut self, length: u32) -> squeue::Entry {
        match &mut self.operation {
            Operation::Connect { socket, .. } => {
                let (address, bytes) = match &self.address {
                    Some(address) => (address.as_ptr().cast(), address.addr_len()),
                    None => (std::ptr::null(), 0), // EFAULT; `start` always fills it in
                };
                opcode::Connect::new(types::Fd(socket.as_raw_fd()), address, bytes).build()
            }
            Operation::Receive { fd, buffer } => {
                let room = buffer.spare_capacity_mut().as_mut_ptr().cast();
                opcode::Recv::new(types::Fd(fd.as_raw_fd()), room, length).build()
            }
            Operation::Send { fd, buffer, from } => {
                // `length` is not 0 (`Operation::length`), so `from` is within the buffer.
                let rest = buffer.get(*from..).unwrap_or_default();
                opcode::Send::new(types::Fd(fd.as_raw_fd()), rest.as_ptr(), length)
                    .flags(libc::MSG_NOSIGNAL)
                    .build()
            }
            Operation::Accept { listener } => {
                let null = std::ptr::null_mut();
                opcode::Accept::new(types::Fd(listener.as_raw_fd()), null, null.cast())
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            }
            Operation::Readable { fd } => {
                let events = u32::from(libc::POLLIN.unsigned_abs());
                opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), events).build()
            }
            Operation::Timer { .. } => opcode::Timeout::new(&raw const self.time).build(),
        }
    }
}

/// Turns a flight that the kernel is through with into its token and outcome.
fn finish<T>(flight: Flight<T>) -> (T, Outcome) {
    let Flight {
        token,
        mut operation,
        result,
        cancelled,
        ..
    } = flight;
    // Every chain has its operation's entry in it, so there is a result; if there were none, nothing
    // would be known but that it did not succeed.
    let result = result.unwrap_or(-libc::EIO);
    let value = u32::try_from(result).map_err(|_| {
        match result.wrapping_neg() {
            libc::ECANCELED if cancelled => Failure::Cancelled,
            // A linked timeout that passes cancels its operation.
            libc::ECANCELED => Failure::TimedOut,
            errno => Failure::Os(Errno::from_raw_os_error(errno)),
        }
    });
    let result = match (&mut operation, value) {
        (Operation::Receive { buffer, .. }, Ok(count)) => {
            let length = buffer.len() + count as usize;
            assert!(
                length <= buffer.capacity(),
                "the kernel received more than there was room"
            );
            // SAFETY: the kernel has written `count` bytes from the old length on, which is where
            // `Flight::entry` pointed it, and they are within the capacity.
            unsafe { buffer.set_len(length) };
            Ok(Value::Bytes(count as usize))
        }
        (Operation::Send { .. }, Ok(count)) => Ok(Value::Bytes(count as usize)),
        (Operation::Accept { .. }, Ok(_)) => {
            // SAFETY: a successful accept installs a new descriptor in our table and tells its number
            // in this one completion entry, which is consumed once: nobody else owns it.
            Ok(Value::Accepted(unsafe { OwnedFd::from_raw_fd(result) }))
        }
        // A timeout completes with ETIME when it has passed, and with ECANCELED only if cancelled.
        (Operation::Timer { .. }, Err(Failure::Os(Errno::TIME))) => Ok(Value::Done),
        (_, Ok(_)) => Ok(Value::Done),
        (_, Err(failure)) => Err(failure),
    };
    (token, operation.outcome(result))
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let (turns, each) = DROP_PATIENCE;
        let mut wanted = self.slab.keys();
        for _ in 0..turns {
            if self.slab.len() == 0 {
                return;
            }
            // At the latest the second turn finds room in the queue: the first one submits it.
            wanted.retain(|id| !self.push_cancel(*id));
            if self.enter(each).is_err() {
                break;
            }
            self.reap(&mut Vec::new());
        }
        if self.slab.len() == 0 {
            return;
        }
        let stuck = mem::replace(&mut self.slab, Slab::new(0));
        tracing::warn!(
            operations = stuck.len(),
            "io_uring did not give every operation back; their memory is left to it"
        );
        let _: &mut Slab<Flight<T>> = Box::leak(Box::new(stuck));
    }
}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("setup", &self.setup)
            .field("in_flight", &self.slab.len())
            .finish_non_exhaustive()
    }
}
