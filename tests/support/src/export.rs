//! What a balancer exports for Prometheus, read line by line.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

/// The text of one scrape, and what is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Export {
    /// As it came.
    pub text: String,
    /// The type of each family.
    pub types: BTreeMap<String, String>,
    /// The number of each series, by its name and labels as they are written.
    pub series: BTreeMap<String, f64>,
}

impl Export {
    /// Reads every line.
    ///
    /// # Panics
    ///
    /// When a line is none of the format, a series is there twice, or stands outside of its family.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let (mut types, mut series) = (BTreeMap::new(), BTreeMap::new());
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                let before = types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} begins twice");
                name.clone_into(&mut family);
            } else if !line.starts_with("# HELP ") {
                let (name, number) = line.rsplit_once(' ').unwrap();
                assert!(name.starts_with(&family), "{line:?} is not of {family}");
                let number: f64 = number.parse().unwrap();
                let before = series.insert(name.to_owned(), number);
                assert_eq!(before, None, "{name} is there twice");
            }
        }
        let text = text.to_owned();
        Self {
            text,
            types,
            series,
        }
    }

    /// The number of a series.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn number(&self, series: &str) -> f64 {
        let number = self.series.get(series).copied();
        number.unwrap_or_else(|| panic!("there is no {series} in\n{}", self.text))
    }

    /// The sum of all series of a family whose labels have `with` among them.
    #[must_use]
    pub fn sum(&self, family: &str, with: &str) -> f64 {
        let all = self.of(family);
        all.filter(|(series, _)| series.contains(with))
            .map(|(_, number)| number)
            .sum()
    }

    /// The series of a family.
    pub fn of(&self, family: &str) -> impl Iterator<Item = (&str, f64)> {
        let is_of = move |series: &str| {
            let rest = series.strip_prefix(family);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        let all = self.series.iter();
        all.filter(move |(series, _)| is_of(series))
            .map(|(series, number)| (series.as_str(), *number))
    }

    /// Series that only grow: counters, and histograms' parts.
    pub fn growing(&self) -> impl Iterator<Item = (&str, f64)> {
        let grows = |series: &str| {
            let name = series.split('{').next().unwrap_or_default();
            let kind = |name: &str| self.types.get(name).map(String::as_str);
            let part = name.rsplit_once('_').map(|(family, _)| kind(family));
            kind(name) == Some("counter") || part == Some(Some("histogram"))
        };
        let all = self.series.iter();
        all.filter(move |(series, _)| grows(series))
            .map(|(series, number)| (series.as_str(), *number))
    }

    /// What promtool has to say against it; nothing, if all is well.
    ///
    /// # Panics
    ///
    /// When there is no promtool.
    #[must_use]
    pub fn complaints(&self) -> String {
        let child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("promtool runs (scripts/setup installs it)");
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, self.text.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        assert!(
            output.status.success() || !said.is_empty(),
            "it said nothing"
        );
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1\"} 2\na_total{x=\"2\"} 3\n\
        # HELP b B.\n# TYPE b gauge\nb 1.5\n# HELP c C.\n# TYPE c histogram\nc_bucket{le=\"+Inf\"} 1\nc_sum 0.5\nc_count 1\n";

    #[test]
    fn series_are_found_by_family_and_label() {
        let export = Export::read(TEXT);
        assert!((export.sum("a_total", "") - 5.0).abs() < 1e-9);
        assert!((export.sum("a_total", "x=\"2\"") - 3.0).abs() < 1e-9);
        assert!((export.number("b") - 1.5).abs() < 1e-9);
        assert_eq!(export.growing().count(), 5, "all but the gauge");
        assert_eq!(
            export.of("c").count(),
            0,
            "its parts have names of their own"
        );
    }

    #[test]
    #[should_panic(expected = "is not of b")]
    fn a_series_out_of_its_family_is_found() {
        let _export = Export::read("# TYPE b gauge\na 1\n");
    }
}
