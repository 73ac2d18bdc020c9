//! `[api]` as written.

use std::ops::Range;

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
}

impl<'a> Api<'a> {
    /// The table `api` of the file that `keys` are of.
    pub(super) fn read(keys: &mut Keys<'a, '_, '_>) -> Option<Self> {
        let (mut keys, head) = keys.inner("api")?;
        keys.refuse_unknown(&["socket-mode", "read-group", "write-group"]);
        Some(Self {
            socket_mode: keys.text("socket-mode", "octal digits in quotes, like \"0660\""),
            read_group: keys.text("read-group", "a group's name in quotes"),
            write_group: keys.text("write-group", "a group's name in quotes"),
            path: keys.path,
            head,
        })
    }
}
