//! `[[service]]`, its health check and its backends.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::ops::Range;
use std::time::Duration;

use super::scope::Scope;
use super::{Seen, Taken, timeouts};
use crate::address::{self, Role};
use crate::duration::Spelt;
use crate::error::{Findings, Kind, quote};
use crate::file::{self, Field, LATER_KINDS};
use crate::limits::{
    FALL_DEFAULT, INTERVAL_DEFAULT, INTERVAL_MAX, INTERVAL_MIN, RISE_DEFAULT,
    SERVICE_NAME_BYTES_MAX, SLOTS_PER_BACKEND, SLOW_START_MAX, STREAK_MAX, TABLE_SIZE_DEFAULT,
    TABLE_SIZE_MAX, TABLE_SIZE_MIN, TIMEOUT_DEFAULT, TIMEOUT_MIN, WEIGHT_DEFAULT, WEIGHT_MAX,
    is_prime, table_sizes_around,
};
use crate::model::{Backend, Choose, Forward, Health, Protocol, Service, Timeouts, WhenEmpty};

/// Forwarding modes of later releases.
const LATER_MODES: [&str; 4] = ["full-nat", "ipip", "gue", "gre"];

pub(super) fn resolve<'a>(
    raw: &'a file::Service<'a>,
    inherited: Timeouts,
    seen: &mut Seen<'a>,
    findings: &mut Findings<'_>,
) -> Option<Service> {
    let mut scope = Scope {
        path: &raw.path,
        head: &raw.head,
        findings,
    };
    let name = name(&mut scope, raw, seen);
    let protocol = scope.word::<Protocol>("protocol", &raw.protocol, None, &[]);
    let listen = listen(&mut scope, raw, protocol, seen);
    let forward = scope.word::<Forward>("forward", &raw.forward, None, &LATER_MODES);
    let choose = scope.word("choose", &raw.choose, Some(Choose::FlowHash), &[]);
    let when_empty = scope.word("when-empty", &raw.when_empty, Some(WhenEmpty::Drop), &[]);
    let slow_start = scope.duration(
        "slow-start",
        &raw.slow_start,
        Duration::ZERO..=SLOW_START_MAX,
    );
    let table_size = table_size(&mut scope, raw);
    let own = raw.timeouts.as_ref();
    let timeouts = timeouts::resolve(own, inherited, protocol, scope.findings);
    let health = raw
        .health
        .as_ref()
        .map(|raw| health(raw, protocol, scope.findings));
    let backends = backends(raw, listen, forward, seen, scope.findings);
    let health = match health {
        Some(health) => Some(health?),
        None => None,
    };
    Some(Service {
        name: name?,
        listen: listen?,
        protocol: protocol?,
        forward: forward?,
        choose: choose?,
        when_empty: when_empty?,
        slow_start: slow_start?.map_or(Duration::ZERO, |(slow_start, _)| slow_start),
        table_size: table_size?,
        timeouts: timeouts?,
        health,
        backends: backends?,
    })
}

fn name<'a>(
    scope: &mut Scope<'_, '_, '_>,
    raw: &'a file::Service<'a>,
    seen: &mut Seen<'a>,
) -> Option<String> {
    let (name, at) = scope.required("name", &raw.name, "name = \"web\"")?;
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let valid = name.bytes().next().is_some_and(letter)
        && name
            .bytes()
            .all(|byte| letter(byte) || b"._-".contains(&byte))
        && name.len() <= SERVICE_NAME_BYTES_MAX;
    if !valid {
        let expected = format!("1 to {SERVICE_NAME_BYTES_MAX} of a-z, 0-9, '.', '_', '-'");
        let cure = "begin with a letter or digit, without capitals and spaces";
        scope.refuse("name", &at, quote(name), expected, cure);
    }
    let cure = "status and metrics tell services apart by name: rename one";
    scope.unique("name", at, name, &mut seen.names, "a name of its own", cure)?;
    valid.then(|| name.to_owned())
}

