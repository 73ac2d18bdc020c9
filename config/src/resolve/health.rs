//! `health`: how the backends of a service are checked, and who else may say how they are.

use std::num::NonZeroU16;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::check;
use super::pace::Said;
use super::scope::Scope;
use crate::error::Findings;
use crate::file::{self, Field};
use crate::limits::{REPORT_TTL, REPORT_TTL_DEFAULT};
use crate::model::{Forward, Health, HealthKind, Protocol, Via};

/// What of the service a check depends on.
pub(super) struct Checked<'s> {
    pub(super) protocol: Option<Protocol>,
    /// The modes of its backends; `None`: they could not be read.
    pub(super) modes: Option<&'s [Forward]>,
    /// What the balancer says of all checks.
    pub(super) inherited: &'s Said,
}

pub(super) fn resolve(
    raw: &file::Health<'_>,
    checked: &Checked<'_>,
    findings: &mut Findings<'_>,
) -> Option<Health> {
    let mut scope = Scope {
        path: &raw.path,
        head: &raw.head,
        findings,
    };
    let kind = scope.word("kind", &raw.kind, None, &[]);
    let port = scope.number("port", &raw.port, 1..=u16::MAX);
    let via = scope.word("via", &raw.via, Some(Via::Backend), &[]);
    let report_ttl = scope.duration("report-ttl", &raw.report_ttl, REPORT_TTL);
    let check = kind.and_then(|kind| check::resolve(kind, &raw.check, &mut scope));
    let is_reported = kind == Some(HealthKind::Reported);
    let is_over_tcp = kind.is_some_and(HealthKind::is_over_tcp);
    if is_reported {
        refuse_asking(&mut scope, raw);
    } else if is_over_tcp
        && checked.protocol == Some(Protocol::Udp)
        && matches!(raw.port, Field::Absent)
    {
        let found = "a udp service is checked by tcp on the same port; a server that does not also answer tcp there counts as down".to_owned();
        let cure = "name the tcp port to check with port = …".to_owned();
        scope.warn("kind", &raw.head, found, cure);
    }
    if let (Some(Via::Service), Some(kind), Some(at)) = (via, kind, at(&raw.via)) {
        refuse_the_way(&mut scope, kind, &at);
    }
    let shows_signs = shows_signs(&mut scope, raw, checked);
    let said = Said::read(&raw.pace, findings)?.or(checked.inherited);
    let said = if is_reported || shows_signs != Some(true) {
        said.without_signs()
    } else {
        said
    };
    let pace = said.resolve(&raw.pace, findings);
    let report_ttl: Option<Duration> = report_ttl?.map(|(ttl, _)| ttl);
    Some(Health {
        check: check?.map(Arc::new),
        port: port?.and_then(NonZeroU16::new),
        via: via?,
        pace: pace?,
        report_ttl: report_ttl.or_else(|| is_reported.then_some(REPORT_TTL_DEFAULT)),
    })
}

/// Whether signs of trouble can be seen in the service's traffic. Refuses to look where none can.
fn shows_signs(
    scope: &mut Scope<'_, '_, '_>,
    raw: &file::Health<'_>,
    checked: &Checked<'_>,
) -> Option<bool> {
    let (protocol, modes) = (checked.protocol?, checked.modes?);
    let returns = |mode: &Forward| matches!(mode, Forward::Nat | Forward::FullNat);
    let found = if protocol == Protocol::Udp {
        "in a udp service"
    } else if !modes.iter().any(returns) {
        "in a service whose replies do not return through the balancer"
    } else {
        return Some(true);
    };
    if let Field::Given(text) = &raw.pace.passive
        && *text.get_ref() != "off"
    {
        let expected = "a tcp service with a nat or full-nat backend: only there are resets and missing SYN-ACKs seen";
        let found = format!("passive {found}");
        let at = text.span();
        scope.misfit("passive", &at, found, expected.to_owned(), "remove it");
    }
    Some(false)
}

/// Refuses the way of a client's packets for what is not asked by such.
fn refuse_the_way(scope: &mut Scope<'_, '_, '_>, kind: HealthKind, at: &Range<usize>) {
    let expected = match kind {
        HealthKind::Icmp => {
            "a kind that asks by tcp or udp: no ping of a client is carried to a backend"
        }
        HealthKind::Script => "a kind that asks by itself: a program opens its own connections",
        // Told by `refuse_asking`.
        _ => return,
    };
    let found = format!("via = \"service\" with kind = \"{kind}\"");
    scope.misfit(
        "via",
        at,
        found,
        expected.to_owned(),
        "remove it, or name another kind",
    );
}

/// Refuses what is about checks where there are none.
fn refuse_asking(scope: &mut Scope<'_, '_, '_>, raw: &file::Health<'_>) {
    let pace = &raw.pace;
    let texts = [
        ("interval", &pace.interval),
        ("jitter", &pace.jitter),
        ("fast-interval", &pace.fast_interval),
        ("timeout", &pace.timeout),
        ("passive", &pace.passive),
        ("via", &raw.via),
    ];
    let numbers = [
        ("rise", &pace.rise),
        ("fall", &pace.fall),
        ("port", &raw.port),
    ];
    let texts = texts.map(|(key, field)| (key, at(field)));
    let numbers = numbers.map(|(key, field)| (key, at(field)));
    for (key, at) in texts.into_iter().chain(numbers) {
        let Some(at) = at else { continue };
        let found = format!("{key} with kind = \"reported\"");
        let expected = "a kind that asks the backend".to_owned();
        let cure =
            "remove it; to be reported and asked as well, name another kind and add report-ttl";
        scope.misfit(key, &at, found, expected, cure);
    }
}

/// Where a value stands.
fn at<T>(field: &Field<T>) -> Option<Range<usize>> {
    match field {
        Field::Given(value) => Some(value.span()),
        _ => None,
    }
}
