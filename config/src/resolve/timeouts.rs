//! `timeouts`, of the balancer and of services: how long flows are kept.

use std::collections::HashSet;
use std::time::Duration;

use super::scope::Scope;
use crate::error::{Findings, quote};
use crate::file::{self, Field};
use crate::limits::{FLOW_TIMEOUT_MAX, FLOW_TIMEOUT_MIN, TIMEOUT_SETS_MAX};
use crate::model::{Protocol, Service, Timeouts};

/// What `raw` says, and for the rest what holds already. Of a service only its protocol's keys
/// have a meaning; the balancer is for both.
pub(super) fn resolve(
    raw: Option<&file::Timeouts<'_>>,
    inherited: Timeouts,
    protocol: Option<Protocol>,
    findings: &mut Findings<'_>,
) -> Option<Timeouts> {
    let Some(raw) = raw else {
        return Some(inherited);
    };
    let mut scope = Scope {
        path: &raw.path,
        head: &raw.head,
        findings,
    };
    let mut read = |of, key, field: &Field<&str>, inherited| {
        if let (Field::Given(text), Some(protocol)) = (field, protocol)
            && protocol != of
        {
            let expected = format!("one of {}", keys_of(protocol));
            let found = format!("{key}, which {of} flows have, in a {protocol} service");
            scope.misfit(key, &text.span(), found, expected, "remove it");
            return None;
        }
        read(&mut scope, key, field, inherited)
    };
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let opening = read(tcp, "opening", &raw.opening, inherited.opening);
    let established = read(tcp, "established", &raw.established, inherited.established);
    let half_closed = read(tcp, "half-closed", &raw.half_closed, inherited.half_closed);
    let closed = read(tcp, "closed", &raw.closed, inherited.closed);
    let one_way = read(udp, "one-way", &raw.one_way, inherited.one_way);
    let two_way = read(udp, "two-way", &raw.two_way, inherited.two_way);
    Some(Timeouts {
        opening: opening?,
        established: established?,
        half_closed: half_closed?,
        closed: closed?,
        one_way: one_way?,
        two_way: two_way?,
    })
}

const fn keys_of(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "opening, established, half-closed, closed",
        Protocol::Udp => "one-way, two-way",
    }
}

fn read(
    scope: &mut Scope<'_, '_, '_>,
    key: &str,
    field: &Field<&str>,
    inherited: Duration,
) -> Option<Duration> {
    let Some((duration, at)) = scope.duration(key, field, FLOW_TIMEOUT_MIN..=FLOW_TIMEOUT_MAX)?
    else {
        return Some(inherited);
    };
    if duration.subsec_nanos() == 0 {
        return Some(duration);
    }
    if let Field::Given(text) = field {
        let cure = format!("write \"{}s\"", duration.as_secs() + 1);
        let expected = "whole seconds".to_owned();
        scope.refuse(key, &at, quote(text.get_ref()), expected, cure);
    }
    None
}

/// Refuses more different sets than flows can tell apart. Services that could not be resolved
/// have said why.
pub(super) fn check_sets(
    raw: &[file::Service<'_>],
    services: &[Option<Service>],
    findings: &mut Findings<'_>,
) {
    let mut sets = HashSet::new();
    for (raw, service) in raw.iter().zip(services) {
        let Some(service) = service else { continue };
        if !sets.insert(service.timeouts) || sets.len() <= TIMEOUT_SETS_MAX {
            continue;
        }
        let head = raw.timeouts.as_ref().map_or(&raw.head, |raw| &raw.head);
        let mut scope = Scope {
            path: &raw.path,
            head,
            findings,
        };
        let found = format!("the {}th different set of timeouts", sets.len());
        let expected = format!("at most {TIMEOUT_SETS_MAX} over all services");
        let cure =
            "give services that need not differ the same timeouts, or set them in [balancer]";
        scope.misfit("timeouts", head, found, expected, cure);
        return;
    }
}