fn listen<'a>(
    scope: &mut Scope<'_, '_, '_>,
    raw: &'a file::Service<'a>,
    protocol: Option<Protocol>,
    seen: &mut Seen<'a>,
) -> Option<SocketAddr> {
    let (text, at) = scope.required("listen", &raw.listen, "listen = \"10.100.0.1:80\"")?;
    let written = match address::read(text, Role::Listen) {
        Ok(written) => written,
        Err(refusal) => {
            scope.object(Kind::Value, "listen", &at, refusal);
            return None;
        }
    };
    let listen = SocketAddr::new(written.ip, written.port?);
    seen.owners.entry(listen.ip()).or_insert(&raw.path);
    if let Some(protocol) = protocol
        && let Err(first) = seen.listens.take((listen, protocol), at.clone())
    {
        let line = scope.findings.line_index(first.start) + 1;
        let found = format!("{listen} {protocol} again, first in line {line}");
        let expected = "an address, port and protocol of its own".to_owned();
        scope.misfit(
            "listen",
            &at,
            found,
            expected,
            "join the two services, or change one",
        );
        return None;
    }
    Some(listen)
}

fn table_size(scope: &mut Scope<'_, '_, '_>, raw: &file::Service<'_>) -> Option<u32> {
    let size = scope
        .number(
            "table-size",
            &raw.table_size,
            TABLE_SIZE_MIN..=TABLE_SIZE_MAX,
        )?
        .unwrap_or(TABLE_SIZE_DEFAULT);
    let at = match &raw.table_size {
        Field::Given(size) => size.span(),
        _ => raw.head.clone(),
    };
    let fitting = |least: u32| table_sizes_around(least).1.unwrap_or(TABLE_SIZE_MAX);
    if !is_prime(size) {
        let expected = "a prime, as the size of every Maglev table is".to_owned();
        let cure = match table_sizes_around(size) {
            (Some(below), Some(above)) => format!("the nearest are {below} and {above}"),
            _ => format!("{TABLE_SIZE_DEFAULT} is one"),
        };
        scope.refuse("table-size", &at, size.to_string(), expected, cure);
        return None;
    }
    // More than fits 32 bits is far beyond BACKENDS_TOTAL_MAX, which has its own problem.
    let backends = u32::try_from(raw.backends.len()).unwrap_or(u32::MAX);
    let wanted = backends.saturating_mul(SLOTS_PER_BACKEND);
    if size < backends {
        let found = format!("{size} slots for {backends} backends");
        let expected =
            format!("at least one slot for each backend, {SLOTS_PER_BACKEND} to be even");
        scope.misfit(
            "table-size",
            &at,
            found,
            expected,
            format!("write {}", fitting(wanted)),
        );
        return None;
    }
    if size < wanted {
        let found = format!(
            "{size} slots for {backends} backends are less than {SLOTS_PER_BACKEND} each, shares will differ from the weights"
        );
        scope.warn(
            "table-size",
            &at,
            found,
            format!("write {} or more", fitting(wanted)),
        );
    }
    Some(size)
}

fn health(
    raw: &file::Health<'_>,
    protocol: Option<Protocol>,
    findings: &mut Findings<'_>,
) -> Option<Health> {
    let mut scope = Scope {
        path: &raw.path,
        head: &raw.head,
        findings,
    };
    let kind = scope.word("kind", &raw.kind, None, &LATER_KINDS);
    let interval = scope.duration("interval", &raw.interval, INTERVAL_MIN..=INTERVAL_MAX);
    let timeout = scope.duration("timeout", &raw.timeout, TIMEOUT_MIN..=INTERVAL_MAX);
    let rise = scope.number("rise", &raw.rise, 1..=STREAK_MAX);
    let fall = scope.number("fall", &raw.fall, 1..=STREAK_MAX);
    let port = scope.number("port", &raw.port, 1..=u16::MAX);
    if kind.is_some() && protocol == Some(Protocol::Udp) && matches!(raw.port, Field::Absent) {
        let found = "a udp service is checked by tcp on the same port; a server that does not also answer tcp there counts as down".to_owned();
        let cure = "name the tcp port to check with port = …".to_owned();
        scope.warn("kind", &raw.head, found, cure);
    }
    let interval = interval?.map_or(INTERVAL_DEFAULT, |(interval, _)| interval);
    let timeout = match timeout? {
        None => TIMEOUT_DEFAULT.min(interval),
        Some((timeout, at)) if timeout > interval => {
            let found = Spelt(timeout).to_string();
            let expected = format!("at most the interval, {}", Spelt(interval));
            let cure = "one check ends before the next begins: shorten it or lengthen the interval";
            scope.misfit("timeout", &at, found, expected, cure);
            return None;
        }
        Some((timeout, _)) => timeout,
    };
    Some(Health {
        kind: kind?,
        interval,
        timeout,
        rise: rise?.unwrap_or(RISE_DEFAULT),
        fall: fall?.unwrap_or(FALL_DEFAULT),
        port: port?.and_then(NonZeroU16::new),
    })
}

