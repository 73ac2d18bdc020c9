//! Everything that a worker reads and only control writes, of one generation.
//!
//! A snapshot is immutable. Control builds one with a [`Builder`] whenever the configuration, a
//! backend's state, a route or a neighbour has changed, and publishes it
//! ([`crate::publish`]). The builder outlives snapshots: it remembers which backend has which
//! id, so that flows find theirs in every later snapshot, and what the last one has of each service
//! (`parts.rs`), so that only what has changed is made anew, rings above all.

use std::sync::Arc;

use ringgate_config::{Choose, Forward, Listen, Model};
use ringgate_conntrack::source_ports::SourcePorts;
use ringgate_conntrack::{Endpoint, Profile};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::backend::{Backend, BackendId, BackendIdentity, Health, NoSlot, Registry};
use crate::clock::Millis;
use crate::flow_log::FlowLog;
use crate::fragments::{Policies, Policy};
use crate::listens::Listens;
use crate::maglev::{Member, Ring};
use crate::profiles::{Lifetimes, Profiles};
use crate::quic::Routes;
use crate::returns::{Return, Returns};
use crate::rotation::{Rotation, Turns};
use crate::route::Fib;
use crate::service::{Order, Service};
use crate::steered::Steered;

use parts::{Found, Part, Parts, members_of};
use place::Place;
use standing::Standings;

mod apart;
mod foreseen;
mod parts;
mod place;
mod quorum;
mod standing;

pub use foreseen::Foreseen;

/// See the module's documentation.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with every snapshot of a process.
    pub generation: u64,
    /// The balancer is about to stop and takes no new flows.
    pub draining: bool,
    services: Vec<Service>,
    listens: Listens,
    fragments: Policies,
    returns: Returns,
    /// By slot. Behind a pointer of the same kind as a vector's, and the builder has it too.
    backends: Arc<[Option<Backend>]>,
    fib: Arc<Fib>,
    lifetimes: Lifetimes,
    steered: Steered,
    sources: Option<Arc<SourcePorts>>,
    flow_log: Option<Arc<FlowLog>>,
    exchanges: bool,
    encapsulates: bool,
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
        let index = self.listens.find(destination, protocol)?;
        self.services.get(usize::from(index))
    }

    /// The position of the service that listens on `destination`.
    #[must_use]
    pub fn service_of(&self, destination: Endpoint, protocol: u8) -> Option<u16> {
        self.listens.find(destination, protocol)
    }

    /// What is to become of fragments to `address` whose ports are not known.
    #[must_use]
    pub fn fragments_to(&self, address: [u64; 2], protocol: u8) -> Policy {
        self.fragments.of(address, protocol)
    }

    /// The service at a position, as [`Backend::service`] and [`Return::Service`] name it.
    #[inline]
    #[must_use]
    pub fn service_at(&self, index: u16) -> Option<&Service> {
        self.services.get(usize::from(index))
    }

    /// Whether some service listens on this address.
    #[must_use]
    pub fn is_service_address(&self, address: [u64; 2]) -> bool {
        self.listens.has(address)
    }

    /// What a packet from `source` is a reply of, if that is a NAT backend.
    #[inline]
    #[must_use]
    pub fn reply_from(&self, source: Endpoint, protocol: u8) -> Option<Return> {
        self.returns.find(source, protocol)
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

    /// The balancer's own addresses that flows come from, and their ports.
    #[inline]
    #[must_use]
    pub fn sources(&self) -> Option<&SourcePorts> {
        self.sources.as_deref()
    }

    /// Where it is put down what flows carry, while that is wanted.
    #[inline]
    #[must_use]
    pub fn flow_log(&self) -> Option<&FlowLog> {
        self.flow_log.as_deref()
    }

    /// Whether some backend is `full-nat`.
    #[inline]
    #[must_use]
    pub fn exchanges(&self) -> bool {
        self.exchanges
    }

    /// Whether some backend is reached through a tunnel.
    #[inline]
    #[must_use]
    pub fn encapsulates(&self) -> bool {
        self.encapsulates
    }

    /// What the flow table must know of timeouts before a worker sees this snapshot.
    #[must_use]
    pub fn lifetimes(&self) -> &Lifetimes {
        &self.lifetimes
    }

    /// What the steering program must send to workers.
    #[must_use]
    pub fn steered(&self) -> &Steered {
        &self.steered
    }
}

