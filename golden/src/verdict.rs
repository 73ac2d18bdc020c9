//! What a case says against what came.

use crate::case::{Case, CaseError, Counts, Crossing, Step};
use crate::notation::payload::hex;
use crate::world::{Outcome, run};

/// Runs a case. Each line of the answer is a difference: `-` what the file says, `+` what came.
///
/// # Errors
///
/// The case makes no sense.
pub fn differences(case: &Case) -> Result<Vec<String>, CaseError> {
    let mut all = Vec::new();
    for ((step, outcome), number) in case.file.steps.iter().zip(run(case)?).zip(1..) {
        let mut lines = packets(case, step, &outcome)?;
        lines.extend(lists(&step.wanted, &outcome.wanted, "asks for "));
        lines.extend(lists(
            &counter_lines(&step.counters),
            &counter_lines(&outcome.counters),
            "",
        ));
        if !lines.is_empty() {
            let title = if step.says.is_empty() { "" } else { ": " };
            all.push(format!("step {number}{title}{}", step.says));
            all.extend(lines);
        }
    }
    Ok(all)
}

fn packets(case: &Case, step: &Step, outcome: &Outcome) -> Result<Vec<String>, CaseError> {
    let mut lines = Vec::new();
    if let Some(count) = step.out_count {
        if count != outcome.leaves.len() {
            lines.push(format!("  - {count} packets leave"));
            lines.push(format!("  + {} packets leave", outcome.leaves.len()));
        }
        return Ok(lines);
    }
    let expected = case.frames(&step.leaves)?;
    for place in 0..expected.len().max(outcome.leaves.len()) {
        let (said, came) = (expected.get(place), outcome.leaves.get(place));
        if said == came {
            continue;
        }
        let mut add = |sign: char, crossing: Option<&Crossing>| {
            if let Some(crossing) = crossing {
                lines.push(format!("  {sign} {}", text(case, crossing)));
            }
        };
        add('-', said);
        add('+', came);
        if let (Some(said), Some(came)) = (said, came) {
            lines.push(format!("    - {}", hex(&said.bytes)));
            lines.push(format!("    + {}", hex(&came.bytes)));
        }
    }
    Ok(lines)
}

/// A frame at an interface as the file has it.
#[must_use]
pub fn text(case: &Case, crossing: &Crossing) -> String {
    let packet = case.dissector.frame(&crossing.bytes);
    format!("{}: {}", crossing.interface, packet.text(&case.names))
}

fn lists(said: &[String], came: &[String], what: &str) -> Vec<String> {
    let only = |these: &[String], those: &[String], sign: char| -> Vec<String> {
        let missing = these.iter().filter(|line| !those.contains(line));
        missing
            .map(|line| format!("  {sign} {what}{line}"))
            .collect()
    };
    [only(said, came, '-'), only(came, said, '+')].concat()
}

/// Counters, one a line.
fn counter_lines(counts: &Counts) -> Vec<String> {
    let of_group = |(group, counters): (&String, &std::collections::BTreeMap<String, u64>)| {
        let line = |(name, count): (&String, &u64)| format!("{group} {name} {count}");
        counters.iter().map(line).collect::<Vec<_>>()
    };
    counts.iter().flat_map(of_group).collect()
}
