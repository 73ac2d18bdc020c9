//! The text format of Prometheus, version 0.0.4: families one after the other, each with its help, its
//! type and its series.
//!
//! Written by hand, in some seventy lines: the crates that know the format want their own registry of
//! metrics that live as long as the process, or a copy of everything with a string for each label. What
//! is told here lives in the workers' counters and the snapshot, and goes straight into the text.
//! promtool judges the result in the tests. (Decision 0025.)

use std::fmt::{Display, Write as _};

/// What media type it is.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What sort of number a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only grows, while the balancer runs.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts up to bounds (`_bucket`, with the label `le`), their sum and their number.
    Histogram,
}

impl Kind {
    /// The word of the format.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A family: all series of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Family {
    /// Begins with `ringgate_` and ends in its unit, a counter's in `_total`.
    pub(crate) name: &'static str,
    /// What sort of number.
    pub(crate) kind: Kind,
    /// The labels of each series, in their order; a histogram's `le` is not among them.
    pub(crate) labels: &'static [&'static str],
    /// What it tells, in a sentence.
    pub(crate) help: &'static str,
}

/// A text under way.
#[derive(Debug, Default)]
pub(crate) struct Exposition(String);

impl Exposition {
    /// Begins a family; all of its series follow.
    pub(crate) fn family(&mut self, family: &'static Family) -> Series<'_> {
        let Family {
            name, kind, help, ..
        } = family;
        let text = &mut self.0;
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "# HELP {name} {help}");
        let _infallible = writeln!(text, "# TYPE {name} {}", kind.as_str());
        Series { family, text }
    }

    /// The whole text.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

/// Writes the series of one family.
#[derive(Debug)]
pub(crate) struct Series<'t> {
    family: &'static Family,
    text: &'t mut String,
}

impl Series<'_> {
    /// One series: the values of the family's labels, in their order, and its number.
    pub(crate) fn put<const N: usize>(&mut self, labels: [&str; N], value: impl Display) {
        self.line("", &labels, None, &value);
    }

    /// One histogram: how many were no greater than each bound, in the unit of the family's name; how
    /// many there were; and their sum.
    pub(crate) fn histogram<const N: usize>(
        &mut self,
        labels: [&str; N],
        up_to: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        for (bound, up_to) in up_to {
            self.line("_bucket", &labels, Some(&bound), &up_to);
        }
        self.line("_bucket", &labels, Some(&"+Inf"), &count);
        self.line("_sum", &labels, None, &sum);
        self.line("_count", &labels, None, &count);
    }

    fn line(
        &mut self,
        suffix: &str,
        values: &[&str],
        bound: Option<&dyn Display>,
        value: &dyn Display,
    ) {
        let Family { name, labels, .. } = self.family;
        debug_assert_eq!(labels.len(), values.len(), "{name}");
        self.text.push_str(name);
        self.text.push_str(suffix);
        let mut separator = '{';
        for (label, value) in labels.iter().zip(values) {
            self.text.push(separator);
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(value, self.text);
            self.text.push('"');
            separator = ',';
        }
        // Writing to a String cannot fail.
        if let Some(bound) = bound {
            let _infallible = write!(self.text, "{separator}le=\"{bound}\"");
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _infallible = writeln!(self.text, " {value}");
    }
}

/// A label's value may hold anything; three characters are written differently.
fn escape(value: &str, text: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            _ => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Family = Family {
        name: "ringgate_things_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Things.",
    };

    const LABELLED: Family = Family {
        name: "ringgate_level_bytes",
        kind: Kind::Gauge,
        labels: &["service", "state"],
        help: "How full.",
    };

    const SPREAD: Family = Family {
        name: "ringgate_wait_seconds",
        kind: Kind::Histogram,
        labels: &["worker"],
        help: "How long.",
    };

    #[test]
    fn families_are_written_as_the_format_says() {
        let mut exposition = Exposition::default();
        exposition.family(&PLAIN).put([], 7_u64);
        let mut level = exposition.family(&LABELLED);
        level.put(["a\\b \"c\"\nd", "up"], 0.5);
        level.put(["ü", ""], u64::MAX);
        let mut spread = exposition.family(&SPREAD);
        spread.histogram(["0"], [(0.000_001, 2), (2.5, 3)].into_iter(), 4, 12.25);
        let text = String::from_utf8(exposition.into_bytes()).unwrap();
        assert_eq!(
            text,
            "# HELP ringgate_things_total Things.\n\
             # TYPE ringgate_things_total counter\n\
             ringgate_things_total 7\n\
             # HELP ringgate_level_bytes How full.\n\
             # TYPE ringgate_level_bytes gauge\n\
             ringgate_level_bytes{service=\"a\\\\b \\\"c\\\"\\nd\",state=\"up\"} 0.5\n\
             ringgate_level_bytes{service=\"ü\",state=\"\"} 18446744073709551615\n\
             # HELP ringgate_wait_seconds How long.\n\
             # TYPE ringgate_wait_seconds histogram\n\
             ringgate_wait_seconds_bucket{worker=\"0\",le=\"0.000001\"} 2\n\
             ringgate_wait_seconds_bucket{worker=\"0\",le=\"2.5\"} 3\n\
             ringgate_wait_seconds_bucket{worker=\"0\",le=\"+Inf\"} 4\n\
             ringgate_wait_seconds_sum{worker=\"0\"} 12.25\n\
             ringgate_wait_seconds_count{worker=\"0\"} 4\n"
        );
    }
}
