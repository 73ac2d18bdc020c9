//! What the project has set itself for whole runs, beside what was measured.

use crate::method::outcome::Row;
use crate::report::html::Table;

/// One of them: what, the aim, and the figure in this run.
#[derive(Debug, Clone, PartialEq)]
pub struct Promise {
    /// In words, with the conditions.
    pub what: &'static str,
    /// What is aimed at.
    pub aim: f64,
    /// Whether more is better.
    pub more_is_better: bool,
    /// What was measured, if it was.
    pub value: Option<f64>,
    /// Of how many windows it is made, where that differs.
    pub basis: Option<String>,
}

impl Promise {
    fn of(self, basis: Option<String>) -> Self {
        Self { basis, ..self }
    }

    /// `met`, `missed` or `not measured`.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self.value {
            None => "not measured",
            Some(value) if self.more_is_better && value >= self.aim => "met",
            Some(value) if !self.more_is_better && value <= self.aim => "met",
            Some(_) => "missed",
        }
    }
}

/// All of them.
#[must_use]
pub fn all(rows: &[Row]) -> Vec<Promise> {
    let rows = Rows(rows);
    let mut all = of_rates(&rows);
    let p99 = rows.p99("ringgate").zip(rows.p99("bare"));
    all.extend([
        at_most(
            "p99 of the latency at half of NDR, beyond the bare forwarder's, µs",
            10.0,
            p99.map(|(ours, bare)| (ours - bare) / 1000.0),
        ),
        at_least(
            "TCP connections/s, of HAProxy's",
            3.0,
            quotient(
                rows.of("connections", "ringgate"),
                rows.of("connections", "haproxy"),
            ),
        ),
        at_most(
            "CPU of an idle balancer, % of a core",
            1.0,
            rows.of("idle", "ringgate"),
        ),
        at_most(
            "first packet after idling, µs",
            100.0,
            rows.of("first-packet", "ringgate"),
        ),
    ]);
    all
}

fn of_rates(rows: &Rows<'_>) -> Vec<Promise> {
    let value = |who: &str, flows| rows.rate(who, flows).and_then(|row| row.value);
    let ours = rows.rate("ringgate", 100_000);
    vec![
        at_least(
            "rate, of the bare forwarder's (nat, 64 bytes, 100,000 flows)",
            0.95,
            ours.and_then(|row| row.ratio),
        )
        .of(rows.windows("ringgate", 100_000, "pairs")),
        at_least(
            "rate, of nftables' (the same)",
            1.7,
            quotient(value("ringgate", 100_000), value("nftables", 100_000)),
        )
        .of(rows.windows("nftables", 100_000, "windows")),
        at_most(
            "rate lost by 1,000,000 in place of 1,000 flows, %",
            10.0,
            quotient(value("ringgate", 1_000_000), value("ringgate", 1_000))
                .map(|kept| 100.0 * (1.0 - kept)),
        )
        .of(rows.windows("ringgate", 1_000_000, "windows")),
    ]
}

/// Figures by what they are of.
#[derive(Debug)]
struct Rows<'a>(&'a [Row]);

impl<'a> Rows<'a> {
    fn rate(&self, who: &str, flows: u64) -> Option<&'a Row> {
        let wanted = |row: &&Row| {
            let is_plain = row.mode == "nat" && row.size == "64" && row.family != "ipv6";
            row.method == "rate" && row.who == who && row.flows == flows && is_plain
        };
        self.0.iter().find(wanted)
    }

    /// How many windows a rate is made of.
    fn windows(&self, who: &str, flows: u64, of: &str) -> Option<String> {
        let windows = self.rate(who, flows)?.figure(of)?;
        Some(format!("{windows:.0} {of}"))
    }

    fn of(&self, method: &str, who: &str) -> Option<f64> {
        let wanted = |row: &&Row| row.method == method && row.who == who;
        self.0.iter().find(wanted).and_then(|row| row.value)
    }

    fn p99(&self, who: &str) -> Option<f64> {
        let wanted = |row: &&Row| row.method == "latency" && row.who == who && row.case == "50";
        self.0.iter().find(wanted).and_then(|row| row.figure("p99"))
    }
}

fn at_least(what: &'static str, aim: f64, value: Option<f64>) -> Promise {
    Promise {
        what,
        aim,
        more_is_better: true,
        value: value.filter(|value| value.is_finite()),
        basis: None,
    }
}

fn at_most(what: &'static str, aim: f64, value: Option<f64>) -> Promise {
    Promise {
        more_is_better: false,
        ..at_least(what, aim, value)
    }
}

fn quotient(of: Option<f64>, by: Option<f64>) -> Option<f64> {
    Some(of? / by.filter(|&by| by > 0.0)?)
}

/// As a table.
#[must_use]
pub fn table(promises: &[Promise]) -> Table {
    let mut table = Table::new(&["what", "aim", "here", "", "median of"]);
    for promise in promises {
        let bound = if promise.more_is_better { "≥" } else { "≤" };
        let value = promise.value.map(|value| format!("{value:.2}"));
        table.rows.push(vec![
            promise.what.to_owned(),
            format!("{bound} {}", promise.aim),
            value.unwrap_or_default(),
            promise.verdict().to_owned(),
            promise.basis.clone().unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(method: &str, who: &str, flows: u64, value: f64) -> Row {
        Row {
            method: method.to_owned(),
            who: who.to_owned(),
            mode: "nat".to_owned(),
            size: "64".to_owned(),
            flows,
            value: Some(value),
            ..Row::default()
        }
    }

    #[test]
    fn each_is_judged_by_its_own_rows() {
        assert!(all(&[]).iter().all(|one| one.verdict() == "not measured"));
        let rows = [
            Row {
                ratio: Some(0.94),
                ..row("rate", "ringgate", 100_000, 180.0)
            }
            .with("pairs", Some(12.0)),
            // IPv6 is another matter.
            Row {
                family: "ipv6".to_owned(),
                ..row("rate", "ringgate", 1_000, 1.0)
            },
            row("rate", "nftables", 100_000, 100.0),
            row("rate", "ringgate", 1_000, 200.0),
            row("rate", "ringgate", 1_000_000, 170.0),
            row("connections", "ringgate", 0, 9.0),
            row("connections", "haproxy", 0, 0.0),
            row("idle", "ringgate", 0, 0.4),
            Row {
                case: "50".to_owned(),
                ..row("latency", "ringgate", 0, 0.0)
            }
            .with("p99", Some(30_000.0)),
            Row {
                case: "50".to_owned(),
                ..row("latency", "bare", 0, 0.0)
            }
            .with("p99", Some(21_000.0)),
        ];
        let verdicts: Vec<&str> = all(&rows).iter().map(Promise::verdict).collect();
        assert_eq!(
            verdicts,
            [
                "missed",
                "met",
                "missed",
                "met",
                "not measured",
                "met",
                "not measured"
            ]
        );
        assert_eq!(all(&rows)[3].value, Some(9.0));
        assert_eq!(table(&all(&rows)).rows.len(), 7);
        assert_eq!(all(&rows)[0].basis.as_deref(), Some("12 pairs"));
    }
}
