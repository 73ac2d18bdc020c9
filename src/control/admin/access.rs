//! Who asks, and what they may do.

use std::os::fd::AsFd;

use rustix::net::sockopt;

/// What who asks may do. The greater includes the lesser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// Look.
    Read,
    /// Change what runs.
    Write,
}

impl Access {
    /// Of the process at the other end of a unix socket: root and the balancer's own user may
    /// all. Others can connect only where somebody has widened the socket's mode, and look.
    pub(super) fn of_peer(socket: impl AsFd) -> Self {
        let owner = rustix::process::geteuid();
        match sockopt::socket_peercred(socket) {
            Ok(peer) if peer.uid.is_root() || peer.uid == owner => Self::Write,
            Ok(_) | Err(_) => Self::Read,
        }
    }
}
