//! `[[service]]`: where it listens and what holds for all its backends.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;

use super::backend::{self, Facts};
use super::scope::Scope;
use super::tunnel::{self, Said};
use super::{Inherited, Seen, health, timeouts};
use crate::address;
use crate::error::{Findings, Kind, quote};
use crate::file::{self, Field, FlagOrWhole};
use crate::limits::{
    MSS_CLAMP, QUIC_CONFIG_ID_MAX, SERVER_ID_BYTES_MAX, SERVICE_NAME_BYTES_MAX, SLOTS_PER_BACKEND,
    SLOW_START_MAX, TABLE_SIZE_DEFAULT, TABLE_SIZE_MAX, TABLE_SIZE_MIN, VLAN_IDS, is_prime,
    table_sizes_around,
};
use crate::model::{
    Choose, Forward, Fragments, HealthKind, Listen, MssClamp, Protocol, Quic, Service, Vlan,
    WhenEmpty,
};

pub(super) fn resolve<'a>(
    raw: &'a file::Service<'a>,
    inherited: &Inherited<'_>,
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
    let vlan = vlan(&mut scope, &raw.vlan);
    let choose = scope.word("choose", &raw.choose, Some(Choose::FlowHash), &[]);
    let when_empty = scope.word("when-empty", &raw.when_empty, Some(WhenEmpty::Drop), &[]);
    let mss_clamp = mss_clamp(&mut scope, &raw.mss_clamp, protocol);
    let fragments = fragments(&mut scope, &raw.fragments, choose);
    let quic = quic(raw.quic.as_ref(), protocol, scope.findings);
    let stateless = stateless(&mut scope, raw, protocol, choose);
    let slow_start = Duration::ZERO..=SLOW_START_MAX;
    let slow_start = scope.duration("slow-start", &raw.slow_start, slow_start);
    let table_size = table_size(&mut scope, raw);
    let own = raw.timeouts.as_ref();
    let timeouts = timeouts::resolve(own, inherited.timeouts, protocol, scope.findings);
    let health = match &raw.health {
        Some(raw) => health::resolve(raw, protocol, scope.findings).map(Some),
        None => Some(None),
    };
    let facts = Facts {
        listen,
        protocol,
        forward: scope.word::<Forward>("forward", &raw.forward, None, &[]),
        stateless,
        quic,
        tunnel: Said::read(raw.tunnel.as_ref(), scope.findings),
        nat_sources: inherited.nat_sources,
    };
    let forward = forward(&mut scope, raw, &facts);
    check_tunnel(raw, forward, scope.findings);
    check_health_port(raw, listen, scope.findings);
    warn_stateless(raw, stateless, scope.findings);
    let backends = backend::resolve(raw, &facts, seen, scope.findings);
    Some(Service {
        name: name?,
        listen: listen?,
        protocol: protocol?,
        vlan: vlan?,
        forward: forward?,
        choose: choose?,
        when_empty: when_empty?,
        mss_clamp: mss_clamp?,
        fragments: fragments?,
        stateless: stateless?,
        quic: quic?,
        slow_start: slow_start?.map_or(Duration::ZERO, |(slow_start, _)| slow_start),
        table_size: table_size?,
        timeouts: timeouts?,
        health: health?,
        backends: backends?,
    })
}

/// The mode, if it fits those backends that have none of their own.
fn forward(
    scope: &mut Scope<'_, '_, '_>,
    raw: &file::Service<'_>,
    facts: &Facts<'_>,
) -> Option<Forward> {
    let Field::Given(text) = &raw.forward else {
        return None;
    };
    let forward = facts.forward?;
    let own = |backend: &file::Backend<'_>| !matches!(backend.forward, Field::Absent);
    if raw.backends.is_empty() || !raw.backends.iter().all(own) {
        facts.fit(scope, forward, &text.span());
    }
    Some(forward)
}

