//! Everything that a worker reads and only control writes, of one generation.
//!
//! A snapshot is immutable. Control builds one with a [`Builder`] whenever the configuration, a
//! backend's state, a route or a neighbour has changed, and publishes it
//! ([`crate::publish`]). The builder outlives snapshots: it remembers which backend has which
//! id, so that flows find theirs in every later snapshot, and which ring was built from what,
//! so that only rings of changed services are built anew.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ringgate_config::{Choose, Forward, Model, WhenEmpty};
use ringgate_conntrack::Endpoint;
use rustc_hash::FxHashMap;

use crate::backend::{
    Backend, BackendId, BackendIdentity, BackendState, Health, NoSlot, Registry, Translations,
};
use crate::maglev::{Member, Ring};
use crate::parse::Family;
use crate::rotation::{Rotation, Turns};
use crate::route::Fib;
use crate::service::{Order, Service};

/// Which service a reply from a NAT backend's address and port belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// To this one: its position in the snapshot.
    Service(u16),
    /// To one of several: only the flow table knows.
    Ambiguous,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with every snapshot of a process.
    pub generation: u64,
    /// The balancer is about to stop and takes no new flows.
    pub draining: bool,
    services: Vec<Service>,
    by_listen: FxHashMap<(Endpoint, u8), u16>,
    returns: FxHashMap<(Endpoint, u8), Return>,
    backends: Vec<Option<Backend>>,
    fib: Arc<Fib>,
}

impl Snapshot {
    /// The services in file order.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The service that listens on `destination`.
    #[inline]
    #[must_use]
    pub fn service(&self, destination: Endpoint, protocol: u8) -> Option<&Service> {
        let index = self.by_listen.get(&(destination, protocol))?;
        self.services.get(usize::from(*index))
    }

    /// The service at a position, as [`Backend::service`] and [`Return::Service`] name it.
    #[inline]
    #[must_use]
    pub fn service_at(&self, index: u16) -> Option<&Service> {
        self.services.get(usize::from(index))
    }

    /// What a packet from `source` is a reply of, if that is a NAT backend.
    #[inline]
    #[must_use]
    pub fn reply_from(&self, source: Endpoint, protocol: u8) -> Option<Return> {
        self.returns.get(&(source, protocol)).copied()
    }

    /// The backend that `id` names; `None` when it is gone from the configuration.
    #[inline]
    #[must_use]
    pub fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.backends
            .get(id.slot())?
            .as_ref()
            .filter(|backend| backend.id == id)
    }

    /// Routes and neighbours.
    #[inline]
    #[must_use]
    pub fn fib(&self) -> &Fib {
        &self.fib
    }

    /// What the steering program must send to workers.
    #[must_use]
    pub fn steered(&self) -> Steered {
        let sockets = |keys: Vec<&(Endpoint, u8)>| {
            keys.into_iter()
                .map(|(endpoint, protocol)| (endpoint.to_socket(), *protocol))
                .collect()
        };
        Steered {
            services: sockets(self.by_listen.keys().collect()),
            returns: sockets(self.returns.keys().collect()),
        }
    }
}

/// Addresses, ports and IANA protocol numbers of packets that are for workers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steered {
    /// Destinations: the services.
    pub services: Vec<(SocketAddr, u8)>,
    /// Sources: NAT backends, whose replies return through the balancer.
    pub returns: Vec<(SocketAddr, u8)>,
}

/// A ring and what it was built from.
#[derive(Debug)]
struct CachedRing {
    size: u32,
    members: Vec<Member>,
    ring: Option<Arc<Ring>>,
}

/// Builds snapshots; lives on the control side from start to stop.
#[derive(Debug, Default)]
pub struct Builder {
    registry: Registry,
    rings: HashMap<(Endpoint, u8), CachedRing>,
    /// How many turns each service's backends have had.
    turns: HashMap<(Endpoint, u8), Turns>,
    /// What each backend was in the last snapshot.
    last: HashMap<BackendIdentity, BackendState>,
    generation: u64,
}

