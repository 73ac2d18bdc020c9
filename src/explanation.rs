//! What would become of a packet, and why: the answer of `explain`, for a running balancer and for a
//! configuration file alike.
//!
//! The packet is rehearsed ([`rehearse`]): it goes through a worker's own code, with the tables as they are,
//! and nothing comes of it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use ringgate_config::{Choose, Model, Via};
use ringgate_conntrack::fragments::FragmentTable;
use ringgate_conntrack::{Endpoint, FlowKey};
use ringgate_dataplane::backend::Backend;
use ringgate_dataplane::clock::Millis;
use ringgate_dataplane::newcomers::{Newcomers, Tables, held};
use ringgate_dataplane::parse::{Family, parse};
use ringgate_dataplane::rehearsal::{self, rehearse};
use ringgate_dataplane::route::PortIndex;
use ringgate_dataplane::snapshot::Snapshot;
use ringgate_dataplane::steer::Steering;
use ringgate_dataplane::wire::ethernet::Mac;
use ringgate_dataplane::wire::vlan::{TPID_CUSTOMER, TPID_SERVICE, Tag, Tags};
use serde_json::{Map, Value, json};

use crate::control::checks::{kind_of, spec_of};

pub(crate) mod layers;
mod sample;
pub(crate) mod telling;

use sample::Sample;
use telling::Telling;

/// Longest packet that can be asked about, bytes: what a frame takes.
const LONGEST: usize = 1792;

/// Whoever is before the balancer where nobody is known to be.
const SOMEBODY: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    /// A packet that is made up.
    Flow {
        protocol: u8,
        from: SocketAddr,
        to: SocketAddr,
        is_open: bool,
        size: usize,
    },
    /// The operator's own.
    Frame(Vec<u8>),
}

/// A packet, and how it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    asked: Asked,
    /// By this interface; else by the one that leads to its sender.
    interface: Option<String>,
    /// With these tags, outer one first; else with those of the way to its sender.
    vlans: Option<Vec<u16>>,
}

/// By what it is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    /// What the operator said.
    pub(crate) model: &'a Model,
    /// What became of it.
    pub(crate) snapshot: &'a Snapshot,
    /// The flows.
    pub(crate) tables: &'a Tables,
    /// The datagrams whose fragments are followed, if there are any.
    pub(crate) fragments: Option<&'a FragmentTable>,
    /// The interfaces' names, in port order.
    pub(crate) interfaces: &'a [String],
    /// The time.
    pub(crate) now: Millis,
}

