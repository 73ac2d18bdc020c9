//! `[[service.backend]]`: the servers of a service, and whether their mode fits it.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::scope::Scope;
use super::tunnel::{self, Said};
use super::{Seen, Taken, family};
use crate::address;
use crate::error::{Findings, Kind, quote};
use crate::file::{self, Field};
use crate::limits::{WEIGHT_DEFAULT, WEIGHT_MAX};
use crate::model::{Backend, Forward, Listen, Protocol, Quic, Tunnel};

/// What is known of the service. `None`: it could not be resolved.
pub(super) struct Facts<'m> {
    pub(super) listen: Option<Listen>,
    pub(super) protocol: Option<Protocol>,
    pub(super) forward: Option<Forward>,
    pub(super) stateless: Option<bool>,
    pub(super) quic: Option<Option<Quic>>,
    pub(super) tunnel: Option<Said>,
    pub(super) nat_sources: Option<&'m [IpAddr]>,
}

impl Facts<'_> {
    /// Refuses `forward`, which stands at the key of the table that `scope` is of, where it does not
    /// fit the service.
    pub(super) fn fit(&self, scope: &mut Scope<'_, '_, '_>, forward: Forward, at: &Range<usize>) {
        let listen = self.listen;
        let mut refuse = |found: String, expected: &str, cure: &str| {
            scope.misfit("forward", at, found, expected.to_owned(), cure);
        };
        if let Some(listen) = listen.filter(|listen| listen.address().is_none())
            && forward == Forward::Nat
        {
            refuse(
                format!("nat for {listen}"),
                "one address, since replies would not tell which of a prefix the client asked",
                "write one service for each address, or forward by dsr-l2 or a tunnel",
            );
        }
        if forward == Forward::FullNat && self.stateless == Some(true) {
            refuse(
                "full-nat in a stateless service".to_owned(),
                "a mode without flow entries, since the port that full-nat takes is known by one",
                "forward by nat, dsr-l2 or a tunnel, or remember flows",
            );
        }
        if let (Some(listen), Some(sources)) = (listen, self.nat_sources)
            && forward == Forward::FullNat
            && !sources.iter().any(|ip| ip.is_ipv4() == listen.is_ipv4())
        {
            let family = family(listen.prefix().addr());
            refuse(
                format!("full-nat for {listen} without an {family} source"),
                "an address of the balancer's own that it can take as source",
                "add one to nat-sources in [balancer]",
            );
        }
    }
}

/// What must differ between the backends of one service.
#[derive(Default)]
struct Within {
    addresses: Taken<SocketAddr>,
    server_ids: Taken<String>,
}

/// The backends of a service, in the order of the file.
pub(super) fn resolve<'a>(
    service: &'a file::Service<'a>,
    facts: &Facts<'_>,
    seen: &mut Seen<'a>,
    findings: &mut Findings<'_>,
) -> Option<Vec<Backend>> {
    let mut within = Within::default();
    let backends: Vec<Option<Backend>> = service
        .backends
        .iter()
        .map(|raw| backend(raw, service, facts, (&mut within, &mut *seen), findings))
        .collect();
    let backends: Vec<Backend> = backends.into_iter().collect::<Option<_>>()?;
    if let Some(tunnel) = &service.tunnel {
        let inherits = |raw: &file::Backend<'_>| {
            let own = raw.tunnel.as_ref().map(|raw| &raw.checksum);
            !matches!(own, Some(Field::Given(_)))
        };
        let mut pairs = service.backends.iter().zip(&backends);
        if pairs.any(|(raw, backend)| inherits(raw) && lacks_checksum(backend)) {
            tunnel::warn_checksum(tunnel, findings);
        }
    }
    warn_idle(service, &backends, findings);
    Some(backends)
}

