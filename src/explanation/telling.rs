//! A packet's way in words: each stage of it with what was found there and what followed, from the record
//! that a worker has made.
//!
//! Names are those of the snapshot that was decided by. Where that is gone, those of the newest.

use std::net::IpAddr;

use ringgate_config::Choose;
use ringgate_conntrack::{Direction, Endpoint, FlowKey, Found, Seconds};
use ringgate_dataplane::backend::Backend;
use ringgate_dataplane::icmp::Concern;
use ringgate_dataplane::parse::{Family, Packet};
use ringgate_dataplane::route::PortIndex;
use ringgate_dataplane::service::{Order, Service};
use ringgate_dataplane::snapshot::Snapshot;
use ringgate_dataplane::steer::{FlowEvent, Refusal};
use ringgate_dataplane::tap::{By, Bytes, Decided, Done, Fate, Look, Record};
use ringgate_dataplane::verdict::DropReason;
use ringgate_dataplane::wire::vlan::Tags;
use ringgate_dataplane::wire::{icmpv4, icmpv6, tcp, udp};
use serde_json::{Value, json};

use super::layers::{self, layers};

/// Backends that are named in one sentence.
const NAMED_MOST: usize = 8;

/// What it is told with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Telling<'a> {
    /// What was decided by, or what there is.
    pub(crate) snapshot: &'a Snapshot,
    /// The interfaces' names, in port order.
    pub(crate) interfaces: &'a [String],
    /// The time on the flow table's clock.
    pub(crate) now: Seconds,
}

/// The verdict in a word.
pub(crate) const fn verdict(fate: Fate) -> &'static str {
    match fate {
        Fate::Forwarded(_) => "forwarded",
        Fate::Answered(_) => "answered",
        Fate::Dropped(_) => "dropped",
        Fate::Held => "held",
    }
}

