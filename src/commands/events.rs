//! `ringgate events`: what has happened, and what happens.

use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::Value;

use crate::cli::Events;
use crate::control::client;

/// Runs the command.
pub(crate) fn run(args: &Events) -> ExitCode {
    let last = args.last.to_string();
    let follow = if args.follow { "true" } else { "false" };
    let target = client::target("/v1/events", &[("last", &last), ("follow", follow)]);
    let pieces = match client::follow(&args.admin.admin, &target) {
        Ok(pieces) => pieces,
        Err(error) => {
            eprintln!("ringgate events: {error}");
            return ExitCode::FAILURE;
        }
    };
    for piece in pieces {
        let shown = piece.and_then(|piece| show(&piece, args.json));
        match shown {
            Ok(()) => {}
            // Whoever read our output has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => {
                eprintln!("ringgate events: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn show(piece: &[u8], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        out.write_all(piece)?;
        return out.flush();
    }
    for line in piece.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
        let event: Value = serde_json::from_slice(line)?;
        writeln!(out, "{}", render(&event))?;
    }
    out.flush()
}

/// The time, the event, and what belongs to it.
fn render(event: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let fields = event.as_object().into_iter().flatten();
    let rest: String = fields
        .filter(|(name, value)| {
            !["time", "event", "number"].contains(&name.as_str()) && !value.is_null()
        })
        .map(|(name, value)| format!("  {name} {}", text(value)))
        .collect();
    let time = event["time"].as_str().unwrap_or("-");
    format!("{time:<24}  {:<15}{rest}", text(&event["event"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_line_for_people() {
        let event = json!({
            "number": 7,
            "time": "2025-11-21T18:00:00.123Z",
            "event": "check",
            "address": "10.2.0.11:8080",
            "state": "up",
            "reason": null,
        });
        assert_eq!(
            render(&event),
            "2025-11-21T18:00:00.123Z  check            address 10.2.0.11:8080  state up"
        );
    }
}
