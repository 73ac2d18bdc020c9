//! What is told to whoever collects metrics: the table `[metrics]`.

use std::net::SocketAddr;

use crate::limits::RESIDENCE_SAMPLE_DEFAULT;

/// Where metrics are served beside the admin socket, and how much of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) residence_sample: u32,
    pub(crate) backends: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: None,
            residence_sample: RESIDENCE_SAMPLE_DEFAULT,
            backends: true,
        }
    }
}

impl Metrics {
    /// Where `GET /metrics` is answered over TCP; its port is not 0. `None`: nowhere.
    pub const fn listen(&self) -> Option<SocketAddr> {
        self.listen
    }

    /// Of how many turns of a worker one measures how long packets stay; 0: none does.
    pub const fn residence_sample(&self) -> u32 {
        self.residence_sample
    }

    /// Whether each backend has series of its own.
    pub const fn backends(&self) -> bool {
        self.backends
    }
}