impl Builder {
    /// The next snapshot.
    ///
    /// `health` gives the result of a backend's check; it is asked once for each backend.
    ///
    /// # Errors
    ///
    /// [`NoSlot`] when there are more backends than slots.
    pub fn build(
        &mut self,
        model: &Model,
        health: impl Fn(&ringgate_config::Service, &ringgate_config::Backend) -> Health,
        fib: &Arc<Fib>,
        draining: bool,
    ) -> Result<Snapshot, NoSlot> {
        let identities: HashSet<BackendIdentity> =
            model.services().iter().flat_map(identities_of).collect();
        self.registry.retain(&identities);
        let returns = returns(model);
        let mut services = Vec::with_capacity(model.services().len());
        let mut backends: Vec<Option<Backend>> = Vec::new();
        let mut last = HashMap::new();
        for (index, service) in (0..=u16::MAX).zip(model.services()) {
            let states = self.states(service, &health);
            let mut members = Vec::with_capacity(states.len());
            for (identity, state) in identities_of(service).zip(&states) {
                let id = self.registry.id(identity)?;
                members.push(id);
                last.insert(identity, *state);
                let family = family(&identity.address);
                let backend = Backend {
                    id,
                    service: index,
                    listen: identity.listen,
                    endpoint: identity.address,
                    family,
                    forward: service.forward(),
                    state: *state,
                    shared: is_shared(&returns, &identity) && service.forward() == Forward::Nat,
                    hop: match service.forward() {
                        Forward::Nat => fib.hop(identity.address.address, family),
                        Forward::DsrL2 => fib.hop_on_link(identity.address.address, family),
                    },
                    translations: Translations::of(service.forward(), &identity),
                };
                if backends.len() <= id.slot() {
                    backends.resize(id.slot() + 1, None);
                }
                if let Some(slot) = backends.get_mut(id.slot()) {
                    *slot = Some(backend);
                }
            }
            services.push(Service {
                name: service.name().into(),
                listen: Endpoint::from_socket(service.listen()),
                protocol: service.protocol().number(),
                forward: service.forward(),
                choose: service.choose(),
                ring: self.ring(service, &states),
                order: self.order(service, &states),
                half_open: is_ordered(service.choose())
                    || identities_of(service).any(|one| is_shared(&returns, &one)),
                members,
            });
        }
        let listens = (0..=u16::MAX).zip(&services);
        let by_listen: FxHashMap<(Endpoint, u8), u16> = listens
            .map(|(index, s)| ((s.listen, s.protocol), index))
            .collect();
        self.rings
            .retain(|listen, _| by_listen.contains_key(listen));
        self.turns
            .retain(|listen, _| by_listen.contains_key(listen));
        self.last = last;
        self.generation += 1;
        Ok(Snapshot {
            generation: self.generation,
            draining,
            services,
            by_listen,
            returns,
            backends,
            fib: Arc::clone(fib),
        })
    }

    /// The state of each backend of `service`, in file order.
    fn states(
        &self,
        service: &ringgate_config::Service,
        health: &impl Fn(&ringgate_config::Service, &ringgate_config::Backend) -> Health,
    ) -> Vec<BackendState> {
        let mut states: Vec<BackendState> = identities_of(service)
            .zip(service.backends())
            .map(|(identity, backend)| {
                let is_up = match health(service, backend) {
                    Health::Up => true,
                    Health::Down => false,
                    // A reload that adds a check says nothing about a backend that serves.
                    Health::Pending => match self.last.get(&identity) {
                        Some(BackendState::Up | BackendState::Draining) => true,
                        Some(BackendState::Down) => false,
                        Some(BackendState::Pending | BackendState::Disabled) | None => {
                            return if backend.disabled() {
                                BackendState::Disabled
                            } else {
                                BackendState::Pending
                            };
                        }
                    },
                };
                match (backend.disabled(), is_up, backend.weight()) {
                    (true, _, _) => BackendState::Disabled,
                    (false, false, _) => BackendState::Down,
                    (false, true, 0) => BackendState::Draining,
                    (false, true, _) => BackendState::Up,
                }
            })
            .collect();
        if service.when_empty() == WhenEmpty::Open && !states.contains(&BackendState::Up) {
            // Falling open: better a backend that may be down than none.
            for (state, backend) in states.iter_mut().zip(service.backends()) {
                if *state == BackendState::Down && backend.weight() > 0 {
                    *state = BackendState::Up;
                }
            }
        }
        states
    }

