//! `GET /v1/flows`: the flows of the table, those that are meant, a page at a time.
//!
//! A flow stays in its bucket of the table for as long as it lives, and a page is made of whole
//! buckets, in their order. So a cursor is the number of the next bucket, and however much comes
//! and goes between two pages: a flow that is there all the time is on exactly one of them.

use std::net::IpAddr;
use std::str::FromStr as _;

use ringgate_config::{IpNet, Model};
use ringgate_conntrack::{Direction, Endpoint, FlowKey, FlowTable, Found, Seconds, State};
use ringgate_dataplane::backend::BackendId;
use ringgate_dataplane::newcomers::held;
use ringgate_dataplane::snapshot::Snapshot;
use serde_json::{Value, json};

use super::super::admin::Answer;
use super::super::admin::http::{Request, Response};
use super::super::slab::Key;
use super::super::status::Page;
use super::{Doing, Errand, name};

/// Flows on a page, unless another number is asked for.
const LIMIT_DEFAULT: usize = 100;

/// Flows on a page at most, but for those of the last bucket: some 2 MB of JSON.
const LIMIT_MOST: usize = 10_000;

/// The states that a flow can be in.
const STATES: [State; 7] = [
    State::Opening,
    State::Established,
    State::ClientClosed,
    State::BackendClosed,
    State::Closed,
    State::OneWay,
    State::TwoWay,
];

/// Which flows are meant: all that fit everything that is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Filter {
    service: Option<String>,
    backend: Option<IpOrSocket>,
    client: Option<IpNet>,
    client_port: Option<u16>,
    protocol: Option<u8>,
    state: Option<State>,
}

/// A backend's address, with its port where it has one of its own.
type IpOrSocket = (IpAddr, u16);

/// A search for a page of flows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    filter: Filter,
    limit: usize,
    /// The bucket that is searched next.
    next: u32,
    found: Vec<Value>,
}

/// Begins a search.
pub(super) fn begin(
    request: &Request<'_>,
    key: Key,
    page: &Page<'_>,
    doing: &mut Doing<'_>,
) -> Answer {
    match Listing::of(request, page.model, page.plane.tables().flows.buckets()) {
        Ok(listing) => {
            doing.errands.push(Errand::List { key, listing });
            Answer::Later
        }
        Err(refusal) => Answer::Now(refusal),
    }
}

impl Listing {
    fn of(request: &Request<'_>, model: &Model, buckets: u32) -> Result<Self, Response> {
        let refuse = |message: &str| Response::error(400, message);
        let limit = match request.parameter("limit") {
            None => LIMIT_DEFAULT,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=LIMIT_MOST) => limit,
                _ => {
                    let message = format!("limit must be a number of 1 to {LIMIT_MOST}");
                    return Err(refuse(&message));
                }
            },
        };
        let next = match request.parameter("cursor") {
            None => 0,
            Some(text) => text
                .parse()
                .ok()
                .filter(|next| *next < buckets)
                .ok_or_else(|| refuse("cursor must be what `next` of the page before says"))?,
        };
        let filter = Filter::of(request, model)?;
        Ok(Self {
            filter,
            limit,
            next,
            found: Vec::new(),
        })
    }

    /// Searches so many buckets at most. Whether the page is complete.
    pub(crate) fn go_on(
        &mut self,
        table: &FlowTable,
        snapshot: &Snapshot,
        budget: u32,
        now: Seconds,
    ) -> bool {
        let buckets = table.buckets();
        for bucket in (self.next..buckets).take(usize::try_from(budget).unwrap_or(usize::MAX)) {
            let Self { filter, found, .. } = &mut *self;
            table.for_each_in(bucket..bucket + 1, now, |key, flow| {
                if flow.direction == Direction::FromClient && filter.takes(key, flow, snapshot) {
                    found.push(shown(key, flow, snapshot, now));
                }
            });
            self.next = bucket + 1;
            if self.found.len() >= self.limit {
                return true;
            }
        }
        self.next >= buckets
    }

    /// The page, complete.
    pub(crate) fn into_json(self, table: &FlowTable) -> Value {
        let next = (self.next < table.buckets()).then(|| self.next.to_string());
        json!({ "flows": self.found, "next": next })
    }
}

