//! Which backend a flow gets, and why: the answer of `explain`, for a running balancer and for
//! a configuration file alike.

use std::net::SocketAddr;
use std::sync::Arc;

use ringgate_config::Choose;
use ringgate_conntrack::{Endpoint, FlowKey};
use ringgate_dataplane::backend::Backend;
use ringgate_dataplane::clock::Millis;
use ringgate_dataplane::newcomers::{Newcomers, Tables, held};
use ringgate_dataplane::snapshot::Snapshot;
use ringgate_dataplane::steer::Steering;
use serde_json::{Value, json};

/// A flow, as a client would open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    /// IANA protocol number.
    pub(crate) protocol: u8,
    /// The client.
    pub(crate) from: SocketAddr,
    /// The service.
    pub(crate) to: SocketAddr,
}

/// Answers without changing anything.
pub(crate) fn explain(
    question: &Question,
    snapshot: &Snapshot,
    tables: &Tables,
    now: Millis,
) -> Value {
    let destination = Endpoint::from_socket(question.to);
    let Some(service) = snapshot.service(destination, question.protocol) else {
        let why = format!("no service listens on {}", question.to);
        return json!({ "service": null, "backend": null, "why": why });
    };
    let key = FlowKey::new(
        question.protocol,
        Endpoint::from_socket(question.from),
        destination,
    );
    let steering = Steering {
        snapshot,
        table: &tables.flows,
        newcomers: &Newcomers::new(Arc::clone(&tables.half_open), 1, 1, now),
        now: now.seconds(),
        ingress: 0,
    };
    let flows = &tables.flows;
    let flow = flows.lookup(&key, flows.hash(&key), now.seconds());
    let waiting = || {
        let half_open = steering.newcomers.half_open();
        half_open.lookup(&key, flows.hash(&key), steering.newcomers.tick())
    };
    let source = flow.or_else(waiting).and_then(|flow| {
        let (lease, sources) = (held(flow.whose())?, snapshot.sources()?);
        Some(sources.source(lease).to_string())
    });
    let (id, is_stored) = steering.preview(service, &key);
    let backend = id.and_then(|id| snapshot.backend(id));
    let why = match (&backend, is_stored) {
        (Some(_), true) => "the flow is in the table, and a flow keeps its backend".to_owned(),
        (Some(backend), false) => {
            let (address, all) = (backend.name(), service.members.len());
            match service.choose {
                Choose::FlowHash | Choose::SourceHash if service.quic.is_some() => format!(
                    "the service stores no flows: a datagram goes to the server that its \
                     connection id names, and one that names none to {address}, whose slot on the \
                     Maglev ring it is, of {all} backends"
                ),
                Choose::FlowHash | Choose::SourceHash if service.stateless => format!(
                    "the service stores no flows: the slot on its Maglev ring belongs to \
                     {address}, of {all} backends"
                ),
                Choose::FlowHash | Choose::SourceHash => format!(
                    "not in the table: its slot on the service's Maglev ring belongs to {address}, \
                     of {all} backends"
                ),
                Choose::RoundRobin => format!(
                    "not in the table: the next turn is {address}'s, of {all} backends, unless \
                     another flow begins before"
                ),
                Choose::LeastConnections => format!(
                    "not in the table: {address} has the fewest flows for its weight at this \
                     moment ({}), of {all} backends",
                    tables.flows.flows_of(backend.id.0),
                ),
            }
        }
        (None, _) => "no backend of the service takes new flows".to_owned(),
    };
    json!({
        "service": &*service.name,
        "backend": backend.map(Backend::name),
        "state": backend.map(|backend| backend.state.as_str()),
        "forward": backend.map_or(service.forward, |backend| backend.forward).as_str(),
        "source": source,
        "stored": is_stored,
        "flow": flow.map(|flow| flow.state.as_str()),
        "why": why,
    })
}
