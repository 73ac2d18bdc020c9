//! The changes: what is before, and what then happens.

use std::time::Duration;

use ringgate_dataplane::backend::Health;
use ringgate_dataplane::flush::Scope;

use super::scene::{Entry, HOSTS, Pool, Scene, VICTIM};

/// A change of a backend.
#[derive(Debug)]
pub(crate) struct Row {
    /// Before any flow.
    pub(crate) pool: Pool,
    /// After flows are established, and before the flows that the change is to find half open.
    pub(crate) prelude: fn(&mut Scene),
    /// The change. How many flows it says it has ended.
    pub(crate) change: fn(&mut Scene) -> u64,
}

const DOWN: fn(&mut Pool) = |pool| pool.victim().health = Health::Down;

impl Row {
    fn by(change: fn(&mut Scene) -> u64) -> Self {
        Self {
            pool: Pool::of(&HOSTS),
            prelude: |_| {},
            change,
        }
    }

    pub(crate) fn weight_changed() -> Self {
        Self::by(|scene| {
            scene.change(|pool| pool.victim().weight = 30);
            0
        })
    }

    pub(crate) fn added() -> Self {
        let others = HOSTS.iter().copied().filter(|host| *host != VICTIM);
        Self {
            pool: Pool::of(&others.collect::<Vec<_>>()),
            ..Self::by(|scene| {
                scene.change(|pool| pool.entries.push(Entry::of(VICTIM)));
                0
            })
        }
    }

    pub(crate) fn drained() -> Self {
        Self::by(|scene| {
            scene.change(|pool| pool.victim().weight = 0);
            0
        })
    }

    pub(crate) fn disabled() -> Self {
        Self::by(|scene| {
            scene.change(|pool| pool.victim().disabled = true);
            0
        })
    }

    pub(crate) fn down() -> Self {
        Self::by(|scene| {
            scene.change(DOWN);
            0
        })
    }

    pub(crate) fn removed() -> Self {
        Self::by(|scene| {
            scene.change(|pool| pool.entries.retain(|entry| entry.host != VICTIM));
            0
        })
    }

    /// Of a backend whose weight has fallen, so that the ring has other places for some of its
    /// flows.
    pub(crate) fn flushed() -> Self {
        Self {
            prelude: |scene| scene.change(|pool| pool.victim().weight = 30),
            ..Self::by(|scene| {
                let services = scene.snapshot.services().iter();
                let ids = services.flat_map(|service| service.members.iter().copied());
                let of_victim = ids.filter(|id| {
                    let backend = scene.snapshot.backend(*id).unwrap();
                    backend.endpoint.to_socket().ip() == std::net::IpAddr::from([10, 2, 0, VICTIM])
                });
                of_victim.map(|id| scene.flush(Scope::Backend(id))).sum()
            })
        }
    }

    pub(crate) fn back() -> Self {
        Self {
            prelude: |scene| scene.change(DOWN),
            ..Self::by(|scene| {
                scene.change(|pool| pool.victim().health = Health::Up);
                0
            })
        }
    }

    pub(crate) fn back_slowly() -> Self {
        let mut row = Self::back();
        row.pool.slow_start = Duration::from_secs(30);
        row
    }

    pub(crate) fn last_gone_drop() -> Self {
        Self {
            pool: Pool::of(&[VICTIM]),
            ..Self::down()
        }
    }

    pub(crate) fn last_gone_open() -> Self {
        let mut row = Self::last_gone_drop();
        row.pool.when_empty = "open";
        row
    }
}