impl Telling<'_> {
    /// The whole record as JSON.
    pub(crate) fn tell(&self, record: &Record) -> Value {
        let reason = match record.fate {
            Fate::Dropped(reason) => Some(reason),
            _ => None,
        };
        let backend = self.backend(record);
        let steps = self.steps(record).into_iter();
        let steps: Vec<Value> = steps
            .map(|(stage, said)| json!({ "stage": stage, "said": said }))
            .collect();
        json!({
            "worker": record.worker,
            "generation": record.generation,
            "summary": self.summary(record),
            "in": self.interface(record.ingress),
            "out": record.fate.egress().map(|port| self.interface(port)),
            "verdict": verdict(record.fate),
            "reason": reason.map(DropReason::name),
            "cure": reason.map(DropReason::cure),
            "service": self.service(record).map(|service| &*service.name),
            "backend": backend.map(Backend::name),
            "steps": steps,
            "before": bytes(&record.before),
            "after": bytes(&record.after),
        })
    }

    /// What a capture's packet is commented with.
    pub(crate) fn comment(&self, record: &Record) -> String {
        let mut said = match record.fate {
            Fate::Forwarded(port) => format!("forwarded by {}", self.interface(port)),
            Fate::Answered(port) => format!("answered by {}", self.interface(port)),
            Fate::Dropped(reason) => format!("dropped: {}: {}", reason.name(), reason.meaning()),
            Fate::Held => "held until the first fragment of its datagram comes".to_owned(),
        };
        if let Some(service) = self.service(record) {
            said += &format!("; service {}", service.name);
        }
        if let Some(backend) = self.backend(record) {
            said += &format!("; backend {}", backend.name());
        }
        said + &format!("; worker {}", record.worker)
    }

    fn interface(&self, port: PortIndex) -> String {
        let name = self.interfaces.get(usize::from(port));
        name.cloned().unwrap_or_else(|| format!("port {port}"))
    }

    fn service(&self, record: &Record) -> Option<&Service> {
        let index = match self.backend(record) {
            // A backend's id is its own in every snapshot.
            Some(backend) => Some(backend.service),
            None => record.service,
        };
        self.snapshot.service_at(index?)
    }

    fn backend(&self, record: &Record) -> Option<&Backend> {
        self.snapshot.backend(record.backend?)
    }

    /// The packet in a line, as it came; as it left where that is not known any more.
    fn summary(&self, record: &Record) -> String {
        let bytes = match record.before.whole() {
            0 => &record.after,
            _ => &record.before,
        };
        let look = match &record.parsed {
            Some(Ok(packet)) => Look::of_packet(packet),
            _ => Look::of(bytes.bytes()),
        };
        let Some(family) = look.family else {
            return format!("no IP, {} bytes", bytes.whole());
        };
        let mut what = protocol_name(look.protocol, family);
        if look.tcp_flags != 0 {
            what += &format!(" {}", layers::flags(look.tcp_flags));
        }
        if look.is_fragment {
            what += " fragment";
        }
        let ends = format!("{} > {}", end(look.source), end(look.destination));
        format!("{ends}  {what}, {} bytes", bytes.whole())
    }

    /// Each stage with what is to be said of it.
    fn steps(&self, record: &Record) -> Vec<(&'static str, String)> {
        let mut steps = vec![("parse", self.parsed(record))];
        let concern = record
            .concern
            .as_ref()
            .map(|one| ("icmp", self.concern(one)));
        steps.extend(concern);
        steps.push(("service", self.asked(record)));
        if let Some(Ok(packet)) = &record.parsed
            && record.service.is_some()
        {
            steps.push(("tables", self.tables(record)));
            steps.extend(self.choice(record, packet).map(|said| ("choice", said)));
        }
        if let Some(backend) = self.backend(record) {
            steps.push(("backend", self.standing(backend)));
        }
        if let Some(decided) = &record.decided {
            let event = event(decided.event, record.by);
            steps.extend(event.map(|said| ("flow", said.to_owned())));
            steps.push(("hop", self.hop(decided)));
            steps.push(("rewrite", rewrite(decided)));
        }
        let refused = record
            .refusal
            .and_then(|refusal| self.refused(record, &refusal));
        steps.extend(refused.map(|said| ("refused", said)));
        steps.push(("verdict", self.verdict(record)));
        steps
    }

    fn parsed(&self, record: &Record) -> String {
        let from = self.interface(record.ingress);
        match &record.parsed {
            None => format!("a fragment that came by {from} and was held"),
            Some(Ok(packet)) => {
                let family = family_name(packet.family);
                let kind = protocol_name(packet.key.protocol(), packet.family);
                let flags = match packet.tcp_flags {
                    0 => String::new(),
                    flags => format!(" {}", layers::flags(flags)),
                };
                let partial = match packet.partial {
                    true => ", checksum left unfinished by a stack on this machine",
                    false => "",
                };
                format!(
                    "by {from}: {family} {kind}{flags}, {} bytes, {} hops left, {}{partial}",
                    packet.ip_len,
                    packet.ttl,
                    tags(packet.tags),
                )
            }
            Some(Err(DropReason::Fragment)) => {
                format!("by {from}: a fragment, followed by its datagram")
            }
            Some(Err(DropReason::UnsupportedProtocol)) => {
                format!("by {from}: neither TCP nor UDP: looked at as ICMP")
            }
            Some(Err(reason)) => format!("by {from}: refused: {}", reason.meaning()),
        }
    }

    fn concern(&self, concern: &Concern) -> String {
        let flow = |flow: &FlowKey| {
            let (source, destination) = (end(flow.source()), end(flow.destination()));
            format!("about a packet {source} > {destination}")
        };
        match concern {
            Concern::Echo => "a request to echo".to_owned(),
            Concern::Client(key) => format!("an error {}: for the client that sent it", flow(key)),
            Concern::Backend(key, _) => {
                format!("an error {}: for the backend that sent it", flow(key))
            }
            Concern::Unknown(key, _) => format!(
                "an error {}, whose flow is in no table: for the backend that the ring names, and \
                 if a packet was too big for the others too",
                flow(key)
            ),
            Concern::Tunnel(key) => {
                format!(
                    "an error from within a tunnel, {}: for its sender",
                    flow(key)
                )
            }
            Concern::Nobody(Some(key)) => format!("an error {}: nobody's here", flow(key)),
            Concern::Nobody(None) => "an error that does not quote enough".to_owned(),
        }
    }

    fn asked(&self, record: &Record) -> String {
        let Some(service) = self.service(record) else {
            return self.not_asked(record);
        };
        let (name, listen) = (&service.name, &service.listen);
        let protocol = number_name(service.protocol);
        let is_reply = record.decided.is_some_and(|decided| decided.is_reply());
        let how = match (&record.parsed, is_reply) {
            (_, true) => "one of its backends answers".to_owned(),
            (Some(Ok(packet)), _) if is_at(service, packet.key.source()) => {
                "the packet seems to come from it".to_owned()
            }
            (Some(Ok(_)) | None, _) => format!("listens on {protocol} {listen}"),
            (Some(Err(_)), _) => format!("{protocol} {listen}"),
        };
        let vlan = service.vlan.map(|vlan| match vlan.inner {
            Some(inner) => format!(", in VLAN {} in {}", inner, vlan.outer),
            None => format!(", in VLAN {}", vlan.outer),
        });
        format!("{name}: {how}{}", vlan.unwrap_or_default())
    }

    fn not_asked(&self, record: &Record) -> String {
        let look = match &record.parsed {
            Some(Ok(packet)) => Look::of_packet(packet),
            _ => Look::of(record.before.bytes()),
        };
        let Some(family) = look.family else {
            return "not asked".to_owned();
        };
        let (from, to) = (look.source, look.destination);
        if self.snapshot.is_service_address(to.address) && look.protocol_has_ports() {
            let protocol = protocol_name(look.protocol, family);
            let here = self.snapshot.services().iter();
            let here = here.filter(|one| one.listen.prefix().contains(&to.to_socket().ip()));
            let here: Vec<String> = here
                .take(NAMED_MOST)
                .map(|one| format!("{} {}", number_name(one.protocol), one.listen))
                .collect();
            return format!(
                "none listens on {protocol} {}; on this address there is {}",
                end(to),
                here.join(", ")
            );
        }
        if matches!(record.concern, Some(Concern::Echo)) {
            return "any service's address answers an echo".to_owned();
        }
        format!(
            "none listens on {}, and {} is no backend whose replies return here",
            end(to),
            end(from)
        )
    }

    fn tables(&self, record: &Record) -> String {
        let found = |found: &Found, table: &str| {
            let sender = match found.direction {
                Direction::FromClient => "as its client's",
                Direction::FromBackend => "as its backend's",
            };
            let state = found.state.as_str();
            format!("the flow is in the {table}, {sender}, {state}")
        };
        let is_stateless = self
            .service(record)
            .is_some_and(|service| service.stateless);
        match (&record.stored, &record.half_open) {
            _ if is_stateless => "not asked: the service stores no flows".to_owned(),
            (Some(one), _) => {
                let age = self.now.0.saturating_sub(one.last_seen().0);
                format!("{}, noted {age} s ago", found(one, "flow table"))
            }
            (None, Some(one)) => found(one, "table of half-open flows"),
            (None, None) => "in neither: the flow is not known".to_owned(),
        }
    }

    /// Of a client's packet: why it has this backend, or none.
    fn choice(&self, record: &Record, packet: &Packet) -> Option<String> {
        let service = self.service(record)?;
        if record.decided.is_some_and(|decided| decided.is_reply())
            || !is_at(service, packet.key.destination())
        {
            return None;
        }
        if matches!(record.refusal, Some(refusal) if refusal.reason == DropReason::NoBackend) {
            return Some(self.nobody(service));
        }
        let backend = self.backend(record)?;
        let known = record.stored.or(record.half_open);
        match known {
            Some(found) if found.owner == backend.id.0 => {
                return Some("a flow keeps its backend".to_owned());
            }
            Some(found) if record.decided.map(|one| one.event) == Some(FlowEvent::Rehashed) => {
                let before = self
                    .snapshot
                    .backend(ringgate_dataplane::backend::BackendId(found.owner));
                let before = match before {
                    Some(one) => format!("{} is {}", one.name(), one.state.as_str()),
                    None => "its backend is gone".to_owned(),
                };
                let after = backend.name();
                return Some(format!("{before}: the flow goes to {after} from now on"));
            }
            _ => {}
        }
        Some(choice(service, &packet.key, backend))
    }

    /// Why no backend of a service takes a flow.
    fn nobody(&self, service: &Service) -> String {
        let all = service
            .members
            .iter()
            .filter_map(|id| self.snapshot.backend(*id));
        let each: Vec<String> = all
            .take(NAMED_MOST)
            .map(|one| format!("{} is {}", one.name(), one.state.as_str()))
            .collect();
        let more = match service.members.len().saturating_sub(NAMED_MOST) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("no backend takes new flows: {}{more}", each.join(", "))
    }

    fn standing(&self, backend: &Backend) -> String {
        let state = backend.state.as_str();
        let service = self.snapshot.service_at(backend.service);
        let scale = service.map_or(1, |service| service.weight_scale.max(1));
        let weight = backend.weight / scale;
        let open = match service.is_some_and(|service| service.fallen_open) {
            true => ", sent to although it is down, since no backend is up",
            false => "",
        };
        let mode = backend.forward.as_str();
        format!(
            "{} is {state}{open}, weight {weight}, by {mode}",
            backend.name()
        )
    }

    fn hop(&self, decided: &Decided) -> String {
        let hop = &decided.hop;
        let tags = match (hop.tags.is_none(), hop.keeps_tags) {
            (true, true) => "the VLAN tags that it came with".to_owned(),
            _ => tags(hop.tags),
        };
        let [to, from] = [hop.destination, hop.source].map(mac);
        let port = self.interface(hop.port);
        format!("by {port} from {from} to {to}, MTU {}, {tags}", hop.mtu)
    }

    /// Why it was refused, as far as more can be said than the verdict does.
    fn refused(&self, record: &Record, refusal: &Refusal) -> Option<String> {
        let packet = match &record.parsed {
            Some(Ok(packet)) => Some(packet),
            _ => None,
        };
        Some(match refusal.reason {
            DropReason::TooBig => {
                let len = packet.map_or(0, |packet| packet.ip_len);
                let most = refusal.mtu.map(|mtu| format!(", and {mtu} would fit"));
                format!("the packet has {len} bytes{}", most.unwrap_or_default())
            }
            DropReason::NoNeighbour => {
                let wanted = refusal.wanted?;
                let address = address(wanted.address);
                format!("the hardware address of the next hop {address} is not known")
            }
            DropReason::NoRoute => {
                let towards = self.towards(record, packet?)?;
                format!("no route to {towards} leads through an interface of the balancer")
            }
            DropReason::WrongVlan => {
                let vlan = self.service(record)?.vlan?;
                let inner = vlan.inner.map(|inner| format!(" and {inner} in it"));
                let wanted = format!("VLAN {}{}", vlan.outer, inner.unwrap_or_default());
                format!(
                    "it came with {}, and the service is in {wanted}",
                    tags(packet?.tags)
                )
            }
            DropReason::TtlExpired => format!("it has {} hops left", packet?.ttl),
            _ => return None,
        })
    }

    /// Where a packet was to go: a backend, or the client of a reply.
    fn towards(&self, record: &Record, packet: &Packet) -> Option<IpAddr> {
        let service = self.service(record)?;
        if !is_at(service, packet.key.destination()) {
            return Some(packet.key.destination().to_socket().ip());
        }
        let backend = self.backend(record).or_else(|| {
            let id = service.preview(&packet.key, |_| 0)?;
            self.snapshot.backend(id)
        })?;
        Some(backend.endpoint.to_socket().ip())
    }

    fn verdict(&self, record: &Record) -> String {
        match record.fate {
            Fate::Forwarded(port) => format!("forwarded by {}", self.interface(port)),
            Fate::Answered(port) => format!("answered by {}", self.interface(port)),
            Fate::Held => {
                "held for a moment: the first fragment of its datagram was not seen".into()
            }
            Fate::Dropped(reason) => {
                format!(
                    "dropped as {}: {} {}",
                    reason.name(),
                    reason.meaning(),
                    capital(reason.cure())
                )
            }
        }
    }
}

