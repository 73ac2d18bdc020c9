//! Who may ask a running balancer: the table `[api]`.

/// Who may ask a running balancer, and what. Its user and root may all, whatever this says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    pub(crate) socket_mode: u32,
    pub(crate) read_group: Option<String>,
    pub(crate) write_group: Option<String>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            socket_mode: 0o600,
            read_group: None,
            write_group: None,
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
}
