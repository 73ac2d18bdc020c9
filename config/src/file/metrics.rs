//! The table `[metrics]` as written.

use std::ops::Range;

use super::Field;
use super::keys::Keys;

/// `[metrics]`.
#[derive(Debug)]
pub(crate) struct Metrics<'a> {
    pub(crate) head: Range<usize>,
    pub(crate) listen: Field<&'a str>,
    pub(crate) residence_sample: Field<i64>,
    pub(crate) backends: Field<bool>,
}

impl<'a> Metrics<'a> {
    /// The table of the file's top, if it is there.
    pub(super) fn read(top: &mut Keys<'a, '_, '_>) -> Option<Self> {
        let (mut keys, head) = top.inner("metrics")?;
        keys.refuse_unknown(&["listen", "residence-sample", "backends"]);
        Some(Self {
            head,
            listen: keys.text("listen", "an address and port in quotes"),
            residence_sample: keys.whole("residence-sample"),
            backends: keys.flag("backends"),
        })
    }
}
