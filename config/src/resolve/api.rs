//! `[api]`: who may ask.

use super::scope::Scope;
use crate::error::{Findings, quote};
use crate::file::{self, Field};
use crate::limits::GROUP_BYTES_MAX;
use crate::model::Api;

/// What the file says, or the defaults.
pub(super) fn resolve(raw: Option<&file::Api<'_>>, findings: &mut Findings<'_>) -> Option<Api> {
    let Some(raw) = raw else {
        return Some(Api::default());
    };
    let mut scope = Scope {
        path: &raw.path,
        head: &raw.head,
        findings,
    };
    let mode = socket_mode(&mut scope, &raw.socket_mode);
    let read_group = group(&mut scope, "read-group", &raw.read_group);
    let write_group = group(&mut scope, "write-group", &raw.write_group);
    let (mode, read_group, write_group) = (mode?, read_group?, write_group?);
    let has_groups = read_group.is_some() || write_group.is_some();
    if let (Some(mode), Field::Given(text)) = (mode, &raw.socket_mode)
        && has_groups
        && mode & 0o022 == 0
    {
        let found = format!("{mode:#o}: nobody but the owner can connect");
        let found = found.replace("0o", "0");
        let cure = "leave socket-mode out: then everybody can connect, and those who are not in \
                    a group are refused";
        let expected = "a mode by which the groups' members can connect".to_owned();
        scope.misfit("socket-mode", &text.span(), found, expected, cure);
        return None;
    }
    // A file has one group, and here are two to be let in: who they are is asked of the kernel.
    let default = if has_groups {
        0o666
    } else {
        Api::default().socket_mode
    };
    Some(Api {
        socket_mode: mode.unwrap_or(default),
        read_group,
        write_group,
    })
}

/// The outer `None` is a problem, the inner one absence.
fn socket_mode(scope: &mut Scope<'_, '_, '_>, field: &Field<&str>) -> Option<Option<u32>> {
    let text = match field {
        Field::Given(text) => text,
        Field::Bad => return None,
        Field::Absent => return Some(None),
    };
    let written = *text.get_ref();
    let is_octal =
        (3..=4).contains(&written.len()) && written.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = u32::from_str_radix(written, 8).ok().filter(|_| is_octal);
    let cure = match mode {
        Some(mode) if mode > 0o777 => "leave out the bits before the last three digits",
        Some(mode) if mode & 0o600 != 0o600 => "begin it with 6: its owner reads and writes it",
        Some(mode) => return Some(Some(mode)),
        None => "write it as chmod takes it",
    };
    let expected = "three or four octal digits, like \"0660\"".to_owned();
    scope.refuse("socket-mode", &text.span(), quote(written), expected, cure);
    None
}

/// The outer `None` is a problem, the inner one absence.
fn group(scope: &mut Scope<'_, '_, '_>, key: &str, field: &Field<&str>) -> Option<Option<String>> {
    let text = match field {
        Field::Given(text) => text,
        Field::Bad => return None,
        Field::Absent => return Some(None),
    };
    let name = *text.get_ref();
    let is_name = !name.is_empty()
        && name.len() <= GROUP_BYTES_MAX
        && !name.starts_with('-')
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':');
    if is_name {
        return Some(Some(name.to_owned()));
    }
    let expected = format!("a group's name of 1 to {GROUP_BYTES_MAX} bytes, or its number");
    let cure = "write one that `getent group` shows";
    scope.refuse(key, &text.span(), quote(name), expected, cure);
    None
}
