//! `[api]` as written.

use std::ops::Range;

use toml::Spanned;

use super::Field;
use super::keys::Keys;

/// `[api]`.
#[derive(Debug)]
pub(crate) struct Api<'a> {
    pub(crate) path: String,
    pub(crate) head: Range<usize>,
    pub(crate) socket_mode: Field<&'a str>,
    pub(crate) read_group: Field<&'a str>,
    pub(crate) write_group: Field<&'a str>,
    pub(crate) listen: Field<&'a str>,
    pub(crate) certificate: Field<&'a str>,
    pub(crate) key: Field<&'a str>,
    pub(crate) client_ca: Field<&'a str>,
    pub(crate) read_names: Field<Vec<Spanned<&'a str>>>,
    pub(crate) write_names: Field<Vec<Spanned<&'a str>>>,
}

impl<'a> Api<'a> {
    /// The table `api` of the file that `keys` are of.
    pub(super) fn read(keys: &mut Keys<'a, '_, '_>) -> Option<Self> {
        let (mut keys, head) = keys.inner("api")?;
        keys.refuse_unknown(&[
            "socket-mode",
            "read-group",
            "write-group",
            "listen",
            "certificate",
            "key",
            "client-ca",
            "read-names",
            "write-names",
        ]);
        let file = "the path of a PEM file in quotes";
        let names = "[\"ops.example\"]";
        Some(Self {
            socket_mode: keys.text("socket-mode", "octal digits in quotes, like \"0660\""),
            read_group: keys.text("read-group", "a group's name in quotes"),
            write_group: keys.text("write-group", "a group's name in quotes"),
            listen: keys.text(
                "listen",
                "an address and port in quotes, like \"10.0.0.1:9443\"",
            ),
            certificate: keys.text("certificate", file),
            key: keys.text("key", file),
            client_ca: keys.text("client-ca", file),
            read_names: keys.texts("read-names", names),
            write_names: keys.texts("write-names", names),
            path: keys.path,
            head,
        })
    }
}
