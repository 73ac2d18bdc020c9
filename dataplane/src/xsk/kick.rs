//! Wake-ups of the kernel through a socket's descriptor: each error its own meaning and its own
//! counter.
//!
//! xsk-rs and libxdp fold EAGAIN, EBUSY, ENETDOWN and ENOBUFS into success. They mean different
//! things (net/xdp/xsk.c, `__xsk_sendmsg`, `__xsk_generic_xmit`):
//!
//! | result | meaning | what to do |
//! |---|---|---|
//! | 0 | taken, or nothing to take | nothing |
//! | EAGAIN | budget, send buffer or device full; the rest stays in the ring | kick later |
//! | EBUSY | one frame dropped, completed as if sent; the rest stays | count it, kick later |
//! | ENOBUFS | no memory for a copy now | kick later |
//! | ENETDOWN | interface is down; frames stay in the ring | kick when it is up |
//! | ENXIO | socket is bound to nothing any more: the device is gone | rebuild the port |
//!
//! "Later" is the next turn of the worker, not a loop here: to kick a full device at once only
//! makes it drop the next frame.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// What a kick came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kick {
    /// The device took what it found.
    Done,
    /// EAGAIN.
    Again,
    /// EBUSY: one frame was dropped.
    Busy,
    /// ENOBUFS.
    NoBuffers,
    /// ENETDOWN.
    Down,
    /// ENXIO.
    Gone,
    /// Anything else.
    Other,
}

impl From<Errno> for Kick {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN => Self::Again,
            Errno::BUSY => Self::Busy,
            Errno::NOBUFS => Self::NoBuffers,
            Errno::NETDOWN => Self::Down,
            Errno::NXIO => Self::Gone,
            _ => Self::Other,
        }
    }
}

/// Tells the device to look at its TX ring.
#[inline]
pub(crate) fn transmit(socket: BorrowedFd<'_>) -> Kick {
    match send(socket, &[], SendFlags::DONTWAIT) {
        Ok(_) => Kick::Done,
        Err(errno) => errno.into(),
    }
}

/// Tells the device to look at its fill ring, and in busy-poll mode to run its receive side now.
#[inline]
pub(crate) fn fill(socket: BorrowedFd<'_>) -> Kick {
    let mut nothing = [0_u8; 0];
    match recv(socket, &mut nothing[..], RecvFlags::DONTWAIT) {
        Ok(_) => Kick::Done,
        Err(errno) => errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_has_its_own_meaning() {
        let known = [
            (Errno::AGAIN, Kick::Again),
            (Errno::BUSY, Kick::Busy),
            (Errno::NOBUFS, Kick::NoBuffers),
            (Errno::NETDOWN, Kick::Down),
            (Errno::NXIO, Kick::Gone),
            (Errno::OPNOTSUPP, Kick::Other),
            (Errno::BADF, Kick::Other),
        ];
        for (errno, kick) in known {
            assert_eq!(Kick::from(errno), kick);
        }
    }
}
