//! Which host, kernel and commit a number belongs to: stamped on every result.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

/// What a result's reader needs to know of where it was measured.
#[must_use]
pub fn describe() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    json!({
        "cpu": model,
        "cores": cores,
        "kernel": rustix::system::uname().release().to_string_lossy(),
        "ringgate": env!("CARGO_PKG_VERSION"),
    })
}

/// The sources' commit, with `-dirty` behind it if they were changed; `unknown` outside of a
/// clone.
#[must_use]
pub fn commit() -> String {
    said("git", &["describe", "--always", "--dirty", "--exclude=*"])
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Now, UTC, RFC 3339.
#[must_use]
pub fn date() -> String {
    said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]).unwrap_or_default()
}

/// What a program says, if it goes well.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
