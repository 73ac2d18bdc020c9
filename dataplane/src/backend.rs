//! A backend: its identity, its place, and what may be sent to it.
//!
//! Flows outlive snapshots, so they do not point at a backend but name it by a [`BackendId`]:
//! a slot that stays with one identity as long as the configuration has it, and a generation
//! that moves on when the slot is given to another. An id that no longer resolves tells the
//! worker that the flow's backend is gone.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use ringgate_config::{Forward, Listen};
use ringgate_conntrack::{Endpoint, Profile};
use rustc_hash::FxHashMap;

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
    /// It serves, and its service takes packets of any VLAN: nothing more is to be asked of a packet of a
    /// flow that it has.
    pub is_open: bool,
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

/// More backends than [`MAX_BACKENDS`] at once; a valid configuration has fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no slot is free for another backend: all {MAX_BACKENDS} are taken; remove backends from \
     the configuration"
)]
pub struct NoSlot;

/// Hands out slots to identities. Lives on the control side, from start to stop.
#[derive(Debug)]
pub struct Registry {
    /// Each one's id, and the last round that had it.
    ids: FxHashMap<BackendIdentity, (BackendId, u64)>,
    round: u64,
    /// Free slots with the generation of their next owner, longest free first, so that a stale
    /// id in the flow table stays unresolvable for as long as possible.
    free: VecDeque<BackendId>,
    /// The first slot that nobody has had; none are left after the last.
    fresh: Option<u16>,
}

/// Free slots that wait in line before one is used again. What is made for each slot, in snapshots and
/// counters, is made up to the highest that was used: without end of this line, configurations that
/// come and go would use them all. With it an id is not given out again before 1,024 · 65,536 backends
/// have gone.
const WAITING: usize = 1_024;

impl Default for Registry {
    fn default() -> Self {
        Self {
            ids: FxHashMap::default(),
            round: 0,
            free: VecDeque::new(),
            fresh: Some(0),
        }
    }
}

impl Registry {
    /// The ids of these identities, in their order, and nobody else's any more: an identity that had
    /// one keeps it, one that is gone has given it back before the new ones get theirs.
    ///
    /// # Errors
    ///
    /// [`NoSlot`] when every slot is taken.
    pub fn assign(
        &mut self,
        identities: impl Iterator<Item = BackendIdentity> + Clone,
    ) -> Result<Vec<BackendId>, NoSlot> {
        let owners: Vec<BackendIdentity> = self.ids.keys().copied().collect();
        self.exchange(&owners, identities)
    }

    /// The ids of these identities, in their order, and those of `owners` only if they are among them;
    /// all others keep what they have. For the cost of those that are named.
    ///
    /// # Errors
    ///
    /// [`NoSlot`] when every slot is taken.
    pub fn exchange(
        &mut self,
        owners: &[BackendIdentity],
        identities: impl Iterator<Item = BackendIdentity> + Clone,
    ) -> Result<Vec<BackendId>, NoSlot> {
        self.round += 1;
        let round = self.round;
        let known = identities.clone().map(|identity| {
            let (id, last) = self.ids.get_mut(&identity)?;
            *last = round;
            Some(*id)
        });
        let known: Vec<Option<BackendId>> = known.collect();
        let mut gone = Vec::new();
        for owner in owners {
            if let Entry::Occupied(entry) = self.ids.entry(*owner)
                && entry.get().1 != round
            {
                gone.push(entry.remove().0);
            }
        }
        // In the same line whoever is asked first.
        gone.sort_unstable_by_key(|id| id.0);
        // The high half is the generation; it wraps, and slots wait in line for reuse.
        let next = gone.iter().map(|id| BackendId(id.0.wrapping_add(1 << 16)));
        self.free.extend(next);
        let ids = known.into_iter().zip(identities);
        ids.map(|(known, identity)| match known {
            Some(id) => Ok(id),
            None => self.add(identity),
        })
        .collect()
    }

    /// The id of an identity, if it has one.
    #[must_use]
    pub fn get(&self, identity: &BackendIdentity) -> Option<BackendId> {
        self.ids.get(identity).map(|(id, _)| *id)
    }

    fn add(&mut self, identity: BackendIdentity) -> Result<BackendId, NoSlot> {
        let id = match self.fresh {
            Some(slot) if self.free.len() < WAITING => {
                self.fresh = slot.checked_add(1);
                BackendId::new(slot, 0)
            }
            _ => self.free.pop_front().ok_or(NoSlot)?,
        };
        self.ids.insert(identity, (id, self.round));
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use rustc_hash::FxHashSet;

    use super::*;

    fn identity(port: u16) -> BackendIdentity {
        let address = Endpoint::from_socket(([10, 2, 0, 11], port).into());
        BackendIdentity {
            listen: address.to_socket().into(),
            protocol: 6,
            address,
        }
    }

    fn assign(registry: &mut Registry, ports: &[u16]) -> Vec<BackendId> {
        registry
            .assign(ports.iter().copied().map(identity))
            .unwrap()
    }

    #[test]
    fn an_identity_keeps_its_id_until_it_is_gone() {
        let mut registry = Registry::default();
        let [first, second] = assign(&mut registry, &[1, 2])[..] else {
            panic!("one each")
        };
        assert_ne!(first, second);
        assert_eq!(assign(&mut registry, &[2, 1]), [second, first]);
        assert_eq!(assign(&mut registry, &[2]), [second]);
        assert_eq!(registry.get(&identity(1)), None);
        let back = assign(&mut registry, &[2, 1]);
        assert_eq!(back[0], second);
        assert_ne!(back[1], first);
        assert_eq!(registry.get(&identity(1)), Some(back[1]));
    }

    #[test]
    fn a_reused_slot_has_another_generation_and_running_out_is_a_value() {
        let mut registry = Registry::default();
        let first = assign(&mut registry, &[0])[0];
        assert_eq!(assign(&mut registry, &[]), []);
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let ids = assign(&mut registry, &all);
        assert!(ids.iter().any(|id| id.slot() == first.slot()));
        assert!(!ids.contains(&first));
        let other = BackendIdentity {
            protocol: 17,
            ..identity(0)
        };
        let more = all.iter().copied().map(identity).chain([other]);
        assert_eq!(registry.assign(more), Err(NoSlot));
        // Whoever goes makes room at once.
        let others = all.iter().copied().map(|port| BackendIdentity {
            protocol: 17,
            ..identity(port)
        });
        assert_eq!(registry.assign(others).map(|ids| ids.len()), Ok(all.len()));
    }

    #[test]
    fn backends_that_come_and_go_use_few_slots() {
        let mut registry = Registry::default();
        let mut last = assign(&mut registry, &[0])[0];
        for round in 1..=10_000u16 {
            let id = assign(&mut registry, &[round])[0];
            assert!(id.slot() <= WAITING, "{id:?}");
            assert_ne!(id.slot(), last.slot());
            last = id;
        }
        // Each slot was used some ten times, the next ones are in line.
        let ports: Vec<u16> = (20_000..22_000).collect();
        let ids = assign(&mut registry, &ports);
        let slots: FxHashSet<usize> = ids.iter().map(|id| id.slot()).collect();
        assert_eq!(slots.len(), ids.len());
        let most = WAITING + ids.len();
        assert!(slots.iter().all(|slot| *slot <= most), "{slots:?}");
    }
}
