//! What a run measured: one file, written by `measure` and read by `report`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A whole run, with where it was made.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// [`crate::machine::describe`]'s.
    pub machine: Value,
    /// Of the sources, `-dirty` behind it if they were changed.
    #[serde(default)]
    pub commit: String,
    /// UTC, RFC 3339.
    #[serde(default)]
    pub date: String,
    /// `full` or `quick`: a quick one shows that everything works, its figures mean little.
    #[serde(default)]
    pub mode: String,
    /// What to type to have it measured again.
    #[serde(default)]
    pub command: String,
    /// How long it took.
    #[serde(default)]
    pub seconds: f64,
    /// Medians.
    pub rows: Vec<Row>,
    /// What they are medians of.
    #[serde(default)]
    pub windows: Vec<Value>,
    /// Who could not be had here, and why.
    #[serde(default)]
    pub missing: Vec<Absence>,
    /// What was left out for want of time, or failed, and why.
    #[serde(default)]
    pub skipped: Vec<Absence>,
    /// What was done, in order, and how long it took.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Rows of `ringgate-bench micro --json`: where the time goes in memory.
    #[serde(default)]
    pub stages: Vec<Value>,
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Step {
    /// What.
    pub what: String,
    /// Seconds that it was expected to take.
    pub expected: f64,
    /// Seconds that it took.
    pub took: f64,
}

/// Something that is not there, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Absence {
    /// A contestant, or what would have been measured.
    pub what: String,
    /// One line.
    pub why: String,
}

/// One figure. What does not apply is empty, 0 or absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Row {
    /// `rate`, `ndr`, `pdr`, `latency`, `connections`, `concurrent`, `churn`, `reset`, `reload`,
    /// `step`, `idle` or `first-packet`.
    pub method: String,
    /// Who forwarded: `bare`, `ringgate`, or a peer's name.
    pub who: String,
    /// Forwarding mode, as in the configuration.
    #[serde(default)]
    pub mode: String,
    /// `ipv4` or `ipv6`; empty where it is not compared, and then IPv4.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub family: String,
    /// Frame size with its check sequence, bytes; or `imix`.
    #[serde(default)]
    pub size: String,
    /// How many flows.
    #[serde(default)]
    pub flows: u64,
    /// What distinguishes rows otherwise alike: `50` (per cent of the NDR), `remove`.
    #[serde(default)]
    pub case: String,
    /// Of `value`, `least` and `most`.
    #[serde(default)]
    pub unit: String,
    /// The median of the windows.
    pub value: Option<f64>,
    /// The least of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least: Option<f64>,
    /// The greatest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<f64>,
    /// Median of the ratios to the bare forwarder in the same round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Frames per second offered, median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<f64>,
    /// `source`: the device may do more than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// What else belongs to it, medians: `p99` in nanoseconds, `moved` in flows, and so on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

/// Puts rows among others, in place of those of the same: what is measured again has more windows.
pub(crate) fn put(rows: &mut Vec<Row>, more: Vec<Row>) {
    for row in more {
        match rows.iter_mut().find(|known| known.is_same(&row)) {
            Some(known) => *known = row,
            None => rows.push(row),
        }
    }
}

/// The median; none of nothing. What is not a number is left out.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|one| one.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values.get(low)? + values.get(high)?) / 2.0)
}

impl Row {
    /// With the median, least and greatest of `values`.
    #[must_use]
    pub fn of(mut self, values: &[f64]) -> Self {
        self.value = median(values.iter().copied());
        let finite = || values.iter().copied().filter(|one| one.is_finite());
        self.least = finite().reduce(f64::min);
        self.most = finite().reduce(f64::max);
        self
    }

    /// Whether both are figures of the same.
    fn is_same(&self, other: &Self) -> bool {
        let names = |row: &Self| {
            [
                &row.method,
                &row.who,
                &row.mode,
                &row.size,
                &row.case,
                &row.family,
            ]
            .map(String::clone)
        };
        self.flows == other.flows && names(self) == names(other)
    }

    /// A figure beside the value.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied()
    }

    /// Adds a figure, if there is one.
    #[must_use]
    pub fn with(mut self, name: &str, value: Option<f64>) -> Self {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            let _before = self.figures.insert(name.to_owned(), value);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([f64::NAN, 7.0]), Some(7.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn what_is_measured_again_takes_the_place_of_what_was() {
        let row = |who: &str, flows, value| Row {
            who: who.to_owned(),
            flows,
            value: Some(value),
            ..Row::default()
        };
        let mut rows = vec![row("bare", 1, 1.0), row("ringgate", 1, 2.0)];
        put(
            &mut rows,
            vec![row("ringgate", 1, 3.0), row("bare", 1000, 4.0)],
        );
        let values: Vec<_> = rows.iter().filter_map(|row| row.value).collect();
        assert_eq!(values, [1.0, 3.0, 4.0]);
    }

    #[test]
    fn a_row_survives_its_file() {
        let row = Row {
            method: "latency".to_owned(),
            who: "bare".to_owned(),
            case: "50".to_owned(),
            ..Row::default()
        }
        .of(&[3.0, 1.0, f64::NAN])
        .with("p99", Some(12_000.0))
        .with("p50", None);
        assert_eq!(
            (row.value, row.least, row.most),
            (Some(2.0), Some(1.0), Some(3.0))
        );
        let text = serde_json::to_string(&row).unwrap();
        assert!(!text.contains("p50"), "{text}");
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
    }
}
