//! The supplementary groups of the process at the other end of a unix socket, as they were when it
//! connected: `SO_PEERGROUPS`, which no crate of ours wraps.
#![expect(
    unsafe_code,
    reason = "getsockopt(2) with an option that has no wrapper"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Groups that are asked for first; more take a second call.
const USUAL: usize = 64;

/// Groups that a process can have (`NGROUPS_MAX` in include/uapi/linux/limits.h).
const MOST: usize = 65_536;

/// The groups, without the primary one.
///
/// # Errors
///
/// What the kernel says: the socket is not a unix socket's, or not connected.
pub(super) fn of(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; USUAL];
    loop {
        let bytes = size_of_val(&*groups);
        let mut length = libc::socklen_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: `groups` is valid for writes of `length` bytes, which is its length in bytes, and
        // any bytes are valid numbers; `length` is ours alone. The kernel writes no more than that
        // (`sk_getsockopt` in net/core/sock.c compares it first), and keeps neither address.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let told = usize::try_from(length).map_err(io::Error::other)? / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(told);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // ERANGE tells how many there are.
        if error.raw_os_error() != Some(libc::ERANGE) || told <= groups.len() || told > MOST {
            return Err(error);
        }
        groups.resize(told, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn they_are_those_that_the_process_has() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mine: BTreeSet<u32> = nix::unistd::getgroups()
            .unwrap()
            .into_iter()
            .map(nix::unistd::Gid::as_raw)
            .collect();
        assert_eq!(
            of(&ours).unwrap().into_iter().collect::<BTreeSet<u32>>(),
            mine
        );
    }

    #[test]
    fn another_socket_has_none() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(of(&socket).is_err());
    }
}
