//! A service: a virtual address and how to forward for it.

use std::sync::Arc;

use ringgate_config::{Choose, Forward};
use ringgate_conntrack::{Endpoint, FlowKey};

use crate::backend::BackendId;
use crate::maglev::Ring;

/// A service as workers see it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its address and port.
    pub listen: Endpoint,
    /// Its IANA protocol number.
    pub protocol: u8,
    /// How packets are forwarded to its backends.
    pub forward: Forward,
    /// By what new flows are placed on the ring.
    pub choose: Choose,
    /// Where new flows go; `None` while no backend takes any.
    pub ring: Option<Arc<Ring>>,
    /// What the weights of the backends count in: so many to one of the configured weight. More
    /// than 1 while a backend is in its slow start.
    pub weight_scale: u32,
    /// No backend is up, and those that are down are sent to all the same.
    pub fallen_open: bool,
    /// The backends in file order: what the ring's slots stand for.
    pub members: Vec<BackendId>,
}

impl Service {
    /// The `nth` choice of backend for a new flow; `None` while no backend takes new flows.
    #[inline]
    #[must_use]
    pub fn choose(&self, key: &FlowKey, nth: u32) -> Option<BackendId> {
        let ring = self.ring.as_ref()?;
        let member = match self.choose {
            Choose::FlowHash => ring.pick_nth(key, nth),
            Choose::SourceHash => ring.pick_nth(&of_client(key), nth),
        };
        self.members.get(usize::from(member)).copied()
    }
}

/// What all flows of a client have in common: its address.
#[inline]
const fn of_client(key: &FlowKey) -> FlowKey {
    let nobody = Endpoint {
        address: [0; 2],
        port: 0,
    };
    let client = Endpoint {
        port: 0,
        ..key.source()
    };
    FlowKey::new(0, client, nobody)
}