    /// What chooses for flows of `service` that begin.
    fn order(&mut self, service: &ringgate_config::Service, states: &[BackendState]) -> Order {
        let weights = service.backends().iter().zip(states);
        let weights: Box<[u32]> = weights
            .map(|(backend, state)| weight_in(*state, backend.weight()))
            .collect();
        match service.choose() {
            Choose::FlowHash | Choose::SourceHash => Order::Ring,
            Choose::LeastConnections => Order::Fewest(weights),
            Choose::RoundRobin => {
                let turns = self.turns.entry(place_of(service)).or_default();
                Rotation::new(&weights, turns.clone()).map_or(Order::Ring, Order::Turns)
            }
        }
    }

    /// The ring of `service`, the last one again if it was built from the same.
    fn ring(
        &mut self,
        service: &ringgate_config::Service,
        states: &[BackendState],
    ) -> Option<Arc<Ring>> {
        let members: Vec<Member> = identities_of(service)
            .zip(service.backends())
            .zip(states)
            .map(|((identity, backend), state)| Member {
                identity: identity.address,
                weight: weight_in(*state, backend.weight()),
            })
            .collect();
        let listen = place_of(service);
        if let Some(cached) = self.rings.get(&listen)
            && cached.size == service.table_size()
            && cached.members == members
        {
            return cached.ring.clone();
        }
        let size = service.table_size();
        let ring = Ring::build(size, &members).map(Arc::new);
        self.rings.insert(
            listen,
            CachedRing {
                size,
                members,
                ring: ring.clone(),
            },
        );
        ring
    }
}

/// Where a service listens, which is what tells it from others.
fn place_of(service: &ringgate_config::Service) -> (Endpoint, u8) {
    (
        Endpoint::from_socket(service.listen()),
        service.protocol().number(),
    )
}

/// What a backend of this weight takes of new flows.
const fn weight_in(state: BackendState, weight: u32) -> u32 {
    if matches!(state, BackendState::Up) {
        weight
    } else {
        0
    }
}

/// Whether a flow's backend does not follow from its packets.
const fn is_ordered(choose: Choose) -> bool {
    matches!(choose, Choose::RoundRobin | Choose::LeastConnections)
}

/// What replies from each NAT backend's address and port belong to.
fn returns(model: &Model) -> FxHashMap<(Endpoint, u8), Return> {
    let mut returns = FxHashMap::default();
    for (index, service) in (0..=u16::MAX).zip(model.services()) {
        if service.forward() != Forward::Nat {
            continue;
        }
        for identity in identities_of(service) {
            returns
                .entry((identity.address, identity.protocol))
                .and_modify(|known| *known = Return::Ambiguous)
                .or_insert(Return::Service(index));
        }
    }
    returns
}

/// Whether several NAT services have a backend at this one's address and port.
fn is_shared(returns: &FxHashMap<(Endpoint, u8), Return>, identity: &BackendIdentity) -> bool {
    returns.get(&(identity.address, identity.protocol)) == Some(&Return::Ambiguous)
}

/// The identities of a service's backends, in file order.
pub fn identities_of(
    service: &ringgate_config::Service,
) -> impl Iterator<Item = BackendIdentity> + '_ {
    let listen = Endpoint::from_socket(service.listen());
    let protocol = service.protocol().number();
    service
        .backends()
        .iter()
        .map(move |backend| BackendIdentity {
            listen,
            protocol,
            address: Endpoint::from_socket(backend.address()),
        })
}

fn family(endpoint: &Endpoint) -> Family {
    if endpoint.to_socket().is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

#[cfg(test)]
mod tests;