/// Refuses keys of the tunnel that no backend's mode has.
fn check_tunnel(raw: &file::Service<'_>, forward: Option<Forward>, findings: &mut Findings<'_>) {
    let Some(tunnel) = &raw.tunnel else { return };
    // A mode that could not be read has a problem of its own and may be any.
    let mode = |backend: &file::Backend<'_>| match &backend.forward {
        Field::Given(text) => Forward::ALL
            .iter()
            .copied()
            .find(|mode| mode.as_str() == *text.get_ref()),
        Field::Absent => forward,
        Field::Bad => None,
    };
    let backends = raw.backends.iter().map(mode);
    let modes: Option<Vec<Forward>> = if raw.backends.is_empty() {
        forward.map(|forward| vec![forward])
    } else {
        backends.collect()
    };
    if let Some(modes) = modes {
        let all = Forward::ALL.iter().copied();
        let modes: Vec<Forward> = all.filter(|mode| modes.contains(mode)).collect();
        tunnel::check_keys(tunnel, &modes, findings);
    }
}

/// Refuses a check that has no port to go to.
fn check_health_port(raw: &file::Service<'_>, listen: Option<Listen>, findings: &mut Findings<'_>) {
    let (Some(listen), Some(health)) = (listen, &raw.health) else {
        return;
    };
    let portless = |backend: &file::Backend<'_>| match &backend.address {
        Field::Given(text) => {
            address::backend(text.get_ref()).is_ok_and(|written| written.port.is_none())
        }
        _ => false,
    };
    let named = !matches!(health.port, Field::Absent);
    let portless_kinds = [HealthKind::Icmp, HealthKind::Script].map(HealthKind::as_str);
    let needs_none =
        matches!(&health.kind, Field::Given(kind) if portless_kinds.contains(kind.get_ref()));
    if named || needs_none || listen.port().is_some() || !raw.backends.iter().any(portless) {
        return;
    }
    let mut scope = Scope {
        path: &health.path,
        head: &health.head,
        findings,
    };
    let found = format!("no port to check, for {listen}");
    let expected = "the key port, since backends have no port of their own".to_owned();
    scope.misfit("port", &health.head, found, expected, "add port = 80");
}

/// Warns about what is said of flows that are not remembered.
fn warn_stateless(raw: &file::Service<'_>, stateless: Option<bool>, findings: &mut Findings<'_>) {
    let (Some(true), Some(timeouts)) = (stateless, &raw.timeouts) else {
        return;
    };
    let mut scope = Scope {
        path: &timeouts.path,
        head: &timeouts.head,
        findings,
    };
    let found = "a stateless service remembers no flows, so they have no timeouts";
    scope.warn(
        "",
        &timeouts.head,
        found.to_owned(),
        "remove them".to_owned(),
    );
}

/// The outer `None` is a problem, the inner one absence; so in the readers below.
fn vlan(scope: &mut Scope<'_, '_, '_>, field: &Field<Vec<Spanned<i64>>>) -> Option<Option<Vlan>> {
    let list = match field {
        Field::Given(list) => list,
        Field::Bad => return None,
        Field::Absent => return Some(None),
    };
    let ids: Vec<Option<u16>> = list
        .get_ref()
        .iter()
        .map(|id| scope.bounded("vlan", id, VLAN_IDS))
        .collect();
    match *ids {
        [outer] => Some(Some(Vlan {
            outer: outer?,
            inner: None,
        })),
        [outer, inner] => Some(Some(Vlan {
            outer: outer?,
            inner: Some(inner?),
        })),
        _ => {
            let found = format!("{} tags", ids.len());
            let expected = "one VLAN id, or two, the outer one first".to_owned();
            let cure = "packets carry two tags at most; leave the key out to take any";
            scope.refuse("vlan", &list.span(), found, expected, cure);
            None
        }
    }
}

fn mss_clamp(
    scope: &mut Scope<'_, '_, '_>,
    field: &Field<FlagOrWhole>,
    protocol: Option<Protocol>,
) -> Option<MssClamp> {
    let value = match field {
        Field::Given(value) => value,
        Field::Bad => return None,
        Field::Absent => return Some(MssClamp::Off),
    };
    let at = value.span();
    let clamp = match *value.get_ref() {
        FlagOrWhole::Flag(false) => return Some(MssClamp::Off),
        FlagOrWhole::Flag(true) => MssClamp::Path,
        FlagOrWhole::Whole(bytes) => {
            let bytes = Spanned::new(at.clone(), bytes);
            MssClamp::To(scope.bounded("mss-clamp", &bytes, MSS_CLAMP)?)
        }
    };
    if protocol == Some(Protocol::Udp) {
        let expected = "a tcp service: udp has no maximum segment size".to_owned();
        let found = "mss-clamp in a udp service".to_owned();
        scope.misfit("mss-clamp", &at, found, expected, "remove it");
        return None;
    }
    Some(clamp)
}