fn backend<'a>(
    raw: &'a file::Backend<'a>,
    service: &'a file::Service<'a>,
    facts: &Facts<'_>,
    (within, seen): (&mut Within, &mut Seen<'a>),
    findings: &mut Findings<'_>,
) -> Option<Backend> {
    let mut scope = Scope {
        path: &raw.path,
        head: &raw.head,
        findings,
    };
    let forward = forward(&mut scope, raw, facts);
    let address = address(&mut scope, raw, facts, forward, seen);
    let tunnel = tunnel(&mut scope, raw, facts, forward, address.as_ref());
    let server_id = server_id(&mut scope, raw, facts, &mut within.server_ids);
    let weight = scope.number("weight", &raw.weight, 0..=WEIGHT_MAX);
    let disabled = Scope::flag(&raw.disabled, false);
    let (address, at) = address?;
    let cure = "join them to one backend, its weight is the sum";
    let expected = "every backend once in a service";
    let place = at.clone();
    scope.unique(
        "address",
        place,
        address,
        &mut within.addresses,
        expected,
        cure,
    )?;
    let (forward, listen) = (forward?, facts.listen?);
    if forward == Forward::Nat
        && let (Some(protocol), Some(stateless)) = (facts.protocol, facts.stateless)
    {
        let who = (at, raw.path.as_str(), service.path.as_str());
        seen.replier(address, listen, protocol, stateless, who);
    }
    let backend = Backend {
        address,
        forward,
        tunnel: tunnel?,
        server_id: server_id?,
        weight: weight?.unwrap_or(WEIGHT_DEFAULT),
        disabled: disabled?,
    };
    if let Some(raw) = raw.tunnel.as_ref().filter(|_| lacks_checksum(&backend)) {
        tunnel::warn_checksum(raw, findings);
    }
    Some(backend)
}

/// Its own mode, or the service's, which has been looked at there.
fn forward(
    scope: &mut Scope<'_, '_, '_>,
    raw: &file::Backend<'_>,
    facts: &Facts<'_>,
) -> Option<Forward> {
    let Field::Given(text) = &raw.forward else {
        return match raw.forward {
            Field::Absent => facts.forward,
            _ => None,
        };
    };
    let forward = scope.word("forward", &raw.forward, None, &[])?;
    facts.fit(scope, forward, &text.span());
    Some(forward)
}

fn address<'a>(
    scope: &mut Scope<'_, '_, '_>,
    raw: &'a file::Backend<'a>,
    facts: &Facts<'_>,
    forward: Option<Forward>,
    seen: &mut Seen<'a>,
) -> Option<(SocketAddr, Range<usize>)> {
    let (text, at) = scope.required("address", &raw.address, "address = \"10.2.0.11:8080\"")?;
    let written = match address::backend(text) {
        Ok(written) => written,
        Err(refusal) => {
            scope.object(Kind::Value, "address", &at, refusal);
            return None;
        }
    };
    seen.backend(written.ip, at.clone(), &raw.path);
    let listen = facts.listen?;
    let mut misfit = |expected: String, cure: &str| {
        scope.misfit("address", &at, quote(text), expected, cure);
    };
    if forward.is_some_and(Forward::keeps_family) && written.ip.is_ipv4() != listen.is_ipv4() {
        let expected = format!(
            "an {} address, as listen is",
            family(listen.prefix().addr())
        );
        let cure = "nat, full-nat and dsr-l2 keep the family: write a service for each family, or use a tunnel";
        misfit(expected, cure);
        return None;
    }
    let port = written.port.filter(|&port| Some(port) != listen.port());
    if let (Some(forward), Some(_)) = (forward, port) {
        if !forward.rewrites_port() {
            let (expected, cure) = match listen.port() {
                Some(port) => (format!("port {port}, as listen has"), "use nat"),
                None => (
                    "no port, since listen has several".to_owned(),
                    "use full-nat",
                ),
            };
            let cure = format!("{forward} rewrites no port: leave the port out, or {cure}");
            misfit(expected, &cure);
            return None;
        }
        if forward == Forward::Nat && listen.port().is_none() {
            let expected = "no port, since listen has several".to_owned();
            let cure = "replies would not tell which port the client asked: leave the port out, or use full-nat";
            misfit(expected, cure);
            return None;
        }
    }
    let port = written.port.or_else(|| listen.port()).unwrap_or(0);
    Some((SocketAddr::new(written.ip, port), at))
}

/// Whether nothing guards the outer header, as over IPv6 is rarely meant.
fn lacks_checksum(backend: &Backend) -> bool {
    let is_gue = backend.forward == Forward::Gue;
    let without = backend.tunnel.is_some_and(|tunnel| !tunnel.checksum);
    is_gue && without && backend.address.is_ipv6()
}

