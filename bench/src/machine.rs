//! Which host, kernel and commit a number belongs to: stamped on every result.

use std::fs;

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
