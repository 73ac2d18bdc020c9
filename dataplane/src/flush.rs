//! Flushing: the table forgets the flows of a backend, of a service, or all, and their next packets
//! are those of unknown flows.
//!
//! It is done a part of the table at a time, while workers go on. What they store meanwhile may be
//! forgotten again or not, and nothing worse: the two entries of a NAT flow go together, so that
//! no flow is left whose replies nobody knows ([`Backend::shared`](crate::backend::Backend::shared)).
//!
//! | entry | is removed |
//! |---|---|
//! | the client's | after that of its replies: a worker that opens the flow anew in between puts the newer entry of both |
//! | the replies', and the client's is there | with the client's |
//! | the replies', alone | if it was last seen before the flush began: a younger one may belong to a flow that is just being stored |

use ringgate_config::Listen;
use ringgate_conntrack::{Direction, FlowKey, FlowTable, Found, Seconds, Tie};

use crate::backend::BackendId;
use crate::newcomers::held;
use crate::snapshot::Snapshot;

/// Whose flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    All,
    /// Those of the service with these addresses, ports and IANA protocol number.
    Service(Listen, u8),
    /// Those of this backend.
    Backend(BackendId),
}

/// A flush under way.
#[derive(Debug, Clone)]
pub struct Flush {
    scope: Scope,
    since: Seconds,
    next_bucket: u32,
    flows: u64,
    entries: u64,
}

impl Flush {
    /// One that has not looked at anything yet.
    #[must_use]
    pub fn new(scope: Scope, now: Seconds) -> Self {
        Self {
            scope,
            since: now,
            next_bucket: 0,
            flows: 0,
            entries: 0,
        }
    }

    /// Flows that were forgotten so far.
    #[must_use]
    pub fn flows(&self) -> u64 {
        self.flows
    }

    /// Their entries: two for a NAT flow.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Looks at the next `budget` buckets of the table. Whether that was the rest of it.
    pub fn go_on(
        &mut self,
        table: &FlowTable,
        snapshot: &Snapshot,
        budget: u32,
        now: Seconds,
    ) -> bool {
        let from = self.next_bucket;
        self.next_bucket = from.saturating_add(budget).min(table.buckets());
        table.for_each_in(from..self.next_bucket, now, |key, found| {
            if !self.concerns(key, found, snapshot) {
                return;
            }
            match found.direction {
                Direction::FromClient => self.forget(key, found, (table, snapshot), now),
                Direction::FromBackend => self.forget_alone(key, found, (table, snapshot), now),
            }
        });
        self.next_bucket == table.buckets()
    }

    fn concerns(&self, key: &FlowKey, found: &Found, snapshot: &Snapshot) -> bool {
        let owner = BackendId(found.owner);
        match (self.scope, found.direction) {
            (Scope::All, _) => true,
            (Scope::Backend(id), _) => owner == id,
            (Scope::Service(listen, protocol), Direction::FromClient) => {
                let to = key.destination();
                let is_its = match snapshot.service(to, protocol) {
                    Some(service) => service.listen == listen,
                    None => listen.covers(to.to_socket()),
                };
                key.protocol() == protocol && is_its
            }
            (Scope::Service(listen, protocol), Direction::FromBackend) => {
                key.protocol() == protocol
                    && snapshot
                        .backend(owner)
                        .is_some_and(|backend| backend.listen == listen)
            }
        }
    }

    /// A client's entry, and that of its replies before it.
    fn forget(
        &mut self,
        key: &FlowKey,
        found: &Found,
        (table, snapshot): (&FlowTable, &Snapshot),
        now: Seconds,
    ) {
        let lease = held(found.whose());
        let replies_to = match (lease, snapshot.sources()) {
            (None, _) => Some(key.source()),
            (Some(lease), sources) => sources.map(|sources| sources.source(lease)),
        };
        let backend = snapshot.backend(BackendId(found.owner));
        let backend = backend.filter(|backend| backend.returns() || backend.exchanges());
        if let (Some(backend), Some(replies_to)) = (backend, replies_to) {
            let endpoint = backend.endpoint_for(key.destination().port);
            let reply = FlowKey::new(key.protocol(), endpoint, replies_to);
            if let Some(reply) = table.lookup(&reply, table.hash(&reply), now)
                && reply.owner == found.owner
            {
                self.entries += u64::from(table.remove(&reply));
            }
        }
        if table.remove(found) {
            self.flows += 1;
            self.entries += 1;
            if let Some(log) = snapshot.flow_log() {
                log.flushed(key);
            }
            if let (Some(lease), Some(sources)) = (lease, snapshot.sources()) {
                // Held, by the entry that was just removed.
                let _rests = sources.release(key.protocol(), lease, now);
            }
        }
    }

    /// An entry of replies, unless its client's is there.
    fn forget_alone(
        &mut self,
        key: &FlowKey,
        found: &Found,
        (table, snapshot): (&FlowTable, &Snapshot),
        now: Seconds,
    ) {
        if found.tie != Tie::NONE {
            self.forget_tied(key, found, (table, snapshot), now);
            return;
        }
        let has_client = snapshot
            .backend(BackendId(found.owner))
            .map(|backend| backend.virtual_endpoint(key.source().port))
            .map(|asked| FlowKey::new(key.protocol(), key.destination(), asked))
            .and_then(|client| table.lookup(&client, table.hash(&client), now))
            .is_some_and(|client| client.owner == found.owner);
        if !has_client && found.last_seen() < self.since {
            self.entries += u64::from(table.remove(found));
        }
    }

    /// The same of one that names its client's slot.
    fn forget_tied(
        &mut self,
        key: &FlowKey,
        found: &Found,
        (table, snapshot): (&FlowTable, &Snapshot),
        now: Seconds,
    ) {
        let client = found.tie.slot().and_then(|slot| table.flow_in(slot, now));
        let source = |client: &Found| {
            let (lease, sources) = (held(client.whose())?, snapshot.sources()?);
            Some(sources.source(lease))
        };
        let has_client = client.is_some_and(|(_, client)| {
            client.owner == found.owner && source(&client) == Some(key.destination())
        });
        if !has_client && found.last_seen() < self.since {
            self.entries += u64::from(table.remove(found));
        }
    }
}
