//! A configuration that is not in force: who would get its new flows.

use std::sync::Arc;

use ringgate_config::Model;
use rustc_hash::FxHashMap;

use super::standing::Standings;
use super::{Builder, CachedRing, weighed};
use crate::backend::Health;
use crate::maglev::{Member, Ring};

/// A service as the next snapshot would have it, as far as new flows are concerned.
#[derive(Debug, Clone)]
pub struct Foreseen {
    /// Its backends in file order, with their effective weights: 0 for those that take no new flows.
    pub members: Vec<Member>,
    /// The ring that they would have; `None` if nobody takes new flows.
    pub ring: Option<Arc<Ring>>,
}

impl Builder {
    /// What [`build`](Self::build) would make of `model`, service by service, without a snapshot and
    /// without consequences: the last snapshot stays the one that the next is compared with. Rings
    /// that had to be built are kept for that next one.
    ///
    /// `health` is what the check of the backend at a position is taken to say.
    pub fn foresee(
        &mut self,
        model: &Model,
        health: impl Fn(&ringgate_config::Service, usize) -> Health,
    ) -> Vec<Foreseen> {
        let (mut last, mut kept) = (std::mem::take(&mut self.foreseen), FxHashMap::default());
        let foreseen = model.services().iter().map(|service| {
            let (listen, size) = (service.identity(), service.table_size());
            let known = self.rings.get(&listen);
            let found = self.parts.find(service);
            let past = found.past(service).into_iter();
            let standings = Standings::of(service, &health, past, found.is_new(), self.now);
            let members = weighed(service, &standings.weights);
            if let Some(cached) = known.filter(|cached| cached.is_of(size, &members)) {
                let ring = cached.ring.clone();
                return Foreseen { members, ring };
            }
            let asked_before = last
                .remove(&listen)
                .filter(|cached| cached.is_of(size, &members));
            let cached = asked_before.unwrap_or_else(|| CachedRing::build(size, members.clone()));
            let ring = cached.ring.clone();
            kept.insert(listen, cached);
            Foreseen { members, ring }
        });
        let foreseen = foreseen.collect();
        self.foreseen = kept;
        foreseen
    }
}
