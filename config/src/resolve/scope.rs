//! Reading the values of one table: presence, bounds, words, durations, uniqueness.

use std::fmt;
use std::hash::Hash;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;

use super::Taken;
use crate::duration::{self, Spelt};
use crate::error::{Findings, Kind, Refusal, join, quote};
use crate::file::Field;
use crate::mention::FileUse;
use crate::model::Word;
use crate::nearest::nearest;

/// One table of the file, with what its problems are reported to.
///
/// All readers return `None` when a problem stands in the way, and have reported it.
pub(super) struct Scope<'s, 'f, 't> {
    pub(super) path: &'s str,
    pub(super) head: &'s Range<usize>,
    pub(super) findings: &'f mut Findings<'t>,
}

impl Scope<'_, '_, '_> {
    /// Reports one wrong value.
    pub(super) fn refuse(
        &mut self,
        key: &str,
        at: &Range<usize>,
        found: String,
        expected: String,
        cure: impl Into<String>,
    ) {
        let cure = cure.into();
        self.object(
            Kind::Value,
            key,
            at,
            Refusal {
                found,
                expected,
                cure,
            },
        );
    }

    /// Reports values that do not fit each other. Without a key it is the table that does not.
    pub(super) fn misfit(
        &mut self,
        key: &str,
        at: &Range<usize>,
        found: String,
        expected: String,
        cure: impl Into<String>,
    ) {
        let cure = cure.into();
        self.object(
            Kind::Structure,
            key,
            at,
            Refusal {
                found,
                expected,
                cure,
            },
        );
    }

    /// Reports what a reader says against a value.
    pub(super) fn object(&mut self, kind: Kind, key: &str, at: &Range<usize>, refusal: Refusal) {
        self.findings.problem(kind, at, self.key(key), refusal);
    }

    pub(super) fn warn(&mut self, key: &str, at: &Range<usize>, found: String, cure: String) {
        self.findings.warning(at, self.key(key), found, cure);
    }

    /// Notes a file that a key names.
    pub(super) fn mention(&mut self, key: &str, at: &Range<usize>, path: &str, used_as: FileUse) {
        self.findings.mention(at, self.key(key), path, used_as);
    }

    /// The path of a key, of the table itself if it is empty.
    fn key(&self, key: &str) -> String {
        if key.is_empty() {
            self.path.to_owned()
        } else {
            join(self.path, key)
        }
    }

    /// A value that must be there, with its place. The example is what to add.
    pub(super) fn required<T: Copy>(
        &mut self,
        key: &str,
        field: &Field<T>,
        example: &str,
    ) -> Option<(T, Range<usize>)> {
        match field {
            Field::Given(value) => Some((*value.get_ref(), value.span())),
            Field::Bad => None,
            Field::Absent => {
                let (found, expected) = ("nothing".to_owned(), format!("the key {key}"));
                self.misfit(key, self.head, found, expected, format!("add {example}"));
                None
            }
        }
    }

    pub(super) fn flag(field: &Field<bool>, default: bool) -> Option<bool> {
        match field {
            Field::Given(flag) => Some(*flag.get_ref()),
            Field::Bad => None,
            Field::Absent => Some(default),
        }
    }

    /// A whole number within bounds; the outer `None` is a problem, the inner one absence.
    pub(super) fn number<T>(
        &mut self,
        key: &str,
        field: &Field<i64>,
        bounds: RangeInclusive<T>,
    ) -> Option<Option<T>>
    where
        T: TryFrom<i64> + PartialOrd + fmt::Display,
    {
        match field {
            Field::Given(number) => self.bounded(key, number, bounds).map(Some),
            Field::Bad => None,
            Field::Absent => Some(None),
        }
    }

    /// The number, if it is within bounds.
    pub(super) fn bounded<T>(
        &mut self,
        key: &str,
        number: &Spanned<i64>,
        bounds: RangeInclusive<T>,
    ) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + fmt::Display,
    {
        let written = *number.get_ref();
        if let Ok(value) = T::try_from(written)
            && bounds.contains(&value)
        {
            return Some(value);
        }
        let (low, high) = bounds.into_inner();
        let cure = match T::try_from(written) {
            Ok(value) if value < low => format!("the smallest is {low}"),
            Err(_) if written < 0 => format!("the smallest is {low}"),
            _ => format!("the largest is {high}"),
        };
        let expected = format!("a number of {low} to {high}");
        self.refuse(key, &number.span(), written.to_string(), expected, cure);
        None
    }

    /// A duration within bounds, with its place if it was given.
    pub(super) fn duration(
        &mut self,
        key: &str,
        field: &Field<&str>,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Option<(Duration, Range<usize>)>> {
        let text = match field {
            Field::Given(text) => text,
            Field::Bad => return None,
            Field::Absent => return Some(None),
        };
        let duration = match duration::read(text.get_ref()) {
            Ok(duration) => duration,
            Err(refusal) => {
                self.object(Kind::Value, key, &text.span(), refusal);
                return None;
            }
        };
        if bounds.contains(&duration) {
            return Some(Some((duration, text.span())));
        }
        let (low, high) = (Spelt(*bounds.start()), Spelt(*bounds.end()));
        let cure = if duration < *bounds.start() {
            format!("the shortest is \"{low}\"")
        } else {
            format!("the longest is \"{high}\"")
        };
        let expected = format!("a duration of {low} to {high}");
        self.refuse(key, &text.span(), quote(text.get_ref()), expected, cure);
        None
    }

    /// One of the words of `W`. Without a default the key is required. `later` are words that a
    /// later release will know.
    pub(super) fn word<W: Word>(
        &mut self,
        key: &str,
        field: &Field<&str>,
        default: Option<W>,
        later: &[&str],
    ) -> Option<W> {
        let words: Vec<&str> = W::all().iter().map(|word| word.spelling()).collect();
        let listed = words.join(", ");
        let (text, at) = match (field, default) {
            (Field::Absent, Some(default)) => return Some(default),
            _ => {
                let first = words.first().copied().unwrap_or_default();
                self.required(
                    key,
                    field,
                    &format!("{key} = \"{first}\" (one of {listed})"),
                )?
            }
        };
        if let Some(word) = W::all().iter().find(|word| word.spelling() == text) {
            return Some(*word);
        }
        let expected = format!("one of {listed}");
        let cure = if later.contains(&text) {
            format!("not in this release; available: {listed}")
        } else if let Some(near) = nearest(text, &words) {
            format!("did you mean \"{near}\"?")
        } else {
            "write one of them".to_owned()
        };
        self.refuse(key, &at, quote(text), expected, cure);
        None
    }

    /// Takes a value that may be used once.
    pub(super) fn unique<T: Eq + Hash + fmt::Display>(
        &mut self,
        key: &str,
        at: Range<usize>,
        value: T,
        taken: &mut Taken<T>,
        expected: &str,
        cure: &str,
    ) -> Option<()> {
        let shown = value.to_string();
        let Err(first) = taken.take(value, at.clone()) else {
            return Some(());
        };
        let line = self.findings.line_index(first.start) + 1;
        let found = format!("{} again, first in line {line}", quote(&shown));
        self.misfit(key, &at, found, expected.to_owned(), cure);
        None
    }
}
