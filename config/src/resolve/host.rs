//! `[log]` and `[process]`: how the process lives on its host.

use super::scope::Scope;
use crate::error::{Findings, quote};
use crate::file::{self, Field};
use crate::limits::ACCOUNT_BYTES_MAX;
use crate::model::{Log, LogFormat, LogLevel, Process};

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
    };
    let raw = raw.unwrap_or(&nothing);
    let format = scope.word("format", &raw.format, Some(LogFormat::Text), &[]);
    let level = scope.word("level", &raw.level, Some(LogLevel::Info), &[]);
    Some(Log {
        format: format?,
        level: level?,
    })
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
