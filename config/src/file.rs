//! The file exactly as written: TOML's spanned tables taken into plain structs.
//!
//! Knows which keys exist and of which TOML type they are, and reports unknown keys, wrong
//! types and syntax errors; what the values mean is [`resolve`](crate::resolve)'s. The TOML
//! parser recovers from errors, so that one pass reports them all.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::error::{Findings, Kind, Refusal, join, quote};
use crate::nearest::nearest;

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
    pub(crate) busy_poll: Field<bool>,
    pub(crate) drain: Field<&'a str>,
    pub(crate) admin: Field<&'a str>,
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
    pub(crate) when_empty: Field<&'a str>,
    pub(crate) table_size: Field<i64>,
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

/// Parses the text and reports what is not TOML.
pub(crate) fn parse<'t>(text: &'t str, findings: &mut Findings<'t>) -> Spanned<DeTable<'t>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let swallowed = swallowed_from(&errors);
    for error in errors {
        let at = error.span().unwrap_or(0..0);
        if at.start > swallowed {
            continue;
        }
        let line = findings.line_text(at.start).trim();
        if error.message() == "duplicate key" {
            // The first of two keys stands, so the rest of the file can be believed; of two
            // tables it cannot be told to which the keys belong.
            let kind = if line.starts_with('[') {
                Kind::Syntax
            } else {
                Kind::Value
            };
            let key = text.get(at.clone()).unwrap_or("");
            let refusal = Refusal {
                found: format!("{} a second time", quote(key)),
                expected: "each key and each table once".to_owned(),
                cure: "delete or rename one of them (interfaces, services and backends are listed \
                       with [[double brackets]])"
                    .to_owned(),
            };
            findings.problem(kind, &at, String::new(), refusal);
            continue;
        }
        let found = if line.is_empty() {
            "an end too early".to_owned()
        } else {
            quote(line)
        };
        let refusal = Refusal {
            found,
            expected: format!("TOML ({})", error.message()),
            cure: syntax_cure(error.message()).to_owned(),
        };
        findings.problem(Kind::Syntax, &at, String::new(), refusal);
    }
    root
}

/// How the TOML parser's message for an unclosed list or inline table begins.
const MISSING_COMMA: &str = "missing comma between";

/// Where a list or inline table that is never closed begins to swallow the lines below it: what
/// is said against those is a consequence. Beyond every text if all are closed.
fn swallowed_from(errors: &[toml::de::Error]) -> usize {
    let unclosed = |message: &str| {
        matches!(message.split_once(','), Some((what, _)) if
        matches!(what, "unclosed array" | "unclosed inline table"))
    };
    if !errors.iter().any(|error| unclosed(error.message())) {
        return usize::MAX;
    }
    let commas = errors
        .iter()
        .filter(|error| error.message().starts_with(MISSING_COMMA));
    commas
        .filter_map(|error| Some(error.span()?.start))
        .min()
        .unwrap_or(usize::MAX)
}

/// What to do about a message of the TOML parser. The messages are not its contract: one that
/// is not recognised gets the general cure.
fn syntax_cure(message: &str) -> &'static str {
    const CURES: [(&str, &str); 11] = [
        (
            MISSING_COMMA,
            "add the comma, or close the bracket or brace opened above",
        ),
        (
            "string values must be quoted",
            "write the text after = in double quotes",
        ),
        (
            "invalid boolean",
            "write text in double quotes; alone only true or false",
        ),
        ("invalid float", "write text and addresses in double quotes"),
        (
            "invalid basic string",
            "close the double quote in the same line",
        ),
        ("key with no value", "write key = value"),
        ("unclosed array table", "close the header with ]]"),
        ("unclosed array", "close the list with ]"),
        ("unclosed inline table", "close the table with }"),
        ("unclosed table", "close the header with ]"),
        (
            "unexpected leading zero",
            "write the number without leading zeros",
        ),
    ];
    let cure = CURES.iter().find(|(start, _)| message.starts_with(start));
    cure.map_or(
        "write key = value, text in double quotes, tables in [brackets]",
        |(_, cure)| cure,
    )
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
        keys.refuse_unknown(&["workers", "cores", "flows", "busy-poll", "drain", "admin"]);
        Self {
            workers: keys.whole("workers"),
            cores: keys.wholes("cores"),
            flows: keys.whole("flows"),
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
            "when-empty",
            "table-size",
            "health",
            "backend",
        ]);
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
            when_empty: keys.text("when-empty", "a word in quotes"),
            table_size: keys.whole("table-size"),
            health,
            backends,
            path: keys.path,
            head,
        }
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

/// One table being taken apart.
struct Keys<'a, 'f, 't> {
    table: &'a DeTable<'a>,
    path: String,
    findings: &'f mut Findings<'t>,
}