fn backends<'a>(
    service: &'a file::Service<'a>,
    listen: Option<SocketAddr>,
    forward: Option<Forward>,
    seen: &mut Seen<'a>,
    findings: &mut Findings<'_>,
) -> Option<Vec<Backend>> {
    let mut taken = Taken::default();
    let read = |raw: &'a file::Backend<'a>| {
        let mut scope = Scope {
            path: &raw.path,
            head: &raw.head,
            findings,
        };
        let address = backend_address(&mut scope, raw, listen, forward, seen);
        let weight = scope.number("weight", &raw.weight, 0..=WEIGHT_MAX);
        let disabled = Scope::flag(&raw.disabled, false);
        let (address, at) = address?;
        let cure = "join them to one backend, its weight is the sum";
        scope.unique(
            "address",
            at,
            address,
            &mut taken,
            "every backend once in a service",
            cure,
        )?;
        Some(Backend {
            address,
            weight: weight?.unwrap_or(WEIGHT_DEFAULT),
            disabled: disabled?,
        })
    };
    let backends: Vec<Option<Backend>> = service.backends.iter().map(read).collect();
    let backends: Vec<Backend> = backends.into_iter().collect::<Option<_>>()?;
    let mut scope = Scope {
        path: &service.path,
        head: &service.head,
        findings,
    };
    let idle = |found: &str, cure: &str| (found.to_owned(), cure.to_owned());
    let (found, cure) = if backends.is_empty() {
        idle(
            "there is no backend, so nothing can be served",
            "add a [[service.backend]]",
        )
    } else if backends.iter().all(Backend::disabled) {
        idle(
            "every backend is disabled, so nothing can be served",
            "enable one",
        )
    } else if backends
        .iter()
        .all(|backend| backend.disabled || backend.weight == 0)
    {
        idle(
            "no backend has a weight, so no new flow is served",
            "give one a weight above 0",
        )
    } else {
        return Some(backends);
    };
    scope.warn("", &service.head, found, cure);
    Some(backends)
}

fn backend_address<'a>(
    scope: &mut Scope<'_, '_, '_>,
    raw: &'a file::Backend<'a>,
    listen: Option<SocketAddr>,
    forward: Option<Forward>,
    seen: &mut Seen<'a>,
) -> Option<(SocketAddr, Range<usize>)> {
    let (text, at) = scope.required("address", &raw.address, "address = \"10.2.0.11:8080\"")?;
    let written = match address::read(text, Role::Backend) {
        Ok(written) => written,
        Err(refusal) => {
            scope.object(Kind::Value, "address", &at, refusal);
            return None;
        }
    };
    seen.backends.push((written.ip, at.clone(), &raw.path));
    let listen = listen?;
    let family = |ipv4: bool| if ipv4 { "IPv4" } else { "IPv6" };
    if written.ip.is_ipv4() != listen.is_ipv4() {
        let expected = format!("an {} address, as listen is", family(listen.is_ipv4()));
        let cure = "nat and dsr-l2 keep the family: write a service for each family";
        scope.misfit("address", &at, quote(text), expected, cure);
        return None;
    }
    if forward == Some(Forward::DsrL2) && written.port.is_some_and(|port| port != listen.port()) {
        let expected = format!("port {}, as listen has", listen.port());
        let cure = "dsr-l2 rewrites no port: leave the port out, or use nat";
        scope.misfit("address", &at, quote(text), expected, cure);
        return None;
    }
    Some((
        SocketAddr::new(written.ip, written.port.unwrap_or_else(|| listen.port())),
        at,
    ))
}
