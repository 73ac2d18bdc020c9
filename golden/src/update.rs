//! Writes what came into a case's file, in place of what it said: for a person to review by
//! `git diff`. Everything else in the file stays as it is, comments included.

use crate::case::{Case, CaseError, Counts};
use crate::verdict::text;
use crate::world::{Outcome, run};

/// Most packets of a repetition that are listed; more are counted.
const LISTED: usize = 8;

/// The file's text with what came.
///
/// # Errors
///
/// The case makes no sense, or its file cannot be read.
pub fn updated(case: &Case) -> Result<String, CaseError> {
    let outcomes = run(case)?;
    let path = &case.path;
    let old = std::fs::read_to_string(path).map_err(|error| CaseError::at(path, &error))?;
    let mut parts = sections(&old).into_iter();
    let mut new = parts.next().unwrap_or_default().join("\n");
    for ((section, outcome), step) in parts.zip(&outcomes).zip(&case.file.steps) {
        if step.repeat.is_some() && outcome.leaves.len() > LISTED {
            new += "\n";
            new += &section_text(&section, &[], outcome);
            continue;
        }
        let is_same = case.frames(&step.leaves)? == outcome.leaves;
        // What a person wrote stays if it means the same.
        let leaves = match is_same {
            true => step.leaves.clone(),
            false => outcome.leaves.iter().map(|one| text(case, one)).collect(),
        };
        new += "\n";
        new += &section_text(&section, &leaves, outcome);
    }
    Ok(new.trim_end().to_owned() + "\n")
}

/// The lines in front of the first step, and those of each step.
fn sections(text: &str) -> Vec<Vec<&str>> {
    let mut sections = vec![Vec::new()];
    let mut in_string = false;
    for line in text.lines() {
        if !in_string && line.trim() == "[[step]]" {
            sections.push(Vec::new());
        }
        in_string ^= line.matches("'''").count() % 2 == 1;
        if let Some(section) = sections.last_mut() {
            section.push(line);
        }
    }
    sections
}

/// A step's lines with other results behind them.
fn section_text(section: &[&str], leaves: &[String], outcome: &Outcome) -> String {
    let mut kept: Vec<String> = Vec::new();
    let mut in_result = false;
    for line in section {
        let begins = ["out =", "out-count =", "wanted =", "counters."]
            .iter()
            .any(|key| line.starts_with(key));
        if begins || in_result {
            let opens = line.trim_end().ends_with('[');
            in_result = opens || in_result && line.trim() != "]";
            continue;
        }
        kept.push((*line).to_owned());
    }
    while kept.last().is_some_and(|line| line.trim().is_empty()) {
        kept.pop();
    }
    if leaves.len() < outcome.leaves.len() {
        kept.push(format!("out-count = {}", outcome.leaves.len()));
    }
    kept.extend(list("out", leaves));
    kept.extend(list("wanted", &outcome.wanted));
    kept.extend(counters(&outcome.counters));
    kept.push(String::new());
    kept.join("\n")
}

fn list(key: &str, lines: &[String]) -> Vec<String> {
    if lines.is_empty() {
        return Vec::new();
    }
    let quoted = lines.iter().map(|line| format!("  '{line}',"));
    let mut all = vec![format!("{key} = [")];
    all.extend(quoted);
    all.push("]".to_owned());
    all
}

fn counters(counts: &Counts) -> Vec<String> {
    let line = |(group, counters): (&String, &std::collections::BTreeMap<String, u64>)| {
        let is_bare = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let group = match group.chars().all(is_bare) {
            true => group.clone(),
            false => format!("\"{group}\""),
        };
        let counters: Vec<String> = counters
            .iter()
            .map(|(name, count)| format!("{name} = {count}"))
            .collect();
        format!("counters.{group} = {{ {} }}", counters.join(", "))
    };
    counts.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_replaced_and_all_else_stays() {
        let text = "# a comment\nx = '''\n[[step]]\n'''\n\n[[step]]\n# why\nin = [\n  'a',\n]\nout = [\n  'b',\n]\ncounters.front = { received = 1 }\n";
        let sections = sections(text);
        assert_eq!(sections.len(), 2);
        let counters = std::collections::BTreeMap::from([("forwarded".to_owned(), 2)]);
        let outcome = Outcome {
            counters: Counts::from([("web 10.2.0.11:80".to_owned(), counters)]),
            ..Outcome::default()
        };
        assert_eq!(
            section_text(&sections[1], &["c".to_owned()], &outcome),
            "[[step]]\n# why\nin = [\n  'a',\n]\nout = [\n  'c',\n]\n\
             counters.\"web 10.2.0.11:80\" = { forwarded = 2 }\n"
        );
    }
}
