//! `[api]`: who may ask.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Spanned;

use super::scope::Scope;
use crate::error::{Findings, quote};
use crate::file::{self, Field};
use crate::limits::{DNS_NAME_BYTES_MAX, GROUP_BYTES_MAX};
use crate::model::{Api, Remote};

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
    let remote = remote(&mut scope, raw);
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
        remote: remote?,
    })
}

/// The outer `None` is a problem, the inner one that nobody listens.
fn remote(scope: &mut Scope<'_, '_, '_>, raw: &file::Api<'_>) -> Option<Option<Remote>> {
    let files = [
        ("certificate", &raw.certificate, "/etc/ringgate/api.crt"),
        ("key", &raw.key, "/etc/ringgate/api.key"),
        ("client-ca", &raw.client_ca, "/etc/ringgate/clients.crt"),
    ];
    if let Field::Absent = raw.listen {
        return without_listen(scope, raw, &files.map(|(key, field, _)| (key, field)));
    }
    let listen = listen(scope, &raw.listen);
    let [certificate, key, client_ca] =
        files.map(|(key, field, example)| file(scope, key, field, example));
    let read_names = names(scope, "read-names", &raw.read_names);
    let write_names = names(scope, "write-names", &raw.write_names);
    let (read_names, write_names) = (read_names?, write_names?);
    if read_names.is_empty() && write_names.is_empty() {
        let expected = "read-names, write-names or both".to_owned();
        let cure = "name whom to let in: write-names = [\"ops.example\"]";
        let found = "a listener for nobody".to_owned();
        scope.misfit("listen", scope.head, found, expected, cure);
        return None;
    }
    Some(Some(Remote {
        listen: listen?,
        certificate: certificate?,
        key: key?,
        client_ca: client_ca?,
        read_names,
        write_names,
    }))
}

/// What is said of a listener that there is not is a mistake.
fn without_listen(
    scope: &mut Scope<'_, '_, '_>,
    raw: &file::Api<'_>,
    files: &[(&str, &Field<&str>); 3],
) -> Option<Option<Remote>> {
    let place = |field: &Field<&str>| match field {
        Field::Given(text) => Some(text.span()),
        _ => None,
    };
    let lists = |field: &Field<Vec<Spanned<&str>>>| match field {
        Field::Given(list) => Some(list.span()),
        _ => None,
    };
    let files = files.iter().map(|(key, field)| (*key, place(field)));
    let names = [
        ("read-names", lists(&raw.read_names)),
        ("write-names", lists(&raw.write_names)),
    ];
    let mut is_good = true;
    for (key, at) in files.chain(names) {
        if let Some(at) = at {
            is_good = false;
            let (found, expected) = ("it without listen".to_owned(), "both or none".to_owned());
            let cure = "add listen, or remove it: nobody comes by TLS";
            scope.misfit(key, &at, found, expected, cure);
        }
    }
    is_good.then_some(None)
}

fn listen(scope: &mut Scope<'_, '_, '_>, field: &Field<&str>) -> Option<SocketAddr> {
    let (text, at) = scope.required("listen", field, "listen = \"10.0.0.1:9443\"")?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Some(address),
        Ok(_) | Err(_) => {
            let expected = "an address and port of this host".to_owned();
            let cure = "write it like \"10.0.0.1:9443\" or \"[fd00::1]:9443\"";
            scope.refuse("listen", &at, quote(text), expected, cure);
            None
        }
    }
}

fn file(
    scope: &mut Scope<'_, '_, '_>,
    key: &str,
    field: &Field<&str>,
    example: &str,
) -> Option<PathBuf> {
    let example = format!("{key} = \"{example}\"");
    let (text, at) = scope.required(key, field, &example)?;
    if text.starts_with('/') && !text.ends_with('/') && !text.contains(char::is_control) {
        return Some(PathBuf::from(text));
    }
    let expected = "the absolute path of a PEM file".to_owned();
    let cure = format!("write it like {example}");
    scope.refuse(key, &at, quote(text), expected, cure);
    None
}

fn names(
    scope: &mut Scope<'_, '_, '_>,
    key: &str,
    field: &Field<Vec<Spanned<&str>>>,
) -> Option<Vec<String>> {
    let list = match field {
        Field::Given(list) => list.get_ref(),
        Field::Bad => return None,
        Field::Absent => return Some(Vec::new()),
    };
    let mut is_good = true;
    for name in list {
        let text = *name.get_ref();
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if text.is_empty() || text.len() > DNS_NAME_BYTES_MAX || !text.chars().all(is_name) {
            is_good = false;
            let expected = "a DNS name, as in the client's certificate".to_owned();
            let cure = "write it like \"ops.example\"; there are no wildcards";
            scope.refuse(key, &name.span(), quote(text), expected, cure);
        }
    }
    is_good.then(|| {
        list.iter()
            .map(|name| (*name.get_ref()).to_owned())
            .collect()
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