/// How a flow that is not known gets its backend.
fn choice(service: &Service, key: &FlowKey, backend: &Backend) -> String {
    let (name, all) = (backend.name(), service.members.len());
    let slot = service
        .slot(key)
        .map(|(slot, of)| format!("slot {slot} of {of}"));
    let slot = slot.unwrap_or_else(|| "no slot".to_owned());
    let by = match (service.choose, &service.order) {
        _ if service.quic.is_some() => {
            format!("by the connection id of QUIC, or without one by the ring ({slot})")
        }
        (_, Order::Turns(_)) => "by turns".to_owned(),
        (_, Order::Fewest(_)) => "by the fewest flows for its weight".to_owned(),
        (Choose::SourceHash, _) => format!("by its client's address, {slot} of the ring"),
        _ => format!("by {slot} of the ring"),
    };
    format!("{name}, {by}, of {all} backends")
}

/// What became of its flow.
const fn event(event: FlowEvent, by: By) -> Option<&'static str> {
    Some(match event {
        FlowEvent::None => match by {
            By::TheUsual => "goes on as before",
            _ => return None,
        },
        FlowEvent::Created => "stored",
        FlowEvent::HalfOpen { .. } => "remembered as half open",
        FlowEvent::Rehashed => "given to another backend",
        FlowEvent::TableFull => "not stored: the table has no room where it belongs",
        FlowEvent::Contended => "not stored: another worker was writing there",
        FlowEvent::OutOfWindow => "left as it was: the packet cannot be its sender's own",
        FlowEvent::TooFast => "not stored: datagram flows begin faster than the limit",
    })
}

