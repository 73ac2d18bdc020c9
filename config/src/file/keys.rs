//! One table being taken apart: its keys by name and TOML type.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::{Field, FlagOrWhole, TextOrWhole};
use crate::error::{Findings, Kind, Refusal, join, quote};
use crate::nearest::nearest;

/// One table being taken apart.
pub(super) struct Keys<'a, 'f, 't> {
    pub(super) table: &'a DeTable<'a>,
    pub(super) path: String,
    pub(super) findings: &'f mut Findings<'t>,
}

impl<'a, 't> Keys<'a, '_, 't> {
    pub(super) fn refuse_unknown(&mut self, known: &[&str]) {
        let keys = self
            .table
            .iter()
            .filter(|(key, _)| !known.contains(&key.get_ref().as_ref()));
        for (key, _) in keys {
            let name = key.get_ref();
            let refusal = Refusal {
                found: format!("the unknown key {}", quote(name)),
                expected: format!("one of {}", known.join(", ")),
                cure: match nearest(name, known) {
                    Some(near) => format!("did you mean {near}?"),
                    None => "remove it".to_owned(),
                },
            };
            self.findings
                .problem(Kind::Structure, &key.span(), self.path.clone(), refusal);
        }
    }

    fn wrong_type(&mut self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str, cure: &str) {
        let refusal = Refusal {
            found: describe(value.get_ref()),
            expected: expected.to_owned(),
            cure: cure.to_owned(),
        };
        self.findings.problem(
            Kind::Structure,
            &value.span(),
            join(&self.path, key),
            refusal,
        );
    }

    /// The key's value as `read` takes it; what it does not take is reported.
    fn value<T>(
        &mut self,
        key: &str,
        expected: &str,
        cure: &str,
        read: impl Fn(&'a Spanned<DeValue<'a>>) -> Option<T>,
    ) -> Field<T> {
        let Some(value) = self.table.get(key) else {
            return Field::Absent;
        };
        if let Some(read) = read(value) {
            return Field::Given(Spanned::new(value.span(), read));
        }
        self.wrong_type(key, value, expected, cure);
        Field::Bad
    }

    pub(super) fn text(&mut self, key: &str, expected: &str) -> Field<&'a str> {
        self.value(key, expected, "write it in double quotes", |value| {
            text(value.get_ref())
        })
    }

    pub(super) fn texts(&mut self, key: &str, example: &str) -> Field<Vec<Spanned<&'a str>>> {
        let cure = format!("write it like {example}");
        self.value(key, "a list of texts in quotes", &cure, |value| {
            list(value.get_ref(), text)
        })
    }

    pub(super) fn flag(&mut self, key: &str) -> Field<bool> {
        let cure = "write true or false, without quotes";
        self.value(key, "true or false", cure, |value| flag(value.get_ref()))
    }

    pub(super) fn whole(&mut self, key: &str) -> Field<i64> {
        let cure = "write digits only, without quotes";
        self.value(key, "a whole number", cure, |value| whole(value.get_ref()))
    }

    pub(super) fn wholes(&mut self, key: &str) -> Field<Vec<Spanned<i64>>> {
        let cure = "write it like [0, 1]";
        self.value(key, "a list of whole numbers", cure, |value| {
            list(value.get_ref(), whole)
        })
    }

    /// A number alone is a list of one.
    pub(super) fn whole_or_wholes(&mut self, key: &str) -> Field<Vec<Spanned<i64>>> {
        let (expected, cure) = (
            "a whole number or a list of them",
            "write it like 100, or [200, 100]",
        );
        self.value(key, expected, cure, |value| match whole(value.get_ref()) {
            Some(number) => Some(vec![Spanned::new(value.span(), number)]),
            None => list(value.get_ref(), whole),
        })
    }

    pub(super) fn flag_or_whole(&mut self, key: &str) -> Field<FlagOrWhole> {
        let (expected, cure) = ("true, false or a whole number", "write it without quotes");
        self.value(key, expected, cure, |value| {
            let flag = flag(value.get_ref()).map(FlagOrWhole::Flag);
            flag.or_else(|| whole(value.get_ref()).map(FlagOrWhole::Whole))
        })
    }

    pub(super) fn text_or_whole(
        &mut self,
        key: &str,
        expected: &str,
        cure: &str,
    ) -> Field<TextOrWhole<'a>> {
        self.value(key, expected, cure, |value| {
            let text = text(value.get_ref()).map(TextOrWhole::Text);
            text.or_else(|| whole(value.get_ref()).map(TextOrWhole::Whole))
        })
    }

    pub(super) fn table(&mut self, key: &str) -> Option<(&'a DeTable<'a>, Range<usize>)> {
        let value = self.table.get(key)?;
        if let DeValue::Table(table) = value.get_ref() {
            return Some((table, value.span()));
        }
        let cure = if self.path.is_empty() {
            format!("write [{key}] and its keys below it")
        } else {
            format!("write {key} = {{ … }} with its keys in the braces")
        };
        self.wrong_type(key, value, "a table", &cure);
        None
    }

    /// The table of a key, to be taken apart in turn.
    pub(super) fn inner(&mut self, key: &str) -> Option<(Keys<'a, '_, 't>, Range<usize>)> {
        let (table, head) = self.table(key)?;
        let path = join(&self.path, key);
        let findings = &mut *self.findings;
        let keys = Keys {
            table,
            path,
            findings,
        };
        Some((keys, head))
    }

    pub(super) fn tables(&mut self, key: &str) -> Vec<(usize, &'a DeTable<'a>, Range<usize>)> {
        let Some(value) = self.table.get(key) else {
            return Vec::new();
        };
        let header = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("service.{key}")
        };
        let expected = format!("a list of tables, each headed [[{header}]]");
        let cure = format!("write [[{header}]] with two brackets");
        let DeValue::Array(values) = value.get_ref() else {
            self.wrong_type(key, value, &expected, &cure);
            return Vec::new();
        };
        self.entries(key, values, &expected, &cure)
    }

    fn entries(
        &mut self,
        key: &str,
        values: &'a DeArray<'a>,
        expected: &str,
        cure: &str,
    ) -> Vec<(usize, &'a DeTable<'a>, Range<usize>)> {
        let mut tables = Vec::new();
        for (index, value) in values.iter().enumerate() {
            match value.get_ref() {
                DeValue::Table(table) => tables.push((index + 1, table, value.span())),
                _ => self.wrong_type(key, value, expected, cure),
            }
        }
        tables
    }
}

fn text<'a>(value: &'a DeValue<'a>) -> Option<&'a str> {
    match value {
        DeValue::String(text) => Some(text.as_ref()),
        _ => None,
    }
}

fn flag(value: &DeValue<'_>) -> Option<bool> {
    match value {
        DeValue::Boolean(flag) => Some(*flag),
        _ => None,
    }
}

/// Every element as `read` takes it, each with its place.
fn list<'a, T>(
    value: &'a DeValue<'a>,
    read: impl Fn(&'a DeValue<'a>) -> Option<T>,
) -> Option<Vec<Spanned<T>>> {
    let DeValue::Array(values) = value else {
        return None;
    };
    let place =
        |value: &'a Spanned<DeValue<'a>>| Some(Spanned::new(value.span(), read(value.get_ref())?));
    values.iter().map(place).collect()
}

/// The number, if it is whole and fits 64 bits (TOML asks for no more).
fn whole(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A value of the wrong type in words.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {}", quote(text)),
        DeValue::Integer(number) => {
            format!("the number {}", quote(number.as_str()).trim_matches('"'))
        }
        DeValue::Float(number) => {
            format!("the number {}", quote(number.as_str()).trim_matches('"'))
        }
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
