//! The file exactly as written: TOML's spanned tables taken into plain structs.
//!
//! Knows which keys exist and of which TOML type they are, and reports unknown keys, wrong
//! types and syntax errors; what the values mean is [`resolve`](crate::resolve)'s. The TOML
//! parser recovers from errors, so that one pass reports them all.

mod api;
mod check;
mod keys;
mod metrics;
mod service;
mod syntax;

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Findings, quote};
pub(crate) use api::Api;
pub(crate) use check::Check;
use keys::Keys;
pub(crate) use metrics::Metrics;
pub(crate) use service::{Backend, Health, Quic, Service, Tunnel};
pub(crate) use syntax::parse;

/// A key of a table: absent, given, or given so badly that it has already been reported.
#[derive(Debug)]
pub(crate) enum Field<T> {
    Absent,
    Bad,
    Given(Spanned<T>),
}

/// A key that is a switch or a number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FlagOrWhole {
    Flag(bool),
    Whole(i64),
}

/// A key that is a word or a number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TextOrWhole<'a> {
    Text(&'a str),
    Whole(i64),
}

/// `[balancer]`. Every struct here carries its path and head (where the table begins) for errors.
#[derive(Debug)]
pub(crate) struct Balancer<'a> {
    pub(crate) workers: Field<i64>,
    pub(crate) cores: Field<Vec<Spanned<i64>>>,
    pub(crate) flows: Field<i64>,
    pub(crate) flow_memory: Field<&'a str>,
    pub(crate) udp_new_flows: Field<i64>,
    pub(crate) busy_poll: Field<bool>,
    pub(crate) drain: Field<&'a str>,
    pub(crate) timeouts: Option<Timeouts<'a>>,
    pub(crate) nat_sources: Field<Vec<Spanned<&'a str>>>,
    pub(crate) nat_source_ports: Field<&'a str>,
    pub(crate) icmp_per_second: Field<i64>,
    pub(crate) ping: Field<&'a str>,
    pub(crate) fragments: Field<i64>,
    pub(crate) admin: Field<&'a str>,
}

/// `timeouts = { … }` of the balancer or of a service.
#[derive(Debug)]
pub(crate) struct Timeouts<'a> {
    pub(crate) path: String,
    pub(crate) head: Range<usize>,
    pub(crate) opening: Field<&'a str>,
    pub(crate) established: Field<&'a str>,
    pub(crate) half_closed: Field<&'a str>,
    pub(crate) closed: Field<&'a str>,
    pub(crate) one_way: Field<&'a str>,
    pub(crate) two_way: Field<&'a str>,
}

/// `[[interface]]`.
#[derive(Debug)]
pub(crate) struct Interface<'a> {
    pub(crate) path: String,
    pub(crate) head: Range<usize>,
    pub(crate) name: Field<&'a str>,
    pub(crate) mode: Field<&'a str>,
    pub(crate) partial_checksums: Field<&'a str>,
    pub(crate) vlan_tags: Field<&'a str>,
}

/// The whole file.
#[derive(Debug)]
pub(crate) struct File<'a> {
    pub(crate) balancer: Option<Balancer<'a>>,
    pub(crate) metrics: Option<Metrics<'a>>,
    pub(crate) api: Option<Api<'a>>,
    pub(crate) interfaces: Vec<Interface<'a>>,
    pub(crate) services: Vec<Service<'a>>,
}

impl<'a> File<'a> {
    /// Takes the parsed tables apart.
    pub(crate) fn read(root: &'a DeTable<'a>, findings: &mut Findings<'_>) -> Self {
        let mut top = Keys {
            table: root,
            path: String::new(),
            findings,
        };
        top.refuse_unknown(&["balancer", "api", "metrics", "interface", "service"]);
        let balancer = top.table("balancer").map(|(table, _)| {
            Balancer::read(Keys {
                table,
                path: "balancer".to_owned(),
                findings: top.findings,
            })
        });
        let metrics = Metrics::read(&mut top);
        let api = Api::read(&mut top);
        let mut interfaces = Vec::new();
        for (number, table, head) in top.tables("interface") {
            let path = entry_path("interface", table, "name", number);
            interfaces.push(Interface::read(
                Keys {
                    table,
                    path,
                    findings: top.findings,
                },
                head,
            ));
        }
        let mut services = Vec::new();
        for (number, table, head) in top.tables("service") {
            let path = entry_path("service", table, "name", number);
            services.push(Service::read(
                Keys {
                    table,
                    path,
                    findings: top.findings,
                },
                head,
            ));
        }
        Self {
            balancer,
            metrics,
            api,
            interfaces,
            services,
        }
    }
}

impl<'a> Balancer<'a> {
    fn read(mut keys: Keys<'a, '_, '_>) -> Self {
        keys.refuse_unknown(&[
            "workers",
            "cores",
            "flows",
            "flow-memory",
            "udp-new-flows-per-second",
            "busy-poll",
            "drain",
            "timeouts",
            "nat-sources",
            "nat-source-ports",
            "icmp-per-second",
            "ping",
            "fragments",
            "admin",
        ]);
        Self {
            timeouts: Timeouts::read(&mut keys),
            workers: keys.whole("workers"),
            cores: keys.wholes("cores"),
            flows: keys.whole("flows"),
            flow_memory: keys.text("flow-memory", "a word in quotes"),
            udp_new_flows: keys.whole("udp-new-flows-per-second"),
            busy_poll: keys.flag("busy-poll"),
            drain: keys.text("drain", "a duration in quotes, like \"5s\""),
            nat_sources: keys.texts("nat-sources", "[\"10.2.0.1\"]"),
            nat_source_ports: keys.text("nat-source-ports", "ports in quotes, like \"1024-32767\""),
            icmp_per_second: keys.whole("icmp-per-second"),
            ping: keys.text("ping", "a word in quotes"),
            fragments: keys.whole("fragments"),
            admin: keys.text("admin", "an absolute path in quotes"),
        }
    }
}

impl<'a> Interface<'a> {
    fn read(mut keys: Keys<'a, '_, '_>, head: Range<usize>) -> Self {
        keys.refuse_unknown(&["name", "mode", "partial-checksums", "vlan-tags"]);
        Self {
            name: keys.text("name", "a name in quotes, like \"eth0\""),
            mode: keys.text("mode", "a word in quotes"),
            partial_checksums: keys.text("partial-checksums", "a word in quotes"),
            vlan_tags: keys.text("vlan-tags", "a word in quotes"),
            path: keys.path,
            head,
        }
    }
}

impl<'a> Timeouts<'a> {
    /// The key `timeouts` of the table that `keys` are of.
    fn read(keys: &mut Keys<'a, '_, '_>) -> Option<Self> {
        let (mut keys, head) = keys.inner("timeouts")?;
        keys.refuse_unknown(&[
            "opening",
            "established",
            "half-closed",
            "closed",
            "one-way",
            "two-way",
        ]);
        let mut duration = |key| keys.text(key, "a duration in quotes, like \"90s\"");
        Some(Self {
            opening: duration("opening"),
            established: duration("established"),
            half_closed: duration("half-closed"),
            closed: duration("closed"),
            one_way: duration("one-way"),
            two_way: duration("two-way"),
            path: keys.path,
            head,
        })
    }
}

/// `service "web"`, or `service #2` where the naming key is no text.
fn entry_path(noun: &str, table: &DeTable<'_>, naming_key: &str, number: usize) -> String {
    match table.get(naming_key).map(Spanned::get_ref) {
        Some(DeValue::String(name)) => format!("{noun} {}", quote(name)),
        _ => format!("{noun} #{number}"),
    }
}