impl Question {
    /// Reads the parameters of a request, or of a command line.
    ///
    /// # Errors
    ///
    /// What was found, and what is expected.
    pub(crate) fn read<'p>(
        parameter: impl Fn(&str) -> Option<Cow<'p, str>>,
    ) -> Result<Self, String> {
        let asked = match parameter("frame") {
            Some(hex) => Asked::Frame(from_hex(&hex)?),
            None => flow(&parameter)?,
        };
        let vlans = parameter("vlan").map(|text| vlans(&text)).transpose()?;
        Ok(Self {
            asked,
            interface: parameter("interface").map(Cow::into_owned),
            vlans,
        })
    }

    /// Who sent it, if that can be told.
    fn sender(&self) -> Option<SocketAddr> {
        match &self.asked {
            Asked::Flow { from, .. } => Some(*from),
            Asked::Frame(_) => None,
        }
    }

    /// Its flow, if it has one.
    fn key(&self) -> Option<FlowKey> {
        match &self.asked {
            Asked::Flow {
                protocol, from, to, ..
            } => {
                let [from, to] = [*from, *to].map(Endpoint::from_socket);
                Some(FlowKey::new(*protocol, from, to))
            }
            Asked::Frame(frame) => parse(frame, false).ok().map(|packet| packet.key),
        }
    }

    /// The interface that it comes in by.
    fn ingress(&self, scene: &Scene<'_>) -> Result<PortIndex, String> {
        let position = match &self.interface {
            Some(name) => {
                let known = scene.interfaces.iter().position(|one| one == name);
                known.ok_or_else(|| {
                    let all = scene.interfaces.join(", ");
                    format!("{name:?} is no interface of the balancer; there are {all}")
                })?
            }
            None => self.likely_ingress(scene),
        };
        Ok(PortIndex::try_from(position).unwrap_or(PortIndex::MAX))
    }

    fn likely_ingress(&self, scene: &Scene<'_>) -> usize {
        let fib = scene.snapshot.fib();
        match &self.asked {
            Asked::Flow { .. } => self.way_back(scene).map_or(0, |hop| usize::from(hop.port)),
            Asked::Frame(frame) => {
                let to = frame.first_chunk::<6>().map(|bytes| Mac(*bytes));
                let mut links = fib.links().iter();
                links.position(|link| Some(link.mac) == to).unwrap_or(0)
            }
        }
    }

    /// The way to its sender.
    fn way_back<'a>(&self, scene: &Scene<'a>) -> Option<&'a ringgate_dataplane::route::Hop> {
        let from = Endpoint::from_socket(self.sender()?);
        let family = if from.is_v4() { Family::V4 } else { Family::V6 };
        scene.snapshot.fib().hop(from.address, family).ok()
    }

    /// The packet as it comes in by `ingress`.
    fn frame(&self, scene: &Scene<'_>, ingress: PortIndex) -> Result<Vec<u8>, String> {
        let (protocol, from, to, is_open, size) = match &self.asked {
            Asked::Frame(frame) => return Ok(frame.clone()),
            Asked::Flow {
                protocol,
                from,
                to,
                is_open,
                size,
            } => (*protocol, *from, *to, *is_open, *size),
        };
        let hop = self.way_back(scene).filter(|hop| hop.port == ingress);
        let tags = match (&self.vlans, hop) {
            (Some(vlans), _) => tags(vlans),
            (None, Some(hop)) => hop.tags,
            (None, None) => Tags::NONE,
        };
        let own = scene.snapshot.fib().links().get(usize::from(ingress));
        let own = hop
            .map(|hop| hop.source)
            .or_else(|| own.map(|link| link.mac));
        let sample = Sample {
            protocol,
            from,
            to,
            is_open,
            size,
            tags,
            macs: [
                own.unwrap_or_default(),
                hop.map_or(SOMEBODY, |hop| hop.destination),
            ],
        };
        let frame = sample.frame();
        frame.ok_or_else(|| "from and to must be of one IP version".to_owned())
    }
}

/// Answers without changing anything.
///
/// # Errors
///
/// What is wrong with the question.
pub(crate) fn explain(question: &Question, scene: &Scene<'_>) -> Result<Value, String> {
    let ingress = question.ingress(scene)?;
    let frame = question.frame(scene, ingress)?;
    let stage = rehearsal::Scene {
        snapshot: scene.snapshot,
        tables: scene.tables,
        fragments: scene.fragments,
        interfaces: scene.interfaces.len(),
        now: scene.now,
    };
    let record = rehearse(&frame, ingress, &stage).map_err(|error| error.to_string())?;
    let telling = Telling {
        snapshot: scene.snapshot,
        interfaces: scene.interfaces,
        now: scene.now.seconds(),
    };
    let mut answer = telling.tell(&record);
    if let (Some(key), Some(answer)) = (question.key(), answer.as_object_mut()) {
        answer.append(&mut of_flow(&key, scene));
    }
    answer["check"] = check_of(&answer, scene.model);
    Ok(answer)
}

/// How the backend of an answer is checked; null if it is not, or if there is none.
fn check_of(answer: &Value, model: &Model) -> Value {
    let is_named = |service: &&ringgate_config::Service| answer["service"] == service.name();
    let service = model.services().iter().find(is_named);
    let check = service.and_then(|service| {
        let mut backends = service.backends().iter();
        let backend = backends.find(|one| answer["backend"] == one.name())?;
        Some((kind_of(service)?, spec_of(service, backend)?))
    });
    let Some((kind, spec)) = check else {
        return Value::Null;
    };
    let (via, asked) = match spec.path {
        Some(path) => (Via::Service, path.asked),
        None => (Via::Backend, spec.address),
    };
    json!({
        "kind": kind,
        "interval_ms": u64::try_from(spec.pace.interval.as_millis()).unwrap_or(u64::MAX),
        "via": via.as_str(),
        "asked": asked.to_string(),
    })
}

