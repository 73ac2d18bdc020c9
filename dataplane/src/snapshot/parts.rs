//! What the last snapshot has of each service, so that the next one makes anew only what is otherwise.
//!
//! A backend as workers see it follows from three things: what the file says of it and its service,
//! the network, and where it stands. Ten thousand of them take milliseconds to make; most snapshots
//! differ from the last by a few. So the slots of the last snapshot are copied as they are, in one
//! piece, and those are written again of which one of the three has changed.
//!
//! # Promise
//! A snapshot that was made so is the same as one made from nothing by a builder with the same past, ids
//! included.

use std::net::SocketAddr;
use std::sync::Arc;

use ringgate_config::{Forward, Listen};
use ringgate_conntrack::Profile;
use rustc_hash::FxHashMap;

use super::standing::{Standing, Standings};
use super::{Snapshot, identities_of};
use crate::backend::{Backend, BackendId, BackendIdentity};
use crate::returns::Returns;
use crate::route::Fib;
use crate::service::Service;

/// A service of the last snapshot.
#[derive(Debug)]
pub(super) struct Part {
    /// What the file said.
    pub(super) configured: ringgate_config::Service,
    /// What became of it.
    pub(super) service: Service,
    /// Where its backends stood.
    pub(super) standings: Standings,
    /// What its timeouts were.
    pub(super) profile: Profile,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// In file order.
    pub(super) each: Vec<Arc<Part>>,
    places: FxHashMap<(Listen, u8), usize>,
    /// By slot.
    backends: Arc<[Option<Backend>]>,
    returns: Returns,
    fib: Option<Arc<Fib>>,
    /// Ids may have gone to others since: a snapshot could not be made.
    are_doubtful: bool,
}

impl Parts {
    /// What a snapshot was made of.
    pub(super) fn new(each: Vec<Arc<Part>>, snapshot: &Snapshot) -> Self {
        let places = (0..).zip(&each);
        let places = places.map(|(place, part)| (part.configured.identity(), place));
        Self {
            places: places.collect(),
            each,
            backends: Arc::clone(&snapshot.backends),
            returns: snapshot.returns.clone(),
            fib: Some(Arc::clone(&snapshot.fib)),
            are_doubtful: false,
        }
    }

    /// The same, of which only it is to be believed where backends stood.
    pub(super) fn doubted(self) -> Self {
        Self {
            are_doubtful: true,
            ..self
        }
    }

    /// Whether they tell all whose ids are taken.
    pub(super) const fn are_known(&self) -> bool {
        self.fib.is_some() && !self.are_doubtful
    }

