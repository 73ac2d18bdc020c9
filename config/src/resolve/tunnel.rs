//! `tunnel`, of services and of backends: the outer headers.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use super::family;
use super::scope::Scope;
use crate::address;
use crate::error::{Findings, Kind, quote};
use crate::file::{self, Field, TextOrWhole};
use crate::limits::{DSCP_MAX, GUE_PORT_DEFAULT};
use crate::model::{Dscp, Forward, Tunnel};

/// What one table says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    variant: Option<u8>,
    port: Option<u16>,
    key: Option<u32>,
    pub(super) source: Option<IpNet>,
    dscp: Option<Dscp>,
    checksum: Option<bool>,
}

impl Said {
    /// Reads a table. `None` when a problem was reported.
    pub(super) fn read(
        raw: Option<&file::Tunnel<'_>>,
        findings: &mut Findings<'_>,
    ) -> Option<Self> {
        let Some(raw) = raw else {
            return Some(Self::default());
        };
        let mut scope = Scope {
            path: &raw.path,
            head: &raw.head,
            findings,
        };
        let variant = scope.number("variant", &raw.variant, 0..=1);
        let port = scope.number("port", &raw.port, 1..=u16::MAX);
        let key = scope.number("key", &raw.key, 0..=u32::MAX);
        let source = source(&mut scope, &raw.source);
        let dscp = dscp(&mut scope, &raw.dscp);
        let checksum = match &raw.checksum {
            Field::Given(checksum) => Some(Some(*checksum.get_ref())),
            Field::Bad => None,
            Field::Absent => Some(None),
        };
        Some(Self {
            variant: variant?,
            port: port?,
            key: key?,
            source: source?,
            dscp: dscp?,
            checksum: checksum?,
        })
    }

    /// What holds for a backend of mode `forward` whose table this is and whose service's is
    /// `service`. `None`: it has no tunnel.
    pub(super) fn resolve(self, service: Self, forward: Forward, ipv4: bool) -> Option<Tunnel> {
        let gue = forward == Forward::Gue;
        let for_gue = |is: bool| is && gue;
        forward.is_tunnel().then(|| Tunnel {
            variant: if gue {
                self.variant.or(service.variant).unwrap_or(1)
            } else {
                0
            },
            port: if gue {
                self.port.or(service.port).unwrap_or(GUE_PORT_DEFAULT)
            } else {
                0
            },
            key: self.key.or(service.key).filter(|_| forward == Forward::Gre),
            source: self.source.or(service.source),
            dscp: self.dscp.or(service.dscp).unwrap_or(Dscp::Copy),
            checksum: for_gue(self.checksum.or(service.checksum).unwrap_or(!ipv4)),
        })
    }
}

/// Refuses the keys that none of `modes` has, which are those that the table is for.
pub(super) fn check_keys(raw: &file::Tunnel<'_>, modes: &[Forward], findings: &mut Findings<'_>) {
    let mut scope = Scope {
        path: &raw.path,
        head: &raw.head,
        findings,
    };
    let listed = |modes: &[Forward]| {
        let modes: Vec<&str> = modes.iter().map(|mode| mode.as_str()).collect();
        modes.join(", ")
    };
    if !modes.iter().any(|mode| mode.is_tunnel()) {
        let found = format!("outer headers for {}", listed(modes));
        let expected = "none: these modes wrap nothing".to_owned();
        let cure = "remove the table, or forward by ipip, gue or gre";
        scope.misfit("", &raw.head, found, expected, cure);
        return;
    }
    let place = |field: &Field<i64>| match field {
        Field::Given(value) => Some(value.span()),
        _ => None,
    };
    let checksum = match &raw.checksum {
        Field::Given(value) => Some(value.span()),
        _ => None,
    };
    let keys = [
        ("variant", place(&raw.variant), Forward::Gue),
        ("port", place(&raw.port), Forward::Gue),
        ("key", place(&raw.key), Forward::Gre),
        ("checksum", checksum, Forward::Gue),
    ];
    for (key, at, of) in keys {
        let Some(at) = at.filter(|_| !modes.contains(&of)) else {
            continue;
        };
        let found = format!("{key}, which only {of} has, for {}", listed(modes));
        scope.misfit(key, &at, found, "a key of the mode".to_owned(), "remove it");
    }
}

