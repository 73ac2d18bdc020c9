//! A run's rows as a table on a terminal.
#![expect(
    clippy::print_stdout,
    reason = "printing results is what this program is for"
)]

use crate::method::outcome::{Outcome, Row};
use crate::report::chart::short;
use crate::report::promises;

/// Prints it.
pub(crate) fn print(outcome: &Outcome) {
    let text = |key: &str| outcome.machine[key].as_str().unwrap_or("").to_owned();
    println!(
        "{}, {} CPUs, Linux {}, commit {}, {}",
        text("cpu"),
        outcome.machine["cores"],
        text("kernel"),
        outcome.commit,
        outcome.date
    );
    println!("{}", table(&outcome.rows));
    for step in &outcome.steps {
        println!(
            "{:>6.1} s, {:>6.1} expected: {}",
            step.took, step.expected, step.what
        );
    }
    for promise in promises::all(&outcome.rows) {
        let value = promise
            .value
            .map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        println!(
            "{:<13} {:<70} {value:>8}, aim {} {}{}",
            promise.verdict(),
            promise.what,
            if promise.more_is_better { "≥" } else { "≤" },
            promise.aim,
            promise
                .basis
                .map_or_else(String::new, |basis| format!(", {basis}"))
        );
    }
    for absence in &outcome.missing {
        println!("not to be had: {}: {}", absence.what, absence.why);
    }
    for absence in &outcome.skipped {
        println!("left out: {}: {}", absence.what, absence.why);
    }
}

fn table(rows: &[Row]) -> String {
    let heads = [
        "method", "who", "mode", "size", "flows", "case", "median", "from", "to", "of bare",
        "limit",
    ];
    let mut lines = vec![heads.map(str::to_owned)];
    let number = |value: Option<f64>| value.map(short).unwrap_or_default();
    lines.extend(rows.iter().map(|row| {
        [
            row.method.clone(),
            row.who.clone(),
            format!("{} {}", row.mode, row.family.replace("ipv4", "")),
            row.size.clone(),
            row.flows.to_string(),
            row.case.clone(),
            format!("{} {}", number(row.value), row.unit),
            number(row.least),
            number(row.most),
            row.ratio
                .map(|ratio| format!("{ratio:.3}"))
                .unwrap_or_default(),
            row.limit.clone().unwrap_or_default(),
        ]
    }));
    let width = |column: usize| {
        let lengths = lines.iter().filter_map(|line| line.get(column));
        lengths.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let padded = lines.iter().map(|line| {
        let cells = line.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    });
    padded.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest() {
        let row = Row {
            method: "first-packet".to_owned(),
            who: "ringgate".to_owned(),
            unit: "µs".to_owned(),
            ..Row::default()
        }
        .of(&[61.0, 63.0]);
        let text = table(&[row]);
        let (head, line) = text.split_once('\n').unwrap();
        assert_eq!(head.find("who"), line.find("ringgate"));
        assert!(line.contains("62 µs") && line.ends_with("63"), "{line}");
    }
}