    /// What they have of `service`.
    pub(super) fn find(&self, service: &ringgate_config::Service) -> Found<'_> {
        let place = self.places.get(&service.identity());
        match place.and_then(|place| Some((*place, self.each.get(*place)?))) {
            None => Found::New,
            Some((place, part)) if !self.are_doubtful && part.configured == *service => {
                Found::Same(place, part)
            }
            Some((place, part)) => Found::Other(place, part),
        }
    }

    /// Whether backends may be as they were: they are reached as before, and of no reply is it unclear
    /// whose it is, then and now.
    pub(super) fn still_reach(&self, fib: &Arc<Fib>, returns: &Returns) -> bool {
        let is_same = |last: &Arc<Fib>| Arc::ptr_eq(last, fib);
        !self.are_doubtful
            && self.fib.as_ref().is_some_and(is_same)
            && !self.returns.has_shared()
            && !returns.has_shared()
    }

    /// What replies belong to, if that is as it was.
    pub(super) fn returns(
        &self,
        services: &[ringgate_config::Service],
        found: &[Found<'_>],
    ) -> Option<Returns> {
        if self.are_doubtful {
            return None;
        }
        let is_alike = |(position, (service, found)): (usize, (&_, &Found<'_>))| match found {
            Found::Same(place, _) => *place == position,
            Found::Other(place, part) => {
                *place == position && answers_alike(&part.configured, service)
            }
            Found::New => false,
        };
        let mut all = services.iter().zip(found).enumerate();
        (services.len() == self.each.len() && all.all(is_alike)).then(|| self.returns.clone())
    }

    /// The slots as they were, so many, without those of services that are no longer the same.
    pub(super) fn slots(&self, count: usize, found: &[Found<'_>]) -> Arc<[Option<Backend>]> {
        let mut slots = Arc::clone(&self.backends);
        if slots.len() != count {
            let old = self.backends.iter().copied();
            slots = old.chain(std::iter::repeat(None)).take(count).collect();
        }
        let of = Arc::make_mut(&mut slots);
        for part in self.left(found) {
            for id in &part.service.members {
                if let Some(slot) = of.get_mut(id.slot()) {
                    *slot = None;
                }
            }
        }
        slots
    }

    /// The backend that had this id.
    pub(super) fn backend(&self, id: BackendId) -> Option<&Backend> {
        let backend = self.backends.get(id.slot())?.as_ref();
        backend.filter(|backend| backend.id == id)
    }

    /// Whose ids are to be given back unless they are given again: all backends of services that are not
    /// the same any more, or gone.
    pub(super) fn owners(&self, found: &[Found<'_>]) -> Vec<BackendIdentity> {
        let left = self.left(found);
        left.flat_map(|part| identities_of(&part.configured))
            .collect()
    }

    /// The services that are not the same any more, or gone.
    fn left<'a>(&'a self, found: &[Found<'_>]) -> impl Iterator<Item = &'a Part> + use<'a> {
        let mut stays = vec![false; self.each.len()];
        for one in found {
            if let Found::Same(place, _) = one
                && let Some(stays) = stays.get_mut(*place)
            {
                *stays = true;
            }
        }
        let each = self.each.iter().zip(stays);
        each.filter(|(_, stays)| !stays).map(|(part, _)| &**part)
    }
}

/// What the last snapshot has of a service.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'a> {
    /// There was none that listens there.
    New,
    /// The file said something else of it. With its place in file order.
    Other(usize, &'a Arc<Part>),
    /// The file said the same.
    Same(usize, &'a Arc<Part>),
}

impl<'a> Found<'a> {
    /// Whether there was no such service.
    pub(super) const fn is_new(self) -> bool {
        matches!(self, Self::New)
    }

    /// It, if nothing of it has changed: the file says the same of it, at the same place.
    pub(super) fn unchanged(self, position: u16) -> Option<&'a Arc<Part>> {
        match self {
            Self::Same(place, part) if place == usize::from(position) => Some(part),
            _ => None,
        }
    }

    /// Where the backends of `service` stood, in file order.
    pub(super) fn past(self, service: &ringgate_config::Service) -> Vec<Option<Standing>> {
        let (Self::Same(_, part) | Self::Other(_, part)) = self else {
            return vec![None; service.backends().len()];
        };
        if let Self::Same(..) = self {
            return part.standings.each.iter().copied().map(Some).collect();
        }
        let stood = part.configured.backends().iter().zip(&part.standings.each);
        let stood: FxHashMap<SocketAddr, Standing> = stood
            .map(|(backend, standing)| (backend.address(), *standing))
            .collect();
        let backends = service.backends().iter();
        backends
            .map(|backend| stood.get(&backend.address()).copied())
            .collect()
    }

    /// Whether the backend at this position of `service` is the one that was there, and is reached as it
    /// was as far as the file goes.
    pub(super) fn is_reached_alike(self, service: &ringgate_config::Service, at: usize) -> bool {
        match self {
            Self::New => false,
            Self::Same(..) => true,
            Self::Other(_, part) => {
                let old = &part.configured;
                let backends = (old.backends().get(at), service.backends().get(at));
                let (Some(before), Some(now)) = backends else {
                    return false;
                };
                before.address() == now.address()
                    && before.forward() == now.forward()
                    && before.tunnel() == now.tunnel()
            }
        }
    }
}

/// Whether replies of two services' backends are told by the same.
fn answers_alike(old: &ringgate_config::Service, new: &ringgate_config::Service) -> bool {
    let told = |service: &ringgate_config::Service| {
        let backends = service.backends().iter().map(|backend| {
            let is_nat = backend.forward() == Forward::Nat;
            (backend.address(), is_nat)
        });
        backends.collect::<Vec<_>>()
    };
    told(old) == told(new)
}

/// The ids of all members, service by service: of those that are the same what they were, of the
/// others from `given`, in file order.
pub(super) fn members_of<'a>(
    services: &[ringgate_config::Service],
    found: &[Found<'a>],
    given: &'a [BackendId],
) -> Vec<&'a [BackendId]> {
    let mut left = given;
    let each = services.iter().zip(found);
    let members = each.map(|(service, found)| match found {
        Found::Same(_, part) => &*part.service.members,
        Found::Other(..) | Found::New => {
            let members;
            (members, left) = left.split_at(service.backends().len().min(left.len()));
            members
        }
    });
    members.collect()
}
