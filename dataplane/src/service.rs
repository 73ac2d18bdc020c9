//! A service: a virtual address, how to forward for it, and who gets its new flows.

use std::sync::Arc;

use ringgate_config::{Choose, Forward, Fragments, Listen, MssClamp, Vlan};
use ringgate_conntrack::{Endpoint, FlowKey};

use crate::backend::BackendId;
use crate::maglev::Ring;
use crate::quic::Routes;
use crate::rotation::Rotation;
use crate::wire::vlan::Tags;

/// Up to so many backends, the one with the fewest flows is looked for among all: that many counts
/// are read, about as many cache lines, for a new flow.
const COUNTED_MOST: usize = 64;

/// In larger services, the best of so many that the ring offers. Even two make the longest queue
/// exponentially shorter than one (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS
/// 2001); eight are read in the time of a few, since the reads do not wait for each other.
const SAMPLE: u32 = 8;

/// A service as workers see it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its addresses and ports.
    pub listen: Listen,
    /// Its IANA protocol number.
    pub protocol: u8,
    /// The only VLAN that its packets come in; `None`: any, or none.
    pub vlan: Option<Vlan>,
    /// How packets are forwarded to those of its backends that do not say otherwise.
    pub forward: Forward,
    /// What is done about the segment sizes that its connections begin with.
    pub mss_clamp: MssClamp,
    /// What happens to fragments.
    pub fragments: Fragments,
    /// Its flows are not stored: the ring decides about every packet.
    pub stateless: bool,
    /// Which backend the connection ids of QUIC name.
    pub quic: Option<Routes>,
    /// By what new flows get their backend.
    pub choose: Choose,
    /// Where new flows go that only their packets tell of; `None` while no backend takes any.
    pub ring: Option<Arc<Ring>>,
    /// What the weights of the backends count in: so many to one of the configured weight. More
    /// than 1 while a backend is in its slow start.
    pub weight_scale: u32,
    /// No backend is up, and those that are down are sent to all the same.
    pub fallen_open: bool,
    /// Where those go that are remembered from their first packet on.
    pub order: Order,
    /// Some of its flows are remembered while they are half open: their backend, or whose the
    /// replies are, does not follow from their packets.
    pub half_open: bool,
    /// The backends in file order: what the ring's slots stand for.
    pub members: Vec<BackendId>,
}

/// What chooses the backend of a flow that begins.
#[derive(Debug, Clone)]
pub enum Order {
    /// The ring, from the packet alone.
    Ring,
    /// The backends in turn.
    Turns(Rotation),
    /// The fewest flows for the weight: each member's weight, 0 for those that take no new flow.
    Fewest(Box<[u32]>),
}

impl Service {
    /// Whether packets that come with these tags may be for it.
    #[inline]
    #[must_use]
    pub fn admits(&self, tags: Tags) -> bool {
        self.vlan.is_none_or(|vlan| {
            let wanted = [Some(vlan.outer), vlan.inner];
            tags.ids().eq(wanted.into_iter().flatten())
        })
    }

    /// The `nth` choice of backend for a flow of which only a packet is known; `None` while no
    /// backend takes new flows.
    #[inline]
    #[must_use]
    pub fn choose(&self, key: &FlowKey, nth: u32) -> Option<BackendId> {
        let ring = self.ring.as_ref()?;
        let member = match self.choose {
            Choose::SourceHash => ring.pick_nth(&of_client(key), nth),
            Choose::FlowHash | Choose::RoundRobin | Choose::LeastConnections => {
                ring.pick_nth(key, nth)
            }
        };
        self.members.get(usize::from(member)).copied()
    }

    /// The slot of the ring that a packet alone leads to, and how many there are.
    #[must_use]
    pub fn slot(&self, key: &FlowKey) -> Option<(usize, usize)> {
        let ring = self.ring.as_ref()?;
        let place = match self.choose {
            Choose::SourceHash => ring.place(&of_client(key)),
            Choose::FlowHash | Choose::RoundRobin | Choose::LeastConnections => ring.place(key),
        };
        Some((place, ring.size()))
    }

    /// Whether a flow's first packet does not tell its backend.
    #[inline]
    #[must_use]
    pub fn has_order(&self) -> bool {
        !matches!(self.order, Order::Ring)
    }

    /// The `nth` choice of backend for a flow that begins and is remembered. `flows_of` tells how
    /// many flows a backend has.
    #[must_use]
    pub fn begin(
        &self,
        key: &FlowKey,
        nth: u32,
        flows_of: impl Fn(BackendId) -> u64,
    ) -> Option<BackendId> {
        match (&self.order, nth) {
            (Order::Turns(rotation), _) => self.members.get(rotation.take()).copied(),
            (Order::Fewest(weights), 0) => self.fewest(key, weights, flows_of),
            (Order::Ring | Order::Fewest(_), _) => self.choose(key, nth),
        }
    }

    /// What [`begin`](Self::begin) would say, without taking a turn.
    #[must_use]
    pub fn preview(&self, key: &FlowKey, flows_of: impl Fn(BackendId) -> u64) -> Option<BackendId> {
        match &self.order {
            Order::Turns(rotation) => self.members.get(rotation.peek()).copied(),
            Order::Ring | Order::Fewest(_) => self.begin(key, 0, flows_of),
        }
    }

    /// The member with the fewest flows for its weight. Among equals the ring decides: the first
    /// that is looked at is the one that it names, so an idle service is spread by weight.
    fn fewest(
        &self,
        key: &FlowKey,
        weights: &[u32],
        flows_of: impl Fn(BackendId) -> u64,
    ) -> Option<BackendId> {
        let ring = self.ring.as_ref()?;
        let mut best: Option<(u64, u64, BackendId)> = None;
        let mut consider = |member: usize| {
            let weight = weights.get(member).copied().map_or(0, u64::from);
            let Some(id) = self.members.get(member).filter(|_| weight > 0) else {
                return;
            };
            let flows = flows_of(*id);
            // flows / weight < least / of, without dividing.
            let is_less = best.is_none_or(|(least, of, _)| {
                flows.saturating_mul(of) < least.saturating_mul(weight)
            });
            if is_less {
                best = Some((flows, weight, *id));
            }
        };
        if self.members.len() <= COUNTED_MOST {
            let first = usize::from(ring.pick(key));
            (first..self.members.len())
                .chain(0..first)
                .for_each(&mut consider);
        } else {
            for nth in 0..SAMPLE {
                consider(ring.pick_nth(key, nth).into());
            }
        }
        best.map(|(_, _, id)| id)
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
