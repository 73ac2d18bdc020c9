//! One function for each socket option and limit that xsk-rs does not cover. No policy: what a
//! failure means is the caller's to say.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::sockopt;
use rustix::net::xdp::XdpOptionsFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// include/uapi/linux/if_xdp.h; since Linux 6.17, not in libc.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Counters of one socket as the kernel keeps them (`XDP_STATISTICS`).
pub(crate) type Statistics = rustix::net::xdp::XdpStatistics;

/// Whether the socket was really bound in zero-copy mode (`XDP_OPTIONS`, since Linux 5.3).
pub(crate) fn is_zero_copy(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let options = sockopt::xdp_options(socket)?;
    Ok(options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY))
}

/// The kernel's counters of this socket. Not cleared by reading.
pub(crate) fn statistics(socket: BorrowedFd<'_>) -> io::Result<Statistics> {
    Ok(sockopt::xdp_statistics(socket)?)
}

/// How many frames one kick may send in copy mode. The kernel takes 32 up to the size of the TX
/// ring.
pub(crate) fn set_tx_budget(socket: BorrowedFd<'_>, frames: u32) -> io::Result<()> {
    set_int(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, frames)
}

/// The send buffer, beyond the host's limit: `SO_SNDBUFFORCE`, CAP_NET_ADMIN. In copy mode every
/// frame in flight is charged to it.
pub(crate) fn force_send_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    Ok(sockopt::set_socket_send_buffer_size_force(socket, bytes)?)
}

/// `SO_PREFER_BUSY_POLL`: the device's interrupts stay off while the socket is polled often enough
/// (since Linux 5.11).
pub(crate) fn prefer_busy_poll(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 1)
}

/// `SO_BUSY_POLL`: how long, in microseconds, a system call may poll the device.
pub(crate) fn set_busy_poll(socket: BorrowedFd<'_>, micros: u32) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, micros)
}

/// `SO_BUSY_POLL_BUDGET`: most frames that one poll of the device takes.
pub(crate) fn set_busy_poll_budget(socket: BorrowedFd<'_>, frames: u32) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, frames)
}

fn set_int(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: u32,
) -> io::Result<()> {
    // An int and an unsigned int are 4 bytes each on every Linux.
    const LEN: libc::socklen_t = 4;
    let value: *const u32 = &raw const value;
    // SAFETY: the kernel reads LEN bytes at `value`, a u32 that lives until the end of this
    // function.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.cast(), LEN) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Raises the limit of locked memory as far as this process may: without end with CAP_SYS_RESOURCE,
/// else to the hard limit.
///
/// UMEM memory is charged to it, unless the process has CAP_IPC_LOCK; BPF maps were before Linux
/// 5.11. Returns the limit in bytes that holds afterwards, `None` for no limit.
pub(crate) fn raise_memlock() -> Option<u64> {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if setrlimit(Resource::Memlock, unlimited).is_ok() {
        return None;
    }
    let limit = getrlimit(Resource::Memlock);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // A refusal leaves the old limit, which is what is then reported.
    let _refused = setrlimit(Resource::Memlock, raised);
    getrlimit(Resource::Memlock).current
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn options_of_af_xdp_are_refused_by_other_sockets() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(is_zero_copy(socket.as_fd()).is_err());
        assert!(statistics(socket.as_fd()).is_err());
        assert!(set_tx_budget(socket.as_fd(), 64).is_err());
    }

    #[test]
    fn an_integer_option_arrives() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 8192).unwrap();
        // The kernel doubles what it is given (socket(7)).
        assert_eq!(sockopt::socket_recv_buffer_size(&socket).unwrap(), 16384);
    }

    #[test]
    fn the_memlock_limit_is_at_its_highest() {
        let limit = raise_memlock();
        assert_eq!(limit, getrlimit(Resource::Memlock).maximum);
    }
}
