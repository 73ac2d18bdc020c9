//! `ringgate man DIR`: the manual pages, one for each command and one for the configuration file. For packages.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::cli::{Cli, Man};
use crate::manual;

/// Runs the command.
pub(crate) fn run(args: &Man) -> ExitCode {
    let directory = &args.directory;
    match write(directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let directory = directory.display();
            eprintln!("ringgate man: cannot write into {directory}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command(), directory)?;
    std::fs::write(directory.join("ringgate.toml.5"), manual::page())
}
