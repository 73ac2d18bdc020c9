//! The report: one page of HTML with everything in it, from files that `measure` wrote.
//!
//! | room | owns |
//! |---|---|
//! | [`chart`] | bars and lines as SVG |
//! | [`figures`] | which charts there are, and which rows are in which |
//! | [`guest`] | peers in a virtual machine |
//! | [`promises`] | what the project has set itself |
//! | [`html`] | text, tables and the page |
//!
//! A chapter for each file, with its host: figures of two hosts are never in one chart.

pub mod chart;
pub mod figures;
pub mod guest;
pub mod html;
pub mod promises;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::method::outcome::Outcome;
use crate::report::guest::Guest;
use crate::report::html::{Table, escape};

/// `ringgate-bench report`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What `measure`, or `micro --json`, has written
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// What `scripts/peers-in-guest --json` has written, for a chapter of its own
    #[arg(long, value_name = "FILE")]
    guest: Option<PathBuf>,
    /// The page
    #[arg(long)]
    out: PathBuf,
}

/// Writes the page.
///
/// # Errors
///
/// In words: a file is not there, or not what is expected.
pub fn run(arguments: &Arguments) -> Result<(), String> {
    let mut runs = Vec::new();
    for path in &arguments.files {
        runs.push(file(path, read)?);
    }
    let guest = arguments.guest.as_ref();
    let guest = guest.map(|path| file(path, guest::read)).transpose()?;
    let guest = guest.as_ref().map(|(name, guest)| (name.as_str(), guest));
    std::fs::write(&arguments.out, page(&runs, guest))
        .map_err(|error| format!("{}: {error}", arguments.out.display()))
}

/// A file's name, and what is in it.
fn file<T>(
    path: &Path,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<(String, T), String> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let read = read(&text).map_err(|error| format!("{name}: {error}"))?;
    Ok((name, read))
}

/// A run as `measure` wrote it, or one of `micro --json`, which has nothing but steps.
///
/// # Errors
///
/// In words: neither.
pub fn read(text: &str) -> Result<Outcome, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let rows = value["rows"].as_array();
    if rows.is_some_and(|rows| rows.iter().any(|row| row["stage"].is_string())) {
        return Ok(Outcome {
            machine: value["machine"].clone(),
            mode: "micro".to_owned(),
            command: "ringgate-bench micro --json".to_owned(),
            stages: rows.cloned().unwrap_or_default(),
            ..Outcome::default()
        });
    }
    serde_json::from_value(value).map_err(|error| {
        format!("{error}: expected what `ringgate-bench measure` or `micro --json` writes")
    })
}

/// The page of these runs and of a guest, each with the name of its file.
#[must_use]
pub fn page(runs: &[(String, Outcome)], guest: Option<(&str, &Guest)>) -> String {
    let mut body = "<h1>Ringgate, measured</h1>\n".to_owned();
    body.push_str(
        "<p>Rates, latencies and disturbances of Ringgate, of the bare AF_XDP forwarder that is its \
         ceiling, and of its peers, on one host, in one run, in turn. Figures of another host, or \
         of this one on another day, are not to be compared with these: rerun both. \
         <code>docs/PERFORMANCE.md</code> has the methods.</p>\n",
    );
    for (name, outcome) in runs {
        body.push_str(&chapter(name, outcome));
    }
    if let Some((name, guest)) = guest {
        body.push_str(&guest.html(name));
    }
    html::page("Ringgate, measured", &body)
}

fn chapter(name: &str, outcome: &Outcome) -> String {
    let stamp = stamp(outcome);
    let title = format!(
        "{}, Linux {}",
        stamp
            .rows
            .first()
            .and_then(|row| row.get(1))
            .cloned()
            .unwrap_or_default(),
        text_of(&outcome.machine["kernel"])
    );
    let mut html = format!("<h2>{}</h2>\n{}", escape(&title), stamp.html());
    if outcome.mode == "quick" {
        html.push_str(
            "<p><strong>A quick run: it shows that everything works. Its figures mean \
             little.</strong></p>\n",
        );
    }
    if !outcome.rows.is_empty() {
        html.push_str("<h3>What the project has set itself</h3>\n");
        html.push_str(&promises::table(&promises::all(&outcome.rows)).html());
    }
    let is_shown =
        |figure: &html::Figure| !outcome.rows.is_empty() || !figure.table.rows.is_empty();
    for figure in figures::all(outcome)
        .iter()
        .filter(|figure| is_shown(figure))
    {
        html.push_str(&figure.html());
    }
    let absences = [
        ("Not to be had here", &outcome.missing),
        ("Left out", &outcome.skipped),
    ];
    for (title, list) in absences.into_iter().filter(|(_, list)| !list.is_empty()) {
        let mut table = Table::new(&["what", "why"]);
        for absence in list {
            table
                .rows
                .push(vec![absence.what.clone(), absence.why.clone()]);
        }
        html.push_str(&format!("<h3>{title}</h3>\n{}", table.html()));
    }
    if !outcome.steps.is_empty() {
        let steps = steps(outcome).html();
        html.push_str(&format!("<h3>What was done, in this order</h3>\n<details><summary>how long each step took</summary>\n{steps}</details>\n"));
    }
    let raw = serde_json::to_string(outcome).unwrap_or_default();
    html.push_str(&format!(
        "<h3>Raw</h3>\n<details><summary>every window, as in {}</summary>\n<pre>{}</pre></details>\n",
        escape(name),
        escape(&raw)
    ));
    html
}

fn steps(outcome: &Outcome) -> Table {
    let mut table = Table::new(&["step", "expected, s", "took, s"]);
    for step in &outcome.steps {
        let seconds = [step.expected, step.took].map(|seconds| format!("{seconds:.0}"));
        let [expected, took] = seconds;
        table.rows.push(vec![step.what.clone(), expected, took]);
    }
    table
}

/// What a figure belongs to.
fn stamp(outcome: &Outcome) -> Table {
    let mut table = Table::new(&["", ""]);
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            table.rows.push(vec![name.to_owned(), value]);
        }
    };
    line("CPU", text_of(&outcome.machine["cpu"]));
    line("CPUs", text_of(&outcome.machine["cores"]));
    line("kernel", text_of(&outcome.machine["kernel"]));
    line("Ringgate", text_of(&outcome.machine["ringgate"]));
    line("commit", outcome.commit.clone());
    line("date", outcome.date.clone());
    if outcome.seconds > 0.0 {
        line("took", format!("{:.0} s", outcome.seconds));
    }
    line("to measure it again", outcome.command.clone());
    table
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
