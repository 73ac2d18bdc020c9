//! `[log]` and `[process]`: how the process lives on its host.

use toml::Spanned;

use super::scope::Scope;
use crate::error::{Findings, quote};
use crate::file::{self, Field, TextOrWhole};
use crate::limits::{ACCOUNT_BYTES_MAX, LOGGED_FLOWS_MAX};
use crate::model::{Check, Log, LogFormat, LogLevel, Process, Service};

/// The log; what holds when the file says nothing of it.
pub(super) fn log(raw: Option<&file::Log<'_>>, findings: &mut Findings<'_>) -> Option<Log> {
    let mut scope = Scope {
        path: "log",
        head: &(0..0),
        findings,
    };
    let nothing = file::Log {
        format: Field::Absent,
        level: Field::Absent,
        flows: Field::Absent,
    };
    let raw = raw.unwrap_or(&nothing);
    let format = scope.word("format", &raw.format, Some(LogFormat::Text), &[]);
    let level = scope.word("level", &raw.level, Some(LogLevel::Info), &[]);
    let flows = flows(&mut scope, &raw.flows);
    Some(Log {
        format: format?,
        level: level?,
        flows: flows?,
    })
}

/// Of how many flows one is logged.
fn flows(scope: &mut Scope<'_, '_, '_>, field: &Field<TextOrWhole<'_>>) -> Option<Option<u32>> {
    let value = match field {
        Field::Given(value) => value,
        Field::Bad => return None,
        Field::Absent => return Some(None),
    };
    let at = value.span();
    match *value.get_ref() {
        TextOrWhole::Text("off") => Some(None),
        TextOrWhole::Whole(every) => {
            let every = Spanned::new(at, every);
            scope
                .bounded("flows", &every, 1..=LOGGED_FLOWS_MAX)
                .map(Some)
        }
        TextOrWhole::Text(other) => {
            let expected = format!("\"off\" or a whole number from 1 to {LOGGED_FLOWS_MAX}");
            let cure = "write off, or of how many flows one is to be logged".to_owned();
            scope.refuse("flows", &at, quote(other), expected, cure);
            None
        }
    }
}

/// The process; what holds when the file says nothing of it.
pub(super) fn process(
    raw: Option<&file::Process<'_>>,
    findings: &mut Findings<'_>,
) -> Option<Process> {
    let Some(raw) = raw else {
        return Some(Process::default());
    };
    let mut scope = Scope {
        path: "process",
        head: &raw.head,
        findings,
    };
    let user = account(&mut scope, "user", &raw.user);
    let group = account(&mut scope, "group", &raw.group);
    let seccomp = Scope::flag(&raw.seccomp, false);
    if let (Field::Given(name), Field::Absent) = (&raw.group, &raw.user) {
        let (found, expected) = (quote(name.get_ref()), "a user beside the group");
        let cure = "add user, or leave group out";
        scope.misfit("group", &name.span(), found, expected.to_owned(), cure);
        return None;
    }
    Some(Process {
        user: user?,
        group: group?,
        seccomp: seccomp?,
    })
}

/// Programs cannot be executed where system calls are confined.
pub(super) fn check_scripts(
    raw: Option<&file::Process<'_>>,
    services: &[Option<Service>],
    findings: &mut Findings<'_>,
) {
    let runs = |service: &&Service| {
        let health = service.health();
        health
            .and_then(|health| health.check())
            .is_some_and(|check| matches!(**check, Check::Script(_)))
    };
    let Some(service) = services.iter().flatten().find(runs) else {
        return;
    };
    let Some(Field::Given(seccomp)) = raw.map(|raw| &raw.seccomp) else {
        return;
    };
    if !*seccomp.get_ref() {
        return;
    }
    let mut scope = Scope {
        path: "process",
        head: &(0..0),
        findings,
    };
    let found = format!(
        "true, and the service {} has a check by a script",
        quote(service.name())
    );
    let expected = "one of the two: confined, no program can be executed".to_owned();
    let cure = "leave seccomp out, or check otherwise";
    scope.misfit("seccomp", &seccomp.span(), found, expected, cure);
}

/// The name of a user or a group, as useradd(8) takes it. That it exists is for the host to say.
fn account(
    scope: &mut Scope<'_, '_, '_>,
    key: &str,
    field: &Field<&str>,
) -> Option<Option<String>> {
    let (name, at) = match field {
        Field::Given(name) => (*name.get_ref(), name.span()),
        Field::Bad => return None,
        Field::Absent => return Some(None),
    };
    let is_first = |c: char| c.is_ascii_lowercase() || c == '_';
    let is_next = |c: char| is_first(c) || c.is_ascii_digit() || matches!(c, '-' | '.' | '$');
    if name.starts_with(is_first) && name.chars().all(is_next) && name.len() <= ACCOUNT_BYTES_MAX {
        return Some(Some(name.to_owned()));
    }
    let expected = format!("a name of 1 to {ACCOUNT_BYTES_MAX} small letters, digits, '_' and '-'");
    let cure = format!("write the {key}'s name, not its number; `getent` lists them");
    scope.refuse(key, &at, quote(name), expected, cure);
    None
}
