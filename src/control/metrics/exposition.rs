//! The text format of Prometheus, version 0.0.4, and that of OpenMetrics 1.0.0: families one after the other, each
//! with its help, its type and its series. They differ in little: what OpenMetrics calls a counter is its
//! name without `_total`, bounds are written as decimal fractions, units are told, and there is an end.
//!
//! Written by hand, in some hundred lines: the crates that know the format want their own registry of
//! metrics that live as long as the process, or a copy of everything with a string for each label. What
//! is told here lives in the workers' counters and the snapshot, and goes straight into the text.
//! promtool judges the result in the tests. (Decision 0025.)

use std::fmt::{Display, Write as _};

/// In which of its two forms the text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// That of Prometheus, version 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What a request's `Accept` asks for: OpenMetrics where it is named and wanted no less than plain text
    /// (RFC 9110, 12.5.1).
    pub(crate) fn for_accept(accept: &str) -> Self {
        let (mut plain, mut open) = (0.0_f32, 0.0_f32);
        for one in accept.split(',') {
            let mut parts = one.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut is_known) = (1.0_f32, true);
            for part in parts {
                match part.split_once('=') {
                    Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => is_known = value.trim_matches('"') != "0.0.1",
                    _ => {}
                }
            }
            match kind.as_str() {
                "application/openmetrics-text" if is_known => open = quality.max(open),
                "text/plain" | "text/*" | "*/*" => plain = quality.max(plain),
                _ => {}
            }
        }
        if open > 0.0 && open >= plain {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// What media type it is.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The units that names of families end in.
const UNITS: [&str; 5] = ["seconds", "bytes", "packets", "flows", "entries"];

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
pub(crate) struct Exposition {
    text: String,
    format: Format,
}

impl Exposition {
    /// Nothing yet.
    pub(crate) fn new(format: Format) -> Self {
        Self {
            text: String::new(),
            format,
        }
    }

    /// Begins a family; all of its series follow.
    pub(crate) fn family(&mut self, family: &'static Family) -> Series<'_> {
        let Family {
            name, kind, help, ..
        } = family;
        let (text, format) = (&mut self.text, self.format);
        let is_open = format == Format::OpenMetrics;
        let name = match name.strip_suffix("_total") {
            Some(name) if is_open => name,
            _ => name,
        };
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "# HELP {name} {help}");
        let _infallible = writeln!(text, "# TYPE {name} {}", kind.as_str());
        let unit = name.rsplit('_').next().filter(|unit| UNITS.contains(unit));
        if let Some(unit) = unit.filter(|_| is_open) {
            let _infallible = writeln!(text, "# UNIT {name} {unit}");
        }
        Series {
            family,
            text,
            format,
        }
    }

    /// The whole text.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text.into_bytes()
    }
}

/// Writes the series of one family.
#[derive(Debug)]
pub(crate) struct Series<'t> {
    family: &'static Family,
    text: &'t mut String,
    format: Format,
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
            let bound = match self.format {
                Format::Prometheus => bound.to_string(),
                // Always with a point.
                Format::OpenMetrics => format!("{bound:?}"),
            };
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

    #[test]
    fn whoever_asks_for_openmetrics_gets_it_and_nobody_else() {
        use Format::{OpenMetrics, Prometheus};
        // As Prometheus 2.53 asks.
        let scrape = "application/openmetrics-text;version=1.0.0;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (scrape, OpenMetrics),
            ("application/openmetrics-text", OpenMetrics),
            (
                "Application/OpenMetrics-Text; version=\"1.0.0\"",
                OpenMetrics,
            ),
            ("text/plain, application/openmetrics-text", OpenMetrics),
            ("text/plain, application/openmetrics-text;q=0.9", Prometheus),
            ("application/openmetrics-text; version=0.0.1", Prometheus),
            ("application/openmetrics-text;q=0", Prometheus),
            ("*/*", Prometheus),
            ("", Prometheus),
        ] {
            assert_eq!(Format::for_accept(accept), format, "{accept}");
        }
    }

    #[test]
    fn openmetrics_names_counters_without_total_and_ends() {
        let mut exposition = Exposition::new(Format::OpenMetrics);
        exposition.family(&PLAIN).put([], 7_u64);
        exposition.family(&LABELLED).put(["a", "up"], 0.5);
        let mut spread = exposition.family(&SPREAD);
        spread.histogram(["0"], [(0.000_02, 2), (1.0, 3)].into_iter(), 4, 12.25);
        let text = String::from_utf8(exposition.into_bytes()).unwrap();
        assert_eq!(
            text,
            "# HELP ringgate_things Things.\n\
             # TYPE ringgate_things counter\n\
             ringgate_things_total 7\n\
             # HELP ringgate_level_bytes How full.\n\
             # TYPE ringgate_level_bytes gauge\n\
             # UNIT ringgate_level_bytes bytes\n\
             ringgate_level_bytes{service=\"a\",state=\"up\"} 0.5\n\
             # HELP ringgate_wait_seconds How long.\n\
             # TYPE ringgate_wait_seconds histogram\n\
             # UNIT ringgate_wait_seconds seconds\n\
             ringgate_wait_seconds_bucket{worker=\"0\",le=\"2e-5\"} 2\n\
             ringgate_wait_seconds_bucket{worker=\"0\",le=\"1.0\"} 3\n\
             ringgate_wait_seconds_bucket{worker=\"0\",le=\"+Inf\"} 4\n\
             ringgate_wait_seconds_sum{worker=\"0\"} 12.25\n\
             ringgate_wait_seconds_count{worker=\"0\"} 4\n\
             # EOF\n"
        );
    }

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
