//! One table being taken apart: its keys by name and TOML type.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::Field;
use crate::error::{Findings, Kind, Refusal, join, quote};
use crate::nearest::nearest;

/// One table being taken apart.
pub(super) struct Keys<'a, 'f, 't> {
    pub(super) table: &'a DeTable<'a>,
    pub(super) path: String,
    pub(super) findings: &'f mut Findings<'t>,
}

impl<'a> Keys<'a, '_, '_> {
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

    pub(super) fn text(&mut self, key: &str, expected: &str) -> Field<&'a str> {
        let Some(value) = self.table.get(key) else {
            return Field::Absent;
        };
        if let DeValue::String(text) = value.get_ref() {
            return Field::Given(Spanned::new(value.span(), text.as_ref()));
        }
        self.wrong_type(key, value, expected, "write it in double quotes");
        Field::Bad
    }

    pub(super) fn flag(&mut self, key: &str) -> Field<bool> {
        let Some(value) = self.table.get(key) else {
            return Field::Absent;
        };
        if let DeValue::Boolean(flag) = value.get_ref() {
            return Field::Given(Spanned::new(value.span(), *flag));
        }
        self.wrong_type(
            key,
            value,
            "true or false",
            "write true or false, without quotes",
        );
        Field::Bad
    }

    pub(super) fn whole(&mut self, key: &str) -> Field<i64> {
        let Some(value) = self.table.get(key) else {
            return Field::Absent;
        };
        match whole(value.get_ref()) {
            Some(number) => Field::Given(Spanned::new(value.span(), number)),
            None => {
                self.wrong_type(
                    key,
                    value,
                    "a whole number",
                    "write digits only, without quotes",
                );
                Field::Bad
            }
        }
    }

    pub(super) fn wholes(&mut self, key: &str) -> Field<Vec<Spanned<i64>>> {
        let Some(value) = self.table.get(key) else {
            return Field::Absent;
        };
        let numbers = match value.get_ref() {
            DeValue::Array(values) => values
                .iter()
                .map(|value| Some(Spanned::new(value.span(), whole(value.get_ref())?)))
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        if let Some(numbers) = numbers {
            return Field::Given(Spanned::new(value.span(), numbers));
        }
        self.wrong_type(
            key,
            value,
            "a list of whole numbers",
            "write it like [0, 1]",
        );
        Field::Bad
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
