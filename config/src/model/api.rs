//! Who may ask a running balancer: the table `[api]`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Who may ask a running balancer, and what. Its user and root may all, whatever this says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    pub(crate) socket_mode: u32,
    pub(crate) read_group: Option<String>,
    pub(crate) write_group: Option<String>,
    pub(crate) remote: Option<Remote>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            socket_mode: 0o600,
            read_group: None,
            write_group: None,
            remote: None,
        }
    }
}

impl Api {
    /// The mode of the admin socket's file: who can connect at all. Its owner can always.
    pub const fn socket_mode(&self) -> u32 {
        self.socket_mode
    }

    /// The group whose members may look: a name, or a number in digits.
    pub fn read_group(&self) -> Option<&str> {
        self.read_group.as_deref()
    }

    /// The group whose members may look and change: a name, or a number in digits.
    pub fn write_group(&self) -> Option<&str> {
        self.write_group.as_deref()
    }

    /// Who may ask over TCP. `None`: nobody.
    pub const fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }
}

/// A listener over TCP, by TLS with certificates on both sides. Paths are absolute, of PEM files that
/// were not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub(crate) listen: SocketAddr,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: PathBuf,
    pub(crate) read_names: Vec<String>,
    pub(crate) write_names: Vec<String>,
}

impl Remote {
    /// Where it listens; the port is not 0.
    pub const fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The balancer's own certificate, with those between it and the CA that its clients know.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Its key.
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// The CA of the clients' certificates: nobody else gets further than the handshake.
    pub fn client_ca(&self) -> &Path {
        &self.client_ca
    }

    /// The names in clients' certificates that may look; they and the next are not both empty.
    pub fn read_names(&self) -> &[String] {
        &self.read_names
    }

    /// The names in clients' certificates that may look and change.
    pub fn write_names(&self) -> &[String] {
        &self.write_names
    }
}
