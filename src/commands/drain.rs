//! `ringgate drain`: no new flows for a backend, and with `--wait` until those it has are over.
#![expect(clippy::print_stdout, reason = "printing is what this command is for")]

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde_json::Value;

use super::change::{ask, render};
use crate::cli::Drain;
use crate::control::client;

/// Exit status when the time to wait is up and flows are left.
const FLOWS_LEFT: u8 = 3;

/// Runs the command.
pub(crate) fn run(args: &Drain) -> ExitCode {
    match ask("drain", &args.backend, &[]) {
        Ok(answer) if args.backend.json => println!("{answer}"),
        Ok(answer) => println!("{}", render(&answer)),
        Err(error) => return complain(&error),
    }
    if args.wait || args.timeout.is_some() {
        return wait(args);
    }
    ExitCode::SUCCESS
}

fn complain(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("ringgate drain: {error}");
    ExitCode::FAILURE
}

/// Shows how many flows are left until there is none.
fn wait(args: &Drain) -> ExitCode {
    let seconds = args.timeout.map(|timeout| timeout.as_secs().to_string());
    let mut parameters = vec![
        ("service", args.backend.service.as_str()),
        ("backend", args.backend.backend.as_str()),
    ];
    if let Some(seconds) = &seconds {
        parameters.push(("timeout", seconds));
    }
    let target = client::target("/v1/drain", &parameters);
    let pieces = match client::follow(&args.backend.admin.admin, &target) {
        Ok(pieces) => pieces,
        Err(error) => return complain(&error),
    };
    let mut shown = None;
    for piece in pieces {
        let line = piece.and_then(|piece| Ok(serde_json::from_slice::<Value>(&piece)?));
        let line = match line {
            Ok(line) => line,
            Err(error) => return complain(&error),
        };
        let left = line["flows"].as_u64();
        // Said again only when it has changed.
        if shown != Some(left) || line["outcome"].is_string() {
            if let Err(error) = show(&line, args.backend.json) {
                return complain(&error);
            }
            shown = Some(left);
        }
        match line["outcome"].as_str() {
            None => {}
            Some("drained") => return ExitCode::SUCCESS,
            Some("timed-out") => return ExitCode::from(FLOWS_LEFT),
            Some(_) => return ExitCode::FAILURE,
        }
    }
    complain(&io::Error::other("ringgate has stopped meanwhile"))
}

fn show(line: &Value, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        return writeln!(out, "{line}");
    }
    let text = match line["outcome"].as_str() {
        None => format!("{} flows left", line["flows"]),
        Some("drained") => "drained: no flow is left".to_owned(),
        Some("timed-out") => format!("the time is up: {} flows left", line["flows"]),
        Some(_) => format!(
            "{} flows were left when the backend was taken out of the configuration",
            line["flows"]
        ),
    };
    // On a terminal one line counts down.
    if out.is_terminal() {
        let end = if line["outcome"].is_string() {
            "\n"
        } else {
            ""
        };
        write!(out, "\r\x1b[K{text}{end}")?;
        return out.flush();
    }
    writeln!(out, "{text}")
}