/// Which backend a client's flow has or would get, whether or not a packet reaches it now; nothing where
/// it is no client's.
fn of_flow(key: &FlowKey, scene: &Scene<'_>) -> Map<String, Value> {
    let (snapshot, tables) = (scene.snapshot, scene.tables);
    let Some(service) = snapshot.service(key.destination(), key.protocol()) else {
        let why = format!("no service listens on {}", key.destination().to_socket());
        return Map::from_iter([("why".to_owned(), why.into())]);
    };
    let steering = Steering {
        snapshot,
        table: &tables.flows,
        newcomers: &Newcomers::new(Arc::clone(&tables.half_open), 1, 1, scene.now),
        now: scene.now.seconds(),
        ingress: 0,
    };
    let flows = &tables.flows;
    let flow = flows.lookup(key, flows.hash(key), scene.now.seconds());
    let waiting = || {
        let half_open = steering.newcomers.half_open();
        half_open.lookup(key, flows.hash(key), steering.newcomers.tick())
    };
    let source = flow.or_else(waiting).and_then(|flow| {
        let (lease, sources) = (held(flow.whose())?, snapshot.sources()?);
        Some(sources.source(lease).to_string())
    });
    let (id, is_stored) = steering.preview(service, key);
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
    let told = json!({
        "service": &*service.name,
        "backend": backend.map(Backend::name),
        "state": backend.map(|backend| backend.state.as_str()),
        "forward": backend.map_or(service.forward, |backend| backend.forward).as_str(),
        "source": source,
        "stored": is_stored,
        "flow": flow.map(|flow| flow.state.as_str()),
        "why": why,
    });
    match told {
        Value::Object(told) => told,
        _ => Map::new(),
    }
}

/// The packet that is to be made up.
fn flow<'p>(parameter: &impl Fn(&str) -> Option<Cow<'p, str>>) -> Result<Asked, String> {
    let protocol = match parameter("protocol").as_deref() {
        Some("tcp") => 6,
        Some("udp") => 17,
        _ => return Err("protocol must be tcp or udp, unless a frame is given".to_owned()),
    };
    let socket = |name, whose| {
        let text = parameter(name);
        let socket = text.and_then(|text| text.parse::<SocketAddr>().ok());
        socket.ok_or_else(|| format!("{name} must be the {whose}'s ADDRESS:PORT"))
    };
    let size = match parameter("size").map(|text| text.parse()) {
        None => 0,
        Some(Ok(size)) if size <= LONGEST => size,
        Some(_) => return Err(format!("size must be a number of bytes up to {LONGEST}")),
    };
    Ok(Asked::Flow {
        protocol,
        from: socket("from", "client")?,
        to: socket("to", "service")?,
        is_open: parameter("open").as_deref() == Some("true"),
        size,
    })
}

/// The bytes of a frame; spaces, colons and line ends between them do not matter.
fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|one| !one.is_whitespace() && *one != ':')
        .map(|one| one.to_digit(16))
        .collect::<Option<_>>()
        .ok_or("the frame must be hexadecimal digits, from its Ethernet header on")?;
    let (pairs, odd) = digits.as_chunks::<2>();
    if !odd.is_empty() || pairs.is_empty() {
        return Err("the frame must be whole bytes, two hexadecimal digits each".to_owned());
    }
    let bytes = pairs
        .iter()
        .map(|[high, low]| u8::try_from(high << 4 | low));
    Ok(bytes.flatten().collect())
}

/// VLAN numbers, as `100`, or the outer one first as `200,20`.
fn vlans(text: &str) -> Result<Vec<u16>, String> {
    let numbers: Result<Vec<u16>, _> = text.split(',').map(str::parse).collect();
    let is_possible = |ids: &Vec<u16>| ids.len() <= 2 && ids.iter().all(|id| *id < 4095);
    match numbers {
        Ok(ids) if ids == [0] => Ok(Vec::new()),
        Ok(ids) if is_possible(&ids) => Ok(ids),
        _ => Err(
            "vlan must be a VLAN's number, the outer and the inner one as 200,20, or 0 for none"
                .to_owned(),
        ),
    }
}

fn tags(ids: &[u16]) -> Tags {
    let tag = |tpid, tci| Tag { tpid, tci };
    match ids {
        [] => Tags::NONE,
        [one] => Tags::one(tag(TPID_CUSTOMER, *one)),
        [outer, inner, ..] => Tags::two(tag(TPID_SERVICE, *outer), tag(TPID_CUSTOMER, *inner)),
    }
}

#[cfg(test)]
mod tests;