/// The outer `None` is a problem, the inner one a mode that is no tunnel.
fn tunnel(
    scope: &mut Scope<'_, '_, '_>,
    raw: &file::Backend<'_>,
    facts: &Facts<'_>,
    forward: Option<Forward>,
    address: Option<&(SocketAddr, Range<usize>)>,
) -> Option<Option<Tunnel>> {
    let own = Said::read(raw.tunnel.as_ref(), scope.findings);
    if let (Some(raw), Some(forward)) = (&raw.tunnel, forward) {
        tunnel::check_keys(raw, &[forward], scope.findings);
    }
    let (forward, own, service, (address, at)) = (forward?, own?, facts.tunnel?, address?);
    if !forward.is_tunnel() {
        return Some(None);
    }
    tunnel::check_source(scope, raw, (own, service), (address.ip(), at))?;
    Some(own.resolve(service, forward, address.is_ipv4()))
}

/// The outer `None` is a problem, the inner one a service without `quic`.
fn server_id(
    scope: &mut Scope<'_, '_, '_>,
    raw: &file::Backend<'_>,
    facts: &Facts<'_>,
    taken: &mut Taken<String>,
) -> Option<Option<Box<[u8]>>> {
    let quic = match (facts.quic, &raw.server_id) {
        (Some(None), Field::Absent) => return Some(None),
        (Some(None), Field::Given(text)) => {
            let found = quote(text.get_ref());
            let expected = "none, since the service has no quic".to_owned();
            let cure = "remove it, or add quic to the service";
            scope.misfit("server-id", &text.span(), found, expected, cure);
            return None;
        }
        (quic, _) => quic.flatten(),
    };
    let example = quic.map_or(2, |quic| usize::from(quic.server_id_bytes));
    let example = format!("server-id = \"{}\"", "0a".repeat(example));
    if quic.is_none() && matches!(raw.server_id, Field::Absent) {
        return None;
    }
    let (text, at) = scope.required("server-id", &raw.server_id, &example)?;
    let Some(id) = hex(text) else {
        let expected = "an even number of hexadecimal digits".to_owned();
        let cure = format!("write two for each byte, like {example}");
        scope.refuse("server-id", &at, quote(text), expected, cure);
        return None;
    };
    let quic = quic?;
    if id.len() != usize::from(quic.server_id_bytes) {
        let found = format!("{} bytes", id.len());
        let expected = format!("{}, as server-id-bytes says", quic.server_id_bytes);
        let cure = format!("write it like {example}");
        scope.misfit("server-id", &at, found, expected, cure);
        return None;
    }
    let expected = "an id of its own in the service";
    let cure = "a connection id names one server: give each another";
    let spelt = text.to_ascii_lowercase();
    scope.unique("server-id", at, spelt, taken, expected, cure)?;
    Some(Some(id))
}

/// The bytes that pairs of hexadecimal digits say.
fn hex(text: &str) -> Option<Box<[u8]>> {
    let digit = |byte: &u8| u8::try_from(char::from(*byte).to_digit(16)?).ok();
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs
        .iter()
        .map(|[high, low]| Some(digit(high)? << 4 | digit(low)?));
    let bytes = bytes.collect::<Option<Box<[u8]>>>()?;
    (rest.is_empty() && !bytes.is_empty()).then_some(bytes)
}

fn warn_idle(service: &file::Service<'_>, backends: &[Backend], findings: &mut Findings<'_>) {
    let mut scope = Scope {
        path: &service.path,
        head: &service.head,
        findings,
    };
    let (found, cure) = if backends.is_empty() {
        (
            "there is no backend, so nothing can be served",
            "add a [[service.backend]]",
        )
    } else if backends.iter().all(Backend::disabled) {
        (
            "every backend is disabled, so nothing can be served",
            "enable one",
        )
    } else if backends
        .iter()
        .all(|backend| backend.disabled || backend.weight == 0)
    {
        (
            "no backend has a weight, so no new flow is served",
            "give one a weight above 0",
        )
    } else {
        return;
    };
    scope.warn("", &service.head, found.to_owned(), cure.to_owned());
}