/// Refuses an outer source that cannot be used towards the backend of `scope`, whose address stands
/// at `at`. The backend's own source goes before its service's.
pub(super) fn check_source(
    scope: &mut Scope<'_, '_, '_>,
    raw: &file::Backend<'_>,
    (own, service): (Said, Said),
    (ip, at): (IpAddr, &Range<usize>),
) -> Option<()> {
    let Some(prefix) = own.source.or(service.source) else {
        return Some(());
    };
    let source = prefix.addr();
    if prefix.contains(&ip) {
        let expected = format!("an address outside the tunnel's source, {prefix}");
        let cure = "a host drops what seems to come from itself: choose another source";
        scope.misfit("address", at, ip.to_string(), expected, cure);
        return None;
    }
    if source.is_ipv4() == ip.is_ipv4() {
        return Some(());
    }
    match raw.tunnel.as_ref().map(|raw| &raw.source) {
        Some(Field::Given(text)) => {
            let expected = format!("an {} source, as the backend's address is", family(ip));
            let found = quote(text.get_ref());
            let cure = "write a source of that family, or leave it out for the host's own";
            scope.misfit("tunnel.source", &text.span(), found, expected, cure);
        }
        _ => {
            let expected = format!(
                "an {} address, as the service's tunnel.source is",
                family(source)
            );
            let cure = "give the backend a tunnel.source of its family";
            scope.misfit("address", at, ip.to_string(), expected, cure);
        }
    }
    None
}

/// Warns about GUE without checksum over IPv6.
pub(super) fn warn_checksum(raw: &file::Tunnel<'_>, findings: &mut Findings<'_>) {
    let Field::Given(checksum) = &raw.checksum else {
        return;
    };
    let mut scope = Scope {
        path: &raw.path,
        head: &raw.head,
        findings,
    };
    let found = "over IPv6 nothing else tells a damaged outer header, and receivers take such packets only where they are told to (RFC 6935, RFC 6936)";
    let cure = "leave it out, unless the backends are set up for it";
    scope.warn(
        "checksum",
        &checksum.span(),
        found.to_owned(),
        cure.to_owned(),
    );
}

/// The outer `None` is a problem, the inner one absence; so with all here.
fn source(scope: &mut Scope<'_, '_, '_>, field: &Field<&str>) -> Option<Option<IpNet>> {
    let text = match field {
        Field::Given(text) => text,
        Field::Bad => return None,
        Field::Absent => return Some(None),
    };
    match address::tunnel_source(text.get_ref()) {
        Ok(source) => Some(Some(source)),
        Err(refusal) => {
            scope.object(Kind::Value, "source", &text.span(), refusal);
            None
        }
    }
}

fn dscp(scope: &mut Scope<'_, '_, '_>, field: &Field<TextOrWhole<'_>>) -> Option<Option<Dscp>> {
    let value = match field {
        Field::Given(value) => value,
        Field::Bad => return None,
        Field::Absent => return Some(None),
    };
    let found = match *value.get_ref() {
        TextOrWhole::Text("copy") => return Some(Some(Dscp::Copy)),
        TextOrWhole::Whole(number) => match u8::try_from(number) {
            Ok(dscp) if dscp <= DSCP_MAX => return Some(Some(Dscp::Set(dscp))),
            _ => number.to_string(),
        },
        TextOrWhole::Text(text) => quote(text),
    };
    let expected = format!("\"copy\" or a number of 0 to {DSCP_MAX}");
    let cure = "the inner packet's is kept by \"copy\"; write its number to set one";
    scope.refuse("dscp", &value.span(), found, expected, cure);
    None
}
