//! Which backend a flow gets, and why: the answer of `explain`, for a running balancer and for
//! a configuration file alike.

use std::net::SocketAddr;

use ringgate_conntrack::{Endpoint, FlowKey, FlowTable, Seconds};
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
    table: &FlowTable,
    now: Seconds,
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
        table,
        now,
        ingress: 0,
    };
    let flow = table.lookup(&key, table.hash(&key), now);
    let (id, is_stored) = steering.preview(service, &key);
    let backend = id.and_then(|id| snapshot.backend(id));
    let why = match (&backend, is_stored) {
        (Some(_), true) => "the flow is in the table, and a flow keeps its backend".to_owned(),
        (Some(backend), false) => format!(
            "not in the table: its slot on the service's Maglev ring belongs to {}, of {} \
             backends",
            backend.endpoint.to_socket(),
            service.members.len(),
        ),
        (None, _) => "no backend of the service takes new flows".to_owned(),
    };
    json!({
        "service": &*service.name,
        "backend": backend.map(|backend| backend.endpoint.to_socket().to_string()),
        "state": backend.map(|backend| backend.state.as_str()),
        "forward": service.forward.as_str(),
        "stored": is_stored,
        "flow": flow.map(|flow| flow.state.as_str()),
        "why": why,
    })
}