impl Filter {
    fn of(request: &Request<'_>, model: &Model) -> Result<Self, Response> {
        let refuse = |message: &str| Response::error(400, message);
        let service = name::service(request, model)?;
        let backend = match (request.parameter("backend"), service) {
            (None, _) => None,
            (Some(text), Some(service)) => {
                let address = name::backend_of(service, &text)?.address();
                Some((address.ip(), address.port()))
            }
            (Some(_), None) => return Err(refuse("name the backend's service, too")),
        };
        let (client, client_port) = match request.parameter("client") {
            None => (None, None),
            Some(text) => {
                let (net, port) = client(&text).ok_or_else(|| {
                    refuse("client must be an address, ADDRESS:PORT or a prefix such as 10.0.0.0/8")
                })?;
                (Some(net), port)
            }
        };
        let protocol = match request.parameter("protocol").as_deref() {
            None => None,
            Some("tcp") => Some(6),
            Some("udp") => Some(17),
            Some(_) => return Err(refuse("protocol must be tcp or udp")),
        };
        let state = match request.parameter("state") {
            None => None,
            Some(text) => {
                let state = STATES.into_iter().find(|state| state.as_str() == text);
                let words = STATES.map(State::as_str).join(", ");
                let refusal = || refuse(&format!("state must be one of {words}"));
                Some(state.ok_or_else(refusal)?)
            }
        };
        Ok(Self {
            service: service.map(|service| service.name().to_owned()),
            backend,
            client,
            client_port,
            protocol,
            state,
        })
    }

    fn takes(&self, key: &FlowKey, flow: &Found, snapshot: &Snapshot) -> bool {
        let client = key.source().to_socket();
        let is_client = self.client.is_none_or(|net| net.contains(&client.ip()))
            && self.client_port.is_none_or(|port| port == client.port());
        is_client
            && self.protocol.is_none_or(|one| one == key.protocol())
            && self.state.is_none_or(|state| state == flow.state)
            && self.is_of(key, flow, snapshot)
    }

    fn is_of(&self, key: &FlowKey, flow: &Found, snapshot: &Snapshot) -> bool {
        let Some(name) = &self.service else {
            return true;
        };
        if service_of(key, flow, snapshot) != Some(name) {
            return false;
        }
        let Some(meant) = self.backend else {
            return true;
        };
        let backend = snapshot.backend(BackendId(flow.owner));
        let socket = backend.map(|backend| backend.endpoint.to_socket());
        socket.map(|socket| (socket.ip(), socket.port())) == Some(meant)
    }
}

/// A client: one address, one port of it, or a prefix.
fn client(text: &str) -> Option<(IpNet, Option<u16>)> {
    if let Ok(net) = IpNet::from_str(text) {
        return Some((net, None));
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Some((socket.ip().into(), Some(socket.port())));
    }
    Some((text.parse::<IpAddr>().ok()?.into(), None))
}

/// The name of a flow's service: its backend's, and where that is gone the one that listens there.
fn service_of<'s>(key: &FlowKey, flow: &Found, snapshot: &'s Snapshot) -> Option<&'s str> {
    let by_backend = snapshot
        .backend(BackendId(flow.owner))
        .and_then(|backend| snapshot.service_at(backend.service));
    let service = by_backend.or_else(|| snapshot.service(key.destination(), key.protocol()));
    service.map(|service| &*service.name)
}

fn shown(key: &FlowKey, flow: &Found, snapshot: &Snapshot, now: Seconds) -> Value {
    let text = |endpoint: Endpoint| endpoint.to_socket().to_string();
    let backend = snapshot.backend(BackendId(flow.owner));
    let source = held(flow.whose())
        .and_then(|lease| Some(snapshot.sources()?.source(lease)))
        .map(text);
    json!({
        "protocol": match key.protocol() {
            6 => "tcp",
            17 => "udp",
            _ => "other",
        },
        "client": text(key.source()),
        "to": text(key.destination()),
        "service": service_of(key, flow, snapshot),
        "backend": backend.map(|backend| backend.name()),
        "source": source,
        "state": flow.state.as_str(),
        "idle_seconds": now.0.saturating_sub(flow.last_seen().0),
    })
}
