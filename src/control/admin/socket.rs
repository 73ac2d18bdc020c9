//! The admin socket's file: claimed safely at the start, removed at the end.
//!
//! - **Its mode from its first moment**, 0600 unless the configuration says otherwise: the mode is set on the socket before it is bound, and bind(2)
//!   creates the file with it (`unix_bind_bsd` in net/unix/af_unix.c: the inode's mode, less the umask,
//!   which can only take away). No moment with wider rights, no process-wide umask touched. What the
//!   umask has taken away is given back then.
//! - **Stale or alive**: a socket file that exists is asked. If somebody answers, another balancer is
//!   running, and we refuse. If nobody does it was left behind, and is replaced. What is not a socket is
//!   never removed.
//! - **Two that start at once** are told apart by a lock on the directory, held for the moment of claiming.
//! - **At the end** the file is removed if it is still ours: a successor may have replaced it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Of the socket's directory, when it has to be made.
const DIRECTORY_MODE: u32 = 0o755;

/// Connections that wait to be accepted. More than are served at once, less than anybody needs.
const BACKLOG: i32 = 64;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    /// Somebody answers on it.
    #[error(
        "another ringgate is running: it answers on {0}; stop it first, or give this one a socket of its own"
    )]
    Running(PathBuf),
    /// Somebody claims one in the same directory.
    #[error("another ringgate is starting and holds the lock on {0}; try again")]
    Starting(PathBuf),
    /// There is something else.
    #[error("{0} exists and is not a socket; it is not touched: move it away or name another path")]
    NotASocket(PathBuf),
    /// The path cannot be a socket's.
    #[error(
        "{0} is no path for a socket: it must be absolute or relative to a directory, and at most 107 bytes long"
    )]
    Path(PathBuf),
    /// Anything else.
    #[error("cannot {step} {path}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A socket that listens on its path, which is ours.
#[derive(Debug)]
pub(crate) struct Claimed {
    listener: Option<OwnedFd>,
    path: PathBuf,
    /// Device and inode of the file that we have made.
    identity: Option<(u64, u64)>,
}

impl Claimed {
    /// Makes the socket, its directory if there is none, and listens.
    ///
    /// # Errors
    /// When another balancer has it, or the file system refuses.
    pub(crate) fn claim(path: &Path, mode: u32) -> Result<Self, ClaimError> {
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| ClaimError::Io { step, path, source }
        };
        let address = SocketAddrUnix::new(path).map_err(|_| ClaimError::Path(path.to_owned()))?;
        let directory = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Err(ClaimError::Path(path.to_owned())),
        };
        if !directory.exists() {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(DIRECTORY_MODE);
            builder
                .create(directory)
                .map_err(failed("create the directory", directory))?;
            // The umask may have taken from it.
            fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE))
                .map_err(failed("set the mode of", directory))?;
        }
        let lock = File::open(directory).map_err(failed("open", directory))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(ClaimError::Starting(directory.to_owned())),
            Err(errno) => return Err(failed("lock", directory)(errno.into())),
        }
        make_way(path, &address)?;

        let socket = stream_socket().map_err(failed("make a socket for", path))?;
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))
            .map_err(|errno| failed("set the mode of", path)(errno.into()))?;
        rustix::net::bind(&socket, &address).map_err(|errno| failed("bind", path)(errno.into()))?;
        let mut claimed = Self {
            listener: None,
            path: path.to_owned(),
            identity: identity(path).ok(),
        };
        rustix::net::listen(&socket, BACKLOG)
            .map_err(|errno| failed("listen on", path)(errno.into()))?;
        claimed.listener = Some(socket);
        claimed
            .set_mode(mode)
            .map_err(failed("set the mode of", path))?;
        Ok(claimed)
    }

    /// Gives the file another mode.
    ///
    /// # Errors
    ///
    /// When the file system refuses, or the file is not ours any more.
    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        if identity(&self.path).ok() != self.identity {
            return Err(io::Error::other("somebody has replaced it"));
        }
        fs::set_permissions(&self.path, Permissions::from_mode(mode))
    }

    /// Where it listens.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The listening socket, once.
    pub(super) fn take_listener(&mut self) -> Option<OwnedFd> {
        self.listener.take()
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if self.identity.is_some()
            && identity(&self.path).ok() == self.identity
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the admin socket stays behind");
        }
    }
}