fn rewrite(decided: &Decided) -> String {
    let mut said = match decided.done {
        Done::Direct => "nothing but the hardware addresses".to_owned(),
        Done::ToBackend(to) => format!("sent to {} instead, one hop less", end(to)),
        Done::ToClient(from) => format!("sent from {} instead, one hop less", end(from)),
        Done::Encapsulate(to, bytes) => {
            format!(
                "within a packet to {}, {bytes} bytes more, one hop less",
                address(to)
            )
        }
        Done::Exchange(ends, _) => format!(
            "sent from {} to {} instead, one hop less",
            end(ends.source),
            end(ends.destination)
        ),
    };
    if let Some(most) = decided.most_segment {
        said += &format!(", segment size lowered to {most} where it is more");
    }
    said
}

/// Whether packets to `endpoint` are a service's, or from it.
fn is_at(service: &Service, endpoint: Endpoint) -> bool {
    service.listen.covers(endpoint.to_socket())
}

fn bytes(bytes: &Bytes) -> Value {
    if bytes.whole() == 0 {
        return Value::Null;
    }
    let kept = bytes.bytes();
    let hex: String = kept.iter().map(|byte| format!("{byte:02x}")).collect();
    let layers = layers(kept).into_iter();
    let layers: Vec<Value> = layers
        .map(|one| json!({ "name": one.name, "at": one.at.start, "end": one.at.end, "said": one.said }))
        .collect();
    json!({ "length": bytes.whole(), "hex": hex, "layers": layers })
}

