//! SIGHUP, SIGTERM and SIGINT as something to read, instead of something that interrupts.
//!
//! They are blocked in the calling thread before it starts any other (threads inherit the mask), so that
//! no thread is ever interrupted by them, and taken from a signalfd by the control loop.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What an operator, or the service manager, asks by signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGTERM, SIGINT: drain and stop. A second one while stopping: stop now.
    Stop,
}

/// The blocked signals' file.
#[derive(Debug)]
pub(crate) struct Signals {
    file: SignalFd,
}

impl Signals {
    /// Blocks the three signals in the calling thread and opens their file. Call it in `main` before
    /// anything starts a thread: one that exists already still dies of them.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(crate) fn block() -> io::Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
            signals.add(signal);
        }
        signals.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self {
            file: SignalFd::with_flags(&signals, flags)?,
        })
    }

    /// A duplicate of the descriptor, to wait on until it is readable.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// The next signal that is waiting, without blocking. The kernel keeps each of them once at most.
    ///
    /// # Errors
    /// When the kernel's answer makes no sense.
    pub(crate) fn next(&self) -> io::Result<Option<Wish>> {
        let Some(info) = self.file.read_signal()? else {
            return Ok(None);
        };
        let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
        Ok(Some(match Signal::try_from(number)? {
            Signal::SIGHUP => Wish::Reload,
            _ => Wish::Stop,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::raise;

    use super::super::driver::{self, Operation, Outcome, Prefer};
    use super::*;

    /// `raise` goes to the calling thread only, so tests that run beside this one live on.
    fn signals_arrive_through(prefer: Prefer) {
        let signals = Signals::block().unwrap();
        assert_eq!(signals.next().unwrap(), None);
        let (mut driver, _) = driver::open(prefer, 4).unwrap();
        for (signal, wish) in [
            (Signal::SIGHUP, Wish::Reload),
            (Signal::SIGTERM, Wish::Stop),
            (Signal::SIGINT, Wish::Stop),
        ] {
            let fd = signals.descriptor().unwrap();
            driver.start(Operation::Readable { fd }, None, ()).unwrap();
            let mut done = Vec::new();
            driver.wait(Some(Duration::ZERO), &mut done).unwrap();
            assert!(done.is_empty(), "nothing has come yet");
            raise(signal).unwrap();
            raise(signal).unwrap();
            while done.is_empty() {
                driver
                    .wait(Some(Duration::from_secs(10)), &mut done)
                    .unwrap();
            }
            assert!(
                matches!(done[0].outcome, Outcome::Readable { result: Ok(()), .. }),
                "{done:?}"
            );
            assert_eq!(signals.next().unwrap(), Some(wish), "{signal}");
            assert_eq!(signals.next().unwrap(), None, "twice pending is once");
        }
    }

    #[test]
    fn signals_arrive_through_io_uring() {
        signals_arrive_through(Prefer::IoUring);
    }

    #[test]
    fn signals_arrive_through_epoll() {
        signals_arrive_through(Prefer::Epoll);
    }
}