/// Removes what an earlier balancer has left behind, or says who is in the way.
fn make_way(path: &Path, address: &SocketAddrUnix) -> Result<(), ClaimError> {
    let failed = |step| {
        let path = path.to_owned();
        move |source| ClaimError::Io { step, path, source }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ClaimError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    let socket = stream_socket().map_err(failed("make a socket for"))?;
    rustix::io::ioctl_fionbio(&socket, true).map_err(|errno| failed("ask")(errno.into()))?;
    match rustix::net::connect(&socket, address) {
        // EAGAIN: its backlog is full, so there is somebody.
        Ok(()) | Err(Errno::AGAIN) => Err(ClaimError::Running(path.to_owned())),
        Err(Errno::CONNREFUSED) => {
            tracing::info!(path = %path.display(), "replacing an admin socket that nobody answers on");
            fs::remove_file(path).map_err(failed("remove"))
        }
        Err(errno) => Err(failed("ask who is behind")(errno.into())),
    }
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn it_is_made_with_its_directory_and_goes_with_its_owner() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run/ringgate/admin.sock");
        let claimed = Claimed::claim(&path, 0o600).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o755);
        claimed.set_mode(0o666).unwrap();
        assert_eq!(mode(&path), 0o666);
        UnixStream::connect(&path).unwrap();
        drop(claimed);
        assert!(!path.exists());
        assert!(path.parent().unwrap().exists());
    }

    #[test]
    fn it_has_the_mode_that_is_asked_for_whatever_the_umask() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let _claimed = Claimed::claim(&path, 0o666).unwrap();
        assert_eq!(mode(&path), 0o666);
    }

    #[test]
    fn a_directory_that_exists_keeps_its_mode() {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
        let _claimed = Claimed::claim(&home.path().join("socket"), 0o600).unwrap();
        assert_eq!(mode(home.path()), 0o700);
    }

    #[test]
    fn one_that_answers_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let first = Claimed::claim(&path, 0o600).unwrap();
        let error = Claimed::claim(&path, 0o600).unwrap_err();
        assert!(matches!(error, ClaimError::Running(_)), "{error}");
        assert!(
            error.to_string().contains("another ringgate is running"),
            "{error}"
        );
        UnixStream::connect(&path).unwrap();
        // Also when it is too busy to take the connection.
        rustix::net::listen(first.listener.as_ref().unwrap(), 0).unwrap();
        let error = Claimed::claim(&path, 0o600).unwrap_err();
        assert!(matches!(error, ClaimError::Running(_)), "{error}");
    }

    #[test]
    fn a_stale_one_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _claimed = Claimed::claim(&path, 0o600).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn what_is_not_a_socket_is_never_removed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        fs::write(&path, "precious").unwrap();
        let error = Claimed::claim(&path, 0o600).unwrap_err();
        assert!(matches!(error, ClaimError::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        // Nor through a link to where nothing answers.
        let target = home.path().join("target");
        drop(UnixListener::bind(&target).unwrap());
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(matches!(
            Claimed::claim(&link, 0o600).unwrap_err(),
            ClaimError::NotASocket(_)
        ));
        assert!(target.exists());
    }

    #[test]
    fn a_successors_file_is_not_removed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let claimed = Claimed::claim(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        drop(claimed);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn two_at_once_are_told_apart() {
        let home = tempfile::tempdir().unwrap();
        let lock = File::open(home.path()).unwrap();
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
        let path = home.path().join("socket");
        let error = Claimed::claim(&path, 0o600).unwrap_err();
        assert!(matches!(error, ClaimError::Starting(_)), "{error}");
        drop(lock);
        Claimed::claim(&path, 0o600).unwrap();
    }

    #[test]
    fn a_path_that_cannot_be_is_refused_by_name() {
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        for path in [long.as_path(), Path::new("/")] {
            let error = Claimed::claim(path, 0o600).unwrap_err();
            assert!(
                matches!(error, ClaimError::Path(_)),
                "{}: {error}",
                path.display()
            );
        }
    }
}
