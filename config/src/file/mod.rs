//! The file exactly as written: TOML's spanned tables taken into plain structs.
//!
//! Knows which keys exist and of which TOML type they are, and reports unknown keys, wrong
//! types and syntax errors; what the values mean is [`resolve`](crate::resolve)'s. The TOML
//! parser recovers from errors, so that one pass reports them all.

mod keys;
mod syntax;

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Findings, join, quote};
use keys::Keys;
pub(crate) use syntax::parse;

/// Health checks of later releases: known words, so that what belongs to them is not called unknown.
pub(crate) const LATER_KINDS: [&str; 7] = ["http", "https", "udp", "dns", "icmp", "grpc", "script"];

/// A key of a table: absent, given, or given so badly that it has already been reported.
#[derive(Debug)]
pub(crate) enum Field<T> {
    Absent,
    Bad,
    Given(Spanned<T>),
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
}

/// `[[service]]`.
#[derive(Debug)]
pub(crate) struct Service<'a> {
    pub(crate) path: String,
    pub(crate) head: Range<usize>,
    pub(crate) name: Field<&'a str>,
    pub(crate) listen: Field<&'a str>,
    pub(crate) protocol: Field<&'a str>,
    pub(crate) forward: Field<&'a str>,
    pub(crate) choose: Field<&'a str>,
    pub(crate) when_empty: Field<&'a str>,
    pub(crate) slow_start: Field<&'a str>,
    pub(crate) table_size: Field<i64>,
    pub(crate) timeouts: Option<Timeouts<'a>>,
    pub(crate) health: Option<Health<'a>>,
    pub(crate) backends: Vec<Backend<'a>>,
}

/// `health = { … }` or `[service.health]`.
#[derive(Debug)]
pub(crate) struct Health<'a> {
    pub(crate) path: String,
    pub(crate) head: Range<usize>,
    pub(crate) kind: Field<&'a str>,
    pub(crate) interval: Field<&'a str>,
    pub(crate) timeout: Field<&'a str>,
    pub(crate) rise: Field<i64>,
    pub(crate) fall: Field<i64>,
    pub(crate) port: Field<i64>,
}

/// `[[service.backend]]`.
#[derive(Debug)]
pub(crate) struct Backend<'a> {
    pub(crate) path: String,
    pub(crate) head: Range<usize>,
    pub(crate) address: Field<&'a str>,
    pub(crate) weight: Field<i64>,
    pub(crate) disabled: Field<bool>,
}

/// The whole file.
#[derive(Debug)]
pub(crate) struct File<'a> {
    pub(crate) balancer: Option<Balancer<'a>>,
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
        top.refuse_unknown(&["balancer", "interface", "service"]);
        let balancer = top.table("balancer").map(|(table, _)| {
            Balancer::read(Keys {
                table,
                path: "balancer".to_owned(),
                findings: top.findings,
            })
        });
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
            admin: keys.text("admin", "an absolute path in quotes"),
        }
    }
}

impl<'a> Interface<'a> {
    fn read(mut keys: Keys<'a, '_, '_>, head: Range<usize>) -> Self {
        keys.refuse_unknown(&["name", "mode", "partial-checksums"]);
        Self {
            name: keys.text("name", "a name in quotes, like \"eth0\""),
            mode: keys.text("mode", "a word in quotes"),
            partial_checksums: keys.text("partial-checksums", "a word in quotes"),
            path: keys.path,
            head,
        }
    }
}

impl<'a> Service<'a> {
    fn read(mut keys: Keys<'a, '_, '_>, head: Range<usize>) -> Self {
        keys.refuse_unknown(&[
            "name",
            "listen",
            "protocol",
            "forward",
            "choose",
            "when-empty",
            "slow-start",
            "table-size",
            "timeouts",
            "health",
            "backend",
        ]);
        let timeouts = Timeouts::read(&mut keys);
        let health = keys.table("health").map(|(table, head)| {
            let path = join(&keys.path, "health");
            Health::read(
                Keys {
                    table,
                    path,
                    findings: keys.findings,
                },
                head,
            )
        });
        let mut backends = Vec::new();
        for (number, table, head) in keys.tables("backend") {
            let path = join(&keys.path, &entry_path("backend", table, "address", number));
            backends.push(Backend::read(
                Keys {
                    table,
                    path,
                    findings: keys.findings,
                },
                head,
            ));
        }
        Self {
            name: keys.text("name", "a name in quotes, like \"web\""),
            listen: keys.text(
                "listen",
                "an address and port in quotes, like \"10.100.0.1:80\"",
            ),
            protocol: keys.text("protocol", "a word in quotes"),
            forward: keys.text("forward", "a word in quotes"),
            choose: keys.text("choose", "a word in quotes"),
            when_empty: keys.text("when-empty", "a word in quotes"),
            slow_start: keys.text("slow-start", "a duration in quotes, like \"30s\""),
            table_size: keys.whole("table-size"),
            timeouts,
            health,
            backends,
            path: keys.path,
            head,
        }
    }
}

impl<'a> Timeouts<'a> {
    /// The key `timeouts` of the table that `keys` are of.
    fn read(keys: &mut Keys<'a, '_, '_>) -> Option<Self> {
        let (table, head) = keys.table("timeouts")?;
        let mut keys = Keys {
            table,
            path: join(&keys.path, "timeouts"),
            findings: keys.findings,
        };
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

impl<'a> Health<'a> {
    fn read(mut keys: Keys<'a, '_, '_>, head: Range<usize>) -> Self {
        let kind = keys.text("kind", "a word in quotes, like \"tcp\"");
        // A later release's kind has keys of its own; that it is refused says enough.
        if !matches!(&kind, Field::Given(kind) if LATER_KINDS.contains(kind.get_ref())) {
            keys.refuse_unknown(&["kind", "interval", "timeout", "rise", "fall", "port"]);
        }
        Self {
            kind,
            interval: keys.text("interval", "a duration in quotes, like \"1s\""),
            timeout: keys.text("timeout", "a duration in quotes, like \"500ms\""),
            rise: keys.whole("rise"),
            fall: keys.whole("fall"),
            port: keys.whole("port"),
            path: keys.path,
            head,
        }
    }
}

impl<'a> Backend<'a> {
    fn read(mut keys: Keys<'a, '_, '_>, head: Range<usize>) -> Self {
        keys.refuse_unknown(&["address", "weight", "disabled"]);
        Self {
            address: keys.text("address", "an address in quotes, like \"10.2.0.11:8080\""),
            weight: keys.whole("weight"),
            disabled: keys.flag("disabled"),
            path: keys.path,
            head,
        }
    }
}

/// `service "web"`, or `service #2` where the naming key is no text.
fn entry_path(noun: &str, table: &DeTable<'_>, naming_key: &str, number: usize) -> String {
    match table.get(naming_key).map(Spanned::get_ref) {
        Some(DeValue::String(name)) => format!("{noun} {}", quote(name)),
        _ => format!("{noun} #{number}"),
    }
}
