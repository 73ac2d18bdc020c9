//! A backend: its identity, its place, and what may be sent to it.
//!
//! Flows outlive snapshots, so they do not point at a backend but name it by a [`BackendId`]:
//! a slot that stays with one identity as long as the configuration has it, and a generation
//! that moves on when the slot is given to another. An id that no longer resolves tells the
//! worker that the flow's backend is gone.

use std::collections::{HashMap, HashSet, VecDeque};

use ringgate_config::Forward;
use ringgate_conntrack::{Endpoint, Profile};

use crate::parse::Family;
use crate::rewrite::Translation;
use crate::route::{Hop, Miss};

/// Slots for backends, all services together: a slot is 16 bits of a [`BackendId`].
pub const MAX_BACKENDS: usize = 1 << 16;

/// What makes a backend the same one after a reload: the service it serves and its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendIdentity {
    /// The service's address and port.
    pub listen: Endpoint,
    /// The service's IANA protocol number.
    pub protocol: u8,
    /// The backend's address and port.
    pub address: Endpoint,
}

/// Names a backend in the flow table: slot in the low half, the slot's generation in the high.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackendId(pub u32);

impl BackendId {
    /// The id of `slot` in its `generation`.
    #[must_use]
    pub const fn new(slot: u16, generation: u16) -> Self {
        Self((generation as u32) << 16 | slot as u32)
    }

    /// The slot: an index below [`MAX_BACKENDS`].
    #[inline]
    #[must_use]
    pub const fn slot(self) -> usize {
        (self.0 & 0xFFFF) as usize
    }
}

/// What is known of a backend from its check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers, or is not checked.
    Up,
    /// It does not answer.
    Down,
    /// Its first check has not ended yet. What it was before, it still is.
    Pending,
}

/// What a backend may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendState {
    /// New flows and old.
    Up,
    /// Old flows only: its weight is 0.
    Draining,
    /// Old flows only: its first check has not ended yet.
    Pending,
    /// Nothing: its check fails. Its flows go elsewhere.
    Down,
    /// Nothing: the operator took it out. Its flows go elsewhere.
    Disabled,
}

impl BackendState {
    /// As `status` prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Pending => "pending",
            Self::Down => "down",
            Self::Disabled => "disabled",
        }
    }

    /// Whether packets of flows that it already has may be sent to it.
    #[inline]
    #[must_use]
    pub const fn serves(self) -> bool {
        matches!(self, Self::Up | Self::Draining | Self::Pending)
    }
}

/// A backend as workers see it.
#[derive(Debug, Clone, Copy)]
pub struct Backend {
    /// Its name in the flow table.
    pub id: BackendId,
    /// Its service's position in the snapshot.
    pub service: u16,
    /// Its service's address and port.
    pub listen: Endpoint,
    /// Its address and port.
    pub endpoint: Endpoint,
    /// IP version of its address.
    pub family: Family,
    /// How packets are forwarded to it.
    pub forward: Forward,
    /// What it may be sent.
    pub state: BackendState,
    /// Its share of new flows, in proportion to those of the service's other backends. 0 unless
    /// it is up. In `weight_scale` parts of the configured weight ([`Service`](crate::service::Service)).
    pub weight: u32,
    /// Another NAT service has the same address, port and protocol as a backend: a reply alone
    /// does not tell which service it belongs to.
    pub shared: bool,
    /// Which timeouts its flows have: its service's.
    pub profile: Profile,
    /// How to reach it.
    pub hop: Result<Hop, Miss>,
    /// What is done to packets to it and from it; `None` where only hardware addresses change.
    pub translations: Option<Translations>,
}

/// What address translation does to the packets of a backend's flows.
#[derive(Debug, Clone, Copy)]
pub struct Translations {
    /// The service's endpoint becomes the backend's.
    pub to_backend: Translation,
    /// The backend's endpoint becomes the service's.
    pub to_client: Translation,
}

impl Translations {
    /// Between the endpoints of a backend and of its service, if its mode translates.
    #[must_use]
    pub fn of(forward: Forward, identity: &BackendIdentity) -> Option<Self> {
        let (listen, backend) = (identity.listen, identity.address);
        match forward {
            Forward::DsrL2 | Forward::FullNat | Forward::Ipip | Forward::Gue | Forward::Gre => None,
            Forward::Nat => Some(Self {
                to_backend: Translation::of_destination(listen, backend),
                to_client: Translation::of_source(backend, listen),
            }),
        }
    }
}

/// More backends than [`MAX_BACKENDS`] at once, those of the last configuration included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no slot is free for another backend: all {MAX_BACKENDS} are taken; remove backends from \
     the configuration"
)]
pub struct NoSlot;

/// Hands out slots to identities. Lives on the control side, from start to stop.
#[derive(Debug)]
pub struct Registry {
    ids: HashMap<BackendIdentity, BackendId>,
    /// Free slots with the generation of their next owner, longest free first, so that a stale
    /// id in the flow table stays unresolvable for as long as possible.
    free: VecDeque<BackendId>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            ids: HashMap::new(),
            free: (0..=u16::MAX).map(|slot| BackendId::new(slot, 0)).collect(),
        }
    }
}

impl Registry {
    /// The id of `identity`, a new one when it has none.
    ///
    /// # Errors
    ///
    /// [`NoSlot`] when every slot is taken.
    pub fn id(&mut self, identity: BackendIdentity) -> Result<BackendId, NoSlot> {
        if let Some(id) = self.ids.get(&identity) {
            return Ok(*id);
        }
        let id = self.free.pop_front().ok_or(NoSlot)?;
        self.ids.insert(identity, id);
        Ok(id)
    }

    /// Takes back the ids of all identities but `kept`.
    pub fn retain(&mut self, kept: &HashSet<BackendIdentity>) {
        let free = &mut self.free;
        self.ids.retain(|identity, id| {
            let keep = kept.contains(identity);
            if !keep {
                // The high half is the generation; it wraps, and slots wait in line for reuse.
                free.push_back(BackendId(id.0.wrapping_add(1 << 16)));
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(port: u16) -> BackendIdentity {
        let address = Endpoint::from_socket(([10, 2, 0, 11], port).into());
        BackendIdentity {
            listen: address,
            protocol: 6,
            address,
        }
    }

    #[test]
    fn an_identity_keeps_its_id_until_it_is_gone() {
        let mut registry = Registry::default();
        let first = registry.id(identity(1)).unwrap();
        let second = registry.id(identity(2)).unwrap();
        assert_ne!(first, second);
        assert_eq!(registry.id(identity(1)), Ok(first));
        registry.retain(&HashSet::from([identity(2)]));
        assert_eq!(registry.id(identity(2)), Ok(second));
        assert_ne!(registry.id(identity(1)), Ok(first));
    }

    #[test]
    fn a_reused_slot_has_another_generation_and_running_out_is_a_value() {
        let mut registry = Registry::default();
        let first = registry.id(identity(0)).unwrap();
        registry.retain(&HashSet::new());
        let ids: Vec<BackendId> = (0..=u16::MAX)
            .map(|port| registry.id(identity(port)).unwrap())
            .collect();
        assert!(ids.iter().any(|id| id.slot() == first.slot()));
        assert!(!ids.contains(&first));
        let other = BackendIdentity {
            protocol: 17,
            ..identity(0)
        };
        assert_eq!(registry.id(other), Err(NoSlot));
    }
}
