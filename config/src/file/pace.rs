//! What `health` says of when a backend is asked and when it counts as up, in a service and, as the
//! default of all, in the balancer.

use std::ops::Range;

use super::Field;
use super::keys::Keys;

/// The keys of `health` that do not depend on its kind.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    pub(crate) path: String,
    pub(crate) head: Range<usize>,
    pub(crate) interval: Field<&'a str>,
    pub(crate) jitter: Field<&'a str>,
    pub(crate) fast_interval: Field<&'a str>,
    pub(crate) timeout: Field<&'a str>,
    pub(crate) rise: Field<i64>,
    pub(crate) fall: Field<i64>,
    pub(crate) flap: Option<Flap<'a>>,
    pub(crate) passive: Field<&'a str>,
}

/// `flap = { … }` in it.
#[derive(Debug)]
pub(crate) struct Flap<'a> {
    pub(crate) path: String,
    pub(crate) head: Range<usize>,
    pub(crate) changes: Field<i64>,
    pub(crate) within: Field<&'a str>,
    pub(crate) hold: Field<&'a str>,
    pub(crate) most: Field<&'a str>,
}

impl<'a> Pace<'a> {
    /// Its keys, in the order of the documentation.
    pub(super) const KEYS: [&'static str; 8] = [
        "interval",
        "jitter",
        "fast-interval",
        "timeout",
        "rise",
        "fall",
        "flap",
        "passive",
    ];

    /// The key `health` of `[balancer]`.
    pub(super) fn read_default(keys: &mut Keys<'a, '_, '_>) -> Option<Self> {
        let (mut keys, head) = keys.inner("health")?;
        keys.refuse_unknown(&Self::KEYS);
        Some(Self::read(&mut keys, &head))
    }

    /// What of it stands in the table that `keys` are of, which begins at `head`.
    pub(super) fn read(keys: &mut Keys<'a, '_, '_>, head: &Range<usize>) -> Self {
        Self {
            interval: keys.text("interval", "a duration in quotes, like \"1s\""),
            jitter: keys.text("jitter", "a duration in quotes, like \"100ms\""),
            fast_interval: keys.text("fast-interval", "a duration in quotes, like \"250ms\""),
            timeout: keys.text("timeout", "a duration in quotes, like \"500ms\""),
            rise: keys.whole("rise"),
            fall: keys.whole("fall"),
            flap: Flap::read(keys),
            passive: keys.text("passive", "a word in quotes"),
            path: keys.path.clone(),
            head: head.clone(),
        }
    }
}

impl<'a> Flap<'a> {
    fn read(keys: &mut Keys<'a, '_, '_>) -> Option<Self> {
        let (mut keys, head) = keys.inner("flap")?;
        keys.refuse_unknown(&["changes", "within", "hold", "most"]);
        let mut duration = |key| keys.text(key, "a duration in quotes, like \"30s\"");
        Some(Self {
            within: duration("within"),
            hold: duration("hold"),
            most: duration("most"),
            changes: keys.whole("changes"),
            path: keys.path,
            head,
        })
    }
}
