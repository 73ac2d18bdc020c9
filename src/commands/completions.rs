//! `ringgate completions SHELL`: what a shell needs to complete this command line. For packages.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::cli::{Cli, Completions};

/// Runs the command.
pub(crate) fn run(args: &Completions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ringgate", &mut script);
    match io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringgate completions: {error}");
            ExitCode::FAILURE
        }
    }
}
