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

use ringgate_config::{Choose, Forward, Model};
use ringgate_conntrack::{Endpoint, Profile};
use rustc_hash::FxHashMap;

use crate::backend::{
    Backend, BackendId, BackendIdentity, BackendState, Health, NoSlot, Registry, Translations,
};
use crate::clock::Millis;
use crate::maglev::{Member, Ring};
use crate::parse::Family;
use crate::profiles::{Lifetimes, Profiles};
use crate::rotation::{Rotation, Turns};
use crate::route::Fib;
use crate::service::{Order, Service};

use standing::{Standing, Standings};

mod standing;

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
    lifetimes: Lifetimes,
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

    /// What the flow table must know of timeouts before a worker sees this snapshot.
    #[must_use]
    pub fn lifetimes(&self) -> &Lifetimes {
        &self.lifetimes
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
    profiles: Profiles,
    rings: HashMap<(Endpoint, u8), CachedRing>,
    /// How many turns each service's backends have had.
    turns: HashMap<(Endpoint, u8), Turns>,
    /// What each backend was in the last snapshot.
    past: HashMap<BackendIdentity, Standing>,
    now: Millis,
    next_step: Option<Millis>,
    generation: u64,
}

impl Builder {
    /// The time of the snapshots that are built from now on: slow starts go by it.
    pub fn at(&mut self, now: Millis) -> &mut Self {
        self.now = now;
        self
    }

    /// When a snapshot is to be built though nothing else has changed: the next step of a slow
    /// start begins.
    #[must_use]
    pub fn next_step(&self) -> Option<Millis> {
        self.next_step
    }

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
        self.next_step = None;
        let identities: HashSet<BackendIdentity> =
            model.services().iter().flat_map(identities_of).collect();
        self.registry.retain(&identities);
        let returns = returns(model);
        let profiles = self.profiles.number(model);
        let mut services = Vec::with_capacity(model.services().len());
        let mut backends: Vec<Option<Backend>> = Vec::new();
        let mut past = HashMap::new();
        let mut next_step = None;
        let numbered = model.services().iter().zip(profiles);
        for (index, (service, profile)) in (0..=u16::MAX).zip(numbered) {
            let is_new = !self.rings.contains_key(&listen_of(service));
            let standings = Standings::of(service, &health, &self.past, is_new, self.now);
            next_step = [next_step, standings.next_step].into_iter().flatten().min();
            let mut members = Vec::with_capacity(standings.each.len());
            let each = standings.each.iter().zip(&standings.weights);
            for (identity, (standing, weight)) in identities_of(service).zip(each) {
                let id = self.registry.id(identity)?;
                members.push(id);
                past.insert(identity, *standing);
                let place = Place {
                    id,
                    service: index,
                    forward: service.forward(),
                    shared: is_shared(&returns, &identity),
                    profile,
                };
                let backend = place.backend(&identity, (standing.state, *weight), fib);
                if backends.len() <= id.slot() {
                    backends.resize(id.slot() + 1, None);
                }
                if let Some(slot) = backends.get_mut(id.slot()) {
                    *slot = Some(backend);
                }
            }
            services.push(Service {
                half_open: is_ordered(service.choose())
                    || identities_of(service).any(|one| is_shared(&returns, &one)),
                members,
                ..self.service(service, &standings)
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
        self.past = past;
        self.next_step = next_step;
        self.generation += 1;
        Ok(Snapshot {
            generation: self.generation,
            draining,
            services,
            by_listen,
            returns,
            backends,
            fib: Arc::clone(fib),
            lifetimes: self.profiles.lifetimes(),
        })
    }

    /// `service` but for its members, and for what others make of it.
    fn service(
        &mut self,
        service: &ringgate_config::Service,
        Standings {
            weights,
            scale,
            fallen_open,
            ..
        }: &Standings,
    ) -> Service {
        Service {
            name: service.name().into(),
            listen: Endpoint::from_socket(service.listen()),
            protocol: service.protocol().number(),
            forward: service.forward(),
            choose: service.choose(),
            ring: self.ring(service, weights),
            order: self.order(service, weights),
            weight_scale: *scale,
            fallen_open: *fallen_open,
            half_open: false,
            members: Vec::new(),
        }
    }

    /// What chooses for flows of `service` that begin, by the weights of its backends in file
    /// order.
    fn order(&mut self, service: &ringgate_config::Service, weights: &[u32]) -> Order {
        match service.choose() {
            Choose::FlowHash | Choose::SourceHash => Order::Ring,
            Choose::LeastConnections => Order::Fewest(weights.into()),
            Choose::RoundRobin => {
                let turns = self.turns.entry(listen_of(service)).or_default();
                Rotation::new(weights, turns.clone()).map_or(Order::Ring, Order::Turns)
            }
        }
    }

    /// The ring of `service`, the last one again if it was built from the same.
    fn ring(&mut self, service: &ringgate_config::Service, weights: &[u32]) -> Option<Arc<Ring>> {
        let members: Vec<Member> = identities_of(service)
            .zip(weights)
            .map(|(identity, weight)| Member {
                identity: identity.address,
                weight: *weight,
            })
            .collect();
        let listen = listen_of(service);
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

/// Where a backend is, and how packets get to it.
struct Place {
    id: BackendId,
    service: u16,
    forward: Forward,
    profile: Profile,
    shared: bool,
}

impl Place {
    // With its only caller, which is generic, and so in the caller's crate: here it would change how
    // the worker's turn is inlined, by 2 % of its instructions.
    #[inline]
    fn backend(
        self,
        identity: &BackendIdentity,
        (state, weight): (BackendState, u32),
        fib: &Fib,
    ) -> Backend {
        let family = family(&identity.address);
        Backend {
            id: self.id,
            service: self.service,
            listen: identity.listen,
            endpoint: identity.address,
            family,
            forward: self.forward,
            state,
            weight,
            profile: self.profile,
            shared: self.shared && self.forward == Forward::Nat,
            hop: match self.forward {
                Forward::Nat => fib.hop(identity.address.address, family).copied(),
                Forward::DsrL2 | Forward::FullNat | Forward::Ipip | Forward::Gue | Forward::Gre => {
                    fib.hop_on_link(identity.address.address, family).copied()
                }
            },
            translations: Translations::of(self.forward, identity),
        }
    }
}

/// What makes a service the same one after a reload.
fn listen_of(service: &ringgate_config::Service) -> (Endpoint, u8) {
    (
        Endpoint::from_socket(service.listen()),
        service.protocol().number(),
    )
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