fn fragments(
    scope: &mut Scope<'_, '_, '_>,
    field: &Field<&str>,
    choose: Option<Choose>,
) -> Option<Fragments> {
    let fragments = scope.word("fragments", field, Some(Fragments::Track), &[])?;
    if let (Field::Given(text), Some(choose)) = (field, choose)
        && fragments == Fragments::ByAddress
        && choose != Choose::SourceHash
    {
        let found = format!("by-address with choose = \"{choose}\"");
        let expected = "choose = \"source-hash\", since only the addresses are in every fragment";
        let cure = "choose so, or follow fragments with \"track\"";
        scope.misfit("fragments", &text.span(), found, expected.to_owned(), cure);
        return None;
    }
    Some(fragments)
}

fn quic(
    raw: Option<&file::Quic>,
    protocol: Option<Protocol>,
    findings: &mut Findings<'_>,
) -> Option<Option<Quic>> {
    let Some(raw) = raw else {
        return Some(None);
    };
    let mut scope = Scope {
        path: &raw.path,
        head: &raw.head,
        findings,
    };
    let mut number = |key, field: &Field<i64>, bounds: RangeInclusive<u8>| {
        scope.required(key, field, &format!("{key} = {}", bounds.start()))?;
        scope.number(key, field, bounds)?
    };
    let config_id = number("config-id", &raw.config_id, 0..=QUIC_CONFIG_ID_MAX);
    let server_id_bytes = number(
        "server-id-bytes",
        &raw.server_id_bytes,
        1..=SERVER_ID_BYTES_MAX,
    );
    if protocol == Some(Protocol::Tcp) {
        let (found, expected) = ("quic in a tcp service", "a udp service: QUIC runs over udp");
        let cure = "remove it, or write protocol = \"udp\"";
        scope.misfit("", &raw.head, found.to_owned(), expected.to_owned(), cure);
        return None;
    }
    Some(Some(Quic {
        config_id: config_id?,
        server_id_bytes: server_id_bytes?,
    }))
}

/// Whether flows are not remembered. Where it must not be so this is still what is meant, and the
/// problem has been reported.
fn stateless(
    scope: &mut Scope<'_, '_, '_>,
    raw: &file::Service<'_>,
    protocol: Option<Protocol>,
    choose: Option<Choose>,
) -> Option<bool> {
    let stateless = Scope::flag(&raw.stateless, raw.quic.is_some())?;
    let (key, at) = match (&raw.stateless, &raw.quic) {
        (Field::Given(flag), _) => ("stateless", flag.span()),
        (_, Some(quic)) => ("quic", quic.head.clone()),
        _ => return Some(stateless),
    };
    let mut misfit = |found: &str, expected: &str, cure: &str| {
        scope.misfit(key, &at, found.to_owned(), expected.to_owned(), cure);
    };
    if !stateless && raw.quic.is_some() {
        misfit(
            "false, with quic",
            "true: connection ids decide in place of flow entries",
            "leave it out, quic implies it",
        );
    }
    if stateless && key == "stateless" && protocol == Some(Protocol::Tcp) {
        misfit(
            "true in a tcp service",
            "a udp service: a tcp connection is lost when its backend changes",
            "leave it out",
        );
    }
    if let Some(choose) = choose.filter(|choose| choose.has_state())
        && stateless
    {
        misfit(
            &format!("{key}, with choose = \"{choose}\""),
            "flow-hash or source-hash, which choose alike for every packet of a flow",
            "choose by one of them, or remember flows",
        );
    }
    Some(stateless)
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
    scope: &mut Scope<'a, '_, '_>,
    raw: &'a file::Service<'a>,
    protocol: Option<Protocol>,
    seen: &mut Seen<'a>,
) -> Option<Listen> {
    let (text, at) = scope.required("listen", &raw.listen, "listen = \"10.100.0.1:80\"")?;
    let listen = match address::listen(text) {
        Ok(listen) => listen,
        Err(refusal) => {
            scope.object(Kind::Value, "listen", &at, refusal);
            return None;
        }
    };
    seen.listen(scope, listen, protocol, &at)?;
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
