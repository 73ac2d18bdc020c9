//! The `tcp` check: a handshake, and what its failure means.
//!
//! The socket has SO_LINGER with zero seconds, so closing it sends RST instead of FIN. That is on purpose:
//! the check is over when the handshake is; nothing was said, so nothing can be lost; and neither side
//! keeps the connection, we no TIME_WAIT (a port a minute for each check), the backend no CLOSE_WAIT when
//! its application is too busy to accept. The price: the application may see ECONNRESET where it would have
//! seen an empty connection.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::super::driver::{Failure, Operation, Outcome};
use super::super::health::{Reason, Verdict};
use super::{Dial, Step};

/// The machine: there is but one operation.
#[derive(Debug)]
pub(super) struct Tcp;

impl Tcp {
    pub(super) fn begin(dial: Dial) -> Step {
        connect(dial).map_or_else(|errno| Step::Over(Verdict::Inconclusive(errno)), Step::Go)
    }

    pub(super) fn completed(&mut self, outcome: &Outcome) -> Step {
        Step::Over(match outcome {
            Outcome::Connected { result: Ok(()), .. } => Verdict::Success,
            Outcome::Connected {
                result: Err(failure),
                ..
            } => of_connect(*failure),
            // Not an answer to what was asked for.
            _ => Verdict::Inconclusive(Errno::PROTO),
        })
    }
}

/// A connection to be made, which will end with a reset.
pub(super) fn connect(Dial { address, ready }: Dial) -> Result<Operation, Errno> {
    let socket = match ready {
        Some(socket) => socket,
        None => socket(address)?,
    };
    Ok(Operation::Connect { socket, address })
}

/// A TCP socket of this address's family, whose connection will end with a reset.
pub(super) fn socket(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family(address), SocketType::STREAM, flags, None)?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    Ok(socket)
}

pub(super) const fn family(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

/// What it says of a backend that there is no connection to it.
pub(super) fn of_connect(failure: Failure) -> Verdict {
    match failure {
        Failure::TimedOut => Verdict::Failure(Reason::TimedOut),
        Failure::Cancelled => Verdict::Inconclusive(Errno::CANCELED),
        Failure::Os(errno) => match errno {
            Errno::CONNREFUSED => Verdict::Failure(Reason::Refused),
            // The kernel's own timeout: net.ipv4.tcp_syn_retries were used up before ours.
            Errno::TIMEDOUT => Verdict::Failure(Reason::TimedOut),
            Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::NETDOWN => {
                Verdict::Failure(Reason::Unreachable(errno))
            }
            // No local port, no descriptor, no memory: our trouble, not the backend's.
            Errno::ADDRNOTAVAIL
            | Errno::AGAIN
            | Errno::MFILE
            | Errno::NFILE
            | Errno::NOBUFS
            | Errno::NOMEM => Verdict::Inconclusive(errno),
            _ => Verdict::Failure(Reason::Other(errno)),
        },
    }
}
