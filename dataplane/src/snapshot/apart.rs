//! A snapshot that decides as another does and shares nothing with it that deciding changes.

use std::sync::Arc;

use ringgate_conntrack::source_ports::Seat;

use super::Snapshot;
use crate::service::{Order, Service};

impl Snapshot {
    /// The copy, in which all source ports are free, and a seat for those.
    pub(crate) fn apart(&self) -> (Self, Option<Seat>) {
        let (sources, seat) = match &self.sources {
            Some(sources) => {
                let (apart, seat) = sources.apart();
                (Some(Arc::new(apart)), Some(seat))
            }
            None => (None, None),
        };
        let services = self.services.iter().map(|service| Service {
            order: match &service.order {
                Order::Turns(rotation) => Order::Turns(rotation.apart()),
                other => other.clone(),
            },
            ..service.clone()
        });
        let copy = Self {
            generation: self.generation,
            draining: self.draining,
            services: services.collect(),
            listens: self.listens.clone(),
            fragments: self.fragments.clone(),
            returns: self.returns.clone(),
            backends: Arc::clone(&self.backends),
            fib: Arc::clone(&self.fib),
            lifetimes: self.lifetimes.clone(),
            steered: self.steered.clone(),
            sources,
            // What is rehearsed is no flow.
            flow_log: None,
            exchanges: self.exchanges,
            encapsulates: self.encapsulates,
        };
        (copy, seat)
    }
}