impl<'a> Keys<'a, '_, '_> {
    fn refuse_unknown(&mut self, known: &[&str]) {
        let keys = self
            .table
            .iter()
            .filter(|(key, _)| !known.contains(&key.get_ref().as_ref()));
        for (key, _) in keys {
            let name = key.get_ref();
            let refusal = Refusal {
                found: format!("the unknown key {}", quote(name)),
                expected: format!("one of {}", known.join(", ")),
                cure: match nearest(name, known) {
                    Some(near) => format!("did you mean {near}?"),
                    None => "remove it".to_owned(),
                },
            };
            self.findings
                .problem(Kind::Structure, &key.span(), self.path.clone(), refusal);
        }
    }

    fn wrong_type(&mut self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str, cure: &str) {
        let refusal = Refusal {
            found: describe(value.get_ref()),
            expected: expected.to_owned(),
            cure: cure.to_owned(),
        };
        self.findings.problem(
            Kind::Structure,
            &value.span(),
            join(&self.path, key),
            refusal,
        );
    }

    fn text(&mut self, key: &str, expected: &str) -> Field<&'a str> {
        let Some(value) = self.table.get(key) else {
            return Field::Absent;
        };
        if let DeValue::String(text) = value.get_ref() {
            return Field::Given(Spanned::new(value.span(), text.as_ref()));
        }
        self.wrong_type(key, value, expected, "write it in double quotes");
        Field::Bad
    }

    fn flag(&mut self, key: &str) -> Field<bool> {
        let Some(value) = self.table.get(key) else {
            return Field::Absent;
        };
        if let DeValue::Boolean(flag) = value.get_ref() {
            return Field::Given(Spanned::new(value.span(), *flag));
        }
        self.wrong_type(
            key,
            value,
            "true or false",
            "write true or false, without quotes",
        );
        Field::Bad
    }

    fn whole(&mut self, key: &str) -> Field<i64> {
        let Some(value) = self.table.get(key) else {
            return Field::Absent;
        };
        match whole(value.get_ref()) {
            Some(number) => Field::Given(Spanned::new(value.span(), number)),
            None => {
                self.wrong_type(
                    key,
                    value,
                    "a whole number",
                    "write digits only, without quotes",
                );
                Field::Bad
            }
        }
    }

    fn wholes(&mut self, key: &str) -> Field<Vec<Spanned<i64>>> {
        let Some(value) = self.table.get(key) else {
            return Field::Absent;
        };
        let numbers = match value.get_ref() {
            DeValue::Array(values) => values
                .iter()
                .map(|value| Some(Spanned::new(value.span(), whole(value.get_ref())?)))
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        if let Some(numbers) = numbers {
            return Field::Given(Spanned::new(value.span(), numbers));
        }
        self.wrong_type(
            key,
            value,
            "a list of whole numbers",
            "write it like [0, 1]",
        );
        Field::Bad
    }

    fn table(&mut self, key: &str) -> Option<(&'a DeTable<'a>, Range<usize>)> {
        let value = self.table.get(key)?;
        if let DeValue::Table(table) = value.get_ref() {
            return Some((table, value.span()));
        }
        let cure = if self.path.is_empty() {
            format!("write [{key}] and its keys below it")
        } else {
            format!("write {key} = {{ … }} with its keys in the braces")
        };
        self.wrong_type(key, value, "a table", &cure);
        None
    }

    fn tables(&mut self, key: &str) -> Vec<(usize, &'a DeTable<'a>, Range<usize>)> {
        let Some(value) = self.table.get(key) else {
            return Vec::new();
        };
        let header = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("service.{key}")
        };
        let expected = format!("a list of tables, each headed [[{header}]]");
        let cure = format!("write [[{header}]] with two brackets");
        let DeValue::Array(values) = value.get_ref() else {
            self.wrong_type(key, value, &expected, &cure);
            return Vec::new();
        };
        self.entries(key, values, &expected, &cure)
    }

    fn entries(
        &mut self,
        key: &str,
        values: &'a DeArray<'a>,
        expected: &str,
        cure: &str,
    ) -> Vec<(usize, &'a DeTable<'a>, Range<usize>)> {
        let mut tables = Vec::new();
        for (index, value) in values.iter().enumerate() {
            match value.get_ref() {
                DeValue::Table(table) => tables.push((index + 1, table, value.span())),
                _ => self.wrong_type(key, value, expected, cure),
            }
        }
        tables
    }
}

/// The number, if it is whole and fits 64 bits (TOML asks for no more).
fn whole(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A value of the wrong type in words.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {}", quote(text)),
        DeValue::Integer(number) => {
            format!("the number {}", quote(number.as_str()).trim_matches('"'))
        }
        DeValue::Float(number) => {
            format!("the number {}", quote(number.as_str()).trim_matches('"'))
        }
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