/// A ring and what it was built from.
#[derive(Debug)]
struct CachedRing {
    size: u32,
    members: Vec<Member>,
    ring: Option<Arc<Ring>>,
}

impl CachedRing {
    fn build(size: u32, members: Vec<Member>) -> Self {
        Self {
            size,
            ring: Ring::build(size, &members).map(Arc::new),
            members,
        }
    }

    fn is_of(&self, size: u32, members: &[Member]) -> bool {
        self.size == size && self.members == members
    }
}

/// What the ring of `service` is built from, by the weights of its backends in file order.
fn weighed(service: &ringgate_config::Service, weights: &[u32]) -> Vec<Member> {
    let members = identities_of(service).zip(weights);
    let members = members.map(|(identity, weight)| Member {
        identity: identity.address,
        weight: *weight,
    });
    members.collect()
}

/// Builds snapshots; lives on the control side from start to stop.
#[derive(Debug, Default)]
pub struct Builder {
    registry: Registry,
    profiles: Profiles,
    rings: FxHashMap<(Listen, u8), CachedRing>,
    /// Those of the configuration that was last [foreseen](Self::foresee), for the next snapshot.
    foreseen: FxHashMap<(Listen, u8), CachedRing>,
    /// How many turns each service's backends have had.
    turns: FxHashMap<(Listen, u8), Turns>,
    /// What the last snapshot was made of.
    parts: Parts,
    now: Millis,
    next_step: Option<Millis>,
    generation: u64,
    sources: Option<Arc<SourcePorts>>,
    flow_log: Option<Arc<FlowLog>>,
}

impl Builder {
    /// The sources of the snapshots that are built from now on.
    pub fn with_sources(&mut self, sources: Arc<SourcePorts>) -> &mut Self {
        self.sources = Some(sources);
        self
    }

    /// Where flows are put down from the next snapshot on, if anywhere.
    pub fn with_flow_log(&mut self, flow_log: Option<Arc<FlowLog>>) -> &mut Self {
        self.flow_log = flow_log;
        self
    }

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

    /// The id that a backend has in the snapshots that are built, if the last one has it.
    #[must_use]
    pub fn id_of(&self, backend: &BackendIdentity) -> Option<BackendId> {
        self.registry.get(backend)
    }

    /// The next snapshot.
    ///
    /// `health` gives the result of the check of the backend at a position of a service; it is asked once
    /// for each.
    ///
    /// # Errors
    ///
    /// [`NoSlot`] when there are more backends than slots.
    pub fn build(
        &mut self,
        model: &Model,
        health: impl Fn(&ringgate_config::Service, usize) -> Health,
        fib: &Arc<Fib>,
        draining: bool,
    ) -> Result<Snapshot, NoSlot> {
        self.next_step = None;
        let last = std::mem::take(&mut self.parts);
        let configured = model.services();
        let found: Vec<Found<'_>> = configured.iter().map(|one| last.find(one)).collect();
        let ids = match self.ids(configured, &last, &found) {
            Ok(ids) => ids,
            Err(error) => {
                self.parts = last.doubted();
                return Err(error);
            }
        };
        let members = members_of(configured, &found, &ids);
        let returns = last.returns(configured, &found);
        let returns = returns.unwrap_or_else(|| of_replies(model));
        let profiles = self.profiles.number(model);
        let all = members.iter().flat_map(|ids| ids.iter());
        let count = all.map(|id| id.slot() + 1).max().unwrap_or(0);
        let mut backends = last.slots(count, &found);
        let mut sites = Sites {
            still: last.still_reach(fib, &returns),
            last: &last,
            returns: &returns,
            fib,
            slots: Arc::make_mut(&mut backends),
        };
        let mut parts = Vec::with_capacity(configured.len());
        let numbered = configured.iter().zip(profiles).zip(&found).zip(members);
        for (index, (((service, profile), found), members)) in (0..=u16::MAX).zip(numbered) {
            let past = found.past(service).into_iter();
            let standings = Standings::of(service, &health, past, found.is_new(), self.now);
            let steps = [self.next_step, standings.next_step];
            self.next_step = steps.into_iter().flatten().min();
            let is_same = |part: &&Arc<Part>| {
                sites.still && part.profile == profile && part.standings == standings
            };
            if let Some(part) = found.unchanged(index).filter(is_same) {
                parts.push(Arc::clone(part));
                continue;
            }
            sites.fill((index, profile), (service, *found), members, &standings);
            parts.push(Arc::new(Part {
                service: self.service((service, members), &standings, &returns),
                configured: service.clone(),
                standings,
                profile,
            }));
        }
        let snapshot = self.snapshot(model, (&parts, backends), returns, (fib, draining));
        self.parts = Parts::new(parts, &snapshot);
        Ok(snapshot)
    }

