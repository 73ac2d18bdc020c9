//! `ringgate reload`: have a running balancer read its configuration file again, and tell what came
//! of it; and `ringgate save`: have it write what was changed into that file.
#![expect(clippy::print_stdout, reason = "printing is what this command is for")]

use std::process::ExitCode;

use serde_json::Value;

use super::{REFUSED, diff};
use crate::cli::Ask;
use crate::control::client::{self, ClientError};

/// Runs `reload`.
pub(crate) fn run(args: &Ask) -> ExitCode {
    tell("reload", args, |plan| {
        format!("{}\nreloaded", diff::render(plan))
    })
}

/// Runs `save`.
pub(crate) fn save(args: &Ask) -> ExitCode {
    tell("save", args, |answer| {
        let file = answer["file"].as_str().unwrap_or("-");
        match answer["backends"].as_u64() {
            Some(0) => format!("nothing to save: {file} says all that holds"),
            Some(number) => format!("saved: {number} backends changed in {file}"),
            None => format!("saved: {file}"),
        }
    })
}

fn tell(what: &str, args: &Ask, render: impl Fn(&Value) -> String) -> ExitCode {
    match client::post(&args.admin.admin, &format!("/v1/{what}"), b"") {
        Ok(answer) if args.json => println!("{answer:#}"),
        Ok(answer) => println!("{}", render(&answer)),
        Err(ClientError::Refused {
            status: 422,
            message,
        }) => {
            eprintln!("ringgate {what}: {message}");
            return ExitCode::from(REFUSED);
        }
        Err(error) => {
            eprintln!("ringgate {what}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
