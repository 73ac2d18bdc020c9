//! A backend: its identity, its place, and what may be sent to it.
//!
//! Flows outlive snapshots, so they do not point at a backend but name it by a [`BackendId`]:
//! a slot that stays with one identity as long as the configuration has it, and a generation
//! that moves on when the slot is given to another. An id that no longer resolves tells the
//! worker that the flow's backend is gone.

use std::collections::{HashMap, HashSet, VecDeque};

use ringgate_config::{Forward, Listen};
use ringgate_conntrack::{Endpoint, Profile};

use crate::parse::Family;
use crate::rewrite::{Encapsulation, Translation};
use crate::route::{Hop, Miss};

/// Slots for backends, all services together: a slot is 16 bits of a [`BackendId`].
pub const MAX_BACKENDS: usize = 1 << 16;

/// What makes a backend the same one after a reload: the service it serves and its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackendIdentity {
    /// The service's addresses and ports.
    pub listen: Listen,
    /// The service's IANA protocol number.
    pub protocol: u8,
    /// The backend's address and port; port 0: the one that the client asked for.
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
    /// It answers as far as is known, but what its flows meet says otherwise.
    Suspect,
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
    /// Old flows only: new ones have failed, and no check has succeeded since.
    Suspect,
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
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Disabled => "disabled",
        }
    }

    /// Whether packets of flows that it already has may be sent to it.
    #[inline]
    #[must_use]
    pub const fn serves(self) -> bool {
        matches!(
            self,
            Self::Up | Self::Draining | Self::Pending | Self::Suspect
        )
    }
}

/// A backend as workers see it.
#[derive(Debug, Clone, Copy)]
pub struct Backend {
    /// Its name in the flow table.
    pub id: BackendId,
    /// Its service's position in the snapshot.
    pub service: u16,
    /// Its service's addresses and ports.
    pub listen: Listen,
    /// Its address and port; port 0: the one that the client asked for.
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
    /// What is done to packets to it and from it.
    pub treatment: Treatment,
    /// What that takes of a packet to it.
    pub cost: Cost,
}

impl Backend {
    /// Where it gets packets that clients send to `port`.
    #[inline]
    #[must_use]
    pub fn endpoint_for(&self, port: u16) -> Endpoint {
        let Endpoint { address, port: own } = self.endpoint;
        Endpoint {
            address,
            port: if own == 0 { port } else { own },
        }
    }

    /// As operators call it: its address, with its port where it has one of its own.
    #[must_use]
    pub fn name(&self) -> String {
        let socket = self.endpoint.to_socket();
        match socket.port() {
            0 => socket.ip().to_string(),
            _ => socket.to_string(),
        }
    }

    /// Whether it sends from `endpoint`.
    #[must_use]
    pub fn is_at(&self, endpoint: Endpoint) -> bool {
        self.endpoint_for(endpoint.port) == endpoint
    }

    /// What its replies from `port` have for their source at the client. Its service has one
    /// address, as that of a `nat` backend.
    #[must_use]
    pub fn virtual_endpoint(&self, port: u16) -> Endpoint {
        virtual_endpoint(&self.listen, port)
    }

    /// Whether packets to it come from an address of the balancer's.
    #[inline]
    #[must_use]
    pub fn exchanges(&self) -> bool {
        matches!(self.treatment, Treatment::Exchange)
    }

    /// Whether its replies, sent to clients, return through the balancer.
    #[inline]
    #[must_use]
    pub fn returns(&self) -> bool {
        self.forward == Forward::Nat
    }
}

/// What clients have asked for of a service with one address whose backend answers from `port`.
#[must_use]
pub fn virtual_endpoint(listen: &Listen, port: u16) -> Endpoint {
    let port = listen.port().unwrap_or(port);
    Endpoint::from_socket((listen.prefix().addr(), port).into())
}

/// What is done to packets to a backend and from it.
#[derive(Debug, Clone, Copy)]
pub enum Treatment {
    /// Only the hardware addresses change.
    Direct,
    /// One endpoint is replaced by another, the same ones in all flows.
    Translate(Translations),
    /// One address is replaced, and the port stays what it is.
    Readdress,
    /// Packets to it go in others; it answers the client itself.
    Encapsulate(Encapsulation),
    /// Both endpoints are replaced, the source by one of the balancer's, which it answers.
    Exchange,
}

/// What the way to a backend takes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// By how much it becomes longer, bytes.
    pub bytes: u16,
    /// Hops that it must have left. Bridging costs none, but a packet that has none is not for
    /// forwarding at all.
    pub hops: u8,
}

impl Cost {
    /// Of the way of a packet that is routed once more, and no longer than it was.
    pub const ROUTED: Self = Self { bytes: 0, hops: 2 };
    const BRIDGED: Self = Self { bytes: 0, hops: 1 };
}

impl Treatment {
    /// What packets to the backend must have to spare.
    #[must_use]
    pub fn cost(&self) -> Cost {
        match self {
            Self::Direct => Cost::BRIDGED,
            Self::Translate(_) | Self::Readdress | Self::Exchange => Cost::ROUTED,
            Self::Encapsulate(encapsulation) => Cost {
                bytes: encapsulation.overhead(),
                ..Cost::ROUTED
            },
        }
    }
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
    /// Between the endpoints of a service and of its backend.
    #[must_use]
    pub fn between(listen: Endpoint, backend: Endpoint) -> Self {
        Self {
            to_backend: Translation::of_destination(listen, backend),
            to_client: Translation::of_source(backend, listen),
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
            listen: address.to_socket().into(),
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
