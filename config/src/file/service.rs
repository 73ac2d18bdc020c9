//! `[[service]]` as written, with the tables in it.

use std::ops::Range;

use toml::Spanned;

use super::keys::Keys;
use super::{Check, Field, FlagOrWhole, Pace, TextOrWhole, Timeouts, entry_path};
use crate::error::join;

/// `[[service]]`.
#[derive(Debug)]
pub(crate) struct Service<'a> {
    pub(crate) path: String,
    pub(crate) head: Range<usize>,
    pub(crate) name: Field<&'a str>,
    pub(crate) listen: Field<&'a str>,
    pub(crate) protocol: Field<&'a str>,
    pub(crate) vlan: Field<Vec<Spanned<i64>>>,
    pub(crate) forward: Field<&'a str>,
    pub(crate) tunnel: Option<Tunnel<'a>>,
    pub(crate) choose: Field<&'a str>,
    pub(crate) when_empty: Field<&'a str>,
    pub(crate) min_healthy: Field<TextOrWhole<'a>>,
    pub(crate) when_below: Field<&'a str>,
    pub(crate) mss_clamp: Field<FlagOrWhole>,
    pub(crate) fragments: Field<&'a str>,
    pub(crate) stateless: Field<bool>,
    pub(crate) quic: Option<Quic>,
    pub(crate) slow_start: Field<&'a str>,
    pub(crate) table_size: Field<i64>,
    pub(crate) timeouts: Option<Timeouts<'a>>,
    pub(crate) health: Option<Health<'a>>,
    pub(crate) backends: Vec<Backend<'a>>,
}

/// `quic = { … }`.
#[derive(Debug)]
pub(crate) struct Quic {
    pub(crate) path: String,
    pub(crate) head: Range<usize>,
    pub(crate) config_id: Field<i64>,
    pub(crate) server_id_bytes: Field<i64>,
}

/// `tunnel = { … }` of a service or of a backend.
#[derive(Debug)]
pub(crate) struct Tunnel<'a> {
    pub(crate) path: String,
    pub(crate) head: Range<usize>,
    pub(crate) variant: Field<i64>,
    pub(crate) port: Field<i64>,
    pub(crate) key: Field<i64>,
    pub(crate) source: Field<&'a str>,
    pub(crate) dscp: Field<TextOrWhole<'a>>,
    pub(crate) checksum: Field<bool>,
}

/// `health = { … }` or `[service.health]`.
#[derive(Debug)]
pub(crate) struct Health<'a> {
    pub(crate) path: String,
    pub(crate) head: Range<usize>,
    pub(crate) kind: Field<&'a str>,
    pub(crate) port: Field<i64>,
    pub(crate) via: Field<&'a str>,
    pub(crate) pace: Pace<'a>,
    pub(crate) report_ttl: Field<&'a str>,
    pub(crate) check: Check<'a>,
}

/// `[[service.backend]]`.
#[derive(Debug)]
pub(crate) struct Backend<'a> {
    pub(crate) path: String,
    pub(crate) head: Range<usize>,
    pub(crate) address: Field<&'a str>,
    pub(crate) forward: Field<&'a str>,
    pub(crate) tunnel: Option<Tunnel<'a>>,
    pub(crate) server_id: Field<&'a str>,
    pub(crate) weight: Field<i64>,
    pub(crate) disabled: Field<bool>,
}

impl<'a> Service<'a> {
    const KEYS: &'static [&'static str] = &[
        "name",
        "listen",
        "protocol",
        "vlan",
        "forward",
        "tunnel",
        "choose",
        "when-empty",
        "min-healthy",
        "when-below",
        "mss-clamp",
        "fragments",
        "stateless",
        "quic",
        "slow-start",
        "table-size",
        "timeouts",
        "health",
        "backend",
    ];

    pub(super) fn read(mut keys: Keys<'a, '_, '_>, head: Range<usize>) -> Self {
        keys.refuse_unknown(Self::KEYS);
        Self {
            name: keys.text("name", "a name in quotes, like \"web\""),
            listen: keys.text(
                "listen",
                "an address and port in quotes, like \"10.100.0.1:80\"",
            ),
            protocol: keys.text("protocol", "a word in quotes"),
            vlan: keys.whole_or_wholes("vlan"),
            forward: keys.text("forward", "a word in quotes"),
            tunnel: Tunnel::read(&mut keys),
            choose: keys.text("choose", "a word in quotes"),
            when_empty: keys.text("when-empty", "a word in quotes"),
            min_healthy: keys.text_or_whole(
                "min-healthy",
                "a whole number or a share like \"50%\"",
                "write digits without quotes, or a share in double quotes",
            ),
            when_below: keys.text("when-below", "a word in quotes"),
            mss_clamp: keys.flag_or_whole("mss-clamp"),
            fragments: keys.text("fragments", "a word in quotes"),
            stateless: keys.flag("stateless"),
            quic: Quic::read(&mut keys),
            slow_start: keys.text("slow-start", "a duration in quotes, like \"30s\""),
            table_size: keys.whole("table-size"),
            timeouts: Timeouts::read(&mut keys),
            health: Health::read(&mut keys),
            backends: Backend::read_all(&mut keys),
            path: keys.path,
            head,
        }
    }
}