fn tags(tags: Tags) -> String {
    match (tags.outer(), tags.inner()) {
        (None, _) => "no VLAN tag".to_owned(),
        (Some(outer), None) => format!("VLAN {}", outer.id()),
        (Some(outer), Some(inner)) => format!("VLAN {} in {}", inner.id(), outer.id()),
    }
}

fn mac(mac: ringgate_dataplane::wire::ethernet::Mac) -> String {
    let bytes = mac.0.iter().map(|byte| format!("{byte:02x}"));
    bytes.collect::<Vec<_>>().join(":")
}

/// An endpoint; without a port where there is none.
fn end(endpoint: Endpoint) -> String {
    let socket = endpoint.to_socket();
    match socket.port() {
        0 => socket.ip().to_string(),
        _ => socket.to_string(),
    }
}

fn address(address: [u64; 2]) -> IpAddr {
    Endpoint { address, port: 0 }.to_socket().ip()
}

const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn number_name(protocol: u8) -> String {
    match protocol {
        tcp::PROTOCOL => "tcp".to_owned(),
        udp::PROTOCOL => "udp".to_owned(),
        other => format!("protocol {other}"),
    }
}

fn protocol_name(protocol: u8, family: Family) -> String {
    match (protocol, family) {
        (tcp::PROTOCOL, _) => "TCP".to_owned(),
        (udp::PROTOCOL, _) => "UDP".to_owned(),
        (icmpv4::PROTOCOL, Family::V4) => "ICMP".to_owned(),
        (icmpv6::PROTOCOL, Family::V6) => "ICMPv6".to_owned(),
        (other, _) => format!("protocol {other}"),
    }
}

/// A sentence of it.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), chars.as_str())
}
