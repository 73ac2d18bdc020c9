//! `ringgate apply FILE`: have a running balancer take a configuration, or tell what it would do.
#![expect(clippy::print_stdout, reason = "printing is what this command is for")]

use std::process::ExitCode;

use crate::cli::Apply;
use crate::commands::{REFUSED, diff};
use crate::control::api::propose;
use crate::control::client::{self, ClientError};

/// Runs the command.
pub(crate) fn run(args: &Apply) -> ExitCode {
    let name = args.file.display().to_string();
    let text = match std::fs::read(&args.file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{name}: cannot be read: {error}");
            return ExitCode::from(REFUSED);
        }
    };
    let path = if args.dry_run {
        "/v1/diff"
    } else {
        "/v1/apply"
    };
    let target = client::target(path, &[("name", &name)]);
    match client::post(&args.admin.admin, &target, &text) {
        Ok(plan) if args.json => println!("{plan:#}"),
        Ok(plan) => {
            print!("{}", diff::render(&plan));
            match plan["generation"].as_u64() {
                Some(generation) => println!("\nin force, generation {generation}"),
                None => println!("\nnothing was changed: this was only asked for"),
            }
        }
        // Line by line with their places, as `check` prints them.
        Err(ClientError::Refused { status, message }) if status == propose::REFUSED => {
            eprintln!("{message}");
            return ExitCode::from(REFUSED);
        }
        Err(error) => {
            eprintln!("ringgate apply: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