impl<'a> Tunnel<'a> {
    /// The key `tunnel` of the table that `keys` are of.
    fn read(keys: &mut Keys<'a, '_, '_>) -> Option<Self> {
        let (mut keys, head) = keys.inner("tunnel")?;
        keys.refuse_unknown(&["variant", "port", "key", "source", "dscp", "checksum"]);
        Some(Self {
            variant: keys.whole("variant"),
            port: keys.whole("port"),
            key: keys.whole("key"),
            source: keys.text(
                "source",
                "an address or prefix in quotes, like \"10.9.0.0/24\"",
            ),
            dscp: keys.text_or_whole(
                "dscp",
                "\"copy\" or a whole number",
                "write \"copy\" in double quotes, or digits without",
            ),
            checksum: keys.flag("checksum"),
            path: keys.path,
            head,
        })
    }
}

impl Quic {
    /// The key `quic` of the table that `keys` are of.
    fn read(keys: &mut Keys<'_, '_, '_>) -> Option<Self> {
        let (mut keys, head) = keys.inner("quic")?;
        keys.refuse_unknown(&["config-id", "server-id-bytes"]);
        Some(Self {
            config_id: keys.whole("config-id"),
            server_id_bytes: keys.whole("server-id-bytes"),
            path: keys.path,
            head,
        })
    }
}

impl<'a> Health<'a> {
    /// The key `health` of the table that `keys` are of.
    fn read(keys: &mut Keys<'a, '_, '_>) -> Option<Self> {
        let (mut keys, head) = keys.inner("health")?;
        let kind = keys.text("kind", "a word in quotes, like \"tcp\"");
        let mut known = vec!["kind", "port", "via"];
        known.extend(Pace::KEYS);
        known.push("report-ttl");
        known.extend(Check::keys_of(&kind));
        keys.refuse_unknown(&known);
        Some(Self {
            kind,
            port: keys.whole("port"),
            via: keys.text("via", "a word in quotes"),
            pace: Pace::read(&mut keys, &head),
            report_ttl: keys.text("report-ttl", "a duration in quotes, like \"30s\""),
            check: Check::read(&mut keys),
            path: keys.path,
            head,
        })
    }
}

impl<'a> Backend<'a> {
    /// The tables `backend` of the table that `keys` are of.
    fn read_all(keys: &mut Keys<'a, '_, '_>) -> Vec<Self> {
        let mut backends = Vec::new();
        for (number, table, head) in keys.tables("backend") {
            let path = join(&keys.path, &entry_path("backend", table, "address", number));
            let findings = &mut *keys.findings;
            backends.push(Self::read(
                Keys {
                    table,
                    path,
                    findings,
                },
                head,
            ));
        }
        backends
    }

    fn read(mut keys: Keys<'a, '_, '_>, head: Range<usize>) -> Self {
        keys.refuse_unknown(&[
            "address",
            "forward",
            "tunnel",
            "server-id",
            "weight",
            "disabled",
        ]);
        Self {
            address: keys.text("address", "an address in quotes, like \"10.2.0.11:8080\""),
            forward: keys.text("forward", "a word in quotes"),
            tunnel: Tunnel::read(&mut keys),
            server_id: keys.text("server-id", "hexadecimal digits in quotes, like \"0a1b\""),
            weight: keys.whole("weight"),
            disabled: keys.flag("disabled"),
            path: keys.path,
            head,
        }
    }
}
