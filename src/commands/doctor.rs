//! `ringgate doctor`: everything that `run` would look at, and a few things more.
#![expect(clippy::print_stdout, reason = "printing is what this command is for")]

use std::process::ExitCode;

use crate::cli::Doctor;
use crate::commands::load;
use crate::control::netlink;
use crate::preflight::{Facts, Level, judge};

/// Runs the command.
pub(crate) fn run(args: &Doctor) -> ExitCode {
    let model = match args.config.as_deref().map(load).transpose() {
        Ok(parsed) => parsed.map(|parsed| parsed.model),
        Err(code) => return code,
    };
    let watcher = match netlink::settled() {
        Ok(watcher) => watcher,
        Err(error) => {
            eprintln!("ringgate doctor: {error}");
            return ExitCode::FAILURE;
        }
    };
    let findings = judge(
        model.as_ref(),
        &Facts::gather(model.as_ref(), watcher.network()),
    );
    for finding in &findings {
        println!("{finding}");
    }
    let count = |level| {
        findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    let (refusals, warnings) = (count(Level::Refusal), count(Level::Warning));
    println!("\n{refusals} to repair, {warnings} to know about");
    if refusals > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