    /// The ids of all backends of services that are not what they were, in file order.
    fn ids(
        &mut self,
        services: &[ringgate_config::Service],
        last: &Parts,
        found: &[Found<'_>],
    ) -> Result<Vec<BackendId>, NoSlot> {
        let services = services.iter().zip(found);
        let other = services.filter(|(_, found)| !matches!(found, Found::Same(..)));
        let identities = other.flat_map(|(service, _)| identities_of(service));
        if last.are_known() {
            self.registry.exchange(&last.owners(found), identities)
        } else {
            self.registry.assign(identities)
        }
    }

    /// The snapshot of these services, with what follows from the model alone.
    fn snapshot(
        &mut self,
        model: &Model,
        (parts, backends): (&[Arc<Part>], Arc<[Option<Backend>]>),
        returns: Returns,
        (fib, draining): (&Arc<Fib>, bool),
    ) -> Snapshot {
        let listens: Vec<(Listen, u8)> = model
            .services()
            .iter()
            .map(ringgate_config::Service::identity)
            .collect();
        let kept: FxHashSet<(Listen, u8)> = listens.iter().copied().collect();
        self.rings.retain(|listen, _| kept.contains(listen));
        self.turns.retain(|listen, _| kept.contains(listen));
        self.foreseen.clear();
        self.generation += 1;
        Snapshot {
            generation: self.generation,
            draining,
            services: parts.iter().map(|part| part.service.clone()).collect(),
            listens: Listens::new(&listens),
            fragments: fragments(model),
            returns,
            backends,
            fib: Arc::clone(fib),
            lifetimes: self.profiles.lifetimes(),
            steered: Steered::of(model, self.sources.as_deref()),
            exchanges: model.services().iter().any(is_full_nat),
            encapsulates: model.services().iter().any(is_tunnelled),
            sources: self.sources.clone(),
            flow_log: self.flow_log.clone(),
        }
    }

    /// `service` as workers see it.
    fn service(
        &mut self,
        (service, members): (&ringgate_config::Service, &[BackendId]),
        Standings {
            weights,
            scale,
            quorum,
            ..
        }: &Standings,
        returns: &Returns,
    ) -> Service {
        Service {
            name: service.name().into(),
            listen: *service.listen(),
            protocol: service.protocol().number(),
            vlan: service.vlan(),
            forward: service.forward(),
            mss_clamp: service.mss_clamp(),
            fragments: service.fragments(),
            stateless: service.stateless(),
            quic: service
                .quic()
                .map(|quic| Routes::new(quic, service, members)),
            choose: service.choose(),
            ring: self.ring(service, weights),
            order: self.order(service, weights),
            weight_scale: *scale,
            fallen_open: quorum.fallen_open,
            fallen_closed: quorum.fallen_closed,
            healthy: quorum.healthy,
            needs_healthy: quorum.needed,
            trusts_suspects: quorum.trusts_suspects,
            half_open: is_half_open(service, returns),
            members: members.to_vec(),
        }
    }

    /// What chooses for flows of `service` that begin, by the weights of its backends in file
    /// order.
    fn order(&mut self, service: &ringgate_config::Service, weights: &[u32]) -> Order {
        match service.choose() {
            Choose::FlowHash | Choose::SourceHash => Order::Ring,
            Choose::LeastConnections => Order::Fewest(weights.into()),
            Choose::RoundRobin => {
                let turns = self.turns.entry(service.identity()).or_default();
                Rotation::new(weights, turns.clone()).map_or(Order::Ring, Order::Turns)
            }
        }
    }

    /// The ring of `service`, the last one again if it was built from the same.
    fn ring(&mut self, service: &ringgate_config::Service, weights: &[u32]) -> Option<Arc<Ring>> {
        let (listen, size) = (service.identity(), service.table_size());
        let members = weighed(service, weights);
        if let Some(cached) = self.rings.get(&listen)
            && cached.is_of(size, &members)
        {
            return cached.ring.clone();
        }
        let foreseen = self.foreseen.remove(&listen);
        let cached = foreseen.filter(|cached| cached.is_of(size, &members));
        let cached = cached.unwrap_or_else(|| CachedRing::build(size, members));
        let ring = cached.ring.clone();
        self.rings.insert(listen, cached);
        ring
    }
}

/// The slots of backends, while they are filled.
struct Sites<'a> {
    /// Backends of which nothing else has changed are reached as in the last snapshot.
    still: bool,
    last: &'a Parts,
    returns: &'a Returns,
    fib: &'a Fib,
    slots: &'a mut [Option<Backend>],
}

