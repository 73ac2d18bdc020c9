//! `[log]` and `[process]` as written.

use std::ops::Range;

use super::keys::Keys;
use super::{Field, TextOrWhole};

/// `[log]`.
#[derive(Debug)]
pub(crate) struct Log<'a> {
    pub(crate) format: Field<&'a str>,
    pub(crate) level: Field<&'a str>,
    pub(crate) flows: Field<TextOrWhole<'a>>,
}

/// `[process]`.
#[derive(Debug)]
pub(crate) struct Process<'a> {
    pub(crate) head: Range<usize>,
    pub(crate) user: Field<&'a str>,
    pub(crate) group: Field<&'a str>,
    pub(crate) seccomp: Field<bool>,
}

impl<'a> Log<'a> {
    /// The table, if the file has it.
    pub(super) fn read(top: &mut Keys<'a, '_, '_>) -> Option<Self> {
        let (mut keys, _) = top.inner("log")?;
        keys.refuse_unknown(&["format", "level", "flows"]);
        Some(Self {
            format: keys.text("format", "a word in quotes"),
            level: keys.text("level", "a word in quotes"),
            flows: keys.text_or_whole(
                "flows",
                "\"off\" or a whole number",
                "write \"off\", or of how many flows one is to be logged",
            ),
        })
    }
}

impl<'a> Process<'a> {
    /// The table, if the file has it.
    pub(super) fn read(top: &mut Keys<'a, '_, '_>) -> Option<Self> {
        let (mut keys, head) = top.inner("process")?;
        keys.refuse_unknown(&["user", "group", "seccomp"]);
        Some(Self {
            head,
            user: keys.text("user", "a user's name in quotes"),
            group: keys.text("group", "a group's name in quotes"),
            seccomp: keys.flag("seccomp"),
        })
    }
}
