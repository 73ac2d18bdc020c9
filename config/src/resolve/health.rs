//! `health`: how the backends of a service are checked.

use std::num::NonZeroU16;
use std::sync::Arc;

use super::check;
use super::scope::Scope;
use crate::duration::Spelt;
use crate::error::Findings;
use crate::file::{self, Field};
use crate::limits::{
    FALL_DEFAULT, INTERVAL_DEFAULT, INTERVAL_MAX, INTERVAL_MIN, RISE_DEFAULT, STREAK_MAX,
    TIMEOUT_DEFAULT, TIMEOUT_MIN,
};
use crate::model::{Health, HealthKind, Protocol};

pub(super) fn resolve(
    raw: &file::Health<'_>,
    protocol: Option<Protocol>,
    findings: &mut Findings<'_>,
) -> Option<Health> {
    let mut scope = Scope {
        path: &raw.path,
        head: &raw.head,
        findings,
    };
    let kind = scope.word("kind", &raw.kind, None, &[]);
    let interval = scope.duration("interval", &raw.interval, INTERVAL_MIN..=INTERVAL_MAX);
    let timeout = scope.duration("timeout", &raw.timeout, TIMEOUT_MIN..=INTERVAL_MAX);
    let rise = scope.number("rise", &raw.rise, 1..=STREAK_MAX);
    let fall = scope.number("fall", &raw.fall, 1..=STREAK_MAX);
    let port = scope.number("port", &raw.port, 1..=u16::MAX);
    let check = kind.and_then(|kind| check::resolve(kind, &raw.check, &mut scope));
    let is_over_tcp = kind.is_some_and(HealthKind::is_over_tcp);
    if is_over_tcp && protocol == Some(Protocol::Udp) && matches!(raw.port, Field::Absent) {
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
        check: Arc::new(check?),
        interval,
        timeout,
        rise: rise?.unwrap_or(RISE_DEFAULT),
        fall: fall?.unwrap_or(FALL_DEFAULT),
        port: port?.and_then(NonZeroU16::new),
    })
}