impl Sites<'_> {
    /// Fills those of a service, `members` in file order.
    #[inline]
    fn fill(
        &mut self,
        (index, profile): (u16, Profile),
        (service, found): (&ringgate_config::Service, Found<'_>),
        members: &[BackendId],
        standings: &Standings,
    ) {
        let stand = standings.each.iter().zip(&standings.weights);
        let stand = stand.map(|(standing, weight)| (standing.state, *weight));
        let named = service.backends().iter().zip(identities_of(service));
        for (at, (((configured, identity), stands), id)) in
            named.zip(stand).zip(members).enumerate()
        {
            let place = Place {
                id: *id,
                service: index,
                shared: self.returns.is_shared(&identity),
                profile,
                bound: service.vlan().is_some(),
            };
            let last = self.last.backend(*id);
            let last = last.filter(|_| self.still && found.is_reached_alike(service, at));
            let backend = match last {
                Some(last) => place.renewed(last, stands),
                None => place.backend(configured, &identity, stands, self.fib),
            };
            if let Some(slot) = self.slots.get_mut(id.slot()) {
                *slot = Some(backend);
            }
        }
    }
}

/// Whether flows are remembered while they are half open.
fn is_half_open(service: &ringgate_config::Service, returns: &Returns) -> bool {
    is_ordered(service.choose())
        || is_full_nat(service)
        || identities_of(service).any(|one| returns.is_shared(&one))
}

/// Whether a flow's backend does not follow from its packets.
const fn is_ordered(choose: Choose) -> bool {
    matches!(choose, Choose::RoundRobin | Choose::LeastConnections)
}

/// Whether replies of some of its flows are sent to the balancer itself.
fn is_full_nat(service: &ringgate_config::Service) -> bool {
    let mut backends = service.backends().iter();
    backends.any(|backend| backend.forward() == Forward::FullNat)
}

/// Whether packets to some of its backends go in others.
fn is_tunnelled(service: &ringgate_config::Service) -> bool {
    service
        .backends()
        .iter()
        .any(|backend| match backend.forward() {
            Forward::Ipip | Forward::Gue | Forward::Gre => true,
            Forward::Nat | Forward::FullNat | Forward::DsrL2 => false,
        })
}

/// What replies from each NAT backend's address and port belong to.
fn of_replies(model: &Model) -> Returns {
    let numbered = (0..=u16::MAX).zip(model.services());
    let backends = numbered.flat_map(|(index, service)| {
        let named = service.backends().iter().zip(identities_of(service));
        named
            .filter(|(backend, _)| backend.forward() == Forward::Nat)
            .map(move |(_, identity)| (index, identity))
    });
    Returns::new(&backends.collect::<Vec<_>>())
}

/// What the services want of fragments.
fn fragments(model: &Model) -> Policies {
    let wishes = model.services().iter().map(|service| {
        let (listen, protocol) = service.identity();
        (listen, protocol, service.fragments())
    });
    Policies::new(&wishes.collect::<Vec<_>>())
}

/// What a backend's check says, for a [builder](Builder), which asks by position.
pub fn by_backend(
    health: impl Fn(&ringgate_config::Service, &ringgate_config::Backend) -> Health,
) -> impl Fn(&ringgate_config::Service, usize) -> Health {
    move |service, at| {
        let backend = service.backends().get(at);
        backend.map_or(Health::Pending, |backend| health(service, backend))
    }
}

/// The identities of a service's backends, in file order.
pub fn identities_of(
    service: &ringgate_config::Service,
) -> impl Iterator<Item = BackendIdentity> + Clone + '_ {
    let (listen, protocol) = service.identity();
    service
        .backends()
        .iter()
        .map(move |backend| BackendIdentity {
            listen,
            protocol,
            address: Endpoint::from_socket(backend.address()),
        })
}

#[cfg(test)]
mod tests;
