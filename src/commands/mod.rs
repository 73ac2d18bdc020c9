//! What each command does. The only rooms that print to standard output.

pub(crate) mod apply;
pub(crate) mod change;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod drain;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod flows;
pub(crate) mod flush;
pub(crate) mod man;
pub(crate) mod reload;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod top;

use std::path::Path;
use std::process::ExitCode;

use ringgate_config::Parsed;

use crate::control::probe::trust;

/// Exit status of a configuration that is refused, as the contract with operators says.
pub(crate) const REFUSED: u8 = 2;

/// Reads and validates a configuration file. Warnings and errors go to standard error.
///
/// # Errors
///
/// The exit status, after everything that is wrong was printed.
pub(crate) fn load(file: &Path) -> Result<Parsed, ExitCode> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        eprintln!("{name}: cannot be read: {error}");
        ExitCode::from(REFUSED)
    })?;
    let parsed = ringgate_config::parse(&name, &text).map_err(|problems| {
        eprintln!("{problems}");
        ExitCode::from(REFUSED)
    })?;
    for warning in &parsed.warnings {
        eprintln!("{warning}");
    }
    let problems = trust::problems(&parsed.model, &parsed.mentions);
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() {
        Ok(parsed)
    } else {
        Err(ExitCode::from(REFUSED))
    }
}
